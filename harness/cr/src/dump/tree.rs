//! The processes of a tree: who they are, how they hang together, what waits for them.

use std::fs;

use nix::unistd::Pid;

use super::error::{DumpError, DumpErrorKind};
use super::places::Places;
use super::{DumpOptions, stop};
use crate::fanotify::blocked::{Waiting, waits};
use crate::image::{Image, PendingSignal, Process};
use crate::process::{Status, stat};
use crate::sys::spawn::n_threads_settled;
use crate::sys::{handle, trace};

/// Most processes of one tree.
const MAX_PROCESSES: usize = 4096;

/// Whether descendants belong to a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Tree,
    /// One process, whatever children and threads it has.
    Alone,
}

impl Scope {
    pub(super) fn of(options: &DumpOptions) -> Self {
        if options.only_groups {
            Self::Alone
        } else {
            Self::Tree
        }
    }
}

/// All processes from `main` down, parents first. Every one must be stopped or ended.
pub(super) fn processes(main: Pid, scope: Scope) -> Result<Vec<Process>, DumpError> {
    let mut found = Vec::new();
    let mut next = vec![main];
    while let Some(pid) = next.pop() {
        let place = name(main.as_raw(), pid.as_raw());
        let process = process(pid, scope).map_err(|error| match error.kind {
            // It names the process itself.
            DumpErrorKind::Waiting(_) => error,
            _ => error.at(&place),
        })?;
        let lives = process.exited.is_none();
        found.push(process);
        if lives && scope == Scope::Tree {
            let mut children = children(pid)?;
            children.reverse();
            next.extend(children);
        }
        if found.len() > MAX_PROCESSES {
            let what = format!("more than {MAX_PROCESSES} processes");
            return Err(DumpError::not_supported("", what));
        }
    }
    Ok(found)
}

/// How messages call a process: the main process goes without saying.
pub(super) fn name(main: i32, pid: i32) -> String {
    if pid == main {
        String::new()
    } else {
        format!("process {pid}")
    }
}

fn process(pid: Pid, scope: Scope) -> Result<Process, DumpError> {
    let path = format!("/proc/{pid}/stat");
    let fields = stat(pid).map_err(|error| DumpError::io("read", &path, &error))?;
    let malformed = || DumpError::new("", DumpErrorKind::Text(path.clone()));
    let number = |index: usize| -> Result<i32, DumpError> {
        fields
            .get(index)
            .and_then(|field| field.parse().ok())
            .ok_or_else(malformed)
    };
    let state = fields
        .first()
        .and_then(|state| state.chars().next())
        .ok_or_else(malformed)?;
    let mut process = Process {
        pid: pid.as_raw(),
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        ..Process::default()
    };
    match state {
        // Field 52 of proc_pid_stat(5), of which the third is the first here.
        'Z' => process.exited = Some(number(49)?),
        'T' => {
            stop::refuse_traced(pid)?;
            refuse_running_threads(pid)?;
            live(pid, scope, &mut process)?;
        }
        't' => {
            stop::refuse_traced(pid)?;
            return Err(DumpError::new(
                "",
                DumpErrorKind::NotStopped(state, String::new()),
            ));
        }
        _ => {
            let waiting = waits_settled(pid, state).map(DumpErrorKind::Waiting);
            let kind = waiting.unwrap_or_else(|| {
                let place = read(&format!("/proc/{pid}/wchan")).unwrap_or_default();
                DumpErrorKind::NotStopped(state, place)
            });
            return Err(DumpError::new("", kind));
        }
    }
    Ok(process)
}

/// The state of a process is that of its first thread.
fn refuse_running_threads(pid: Pid) -> Result<(), DumpError> {
    let path = format!("/proc/{pid}/task");
    let states = stop::states(pid).map_err(|error| DumpError::io("read", path, &error))?;
    let running = states
        .into_iter()
        .find(|(_, state)| !matches!(state, 'T' | 'Z' | 'X'));
    running.map_or(Ok(()), |(thread, state)| {
        let place = read(&format!("/proc/{pid}/task/{thread}/wchan")).unwrap_or_default();
        let kind = DumpErrorKind::NotStopped(state, place);
        Err(DumpError::new(format!("thread {thread}"), kind))
    })
}

/// Looks at a sleeper that does not stop before it is said not to wait for permission: the kernel
/// tells where a task sleeps only once its scheduler has taken it off its queue, which it may put off
/// while the processor has other work (get_wchan, `sched_delayed`).
const MOST_LOOKS: u32 = 1000;
const LOOK_EVERY_MS: u8 = 1;

fn waits_settled(pid: Pid, state: char) -> Option<Waiting> {
    let look = |index| {
        if index > 0 {
            let _ = nix::poll::poll(&mut [], LOOK_EVERY_MS);
        }
        waits(pid.as_raw())
    };
    let n_looks = if state == 'D' { MOST_LOOKS } else { 1 };
    (0..n_looks).find_map(look)
}

fn live(pid: Pid, scope: Scope, process: &mut Process) -> Result<(), DumpError> {
    let status = Status::of(pid)
        .map_err(|error| DumpError::io("read", format!("/proc/{pid}/status"), &error))?;
    process.umask = status.umask();
    if scope == Scope::Alone {
        return Ok(());
    }
    let n_threads = n_threads_settled(pid)
        .map_err(|error| DumpError::io("read", format!("/proc/{pid}/task"), &error))?;
    if n_threads != 1 {
        return Err(DumpError::not_supported("", format!("{n_threads} threads")));
    }
    if status.set("SigPnd") | status.set("ShdPnd") != 0 {
        let signals = trace::pending_signals(pid)
            .map_err(|errno| DumpError::on("ptrace", pid.to_string(), errno))?;
        let signals = signals.into_iter();
        process.signals = signals
            .map(|(info, shared)| PendingSignal {
                info: info.to_vec(),
                shared,
            })
            .collect();
    }
    Ok(())
}

pub(super) fn children(pid: Pid) -> Result<Vec<Pid>, DumpError> {
    let text = read(&format!("/proc/{pid}/task/{pid}/children"))?;
    let pids = text
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok());
    Ok(pids.map(Pid::from_raw).collect())
}

/// Where each process is.
pub(super) fn working_directories(image: &mut Image, places: &mut Places) -> Result<(), DumpError> {
    if image.only_groups {
        return Ok(());
    }
    for index in 0..image.processes.len() {
        if image.processes[index].exited.is_some() {
            continue;
        }
        let path = format!("/proc/{}/cwd", image.processes[index].pid);
        let place = handle::open_path(path.as_ref())
            .map_err(|errno| DumpError::on("open", &path, errno))
            .and_then(|file| places.of_file(image, file, 0))
            .map_err(|error| error.at("working directory"))?;
        image.processes[index].working_directory = Some(place);
    }
    Ok(())
}

fn read(path: &str) -> Result<String, DumpError> {
    let bytes = fs::read(path).map_err(|error| DumpError::io("read", path, &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
