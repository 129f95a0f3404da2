//! A mark on the whole filesystem of the world: hears what happens where no object of the scenario
//! is, such as in a directory that a restorer makes for itself.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use cr::sys::fanotify::{Target, fanotify_init, fanotify_mark, flush};
use cr::sys::handle;
use fsnotify::event::fanotify::{Events, Record};
use fsnotify::fanotify::{InitFlags, Mask as FanotifyMask};
use fsnotify::handle::FileHandle;
use fsnotify::inotify::Mask;
use scenario::{Bystander as Heard, Bytes};

use crate::survey::Names;

/// `FAN_MARK_ADD | FAN_MARK_FILESYSTEM`.
const ON_FILESYSTEM: u32 = 0x1 | 0x100;

/// A fanotify group with one filesystem mark.
#[derive(Debug)]
pub(super) struct FilesystemMark {
    group: OwnedFd,
    /// Directories that have an inotify watch of the bystander, which hears of them in order.
    watched: HashSet<FileHandle>,
}

impl FilesystemMark {
    /// None where there can be no such group.
    pub(super) fn new() -> Option<Self> {
        let flags = InitFlags::NONBLOCK.0
            | InitFlags::CLOEXEC.0
            | InitFlags::REPORT_FID.0
            | InitFlags::REPORT_DIR_FID.0
            | InitFlags::REPORT_NAME.0;
        let group = fanotify_init(flags, 0).ok()?;
        let watched = HashSet::new();
        Some(Self { group, watched })
    }

    /// Makes the mark. It hears nothing where the caller may not have one.
    pub(super) fn attach(&mut self, names: &Names) {
        let mask = u64::from(Mask::ALL_EVENTS.0) | FanotifyMask::ONDIR.0;
        if let Ok(world) = CString::new(names.world().as_os_str().as_bytes()) {
            let _ = fanotify_mark(&self.group, ON_FILESYSTEM, mask, Target::Path(&world));
        }
        let candidates = names.candidates().iter();
        let handles = candidates.filter_map(|name| handle::of_path(&names.world().join(name)).ok());
        self.watched = handles.collect();
    }

    pub(super) fn stop_listening(&self) -> Result<(), String> {
        let _ = flush(&self.group);
        // What came since is not of the cut.
        self.drain().map(drop)
    }

    /// What was heard in directories that are not watched otherwise.
    pub(super) fn drain(&self) -> Result<Vec<Heard>, String> {
        let mut heard = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n_read = match nix::unistd::read(&self.group, &mut buffer) {
                Err(nix::errno::Errno::EAGAIN) | Ok(0) => return Ok(heard),
                Ok(n_read) => n_read,
                Err(errno) => return Err(format!("bystander: read its filesystem mark: {errno}")),
            };
            for event in Events::new(&buffer[..n_read]) {
                let event = event.map_err(|error| format!("bystander: {error}"))?;
                if event.mask.contains(FanotifyMask::Q_OVERFLOW) {
                    return Err("bystander: its own queue overflowed".to_owned());
                }
                let Some((directory, name)) = event.records().find_map(|record| match record {
                    Record::DfidName(fid, name) => Some((fid.handle, name)),
                    _ => None,
                }) else {
                    continue;
                };
                if !self.watched.contains(&directory) {
                    heard.push(Heard {
                        watched: None,
                        // The low bits of both masks are the kernel's `FS_*` (fsnotify.h).
                        mask: Mask(u32::try_from(event.mask.0 & 0xffff_ffff).expect("32 bits")),
                        name: Bytes::from(name),
                    });
                }
            }
        }
    }
}
