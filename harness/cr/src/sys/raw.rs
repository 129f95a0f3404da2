//! System calls by descriptor number, as a program under test makes them.
//!
//! The subject owns whatever numbers its scenario gave it, closes them when the scenario says so
//! and may use a number that is not open at all. Owned descriptor types would get in its way, so
//! these calls take plain numbers and give back what the kernel returned. Nothing else in the
//! project uses them.

use std::ffi::CStr;

use nix::errno::Errno;

/// What the kernel returned, or the errno it failed with.
pub type Returned = Result<i64, Errno>;

/// Declares thin wrappers: a safe signature, and the libc call that it stands for.
macro_rules! calls {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) => $call:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// The errno of the call.
            pub fn $name($($arg: $type),*) -> Returned {
                // SAFETY: every pointer given comes from a reference or slice argument, so it is
                // valid for the length passed beside it until the call returns, and no call
                // below keeps it. All other arguments are plain numbers: a wrong one is an errno.
                let returned = unsafe { $call };
                Errno::result(returned).map(Into::into)
            }
        )*
    };
}

calls! {
    /// open(2).
    fn open(path: &CStr, flags: i32, mode: u32) => libc::open(path.as_ptr(), flags, mode);
    /// openat(2).
    fn openat(dir: i32, path: &CStr, flags: i32, mode: u32)
        => libc::openat(dir, path.as_ptr(), flags, mode);
    /// close(2).
    fn close(fd: i32) => libc::close(fd);
    /// dup(2).
    fn dup(fd: i32) => libc::dup(fd);
    /// dup2(2).
    fn dup2(fd: i32, to: i32) => libc::dup2(fd, to);
    /// dup3(2).
    fn dup3(fd: i32, to: i32, flags: i32) => libc::dup3(fd, to, flags);
    /// mkdir(2).
    fn mkdir(path: &CStr, mode: u32) => libc::mkdir(path.as_ptr(), mode);
    /// rmdir(2).
    fn rmdir(path: &CStr) => libc::rmdir(path.as_ptr());
    /// link(2).
    fn link(from: &CStr, to: &CStr) => libc::link(from.as_ptr(), to.as_ptr());
    /// linkat(2).
    fn linkat(from_dir: i32, from: &CStr, to_dir: i32, to: &CStr, flags: i32)
        => libc::linkat(from_dir, from.as_ptr(), to_dir, to.as_ptr(), flags);
    /// symlink(2).
    fn symlink(target: &CStr, path: &CStr) => libc::symlink(target.as_ptr(), path.as_ptr());
    /// unlink(2).
    fn unlink(path: &CStr) => libc::unlink(path.as_ptr());
    /// unlinkat(2).
    fn unlinkat(dir: i32, path: &CStr, flags: i32) => libc::unlinkat(dir, path.as_ptr(), flags);
    /// mknodat(2) without a device.
    fn mknodat(dir: i32, path: &CStr, mode: u32) => libc::mknodat(dir, path.as_ptr(), mode, 0);
    /// mkdirat(2).
    fn mkdirat(dir: i32, path: &CStr, mode: u32) => libc::mkdirat(dir, path.as_ptr(), mode);
    /// fchmodat(2) without flags.
    fn fchmodat(dir: i32, path: &CStr, mode: u32) => libc::fchmodat(dir, path.as_ptr(), mode, 0);
    /// renameat(2).
    fn renameat(from_dir: i32, from: &CStr, to_dir: i32, to: &CStr)
        => libc::renameat(from_dir, from.as_ptr(), to_dir, to.as_ptr());
    /// rename(2).
    fn rename(from: &CStr, to: &CStr) => libc::rename(from.as_ptr(), to.as_ptr());
    /// renameat2(2).
    fn renameat2(from_dir: i32, from: &CStr, to_dir: i32, to: &CStr, flags: u32)
        => libc::renameat2(from_dir, from.as_ptr(), to_dir, to.as_ptr(), flags);
    /// mknod(2). `device` as `makedev` makes it; 0 for all but device files.
    fn mknod(path: &CStr, mode: u32, device: u64) => libc::mknod(path.as_ptr(), mode, device);
    /// chmod(2).
    fn chmod(path: &CStr, mode: u32) => libc::chmod(path.as_ptr(), mode);
    /// fchmod(2).
    fn fchmod(fd: i32, mode: u32) => libc::fchmod(fd, mode);
    /// chown(2).
    fn chown(path: &CStr, uid: u32, gid: u32) => libc::chown(path.as_ptr(), uid, gid);
    /// fchown(2).
    fn fchown(fd: i32, uid: u32, gid: u32) => libc::fchown(fd, uid, gid);
    /// truncate(2).
    fn truncate(path: &CStr, length: i64) => libc::truncate(path.as_ptr(), length);
    /// ftruncate(2).
    fn ftruncate(fd: i32, length: i64) => libc::ftruncate(fd, length);
    /// fallocate(2).
    fn fallocate(fd: i32, mode: i32, offset: i64, length: i64)
        => libc::fallocate(fd, mode, offset, length);
    /// lseek(2).
    fn lseek(fd: i32, offset: i64, whence: i32) => libc::lseek(fd, offset, whence);
    /// utimensat(2). Seconds and nanoseconds of access and modification time; the nanoseconds may
    /// be `UTIME_NOW` or `UTIME_OMIT`.
    /// Without a path, of what `dir` refers to.
    fn utimensat(dir: i32, path: Option<&CStr>, times: &[(i64, i64); 2], flags: i32)
        => libc::syscall(
            libc::SYS_utimensat,
            dir,
            path.map_or(std::ptr::null(), CStr::as_ptr),
            times.map(timespec).as_ptr(),
            flags,
        );
    /// setxattr(2).
    fn setxattr(path: &CStr, name: &CStr, value: &[u8], flags: i32)
        => libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags);
    /// removexattr(2).
    fn removexattr(path: &CStr, name: &CStr) => libc::removexattr(path.as_ptr(), name.as_ptr());
    /// memfd_create(2).
    fn memfd_create(name: &CStr, flags: u32) => libc::memfd_create(name.as_ptr(), flags);
    /// eventfd2(2).
    fn eventfd2(initial: u32, flags: i32) => libc::eventfd(initial, flags);
    /// socket(2).
    fn socket(domain: i32, kind: i32, protocol: i32) => libc::socket(domain, kind, protocol);
    /// chdir(2).
    fn chdir(path: &CStr) => libc::chdir(path.as_ptr());
    /// fcntl(2) with a number as its argument.
    fn fcntl(fd: i32, command: i32, argument: i64) => libc::fcntl(fd, command, argument);
    /// ioctl(2) `INOTIFY_IOC_SETNEXTWD` (`inotify_ioctl`): the number goes by value.
    fn inotify_set_next_wd(fd: i32, wd: i32) => libc::ioctl(fd, SETNEXTWD, wd);
    /// inotify_init1(2).
    fn inotify_init1(flags: i32) => libc::inotify_init1(flags);
    /// inotify_add_watch(2).
    fn inotify_add_watch(fd: i32, path: &CStr, mask: u32)
        => libc::inotify_add_watch(fd, path.as_ptr(), mask);
    /// inotify_rm_watch(2).
    fn inotify_rm_watch(fd: i32, wd: i32) => libc::inotify_rm_watch(fd, wd);
    /// epoll_create1(2).
    fn epoll_create1(flags: i32) => libc::epoll_create1(flags);
    /// fanotify_init(2).
    fn fanotify_init(flags: u32, event_flags: u32) => libc::fanotify_init(flags, event_flags);
    /// mount(2).
    fn mount(
        source: Option<&CStr>,
        target: &CStr,
        kind: Option<&CStr>,
        flags: u64,
        options: Option<&CStr>,
    )
        => libc::mount(
            source.map_or(std::ptr::null(), CStr::as_ptr),
            target.as_ptr(),
            kind.map_or(std::ptr::null(), CStr::as_ptr),
            flags,
            options.map_or(std::ptr::null(), CStr::as_ptr).cast(),
        );
    /// umount2(2).
    fn umount2(target: &CStr, flags: i32) => libc::umount2(target.as_ptr(), flags);
    /// fanotify_mark(2); without a path the mark goes on what `dir` refers to.
    fn fanotify_mark(fd: i32, flags: u32, mask: u64, dir: i32, path: Option<&CStr>)
        => libc::fanotify_mark(fd, flags, mask, dir, path.map_or(std::ptr::null(), CStr::as_ptr));
}

/// `INOTIFY_IOC_SETNEXTWD`, `_IOW('I', 0, __s32)` of linux/inotify.h.
const SETNEXTWD: libc::c_ulong = 0x4004_4900;

fn timespec((sec, nsec): (i64, i64)) -> libc::timespec {
    libc::timespec {
        tv_sec: sec,
        tv_nsec: nsec,
    }
}

/// read(2) into the whole of `buffer`.
///
/// # Errors
///
/// The errno of the call.
pub fn read(fd: i32, buffer: &mut [u8]) -> Returned {
    // SAFETY: `buffer` is writable for its length and outlives the call.
    let returned = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    returned_size(returned)
}

/// write(2).
///
/// # Errors
///
/// The errno of the call.
pub fn write(fd: i32, content: &[u8]) -> Returned {
    // SAFETY: `content` is readable for its length and outlives the call.
    let returned = unsafe { libc::write(fd, content.as_ptr().cast(), content.len()) };
    returned_size(returned)
}

/// pread(2).
///
/// # Errors
///
/// The errno of the call.
pub fn pread(fd: i32, buffer: &mut [u8], offset: i64) -> Returned {
    // SAFETY: `buffer` is writable for its length and outlives the call.
    let returned = unsafe { libc::pread(fd, buffer.as_mut_ptr().cast(), buffer.len(), offset) };
    returned_size(returned)
}

/// pwrite(2).
///
/// # Errors
///
/// The errno of the call.
pub fn pwrite(fd: i32, content: &[u8], offset: i64) -> Returned {
    // SAFETY: `content` is readable for its length and outlives the call.
    let returned = unsafe { libc::pwrite(fd, content.as_ptr().cast(), content.len(), offset) };
    returned_size(returned)
}

/// getdents64(2): the raw `struct linux_dirent64` records.
///
/// # Errors
///
/// The errno of the call.
pub fn getdents64(fd: i32, buffer: &mut [u8]) -> Returned {
    // SAFETY: `buffer` is writable for its length and outlives the call.
    let returned =
        unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
    Errno::result(returned)
}

/// ioctl(2) `FIONREAD`: unread bytes.
///
/// # Errors
///
/// The errno of the call.
pub fn unread(fd: i32) -> Returned {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int through the pointer.
    let returned = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut bytes) };
    Errno::result(returned).map(|_| bytes.into())
}

/// epoll_ctl(2).
///
/// # Errors
///
/// The errno of the call.
pub fn epoll_ctl(epoll: i32, operation: i32, fd: i32, events: u32, word: u64) -> Returned {
    let mut event = libc::epoll_event { events, u64: word };
    // SAFETY: `event` is a valid epoll_event and outlives the call.
    let returned = unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) };
    Errno::result(returned).map(Into::into)
}

/// epoll_wait(2) with a timeout of 0: `(events, data word)` of each ready descriptor.
///
/// # Errors
///
/// The errno of the call.
pub fn epoll_poll(epoll: i32, most: usize) -> Result<Vec<(u32, u64)>, Errno> {
    let mut ready = vec![libc::epoll_event { events: 0, u64: 0 }; most];
    let room = i32::try_from(most).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `ready` has room for `room` entries and outlives the call.
    let returned = unsafe { libc::epoll_wait(epoll, ready.as_mut_ptr(), room, 0) };
    let n_ready = usize::try_from(Errno::result(returned)?).expect("not negative");
    Ok(ready[..n_ready]
        .iter()
        .map(|event| (event.events, event.u64))
        .collect())
}

/// poll(2) on one descriptor without waiting: which of the events it has.
///
/// # Errors
///
/// The errno of the call.
pub fn poll_now(fd: i32, events: i16) -> Result<i16, Errno> {
    let mut entry = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one valid pollfd, and the count says one.
    let returned = unsafe { libc::poll(&raw mut entry, 1, 0) };
    Errno::result(returned).map(|_| entry.revents)
}

/// poll(2) on one descriptor for `POLLIN`, waiting at most `timeout_ms`; whether it is readable.
///
/// # Errors
///
/// The errno of the call.
pub fn readable(fd: i32, timeout_ms: i32) -> Result<bool, Errno> {
    let mut entry = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid pollfd, and the count says one.
    let returned = unsafe { libc::poll(&raw mut entry, 1, timeout_ms) };
    Errno::result(returned).map(|_| entry.revents & libc::POLLIN != 0)
}

/// Takes one pending blocked signal of `set` without waiting (sigtimedwait(2) with a zero
/// timeout): its number and, where `si_code` says that a descriptor made it, that descriptor.
#[must_use]
pub fn take_signal(set: &nix::sys::signal::SigSet) -> Option<(i32, Option<i32>)> {
    let timeout = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: all three pointers are valid for the call; the kernel fills `info` on success.
    let signal = unsafe { libc::sigtimedwait(set.as_ref(), info.as_mut_ptr(), &raw const timeout) };
    if signal < 0 {
        return None;
    }
    // SAFETY: zeroed at first, and filled by the call that succeeded.
    let info = unsafe { info.assume_init() };
    // si_fd lies behind si_band, a long, in the `_sigpoll` member: offset 16 + 8 on 64-bit.
    let fd = (info.si_code > 0).then(|| {
        let words: [i32; 32] =
            // SAFETY: siginfo_t is 128 bytes of plain data (`SI_MAX_SIZE`).
            unsafe { std::mem::transmute::<libc::siginfo_t, [i32; 32]>(info) };
        words[6]
    });
    Some((signal, fd))
}

/// Whether this process may make a fanotify group of the least demanding kind.
#[must_use]
pub fn has_fanotify() -> bool {
    const FAN_REPORT_FID: u32 = 0x200;
    match fanotify_init(FAN_REPORT_FID, 0) {
        Ok(fd) => i32::try_from(fd).is_ok_and(|fd| close(fd).is_ok()),
        Err(_) => false,
    }
}

fn returned_size(returned: isize) -> Returned {
    Errno::result(returned).map(|size| i64::try_from(size).expect("isize fits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_number_is_an_errno_not_a_crash() {
        assert_eq!(close(1 << 20), Err(Errno::EBADF));
        assert_eq!(read(1 << 20, &mut [0]), Err(Errno::EBADF));
        assert_eq!(unread(1 << 20), Err(Errno::EBADF));
    }

    #[test]
    fn an_event_is_read_by_number() {
        let group = i32::try_from(inotify_init1(libc::IN_NONBLOCK).unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = std::ffi::CString::new(directory.path().to_str().unwrap()).unwrap();
        assert_eq!(inotify_add_watch(group, &path, libc::IN_ATTRIB), Ok(1));
        assert_eq!(readable(group, 0), Ok(false));
        chmod(&path, 0o700).unwrap();
        assert_eq!(readable(group, 0), Ok(true));
        assert_eq!(unread(group), Ok(16));
        assert_eq!(read(group, &mut [0; 64]), Ok(16));
        assert_eq!(close(group), Ok(0));
    }
}
