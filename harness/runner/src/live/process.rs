//! A live process and its groups, as /proc tells and a duplicate of the descriptor confirms.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use cr::sys::inspect;
use fsnotify::fdinfo::{Group, Kind, Level, Options};
use nix::unistd::Pid;

/// Most processes of one tree.
const MAX_PROCESSES: usize = 4096;

/// A process as its owner knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// `comm`.
    pub name: String,
    pub command: Vec<String>,
    pub user: u32,
}

/// A group of a process.
#[derive(Debug)]
pub struct Seen {
    pub pid: i32,
    pub fd: i32,
    pub kind: Kind,
    pub group: Group,
    /// Other descriptors of the same open file description, here and in other processes.
    pub shared_with: Vec<(i32, i32)>,
    /// Unread bytes; or why they cannot be counted.
    pub unread: Result<u64, String>,
}

/// A process, and with `tree` its descendants, parents first.
///
/// # Errors
///
/// In words, with what to do next: there is no such process, or it may not be looked at.
pub fn processes(pid: i32, tree: bool) -> Result<Vec<Process>, String> {
    let mut found = vec![process(pid)?];
    readable(&found[0])?;
    let mut next = 0;
    while tree && next < found.len() {
        for child in children(found[next].pid) {
            // A child that has ended meanwhile watches nothing.
            if let Ok(child) = process(child)
                && readable(&child).is_ok()
            {
                found.push(child);
            }
        }
        next += 1;
        if found.len() > MAX_PROCESSES {
            return Err(format!("more than {MAX_PROCESSES} processes below {pid}"));
        }
    }
    Ok(found)
}

/// What is said of a number that is no process's.
#[must_use]
pub fn none_here(pid: i32) -> String {
    format!(
        "process {pid}: there is none here; ps -e lists those of this pid namespace, whose numbers \
         are meant"
    )
}

fn process(pid: i32) -> Result<Process, String> {
    let folder = format!("/proc/{pid}");
    let stat = fs::metadata(&folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => none_here(pid),
        _ => format!("process {pid}: {error}"),
    })?;
    let text = |name: &str| fs::read(format!("{folder}/{name}")).unwrap_or_default();
    let words = text("cmdline");
    let words = words.strip_suffix(b"\0").unwrap_or(&words);
    let command = words.split(|&byte| byte == 0);
    let lossy = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    Ok(Process {
        pid,
        name: lossy(text("comm").trim_ascii_end()),
        command: if words.is_empty() {
            Vec::new()
        } else {
            command.map(lossy).collect()
        },
        user: stat.uid(),
    })
}

/// Whether its descriptors may be listed.
fn readable(process: &Process) -> Result<(), String> {
    let Process {
        pid, name, user, ..
    } = process;
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(format!(
            "process {pid} ({name}) may not be looked at: it belongs to user {user} or has \
             privileges that we lack; run this as root, with CAP_SYS_PTRACE, in its pid namespace \
             or above"
        )),
        Err(error) => Err(format!("process {pid} ({name}): {error}")),
    }
}

pub(super) fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let texts = tasks.map(|task| fs::read_to_string(task.path().join("children")));
    let mut children: Vec<i32> = texts
        .flat_map(|text| {
            let text = text.unwrap_or_default();
            let pids = text.split_ascii_whitespace().map(str::parse);
            pids.filter_map(Result::ok).collect::<Vec<i32>>()
        })
        .collect();
    children.sort_unstable();
    children
}

/// The groups of processes, each once: under its first descriptor.
///
/// # Errors
///
/// In words: a descriptor whose fdinfo is not understood, or a process that ended.
pub fn groups(processes: &[Process]) -> Result<Vec<Seen>, String> {
    let own: Vec<(i32, i32, Kind)> = processes
        .iter()
        .flat_map(|process| descriptors(process.pid))
        .collect();
    let others = if own.is_empty() {
        Vec::new()
    } else {
        all_pids()
            .into_iter()
            .filter(|pid| processes.iter().all(|process| process.pid != *pid))
            .flat_map(descriptors)
            .collect()
    };
    let mut seen: Vec<Seen> = Vec::new();
    for &(pid, fd, kind) in &own {
        let is = |other: (i32, i32)| {
            inspect::same_description((Pid::from_raw(pid), fd), (Pid::from_raw(other.0), other.1))
        };
        if seen
            .iter()
            .any(|seen| seen.shared_with.contains(&(pid, fd)))
        {
            continue;
        }
        let shared_with = own
            .iter()
            .chain(&others)
            .filter(|other| other.2 == kind && (other.0, other.1) != (pid, fd))
            .map(|other| (other.0, other.1))
            .filter(|other| is(*other))
            .collect();
        seen.extend(see((pid, fd, kind), shared_with)?);
    }
    Ok(seen)
}

/// A group; none if it was closed meanwhile.
fn see(
    (pid, fd, kind): (i32, i32, Kind),
    shared_with: Vec<(i32, i32)>,
) -> Result<Option<Seen>, String> {
    let Ok(text) = fs::read(format!("/proc/{pid}/fdinfo/{fd}")) else {
        return Ok(None);
    };
    let options = Options {
        kind: Some(kind),
        ..Options::new(Level::Lenient)
    };
    let group = Group::parse_with(&text, options)
        .map_err(|error| format!("/proc/{pid}/fdinfo/{fd}: {error}"))?;
    let unread = duplicate(pid, fd).and_then(|file| {
        inspect::unread(&file).map_err(|errno| format!("ioctl FIONREAD: {errno}"))
    });
    Ok(Some(Seen {
        pid,
        fd,
        kind,
        group,
        shared_with,
        unread,
    }))
}

/// Our own descriptor of a description of the process.
pub(super) fn duplicate(pid: i32, fd: i32) -> Result<OwnedFd, String> {
    let pidfd =
        inspect::pidfd_open(Pid::from_raw(pid)).map_err(|errno| format!("pidfd_open: {errno}"))?;
    inspect::pidfd_getfd(&pidfd, fd).map_err(|errno| format!("pidfd_getfd: {errno}"))
}

/// The groups of a process by their links, rising; nothing if it may not be looked at.
pub(super) fn descriptors(pid: i32) -> Vec<(i32, i32, Kind)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    let mut found: Vec<(i32, i32, Kind)> = entries
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            let kind = match link.to_str()? {
                "anon_inode:inotify" => Kind::Inotify,
                "anon_inode:[fanotify]" => Kind::Fanotify,
                _ => return None,
            };
            Some((pid, entry.file_name().to_str()?.parse().ok()?, kind))
        })
        .collect();
    found.sort_unstable_by_key(|(_, fd, _)| *fd);
    found
}

pub(super) fn all_pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
