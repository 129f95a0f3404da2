//! File handles: a type and up to 128 bytes that name an inode without a path.
//!
//! Nothing here asks the kernel whether a handle can be opened; type and bytes alone cannot tell.

mod layout;

use std::fmt;
use std::hash::{Hash, Hasher};

pub use layout::Layout;

/// `MAX_HANDLE_SZ`: no filesystem makes a longer handle.
pub const MAX_HANDLE_BYTES: usize = 128;

/// What `name_to_handle_at` returns and `fhandle-bytes: fhandle-type: f_handle:` show.
///
/// The bytes are the filesystem's own; numbers among them have the byte order of the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileHandle {
    kind: i32,
    length: u8,
    /// Zero beyond `length`, so that equal handles are equal byte for byte.
    bytes: [u8; MAX_HANDLE_BYTES],
}

/// More than [`MAX_HANDLE_BYTES`] bytes, the number given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleTooLong(pub usize);

impl FileHandle {
    /// The handle of this type and these bytes.
    ///
    /// # Errors
    ///
    /// [`HandleTooLong`] beyond [`MAX_HANDLE_BYTES`].
    pub fn new(kind: i32, bytes: &[u8]) -> Result<Self, HandleTooLong> {
        let mut inline = [0; MAX_HANDLE_BYTES];
        let target = inline.get_mut(..bytes.len());
        target
            .ok_or(HandleTooLong(bytes.len()))?
            .copy_from_slice(bytes);
        Ok(Self {
            kind,
            length: u8::try_from(bytes.len()).map_err(|_| HandleTooLong(bytes.len()))?,
            bytes: inline,
        })
    }

    /// The handle of a parsed text, whose type and length were checked and whose bytes beyond
    /// `n_bytes` are zero.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "at most 128 bytes and a type of at most 16 bits"
    )]
    pub(crate) const fn inline(kind: u32, n_bytes: usize, bytes: [u8; MAX_HANDLE_BYTES]) -> Self {
        Self {
            kind: kind as i32,
            length: n_bytes as u8,
            bytes,
        }
    }

    /// `handle_type`.
    #[must_use]
    pub const fn kind(&self) -> i32 {
        self.kind
    }

    /// `f_handle`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Without the zeros beyond its end: most handles are short.
impl Hash for FileHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
        self.bytes().hash(state);
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileHandle({self})")
    }
}

/// Type and bytes in hex, `1:c1090000d72b6ffa`.
impl fmt::Display for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:", self.kind)?;
        print_hex(self.bytes(), f)
    }
}

pub(crate) fn print_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for HandleTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(length) = self;
        write!(
            f,
            "file handle of {length} bytes: at most {MAX_HANDLE_BYTES} are possible"
        )
    }
}

impl std::error::Error for HandleTooLong {}

#[cfg(feature = "serde")]
mod serial {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{FileHandle, MAX_HANDLE_BYTES};

    #[derive(Serialize, Deserialize)]
    #[serde(rename = "FileHandle")]
    struct Plain {
        kind: i32,
        bytes: String,
    }

    impl Serialize for FileHandle {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let bytes = self
                .bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            Plain {
                kind: self.kind,
                bytes,
            }
            .serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for FileHandle {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            use serde::de::Error;
            let plain = Plain::deserialize(deserializer)?;
            let digits = plain.bytes.as_bytes();
            if digits.len() > 2 * MAX_HANDLE_BYTES || !digits.len().is_multiple_of(2) {
                return Err(D::Error::custom(
                    "a file handle is pairs of hex digits, at most 128",
                ));
            }
            let pair = |pair: &[u8]| {
                let text = std::str::from_utf8(pair).ok()?;
                u8::from_str_radix(text, 16).ok()
            };
            let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
            let bytes = bytes.ok_or_else(|| D::Error::custom("a file handle is hex digits"))?;
            Self::new(plain.kind, &bytes).map_err(D::Error::custom)
        }
    }
}
