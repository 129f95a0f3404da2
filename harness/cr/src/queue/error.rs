//! Why a queue could not be rebuilt.

use std::fmt;

use fsnotify::event::DecodeError;
use fsnotify::inotify::Mask;
use fsnotify::{Wd, counted};
use nix::errno::Errno;

/// Failure of [`super::rebuild`]: what went wrong, and at which event of the saved queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebuildError {
    /// The saved bytes are no events.
    Decode { index: usize, error: DecodeError },
    /// An event of the saved queue cannot be made again.
    Event { event: Event, reason: Reason },
    /// The saved queue is longer than a group on this machine can hold
    /// (`fs.inotify.max_queued_events`).
    TooLong { events: usize, limit: usize },
    /// The group is not as a group to rebuild in must be: unread bytes, or watches.
    NotEmpty { unread: usize },
    /// The queue did not take the events that close it: its limit is not what the sysctl says.
    Fill { expected: usize, found: usize },
    /// The finished queue has another size than the saved one.
    Size { expected: usize, found: usize },
    /// A call that belongs to no single event failed.
    Call { call: &'static str, errno: Errno },
}

/// An event of the saved queue, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// From 0, in the order of the queue.
    pub index: usize,
    /// None in an overflow event.
    pub wd: Option<Wd>,
    pub mask: Mask,
    pub name: Option<Vec<u8>>,
}

/// What is wrong with one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    BadWd,
    BadName,
    /// No kernel path makes such an event, or none is known.
    NoRecipe,
    /// Equal to the event before it: the kernel would have merged the two.
    Merged,
    /// A second overflow event; a queue holds at most one.
    SecondOverflow,
    /// Before an overflow event a watch cannot change its inode unheard, and this event needs it.
    InodeBeforeOverflow,
    /// The watch descriptor of the event was not free in the group.
    WdTaken {
        got: i32,
    },
    /// Making it changed the size of the queue by something else than its own.
    Unheard {
        expected: usize,
        found: usize,
    },
    /// Another process has the filesystem open that was to be unmounted, and keeps it.
    StillMounted,
    /// A call of its recipe failed.
    Call {
        call: &'static str,
        errno: Errno,
    },
}

impl fmt::Display for RebuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode { index, error } => write!(f, "event {index}: {error}"),
            Self::Event { event, reason } => write!(f, "{event}: {reason}"),
            Self::TooLong { events, limit } => {
                let events = counted(events, "event");
                write!(f, "{events}: this machine queues at most {limit}")
            }
            Self::NotEmpty { unread } => write!(f, "the group has {unread} unread bytes already"),
            Self::Fill { expected, found } => {
                write!(f, "full queue: {found} unread bytes, not {expected}")
            }
            Self::Size { expected, found } => {
                write!(f, "rebuilt queue: {found} unread bytes, not {expected}")
            }
            Self::Call { call, errno } => write!(f, "{call}: {}", errno.desc()),
        }
    }
}

impl std::error::Error for RebuildError {}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, mask, .. } = self;
        let wd = self.wd.map_or(-1, Wd::number);
        write!(f, "event {index} (wd {wd} {mask}")?;
        if let Some(name) = &self.name {
            write!(f, " \"{}\"", name.escape_ascii())?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadWd => f.write_str("not a watch descriptor"),
            Self::BadName => f.write_str("not the name of a directory entry"),
            Self::NoRecipe => f.write_str("no system call is known to make such an event"),
            Self::Merged => f.write_str("the kernel would merge it into the equal event before"),
            Self::SecondOverflow => f.write_str("a queue holds one overflow event at most"),
            Self::InodeBeforeOverflow => {
                f.write_str("its watch would have to change inodes before the overflow event")
            }
            Self::WdTaken { got } => write!(f, "wd not free: the watch got {got}"),
            Self::Unheard { expected, found } => {
                let found = counted(found, "byte");
                write!(f, "the queue has {found} after it, not {expected}")
            }
            Self::StillMounted => f.write_str("another process keeps its filesystem mounted"),
            Self::Call { call, errno } => write!(f, "{call}: {}", errno.desc()),
        }
    }
}
