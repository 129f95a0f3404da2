//! Scratch inodes: files and directories on a detached tmpfs that carry the wds of the saved
//! events, so that nothing real is touched.
//!
//! An inode is named, never held open: a queue may speak of more watches than a process may have
//! descriptors, and a deleted inode must go at once.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use fsnotify::Wd;
use fsnotify::inotify::Mask;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::error::Reason;
use super::plan::Inode;
use super::record;
use crate::sys::{raw, tmpfs, watch};

/// Selects nothing.
const HARMLESS: u32 = watch::NO_EVENT.0;

const NO_SPACE: Called<Wd> = Err(Reason::Call {
    call: "inotify_add_watch",
    errno: Errno::ENOSPC,
});

/// Where renames come from and go to: a directory that nothing watches.
pub(super) const ASIDE: &str = "aside";

/// How long others may keep a filesystem mounted by what they have not closed yet.
const LIMIT: Duration = Duration::from_secs(5);

/// Children of one directory that are kept for later events.
const MOST_CHILDREN: usize = 1024;

#[derive(Debug)]
pub(super) struct Scratch<'g> {
    group: BorrowedFd<'g>,
    root: OwnedFd,
    holders: HashMap<Wd, Holder>,
    n_names: usize,
    /// How often an inode was asked for.
    n_uses: usize,
    witness: Witness,
}

/// The inode that carries a wd.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) name: String,
    pub(super) inode: Inode,
    /// A tmpfs of its own, if the watch is to end by an unmount.
    mount: Option<OwnedFd>,
    mask: u32,
    /// When it was asked for last.
    used: usize,
    children: HashMap<Vec<u8>, Inode>,
}

/// A system call that failed, by its name.
pub(super) type Called<T> = Result<T, Reason>;

/// Names the call in its failure.
pub(super) fn call<T>(call: &'static str, result: Result<T, Errno>) -> Called<T> {
    result.map_err(|errno| Reason::Call { call, errno })
}

impl<'g> Scratch<'g> {
    pub(super) fn new(group: BorrowedFd<'g>) -> Result<Self, Errno> {
        Ok(Self {
            group,
            root: new_root()?,
            holders: HashMap::new(),
            n_names: 0,
            n_uses: 0,
            witness: Witness::default(),
        })
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// A name that was not used before.
    pub(super) fn fresh_name(&mut self) -> String {
        self.n_names += 1;
        format!("{}", self.n_names)
    }

    /// Sees to it that the wd is on an inode of this kind, and on its own filesystem if `doomed`.
    ///
    /// What it was on before is dropped, which is unheard only in a closed gate (`may_drop`).
    pub(super) fn hold(
        &mut self,
        wd: Wd,
        (inode, doomed): (Inode, bool),
        may_drop: bool,
    ) -> Called<()> {
        self.n_uses += 1;
        if let Some(holder) = self.holders.get_mut(&wd) {
            holder.used = self.n_uses;
            if holder.inode == inode && (!doomed || holder.mount.is_some()) {
                return Ok(());
            }
            if !may_drop {
                return Err(Reason::InodeBeforeOverflow);
            }
            self.remove_watch(wd)?;
        }
        let mount = doomed.then(new_root).transpose();
        let mut holder = Holder {
            name: self.fresh_name(),
            inode,
            mount: call("fsmount", mount)?,
            mask: HARMLESS,
            used: self.n_uses,
            children: HashMap::new(),
        };
        let dir = holder.dir(&self.root);
        call("mknodat", make(dir, holder.name.as_bytes(), inode))?;
        let mut got = holder.begin(&self.root, self.group, wd);
        // The user has as many watches as he may. What is dropped comes back when it is asked for.
        while may_drop && got == NO_SPACE && self.drop_oldest()? {
            got = holder.begin(&self.root, self.group, wd);
        }
        let got = got?;
        if got != wd {
            call("inotify_rm_watch", watch::rm_watch(self.group, got))?;
            return Err(Reason::WdTaken { got: got.number() });
        }
        self.holders.insert(wd, holder);
        Ok(())
    }

    /// Drops the watch that was not asked for for longest; false if there is none that can be spared:
    /// a rename takes two.
    fn drop_oldest(&mut self) -> Called<bool> {
        let oldest = self.holders.iter().min_by_key(|(_, holder)| holder.used);
        match oldest.map(|(wd, holder)| (*wd, holder.used)) {
            Some((wd, used)) if used + 1 < self.n_uses => self.remove_watch(wd).map(|()| true),
            Some(_) | None => Ok(false),
        }
    }

    pub(super) fn is_held(&self, wd: Wd) -> bool {
        self.holders.contains_key(&wd)
    }

    /// The inode that carries the wd, and the directory that its name is relative to.
    pub(super) fn at(&self, wd: Wd) -> (BorrowedFd<'_>, &Holder) {
        let holder = self.holders.get(&wd).expect("held before it is used");
        (holder.dir(&self.root), holder)
    }

    /// Lets the watch select these events and no other.
    pub(super) fn arm(&mut self, wd: Wd, mask: u32) -> Called<()> {
        let holder = self.holders.get_mut(&wd).expect("held before it is armed");
        if holder.mask == mask {
            return Ok(());
        }
        holder.set_mask(&self.root, self.group, mask).map(drop)
    }

    /// Lets the watch select nothing.
    pub(super) fn disarm(&mut self, wd: Wd) -> Called<()> {
        if self.is_held(wd) {
            self.arm(wd, HARMLESS)
        } else {
            Ok(())
        }
    }

    /// Renames what carries the wd.
    pub(super) fn renamed(&mut self, wd: Wd, name: String) {
        if let Some(holder) = self.holders.get_mut(&wd) {
            holder.name = name;
        }
    }

    /// Makes the child be there, as a file or directory.
    pub(super) fn child_there(&mut self, wd: Wd, name: &[u8], inode: Inode) -> Called<()> {
        let holder = self.holders.get_mut(&wd).expect("held");
        if holder.children.get(name) == Some(&inode) {
            return Ok(());
        }
        holder.remove_child(&self.root, name)?;
        if holder.children.len() >= MOST_CHILDREN {
            holder.remove_children(&self.root)?;
        }
        call(
            "mknodat",
            make(holder.dir(&self.root), &holder.path(name), inode),
        )?;
        holder.children.insert(name.to_vec(), inode);
        Ok(())
    }

    /// Makes the child not be there.
    pub(super) fn child_absent(&mut self, wd: Wd, name: &[u8]) -> Called<()> {
        let holder = self.holders.get_mut(&wd).expect("held");
        holder.remove_child(&self.root, name)
    }

    /// Notes that an operation made the child.
    pub(super) fn child_came(&mut self, wd: Wd, name: &[u8], inode: Inode) {
        let holder = self.holders.get_mut(&wd).expect("held");
        holder.children.insert(name.to_vec(), inode);
    }

    /// Notes that an operation removed the child.
    pub(super) fn child_went(&mut self, wd: Wd, name: &[u8]) {
        let holder = self.holders.get_mut(&wd).expect("held");
        holder.children.remove(name);
    }

    /// Empties the directory that carries the wd.
    pub(super) fn remove_children(&mut self, wd: Wd) -> Called<()> {
        let holder = self.holders.get_mut(&wd).expect("held");
        holder.remove_children(&self.root)
    }

    /// Unmounts the filesystem that the inode of the wd is alone on.
    pub(super) fn unmount(&mut self, wd: Wd) -> Called<()> {
        let holder = self.holders.remove(&wd).expect("held");
        let mount = holder.mount.expect("held as doomed");
        let gone = self.witness.unmount(mount);
        if call("unmount", gone)? {
            Ok(())
        } else {
            Err(Reason::StillMounted)
        }
    }

    /// Drops the watch, and removes what carried it.
    pub(super) fn remove_watch(&mut self, wd: Wd) -> Called<()> {
        call("inotify_rm_watch", watch::rm_watch(self.group, wd))?;
        let mut holder = self.holders.remove(&wd).expect("held");
        holder.remove_children(&self.root)?;
        let removed = remove(holder.dir(&self.root), holder.name.as_bytes(), holder.inode);
        call("unlinkat", removed)
    }

    /// Notes that the watch and its inode are gone.
    pub(super) fn is_gone(&mut self, wd: Wd) {
        self.holders.remove(&wd);
    }

    /// Drops every watch that is left. Unheard only in a closed gate.
    pub(super) fn drop_watches(&mut self) -> Result<(), Errno> {
        let mut wds = self.holders.keys();
        wds.try_for_each(|wd| watch::rm_watch(self.group, *wd))?;
        self.holders.clear();
        Ok(())
    }
}

/// A group that hears an unmount after the one that is rebuilt. The last close of a filesystem may
/// be another's: a process that was forked by another thread has what was open, until it runs a
/// program.
#[derive(Debug, Default)]
struct Witness(Option<OwnedFd>);

impl Witness {
    /// Closes the last descriptor of ours of a mount, and waits until the filesystem is gone: false
    /// if it is not in time.
    fn unmount(&mut self, root: OwnedFd) -> Result<bool, Errno> {
        let group = match self.0.take().map_or_else(watch::init, Ok) {
            // The user has no group left. A restore has one thread, so the close is the last.
            Err(Errno::EMFILE) => return Ok(true),
            group => group?,
        };
        // The root hears it last: it was made first (`inode_sb_list_add`, `fsnotify_sb_delete`).
        let path = format!("/proc/self/fd/{}", root.as_raw_fd());
        let wd = watch::add_watch(group.as_fd(), path.as_bytes(), Mask(HARMLESS))?;
        drop(root);
        let deadline = Instant::now() + LIMIT;
        let has_ended = |events: &[u8]| record::find_ignored(events, 0, |it| it == wd).is_some();
        while !has_ended(&super::drain(group.as_fd())?) {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = i32::try_from(left.as_millis()).expect("less than LIMIT");
            if left == 0 || !raw::readable(group.as_raw_fd(), left)? {
                return Ok(false);
            }
        }
        self.0 = Some(group);
        Ok(true)
    }
}

impl Holder {
    fn dir<'a>(&'a self, root: &'a OwnedFd) -> BorrowedFd<'a> {
        self.mount.as_ref().unwrap_or(root).as_fd()
    }

    /// Of a child, relative to the directory that the inode's own name is relative to.
    pub(super) fn path(&self, child: &[u8]) -> Vec<u8> {
        [self.name.as_bytes(), b"/", child].concat()
    }

    /// Makes the watch.
    fn begin(&mut self, root: &OwnedFd, group: BorrowedFd<'_>, wd: Wd) -> Called<Wd> {
        call("INOTIFY_IOC_SETNEXTWD", watch::set_next_wd(group, wd))?;
        self.set_mask(root, group, HARMLESS)
    }

    fn set_mask(&mut self, root: &OwnedFd, group: BorrowedFd<'_>, mask: u32) -> Called<Wd> {
        let dir = self.dir(root).as_raw_fd();
        let path = format!("/proc/self/fd/{dir}/{}", self.name);
        let wd = watch::add_watch(group, path.as_bytes(), Mask(mask));
        self.mask = mask;
        call("inotify_add_watch", wd)
    }

    fn remove_child(&mut self, root: &OwnedFd, name: &[u8]) -> Called<()> {
        match self.children.remove(name) {
            Some(inode) => call("unlinkat", remove(self.dir(root), &self.path(name), inode)),
            None => Ok(()),
        }
    }

    fn remove_children(&mut self, root: &OwnedFd) -> Called<()> {
        for (name, inode) in std::mem::take(&mut self.children) {
            call("unlinkat", remove(self.dir(root), &self.path(&name), inode))?;
        }
        Ok(())
    }
}

fn new_root() -> Result<OwnedFd, Errno> {
    let root = tmpfs::detached()?;
    mkdirat(&root, ASIDE, Mode::S_IRWXU)?;
    Ok(root)
}

/// Makes an empty file or directory.
pub(super) fn make(dir: BorrowedFd<'_>, path: &[u8], inode: Inode) -> Result<(), Errno> {
    match inode {
        Inode::File => mknodat(dir, path, SFlag::S_IFREG, Mode::S_IRWXU, 0),
        Inode::Dir => mkdirat(dir, path, Mode::S_IRWXU),
    }
}

pub(super) fn remove(dir: BorrowedFd<'_>, path: &[u8], inode: Inode) -> Result<(), Errno> {
    let flag = match inode {
        Inode::File => UnlinkatFlags::NoRemoveDir,
        Inode::Dir => UnlinkatFlags::RemoveDir,
    };
    unlinkat(dir, path, flag)
}

pub(super) fn open(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(dir, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

pub(super) fn open_to_execute(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    tmpfs::open_to_execute(dir, &path)
}
