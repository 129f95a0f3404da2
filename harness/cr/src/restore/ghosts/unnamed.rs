//! Files that never had a name, made again where they were.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use super::super::error::{Context, RestoreError, RestoreErrorKind};
use super::super::files::{finish, open_again};
use super::super::inode::{fill, set_xattrs, times};
use super::super::tree::link_to;
use super::{Maker, is_gone};
use crate::image::{Ghost, Place};
use crate::sys::path;
use crate::sys::raw;

impl Maker<'_> {
    /// A file that never had a name, in the directory that it was opened in.
    pub(super) fn unnamed(&mut self, index: u32, place: &Place) -> Result<(), RestoreError> {
        let inode = &self.image.inodes[place.inode as usize];
        let impossible = |what| RestoreError::new(RestoreErrorKind::Impossible(what));
        let ghost = inode
            .ghost
            .as_ref()
            .ok_or_else(|| impossible("a file without name, linked"))?;
        let files = self.uses.files(index).to_vec();
        let makes_it = |file: &usize| {
            self.image.files[*file].flags.cast_signed() & libc::O_TMPFILE == libc::O_TMPFILE
        };
        let first = files.iter().copied().find(makes_it);
        let folder = match place.parent {
            Some(ghost) => self.made_directory(ghost)?,
            None => match self.tree.find_unnamed_in(place) {
                Ok(folder) => folder,
                Err(error) if is_gone(&error) => {
                    self.in_workroom(place, |maker, mount| maker.folder(&place.path, mount))?
                }
                Err(error) => return Err(error),
            },
        };
        // The descriptor that made it may be closed since.
        let made_by = first.map_or(libc::O_RDWR | libc::O_TMPFILE, |first| {
            self.image.files[first].flags.cast_signed()
        });
        let flags = made_by & !libc::O_ASYNC & !libc::O_APPEND | libc::O_CLOEXEC;
        // Until everything is as it was, the caller has to be able to open it again.
        let mode = inode.mode & 0o7777 | 0o600;
        let made = raw::open(&link_to(&folder), flags, mode)
            .and_then(path::owned)
            .context("open", "O_TMPFILE")?;
        fill(&made, ghost, self.content)?;
        let found = raw::open(&link_to(&made), libc::O_PATH | libc::O_CLOEXEC, 0)
            .and_then(path::owned)
            .context("open", "O_PATH")?;
        if let Some(first) = first {
            finish(&made, &self.image.files[first])?;
            self.stage.put(first, &made)?;
        }
        for other in files.into_iter().filter(|other| Some(*other) != first) {
            let state = &self.image.files[other];
            let opened = open_again(&found, state)?;
            finish(&opened, state)?;
            self.stage.put(other, opened)?;
        }
        complete(&made, &found, inode.mode, ghost)?;
        self.made.insert(place.inode, index);
        self.ghosts.by_place.insert(index, found);
        Ok(())
    }
}

/// Owner, attributes, permissions and times of a file without a name. Who fills it may have taken bits
/// of its mode away by that (`file_remove_privs`). Each call may be heard, so what is right is left.
fn complete(made: &OwnedFd, found: &OwnedFd, mode: u32, ghost: &Ghost) -> Result<(), RestoreError> {
    let stat = || path::stat(found, c"").context("statx", "");
    let own = stat()?;
    if (own.uid, own.gid) != (ghost.uid, ghost.gid) {
        raw::fchown(made.as_raw_fd(), ghost.uid, ghost.gid).context("fchown", "")?;
    }
    let link = link_to(found);
    let set =
        |path: &CStr, name: &CStr, value: &[u8]| raw::setxattr(path, name, value, 0).map(drop);
    let remove = |path: &CStr, name: &CStr| raw::removexattr(path, name).map(drop);
    set_xattrs(&link, ghost, |_| true, (set, remove))?;
    if stat()?.mode != mode {
        raw::fchmod(made.as_raw_fd(), mode & 0o7777).context("fchmod", "")?;
    }
    raw::utimensat(libc::AT_FDCWD, Some(&link), &times(ghost), 0)
        .map(drop)
        .context("utimensat", "")
}
