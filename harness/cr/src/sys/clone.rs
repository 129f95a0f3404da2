//! clone3(2), which this process forks by, and the wait for a child that it makes.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// What a child is to have besides a copy of this memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Child {
    /// A pid of one's choice in the current pid namespace.
    pub(super) pid: Option<i32>,
    /// The signal at its end. With 0 the child is nobody's business but ours: no SIGCHLD, and no
    /// wait(2) finds it but [`wait`].
    pub(super) exit_signal: i32,
    /// Descriptors in common instead of copies of them (`CLONE_FILES`).
    pub(super) shares_descriptors: bool,
}

/// Nothing in the child; its pid and a pidfd in the parent.
///
/// # Errors
///
/// The errno of the call: `EEXIST` where the pid is another's, `EPERM` without the right to choose it.
///
/// # Safety
///
/// The child of a process with several threads may make system calls and nothing else, above all no
/// allocation: locks of other threads are held there for ever.
pub(super) unsafe fn clone3(child: Child) -> Result<Option<(i32, OwnedFd)>, Errno> {
    let mut pidfd: libc::c_int = -1;
    let mut wanted = child.pid.unwrap_or_default();
    // SAFETY: clone_args is plain old data for which zero is a valid value of every field.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = u64::from(child.exit_signal.cast_unsigned());
    args.flags = u64::from(libc::CLONE_PIDFD.cast_unsigned());
    args.pidfd = (&raw mut pidfd) as u64;
    if child.shares_descriptors {
        args.flags |= u64::from(libc::CLONE_FILES.cast_unsigned());
    }
    if child.pid.is_some() {
        args.set_tid = (&raw mut wanted) as u64;
        args.set_tid_size = 1;
    }
    // SAFETY: without CLONE_VM the child runs on a copy of this memory, as that of fork(2) does; what
    // `args` points to outlives the call.
    let returned = unsafe {
        let size = size_of::<libc::clone_args>();
        libc::syscall(libc::SYS_clone3, &raw mut args, size)
    };
    let pid = i32::try_from(Errno::result(returned)?).expect("a pid");
    // SAFETY: the kernel has just made this descriptor for us alone, in the parent.
    Ok((pid != 0).then(|| (pid, unsafe { OwnedFd::from_raw_fd(pidfd) })))
}

/// Waits for the end of a child, whatever signal it sends then.
pub(super) fn wait(pid: i32) {
    loop {
        // SAFETY: plain numbers; the null pointer says that the status is not wanted.
        let returned = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
        if returned >= 0 || Errno::last() != Errno::EINTR {
            return;
        }
    }
}
