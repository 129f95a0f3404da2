//! State of descriptors and processes that a restore sets.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::path::owned;

/// fcntl(2) `F_SETOWN_EX`: kind is `F_OWNER_TID` 0, `F_OWNER_PID` 1 or `F_OWNER_PGRP` 2.
///
/// # Errors
///
/// The errno of the call: `ESRCH` when there is no such process.
pub fn set_owner(file: impl AsFd, kind: i32, pid: i32) -> Result<(), Errno> {
    const F_SETOWN_EX: libc::c_int = 15;
    let owner = [kind, pid];
    // SAFETY: the kernel reads struct f_owner_ex, two ints, through the pointer.
    let returned = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), F_SETOWN_EX, owner.as_ptr()) };
    Errno::result(returned).map(drop)
}

/// fcntl(2) `F_SETSIG`: 0 stands for `SIGIO`.
///
/// # Errors
///
/// The errno of the call.
pub fn set_signal(file: impl AsFd, signal: i32) -> Result<(), Errno> {
    const F_SETSIG: libc::c_int = 10;
    // SAFETY: plain numbers.
    let returned = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), F_SETSIG, signal) };
    Errno::result(returned).map(drop)
}

/// A number that is open, as a descriptor. A number that is not makes every call fail with
/// `EBADF`.
pub(crate) const fn borrow(fd: &RawFd) -> BorrowedFd<'_> {
    // SAFETY: nothing else in this crate's restorer closes a number that it has placed, and it is
    // not -1: it is one that dup3(2) took.
    unsafe { BorrowedFd::borrow_raw(*fd) }
}

/// fcntl(2) `F_GETFL`.
///
/// # Errors
///
/// The errno of the call.
pub fn flags(file: impl AsFd) -> Result<i32, Errno> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETFL) })
}

/// fcntl(2) `F_SETFL`.
///
/// # Errors
///
/// The errno of the call.
pub fn set_flags(file: impl AsFd, flags: i32) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    let returned = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETFL, flags) };
    Errno::result(returned).map(drop)
}

/// fcntl(2) `F_GETPIPE_SZ`.
///
/// # Errors
///
/// The errno of the call: `EBADF` of what is no pipe.
pub fn pipe_size(file: impl AsFd) -> Result<u32, Errno> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: two plain numbers.
    let size = Errno::result(unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) })?;
    Ok(size.cast_unsigned())
}

/// fcntl(2) `F_SETPIPE_SZ`.
///
/// # Errors
///
/// The errno of the call: `EPERM` beyond `fs.pipe-max-size`, but for root.
pub fn set_pipe_size(file: impl AsFd, size: u32) -> Result<(), Errno> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: three plain numbers.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETPIPE_SZ, size) }).map(drop)
}

/// fcntl(2) `F_GET_RW_HINT`.
///
/// # Errors
///
/// The errno of the call.
pub fn write_hint(file: impl AsFd) -> Result<u64, Errno> {
    const F_GET_RW_HINT: libc::c_int = 1035;
    let mut hint = 0_u64;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the kernel writes a number of 64 bits through the pointer.
    Errno::result(unsafe { libc::fcntl(fd, F_GET_RW_HINT, &raw mut hint) })?;
    Ok(hint)
}

/// fcntl(2) `F_SET_RW_HINT`.
///
/// # Errors
///
/// The errno of the call.
pub fn set_write_hint(file: impl AsFd, hint: u64) -> Result<(), Errno> {
    const F_SET_RW_HINT: libc::c_int = 1036;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the kernel reads a number of 64 bits through the pointer.
    Errno::result(unsafe { libc::fcntl(fd, F_SET_RW_HINT, &raw const hint) }).map(drop)
}

/// fcntl(2) `F_DUPFD_CLOEXEC`: a duplicate at `lowest` or above.
///
/// # Errors
///
/// The errno of the call: `EINVAL` when `lowest` is beyond the limit, `EMFILE` when all are taken.
pub fn duplicate_above(file: impl AsFd, lowest: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
    owned(fd.into())
}

/// close_range(2) of every number from `first` to `last`.
///
/// Not for the numbers of an [`OwnedFd`] that is still to be dropped: its drop would close what
/// has the number by then. The restorer gives its descriptors up before it calls this.
///
/// # Errors
///
/// The errno of the call.
pub fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: plain numbers; see above for what the caller gives up.
    let returned = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(returned).map(drop)
}

/// close_range(2) `CLOSE_RANGE_CLOEXEC`: every open descriptor from `first` on closes on exec, so that a
/// program started later has none of them.
///
/// # Errors
///
/// The errno of the call.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: plain numbers; no descriptor is closed now.
    let returned = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    Errno::result(returned).map(drop)
}

/// kcmp(2) `KCMP_FILE` as an order: how the descriptions of two descriptors compare, in an order
/// that holds until a process of the tree runs again.
///
/// # Errors
///
/// The errno of the call.
pub fn compare_descriptions(
    one: (Pid, i32),
    other: (Pid, i32),
) -> Result<std::cmp::Ordering, Errno> {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: five plain numbers.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            one.0.as_raw(),
            other.0.as_raw(),
            KCMP_FILE,
            libc::c_long::from(one.1),
            libc::c_long::from(other.1),
        )
    };
    match Errno::result(order)? {
        0 => Ok(std::cmp::Ordering::Equal),
        1 => Ok(std::cmp::Ordering::Less),
        2 => Ok(std::cmp::Ordering::Greater),
        _ => Err(Errno::ENOTSUP),
    }
}

/// kcmp(2) `KCMP_EPOLL_TFD`: whether `fd` of `pid` is the description that `set` (an epoll
/// descriptor of `holder`) knows under number `registered`.
///
/// # Errors
///
/// The errno of the call: `ENOENT` when the set knows no such number.
pub fn is_epoll_target(
    (pid, fd): (Pid, i32),
    (holder, set): (Pid, i32),
    registered: i32,
) -> Result<bool, Errno> {
    const KCMP_EPOLL_TFD: libc::c_int = 7;
    #[repr(C)]
    struct Slot {
        epoll: u32,
        number: u32,
        offset: u32,
    }
    let slot = Slot {
        epoll: set.cast_unsigned(),
        number: registered.cast_unsigned(),
        offset: 0,
    };
    // SAFETY: the kernel reads struct kcmp_epoll_slot through the pointer; the rest are numbers.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            pid.as_raw(),
            holder.as_raw(),
            KCMP_EPOLL_TFD,
            libc::c_long::from(fd),
            &raw const slot,
        )
    };
    Errno::result(order).map(|order| order == 0)
}

/// rt_sigqueueinfo(2) or rt_tgsigqueueinfo(2) to the calling process or thread, with any origin:
/// the kernel lets a process say what it likes about signals to itself.
///
/// # Errors
///
/// The errno of the call.
pub fn queue_signal(info: &[u8; 128], shared: bool) -> Result<(), Errno> {
    let signal = i32::from_ne_bytes(info[..4].try_into().expect("4 bytes"));
    let me = nix::unistd::getpid().as_raw();
    // SAFETY: `info` has the size of siginfo_t, which the kernel copies.
    let returned = unsafe {
        if shared {
            libc::syscall(libc::SYS_rt_sigqueueinfo, me, signal, info.as_ptr())
        } else {
            let thread = nix::unistd::gettid().as_raw();
            libc::syscall(
                libc::SYS_rt_tgsigqueueinfo,
                me,
                thread,
                signal,
                info.as_ptr(),
            )
        }
    };
    Errno::result(returned).map(drop)
}

/// Raises the soft limit of open files to the hard one (setrlimit(2)), and returns what it was.
///
/// # Errors
///
/// The errno of the call.
pub fn raise_file_limit() -> Result<(u64, u64), Errno> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((soft, hard))
}

/// Puts a limit back that [`raise_file_limit`] returned.
///
/// # Errors
///
/// The errno of the call.
pub fn set_file_limit((soft, hard): (u64, u64)) -> Result<(), Errno> {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_signal_to_oneself_keeps_what_it_says() {
        use nix::sys::signal::{SigSet, Signal};
        let mut set = SigSet::empty();
        set.add(Signal::SIGWINCH);
        set.thread_block().unwrap();
        let mut info = [0_u8; 128];
        info[..4].copy_from_slice(&libc::SIGWINCH.to_ne_bytes());
        // POLL_IN, with descriptor 77 where siginfo_t keeps it.
        info[8..12].copy_from_slice(&1_i32.to_ne_bytes());
        info[24..28].copy_from_slice(&77_i32.to_ne_bytes());
        queue_signal(&info, false).unwrap();
        assert_eq!(
            crate::sys::raw::take_signal(&set).map(|(signal, _)| signal),
            Some(28)
        );
    }

    #[test]
    fn only_descriptors_from_the_first_one_on_close_on_exec() {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        let set = |file: &OwnedFd, flags| fcntl(file, FcntlArg::F_SETFD(flags)).unwrap();
        let flags = |file: &OwnedFd| fcntl(file, FcntlArg::F_GETFD).unwrap();
        let low: OwnedFd = File::open("/dev/null").unwrap().into();
        // Numbers that no other test has.
        let high = duplicate_above(&low, 900).unwrap();
        set(&low, FdFlag::empty());
        set(&high, FdFlag::empty());
        close_on_exec_from(900).unwrap();
        assert_eq!(flags(&low), 0);
        assert_eq!(flags(&high), FdFlag::FD_CLOEXEC.bits());
    }

    #[test]
    fn descriptions_have_an_order() {
        use std::cmp::Ordering;
        let me = nix::unistd::getpid();
        let file = File::open("/dev/null").unwrap();
        let high = duplicate_above(&file, 200).unwrap();
        assert!(high.as_raw_fd() >= 200);
        let order = compare_descriptions((me, file.as_raw_fd()), (me, high.as_raw_fd())).unwrap();
        assert_eq!(order, Ordering::Equal);
    }
}
