//! The bytes of an image: a header with magic, version, length and checksum, then one protobuf
//! message. Memory used by decoding is bounded by a small multiple of the input.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use prost::Message;

use super::{Image, InvalidImage};

/// First bytes of every image.
const MAGIC: &[u8; 8] = b"nfimage\n";
/// Counts up whenever an old reader would misread a new image.
const VERSION: u32 = 1;
/// Magic, version, length of the message, CRC-32 of the message.
const HEADER: usize = 8 + 4 + 8 + 4;

/// Largest image that is read: two million watches and the content of ghosts.
pub const MAX_IMAGE: u64 = 1 << 30;

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
    /// Bytes after the message.
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
    /// A message that contradicts itself.
    Invalid(InvalidImage),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DecodeErrorKind::Truncated { expected, found } => {
                write!(f, "image: {found} bytes, not {expected}: incomplete")
            }
            DecodeErrorKind::Trailing { bytes } => write!(f, "image: {bytes} bytes too many"),
            DecodeErrorKind::Magic => f.write_str("image: not an image of notifreeze"),
            DecodeErrorKind::Version(version) => {
                write!(f, "image: version {version}, this program knows {VERSION}")
            }
            DecodeErrorKind::Checksum { expected, found } => {
                write!(f, "image: checksum {found:08x}, not {expected:08x}")
            }
            DecodeErrorKind::Message(error) => write!(f, "image: {error}"),
            DecodeErrorKind::Invalid(error) => write!(f, "image: {error}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Why a file is no image.
#[derive(Debug)]
pub enum ReadError {
    Io(io::Error),
    TooLarge { bytes: u64 },
    Decode(DecodeError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "image: {error}"),
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
    /// The bytes of a file.
    #[must_use]
    pub fn encode_file(&self) -> Vec<u8> {
        let length = self.encoded_len();
        let mut file = Vec::with_capacity(HEADER + length);
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&(length as u64).to_le_bytes());
        file.extend_from_slice(&[0; 4]);
        self.encode(&mut file).expect("a vector grows");
        let checksum = crc32fast::hash(&file[HEADER..]);
        file[HEADER - 4..HEADER].copy_from_slice(&checksum.to_le_bytes());
        file
    }

    /// Reads what [`Image::encode_file`] wrote, and refuses what contradicts itself.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else; never a panic, whatever the bytes.
    pub fn decode_file(file: &[u8]) -> Result<Self, DecodeError> {
        let image = decode_unchecked(file).map_err(|kind| DecodeError { kind })?;
        image.check().map_err(|error| DecodeError {
            kind: DecodeErrorKind::Invalid(error),
        })?;
        Ok(image)
    }

    /// Writes a file that is complete or absent: under a temporary name, synchronised, renamed.
    ///
    /// # Errors
    ///
    /// Any error of the file; no temporary file stays behind.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = Path::new(&temporary);
        let written = self.write_through(temporary, path);
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(temporary);
        }
        written
    }

    fn write_through(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        let mut file = File::create_new(temporary)?;
        file.write_all(&self.encode_file())?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the file cannot be read, is larger than [`MAX_IMAGE`] or is no image.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let bytes = fs::metadata(path).map_err(ReadError::Io)?.len();
        if bytes > MAX_IMAGE {
            return Err(ReadError::TooLarge { bytes });
        }
        let file = fs::read(path).map_err(ReadError::Io)?;
        Self::decode_file(&file).map_err(ReadError::Decode)
    }
}

fn decode_unchecked(file: &[u8]) -> Result<Image, DecodeErrorKind> {
    let found = file.len() as u64;
    let truncated = |expected| DecodeErrorKind::Truncated { expected, found };
    let (header, message) = file
        .split_at_checked(HEADER)
        .ok_or_else(|| truncated(HEADER as u64))?;
    if &header[..8] != MAGIC {
        return Err(DecodeErrorKind::Magic);
    }
    let version = u32::from_le_bytes(header[8..12].try_into().expect("4 bytes"));
    if version != VERSION {
        return Err(DecodeErrorKind::Version(version));
    }
    let length = u64::from_le_bytes(header[12..20].try_into().expect("8 bytes"));
    let expected = length.saturating_add(HEADER as u64);
    if expected > found {
        return Err(truncated(expected));
    }
    if expected < found {
        return Err(DecodeErrorKind::Trailing {
            bytes: found - expected,
        });
    }
    let expected = u32::from_le_bytes(header[20..24].try_into().expect("4 bytes"));
    let found = crc32fast::hash(message);
    if expected != found {
        return Err(DecodeErrorKind::Checksum { expected, found });
    }
    Image::decode(message).map_err(DecodeErrorKind::Message)
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
    if image.check().is_ok() {
        let again = Image::decode_file(&image.encode_file()).expect("decodes what it encoded");
        assert_eq!(
            again, image,
            "an image changes its meaning when it is written and read"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_reads_back_as_written() {
        let image = Image {
            boot_id: "b".to_owned(),
            ..Image::default()
        };
        assert_eq!(Image::decode_file(&image.encode_file()).unwrap(), image);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let file = Image {
            boot_id: "boot".to_owned(),
            ..Image::default()
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
    fn a_file_is_complete_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        Image::default().write(&path).unwrap();
        assert_eq!(Image::read(&path).unwrap(), Image::default());
        let taken = folder.path().join("folder");
        fs::create_dir(&taken).unwrap();
        Image::default().write(&taken).unwrap_err();
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "a temporary file stayed"
        );
    }
}
