//! Numbers with a meaning, each a type of its own. No arithmetic on them.

use std::fmt;

/// Watch descriptor of an inotify watch: 1 to `i32::MAX`.
///
/// `idr_alloc_cyclic` in `inotify_add_to_idr` gives numbers from 1; an overflow event carries -1,
/// which is not a watch descriptor and therefore not a `Wd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Wd(i32);

impl Wd {
    /// The watch descriptor with this number, if it can be one.
    #[must_use]
    pub const fn new(number: i32) -> Option<Self> {
        if number >= 1 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number as the system calls take it.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Wd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Pairs `IN_MOVED_FROM` with `IN_MOVED_TO` (`fsnotify_get_cookie`: a global counter); 0 elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Cookie(pub u32);

/// Inode number as fdinfo prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ino(pub u64);

/// Device number of a superblock as fdinfo prints it: the kernel's own `dev_t`, 12 bits of major
/// number above 20 bits of minor number (`MAJOR`, `MINOR` in `kdev_t.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Sdev(pub u32);

impl Sdev {
    /// Of major number, 12 bits, and minor number, 20 bits.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self(major << 20 | minor)
    }

    /// Major number, 12 bits.
    #[must_use]
    pub const fn major(self) -> u32 {
        self.0 >> 20
    }

    /// Minor number, 20 bits.
    #[must_use]
    pub const fn minor(self) -> u32 {
        self.0 & 0xf_ffff
    }
}

/// Mount id of a fanotify mark: 1 to `i32::MAX`, as `/proc/PID/mountinfo` numbers mounts. The
/// kernel gives a number out again when its mount is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MntId(pub u32);

/// Inode number of a namespace, as `/proc/PID/ns/mnt` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NsIno(pub u32);
