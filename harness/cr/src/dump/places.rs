//! Inodes and their names: what leads back to what the subject holds or watches.
//!
//! The text of a link in /proc ends in " (deleted)" for a name that is gone, and for a name that
//! ends so. Which one it is, the inode that the text leads to decides, not the text; and where both are
//! names of one inode, the kernel is asked.

mod candidates;
mod found;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use fsnotify::handle::FileHandle;
use nix::errno::Errno;
use nix::unistd::Pid;

use candidates::{Candidates, Search};

use super::DumpOptions;
use super::anchors::{Anchors, open_root};
use super::error::DumpError;
use super::files::is_removed;
use crate::image::{Handle, Image, Inode, Place, PlaceKind};
use crate::mounts::Mounts;
use crate::sys::path::{self, Stat};
use crate::sys::{descriptor, handle};

/// What the kernel appends to a name that is gone.
pub(super) const DELETED: &[u8] = b" (deleted)";

#[derive(Debug)]
pub(super) struct Places {
    /// Root directory of the subject.
    root: OwnedFd,
    mounts: Mounts,
    anchors: Anchors,
    /// Files of the subject that are open in earnest, by filesystem: anchors of last resort.
    open_files: HashMap<u32, OwnedFd>,
    index: HashMap<(u32, u64), Vec<u32>>,
    handles: Vec<Option<FileHandle>>,
    /// Places of each inode.
    places: Vec<Vec<u32>>,
    /// Something to look at an inode by, for those of which a name is gone.
    sources: HashMap<u32, OwnedFd>,
    candidates: Candidates,
    /// The directory that was looked in last, by its path: watches come in folders.
    folder: Option<(Vec<u8>, OwnedFd)>,
}

fn mounts(pid: Pid) -> Result<Mounts, DumpError> {
    let failed = |error| DumpError::io("read", format!("/proc/{pid}/mountinfo"), &error);
    Mounts::of(pid.as_raw()).map_err(failed)
}

impl Places {
    pub(super) fn new(pid: Pid, options: &DumpOptions) -> Result<Self, DumpError> {
        let name = format!("/proc/{pid}/root");
        let failed = |errno| DumpError::on("open", &name, errno);
        let root = handle::open_path(name.as_ref()).map_err(failed)?;
        let own = handle::open_path("/".as_ref()).map_err(failed)?;
        let stat = |file: &OwnedFd| path::stat(file, c"").map_err(failed);
        let (theirs, ours) = (stat(&root)?, stat(&own)?);
        if (theirs.device, theirs.ino) != (ours.device, ours.ino) {
            return Err(DumpError::not_supported(
                "",
                "another root directory than ours",
            ));
        }
        let paths = options.paths.iter();
        let paths = paths
            .map(|path| options.root.join(path).as_os_str().as_bytes().to_vec())
            .collect();
        Ok(Self {
            root,
            mounts: mounts(pid)?,
            anchors: Anchors::default(),
            open_files: HashMap::new(),
            index: HashMap::new(),
            handles: Vec::new(),
            places: Vec::new(),
            sources: HashMap::new(),
            candidates: Candidates {
                given: paths,
                ..Candidates::default()
            },
            folder: None,
        })
    }

    /// Makes room for the places of as many watches.
    pub(super) fn reserve(&mut self, image: &mut Image, n_watches: usize) {
        image.inodes.reserve(n_watches);
        image.places.reserve(n_watches);
        self.index.reserve(n_watches);
        self.handles.reserve(n_watches);
        self.places.reserve(n_watches);
    }

    /// The place of an open file, by the name that it was opened by.
    pub(super) fn of_file(
        &mut self,
        image: &mut Image,
        file: impl AsFd,
        flags: u32,
    ) -> Result<u32, DumpError> {
        let stat = path::stat(&file, c"").map_err(|errno| DumpError::on("statx", "", errno))?;
        let handle = handle::of_file(&file).ok();
        let name = match path::name_of(&file) {
            Ok(name) => name,
            Err(Errno::ENAMETOOLONG) => return self.beyond_paths(image, &stat, handle),
            Err(errno) => return Err(DumpError::on("readlink", "", errno)),
        };
        let inode = self.inode(image, &stat, handle);
        let (path, kind) = self.leads(&file, &name, &stat);
        self.refuse_covered(kind, stat.mount)?;
        let is_covered = || {
            kind == PlaceKind::Hidden
                || kind == PlaceKind::Unnamed
                    && self.look_up(&path).is_some_and(|it| it.mount != stat.mount)
        };
        if is_covered() && !self.opens_handles(stat.mount) {
            // A path leads there on a bare clone of the mount alone, and that is another mount.
            let what = "file that a mount covers, on a filesystem without handles";
            return Err(DumpError::not_supported("", what));
        }
        if kind == PlaceKind::Gone && stat.nlink > 0 {
            // A lookalike of the text is another name of it.
            self.note_candidate(name);
        }
        if is_removed(kind) {
            self.keep(inode, &file)?;
        }
        if flags & libc::O_PATH.cast_unsigned() == 0 {
            let sdev = self.sdev(&stat);
            if !self.open_files.contains_key(&sdev) && stat.mode & libc::S_IFMT == libc::S_IFDIR {
                self.open_files.insert(sdev, duplicate(&file)?);
            }
        }
        Ok(self.place(image, inode, path, kind, stat.mount))
    }

    /// The place of a file whose path no link and no call can hold: its handle leads there, or
    /// nothing does.
    fn beyond_paths(
        &mut self,
        image: &mut Image,
        stat: &Stat,
        handle: Option<FileHandle>,
    ) -> Result<u32, DumpError> {
        let sdev = self.sdev(stat);
        let opened = handle.and_then(|handle| self.open_handle((sdev, stat.ino), &handle));
        if opened.is_none() || stat.nlink == 0 {
            return Err(DumpError::not_supported("", "path longer than a page"));
        }
        self.refuse_covered(PlaceKind::Hidden, stat.mount)?;
        let inode = self.inode(image, stat, handle);
        Ok(self.place(image, inode, b"/".to_vec(), PlaceKind::Hidden, stat.mount))
    }

    /// The place of a watched inode; none if nothing known leads to it.
    pub(super) fn of_inode(
        &mut self,
        image: &mut Image,
        sdev: u32,
        ino: u64,
        handle: Option<&FileHandle>,
    ) -> Result<Option<u32>, DumpError> {
        if let Some(place) = self.known(image, sdev, ino, handle) {
            return Ok(Some(place));
        }
        if let Some(handle) = handle
            && let Some(place) = self.of_handle(image, (sdev, ino), handle)?
        {
            return Ok(Some(place));
        }
        Ok(self.of_candidate(image, sdev, ino, handle))
    }

    fn known(
        &self,
        image: &Image,
        sdev: u32,
        ino: u64,
        handle: Option<&FileHandle>,
    ) -> Option<u32> {
        let inodes = self.index.get(&(sdev, ino))?;
        let same = |inode: &&u32| match (handle, &self.handles[**inode as usize]) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        };
        let inode = *inodes.iter().find(same)?;
        let places = &self.places[inode as usize];
        // Any name will do for a watch; one that leads there costs nobody anything.
        let named = |place: &&u32| image.places[**place as usize].kind() == PlaceKind::Named;
        places
            .iter()
            .find(named)
            .or_else(|| places.first())
            .copied()
    }

    /// Opens a handle on whichever mount of its filesystem can be reached.
    fn open_handle(&mut self, (sdev, ino): (u32, u64), handle: &FileHandle) -> Option<OwnedFd> {
        let Self {
            anchors,
            mounts,
            root,
            open_files,
            ..
        } = self;
        let opened = anchors.open((mounts, root), (sdev, ino), handle);
        opened.or_else(|| handle::open(open_files.get(&sdev)?, handle).ok())
    }

    fn of_handle(
        &mut self,
        image: &mut Image,
        (sdev, ino): (u32, u64),
        handle: &FileHandle,
    ) -> Result<Option<u32>, DumpError> {
        // The usual case first: a name that leads back. No more calls than it takes to be sure.
        let seen_from = (&self.mounts, &self.root);
        let name = self.anchors.path_of(seen_from, (sdev, ino), handle);
        if let Some(name) = name
            && let Some(found) = self.look_up_near(&name)
            && found.ino == ino
            && self.sdev(&found) == sdev
        {
            let inode = self.new_inode(image, sdev, ino, Some(*handle), found.mode);
            let place = self.place(image, inode, name, PlaceKind::Named, found.mount);
            return Ok(Some(place));
        }
        let Some(file) = self.open_handle((sdev, ino), handle) else {
            return Ok(None);
        };
        let stat = path::stat(&file, c"").map_err(|errno| DumpError::on("statx", "", errno))?;
        if let Some(place) = self.of_candidate(image, sdev, ino, Some(handle)) {
            return Ok(Some(place));
        }
        self.refuse_covered(PlaceKind::Hidden, stat.mount)?;
        let inode = self.new_inode(image, sdev, ino, Some(*handle), stat.mode);
        // Either something is mounted over it, or only others hold it open.
        let name = path::name_of(&file).unwrap_or_default();
        let path = if name.starts_with(b"/") {
            name
        } else {
            b"/".to_vec()
        };
        let place = self.place(image, inode, path, PlaceKind::Hidden, stat.mount);
        Ok(Some(place))
    }

    fn of_candidate(
        &mut self,
        image: &mut Image,
        sdev: u32,
        ino: u64,
        handle: Option<&FileHandle>,
    ) -> Option<u32> {
        let mut of_candidate = |search| {
            let paths = self.candidates(search).get(&(sdev, ino))?.clone();
            self.of_first(image, (sdev, ino), handle, paths)
        };
        of_candidate(Search::Given).or_else(|| of_candidate(Search::Everywhere))
    }

    /// The place of an inode by the first of these paths that leads there.
    fn of_first(
        &mut self,
        image: &mut Image,
        (sdev, ino): (u32, u64),
        handle: Option<&FileHandle>,
        paths: Vec<Vec<u8>>,
    ) -> Option<u32> {
        for path in paths {
            let found = self.look_up(&path)?;
            let own = handle::of_entry(&self.root, &relative(&path)?).ok();
            if handle.is_some() && own.is_some() && handle != own.as_ref() {
                continue;
            }
            let inode = self.new_inode(image, sdev, ino, handle.copied().or(own), found.mode);
            return Some(self.place(image, inode, path, PlaceKind::Named, found.mount));
        }
        None
    }

    /// What has no name that leads there is found by the point of its mount, which must lead to that
    /// mount and no other.
    fn refuse_covered(&self, kind: PlaceKind, mount: u64) -> Result<(), DumpError> {
        let what = match self.mounts.of_id(mount) {
            _ if kind == PlaceKind::Named => return Ok(()),
            // Lazily unmounted, or of another mount namespace.
            None => "file on a filesystem that is mounted nowhere",
            Some(mount) if open_root(&self.root, mount).is_none() => {
                "file on a mount that another mount covers"
            }
            Some(_) => return Ok(()),
        };
        Err(DumpError::not_supported("", what))
    }

    /// Whether the handle of a directory can be opened on a mount.
    fn opens_handles(&self, mount: u64) -> bool {
        let mount = self.mounts.of_id(mount);
        let root = mount.and_then(|mount| open_root(&self.root, mount));
        root.is_some_and(|root| {
            let Ok(handle) = handle::of_file(&root) else {
                return false;
            };
            let open = || {
                nix::unistd::fchdir(&root)?;
                handle::open_here(&handle)
            };
            matches!(handle::with_own_directory(open), Ok(Ok(_)))
        })
    }

    /// Where the text of a link leads.
    fn leads(&self, file: impl AsFd, name: &[u8], stat: &Stat) -> (Vec<u8>, PlaceKind) {
        // "x", removed, of which a link is called "x (deleted)", has the same text as that link.
        let is_gone = || name.ends_with(DELETED) && path::is_name_gone(&file) == Some(true);
        if self.leads_to(name, stat) && !is_gone() {
            return (name.to_vec(), PlaceKind::Named);
        }
        let Some(gone) = name.strip_suffix(DELETED) else {
            return (name.to_vec(), PlaceKind::Hidden);
        };
        let at = gone.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let number = format!("#{}", stat.ino);
        // Linked since, it is a file of which the name that it was opened by is gone. The flag O_TMPFILE
        // tells less: who opens it once more does without.
        let is_unnamed = stat.nlink == 0 && stat.mode & libc::S_IFMT == libc::S_IFREG;
        if is_unnamed && &gone[at + 1..] == number.as_bytes() {
            let folder = if at == 0 { &b"/"[..] } else { &gone[..at] };
            return (folder.to_vec(), PlaceKind::Unnamed);
        }
        (gone.to_vec(), PlaceKind::Gone)
    }

    fn leads_to(&self, path: &[u8], stat: &Stat) -> bool {
        let found = self.look_up(path);
        found.is_some_and(|found| (found.device, found.ino) == (stat.device, stat.ino))
    }

    /// Opens the directory of a path as the subject sees it.
    pub(super) fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = relative(path).ok_or(Errno::EINVAL)?;
        path::open_beneath(&self.root, &path, libc::O_PATH | libc::O_DIRECTORY, 0)
    }

    /// [`look_up`](Self::look_up), quicker if the path before was of the same directory.
    fn look_up_near(&mut self, path: &[u8]) -> Option<Stat> {
        let at = path.iter().rposition(|&byte| byte == b'/')?;
        let (directory, name) = (&path[..at], &path[at + 1..]);
        if self
            .folder
            .as_ref()
            .is_none_or(|(last, _)| last != directory)
        {
            self.folder = None;
            let Ok(opened) = self.open_directory(directory) else {
                return self.look_up(path);
            };
            self.folder = Some((directory.to_vec(), opened));
        }
        let (_, folder) = self.folder.as_ref()?;
        path::stat(folder, &path::c_path(name).ok()?).ok()
    }

    pub(super) fn look_up(&self, path: &[u8]) -> Option<Stat> {
        path::stat(&self.root, &relative(path)?).ok()
    }

    /// The device as fdinfo prints it: that of the superblock, which statx(2) does not show on
    /// every filesystem.
    pub(super) fn sdev(&self, stat: &Stat) -> u32 {
        let mount = self.mounts.of_id(stat.mount);
        mount.map_or(stat.device, |mount| mount.device).0
    }

    fn inode(&mut self, image: &mut Image, stat: &Stat, handle: Option<FileHandle>) -> u32 {
        let sdev = self.sdev(stat);
        let known = self.index.get(&(sdev, stat.ino)).into_iter().flatten();
        let same = |inode: &&u32| self.handles[**inode as usize] == handle;
        match known.into_iter().find(same) {
            Some(&inode) => inode,
            None => self.new_inode(image, sdev, stat.ino, handle, stat.mode),
        }
    }

    fn new_inode(
        &mut self,
        image: &mut Image,
        sdev: u32,
        ino: u64,
        handle: Option<FileHandle>,
        mode: u32,
    ) -> u32 {
        let index = u32::try_from(image.inodes.len()).expect("fewer inodes than marks");
        let bytes = |handle: FileHandle| Handle {
            kind: handle.kind(),
            bytes: handle.bytes().to_vec(),
        };
        let handle_bytes = handle.map(bytes);
        image.inodes.push(Inode {
            sdev,
            ino,
            handle: handle_bytes,
            mode,
            ..Inode::default()
        });
        self.index.entry((sdev, ino)).or_default().push(index);
        self.handles.push(handle);
        self.places.push(Vec::new());
        index
    }

    fn place(
        &mut self,
        image: &mut Image,
        inode: u32,
        path: Vec<u8>,
        kind: PlaceKind,
        mount: u64,
    ) -> u32 {
        let same = |place: &&u32| {
            let place = &image.places[**place as usize];
            place.kind() == kind && place.path == path
        };
        if let Some(&place) = self.places[inode as usize].iter().find(same) {
            return place;
        }
        let point = self
            .mounts
            .of_id(mount)
            .filter(|_| kind != PlaceKind::Named);
        let mount = point.map(|mount| mount.path.clone()).unwrap_or_default();
        let index = u32::try_from(image.places.len()).expect("fewer places than marks");
        image.places.push(Place {
            inode,
            path,
            kind: kind.into(),
            mount,
            link: Vec::new(),
            parent: None,
        });
        self.places[inode as usize].push(index);
        index
    }

    /// Whether something is mounted at this path, whatever is mounted over it.
    pub(super) fn is_mount_point(&self, path: &[u8]) -> bool {
        self.mounts.all().iter().any(|mount| mount.path == path)
    }

    /// The directory that a path leads to now.
    pub(super) fn directory_at(&self, path: &[u8]) -> Option<(OwnedFd, Stat)> {
        let directory = self.open_directory(path).ok()?;
        let stat = path::stat(&directory, c"").ok()?;
        Some((directory, stat))
    }

    /// A descriptor of what a place leads to, by what is kept of it or by its handle.
    pub(super) fn source(
        &mut self,
        image: &Image,
        place: u32,
    ) -> Result<Option<OwnedFd>, DumpError> {
        let inode = image.places[place as usize].inode;
        if let Some(source) = self.sources.get(&inode) {
            return duplicate(source).map(Some);
        }
        let handle = self.handles[inode as usize];
        let Inode { sdev, ino, .. } = image.inodes[inode as usize];
        Ok(handle.and_then(|handle| self.open_handle((sdev, ino), &handle)))
    }

    pub(super) fn duplicate(&self, file: BorrowedFd<'_>) -> Result<OwnedFd, DumpError> {
        duplicate(file)
    }

    /// The place of a removed directory that had this path.
    pub(super) fn removed_directory(
        &mut self,
        image: &mut Image,
        file: &OwnedFd,
        stat: &Stat,
        path: Vec<u8>,
    ) -> Result<u32, DumpError> {
        let inode = self.inode(image, stat, handle::of_file(file).ok());
        self.keep(inode, file)?;
        let hidden = self.places[inode as usize].iter().find(|&&place| {
            let place = &image.places[place as usize];
            place.kind() == PlaceKind::Hidden && place.path.strip_suffix(DELETED) == Some(&path)
        });
        match hidden {
            Some(&place) => Ok(place),
            None => Ok(self.place(image, inode, path, PlaceKind::Gone, stat.mount)),
        }
    }

    /// A new place, of a directory of which no more is known than the path that it had.
    pub(super) fn stranger(
        &mut self,
        image: &mut Image,
        sdev: u32,
        (path, mount): (Vec<u8>, Vec<u8>),
    ) -> u32 {
        let inode = self.new_inode(image, sdev, 0, None, libc::S_IFDIR | 0o700);
        let place = self.place(image, inode, path, PlaceKind::Gone, 0);
        image.places[place as usize].mount = mount;
        place
    }

    pub(super) fn keep(&mut self, inode: u32, file: impl AsFd) -> Result<(), DumpError> {
        if let Entry::Vacant(entry) = self.sources.entry(inode) {
            entry.insert(duplicate(file)?);
        }
        Ok(())
    }
}

fn duplicate(file: impl AsFd) -> Result<OwnedFd, DumpError> {
    let number = file.as_fd().as_raw_fd();
    descriptor::duplicate_above(file, 0)
        .map_err(|errno| DumpError::on("fcntl", format!("{number} F_DUPFD_CLOEXEC"), errno))
}

/// An absolute path as seen from the root directory.
pub(super) fn relative(path: &[u8]) -> Option<CString> {
    let path = path.strip_prefix(b"/")?;
    CString::new(if path.is_empty() { b"." } else { path }).ok()
}
