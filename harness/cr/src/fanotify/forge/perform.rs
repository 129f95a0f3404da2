//! Makes the calls of a script. Nothing here allocates or takes a lock: it may run in the copy of
//! a process that has several threads.

use std::ffi::CStr;
use std::os::fd::RawFd;

use nix::errno::Errno;

use super::script::Step;
use crate::sys::actor::Stopped;
use crate::sys::descriptor::borrow;
use crate::sys::{block, path, raw, tmpfs};

/// A step below the root of a filesystem.
pub(super) type Placed = (RawFd, Step);

/// Makes every call, until one fails; marks are those of `group`.
pub(super) fn perform(group: RawFd, steps: &[Placed]) -> Result<(), Stopped> {
    let mut opened = -1;
    let mut steps = steps.iter().enumerate();
    let result = steps.try_for_each(|(index, (root, step))| {
        one((*root, group), step, &mut opened).map_err(|errno| (index, errno))
    });
    if result.is_err() && opened >= 0 {
        let _ = raw::close(opened);
    }
    result
}

fn one((root, group): (RawFd, RawFd), step: &Step, opened: &mut RawFd) -> Result<(), Errno> {
    let done = match step {
        Step::Mark(flags, mask, path) => {
            raw::fanotify_mark(group, *flags, *mask, root, Some(path.as_c_str()))
        }
        Step::Open(path, flags) => {
            *opened = open(root, path, *flags)?;
            return Ok(());
        }
        Step::Close => raw::close(std::mem::replace(opened, -1)),
        Step::Execute(path) => return tmpfs::open_to_execute(borrow(&root), path),
        Step::Link(from, to) => raw::linkat(root, from, root, to, 0),
        Step::Unlink(path) => raw::unlinkat(root, path, 0),
        Step::RemoveFolder(path) => raw::unlinkat(root, path, libc::AT_REMOVEDIR),
        Step::Rename(from, to) => raw::renameat(root, from, root, to),
        Step::MakeFile(path) => raw::mknodat(root, path, libc::S_IFREG | 0o700),
        Step::MakeFolder(path) => raw::mkdirat(root, path, 0o700),
        Step::ChangeMode(path) => raw::fchmodat(root, path, 0o700),
        Step::Accessed(path) => raw::utimensat(root, Some(path), &[NOW, OMIT], 0),
        Step::Modified(path) => raw::utimensat(root, Some(path), &[OMIT, NOW], 0),
        Step::Generation(path, generation) => return set(root, path, *generation),
        Step::Is(path, ino) => return is(root, path, *ino),
    };
    done.map(drop)
}

const NOW: (i64, i64) = (0, libc::UTIME_NOW);
const OMIT: (i64, i64) = (0, libc::UTIME_OMIT);

fn open(root: RawFd, path: &CStr, flags: i32) -> Result<RawFd, Errno> {
    let fd = raw::openat(root, path, flags | libc::O_CLOEXEC | libc::O_NONBLOCK, 0)?;
    i32::try_from(fd).map_err(|_| Errno::EBADF)
}

fn set(root: RawFd, path: &CStr, generation: u32) -> Result<(), Errno> {
    let fd = open(root, path, libc::O_RDONLY)?;
    let done = block::set_generation(fd, generation);
    raw::close(fd)?;
    done
}

/// `EXDEV` for another inode: no call of ours fails so for another reason.
fn is(root: RawFd, name: &CStr, ino: u32) -> Result<(), Errno> {
    let found = path::stat(borrow(&root), name)?;
    if found.ino == u64::from(ino) {
        Ok(())
    } else {
        Err(Errno::EXDEV)
    }
}
