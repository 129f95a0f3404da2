//! Flags of an open file description, as `flags:` of fdinfo (octal) and `event-flags:` of a
//! fanotify group (hex) show them.
//!
//! The values are those of x86, which arm64 shares but for `O_DIRECTORY`, `O_NOFOLLOW`, `O_DIRECT`
//! and `O_LARGEFILE`. A text does not say which machine wrote it; the bits are kept either way.

use std::fmt;
use std::str::FromStr;

use crate::ParseFlagsError;
use crate::bits::Names;

/// `O_*` of open(2): access mode and status flags. Unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OpenFlags(pub u32);

const ACCESS_MODE: u32 = 0x3;

/// Flags above the access mode; names of several bits come before their parts.
const STATUS: Names = Names {
    printed: &[
        (0x40, "O_CREAT"),
        (0x80, "O_EXCL"),
        (0x100, "O_NOCTTY"),
        (0x200, "O_TRUNC"),
        (0x400, "O_APPEND"),
        (0x800, "O_NONBLOCK"),
        (0x10_1000, "O_SYNC"),
        (0x1000, "O_DSYNC"),
        (0x2000, "O_ASYNC"),
        (0x4000, "O_DIRECT"),
        (0x8000, "O_LARGEFILE"),
        (0x41_0000, "O_TMPFILE"),
        (0x1_0000, "O_DIRECTORY"),
        (0x2_0000, "O_NOFOLLOW"),
        (0x4_0000, "O_NOATIME"),
        (0x8_0000, "O_CLOEXEC"),
        (0x20_0000, "O_PATH"),
    ],
    read: &[
        (0, "O_RDONLY"),
        (1, "O_WRONLY"),
        (2, "O_RDWR"),
        (3, "O_ACCMODE"),
        (0x800, "O_NDELAY"),
    ],
    none: "",
};

impl OpenFlags {
    /// `O_NONBLOCK`.
    pub const NONBLOCK: Self = Self(0x800);
    /// `O_CLOEXEC`.
    pub const CLOEXEC: Self = Self(0x8_0000);
    /// `O_LARGEFILE`, which a 64-bit kernel adds to every `event-flags:`.
    pub const LARGEFILE: Self = Self(0x8000);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set bits that have no name.
    #[must_use]
    pub fn unknown(self) -> Self {
        let known = STATUS
            .printed
            .iter()
            .fold(0, |known, (value, _)| known | value);
        let known = u32::try_from(known).expect("names fit their type");
        Self(self.0 & !(known | ACCESS_MODE))
    }

    /// Every name that is understood, for suggestions and completions.
    pub fn words() -> impl Iterator<Item = &'static str> {
        STATUS.words()
    }
}

impl fmt::Display for OpenFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 & ACCESS_MODE {
            0 => "O_RDONLY",
            1 => "O_WRONLY",
            2 => "O_RDWR",
            _ => "O_ACCMODE",
        })?;
        let status = self.0 & !ACCESS_MODE;
        if status == 0 {
            return Ok(());
        }
        f.write_str("|")?;
        STATUS.print(u64::from(status), f)
    }
}

impl FromStr for OpenFlags {
    type Err = ParseFlagsError;

    fn from_str(text: &str) -> Result<Self, ParseFlagsError> {
        let bits = STATUS.parse(text)?;
        u32::try_from(bits).map(Self).map_err(|_| ParseFlagsError {
            word: format!("{bits:#x}"),
            column: 1,
        })
    }
}
