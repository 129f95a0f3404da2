//! What every image must hold before anything acts on it. An image may come from anywhere.

use std::collections::HashSet;
use std::fmt;

use super::{
    Fanotify, Ghost, Image, Inode, Inotify, LINK, MarkKind, Object, OpenFile, Place, PlaceKind,
    Process,
};
use crate::fanotify::forge::{Makers, forgeable};
use crate::queue::is_makeable;

/// Largest descriptor number that is made: the kernel's own default for `fs.nr_open`.
const MAX_FD: i32 = 1 << 20;
/// Linux has no larger pid (`PID_MAX_LIMIT`).
const MAX_PID: i32 = 1 << 22;
/// Longest path that the kernel shows (`PATH_MAX`), and that a place can have.
const MAX_PATH: usize = 4096;

/// Which part of an image is wrong, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidImage {
    pub part: String,
    pub reason: &'static str,
}

impl fmt::Display for InvalidImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.reason)
    }
}

impl std::error::Error for InvalidImage {}

/// Longest name of a file (`NAME_MAX`).
const MAX_NAME: usize = 255;

type Checked = Result<(), InvalidImage>;

fn ensure(holds: bool, part: impl FnOnce() -> String, reason: &'static str) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(InvalidImage {
            part: part(),
            reason,
        })
    }
}

impl Image {
    /// Checks everything that can be checked without a kernel.
    pub(super) fn check(&self) -> Checked {
        let mut pids = HashSet::new();
        let has_one = self
            .processes
            .first()
            .is_some_and(|main| main.exited.is_none());
        ensure(
            has_one,
            || "processes".to_owned(),
            "no process that lives stands first",
        )?;
        for process in &self.processes {
            let part = || format!("process {}", process.pid);
            ensure(
                pids.is_empty() || pids.contains(&process.parent),
                part,
                "its parent does not stand before it",
            )?;
            ensure((1..=MAX_PID).contains(&process.pid), part, "no such pid")?;
            ensure(pids.insert(process.pid), part, "a pid stands twice")?;
            self.check_process(process)?;
        }
        if let Some(parked) = &self.parked {
            let as_many = parked.files.len() == self.files.len();
            ensure(as_many, || "parked".to_owned(), "not as many files")?;
            let pid = (1..=MAX_PID).contains(&parked.holder);
            ensure(pid, || "parked".to_owned(), "no such pid")?;
        }
        for (index, file) in self.files.iter().enumerate() {
            self.check_file(file)
                .map_err(|error| within("file", index, error))?;
        }
        for (index, place) in self.places.iter().enumerate() {
            self.check_place(place)
                .map_err(|error| within("place", index, error))?;
        }
        for (index, inode) in self.inodes.iter().enumerate() {
            check_inode(inode).map_err(|error| within("inode", index, error))?;
        }
        self.check_ghosts()?;
        if self.only_groups {
            self.check_only_groups()?;
        }
        self.check_stored()
    }

    /// Another program is to have the groups, and nothing else of whoever made the image: no file
    /// at the number that it writes to, no directory that it looks for files in, no signal.
    fn check_only_groups(&self) -> Checked {
        let part = || "an image of groups alone".to_owned();
        let [process] = &self.processes[..] else {
            return ensure(false, part, "of more than one process");
        };
        let stays = process.working_directory.is_none();
        ensure(stays, part, "with a working directory")?;
        ensure(process.signals.is_empty(), part, "with signals")?;
        for (index, file) in self.files.iter().enumerate() {
            let belongs = match &file.object {
                Some(Object::Inotify(_) | Object::Fanotify(_)) => true,
                Some(Object::Place(place)) => self.is_ghost(*place),
                Some(Object::Epoll(_)) | None => false,
            };
            let part = || format!("file {index}");
            ensure(
                belongs,
                part,
                "neither a group nor a ghost, in an image of groups alone",
            )?;
        }
        Ok(())
    }

    /// Whether a place is made of nothing but the image: no name of a file that is there leads to it,
    /// save one that a dump gave it for the restore.
    fn is_ghost(&self, place: u32) -> bool {
        let Some(place) = self.places.get(place as usize) else {
            return false;
        };
        let inode = self.inodes.get(place.inode as usize);
        let is_made = inode.is_some_and(|inode| inode.ghost.is_some());
        matches!(place.kind(), PlaceKind::Gone | PlaceKind::Unnamed)
            && (is_made || !place.link.is_empty())
    }

    /// What no place needs would be read all the same.
    fn check_ghosts(&self) -> Checked {
        let placed: HashSet<u32> = self.places.iter().map(|place| place.inode).collect();
        let mut inodes = (0..).zip(&self.inodes);
        inodes.try_for_each(|(index, inode)| {
            let is_needed = inode.ghost.is_none() || placed.contains(&index);
            ensure(
                is_needed,
                || format!("inode {index}"),
                "a ghost without a place",
            )
        })
    }

    /// Content in the file is there once for each extent: an image says no more than it holds.
    fn check_stored(&self) -> Checked {
        let ghosts = self.inodes.iter().filter_map(|inode| inode.ghost.as_ref());
        let mut end = 0;
        for extent in ghosts.flat_map(|ghost| &ghost.extents) {
            let Some(stored) = extent.stored else {
                continue;
            };
            let part = || "content".to_owned();
            ensure(stored.position >= end, part, "is used twice")?;
            let to = stored.position.checked_add(extent.length);
            end = to
                .filter(|end| *end <= self.content_length)
                .ok_or_else(|| InvalidImage {
                    part: part(),
                    reason: "is not in the file",
                })?;
        }
        Ok(())
    }

    fn check_process(&self, process: &Process) -> Checked {
        let part = || format!("process {}", process.pid);
        let mut fds = HashSet::new();
        for descriptor in &process.descriptors {
            let part = || format!("process {}: fd {}", process.pid, descriptor.fd);
            ensure((0..MAX_FD).contains(&descriptor.fd), part, "no such number")?;
            ensure(fds.insert(descriptor.fd), part, "stands twice")?;
            ensure(
                (descriptor.file as usize) < self.files.len(),
                part,
                "no such file",
            )?;
        }
        if let Some(place) = process.working_directory {
            ensure(
                (place as usize) < self.places.len(),
                part,
                "no such working directory",
            )?;
        }
        ensure(process.umask <= 0o777, part, "no such umask")?;
        for signal in &process.signals {
            ensure(signal.info.len() == 128, part, "a signal has no siginfo_t")?;
        }
        Ok(())
    }

    fn check_file(&self, file: &OpenFile) -> Checked {
        let place_exists = |place: u32| (place as usize) < self.places.len();
        if let Some(owner) = file.owner {
            let valid = (0..=2).contains(&owner.kind) && (1..=MAX_PID).contains(&owner.pid);
            ensure(valid, || "owner".to_owned(), "no such owner")?;
        }
        ensure(
            (0..=64).contains(&file.signal),
            || "signal".to_owned(),
            "no such signal",
        )?;
        ensure(file.offset >= 0, || "offset".to_owned(), "below 0")?;
        match &file.object {
            Some(Object::Place(place)) => ensure(
                place_exists(*place),
                || "object".to_owned(),
                "no such place",
            ),
            Some(Object::Inotify(group)) => check_group(group, place_exists),
            Some(Object::Epoll(set)) => set.interests.iter().try_for_each(|interest| {
                let part = || format!("interest in fd {}", interest.fd);
                ensure((0..MAX_FD).contains(&interest.fd), part, "no such number")?;
                ensure(
                    (interest.file as usize) < self.files.len(),
                    part,
                    "no such file",
                )
            }),
            Some(Object::Fanotify(group)) => check_fanotify(group, place_exists),
            None => ensure(
                false,
                || "object".to_owned(),
                "missing, or of an unknown kind",
            ),
        }
    }

    fn check_place(&self, place: &Place) -> Checked {
        ensure(
            (place.inode as usize) < self.inodes.len(),
            String::new,
            "no such inode",
        )?;
        ensure(
            PlaceKind::try_from(place.kind).is_ok(),
            String::new,
            "no such kind",
        )?;
        check_path(&place.path)?;
        if !place.mount.is_empty() {
            check_path(&place.mount)?;
        }
        let is_link = place.link.starts_with(LINK) && !place.link.contains(&b'/');
        ensure(
            place.link.is_empty() || is_link && place.link.len() <= MAX_NAME,
            || "link".to_owned(),
            "no name of a link",
        )?;
        if let Some(parent) = place.parent {
            let is_one = self.places.get(parent as usize).is_some_and(|parent| {
                let inode = self.inodes.get(parent.inode as usize);
                let mode = inode.map_or(0, |inode| inode.mode);
                let below = place.path.strip_prefix(&parent.path[..]);
                let names_it = match place.kind() {
                    PlaceKind::Unnamed => below == Some(b""),
                    _ => below.is_some_and(|name| {
                        name.first() == Some(&b'/') && !name[1..].contains(&b'/')
                    }),
                };
                parent.kind() == PlaceKind::Gone
                    && names_it
                    && mode & libc::S_IFMT == libc::S_IFDIR
                    && inode.is_some_and(|inode| inode.ghost.is_some())
            });
            let is_removed = matches!(place.kind(), PlaceKind::Gone | PlaceKind::Unnamed);
            ensure(
                is_one && is_removed,
                || "parent".to_owned(),
                "no removed directory that it was in",
            )?;
        }
        let has_name = place.path != b"/";
        let needs_name = place.kind() == PlaceKind::Gone;
        ensure(has_name || !needs_name, String::new, "a removed root")
    }
}

fn within(what: &str, index: usize, error: InvalidImage) -> InvalidImage {
    let part = if error.part.is_empty() {
        format!("{what} {index}")
    } else {
        format!("{what} {index}: {}", error.part)
    };
    InvalidImage {
        part,
        reason: error.reason,
    }
}

fn check_group(group: &Inotify, place_exists: impl Fn(u32) -> bool) -> Checked {
    let mut wds = HashSet::with_capacity(group.watches.len());
    for watch in &group.watches {
        let part = || format!("watch {}", watch.wd);
        ensure(watch.wd >= 1, part, "no such watch descriptor")?;
        ensure(wds.insert(watch.wd), part, "stands twice")?;
        ensure(place_exists(watch.place), part, "no such place")?;
    }
    let valid = group.next_wd.is_none_or(|wd| wd >= 1);
    ensure(
        valid,
        || "next watch".to_owned(),
        "no such watch descriptor",
    )?;
    let makeable = is_makeable(&group.queue);
    ensure(makeable, || "queue".to_owned(), "cannot be made again")
}

fn check_fanotify(group: &Fanotify, place_exists: impl Fn(u32) -> bool) -> Checked {
    for mark in &group.marks {
        let part = || "mark".to_owned();
        let known = MarkKind::try_from(mark.kind).is_ok();
        ensure(known, part, "no such kind")?;
        ensure(mark.place.is_none_or(&place_exists), part, "no such place")?;
    }
    let makeable = group.queue.is_empty() || forgeable(group, &Makers::default()).is_ok();
    ensure(makeable, || "queue".to_owned(), "cannot be made again")
}

fn check_inode(inode: &Inode) -> Checked {
    let fits = |handle: &super::Handle| {
        (1..=fsnotify::handle::MAX_HANDLE_BYTES).contains(&handle.bytes.len())
    };
    ensure(
        inode.handle.as_ref().is_none_or(fits),
        || "handle".to_owned(),
        "no such length",
    )?;
    if !inode.other_name.is_empty() {
        check_path(&inode.other_name)?;
    }
    inode.ghost.as_ref().map_or(Ok(()), check_ghost)
}

fn check_ghost(ghost: &Ghost) -> Checked {
    let part = || "ghost".to_owned();
    for time in [ghost.accessed, ghost.modified] {
        ensure(
            (0..1_000_000_000).contains(&time.nsec),
            part,
            "a time has no such nanoseconds",
        )?;
    }
    let limit = i64::MAX.cast_unsigned();
    ensure(ghost.size <= limit, part, "no file is that large")?;
    let mut end = 0;
    for extent in &ghost.extents {
        ensure(extent.offset >= end, part, "its content overlaps")?;
        ensure(
            extent.content.is_empty()
                || extent.content.len() as u64 == extent.length && extent.stored.is_none(),
            part,
            "its content has another length",
        )?;
        end = extent
            .offset
            .checked_add(extent.length)
            .filter(|end| *end <= limit)
            .ok_or_else(|| InvalidImage {
                part: part(),
                reason: "its content ends beyond any file",
            })?;
    }
    for xattr in &ghost.xattrs {
        let valid = !xattr.name.is_empty() && !xattr.name.contains(&0);
        ensure(valid, part, "an attribute has no such name")?;
    }
    ensure(!ghost.target.contains(&0), part, "its target contains NUL")
}

/// A path as the kernel prints one: absolute, no empty or relative component, no NUL.
pub(crate) fn check_path(path: &[u8]) -> Checked {
    let part = || "path".to_owned();
    ensure(path.len() < MAX_PATH, part, "too long")?;
    let relative = path.strip_prefix(b"/");
    let Some(relative) = relative else {
        return ensure(false, part, "not absolute");
    };
    if relative.is_empty() {
        return Ok(());
    }
    for component in relative.split(|&byte| byte == b'/') {
        let names_something = !matches!(component, b"" | b"." | b"..");
        ensure(
            names_something,
            part,
            "a component that is empty, `.` or `..`",
        )?;
        ensure(!component.contains(&0), part, "contains NUL")?;
        ensure(component.len() <= 255, part, "a component is too long")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_lead_elsewhere_is_refused() {
        for path in ["", "a", "/a/../b", "/..", "/.", "/a//b", "/a/", "/a\0b"] {
            assert!(check_path(path.as_bytes()).is_err(), "{path:?}");
        }
        for path in ["/", "/a", "/a/...", "/a (deleted)", "/a\nb"] {
            assert_eq!(check_path(path.as_bytes()), Ok(()), "{path:?}");
        }
    }
}
