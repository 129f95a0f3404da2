//! Reading a group so that its events can be told later: descriptors and handles mean something
//! only while they are open and while their objects exist.
//!
//! Descriptors by number, since the subject owns its own that way.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use fsnotify::event::fanotify::{Events, Fid, Record};
use fsnotify::fanotify::Mask;
use fsnotify::handle::{FileHandle, Layout};
use nix::errno::Errno;

use crate::mounts::Mounts;
use crate::silent::Folders;
use crate::sys::fanotify::close_number;
use crate::sys::{handle, path, raw};

/// Events as read(2) gave them, and what stood behind their numbers then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub bytes: Vec<u8>,
    /// For each event what its descriptor was open on, ended by a NUL; the descriptor is closed.
    pub links: Vec<u8>,
    /// For each handle of a record, in order, the path of its object, ended by a NUL. Empty where
    /// none is known.
    pub names: Vec<u8>,
}

/// Bytes of one read of a drain: some hundred events, each of which may open a descriptor. The
/// largest event, of a rename with a process descriptor, has about a thousand.
const BUFFER: usize = 4096;

/// Reads a group until its queue is empty, waiting at most `wait_ms` for the first event and not at
/// all for others.
///
/// # Errors
///
/// The errno of poll(2) or read(2); `EIO` for bytes that are no events.
pub fn drain(group: i32, wait_ms: i32, namer: &mut Namer) -> Result<Taken, Errno> {
    let mut taken = Taken::default();
    let mut wait_ms = wait_ms;
    while raw::readable(group, wait_ms)? {
        wait_ms = 0;
        match read(group, BUFFER, namer) {
            Ok(more) => {
                taken.bytes.extend(more.bytes);
                taken.links.extend(more.links);
                taken.names.extend(more.names);
            }
            Err(Errno::EAGAIN) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(taken)
}

/// One read(2) of a group.
///
/// # Errors
///
/// As [`drain`].
pub fn read(group: i32, size: usize, namer: &mut Namer) -> Result<Taken, Errno> {
    let mut bytes = vec![0; size];
    let n_read = raw::read(group, &mut bytes)?;
    bytes.truncate(usize::try_from(n_read).expect("not negative"));
    let mut taken = Taken::default();
    for event in Events::new(&bytes) {
        let event = event.map_err(|_| Errno::EIO)?;
        if event.fd >= 0 {
            taken.links.extend(link(event.fd));
        }
        taken.links.push(0);
        let mut descriptors = vec![event.fd];
        for record in event.records() {
            match record {
                Record::Pidfd(pidfd) => descriptors.push(pidfd),
                record => {
                    if let Some(fid) = fid(&record) {
                        taken.names.extend(namer.name(fid).unwrap_or_default());
                        taken.names.push(0);
                    }
                }
            }
        }
        descriptors
            .into_iter()
            .filter(|fd| *fd >= 0)
            .for_each(close_number);
    }
    taken.bytes = bytes;
    Ok(taken)
}

/// The object that a record names.
#[must_use]
pub fn fid<'a>(record: &'a Record<'_>) -> Option<&'a Fid> {
    match record {
        Record::Fid(fid)
        | Record::Dfid(fid)
        | Record::DfidName(fid, _)
        | Record::OldDfidName(fid, _)
        | Record::NewDfidName(fid, _) => Some(fid),
        Record::Pidfd(_)
        | Record::Error { .. }
        | Record::Range { .. }
        | Record::Mount(_)
        | Record::Unknown { .. } => None,
    }
}

/// The numbers under which a process has to answer the permission events in `bytes`, in order.
#[must_use]
pub fn to_answer(bytes: &[u8]) -> Vec<i32> {
    let events = Events::new(bytes).filter_map(Result::ok);
    let permission = events.filter(|event| event.mask.0 & Mask::PERMISSION.0 != 0);
    permission.map(|event| event.fd).collect()
}

fn link(fd: i32) -> Vec<u8> {
    let link = fs::read_link(format!("/proc/self/fd/{fd}"));
    link.map_or_else(|_| Vec::new(), |link| link.into_os_string().into_vec())
}

/// Finds the paths of handles, without an event. Whoever may not open handles knows the paths
/// given beforehand, and directories. Remembers what it found: to be made anew for every read.
#[derive(Debug, Default)]
pub struct Namer {
    paths: Vec<PathBuf>,
    /// What the paths lead to, open from the first search on. So it is in memory under its name: what is
    /// not has none to show, and of a directory the kernel looks for one by a listing that is heard.
    pinned: Option<Vec<OwnedFd>>,
    found: HashMap<Fid, Option<Vec<u8>>>,
    /// Where the filesystem with this number is mounted.
    anchors: HashMap<[u32; 2], Vec<Anchor>>,
    /// Finds nothing.
    blind: bool,
    /// Nobody hears what the kernel opens to find a name, where permission events are to be had.
    quiet: bool,
}

#[derive(Debug)]
struct Anchor {
    path: PathBuf,
    filesystem: String,
    folders: Option<Folders>,
}

impl Namer {
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            ..Self::default()
        }
    }

    /// One that finds nothing, and so opens nothing. A directory that the kernel has not in memory is
    /// not opened by its handle in silence: the kernel lists the directories above it to find its
    /// name (`exportfs_get_name`), and whoever watches those hears it.
    #[must_use]
    pub fn blind() -> Self {
        Self {
            blind: true,
            ..Self::default()
        }
    }

    /// One that knows no path, and finds those of directories without an event even then.
    #[must_use]
    pub fn quiet() -> Self {
        Self {
            quiet: true,
            ..Self::default()
        }
    }

    /// The path of an object, as `/proc/self/fd` shows it: with ` (deleted)` behind it, if it is
    /// gone and somebody has it open.
    pub fn name(&mut self, fid: &Fid) -> Option<Vec<u8>> {
        if let Some(found) = self.found.get(fid) {
            return found.clone();
        }
        let found = self.find(fid);
        self.found.insert(*fid, found.clone());
        found
    }

    fn find(&mut self, fid: &Fid) -> Option<Vec<u8>> {
        if self.blind {
            return None;
        }
        let paths = &self.paths;
        let open = || paths.iter().filter_map(|path| handle::open_path(path).ok());
        self.pinned.get_or_insert_with(|| open().collect());
        let quiet = self.quiet;
        let anchors = self
            .anchors
            .entry(fid.fsid)
            .or_insert_with(|| anchors(fid.fsid, quiet));
        for anchor in anchors {
            match anchor.path_of(&fid.handle) {
                Ok(path) => return Some(path),
                Err(Errno::EPERM) => return self.known(&fid.handle),
                Err(_) => {}
            }
        }
        None
    }

    fn known(&self, handle: &FileHandle) -> Option<Vec<u8>> {
        let own = fs::read_dir("/proc/self/fd")
            .into_iter()
            .flatten()
            .flatten();
        let own = own.filter_map(|entry| {
            let file = handle::open_path(&entry.path()).ok()?;
            (handle::of_file(file).ok()? == *handle)
                .then(|| fs::read_link(entry.path()).ok())
                .flatten()
        });
        let is = |path: &&PathBuf| handle::of_path(path) == Ok(*handle);
        let path = self
            .paths
            .iter()
            .find(is)
            .cloned()
            .or_else(|| { own }.next())?;
        Some(path.into_os_string().into_vec())
    }
}

impl Anchor {
    fn path_of(&self, file: &FileHandle) -> Result<Vec<u8>, Errno> {
        let opened = handle::with_own_directory(|| match &self.folders {
            Some(folders) => {
                nix::unistd::fchdir(folders.root())?;
                folders.open_handle(file, ino(file, &self.filesystem))
            }
            None => {
                nix::unistd::chdir(&self.path)?;
                handle::open_here(file)
            }
        })??;
        let name = path::name_of(&opened).map_err(|_| Errno::EIO)?;
        let is_directory = path::stat(&opened, c"")?.mode & libc::S_IFMT == libc::S_IFDIR;
        if name == b"/" && !is_directory {
            // No name of it is in memory.
            return Err(Errno::ENOENT);
        }
        Ok(match self.folders {
            Some(_) => Folders::name_at(self.path.as_os_str().as_bytes(), name),
            None => name,
        })
    }
}

/// The number of the inode that a handle is of; none has the number 0.
fn ino(file: &FileHandle, filesystem: &str) -> u64 {
    match file.layout(filesystem) {
        Layout::Ino32 { ino, .. } => u64::from(ino),
        Layout::Ino64 { ino, .. } | Layout::Btrfs { ino, .. } => ino,
        _ => 0,
    }
}

/// Where the filesystem with this number is mounted.
fn anchors(fsid: [u32; 2], quiet: bool) -> Vec<Anchor> {
    let Ok(mounts) = Mounts::of(nix::unistd::gettid().as_raw()) else {
        return Vec::new();
    };
    let anchors = mounts.all().iter().filter_map(|mount| {
        let path = PathBuf::from(OsStr::from_bytes(&mount.path));
        (crate::sys::fanotify::fsid(&path) == Ok(fsid)).then(|| Anchor {
            // Of tmpfs no name is ever forgotten.
            folders: (quiet && mount.filesystem != "tmpfs")
                .then(|| folders(&path))
                .flatten(),
            filesystem: mount.filesystem.clone(),
            path,
        })
    });
    anchors.collect()
}

fn folders(path: &Path) -> Option<Folders> {
    let root = handle::open_path(path).ok()?;
    Folders::of(path::bare_tree(&root, c"").ok()?).ok()
}
