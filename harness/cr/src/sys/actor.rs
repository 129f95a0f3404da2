//! A process under a pid of one's choice that makes a few system calls and ends.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::{Pid, getpid};

use super::clone::{Child, clone3, wait};

/// Where a list of calls ended early: the index of the call, and its errno.
pub type Stopped = (usize, Errno);

/// Why the calls were not made, or not all of them.
#[derive(Debug)]
pub enum ActError {
    /// clone3(2): `EEXIST` where the pid is another's, `EPERM` without the right to choose it.
    Start(Errno),
    Stopped(Stopped),
    /// The process was killed before its end.
    Killed,
}

/// Runs `act` in a new process with this pid and waits for its end. Works in a process with several
/// threads too, on one condition.
///
/// `act` runs in a copy of this memory, where locks of other threads are held for ever: it may make
/// system calls and nothing else, above all no allocation.
///
/// # Errors
///
/// [`ActError`].
pub fn act_as(pid: i32, act: impl FnOnce() -> Result<(), Stopped>) -> Result<(), ActError> {
    let (heard, told) = pipe().map_err(ActError::Start)?;
    let parent = getpid();
    let child = Child {
        pid: Some(pid),
        ..Child::default()
    };
    // SAFETY: `act` makes system calls alone, as its contract says.
    if unsafe { clone3(child) }.map_err(ActError::Start)?.is_none() {
        // SAFETY: plain numbers; `act` makes system calls alone, as its contract says, so it does
        // not matter what the other threads of the parent held. The bytes outlive the write.
        unsafe {
            end_with(parent);
            let word = match act() {
                Ok(()) => [-1, 0],
                Err((index, errno)) => [i32::try_from(index).unwrap_or(i32::MAX), errno as i32],
            };
            libc::write(told.as_raw_fd(), word.as_ptr().cast(), size_of_val(&word));
            libc::syscall(libc::SYS_exit_group, 0);
            libc::abort()
        }
    }
    drop(told);
    let mut answer = [0; 8];
    let n_read = read(&heard, &mut answer);
    wait(pid);
    let word = |at: usize| i32::from_ne_bytes(answer[at..at + 4].try_into().expect("4 bytes"));
    match (n_read, usize::try_from(word(0))) {
        (8, Err(_)) => Ok(()),
        (8, Ok(index)) => Err(ActError::Stopped((index, Errno::from_raw(word(4))))),
        _ => Err(ActError::Killed),
    }
}

/// Ends the caller as soon as its parent, the process `parent`, has ended. A parent that ended before
/// this call sends no signal any more, so that is asked after it.
///
/// # Safety
///
/// For a process that may end here, without a destructor.
pub(super) unsafe fn end_with(parent: Pid) {
    // SAFETY: plain numbers.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent.as_raw() {
            libc::syscall(libc::SYS_exit_group, 1);
        }
    }
}

fn read(heard: &OwnedFd, answer: &mut [u8]) -> usize {
    loop {
        match nix::unistd::read(heard, answer) {
            Err(Errno::EINTR) => {}
            other => return other.unwrap_or(0),
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut ends = [0; 2];
    // SAFETY: room for the two numbers that the kernel writes.
    Errno::result(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just made them for us alone.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}
