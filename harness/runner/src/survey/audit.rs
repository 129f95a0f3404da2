//! The audit after the last step: unread queues, the visible tree, and what was left behind.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use cr::fanotify::take::{self, Namer, Taken};
use cr::process;
use cr::sys::{handle, inspect};
use nix::errno::Errno;
use nix::unistd::Pid;
use scenario::{Bytes, Entry, Fact, Stat};

use super::{Names, Process};
use crate::engine::Flavour;

/// What was unread in a group at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    pub fd: i32,
    pub queue: Queue,
}

/// Events of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Records as read(2) gives them.
    Inotify(Vec<u8>),
    Fanotify(Taken),
}

/// Drains every group of every process, each once. fanotify groups lose their marks.
///
/// # Errors
///
/// In words: which call on which descriptor failed.
pub fn drain(processes: &[Process], names: &Names) -> Result<Vec<Drained>, String> {
    let paths = names.candidates().iter();
    let paths: Vec<_> = paths.map(|path| names.world().join(path)).collect();
    let mut drained = Vec::new();
    for process in processes {
        let pidfd = inspect::pidfd_open(process.pid)
            .map_err(|errno| format!("pidfd_open {}: {errno}", process.pid))?;
        for fd in inspect::groups(process.pid).map_err(|error| error.to_string())? {
            let file = inspect::pidfd_getfd(&pidfd, fd)
                .map_err(|errno| format!("pidfd_getfd fd {fd}: {errno}"))?;
            let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
            let is_fanotify = link.is_ok_and(|link| link.as_os_str() == "anon_inode:[fanotify]");
            let queue = if is_fanotify {
                let mut namer = Namer::new(paths.clone());
                let taken = take::drain(file.as_raw_fd(), 0, &mut namer);
                // Whoever reads the tree after this would wait for the subject's permission.
                cr::sys::fanotify::flush(&file)
                    .map_err(|errno| format!("remove the marks of fd {fd}: {errno}"))?;
                Queue::Fanotify(taken.map_err(|errno| format!("read fd {fd}: {errno}"))?)
            } else {
                Queue::Inotify(cr::queue::drain(file.as_fd()).map_err(|error| error.to_string())?)
            };
            drained.push(Drained { fd, queue });
        }
    }
    Ok(drained)
}

/// Every object below the root of the world, in order of path. Reads every file.
///
/// # Errors
///
/// In words: which object could not be read.
pub fn tree(world: &Path) -> Result<Vec<Fact>, String> {
    let mut walk = Walk::default();
    fs::File::open(world)
        .and_then(|root| walk.directory(&root, Path::new("")))
        .map_err(|error| format!("walk the world: {error}"))?;
    Ok(walk.entries.into_iter().map(Fact::Entry).collect())
}

#[derive(Default)]
struct Walk {
    /// Inodes with several names, numbered by first appearance.
    inodes: HashMap<(u64, u64), u32>,
    entries: Vec<Entry>,
}

impl Walk {
    /// Goes from descriptor to descriptor, since a path from the root may be too long for a call.
    fn directory(&mut self, directory: &fs::File, inner: &Path) -> std::io::Result<()> {
        let base = handle::proc_path(directory);
        let mut names = fs::read_dir(&base)?.collect::<Result<Vec<_>, _>>()?;
        names.sort_by_key(fs::DirEntry::file_name);
        for name in names {
            let path = base.join(name.file_name());
            let inner = inner.join(name.file_name());
            let metadata = fs::symlink_metadata(&path)?;
            self.entry(&path, &inner, &metadata)?;
            if metadata.is_dir() {
                self.directory(&fs::File::open(&path)?, &inner)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, inner: &Path, metadata: &fs::Metadata) -> std::io::Result<()> {
        let inode = if metadata.is_file() && metadata.nlink() > 1 {
            let next = u32::try_from(self.inodes.len() + 1).expect("fewer inodes than 2^32");
            *self
                .inodes
                .entry((metadata.dev(), metadata.ino()))
                .or_insert(next)
        } else {
            0
        };
        let content = if metadata.is_file() {
            Some(digest(fs::File::open(path)?)?)
        } else {
            None
        };
        self.entries.push(Entry {
            path: Bytes::from(inner.as_os_str().as_bytes()),
            stat: stat(path, metadata, content),
            link: metadata
                .is_symlink()
                .then(|| fs::read_link(path))
                .transpose()?
                .map(|target| Bytes(target.into_os_string().into_vec())),
            inode,
        });
        Ok(())
    }
}

/// What cannot be read stands there with the reason.
fn xattrs(path: &Path) -> Vec<(Bytes, Bytes)> {
    let text = |errno: Errno| Bytes::from(errno.to_string().as_bytes());
    let value = |value: Result<Vec<u8>, Errno>| value.map_or_else(text, Bytes);
    match inspect::xattrs(path) {
        Ok(found) => {
            let found = found.into_iter();
            found.map(|(name, it)| (Bytes(name), value(it))).collect()
        }
        Err(errno) => vec![(Bytes::from("listxattr"), text(errno))],
    }
}

/// What stat(2) and listxattr(2) show of a path.
pub(super) fn stat(path: &Path, metadata: &fs::Metadata, content: Option<u64>) -> Stat {
    Stat {
        mode: metadata.mode(),
        nlink: metadata.nlink(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.size(),
        blocks: metadata.blocks(),
        xattrs: xattrs(path),
        changed: Vec::new(),
        content,
    }
}

/// FNV-1a, 64 bits, of everything that can be read: of each block that is not all zeros its number
/// and its bytes, so that a hole and zeros are equal content and a hole costs nothing.
pub(super) fn digest(file: fs::File) -> std::io::Result<u64> {
    const BLOCK: u64 = 4096;
    let mut buffer = vec![0; 1 << 16];
    let mut hash = Fnv::default();
    let mut offset = 0;
    loop {
        offset = match inspect::next_data(&file, offset) {
            Ok(Some(data)) => data - data % BLOCK,
            Ok(None) => return Ok(hash.0),
            // A filesystem that does not know its holes is read from end to end.
            Err(_) => offset,
        };
        let n_read = file.read_at(&mut buffer, offset)?;
        if n_read == 0 {
            return Ok(hash.0);
        }
        let blocks = buffer[..n_read].chunks(4096);
        for (number, block) in (offset / BLOCK..).zip(blocks) {
            if block.iter().any(|&byte| byte != 0) {
                hash.add(&number.to_le_bytes());
                hash.add(block);
            }
        }
        offset += n_read as u64;
    }
}

struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The mounts that a process sees: root, mount point and options of each.
///
/// # Errors
///
/// If they cannot be read.
pub fn mounts(process: Pid, flavour: Flavour) -> Result<Vec<String>, String> {
    let path = format!("/proc/{process}/mountinfo");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // Numbers of mount and parent come first and change when a mount is made anew; the next is that of
    // its filesystem, which is made anew with the namespace.
    let n_numbers = match flavour {
        Flavour::Host => 2,
        Flavour::Ns => 3,
    };
    Ok(text
        .lines()
        .map(|line| {
            line.split(' ')
                .skip(n_numbers)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect())
}

/// Mounts that were not among those of `before`.
///
/// # Errors
///
/// If they cannot be read.
pub fn new_mounts(before: &[String], process: Pid, flavour: Flavour) -> Result<Vec<Fact>, String> {
    let place = match flavour {
        Flavour::Host => 2,
        Flavour::Ns => 1,
    };
    let point = |line: &String| line.split(' ').nth(place).unwrap_or_default().to_owned();
    Ok(mounts(process, flavour)?
        .iter()
        .filter(|line| !before.contains(line))
        .map(|line| Fact::Leftover(format!("mount {}", point(line))))
        .collect())
}

/// Processes of the sandbox that are neither init nor of the run.
///
/// # Errors
///
/// If `/proc` cannot be listed.
pub fn leftovers(processes: &[Process]) -> Result<Vec<Fact>, String> {
    let mut facts = Vec::new();
    let entries = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let known = processes.iter().any(|process| process.pid.as_raw() == pid);
        if pid != 1 && !known {
            let name = process::name(pid).unwrap_or_default();
            facts.push(Fact::Leftover(format!("process {name}")));
        }
    }
    Ok(facts)
}
