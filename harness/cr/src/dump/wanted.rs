//! Which descriptors of a process a dump of its groups alone takes: the groups, and files without a
//! name that these watch, which nothing else can be made of.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fs;

use fsnotify::fdinfo::{Body, Group, Kind, Level, MarkTarget, Watch};
use nix::unistd::Pid;

use super::DumpOptions;
use super::files::numbers;
use super::places::Places;
use crate::sys::path::Stat;

/// Device and number, as fdinfo has them.
type Inodes = HashSet<(u32, u64)>;

#[derive(Debug)]
pub(super) struct Wanted {
    pid: Pid,
    is_limited: bool,
    /// What the groups of the process watch. Most have nothing open that would have to be looked for.
    watched: OnceCell<Inodes>,
}

impl Wanted {
    pub(super) fn of(pid: Pid, options: &DumpOptions) -> Self {
        Self {
            pid,
            is_limited: options.only_groups,
            watched: OnceCell::new(),
        }
    }

    /// The same for groups that watched this, and do not now: a dumper that was killed took it.
    pub(super) fn of_watched(pid: Pid, watches: &[Watch]) -> Self {
        let watched = watches.iter().map(|watch| (watch.sdev.0, watch.ino.0));
        let watched: Inodes = watched.chain(watched_now(pid)).collect();
        Self {
            pid,
            is_limited: true,
            watched: OnceCell::from(watched),
        }
    }

    /// Whether there is anything that is left.
    pub(super) fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Whether this is a file without a name that a group watches.
    pub(super) fn is_watched_ghost(&self, stat: &Stat, places: &Places) -> bool {
        let watched = || watched_now(self.pid);
        stat.nlink == 0
            && self
                .watched
                .get_or_init(watched)
                .contains(&(places.sdev(stat), stat.ino))
    }
}

/// The inodes that groups of a process watch. What cannot be read here is not read later either, where
/// it is an error.
fn watched_now(pid: Pid) -> Inodes {
    let mut found = Inodes::new();
    for fd in numbers(pid).unwrap_or_default() {
        let kind = match fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
            Ok(link) if link.as_os_str() == "anon_inode:inotify" => Kind::Inotify,
            Ok(link) if link.as_os_str() == "anon_inode:[fanotify]" => Kind::Fanotify,
            Ok(_) | Err(_) => continue,
        };
        let info = fs::read(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let Ok(group) = Group::parse_as(&info, kind, Level::Lenient) else {
            continue;
        };
        match group.body {
            Body::Inotify { watches } => {
                found.extend(watches.iter().map(|watch| (watch.sdev.0, watch.ino.0)));
            }
            Body::Fanotify { marks, .. } => {
                found.extend(marks.iter().filter_map(|mark| match mark.target {
                    MarkTarget::Inode { ino, sdev, .. } => Some((sdev.0, ino.0)),
                    MarkTarget::Mount(_)
                    | MarkTarget::Filesystem(_)
                    | MarkTarget::MountNamespace(_) => None,
                }));
            }
            Body::Unstated => {}
        }
    }
    found
}
