//! What builtin does where there is a choice: about unread events, and about ghosts.

use serde::{Deserialize, Serialize};

/// What to do about unread events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Queue {
    /// Take them along.
    Keep,
    /// Leave them behind, and say so.
    Drop,
    /// Do not dump a process that has some.
    Refuse,
}

/// How open files without a name are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Ghosts {
    /// Read without being heard, and made again out of sight.
    Silent,
    /// Linked to a name at the dump that the restore removes; whoever watches hears both.
    Hardlink,
}

/// The two together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    pub queue: Queue,
    pub ghosts: Ghosts,
}

impl Policies {
    /// Nothing lost that can be kept, nobody told.
    pub const BUILTIN: Self = Self {
        queue: Queue::Keep,
        ghosts: Ghosts::Silent,
    };
    /// What CRIU's documentation describes.
    pub const CLASSIC: Self = Self {
        queue: Queue::Drop,
        ghosts: Ghosts::Hardlink,
    };

    /// The name of the engine that has them.
    pub(super) const fn name(self) -> &'static str {
        match (self.queue, self.ghosts) {
            (Queue::Keep, Ghosts::Silent) => "builtin",
            (Queue::Drop, Ghosts::Silent) => "builtin-drop",
            (Queue::Refuse, Ghosts::Silent) => "builtin-refuse",
            (Queue::Keep, Ghosts::Hardlink) => "builtin-hardlink",
            (Queue::Drop, Ghosts::Hardlink) => "classic",
            (Queue::Refuse, Ghosts::Hardlink) => "builtin-refuse-hardlink",
        }
    }

    /// The options of `notifreeze run` that choose them.
    pub(super) fn options(self) -> String {
        if self == Self::CLASSIC {
            return "--engine classic".to_owned();
        }
        let queue = match self.queue {
            Queue::Keep => "keep",
            Queue::Drop => "drop",
            Queue::Refuse => "refuse",
        };
        let ghosts = match self.ghosts {
            Ghosts::Silent => "silent",
            Ghosts::Hardlink => "hardlink",
        };
        format!("--engine builtin --queue {queue} --ghosts {ghosts}")
    }
}

impl From<Queue> for cr::QueuePolicy {
    fn from(queue: Queue) -> Self {
        match queue {
            Queue::Keep => Self::Keep,
            Queue::Drop => Self::Drop,
            Queue::Refuse => Self::Refuse,
        }
    }
}

impl From<Ghosts> for cr::Ghosts {
    fn from(ghosts: Ghosts) -> Self {
        match ghosts {
            Ghosts::Silent => Self::Silent,
            Ghosts::Hardlink => Self::HardLink,
        }
    }
}
