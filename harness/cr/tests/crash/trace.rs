//! A traced process that is killed at the call of a given number.
//!
//! The process filters its own calls (seccomp(2), `SECCOMP_RET_TRACE`), so that it stops once
//! before each, and so that the thousands of calls that fill a queue need not stop it.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError::Timeout, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use libtest_mimic::Failed;
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// In the environment: all calls stop the process, those that fill a queue too.
const ALL: &str = "NOTIFREEZE_TRACE_ALL";

pub(crate) enum Ended {
    /// Before a call of this number in the table of system calls.
    Killed {
        call: i64,
    },
    Exited(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed { call } => write!(f, "system call {call}"),
            Self::Exited(status) => write!(f, "exited with {status}"),
        }
    }
}

/// A process that waits for its tracer.
pub(crate) struct Traced {
    pid: Pid,
}

/// Called by the process itself: waits for its tracer, and is stopped before each call from here.
pub(crate) fn begin() {
    let filter = filter(std::env::var_os(ALL).is_some());
    ptrace::traceme().expect("PTRACE_TRACEME");
    raise(Signal::SIGSTOP).expect("a stop");
    nix::sys::prctl::set_no_new_privs().expect("PR_SET_NO_NEW_PRIVS");
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("a short filter"),
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program and its filter live until the call has copied them.
    let returned = unsafe {
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program)
    };
    Errno::result(returned).expect("seccomp");
}

/// Stops before every call; without `all`, not before fchmod(2), which only fills a queue.
fn filter(all: bool) -> Vec<libc::sock_filter> {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let instruction = |code, k, jt| libc::sock_filter { code, jt, jf: 0, k };
    let exempt = if all { -1 } else { libc::SYS_fchmod };
    let exempt = u32::try_from(exempt).unwrap_or(u32::MAX);
    vec![
        // The number of the call, the first word of struct seccomp_data.
        instruction(LOAD, 0, 0),
        instruction(JUMP_IF_EQUAL, exempt, 1),
        instruction(RETURN, libc::SECCOMP_RET_TRACE, 0),
        instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ]
}

/// Called by the process itself, whose standard error is all it has.
pub(crate) fn say(problem: &str) {
    // If that fails there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "dumper: {problem}");
}

impl Traced {
    pub(crate) fn start(program: &Path, arguments: &[&str], all: bool) -> Result<Self, Failed> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if all {
            command.env(ALL, "1");
        }
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        match waitpid(pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(..) => {}
            other => return Err(format!("the dumper did not stop: {other:?}").into()),
        }
        let options = Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(pid, options)?;
        ptrace::cont(pid, None)?;
        Ok(Self { pid })
    }

    /// Lets it run up to its `n`th call, and kills it there; or to where it stops itself, which is
    /// its end.
    pub(crate) fn run_to_stop(self, n: usize) -> Result<Ended, Failed> {
        self.run(n, true)
    }

    /// Lets it run up to its `n`th call, and kills it there; or to its end.
    pub(crate) fn run_to(self, n: usize) -> Result<Ended, Failed> {
        self.run(n, false)
    }

    /// Lets it run to where it stops itself, or to its end; how many calls it makes.
    pub(crate) fn count(self) -> Result<usize, Failed> {
        let mut n_calls = 0;
        match self.run_counted(usize::MAX, true, &mut n_calls)? {
            Ended::Exited(0) => Ok(n_calls),
            other => Err(other.to_string().into()),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    fn run(self, n: usize, stops: bool) -> Result<Ended, Failed> {
        self.run_counted(n, stops, &mut 0)
    }

    /// To its end, and to that of all that it started, which is not to outlive it.
    fn run_counted(self, n: usize, stops: bool, n_calls: &mut usize) -> Result<Ended, Failed> {
        let mut killed = None;
        let mut ended = None;
        let mut alive = HashSet::from([self.pid]);
        let mut gone = HashSet::new();
        let mut limit = None;
        while !alive.is_empty() {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => status,
                Err(Errno::ECHILD) => return Err("the dumper ended unseen".into()),
                Err(errno) => return Err(errno.into()),
            };
            match status {
                WaitStatus::PtraceEvent(tid, _, libc::PTRACE_EVENT_SECCOMP) => {
                    if *n_calls == n && killed.is_none() {
                        let call = ptrace::getregs(tid)?.orig_rax;
                        killed = Some(i64::try_from(call)?);
                        kill(self.pid, Signal::SIGKILL)?;
                    }
                    *n_calls += 1;
                    go_on(tid, None)?;
                }
                WaitStatus::Stopped(tid, Signal::SIGSTOP) if stops && tid == self.pid => {
                    kill(self.pid, Signal::SIGKILL)?;
                    ended = Some(Ended::Exited(0));
                }
                WaitStatus::PtraceEvent(tid, _, libc::PTRACE_EVENT_CLONE) => {
                    // It may be killed by now: then what it started is seen when that stops.
                    if let Ok(started) = ptrace::getevent(tid) {
                        alive.insert(Pid::from_raw(i32::try_from(started)?));
                    }
                    go_on(tid, None)?;
                }
                // A new thread begins with a stop.
                WaitStatus::PtraceEvent(tid, ..) | WaitStatus::Stopped(tid, Signal::SIGSTOP) => {
                    alive.insert(tid);
                    go_on(tid, None)?;
                }
                WaitStatus::Stopped(tid, signal) => go_on(tid, Some(signal))?,
                WaitStatus::Exited(tid, _) | WaitStatus::Signaled(tid, ..) => {
                    gone.insert(tid);
                }
                other => return Err(format!("the dumper: {other:?}").into()),
            }
            alive.retain(|tid| !gone.contains(tid));
            if alive.contains(&self.pid) {
                continue;
            }
            if ended.is_none() {
                ended = Some(match (status, killed) {
                    (WaitStatus::Exited(_, status), _) => Ended::Exited(status),
                    (_, Some(call)) => Ended::Killed { call },
                    _ => return Err("the dumper was killed by somebody else".into()),
                });
            }
            limit.get_or_insert_with(|| Limit::of(alive.iter().copied().collect()));
        }
        match (ended, limit.is_none_or(Limit::end)) {
            (Some(ended), true) => Ok(ended),
            (Some(ended), false) => Err(format!("{ended}: a process outlives it").into()),
            (None, _) => Err("the dumper ended unseen".into()),
        }
    }
}

/// How long some processes may take to end, before they are killed.
struct Limit {
    over: Sender<()>,
    watch: JoinHandle<bool>,
}

impl Limit {
    fn of(processes: Vec<Pid>) -> Self {
        let (over, is_over) = channel();
        let watch = std::thread::spawn(move || {
            let is_kept = is_over.recv_timeout(Duration::from_secs(10)) != Err(Timeout);
            for pid in processes.into_iter().filter(|_| !is_kept) {
                let _ = kill(pid, Signal::SIGKILL);
            }
            is_kept
        });
        Self { over, watch }
    }

    /// They have ended; whether they did so by themselves.
    fn end(self) -> bool {
        drop(self.over);
        self.watch.join().expect("it does not panic")
    }
}

/// Lets a thread go on; it may have been killed meanwhile.
fn go_on(tid: Pid, signal: Option<Signal>) -> Result<(), Errno> {
    match ptrace::cont(tid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}
