//! What is done with places when all of them are found: the ghosts are copied, and those of watches
//! are opened again.

use std::os::fd::OwnedFd;

use fsnotify::Sdev;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::super::content::{self, Store};
use super::super::error::{DumpError, DumpErrorKind};
use super::super::files::Held;
use super::super::{grounds, keepers, parents};
use super::{Places, Search, duplicate, relative};
use crate::image::{Image, LossRecord, Object, PlaceKind, Text, Watch};
use crate::sys::path;

impl Places {
    /// Copies what is needed to make removed inodes and names again.
    pub(in crate::dump) fn finish(
        &mut self,
        image: &mut Image,
        held: &[Held],
        (limit, store): (u64, &mut Store),
    ) -> Result<(), DumpError> {
        parents::find(image, self, held)?;
        parents::declare_others(image, self);
        if !matches!(store, Store::Nowhere) {
            keepers::refuse(image, self)?;
            grounds::refuse(image, self, held)?;
            grounds::declare_sizes(image, self, held)?;
        }
        let mut sources: Vec<(u32, OwnedFd)> = self.sources.drain().collect();
        sources.sort_unstable_by_key(|(inode, _)| *inode);
        for (inode, source) in sources {
            let index = inode as usize;
            let stat =
                path::stat(&source, c"").map_err(|errno| DumpError::on("statx", "", errno))?;
            if stat.nlink > 0 {
                image.inodes[index].other_name = self.other_name(image, inode);
                continue;
            }
            let holders: Vec<&Held> = holders(image, held, inode).collect();
            let mut losses = Vec::new();
            let place = holders
                .first()
                .map_or("working directory", |held| &held.place);
            let limited = (limit, &mut *store);
            let ghost = content::copy(&stat, &source, &holders, limited, &mut losses)
                .map_err(|error| named(error, image, inode).at(place))?;
            image.lost.extend(losses.into_iter().map(LossRecord::from));
            image.inodes[index].mode = stat.mode;
            image.inodes[index].ghost = Some(ghost);
        }
        Ok(())
    }

    /// Opens the place of each watch with `O_PATH`.
    pub(in crate::dump) fn reopen_all(
        &mut self,
        image: &Image,
        held: &[Held],
        watches: &[Watch],
    ) -> Result<Vec<OwnedFd>, DumpError> {
        let each = watches.iter().map(|watch| {
            let found = self.reopen(image, held, watch.place)?;
            let inode = &image.inodes[image.places[watch.place as usize].inode as usize];
            let sdev = Sdev(inode.sdev);
            let (major, minor) = (sdev.major(), sdev.minor());
            let ino = inode.ino;
            let lost = || DumpError::new("", DumpErrorKind::NoPath { ino, major, minor });
            found.ok_or_else(lost)
        });
        each.collect()
    }

    fn reopen(
        &mut self,
        image: &Image,
        held: &[Held],
        place: u32,
    ) -> Result<Option<OwnedFd>, DumpError> {
        let place = &image.places[place as usize];
        let inode = &image.inodes[place.inode as usize];
        if place.kind() == PlaceKind::Named
            && let Some(path) = relative(&place.path)
        {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let opened = openat(&self.root, &*path, flags, Mode::empty());
            let is_it = |file: &OwnedFd| {
                let stat = path::stat(file, c"");
                stat.is_ok_and(|it| it.ino == inode.ino && self.sdev(&it) == inode.sdev)
            };
            if let Some(file) = opened.ok().filter(is_it) {
                return Ok(Some(file));
            }
        }
        if let Some(held) = holders(image, held, place.inode).next() {
            return duplicate(&held.file).map(Some);
        }
        let handle = self.handles[place.inode as usize];
        Ok(handle.and_then(|handle| self.open_handle((inode.sdev, inode.ino), &handle)))
    }

    /// A name of an inode of which another name is gone; empty if there is only the handle.
    fn other_name(&mut self, image: &Image, inode: u32) -> Vec<u8> {
        let places = self.places[inode as usize]
            .iter()
            .map(|&place| &image.places[place as usize]);
        let named = places
            .clone()
            .find(|place| place.kind() == PlaceKind::Named);
        if let Some(place) = named {
            return place.path.clone();
        }
        let (sdev, ino) = {
            let inode = &image.inodes[inode as usize];
            (inode.sdev, inode.ino)
        };
        for search in [Search::Given, Search::Everywhere] {
            let paths = self.candidates(search).get(&(sdev, ino));
            if let Some(path) = paths.and_then(|paths| paths.first()) {
                return path.clone();
            }
        }
        let handle = self.handles[inode as usize];
        let file = handle.and_then(|handle| self.open_handle((sdev, ino), &handle));
        let name = file
            .and_then(|file| path::name_of(file).ok())
            .unwrap_or_default();
        let found = self.look_up(&name).filter(|found| found.ino == ino);
        if found.is_some() { name } else { Vec::new() }
    }
}

/// An error about a ghost, by its path.
fn named(error: DumpError, image: &Image, inode: u32) -> DumpError {
    let place = image.places.iter().find(|place| place.inode == inode);
    match place {
        Some(place) => error.at(&format!("ghost {}", Text(&place.path))),
        None => error,
    }
}

/// Descriptions of an inode.
fn holders<'a>(image: &'a Image, held: &'a [Held], inode: u32) -> impl Iterator<Item = &'a Held> {
    held.iter()
        .zip(&image.files)
        .filter_map(move |(held, file)| match file.object {
            Some(Object::Place(place)) => {
                (image.places[place as usize].inode == inode).then_some(held)
            }
            _ => None,
        })
}
