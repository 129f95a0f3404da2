//! CRIU's own images, as far as they concern descriptors and file notification: read and printed.
//!
//! They answer on which side of a cut something was lost. Nothing here writes an image, and memory,
//! registers and mounts are not looked at.
//!
//! An image file is a magic number for the family, one for the kind of file, and then entries: a
//! length, and a protobuf message of that length; all numbers little-endian, 4 bytes.

use std::fmt;
use std::fs::{self, File as StdFile};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cr::image::weight::SPARE;
use fsnotify::counted;
use fsnotify::inotify::Mask;

pub mod losses;
pub mod message;

use message::{Descriptor, Entry, Fanotify, File, Ghost, Handle, Inotify, Owner, Remap};

/// Files larger than this are refused: 100,000 watches take 16 MB.
const MAX_FILE: u64 = 256 << 20;

/// Bytes of memory for each byte of a file. A file of pipes alone takes 22, others half of that.
const MOST_A_BYTE: usize = 32;

/// First number of a file.
const FAMILY: u32 = 0x5456_4319;
/// Second number of a file, by its kind.
const FILES: u32 = 0x5630_3138;
const DESCRIPTORS: u32 = 0x5621_3732;
const REMAPS: u32 = 0x5913_3954;
const GHOST: u32 = 0x5258_3605;

/// What a directory of images holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Images {
    /// In file order.
    pub files: Vec<File>,
    /// Descriptor tables, by the number in their file names: CRIU gives each shared table one.
    pub tables: Vec<(u32, Vec<Descriptor>)>,
    pub remaps: Vec<Remap>,
    /// Ghosts, by the number in their file names.
    pub ghosts: Vec<(u32, Ghost)>,
}

/// Why images could not be read.
#[derive(Debug)]
pub struct ImageError {
    pub path: PathBuf,
    pub kind: ImageErrorKind,
}

#[derive(Debug)]
pub enum ImageErrorKind {
    Io(io::Error),
    /// No `files.img` in the directory.
    NotImages,
    TooLarge(u64),
    /// A directory, a fifo or a device.
    NoFile,
    /// Very many entries that say next to nothing.
    Hollow,
    /// Ends inside a number or an entry that starts at this offset.
    Truncated(usize),
    /// One of the first two numbers is another.
    Magic {
        wanted: u32,
        found: u32,
    },
    /// The entry that starts at this offset is no message of its kind.
    Message(usize, prost::DecodeError),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.kind {
            ImageErrorKind::Io(error) => write!(f, "{error}"),
            ImageErrorKind::NotImages => f.write_str("holds no files.img"),
            ImageErrorKind::TooLarge(size) => write!(f, "{size} bytes, at most {MAX_FILE}"),
            ImageErrorKind::NoFile => f.write_str("not a regular file"),
            ImageErrorKind::Hollow => {
                f.write_str("its entries would take more memory than those of its length may")
            }
            ImageErrorKind::Truncated(offset) => write!(f, "offset {offset}: ends early"),
            ImageErrorKind::Magic { wanted, found } => {
                write!(f, "magic number {found:#x}, not {wanted:#x}")
            }
            ImageErrorKind::Message(offset, error) => write!(f, "offset {offset}: {error}"),
        }
    }
}

impl std::error::Error for ImageError {}

/// Whether a directory looks like images of CRIU.
#[must_use]
pub fn are_in(dir: &Path) -> bool {
    dir.join("files.img").is_file()
}

impl Images {
    /// Reads what a directory holds.
    ///
    /// # Errors
    ///
    /// [`ImageError`] names the file, and the offset of the first entry that cannot be read.
    pub fn read(dir: &Path) -> Result<Self, ImageError> {
        if !are_in(dir) {
            return Err(ImageError {
                path: dir.to_path_buf(),
                kind: ImageErrorKind::NotImages,
            });
        }
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |kind| ImageError { path, kind }
        };
        let mut images = Self {
            files: read_file(&dir.join("files.img"), FILES)?,
            ..Self::default()
        };
        let listing = fs::read_dir(dir).map_err(|error| at(dir)(ImageErrorKind::Io(error)))?;
        for entry in listing {
            let entry = entry.map_err(|error| at(dir)(ImageErrorKind::Io(error)))?;
            let path = entry.path();
            let name = entry.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".img")) else {
                continue;
            };
            if let Some(number) = number_after(stem, "fdinfo-") {
                images.tables.push((number, read_file(&path, DESCRIPTORS)?));
            } else if let Some(number) = number_after(stem, "ghost-file-") {
                images.ghosts.push((number, read_first(&path, GHOST)?));
            } else if stem == "remap-fpath" {
                images.remaps = read_file(&path, REMAPS)?;
            }
        }
        images.tables.sort_by_key(|(number, _)| *number);
        images.ghosts.sort_by_key(|(number, _)| *number);
        for (_, table) in &mut images.tables {
            table.sort_by_key(|descriptor| descriptor.fd);
        }
        Ok(images)
    }

    /// The open file description behind a descriptor.
    #[must_use]
    pub fn file(&self, descriptor: &Descriptor) -> Option<&File> {
        self.files.iter().find(|file| file.id == descriptor.id)
    }

    /// The lowest descriptor, over all tables, that refers to the description with this number.
    #[must_use]
    pub fn descriptor_of(&self, file_id: u32) -> Option<u32> {
        let descriptors = self.tables.iter().flat_map(|(_, table)| table);
        descriptors
            .filter(|descriptor| descriptor.id == file_id)
            .map(|descriptor| descriptor.fd)
            .min()
    }
}

fn number_after(stem: &str, prefix: &str) -> Option<u32> {
    stem.strip_prefix(prefix)?.parse().ok()
}

fn read_file<M: Entry>(path: &Path, kind: u32) -> Result<Vec<M>, ImageError> {
    read_bytes(path)
        .and_then(|bytes| entries(&bytes, kind, usize::MAX))
        .map_err(|kind| ImageError {
            path: path.to_path_buf(),
            kind,
        })
}

/// The first entry of a file that goes on with something else.
fn read_first<M: Entry>(path: &Path, kind: u32) -> Result<M, ImageError> {
    read_bytes(path)
        .and_then(|bytes| entries(&bytes, kind, 1))
        .and_then(|mut entries| entries.pop().ok_or(ImageErrorKind::Truncated(HEAD)))
        .map_err(|kind| ImageError {
            path: path.to_path_buf(),
            kind,
        })
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ImageErrorKind> {
    // Nobody makes us wait with a fifo of that name.
    let file = StdFile::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)
        .map_err(ImageErrorKind::Io)?;
    let metadata = file.metadata().map_err(ImageErrorKind::Io)?;
    if !metadata.is_file() {
        return Err(ImageErrorKind::NoFile);
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
    read.map_err(ImageErrorKind::Io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ImageErrorKind::TooLarge(metadata.len()));
    }
    Ok(bytes)
}

/// Bytes of the two numbers that a file starts with.
const HEAD: usize = 8;

/// At most `n_max` entries of a file. Memory is bounded by the input: a length is believed only
/// when so many bytes follow, and [`MOST_A_BYTE`] holds.
fn entries<M: Entry>(bytes: &[u8], kind: u32, n_max: usize) -> Result<Vec<M>, ImageErrorKind> {
    for (offset, wanted) in [(0, FAMILY), (4, kind)] {
        let found = number(bytes, offset)?;
        if found != wanted {
            return Err(ImageErrorKind::Magic { wanted, found });
        }
    }
    let mut entries = Vec::new();
    let mut weight = 0;
    let mut offset = HEAD;
    while offset < bytes.len() && entries.len() < n_max {
        let length = number(bytes, offset)? as usize;
        let message = bytes[offset + 4..]
            .get(..length)
            .ok_or(ImageErrorKind::Truncated(offset))?;
        weight += M::SHAPE.weigh(message);
        if weight > MOST_A_BYTE * bytes.len() + SPARE {
            return Err(ImageErrorKind::Hollow);
        }
        entries.push(M::decode(message).map_err(|error| ImageErrorKind::Message(offset, error))?);
        offset += 4 + length;
    }
    Ok(entries)
}

/// The property for fuzzing: any file of images is refused, or is printed.
///
/// # Panics
///
/// If the property does not hold.
pub fn check_file(bytes: &[u8]) {
    let mut images = Images::default();
    if let Ok(files) = entries(bytes, FILES, usize::MAX) {
        images.files = files;
    }
    if let Ok(table) = entries(bytes, DESCRIPTORS, usize::MAX) {
        images.tables.push((1, table));
    }
    if let Ok(remaps) = entries(bytes, REMAPS, usize::MAX) {
        images.remaps = remaps;
    }
    if let Ok(ghosts) = entries(bytes, GHOST, 1) {
        images.ghosts = ghosts.into_iter().map(|ghost| (1, ghost)).collect();
    }
    let text = images.to_string();
    let is_shown = |char: char| char == '\n' || !char.is_control();
    assert!(text.chars().all(is_shown), "{text:?}");
}

fn number(bytes: &[u8], offset: usize) -> Result<u32, ImageErrorKind> {
    let four = bytes
        .get(offset..offset + 4)
        .and_then(|four| four.try_into().ok())
        .ok_or(ImageErrorKind::Truncated(offset))?;
    Ok(u32::from_le_bytes(four))
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, table) in &self.tables {
            writeln!(f, "descriptor table {number}:")?;
            for descriptor in table {
                write!(f, "  fd {}: ", descriptor.fd)?;
                match self.file(descriptor) {
                    Some(file) => show_file(f, file)?,
                    None => writeln!(f, "file {:#x}, which is in no image", descriptor.id)?,
                }
            }
        }
        for remap in &self.remaps {
            let kind = match remap.kind {
                Some(0) => "another link",
                Some(1) => "a ghost",
                Some(2) => "an entry of procfs",
                None | Some(_) => "unknown",
            };
            let (file, made) = (remap.file_id, remap.remap_id);
            writeln!(f, "file {file:#x} is made anew: {kind}, {made:#x}")?;
        }
        for (number, ghost) in &self.ghosts {
            write!(
                f,
                "ghost {number:#x}: mode {:o}, owner {}",
                ghost.mode, ghost.uid
            )?;
            write!(f, ", group {}", ghost.gid)?;
            // Only a ghost that is kept in chunks says how long it is.
            match ghost.size {
                Some(size) => writeln!(f, ", {}", counted(size, "byte"))?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

fn show_file(f: &mut fmt::Formatter<'_>, file: &File) -> fmt::Result {
    if let Some(regular) = &file.regular {
        let (name, flags) = (&regular.name, fsnotify::OpenFlags(regular.flags));
        writeln!(f, "{name:?}, flags {flags}, offset {}", regular.offset)
    } else if let Some(inotify) = &file.inotify {
        show_inotify(f, inotify)
    } else if let Some(fanotify) = &file.fanotify {
        show_fanotify(f, fanotify)
    } else if let Some(epoll) = &file.epoll {
        writeln!(f, "epoll, flags {}", fsnotify::OpenFlags(epoll.flags))?;
        epoll.interest.iter().try_for_each(|interest| {
            let (events, data) = (interest.events, interest.data);
            writeln!(f, "    fd {}: events {events:#x}, data {data}", interest.fd)
        })
    } else if let Some(fifo) = &file.fifo {
        writeln!(f, "fifo {:#x}", fifo.pipe_id)
    } else {
        writeln!(f, "kind {}, not read here", file.kind)
    }
}

fn show_inotify(f: &mut fmt::Formatter<'_>, inotify: &Inotify) -> fmt::Result {
    let flags = fsnotify::OpenFlags(inotify.flags);
    writeln!(f, "inotify, flags {flags}{}", owner(inotify.owner.as_ref()))?;
    inotify.watches.iter().try_for_each(|watch| {
        let target = target(watch.sdev, watch.ino, watch.handle.as_ref());
        writeln!(f, "    wd {}: {} on {target}", watch.wd, Mask(watch.mask))
    })
}

fn show_fanotify(f: &mut fmt::Formatter<'_>, fanotify: &Fanotify) -> fmt::Result {
    let flags = fanotify.group_flags;
    let event_flags = fsnotify::OpenFlags(fanotify.event_flags);
    let owner = owner(fanotify.owner.as_ref());
    writeln!(
        f,
        "fanotify, init {flags:#x}, event flags {event_flags}{owner}"
    )?;
    fanotify.marks.iter().try_for_each(|mark| {
        let target = match (&mark.inode, &mark.mount) {
            (Some(inode), _) => target(mark.sdev, inode.ino, inode.handle.as_ref()),
            (None, Some(mount)) => format!("mount {:#x}", mount.mount_id),
            (None, None) => format!("unknown kind {}", mark.kind),
        };
        let masks = fsnotify::fanotify::Mask(u64::from(mark.mask));
        let ignored = fsnotify::fanotify::Mask(u64::from(mark.ignored_mask));
        writeln!(
            f,
            "    {masks} ignoring {ignored}, flags {:#x}, on {target}",
            mark.flags
        )
    })
}

fn owner(owner: Option<&Owner>) -> String {
    match owner {
        Some(owner) if owner.pid != 0 || owner.signal != 0 => {
            format!(", owner {}, signal {}", owner.pid, owner.signal)
        }
        Some(_) | None => String::new(),
    }
}

fn target(sdev: u32, ino: u64, handle: Option<&Handle>) -> String {
    match handle.and_then(|handle| handle.path.as_ref()) {
        Some(path) => format!("{path:?}"),
        None => format!("device {sdev:x} inode {ino:x}, by handle"),
    }
}

#[cfg(test)]
mod tests;
