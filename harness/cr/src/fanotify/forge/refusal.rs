//! Why a queue is not made again.

use std::fmt;

use fsnotify::fanotify::Mask;

use super::plan::{MAX_EVENTS, MAX_FILESYSTEMS, MAX_OBJECTS};
use crate::loss::LossKind;

/// Why a queue is not made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unforgeable {
    /// The group reports descriptors.
    Descriptors,
    /// The group reports mounts.
    Mounts,
    /// The overflow event is one of many.
    Overflowed,
    TooMany,
    /// Readers of the group see no pids but their own.
    Unprivileged,
    Undecodable,
    /// An event, counted from 1, and what is wrong with it.
    Event(usize, Reason),
    /// It was tried, and this happened.
    Tried(String),
}

/// What keeps an event from being made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// By a process that the reader cannot see.
    Maker,
    /// The process lives, and is not the one that makes the queue.
    Alive(i32),
    Handle {
        kind: i32,
        n_bytes: usize,
    },
    /// A filesystem without a number takes no mark on all of it.
    NoNumber,
    Inode(u32),
    Name,
    NewDirectory,
    Operation(Mask),
    Records,
    /// As an earlier event, with which the kernel would merge it.
    Twice(usize),
}

impl Unforgeable {
    /// What it is called among all that cannot be kept.
    #[must_use]
    pub fn kind(&self) -> LossKind {
        match self {
            Self::Descriptors => LossKind::DescriptorEvents,
            Self::Mounts => LossKind::MountEvents,
            Self::Overflowed => LossKind::OverflowedEvents,
            Self::TooMany => LossKind::LongQueue,
            Self::Unprivileged => LossKind::UnprivilegedQueue,
            Self::Undecodable => LossKind::UnknownEvent,
            Self::Event(_, reason) => reason.kind(),
            Self::Tried(_) => LossKind::FailedRehearsal,
        }
    }
}

impl Reason {
    fn kind(&self) -> LossKind {
        match self {
            Self::Maker => LossKind::UnseenMaker,
            Self::Alive(_) => LossKind::LivingMaker,
            Self::Handle { .. } | Self::NoNumber | Self::Inode(_) => LossKind::ForeignObject,
            Self::NewDirectory => LossKind::NewDirectory,
            Self::Name | Self::Operation(_) | Self::Records => LossKind::UnknownEvent,
            Self::Twice(_) => LossKind::MergingEvents,
        }
    }
}

impl fmt::Display for Unforgeable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors | Self::Mounts => {
                f.write_str("only the objects themselves make them again")
            }
            Self::Overflowed => f.write_str("the queue overflowed"),
            Self::TooMany => write!(
                f,
                "they are more than {MAX_EVENTS}, or of more than {MAX_OBJECTS} objects or \
                 {MAX_FILESYSTEMS} filesystems"
            ),
            Self::Unprivileged => f.write_str(
                "the group is unprivileged and shows its own process alone who made them",
            ),
            Self::Undecodable => f.write_str("not as any kernel writes them"),
            Self::Event(number, reason) => write!(f, "event {number}: {reason}"),
            Self::Tried(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maker => f.write_str("made by a process that cannot be seen"),
            Self::Alive(pid) => {
                write!(
                    f,
                    "made by process {pid}, which lives and would have to make it again itself"
                )
            }
            Self::Handle { kind, n_bytes } => write!(
                f,
                "only the object itself makes it again, as no filesystem can be forged that has \
                 handles of type {kind:#x} with {n_bytes} bytes"
            ),
            Self::NoNumber => f.write_str("its filesystem has no number"),
            Self::Inode(ino) => write!(f, "inode {ino} cannot be forged"),
            Self::Name => f.write_str("no name of a directory entry"),
            Self::NewDirectory => f.write_str("the generation of a new directory cannot be chosen"),
            Self::Operation(mask) => write!(f, "nothing is known to make {mask} so"),
            Self::Records => f.write_str("nothing is known to make such records"),
            Self::Twice(other) => write!(f, "the kernel would merge it with event {other}"),
        }
    }
}
