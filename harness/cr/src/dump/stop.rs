//! Stopping a subject, and who cannot be one.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::claim::interrupted;
use super::error::{DumpError, DumpErrorKind};
use super::locks::Locks;
use super::record::{self, Record};
use super::tree::{self, Scope};
use crate::process::{Status, began, bit, stat};
use crate::sys::inspect;

/// How long a process may take to stop.
const LIMIT: Duration = Duration::from_secs(5);
/// How often a process is looked at that is to stop: it tells its parent, and nobody else.
const POLL_MS: u8 = 2;

/// Most steps from a process to its oldest ancestor; no pid namespace nests deeper than the numbers go.
const MOST_ANCESTORS: u32 = 1 << 22;

/// `PF_KTHREAD`, in the ninth field of /proc/PID/stat.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Processes that we have stopped, by descriptors: to let them go on takes nothing that may be
/// missing then.
#[derive(Debug, Default)]
pub(super) struct Stopped(Vec<OwnedFd>);

impl Stopped {
    /// Stops a process and, unless it is wanted alone, its descendants. Each is locked, and noted in
    /// the record, before it is stopped; who is stopped already stays so afterwards.
    pub(super) fn tree(
        &mut self,
        (main, scope): (Pid, Scope),
        locks: &mut Locks,
        record: &mut Record,
    ) -> Result<(), DumpError> {
        let mut next = vec![main];
        while let Some(pid) = next.pop() {
            let place = tree::name(main.as_raw(), pid.as_raw());
            let stopped = self.stop(pid, locks, record);
            match stopped {
                Ok(()) => {}
                // A child may end before it is stopped; what is left of it its parent has.
                Err(_) if pid != main && is_over(pid) => continue,
                Err(error) => return Err(error.at(&place)),
            }
            if scope == Scope::Tree {
                // A stopped process forks no more, so this list is complete.
                let mut children = tree::children(pid).unwrap_or_default();
                children.reverse();
                next.extend(children);
            }
        }
        Ok(())
    }

    fn stop(&mut self, pid: Pid, locks: &mut Locks, record: &mut Record) -> Result<(), DumpError> {
        let of_stat = of_stat(pid);
        let start = began(pid).map_err(&of_stat)?;
        let mut is_ours = false;
        let deadline = Instant::now() + LIMIT;
        while !is_stopped(pid).map_err(&of_stat)? {
            refuse_traced(pid)?;
            // Whom another is stopping he may let go on.
            if !is_ours && !is_stopping(pid).map_err(&of_stat)? {
                is_ours = true;
                self.signal((pid, start), locks, record)?;
                continue;
            }
            interrupted()?;
            if Instant::now() > deadline {
                // It says why, if that is known.
                return tree::processes(pid, Scope::Alone).map(drop);
            }
            let _ = nix::poll::poll(&mut [], POLL_MS);
        }
        refuse_traced(pid)
    }

    fn signal(
        &mut self,
        (pid, start): (Pid, u64),
        locks: &mut Locks,
        record: &mut Record,
    ) -> Result<(), DumpError> {
        locks.take(pid)?;
        let pidfd = inspect::pidfd_open(pid)
            .map_err(|errno| DumpError::on("pidfd_open", pid.to_string(), errno))?;
        record.stop(pid, start)?;
        let stopped = inspect::pidfd_signal(&pidfd, Signal::SIGSTOP);
        self.0.push(pidfd);
        stopped.map_err(|errno| DumpError::on("pidfd_send_signal", pid.to_string(), errno))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets all go on, the children first.
    pub(super) fn go_on(&mut self) {
        for pidfd in self.0.drain(..).rev() {
            // It may be gone, which is as good.
            let _ = inspect::pidfd_signal(&pidfd, Signal::SIGCONT);
        }
    }
}

pub(super) fn of_stat(pid: Pid) -> impl Fn(io::Error) -> DumpError {
    move |error| DumpError::io("read", format!("/proc/{pid}/stat"), &error)
}

/// Lets a process go on, if it is stopped or about to be, and is the one that began then; whether it is
/// there.
pub(super) fn go_on(pid: Pid, start: u64) -> Result<bool, DumpError> {
    let of_stat = of_stat(pid);
    let pidfd = match inspect::pidfd_open(pid) {
        Ok(pidfd) => pidfd,
        Err(Errno::ESRCH) => return Ok(false),
        Err(errno) => return Err(DumpError::on("pidfd_open", pid.to_string(), errno)),
    };
    if record::has_ended(pid, start).map_err(&of_stat)? {
        return Ok(false);
    }
    if is_stopping(pid).map_err(&of_stat)? {
        match inspect::pidfd_signal(&pidfd, Signal::SIGCONT) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(DumpError::on("pidfd_send_signal", pid.to_string(), errno)),
        }
    }
    Ok(true)
}

/// Kills processes, of which the first is the main one, last: no other is there without it.
pub(super) fn end(pids: &[Pid]) -> Result<(), DumpError> {
    let mut failed = None;
    for &pid in pids.iter().rev() {
        match kill(pid, Signal::SIGKILL) {
            // It is gone, which is as good.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                failed.get_or_insert(DumpError::on("kill", pid.to_string(), errno));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Refuses who may not be killed.
pub(super) fn refuse_undying(pids: &[Pid]) -> Result<(), DumpError> {
    for &pid in pids {
        match kill(pid, None) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(DumpError::on("kill", pid.to_string(), errno)),
        }
    }
    Ok(())
}

/// Refuses, by name, what is no process that can be stopped and looked at from here.
pub(super) fn refuse(pid: Pid) -> Result<(), DumpError> {
    let refused = |what: String| Err(DumpError::new("", DumpErrorKind::Refused(what)));
    if pid.as_raw() <= 0 {
        return refused(format!("{pid} is not the number of a process"));
    }
    if pid.as_raw() == 1 {
        let why = "which takes no SIGSTOP from its own processes, and with which all of them end";
        return refused(format!(
            "process 1 is the init of this pid namespace, {why}"
        ));
    }
    let Ok(status) = Status::of(pid) else {
        return refused(format!("there is no process {pid}"));
    };
    if let Some(leader) = status.number("Tgid").filter(|it| *it != pid.as_raw()) {
        return refused(format!(
            "{pid} is a thread of process {leader}: dump {leader}"
        ));
    }
    let stat = stat(pid).map_err(of_stat(pid))?;
    let flags: u64 = stat.get(6).and_then(|it| it.parse().ok()).unwrap_or(0);
    if flags & KERNEL_THREAD != 0 {
        return refused(format!("{pid} is a thread of the kernel"));
    }
    if is_over(pid) {
        let what = format!("process {pid} has ended, and its parent has not waited for it");
        return refused(what);
    }
    let own = std::process::id().cast_signed();
    let mut at = own;
    for _ in 0..MOST_ANCESTORS {
        if at == pid.as_raw() && at == own {
            return refused(format!(
                "process {pid} is this one, which cannot dump itself"
            ));
        }
        if at == pid.as_raw() {
            let what = "would wait for this one, which would have stopped it";
            return refused(format!(
                "process {pid} is an ancestor of this one: it {what}"
            ));
        }
        match Status::of(at).ok().and_then(|it| it.number("PPid")) {
            Some(parent @ 1..) => at = parent,
            _ => break,
        }
    }
    refuse_traced(pid)
}

/// A tracer sees to it that its tracee stops where it likes and goes on when it likes.
pub(super) fn refuse_traced(pid: Pid) -> Result<(), DumpError> {
    for (thread, _) in states(pid).unwrap_or_default() {
        let status = Status::of(format!("{pid}/task/{thread}"));
        let tracer = status.ok().and_then(|it| it.number("TracerPid"));
        if let Some(tracer) = tracer.filter(|it| *it != 0) {
            let what =
                format!("process {pid} is traced by process {tracer}, which can let it go on");
            return Err(DumpError::new("", DumpErrorKind::Refused(what)));
        }
    }
    Ok(())
}

/// Whether all of its threads have ended.
pub(super) fn is_over(pid: Pid) -> bool {
    let states = states(pid).unwrap_or_default();
    states.iter().all(|(_, state)| matches!(state, 'Z' | 'X'))
}

/// Whether a process is stopped in part, or will be: the signal waits until a thread of it runs.
fn is_stopping(pid: Pid) -> io::Result<bool> {
    // In this order: it waits no more when a thread has stopped, both under one lock (`get_signal`).
    Ok(stop_waits(pid)? || states(pid)?.iter().any(|(_, state)| *state == 'T'))
}

/// Whether a signal waits that will stop a process. Of those that a terminal sends one may never do so, as it
/// is blocked or heeded otherwise; that is no stop, though it goes when the process goes on
/// (`prepare_signal`).
fn stop_waits(pid: Pid) -> io::Result<bool> {
    let of_terminals = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];
    let of_terminals = of_terminals.into_iter().fold(0, |set, it| set | bit(it));
    let process = Status::of(pid)?;
    let heeded = ["SigIgn", "SigCgt", "SigBlk"].map(|name| process.set(name));
    let stops =
        bit(Signal::SIGSTOP) | of_terminals & !heeded.into_iter().fold(0, |all, it| all | it);
    let mut waiting = process.set("ShdPnd");
    for (thread, _) in states(pid)? {
        let status = Status::of(format!("{pid}/task/{thread}"));
        // It may have ended meanwhile.
        waiting |= status.map_or(0, |status| status.set("SigPnd"));
    }
    Ok(waiting & stops != 0)
}

/// Whether each of its threads is stopped, or has ended. One in vfork(2) or in an uninterruptible
/// wait stops only behind it.
pub(super) fn is_stopped(pid: Pid) -> io::Result<bool> {
    let states = states(pid)?;
    Ok(states
        .iter()
        .all(|(_, state)| matches!(state, 'T' | 'Z' | 'X')))
}

/// The threads of a process, and the letters of their states.
pub(super) fn states(pid: Pid) -> io::Result<Vec<(i32, char)>> {
    let folder = format!("/proc/{pid}/task");
    let mut states = Vec::new();
    // One descriptor at a time: there may be no more.
    let names: Vec<_> = fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<_>>()?;
    for name in names {
        let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let state = match stat(format!("{pid}/task/{thread}")) {
            Ok(fields) => fields.first().and_then(|field| field.chars().next()),
            // It ended meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        states.push((thread, state.unwrap_or('?')));
    }
    Ok(states)
}

/// Whether a process that began then still runs, stands still, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    RunsOn,
    Stopped,
    Ended,
}

pub(super) fn fate(pid: Pid, start: u64) -> Fate {
    if record::has_ended(pid, start).unwrap_or(false) {
        Fate::Ended
    } else if is_stopped(pid).unwrap_or(false) {
        Fate::Stopped
    } else {
        Fate::RunsOn
    }
}
