//! What a line says.

use crate::fanotify::{EventFlags, InitFlags, MarkFlags, Mask as FanotifyMask};
use crate::handle::FileHandle;
use crate::inotify::Mask as InotifyMask;
use crate::{Ino, MntId, NsIno, OpenFlags, Sdev, Wd};

use super::Lock;

/// One line of the text. Texts that are kept as they are borrow from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// `pos:`, decimal.
    Pos(i64),
    /// `flags:`, octal: state of the descriptor now, `O_CLOEXEC` included.
    Flags(OpenFlags),
    /// `mnt_id:`, decimal, since 3.15: the internal mount of all anonymous inodes.
    MntId(i32),
    /// `ino:`, decimal, since 5.14: the one inode of all anonymous inodes.
    Ino(Ino),
    /// `lock:`, a lock on the descriptor itself.
    Lock(Lock),
    /// `fanotify flags: event-flags:`, as `fanotify_init` got them.
    Group {
        flags: InitFlags,
        event_flags: EventFlags,
    },
    /// `inotify wd:`.
    Watch(Watch),
    /// `fanotify ino:`, `mnt_id:`, `sdev:` or `mnt_ns:`.
    Mark(Mark),
    /// `key:<TAB>value` with a key that is not known, before the body. Lenient level only.
    UnknownHead(&'a str),
    /// `inotify ...` or `fanotify ...` with a first key that is not known. Lenient level only.
    UnknownMark(&'a str),
    /// Anything else in the body. Lenient level only.
    Unknown(&'a str),
}

/// An inotify watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Watch {
    pub wd: Wd,
    pub ino: Ino,
    pub sdev: Sdev,
    /// May be empty: a watch made with `IN_ISDIR` alone is stored so, and alive.
    pub mask: InotifyMask,
    /// Always empty, but for texts that no known kernel printed.
    pub ignored_mask: InotifyMask,
    /// Absent while the superblock is locked (mount, remount, freeze), or where a filesystem
    /// has none; a text does not tell which.
    pub handle: Option<FileHandle>,
}

/// A fanotify mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Mark {
    pub target: MarkTarget,
    pub flags: MarkFlags,
    pub mask: FanotifyMask,
    pub ignored_mask: FanotifyMask,
}

/// What a fanotify mark is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum MarkTarget {
    Inode {
        ino: Ino,
        sdev: Sdev,
        handle: Option<FileHandle>,
    },
    /// `mnt_id:`, hex.
    Mount(MntId),
    /// `sdev:` as first key, since 4.20.
    Filesystem(Sdev),
    /// `mnt_ns:`, decimal, since 6.15.
    MountNamespace(NsIno),
}
