//! The files that an image names, reached without going where it leads.
//!
//! Every path of an image is resolved below one directory, with `RESOLVE_BENEATH` and without
//! following any link, magic ones included. A path that the kernel printed has no link in it, so
//! nothing is lost; a forged one goes nowhere else.
//!
//! A handle leads anywhere on a filesystem. Below a directory that nothing may lead out of, it is used
//! where all of the filesystem is mounted below, or where the name of what it leads to is.

use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use fsnotify::Sdev;
use fsnotify::handle::FileHandle;
use nix::errno::Errno;

use super::RestoreOptions;
use super::error::{Context, RestoreError, RestoreErrorKind};
use crate::dump::boot_id;
use crate::image::{Image, Inode, Place, PlaceKind, Text};
use crate::mounts::Mounts;
use crate::sys::handle;
use crate::sys::path::{self, Stat, bare_tree, open_beneath};

#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// Whether inode numbers and handles of the image still mean what they meant.
    same_boot: bool,
    /// Whether there is anything that the root keeps out.
    is_fenced: bool,
    /// Our own, where they can be read.
    mounts: OnceCell<Option<Mounts>>,
}

impl Tree {
    pub(super) fn new(image: &Image, options: &RestoreOptions) -> Result<Self, RestoreError> {
        let root =
            handle::open_path(&options.root).context("open", options.root.display().to_string())?;
        let same_boot = is_of_this_boot(image);
        Ok(Self {
            root,
            same_boot,
            is_fenced: options.is_fenced(),
            mounts: OnceCell::new(),
        })
    }

    /// Opens a path that an image names.
    pub(super) fn open(&self, path: &[u8], flags: i32) -> Result<OwnedFd, RestoreError> {
        open_beneath(&self.root, &relative(path)?, flags, 0).context("open", Text(path))
    }

    /// Opens a place that is there, with `O_PATH`, and makes sure that it is the one.
    pub(super) fn find(&self, image: &Image, place: &Place) -> Result<OwnedFd, RestoreError> {
        let inode = &image.inodes[place.inode as usize];
        let file = match place.kind() {
            PlaceKind::Named => self.open(&place.path, libc::O_PATH)?,
            PlaceKind::Hidden => self.find_hidden(place, inode)?,
            PlaceKind::Gone | PlaceKind::Unnamed => {
                let what = "a ghost that no descriptor holds";
                return Err(RestoreError::new(RestoreErrorKind::Impossible(what)));
            }
        };
        self.verify(&file, inode)
            .map_err(|error| error.at(&Text(&place.path).to_string()))?;
        Ok(file)
    }

    fn verify(&self, file: &OwnedFd, inode: &Inode) -> Result<(), RestoreError> {
        self.verify_stat(&path::stat(file, c"").context("statx", "")?, inode)
    }

    pub(super) fn verify_stat(&self, stat: &Stat, inode: &Inode) -> Result<(), RestoreError> {
        let (found, expected) = (stat.ino, inode.ino);
        if self.same_boot && found != expected {
            return Err(RestoreError::new(RestoreErrorKind::OtherInode {
                found,
                expected,
            }));
        }
        if self.same_boot && !self.may_be_on(stat, Sdev(inode.sdev)) {
            return Err(RestoreError::new(RestoreErrorKind::OtherFilesystem));
        }
        if inode.mode != 0 && (stat.mode ^ inode.mode) & libc::S_IFMT != 0 {
            return Err(RestoreError::new(RestoreErrorKind::OtherType));
        }
        Ok(())
    }

    /// Whether a file may be on this filesystem: not if that is another one, both of which are mounted.
    /// One that was unmounted may have another number when it is mounted again (overlay).
    fn may_be_on(&self, stat: &Stat, device: Sdev) -> bool {
        if stat.device == device {
            return true;
        }
        let Some(mounts) = self.mounts() else {
            return true;
        };
        let found = mounts.of_id(stat.mount).map(|mount| mount.device);
        found == Some(device) || mounts.all().iter().all(|mount| mount.device != device)
    }

    fn mounts(&self) -> Option<&Mounts> {
        let own = || Mounts::of(nix::unistd::gettid().as_raw()).ok();
        self.mounts.get_or_init(own).as_ref()
    }

    /// Opens what a handle on this mount leads to, if that is not outside of the root.
    fn open_handle(&self, mount: &OwnedFd, handle: &FileHandle) -> Result<OwnedFd, Errno> {
        let file = open_handle(mount, handle)?;
        if !self.is_fenced || self.is_whole(mount)? || self.is_named(&file)? {
            return Ok(file);
        }
        Err(Errno::EXDEV)
    }

    /// Whether a directory is one that all of a filesystem is mounted at.
    fn is_whole(&self, directory: &OwnedFd) -> Result<bool, Errno> {
        let stat = path::stat(directory, c"")?;
        let mount = self.mounts().and_then(|mounts| mounts.of_id(stat.mount));
        Ok(stat.is_mount_root() && mount.is_some_and(|mount| mount.root == b"/"))
    }

    /// Whether the name that the kernel has for a file leads to it below the root. What is elsewhere may
    /// be shown with a name that looks so.
    fn is_named(&self, file: &OwnedFd) -> Result<bool, Errno> {
        let (root, name) = (path::name_of(&self.root)?, path::name_of(file)?);
        let Some(below) = name.strip_prefix(&root[..]) else {
            return Ok(false);
        };
        let Ok(found) = relative(below)
            .map_err(drop)
            .and_then(|below| open_beneath(&self.root, &below, libc::O_PATH, 0).map_err(drop))
        else {
            return Ok(false);
        };
        let (found, file) = (path::stat(&found, c"")?, path::stat(file, c"")?);
        Ok((found.device, found.ino) == (file.device, file.ino))
    }

    /// By handle on its mount; else by its path under what is mounted over it.
    fn find_hidden(&self, place: &Place, inode: &Inode) -> Result<OwnedFd, RestoreError> {
        let mount = self.open(&place.mount, libc::O_PATH | libc::O_DIRECTORY)?;
        let below = place
            .path
            .strip_prefix(&place.mount[..])
            .unwrap_or(&place.path);
        let below = [b"/", below.strip_prefix(b"/").unwrap_or(below)].concat();
        let by_path = || {
            let bare = bare_tree(&mount, c"").context("open_tree", Text(&place.mount))?;
            let path = relative(&below)?;
            open_beneath(&bare, &path, libc::O_PATH, 0).context("open", Text(&place.path))
        };
        if let Some(handle) = file_handle(inode).filter(|_| self.same_boot) {
            // The kernel is heard when it has to find the name of a directory. After a look at the
            // path, and as long as that is open, it knows it.
            let is_directory = inode.mode & libc::S_IFMT == libc::S_IFDIR;
            let _looked_up = is_directory.then(by_path);
            if let Ok(file) = self.open_handle(&mount, &handle) {
                // Of several names the kernel takes any (`find_acceptable_alias`).
                let is_named = || path::name_of(&file).is_ok_and(|name| name == place.path);
                if is_directory || is_named() {
                    return Ok(file);
                }
                // By its handle it is on its own mount at least.
                return Ok(self.uncovered(place, &file).unwrap_or(file));
            }
        }
        let file = by_path()?;
        self.uncovered(place, &file)
    }

    /// The same file on the mount itself, where its link in /proc reads as it did: a clone of the
    /// mount is another one. In a user namespace handles lead to directories alone (`may_decode_fh`
    /// of fs/fhandle.c), so it is opened by name in the one that it is in.
    fn uncovered(&self, place: &Place, file: &OwnedFd) -> Result<OwnedFd, RestoreError> {
        let (directory, name) = self.hidden_parent(place)?;
        let own = open_beneath(&directory, &name, libc::O_PATH, 0);
        let own = own.context("open", Text(&place.path))?;
        let [own_stat, stat] = [&own, file].map(|file| path::stat(file, c"").context("statx", ""));
        let (own_stat, stat) = (own_stat?, stat?);
        if own_stat.ino == stat.ino && own_stat.device == stat.device {
            return Ok(own);
        }
        let what = "a file that a mount covers, and whose name is another's";
        Err(RestoreError::new(RestoreErrorKind::Impossible(what)))
    }

    /// The directory of a place that something is mounted over, on its own mount, and the last name.
    pub(super) fn hidden_parent(&self, place: &Place) -> Result<(OwnedFd, CString), RestoreError> {
        let (directory, name) = split(&place.path);
        let directory = self.open_covered(place, directory)?;
        let name = path::c_path(name).context("open", Text(&place.path))?;
        Ok((directory, name))
    }

    /// The directory that a file without a name was made in, on its own mount: the path may lead into
    /// another filesystem by now.
    pub(super) fn find_unnamed_in(&self, place: &Place) -> Result<OwnedFd, RestoreError> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let mount = |file: &OwnedFd| path::stat(file, c"").map(|stat| stat.mount);
        match self.open(&place.path, flags) {
            Ok(folder) if mount(&folder) == mount(&self.open(&place.mount, flags)?) => Ok(folder),
            Ok(_) => self.open_covered(place, &place.path),
            Err(gone) => self.open_covered(place, &place.path).map_err(|_| gone),
        }
    }

    /// Opens a directory on the mount of a place, whatever is mounted over it.
    fn open_covered(&self, place: &Place, directory: &[u8]) -> Result<OwnedFd, RestoreError> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let mount = self.open(&place.mount, flags)?;
        let below = directory.strip_prefix(&place.mount[..]);
        let below = relative(below.unwrap_or(directory))?;
        let bare = bare_tree(&mount, c"").context("open_tree", Text(&place.mount))?;
        let looked_up = open_beneath(&bare, &below, flags, 0).context("open", Text(&place.path))?;
        handle::of_file(&looked_up)
            .and_then(|handle| open_handle(&mount, &handle))
            .context("open_by_handle_at", Text(&place.path))
    }

    /// Opens an inode of which some name is gone: by another name, or by its handle.
    pub(super) fn find_linked(
        &self,
        place: &Place,
        inode: &Inode,
    ) -> Result<OwnedFd, RestoreError> {
        let file = if inode.other_name.is_empty() {
            let mount = self.open(&place.mount, libc::O_PATH | libc::O_DIRECTORY)?;
            let handle = file_handle(inode)
                .filter(|_| self.same_boot)
                .ok_or(Errno::ESTALE);
            handle
                .and_then(|handle| self.open_handle(&mount, &handle))
                .context("open_by_handle_at", Text(&place.path))?
        } else {
            self.open(&inode.other_name, libc::O_PATH)?
        };
        self.verify(&file, inode)
            .map_err(|error| error.at(&Text(&inode.other_name).to_string()))?;
        Ok(file)
    }
}

/// The working directory is where a handle can be opened with no more than `O_PATH`; a restore
/// sets it last.
fn open_handle(mount: &OwnedFd, handle: &FileHandle) -> Result<OwnedFd, Errno> {
    nix::unistd::fchdir(mount)?;
    handle::open_here(handle)
}

fn file_handle(inode: &Inode) -> Option<FileHandle> {
    let handle = inode.handle.as_ref()?;
    FileHandle::new(handle.kind, &handle.bytes).ok()
}

/// Whether the numbers of an image mean what they meant.
pub(super) fn is_of_this_boot(image: &Image) -> bool {
    !image.boot_id.is_empty() && image.boot_id == boot_id()
}

/// Directory and name of a path that is not the root.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(0) | None => (b"/", path.strip_prefix(b"/").unwrap_or(path)),
        Some(at) => (&path[..at], &path[at + 1..]),
    }
}

fn relative(path: &[u8]) -> Result<CString, RestoreError> {
    let below = path.strip_prefix(b"/").unwrap_or(path);
    c_string(if below.is_empty() { b"." } else { below })
}

pub(super) fn c_string(bytes: &[u8]) -> Result<CString, RestoreError> {
    path::c_path(bytes).context("path", Text(bytes))
}

/// A path of /proc that leads to the very file.
pub(super) fn link_to(file: impl AsFd) -> CString {
    let path = handle::proc_path(file);
    path::c_path(path.as_os_str().as_encoded_bytes()).expect("no NUL in a number")
}
