//! Where the handles of a filesystem are opened: on whichever mount of it can be reached.
//!
//! A directory whose name the kernel has forgotten is not opened by its handle in silence: the kernel
//! looks for the name in every directory above it (`exportfs_get_name`), and whoever watches those
//! hears it. [`Folders`] keeps that quiet where permission events are to be had.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

use fsnotify::Sdev;
use fsnotify::handle::FileHandle;
use nix::errno::Errno;

use super::places::relative;
use crate::mounts::{Mount, Mounts};
use crate::silent::Folders;
use crate::sys::handle;
use crate::sys::path::{self, Links, bare_tree};

/// `O_PATH` directories, by filesystem.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    anchors: HashMap<u32, Vec<Anchor>>,
    /// Where the working directory of this thread is.
    here: Option<Here>,
    /// From the first handle on.
    links: Option<Links>,
}

/// A filesystem, an anchor of it, and whether it is the quiet one.
type Here = (u32, usize, bool);

#[derive(Debug)]
pub(super) struct Anchor {
    pub(super) root: OwnedFd,
    /// Where it is mounted, seen from the subject's root.
    pub(super) point: Vec<u8>,
    /// The same mount, with nobody to hear what the kernel opens. None where it opens nothing, and
    /// where nothing can be done about it.
    quiet: OnceCell<Option<Folders>>,
}

impl Anchor {
    pub(super) fn new(root: OwnedFd, point: Vec<u8>) -> Self {
        Self {
            root,
            point,
            quiet: OnceCell::new(),
        }
    }

    fn quiet(&self) -> Option<&Folders> {
        let quiet = || {
            if keeps_names(&self.root) {
                return None;
            }
            Folders::of(bare_tree(&self.root, c"").ok()?).ok()
        };
        self.quiet.get_or_init(quiet).as_ref()
    }
}

/// Whether no name is ever forgotten: there is nothing but memory to find it in.
fn keeps_names(file: &OwnedFd) -> bool {
    use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
    fstatfs(file).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

impl Anchors {
    /// Opens a handle for as long as it takes to read its path. Both are only for a look: the file
    /// may be of a mount that has no path.
    pub(super) fn path_of(
        &mut self,
        (mounts, root): (&Mounts, &OwnedFd),
        (sdev, ino): (u32, u64),
        handle: &FileHandle,
    ) -> Option<Vec<u8>> {
        let links = self.links.take().or_else(|| Links::open().ok());
        let name_of = |file: OwnedFd| {
            let name = links.as_ref().map(|links| links.name_of(file));
            name.and_then(Result::ok).unwrap_or_default()
        };
        let found = self.each(mounts, root, sdev, |anchor, go| {
            let Some(quiet) = anchor.quiet() else {
                go(false)?;
                return Ok(name_of(handle::open_here(handle)?));
            };
            go(true)?;
            let name = name_of(quiet.open_handle(handle, ino)?);
            Ok(Folders::name_at(&anchor.point, name))
        });
        self.links = links;
        found
    }

    /// Opens a handle with `O_PATH`.
    pub(super) fn open(
        &mut self,
        (mounts, root): (&Mounts, &OwnedFd),
        (sdev, ino): (u32, u64),
        handle: &FileHandle,
    ) -> Option<OwnedFd> {
        self.each(mounts, root, sdev, |anchor, go| {
            if let Some(quiet) = anchor.quiet() {
                go(true)?;
                // The name is known again as long as this is open.
                let _found = quiet.open_handle(handle, ino)?;
                go(false)?;
                return handle::open_here(handle);
            }
            go(false)?;
            handle::open_here(handle)
        })
    }

    /// The first success on an anchor; `body` may go there, or to its quiet mount.
    fn each<T>(
        &mut self,
        mounts: &Mounts,
        root: &OwnedFd,
        sdev: u32,
        body: impl Fn(&Anchor, &mut dyn FnMut(bool) -> Result<(), Errno>) -> Result<T, Errno>,
    ) -> Option<T> {
        let Self { anchors, here, .. } = self;
        let anchors = anchors
            .entry(sdev)
            .or_insert_with(|| anchors_of(mounts, root, sdev));
        anchors.iter().enumerate().find_map(|(index, anchor)| {
            let mut go = |quiet| {
                if *here == Some((sdev, index, quiet)) {
                    return Ok(());
                }
                *here = None;
                let quiet_root = anchor.quiet().filter(|_| quiet).map(Folders::root);
                nix::unistd::fchdir(quiet_root.unwrap_or(&anchor.root))?;
                *here = Some((sdev, index, quiet));
                Ok(())
            };
            body(anchor, &mut go).ok()
        })
    }
}

/// The mounts of a filesystem that can be reached.
fn anchors_of(mounts: &Mounts, root: &OwnedFd, sdev: u32) -> Vec<Anchor> {
    let own = mounts.all().iter();
    let own = own.filter(|mount| mount.device == Sdev(sdev));
    let anchor = |mount: &Mount| Some(Anchor::new(open_root(root, mount)?, mount.path.clone()));
    own.filter_map(anchor).collect()
}

/// The root of a mount, opened with `O_PATH` by its point; none if something is mounted over it.
pub(super) fn open_root(root: &OwnedFd, mount: &Mount) -> Option<OwnedFd> {
    let file = path::open_beneath(root, &relative(&mount.path)?, libc::O_PATH, 0).ok()?;
    let stat = path::stat(&file, c"").ok()?;
    (stat.mount == u64::from(mount.id)).then_some(file)
}
