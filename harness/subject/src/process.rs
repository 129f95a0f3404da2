//! One process of the plan: whose turn it is, and parking.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use scenario::log::{self, Record};
use scenario::{Call, Name, Phase, Reference, Scenario};

use crate::execute::{Executor, Reply};
use crate::journal::Journal;

/// How the process begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// At the first step.
    Fresh,
    /// Where the log ends, with what the image holds.
    Restore {
        image: PathBuf,
        defect: Option<String>,
    },
}

/// Executes a plan to its end. Does not return before init kills the process, unless it fails.
///
/// # Errors
///
/// If the plan or the log cannot be read or written, or the restore failed.
pub fn run(plan: &Path, log: &Path, start: &Start) -> io::Result<Infallible> {
    let text = fs::read_to_string(plan)?;
    let scenario = scenario::parse(&text)
        .map_err(|_| io::Error::other("the plan does not parse"))?
        .scenario;
    block_signals()?;
    let mut process = Process {
        me: None,
        journal: Journal::new(log.to_path_buf()),
        scenario: &scenario,
        next: 0,
    };
    match start {
        Start::Fresh => {
            umask(Mode::from_bits_truncate(0o022));
        }
        Start::Restore { image, defect } => process.restore(image, defect.as_deref())?,
    }
    process.steps()
}

/// Signals stay pending until a `signals` step takes them, whatever they would do by default.
/// `SIGCONT` must work, and `SIGCHLD` says nothing that a scenario asks for.
fn block_signals() -> io::Result<()> {
    let mut set = SigSet::all();
    set.remove(Signal::SIGCONT);
    set.remove(Signal::SIGCHLD);
    if is_first() {
        set.add(Signal::SIGCONT);
    }
    set.thread_block()?;
    Ok(())
}

/// Whether this process is the first of its pid namespace. The kernel drops a stop that such a
/// process sends itself (`sig_task_ignored`), so it says in the log that it parks, waits for
/// `SIGCONT`, and is stopped from outside.
fn is_first() -> bool {
    nix::unistd::getpid().as_raw() == 1
}

struct Process<'a> {
    /// None: the main process.
    me: Option<Name>,
    journal: Journal,
    scenario: &'a Scenario,
    next: usize,
}

impl Process<'_> {
    fn restore(&mut self, image: &Path, defect: Option<&str>) -> io::Result<()> {
        let options = cr::RestoreOptions {
            defect: defect.and_then(cr::Defect::parse),
            ..cr::RestoreOptions::default()
        };
        let restored = cr::restore_file(image, &options).map_err(io::Error::other)?;
        self.journal.catch_up(self.scenario)?;
        self.next = self.journal.next_step();
        // The size of this process is its own again, not that of the restore.
        cr::sys::memory::give_back();
        if let Some(pid) = restored.child {
            self.me = Some(self.child_name(i64::from(pid)).ok_or_else(|| {
                io::Error::other(format!("the image has process {pid}, the log has not"))
            })?);
            // The main process continues each child when its turn comes.
            self.park()?;
            return self.my_turn();
        }
        for child in restored.children {
            self.wait_parked(Pid::from_raw(child))?;
        }
        self.park()
    }

    /// The name of a child by the pid that `fork` returned.
    fn child_name(&self, pid: i64) -> Option<Name> {
        let forks = self
            .scenario
            .steps
            .iter()
            .filter(|step| step.call == Call::Fork);
        let mut names = forks.filter_map(|step| match &step.expect {
            scenario::Expect::Bind(name) => Some(name),
            _ => None,
        });
        names.find(|name| self.journal.value(name) == pid).cloned()
    }

    /// Every step from here on: own ones are executed, those of a child are given to it.
    fn steps(&mut self) -> io::Result<Infallible> {
        while let Some(step) = self.scenario.steps.get(self.next) {
            let parks = matches!(step.call, Call::Checkpoint | Call::Look);
            if step.process == self.me || (parks && self.me.is_none()) {
                self.execute()?;
            } else if self.me.is_some() {
                self.park()?;
                self.my_turn()?;
            } else {
                let name = step
                    .process
                    .clone()
                    .expect("not the main process's own step");
                self.hand_over(&name)?;
            }
        }
        if self.me.is_none() {
            self.record(log::END, Reply::done(0))?;
        }
        loop {
            self.park()?;
        }
    }

    fn execute(&mut self) -> io::Result<()> {
        let step = &self.scenario.steps[self.next];
        let index = u32::try_from(self.next).expect("fewer steps than 2^32");
        match (step.call, step.phase) {
            (Call::Checkpoint | Call::Look, _) => {
                self.next += 1;
                self.record(index, Reply::done(0))?;
                return self.park();
            }
            (Call::Fork, _) => return self.fork(index),
            (Call::ExitGroup, _) => {
                self.record(index, Reply::done(0))?;
                std::process::exit(i32::try_from(step.int(0) & 0xff).expect("a byte"));
            }
            (Call::Wait4, _) => {
                let reply: Reply = self.wait_gone(step.reference(0)).into();
                self.next += 1;
                return self.record(index, reply);
            }
            // The result of an unfinished call is written where it resumes.
            (_, Phase::Unfinished) => {
                let result = Executor::new(self.scenario, &self.journal).call(step);
                let resumed = self.resumption(self.next);
                self.next = resumed + 1;
                return self.record(u32::try_from(resumed).expect("a step"), result);
            }
            _ => {}
        }
        let result = Executor::new(self.scenario, &self.journal).call(step);
        self.next += 1;
        self.record(index, result)
    }

    fn fork(&mut self, index: u32) -> io::Result<()> {
        match cr::sys::spawn::fork()? {
            Some(child) => {
                self.record(index, Reply::done(child.as_raw().into()))?;
                self.next += 1;
                // The child parks before its first step, so that it is there when its turn comes.
                self.wait_parked(child)
            }
            None => {
                let step = &self.scenario.steps[self.next];
                self.next += 1;
                self.me = match &step.expect {
                    scenario::Expect::Bind(name) => Some(name.clone()),
                    _ => Some(Name(String::new())),
                };
                self.park()?;
                self.my_turn()
            }
        }
    }

    /// Lets a child make its run of steps, and goes on behind them.
    fn hand_over(&mut self, name: &Name) -> io::Result<()> {
        let first = &self.scenario.steps[self.next];
        let child = i32::try_from(self.journal.value(name)).expect("a pid");
        let phase = first.phase;
        if phase != Phase::Resumed {
            kill(Pid::from_raw(child), Signal::SIGCONT)?;
        }
        while let Some(step) = self.scenario.steps.get(self.next)
            && step.process.as_ref() == Some(name)
            && !matches!(step.call, Call::Checkpoint | Call::Look)
        {
            self.next += 1;
            if step.phase == Phase::Unfinished {
                // The child is blocked in the kernel now, or will be; whoever unblocks it is next.
                return Ok(());
            }
        }
        self.wait_parked(Pid::from_raw(child))?;
        self.journal.catch_up(self.scenario)
    }

    /// A child, continued: finds its next step, behind those that others made meanwhile.
    fn my_turn(&mut self) -> io::Result<()> {
        self.journal.catch_up(self.scenario)?;
        while let Some(step) = self.scenario.steps.get(self.next)
            && (step.process != self.me || matches!(step.call, Call::Checkpoint | Call::Look))
        {
            self.next += 1;
        }
        Ok(())
    }

    /// The step at which an unfinished call of this process resumes.
    fn resumption(&self, unfinished: usize) -> usize {
        let mut later = self.scenario.steps.iter().enumerate().skip(unfinished + 1);
        later
            .find(|(_, step)| step.process == self.me && step.phase == Phase::Resumed)
            .map_or(unfinished, |(index, _)| index)
    }

    fn record(&mut self, step: u32, result: Reply) -> io::Result<()> {
        let Reply { ret, errno, chunks } = result;
        self.journal.write(
            self.scenario,
            &Record {
                step,
                ret,
                errno,
                chunks,
            },
        )
    }

    /// wait4(2) of a child that has exited.
    fn wait_gone(&self, child: Reference) -> Result<i64, Errno> {
        let pid = match child {
            Reference::Name(name) => self.journal.value(name),
            Reference::Number(number) => number,
            Reference::Cwd => return Err(Errno::EINVAL),
        };
        let pid = Pid::from_raw(i32::try_from(pid).map_err(|_| Errno::EINVAL)?);
        match waitpid(pid, None)? {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => Ok(pid.as_raw().into()),
            _ => Err(Errno::ECHILD),
        }
    }

    /// Waits for a child's next stop or its death, which it leaves to be reaped by `wait4`.
    fn wait_parked(&self, child: Pid) -> io::Result<()> {
        let peek = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(child), peek)? {
            WaitStatus::Stopped(..) => {
                waitid(Id::Pid(child), WaitPidFlag::WSTOPPED)?;
                Ok(())
            }
            WaitStatus::Exited(..) => Ok(()),
            status => Err(io::Error::other(format!("child {child}: {status:?}"))),
        }
    }

    fn park(&self) -> io::Result<()> {
        if is_first() {
            let mut set = SigSet::empty();
            set.add(Signal::SIGCONT);
            set.wait()?;
        } else {
            raise(Signal::SIGSTOP)?;
        }
        Ok(())
    }
}
