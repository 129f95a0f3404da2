//! A scenario from a real program: run under strace, the calls that matter kept ([`translate`]), paths
//! below a root made relative, what was there before made first ([`tree`]).
//!
//! All processes become one: what a shell or a helper does to the tree is done by the main process,
//! since it makes the same events. What somebody else does to the tree meanwhile is not seen.

mod line;
mod tables;
#[cfg(test)]
mod tests;
mod translate;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cr::process::Status;
use fsnotify::counted;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use self::line::{Entry, entries};
use self::tables::Surroundings;
use self::translate::{GroupBefore, Held, HeldWhat, Start, Step, TRACED, Translated};
use self::tree::{Reading, Tree};
use super::explain::{self, GroupKind};
use super::place::Name;
use super::process;
use super::search::{LIMIT, Search};

/// How long programs that were told to end may take.
const PATIENCE_MS: i32 = 5_000;
/// How long strace may take to attach.
const ATTACH_MS: i32 = 10_000;

/// With a number: what results are called where the tree is made.
const MADE: &str = "made";

/// What to record.
#[derive(Clone, Debug)]
pub enum Source {
    /// A command and its children, until all have ended.
    Command(Vec<String>),
    /// A process that runs, and what it starts.
    Process(i32),
}

/// How to record.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The folder that the scenario is about.
    pub root: &'a Path,
    /// What the scenario's first line says.
    pub sentence: &'a str,
    /// How long; without it until all has ended, or until Ctrl-C.
    pub seconds: Option<u16>,
    /// Called when a process is recorded from now on.
    pub begun: &'a dyn Fn(),
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("root", &self.root)
            .field("sentence", &self.sentence)
            .field("seconds", &self.seconds)
            .finish_non_exhaustive()
    }
}

/// A recorded scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Canonical.
    pub text: String,
    pub n_steps: usize,
    pub n_watches: usize,
    pub left_out: Vec<LeftOut>,
}

/// Something that happened and is no step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Reads well after "3 calls".
    pub why: String,
    /// The call, or the object.
    pub what: String,
}

impl LeftOut {
    fn new(why: &str, what: &str) -> Self {
        Self {
            why: why.to_owned(),
            what: what.to_owned(),
        }
    }
}

/// What was left out, by reason: how often, and the first of each.
#[must_use]
pub fn by_reason(left_out: &[LeftOut]) -> Vec<(usize, &str, &str)> {
    let mut reasons: Vec<(usize, &str, &str)> = Vec::new();
    for one in left_out {
        match reasons.iter_mut().find(|(_, why, _)| *why == one.why) {
            Some(reason) => reason.0 += 1,
            None => reasons.push((1, &one.why, &one.what)),
        }
    }
    reasons
}

/// Records.
///
/// # Errors
///
/// In words, with what to do next.
pub fn record(source: &Source, options: Options<'_>) -> Result<Recorded, String> {
    let root = translate::canonical(options.root)?;
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let log = folder.path().join("strace");
    let mut left_out = Vec::new();
    let (start, tree) = match source {
        Source::Command(command) => {
            let tree = Tree::read(&root, Reading::Plain, &mut left_out)?;
            let mut strace = start_strace(&log, &["--"], command)?;
            wait(&mut strace, options.seconds)?;
            (None, tree)
        }
        Source::Process(pid) => {
            let mut strace = start_strace(&log, &["-p"], &[pid.to_string()])?;
            let begun =
                attached(*pid, &mut strace).and_then(|()| begin(*pid, &root, &mut left_out));
            let (start, tree) = match begun {
                Ok(begun) => begun,
                Err(reason) => {
                    detach(&mut strace)?;
                    return Err(reason);
                }
            };
            (options.begun)();
            wait(&mut strace, options.seconds)?;
            (Some(start), tree)
        }
    };
    let text = fs::read(&log).map_err(|error| format!("strace wrote nothing: {error}"))?;
    let entries = entries(&String::from_utf8_lossy(&text));
    let start = match start {
        Some(start) => start,
        None => at_first(&entries)?,
    };
    let translated = translate::translate(&entries, start, &root, tree);
    let text = Text {
        header: header(options.sentence, source, &root, &translated),
        made: translated.tree.calls(),
    };
    if translated.n_watches == 0 {
        return Err(nothing_watched(&root, &translated));
    }
    left_out.extend(translated.left_out);
    text.settle(translated.steps, translated.n_watches, left_out)
}

/// Starts strace on a command or a process.
fn start_strace(log: &Path, how: &[&str], what: &[String]) -> Result<Child, String> {
    let traced: Vec<String> = TRACED.iter().map(|call| format!("?{call}")).collect();
    let mut strace = Command::new("strace");
    strace
        // All of every string and list, but not of every program's environment.
        .args(["-f", "-q", "-xx", "-v", "-s", "65536", "-e", "signal=none"])
        .args(["-e", "abbrev=execve"])
        .args(["-e", &format!("trace={}", traced.join(",")), "-o"])
        .arg(log)
        .args(how)
        .args(what);
    if how == ["-p"] {
        strace.stdin(Stdio::null());
    }
    strace.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "strace is not installed, and nothing else sees the calls \
            of a program: install it (Debian, Ubuntu: apt-get install strace; Fedora: dnf install \
            strace)"
            .to_owned(),
        _ => format!("strace: {error}"),
    })
}

/// Waits until strace ends, or for the time that was asked for, or for Ctrl-C, which is for what
/// is recorded and not for us.
fn wait(strace: &mut Child, seconds: Option<u16>) -> Result<(), String> {
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    interrupt
        .thread_block()
        .map_err(|errno| format!("sigprocmask: {errno}"))?;
    let limit_ms = seconds.map(|seconds| i32::from(seconds) * 1000);
    if !ends_within(strace, limit_ms)? {
        end(strace)?;
    }
    strace.wait().map_err(|error| format!("strace: {error}"))?;
    let _ = interrupt.thread_unblock();
    Ok(())
}

/// Ends what is recorded: a command is told to end, a process is let go.
fn end(strace: &mut Child) -> Result<(), String> {
    let tracer = strace.id().cast_signed();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut told = vec![tracer];
        let mut next = 0;
        while let Some(pid) = told.get(next) {
            told.extend(process::children(*pid));
            next += 1;
        }
        // Its own children first; a tracer of a command takes no signal meanwhile.
        for pid in told.into_iter().rev() {
            // Whoever has ended meanwhile need not be told.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        if ends_within(strace, Some(PATIENCE_MS))? {
            return Ok(());
        }
    }
    Ok(())
}

fn detach(strace: &mut Child) -> Result<(), String> {
    let _ = kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGTERM);
    strace.wait().map_err(|error| format!("strace: {error}"))?;
    Ok(())
}

fn ends_within(strace: &Child, limit_ms: Option<i32>) -> Result<bool, String> {
    let pid = Pid::from_raw(strace.id().cast_signed());
    let pidfd =
        cr::sys::inspect::pidfd_open(pid).map_err(|errno| format!("pidfd_open: {errno}"))?;
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let limit = limit_ms.and_then(|limit| PollTimeout::try_from(limit).ok());
    match poll(&mut polled, limit.unwrap_or(PollTimeout::NONE)) {
        Ok(n_ready) => Ok(n_ready > 0),
        Err(errno) => Err(format!("poll: {errno}")),
    }
}

/// Waits until strace has attached to a process.
fn attached(pid: i32, strace: &mut Child) -> Result<(), String> {
    let tracer = i32::try_from(strace.id()).ok();
    for _ in 0..ATTACH_MS / 10 {
        let status = Status::of(pid)
            .map_err(|_| format!("process {pid}: there is none here, or it may not be seen"))?;
        if status.number("TracerPid") == tracer {
            return Ok(());
        }
        if ends_within(strace, Some(10))? {
            return Err(format!(
                "strace could not attach to process {pid}; it takes the same user or root, and \
                 nobody else may trace it"
            ));
        }
    }
    Err(format!("strace has not attached to process {pid} in 10 s"))
}

/// What a process has open when it is attached to, and the tree.
fn begin(pid: i32, root: &Path, left_out: &mut Vec<LeftOut>) -> Result<(Start, Tree), String> {
    let tree = Tree::read(root, Reading::Silent, left_out)?;
    let search = Search {
        limit: LIMIT,
        progress: &|_| {},
    };
    let groups = explain::watching(pid, false, &search)?;
    let mut groups: BTreeMap<i32, explain::Group> = groups
        .into_iter()
        .flat_map(|process| process.groups)
        .map(|group| (group.fd, group))
        .collect();
    let failed = |error: std::io::Error| format!("/proc/{pid}: {error}");
    let mut held = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let (Some(fd), Ok(link)) = (number, fs::read_link(entry.path())) else {
            continue;
        };
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        held.push(hold(
            fd,
            link.as_os_str().as_bytes(),
            &info,
            groups.remove(&fd),
            left_out,
        ));
    }
    held.sort_by_key(|held| held.fd);
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).map_err(failed)?;
    let start = Start {
        pid,
        surroundings: Surroundings {
            directory: directory.as_os_str().as_bytes().to_vec(),
            umask: umask(pid),
        },
        held,
    };
    Ok((start, tree))
}

fn hold(
    fd: i32,
    link: &[u8],
    info: &str,
    group: Option<explain::Group>,
    left_out: &mut Vec<LeftOut>,
) -> Held {
    let field = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name).map(str::trim))
    };
    let flags = field("flags:").and_then(|flags| u32::from_str_radix(flags, 8).ok());
    let flags = flags.unwrap_or(0);
    let offset = field("pos:").and_then(|offset| offset.parse().ok());
    let what = match group {
        Some(group) => group_before(group, left_out),
        None if link.starts_with(b"/") && !link.ends_with(b" (deleted)") => HeldWhat::File {
            flags: scenario::FlagSet::Open
                .text(u64::from(flags & !KEPT_BACK))
                .to_string(),
            offset: offset.unwrap_or(0),
        },
        None => HeldWhat::Other,
    };
    Held {
        fd,
        close_on_exec: flags & O_CLOEXEC != 0,
        path: link.to_vec(),
        what,
    }
}

/// As fdinfo shows it.
const O_CLOEXEC: u32 = 0o2_000_000;
/// Flags that open(2) acts on, and `O_LARGEFILE`, which means nothing here.
const KEPT_BACK: u32 = 0o100_000 | 0o100 | 0o200 | 0o1000;

fn group_before(group: explain::Group, left_out: &mut Vec<LeftOut>) -> HeldWhat {
    let fd = group.fd;
    if group.kind == GroupKind::Fanotify {
        let why = "of a fanotify group that was there before";
        left_out.push(LeftOut::new(why, &format!("fd {fd}")));
        return HeldWhat::Other;
    }
    if let Some(unread @ 1..) = group.unread_bytes {
        let why = "of events that were unread before";
        left_out.push(LeftOut::new(
            why,
            &format!("{} of fd {fd}", counted(unread, "byte")),
        ));
    }
    let watches = group.watches.into_iter().filter_map(|watch| {
        let wd = watch.wd;
        match watch.target.name {
            Name::Named { paths, .. } => {
                let path = paths.into_iter().next()?;
                Some((wd, path.into_bytes(), watch.mask))
            }
            Name::Ghost { .. } | Name::Hidden { .. } | Name::NoName { .. } => {
                let why = "of a watch on what has no path";
                left_out.push(LeftOut::new(why, &format!("wd {wd} of fd {fd}")));
                None
            }
        }
    });
    let flags = match group.status_flags.contains("O_NONBLOCK") {
        true => "IN_NONBLOCK",
        false => "0",
    };
    HeldWhat::Group(GroupBefore {
        watches: watches.collect(),
        flags: flags.to_owned(),
    })
}

fn umask(pid: i32) -> u32 {
    Status::of(pid).map_or(0o022, |status| status.umask())
}

/// A command begins with what it has from us.
fn at_first(entries: &[Entry]) -> Result<Start, String> {
    let first = entries.first().map(|entry| match entry {
        Entry::Call(call) => call.pid,
        Entry::Exited(pid) => *pid,
    });
    let pid = first.ok_or("strace saw no call; what it said stands above")?;
    let directory =
        std::env::current_dir().map_err(|error| format!("working directory: {error}"))?;
    let held = (0..=2).map(|fd| Held {
        fd,
        close_on_exec: false,
        path: fs::read_link(format!("/proc/self/fd/{fd}"))
            .map(|path| path.as_os_str().as_bytes().to_vec())
            .unwrap_or_default(),
        what: HeldWhat::Other,
    });
    Ok(Start {
        pid,
        surroundings: Surroundings {
            directory: directory.as_os_str().as_bytes().to_vec(),
            umask: umask(std::process::id().cast_signed()),
        },
        held: held.collect(),
    })
}

fn nothing_watched(root: &Path, translated: &Translated) -> String {
    let root = root.display();
    let elsewhere: Vec<&str> = translated.elsewhere.iter().map(String::as_str).collect();
    match elsewhere.as_slice() {
        [] => format!("nothing was watched: no inotify or fanotify call succeeded for {root}"),
        [first, ..] => format!(
            "nothing below {root} was watched, but {}: --root names the folder that it is about, \
             such as --root {first}",
            elsewhere.join(", ")
        ),
    }
}

fn header(sentence: &str, source: &Source, root: &Path, translated: &Translated) -> Vec<String> {
    let plain = |text: &str| text.replace(char::is_control, " ");
    let what = match source {
        Source::Command(command) => {
            let shown = command.join(" ");
            let shown = shown.replace(&*root.to_string_lossy(), ".");
            match shown.char_indices().nth(200) {
                Some((at, _)) => format!("{}...", &shown[..at]),
                None => shown,
            }
        }
        Source::Process(pid) => {
            format!("a running {}", cr::process::name(pid).unwrap_or_default())
        }
    };
    let mut lines = vec![
        format!("# {}", plain(sentence)),
        format!("# Recorded with `notifreeze record` from: {}", plain(&what)),
    ];
    if !translated.requires.is_empty() {
        let words: Vec<&str> = translated.requires.iter().copied().collect();
        lines.push(format!("requires {}", words.join(" ")));
    }
    lines
}

struct Text {
    header: Vec<String>,
    made: Vec<String>,
}

impl Text {
    /// Puts the checkpoint in, takes out what the language does not take, and makes it canonical.
    fn settle(
        &self,
        mut steps: Vec<Step>,
        n_watches: usize,
        mut left_out: Vec<LeftOut>,
    ) -> Result<Recorded, String> {
        loop {
            let (text, lines) = self.with(&steps);
            let problems = match scenario::parse_and_check(&text) {
                Ok(parsed) => {
                    return Ok(Recorded {
                        n_steps: parsed.scenario.steps.len(),
                        text: scenario::print(&parsed.scenario),
                        n_watches,
                        left_out,
                    });
                }
                Err(problems) => problems,
            };
            // A step that is gone may be the one that bound a name for others, which then go too.
            let mut gone = Vec::new();
            for problem in &problems {
                let (line, _) = problem.line_and_column(&text);
                let step = lines.iter().position(|own| *own == line);
                if let Some(step) = step.filter(|step| !gone.contains(step)) {
                    let why = format!("that the language does not take: {}", problem.kind);
                    left_out.push(LeftOut::new(&why, &steps[step].text));
                    gone.push(step);
                }
            }
            if gone.is_empty() {
                let shown = crate::diagnostics::render(Path::new("recorded"), &text, &problems);
                return Err(format!("the recording makes no scenario:\n{shown}"));
            }
            gone.sort_unstable();
            for step in gone.into_iter().rev() {
                steps.remove(step);
            }
        }
    }

    /// The text, and the line of each step.
    fn with(&self, steps: &[Step]) -> (String, Vec<usize>) {
        let drains: Vec<usize> = (0..steps.len()).filter(|at| steps[*at].drains).collect();
        // Amid the reads: with unread events at the cut, and with more to come.
        let checkpoint = drains.get((drains.len().max(1) - 1) / 2).copied();
        let mut lines = self.header.clone();
        lines.extend(self.made.iter().cloned());
        let mut numbers = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            if checkpoint == Some(at) {
                lines.push("checkpoint".to_owned());
            }
            let is_used = |name: &String| steps.iter().any(|step| step.uses.contains(name));
            let result = match (&step.result, &step.binds) {
                (Some(result), _) => format!(" = {result}"),
                (None, Some(name)) if is_used(name) => format!(" = {name}"),
                (None, _) => String::new(),
            };
            lines.push(format!("{}{result}", step.text));
            numbers.push(lines.len());
        }
        if checkpoint.is_none() {
            lines.push("checkpoint".to_owned());
        }
        (lines.join("\n") + "\n", numbers)
    }
}
