//! Which directory a removed name was in, where two had its path one after the other.
//!
//! A directory that was removed, or that another was renamed over, lives on as long as somebody
//! holds what was in it, and its watches with it. Its path leads elsewhere by then, or nowhere. So
//! it is made again with what was in it, and what was in it is not put into its successor, whose
//! watchers would hear of it.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::declare;
use super::error::DumpError;
use super::files::{Held, is_removed};
use super::places::{DELETED, Places};
use crate::image::{Ghost, Image, Object, PlaceKind, Text};
use crate::silent::Parents;
use crate::sys::path::{self, Stat};
use crate::{Loss, LossKind};

/// Fills [`Place::parent`](crate::image::Place::parent), and makes a ghost of each directory that is
/// only held by what was in it.
pub(super) fn find(image: &mut Image, places: &mut Places, held: &[Held]) -> Result<(), DumpError> {
    let removed = |place: &u32| is_removed(image.places[*place as usize].kind());
    let mut next: VecDeque<u32> = (0..).take(image.places.len()).filter(removed).collect();
    let mut search = Search {
        places,
        held,
        asked: None,
        strangers: Vec::new(),
        found: next.iter().copied().collect(),
    };
    while let Some(place) = next.pop_front() {
        let Some(parent) = search.parent(image, place)? else {
            continue;
        };
        image.places[place as usize].parent = Some(parent);
        next.extend(search.make_ghost(image, parent)?);
    }
    search.hold_by_what_is_below(image)
}

/// Declares the directories of other users that a restore has to make ghosts in: it changes their
/// times, and may not put them back.
pub(super) fn declare_others(image: &mut Image, places: &Places) {
    let mut directories = BTreeSet::new();
    for index in (0..).take(image.places.len()) {
        let place = &image.places[index as usize];
        // One that has a name all the while is declared with that.
        if !is_removed(place.kind()) || place.parent.is_some() || !place.link.is_empty() {
            continue;
        }
        let path = directory_of(image, index);
        let is_there = places.directory_at(&path).is_some();
        if place.kind() == PlaceKind::Unnamed && is_there {
            continue;
        }
        // What is gone is made again, in the nearest that is not.
        let mut above = Path::new(OsStr::from_bytes(&path)).ancestors();
        let there = above.find_map(|path| {
            let path = path.as_os_str().as_bytes();
            places
                .directory_at(path)
                .map(|(_, stat)| (path.to_vec(), stat))
        });
        directories.extend(
            there
                .filter(|(_, stat)| !path::owns(stat.uid))
                .map(|(path, _)| path),
        );
    }
    for path in directories {
        let object = format!("{}: times of the directory", Text(&path));
        let reason = "a ghost is made in it again, and only its owner may put its times back";
        declare(image, Loss::new(LossKind::OthersDirectory, object, reason));
    }
}

struct Search<'a> {
    places: &'a mut Places,
    held: &'a [Held],
    /// The outer is none before anybody was asked, the inner where nobody can be.
    asked: Option<Option<Parents>>,
    /// Directories that nothing is known of but their path.
    strangers: Vec<u32>,
    /// Places that were looked at.
    found: HashSet<u32>,
}

impl Search<'_> {
    /// The removed directory that a removed name was in, if that is not to be found by its path.
    fn parent(&mut self, image: &mut Image, place: u32) -> Result<Option<u32>, DumpError> {
        let path = directory_of(image, place);
        let mode = image.inodes[image.places[place as usize].inode as usize].mode;
        if mode & libc::S_IFMT == libc::S_IFDIR {
            return self.parent_of_directory(image, place, path);
        }
        let dead = self.removed_directories(image, &path, place);
        let sdev = image.inodes[image.places[place as usize].inode as usize].sdev;
        let at_path = self.places.directory_at(&path);
        let is_covered = |(_, stat): &(OwnedFd, Stat)| self.places.sdev(stat) != sdev;
        if at_path.as_ref().is_some_and(is_covered) && dead.is_empty() {
            // Another filesystem is mounted over it.
            return Ok(None);
        }
        let live = at_path;
        if dead.is_empty() && live.is_none() {
            return Ok(None);
        }
        let Some(file) = self.source(image, place)? else {
            return Ok(None);
        };
        let mut unknown = Vec::new();
        for parent in dead {
            let Some(directory) = self.source(image, parent)? else {
                continue;
            };
            match self.is_in(mode, &file, &directory) {
                Some(true) => return Ok(Some(parent)),
                Some(false) => {}
                None => unknown.push(parent),
            }
        }
        let in_live = live.map(|(directory, _)| self.is_in(mode, &file, &directory));
        match (&unknown[..], in_live) {
            ([], Some(Some(true) | None)) => Ok(None),
            ([], Some(Some(false)) | None) => self.stranger(image, place, path).map(Some),
            ([parent], None | Some(Some(false))) => Ok(Some(*parent)),
            ([..], Some(Some(true))) => Ok(None),
            ([parent, ..], _) => {
                let parent = *parent;
                self.ambiguous(image, place);
                Ok(Some(parent))
            }
        }
    }

    fn ambiguous(&self, image: &mut Image, place: u32) {
        let holder = self.holder(image, place);
        let holder = holder.map_or("working directory", |held| &held.place);
        let object = format!("{holder}: directory of the ghost");
        let reason = "several had this path, and nothing tells which it was in";
        declare(image, Loss::new(LossKind::GhostDirectory, object, reason));
    }

    /// Places of directories that are gone and had this path.
    fn removed_directories(&self, image: &Image, path: &[u8], but: u32) -> Vec<u32> {
        let is_one = |index: &u32| {
            let place = &image.places[*index as usize];
            let mode = image.inodes[place.inode as usize].mode;
            let had_path = match place.kind() {
                PlaceKind::Gone => place.path == path,
                PlaceKind::Hidden => place.path.strip_suffix(DELETED) == Some(path),
                PlaceKind::Named | PlaceKind::Unnamed => false,
            };
            *index != but
                && had_path
                && mode & libc::S_IFMT == libc::S_IFDIR
                && !self.strangers.contains(index)
        };
        (0..).take(image.places.len()).filter(is_one).collect()
    }

    /// A directory that nobody watches or holds, which had this path.
    fn stranger(&mut self, image: &mut Image, place: u32, path: Vec<u8>) -> Result<u32, DumpError> {
        let mount = image.places[place as usize].mount.clone();
        let known = |index: &&u32| image.places[**index as usize].path == path;
        if let Some(&known) = self.strangers.iter().find(known) {
            return Ok(known);
        }
        let sdev = image.inodes[image.places[place as usize].inode as usize].sdev;
        let stranger = self.places.stranger(image, sdev, (path, mount));
        let inode = image.places[stranger as usize].inode as usize;
        image.inodes[inode].ghost = Some(Ghost::default());
        self.strangers.push(stranger);
        Ok(stranger)
    }

    /// A directory leads to the one that it was in by itself.
    fn parent_of_directory(
        &mut self,
        image: &mut Image,
        place: u32,
        path: Vec<u8>,
    ) -> Result<Option<u32>, DumpError> {
        let file = match self.source(image, place)? {
            Some(file) if !self.strangers.contains(&place) => file,
            _ => return Ok(None),
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let above = openat(&file, c"..", OFlag::from_bits_retain(flags), Mode::empty())
            .map_err(|errno| DumpError::on("open", "..", errno))?;
        let stat = path::stat(&above, c"").map_err(|errno| DumpError::on("statx", "", errno))?;
        if stat.nlink > 0 {
            return Ok(None);
        }
        self.places
            .removed_directory(image, &above, &stat, path)
            .map(Some)
    }

    /// Whether a file is in a directory; none if nothing tells.
    fn is_in(&mut self, mode: u32, file: &OwnedFd, directory: &OwnedFd) -> Option<bool> {
        // Nobody is asked about the opening of anything else.
        if mode & libc::S_IFMT != libc::S_IFREG {
            return None;
        }
        let parents = self.asked.get_or_insert_with(|| Parents::new().ok());
        parents.as_ref()?.is_in(file, directory).ok()
    }

    fn holder(&self, image: &Image, place: u32) -> Option<&Held> {
        let is_it = |file: &crate::image::OpenFile| matches!(file.object, Some(Object::Place(it)) if it == place);
        image.files.iter().position(is_it).map(|at| &self.held[at])
    }

    /// A descriptor of what a place leads to, by the very name.
    fn source(&mut self, image: &Image, place: u32) -> Result<Option<OwnedFd>, DumpError> {
        if let Some(held) = self.holder(image, place) {
            return self.places.duplicate(held.file.as_fd()).map(Some);
        }
        self.places.source(image, place)
    }

    /// Makes a ghost of a directory that only its handle leads to, and says so.
    fn make_ghost(&mut self, image: &mut Image, place: u32) -> Result<Option<u32>, DumpError> {
        let inode = image.places[place as usize].inode;
        if image.places[place as usize].kind() != PlaceKind::Hidden {
            // One that was found by what was in it is looked at in its turn.
            let is_new = image.inodes[inode as usize].ghost.is_none() && self.found.insert(place);
            return Ok(is_new.then_some(place));
        }
        let Some(file) = self.source(image, place)? else {
            return Ok(None);
        };
        self.places.keep(inode, file)?;
        self.found.insert(place);
        let found = &mut image.places[place as usize];
        if let Some(path) = found.path.strip_suffix(DELETED) {
            found.path = path.to_vec();
        }
        found.kind = PlaceKind::Gone.into();
        Ok(Some(place))
    }

    /// A removed directory may be held by what was in a removed directory in it of which nothing is
    /// known. Then that has to be made, too, which the path alone is enough for.
    fn hold_by_what_is_below(&mut self, image: &mut Image) -> Result<(), DumpError> {
        for index in (0..).take(image.places.len()) {
            let place = &image.places[index as usize];
            let path = place.path.strip_suffix(DELETED);
            let is_directory =
                image.inodes[place.inode as usize].mode & libc::S_IFMT == libc::S_IFDIR;
            let Some(path) = path.filter(|_| place.kind() == PlaceKind::Hidden && is_directory)
            else {
                continue;
            };
            let is_below = |other: &crate::image::Place| {
                let rest = other.path.strip_prefix(path);
                let rest = rest.and_then(|rest| rest.strip_prefix(b"/"));
                let first = rest.and_then(|rest| rest.split(|&byte| byte == b'/').next());
                is_removed(other.kind())
                    && first.is_some_and(|first| {
                        let entry = [path, b"/", first].concat();
                        self.places.directory_at(&entry).is_none()
                    })
            };
            let path = path.to_vec();
            let is_in = |stranger: &&u32| {
                let stranger = directory_of(image, **stranger);
                stranger == path
            };
            let stranger = self.strangers.iter().find(is_in).copied();
            let is_above = image.places.iter().any(is_below);
            if let Some(stranger) = stranger {
                image.places[stranger as usize].parent = Some(index);
            }
            if stranger.is_some() || is_above {
                self.make_ghost(image, index)?;
            }
        }
        Ok(())
    }
}

/// The path of the directory that a name was in.
pub(super) fn directory_of(image: &Image, place: u32) -> Vec<u8> {
    let place = &image.places[place as usize];
    if place.kind() == PlaceKind::Unnamed {
        return place.path.clone();
    }
    let end = place.path.iter().rposition(|&byte| byte == b'/');
    match end.unwrap_or(0) {
        0 => b"/".to_vec(),
        end => place.path[..end].to_vec(),
    }
}
