//! What a process watches, written down to be compared later: before somebody else's checkpoint
//! and after their restore.
//!
//! Processes are told apart by their place in the tree, since a restore may number them anew.

use std::fs;

use serde::{Deserialize, Serialize};

use super::explain::{self, Group, GroupKind, MarkOn};
use super::place::{Name, Target};
use super::search::Search;

/// The schema; a file of another one is refused.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Tells a capture from any other JSON.
    pub capture: u32,
    pub program: String,
    /// Inode numbers and handles of different boots are not compared.
    pub boot_id: String,
    pub processes: Vec<Process>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    pub name: String,
    pub groups: Vec<CapturedGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedGroup {
    pub fd: i32,
    pub kind: String,
    pub status_flags: String,
    pub init_flags: Option<String>,
    pub event_flags: Option<String>,
    /// Other descriptors of it: process by place in the tree, and number.
    pub shared_with: Vec<(usize, i32)>,
    pub unread_bytes: Option<u64>,
    /// In the order of fdinfo.
    pub watches: Vec<CapturedWatch>,
    pub marks: Vec<CapturedMark>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedWatch {
    pub wd: i32,
    pub mask: String,
    pub target: CapturedTarget,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedMark {
    pub on: String,
    pub place: CapturedTarget,
    pub mask: String,
    pub ignored_mask: String,
    pub flags: String,
}

/// What is watched: a name that means the same before and after, and the inode behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedTarget {
    /// A path, `ghost of PATH`, or the number of what has neither.
    pub name: String,
    pub device: String,
    pub inode: u64,
    pub handle: Option<String>,
}

/// Captures a process, and with `tree` its descendants.
///
/// # Errors
///
/// In words, with what to do next.
pub fn capture(pid: i32, tree: bool, search: &Search<'_>) -> Result<Capture, String> {
    let processes = explain::watching(pid, tree, search)?;
    let pids: Vec<i32> = processes.iter().map(|process| process.pid).collect();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(Capture {
        capture: VERSION,
        program: format!("notifreeze {}", env!("CARGO_PKG_VERSION")),
        boot_id: boot_id.trim().to_owned(),
        processes: processes
            .into_iter()
            .map(|process| Process {
                pid: process.pid,
                name: process.name,
                groups: process
                    .groups
                    .iter()
                    .map(|group| captured(group, &pids))
                    .collect(),
            })
            .collect(),
    })
}

impl Capture {
    /// Reads what [`capture`] gave.
    ///
    /// # Errors
    ///
    /// In words: what about the text is not a capture of this version.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        match value.get("capture").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(format!(
                    "a capture of version {version}, this reads {VERSION}"
                ));
            }
            None => {
                return Err("not a capture".to_owned());
            }
        }
        serde_json::from_value(value).map_err(|error| format!("a broken capture: {error}"))
    }
}

fn captured(group: &Group, pids: &[i32]) -> CapturedGroup {
    let place_of = |pid: i32| pids.iter().position(|own| *own == pid);
    CapturedGroup {
        fd: group.fd,
        kind: match group.kind {
            GroupKind::Inotify => "inotify",
            GroupKind::Fanotify => "fanotify",
        }
        .to_owned(),
        status_flags: group.status_flags.clone(),
        init_flags: group.init_flags.clone(),
        event_flags: group.event_flags.clone(),
        shared_with: group
            .shared_with
            .iter()
            .filter_map(|sharer| Some((place_of(sharer.pid)?, sharer.fd)))
            .collect(),
        unread_bytes: group.unread_bytes,
        watches: group
            .order
            .iter()
            .filter_map(|wd| group.watches.iter().find(|watch| watch.wd == *wd))
            .map(|watch| CapturedWatch {
                wd: watch.wd,
                mask: watch.mask.clone(),
                target: of_target(&watch.target),
            })
            .collect(),
        marks: group
            .marks
            .iter()
            .map(|mark| CapturedMark {
                on: mark.on.words().to_owned(),
                place: match (&mark.target, mark.on) {
                    (Some(target), _) => of_target(target),
                    // Numbers of namespaces and of mounts that nobody sees change at will.
                    (None, MarkOn::MountNamespace) => plain("its own"),
                    (None, MarkOn::Inode | MarkOn::Mount | MarkOn::Filesystem) => {
                        plain(&mark.place)
                    }
                },
                mask: mark.mask.clone(),
                ignored_mask: mark.ignored_mask.clone(),
                flags: mark.flags.clone(),
            })
            .collect(),
    }
}

fn plain(name: &str) -> CapturedTarget {
    CapturedTarget {
        name: name.to_owned(),
        device: String::new(),
        inode: 0,
        handle: None,
    }
}

fn of_target(target: &Target) -> CapturedTarget {
    let numbers = || format!("inode {} of {}", target.inode, target.device);
    CapturedTarget {
        name: match &target.name {
            Name::Named { paths, .. } => paths.join(" = "),
            Name::Hidden { path } => path.clone(),
            Name::Ghost {
                last_path: Some(path),
            } => format!("ghost of {path}"),
            Name::Ghost { last_path: None } => format!("ghost {}", numbers()),
            Name::NoName { .. } => numbers(),
        },
        device: target.device.clone(),
        inode: target.inode,
        handle: target
            .handle
            .as_ref()
            .map(|handle| format!("{}:{}", handle.kind, handle.bytes)),
    }
}
