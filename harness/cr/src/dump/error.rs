//! Why there is no image.

use std::fmt;
use std::io;
use std::path::PathBuf;

use fsnotify::counted;
use nix::errno::Errno;

use crate::fanotify::blocked::Waiting;
use crate::fanotify::dump::Refusal;

/// What could not be dumped, and where it is.
#[derive(Debug)]
pub struct DumpError {
    /// `fd 5`, `process 12: fd 5`, `fd 3: watch 7`; empty for the dump as a whole.
    pub place: String,
    pub kind: DumpErrorKind,
}

#[derive(Debug)]
pub enum DumpErrorKind {
    /// There is no way to restore such a thing: `socket`, `pipe`.
    NotSupported(String),
    /// A process that still runs: its state, a letter of `/proc/PID/stat`.
    /// The letter of its state, and where in the kernel it sleeps (`wchan`).
    NotStopped(char, String),
    /// Unread bytes, and the policy is to refuse.
    Unread { bytes: usize },
    /// A ghost with more content than the limit.
    TooLarge { bytes: u64, limit: u64 },
    /// Nothing known leads to a watched inode.
    NoPath { ino: u64, major: u32, minor: u32 },
    /// The same, of an inode whose handle fdinfo did not show though asked for two seconds.
    NoHandle { ino: u64, major: u32, minor: u32 },
    /// A fanotify group that is not dumped.
    Fanotify(Refusal),
    /// A process that cannot be stopped, since it waits for a permission listener's answer.
    Waiting(Waiting),
    /// What cannot be a subject, or a place that is in use; in words.
    Refused(String),
    /// The caller blocks this signal, which came before anything was taken.
    Interrupted(i32),
    /// A failure behind the reading of fanotify queues, which nothing fills again, and files of what
    /// was read.
    Lost {
        error: Box<DumpError>,
        files: Vec<PathBuf>,
    },
    /// A queue that was taken could not be given back.
    NotPutBack(String),
    /// A text of /proc that is not understood.
    Text(String),
    /// A call failed on an operand.
    Call {
        call: &'static str,
        operand: String,
        errno: Errno,
    },
}

impl DumpError {
    pub(super) fn new(place: impl Into<String>, kind: DumpErrorKind) -> Self {
        let place = place.into();
        Self { place, kind }
    }

    pub(super) fn not_supported(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(place, DumpErrorKind::NotSupported(what.into()))
    }

    pub(super) fn on(call: &'static str, operand: impl Into<String>, errno: Errno) -> Self {
        let operand = operand.into();
        Self::new(
            "",
            DumpErrorKind::Call {
                call,
                operand,
                errno,
            },
        )
    }

    pub(super) fn io(call: &'static str, operand: impl Into<String>, error: &io::Error) -> Self {
        let operand = operand.into();
        match error.raw_os_error() {
            Some(errno) => Self::on(call, operand, Errno::from_raw(errno)),
            None => Self::new(
                "",
                DumpErrorKind::Text(format!("{call} {operand}: {error}")),
            ),
        }
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

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        match &self.kind {
            DumpErrorKind::NotSupported(what) => write!(f, "{what}: not supported"),
            DumpErrorKind::NotStopped(state, place) => {
                write!(f, "not stopped (state {state}, in {place})")
            }
            DumpErrorKind::Unread { bytes } => write!(f, "{} unread", counted(bytes, "byte")),
            DumpErrorKind::TooLarge { bytes, limit } => {
                let bytes = counted(bytes, "byte");
                write!(f, "{bytes} of content, the limit is {limit}")
            }
            DumpErrorKind::NoPath { ino, major, minor } => {
                write!(
                    f,
                    "no handle or path leads to inode {ino} of device {major}:{minor}"
                )
            }
            DumpErrorKind::NoHandle { ino, major, minor } => write!(
                f,
                "inode {ino} of device {major}:{minor} has no file handle: its superblock is busy"
            ),
            DumpErrorKind::Fanotify(refusal) => refusal.fmt(f),
            DumpErrorKind::Waiting(waiting) => waiting.fmt(f),
            DumpErrorKind::Refused(what) => f.write_str(what),
            DumpErrorKind::Interrupted(signal) => write!(f, "interrupted by signal {signal}"),
            DumpErrorKind::Lost { error, files } => {
                let files: Vec<_> = files.iter().map(|it| it.display().to_string()).collect();
                let files = files.join(", ");
                write!(
                    f,
                    "{error}; unread fanotify events cannot be given back, and are in {files}"
                )
            }
            DumpErrorKind::NotPutBack(why) => write!(f, "queue not put back: {why}"),
            DumpErrorKind::Text(text) => write!(f, "not understood: {text}"),
            DumpErrorKind::Call {
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

impl std::error::Error for DumpError {}
