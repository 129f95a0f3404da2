//! Waiting for a process to park or end, without sleeping and without polling in a loop.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

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
        })
    }

    /// Time left for this run.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits until `child` stops or ends. Reaps orphans on the way.
    #[must_use]
    pub fn wait(&self, child: Pid) -> Stop {
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
            nix::sys::signal::kill(process, Signal::SIGKILL)
                .map_err(|errno| format!("kill {process}: {errno}"))?;
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
