//! What it takes to make an inode without a name again, read without being heard.
//!
//! Attributes come from statx(2) and getxattr(2), which make no event. Content comes through a
//! mapping of a descriptor that the subject can read itself; for one that it can only write, and
//! where looking for holes would move a shared offset, through the silent open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::error::{DumpError, DumpErrorKind};
use super::files::Held;
use crate::Loss;
use crate::image::{Extent, Ghost, PIECE, Time, Writer, Xattr};
use crate::silent;
use crate::sys::memory::Mapping;
use crate::sys::path::{self, Stat};
use crate::sys::{descriptor, handle, inspect, raw};

/// Offsets of mappings are multiples of it on x86 and arm64 with 4 KiB pages.
const PAGE: u64 = 4096;
/// Content that stays in memory, of all ghosts of an image that is written to a file.
const MOST_IN_MEMORY: u64 = 1 << 20;

/// Where the content of ghosts goes.
#[derive(Debug)]
pub(super) enum Store {
    /// Nowhere: the inodes live on.
    Nowhere,
    Memory,
    /// Into the file of the image, but for the first bytes.
    File {
        writer: Writer,
        in_memory: u64,
    },
}

impl Store {
    pub(super) fn file(writer: Writer) -> Self {
        Self::File {
            writer,
            in_memory: 0,
        }
    }

    /// Keeps the bytes of an extent.
    fn keep(&mut self, offset: u64, content: Vec<u8>) -> Result<Extent, DumpError> {
        let length = content.len() as u64;
        let mut extent = Extent {
            offset,
            length,
            ..Extent::default()
        };
        match self {
            _ if content.iter().all(|&byte| byte == 0) => {}
            Self::File { writer, in_memory } if *in_memory + length > MOST_IN_MEMORY => {
                let stored = writer.store(&content);
                let stored = stored.map_err(|error| DumpError::io("write", "image", &error))?;
                extent.stored = Some(stored);
            }
            Self::File { in_memory, .. } => {
                *in_memory += length;
                extent.content = content;
            }
            Self::Memory | Self::Nowhere => extent.content = content,
        }
        Ok(extent)
    }
}

/// The ghost that a file is.
pub(super) fn copy(
    stat: &Stat,
    source: &OwnedFd,
    holders: &[&Held],
    (limit, store): (u64, &mut Store),
    losses: &mut Vec<Loss>,
) -> Result<Ghost, DumpError> {
    let time = |(sec, nsec)| Time { sec, nsec };
    let mut ghost = Ghost {
        uid: stat.uid,
        gid: stat.gid,
        accessed: time(stat.accessed),
        modified: time(stat.modified),
        device: libc::makedev(stat.node.0, stat.node.1),
        ..Ghost::default()
    };
    let xattrs = inspect::xattrs(&handle::proc_path(source)).into_iter();
    ghost.xattrs = xattrs.map(|(name, value)| Xattr { name, value }).collect();
    match stat.mode & libc::S_IFMT {
        libc::S_IFREG => {
            ghost.size = stat.size;
            if stat.blocks > 0 && stat.size > 0 && !matches!(store, Store::Nowhere) {
                ghost.extents = content(stat, holders, (limit, store), losses)?;
            }
            ghost
                .extents
                .extend(preallocated(source, stat, &ghost.extents));
        }
        libc::S_IFLNK => {
            ghost.target = path::read_link(source, c"")
                .map_err(|errno| DumpError::on("readlink", "", errno))?;
        }
        // A directory without a name is empty, and of a fifo, socket or device the inode is all.
        _ => {}
    }
    Ok(ghost)
}

/// Space beyond the end of a file, where blocks are counted in pages and nothing else: on tmpfs.
fn preallocated(source: &OwnedFd, stat: &Stat, extents: &[Extent]) -> Option<Extent> {
    let filesystem = nix::sys::statfs::fstatfs(source).ok()?.filesystem_type();
    if filesystem != nix::sys::statfs::TMPFS_MAGIC {
        return None;
    }
    let pages = |extent: &Extent| extent.length.next_multiple_of(PAGE);
    let counted: u64 = extents.iter().map(pages).sum();
    let length = stat.blocks.saturating_mul(512).checked_sub(counted)?;
    let offset = stat.size.next_multiple_of(PAGE);
    (length > 0).then_some(Extent {
        offset,
        length,
        ..Extent::default()
    })
}

/// Bytes of a file that are not in holes.
pub(super) fn size(stat: &Stat) -> u64 {
    stat.size.min(stat.blocks.saturating_mul(512))
}

fn content(
    stat: &Stat,
    holders: &[&Held],
    (limit, store): (u64, &mut Store),
    losses: &mut Vec<Loss>,
) -> Result<Vec<Extent>, DumpError> {
    let bytes = size(stat);
    if bytes > limit {
        return Err(DumpError::new("", DumpErrorKind::TooLarge { bytes, limit }));
    }
    let (reader, own_offset) = reader(holders, losses)?;
    let file = match &reader {
        Reader::Own(file) => file.as_fd(),
        Reader::Shared(file) => *file,
    };
    let parts = if own_offset {
        parts(file, stat.size)?
    } else if stat.blocks.saturating_mul(512) >= stat.size {
        vec![(0, stat.size)]
    } else {
        let offset = raw::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR)
            .map_err(|errno| DumpError::on("lseek", "", errno))?;
        let parts = parts(file, stat.size);
        let back = raw::lseek(file.as_raw_fd(), offset, libc::SEEK_SET);
        back.map_err(|errno| DumpError::on("lseek", "", errno))?;
        parts?
    };
    without_access_time(file, own_offset, || {
        let mut extents = Vec::new();
        for (start, end) in parts {
            read(file, (start, end), store, &mut extents)?;
        }
        Ok(extents)
    })
}

/// A descriptor to read by.
enum Reader<'a> {
    Own(OwnedFd),
    Shared(BorrowedFd<'a>),
}

/// The best descriptor that there is, and whether its offset is its own.
fn reader<'a>(
    holders: &[&'a Held],
    losses: &mut Vec<Loss>,
) -> Result<(Reader<'a>, bool), DumpError> {
    let first = holders
        .first()
        .ok_or_else(|| DumpError::not_supported("", "ghost held by none"))?;
    let link = path::c_path(
        handle::proc_path(&first.file)
            .as_os_str()
            .as_encoded_bytes(),
    )
    .expect("no NUL in a number");
    if let Ok(file) = silent::open(&link, silent::Access::Read) {
        return Ok((Reader::Own(file), true));
    }
    let readable = |held: &&&Held| {
        let flags = descriptor::flags(&held.file).unwrap_or(libc::O_WRONLY);
        flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_WRONLY
    };
    if let Some(held) = holders.iter().find(readable) {
        return Ok((Reader::Shared(held.file.as_fd()), false));
    }
    // No way to read it unheard: the noise is said.
    let flags = libc::O_RDONLY | libc::O_NOATIME | libc::O_CLOEXEC;
    let file = raw::open(&link, flags, 0)
        .and_then(path::owned)
        .map_err(|errno| DumpError::on("open", "to read a ghost", errno))?;
    let object = format!("{}: reading the ghost", first.place);
    let reason = "it is open for writing only: other watchers hear it opened and closed";
    losses.push(Loss::new(8, object, reason));
    Ok((Reader::Own(file), true))
}

/// Where there is something between the holes.
fn parts(file: BorrowedFd<'_>, size: u64) -> Result<Vec<(u64, u64)>, DumpError> {
    let fd = file.as_raw_fd();
    let number = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
    let mut parts: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match raw::lseek(fd, number(at), libc::SEEK_DATA) {
            Ok(start) => start.cast_unsigned(),
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(DumpError::on("lseek", "SEEK_DATA", errno)),
        };
        let end = raw::lseek(fd, number(start), libc::SEEK_HOLE)
            .map_err(|errno| DumpError::on("lseek", "SEEK_HOLE", errno))?
            .cast_unsigned();
        // A block may be smaller than a page, and a page is what can be mapped.
        let start = start & !(PAGE - 1);
        let end = end.next_multiple_of(PAGE).min(size);
        match parts.last_mut() {
            Some((_, last)) if *last >= start => *last = end,
            _ => parts.push((start, end)),
        }
        at = end;
    }
    Ok(parts)
}

/// Runs `body` with `O_NOATIME` on a description that the subject shares: mapping a file counts
/// as reading it (`file_accessed`).
fn without_access_time<T>(
    file: BorrowedFd<'_>,
    own: bool,
    body: impl FnOnce() -> Result<T, DumpError>,
) -> Result<T, DumpError> {
    if own {
        return body();
    }
    let failed = |errno| DumpError::on("fcntl", "F_SETFL", errno);
    let flags = descriptor::flags(file).map_err(failed)?;
    descriptor::set_flags(file, flags | libc::O_NOATIME).map_err(failed)?;
    let result = body();
    descriptor::set_flags(file, flags).map_err(failed)?;
    result
}

fn read(
    file: BorrowedFd<'_>,
    (start, end): (u64, u64),
    store: &mut Store,
    extents: &mut Vec<Extent>,
) -> Result<(), DumpError> {
    let failed = |errno| DumpError::on("mmap", "", errno);
    let mut at = start;
    while at < end {
        let length = PIECE.min(end - at);
        let size = usize::try_from(length).map_err(|_| failed(Errno::EOVERFLOW))?;
        let offset = i64::try_from(at).map_err(|_| failed(Errno::EOVERFLOW))?;
        let content = Mapping::new(file, offset, size).map_err(failed)?.copy(size);
        extents.push(store.keep(at, content)?);
        at += length;
    }
    Ok(())
}
