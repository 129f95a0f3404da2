//! All that there is to say of a process and what it watches, as one value: the JSON of
//! `notifreeze explain --json`, which `docs/explain.md` describes.

use std::collections::HashMap;

use fsnotify::fanotify::{InitFlags, MarkFlags, Mask as FanotifyMask};
use fsnotify::fdinfo::{self, Body, Kind, MarkTarget};
use fsnotify::inotify::Mask;
use serde::Serialize;

use super::home::Home;
use super::outlook::{self, Outlook};
use super::place::{self, Held, Target, Wanted};
use super::process::{self, Seen};
use super::search::Search;
use super::words;
use crate::engine::Criu;

/// The schema. A new field does not raise it; one that goes or means something else does.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub version: u32,
    /// Name and version of what wrote this.
    pub program: String,
    pub processes: Vec<Process>,
    pub engines: Vec<Outlook>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Process {
    pub pid: i32,
    pub name: String,
    pub command: Vec<String>,
    pub user: u32,
    /// Whether its mount namespace or its root directory is another than ours. Paths are those
    /// that it sees.
    pub elsewhere: bool,
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Group {
    pub fd: i32,
    pub kind: GroupKind,
    /// Of the open file, now.
    pub status_flags: String,
    /// What fanotify_init(2) got; none for inotify.
    pub init_flags: Option<String>,
    pub event_flags: Option<String>,
    /// Other descriptors of the same group.
    pub shared_with: Vec<Sharer>,
    /// None if they cannot be counted.
    pub unread_bytes: Option<u64>,
    /// Why not.
    pub unread_error: Option<String>,
    /// In order of number.
    pub watches: Vec<Watch>,
    /// In the order of fdinfo, newest first.
    pub marks: Vec<Mark>,
    /// Lines of fdinfo that are not understood.
    pub unknown: Vec<String>,
    /// Numbers of the watches in the order of fdinfo.
    #[serde(skip)]
    pub order: Vec<i32>,
    #[serde(skip)]
    pub init_bits: Option<InitFlags>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupKind {
    Inotify,
    Fanotify,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sharer {
    pub pid: i32,
    pub fd: i32,
}

#[derive(Clone, Debug, Serialize)]
pub struct Watch {
    pub wd: i32,
    pub mask: String,
    pub words: String,
    pub target: Target,
    #[serde(skip)]
    pub bits: Mask,
}

#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    pub on: MarkOn,
    /// The inode; none for other marks.
    pub target: Option<Target>,
    /// Where the mount, filesystem or namespace is, or its number.
    pub place: String,
    pub mask: String,
    pub ignored_mask: String,
    pub flags: String,
    pub words: String,
    #[serde(skip)]
    pub mask_bits: FanotifyMask,
    #[serde(skip)]
    pub ignored_bits: FanotifyMask,
    #[serde(skip)]
    pub flag_bits: MarkFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkOn {
    Inode,
    Mount,
    Filesystem,
    MountNamespace,
}

impl MarkOn {
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Inode => "inode",
            Self::Mount => "mount",
            Self::Filesystem => "filesystem",
            Self::MountNamespace => "mount namespace",
        }
    }
}

/// Explains a process, and with `tree` its descendants.
///
/// # Errors
///
/// In words, with what to do next.
pub fn explain(
    pid: i32,
    tree: bool,
    criu: &Criu,
    search: &Search<'_>,
) -> Result<Explanation, String> {
    let processes = watching(pid, tree, search)?;
    let engines = vec![
        outlook::of_builtin(&processes),
        outlook::of_criu(&processes, criu),
    ];
    Ok(Explanation {
        version: VERSION,
        program: format!("notifreeze {}", env!("CARGO_PKG_VERSION")),
        processes,
        engines,
    })
}

/// Processes with their groups, every target traced.
///
/// # Errors
///
/// In words, with what to do next.
pub fn watching(pid: i32, tree: bool, search: &Search<'_>) -> Result<Vec<Process>, String> {
    let found = process::processes(pid, tree)?;
    let seen = process::groups(&found)?;
    let pids: Vec<i32> = found.iter().map(|process| process.pid).collect();
    let held = Held::of(&pids);
    let mut processes = Vec::new();
    for process in found {
        let own: Vec<&Seen> = seen.iter().filter(|seen| seen.pid == process.pid).collect();
        let home = if own.is_empty() {
            None
        } else {
            Some(Home::of(process.pid)?)
        };
        let groups = match &home {
            Some(home) => groups(home, &held, &own, search).map_err(|error| {
                format!(
                    "process {} ({}) lives in another mount namespace or below another root \
                     directory, where we cannot look: {error}; run this as root, or there: \
                     nsenter --target {} --mount --root",
                    process.pid, process.name, process.pid
                )
            })?,
            None => Vec::new(),
        };
        processes.push(Process {
            pid: process.pid,
            name: process.name,
            command: process.command,
            user: process.user,
            elsewhere: home.is_some_and(|home| home.is_elsewhere()),
            groups,
        });
    }
    Ok(processes)
}

fn groups(
    home: &Home,
    held: &Held,
    seen: &[&Seen],
    search: &Search<'_>,
) -> Result<Vec<Group>, String> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut index: HashMap<Wanted, usize> = HashMap::new();
    for one in seen.iter().flat_map(|seen| all_wanted(&seen.group.body)) {
        index.entry(one).or_insert_with(|| {
            wanted.push(one);
            wanted.len() - 1
        });
    }
    let targets = place::trace(home, held, &wanted, search)?;
    let target = |wanted: Wanted| targets[index[&wanted]].clone();
    Ok(seen.iter().map(|seen| group(home, seen, &target)).collect())
}

fn all_wanted(body: &Body) -> Vec<Wanted> {
    match body {
        Body::Unstated => Vec::new(),
        Body::Inotify { watches } => watches.iter().map(of_watch).collect(),
        Body::Fanotify { marks, .. } => marks.iter().filter_map(of_mark).collect(),
    }
}

fn of_watch(watch: &fdinfo::Watch) -> Wanted {
    Wanted {
        device: watch.sdev,
        ino: watch.ino,
        handle: watch.handle,
    }
}

fn of_mark(mark: &fdinfo::Mark) -> Option<Wanted> {
    match mark.target {
        MarkTarget::Inode { ino, sdev, handle } => Some(Wanted {
            device: sdev,
            ino,
            handle,
        }),
        MarkTarget::Mount(_) | MarkTarget::Filesystem(_) | MarkTarget::MountNamespace(_) => None,
    }
}

fn group(home: &Home, seen: &Seen, target: &dyn Fn(Wanted) -> Target) -> Group {
    let mut group = Group {
        fd: seen.fd,
        kind: match seen.kind {
            Kind::Inotify => GroupKind::Inotify,
            Kind::Fanotify => GroupKind::Fanotify,
        },
        status_flags: seen.group.head.flags.to_string(),
        init_flags: None,
        event_flags: None,
        shared_with: seen
            .shared_with
            .iter()
            .map(|&(pid, fd)| Sharer { pid, fd })
            .collect(),
        unread_bytes: seen.unread.as_ref().ok().copied(),
        unread_error: seen.unread.as_ref().err().cloned(),
        watches: Vec::new(),
        marks: Vec::new(),
        unknown: seen
            .group
            .unknown
            .iter()
            .map(|line| line.text.clone())
            .collect(),
        order: Vec::new(),
        init_bits: None,
    };
    match &seen.group.body {
        Body::Unstated => {}
        Body::Inotify { watches } => {
            let watch = |watch: &fdinfo::Watch| Watch {
                wd: watch.wd.number(),
                mask: watch.mask.to_string(),
                words: words::of_inotify(watch.mask),
                target: target(of_watch(watch)),
                bits: watch.mask,
            };
            group.watches = watches.iter().map(watch).collect();
            group.order = group.watches.iter().map(|watch| watch.wd).collect();
            group.watches.sort_by_key(|watch| watch.wd);
        }
        Body::Fanotify {
            flags,
            event_flags,
            marks,
        } => {
            group.init_flags = Some(flags.to_string());
            group.init_bits = Some(*flags);
            group.event_flags = Some(event_flags.to_string());
            group.marks = marks.iter().map(|one| mark(home, one, target)).collect();
        }
    }
    group
}

fn mark(home: &Home, mark: &fdinfo::Mark, target: &dyn Fn(Wanted) -> Target) -> Mark {
    let mount_point = |wanted: &dyn Fn(&cr::mounts::Mount) -> bool| {
        let mut mounts = home.mounts().iter();
        let mount = mounts.find(|mount| wanted(mount))?;
        Some(place::printable(&mount.path))
    };
    let (on, place) = match mark.target {
        MarkTarget::Inode { ino, .. } => (MarkOn::Inode, format!("inode {}", ino.0)),
        MarkTarget::Mount(id) => {
            let point = mount_point(&|mount| mount.id == id.0);
            let unknown = || format!("mount {}, which the process does not see", id.0);
            (MarkOn::Mount, point.unwrap_or_else(unknown))
        }
        MarkTarget::Filesystem(device) => {
            let first = home.mounts_of(device);
            let point = first.first().map(|mount| place::printable(&mount.path));
            let numbers = (device.major(), device.minor());
            let unknown = || format!("device {}:{}, mounted nowhere", numbers.0, numbers.1);
            (MarkOn::Filesystem, point.unwrap_or_else(unknown))
        }
        MarkTarget::MountNamespace(ino) => {
            (MarkOn::MountNamespace, format!("mount namespace {}", ino.0))
        }
    };
    let mut in_words = words::of_fanotify(mark.mask);
    if mark.ignored_mask.0 != 0 {
        let ignored = words::of_fanotify(mark.ignored_mask);
        in_words = format!("{in_words}; ignores {ignored}");
    }
    Mark {
        on,
        target: of_mark(mark).map(target),
        place,
        mask: mark.mask.to_string(),
        ignored_mask: mark.ignored_mask.to_string(),
        flags: mark.flags.to_string(),
        words: in_words,
        mask_bits: mark.mask,
        ignored_bits: mark.ignored_mask,
        flag_bits: mark.flags,
    }
}
