//! Who is told of what.

use fsnotify::inotify::Mask;

use super::super::group::Happening;
use super::super::tree::{DentryId, FilesystemId, InodeId};
use super::Model;

pub(super) const ACCESS: u32 = 0x1;
pub(super) const MODIFY: u32 = 0x2;
pub(super) const ATTRIB: u32 = 0x4;
pub(super) const CLOSE_WRITE: u32 = 0x8;
pub(super) const CLOSE_NOWRITE: u32 = 0x10;
pub(super) const OPEN: u32 = 0x20;
pub(super) const MOVED_FROM: u32 = 0x40;
pub(super) const MOVED_TO: u32 = 0x80;
pub(super) const CREATE: u32 = 0x100;
pub(super) const DELETE: u32 = 0x200;
pub(super) const DELETE_SELF: u32 = 0x400;
pub(super) const MOVE_SELF: u32 = 0x800;
const ISDIR: u32 = 0x4000_0000;

/// How the kernel came to the object: only a path knows that its name is gone, which is what
/// `IN_EXCL_UNLINK` asks (`fsnotify_data_path`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Through an open file.
    Path,
    /// By name, or by a call that changes attributes.
    Dentry,
}

impl Model {
    /// `fsnotify_parent`: the parent hears first, with the name; then the object itself. The parent
    /// is the dentry's, so that of a ghost is the directory that it was last in.
    pub(super) fn tell_with_parent(&mut self, dentry: DentryId, mask: u32, by: By) {
        let found = self.tree.dentry(dentry).clone();
        let is_exchange = mask & (ACCESS | MODIFY) != 0 && by == By::Path;
        let is_private = is_exchange && self.tree.kind_of(dentry).is_special();
        let mask = mask | self.directory_bit(found.inode);
        let is_of_unlinked = by == By::Path && !found.is_hashed;
        if found.parent != dentry && !is_private {
            let parent = self.tree.inode_of(found.parent);
            let happening = Happening {
                mask,
                cookie: 0,
                name: &found.name,
                is_of_unlinked,
            };
            self.tell(parent, happening);
        }
        let happening = Happening {
            mask,
            cookie: 0,
            name: &[],
            is_of_unlinked,
        };
        self.tell(found.inode, happening);
    }

    /// `fsnotify_inode`: nobody but the object itself hears.
    pub(super) fn tell_self(&mut self, inode: InodeId, mask: u32) {
        let happening = Happening {
            mask: mask | self.directory_bit(inode),
            cookie: 0,
            name: &[],
            is_of_unlinked: false,
        };
        self.tell(inode, happening);
    }

    /// `fsnotify_name`: a directory hears of a name in it.
    pub(super) fn tell_directory(
        &mut self,
        directory: DentryId,
        name: &[u8],
        child: InodeId,
        mask: u32,
        cookie: u32,
    ) {
        let happening = Happening {
            mask: mask | self.directory_bit(child),
            cookie,
            name,
            is_of_unlinked: false,
        };
        let directory = self.tree.inode_of(directory);
        self.tell(directory, happening);
    }

    fn tell(&mut self, inode: InodeId, happening: Happening) {
        for group in self.groups.iter_mut().flatten() {
            group.hear(inode, happening);
        }
    }

    fn directory_bit(&self, inode: InodeId) -> u32 {
        match self.tree.inode(inode).kind {
            super::super::tree::Kind::Directory => ISDIR,
            _ => 0,
        }
    }

    /// A filesystem goes with its mount (`fsnotify_unmount_inodes`).
    pub(super) fn end_filesystem(&mut self, filesystem: FilesystemId) {
        for inode in self.tree.inodes_of(filesystem) {
            self.tell_self(inode, Mask::UNMOUNT.0);
            for group in self.groups.iter_mut().flatten() {
                group.destroy(inode);
            }
        }
    }

    /// Drops a reference to a dentry; at its end the object is told, if it has no other name.
    pub(super) fn put_dentry(&mut self, dentry: DentryId) {
        self.tree.drop_ref(dentry);
        self.end_if_dead(dentry);
    }

    /// `dentry_unlink_inode`: it asks for the number of names, not of dentries. So the first dentry
    /// of a removed inode to go ends its watches, even if another one is still open.
    pub(super) fn end_if_dead(&mut self, dentry: DentryId) {
        if !self.tree.is_dead(dentry) {
            return;
        }
        self.n_ended += 1;
        let found = self.tree.dentry(dentry).clone();
        if self.tree.inode(found.inode).n_links == 0 {
            self.tell_self(found.inode, DELETE_SELF);
            for group in self.groups.iter_mut().flatten() {
                group.destroy(found.inode);
            }
        }
        self.put_dentry(found.parent);
    }
}
