//! Where ghosts are made out of sight: a directory of our own on the filesystem of each.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::super::error::{Context, RestoreError, RestoreErrorKind};
use super::super::leftovers::{Journal, room_name};
use super::super::tree::{c_string, link_to};
use super::Maker;
use crate::image::{Place, Text};
use crate::silent;
use crate::sys::path::{self, Stat, open_beneath};
use crate::sys::raw;

#[derive(Debug)]
pub(super) struct Workroom {
    /// Where it is: its mount's root.
    pub(super) parent: OwnedFd,
    pub(super) name: CString,
    pub(super) room: OwnedFd,
    /// A clone of the mount without what is mounted below, and the room on it.
    bare: Option<(OwnedFd, OwnedFd)>,
}

/// The mount that names are moved on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    Mount,
    Bare,
}

impl Workroom {
    pub(super) fn room(&self, through: Through) -> RawFd {
        match (&self.bare, through) {
            (Some((_, room)), Through::Bare) => room.as_raw_fd(),
            (_, Through::Mount) | (None, Through::Bare) => self.room.as_raw_fd(),
        }
    }
}

impl Maker<'_> {
    /// The directory that a ghost is moved to, on the mount that it can be moved on. Where another
    /// filesystem is mounted over the directory, that is a bare clone of the ghost's mount: rename
    /// goes within one mount only, and a clone shows what is below.
    pub(super) fn through(
        &mut self,
        folder: OwnedFd,
        path: &[u8],
        mount: &[u8],
    ) -> Result<(OwnedFd, Through), RestoreError> {
        let workroom = self.workrooms.get_mut(mount).expect("made for the place");
        let stat = |file: &OwnedFd| path::stat(file, c"").context("statx", "");
        let (there, here) = (stat(&folder)?, stat(&workroom.parent)?);
        if there.mount == here.mount {
            return Ok((folder, Through::Mount));
        }
        if workroom.bare.is_none() {
            let bare = path::bare_tree(&workroom.parent, c"").context("open_tree", Text(mount))?;
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let room = open_beneath(&bare, &workroom.name, flags, 0).context("open", "")?;
            workroom.bare = Some((bare, room));
        }
        let (bare, _) = workroom.bare.as_ref().expect("made above");
        let below = path.strip_prefix(mount).unwrap_or(path);
        let below = below.strip_prefix(b"/").unwrap_or(below);
        let below = c_string(if below.is_empty() { b"." } else { below })?;
        let folder = open_beneath(bare, &below, libc::O_PATH | libc::O_DIRECTORY, 0)
            .context("open", Text(path))?;
        Ok((folder, Through::Bare))
    }

    /// Does what needs a directory of our own, named by the directory that it is in: the first on the
    /// way from the root of the place's mount from which something can be moved to the place.
    ///
    /// The nearer it is, the more likely it is watched. Some filesystems are in parts that nothing is
    /// moved between, though they are one mount: btrfs by subvolumes, ext4 and xfs by projects, and
    /// all that encrypt by their keys.
    pub(super) fn in_workroom<T>(
        &mut self,
        place: &Place,
        mut body: impl FnMut(&mut Self, &[u8]) -> Result<T, RestoreError>,
    ) -> Result<T, RestoreError> {
        let mut last = RestoreError::new(RestoreErrorKind::Impossible("no directory on its way"));
        for above in self.above(place)? {
            match self.workroom_in(&above) {
                Err(error) if is_denied(&error) => {
                    last = error;
                    continue;
                }
                made => made?,
            }
            match body(self, &above) {
                Err(error) if is_elsewhere(&error) => last = error,
                done => return done,
            }
        }
        Err(last)
    }

    /// The directories above a place that are on its device, from the root of its mount on. What is
    /// made in another's directory changes times that only he may put back; so his are the last that
    /// are tried.
    fn above(&self, place: &Place) -> Result<Vec<Vec<u8>>, RestoreError> {
        let mount = if place.mount.is_empty() {
            b"/".to_vec()
        } else {
            place.mount.clone()
        };
        let ends = (mount.len() + 1..place.path.len()).filter(|&at| place.path[at] == b'/');
        let below = ends.map(|end| place.path[..end].to_vec());
        let mut found: Vec<(Stat, Vec<u8>)> = Vec::new();
        for above in std::iter::once(mount).chain(below) {
            let stat = match self.tree.open(&above, libc::O_PATH | libc::O_DIRECTORY) {
                Ok(folder) => path::stat(&folder, c"").context("statx", "")?,
                Err(error) if found.is_empty() => return Err(error),
                Err(_) => break,
            };
            // From here on something else is mounted.
            if found
                .first()
                .is_some_and(|(root, _)| root.mount != stat.mount)
            {
                break;
            }
            found.push((stat, above));
        }
        let device = found.last().map(|(nearest, _)| nearest.device);
        // What is made in a directory that only grows stays in it.
        found.retain(|(stat, _)| Some(stat.device) == device && !stat.is_append_only());
        found.sort_by_key(|(stat, _)| !path::owns(stat.uid));
        Ok(found.into_iter().map(|(_, above)| above).collect())
    }

    fn workroom_in(&mut self, above: &[u8]) -> Result<(), RestoreError> {
        if self.workrooms.contains_key(above) {
            return Ok(());
        }
        let parent = self.tree.open(above, libc::O_PATH | libc::O_DIRECTORY)?;
        let stat = path::stat(&parent, c"").context("statx", "")?;
        if let (None, Some(image_path)) = (&self.journal, self.image_path) {
            self.journal = Journal::create(image_path)?;
        }
        for attempt in 0..100 {
            let name = room_name(Pid::this(), attempt);
            let name = c_string(name.as_bytes())?;
            if let Some(journal) = &mut self.journal {
                journal.room(above, name.to_bytes())?;
            }
            match path::make_directory(&parent, &name, 0o700) {
                Ok(()) => {
                    self.touched_since(&parent, (above, above), stat)?;
                    let flags = libc::O_PATH | libc::O_DIRECTORY;
                    let room = open_beneath(&parent, &name, flags, 0).context("open", "")?;
                    check_own(&room)?;
                    if let Some(journal) = &mut self.journal {
                        journal.made(above, name.to_bytes())?;
                    }
                    let workroom = Workroom {
                        parent,
                        name,
                        room,
                        bare: None,
                    };
                    self.workrooms.insert(above.to_vec(), workroom);
                    return Ok(());
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => {
                    let operand = Text(above).to_string();
                    return Err(RestoreError::call("mkdirat", operand, errno));
                }
            }
        }
        let operand = Text(above).to_string();
        Err(RestoreError::call("mkdirat", operand, Errno::EEXIST))
    }
}

/// Makes sure that what was opened is what was made: whoever may write to the directory that it is in
/// may have put another there meanwhile.
fn check_own(room: &OwnedFd) -> Result<(), RestoreError> {
    let stat = path::stat(room, c"").context("statx", "")?;
    // Where nobody may open it unheard, it is taken for empty: only names of ours are removed there.
    let is_empty = silent::open(&link_to(room), silent::Access::Read).map_or(Ok(true), |listing| {
        // Its own name and that of what it is in take 24 bytes each.
        let mut entries = [0; 512];
        raw::getdents64(listing.as_raw_fd(), &mut entries).map(|length| length <= 48)
    });
    // The set-group-ID bit comes of the directory that it is in.
    let is_ours = stat.uid == nix::unistd::geteuid().as_raw()
        && stat.mode & 0o7777 & !libc::S_ISGID == 0o700
        && is_empty.context("getdents64", "")?;
    if is_ours {
        return Ok(());
    }
    let what = "another directory has the name of the one that ghosts are made in";
    Err(RestoreError::new(RestoreErrorKind::Impossible(what)))
}

/// Whether it failed for want of a right that the caller may have elsewhere.
fn is_denied(error: &RestoreError) -> bool {
    let RestoreErrorKind::Call { errno, .. } = error.kind else {
        return false;
    };
    matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS)
}

/// Whether it failed because the filesystem is in parts, and the place in another.
fn is_elsewhere(error: &RestoreError) -> bool {
    matches!(
        &error.kind,
        RestoreErrorKind::Call {
            errno: Errno::EXDEV,
            ..
        }
    )
}

pub(super) fn leave(workroom: &Workroom) -> Result<(), RestoreError> {
    empty_and_remove(&workroom.parent, &workroom.name, &workroom.room)
}

/// Removes a workroom. Only a failure leaves something in it: then it is emptied first, of what has a
/// name of ours, which whoever watches its parent hears. What was displaced is back by now, or stays.
pub(in crate::restore) fn empty_and_remove(
    parent: &OwnedFd,
    name: &CStr,
    room: &OwnedFd,
) -> Result<(), RestoreError> {
    let remove = || raw::unlinkat(parent.as_raw_fd(), name, libc::AT_REMOVEDIR).map(drop);
    if remove() != Err(Errno::ENOTEMPTY) {
        return Ok(());
    }
    let path = crate::sys::handle::proc_path(room);
    let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let name = c_string(name.as_encoded_bytes())?;
        let stat = path::stat(room, &name).context("statx", "")?;
        let is_directory = stat.mode & libc::S_IFMT == libc::S_IFDIR;
        let flags = if is_directory { libc::AT_REMOVEDIR } else { 0 };
        raw::unlinkat(room.as_raw_fd(), &name, flags).context("unlinkat", "")?;
    }
    remove().context("rmdir", "of our own directory")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::sys::handle::open_path;

    #[test]
    fn another_directory_of_the_name_is_not_taken_for_ours() {
        let folder = tempfile::tempdir().unwrap();
        let room = folder.path().join("room");
        fs::create_dir(&room).unwrap();
        let is_ours = |mode| {
            fs::set_permissions(&room, fs::Permissions::from_mode(mode)).unwrap();
            check_own(&open_path(&room).unwrap()).is_ok()
        };
        assert!(is_ours(0o700));
        assert!(is_ours(0o2700), "as in a directory with that bit");
        assert!(!is_ours(0o755));
        assert!(!is_ours(0o1700));
        if silent::is_permitted() {
            fs::write(room.join("kept"), "").unwrap();
            assert!(!is_ours(0o700), "somebody's content");
        }
    }

    #[test]
    fn what_has_no_name_of_ours_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("room");
        fs::create_dir(&path).unwrap();
        for name in ["1", "kept"] {
            fs::write(path.join(name), "").unwrap();
        }
        symlink("kept", path.join("2")).unwrap();
        let [parent, room] = [folder.path(), &path].map(|path| open_path(path).unwrap());
        empty_and_remove(&parent, c"room", &room).unwrap_err();
        assert!(path.join("kept").exists() && !path.join("1").exists());
        fs::remove_file(path.join("kept")).unwrap();
        empty_and_remove(&parent, c"room", &room).unwrap();
        assert!(!path.exists());
    }
}
