//! Everything that cannot be kept, by kind; and a loss, which a dump says beforehand.
//!
//! `docs/losses.md` tells of each kind why, and what to do instead. A test keeps the two equal.

use std::fmt;

use crate::image::LossRecord;

macro_rules! kinds {
    ($($kind:ident = $number:literal, I $invariant:literal, $name:literal, $what:literal;)*) => {
        /// What cannot be kept: one thing, for one cause. Its number is that in an image, and is
        /// never given to another.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum LossKind {
            $(#[doc = $what] $kind = $number,)*
        }

        impl LossKind {
            /// Every kind, in order of the invariant's group.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Number of the invariant's group, 1 to 10.
            #[must_use]
            pub const fn invariant(self) -> u8 {
                match self {
                    $(Self::$kind => $invariant,)*
                }
            }

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// What is lost, in a sentence.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$kind => $what,)*
                }
            }
        }

        impl TryFrom<u32> for LossKind {
            type Error = u32;

            fn try_from(number: u32) -> Result<Self, u32> {
                match number {
                    $($number => Ok(Self::$kind),)*
                    _ => Err(number),
                }
            }
        }
    };
}

kinds! {
    FiredInterest = 1, I 1, "fired-interest", "A fired one-shot interest waits for EPOLLERR and EPOLLHUP again.";
    ForeignOwner = 44, I 1, "foreign-owner", "A process that is not in the image gets no more signals of a descriptor.";

    NextWatch = 2, I 2, "next-watch", "The next watch gets another number.";

    IgnoredMask = 3, I 3, "ignored-mask", "A mark lacks an ignored mask that lasts until the file is written.";
    EmptiedMark = 4, I 3, "emptied-mark", "A mark that reports and ignores nothing any more is missing.";
    EndedMark = 5, I 3, "ended-mark", "A mark on a removed file that an unread event alone kept is missing.";

    QueueDropped = 6, I 4, "queue-dropped", "The unread events are missing.";
    CookieChanged = 7, I 4, "cookie-changed", "A half of a rename does not pair with the other, which was read before or is in another group.";
    RenameParted = 8, I 4, "rename-parted", "Two halves of a rename with an event between them do not pair.";
    OverflowAdded = 9, I 4, "overflow-added", "A queue that was exactly full ends in an overflow event.";
    WindowHeard = 10, I 4, "window-heard", "Events that came while the queue of a process that runs on was put back are missing.";
    WindowUnknown = 11, I 4, "window-unknown", "Events may be missing that came while the queue of a process that runs on was put back.";
    DescriptorEvents = 12, I 4, "descriptor-events", "Unread fanotify events that come with descriptors are missing.";
    MountEvents = 13, I 4, "mount-events", "Unread fanotify events about mounts are missing.";
    MountOverflow = 14, I 4, "mount-overflow", "The overflow event of a group that hears of mounts is missing.";
    OverflowedEvents = 15, I 4, "overflowed-events", "Of an overflowed fanotify queue, all but the overflow event is missing.";
    LongQueue = 16, I 4, "long-queue", "A fanotify queue of too many events, objects or filesystems is missing.";
    UnprivilegedQueue = 17, I 4, "unprivileged-queue", "The fanotify queue of an unprivileged group is missing.";
    UnseenMaker = 18, I 4, "unseen-maker", "A fanotify queue with an event of a process that its reader cannot see is missing.";
    LivingMaker = 19, I 4, "living-maker", "A fanotify queue with an event of another process that still lives is missing.";
    ForeignObject = 20, I 4, "foreign-object", "A fanotify queue about an object that no filesystem can be forged for is missing.";
    NewDirectory = 21, I 4, "new-directory", "A fanotify queue that tells of a new directory by its handle is missing.";
    UnknownEvent = 22, I 4, "unknown-event", "A fanotify queue with an event that nothing is known to make is missing.";
    MergingEvents = 23, I 4, "merging-events", "A fanotify queue with two events that the kernel would merge is missing.";
    FailedRehearsal = 24, I 4, "failed-rehearsal", "A fanotify queue that could not be made again when it was tried is missing.";
    HardlinkUnread = 25, I 4, "hardlink-unread", "Unread events are joined by those of a ghost's link.";

    HardlinkHeard = 26, I 5, "hardlink-heard", "The subject reads events of a ghost's link.";
    UnnamedNumber = 40, I 5, "unnamed-number", "Later events of a file without a name have another number in its place than unread ones.";
    ClosedBesideParked = 27, I 5, "closed-beside-parked", "Parked groups hear how the process closes the rest.";

    FifoContent = 28, I 6, "fifo-content", "What a fifo holds is missing.";
    FifoEvents = 29, I 6, "fifo-events", "Reading what a fifo held makes no event.";
    EdgeInDoubt = 30, I 6, "edge-in-doubt", "An edge that was reported already may be reported again.";

    UnwrittenPages = 31, I 7, "unwritten-pages", "Space of a ghost that was allocated and never written is elsewhere, or is not allocated.";
    GhostDirectory = 32, I 7, "ghost-directory", "A ghost may be in another of the directories that had its path.";
    TmpfileFlag = 33, I 7, "tmpfile-flag", "A descriptor lacks O_TMPFILE.";
    SymlinkAccess = 34, I 7, "symlink-access", "A removed symbolic link has another time of access, in a process that runs on.";
    HiddenAttribute = 41, I 7, "hidden-attribute", "A ghost lacks an extended attribute.";
    InodeFlags = 42, I 7, "inode-flags", "A ghost lacks flags of its inode, or its project.";
    DirectorySize = 43, I 7, "directory-size", "A removed directory has another size.";
    HardlinkName = 35, I 7, "hardlink-name", "A ghost shows the name of its link.";

    GhostOpened = 36, I 8, "ghost-opened", "Other watchers hear a ghost opened and closed by the dump.";
    HardlinkNoise = 37, I 8, "hardlink-noise", "Other watchers hear of a ghost's link.";

    HardlinkDirectory = 38, I 9, "hardlink-directory", "The directory of a ghost has other times.";
    OthersDirectory = 39, I 9, "others-directory", "The directory of a ghost, which is another user's, has other times.";
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A thing that will not be after the restore what it was before the dump.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loss {
    /// Or its number in an image, if it is not one of ours; 0 if the image does not tell.
    pub kind: Result<LossKind, u32>,
    /// Number of the invariant's group, 1 to 10.
    pub invariant: u8,
    /// What is lost: `queue of fd 3: 5 events`.
    pub object: String,
    pub reason: String,
}

impl Loss {
    #[must_use]
    pub fn new(kind: LossKind, object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            kind: Ok(kind),
            invariant: kind.invariant(),
            object: object.into(),
            reason: reason.into(),
        }
    }

    /// The name of the kind, known or not.
    #[must_use]
    pub fn kind_name(&self) -> String {
        match self.kind {
            Ok(kind) => kind.to_string(),
            Err(0) => "untold".to_owned(),
            Err(number) => format!("unknown-{number}"),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (invariant, kind) = (self.invariant, self.kind_name());
        write!(f, "I{invariant} {kind}: {}: {}", self.object, self.reason)
    }
}

impl From<&LossRecord> for Loss {
    fn from(record: &LossRecord) -> Self {
        let kind = LossKind::try_from(record.kind);
        Self {
            kind,
            invariant: match kind {
                Ok(kind) => kind.invariant(),
                Err(_) => u8::try_from(record.invariant).unwrap_or(u8::MAX),
            },
            object: record.object.clone(),
            reason: record.reason.clone(),
        }
    }
}

impl From<Loss> for LossRecord {
    fn from(loss: Loss) -> Self {
        Self {
            invariant: loss.invariant.into(),
            object: loss.object,
            reason: loss.reason,
            kind: match loss.kind {
                Ok(kind) => kind as u32,
                Err(number) => number,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn every_kind_comes_back_from_its_record() {
        for &kind in LossKind::ALL {
            let loss = Loss::new(kind, "fd 3", "of a reason");
            let record = LossRecord::from(loss.clone()).encode_to_vec();
            let record = LossRecord::decode(&record[..]).unwrap();
            assert_eq!(Loss::from(&record), loss);
        }
    }

    #[test]
    fn kinds_have_numbers_and_names_of_their_own() {
        let mut numbers: Vec<u32> = LossKind::ALL.iter().map(|kind| *kind as u32).collect();
        let mut names: Vec<&str> = LossKind::ALL.iter().map(|kind| kind.name()).collect();
        numbers.sort_unstable();
        names.sort_unstable();
        names.dedup();
        let n_kinds = u32::try_from(names.len()).unwrap();
        assert_eq!(numbers, (1..=n_kinds).collect::<Vec<_>>());
    }

    fn shown(number: u32, invariant: u32) -> String {
        let record = LossRecord {
            invariant,
            object: "fd 3".to_owned(),
            reason: "of a reason".to_owned(),
            kind: number,
        };
        let loss = Loss::from(&record);
        assert_eq!(loss.kind, LossKind::try_from(number));
        if loss.kind.is_err() && invariant < 256 {
            assert_eq!(LossRecord::from(loss.clone()), record);
        }
        loss.to_string()
    }

    #[test]
    fn a_kind_of_another_version_is_shown_as_such() {
        assert_eq!(shown(0, 4), "I4 untold: fd 3: of a reason");
        assert_eq!(shown(9999, 4), "I4 unknown-9999: fd 3: of a reason");
        assert_eq!(shown(9999, 70_000), "I255 unknown-9999: fd 3: of a reason");
        assert_eq!(shown(28, 4), "I6 fifo-content: fd 3: of a reason");
    }
}
