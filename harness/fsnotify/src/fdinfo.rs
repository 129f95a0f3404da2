//! `/proc/PID/fdinfo/FD` of inotify and fanotify descriptors, as every kernel since 3.8 prints it
//! (`inotify_show_fdinfo`, `fanotify_show_fdinfo`).
//!
//! [`Lines`] yields typed lines that borrow from the text and allocates nothing; [`Stream`] does the
//! same for text that comes in pieces; [`Group`] collects a whole file. Printing what was parsed
//! gives the same bytes back.
//!
//! The text does not say everything: a group of inotify without watches has no line of its own, so
//! which kind of descriptor it is has to be asked of the link `/proc/PID/fd/FD`.
//!
//! What is not here: reading the file, opening handles, finding paths. Whether flags and masks make
//! sense together is a question of its own: [`audit()`].

mod audit;
pub mod check;
mod cursor;
mod error;
mod explain;
mod group;
mod head;
mod line;
mod lines;
mod lock;
mod mark;
mod print;
mod quick;
mod scan;
mod stream;

pub use audit::{Inconsistency, InconsistencyKind, audit};
pub use error::{ErrorKind, Excerpt, ParseError};
pub use group::{Body, Group, Head, Unknown, UnknownKind};
pub use line::{Line, Mark, MarkTarget, Watch};
pub use lines::Lines;
pub use lock::{Lock, LockAccess, LockClass, LockFile};
pub use stream::Stream;

/// Longest line, its line feed included. The longest that any kernel can print has 397 bytes:
/// a fanotify mark with a handle of 128 bytes and every number at full width.
pub const MAX_LINE: usize = 512;

/// Longest text read by default: more than two million marks (a mark takes 121 bytes on ext4).
pub const MAX_TEXT: usize = 256 << 20;

/// Most marks of one group by default: twice the largest `fs.inotify.max_user_watches` that the
/// kernel chooses by itself (`inotify_user_setup`: 1,048,576).
pub const MAX_MARKS: usize = 2 << 20;

/// How to take what no known kernel prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Refuse it.
    Strict,
    /// Keep unknown lines, keys and kinds of marks as typed unknowns; tolerate what an editor does
    /// to spaces at line ends; accept what old kernels and proposed patches print.
    Lenient,
}

/// Which call made the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Kind {
    Inotify,
    Fanotify,
}

/// What the reader of a text knows beside the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub level: Level,
    /// The kind that the descriptor's link states.
    pub kind: Option<Kind>,
    /// Kernels 4.14 to 4.18 print `lock:` without content and line feed for a lock whose owner is
    /// not visible in the reader's pid namespace, so that the next line is glued to it.
    pub glued_locks: bool,
    /// Longest text: [`MAX_TEXT`].
    pub max_text: usize,
    /// Most marks: [`MAX_MARKS`].
    pub max_marks: usize,
}

impl Options {
    /// The defaults at this level.
    #[must_use]
    pub const fn new(level: Level) -> Self {
        Self {
            level,
            kind: None,
            glued_locks: false,
            max_text: MAX_TEXT,
            max_marks: MAX_MARKS,
        }
    }
}

/// What the lenient level let pass and printing does not give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tolerance {
    /// An inode mark without handle ends without the space that kernels print there.
    MissingSpace,
    /// A line ends with a space where kernels print none.
    ExtraSpace,
}

impl std::fmt::Display for Tolerance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::MissingSpace => "the space at the end of the line is missing",
            Self::ExtraSpace => "a space too many at the end of the line",
        })
    }
}
