//! Waiting for a process to park or end, without sleeping and without polling in a loop.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use cr::sys::{descriptor, watch};
use fsnotify::inotify::Mask;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// For fcntl(2) `F_SETOWN_EX`.
const F_OWNER_PID: i32 = 1;

/// What a process did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It stopped itself.
    Parked,
    /// It ended: in words.
    Ended(String),
    /// Neither, within the limit of the run.
    TimedOut,
}

/// Waits for children of this process, up to a deadline that is the same for the whole run.
#[derive(Debug)]
pub struct Parking {
    deadline: Instant,
    child_signal: SigSet,
    /// Hears of every record of the log.
    appended: Option<OwnedFd>,
}

impl Parking {
    /// Blocks `SIGCHLD`, so that it can be waited for.
    ///
    /// # Errors
    ///
    /// If the signal cannot be blocked.
    pub fn new(limit: Duration) -> Result<Self, String> {
        let mut child_signal = SigSet::empty();
        child_signal.add(Signal::SIGCHLD);
        child_signal
            .thread_block()
            .map_err(|errno| format!("block SIGCHLD: {errno}"))?;
        Ok(Self {
            deadline: Instant::now() + limit,
            child_signal,
            appended: None,
        })
    }

    /// Time left for this run.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Lets the waiting end early when something is appended to the log.
    ///
    /// # Errors
    ///
    /// If the log cannot be watched.
    pub fn listen(&mut self, log: &Path) -> Result<(), String> {
        let failed = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
        self.child_signal.add(Signal::SIGIO);
        self.child_signal
            .thread_block()
            .map_err(failed("block SIGIO"))?;
        let appended = watch::init().map_err(failed("inotify_init1"))?;
        let mask = Mask(nix::libc::IN_CLOSE_WRITE);
        watch::add_watch(appended.as_fd(), log.as_os_str().as_bytes(), mask)
            .map_err(failed("watch the log"))?;
        let own_pid = Pid::this().as_raw();
        descriptor::set_owner(&appended, F_OWNER_PID, own_pid).map_err(failed("F_SETOWN_EX"))?;
        let flags = descriptor::flags(&appended).map_err(failed("F_GETFL"))?;
        descriptor::set_flags(&appended, flags | nix::libc::O_ASYNC).map_err(failed("F_SETFL"))?;
        self.appended = Some(appended);
        Ok(())
    }

    /// Waits until `child` stops or ends, as [`Self::wait`], but a child that cannot stop itself, being
    /// the first of its pid namespace, is stopped when `parks` says that it waits for that.
    #[must_use]
    pub fn wait_parking(&self, child: Pid, parks: impl Fn() -> bool) -> Stop {
        let mut asked = false;
        self.wait_until(child, || {
            if let Some(appended) = &self.appended {
                // What is told from here on makes a new signal.
                let _ = cr::queue::drain(appended.as_fd());
            }
            if !asked && parks() {
                asked = kill(child, Signal::SIGSTOP).is_ok();
            }
        })
    }

    /// Waits until `child` stops or ends. Reaps orphans on the way.
    #[must_use]
    pub fn wait(&self, child: Pid) -> Stop {
        self.wait_until(child, || {})
    }

    fn wait_until(&self, child: Pid, mut look: impl FnMut()) -> Stop {
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
            match waitpid(child, Some(flags)) {
                Ok(WaitStatus::Stopped(..)) => return Stop::Parked,
                Ok(WaitStatus::Exited(_, code)) => {
                    return Stop::Ended(format!("the process exited with {code}"));
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    return Stop::Ended(format!("the process was killed by {signal}"));
                }
                Err(Errno::ECHILD) => return Stop::Ended("no such child".to_owned()),
                Ok(_) | Err(_) => {}
            }
            look();
            if !cr::sys::spawn::wait_signal(&self.child_signal, self.left()) {
                return Stop::TimedOut;
            }
        }
    }

    /// Kills a process tree from its root and reaps every process of it.
    ///
    /// The children die with their parent's pid namespace only, so each is killed by number.
    pub fn kill(&self, processes: &[Pid]) -> Result<(), String> {
        for &process in processes {
            kill(process, Signal::SIGKILL).map_err(|errno| format!("kill {process}: {errno}"))?;
        }
        for &process in processes {
            // A grandchild becomes ours when its parent, killed above, is gone.
            loop {
                match waitpid(process, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => break,
                    Ok(_) | Err(Errno::EINTR | Errno::ECHILD) => {}
                    Err(errno) => return Err(format!("reap {process}: {errno}")),
                }
                if !cr::sys::spawn::wait_signal(&self.child_signal, self.left()) {
                    return Err(format!("kill {process}: still there at the run's limit"));
                }
            }
        }
        Ok(())
    }
}
