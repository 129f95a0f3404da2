//! Makes the events of a plan again, one operation a step.
//!
//! A step prepares its scratch inodes, lets the watch select the one event, asks the gate to let it
//! through, and does the operation. In a closed gate everything but the operation is unheard. In
//! an open one the watch selects nothing while anything else is done.

use std::os::fd::{BorrowedFd, OwnedFd};

use fsnotify::Wd;
use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{ftruncate, write};

use super::gate::Gate;
use super::plan::{Act, Child, End, Entry, Exit, Inode, Step, Touch};
use super::scratch::{ASIDE, Called, Scratch, call, make, open, open_to_execute, remove};
use crate::sys::tmpfs;

/// Makes the events of one step.
pub(super) fn perform<'g>(
    step: &Step<'_>,
    gate: &mut Gate<'g>,
    scratch: &mut Scratch<'g>,
) -> Called<()> {
    let mut stage = Stage {
        step,
        gate,
        scratch,
    };
    match step.act {
        Act::TouchSelf(wd, touch) => stage.touch(wd, None, touch),
        Act::TouchChild(child, touch) => stage.touch(child.wd, Some(child), touch),
        Act::Enter(child, entry) => stage.enter(child, entry),
        Act::Leave(child, exit) => stage.leave(child, exit),
        Act::Rename { from, to } => stage.rename(from, to),
        Act::MoveSelf(wd) => stage.move_self(wd),
        Act::End(wd, End::Delete) => stage.delete_self(wd),
        Act::End(wd, End::Unmount) => stage.unmount(wd),
        Act::End(wd, End::Remove) => stage.remove_watch(wd),
        Act::Overflow => call("fchmod", stage.gate.overflow()),
    }
}

struct Stage<'s, 'e, 'g> {
    step: &'s Step<'e>,
    gate: &'s mut Gate<'g>,
    scratch: &'s mut Scratch<'g>,
}

impl Stage<'_, '_, '_> {
    fn hold(&mut self, wd: Wd) -> Called<()> {
        let Step { inode, act, .. } = *self.step;
        // In a closed gate an unmount needs no preparation before its own step.
        let unmounts = matches!(act, Act::End(_, End::Unmount));
        let doomed = self.step.doomed || unmounts;
        self.scratch
            .hold(wd, (inode, doomed), self.gate.is_closed())
    }

    /// Lets the events of this step through, selected by `mask` at the watch.
    fn admit(&mut self, wd: Wd, mask: u32) -> Called<()> {
        self.scratch.arm(wd, mask)?;
        call("read", self.gate.admit(self.step.n_events))
    }

    /// Behind the operation: in an open gate the watch must be deaf again.
    fn done(&mut self, wd: Wd) -> Called<()> {
        if self.gate.is_closed() {
            Ok(())
        } else {
            self.scratch.disarm(wd)
        }
    }

    fn touch(&mut self, wd: Wd, child: Option<Child<'_>>, touch: Touch) -> Called<()> {
        self.hold(wd)?;
        if let Some(Child { name, inode, .. }) = child {
            self.scratch.child_there(wd, name, inode)?;
        }
        let (_, holder) = self.scratch.at(wd);
        let (path, inode) = match child {
            None => (holder.name.clone().into_bytes(), holder.inode),
            Some(child) => (holder.path(child.name), child.inode),
        };
        let (dir, _) = self.scratch.at(wd);
        let ready = Ready::new(touch, dir, &path, inode)?;
        self.admit(wd, touch.mask())?;
        let (dir, _) = self.scratch.at(wd);
        let opened = ready.go(dir, &path)?;
        self.done(wd)?;
        // What the touch opened is closed when nothing hears it.
        drop(opened);
        Ok(())
    }

    fn enter(&mut self, Child { wd, name, inode }: Child<'_>, entry: Entry) -> Called<()> {
        self.hold(wd)?;
        self.scratch.child_absent(wd, name)?;
        let aside = format!("{ASIDE}/{}", self.scratch.fresh_name());
        let mask = match entry {
            Entry::Create => libc::IN_CREATE,
            Entry::MoveIn => {
                let (dir, _) = self.scratch.at(wd);
                call("mknodat", make(dir, aside.as_bytes(), inode))?;
                libc::IN_MOVED_TO
            }
        };
        self.admit(wd, mask)?;
        let (dir, holder) = self.scratch.at(wd);
        let path = holder.path(name);
        match entry {
            Entry::Create => call("mknodat", make(dir, &path, inode))?,
            Entry::MoveIn => call("renameat", renameat(dir, aside.as_bytes(), dir, &path[..]))?,
        }
        self.scratch.child_came(wd, name, inode);
        self.done(wd)
    }

    fn leave(&mut self, Child { wd, name, inode }: Child<'_>, exit: Exit) -> Called<()> {
        self.hold(wd)?;
        self.scratch.child_there(wd, name, inode)?;
        let aside = format!("{ASIDE}/{}", self.scratch.fresh_name());
        self.admit(
            wd,
            match exit {
                Exit::Delete => libc::IN_DELETE,
                Exit::MoveOut => libc::IN_MOVED_FROM,
            },
        )?;
        let (dir, holder) = self.scratch.at(wd);
        let path = holder.path(name);
        match exit {
            Exit::Delete => call("unlinkat", remove(dir, &path, inode))?,
            Exit::MoveOut => {
                call("renameat", renameat(dir, &path[..], dir, aside.as_bytes()))?;
                call("unlinkat", remove(dir, aside.as_bytes(), inode))?;
            }
        }
        self.scratch.child_went(wd, name);
        self.done(wd)
    }

    fn rename(&mut self, from: Child<'_>, to: Child<'_>) -> Called<()> {
        self.hold(from.wd)?;
        self.hold(to.wd)?;
        self.scratch.child_absent(to.wd, to.name)?;
        self.scratch.child_there(from.wd, from.name, from.inode)?;
        if from.wd == to.wd {
            self.admit(from.wd, libc::IN_MOVED_FROM | libc::IN_MOVED_TO)?;
        } else {
            self.scratch.arm(to.wd, libc::IN_MOVED_TO)?;
            self.admit(from.wd, libc::IN_MOVED_FROM)?;
        }
        let (from_dir, holder) = self.scratch.at(from.wd);
        let from_path = holder.path(from.name);
        let (to_dir, holder) = self.scratch.at(to.wd);
        let to_path = holder.path(to.name);
        call(
            "renameat",
            renameat(from_dir, &from_path[..], to_dir, &to_path[..]),
        )?;
        self.scratch.child_went(from.wd, from.name);
        self.scratch.child_came(to.wd, to.name, to.inode);
        self.done(from.wd)?;
        self.done(to.wd)
    }

    fn move_self(&mut self, wd: Wd) -> Called<()> {
        self.hold(wd)?;
        let name = self.scratch.fresh_name();
        self.admit(wd, libc::IN_MOVE_SELF)?;
        let (dir, holder) = self.scratch.at(wd);
        call(
            "renameat",
            renameat(dir, holder.name.as_bytes(), dir, name.as_bytes()),
        )?;
        self.scratch.renamed(wd, name);
        self.done(wd)
    }

    /// The last link goes, and nothing holds the inode open: it is evicted in the call, which
    /// says DELETE_SELF and drops the watch.
    fn delete_self(&mut self, wd: Wd) -> Called<()> {
        self.hold(wd)?;
        self.scratch.remove_children(wd)?;
        self.admit(wd, libc::IN_DELETE_SELF)?;
        let (dir, holder) = self.scratch.at(wd);
        call(
            "unlinkat",
            remove(dir, holder.name.as_bytes(), holder.inode),
        )?;
        self.scratch.is_gone(wd);
        self.ended();
        Ok(())
    }

    fn unmount(&mut self, wd: Wd) -> Called<()> {
        self.hold(wd)?;
        call("read", self.gate.admit(self.step.n_events))?;
        self.scratch.unmount(wd)?;
        self.ended();
        Ok(())
    }

    fn ended(&mut self) {
        if self.step.overflows {
            self.gate.has_overflowed();
        }
    }

    fn remove_watch(&mut self, wd: Wd) -> Called<()> {
        self.hold(wd)?;
        call("read", self.gate.admit(self.step.n_events))?;
        self.scratch.remove_watch(wd)
    }
}

impl Touch {
    fn mask(self) -> u32 {
        match self {
            Self::Access => libc::IN_ACCESS,
            Self::Modify => libc::IN_MODIFY,
            Self::Attrib => libc::IN_ATTRIB,
            Self::ModifyAttrib => libc::IN_MODIFY | libc::IN_ATTRIB,
            Self::Open | Self::OpenToExecute => libc::IN_OPEN,
            Self::CloseWrite => libc::IN_CLOSE_WRITE,
            Self::CloseNowrite => libc::IN_CLOSE_NOWRITE,
        }
    }
}

/// A touch that one call more completes.
enum Ready {
    /// Sets the one time, which is what reading and writing do as far as events go
    /// (`fsnotify_change`), on directories as on files.
    Times([TimeSpec; 2]),
    Chmod,
    Truncate(OwnedFd),
    Open(OFlag),
    OpenToExecute,
    Close(OwnedFd),
}

impl Ready {
    fn new(touch: Touch, dir: BorrowedFd<'_>, path: &[u8], inode: Inode) -> Called<Self> {
        let opened = |flags| call("openat", open(dir, path, flags));
        let plain = match inode {
            Inode::File => OFlag::O_RDONLY,
            Inode::Dir => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        };
        Ok(match touch {
            Touch::Access => Self::Times([TimeSpec::UTIME_NOW, TimeSpec::UTIME_OMIT]),
            Touch::Modify => Self::Times([TimeSpec::UTIME_OMIT, TimeSpec::UTIME_NOW]),
            Touch::Attrib => Self::Chmod,
            Touch::ModifyAttrib => {
                let set_ids = Mode::S_ISUID | Mode::S_ISGID | Mode::S_IRWXU | Mode::S_IXGRP;
                let follow = FchmodatFlags::FollowSymlink;
                call("fchmodat", fchmodat(dir, path, set_ids, follow))?;
                Self::Truncate(opened(OFlag::O_WRONLY)?)
            }
            Touch::Open => Self::Open(plain),
            Touch::OpenToExecute => {
                let file = opened(OFlag::O_WRONLY)?;
                call("write", write(&file, tmpfs::NOT_A_PROGRAM))?;
                Self::OpenToExecute
            }
            Touch::CloseWrite => Self::Close(opened(OFlag::O_WRONLY)?),
            Touch::CloseNowrite => Self::Close(opened(plain)?),
        })
    }

    /// Does it. A descriptor that comes back is still to be closed.
    fn go(self, dir: BorrowedFd<'_>, path: &[u8]) -> Called<Option<OwnedFd>> {
        match self {
            Self::Times([access, change]) => {
                let follow = UtimensatFlags::FollowSymlink;
                call("utimensat", utimensat(dir, path, &access, &change, follow))?;
                Ok(None)
            }
            Self::Chmod => {
                let follow = FchmodatFlags::FollowSymlink;
                call("fchmodat", fchmodat(dir, path, Mode::S_IRWXU, follow))?;
                Ok(None)
            }
            Self::Truncate(file) => {
                let truncated = tmpfs::without_fsetid(|| ftruncate(&file, 0));
                call("ftruncate", truncated)?;
                Ok(Some(file))
            }
            Self::Open(flags) => call("openat", open(dir, path, flags)).map(Some),
            Self::OpenToExecute => {
                call("execveat", open_to_execute(dir, path))?;
                Ok(None)
            }
            Self::Close(file) => {
                drop(file);
                Ok(None)
            }
        }
    }
}
