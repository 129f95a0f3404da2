//! Why a process is not what the image says.

use std::fmt;

use nix::errno::Errno;

use crate::image::ReadError;
use crate::queue::RebuildError;

/// What could not be restored, and where it is.
#[derive(Debug)]
pub struct RestoreError {
    /// `fd 5`, `fd 3: watch 7`, `ghost /w/a`; empty for the restore as a whole.
    pub place: String,
    pub kind: RestoreErrorKind,
}

#[derive(Debug)]
pub enum RestoreErrorKind {
    /// The file is no image.
    Image(ReadError),
    /// The image is of this user, who is neither the caller nor root.
    OtherOwner(u32),
    /// A path leads to another inode than at the dump.
    OtherInode { found: u64, expected: u64 },
    /// A path leads to an inode that was made since, with the number of the one at the dump.
    MadeSince { ino: u64 },
    /// A path leads to another filesystem than at the dump, whose own is mounted still.
    OtherFilesystem,
    /// A path leads to another type of file than at the dump.
    OtherType,
    /// A watch got another number.
    OtherWatch { found: i32 },
    /// There is no queue with these events.
    Queue(RebuildError),
    /// A fanotify group could not be made.
    Fanotify(String),
    /// The image, or the journal of a restore from it, asks for what no dump or restore writes.
    Impossible(&'static str),
    /// A child could not be restored; its own error went to its standard error or is lost.
    Child,
    /// A call failed on an operand.
    Call {
        call: &'static str,
        operand: String,
        errno: Errno,
    },
}

impl RestoreError {
    pub(super) fn new(kind: RestoreErrorKind) -> Self {
        Self {
            place: String::new(),
            kind,
        }
    }

    pub(super) fn read(error: ReadError) -> Self {
        Self::new(RestoreErrorKind::Image(error))
    }

    pub(super) fn call(call: &'static str, operand: impl Into<String>, errno: Errno) -> Self {
        let operand = operand.into();
        Self::new(RestoreErrorKind::Call {
            call,
            operand,
            errno,
        })
    }

    /// Says where it happened.
    pub(super) fn at(mut self, place: &str) -> Self {
        if self.place.is_empty() {
            place.clone_into(&mut self.place);
        } else if !place.is_empty() {
            self.place = format!("{place}: {}", self.place);
        }
        self
    }
}

/// An errno that becomes an error by the call and what it was called on, which is put into words
/// only then: most calls are made for each of many watches.
pub(super) trait Context<T> {
    fn context(self, call: &'static str, operand: impl fmt::Display) -> Result<T, RestoreError>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn context(self, call: &'static str, operand: impl fmt::Display) -> Result<T, RestoreError> {
        self.map_err(|errno| RestoreError::call(call, operand.to_string(), errno))
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        match &self.kind {
            RestoreErrorKind::Image(error) => error.fmt(f),
            RestoreErrorKind::OtherOwner(uid) => write!(
                f,
                "image: of user {uid}, who may have put anything into it: --root DIR keeps the \
                 restore inside of DIR, --trust believes him"
            ),
            RestoreErrorKind::OtherInode { found, expected } => {
                write!(f, "leads to inode {found}, at the dump it was {expected}")
            }
            RestoreErrorKind::MadeSince { ino } => {
                write!(f, "leads to an inode {ino} that was made after the dump")
            }
            RestoreErrorKind::OtherFilesystem => {
                f.write_str("is on another filesystem than at the dump")
            }
            RestoreErrorKind::OtherType => f.write_str("is of another type than at the dump"),
            RestoreErrorKind::OtherWatch { found } => write!(f, "became watch {found}"),
            RestoreErrorKind::Queue(error) => write!(f, "queue: {error}"),
            RestoreErrorKind::Fanotify(error) => f.write_str(error),
            RestoreErrorKind::Impossible(what) => f.write_str(what),
            RestoreErrorKind::Child => f.write_str("not restored"),
            RestoreErrorKind::Call {
                call,
                operand,
                errno,
            } => {
                let space = if operand.is_empty() { "" } else { " " };
                write!(f, "{call}{space}{operand}: {errno}")
            }
        }
    }
}

impl std::error::Error for RestoreError {}
