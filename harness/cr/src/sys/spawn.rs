//! New processes: fork(2) of a process with one thread, with all or with nothing of its parent's, and
//! a program started with nothing but what it is given.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::clone::{Child, clone3};

/// A program to start by [`fork_bare`], with an empty environment.
#[derive(Debug)]
pub struct Program<'a> {
    pub path: &'a CStr,
    /// All arguments, the program's own name first.
    pub args: &'a [&'a CStr],
    /// Working directory.
    pub dir: &'a CStr,
}

/// Exit status of a child that could not become its program; as a shell has it.
const EXIT_NOT_STARTED: i32 = 127;

/// Looks at the list of threads before it is believed, [`BETWEEN_LOOKS`] apart: two seconds in all,
/// where the first look is nearly always enough, because on a machine with more to do than
/// processors an ending thread waits for its turn.
const MOST_LOOKS: u32 = 10_000;
const BETWEEN_LOOKS: Duration = Duration::from_micros(200);

/// How many threads a process has. A thread that was joined is counted until the kernel has released
/// it, a moment later, so more than one are looked at again before they are believed.
///
/// # Errors
///
/// If the process is gone.
pub(crate) fn n_threads_settled(pid: Pid) -> io::Result<usize> {
    let path = format!("/proc/{pid}/task");
    let mut n_threads = std::fs::read_dir(&path)?.count();
    for _ in 0..MOST_LOOKS {
        if n_threads == 1 {
            break;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "no call waits for the release of a thread: join(3) is told before it"
        )]
        std::thread::sleep(BETWEEN_LOOKS);
        n_threads = std::fs::read_dir(&path)?.count();
    }
    Ok(n_threads)
}

/// Starts a program. The caller has to be single-threaded and has to reap it.
///
/// # Errors
///
/// As [`fork_bare`]. A failure to execute shows as exit status 127 of the child.
pub fn spawn(program: &Program) -> io::Result<Pid> {
    let mut argv: Vec<*const libc::c_char> = program.args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    match fork_bare(program.dir, None)? {
        Some(child) => Ok(child),
        // SAFETY: both arrays end with a null pointer, and the strings outlive the call because a
        // forked child keeps a copy of the parent's memory; it ends in _exit if execve returns.
        None => unsafe {
            libc::execve(program.path.as_ptr(), argv.as_ptr(), environment.as_ptr());
            libc::_exit(EXIT_NOT_STARTED)
        },
    }
}

/// [`fork_with_pid`] of a child that has nothing of its parent's but its memory: descriptors 0 to 2
/// are `/dev/null`, no other is open, no signal is blocked, the session is its own and the working
/// directory `dir`. A child that cannot get there exits with 127.
///
/// # Errors
///
/// As [`fork_with_pid`].
pub fn fork_bare(dir: &CStr, pid: Option<Pid>) -> io::Result<Option<Pid>> {
    if let Some(child) = fork_with_pid(pid)? {
        return Ok(Some(child));
    }
    // SAFETY: the child has one thread, as its parent had, and owns no descriptor by a type that it
    // will drop: it never comes back to the frames of its parent, which its caller promises by
    // ending it. The signal set is written by sigemptyset before it is read.
    unsafe {
        libc::setsid();
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for fd in 0..3 {
            libc::dup2(null, fd);
        }
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        if null < 0 || libc::chdir(dir.as_ptr()) != 0 {
            libc::_exit(EXIT_NOT_STARTED);
        }
    }
    Ok(None)
}

/// fork(2): the child's pid in the parent, nothing in the child.
///
/// # Errors
///
/// The errno of the call, and `EINVAL` in a process with several threads: the child would hold
/// whatever locks the other threads held.
pub fn fork() -> io::Result<Option<Pid>> {
    fork_with_pid(None)
}

/// [`fork`] into a chosen pid of the current pid namespace, which needs the right to checkpoint and
/// restore there (clone3(2), `set_tid`).
///
/// # Errors
///
/// As [`fork`], and `EEXIST` when the pid is taken.
pub fn fork_with_pid(pid: Option<Pid>) -> io::Result<Option<Pid>> {
    if n_threads_settled(nix::unistd::getpid())? != 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "fork of a process with several threads",
        ));
    }
    let child = Child {
        pid: pid.map(Pid::as_raw),
        exit_signal: libc::SIGCHLD,
        ..Child::default()
    };
    // SAFETY: there is one thread, so no lock is held by anybody else.
    let child = unsafe { clone3(child) }?;
    Ok(child.map(|(pid, _)| Pid::from_raw(pid)))
}

/// Who may trace this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracer {
    Any,
    Process(Pid),
}

/// Sets the action of a signal to what it is by default (sigaction(2)).
///
/// # Errors
///
/// The errno of the call.
pub fn default_action(signal: nix::sys::signal::Signal) -> Result<(), Errno> {
    // SAFETY: no handler is set, so nothing runs at the signal.
    let before = unsafe { libc::signal(signal as libc::c_int, libc::SIG_DFL) };
    if before == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}

/// prctl(2) `PR_SET_PTRACER`: under Yama, this one may trace us without being our parent, if the uid allows
/// it. It lasts until the tracer has ended, whatever we run meanwhile.
///
/// # Errors
///
/// The errno of the call: `EINVAL` without Yama, where it is not needed.
pub fn allow_tracer(tracer: Tracer) -> Result<(), Errno> {
    let tracer = match tracer {
        Tracer::Any => libc::PR_SET_PTRACER_ANY,
        Tracer::Process(pid) => libc::c_ulong::from(pid.as_raw().unsigned_abs()),
    };
    // SAFETY: plain numbers.
    let returned = unsafe { libc::prctl(libc::PR_SET_PTRACER, tracer) };
    Errno::result(returned).map(drop)
}

/// Waits for a blocked signal of `set` (sigtimedwait(2)): whether one came within `limit`.
#[must_use]
pub fn wait_signal(set: &nix::sys::signal::SigSet, limit: std::time::Duration) -> bool {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    loop {
        // SAFETY: both pointers are valid for the call; the information is not wanted.
        let signal =
            unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const timeout) };
        if signal > 0 {
            return true;
        }
        if Errno::last() != Errno::EINTR {
            return false;
        }
    }
}
