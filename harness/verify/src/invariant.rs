//! What has to hold across a cut: ten groups of numbered sentences. Every difference cites one.
//!
//! `INVARIANTS.md` at the root of the repository says the same to people; a test keeps the two
//! equal, sentence by sentence. A number is never given to another sentence: snapshots cite it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a sentence: `I3.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Invariant {
    /// 1 to 10, see [`GROUPS`].
    pub group: u8,
    /// From 1 within its group.
    pub number: u8,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{}.{}", self.group, self.number)
    }
}

impl Invariant {
    /// What has to hold; none if no sentence has this number.
    #[must_use]
    pub fn sentence(self) -> Option<&'static str> {
        let entry = TABLE.iter().find(|(invariant, _)| *invariant == self)?;
        Some(entry.1)
    }
}

/// Titles of the ten groups, in order.
pub const GROUPS: [&str; 10] = [
    "Groups and descriptors",
    "Watches",
    "Masks, marks and flags",
    "The unread queue",
    "No spurious event",
    "Behaviour after the cut",
    "Ghosts",
    "Bystanders",
    "The visible tree",
    "Nothing left behind",
];

macro_rules! table {
    ($($name:ident = $group:literal . $number:literal, $sentence:literal;)*) => {
        $(
            #[doc = $sentence]
            pub const $name: Invariant = Invariant { group: $group, number: $number };
        )*
        /// Every invariant with its sentence, in order of number.
        pub const TABLE: &[(Invariant, &str)] = &[$(($name, $sentence)),*];
    };
}

table! {
    DESCRIPTOR = 1 . 1, "Every descriptor of the subject is there at its number and refers to the same object.";
    DESCRIPTOR_FLAGS = 1 . 2, "Access mode, status flags and close-on-exec of a descriptor are those that it had.";
    OWNER = 1 . 3, "Owner and signal of a descriptor (F_SETOWN, F_SETSIG) are those that it had.";
    SHARING = 1 . 4, "Descriptors that shared an open file description, by dup or by fork, share it still, and no others do.";
    INTEREST = 1 . 5, "An epoll descriptor has the interest list that it had, with the same events and data.";
    OFFSET = 1 . 6, "The file offset of a descriptor whose file has a name is the one that it had.";
    WORKING_DIRECTORY = 1 . 7, "The working directory of a process is the one that it had.";

    WATCH = 2 . 1, "Every watch is there with the same wd, on the same inode.";
    WATCH_SPURIOUS = 2 . 2, "No watch is there that was not there before the cut.";
    NEXT_WD = 2 . 3, "The next new watch of a group gets the wd that it would have had.";
    WATCH_ORDER = 2 . 4, "The watches of a group stand in fdinfo in the order that they had.";

    WATCH_MASK = 3 . 1, "The mask of a watch is the one that it had, IN_ONESHOT and IN_EXCL_UNLINK among its bits.";
    MARK = 3 . 2, "Every fanotify mark is there, of the same kind, on the same target.";
    MARK_SPURIOUS = 3 . 3, "No fanotify mark is there that was not there before the cut.";
    MARK_MASK = 3 . 4, "Mask and ignored mask of a fanotify mark are those that it had.";
    MARK_FLAGS = 3 . 5, "The flags of a fanotify mark are those that it had.";
    GROUP_FLAGS = 3 . 6, "The flags of fanotify_init and the event flags of a fanotify group are those that it had.";
    MARK_ORDER = 3 . 7, "The marks of a group stand in fdinfo in the order that they had.";

    UNREAD = 4 . 1, "Every event that was unread at the cut is read after it.";
    UNREAD_FIELDS = 4 . 2, "An event that was unread at the cut keeps its wd, mask, name and records.";
    UNREAD_ORDER = 4 . 3, "Events that were unread at the cut are read in the order in which they were queued.";
    UNREAD_COOKIE = 4 . 4, "Events that were unread at the cut pair by cookie as they did before it.";
    OVERFLOW = 4 . 5, "An overflow marker is read where it stood, and nowhere else.";
    UNREAD_BYTES = 4 . 6, "A group has as many unread bytes (FIONREAD) as it had.";

    SPURIOUS_INOTIFY = 5 . 1, "No inotify group of the subject reads an event that control does not read.";
    SPURIOUS_FANOTIFY = 5 . 2, "No fanotify group of the subject reads an event that control does not read.";

    OUTCOME = 6 . 1, "Every call after the cut returns what it returns in control.";
    EVENT = 6 . 2, "Every operation after the cut makes the events that it makes in control.";
    EVENT_FIELDS = 6 . 3, "An event made after the cut has the wd, mask, name and records that it has in control.";
    EVENT_ORDER = 6 . 4, "Events made after the cut are read in the order that they have in control.";
    EVENT_COOKIE = 6 . 5, "Events made after the cut pair by cookie as they do in control.";
    CONTENT = 6 . 6, "A read of a file after the cut gives the content that it gives in control.";
    READY = 6 . 7, "epoll_wait reports what it reports in control.";
    SIGNAL = 6 . 8, "The signals that control gets arrive, and no others.";

    GHOST_NAME = 7 . 1, "A ghost shows the name that it had, with (deleted) after it.";
    GHOST_CONTENT = 7 . 2, "A ghost has the size and the content that it had.";
    GHOST_HOLES = 7 . 3, "A ghost has the blocks that it had: its holes are holes.";
    GHOST_MODE = 7 . 4, "A ghost has the type, permissions, owner and group that it had.";
    GHOST_TIMES = 7 . 5, "A ghost has the access and modification times that it had.";
    GHOST_LINKS = 7 . 6, "A ghost has as many links as it had.";
    GHOST_XATTRS = 7 . 7, "A ghost has the extended attributes that it had.";
    GHOST_OFFSET = 7 . 8, "A descriptor of a ghost has the offset, status flags and close-on-exec that it had.";

    BYSTANDER = 8 . 1, "Another watcher of the same tree hears nothing between dump and the end of restore, save what the table of the unavoidable names.";

    ENTRY = 9 . 1, "Every name of the tree is there.";
    ENTRY_SPURIOUS = 9 . 2, "No name is in the tree that was not there before the cut.";
    ENTRY_MODE = 9 . 3, "An object of the tree has the type, permissions, owner and group that it had.";
    ENTRY_CONTENT = 9 . 4, "An object of the tree has the size, the content and the link target that it had.";
    ENTRY_HOLES = 9 . 5, "An object of the tree has the blocks that it had.";
    ENTRY_TIMES = 9 . 6, "An object of the tree has the access and modification times that it had.";
    ENTRY_LINKS = 9 . 7, "An object of the tree has as many links as it had, and the names of one inode are those that they were.";
    ENTRY_XATTRS = 9 . 8, "An object of the tree has the extended attributes that it had.";

    LEFT_FILE = 10 . 1, "No file is left behind.";
    LEFT_MOUNT = 10 . 2, "No mount is left behind, and none is gone.";
    LEFT_PROCESS = 10 . 3, "No process is left behind.";
    LEFT_DESCRIPTOR = 10 . 4, "No descriptor is left behind in the subject.";
}

/// What no restore in a new process can hide from another watcher: the closed table behind
/// [`BYSTANDER`]. It holds for every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Unavoidable {
    /// U1.
    Close,
    /// U2.
    Open,
    /// U3.
    GhostName,
    /// U4.
    GhostStage,
    /// U5.
    GhostDestroyed,
    /// U6.
    GhostLink,
    /// U7.
    GhostParent,
    /// U8.
    NameTaken,
    /// U9.
    Unnamed,
    /// U10.
    Rights,
}

impl Unavoidable {
    /// Every rule, in order of number.
    pub const ALL: [Self; 10] = [
        Self::Close,
        Self::Open,
        Self::GhostName,
        Self::GhostStage,
        Self::GhostDestroyed,
        Self::GhostLink,
        Self::GhostParent,
        Self::NameTaken,
        Self::Unnamed,
        Self::Rights,
    ];

    /// What is heard, and why nothing can be done about it.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Close => {
                "The killed process closes its files: one IN_CLOSE_WRITE or IN_CLOSE_NOWRITE for each open file description, on the file and, with its name, on the directory."
            }
            Self::Open => {
                "The new process opens them: one IN_OPEN for each open file description, on the file and, with its name, on the directory."
            }
            Self::GhostName => {
                "A ghost gets its name back and loses it again: one IN_MOVED_TO or IN_CREATE and one IN_DELETE of that name in its directory, and one IN_MOVE_SELF of a ghost that has other names. So does a directory of it that is gone itself."
            }
            Self::GhostStage => {
                "A ghost is made and filled out of sight, but not of a mark on the whole filesystem: there, at most one each of IN_CREATE, IN_OPEN, IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_CLOSE_NOWRITE, IN_MOVED_FROM and IN_DELETE for the ghost, and one IN_CREATE, IN_DELETE and IN_DELETE_SELF for the directory that it is made in. That directory, under a hidden name, stands at the root of a filesystem, or, where nothing can be moved from there, nearer to the ghost: a watch on the directory that it is in hears it made and removed, and IN_ATTRIB when that directory's times are put back."
            }
            Self::GhostDestroyed => {
                "The last descriptor of a ghost is closed with the process, and its inode is gone: one IN_ATTRIB, IN_DELETE_SELF and IN_IGNORED to those who watched it."
            }
            Self::GhostLink => {
                "A ghost that has other names gets one link more and loses it again: two IN_ATTRIB on the inode, and by name in the directories of the other names."
            }
            Self::GhostParent => {
                "The times of a ghost's directory are put back: one IN_ATTRIB on the directory, and by name in its parent."
            }
            Self::NameTaken => {
                "Where another file has the name of a ghost, or of a directory of it that is gone, by now, the two are exchanged, and the other one is renamed back over the ghost, so that the name is never free: one IN_MOVED_FROM and one IN_MOVED_TO more of that name, and two IN_MOVE_SELF of the other file."
            }
            Self::Unnamed => {
                "A file that never had a name (O_TMPFILE) can only be made where it is: one IN_ATTRIB by the number that stands for its name, in its directory, one IN_MODIFY where who restores may not listen for permission events, and so cannot fill it unheard; and one IN_OPEN and one IN_CLOSE_WRITE of who makes it where the descriptor that made it was closed."
            }
            Self::Rights => {
                "What gives rights to whoever opens or runs a file (the set-user-ID and set-group-ID bits, attributes such as security.capability, owner and mode of a device) is given to a ghost only when its name is gone again, so that nobody gets them by it: one IN_ATTRIB of that name in its directory."
            }
        }
    }
}

impl fmt::Display for Unavoidable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = Self::ALL.iter().position(|rule| rule == self);
        write!(f, "U{}", position.map_or(0, |position| position + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_without_a_gap_in_ten_groups() {
        let mut expected = Invariant {
            group: 1,
            number: 1,
        };
        for (invariant, _) in TABLE {
            if invariant.group != expected.group {
                expected = Invariant {
                    group: expected.group + 1,
                    number: 1,
                };
            }
            assert_eq!(*invariant, expected);
            expected.number += 1;
        }
        assert_eq!(usize::from(expected.group), GROUPS.len());
    }

    #[test]
    fn the_document_says_what_the_table_says() {
        let page = include_str!("../../../INVARIANTS.md");
        let start = page.find("## 1.").expect("INVARIANTS.md has a first group");
        assert_eq!(page[start..].trim_end(), document().trim_end());
    }

    /// `INVARIANTS.md`, the part that is a table of this file.
    fn document() -> String {
        let mut text = String::new();
        for (group, title) in (1_u8..).zip(GROUPS) {
            text.push_str(&format!("## {group}. {title}\n\n"));
            for (invariant, sentence) in TABLE.iter().filter(|(it, _)| it.group == group) {
                text.push_str(&format!("- **{invariant}** {sentence}\n"));
            }
            if group == BYSTANDER.group {
                text.push_str(
                    "\nUnavoidable for whoever restores in a new process, and so no difference:\n\n",
                );
                for rule in Unavoidable::ALL {
                    text.push_str(&format!("- **{rule}** {}\n", rule.sentence()));
                }
            }
            text.push('\n');
        }
        text
    }
}
