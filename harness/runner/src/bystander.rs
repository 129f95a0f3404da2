//! Another watcher of the same tree: hears what a dump and a restore do to the files.

mod filesystem;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cr::sys::{handle, watch};
use fsnotify::Wd;
use fsnotify::event::inotify::Events;
use fsnotify::inotify::Mask;
use nix::sys::statfs;
use scenario::{Bystander as Heard, Bytes, Object};

use crate::survey::{Names, Survey};
use filesystem::FilesystemMark;

/// Watch a symbolic link itself.
const IN_DONT_FOLLOW: u32 = 0x0200_0000;

/// An inotify group on every object that the scenario names and every inode that the subject
/// holds, and a mark on the filesystem for the rest.
#[derive(Debug)]
pub struct Bystander {
    group: OwnedFd,
    /// Every name by which an inode was found, in order.
    watched: HashMap<Wd, Vec<Object>>,
    /// What the subject holds, by the name that its descriptor shows.
    held: HashSet<Object>,
    filesystem: Option<FilesystemMark>,
    /// What would be another inode once nobody has it open.
    pinned: Vec<OwnedFd>,
}

impl Bystander {
    /// One that listens to nothing yet. There is one for all cuts of a run: a user may have 128
    /// groups, and it takes milliseconds until one is gone.
    ///
    /// # Errors
    ///
    /// If there can be no such group.
    pub fn new() -> Result<Self, String> {
        let group = watch::init().map_err(|errno| format!("bystander: inotify_init1: {errno}"))?;
        Ok(Self {
            group,
            watched: HashMap::new(),
            held: HashSet::new(),
            filesystem: FilesystemMark::new(),
            pinned: Vec::new(),
        })
    }

    /// Attaches the watches; makes no event.
    pub fn attach(&mut self, names: &Names, survey: &Survey) {
        self.watched.clear();
        self.held.clear();
        self.pinned.clear();
        if let Some(mark) = &mut self.filesystem {
            mark.attach(names);
        }
        for name in names.candidates() {
            let path = names.world().join(name);
            let shown = names.shown(path.as_os_str().as_bytes());
            // The object itself: a symbolic link is watched, not followed.
            self.watch(&path, Mask(IN_DONT_FOLLOW), &Object::Path(shown));
        }
        for (pid, fd, object) in survey.inodes() {
            let path = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
            self.watch(&path, Mask(0), object);
            self.held.insert(object.clone());
        }
    }

    /// What is not there, or is no file of the world, is not watched.
    fn watch(&mut self, path: &Path, flags: Mask, object: &Object) {
        if matches!(object, Object::Other(_)) {
            return;
        }
        let mask = Mask(Mask::ALL_EVENTS.0 | flags.0);
        if let Ok(wd) = watch::add_watch(self.group.as_fd(), path.as_os_str().as_bytes(), mask) {
            self.watched.entry(wd).or_default().push(object.clone());
            self.pinned.extend(pin(path));
        }
    }

    /// What an event was heard on, by the name that the subject knows it by: that of a descriptor,
    /// or of the directory that a descriptor's name is in; else by the first name.
    fn named(&self, wd: Wd, child: &[u8]) -> Option<Object> {
        let names = self.watched.get(&wd)?;
        let known = |object: &&Object| match object {
            _ if child.is_empty() => self.held.contains(object),
            Object::Path(path) | Object::Ghost(path) => {
                let mut path = if path.0 == b"." {
                    Vec::new()
                } else {
                    path.0.clone()
                };
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(child);
                let path = Bytes::from(path.as_slice());
                self.held.contains(&Object::Path(path.clone()))
                    || self.held.contains(&Object::Ghost(path))
            }
            Object::Other(_) | Object::Unnamed(_) => false,
        };
        names.iter().find(known).or(names.first()).cloned()
    }

    /// Everything heard since [`attach`](Self::attach), in order. Nothing is heard from then on.
    ///
    /// # Errors
    ///
    /// If the queue overflowed or cannot be read.
    pub fn drain(&self) -> Result<Vec<Heard>, String> {
        let bytes = cr::queue::drain(self.group.as_fd()).map_err(|error| error.to_string())?;
        let mut heard = Events::new(&bytes)
            .map(|event| {
                let event = event.map_err(|error| format!("bystander: {error}"))?;
                if event.mask.contains(Mask::Q_OVERFLOW) {
                    return Err("bystander: its own queue overflowed".to_owned());
                }
                Ok(Heard {
                    watched: event.wd.and_then(|wd| self.named(wd, event.name)),
                    mask: event.mask,
                    name: Bytes::from(event.name),
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        if let Some(mark) = &self.filesystem {
            heard.extend(mark.drain()?);
        }
        self.stop_listening()?;
        Ok(heard)
    }

    /// Removes the watches, which is done in no time, where to close a group is not. A group that is
    /// told of an operation cannot be closed while the operation waits for permission.
    fn stop_listening(&self) -> Result<(), String> {
        for wd in self.watched.keys() {
            // The watch may have ended with its inode.
            let _ = watch::rm_watch(self.group.as_fd(), *wd);
        }
        if let Some(mark) = &self.filesystem {
            mark.stop_listening()?;
        }
        // What came since is not of the cut, and the end of each watch is an event.
        cr::queue::drain(self.group.as_fd()).map_err(|errno| format!("bystander: {errno}"))?;
        Ok(())
    }
}

/// Holds a file of procfs. Its inode is of the memory (`proc_get_inode`): where nobody has it open and
/// some process drops the caches, the next open makes another one, with times of its own and no watch.
fn pin(path: &Path) -> Option<OwnedFd> {
    let procfs = statfs::statfs(path).ok()?.filesystem_type() == statfs::PROC_SUPER_MAGIC;
    procfs.then(|| handle::open_path(path).ok())?
}
