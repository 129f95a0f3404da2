//! The calls of the language: their names, what arguments they take, what they return.
//!
//! This is data about the language; what executes a call is the subject.

use crate::{Arg, FlagSet};

/// What an argument has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// A descriptor: a bound name or a number.
    Fd,
    /// A descriptor, or `AT_FDCWD`.
    DirFd,
    /// A watch descriptor: a bound name or a number.
    Wd,
    Path,
    /// A path, or `NULL`.
    PathOrNull,
    /// A word that the kernel takes as a string: the name of an attribute, a type of filesystem.
    Text,
    TextOrNull,
    /// Bytes to write.
    Content,
    /// Bytes to write, or `{response=FAN_ALLOW}` to a fanotify group.
    ContentOrResponse,
    /// Permission bits: `0644`.
    Mode,
    /// Permission bits and a type: `S_IFIFO|0644`.
    FileMode,
    /// `makedev(1, 3)`, or 0.
    Device,
    /// A number that is not negative: a count, a size, an identifier.
    Size,
    /// A number that may be negative.
    Offset,
    /// The timeout of a wait. Only 0: nothing in a scenario waits for time to pass.
    Timeout,
    /// Bits of a set, joined by `|`.
    Flags(FlagSet),
    /// One word of a set.
    Choice(FlagSet),
    /// The name of a child process, or `main`.
    Process,
    /// `{events=EPOLLIN, data=7}`, or `NULL`.
    EpollEvent,
    /// `[{tv_sec=1, tv_nsec=0}, UTIME_OMIT]`, or `NULL`.
    Times,
    /// What the command before it asks for: [`Call::kind`] resolves it.
    OfCommand,
}

/// What a call returns, and so what may be said of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// 0 on success: there is nothing to bind.
    Zero,
    Fd,
    Wd,
    Process,
    /// A count, an offset, flags: a number that can be asserted, and bound for nothing.
    Number,
    /// A plain word: it cannot fail and has no result.
    Nothing,
}

/// A call's name, arguments and result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    pub name: &'static str,
    /// In order; those from `n_required` on may be left out, from the right.
    pub args: &'static [ArgKind],
    pub n_required: usize,
    pub result: ResultKind,
    /// The arguments' names as the manual page gives them, for messages.
    pub arg_names: &'static [&'static str],
}

macro_rules! kind {
    (Flags $set:ident) => {
        ArgKind::Flags(FlagSet::$set)
    };
    (Choice $set:ident) => {
        ArgKind::Choice(FlagSet::$set)
    };
    ($kind:ident) => {
        ArgKind::$kind
    };
}

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $call:ident $name:literal
            ($($arg:ident: $kind:ident $($set:ident)?),* $(; $opt:ident: $optkind:ident $($optset:ident)?)*)
            $result:ident
    )*) => {
        /// A system call, named as in the manual, or a plain word where no call says it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Call {
            $($(#[$doc])* $call,)*
        }

        impl Call {
            /// Every call.
            pub const ALL: &[Self] = &[$(Self::$call),*];

            #[must_use]
            pub const fn signature(self) -> Signature {
                match self {
                    $(Self::$call => Signature {
                        name: $name,
                        args: &[$(kind!($kind $($set)?),)* $(kind!($optkind $($optset)?),)*],
                        n_required: {
                            const REQUIRED: &[&str] = &[$(stringify!($arg)),*];
                            REQUIRED.len()
                        },
                        result: ResultKind::$result,
                        arg_names: &[$(stringify!($arg),)* $(stringify!($opt),)*],
                    },)*
                }
            }
        }
    };
}

// After a `;` stands an optional argument.
calls! {
    Open "open" (path: Path, flags: Flags Open; mode: Mode) Fd
    Openat "openat" (dirfd: DirFd, path: Path, flags: Flags Open; mode: Mode) Fd
    Close "close" (fd: Fd) Zero
    Dup "dup" (fd: Fd) Fd
    Dup2 "dup2" (fd: Fd, newfd: Size) Fd
    Dup3 "dup3" (fd: Fd, newfd: Size, flags: Flags Dup) Fd
    /// On a group: drains it, without blocking, and decodes; `size` is that of each read, and then
    /// there is one only. On anything else one read, of 4096 bytes where no size is given.
    Read "read" (fd: Fd; size: Size) Number
    /// `{response=FAN_ALLOW}` answers the oldest permission event that this process has read from
    /// the group and not answered yet.
    Write "write" (fd: Fd, content: ContentOrResponse) Number
    Pread "pread" (fd: Fd, size: Size, offset: Size) Number
    Pwrite "pwrite" (fd: Fd, content: Content, offset: Size) Number
    Lseek "lseek" (fd: Fd, offset: Offset, whence: Choice Whence) Number
    Truncate "truncate" (path: Path, length: Size) Zero
    Ftruncate "ftruncate" (fd: Fd, length: Size) Zero
    Fallocate "fallocate" (fd: Fd, mode: Flags Fallocate, offset: Size, length: Size) Zero
    /// Reads one buffer of entries; the result is a number of bytes.
    Getdents64 "getdents64" (fd: Fd) Number
    Mkdir "mkdir" (path: Path, mode: Mode) Zero
    Rmdir "rmdir" (path: Path) Zero
    Mknod "mknod" (path: Path, mode: FileMode; dev: Device) Zero
    Link "link" (oldpath: Path, newpath: Path) Zero
    Linkat "linkat"
        (olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path, flags: Flags At) Zero
    Symlink "symlink" (target: Path, linkpath: Path) Zero
    Unlink "unlink" (path: Path) Zero
    Unlinkat "unlinkat" (dirfd: DirFd, path: Path, flags: Flags At) Zero
    Rename "rename" (oldpath: Path, newpath: Path) Zero
    Renameat2 "renameat2"
        (olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path, flags: Flags Rename) Zero
    Chmod "chmod" (path: Path, mode: Mode) Zero
    Fchmod "fchmod" (fd: Fd, mode: Mode) Zero
    Chown "chown" (path: Path, owner: Offset, group: Offset) Zero
    Fchown "fchown" (fd: Fd, owner: Offset, group: Offset) Zero
    /// `NULL` for the times is now.
    Utimensat "utimensat" (dirfd: DirFd, path: PathOrNull, times: Times, flags: Flags At) Zero
    Setxattr "setxattr" (path: Path, name: Text, value: Content, flags: Flags Xattr) Zero
    Removexattr "removexattr" (path: Path, name: Text) Zero
    Chdir "chdir" (path: Path) Zero
    Fcntl "fcntl" (fd: Fd, cmd: Choice Fcntl; arg: OfCommand) Number
    /// The result of `FIONREAD` is the number that the kernel stores.
    Ioctl "ioctl" (fd: Fd, request: Choice Ioctl; arg: OfCommand) Number
    InotifyInit1 "inotify_init1" (flags: Flags InotifyInit) Fd
    InotifyAddWatch "inotify_add_watch" (fd: Fd, path: Path, mask: Flags InotifyMask) Wd
    InotifyRmWatch "inotify_rm_watch" (fd: Fd, wd: Wd) Zero
    FanotifyInit "fanotify_init"
        (flags: Flags FanotifyInit, event_f_flags: Flags Open) Fd
    FanotifyMark "fanotify_mark" (
        fd: Fd, flags: Flags FanotifyMark, mask: Flags FanotifyMask, dirfd: DirFd, path: PathOrNull
    ) Zero
    EpollCreate1 "epoll_create1" (flags: Flags EpollCreate) Fd
    EpollCtl "epoll_ctl" (epfd: Fd, op: Choice EpollOp, fd: Fd; event: EpollEvent) Zero
    EpollWait "epoll_wait" (epfd: Fd, maxevents: Size, timeout: Timeout) Number
    Mount "mount" (
        source: PathOrNull, target: Path, filesystemtype: TextOrNull, flags: Flags Mount,
        data: TextOrNull
    ) Zero
    Umount2 "umount2" (target: Path, flags: Flags Umount) Zero
    MemfdCreate "memfd_create" (name: Text, flags: Flags Memfd) Fd
    Eventfd2 "eventfd2" (initval: Size, flags: Flags Eventfd) Fd
    Socket "socket" (domain: Choice SocketDomain, kind: Flags SocketType, protocol: Size) Fd
    /// Only the main process may: `fork() = p`; from then on `[p] call(...)` is a step of the child.
    Fork "fork" () Process
    /// Only a child process may.
    ExitGroup "exit_group" (status: Size) Nothing
    /// Waits for the death of a child, and reaps it.
    Wait4 "wait4" (pid: Process) Process
    /// The cut: everything that the subject owns is dumped, killed and restored here.
    Checkpoint "checkpoint" () Nothing
    /// What fdinfo shows of the group here.
    Look "look" (fd: Fd) Nothing
    /// Drops clean dentries and inodes: what is watched then has no path in memory.
    DropCaches "drop_caches" () Nothing
    /// Takes and lists the signals that are pending.
    Signals "signals" () Nothing
    /// `count` events on one file, by turns of chmod(2) and utimensat(2), so that none merge.
    Flood "flood" (path: Path, count: Size) Nothing
}

impl Call {
    /// The call with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut calls = Self::ALL.iter().copied();
        calls.find(|call| call.signature().name == name)
    }

    /// Whether it is written without parentheses.
    #[must_use]
    pub const fn is_bare_word(self) -> bool {
        matches!(self, Self::Checkpoint)
    }

    /// The kind of the argument at `index`, given those before it; none if there can be none.
    #[must_use]
    pub fn kind(self, index: usize, before: &[Arg]) -> Option<ArgKind> {
        match self.signature().args.get(index)? {
            ArgKind::OfCommand => match before.get(index.checked_sub(1)?)? {
                Arg::Flags(FlagSet::Fcntl, command) => kind_of_fcntl(*command),
                Arg::Flags(FlagSet::Ioctl, request) => kind_of_ioctl(*request),
                _ => None,
            },
            kind => Some(*kind),
        }
    }

    /// What the call returns, given its arguments: duplicating commands of fcntl(2) return a
    /// descriptor.
    #[must_use]
    pub fn result(self, args: &[Arg]) -> ResultKind {
        match (self, args.get(1)) {
            (
                Self::Fcntl,
                Some(Arg::Flags(FlagSet::Fcntl, fcntl::DUPFD | fcntl::DUPFD_CLOEXEC)),
            ) => ResultKind::Fd,
            (
                Self::Fcntl,
                Some(Arg::Flags(
                    FlagSet::Fcntl,
                    fcntl::SETFD | fcntl::SETFL | fcntl::SETOWN | fcntl::SETSIG,
                )),
            ) => ResultKind::Zero,
            _ => self.signature().result,
        }
    }
}

/// Commands of fcntl(2).
pub mod fcntl {
    pub const DUPFD: u64 = 0;
    pub const GETFD: u64 = 1;
    pub const SETFD: u64 = 2;
    pub const GETFL: u64 = 3;
    pub const SETFL: u64 = 4;
    pub const SETOWN: u64 = 8;
    pub const GETOWN: u64 = 9;
    pub const SETSIG: u64 = 10;
    pub const GETSIG: u64 = 11;
    pub const DUPFD_CLOEXEC: u64 = 1030;
}

/// Requests of ioctl(2).
pub mod ioctl {
    pub const FIONREAD: u64 = 0x541b;
    /// `_IOW('I', 0, __s32)`.
    pub const INOTIFY_SETNEXTWD: u64 = 0x4004_4900;
}

fn kind_of_fcntl(command: u64) -> Option<ArgKind> {
    match command {
        fcntl::DUPFD | fcntl::DUPFD_CLOEXEC => Some(ArgKind::Size),
        fcntl::SETFD => Some(ArgKind::Flags(FlagSet::Descriptor)),
        fcntl::SETFL => Some(ArgKind::Flags(FlagSet::Status)),
        fcntl::SETOWN => Some(ArgKind::Process),
        fcntl::SETSIG => Some(ArgKind::Choice(FlagSet::Signal)),
        _ => None,
    }
}

fn kind_of_ioctl(request: u64) -> Option<ArgKind> {
    match request {
        ioctl::INOTIFY_SETNEXTWD => Some(ArgKind::Offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_calls_have_one_name() {
        for call in Call::ALL {
            assert_eq!(Call::named(call.signature().name), Some(*call));
        }
    }

    #[test]
    fn the_argument_of_a_command_is_of_the_kind_that_the_command_asks_for() {
        let check = |call: Call, set, command, expected| {
            let before = [Arg::Int(3), Arg::Flags(set, command)];
            assert_eq!(call.kind(2, &before), expected, "{call:?} {command}");
        };
        let status = ArgKind::Flags(FlagSet::Status);
        check(Call::Fcntl, FlagSet::Fcntl, fcntl::SETFL, Some(status));
        check(Call::Fcntl, FlagSet::Fcntl, fcntl::GETFL, None);
        check(Call::Ioctl, FlagSet::Ioctl, ioctl::FIONREAD, None);
        check(
            Call::Ioctl,
            FlagSet::Ioctl,
            ioctl::INOTIFY_SETNEXTWD,
            Some(ArgKind::Offset),
        );
    }
}
