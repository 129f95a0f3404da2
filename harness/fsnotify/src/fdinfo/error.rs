//! Why a text was refused, and where.

use std::fmt;

/// Most bytes of offending text that an error quotes.
const EXCERPT: usize = 40;

/// A text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub kind: ErrorKind,
    /// 1 for the first line.
    pub line: usize,
    /// 1 for the first byte of the line.
    pub column: usize,
    /// The field that is wrong, or that was expected; empty where no field is meant.
    pub field: &'static str,
    /// The offending text.
    pub text: Excerpt,
}

/// The beginning of the offending text, kept inline so that refusing allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Excerpt {
    bytes: [u8; EXCERPT],
    length: u8,
    cut: bool,
}

impl Excerpt {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut bytes = [0; EXCERPT];
        let shown = text.len().min(EXCERPT);
        bytes[..shown].copy_from_slice(&text[..shown]);
        Self {
            bytes,
            length: u8::try_from(shown).expect("an excerpt is short"),
            cut: text.len() > EXCERPT,
        }
    }

    /// The quoted bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Quoted, with escapes for what is not printable.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.cut { "..." } else { "" };
        write!(f, "\"{}{more}\"", self.bytes().escape_ascii())
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    BadByte,
    Truncated,
    TooLong,
    TooLarge,
    TooMany,
    BadSeparator,
    HeadMissing,
    HeadOrder,
    HeadDuplicate,
    BadOctal,
    BadDecimal,
    BadHex,
    Overflow,
    FieldMissing,
    FieldOrder,
    FieldDuplicate,
    UnknownField,
    TrailingGarbage,
    UnknownMarkKind,
    UnknownHead,
    UnknownLine,
    GroupMissing,
    GroupDuplicate,
    MixedKinds,
    KindMismatch,
    WdRange,
    WdDuplicate,
    IgnoredMask,
    MntIdRange,
    HandlePartial,
    HandleLength,
    HandleSize,
    HandleType,
    HandleUnexpected,
    BadLock,
    MarkDuplicate,
}

impl ErrorKind {
    /// A sentence for people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::BadByte => "a byte that no fdinfo text has",
            Self::Truncated => "the text ends inside a line",
            Self::TooLong => "a line longer than any kernel prints",
            Self::TooLarge => "the text is larger than the limit",
            Self::TooMany => "more marks than the limit",
            Self::BadSeparator => "a wrong separator",
            Self::HeadMissing => "a line of the head is missing",
            Self::HeadOrder => "a line of the head is out of order",
            Self::HeadDuplicate => "a line of the head is repeated",
            Self::BadOctal => "no octal number with a leading 0",
            Self::BadDecimal => "no decimal number",
            Self::BadHex => "no lower-case hex number",
            Self::Overflow => "a number that is too large",
            Self::FieldMissing => "a field is missing",
            Self::FieldOrder => "a field is out of order",
            Self::FieldDuplicate => "a field is repeated",
            Self::UnknownField => "an unknown field",
            Self::TrailingGarbage => "text after the last field",
            Self::UnknownMarkKind => "a mark of an unknown kind",
            Self::UnknownHead => "an unknown line of the head",
            Self::UnknownLine => "an unknown line",
            Self::GroupMissing => "no line with the flags of the fanotify group before this",
            Self::GroupDuplicate => "a second line with the flags of the fanotify group",
            Self::MixedKinds => "inotify and fanotify lines in one text",
            Self::KindMismatch => "not the kind of line that this descriptor has",
            Self::WdRange => "a watch descriptor is 1 to 7fffffff",
            Self::WdDuplicate => "a watch descriptor that another line has",
            Self::IgnoredMask => "inotify has no ignored mask",
            Self::MntIdRange => "a mount id is 1 to 7fffffff",
            Self::HandlePartial => "only a part of a file handle",
            Self::HandleLength => "a file handle whose digits are not as many as its size says",
            Self::HandleSize => "a file handle has 4 to 80 (hex) bytes, a multiple of 4",
            Self::HandleType => "a file handle has a type of 1 to ffff that is not ff",
            Self::HandleUnexpected => "a file handle on a mark that has none",
            Self::BadLock => "no line of a lock",
            Self::MarkDuplicate => "a second mark on the same object",
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}:{}: ", self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}: {}", self.kind.sentence(), self.text)
    }
}

impl std::error::Error for ParseError {}

/// A refusal inside one line, before it is known which line that is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    /// Offset in the line.
    pub(super) at: usize,
    pub(super) field: &'static str,
}

impl Fault {
    pub(super) const fn new(kind: ErrorKind, at: usize, field: &'static str) -> Self {
        Self { kind, at, field }
    }
}
