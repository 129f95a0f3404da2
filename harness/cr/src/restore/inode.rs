//! An inode made again: its content, attributes and times.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::error::{Context, RestoreError, RestoreErrorKind};
use super::tree::{c_string, link_to};
use crate::image::{Content, Extent, Ghost, Text};
use crate::silent;
use crate::sys::path::{self, open_beneath};
use crate::sys::raw;

/// What is a hole or is not, on the filesystems with the smallest blocks.
const PAGE: u64 = 4096;

/// Whether others may hear that the content of an inode is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// Nobody hears it, if permission events are to be had.
    Unheard,
    /// As any program writes, and so the same for every user.
    Plain,
}

/// Makes an inode with its content, readable by whoever opens it now.
pub(crate) fn create(
    (room, name): (&OwnedFd, &CStr),
    writing: Writing,
    mode: u32,
    ghost: &Ghost,
    content: Option<&Content>,
) -> Result<(), RestoreError> {
    match mode & libc::S_IFMT {
        libc::S_IFREG => {
            path::make_node(room, name, libc::S_IFREG | 0o700, 0).context("mknodat", "")?;
            if ghost.size == 0 && ghost.extents.is_empty() {
                return Ok(());
            }
            let silent = match writing {
                Writing::Unheard => {
                    let found =
                        open_beneath(room, name, libc::O_PATH, 0).context("open", "O_PATH")?;
                    silent::open(&link_to(&found), silent::Access::ReadWrite).ok()
                }
                Writing::Plain => None,
            };
            let file = match silent {
                Some(file) => file,
                None => open_beneath(room, name, libc::O_RDWR, 0).context("open", "O_RDWR")?,
            };
            write(&file, ghost, content)
        }
        libc::S_IFDIR => path::make_directory(room, name, 0o700).context("mkdirat", ""),
        libc::S_IFLNK => {
            let target = c_string(&ghost.target)?;
            path::make_link(&target, room, name).context("symlinkat", "")
        }
        kind => path::make_node(room, name, kind | 0o600, ghost.device).context("mknodat", ""),
    }
}

/// Fills a file that is open already. Nobody hears it, if permission events are to be had.
pub(super) fn fill(
    file: &OwnedFd,
    ghost: &Ghost,
    content: Option<&Content>,
) -> Result<(), RestoreError> {
    if ghost.size == 0 && ghost.extents.is_empty() {
        return Ok(());
    }
    match silent::open(&link_to(file), silent::Access::ReadWrite) {
        Ok(silent) => write(&silent, ghost, content),
        Err(_) => write(file, ghost, content),
    }
}

fn write(file: &OwnedFd, ghost: &Ghost, content: Option<&Content>) -> Result<(), RestoreError> {
    set_size(file, ghost)?;
    let fd = file.as_raw_fd();
    for extent in &ghost.extents {
        if extent.is_empty() {
            let (offset, length) = (number(extent.offset)?, number(extent.length)?);
            raw::fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, offset, length)
                .context("fallocate", "")?;
        } else {
            copy(file, extent, content)?;
        }
    }
    Ok(())
}

/// Writes the bytes of an extent.
fn copy(file: &OwnedFd, extent: &Extent, content: Option<&Content>) -> Result<(), RestoreError> {
    let mut put = |at: u64, bytes: &[u8]| {
        let mut n_written = 0;
        while n_written < bytes.len() {
            let offset = i64::try_from(extent.offset + at + n_written as u64)
                .map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
            let written = raw::pwrite(file.as_raw_fd(), &bytes[n_written..], offset)?;
            n_written += usize::try_from(written).expect("a size");
        }
        Ok(())
    };
    let copied = match (&extent.stored, content) {
        (None, _) => put(0, &extent.content),
        (Some(_), Some(content)) => content.read(extent, &mut put),
        (Some(_), None) => {
            let what = "its content is in the file of the image";
            return Err(RestoreError::new(RestoreErrorKind::Impossible(what)));
        }
    };
    copied.map_err(|error| {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        RestoreError::call("copy", "of its content", errno)
    })
}

/// Gives a file its size. ftruncate(2) would be heard, by whatever descriptor: the last byte is
/// written instead, and made a hole again. That takes pages for blocks; elsewhere it is ftruncate(2).
fn set_size(file: &OwnedFd, ghost: &Ghost) -> Result<(), RestoreError> {
    if ghost.size == 0 {
        return Ok(());
    }
    let fd = file.as_raw_fd();
    let last = ghost.size - 1;
    let holds_last = |extent: &Extent| {
        (extent.offset..extent.offset.saturating_add(extent.length)).contains(&last)
    };
    if ghost
        .extents
        .iter()
        .any(|it| !it.is_empty() && holds_last(it))
    {
        return Ok(());
    }
    let page = number(last & !(PAGE - 1))?;
    let whole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let punched = raw::pwrite(fd, &[0], number(last)?)
        .and_then(|_| raw::fallocate(fd, whole, page, PAGE.cast_signed()));
    match punched {
        Ok(_) if path::stat(file, c"").context("statx", "")?.blocks == 0 => Ok(()),
        Ok(_) | Err(Errno::EOPNOTSUPP) => {
            raw::ftruncate(fd, 0).context("ftruncate", "")?;
            let set = raw::ftruncate(fd, number(ghost.size)?);
            set.map(drop).context("ftruncate", "")
        }
        Err(errno) => Err(RestoreError::call("pwrite", "", errno)),
    }
}

fn number(value: u64) -> Result<i64, RestoreError> {
    i64::try_from(value)
        .map_err(|_| Errno::EFBIG)
        .context("size", "")
}

/// Whether an inode gets what gives rights to whoever can open or run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// It has a name: [`give_rights`] does so later.
    Withheld,
    Given,
}

/// Owner, permissions, attributes and times, in the order in which none undoes another.
pub(crate) fn set_attributes(
    (room, name): (&OwnedFd, &CStr),
    mode: u32,
    ghost: &Ghost,
    rights: Rights,
) -> Result<(), RestoreError> {
    // Never by name, which may lead elsewhere by now.
    let found = open_beneath(room, name, libc::O_PATH, 0).context("open", "O_PATH")?;
    let kind = mode & libc::S_IFMT;
    if (path::stat(&found, c"").context("statx", "")?.mode ^ mode) & libc::S_IFMT != 0 {
        return Err(RestoreError::new(RestoreErrorKind::OtherType));
    }
    if !is_device(mode) {
        path::own(&found, ghost.uid, ghost.gid).context("chown", "")?;
        if kind != libc::S_IFLNK {
            path::set_mode(&found, mode & 0o7777 & !rights_of(mode)).context("chmod", "")?;
        }
    }
    // No link is followed: lsetxattr(2) would change that of /proc.
    let path = [link_to(room).as_bytes(), b"/", name.to_bytes()].concat();
    let path = c_string(&path)?;
    let set = |name: &CStr, value: &[u8]| match kind {
        libc::S_IFLNK => path::set_xattr(&path, name, value),
        _ => raw::setxattr(&link_to(&found), name, value, 0).map(drop),
    };
    for xattr in ghost.xattrs.iter().filter(|it| !gives_rights(&it.name)) {
        set(&c_string(&xattr.name)?, &xattr.value).context("setxattr", Text(&xattr.name))?;
    }
    if kind == libc::S_IFLNK {
        // Nobody gets rights by a link, and it can be reached by its name alone.
        for xattr in ghost.xattrs.iter().filter(|it| gives_rights(&it.name)) {
            set(&c_string(&xattr.name)?, &xattr.value).context("setxattr", Text(&xattr.name))?;
        }
    } else if rights == Rights::Given {
        add_rights(&found, mode, ghost)?;
    }
    let fd = room.as_raw_fd();
    raw::utimensat(fd, Some(name), &times(ghost), libc::AT_SYMLINK_NOFOLLOW)
        .map(drop)
        .context("utimensat", "")
}

/// Gives a ghost that has lost its name what [`set_attributes`] has withheld.
pub(super) fn give_rights(file: &OwnedFd, mode: u32, ghost: &Ghost) -> Result<(), RestoreError> {
    let has_some = is_device(mode)
        || mode & rights_of(mode) != 0
        || ghost.xattrs.iter().any(|it| gives_rights(&it.name));
    if !has_some || mode & libc::S_IFMT == libc::S_IFLNK {
        return Ok(());
    }
    // Nobody links an inode that has no name (`vfs_link`), so this stays so.
    let n_links = path::stat(file, c"").context("statx", "")?.nlink;
    if mode & libc::S_IFMT != libc::S_IFDIR && n_links != 0 {
        let what = "somebody gave it another name, and would get rights by it";
        return Err(RestoreError::new(RestoreErrorKind::Impossible(what)));
    }
    add_rights(file, mode, ghost)
}

/// Which bits of a mode give rights. Those of a directory do not: they are about what is made in it.
fn rights_of(mode: u32) -> u32 {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => 0,
        _ => libc::S_ISUID | libc::S_ISGID,
    }
}

fn is_device(mode: u32) -> bool {
    matches!(mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK)
}

/// Whether an attribute is one that the kernel goes by: `security.capability` above all.
fn gives_rights(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"trusted.")
}

fn add_rights(file: &OwnedFd, mode: u32, ghost: &Ghost) -> Result<(), RestoreError> {
    if is_device(mode) {
        path::own(file, ghost.uid, ghost.gid).context("chown", "")?;
    }
    if is_device(mode) || mode & rights_of(mode) != 0 {
        path::set_mode(file, mode & 0o7777).context("chmod", "")?;
    }
    for xattr in ghost.xattrs.iter().filter(|it| gives_rights(&it.name)) {
        raw::setxattr(&link_to(file), &c_string(&xattr.name)?, &xattr.value, 0)
            .context("setxattr", Text(&xattr.name))?;
    }
    Ok(())
}

pub(super) fn set_xattrs(
    path: &CStr,
    ghost: &Ghost,
    set: impl Fn(&CStr, &CStr, &[u8]) -> Result<(), Errno>,
) -> Result<(), RestoreError> {
    for xattr in &ghost.xattrs {
        let name = c_string(&xattr.name)?;
        set(path, &name, &xattr.value).context("setxattr", Text(&xattr.name))?;
    }
    Ok(())
}

/// Access and modification time, as utimensat(2) takes them.
pub(super) fn times(ghost: &Ghost) -> [(i64, i64); 2] {
    let (accessed, modified) = (ghost.accessed, ghost.modified);
    [(accessed.sec, accessed.nsec), (modified.sec, modified.nsec)]
}
