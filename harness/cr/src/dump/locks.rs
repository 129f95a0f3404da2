//! One dumper a subject, wherever the images go: who takes something from a process holds flock(2) on
//! its /proc/PID/fd, an inode that all who look into the same procfs share, and that only who may look
//! at the descriptors of the process can open. The kernel frees it at any death.
//!
//! It does not cover a dumper that sees the process through another procfs, from another container.

use std::collections::HashMap;
use std::fs::{File, TryLockError};

use nix::unistd::Pid;

use super::error::{DumpError, DumpErrorKind};

#[derive(Debug, Default)]
pub(super) struct Locks(HashMap<Pid, File>);

impl Locks {
    /// Locks a process, if that is not done.
    ///
    /// # Errors
    ///
    /// That another has, by name.
    pub(super) fn take(&mut self, pid: Pid) -> Result<(), DumpError> {
        if self.0.contains_key(&pid) {
            return Ok(());
        }
        let path = format!("/proc/{pid}/fd");
        let folder = File::open(&path).map_err(|error| DumpError::io("open", &path, &error))?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("another dumper is at work on process {pid}");
                return Err(DumpError::new("", DumpErrorKind::Refused(what)));
            }
            Err(TryLockError::Error(error)) => return Err(DumpError::io("flock", &path, &error)),
        }
        self.0.insert(pid, folder);
        Ok(())
    }
}
