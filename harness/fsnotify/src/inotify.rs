//! inotify: the event mask, and the flags of a group.

use crate::bits::{Names, bit_set};

bit_set! {
    /// Bits of an inotify watch or event: `IN_*` of inotify(7). Unknown bits are kept.
    Mask(u32), MASK
}

const MASK: Names = Names {
    printed: &[
        (0xfff, "IN_ALL_EVENTS"),
        (0x1, "IN_ACCESS"),
        (0x2, "IN_MODIFY"),
        (0x4, "IN_ATTRIB"),
        (0x8, "IN_CLOSE_WRITE"),
        (0x10, "IN_CLOSE_NOWRITE"),
        (0x20, "IN_OPEN"),
        (0x40, "IN_MOVED_FROM"),
        (0x80, "IN_MOVED_TO"),
        (0x100, "IN_CREATE"),
        (0x200, "IN_DELETE"),
        (0x400, "IN_DELETE_SELF"),
        (0x800, "IN_MOVE_SELF"),
        (0x2000, "IN_UNMOUNT"),
        (0x4000, "IN_Q_OVERFLOW"),
        (0x8000, "IN_IGNORED"),
        (0x0100_0000, "IN_ONLYDIR"),
        (0x0200_0000, "IN_DONT_FOLLOW"),
        (0x0400_0000, "IN_EXCL_UNLINK"),
        (0x1000_0000, "IN_MASK_CREATE"),
        (0x2000_0000, "IN_MASK_ADD"),
        (0x4000_0000, "IN_ISDIR"),
        (0x8000_0000, "IN_ONESHOT"),
    ],
    read: &[(0x18, "IN_CLOSE"), (0xc0, "IN_MOVE")],
    none: "0",
};

impl Mask {
    /// The twelve events that a watch can select.
    pub const ALL_EVENTS: Self = Self(0xfff);
    /// The watched filesystem was unmounted.
    pub const UNMOUNT: Self = Self(0x2000);
    /// The queue overflowed.
    pub const Q_OVERFLOW: Self = Self(0x4000);
    /// The watch is gone.
    pub const IGNORED: Self = Self(0x8000);
    /// No events for children that have no name any more.
    pub const EXCL_UNLINK: Self = Self(0x0400_0000);
    /// The event is about a directory.
    pub const ISDIR: Self = Self(0x4000_0000);
    /// The watch goes after its first event.
    pub const ONESHOT: Self = Self(0x8000_0000);
}

bit_set! {
    /// Flags of `inotify_init1`, with the values of most architectures.
    InitFlags(u32), INIT
}

const INIT: Names = Names {
    printed: &[(0x800, "IN_NONBLOCK"), (0x8_0000, "IN_CLOEXEC")],
    read: &[],
    none: "0",
};
