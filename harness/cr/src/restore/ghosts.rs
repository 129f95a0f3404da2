//! Inodes and names that are gone, made again: out of sight, then for a moment where they were.
//!
//! An inode is made, opened and filled in a directory that nobody watches, renamed to where its
//! name was, and unlinked. Whoever watches that directory hears IN_MOVED_TO and IN_DELETE, and not
//! less is possible: the name that a descriptor shows is the place of its last dentry. The
//! directory's times are put back, which is one IN_ATTRIB more.
//!
//! Where another file has the name by now, the two are exchanged, and the other one is renamed
//! back over the ghost: at no time is the name free.
//!
//! A name is there no longer than it must be: it goes again at once, unless something is made in the
//! ghost, or by another name of it, later. And what gives rights to whoever can open or run a file (the
//! set-user-ID bit, capabilities, owner and mode of a device) it gets only then, through its
//! descriptor, and only if nobody gave it a name of his own meanwhile. Whoever watches the directory
//! hears IN_ATTRIB of it, as of no other ghost.

mod unnamed;
mod uses;
mod workroom;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::error::{Context, RestoreError, RestoreErrorKind};
use super::files::{finish, open_again};
use super::group::ByPlace;
use super::inode::{Rights, Writing, create, give_rights, set_attributes, set_flags, times};
use super::leftovers::Journal;
use super::stage::{Link, Stage};
use super::tree::{Tree, c_string, link_to, split};
use super::{Defect, RestoreOptions};
use crate::LossKind;
use crate::image::{Content, Ghost, Image, Object, OpenFile, Place, PlaceKind, Text};
use crate::silent;
use crate::sys::path::{self, Stat, open_beneath};
use crate::sys::raw;
use uses::Uses;
pub(super) use workroom::empty_and_remove;
use workroom::{Through, Workroom, leave};

/// Descriptors with `O_PATH` that keep ghosts alive until watches are on them.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    by_place: ByPlace,
}

impl Ghosts {
    pub(super) fn get(&self, place: u32) -> Option<&OwnedFd> {
        self.by_place.get(&place)
    }
}

/// Makes every removed name of the image, and opens what was open under it.
pub(super) fn make(
    image: &Image,
    tree: &Tree,
    stage: &mut Stage,
    (options, source): (&RestoreOptions, Option<(&Path, &Content)>),
) -> Result<Ghosts, RestoreError> {
    let mut maker = Maker {
        image_path: source.map(|(path, _)| path),
        content: source.map(|(_, content)| content),
        journal: None,
        uses: Uses::of(image),
        image,
        tree,
        stage,
        workrooms: HashMap::new(),
        made: HashMap::new(),
        placed: Vec::new(),
        touched: Vec::new(),
        may_touch_others: image
            .losses()
            .iter()
            .any(|loss| loss.kind == Ok(LossKind::OthersDirectory)),
        ghosts: Ghosts::default(),
        n_names: 0,
    };
    let made = maker.all(options);
    // What was made goes away whether all of it could be made or not.
    let cleared = maker.clear();
    if let (true, Some(journal)) = (cleared.is_ok(), maker.journal.take()) {
        journal.remove()?;
    }
    made.and(cleared)?;
    maker.give_rights()?;
    // Of an immutable one nothing can be changed.
    maker.set_flags()?;
    Ok(maker.ghosts)
}

struct Maker<'a> {
    /// Where the journal goes that [`leftovers::clear`] needs if this process is killed.
    image_path: Option<&'a Path>,
    content: Option<&'a Content>,
    journal: Option<Journal>,
    uses: Uses,
    image: &'a Image,
    tree: &'a Tree,
    stage: &'a mut Stage,
    /// By mount point: a directory of our own on that filesystem.
    workrooms: HashMap<Vec<u8>, Workroom>,
    /// Of each inode made, the place that it was made for.
    made: HashMap<u32, u32>,
    /// In the order of making: parents before what is in them.
    placed: Vec<Placed>,
    /// Directories whose times are put back.
    touched: Vec<(OwnedFd, Stat)>,
    /// The dump declared that it makes ghosts in directories of others ([`LossKind::OthersDirectory`]).
    may_touch_others: bool,
    ghosts: Ghosts,
    n_names: u32,
}

/// Where something is moved to.
#[derive(Clone, Copy)]
struct Target<'a> {
    path: &'a [u8],
    /// The place that it is made for; none of a directory that is only there for what is in it.
    place: Option<u32>,
    /// The place of its directory, where that is a ghost itself and the path may lead to another.
    parent: Option<u32>,
}

/// A name that is there for a moment.
struct Placed {
    path: Vec<u8>,
    place: Option<u32>,
    folder: OwnedFd,
    through: Through,
    name: CString,
    is_directory: bool,
    /// Whether something was made in it.
    is_changed: bool,
    /// The workroom that it was made in, and its name there, which what had its path has now.
    made_in: (Vec<u8>, CString),
    /// Whether what had its path is a directory, if something had it.
    displaced: Option<bool>,
    /// Times of a directory that something was made in, to be put back before it goes.
    times: Option<Times>,
}

/// A file, and access and modification time that it is to have.
type Times = (OwnedFd, [(i64, i64); 2]);

impl Maker<'_> {
    fn all(&mut self, options: &RestoreOptions) -> Result<(), RestoreError> {
        let mut order: Vec<u32> = (0..).take(self.image.places.len()).collect();
        order.retain(|&index| {
            let place = &self.image.places[index as usize];
            matches!(place.kind(), PlaceKind::Gone | PlaceKind::Unnamed) && self.uses.is_used(index)
        });
        order.sort_by_cached_key(|&index| self.turn(index));
        let mut leaves_file = options.defect == Some(Defect::LeaveFile);
        for index in order {
            let place = &self.image.places[index as usize];
            let made = match place.kind() {
                _ if !place.link.is_empty() => self.linked(index, place),
                PlaceKind::Unnamed => self.unnamed(index, place),
                _ => self.in_workroom(place, |maker, mount| maker.gone(index, place, mount)),
            };
            let at = |error: RestoreError| error.at(&format!("ghost {}", Text(&place.path)));
            made.map_err(at)?;
            if let Some(placed) = self.placed.first().filter(|_| leaves_file) {
                path::make_node(&placed.folder, c"left-behind", libc::S_IFREG | 0o644, 0)
                    .context("mknod", "left-behind")?;
                leaves_file = false;
            }
            self.settle().map_err(at)?;
        }
        Ok(())
    }

    /// Takes the last name away again, if nothing needs it.
    fn settle(&mut self) -> Result<(), RestoreError> {
        let is_done = |placed: &mut Placed| placed.place.is_some_and(|it| !self.uses.stays(it));
        let Some(placed) = self.placed.pop_if(is_done) else {
            return Ok(());
        };
        if let Err(error) = self.remove(&placed) {
            self.placed.push(placed);
            return Err(error);
        }
        let (mount, name) = &placed.made_in;
        if let Some(journal) = &mut self.journal {
            let room = self.workrooms[mount].name.to_bytes();
            journal.done((mount, room, name.to_bytes()))?;
        }
        Ok(())
    }

    /// Gives ghosts, which have no names any more, what gives rights by a name.
    fn give_rights(&self) -> Result<(), RestoreError> {
        for (&inode, place) in &self.made {
            let inode = &self.image.inodes[inode as usize];
            let is_made = self.image.places[*place as usize].link.is_empty();
            if let Some(ghost) = inode.ghost.as_ref().filter(|_| is_made) {
                let path = &self.image.places[*place as usize].path;
                give_rights(&self.ghosts.by_place[place], inode.mode, ghost)
                    .map_err(|error| error.at(&format!("ghost {}", Text(path))))?;
            }
        }
        Ok(())
    }

    /// When a place is made: those that have a link first. Then what is in directories that are
    /// there, before anything takes their path, and directories last, the deepest first; then what
    /// is in directories that are made themselves, after these.
    fn turn(&self, index: u32) -> (bool, bool, bool, usize) {
        let place = &self.image.places[index as usize];
        // Of a file that never had a name, the path is that of its directory.
        let is_unnamed = place.kind() == PlaceKind::Unnamed;
        let n_slashes = place.path.iter().filter(|&&byte| byte == b'/').count();
        let depth = n_slashes + usize::from(is_unnamed);
        let directory = if is_unnamed {
            &place.path[..]
        } else {
            split(&place.path).0
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let is_late = place.parent.is_some() || self.tree.open(directory, flags).is_err();
        let mode = self.image.inodes[place.inode as usize].mode;
        let is_directory = mode & libc::S_IFMT == libc::S_IFDIR;
        if is_late {
            (place.link.is_empty(), true, false, depth)
        } else {
            (
                place.link.is_empty(),
                false,
                is_directory,
                usize::MAX - depth,
            )
        }
    }

    fn gone(&mut self, index: u32, place: &Place, mount: &[u8]) -> Result<(), RestoreError> {
        let inode = &self.image.inodes[place.inode as usize];
        let name = self.fresh_name();
        let kind = inode.mode & libc::S_IFMT;
        if let Some(other) = self.made.get(&place.inode) {
            self.link(&self.ghosts.by_place[other], mount, &name)?;
        } else if let Some(ghost) = &inode.ghost {
            let room = &self.workrooms[mount].room;
            create(
                (room, &name),
                Writing::Unheard,
                inode.mode,
                ghost,
                self.content,
            )?;
        } else {
            let linked = self.tree.find_linked(place, inode)?;
            self.link(&linked, mount, &name)?;
        }
        let room = &self.workrooms[mount].room;
        let found = open_beneath(room, &name, libc::O_PATH, 0).context("open", "")?;
        self.open_all(index, &found)?;
        if let Some(ghost) = &inode.ghost {
            let room = &self.workrooms[mount].room;
            set_attributes((room, &name), inode.mode, ghost, Rights::Withheld)?;
        }
        let times = inode
            .ghost
            .as_ref()
            .filter(|_| kind == libc::S_IFDIR)
            .map(times);
        let times = match times {
            Some(times) => Some((duplicate(&found)?, times)),
            None => None,
        };
        self.ghosts.by_place.insert(index, found);
        let to = Target {
            path: &place.path,
            place: Some(index),
            parent: place.parent,
        };
        self.put(mount, &name, to, (kind == libc::S_IFDIR, times))?;
        self.made.entry(place.inode).or_insert(index);
        Ok(())
    }

    /// A ghost that the dump gave a name. It gets its own back, if nobody has that by now, and loses
    /// it when the watches are there.
    ///
    /// It is the very name that is renamed: to remove another one would be the end of the inode to
    /// the kernel, which then ends its watches (`dentry_unlink_inode`).
    fn linked(&mut self, index: u32, place: &Place) -> Result<(), RestoreError> {
        let (directory, own) = match place.kind() {
            PlaceKind::Unnamed => (&place.path[..], None),
            _ => {
                let (directory, name) = split(&place.path);
                (directory, Some(c_string(name)?))
            }
        };
        let link = c_string(&place.link)?;
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let folder = self.tree.open(directory, flags)?;
        let found =
            open_beneath(&folder, &link, libc::O_PATH, 0).context("open", Text(&place.link))?;
        let mode = self.image.inodes[place.inode as usize].mode;
        let stat = path::stat(&found, c"").context("statx", "")?;
        if (stat.mode ^ mode) & libc::S_IFMT != 0 {
            return Err(RestoreError::new(RestoreErrorKind::OtherType));
        }
        let fd = folder.as_raw_fd();
        let name = match own {
            Some(own) => match raw::renameat2(fd, &link, fd, &own, libc::RENAME_NOREPLACE) {
                Ok(_) => own,
                Err(Errno::EEXIST) => link.clone(),
                Err(errno) => return Err(RestoreError::call("renameat2", "", errno)),
            },
            None => link.clone(),
        };
        self.stage.links.push(Link { folder, link, name });
        self.open_all(index, &found)?;
        self.made.insert(place.inode, index);
        self.ghosts.by_place.insert(index, found);
        Ok(())
    }

    /// Gives an inode that still has a name one more, in a workroom.
    fn link(&self, linked: &OwnedFd, mount: &[u8], name: &CStr) -> Result<(), RestoreError> {
        let room = self.workrooms[mount].room.as_raw_fd();
        let link = link_to(linked);
        let followed = raw::linkat(libc::AT_FDCWD, &link, room, name, libc::AT_SYMLINK_FOLLOW);
        followed.map(drop).context("linkat", "")
    }

    /// Opens every description that was open under a name.
    fn open_all(&mut self, index: u32, found: &OwnedFd) -> Result<(), RestoreError> {
        let mut files = self.uses.files(index).to_vec();
        let write_only = |file: &usize| {
            self.image.files[*file].flags.cast_signed() & libc::O_ACCMODE == libc::O_WRONLY
        };
        files.sort_by_key(write_only);
        for file in files {
            let state = &self.image.files[file];
            let opened = open_again(found, state)
                .and_then(|opened| finish(&opened, state).map(|()| opened))
                .map_err(|error| error.at(&self.image.name_of_file(file)))?;
            self.stage.put(file, opened)?;
        }
        Ok(())
    }

    /// Moves what was made to where its name was.
    fn put(
        &mut self,
        mount: &[u8],
        name: &CStr,
        to: Target<'_>,
        (is_directory, times): (bool, Option<Times>),
    ) -> Result<(), RestoreError> {
        let path = to.path;
        let (parent, last) = split(path);
        let folder = match to.parent {
            Some(ghost) => self.made_directory(ghost)?,
            None => self.folder(parent, mount)?,
        };
        let last = c_string(last)?;
        let is_parent = |placed: &Placed| match to.parent {
            Some(_) => placed.place == to.parent,
            None => placed.path == parent,
        };
        let placed_in = self.placed.iter().position(is_parent);
        let (folder, through) = self.through(folder, parent, mount)?;
        match placed_in {
            Some(index) => self.placed[index].is_changed = true,
            None => self.touch(&folder, parent, mount)?,
        }
        let workroom = &self.workrooms[mount];
        let stat = path::stat(&workroom.room, name).context("statx", "")?;
        if let Some(journal) = &mut self.journal {
            let from = (mount, workroom.name.to_bytes(), name.to_bytes());
            journal.move_to(from, &stat, path)?;
        }
        let room = workroom.room(through);
        let fd = folder.as_raw_fd();
        let moved = raw::renameat2(room, name, fd, &last, libc::RENAME_NOREPLACE);
        let displaced = match moved {
            Ok(_) => None,
            Err(Errno::EEXIST) => {
                let stat = path::stat(&folder, &last).context("statx", "")?;
                raw::renameat2(room, name, fd, &last, libc::RENAME_EXCHANGE)
                    .context("renameat2", "RENAME_EXCHANGE")?;
                let other_is_directory = stat.mode & libc::S_IFMT == libc::S_IFDIR;
                Some(other_is_directory)
            }
            Err(errno) => {
                return Err(RestoreError::call(
                    "renameat2",
                    Text(path).to_string(),
                    errno,
                ));
            }
        };
        self.placed.push(Placed {
            path: path.to_vec(),
            place: to.place,
            folder,
            through,
            name: last,
            is_directory,
            is_changed: false,
            made_in: (mount.to_vec(), name.to_owned()),
            displaced,
            times,
        });
        Ok(())
    }

    /// Opens the directory that a name was in, and makes it for a moment if it is gone itself.
    fn folder(&mut self, path: &[u8], mount: &[u8]) -> Result<OwnedFd, RestoreError> {
        match self.tree.open(path, libc::O_PATH | libc::O_DIRECTORY) {
            Err(error) if is_gone(&error) && path != b"/" => {}
            opened => return opened,
        }
        let name = self.fresh_name();
        let room = &self.workrooms[mount].room;
        path::make_directory(room, &name, 0o700).context("mkdirat", "")?;
        let to = Target {
            path,
            place: None,
            parent: None,
        };
        self.put(mount, &name, to, (true, None))?;
        self.tree.open(path, libc::O_PATH | libc::O_DIRECTORY)
    }

    /// A removed directory that was made before what was in it.
    fn made_directory(&self, place: u32) -> Result<OwnedFd, RestoreError> {
        let ghost = self.ghosts.by_place.get(&place).ok_or_else(|| {
            RestoreError::new(RestoreErrorKind::Impossible("its directory was not made"))
        })?;
        duplicate(ghost)
    }

    /// Remembers the times of a directory, once, before anything is made in it.
    fn touch(&mut self, folder: &OwnedFd, path: &[u8], mount: &[u8]) -> Result<(), RestoreError> {
        let stat = path::stat(folder, c"").context("statx", "")?;
        self.touched_since(folder, (mount, path), stat)
    }

    /// Remembers the times that a directory had.
    fn touched_since(
        &mut self,
        folder: &OwnedFd,
        (mount, path): (&[u8], &[u8]),
        stat: Stat,
    ) -> Result<(), RestoreError> {
        let known =
            |(_, other): &(OwnedFd, Stat)| (other.device, other.ino) == (stat.device, stat.ino);
        if !self.touched.iter().any(known) {
            if let Some(journal) = &mut self.journal {
                journal.times((mount, path), &stat)?;
            }
            self.touched.push((duplicate(folder)?, stat));
        }
        Ok(())
    }

    fn fresh_name(&mut self) -> CString {
        self.n_names += 1;
        c_string(self.n_names.to_string().as_bytes()).expect("no NUL in a number")
    }

    /// Gives what was made the flags that it had.
    fn set_flags(&self) -> Result<(), RestoreError> {
        for (&inode, &first) in &self.made {
            let place = &self.image.places[first as usize];
            let ghost = self.image.inodes[inode as usize].ghost.as_ref();
            // One with a name for the time being has to lose it, and does without.
            let Some(ghost) = ghost.filter(|_| place.link.is_empty()) else {
                continue;
            };
            let found = &self.ghosts.by_place[&first];
            self.set_flags_of(inode, found, ghost)
                .map_err(|error| error.at(&format!("ghost {}", Text(&place.path))))?;
        }
        Ok(())
    }

    fn set_flags_of(&self, inode: u32, found: &OwnedFd, ghost: &Ghost) -> Result<(), RestoreError> {
        let is_open = |(index, file): (usize, &OpenFile)| {
            let Some(Object::Place(place)) = file.object else {
                return None;
            };
            let is_it = self.image.places[place as usize].inode == inode;
            let is_by_path = file.flags.cast_signed() & libc::O_PATH != 0;
            self.stage.get(index).filter(|_| is_it && !is_by_path)
        };
        if let Some(open) = self.image.files.iter().enumerate().find_map(is_open) {
            return set_flags(open, ghost);
        }
        let stat = path::stat(found, c"").context("statx", "")?;
        if ghost.flags.unwrap_or(0) == 0 && stat.attributes & 0xff == 0 {
            return Ok(());
        }
        let link = link_to(found);
        match silent::open(&link, silent::Access::Read) {
            Ok(open) => set_flags(open, ghost),
            Err(_) => raw::open(&link, libc::O_RDONLY | libc::O_CLOEXEC, 0)
                .and_then(path::owned)
                .context("open", "")
                .and_then(|open| set_flags(open, ghost)),
        }
    }

    /// Removes every name that was made, puts back what had it, and the times of directories.
    fn clear(&mut self) -> Result<(), RestoreError> {
        let mut first = Ok(());
        let mut keep = |result: Result<(), RestoreError>| {
            if first.is_ok() {
                first = result;
            }
        };
        while let Some(placed) = self.placed.pop() {
            keep(self.remove(&placed));
        }
        for (_, workroom) in self.workrooms.drain() {
            keep(leave(&workroom));
        }
        for (folder, stat) in self.touched.drain(..) {
            let times = [stat.accessed, stat.modified];
            match raw::utimensat(libc::AT_FDCWD, Some(&link_to(&folder)), &times, 0) {
                // Another's directory: the image says that its times are lost.
                Err(Errno::EPERM) if self.may_touch_others => {}
                set => keep(set.map(drop).context("utimensat", "")),
            }
        }
        first
    }

    fn remove(&self, placed: &Placed) -> Result<(), RestoreError> {
        if let Some((file, times)) = placed.times.as_ref().filter(|_| placed.is_changed) {
            let link = link_to(file);
            raw::utimensat(libc::AT_FDCWD, Some(&link), times, 0).context("utimensat", "")?;
        }
        let folder = placed.folder.as_raw_fd();
        let unlink = || {
            let flags = if placed.is_directory {
                libc::AT_REMOVEDIR
            } else {
                0
            };
            raw::unlinkat(folder, &placed.name, flags)
                .map(drop)
                .context("unlinkat", "")
        };
        let Some(other_is_directory) = placed.displaced else {
            return unlink();
        };
        let (mount, name) = &placed.made_in;
        if other_is_directory != placed.is_directory {
            unlink()?;
        }
        let room = self.workrooms[mount].room(placed.through);
        raw::renameat2(room, name, folder, &placed.name, 0)
            .map(drop)
            .context("renameat2", "back")
    }
}

/// Whether it failed because a name leads nowhere.
fn is_gone(error: &RestoreError) -> bool {
    let RestoreErrorKind::Call { errno, .. } = error.kind else {
        return false;
    };
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR)
}

fn duplicate(file: impl AsFd) -> Result<OwnedFd, RestoreError> {
    crate::sys::descriptor::duplicate_above(file, 0).context("fcntl", "F_DUPFD_CLOEXEC")
}
