//! fanotify calls on owned and borrowed descriptors.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::getpid;

use super::actor::end_with;
use super::clone::{Child, clone3, wait};
use super::tmpfs::{capabilities, set_capabilities};

/// The subject's answer to a permission event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// `FAN_ALLOW`.
    Allow,
    /// `FAN_DENY`.
    Deny,
    /// `FAN_ALLOW|FAN_AUDIT`: refused by a group without `FAN_ENABLE_AUDIT`.
    AllowAudited,
}

/// What a mark is put on.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// What the path leads to; a last symbolic link is followed unless the flags forbid it.
    Path(&'a CStr),
    /// What the descriptor refers to: the only way to a mount namespace. A descriptor opened with
    /// `O_PATH` is refused by the kernel (`EBADF`); give the path `/proc/self/fd/N` instead.
    Descriptor(BorrowedFd<'a>),
}

/// fanotify_init(2).
///
/// # Errors
///
/// The errno of the call: `EPERM` for what an unprivileged user may not ask for, `EINVAL` for a
/// flag that this kernel does not know.
pub fn fanotify_init(flags: u32, event_flags: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: two plain numbers.
    let fd = unsafe { libc::fanotify_init(flags, event_flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// fanotify_mark(2).
///
/// # Errors
///
/// The errno of the call.
pub fn fanotify_mark(
    group: impl AsFd,
    flags: u32,
    mask: u64,
    target: Target<'_>,
) -> Result<(), Errno> {
    let (dir, path) = match target {
        Target::Path(path) => (libc::AT_FDCWD, path.as_ptr()),
        Target::Descriptor(fd) => (fd.as_raw_fd(), std::ptr::null()),
    };
    // SAFETY: `path` is null or a C string that outlives the call; the rest are plain numbers.
    let returned =
        unsafe { libc::fanotify_mark(group.as_fd().as_raw_fd(), flags, mask, dir, path) };
    Errno::result(returned).map(drop)
}

/// fanotify_mark(2) `FAN_MARK_FLUSH`: removes every mark that may hold a process up. Where the
/// group cannot have a type of mark (`EINVAL`, `EPERM`) there is none to remove.
///
/// # Errors
///
/// The errno of the call.
pub fn flush(group: impl AsFd) -> Result<(), Errno> {
    for kind in [
        libc::FAN_MARK_INODE,
        libc::FAN_MARK_MOUNT,
        libc::FAN_MARK_FILESYSTEM,
    ] {
        let flags = libc::FAN_MARK_FLUSH | kind;
        match fanotify_mark(&group, flags, 0, Target::Path(c"/")) {
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// write(2) of a `struct fanotify_response`: answers the permission event whose descriptor had
/// the number `event_fd` in the process that read it.
///
/// # Errors
///
/// The errno of the call: `EINVAL` for an answer that the group does not take, `ENOENT` when no
/// event with this number waits.
pub fn respond(group: impl AsFd, event_fd: i32, response: Response) -> Result<(), Errno> {
    let word: u32 = match response {
        Response::Allow => libc::FAN_ALLOW,
        Response::Deny => libc::FAN_DENY,
        Response::AllowAudited => libc::FAN_ALLOW | libc::FAN_AUDIT,
    };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&event_fd.to_ne_bytes());
    bytes[4..].copy_from_slice(&word.to_ne_bytes());
    nix::unistd::write(group, &bytes).map(drop)
}

/// An event of a group that reports descriptors.
#[derive(Debug)]
pub struct Received {
    pub mask: u64,
    /// In our pid namespace; 0 where the process is in none that we see.
    pub pid: i32,
    /// What the kernel opened for us; none in an overflow event.
    pub fd: Option<OwnedFd>,
}

/// read(2) of one event, from a group without `FAN_REPORT_*`: there an event is as long as its
/// metadata. Each event has a descriptor that has to go somewhere, hence one at a time.
///
/// # Errors
///
/// The errno of the call: `EAGAIN` when there is none, `EINVAL` if records come with the event,
/// and whatever kept the kernel from opening the file, in which case the event is gone.
pub fn read_event(group: impl AsFd) -> Result<Received, Errno> {
    let mut buffer = [0; size_of::<libc::fanotify_event_metadata>()];
    let n_read = nix::unistd::read(group, &mut buffer)?;
    if n_read != buffer.len() {
        return Err(Errno::EIO);
    }
    let field = |at: usize| i32::from_ne_bytes(buffer[at..at + 4].try_into().expect("4 bytes"));
    let fd = field(16);
    Ok(Received {
        mask: u64::from_ne_bytes(buffer[8..16].try_into().expect("8 bytes")),
        pid: field(20),
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        fd: (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }),
    })
}

/// statfs(2) `f_fsid`: the number of a filesystem in event records.
///
/// # Errors
///
/// The errno of the call.
pub fn fsid(path: &Path) -> Result<[u32; 2], Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: a C string, and room for a struct statfs; both outlive the call.
    Errno::result(unsafe { libc::statfs(path.as_ptr(), found.as_mut_ptr()) })?;
    // SAFETY: the call succeeded; fsid_t is two ints, whatever their names.
    Ok(unsafe { std::mem::transmute::<libc::fsid_t, [u32; 2]>(found.assume_init().f_fsid) })
}

/// close(2) of a number that came in an event record.
pub fn close_number(fd: i32) {
    // SAFETY: a plain number. The kernel made it for the reader of the event, and the decoder
    // gives numbers, not owned descriptors.
    unsafe { libc::close(fd) };
}

/// A process that makes one call and ends: who makes an event that is not ours. Dropping it kills and
/// reaps it, even while a permission event blocks it.
#[derive(Debug)]
pub struct Opener {
    pid: i32,
    /// Readable once the process has ended.
    pidfd: OwnedFd,
    /// The pid may be another's by now.
    reaped: bool,
}

/// Starts an [`Opener`]. Works in a process with several threads too.
///
/// # Errors
///
/// The errno of clone3(2).
pub fn open_elsewhere(path: &CStr, flags: i32) -> Result<Opener, Errno> {
    elsewhere(|| {
        // SAFETY: `path` is a C string, part of the memory that was copied; the descriptor, which is
        // ours too, has no owner yet.
        unsafe {
            let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0);
            if fd >= 0 {
                libc::syscall(libc::SYS_close, fd);
            }
            fd
        }
    })
}

/// Starts a process that reads nothing, no byte at all, from a descriptor of ours: permission
/// listeners are asked, and that is all that happens.
///
/// # Errors
///
/// The errno of clone3(2).
pub fn read_nothing_elsewhere(file: impl AsFd) -> Result<Opener, Errno> {
    let fd = file.as_fd().as_raw_fd();
    elsewhere(|| {
        let mut none = [0_u8; 1];
        // SAFETY: no byte is written to the buffer.
        unsafe { libc::syscall(libc::SYS_read, fd, none.as_mut_ptr(), 0) }
    })
}

/// Starts a process that makes one system call and ends. It has our descriptors, not copies: to make and
/// to close as many as there may be costs more than the call.
fn elsewhere(call: impl FnOnce() -> libc::c_long) -> Result<Opener, Errno> {
    let parent = getpid();
    let child = Child {
        shares_descriptors: true,
        ..Child::default()
    };
    // SAFETY: the child makes system calls alone.
    let Some((pid, pidfd)) = (unsafe { clone3(child) })? else {
        // SAFETY: only system calls, no lock and no allocation, so it does not matter what the
        // other threads of the parent held.
        unsafe {
            // Left alone it would wait for ever: it holds the group that should answer, too.
            end_with(parent);
            let returned = call();
            libc::syscall(libc::SYS_exit_group, libc::c_int::from(returned < 0));
            libc::abort()
        }
    };
    Ok(Opener {
        pid,
        pidfd,
        reaped: false,
    })
}

impl Opener {
    /// Its pid in our pid namespace, as events name it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end.
    pub fn finish(mut self) {
        wait(self.pid);
        self.reaped = true;
    }
}

impl AsFd for Opener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        let pidfd = self.pidfd.as_raw_fd();
        // SAFETY: plain numbers and a null pointer, which stands for no information.
        unsafe {
            let none = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, none, 0);
        }
        wait(self.pid);
    }
}

/// Runs `action` without `CAP_SYS_ADMIN` in the effective set of the calling thread: the kernel
/// then sees an unprivileged caller.
///
/// # Errors
///
/// The errno of capset(2) that would have dropped or given back the capability.
pub fn without_sys_admin<T>(action: impl FnOnce() -> T) -> Result<T, Errno> {
    const CAP_SYS_ADMIN: u32 = 1 << 21;
    let before = capabilities()?;
    let mut reduced = before;
    reduced[0].effective &= !CAP_SYS_ADMIN;
    set_capabilities(&reduced)?;
    let result = action();
    set_capabilities(&before)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any user may make such a group.
    fn group() -> OwnedFd {
        fanotify_init(libc::FAN_REPORT_FID | libc::FAN_NONBLOCK, 0).unwrap()
    }

    #[test]
    fn a_mark_hears_an_opener() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = std::ffi::CString::new(file.path().to_str().unwrap()).unwrap();
        let group = group();
        let target = Target::Path(&path);
        fanotify_mark(&group, libc::FAN_MARK_ADD, libc::FAN_OPEN, target).unwrap();
        let unread = || super::super::inspect::unread(&group).unwrap();
        assert_eq!(unread(), 0);
        open_elsewhere(&path, libc::O_RDONLY).unwrap().finish();
        assert_eq!(unread(), 24);
    }

    #[test]
    fn whoever_has_lost_its_parent_makes_no_call() {
        let (heard, told) = nix::unistd::pipe().unwrap();
        // SAFETY: one byte is read, from memory that outlives the call.
        let say = || unsafe {
            let n_written = libc::write(told.as_raw_fd(), b"x".as_ptr().cast(), 1);
            libc::c_long::from(n_written == 1)
        };
        let stranger = nix::unistd::Pid::from_raw(-1);
        let orphan = elsewhere(|| {
            // SAFETY: nothing is left undone.
            unsafe { end_with(stranger) };
            say()
        });
        orphan.unwrap().finish();
        elsewhere(say).unwrap().finish();
        drop(told);
        assert_eq!(nix::unistd::read(&heard, &mut [0; 8]), Ok(1));
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_enoent() {
        assert_eq!(
            respond(group(), i32::MAX, Response::Allow),
            Err(Errno::ENOENT)
        );
        assert_eq!(
            respond(group(), i32::MAX, Response::AllowAudited),
            Err(Errno::EINVAL)
        );
    }

    #[test]
    fn without_sys_admin_only_an_unprivileged_group_is_made() {
        let init = || fanotify_init(libc::FAN_CLASS_NOTIF, 0).map(drop);
        let before = init();
        assert_eq!(without_sys_admin(init), Ok(Err(Errno::EPERM)));
        assert_eq!(init(), before);
    }
}
