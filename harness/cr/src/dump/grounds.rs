//! Whether a name that is gone can be made again for a moment where it was. What cannot be is refused
//! at the dump, and not found out at the restore.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{AccessFlags, faccessat};

use super::declare;
use super::error::DumpError;
use super::files::{Held, is_removed};
use super::keepers::watched;
use super::parents::directory_of;
use super::places::Places;
use crate::image::{Image, Object, PlaceKind, Text};
use crate::sys::handle::proc_path;
use crate::sys::path::{self, Stat};
use crate::{Loss, LossKind};

/// Refuses ghosts that could not be made again.
pub(super) fn refuse(image: &Image, places: &mut Places, held: &[Held]) -> Result<(), DumpError> {
    match refused(image, places, held).into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Each ghost that could not be made again, by [`Image::files`] where a descriptor holds it.
pub(super) fn refused(
    image: &Image,
    places: &mut Places,
    held: &[Held],
) -> Vec<(Option<usize>, DumpError)> {
    let watched: HashSet<u32> = watched(image)
        .map(|(.., place)| image.places[place as usize].inode)
        .collect();
    let removed = (0..).take(image.places.len()).filter(|&index: &u32| {
        let place = &image.places[index as usize];
        // What is in a removed directory is made in that, which is made first.
        is_removed(place.kind()) && place.parent.is_none()
    });
    let refused = removed.filter_map(|index| {
        let holder = holder(image, index);
        let file = places.source(image, index).ok().flatten();
        let is_watched = watched.contains(&image.places[index as usize].inode);
        let may_not_watch = || is_watched && !file.as_ref().is_some_and(may_read);
        let what = hindrance(image, places, index, file.as_ref()).or_else(|| {
            may_not_watch().then_some("watched file without a name that may not be read")
        })?;
        let name = Text(&image.places[index as usize].path);
        let error = DumpError::not_supported(format!("ghost {name}"), what);
        let holder_name = holder.map_or("", |holder| &held[holder].place);
        Some((holder, error.at(holder_name)))
    });
    refused.collect()
}

/// What is in the way of a name.
fn hindrance(
    image: &Image,
    places: &Places,
    index: u32,
    file: Option<&OwnedFd>,
) -> Option<&'static str> {
    let place = &image.places[index as usize];
    if let Some(file) = file {
        if fstatvfs(file).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY)) {
            return Some("file without a name on a mount that is read-only");
        }
        let stat = path::stat(file, c"").ok()?;
        if stat.nlink > 0 && (stat.is_immutable() || stat.is_append_only()) {
            return Some("removed name of a file that chattr keeps from being linked");
        }
    }
    let is_named = place.kind() == PlaceKind::Gone;
    if is_named && places.is_mount_point(&place.path) {
        return Some("file whose name is that of a mount point by now");
    }
    let path = directory_of(image, index);
    let mut above = Path::new(OsStr::from_bytes(&path)).ancestors();
    let there = above.find_map(|path| places.directory_at(path.as_os_str().as_bytes()));
    let (directory, stat) = there?;
    let sdev = image.inodes[place.inode as usize].sdev;
    if places.sdev(&stat) != sdev {
        // Something is mounted over it, and nothing is known of what is below.
        return None;
    }
    in_directory(&directory, &stat, is_named).or_else(|| {
        let taken = is_named.then(|| places.look_up(&place.path)).flatten()?;
        displaced(&stat, &taken)
    })
}

fn in_directory(directory: &OwnedFd, stat: &Stat, is_named: bool) -> Option<&'static str> {
    if stat.is_immutable() {
        return Some("file without a name in a directory that is immutable");
    }
    if is_named && stat.is_append_only() {
        return Some("file without a name in a directory that only grows");
    }
    let write = AccessFlags::W_OK | AccessFlags::X_OK;
    let may_write = faccessat(directory, ".", write, AtFlags::AT_EACCESS);
    may_write
        .is_err()
        .then_some("file without a name in a directory that may not be written to")
}

/// Who has the name by now makes way for a moment.
fn displaced(directory: &Stat, taken: &Stat) -> Option<&'static str> {
    let is_fixed = taken.is_immutable() || taken.is_append_only();
    let is_sticky = directory.mode & libc::S_ISVTX != 0;
    let is_others = !path::owns(taken.uid) && !path::owns(directory.uid);
    (is_fixed || is_sticky && is_others)
        .then_some("file whose name is by now that of one that may not be moved")
}

/// A watch takes the right to read (`inotify_find_inode`).
fn may_read(file: &OwnedFd) -> bool {
    let path = proc_path(file);
    faccessat(AT_FDCWD, &path, AccessFlags::R_OK, AtFlags::AT_EACCESS).is_ok()
}

/// Declares removed directories whose size will be another. On ext4 one has none behind rmdir(2)
/// (`ext4_rmdir`), and keeps what it had behind a rename over it; and a restore removes it as it can,
/// by a rename where a directory has its name by now.
pub(super) fn declare_sizes(
    image: &mut Image,
    places: &mut Places,
    held: &[Held],
) -> Result<(), DumpError> {
    for index in (0..).take(image.places.len()) {
        let place = &image.places[index as usize];
        let mode = image.inodes[place.inode as usize].mode;
        if place.kind() != PlaceKind::Gone || mode & libc::S_IFMT != libc::S_IFDIR {
            continue;
        }
        let is_directory = |stat: Stat| stat.mode & libc::S_IFMT == libc::S_IFDIR;
        let is_taken =
            place.parent.is_none() && places.look_up(&place.path).is_some_and(is_directory);
        let Some(file) = places.source(image, index)? else {
            continue;
        };
        let is_ext4 = fstatfs(&file).is_ok_and(|it| it.filesystem_type() == EXT4_SUPER_MAGIC);
        let stat = path::stat(&file, c"").map_err(|errno| DumpError::on("statx", "", errno))?;
        if is_ext4 && is_taken == (stat.size == 0) {
            let holder = holder(image, index).map_or("working directory", |at| &held[at].place);
            let object = format!("{holder}: size of the removed directory");
            let reason = "it shows whether it was removed, or another was renamed over it";
            declare(image, Loss::new(LossKind::DirectorySize, object, reason));
        }
    }
    Ok(())
}

/// The first of [`Image::files`] on a place.
fn holder(image: &Image, place: u32) -> Option<usize> {
    let is_it = |object: &Option<Object>| matches!(object, Some(Object::Place(it)) if *it == place);
    image.files.iter().position(|file| is_it(&file.object))
}
