//! Names for what has none: the way of keeping ghosts that CRIU's documentation describes.
//!
//! A ghost gets a name again at the dump, a hard link beside the name that it had, and the restore
//! opens it by that and removes it when the watches are back. Both are heard by whoever watches the
//! directory or the ghost, the subject itself among them: that is why a queue that has unread events
//! cannot be refused, since the next dump makes some itself. It is kept to be seen and compared;
//! [`Ghosts::Silent`](super::Ghosts::Silent) does without.
//!
//! The kernel links an inode without links only if it never had one (`vfs_link`, `O_TMPFILE`). For
//! any other a new file with its content takes the name. A directory cannot be linked at all, nor
//! can what is in a directory that is gone itself: these are kept in silence.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::declare;
use super::error::DumpError;
use super::files::{Held, is_removed};
use super::places::Places;
use crate::image::{Content, Image, Inode, LINK, MarkKind, Object, PlaceKind};
use crate::restore::inode::{Rights, Writing, create, set_attributes};
use crate::restore::{RestoreError, RestoreErrorKind};
use crate::sys::handle::proc_path;
use crate::sys::{path, raw};
use crate::{Loss, LossKind};

/// Most names to try for a link.
const MOST_NAMES: u32 = 100_000;

/// What it costs the subject's own groups.
const HEARD: &str = "the ghost's link is removed when the watches are back";
/// What it costs other watchers.
const LINKED: &str = "a ghost is linked at the dump, and unlinked at the restore";
/// What it costs the directory.
const TOUCHED: &str = "names are made and removed in it";
/// What it costs the ghost, where its own name is not free.
const OTHER_NAME: &str = "it is taken, or there never was one: it keeps that of its link";

/// Links that were made; each is removed again unless they are [kept](Links::keep).
#[derive(Debug, Default)]
pub(super) struct Links {
    made: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    /// Into [`Image::inodes`].
    inode: u32,
    folder: OwnedFd,
    name: CString,
}

impl Links {
    /// Gives every ghost of the image that a descriptor holds a name in the directory that it was
    /// in.
    pub(super) fn make(
        &mut self,
        image: &mut Image,
        (held, places): (&[Held], &Places),
        content: Option<&Content>,
    ) -> Result<(), DumpError> {
        for index in 0..image.places.len() {
            let place = &image.places[index];
            let inode = &image.inodes[place.inode as usize];
            let is_directory = inode.mode & libc::S_IFMT == libc::S_IFDIR;
            let holder = image.files.iter().position(
                |file| matches!(file.object, Some(Object::Place(it)) if it as usize == index),
            );
            let Some(holder) = holder.filter(|_| is_removed(place.kind()) && !is_directory) else {
                continue;
            };
            self.link(image, (index, &held[holder]), (held, places), content)
                .map_err(|error| error.at(&held[holder].place))?;
        }
        Ok(())
    }

    fn link(
        &mut self,
        image: &mut Image,
        (index, holder): (usize, &Held),
        (held, places): (&[Held], &Places),
        content: Option<&Content>,
    ) -> Result<(), DumpError> {
        let place = &image.places[index];
        if place.parent.is_some() {
            return Ok(());
        }
        let directory = match place.kind() {
            PlaceKind::Unnamed => &place.path[..],
            _ => parent(&place.path),
        };
        let folder = match places.open_directory(directory) {
            Ok(folder) => folder,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(errno) => return Err(DumpError::on("open", "the ghost's directory", errno)),
        };
        let failed = |errno| DumpError::on("statx", "", errno);
        let stat = path::stat(&folder, c"").map_err(failed)?;
        let is_free = place.kind() == PlaceKind::Gone && {
            let last = place.path.rsplit(|&byte| byte == b'/').next();
            let last = path::c_path(last.unwrap_or_default()).map_err(failed)?;
            path::stat(&folder, &last).is_err()
        };
        let Some(name) = self.name(image, (index, holder), folder, content)? else {
            return Ok(());
        };
        image.places[index].link = name.into_bytes();
        if has_flags(image, index) {
            let object = format!("{}: flags of the ghost", holder.place);
            let reason = "it has a name for the time being, which has to be removed";
            declare(image, Loss::new(LossKind::InodeFlags, object, reason));
        }
        if !is_free {
            let object = format!("{}: name of the ghost", holder.place);
            declare(image, Loss::new(LossKind::HardlinkName, object, OTHER_NAME));
        }
        let folder = (places.sdev(&stat), stat.ino);
        declare_noise(image, (index, holder), (held, folder));
        Ok(())
    }

    /// Makes the link under a free name; none where another filesystem is over the directory.
    fn name(
        &mut self,
        image: &Image,
        (index, holder): (usize, &Held),
        folder: OwnedFd,
        content: Option<&Content>,
    ) -> Result<Option<CString>, DumpError> {
        let inode = image.places[index].inode;
        let source = path::c_path(proc_path(&holder.file).as_os_str().as_encoded_bytes());
        let source = source.expect("no NUL in a number");
        for n in 0..MOST_NAMES {
            let name = [LINK, n.to_string().as_bytes()].concat();
            let name = CString::new(name).expect("no NUL in a number");
            let to = folder.as_raw_fd();
            let follow = libc::AT_SYMLINK_FOLLOW;
            let made = raw::linkat(libc::AT_FDCWD, &source, to, &name, follow);
            match made.map(drop) {
                Ok(()) => {}
                Err(Errno::EEXIST) => continue,
                Err(Errno::EXDEV) => return Ok(None),
                Err(Errno::ENOENT) if listens(image) => {
                    let what =
                        "a file in a ghost's place, which its permission listener is asked for";
                    return Err(DumpError::not_supported("", what));
                }
                Err(Errno::ENOENT) => {
                    let found = (&image.inodes[inode as usize], inode);
                    self.stand_in(found, (&folder, &name), content)?;
                }
                Err(errno) => return Err(DumpError::on("linkat", "", errno)),
            }
            self.made.push(Link {
                inode,
                folder,
                name: name.clone(),
            });
            return Ok(Some(name));
        }
        Err(DumpError::on("linkat", "", Errno::EEXIST))
    }

    /// A file with the content of a ghost, or another name of the one that is made already.
    fn stand_in(
        &self,
        (inode, index): (&Inode, u32),
        (folder, name): (&OwnedFd, &CStr),
        content: Option<&Content>,
    ) -> Result<(), DumpError> {
        if let Some(first) = self.made.iter().find(|link| link.inode == index) {
            let (from, to) = (first.folder.as_raw_fd(), folder.as_raw_fd());
            let made = raw::linkat(from, &first.name, to, name, 0);
            return made
                .map(drop)
                .map_err(|errno| DumpError::on("linkat", "", errno));
        }
        let ghost = inode
            .ghost
            .as_ref()
            .ok_or_else(|| DumpError::on("linkat", "", Errno::ENOENT))?;
        create((folder, name), Writing::Plain, inode.mode, ghost, content)
            .and_then(|()| set_attributes((folder, name), inode.mode, ghost, Rights::Given))
            .map_err(of_restore)
    }

    /// Leaves the links where they are, for a restore.
    pub(super) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in self.made.drain(..) {
            // Somebody else may have removed it.
            let _ = raw::unlinkat(link.folder.as_raw_fd(), &link.name, 0);
        }
    }
}

fn of_restore(error: RestoreError) -> DumpError {
    match error.kind {
        RestoreErrorKind::Call {
            call,
            operand,
            errno,
        } => DumpError::on(call, operand, errno),
        _ => DumpError::not_supported("", error.to_string()),
    }
}

/// What will be heard of the link, and by whom: groups of the subject by their watches and marks,
/// others by the descriptor whose file it is about.
fn declare_noise(
    image: &mut Image,
    (index, holder): (usize, &Held),
    (held, folder): (&[Held], (u32, u64)),
) {
    let ghost = image.places[index].inode;
    let concerns = |place: u32| {
        let inode = image.places[place as usize].inode;
        let found = &image.inodes[inode as usize];
        inode == ghost || (found.sdev, found.ino) == folder
    };
    let mut losses = Vec::new();
    for (group, file) in held.iter().zip(&image.files) {
        let name = &group.place;
        match &file.object {
            Some(Object::Inotify(state)) => {
                let watches = state.watches.iter();
                for watch in watches.filter(|watch| concerns(watch.place)) {
                    let object = format!("{name}: wd {}", watch.wd);
                    losses.push(Loss::new(LossKind::HardlinkHeard, object, HEARD));
                    losses.push(unread(name));
                }
            }
            Some(Object::Fanotify(state)) => {
                let hears = |mark: &crate::image::Mark| {
                    mark.kind() != MarkKind::Inode || mark.place.is_some_and(concerns)
                };
                if state.marks.iter().any(hears) {
                    losses.push(Loss::new(LossKind::HardlinkHeard, name, HEARD));
                    losses.push(unread(name));
                }
            }
            Some(Object::Place(_) | Object::Epoll(_)) | None => {}
        }
    }
    losses.push(Loss::new(
        LossKind::HardlinkNoise,
        format!("{}: link of the ghost", holder.place),
        LINKED,
    ));
    losses.push(Loss::new(
        LossKind::HardlinkDirectory,
        format!("{}: directory of the ghost", holder.place),
        TOUCHED,
    ));
    losses.dedup();
    for loss in losses {
        if !image.losses().contains(&loss) {
            declare(image, loss);
        }
    }
}

fn unread(name: &str) -> Loss {
    Loss::new(
        LossKind::HardlinkUnread,
        format!("{name}: unread bytes"),
        HEARD,
    )
}

fn has_flags(image: &Image, place: usize) -> bool {
    let inode = &image.inodes[image.places[place].inode as usize];
    let ghost = inode.ghost.as_ref();
    ghost.is_some_and(|ghost| ghost.flags.unwrap_or(0) != 0)
}

/// Whether a group of the image lets others wait for its answer, which it cannot give now.
fn listens(image: &Image) -> bool {
    let classes = fsnotify::fanotify::InitFlags::CLASS.0;
    image.files.iter().any(|file| match &file.object {
        Some(Object::Fanotify(group)) => group.init_flags & classes != 0,
        _ => false,
    })
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(0) | None => b"/",
        Some(at) => &path[..at],
    }
}
