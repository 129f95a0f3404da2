//! inotify on borrowed groups: the calls of a restorer, typed.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use fsnotify::Wd;
use fsnotify::inotify::Mask;
use nix::errno::Errno;

use super::path::c_path;
use super::raw;

/// Selects no event: accepted by inotify_add_watch(2), and fdinfo shows mask 0. No event can be selected
/// by this bit.
pub const NO_EVENT: Mask = Mask(libc::IN_IGNORED);

/// What to ask inotify_add_watch(2) for to get a new watch that has this mask in fdinfo. A second watch of
/// one inode would be an update of the first, so that is refused.
#[must_use]
pub fn to_attach(mask: Mask) -> Mask {
    let mask = if mask.0 == 0 { NO_EVENT } else { mask };
    Mask(mask.0 | libc::IN_MASK_CREATE)
}

/// Adds a watch under this number, with the mask that fdinfo is to show.
///
/// # Errors
///
/// The errno of the calls; `EBUSY` if the number is taken, and then there is no watch more.
pub fn attach(group: BorrowedFd<'_>, wd: Wd, mask: Mask, target: impl AsFd) -> Result<(), Errno> {
    set_next_wd(group, wd)?;
    let got = add_watch_on(group, target, to_attach(mask))?;
    if got == wd {
        return Ok(());
    }
    rm_watch(group, got)?;
    Err(Errno::EBUSY)
}

/// inotify_init1(2). The descriptor is close-on-exec and does not block.
///
/// # Errors
///
/// The errno of the call: `EMFILE` when the user has too many groups.
pub fn init() -> Result<OwnedFd, Errno> {
    // SAFETY: a plain number.
    let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// inotify_add_watch(2) on a path of bytes.
///
/// # Errors
///
/// The errno of the call; `EINVAL` for a path with a NUL in it.
pub fn add_watch(group: BorrowedFd<'_>, path: &[u8], mask: Mask) -> Result<Wd, Errno> {
    add_watch_at(group, &c_path(path)?, mask)
}

/// inotify_add_watch(2).
///
/// # Errors
///
/// The errno of the call.
pub fn add_watch_at(group: BorrowedFd<'_>, path: &CStr, mask: Mask) -> Result<Wd, Errno> {
    let number = raw::inotify_add_watch(group.as_raw_fd(), path, mask.0)?;
    let number = i32::try_from(number).expect("the call returns an int");
    Ok(Wd::new(number).expect("idr_alloc_cyclic starts at 1"))
}

/// inotify_add_watch(2) on what an open descriptor refers to, named or not.
///
/// # Errors
///
/// The errno of the call; `ENOENT` when /proc is not mounted.
pub fn add_watch_on(group: BorrowedFd<'_>, target: impl AsFd, mask: Mask) -> Result<Wd, Errno> {
    let path = format!("/proc/self/fd/{}", target.as_fd().as_raw_fd());
    add_watch(group, path.as_bytes(), mask)
}

/// inotify_rm_watch(2).
///
/// # Errors
///
/// The errno of the call: `EINVAL` when the group has no such watch.
pub fn rm_watch(group: BorrowedFd<'_>, wd: Wd) -> Result<(), Errno> {
    raw::inotify_rm_watch(group.as_raw_fd(), wd.number()).map(drop)
}

/// ioctl(2) `INOTIFY_IOC_SETNEXTWD`: where the search for the next free wd begins.
///
/// # Errors
///
/// The errno of the call: `ENOTTY` on a kernel without `CONFIG_CHECKPOINT_RESTORE`.
pub fn set_next_wd(group: BorrowedFd<'_>, wd: Wd) -> Result<(), Errno> {
    raw::inotify_set_next_wd(group.as_raw_fd(), wd.number()).map(drop)
}

/// ioctl(2) `FIONREAD`: unread bytes. Takes time linear in the length of the queue.
///
/// # Errors
///
/// The errno of the call.
pub fn unread(group: BorrowedFd<'_>) -> Result<usize, Errno> {
    let bytes = raw::unread(group.as_raw_fd())?;
    Ok(usize::try_from(bytes).expect("inotify_ioctl counts upwards from 0"))
}

/// read(2): whole events only, as many as fit.
///
/// # Errors
///
/// The errno of the call: `EAGAIN` when there is nothing to read, `EINVAL` when not even the
/// first event fits.
pub fn read(group: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    let size = raw::read(group.as_raw_fd(), buffer)?;
    Ok(usize::try_from(size).expect("a size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_watch_gets_the_number_that_was_set() {
        let group = init().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let wd = Wd::new(40).unwrap();
        set_next_wd(group.as_fd(), wd).unwrap();
        let path = directory.path().to_str().unwrap();
        let mask = Mask::ALL_EVENTS;
        assert_eq!(add_watch(group.as_fd(), path.as_bytes(), mask), Ok(wd));
        rm_watch(group.as_fd(), wd).unwrap();
        assert_eq!(unread(group.as_fd()), Ok(16));
        let mut buffer = [0; 64];
        assert_eq!(read(group.as_fd(), &mut buffer), Ok(16));
        assert_eq!(rm_watch(group.as_fd(), wd), Err(Errno::EINVAL));
    }

    #[test]
    fn a_watch_finds_its_target_by_descriptor() {
        let group = init().unwrap();
        let file = tempfile::tempfile().unwrap();
        let wd = add_watch_on(group.as_fd(), &file, Mask::ALL_EVENTS).unwrap();
        assert_eq!(wd.number(), 1);
    }
}
