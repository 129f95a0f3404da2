//! Files, directories and their names, as far as notification depends on them.
//!
//! A name is a dentry. An open file refers to a dentry, not to an inode: that is why a ghost still
//! tells its parent of events, under its last name, and why the *dentry's* end, not the inode's, is
//! what `IN_DELETE_SELF` tells of (`dentry_unlink_inode`).

use std::collections::{BTreeMap, BTreeSet};

/// What stands for the name of a file that was made by `O_TMPFILE` is `#` and a number of chance
/// (`d_mark_tmpfile`), of which observations keep the `#`.
pub(super) const UNNAMED: &[u8] = b"#";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InodeId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DentryId(usize);

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Regular {
        size: u64,
    },
    Directory,
    Symlink(Vec<u8>),
    Fifo {
        n_unread: usize,
    },
    /// Socket or device.
    Special,
}

impl Kind {
    /// Whether reads and writes are none of its directory's business (`d_is_special`).
    pub(super) fn is_special(&self) -> bool {
        matches!(self, Self::Fifo { .. } | Self::Special)
    }
}

/// A filesystem, by the root that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FilesystemId(usize);

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) kind: Kind,
    pub(super) filesystem: FilesystemId,
    /// Names; 0 for what is removed. A directory has one.
    pub(super) n_links: u32,
    pub(super) xattrs: BTreeSet<Vec<u8>>,
    /// Removed, and can get a name all the same: made by `O_TMPFILE`, and never linked.
    pub(super) is_linkable: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Dentry {
    /// Itself for the root.
    pub(super) parent: DentryId,
    pub(super) name: Vec<u8>,
    pub(super) inode: InodeId,
    /// Whether a path leads here.
    pub(super) is_hashed: bool,
    /// Open files, working directories, and dentries below that are alive.
    n_refs: u32,
    /// Those with a path.
    children: BTreeMap<Vec<u8>, DentryId>,
}

#[derive(Clone, Debug)]
pub(super) struct Tree {
    inodes: Vec<Inode>,
    dentries: Vec<Dentry>,
    n_filesystems: usize,
    /// The root of what is mounted on a dentry.
    mounts: BTreeMap<DentryId, DentryId>,
}

impl Tree {
    pub(super) const ROOT: DentryId = DentryId(0);

    pub(super) fn new() -> Self {
        let mut tree = Self {
            inodes: Vec::new(),
            dentries: Vec::new(),
            n_filesystems: 0,
            mounts: BTreeMap::new(),
        };
        tree.new_filesystem();
        tree
    }

    /// The root of an empty filesystem.
    fn new_filesystem(&mut self) -> DentryId {
        let filesystem = FilesystemId(self.n_filesystems);
        self.n_filesystems += 1;
        let inode = self.new_inode(Kind::Directory, filesystem);
        let root = DentryId(self.dentries.len());
        self.dentries.push(Dentry {
            parent: root,
            name: Vec::new(),
            inode,
            is_hashed: true,
            n_refs: 1,
            children: BTreeMap::new(),
        });
        root
    }

    /// Mounts an empty filesystem on a directory.
    pub(super) fn mount(&mut self, on: DentryId) {
        let root = self.new_filesystem();
        self.take(on);
        self.mounts.insert(on, root);
    }

    /// Takes a mount away; the directory that it was on.
    pub(super) fn unmount(&mut self, root: DentryId) -> Option<DentryId> {
        let on = self.mounted_on(root)?;
        self.mounts.remove(&on);
        Some(on)
    }

    /// The directory that a root is mounted on.
    pub(super) fn mounted_on(&self, root: DentryId) -> Option<DentryId> {
        let mut mounts = self.mounts.iter();
        mounts.find(|(_, found)| **found == root).map(|(on, _)| *on)
    }

    pub(super) fn is_mountpoint(&self, id: DentryId) -> bool {
        self.mounts.contains_key(&id)
    }

    /// Whether some mount is covered by another: no path leads into it.
    pub(super) fn has_covered_mount(&self) -> bool {
        self.mounts.iter().any(|(on, root)| {
            let mut id = *on;
            let mut is_covered = self.is_mountpoint(*root);
            loop {
                let parent = self.dentry(id).parent;
                if parent != id {
                    id = parent;
                    is_covered |= self.is_mountpoint(id);
                    continue;
                }
                match self.mounted_on(id) {
                    Some(below) => id = below,
                    None => return is_covered,
                }
            }
        })
    }

    /// Whether something is mounted in a filesystem.
    pub(super) fn has_mounts(&self, filesystem: FilesystemId) -> bool {
        let mut mountpoints = self.mounts.keys();
        mountpoints.any(|on| self.filesystem_of(*on) == filesystem)
    }

    /// What a path that leads here shows: the root of what is mounted on top.
    pub(super) fn top(&self, mut id: DentryId) -> DentryId {
        while let Some(root) = self.mounts.get(&id) {
            id = *root;
        }
        id
    }

    pub(super) fn filesystem_of(&self, id: DentryId) -> FilesystemId {
        self.inode(self.inode_of(id)).filesystem
    }

    /// The inodes of a filesystem, newest first (`inode_sb_list_add`).
    pub(super) fn inodes_of(&self, filesystem: FilesystemId) -> Vec<InodeId> {
        let ids = (0..self.inodes.len()).rev().map(InodeId);
        ids.filter(|id| self.inode(*id).filesystem == filesystem)
            .collect()
    }

    pub(super) fn new_inode(&mut self, kind: Kind, filesystem: FilesystemId) -> InodeId {
        self.inodes.push(Inode {
            kind,
            filesystem,
            n_links: 1,
            xattrs: BTreeSet::new(),
            is_linkable: false,
        });
        InodeId(self.inodes.len() - 1)
    }

    pub(super) fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0]
    }

    pub(super) fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.0]
    }

    pub(super) fn dentry(&self, id: DentryId) -> &Dentry {
        &self.dentries[id.0]
    }

    pub(super) fn inode_of(&self, id: DentryId) -> InodeId {
        self.dentry(id).inode
    }

    pub(super) fn kind_of(&self, id: DentryId) -> &Kind {
        &self.inode(self.inode_of(id)).kind
    }

    pub(super) fn is_directory(&self, id: DentryId) -> bool {
        matches!(self.kind_of(id), Kind::Directory)
    }

    pub(super) fn child(&self, parent: DentryId, name: &[u8]) -> Option<DentryId> {
        self.dentry(parent).children.get(name).copied()
    }

    pub(super) fn is_empty(&self, id: DentryId) -> bool {
        self.dentry(id).children.is_empty()
    }

    /// Whether `id` is `ancestor` or below it.
    pub(super) fn is_within(&self, mut id: DentryId, ancestor: DentryId) -> bool {
        loop {
            if id == ancestor {
                return true;
            }
            let parent = self.dentry(id).parent;
            if id == parent {
                return false;
            }
            id = parent;
        }
    }

    /// Gives an inode a name.
    pub(super) fn attach(&mut self, parent: DentryId, name: &[u8], inode: InodeId) -> DentryId {
        let id = DentryId(self.dentries.len());
        self.dentries.push(Dentry {
            parent,
            name: name.to_vec(),
            inode,
            is_hashed: true,
            n_refs: 0,
            children: BTreeMap::new(),
        });
        self.take(parent);
        self.dentries[parent.0].children.insert(name.to_vec(), id);
        id
    }

    /// A regular file that has no name, in a directory.
    pub(super) fn attach_unnamed(&mut self, parent: DentryId, is_linkable: bool) -> DentryId {
        let filesystem = self.filesystem_of(parent);
        let inode = self.new_inode(Kind::Regular { size: 0 }, filesystem);
        *self.inode_mut(inode) = Inode {
            n_links: 0,
            is_linkable,
            ..self.inode(inode).clone()
        };
        let id = DentryId(self.dentries.len());
        self.dentries.push(Dentry {
            parent,
            name: UNNAMED.to_vec(),
            inode,
            is_hashed: false,
            n_refs: 0,
            children: BTreeMap::new(),
        });
        self.take(parent);
        id
    }

    /// Takes the name away; the dentry lives on while something refers to it.
    pub(super) fn unhash(&mut self, id: DentryId) {
        let Dentry { parent, name, .. } = self.dentry(id).clone();
        self.dentries[parent.0].children.remove(&name);
        self.dentries[id.0].is_hashed = false;
    }

    /// Moves a dentry; what stood there has to be unhashed before.
    pub(super) fn move_to(&mut self, id: DentryId, parent: DentryId, name: &[u8]) {
        let old = self.dentry(id).clone();
        self.dentries[old.parent.0].children.remove(&old.name);
        self.put_back(id, parent, name);
        self.take(parent);
        self.dentries[old.parent.0].n_refs -= 1;
    }

    /// Lets two dentries change places.
    pub(super) fn exchange(&mut self, left: DentryId, right: DentryId) {
        let (l, r) = (self.dentry(left).clone(), self.dentry(right).clone());
        self.dentries[l.parent.0].children.remove(&l.name);
        self.dentries[r.parent.0].children.remove(&r.name);
        self.put_back(left, r.parent, &r.name);
        self.put_back(right, l.parent, &l.name);
    }

    fn put_back(&mut self, id: DentryId, parent: DentryId, name: &[u8]) {
        self.dentries[id.0].parent = parent;
        self.dentries[id.0].name = name.to_vec();
        self.dentries[parent.0].children.insert(name.to_vec(), id);
    }

    pub(super) fn take(&mut self, id: DentryId) {
        self.dentries[id.0].n_refs += 1;
    }

    /// Drops one reference.
    pub(super) fn drop_ref(&mut self, id: DentryId) {
        self.dentries[id.0].n_refs -= 1;
    }

    /// Whether the dentry is at its end: no path and nobody that refers to it.
    pub(super) fn is_dead(&self, id: DentryId) -> bool {
        let dentry = self.dentry(id);
        !dentry.is_hashed && dentry.n_refs == 0
    }
}
