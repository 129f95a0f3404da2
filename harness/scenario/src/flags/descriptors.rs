//! Names of what is asked of an open descriptor, of what can be waited for, and of signals.

use crate::call::{fcntl, ioctl};

pub(super) const STATUS: &[(&str, u64)] = &[
    ("O_APPEND", 0o2_000),
    ("O_NONBLOCK", 0o4_000),
    ("O_ASYNC", 0o20_000),
    ("O_DIRECT", 0o40_000),
    ("O_NOATIME", 0o1_000_000),
];

pub(super) const FCNTL: &[(&str, u64)] = &[
    ("F_DUPFD", fcntl::DUPFD),
    ("F_GETFD", fcntl::GETFD),
    ("F_SETFD", fcntl::SETFD),
    ("F_GETFL", fcntl::GETFL),
    ("F_SETFL", fcntl::SETFL),
    ("F_SETOWN", fcntl::SETOWN),
    ("F_GETOWN", fcntl::GETOWN),
    ("F_SETSIG", fcntl::SETSIG),
    ("F_GETSIG", fcntl::GETSIG),
    ("F_DUPFD_CLOEXEC", fcntl::DUPFD_CLOEXEC),
];

pub(super) const IOCTL: &[(&str, u64)] = &[
    ("FIONREAD", ioctl::FIONREAD),
    ("INOTIFY_IOC_SETNEXTWD", ioctl::INOTIFY_SETNEXTWD),
];

/// Real-time signals are named as strace names them: `SIGRT_n` is 32 + n. The C library keeps the
/// first two to itself.
pub(super) const SIGNAL: &[(&str, u64)] = &[
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

pub(super) const EPOLL_EVENTS: &[(&str, u64)] = &[
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

pub(super) const EVENTFD: &[(&str, u64)] = &[
    ("EFD_SEMAPHORE", 0x1),
    ("EFD_NONBLOCK", 0o4_000),
    ("EFD_CLOEXEC", 0o2_000_000),
];

pub(super) const SOCKET_TYPE: &[(&str, u64)] = &[
    ("SOCK_STREAM", 1),
    ("SOCK_DGRAM", 2),
    ("SOCK_RAW", 3),
    ("SOCK_SEQPACKET", 5),
];

pub(super) const SOCKET_FLAGS: &[(&str, u64)] =
    &[("SOCK_NONBLOCK", 0o4_000), ("SOCK_CLOEXEC", 0o2_000_000)];
