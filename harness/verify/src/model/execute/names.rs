//! Calls on names.

use scenario::{Arg, Call, Step, Time};

use super::super::tree::{DentryId, Kind};
use super::notify::{ACCESS, ATTRIB, By, CREATE, DELETE, MODIFY, MOVE_SELF, MOVED_FROM, MOVED_TO};
use super::walk::{Found, Last, LastName};
use super::{
    Done, EBUSY, EEXIST, EINVAL, EISDIR, ENODATA, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EXDEV, Model,
    Opened, Stop, size,
};

const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_REMOVEDIR: u64 = 0x200;
const AT_SYMLINK_FOLLOW: u64 = 0x400;
const AT_EMPTY_PATH: u64 = 0x1000;

impl Model {
    /// mkdir(2), mknod(2), symlink(2).
    pub(super) fn make(&mut self, step: &Step) -> Done {
        let path_at = usize::from(step.call == Call::Symlink);
        let kind = match step.call {
            Call::Mkdir => Kind::Directory,
            Call::Symlink if step.path(0).is_empty() => return Err(ENOENT),
            Call::Symlink => Kind::Symlink(step.path(0).to_vec()),
            _ => match step.mode(1).unwrap_or(0) & 0o170_000 {
                0 | 0o100_000 => Kind::Regular { size: 0 },
                0o040_000 => return Err(EPERM),
                0o010_000 => Kind::Fifo { n_unread: 0 },
                _ => Kind::Special,
            },
        };
        let found = self.walk(step, None, path_at, Last::Keep)?;
        if found.dentry.is_some() {
            return Err(EEXIST);
        }
        let LastName::Normal(name) = &found.name else {
            return Err(EEXIST);
        };
        if found.has_slash && !matches!(kind, Kind::Directory) {
            return Err(ENOENT);
        }
        self.create(found.parent, name, kind)?;
        Ok(0)
    }

    pub(super) fn link(&mut self, step: &Step) -> Done {
        let old = self.lookup(step, None, 0, Last::Keep)?;
        let new = self.walk(step, None, 1, Last::Keep)?;
        self.link_to(old, &new)
    }

    pub(super) fn linkat(&mut self, step: &Step) -> Done {
        let flags = step.flags(4);
        if flags & AT_EMPTY_PATH != 0 {
            return Err(Stop::Beyond("a link to a descriptor"));
        }
        let follows = flags & AT_SYMLINK_FOLLOW != 0;
        let last = if follows { Last::Follow } else { Last::Keep };
        let old = self.lookup(step, Some(0), 1, last)?;
        let new = self.walk(step, Some(2), 3, Last::Keep)?;
        self.link_to(old, &new)
    }

    /// vfs_link.
    fn link_to(&mut self, old: DentryId, new: &Found) -> Done {
        if new.dentry.is_some() {
            return Err(EEXIST);
        }
        let LastName::Normal(name) = &new.name else {
            return Err(EEXIST);
        };
        if new.has_slash {
            return Err(ENOENT);
        }
        if self.tree.filesystem_of(old) != self.tree.filesystem_of(new.parent) {
            return Err(EXDEV);
        }
        if !self.tree.dentry(new.parent).is_hashed {
            return Err(ENOENT);
        }
        if self.tree.is_directory(old) {
            return Err(EPERM);
        }
        let inode = self.tree.inode_of(old);
        let found = self.tree.inode_mut(inode);
        if found.n_links == 0 && !found.is_linkable {
            return Err(ENOENT);
        }
        found.n_links += 1;
        found.is_linkable = false;
        self.tree.attach(new.parent, name, inode);
        self.tell_self(inode, ATTRIB);
        self.tell_directory(new.parent, name, inode, CREATE, 0);
        Ok(0)
    }

    pub(super) fn unlinkat(&mut self, step: &Step) -> Done {
        if step.flags(2) & AT_REMOVEDIR != 0 {
            self.rmdir(step, Some(0), 1)
        } else {
            self.unlink(step, Some(0), 1)
        }
    }

    /// vfs_unlink: the object hears of its link first, and of its end before its directory hears,
    /// if nothing refers to the dentry any more (`d_delete_notify`).
    pub(super) fn unlink(&mut self, step: &Step, dir_at: Option<usize>, path_at: usize) -> Done {
        let found = self.walk(step, dir_at, path_at, Last::Keep)?;
        if !matches!(found.name, LastName::Normal(_)) {
            return Err(EISDIR);
        }
        let dentry = found.there()?;
        if self.tree.is_directory(dentry) {
            return Err(EISDIR);
        }
        if found.has_slash {
            return Err(ENOTDIR);
        }
        let inode = self.tree.inode_of(dentry);
        self.tree.inode_mut(inode).n_links -= 1;
        self.tell_self(inode, ATTRIB);
        self.remove_name(&found, dentry);
        Ok(0)
    }

    /// vfs_rmdir.
    pub(super) fn rmdir(&mut self, step: &Step, dir_at: Option<usize>, path_at: usize) -> Done {
        let found = self.walk(step, dir_at, path_at, Last::Keep)?;
        match found.name {
            LastName::Normal(_) => {}
            LastName::Dot => return Err(EINVAL),
            LastName::DotDot => return Err(ENOTEMPTY),
            LastName::Jump => return Err(EBUSY),
        }
        let dentry = found.there()?;
        if !self.tree.is_directory(dentry) {
            return Err(ENOTDIR);
        }
        if self.tree.is_mountpoint(dentry) {
            return Err(EBUSY);
        }
        if !self.tree.is_empty(dentry) {
            return Err(ENOTEMPTY);
        }
        let inode = self.tree.inode_of(dentry);
        self.tree.inode_mut(inode).n_links = 0;
        self.remove_name(&found, dentry);
        Ok(0)
    }

    fn remove_name(&mut self, found: &Found, dentry: DentryId) {
        let LastName::Normal(name) = &found.name else {
            return;
        };
        let inode = self.tree.inode_of(dentry);
        // The directory hears last, so its dentry has to outlive the one that goes.
        self.tree.take(found.parent);
        self.tree.unhash(dentry);
        self.end_if_dead(dentry);
        self.tell_directory(found.parent, name, inode, DELETE, 0);
        self.put_dentry(found.parent);
    }

    pub(super) fn rename(&mut self, step: &Step) -> Done {
        let old = self.walk(step, None, 0, Last::Keep)?;
        let new = self.walk(step, None, 1, Last::Keep)?;
        self.rename_to(&old, &new, 0)
    }

    pub(super) fn renameat2(&mut self, step: &Step) -> Done {
        let flags = step.flags(4);
        if flags > 2 {
            return Err(Stop::Beyond("these flags of a rename"));
        }
        let old = self.walk(step, Some(0), 1, Last::Keep)?;
        let new = self.walk(step, Some(2), 3, Last::Keep)?;
        self.rename_to(&old, &new, flags)
    }

    /// do_renameat2 and vfs_rename.
    fn rename_to(&mut self, old: &Found, new: &Found, flags: u64) -> Done {
        const NOREPLACE: u64 = 1;
        const EXCHANGE: u64 = 2;
        if self.tree.filesystem_of(old.parent) != self.tree.filesystem_of(new.parent) {
            return Err(EXDEV);
        }
        let (LastName::Normal(_), LastName::Normal(new_name)) = (&old.name, &new.name) else {
            return Err(EBUSY);
        };
        let source = old.there()?;
        if flags == NOREPLACE && new.dentry.is_some() {
            return Err(EEXIST);
        }
        if flags == EXCHANGE && new.dentry.is_none() {
            return Err(ENOENT);
        }
        let is_directory = self.tree.is_directory(source);
        if old.has_slash && !is_directory {
            return Err(ENOTDIR);
        }
        let wants_directory = match (flags, new.dentry) {
            (EXCHANGE, Some(target)) => self.tree.is_directory(target),
            _ => is_directory,
        };
        if new.has_slash && !wants_directory {
            return Err(ENOTDIR);
        }
        if self.tree.is_within(new.parent, source) {
            return Err(EINVAL);
        }
        if new
            .dentry
            .is_some_and(|target| self.tree.is_within(old.parent, target))
        {
            return Err(if flags == EXCHANGE { EINVAL } else { ENOTEMPTY });
        }
        let same = |target| self.tree.inode_of(source) == self.tree.inode_of(target);
        if new.dentry.is_some_and(same) {
            return Ok(0);
        }
        if !self.tree.dentry(new.parent).is_hashed {
            return Err(ENOENT);
        }
        match new.dentry {
            // `is_local_mountpoint`
            Some(_) | None if flags == EXCHANGE && self.has_mount(source, new.dentry) => {
                return Err(EBUSY);
            }
            None if self.has_mount(source, None) => return Err(EBUSY),
            Some(target) if flags == EXCHANGE => self.exchange(source, target),
            Some(target) => self.replace(source, target, new.parent, new_name)?,
            None => self.move_to(source, new.parent, new_name, None),
        }
        Ok(0)
    }

    fn has_mount(&self, source: DentryId, target: Option<DentryId>) -> bool {
        let mut both = std::iter::once(source).chain(target);
        both.any(|dentry| self.tree.is_mountpoint(dentry))
    }

    fn exchange(&mut self, left: DentryId, right: DentryId) {
        let (l, r) = (
            self.tree.dentry(left).clone(),
            self.tree.dentry(right).clone(),
        );
        self.tree.exchange(left, right);
        self.tell_move(left, (l.parent, &l.name), (r.parent, &r.name), None);
        self.tell_move(right, (r.parent, &r.name), (l.parent, &l.name), None);
    }

    fn replace(
        &mut self,
        source: DentryId,
        target: DentryId,
        parent: DentryId,
        name: &[u8],
    ) -> Done<()> {
        match (
            self.tree.is_directory(source),
            self.tree.is_directory(target),
        ) {
            (true, false) => return Err(ENOTDIR),
            (false, true) => return Err(EISDIR),
            (true, true) | (false, false) if self.has_mount(source, Some(target)) => {
                return Err(EBUSY);
            }
            (true, true) if !self.tree.is_empty(target) => return Err(ENOTEMPTY),
            (true, true) | (false, false) => {}
        }
        let inode = self.tree.inode_of(target);
        self.tree.inode_mut(inode).n_links -= 1;
        self.tree.unhash(target);
        self.move_to(source, parent, name, Some(target));
        // The call's own reference is the last to go.
        self.end_if_dead(target);
        Ok(())
    }

    fn move_to(
        &mut self,
        source: DentryId,
        parent: DentryId,
        name: &[u8],
        target: Option<DentryId>,
    ) {
        let old = self.tree.dentry(source).clone();
        self.tree.move_to(source, parent, name);
        self.tell_move(source, (old.parent, &old.name), (parent, name), target);
        // The old directory was kept by its child until now.
        self.end_if_dead(old.parent);
    }

    /// fsnotify_move: one cookie a move, whether or not anybody hears it.
    fn tell_move(
        &mut self,
        moved: DentryId,
        (from, old_name): (DentryId, &[u8]),
        (to, new_name): (DentryId, &[u8]),
        target: Option<DentryId>,
    ) {
        self.last_cookie += 1;
        let cookie = self.last_cookie;
        let inode = self.tree.inode_of(moved);
        self.tell_directory(from, old_name, inode, MOVED_FROM, cookie);
        self.tell_directory(to, new_name, inode, MOVED_TO, cookie);
        if let Some(target) = target {
            let target = self.tree.inode_of(target);
            self.tell_self(target, ATTRIB);
        }
        self.tell_self(inode, MOVE_SELF);
    }

    pub(super) fn truncate(&mut self, step: &Step) -> Done {
        let dentry = self.lookup(step, None, 0, Last::Follow)?;
        match self.tree.kind_of(dentry) {
            Kind::Regular { .. } => {}
            Kind::Directory => return Err(EISDIR),
            Kind::Symlink(_) | Kind::Fifo { .. } | Kind::Special => return Err(EINVAL),
        }
        self.set_size(dentry, size(step, 1));
        self.tell_with_parent(dentry, MODIFY, By::Dentry);
        Ok(0)
    }

    /// chmod(2), chown(2).
    pub(super) fn change(&mut self, step: &Step) -> Done {
        let dentry = self.lookup(step, None, 0, Last::Follow)?;
        if step.call == Call::Chown && (step.int(1), step.int(2)) == (-1, -1) {
            return Err(Stop::Beyond("a change of nothing"));
        }
        self.tell_with_parent(dentry, ATTRIB, By::Dentry);
        Ok(0)
    }

    /// fsnotify_change: both times are a change of attributes, one alone stands for the act that
    /// usually changes it.
    pub(super) fn utimensat(&mut self, step: &Step) -> Done {
        let mask = match step.args.get(2) {
            Some(Arg::Times([Time::Omit, Time::Omit])) => return Ok(0),
            Some(Arg::Times([_, Time::Omit])) => ACCESS,
            Some(Arg::Times([Time::Omit, _])) => MODIFY,
            _ => ATTRIB,
        };
        let flags = step.flags(3);
        let dentry = if step.bytes(1).is_none() {
            if flags != 0 {
                return Err(EINVAL);
            }
            let file = self.opened(step, 0)?;
            self.dentry_of(file)?
        } else if flags & AT_EMPTY_PATH != 0 && step.path(1).is_empty() {
            match self.files[self.opened(step, 0)?].what {
                Opened::Dentry(dentry) => dentry,
                Opened::Group(_) | Opened::Fanotify | Opened::Other => {
                    return Err(Stop::Beyond("times of no file"));
                }
            }
        } else {
            let keep = flags & AT_SYMLINK_NOFOLLOW != 0;
            let last = if keep { Last::Keep } else { Last::Follow };
            self.lookup(step, Some(0), 1, last)?
        };
        self.tell_with_parent(dentry, mask, By::Dentry);
        Ok(0)
    }

    pub(super) fn setxattr(&mut self, step: &Step) -> Done {
        const CREATE_ONLY: u64 = 1;
        const REPLACE_ONLY: u64 = 2;
        let (dentry, name) = self.xattr(step)?;
        let inode = self.tree.inode_of(dentry);
        let xattrs = &mut self.tree.inode_mut(inode).xattrs;
        let exists = xattrs.contains(&name);
        match step.flags(3) {
            0 => {}
            CREATE_ONLY if exists => return Err(EEXIST),
            REPLACE_ONLY if !exists => return Err(ENODATA),
            CREATE_ONLY | REPLACE_ONLY => {}
            _ => return Err(EINVAL),
        }
        xattrs.insert(name);
        self.tell_with_parent(dentry, ATTRIB, By::Dentry);
        Ok(0)
    }

    pub(super) fn removexattr(&mut self, step: &Step) -> Done {
        let (dentry, name) = self.xattr(step)?;
        let inode = self.tree.inode_of(dentry);
        if !self.tree.inode_mut(inode).xattrs.remove(&name) {
            return Err(ENODATA);
        }
        self.tell_with_parent(dentry, ATTRIB, By::Dentry);
        Ok(0)
    }

    /// The object and the name of its attribute; only those of users are modelled.
    fn xattr(&self, step: &Step) -> Done<(DentryId, Vec<u8>)> {
        let name = step.path(1);
        let dentry = self.lookup(step, None, 0, Last::Follow)?;
        match name.strip_prefix(b"user.") {
            Some([]) | None => return Err(Stop::Beyond("attributes but those of users")),
            Some(_) => {}
        }
        match self.tree.kind_of(dentry) {
            Kind::Regular { .. } | Kind::Directory => Ok((dentry, name.to_vec())),
            Kind::Symlink(_) | Kind::Fifo { .. } | Kind::Special => Err(EPERM),
        }
    }

    pub(super) fn chdir(&mut self, step: &Step) -> Done {
        let dentry = self.lookup(step, None, 0, Last::Follow)?;
        if !self.tree.is_directory(dentry) {
            return Err(ENOTDIR);
        }
        self.tree.take(dentry);
        let left = std::mem::replace(&mut self.process_mut(step).cwd, dentry);
        self.put_dentry(left);
        Ok(0)
    }

    /// By turns chmod(2) and utimensat(2) of the modification time.
    pub(super) fn flood(&mut self, step: &Step) -> Done {
        let count = step.int(1);
        for index in 0..count {
            let dentry = self.lookup(step, None, 0, Last::Follow)?;
            let mask = if index % 2 == 0 { ATTRIB } else { MODIFY };
            self.tell_with_parent(dentry, mask, By::Dentry);
        }
        Ok(count)
    }
}
