//! What a test dumps: this program in another role, stopped by itself.

use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};

use libtest_mimic::Failed;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Killed when dropped, unless it has ended.
pub(crate) struct Parked(Child);

impl Parked {
    /// Starts this program with these arguments, and waits until it stops.
    pub(crate) fn start(arguments: &[&OsStr]) -> Result<Self, Failed> {
        let child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let parked = Self(child);
        match waitpid(parked.pid(), Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(parked),
            other => Err(format!("the subject did not stop: {other:?}").into()),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
