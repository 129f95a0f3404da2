//! A cut made by programs: one that dumps and kills, one that restores. What has to be true when
//! each has returned, and the checking of it; `criu` and `command` differ only in the programs.
//!
//! When dump returns 0, every process of the subject's tree has ended, as it was. When restore returns 0, they
//! are back with the pids that they had, stopped as they were, and the main process is a child of
//! the process that started the program or was left to it by a parent that ended. A restored process
//! that has gone on to its next step has heard of the cut, and is a failure.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cr::process::stat;
use fsnotify::fdinfo::{Body, Group, Kind, Level, MarkTarget};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Cut, CutError, Workshop};
use crate::criu_images::{Images, losses};
use crate::park::Stop;
use crate::pids;

/// Time that processes have to end after dump has returned: they were killed, but need not yet be
/// gone.
const ENDING: Duration = Duration::from_secs(2);

/// A program hangs when for this long nothing of the sandbox ran. CRIU takes 0.1 s, and minutes on a
/// machine that has no time for it; behind a permission event that only the stopped subject could
/// answer it waits for ever.
const IDLE: Duration = Duration::from_secs(3);

/// The first descriptor that is not a standard stream.
const FIRST_OF_NO_STREAM: u32 = 3;

/// Half of a cut: a program to run.
pub(super) struct Half<'a> {
    /// `dump` or `restore`.
    pub(super) name: &'static str,
    pub(super) command: Command,
    /// What the program has said of its failure so far.
    pub(super) said: Box<dyn Fn() -> Vec<String> + 'a>,
}

impl Half<'_> {
    fn broke_contract(&self, what: String) -> Failure {
        Failure {
            kind: FailureKind::Seen(what),
            said: (self.said)(),
        }
    }
}

/// How half of a cut failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// What the program itself said of it.
    pub(super) said: Vec<String>,
}

#[derive(Debug)]
pub(super) enum FailureKind {
    /// The program failed by its own account: how it ended.
    Ended(String),
    /// It did not keep the contract, whatever it says: what was seen.
    Seen(String),
}

/// The state before the cut that later halves are held against.
pub(super) struct Before {
    pub(super) groups: Vec<losses::Shown>,
    processes: Vec<Pid>,
    /// Their numbers in their own pid namespace, which restore has to keep.
    inner: Vec<Pid>,
    log_length: u64,
}

impl Before {
    pub(super) fn look(shop: &Workshop) -> Result<Self, CutError> {
        let processes = pids::all().map_err(CutError::Failed)?;
        Ok(Self {
            groups: groups(&processes)?,
            log_length: log_length(shop)?,
            inner: processes
                .iter()
                .map(|&pid| pids::inner(pid).unwrap_or(pid))
                .collect(),
            processes,
        })
    }
}

/// Runs the dump and sees to it that the subject is gone.
pub(super) fn dump(shop: &Workshop, before: &Before, mut half: Half) -> Result<(), Failure> {
    run(shop, &mut half)?;
    ended(shop, before).map_err(|what| half.broke_contract(what))
}

fn ended(shop: &Workshop, before: &Before) -> Result<(), String> {
    let left = reap(shop, &before.processes);
    match (left, ran_on(shop, before)?) {
        (left, false) => left,
        (Ok(()), true) => Err("let the subject run on before it ended".to_owned()),
        (Err(left), true) => Err(format!("{left}, and let it run on")),
    }
}

/// Runs the restore and sees to it that the subject is back, stopped. Its main process, whose number
/// is another one where its pid namespace was made again.
pub(super) fn restore(shop: &Workshop, before: &Before, mut half: Half) -> Result<Pid, Failure> {
    run(shop, &mut half)?;
    restored(shop, before).map_err(|what| half.broke_contract(what))
}

fn restored(shop: &Workshop, before: &Before) -> Result<Pid, String> {
    let outer = pids::by_inner()?;
    for process in &before.inner {
        if !outer.contains_key(process) {
            return Err(format!(
                "restore returned 0, but process {process} is not there"
            ));
        }
    }
    let is_main = |&(&process, _): &(&Pid, &Pid)| process == shop.subject;
    let mut numbers = before.processes.iter().zip(&before.inner);
    let main = numbers
        .find(is_main)
        .and_then(|(_, inner)| outer.get(inner));
    let main = *main.ok_or("the subject was not there before the dump")?;
    match shop.parking.wait(main) {
        Stop::Parked => {}
        Stop::Ended(how) => return Err(format!("restore returned 0, but then {how}")),
        Stop::TimedOut => {
            return Err("restore returned 0, but the subject was not stopped".to_owned());
        }
    }
    if ran_on(shop, before)? {
        return Err("restore let the subject run on; it has to come back stopped".to_owned());
    }
    Ok(main)
}

/// Whether the subject has gone on to its next step.
fn ran_on(shop: &Workshop, before: &Before) -> Result<bool, String> {
    let length = log_length(shop).map_err(|error| format!("{error:?}"))?;
    Ok(length != before.log_length)
}

/// What was lost between fdinfo, image and fdinfo; nothing where the images are not CRIU's.
pub(super) fn attribute(shop: &Workshop, before: &Before, restored: bool) -> Vec<String> {
    let Ok(images) = Images::read(shop.images) else {
        return Vec::new();
    };
    let after = restored.then(|| {
        let processes = pids::all().unwrap_or_default();
        groups(&processes).unwrap_or_default()
    });
    let lost = losses::attribute(&before.groups, &images, after.as_deref());
    lost.iter().map(ToString::to_string).collect()
}

/// The cut, with what was found out about it.
pub(super) fn finished(subject: Pid, losses: Vec<scenario::Loss>, notes: Vec<String>) -> Cut {
    Cut {
        subject,
        losses,
        notes,
    }
}

/// A failure: what happened, and below it what is known of it.
pub(super) fn failed(half: &str, lines: &[String], notes: &[String]) -> CutError {
    let mut text = format!("{half}: {}", lines.first().map_or("", String::as_str));
    for note in lines.iter().skip(1).chain(notes) {
        text.push_str("\n  ");
        text.push_str(note);
    }
    CutError::Failed(text)
}

/// Runs a program to its end.
fn run(shop: &Workshop, half: &mut Half) -> Result<(), Failure> {
    let child = start(shop, half).map_err(|what| half.broke_contract(what))?;
    let mut ran = time_used();
    let reason = loop {
        match wait(child, IDLE.min(shop.parking.left())) {
            Some(Ok(())) => return Ok(()),
            Some(Err(how)) => {
                return Err(Failure {
                    kind: FailureKind::Ended(how),
                    said: (half.said)(),
                });
            }
            None => {}
        }
        let runs = time_used();
        if runs.waiting && runs.ticks == ran.ticks {
            break "no end: it waits, and nothing runs that it could wait for";
        }
        if shop.parking.left().is_zero() {
            break "no end within the limit of the run";
        }
        ran = runs;
    };
    // Before the kill: how far its processes get with their words while they die is a race.
    let failure = half.broke_contract(reason.to_owned());
    // A program that hangs behind a permission event of the subject cannot be killed while the subject
    // holds the group; so all of them are, also those that restore has made.
    for process in pids::all().unwrap_or_default() {
        let _ = kill(process, Signal::SIGKILL);
    }
    let _ = wait(child, ENDING);
    Err(failure)
}

/// Starts a program with standard streams alone. What it prints goes to `NAME.out` beside the images.
fn start(shop: &Workshop, half: &mut Half) -> Result<Pid, String> {
    let file = shop.images.join(format!("{}.out", half.name));
    let out = fs::File::create(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let err = out.try_clone().map_err(|error| error.to_string())?;
    // What the harness itself was started with is nobody's business: CRIU would carry it about.
    cr::sys::descriptor::close_on_exec_from(FIRST_OF_NO_STREAM)
        .map_err(|errno| format!("close_range: {errno}"))?;
    let child = half
        .command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .current_dir(shop.images)
        .spawn()
        .map_err(|error| format!("cannot start: {error}"))?;
    Ok(Pid::from_raw(i32::try_from(child.id()).expect("a pid")))
}

/// What the processes of the sandbox have used of the machine.
#[derive(Clone, Copy, Debug)]
struct TimeUsed {
    ticks: u64,
    /// Whether none of them would run if it could.
    waiting: bool,
}

fn time_used() -> TimeUsed {
    let mut used = TimeUsed {
        ticks: 0,
        waiting: true,
    };
    for process in pids::all().unwrap_or_default() {
        let Ok(fields) = stat(process) else {
            continue;
        };
        used.waiting &= fields.first().is_none_or(|state| state != "R");
        // proc_pid_stat(5): utime and stime are fields 14 and 15, the state is field 3.
        let ticks = fields.iter().skip(11).take(2);
        used.ticks += ticks
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum::<u64>();
    }
    used
}

/// None: still running at the limit. An error says how it ended, other than with 0.
fn wait(child: Pid, limit: Duration) -> Option<Result<(), String>> {
    let deadline = Instant::now() + limit;
    let mut signal = SigSet::empty();
    signal.add(Signal::SIGCHLD);
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, 0)) => return Some(Ok(())),
            Ok(WaitStatus::Exited(_, code)) => return Some(Err(format!("ended with {code}"))),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Some(Err(format!("was killed by {signal}")));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Some(Err(format!("waitpid: {errno}"))),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if !cr::sys::spawn::wait_signal(&signal, left) {
            return None;
        }
    }
}

/// Waits until no process of the subject's tree is left.
fn reap(shop: &Workshop, processes: &[Pid]) -> Result<(), String> {
    for &process in processes {
        let limit = ENDING.min(shop.parking.left());
        // The child of a process that has ended is this process's own from then on.
        match wait(process, limit) {
            Some(_) if state(process).is_none() => {}
            Some(_) | None => {
                let word = if process == shop.subject {
                    "main"
                } else {
                    "child"
                };
                return Err(format!(
                    "returned 0, but left process {process} ({word}) in state {}",
                    state(process).unwrap_or('?')
                ));
            }
        }
    }
    Ok(())
}

/// The letter of a process's state; none if there is no such process.
fn state(process: Pid) -> Option<char> {
    stat(process).ok()?.first()?.chars().next()
}

fn log_length(shop: &Workshop) -> Result<u64, CutError> {
    fs::metadata(shop.log)
        .map(|metadata| metadata.len())
        .map_err(|error| CutError::Failed(format!("{}: {error}", shop.log.display())))
}

/// Every group of the processes as fdinfo shows it now.
fn groups(processes: &[Pid]) -> Result<Vec<losses::Shown>, CutError> {
    let mut groups = Vec::new();
    for &process in processes
        .iter()
        .filter(|&&process| state(process) != Some('Z'))
    {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            CutError::Failed(format!("{what} of process {process}: {error}"))
        };
        let numbers =
            cr::sys::inspect::groups(process).map_err(|error| failed("groups", &error))?;
        let pidfd =
            cr::sys::inspect::pidfd_open(process).map_err(|errno| failed("pidfd", &errno))?;
        for fd in numbers {
            let path = format!("/proc/{process}/fdinfo/{fd}");
            let text = fs::read(&path).map_err(|error| failed(&path, &error))?;
            let kind = match fs::read_link(format!("/proc/{process}/fd/{fd}")) {
                Ok(link) if link.to_string_lossy().contains("fanotify") => Kind::Fanotify,
                Ok(_) | Err(_) => Kind::Inotify,
            };
            let group = Group::parse_as(&text, kind, Level::Lenient)
                .map_err(|error| failed(&path, &error))?;
            let unread = cr::sys::inspect::pidfd_getfd(&pidfd, fd)
                .and_then(|file| cr::sys::inspect::unread(&file))
                .map_err(|errno| failed(&path, &errno))?;
            groups.push(losses::Shown {
                pid: pids::inner(process).unwrap_or(process).as_raw(),
                fd: u32::try_from(fd).expect("a descriptor is not negative"),
                group,
                unread,
            });
        }
    }
    Ok(groups)
}

/// Names of the inodes that the scenario's paths and the subject's descriptors lead to.
pub(super) fn names(shop: &Workshop, before: &Before) -> HashMap<(u32, u64), String> {
    let mut names = HashMap::new();
    for name in shop.names {
        let path = shop.reach.join(name);
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            let name = shown(shop, &path, &metadata);
            names.entry(number(&metadata)).or_insert(name);
        }
    }
    for (path, metadata) in open_files(before) {
        let name = shown(shop, &path, &metadata);
        names.entry(number(&metadata)).or_insert(name);
    }
    names
}

/// Names of the world's root, of every mount below it, and of what the subject's descriptors and
/// working directories refer to.
pub(super) fn opened(shop: &Workshop, before: &Before) -> Vec<String> {
    let mut opened = Vec::new();
    for name in shop.names {
        let path = shop.reach.join(name);
        let above = path.parent().and_then(|above| fs::metadata(above).ok());
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if above.is_none_or(|above| above.dev() != metadata.dev()) {
            opened.push(shown(shop, &path, &metadata));
        }
    }
    for (path, metadata) in open_files(before) {
        if path.starts_with(shop.world) {
            opened.push(shown(shop, &path, &metadata));
        }
    }
    opened
}

/// As facts show it: relative to the world, a ghost by the name that it had.
fn shown(shop: &Workshop, path: &Path, metadata: &fs::Metadata) -> String {
    let inner = path
        .strip_prefix(shop.world)
        .or_else(|_| path.strip_prefix(shop.reach));
    let inner = inner.unwrap_or(path);
    let here = shop.reach.join(inner);
    let inner = match inner.to_string_lossy() {
        empty if empty.is_empty() => ".".into(),
        inner => inner,
    };
    match inner.strip_suffix(" (deleted)") {
        Some(name) if !here.exists() && metadata.nlink() < 2 => format!("{name:?} (deleted)"),
        Some(_) | None => format!("{inner:?}"),
    }
}

/// What the descriptors and the working directory of each process refer to, by the links of procfs.
fn open_files(before: &Before) -> Vec<(PathBuf, fs::Metadata)> {
    let mut files = Vec::new();
    for process in &before.processes {
        let mut links = vec![PathBuf::from(format!("/proc/{process}/cwd"))];
        let entries = fs::read_dir(format!("/proc/{process}/fd"));
        links.extend(
            entries
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path()),
        );
        for link in links {
            if let (Ok(target), Ok(metadata)) = (fs::read_link(&link), fs::metadata(&link)) {
                files.push((target, metadata));
            }
        }
    }
    files
}

fn number(metadata: &fs::Metadata) -> (u32, u64) {
    let major = nix::sys::stat::major(metadata.dev());
    let minor = nix::sys::stat::minor(metadata.dev());
    (
        u32::try_from(major << 20 | minor).unwrap_or(u32::MAX),
        metadata.ino(),
    )
}

/// What stands on an inode, in words: `wd 2 of fd 4`, `mark of fd 3`.
pub(super) fn watches(before: &Before) -> HashMap<(u32, u64), Vec<String>> {
    let mut on: HashMap<(u32, u64), Vec<String>> = HashMap::new();
    for shown in &before.groups {
        let fd = shown.fd;
        match &shown.group.body {
            Body::Unstated => {}
            Body::Inotify { watches } => {
                for watch in watches {
                    on.entry((watch.sdev.0, watch.ino.0))
                        .or_default()
                        .push(format!("wd {} of fd {fd}", watch.wd));
                }
            }
            Body::Fanotify { marks, .. } => {
                for mark in marks {
                    if let MarkTarget::Inode { ino, sdev, .. } = mark.target {
                        on.entry((sdev.0, ino.0))
                            .or_default()
                            .push(format!("mark of fd {fd}"));
                    }
                }
            }
        }
    }
    on
}
