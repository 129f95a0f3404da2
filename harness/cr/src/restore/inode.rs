//! An inode made again: its content, attributes and times.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use super::error::{Context, RestoreError, RestoreErrorKind};
use super::tree::{c_string, link_to};
use crate::image::{Content, Extent, Ghost, Text};
use crate::silent;
use crate::sys::inspect::{self, Attribute};
use crate::sys::path::{self, open_beneath};
use crate::sys::{inode_flags, raw};

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
    // Only an empty file takes that one.
    let wanted = ghost.flags.unwrap_or(0) & inode_flags::NO_COPY_ON_WRITE;
    if wanted != 0 {
        let own = inode_flags::flags(file).context("ioctl", "FS_IOC_GETFLAGS")?;
        inode_flags::set_flags(file, own | wanted).context("ioctl", "FS_IOC_SETFLAGS")?;
    }
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
    // Of the largest file the last page has an end, but no byte behind that.
    let length = PAGE.cast_signed().min(i64::MAX - page);
    let whole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let punched =
        raw::pwrite(fd, &[0], number(last)?).and_then(|_| raw::fallocate(fd, whole, page, length));
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

/// Gives an inode the flags and the project that it had. That comes when it has lost its name again: of
/// an immutable one no name can be removed.
pub(super) fn set_flags(file: impl AsFd, ghost: &Ghost) -> Result<(), RestoreError> {
    if let (Some(project), Ok(own)) = (ghost.project, inode_flags::project(&file))
        && own != project
    {
        inode_flags::set_project(&file, project).context("ioctl", "FS_IOC_FSSETXATTR")?;
    }
    let Some(flags) = ghost.flags else {
        return Ok(());
    };
    match inode_flags::flags(&file) {
        Ok(own) if own & inode_flags::SETTABLE == flags => Ok(()),
        Ok(own) => inode_flags::set_flags(&file, own & !inode_flags::SETTABLE | flags)
            .context("ioctl", "FS_IOC_SETFLAGS"),
        // A filesystem without flags.
        Err(_) if flags == 0 => Ok(()),
        Err(errno) => Err(RestoreError::call("ioctl", "FS_IOC_GETFLAGS", errno)),
    }
}

/// Owner, attributes, permissions and times, in the order in which none undoes another: a new owner
/// takes bits of the mode away, and what is set needs the right to write.
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
    }
    if kind == libc::S_IFLNK {
        // It can be reached by its name alone, and nobody gets rights by it.
        let path = [link_to(room).as_bytes(), b"/", name.to_bytes()].concat();
        let calls = (path::set_xattr, path::remove_xattr);
        set_xattrs(&c_string(&path)?, ghost, |_| true, calls)?;
    } else {
        set_xattrs(
            &link_to(&found),
            ghost,
            |name| !gives_rights(name),
            (set_xattr, remove_xattr),
        )?;
        if !is_device(mode) {
            path::set_mode(&found, mode & 0o7777 & !rights_of(mode)).context("chmod", "")?;
        }
        if rights == Rights::Given {
            add_rights(&found, mode, ghost)?;
        }
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
    set_xattrs(
        &link_to(file),
        ghost,
        gives_rights,
        (set_xattr, remove_xattr),
    )
}

fn set_xattr(path: &CStr, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    raw::setxattr(path, name, value, 0).map(drop)
}

fn remove_xattr(path: &CStr, name: &CStr) -> Result<(), Errno> {
    raw::removexattr(path, name).map(drop)
}

/// Gives an inode its attributes, and takes those that it has got where it was made: access control
/// lists are inherited (`posix_acl_create`), and so is what btrfs keeps as attributes. Those that are
/// not meant come another time.
pub(super) fn set_xattrs(
    path: &CStr,
    ghost: &Ghost,
    is_meant: impl Fn(&[u8]) -> bool,
    (set, remove): (
        impl Fn(&CStr, &CStr, &[u8]) -> Result<(), Errno>,
        impl Fn(&CStr, &CStr) -> Result<(), Errno>,
    ),
) -> Result<(), RestoreError> {
    let found = inspect::xattrs(OsStr::from_bytes(path.to_bytes()).as_ref());
    let found = found.context("listxattr", "")?;
    for (own, _) in &found {
        let is_wanted = ghost.xattrs.iter().any(|xattr| xattr.name == *own);
        // What a security module gives to every inode it does not take back.
        if !is_wanted && !own.starts_with(b"security.") {
            remove(path, &c_string(own)?).context("removexattr", Text(own))?;
        }
    }
    for xattr in ghost.xattrs.iter().filter(|it| is_meant(&it.name)) {
        let is_there =
            |(name, value): &Attribute| *name == xattr.name && value.as_ref() == Ok(&xattr.value);
        if !found.iter().any(is_there) {
            let name = c_string(&xattr.name)?;
            set(path, &name, &xattr.value).context("setxattr", Text(&xattr.name))?;
        }
    }
    Ok(())
}

/// Access and modification time, as utimensat(2) takes them.
pub(super) fn times(ghost: &Ghost) -> [(i64, i64); 2] {
    let (accessed, modified) = (ghost.accessed, ghost.modified);
    [(accessed.sec, accessed.nsec), (modified.sec, modified.nsec)]
}
