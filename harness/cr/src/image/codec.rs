//! The bytes of an image: a header with magic, version, length and checksum, content of large
//! ghosts, and one protobuf message, which is what the header is about. Memory used by decoding is
//! bounded by the length of the message ([`weight`](super::weight)).

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fsnotify::counted;
use prost::Message;

use super::weight::Shape;
use super::{
    Content, Descriptor, Epoll, Extent, Fanotify, Ghost, Handle, Image, Inode, Inotify, Interest,
    InvalidImage, LossRecord, Mark, OpenFile, Owner, Parked, PendingSignal, Place, Process, Stored,
    Time, Watch, Writer, Xattr,
};

/// First bytes of every image.
const MAGIC: &[u8; 8] = b"nfimage\n";
/// Counts up whenever an old reader would misread a new image.
const VERSION: u32 = 2;
/// Magic, version, length of the message, CRC-32 of the message.
pub(super) const HEADER: usize = 8 + 4 + 8 + 4;

/// Largest message that is read: ten million watches. Content beside it is not held in memory.
pub const MAX_IMAGE: u64 = 1 << 30;

/// Bytes of memory for each byte of a message. Images that a dump makes need less than half.
const MOST_A_BYTE: usize = 16;

/// Why bytes are no image.
#[derive(Debug)]
pub struct DecodeError {
    pub kind: DecodeErrorKind,
}

#[derive(Debug)]
pub enum DecodeErrorKind {
    /// Shorter than a header, or than the header says.
    Truncated {
        expected: u64,
        found: u64,
    },
    /// Bytes that are neither header, content nor message.
    Trailing {
        bytes: u64,
    },
    Magic,
    /// Written by another version of this program.
    Version(u32),
    Checksum {
        expected: u32,
        found: u32,
    },
    /// Not the protobuf message.
    Message(prost::DecodeError),
    /// Very many entries that say next to nothing.
    Hollow,
    /// A message that contradicts itself.
    Invalid(InvalidImage),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DecodeErrorKind::Truncated { expected, found } => {
                let found = counted(found, "byte");
                write!(f, "image: {found}, not {expected}: incomplete")
            }
            DecodeErrorKind::Trailing { bytes } => {
                write!(f, "image: {} too many", counted(bytes, "byte"))
            }
            DecodeErrorKind::Magic => f.write_str("image: not an image of notifreeze"),
            DecodeErrorKind::Version(version) => {
                write!(f, "image: version {version}, this program knows {VERSION}")
            }
            DecodeErrorKind::Checksum { expected, found } => {
                write!(f, "image: checksum {found:08x}, not {expected:08x}")
            }
            DecodeErrorKind::Message(error) => write!(f, "image: {error}"),
            DecodeErrorKind::Hollow => f.write_str(
                "image: its entries would take more memory than an image of its length may",
            ),
            DecodeErrorKind::Invalid(error) => write!(f, "image: {error}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Why a file is no image.
#[derive(Debug)]
pub enum ReadError {
    Io(io::Error),
    /// A directory, a fifo or a device.
    NoFile,
    TooLarge {
        bytes: u64,
    },
    Decode(DecodeError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "image: {error}"),
            Self::NoFile => f.write_str("image: not a regular file"),
            Self::TooLarge { bytes } => {
                write!(
                    f,
                    "image: {bytes} bytes, more than {MAX_IMAGE} are not read"
                )
            }
            Self::Decode(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl Image {
    /// The bytes of a file, of an image whose content is all in it.
    #[must_use]
    pub fn encode_file(&self) -> Vec<u8> {
        let message = self.encode_to_vec();
        [&header(&message)[..], &message].concat()
    }

    /// Reads what [`Image::encode_file`] wrote, and refuses what contradicts itself.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else; never a panic, whatever the bytes.
    pub fn decode_file(file: &[u8]) -> Result<Self, DecodeError> {
        let decoded = split(file)
            .and_then(|(header, content, message)| Self::decode_message(header, content, message));
        decoded.map_err(|kind| DecodeError { kind })
    }

    /// `content` is the length of what lies between header and message.
    fn decode_message(
        header: [u8; HEADER],
        content: u64,
        message: &[u8],
    ) -> Result<Self, DecodeErrorKind> {
        let expected = u32::from_le_bytes(header[20..24].try_into().expect("4 bytes"));
        let found = crc32fast::hash(message);
        if expected != found {
            return Err(DecodeErrorKind::Checksum { expected, found });
        }
        if !SHAPE.fits(message, MOST_A_BYTE) {
            return Err(DecodeErrorKind::Hollow);
        }
        let image = Self::decode(message).map_err(DecodeErrorKind::Message)?;
        if let Some(bytes @ 1..) = content.checked_sub(image.content_length) {
            return Err(DecodeErrorKind::Trailing { bytes });
        }
        if content < image.content_length {
            let (expected, found) = (image.content_length, content);
            return Err(DecodeErrorKind::Truncated { expected, found });
        }
        image.check().map_err(DecodeErrorKind::Invalid)?;
        Ok(image)
    }

    /// Writes a file that is complete or absent: under a temporary name, synchronised, renamed.
    ///
    /// # Errors
    ///
    /// Any error of the file; no temporary file stays behind. `EINVAL` for an image of which some
    /// content is in another file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if self.content_length > 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Writer::create(path)?.finish(&mut self.clone())
    }

    /// Reads a file, but for the content that lies beside its message.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the file cannot be read, has a message larger than [`MAX_IMAGE`] or is no
    /// image.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        ImageFile::open(path).map(|file| file.image)
    }
}

/// An image that was read, and its file, which stays open: what is restored is what was looked at,
/// whatever has the name by then.
#[derive(Debug)]
pub struct ImageFile {
    pub(crate) path: PathBuf,
    pub(crate) image: Image,
    pub(crate) content: Content,
    pub(crate) owner: u32,
}

impl ImageFile {
    /// Reads a file, and leaves it open for the content that lies beside its message.
    ///
    /// # Errors
    ///
    /// As [`Image::read`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        // Nobody makes us wait with a fifo of that name.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(ReadError::Io)?;
        let metadata = file.metadata().map_err(ReadError::Io)?;
        if !metadata.is_file() {
            return Err(ReadError::NoFile);
        }
        let found = metadata.len();
        let decode = |kind| ReadError::Decode(DecodeError { kind });
        let mut header = [0; HEADER];
        if found < HEADER as u64 {
            let expected = HEADER as u64;
            return Err(decode(DecodeErrorKind::Truncated { expected, found }));
        }
        file.read_exact_at(&mut header, 0).map_err(ReadError::Io)?;
        let length = length_of_message(&header).map_err(decode)?;
        let content = content_length(length, found).map_err(decode)?;
        if length > MAX_IMAGE {
            return Err(ReadError::TooLarge { bytes: length });
        }
        let mut message = vec![0; usize::try_from(length).expect("less than MAX_IMAGE")];
        let at = HEADER as u64 + content;
        file.read_exact_at(&mut message, at)
            .map_err(ReadError::Io)?;
        let image = Image::decode_message(header, content, &message).map_err(decode)?;
        Ok(Self {
            path: path.to_owned(),
            image,
            content: Content::of(file),
            owner: metadata.uid(),
        })
    }

    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }
}

/// What an image takes in memory.
static SHAPE: Shape = Shape::of::<Image>(&[
    (1, &PROCESS),
    (2, &FILE),
    (3, &Shape::of::<Place>(&[])),
    (4, &INODE),
    (5, &Shape::of::<LossRecord>(&[])),
    (8, &Shape::of::<Parked>(&[])),
]);

static PROCESS: Shape = Shape::of::<Process>(&[
    (8, &Shape::of::<Descriptor>(&[])),
    (9, &Shape::of::<PendingSignal>(&[])),
]);

static FILE: Shape = Shape::of::<OpenFile>(&[
    (3, &Shape::of::<Owner>(&[])),
    (6, &Shape::of::<Inotify>(&[(1, &Shape::of::<Watch>(&[]))])),
    (7, &Shape::of::<Epoll>(&[(1, &Shape::of::<Interest>(&[]))])),
    (8, &Shape::of::<Fanotify>(&[(3, &Shape::of::<Mark>(&[]))])),
]);

static INODE: Shape = Shape::of::<Inode>(&[(3, &Shape::of::<Handle>(&[])), (5, &GHOST)]);

static GHOST: Shape = Shape::of::<Ghost>(&[
    (4, &Shape::of::<Time>(&[])),
    (5, &Shape::of::<Time>(&[])),
    (6, &Shape::of::<Xattr>(&[])),
    (7, &Shape::of::<Extent>(&[(4, &Shape::of::<Stored>(&[]))])),
]);

/// The header of a file with this message.
pub(super) fn header(message: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&(message.len() as u64).to_le_bytes());
    header[20..].copy_from_slice(&crc32fast::hash(message).to_le_bytes());
    header
}

/// Header, length of the content, and message of a file.
fn split(file: &[u8]) -> Result<([u8; HEADER], u64, &[u8]), DecodeErrorKind> {
    let found = file.len() as u64;
    let header = file.first_chunk::<HEADER>();
    let header = *header.ok_or(DecodeErrorKind::Truncated {
        expected: HEADER as u64,
        found,
    })?;
    let length = length_of_message(&header)?;
    let content = content_length(length, found)?;
    let start = usize::try_from(HEADER as u64 + content).expect("within the file");
    Ok((header, content, &file[start..]))
}

fn length_of_message(header: &[u8; HEADER]) -> Result<u64, DecodeErrorKind> {
    if &header[..8] != MAGIC {
        return Err(DecodeErrorKind::Magic);
    }
    let version = u32::from_le_bytes(header[8..12].try_into().expect("4 bytes"));
    if version != VERSION {
        return Err(DecodeErrorKind::Version(version));
    }
    Ok(u64::from_le_bytes(
        header[12..20].try_into().expect("8 bytes"),
    ))
}

/// What is left of a file of `found` bytes.
fn content_length(message: u64, found: u64) -> Result<u64, DecodeErrorKind> {
    let expected = message.saturating_add(HEADER as u64);
    found
        .checked_sub(expected)
        .ok_or(DecodeErrorKind::Truncated { expected, found })
}

/// The property for fuzzing: bytes are refused, or are an image that prints and that encodes to
/// bytes of the same meaning. The bytes are taken as a message too, so that a fuzzer need not find
/// a checksum.
///
/// # Panics
///
/// If the property does not hold.
pub fn check_image(bytes: &[u8]) {
    // Refusing is fine; not returning is not.
    let _ = Image::decode_file(bytes);
    let Ok(image) = Image::decode(bytes) else {
        return;
    };
    let _ = image.to_string();
    if image.content_length == 0 && image.check().is_ok() {
        let again = Image::decode_file(&image.encode_file()).expect("decodes what it encoded");
        assert_eq!(
            again, image,
            "an image changes its meaning when it is written and read"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place() -> Place {
        Place {
            path: b"/ghost".to_vec(),
            ..Place::default()
        }
    }

    fn minimal() -> Image {
        Image {
            processes: vec![Process {
                pid: 1,
                ..Process::default()
            }],
            ..Image::default()
        }
    }

    #[test]
    fn an_image_reads_back_as_written() {
        let image = Image {
            boot_id: "b".to_owned(),
            ..minimal()
        };
        assert_eq!(Image::decode_file(&image.encode_file()).unwrap(), image);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let file = Image {
            boot_id: "boot".to_owned(),
            ..minimal()
        }
        .encode_file();
        for end in 0..file.len() {
            assert!(Image::decode_file(&file[..end]).is_err(), "cut at {end}");
        }
        for bit in 0..file.len() * 8 {
            let mut spoiled = file.clone();
            spoiled[bit / 8] ^= 1 << (bit % 8);
            assert!(Image::decode_file(&spoiled).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn content_beside_the_message_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let mut writer = Writer::create(&path).unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
        let mut extents = Vec::new();
        for (offset, part) in [(0, &bytes[..]), (1 << 30, &bytes[..4096])] {
            extents.push(Extent {
                offset,
                length: part.len() as u64,
                content: Vec::new(),
                stored: Some(writer.store(part).unwrap()),
            });
        }
        let ghost = Ghost {
            size: 2 << 30,
            extents,
            ..Ghost::default()
        };
        let mut image = Image {
            inodes: vec![Inode {
                ghost: Some(ghost),
                ..Inode::default()
            }],
            places: vec![place()],
            ..minimal()
        };
        assert!(!path.exists());
        writer.finish(&mut image).unwrap();
        let opened = ImageFile::open(&path).unwrap();
        let (read, content) = (opened.image, opened.content);
        assert_eq!(read, image);
        content.verify(&read).unwrap();
        let extent = &read.inodes[0].ghost.as_ref().unwrap().extents[0];
        let mut found = Vec::new();
        let mut take = |at, piece: &[u8]| {
            assert_eq!(at, found.len() as u64);
            found.extend_from_slice(piece);
            Ok(())
        };
        content.read(extent, &mut take).unwrap();
        assert!(found == bytes);

        let whole = fs::read(&path).unwrap();
        assert_eq!(Image::decode_file(&whole).unwrap(), image);
        let mut spoiled = whole.clone();
        spoiled[HEADER + 17] ^= 1;
        fs::write(&path, &spoiled).unwrap();
        let opened = ImageFile::open(&path).unwrap();
        let (read, content) = (opened.image, opened.content);
        let error = content.verify(&read).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        // A byte more or less before the message is no content.
        let longer = [&whole[..HEADER], b"x", &whole[HEADER..]].concat();
        let kind = Image::decode_file(&longer).unwrap_err().kind;
        assert!(matches!(kind, DecodeErrorKind::Trailing { bytes: 1 }));
        let shorter = [&whole[..HEADER], &whole[HEADER + 1..]].concat();
        let kind = Image::decode_file(&shorter).unwrap_err().kind;
        assert!(matches!(kind, DecodeErrorKind::Truncated { .. }));
    }

    #[test]
    fn an_image_that_was_opened_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        minimal().write(&path).unwrap();
        let opened = ImageFile::open(&path).unwrap();
        let other = Image {
            boot_id: "other".to_owned(),
            ..minimal()
        };
        other.write(&path).unwrap();
        assert_eq!(opened.image(), &minimal());
        assert_eq!(Image::read(&path).unwrap(), other);
    }

    #[test]
    fn content_is_used_once_and_lies_in_the_file() {
        let stored = |position| {
            Some(Stored {
                position,
                checksum: 0,
            })
        };
        let extent = |offset, position| Extent {
            offset,
            length: 10,
            content: Vec::new(),
            stored: stored(position),
        };
        let image = |content_length, extents| Image {
            content_length,
            inodes: vec![Inode {
                ghost: Some(Ghost {
                    size: 100,
                    extents,
                    ..Ghost::default()
                }),
                ..Inode::default()
            }],
            places: vec![place()],
            ..minimal()
        };
        let good = image(20, vec![extent(0, 0), extent(50, 10)]);
        assert_eq!(good.check(), Ok(()));
        for bad in [
            image(19, vec![extent(0, 0), extent(50, 10)]),
            image(20, vec![extent(0, 0), extent(50, 9)]),
            image(20, vec![extent(0, 10), extent(50, 0)]),
            image(20, vec![extent(0, u64::MAX)]),
        ] {
            assert!(bad.check().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_complete_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        minimal().write(&path).unwrap();
        assert_eq!(Image::read(&path).unwrap(), minimal());
        let taken = folder.path().join("folder");
        fs::create_dir(&taken).unwrap();
        minimal().write(&taken).unwrap_err();
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "a temporary file stayed"
        );
    }
}
