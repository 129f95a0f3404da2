//! Calls on descriptors, those apart that groups alone know.

use scenario::call::fcntl;
use scenario::{Event, Outcome, Step};

use super::super::tree::{DentryId, Kind};
use super::notify::{ACCESS, ATTRIB, By, CLOSE_NOWRITE, CLOSE_WRITE, CREATE, MODIFY, OPEN};
use super::walk::{Found, Last, LastName};
use super::{
    Done, EAGAIN, EBADF, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, EOPNOTSUPP, ESPIPE, Model,
    OpenFile, Opened, Stop, content, size,
};

const O_ACCMODE: u64 = 3;
const O_RDWR: u64 = 2;
const O_CREAT: u64 = 0o100;
const O_EXCL: u64 = 0o200;
const O_TRUNC: u64 = 0o1_000;
const O_APPEND: u64 = 0o2_000;
const O_NONBLOCK: u64 = 0o4_000;
const O_DIRECTORY: u64 = 0o200_000;
const O_NOFOLLOW: u64 = 0o400_000;
const O_PATH: u64 = 0o10_000_000;
/// The bit of `O_TMPFILE` that no other flag has.
const O_TMPFILE: u64 = 0o20_000_000;
const O_TMPFILE_DIRECTORY: u64 = O_TMPFILE | O_DIRECTORY;

/// Bytes of a read that names no size.
const READ: u64 = 4096;

impl Model {
    pub(super) fn open(&mut self, step: &Step, dir_at: Option<usize>, path_at: usize) -> Done {
        let mut flags = step.flags(path_at + 1);
        if flags & O_TMPFILE != 0 && flags & O_PATH == 0 {
            return self.open_unnamed(step, dir_at, path_at, flags);
        }
        if flags & O_PATH != 0 {
            flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW;
        }
        let keep = flags & O_NOFOLLOW != 0 || flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
        let last = if keep { Last::Keep } else { Last::Follow };
        let found = self.walk(step, dir_at, path_at, last)?;
        let dentry = match found.dentry {
            Some(_) => self.open_existing(&found, self.shown(&found)?, flags)?,
            None => self.open_new(&found, flags)?,
        };
        let fd = self.install(step, Opened::Dentry(dentry), flags)?;
        self.tree.take(dentry);
        if flags & O_PATH == 0 {
            self.tell_with_parent(dentry, OPEN, By::Path);
            let is_regular = matches!(self.tree.kind_of(dentry), Kind::Regular { .. });
            let is_cut = flags & O_TRUNC != 0 && found.dentry.is_some() && is_regular;
            if is_cut {
                self.set_size(dentry, 0);
                self.tell_with_parent(dentry, MODIFY, By::Dentry);
            }
        }
        Ok(fd)
    }

    /// vfs_tmpfile: nobody is told that the file is made, and it is opened under a name that no
    /// path leads to.
    fn open_unnamed(
        &mut self,
        step: &Step,
        dir_at: Option<usize>,
        path_at: usize,
        flags: u64,
    ) -> Done {
        if flags & O_TMPFILE_DIRECTORY != O_TMPFILE_DIRECTORY || flags & O_ACCMODE == 0 {
            return Err(EINVAL);
        }
        let directory = self.lookup(step, dir_at, path_at, Last::Follow)?;
        if !self.tree.is_directory(directory) {
            return Err(ENOTDIR);
        }
        let is_linkable = flags & O_EXCL == 0;
        let dentry = self.tree.attach_unnamed(directory, is_linkable);
        let fd = self.install(step, Opened::Dentry(dentry), flags)?;
        self.tree.take(dentry);
        self.tell_with_parent(dentry, OPEN, By::Path);
        Ok(fd)
    }

    fn open_existing(&self, found: &Found, dentry: DentryId, flags: u64) -> Done<DentryId> {
        let kind = self.tree.kind_of(dentry);
        if found.has_slash && flags & O_CREAT != 0 {
            return Err(EISDIR);
        }
        if flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL {
            return Err(EEXIST);
        }
        let is_directory = matches!(kind, Kind::Directory);
        if flags & O_CREAT != 0 && is_directory {
            return Err(EISDIR);
        }
        if (flags & O_DIRECTORY != 0 || found.has_slash) && !is_directory {
            return Err(ENOTDIR);
        }
        if flags & O_PATH != 0 {
            return Ok(dentry);
        }
        match kind {
            Kind::Symlink(_) => Err(ELOOP),
            Kind::Directory if flags & O_ACCMODE != 0 || flags & O_TRUNC != 0 => Err(EISDIR),
            // Any other way to open a fifo may wait for its other end.
            Kind::Fifo { .. } if flags & (O_ACCMODE | O_NONBLOCK) == O_RDWR | O_NONBLOCK => {
                Ok(dentry)
            }
            Kind::Fifo { .. } => Err(Stop::Beyond("opening one end of a fifo")),
            Kind::Special => Err(Stop::Beyond("opening a socket or a device")),
            Kind::Directory | Kind::Regular { .. } => Ok(dentry),
        }
    }

    fn open_new(&mut self, found: &Found, flags: u64) -> Done<DentryId> {
        if flags & O_CREAT == 0 {
            return Err(ENOENT);
        }
        let LastName::Normal(name) = &found.name else {
            return Err(ENOENT);
        };
        if found.has_slash {
            return Err(EISDIR);
        }
        if flags & O_DIRECTORY != 0 {
            return Err(EINVAL);
        }
        self.create(found.parent, name, Kind::Regular { size: 0 })
    }

    /// Makes a new object, if its directory still has a path.
    pub(super) fn create(&mut self, parent: DentryId, name: &[u8], kind: Kind) -> Done<DentryId> {
        if !self.tree.dentry(parent).is_hashed {
            return Err(ENOENT);
        }
        let filesystem = self.tree.filesystem_of(parent);
        let inode = self.tree.new_inode(kind, filesystem);
        let dentry = self.tree.attach(parent, name, inode);
        self.tell_directory(parent, name, inode, CREATE, 0);
        Ok(dentry)
    }

    /// Opens a file and gives it the lowest free number.
    pub(super) fn install(&mut self, step: &Step, what: Opened, flags: u64) -> Done {
        self.files.push(OpenFile {
            what,
            n_refs: 0,
            flags,
            offset: 0,
        });
        self.number_file(step, self.files.len() - 1, 0)
    }

    fn number_file(&mut self, step: &Step, file: usize, lowest: i32) -> Done {
        let fds = &self.process(step).fds;
        let fd = (lowest..).find(|fd| !fds.contains_key(fd)).ok_or(EBADF)?;
        self.files[file].n_refs += 1;
        self.process_mut(step).fds.insert(fd, file);
        Ok(fd.into())
    }

    pub(super) fn close(&mut self, step: &Step) -> Done {
        self.opened(step, 0)?;
        let fd = i32::try_from(self.number(step, 0)?).map_err(|_| EBADF)?;
        let file = self.process_mut(step).fds.remove(&fd).ok_or(EBADF)?;
        self.put_file(file);
        Ok(0)
    }

    /// Drops a descriptor's reference; the last one closes the file (`__fput`).
    pub(super) fn put_file(&mut self, file: usize) {
        self.files[file].n_refs -= 1;
        if self.files[file].n_refs > 0 {
            return;
        }
        match self.files[file].what {
            Opened::Dentry(dentry) => {
                if !self.is_path_only(file) {
                    let is_writer = self.files[file].flags & O_ACCMODE != 0;
                    let mask = if is_writer {
                        CLOSE_WRITE
                    } else {
                        CLOSE_NOWRITE
                    };
                    self.tell_with_parent(dentry, mask, By::Path);
                    self.empty_fifo(dentry);
                }
                self.put_dentry(dentry);
            }
            Opened::Group(group) => self.groups[group] = None,
            Opened::Fanotify | Opened::Other => {}
        }
    }

    /// What a fifo holds goes with the last file that it is open by.
    fn empty_fifo(&mut self, dentry: DentryId) {
        let inode = self.tree.inode_of(dentry);
        let is_open = (0..self.files.len()).any(|file| match self.files[file].what {
            Opened::Dentry(other) => {
                self.files[file].n_refs > 0
                    && !self.is_path_only(file)
                    && self.tree.inode_of(other) == inode
            }
            Opened::Group(_) | Opened::Fanotify | Opened::Other => false,
        });
        if let (false, Kind::Fifo { n_unread }) = (is_open, &mut self.tree.inode_mut(inode).kind) {
            *n_unread = 0;
        }
    }

    /// Reads from a fifo, or writes to it, that somebody has open in both ways.
    fn fifo(&mut self, file: usize) -> Option<(DentryId, &mut usize)> {
        let Opened::Dentry(dentry) = self.files[file].what else {
            return None;
        };
        if self.is_path_only(file) {
            return None;
        }
        let inode = self.tree.inode_of(dentry);
        match &mut self.tree.inode_mut(inode).kind {
            Kind::Fifo { n_unread } => Some((dentry, n_unread)),
            _ => None,
        }
    }

    fn read_fifo(&mut self, dentry: DentryId, n_unread: usize, limit: u64) -> Done {
        if n_unread == 0 {
            return Err(EAGAIN);
        }
        let n = n_unread.min(usize::try_from(limit).unwrap_or(usize::MAX));
        let inode = self.tree.inode_of(dentry);
        self.tree.inode_mut(inode).kind = Kind::Fifo {
            n_unread: n_unread - n,
        };
        self.tell_with_parent(dentry, ACCESS, By::Path);
        Ok(i64::try_from(n).expect("a fifo is short"))
    }

    pub(super) fn dup(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        self.number_file(step, file, 0)
    }

    pub(super) fn dup_to(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        let old = self.number(step, 0)?;
        let new = i32::try_from(step.int(1)).map_err(|_| EBADF)?;
        if old == i64::from(new) {
            let is_dup3 = step.call == scenario::Call::Dup3;
            return if is_dup3 { Err(EINVAL) } else { Ok(old) };
        }
        self.files[file].n_refs += 1;
        if let Some(replaced) = self.process_mut(step).fds.insert(new, file) {
            self.put_file(replaced);
        }
        Ok(new.into())
    }

    /// Only duplication has a part in notification, and what any descriptor can do is not denied.
    pub(super) fn fcntl(&mut self, step: &Step) -> Done<Option<Outcome>> {
        let file = self.opened(step, 0)?;
        match step.flags(1) {
            fcntl::DUPFD | fcntl::DUPFD_CLOEXEC => {
                let lowest = i32::try_from(step.int(2)).map_err(|_| EINVAL)?;
                let fd = self.number_file(step, file, lowest)?;
                Ok(Some(Outcome::Value(fd)))
            }
            fcntl::SETFL => {
                let kept = self.files[file].flags & !O_APPEND;
                self.files[file].flags = kept | step.flags(2) & O_APPEND;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn read(&mut self, step: &Step, events: &mut Vec<Event>) -> Done {
        let file = self.opened(step, 0)?;
        let limit = step
            .optional_int(1)
            .and_then(|size| u64::try_from(size).ok());
        if let Some((dentry, n_unread)) = self.fifo(file) {
            let n_unread = *n_unread;
            return self.read_fifo(dentry, n_unread, limit.unwrap_or(READ));
        }
        match self.files[file].what {
            Opened::Group(group) => self.read_group(group, limit, events),
            Opened::Dentry(_) => {
                let offset = self.files[file].offset;
                let n = self.read_at(file, offset, limit.unwrap_or(READ))?;
                self.files[file].offset += n;
                Ok(i64::try_from(n).expect("a read is short"))
            }
            Opened::Fanotify | Opened::Other => Err(Stop::Beyond("reading from no file")),
        }
    }

    /// The number of bytes that are there; a read of none is not told.
    fn read_at(&mut self, file: usize, offset: u64, limit: u64) -> Done<u64> {
        let dentry = self.dentry_of(file)?;
        if self.files[file].flags & O_ACCMODE == 1 {
            return Err(EBADF);
        }
        let Kind::Regular { size } = *self.tree.kind_of(dentry) else {
            return Err(EISDIR);
        };
        let n = size.saturating_sub(offset).min(limit);
        if n > 0 {
            self.tell_with_parent(dentry, ACCESS, By::Path);
        }
        Ok(n)
    }

    pub(super) fn pread(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        if matches!(self.files[file].what, Opened::Group(_)) {
            return Err(Stop::Beyond("reading a group at an offset"));
        }
        if self.fifo(file).is_some() {
            return Err(ESPIPE);
        }
        let n = self.read_at(file, size(step, 2), size(step, 1))?;
        Ok(i64::try_from(n).expect("a read is short"))
    }

    pub(super) fn write(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        if matches!(self.files[file].what, Opened::Group(_)) {
            return Err(EBADF);
        }
        let content = content(step, 1)?;
        if let Some((dentry, n_unread)) = self.fifo(file) {
            /// Of 16 pages; a full fifo does not take more without blocking.
            const FULL: usize = 65_536;
            if *n_unread + content.len() > FULL || content.is_empty() {
                return Err(Stop::Beyond("a full fifo"));
            }
            *n_unread += content.len();
            self.tell_with_parent(dentry, MODIFY, By::Path);
            return Ok(i64::try_from(content.len()).expect("content is short"));
        }
        let end = self.writable(file).map(|dentry| self.size(dentry))?;
        let is_append = self.files[file].flags & O_APPEND != 0;
        let offset = if is_append {
            end
        } else {
            self.files[file].offset
        };
        let n = self.write_at(file, offset, content)?;
        if n > 0 {
            self.files[file].offset = offset + n;
        }
        Ok(i64::try_from(n).expect("content is short"))
    }

    pub(super) fn pwrite(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        if matches!(self.files[file].what, Opened::Group(_)) {
            return Err(Stop::Beyond("writing to a group at an offset"));
        }
        if self.fifo(file).is_some() {
            return Err(ESPIPE);
        }
        let content = content(step, 1)?;
        let dentry = self.writable(file)?;
        let is_append = self.files[file].flags & O_APPEND != 0;
        let offset = if is_append {
            self.size(dentry)
        } else {
            size(step, 2)
        };
        let n = self.write_at(file, offset, content)?;
        Ok(i64::try_from(n).expect("content is short"))
    }

    fn write_at(&mut self, file: usize, offset: u64, content: &[u8]) -> Done<u64> {
        let dentry = self.writable(file)?;
        let n = u64::try_from(content.len()).expect("64 bits");
        if n > 0 {
            let size = self.size(dentry).max(offset + n);
            self.set_size(dentry, size);
            self.tell_with_parent(dentry, MODIFY, By::Path);
        }
        Ok(n)
    }

    fn writable(&self, file: usize) -> Done<DentryId> {
        let dentry = self.dentry_of(file)?;
        match self.files[file].flags & O_ACCMODE {
            1 | 2 => Ok(dentry),
            _ => Err(EBADF),
        }
    }

    fn size(&self, dentry: DentryId) -> u64 {
        match self.tree.kind_of(dentry) {
            Kind::Regular { size } => *size,
            Kind::Directory | Kind::Symlink(_) | Kind::Fifo { .. } | Kind::Special => 0,
        }
    }

    pub(super) fn set_size(&mut self, dentry: DentryId, new: u64) {
        let inode = self.tree.inode_of(dentry);
        if let Kind::Regular { size } = &mut self.tree.inode_mut(inode).kind {
            *size = new;
        }
    }

    pub(super) fn lseek(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        let dentry = self.dentry_of(file)?;
        if self.fifo(file).is_some() {
            return Err(ESPIPE);
        }
        if !matches!(self.tree.kind_of(dentry), Kind::Regular { .. }) {
            return Err(Stop::Beyond("the offset of a directory"));
        }
        let signed = |number: u64| i64::try_from(number).map_err(|_| EINVAL);
        let base = match step.flags(2) {
            0 => 0,
            1 => signed(self.files[file].offset)?,
            2 => signed(self.size(dentry))?,
            _ => return Err(Stop::Beyond("holes")),
        };
        let to = base
            .checked_add(step.int(1))
            .and_then(|to| u64::try_from(to).ok());
        self.files[file].offset = to.ok_or(EINVAL)?;
        signed(self.files[file].offset)
    }

    pub(super) fn ftruncate(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        let dentry = self.dentry_of(file)?;
        let is_regular = matches!(self.tree.kind_of(dentry), Kind::Regular { .. });
        if !is_regular || self.writable(file).is_err() {
            return Err(EINVAL);
        }
        self.set_size(dentry, size(step, 1));
        self.tell_with_parent(dentry, MODIFY, By::Dentry);
        Ok(0)
    }

    pub(super) fn fallocate(&mut self, step: &Step) -> Done {
        const KEEP_SIZE: u64 = 1;
        const PUNCH_HOLE: u64 = 2;
        let file = self.opened(step, 0)?;
        let (mode, offset, length) = (step.flags(1), size(step, 2), size(step, 3));
        let dentry = self.writable(file)?;
        if length == 0 {
            return Err(EINVAL);
        }
        if ![0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE].contains(&mode) {
            return Err(if mode == PUNCH_HOLE {
                EOPNOTSUPP
            } else {
                Stop::Beyond("this mode")
            });
        }
        if self.fifo(file).is_some() {
            return Err(ESPIPE);
        }
        if mode == 0 {
            let size = self.size(dentry).max(offset + length);
            self.set_size(dentry, size);
        }
        self.tell_with_parent(dentry, MODIFY, By::Path);
        Ok(0)
    }

    /// Listing is told even where there is nothing to list; a removed directory is not read at all.
    pub(super) fn getdents(&mut self, step: &Step) -> Done<()> {
        let file = self.opened(step, 0)?;
        let dentry = self.dentry_of(file)?;
        if !self.tree.is_directory(dentry) {
            return Err(ENOTDIR);
        }
        if self.tree.inode(self.tree.inode_of(dentry)).n_links == 0 {
            return Err(ENOENT);
        }
        self.tell_with_parent(dentry, ACCESS, By::Path);
        Ok(())
    }

    /// fchmod(2), fchown(2).
    pub(super) fn change_open(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        let dentry = self.dentry_of(file)?;
        if step.call == scenario::Call::Fchown && (step.int(1), step.int(2)) == (-1, -1) {
            return Err(Stop::Beyond("a change of nothing"));
        }
        self.tell_with_parent(dentry, ATTRIB, By::Dentry);
        Ok(0)
    }
}
