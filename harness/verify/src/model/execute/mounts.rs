//! Mounts of empty filesystems, one over the other where need be.

use scenario::Step;

use super::walk::Last;
use super::{Done, EBUSY, EINVAL, ENOENT, ENOTDIR, Model, Opened, Stop};

const MNT_DETACH: u64 = 2;

impl Model {
    /// mount(2) of a new tmpfs: nobody is told.
    pub(super) fn mount(&mut self, step: &Step) -> Done {
        if step.bytes(2) != Some(b"tmpfs") || step.flags(3) != 0 || step.bytes(4).is_some() {
            return Err(Stop::Beyond("a mount but that of an empty tmpfs"));
        }
        let on = self.lookup(step, None, 1, Last::Follow)?;
        if !self.tree.dentry(on).is_hashed {
            return Err(ENOENT);
        }
        if !self.tree.is_directory(on) {
            return Err(ENOTDIR);
        }
        self.tree.mount(on);
        Ok(0)
    }

    /// umount2(2): the filesystem ends with its mount, unless something is in it still.
    pub(super) fn umount(&mut self, step: &Step) -> Done {
        let is_lazy = match step.flags(1) {
            0 => false,
            MNT_DETACH => true,
            _ => return Err(Stop::Beyond("these flags of umount2")),
        };
        let root = self.lookup(step, None, 0, Last::Follow)?;
        if self.tree.mounted_on(root).is_none() {
            let is_out = root == super::super::tree::Tree::ROOT;
            return Err(if is_out {
                Stop::Beyond("unmounting the world")
            } else {
                EINVAL
            });
        }
        let filesystem = self.tree.filesystem_of(root);
        let opened = self.files.iter().filter_map(|file| match file.what {
            Opened::Dentry(dentry) if file.n_refs > 0 => Some(dentry),
            Opened::Dentry(_) | Opened::Group(_) | Opened::Fanotify | Opened::Other => None,
        });
        let entered = self.processes.values().map(|process| process.cwd);
        let is_used = opened
            .chain(entered)
            .any(|dentry| self.tree.filesystem_of(dentry) == filesystem)
            || self.tree.has_mounts(filesystem);
        match (is_used, is_lazy) {
            _ if self.keeps_files => Err(Stop::Beyond("the end of a mount that events may keep")),
            (true, true) => Err(Stop::Beyond("a mount without a path")),
            (true, false) => Err(EBUSY),
            (false, _) => {
                if let Some(on) = self.tree.unmount(root) {
                    self.put_dentry(on);
                }
                self.end_filesystem(filesystem);
                Ok(0)
            }
        }
    }
}
