//! Watches and marks of the groups, and the places that they are on.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use fsnotify::fanotify::InitFlags;
use fsnotify::fdinfo::{self, Body, Kind};
use fsnotify::handle::FileHandle;
use fsnotify::{Ino, Sdev};
use nix::errno::Errno;

use super::error::{DumpError, DumpErrorKind};
use super::files::{Held, holds_content};
use super::places::Places;
use super::settled::settled;
use crate::fanotify::dump::{Source, inspect};
use crate::fanotify::plan::Kind as MarkedKind;
use crate::image::{Fanotify, Image, Inotify, LossRecord, Object, Text, Watch};
use crate::silent::{self, SilentErrorKind};
use crate::sys::handle;
use crate::{Loss, LossKind};

/// Fills the groups in [`Image::files`].
pub(super) fn collect(
    image: &mut Image,
    places: &mut Places,
    held: &[Held],
) -> Result<(), DumpError> {
    (0..held.len()).try_for_each(|index| collect_one(image, places, held, index))
}

/// Fills one of [`Image::files`], if it is a group.
pub(super) fn collect_one(
    image: &mut Image,
    places: &mut Places,
    held: &[Held],
    index: usize,
) -> Result<(), DumpError> {
    let group = &held[index];
    match image.files[index].object {
        Some(Object::Inotify(_)) => {
            let watches = watches(image, places, group)?;
            let group = Inotify {
                watches,
                ..Inotify::default()
            };
            image.files[index].object = Some(Object::Inotify(group));
            unread_in_pipes(image, held, index);
        }
        Some(Object::Fanotify(_)) => {
            let (state, losses) = fanotify(image, places, group)?;
            image.files[index].object = Some(Object::Fanotify(state));
            image.lost.extend(losses.into_iter().map(LossRecord::from));
        }
        Some(Object::Place(_) | Object::Epoll(_)) | None => {}
    }
    Ok(())
}

/// What a fifo holds is lost, and so are the events of reading it.
fn unread_in_pipes(image: &mut Image, held: &[Held], group: usize) {
    let inode = |place: u32| image.places[place as usize].inode;
    let full = held
        .iter()
        .zip(&image.files)
        .filter_map(|(held, file)| match file.object {
            Some(Object::Place(place)) if holds_content(held) => Some(inode(place)),
            _ => None,
        });
    let full: Vec<u32> = full.collect();
    let Some(Object::Inotify(state)) = &image.files[group].object else {
        return;
    };
    let watches = state
        .watches
        .iter()
        .filter(|watch| full.contains(&inode(watch.place)));
    let losses: Vec<Loss> = watches
        .map(|watch| {
            let object = format!(
                "{}: wd {}: events of reading the fifo",
                held[group].place, watch.wd
            );
            Loss::new(
                LossKind::FifoEvents,
                object,
                "what it holds cannot be copied without being heard",
            )
        })
        .collect();
    image.lost.extend(losses.into_iter().map(LossRecord::from));
}

fn watches(image: &mut Image, places: &mut Places, group: &Held) -> Result<Vec<Watch>, DumpError> {
    each_watch(image, places, group)?.into_iter().collect()
}

/// The watches of a group, each for itself.
pub(super) fn each_watch(
    image: &mut Image,
    places: &mut Places,
    group: &Held,
) -> Result<Vec<Result<Watch, DumpError>>, DumpError> {
    let watches = shown_watches(image, places, group)?;
    places.reserve(image, watches.len());
    let mut one = |watch: &fdinfo::Watch| {
        let (ino, sdev) = (watch.ino.0, watch.sdev);
        let place = places
            .of_inode(image, sdev.0, ino, watch.handle.as_ref())
            .and_then(|place| {
                let (major, minor) = (sdev.major(), sdev.minor());
                let kind = match watch.handle {
                    Some(_) => DumpErrorKind::NoPath { ino, major, minor },
                    None => DumpErrorKind::NoHandle { ino, major, minor },
                };
                place.ok_or_else(|| DumpError::new("", kind))
            })
            .map_err(|error| error.at(&format!("{}: watch {}", group.place, watch.wd)))?;
        Ok(Watch {
            wd: watch.wd.number(),
            mask: watch.mask.0,
            place,
        })
    };
    Ok(watches.iter().map(&mut one).collect())
}

/// The watches as fdinfo shows them. One without a handle is only a reason to wait if nothing else
/// leads to its inode.
fn shown_watches(
    image: &mut Image,
    places: &mut Places,
    group: &Held,
) -> Result<Vec<fdinfo::Watch>, DumpError> {
    let mut found = Some(Cow::Borrowed(&group.info[..]));
    let read = || {
        let info = match found.take() {
            Some(info) => info,
            None => {
                let name = format!("/proc/{}/fdinfo/{}", group.pid, group.fd);
                let info = fs::read(&name);
                Cow::Owned(info.map_err(|error| DumpError::io("read", &name, &error))?)
            }
        };
        let shown = fdinfo::Group::parse_as(&info, Kind::Inotify, fdinfo::Level::Strict);
        let not_understood = |error: fdinfo::ParseError| {
            DumpError::new(&group.place, DumpErrorKind::Text(error.to_string()))
        };
        match shown.map_err(not_understood)?.body {
            Body::Inotify { watches } => Ok(watches),
            Body::Fanotify { .. } | Body::Unstated => Ok(Vec::new()),
        }
    };
    let mut leads_nowhere = |watch: &fdinfo::Watch| {
        watch.handle.is_none() && {
            let place = places.of_inode(image, watch.sdev.0, watch.ino.0, None);
            !matches!(place, Ok(Some(_)))
        }
    };
    settled(read, |watches: &Vec<fdinfo::Watch>| {
        watches.iter().any(&mut leads_nowhere)
    })
}

fn fanotify(
    image: &mut Image,
    places: &mut Places,
    group: &Held,
) -> Result<(Fanotify, Vec<Loss>), DumpError> {
    let tree = pids(image);
    let source = source(group, &tree);
    inspect(source, &mut Marked { image, places })
        .map_err(|refusal| DumpError::new(&group.place, DumpErrorKind::Fanotify(refusal)))
}

/// Refuses listeners that somebody waits for.
pub(super) fn refuse_waiting(image: &Image, held: &[Held]) -> Result<(), DumpError> {
    let tree = pids(image);
    for (index, group) in held.iter().enumerate() {
        if let Some(Object::Fanotify(_)) = image.files[index].object {
            crate::fanotify::dump::refuse_waiting(source(group, &tree)).map_err(|refusal| {
                DumpError::new(&group.place, DumpErrorKind::Fanotify(refusal))
            })?;
        }
    }
    Ok(())
}

/// Finds which files make their readers wait for permission listeners, if the image has any.
pub(super) fn find_asking(image: &mut Image, held: &[Held]) -> Result<(), DumpError> {
    let listens = image.files.iter().any(|file| match &file.object {
        Some(Object::Fanotify(group)) => group.init_flags & InitFlags::CLASS.0 != 0,
        _ => false,
    });
    for (index, file) in held.iter().enumerate().filter(|_| listens) {
        let state = &image.files[index];
        let Some(Object::Place(place)) = state.object else {
            continue;
        };
        let inode = image.places[place as usize].inode;
        let kind = image.inodes[inode as usize].mode & libc::S_IFMT;
        let flags = state.flags.cast_signed();
        let readable = flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_WRONLY;
        if !readable || !matches!(kind, libc::S_IFREG | libc::S_IFDIR) {
            continue;
        }
        image.files[index].asks = match silent::asks(&file.file, kind == libc::S_IFDIR) {
            Ok(asks) => asks,
            // A filesystem whose files nobody is asked about, such as procfs.
            Err(SilentErrorKind::Call("fanotify_mark", Errno::EINVAL)) => false,
            Err(SilentErrorKind::Call(call, errno)) => {
                return Err(DumpError::on(call, "", errno).at(&file.place));
            }
            Err(_) => return Err(DumpError::not_supported(&file.place, "permission listener")),
        };
    }
    Ok(())
}

/// Every process of the dump that still lives.
pub(super) fn pids(image: &Image) -> Vec<i32> {
    let live = image.processes.iter();
    let live = live.filter(|process| process.exited.is_none());
    live.map(|process| process.pid).collect()
}

pub(super) fn source<'a>(group: &'a Held, tree: &'a [i32]) -> Source<'a> {
    Source {
        name: &group.place,
        pid: group.pid.as_raw(),
        fd: group.fd,
        group: group.file.as_fd(),
        tree,
    }
}

/// Places for marks.
struct Marked<'a> {
    image: &'a mut Image,
    places: &'a mut Places,
}

impl crate::fanotify::dump::Places for Marked<'_> {
    fn of_inode(
        &mut self,
        ino: Ino,
        sdev: Sdev,
        handle: &FileHandle,
    ) -> Result<(u32, MarkedKind), String> {
        let place = self
            .places
            .of_inode(self.image, sdev.0, ino.0, Some(handle));
        let place = place.map_err(|error| error.to_string())?;
        let place = place.ok_or("no handle or path leads to it")?;
        let inode = self.image.places[place as usize].inode;
        let kind = match self.image.inodes[inode as usize].mode & libc::S_IFMT {
            libc::S_IFDIR => MarkedKind::Directory,
            _ => MarkedKind::File,
        };
        Ok((place, kind))
    }

    fn of_path(&mut self, path: &[u8]) -> Result<u32, String> {
        let path = OsStr::from_bytes(path);
        let file = handle::open_path(path.as_ref()).map_err(|errno| errno.to_string())?;
        let flags = libc::O_PATH.cast_unsigned();
        let place = self.places.of_file(self.image, &file, flags);
        place.map_err(|error| error.to_string())
    }

    fn name(&self, place: u32) -> String {
        Text(&self.image.places[place as usize].path).to_string()
    }
}
