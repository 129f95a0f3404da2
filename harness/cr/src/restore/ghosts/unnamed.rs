//! Files that never had a name, made again where they were.

use std::os::fd::AsRawFd;

use super::super::error::{Context, RestoreError, RestoreErrorKind};
use super::super::files::{finish, open_again};
use super::super::inode::{fill, set_xattrs, times};
use super::super::tree::link_to;
use super::{Maker, is_gone};
use crate::image::Place;
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
        let first = first.ok_or_else(|| impossible("no descriptor made it"))?;
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
        let state = &self.image.files[first];
        let flags = state.flags.cast_signed() & !libc::O_ASYNC | libc::O_CLOEXEC;
        let flags = flags & !libc::O_APPEND;
        let made = raw::open(&link_to(&folder), flags, inode.mode & 0o7777)
            .and_then(path::owned)
            .context("open", "O_TMPFILE")?;
        fill(&made, ghost, self.content)?;
        let found = raw::open(&link_to(&made), libc::O_PATH | libc::O_CLOEXEC, 0)
            .and_then(path::owned)
            .context("open", "O_PATH")?;
        let stat = path::stat(&found, c"").context("statx", "")?;
        if (stat.uid, stat.gid) != (ghost.uid, ghost.gid) {
            raw::fchown(made.as_raw_fd(), ghost.uid, ghost.gid).context("fchown", "")?;
            raw::fchmod(made.as_raw_fd(), inode.mode & 0o7777).context("fchmod", "")?;
        }
        set_xattrs(&link_to(&found), ghost, |path, name, value| {
            raw::setxattr(path, name, value, 0).map(drop)
        })?;
        raw::utimensat(libc::AT_FDCWD, Some(&link_to(&found)), &times(ghost), 0)
            .context("utimensat", "")?;
        finish(&made, state)?;
        self.stage.put(first, &made)?;
        drop(made);
        for other in files.into_iter().filter(|other| *other != first) {
            let state = &self.image.files[other];
            let opened = open_again(&found, state)?;
            finish(&opened, state)?;
            self.stage.put(other, opened)?;
        }
        self.ghosts.by_place.insert(index, found);
        Ok(())
    }
}
