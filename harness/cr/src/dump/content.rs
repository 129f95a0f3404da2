//! What it takes to make an inode without a name again, read without being heard.
//!
//! Attributes come from statx(2) and getxattr(2), which make no event. Content comes through a
//! mapping of a descriptor that the subject can read itself; for one that it can only write, and
//! where looking for holes would move a shared offset, through the silent open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::error::{DumpError, DumpErrorKind};
use super::files::Held;
use crate::image::{Extent, Ghost, PIECE, Text, Time, Writer, Xattr};
use crate::silent;
use crate::sys::memory::Mapping;
use crate::sys::path::{self, Stat};
use crate::sys::{descriptor, handle, inode_flags, inspect, raw};
use crate::{Loss, LossKind};

/// Offsets of mappings are multiples of it on x86 and arm64 with 4 KiB pages.
const PAGE: u64 = 4096;
/// Behind the last page that a file can have: offsets are signed.
const LAST_PAGE: u64 = 1 << 51;
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
        super::interrupted()?;
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
    ghost.xattrs = xattrs(source, holders, losses)?;
    (ghost.flags, ghost.project) = flags(stat, holders, losses);
    match stat.mode & libc::S_IFMT {
        libc::S_IFREG => {
            ghost.size = stat.size;
            if stat.blocks > 0 && stat.size > 0 && !matches!(store, Store::Nowhere) {
                ghost.extents = content(stat, holders, (limit, store), losses)?;
            }
            ghost.extents = with_unwritten(source, stat, holders, ghost.extents, losses);
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

/// What chattr(1) has set of an inode, as far as it can be set again.
fn flags(stat: &Stat, holders: &[&Held], losses: &mut Vec<Loss>) -> (Option<u32>, Option<u32>) {
    // Any other file has a driver to answer, which knows nothing of its inode.
    if !matches!(stat.mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) {
        return (None, None);
    }
    let probe = probe(holders);
    let file = probe.as_ref().map(Reader::as_fd);
    let all = file.and_then(|file| inode_flags::flags(file).ok());
    // statx(2) has the same bits, but not all.
    let all = all.or_else(|| u32::try_from(stat.attributes & 0xff).ok());
    let mut project = file.and_then(|file| inode_flags::project(file).ok());
    let mut lost = |what: &str, reason: &str| {
        let place = holders
            .first()
            .map_or("working directory", |held| &held.place);
        let object = format!("{place}: {what} of the ghost");
        losses.push(Loss::new(LossKind::InodeFlags, object, reason));
    };
    let mut kept = all.map(|all| all & inode_flags::SETTABLE);
    if all.is_some_and(|all| all & inode_flags::VERITY != 0) {
        lost("verity", "the hashes of a file are made anew by who may");
    }
    if !inode_flags::may_set_all() {
        if kept.is_some_and(|flags| flags & inode_flags::PRIVILEGED != 0) {
            lost(
                "flags",
                "they take a capability that the dump does not have",
            );
            kept = kept.map(|flags| flags & !inode_flags::PRIVILEGED);
        }
        // Where it is made, it may get that of its directory.
        if project.is_some_and(|project| project != 0) {
            lost("project", "it is another's to set");
        }
        project = None;
    }
    (kept, project)
}

/// The extended attributes; one that may not be read is declared.
fn xattrs(
    source: &OwnedFd,
    holders: &[&Held],
    losses: &mut Vec<Loss>,
) -> Result<Vec<Xattr>, DumpError> {
    let found = inspect::xattrs(&handle::proc_path(source))
        .map_err(|errno| DumpError::on("listxattr", "", errno))?;
    let mut kept = Vec::new();
    for (name, value) in found {
        match value {
            Ok(value) => kept.push(Xattr { name, value }),
            Err(Errno::EACCES | Errno::EPERM) => {
                let place = holders.first().map_or("", |held| &held.place);
                let object = format!("{place}: attribute {} of the ghost", Text(&name));
                let reason = "who may not read the file may not read that";
                losses.push(Loss::new(LossKind::HiddenAttribute, object, reason));
            }
            Err(errno) => return Err(DumpError::on("getxattr", Text(&name).to_string(), errno)),
        }
    }
    Ok(kept)
}

/// The extents of a file, and what of it was allocated and never written: holes to `SEEK_DATA`, but
/// counted. On tmpfs the pages are counted, and elsewhere the filesystem is asked for its map.
fn with_unwritten(
    source: &OwnedFd,
    stat: &Stat,
    holders: &[&Held],
    extents: Vec<Extent>,
    losses: &mut Vec<Loss>,
) -> Vec<Extent> {
    let pages = |extent: &Extent| extent.length.div_ceil(PAGE);
    let n_written: u64 = extents.iter().map(pages).sum();
    let n_pages = stat.blocks.saturating_mul(512) / PAGE;
    let is_on_tmpfs = is_on_tmpfs(source);
    if stat.blocks == 0 || is_on_tmpfs && n_pages <= n_written {
        return extents;
    }
    let probe = probe(holders);
    let file = probe.as_ref().map(Reader::as_fd);
    let unwritten = if is_on_tmpfs {
        let found = file.and_then(|file| unwritten_pages(file, &extents, n_pages));
        found.unwrap_or_else(|| {
            losses.push(unknown(holders, "they go behind its end"));
            let end = stat.size.div_ceil(PAGE);
            vec![(end * PAGE, (end + n_pages - n_written) * PAGE)]
        })
    } else if let Some(mapped) = file.and_then(|file| inspect::unwritten(file).ok()) {
        between(&mapped, &extents)
    } else {
        if n_pages > n_written {
            losses.push(unknown(holders, "they are not allocated"));
        }
        Vec::new()
    };
    let empty = unwritten.into_iter().map(|(start, end)| Extent {
        offset: start,
        length: end - start,
        ..Extent::default()
    });
    let mut all: Vec<Extent> = extents.into_iter().chain(empty).collect();
    all.sort_unstable_by_key(|extent| extent.offset);
    all
}

fn unknown(holders: &[&Held], what_becomes: &str) -> Loss {
    let place = holders.first().map_or("", |held| &held.place);
    let object = format!("{place}: allocated pages of the ghost");
    let reason = format!("the kernel does not tell which were never written: {what_becomes}");
    Loss::new(LossKind::UnwrittenPages, object, reason)
}

/// What of some ranges, which rise, is not in extents, which rise too.
fn between(ranges: &[inspect::Range], extents: &[Extent]) -> Vec<inspect::Range> {
    let mut found = Vec::new();
    for &(start, end) in ranges {
        let mut at = start;
        for extent in extents {
            let extent_end = extent.offset + extent.length;
            if extent_end <= at || extent.offset >= end {
                continue;
            }
            if extent.offset > at {
                found.push((at, extent.offset));
            }
            at = extent_end;
        }
        if at < end {
            found.push((at, end));
        }
    }
    found
}

/// A descriptor to count pages by: any but one of `O_PATH`.
fn probe<'a>(holders: &[&'a Held]) -> Option<Reader<'a>> {
    let is_open =
        |held: &&&Held| descriptor::flags(&held.file).is_ok_and(|flags| flags & libc::O_PATH == 0);
    if let Some(held) = holders.iter().find(is_open) {
        return Some(Reader::Shared(held.file.as_fd()));
    }
    let link = handle::proc_path(&holders.first()?.file);
    let link = path::c_path(link.as_os_str().as_encoded_bytes()).ok()?;
    silent::open(&link, silent::Access::Read)
        .ok()
        .map(Reader::Own)
}

/// The pages between the extents of a file; none where the kernel does not count them, or counts
/// others than statx(2).
fn unwritten_pages(
    file: BorrowedFd<'_>,
    extents: &[Extent],
    n_pages: u64,
) -> Option<Vec<inspect::Range>> {
    let count =
        |start: u64, end: u64| inspect::pages(file, start * PAGE, (end - start) * PAGE).ok();
    if inspect::pages(file, 0, 0).ok()? != n_pages {
        return None;
    }
    let mut found = Vec::new();
    let mut at = 0;
    for extent in extents {
        let start = extent.offset / PAGE;
        if start > at {
            search(&count, (at, start), &mut found)?;
        }
        at = start + extent.length.div_ceil(PAGE);
    }
    let mut end = at + 1;
    while count(0, end)? < n_pages {
        end = end.checked_mul(2).filter(|end| *end <= LAST_PAGE)?;
    }
    search(&count, (at, end), &mut found)?;
    let bytes = |(start, end)| (start * PAGE, end * PAGE);
    Some(found.into_iter().map(bytes).collect())
}

/// Halves a range until each part is full or empty.
fn search(
    count: &impl Fn(u64, u64) -> Option<u64>,
    (start, end): (u64, u64),
    found: &mut Vec<(u64, u64)>,
) -> Option<()> {
    let n_pages = count(start, end)?;
    if n_pages == end - start {
        match found.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => found.push((start, end)),
        }
    } else if n_pages > 0 {
        let middle = start + (end - start) / 2;
        search(count, (start, middle), found)?;
        search(count, (middle, end), found)?;
    }
    Some(())
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
    let file = reader.as_fd();
    let parts = if own_offset {
        parts(file, stat.size)?
    } else if is_whole(file, stat) {
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

/// Whether a file has no hole, so that it can be mapped without a look for some: on tmpfs a hole that
/// is looked at is filled, and as many blocks as the size needs may lie behind the end.
fn is_whole(file: BorrowedFd<'_>, stat: &Stat) -> bool {
    let n_pages = stat.size.div_ceil(PAGE);
    stat.blocks.saturating_mul(512) >= stat.size
        && (!is_on_tmpfs(file) || inspect::pages(file, 0, n_pages * PAGE) == Ok(n_pages))
}

fn is_on_tmpfs(file: impl AsFd) -> bool {
    nix::sys::statfs::fstatfs(file)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
}

/// A descriptor to read by.
enum Reader<'a> {
    Own(OwnedFd),
    Shared(BorrowedFd<'a>),
}

impl AsFd for Reader<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(file) => file.as_fd(),
            Self::Shared(file) => *file,
        }
    }
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
    losses.push(Loss::new(LossKind::GhostOpened, object, reason));
    Ok((Reader::Own(file), true))
}

/// Where there is something between the holes.
fn parts(file: BorrowedFd<'_>, size: u64) -> Result<Vec<(u64, u64)>, DumpError> {
    let fd = file.as_raw_fd();
    let number = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
    let mut parts = Vec::new();
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
        parts.push((start, end));
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
        // A block may be smaller than a page, and a page is what can be mapped.
        let page = at & !(PAGE - 1);
        let length = PIECE.min(end - page);
        let size = usize::try_from(length).map_err(|_| failed(Errno::EOVERFLOW))?;
        let offset = i64::try_from(page).map_err(|_| failed(Errno::EOVERFLOW))?;
        let mut content = Mapping::new(file, offset, size).map_err(failed)?.copy(size);
        content.drain(..usize::try_from(at - page).expect("less than a page"));
        extents.push(store.keep(at, content)?);
        at = page + length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{between, search};
    use crate::image::Extent;

    fn check(pages: &[u64], range: (u64, u64), expected: &[(u64, u64)]) {
        let is_in = |page: &&u64, start, end| (start..end).contains(*page);
        let count = |start, end| {
            let found = pages.iter().filter(|page| is_in(page, start, end));
            Some(found.count() as u64)
        };
        let mut found = Vec::new();
        assert_eq!(search(&count, range, &mut found), Some(()));
        assert_eq!(found, expected);
    }

    #[test]
    fn pages_are_found_by_halves() {
        check(&[], (0, 8), &[]);
        check(&[1, 2, 3, 16], (0, 32), &[(1, 4), (16, 17)]);
        check(&[4, 5, 6], (4, 7), &[(4, 7)]);
        check(&[0, 2], (1, 4), &[(2, 3)]);
    }

    #[test]
    fn what_was_never_written_is_between_the_extents() {
        let check = |ranges: &[(u64, u64)], extents: &[(u64, u64)], expected: &[(u64, u64)]| {
            let extent = |&(start, end)| Extent {
                offset: start,
                length: end - start,
                ..Extent::default()
            };
            let extents: Vec<Extent> = extents.iter().map(extent).collect();
            assert_eq!(between(ranges, &extents), expected);
        };
        check(&[(0, 9)], &[], &[(0, 9)]);
        check(&[(0, 9)], &[(0, 9)], &[]);
        check(&[(0, 9)], &[(2, 4), (6, 7)], &[(0, 2), (4, 6), (7, 9)]);
        check(&[(2, 4), (6, 9)], &[(0, 3), (7, 12)], &[(3, 4), (6, 7)]);
        check(&[(5, 6)], &[(0, 5), (6, 7)], &[(5, 6)]);
    }

    #[test]
    fn a_count_that_fails_ends_the_search() {
        let mut found = Vec::new();
        let count = |start, _| (start == 0).then_some(1);
        assert_eq!(search(&count, (0, 4), &mut found), None);
    }
}
