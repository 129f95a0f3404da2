//! The cursor of an inotify group: the wd that the next new watch will get.
//!
//! The kernel shows it nowhere. It is read off by making a watch and removing it, which leaves one
//! event and a cursor one further; both are put right again.
//!
//! If the cursor itself (`idr_next` of the group) points at a wd in use, the number found is that
//! of the next free one. The two differ in effect only if the wd in use is freed before another
//! watch is made.

use std::os::fd::{BorrowedFd, OwnedFd};

use fsnotify::Wd;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::grown::Grown;
use crate::sys::watch;

/// An inode to watch for a moment that nobody else can have.
#[derive(Debug)]
pub struct Probe {
    target: OwnedFd,
}

impl Probe {
    /// # Errors
    ///
    /// The errno of memfd_create(2).
    pub fn new() -> Result<Self, Errno> {
        let target = memfd_create(c"probe", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self { target })
    }

    /// Has a watch with this number end: leaves its `IN_IGNORED` in the queue.
    ///
    /// # Errors
    ///
    /// The errno of inotify_add_watch(2), or `EBUSY` if there is a watch with this number.
    pub(super) fn end(&self, group: BorrowedFd<'_>, wd: Wd) -> Result<(), Errno> {
        watch::attach(group, wd, watch::NO_EVENT, &self.target)?;
        watch::rm_watch(group, wd)
    }

    /// The wd that the next new watch gets. Leaves the `IN_IGNORED` of that wd in the queue, which
    /// should have room for it: read it off, and then [`set`] the cursor to its place again.
    ///
    /// # Errors
    ///
    /// The errno of inotify_add_watch(2): `ENOSPC` where the user has as many watches as he may.
    pub fn find(&self, group: BorrowedFd<'_>) -> Result<Wd, Errno> {
        let wd = watch::add_watch_on(group, &self.target, watch::NO_EVENT)?;
        watch::rm_watch(group, wd)?;
        Ok(wd)
    }
}

/// Finds the wd that the next new watch of a group without unread events gets, and leaves the
/// group as it was. Events that came meanwhile are appended to `late`.
///
/// # Errors
///
/// The errno of the first call that failed.
pub fn probe(group: BorrowedFd<'_>, late: &mut Vec<u8>) -> Result<Wd, Errno> {
    let wd = Probe::new()?.find(group)?;
    let came = super::drain(group)?;
    let own = super::record::of_watch(&came, 0, wd);
    late.extend(Grown::of_parts(&came, &own, &[], usize::MAX).into_bytes());
    set(group, wd)?;
    Ok(wd)
}

/// Makes the next new watch get this wd, or the next free one after it. The last thing to be done
/// to a restored group: each new watch moves the cursor.
///
/// # Errors
///
/// The errno of ioctl(2): `ENOTTY` on a kernel without `CONFIG_CHECKPOINT_RESTORE`.
pub fn set(group: BorrowedFd<'_>, wd: Wd) -> Result<(), Errno> {
    watch::set_next_wd(group, wd)
}
