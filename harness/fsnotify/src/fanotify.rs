//! fanotify: masks of marks and events, flags of groups and marks.

use std::fmt;
use std::str::FromStr;

use crate::ParseFlagsError;
use crate::bits::{Names, bit_set};

/// `event_f_flags` of `fanotify_init`: how the group opens the descriptors of its events.
pub use crate::open::OpenFlags as EventFlags;

bit_set! {
    /// Bits of a fanotify mark or event: `FAN_*` of fanotify_mark(2). Unknown bits are kept.
    Mask(u64), MASK
}

const MASK: Names = Names {
    printed: &[
        (0x1, "FAN_ACCESS"),
        (0x2, "FAN_MODIFY"),
        (0x4, "FAN_ATTRIB"),
        (0x8, "FAN_CLOSE_WRITE"),
        (0x10, "FAN_CLOSE_NOWRITE"),
        (0x20, "FAN_OPEN"),
        (0x40, "FAN_MOVED_FROM"),
        (0x80, "FAN_MOVED_TO"),
        (0x100, "FAN_CREATE"),
        (0x200, "FAN_DELETE"),
        (0x400, "FAN_DELETE_SELF"),
        (0x800, "FAN_MOVE_SELF"),
        (0x1000, "FAN_OPEN_EXEC"),
        (0x4000, "FAN_Q_OVERFLOW"),
        (0x8000, "FAN_FS_ERROR"),
        (0x1_0000, "FAN_OPEN_PERM"),
        (0x2_0000, "FAN_ACCESS_PERM"),
        (0x4_0000, "FAN_OPEN_EXEC_PERM"),
        (0x10_0000, "FAN_PRE_ACCESS"),
        (0x100_0000, "FAN_MNT_ATTACH"),
        (0x200_0000, "FAN_MNT_DETACH"),
        (0x800_0000, "FAN_EVENT_ON_CHILD"),
        (0x1000_0000, "FAN_RENAME"),
        (0x4000_0000, "FAN_ONDIR"),
    ],
    read: &[(0x18, "FAN_CLOSE"), (0xc0, "FAN_MOVE")],
    none: "0",
};

impl Mask {
    /// The queue overflowed.
    pub const Q_OVERFLOW: Self = Self(0x4000);
    /// The three events that wait for an answer since fanotify began, and the one since 6.14.
    pub const PERMISSION: Self = Self(0x17_0000);
    /// Events of children too.
    pub const EVENT_ON_CHILD: Self = Self(0x0800_0000);
    /// Events of directories too.
    pub const ONDIR: Self = Self(0x4000_0000);
}

/// `flags` of `fanotify_init`: the class, and `FAN_*`. Unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InitFlags(pub u32);

/// Flags that are not the class.
const INIT: Names = Names {
    printed: &[
        (0x1, "FAN_CLOEXEC"),
        (0x2, "FAN_NONBLOCK"),
        (0x10, "FAN_UNLIMITED_QUEUE"),
        (0x20, "FAN_UNLIMITED_MARKS"),
        (0x40, "FAN_ENABLE_AUDIT"),
        (0x80, "FAN_REPORT_PIDFD"),
        (0x100, "FAN_REPORT_TID"),
        (0x200, "FAN_REPORT_FID"),
        (0x400, "FAN_REPORT_DIR_FID"),
        (0x800, "FAN_REPORT_NAME"),
        (0x1000, "FAN_REPORT_TARGET_FID"),
        (0x2000, "FAN_REPORT_FD_ERROR"),
        (0x4000, "FAN_REPORT_MNT"),
    ],
    read: &[
        (0x0, "FAN_CLASS_NOTIF"),
        (0x4, "FAN_CLASS_CONTENT"),
        (0x8, "FAN_CLASS_PRE_CONTENT"),
        (0xc00, "FAN_REPORT_DFID_NAME"),
        (0x1e00, "FAN_REPORT_DFID_NAME_TARGET"),
    ],
    none: "",
};

impl InitFlags {
    /// `FAN_CLOEXEC`.
    pub const CLOEXEC: Self = Self(0x1);
    /// `FAN_NONBLOCK`.
    pub const NONBLOCK: Self = Self(0x2);
    /// `FAN_CLASS_CONTENT`.
    pub const CLASS_CONTENT: Self = Self(0x4);
    /// `FAN_CLASS_PRE_CONTENT`.
    pub const CLASS_PRE_CONTENT: Self = Self(0x8);
    /// The two bits of the class; both together are no class.
    pub const CLASS: Self = Self(0xc);
    /// `FAN_REPORT_FID`.
    pub const REPORT_FID: Self = Self(0x200);
    /// `FAN_REPORT_DIR_FID`.
    pub const REPORT_DIR_FID: Self = Self(0x400);
    /// `FAN_REPORT_NAME`.
    pub const REPORT_NAME: Self = Self(0x800);
    /// `FAN_REPORT_TARGET_FID`.
    pub const REPORT_TARGET_FID: Self = Self(0x1000);
    /// `FAN_REPORT_MNT`.
    pub const REPORT_MNT: Self = Self(0x4000);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set bits that have no name.
    #[must_use]
    pub const fn unknown(self) -> Self {
        Self(self.0 & !0x7fff)
    }

    /// Every name that is understood, for suggestions and completions.
    pub fn words() -> impl Iterator<Item = &'static str> {
        INIT.words()
    }
}

impl fmt::Display for InitFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 & Self::CLASS.0 {
            0x0 => "FAN_CLASS_NOTIF",
            0x4 => "FAN_CLASS_CONTENT",
            0x8 => "FAN_CLASS_PRE_CONTENT",
            _ => "FAN_CLASS_CONTENT|FAN_CLASS_PRE_CONTENT",
        })?;
        let rest = self.0 & !Self::CLASS.0;
        if rest == 0 {
            return Ok(());
        }
        f.write_str("|")?;
        INIT.print(u64::from(rest), f)
    }
}

impl FromStr for InitFlags {
    type Err = ParseFlagsError;

    fn from_str(text: &str) -> Result<Self, ParseFlagsError> {
        let bits = INIT.parse(text)?;
        u32::try_from(bits).map(Self).map_err(|_| ParseFlagsError {
            word: format!("{bits:#x}"),
            column: 1,
        })
    }
}

bit_set! {
    /// `FAN_MARK_*`: `flags` of `fanotify_mark`, of which fdinfo shows [`MarkFlags::SHOWN`].
    MarkFlags(u32), MARK
}

const MARK: Names = Names {
    printed: &[
        (0x1, "FAN_MARK_ADD"),
        (0x2, "FAN_MARK_REMOVE"),
        (0x4, "FAN_MARK_DONT_FOLLOW"),
        (0x8, "FAN_MARK_ONLYDIR"),
        (0x110, "FAN_MARK_MNTNS"),
        (0x10, "FAN_MARK_MOUNT"),
        (0x20, "FAN_MARK_IGNORED_MASK"),
        (0x40, "FAN_MARK_IGNORED_SURV_MODIFY"),
        (0x80, "FAN_MARK_FLUSH"),
        (0x100, "FAN_MARK_FILESYSTEM"),
        (0x200, "FAN_MARK_EVICTABLE"),
        (0x400, "FAN_MARK_IGNORE"),
    ],
    read: &[(0x0, "FAN_MARK_INODE"), (0x440, "FAN_MARK_IGNORE_SURV")],
    none: "0",
};

impl MarkFlags {
    /// The ignored mask is kept when the file is modified.
    pub const IGNORED_SURV_MODIFY: Self = Self(0x40);
    /// The mark does not keep its inode in memory.
    pub const EVICTABLE: Self = Self(0x200);
    /// The ignored mask obeys `FAN_ONDIR` and `FAN_EVENT_ON_CHILD`.
    pub const IGNORE: Self = Self(0x400);
    /// What `fanotify_mark_user_flags` lets through to `mflags:`.
    pub const SHOWN: Self = Self(0x640);
}
