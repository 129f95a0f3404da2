//! Sets of named bits: printing `A|B|0x40`, and reading that back.
//!
//! Unknown bits are kept: they print in hex, and a hex number reads as bits.

use std::fmt;

/// The names of one type of flags.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    /// Bits in the order of printing; a value of several bits prints only if all of them are set,
    /// so it has to come before its parts.
    pub(crate) printed: &'static [(u64, &'static str)],
    /// Further names that are understood: sums of other names, and names of nothing.
    pub(crate) read: &'static [(u64, &'static str)],
    /// What no bits at all print as.
    pub(crate) none: &'static str,
}

impl Names {
    pub(crate) fn print(self, bits: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = bits;
        let mut separator = "";
        for &(value, name) in self.printed {
            if rest & value == value {
                write!(f, "{separator}{name}")?;
                rest &= !value;
                separator = "|";
            }
        }
        if rest != 0 {
            write!(f, "{separator}{rest:#x}")
        } else if separator.is_empty() {
            f.write_str(self.none)
        } else {
            Ok(())
        }
    }

    pub(crate) fn parse(self, text: &str) -> Result<u64, ParseFlagsError> {
        let mut bits = 0;
        let mut column = 1;
        for word in text.split('|') {
            let value = self.value_of(word).ok_or_else(|| ParseFlagsError {
                word: word.to_owned(),
                column,
            })?;
            bits |= value;
            column += word.chars().count() + 1;
        }
        Ok(bits)
    }

    fn value_of(self, word: &str) -> Option<u64> {
        let mut names = self.printed.iter().chain(self.read);
        if let Some(&(value, _)) = names.find(|(_, name)| *name == word) {
            return Some(value);
        }
        if word == "0" {
            return Some(0);
        }
        let digits = word.strip_prefix("0x")?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u64::from_str_radix(digits, 16).ok();
        value.filter(|_| plain)
    }

    pub(crate) fn words(self) -> impl Iterator<Item = &'static str> {
        self.printed.iter().chain(self.read).map(|(_, name)| *name)
    }
}

/// A word between two `|` is neither a name of this type nor a hex number that fits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFlagsError {
    /// The offending word.
    pub word: String,
    /// Where it starts: 1 for the first character.
    pub column: usize,
}

impl fmt::Display for ParseFlagsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: unknown flag {:?}", self.column, self.word)
    }
}

impl std::error::Error for ParseFlagsError {}

/// Defines a type of flags over an integer, with `Display`, `FromStr`, `words` and `contains`.
macro_rules! bit_set {
    ($(#[$attribute:meta])* $name:ident($integer:ty), $names:expr) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub $integer);

        impl $name {
            /// Whether every bit of `other` is set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The set bits that have no name.
            #[must_use]
            pub fn unknown(self) -> Self {
                let known = $names.printed.iter().fold(0, |known, (value, _)| known | value);
                Self(self.0 & !(<$integer>::try_from(known).expect("names fit their type")))
            }

            /// Every name that is understood, for suggestions and completions.
            pub fn words() -> impl Iterator<Item = &'static str> {
                $names.words()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $names.print(u64::from(self.0), f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ParseFlagsError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let bits = $names.parse(text)?;
                <$integer>::try_from(bits).map(Self).map_err(|_| $crate::ParseFlagsError {
                    word: format!("{bits:#x}"),
                    column: 1,
                })
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
}

pub(crate) use bit_set;
