//! Event records, as `read(2)` on a group returns them, and back.
//!
//! Decoders borrow from the buffer and accept exactly what kernels write, so that encoding what was
//! decoded gives the same bytes; anything else is refused with its offset. Numbers are in the byte
//! order of a little-endian machine.

pub mod check;
pub mod fanotify;
pub mod inotify;

use std::fmt;

/// A buffer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    pub kind: ErrorKind,
    /// Offset in the buffer of the event or info record that is wrong.
    pub offset: usize,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The buffer ends inside an event or a record.
    Truncated,
    /// A length that contradicts the content; the length given.
    BadLength(u32),
    /// Padding that is not zero.
    BadPadding,
    /// A name without its end, or with something behind it.
    BadName,
    /// No watch descriptor, and not the -1 of an overflow.
    BadWd(i32),
    /// Another version of fanotify's metadata.
    BadVersion(u8),
    /// A file handle longer than any.
    BadHandle(u32),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}: ", self.offset)?;
        match self.kind {
            ErrorKind::Truncated => f.write_str("the buffer ends inside an event"),
            ErrorKind::BadLength(length) => write!(f, "length {length} contradicts the content"),
            ErrorKind::BadPadding => f.write_str("padding that is not zero"),
            ErrorKind::BadName => f.write_str("a name that does not end where it should"),
            ErrorKind::BadWd(wd) => write!(f, "{wd} is no watch descriptor"),
            ErrorKind::BadVersion(version) => write!(f, "unknown metadata version {version}"),
            ErrorKind::BadHandle(length) => write!(f, "a file handle of {length} bytes"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The `N` bytes at `at`.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
