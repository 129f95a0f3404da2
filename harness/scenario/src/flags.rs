//! Names of flags and of their values on x86-64, both ways.
//!
//! Unknown bits are kept and printed as a number.

mod descriptors;
mod files;
mod notify;

use std::fmt;

use descriptors::{EPOLL_EVENTS, EVENTFD, FCNTL, IOCTL, SIGNAL, SOCKET_FLAGS, SOCKET_TYPE, STATUS};
use files::{ACCESS, AT, FALLOCATE, FILE_TYPE, MEMFD, MOUNT, OPEN, RENAME, UMOUNT, WHENCE};
use notify::{FANOTIFY_CLASS, FANOTIFY_INIT, FANOTIFY_MARK, FANOTIFY_MASK, INOTIFY_MASK};

/// The sets that symbolic arguments come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlagSet {
    /// `O_*` of open(2), an access mode among them.
    Open,
    /// `O_*` that `F_SETFL` takes.
    Status,
    /// `O_CLOEXEC` of dup3(2).
    Dup,
    /// `FD_CLOEXEC`.
    Descriptor,
    /// `S_IF*`.
    FileType,
    /// `AT_*` of linkat(2), unlinkat(2), utimensat(2).
    At,
    Whence,
    Fallocate,
    Rename,
    Xattr,
    /// Commands of fcntl(2).
    Fcntl,
    /// Requests of ioctl(2).
    Ioctl,
    Signal,
    /// `IN_NONBLOCK`, `IN_CLOEXEC`.
    InotifyInit,
    /// `IN_*` of a watch or an event.
    InotifyMask,
    /// Flags of `fanotify_init(2)`.
    FanotifyInit,
    /// Flags of `fanotify_mark(2)`.
    FanotifyMark,
    /// `FAN_*` of a mark or an event.
    FanotifyMask,
    /// `FAN_ALLOW`, `FAN_DENY`.
    FanotifyResponse,
    EpollCreate,
    EpollOp,
    EpollEvents,
    Mount,
    Umount,
    Memfd,
    Eventfd,
    SocketDomain,
    SocketType,
}

/// Names of one set. Printing takes them in this order, and each takes its bits away, so a name
/// for several bits stands before the names of those bits, and an alias that is never printed
/// stands last.
struct Table {
    /// A field that holds a number, not bits: its mask and its values. Always printed, first.
    field: Option<(u64, &'static [(&'static str, u64)])>,
    flags: &'static [(&'static str, u64)],
}

impl FlagSet {
    /// Every set.
    pub const ALL: &[Self] = &[
        Self::Open,
        Self::Status,
        Self::Dup,
        Self::Descriptor,
        Self::FileType,
        Self::At,
        Self::Whence,
        Self::Fallocate,
        Self::Rename,
        Self::Xattr,
        Self::Fcntl,
        Self::Ioctl,
        Self::Signal,
        Self::InotifyInit,
        Self::InotifyMask,
        Self::FanotifyInit,
        Self::FanotifyMark,
        Self::FanotifyMask,
        Self::FanotifyResponse,
        Self::EpollCreate,
        Self::EpollOp,
        Self::EpollEvents,
        Self::Mount,
        Self::Umount,
        Self::Memfd,
        Self::Eventfd,
        Self::SocketDomain,
        Self::SocketType,
    ];

    /// Whether a value is one word of the set, not bits of it.
    #[must_use]
    pub const fn is_choice(self) -> bool {
        matches!(
            self,
            Self::Whence
                | Self::Fcntl
                | Self::Ioctl
                | Self::Signal
                | Self::EpollOp
                | Self::SocketDomain
        )
    }

    /// Every name of the set with its value, aliases among them.
    pub fn names(self) -> impl Iterator<Item = (&'static str, u64)> {
        let Table { field, flags } = self.table();
        let field = field.map_or(&[][..], |(_, values)| values);
        field.iter().chain(flags).copied()
    }

    /// The value of a name.
    #[must_use]
    pub fn value(self, name: &str) -> Option<u64> {
        self.names()
            .find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The canonical text of a value.
    #[must_use]
    pub const fn text(self, value: u64) -> FlagText {
        FlagText { set: self, value }
    }

    /// The bits that hold a number, if the set has such a field; 0 if not.
    pub(crate) fn field_mask(self) -> u64 {
        self.table().field.map_or(0, |(mask, _)| mask)
    }

    /// The largest value that the kernel's argument can hold.
    pub(crate) const fn max(self) -> u64 {
        match self {
            Self::FanotifyMask | Self::Mount => u64::MAX,
            _ => u32::MAX as u64,
        }
    }

    const fn table(self) -> Table {
        let flags = match self {
            Self::Open => {
                return Table {
                    field: Some((3, ACCESS)),
                    flags: OPEN,
                };
            }
            Self::FileType => {
                return Table {
                    field: Some((0o170_000, FILE_TYPE)),
                    flags: &[],
                };
            }
            Self::FanotifyInit => {
                return Table {
                    field: Some((0xc, FANOTIFY_CLASS)),
                    flags: FANOTIFY_INIT,
                };
            }
            Self::SocketType => {
                return Table {
                    field: Some((0xf, SOCKET_TYPE)),
                    flags: SOCKET_FLAGS,
                };
            }
            Self::Status => STATUS,
            Self::Dup => &[("O_CLOEXEC", 0o2_000_000)],
            Self::Descriptor => &[("FD_CLOEXEC", 1)],
            Self::At => AT,
            Self::Whence => WHENCE,
            Self::Fallocate => FALLOCATE,
            Self::Rename => RENAME,
            Self::Xattr => &[("XATTR_CREATE", 1), ("XATTR_REPLACE", 2)],
            Self::Fcntl => FCNTL,
            Self::Ioctl => IOCTL,
            Self::Signal => SIGNAL,
            Self::InotifyInit => &[("IN_NONBLOCK", 0o4_000), ("IN_CLOEXEC", 0o2_000_000)],
            Self::InotifyMask => INOTIFY_MASK,
            Self::FanotifyMark => FANOTIFY_MARK,
            Self::FanotifyMask => FANOTIFY_MASK,
            Self::FanotifyResponse => &[
                ("FAN_ALLOW", 1),
                ("FAN_DENY", 2),
                ("FAN_AUDIT", 0x10),
                ("FAN_INFO", 0x20),
            ],
            Self::EpollCreate => &[("EPOLL_CLOEXEC", 0o2_000_000)],
            Self::EpollOp => &[
                ("EPOLL_CTL_ADD", 1),
                ("EPOLL_CTL_DEL", 2),
                ("EPOLL_CTL_MOD", 3),
            ],
            Self::EpollEvents => EPOLL_EVENTS,
            Self::Mount => MOUNT,
            Self::Umount => UMOUNT,
            Self::Memfd => MEMFD,
            Self::Eventfd => EVENTFD,
            Self::SocketDomain => &[("AF_UNIX", 1), ("AF_INET", 2), ("AF_NETLINK", 16)],
        };
        Table { field: None, flags }
    }
}

/// A value that prints as names joined by `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagText {
    set: FlagSet,
    value: u64,
}

impl fmt::Display for FlagText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Table { field, flags } = self.set.table();
        if self.set.is_choice() {
            return match flags.iter().find(|(_, value)| *value == self.value) {
                Some((name, _)) => f.write_str(name),
                None => self.value.fmt(f),
            };
        }
        let mut rest = self.value;
        let mut separator = "";
        if let Some((mask, values)) = field
            && let Some((name, _)) = values.iter().find(|(_, value)| *value == rest & mask)
        {
            f.write_str(name)?;
            rest &= !mask;
            separator = "|";
        }
        for (name, bits) in flags {
            if *bits != 0 && rest & bits == *bits {
                write!(f, "{separator}{name}")?;
                rest &= !bits;
                separator = "|";
            }
        }
        match (rest, separator) {
            (0, "") => f.write_str("0"),
            (0, _) => Ok(()),
            _ => write!(f, "{separator}{rest:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_in_one_order() {
        let check = |set: FlagSet, value, expected: &str| {
            assert_eq!(set.text(value).to_string(), expected);
        };
        check(FlagSet::Open, 0o102, "O_RDWR|O_CREAT");
        check(FlagSet::Open, 0, "O_RDONLY");
        check(FlagSet::Open, 0o20_200_002, "O_RDWR|O_TMPFILE");
        check(FlagSet::Open, 0o4_010_001, "O_WRONLY|O_SYNC");
        check(FlagSet::Open, 1 << 40, "O_RDONLY|0x10000000000");
        check(FlagSet::InotifyInit, 0, "0");
        check(FlagSet::InotifyMask, 0x1000, "0x1000");
        check(FlagSet::FanotifyMark, 0x111, "FAN_MARK_ADD|FAN_MARK_MNTNS");
        check(
            FlagSet::FanotifyInit,
            0xe00,
            "FAN_CLASS_NOTIF|FAN_REPORT_DFID_NAME|FAN_REPORT_FID",
        );
        check(FlagSet::Whence, 3, "SEEK_DATA");
        check(FlagSet::Whence, 77, "77");
        check(FlagSet::Signal, 29, "SIGIO");
    }

    #[test]
    fn inotify_masks_print_as_the_vocabulary_prints_them() {
        for bit in 0..32 {
            for other in 0..32 {
                let mask = 1u32 << bit | 1u32 << other;
                let expected = fsnotify::inotify::Mask(mask).to_string();
                assert_eq!(FlagSet::InotifyMask.text(mask.into()).to_string(), expected);
            }
        }
    }

    #[test]
    fn every_name_reads_back_and_no_two_bits_overlap_by_mistake() {
        for set in FlagSet::ALL {
            for (name, value) in set.names() {
                assert_eq!(set.value(name), Some(value), "{name}");
                let text = set.text(value).to_string();
                let read_back = text.split('|').map(|word| set.value(word).unwrap_or(0));
                assert_eq!(
                    read_back.fold(0, |all, bits| all | bits),
                    value,
                    "{name}: {text}"
                );
            }
        }
    }
}
