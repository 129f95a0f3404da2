//! Names of flags and of their values on x86-64, both ways.
//!
//! Unknown bits are kept and printed as a number.

use std::fmt;

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

const ACCESS: &[(&str, u64)] = &[
    ("O_RDONLY", 0),
    ("O_WRONLY", 1),
    ("O_RDWR", 2),
    ("O_ACCMODE", 3),
];

const OPEN: &[(&str, u64)] = &[
    ("O_CREAT", 0o100),
    ("O_EXCL", 0o200),
    ("O_NOCTTY", 0o400),
    ("O_TRUNC", 0o1_000),
    ("O_APPEND", 0o2_000),
    ("O_NONBLOCK", 0o4_000),
    ("O_SYNC", 0o4_010_000),
    ("O_DSYNC", 0o10_000),
    ("O_ASYNC", 0o20_000),
    ("O_DIRECT", 0o40_000),
    ("O_LARGEFILE", 0o100_000),
    ("O_TMPFILE", 0o20_200_000),
    ("O_DIRECTORY", 0o200_000),
    ("O_NOFOLLOW", 0o400_000),
    ("O_NOATIME", 0o1_000_000),
    ("O_CLOEXEC", 0o2_000_000),
    ("O_PATH", 0o10_000_000),
];

const STATUS: &[(&str, u64)] = &[
    ("O_APPEND", 0o2_000),
    ("O_NONBLOCK", 0o4_000),
    ("O_ASYNC", 0o20_000),
    ("O_DIRECT", 0o40_000),
    ("O_NOATIME", 0o1_000_000),
];

const FILE_TYPE: &[(&str, u64)] = &[
    ("S_IFSOCK", 0o140_000),
    ("S_IFLNK", 0o120_000),
    ("S_IFREG", 0o100_000),
    ("S_IFBLK", 0o060_000),
    ("S_IFDIR", 0o040_000),
    ("S_IFCHR", 0o020_000),
    ("S_IFIFO", 0o010_000),
];

const AT: &[(&str, u64)] = &[
    ("AT_SYMLINK_NOFOLLOW", 0x100),
    ("AT_REMOVEDIR", 0x200),
    ("AT_SYMLINK_FOLLOW", 0x400),
    ("AT_NO_AUTOMOUNT", 0x800),
    ("AT_EMPTY_PATH", 0x1000),
];

const WHENCE: &[(&str, u64)] = &[
    ("SEEK_SET", 0),
    ("SEEK_CUR", 1),
    ("SEEK_END", 2),
    ("SEEK_DATA", 3),
    ("SEEK_HOLE", 4),
];

const FALLOCATE: &[(&str, u64)] = &[
    ("FALLOC_FL_KEEP_SIZE", 0x1),
    ("FALLOC_FL_PUNCH_HOLE", 0x2),
    ("FALLOC_FL_NO_HIDE_STALE", 0x4),
    ("FALLOC_FL_COLLAPSE_RANGE", 0x8),
    ("FALLOC_FL_ZERO_RANGE", 0x10),
    ("FALLOC_FL_INSERT_RANGE", 0x20),
    ("FALLOC_FL_UNSHARE_RANGE", 0x40),
];

const RENAME: &[(&str, u64)] = &[
    ("RENAME_NOREPLACE", 1),
    ("RENAME_EXCHANGE", 2),
    ("RENAME_WHITEOUT", 4),
];

const FCNTL: &[(&str, u64)] = &[
    ("F_DUPFD", crate::call::fcntl::DUPFD),
    ("F_GETFD", crate::call::fcntl::GETFD),
    ("F_SETFD", crate::call::fcntl::SETFD),
    ("F_GETFL", crate::call::fcntl::GETFL),
    ("F_SETFL", crate::call::fcntl::SETFL),
    ("F_SETOWN", crate::call::fcntl::SETOWN),
    ("F_GETOWN", crate::call::fcntl::GETOWN),
    ("F_SETSIG", crate::call::fcntl::SETSIG),
    ("F_GETSIG", crate::call::fcntl::GETSIG),
    ("F_DUPFD_CLOEXEC", crate::call::fcntl::DUPFD_CLOEXEC),
];

const IOCTL: &[(&str, u64)] = &[
    ("FIONREAD", crate::call::ioctl::FIONREAD),
    (
        "INOTIFY_IOC_SETNEXTWD",
        crate::call::ioctl::INOTIFY_SETNEXTWD,
    ),
];

/// Real-time signals are named as strace names them: `SIGRT_n` is 32 + n. The C library keeps the
/// first two to itself.
const SIGNAL: &[(&str, u64)] = &[
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGSTKFLT", 16),
    ("SIGCHLD", 17),
    ("SIGCONT", 18),
    ("SIGSTOP", 19),
    ("SIGTSTP", 20),
    ("SIGTTIN", 21),
    ("SIGTTOU", 22),
    ("SIGURG", 23),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGWINCH", 28),
    ("SIGIO", 29),
    ("SIGPWR", 30),
    ("SIGSYS", 31),
    ("SIGRT_2", 34),
    ("SIGRT_3", 35),
    ("SIGRT_4", 36),
    ("SIGRT_5", 37),
    ("SIGRT_6", 38),
    ("SIGRT_7", 39),
    ("SIGRT_8", 40),
    ("SIGRT_9", 41),
    ("SIGRT_10", 42),
    ("SIGRT_11", 43),
    ("SIGRT_12", 44),
    ("SIGRT_13", 45),
    ("SIGRT_14", 46),
    ("SIGRT_15", 47),
    ("SIGRT_16", 48),
    ("SIGRT_32", 64),
    ("SIGPOLL", 29),
];

const INOTIFY_MASK: &[(&str, u64)] = &[
    ("IN_ALL_EVENTS", 0xfff),
    ("IN_ACCESS", 0x1),
    ("IN_MODIFY", 0x2),
    ("IN_ATTRIB", 0x4),
    ("IN_CLOSE_WRITE", 0x8),
    ("IN_CLOSE_NOWRITE", 0x10),
    ("IN_OPEN", 0x20),
    ("IN_MOVED_FROM", 0x40),
    ("IN_MOVED_TO", 0x80),
    ("IN_CREATE", 0x100),
    ("IN_DELETE", 0x200),
    ("IN_DELETE_SELF", 0x400),
    ("IN_MOVE_SELF", 0x800),
    ("IN_UNMOUNT", 0x2000),
    ("IN_Q_OVERFLOW", 0x4000),
    ("IN_IGNORED", 0x8000),
    ("IN_ONLYDIR", 0x0100_0000),
    ("IN_DONT_FOLLOW", 0x0200_0000),
    ("IN_EXCL_UNLINK", 0x0400_0000),
    ("IN_MASK_CREATE", 0x1000_0000),
    ("IN_MASK_ADD", 0x2000_0000),
    ("IN_ISDIR", 0x4000_0000),
    ("IN_ONESHOT", 0x8000_0000),
    ("IN_MOVE", 0xc0),
    ("IN_CLOSE", 0x18),
];

const FANOTIFY_CLASS: &[(&str, u64)] = &[
    ("FAN_CLASS_NOTIF", 0),
    ("FAN_CLASS_CONTENT", 4),
    ("FAN_CLASS_PRE_CONTENT", 8),
];

const FANOTIFY_INIT: &[(&str, u64)] = &[
    ("FAN_CLOEXEC", 0x1),
    ("FAN_NONBLOCK", 0x2),
    ("FAN_UNLIMITED_QUEUE", 0x10),
    ("FAN_UNLIMITED_MARKS", 0x20),
    ("FAN_ENABLE_AUDIT", 0x40),
    ("FAN_REPORT_PIDFD", 0x80),
    ("FAN_REPORT_TID", 0x100),
    ("FAN_REPORT_DFID_NAME_TARGET", 0x1e00),
    ("FAN_REPORT_DFID_NAME", 0xc00),
    ("FAN_REPORT_FID", 0x200),
    ("FAN_REPORT_DIR_FID", 0x400),
    ("FAN_REPORT_NAME", 0x800),
    ("FAN_REPORT_TARGET_FID", 0x1000),
    ("FAN_REPORT_FD_ERROR", 0x2000),
    ("FAN_REPORT_MNT", 0x4000),
];

const FANOTIFY_MARK: &[(&str, u64)] = &[
    ("FAN_MARK_ADD", 0x1),
    ("FAN_MARK_REMOVE", 0x2),
    ("FAN_MARK_DONT_FOLLOW", 0x4),
    ("FAN_MARK_ONLYDIR", 0x8),
    ("FAN_MARK_MNTNS", 0x110),
    ("FAN_MARK_MOUNT", 0x10),
    ("FAN_MARK_IGNORED_MASK", 0x20),
    ("FAN_MARK_IGNORE_SURV", 0x440),
    ("FAN_MARK_IGNORED_SURV_MODIFY", 0x40),
    ("FAN_MARK_FLUSH", 0x80),
    ("FAN_MARK_FILESYSTEM", 0x100),
    ("FAN_MARK_EVICTABLE", 0x200),
    ("FAN_MARK_IGNORE", 0x400),
    ("FAN_MARK_INODE", 0),
];

const FANOTIFY_MASK: &[(&str, u64)] = &[
    ("FAN_ACCESS", 0x1),
    ("FAN_MODIFY", 0x2),
    ("FAN_ATTRIB", 0x4),
    ("FAN_CLOSE_WRITE", 0x8),
    ("FAN_CLOSE_NOWRITE", 0x10),
    ("FAN_OPEN", 0x20),
    ("FAN_MOVED_FROM", 0x40),
    ("FAN_MOVED_TO", 0x80),
    ("FAN_CREATE", 0x100),
    ("FAN_DELETE", 0x200),
    ("FAN_DELETE_SELF", 0x400),
    ("FAN_MOVE_SELF", 0x800),
    ("FAN_OPEN_EXEC", 0x1000),
    ("FAN_Q_OVERFLOW", 0x4000),
    ("FAN_FS_ERROR", 0x8000),
    ("FAN_OPEN_PERM", 0x1_0000),
    ("FAN_ACCESS_PERM", 0x2_0000),
    ("FAN_OPEN_EXEC_PERM", 0x4_0000),
    ("FAN_PRE_ACCESS", 0x10_0000),
    ("FAN_MNT_ATTACH", 0x100_0000),
    ("FAN_MNT_DETACH", 0x200_0000),
    ("FAN_EVENT_ON_CHILD", 0x800_0000),
    ("FAN_RENAME", 0x1000_0000),
    ("FAN_ONDIR", 0x4000_0000),
    ("FAN_CLOSE", 0x18),
    ("FAN_MOVE", 0xc0),
];

const EPOLL_EVENTS: &[(&str, u64)] = &[
    ("EPOLLIN", 0x1),
    ("EPOLLPRI", 0x2),
    ("EPOLLOUT", 0x4),
    ("EPOLLERR", 0x8),
    ("EPOLLHUP", 0x10),
    ("EPOLLRDNORM", 0x40),
    ("EPOLLRDBAND", 0x80),
    ("EPOLLWRNORM", 0x100),
    ("EPOLLWRBAND", 0x200),
    ("EPOLLMSG", 0x400),
    ("EPOLLRDHUP", 0x2000),
    ("EPOLLEXCLUSIVE", 0x1000_0000),
    ("EPOLLWAKEUP", 0x2000_0000),
    ("EPOLLONESHOT", 0x4000_0000),
    ("EPOLLET", 0x8000_0000),
];

const MOUNT: &[(&str, u64)] = &[
    ("MS_RDONLY", 0x1),
    ("MS_NOSUID", 0x2),
    ("MS_NODEV", 0x4),
    ("MS_NOEXEC", 0x8),
    ("MS_SYNCHRONOUS", 0x10),
    ("MS_REMOUNT", 0x20),
    ("MS_MANDLOCK", 0x40),
    ("MS_DIRSYNC", 0x80),
    ("MS_NOSYMFOLLOW", 0x100),
    ("MS_NOATIME", 0x400),
    ("MS_NODIRATIME", 0x800),
    ("MS_BIND", 0x1000),
    ("MS_MOVE", 0x2000),
    ("MS_REC", 0x4000),
    ("MS_SILENT", 0x8000),
    ("MS_UNBINDABLE", 0x2_0000),
    ("MS_PRIVATE", 0x4_0000),
    ("MS_SLAVE", 0x8_0000),
    ("MS_SHARED", 0x10_0000),
    ("MS_RELATIME", 0x20_0000),
    ("MS_STRICTATIME", 0x100_0000),
    ("MS_LAZYTIME", 0x200_0000),
];

const UMOUNT: &[(&str, u64)] = &[
    ("MNT_FORCE", 1),
    ("MNT_DETACH", 2),
    ("MNT_EXPIRE", 4),
    ("UMOUNT_NOFOLLOW", 8),
];

const MEMFD: &[(&str, u64)] = &[
    ("MFD_CLOEXEC", 0x1),
    ("MFD_ALLOW_SEALING", 0x2),
    ("MFD_NOEXEC_SEAL", 0x8),
    ("MFD_EXEC", 0x10),
];

const EVENTFD: &[(&str, u64)] = &[
    ("EFD_SEMAPHORE", 0x1),
    ("EFD_NONBLOCK", 0o4_000),
    ("EFD_CLOEXEC", 0o2_000_000),
];

const SOCKET_TYPE: &[(&str, u64)] = &[
    ("SOCK_STREAM", 1),
    ("SOCK_DGRAM", 2),
    ("SOCK_RAW", 3),
    ("SOCK_SEQPACKET", 5),
];

const SOCKET_FLAGS: &[(&str, u64)] = &[("SOCK_NONBLOCK", 0o4_000), ("SOCK_CLOEXEC", 0o2_000_000)];

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
