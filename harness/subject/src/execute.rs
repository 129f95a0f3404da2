//! One step: its arguments, the call, and what it gave back.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use cr::fanotify::take::{self, Namer, Taken};
use cr::sys::raw;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use scenario::call::ioctl;
use scenario::log::Tag;
use scenario::{Arg, ArgKind, Call, Name, Phase, Scenario, Step, Time};

use crate::journal::Journal;

/// What a step gave back, as the log keeps it.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) ret: i64,
    pub(crate) errno: i32,
    pub(crate) chunks: Vec<(Tag, Vec<u8>)>,
}

impl Reply {
    pub(crate) fn done(ret: i64) -> Self {
        Self {
            ret,
            ..Self::default()
        }
    }

    fn with(ret: i64, tag: Tag, bytes: Vec<u8>) -> Self {
        Self {
            ret,
            errno: 0,
            chunks: vec![(tag, bytes)],
        }
    }
}

impl From<raw::Returned> for Reply {
    fn from(returned: raw::Returned) -> Self {
        match returned {
            Ok(ret) => Self::done(ret),
            Err(errno) => Self {
                ret: -1,
                errno: errno as i32,
                chunks: Vec::new(),
            },
        }
    }
}

impl From<Errno> for Reply {
    fn from(errno: Errno) -> Self {
        Err(errno).into()
    }
}

/// Bytes that a `read` without a size asks for of a file.
const FILE_READ: usize = 4096;
/// Buffer of a drain. The largest inotify event is 272 bytes, so a read always makes progress.
const DRAIN_BUFFER: usize = 1 << 16;
/// Descriptors that one `epoll_wait` reports at most.
const EPOLL_MOST: i64 = 4096;
/// How long the first read behind an unfinished call of another process waits for its event.
const UNFINISHED_WAIT_MS: i32 = 5_000;

/// Executes calls of one process.
pub(crate) struct Executor<'a> {
    scenario: &'a Scenario,
    journal: &'a Journal,
}

impl<'a> Executor<'a> {
    pub(crate) fn new(scenario: &'a Scenario, journal: &'a Journal) -> Self {
        Self { scenario, journal }
    }

    /// Makes the call of a step. An argument that does not fit its call, which a checked scenario
    /// cannot have, is `EINVAL`.
    pub(crate) fn call(&self, step: &Step) -> Reply {
        self.files(step)
            .or_else(|| self.descriptors(step))
            .or_else(|| self.notification(step))
            .or_else(|| self.environment(step))
            .unwrap_or_else(|| Errno::EINVAL.into())
    }

    /// Calls that work on paths.
    fn files(&self, step: &Step) -> Option<Reply> {
        let a = Args {
            executor: self,
            step,
        };
        let returned = match step.call {
            Call::Open => raw::open(&a.path(0)?, a.number(1)?, a.mode(2)),
            Call::Openat => raw::openat(a.number(0)?, &a.path(1)?, a.number(2)?, a.mode(3)),
            Call::Mkdir => raw::mkdir(&a.path(0)?, a.mode(1)),
            Call::Rmdir => raw::rmdir(&a.path(0)?),
            Call::Link => raw::link(&a.path(0)?, &a.path(1)?),
            Call::Linkat => raw::linkat(
                a.number(0)?,
                &a.path(1)?,
                a.number(2)?,
                &a.path(3)?,
                a.number(4)?,
            ),
            Call::Symlink => raw::symlink(&a.path(0)?, &a.path(1)?),
            Call::Unlink => raw::unlink(&a.path(0)?),
            Call::Unlinkat => raw::unlinkat(a.number(0)?, &a.path(1)?, a.number(2)?),
            Call::Rename => raw::rename(&a.path(0)?, &a.path(1)?),
            Call::Renameat2 => raw::renameat2(
                a.number(0)?,
                &a.path(1)?,
                a.number(2)?,
                &a.path(3)?,
                a.number(4)?,
            ),
            Call::Mknod => raw::mknod(&a.path(0)?, a.number(1)?, a.device(2)),
            Call::Chmod => raw::chmod(&a.path(0)?, a.mode(1)),
            Call::Chown => raw::chown(&a.path(0)?, a.number(1)?, a.number(2)?),
            Call::Truncate => raw::truncate(&a.path(0)?, a.int(1)?),
            Call::Utimensat => raw::utimensat(
                a.number(0)?,
                a.path(1).as_deref(),
                &a.times(2)?,
                a.number(3)?,
            ),
            Call::Setxattr => raw::setxattr(&a.path(0)?, &a.path(1)?, a.content(2)?, a.number(3)?),
            Call::Removexattr => raw::removexattr(&a.path(0)?, &a.path(1)?),
            Call::Chdir => raw::chdir(&a.path(0)?),
            Call::Flood => flood(&a.path(0)?, a.int(1)?),
            _ => return None,
        };
        Some(returned.into())
    }

    /// Calls that work on descriptors of any kind.
    fn descriptors(&self, step: &Step) -> Option<Reply> {
        let a = Args {
            executor: self,
            step,
        };
        let returned = match step.call {
            Call::Close => raw::close(a.number(0)?),
            Call::Dup => raw::dup(a.number(0)?),
            Call::Dup2 => raw::dup2(a.number(0)?, a.number(1)?),
            Call::Dup3 => raw::dup3(a.number(0)?, a.number(1)?, a.number(2)?),
            Call::MemfdCreate => raw::memfd_create(&a.path(0)?, a.number(1)?),
            Call::Eventfd2 => raw::eventfd2(a.number(0)?, a.number(1)?),
            Call::Socket => raw::socket(a.number(0)?, a.number(1)?, a.number(2)?),
            Call::Write => match step.args.get(1) {
                Some(Arg::Response(response)) => self.answer(a.number(0)?, *response),
                _ => raw::write(a.number(0)?, a.content(1)?),
            },
            Call::Pwrite => raw::pwrite(a.number(0)?, a.content(1)?, a.int(2)?),
            Call::Lseek => raw::lseek(a.number(0)?, a.int(1)?, a.number(2)?),
            Call::Ftruncate => raw::ftruncate(a.number(0)?, a.int(1)?),
            Call::Fallocate => raw::fallocate(a.number(0)?, a.number(1)?, a.int(2)?, a.int(3)?),
            Call::Fchmod => raw::fchmod(a.number(0)?, a.mode(1)),
            Call::Fchown => raw::fchown(a.number(0)?, a.number(1)?, a.number(2)?),
            Call::Fcntl => raw::fcntl(a.number(0)?, a.number(1)?, a.int(2).unwrap_or(0)),
            Call::Read => return Some(self.read(step, a.number(0)?, a.int(1))),
            Call::Pread => {
                let mut buffer = vec![0; usize::try_from(a.int(1)?).ok()?];
                let returned = raw::pread(a.number(0)?, &mut buffer, a.int(2)?);
                return Some(filled(returned, buffer, Tag::Content));
            }
            Call::Getdents64 => return Some(list(a.number(0)?)),
            _ => return None,
        };
        Some(returned.into())
    }

    /// inotify, fanotify and epoll.
    fn notification(&self, step: &Step) -> Option<Reply> {
        let a = Args {
            executor: self,
            step,
        };
        let returned = match step.call {
            Call::InotifyInit1 => raw::inotify_init1(a.number(0)?),
            Call::InotifyAddWatch => {
                raw::inotify_add_watch(a.number(0)?, &a.path(1)?, a.number(2)?)
            }
            Call::InotifyRmWatch => raw::inotify_rm_watch(a.number(0)?, a.number(1)?),
            Call::Ioctl => match a.int(1)?.cast_unsigned() {
                ioctl::INOTIFY_SETNEXTWD => raw::inotify_set_next_wd(a.number(0)?, a.number(2)?),
                ioctl::FIONREAD => raw::unread(a.number(0)?),
                _ => Err(Errno::ENOTTY),
            },
            Call::FanotifyInit => raw::fanotify_init(a.number(0)?, a.number(1)?),
            Call::FanotifyMark => raw::fanotify_mark(
                a.number(0)?,
                a.number(1)?,
                a.int(2)?.cast_unsigned(),
                a.number(3)?,
                a.path(4).as_deref(),
            ),
            Call::EpollCreate1 => raw::epoll_create1(a.number(0)?),
            Call::EpollCtl => {
                let (events, word) = match step.args.get(3) {
                    Some(Arg::EpollEvent { events, data }) => (*events, *data),
                    _ => (0, 0),
                };
                raw::epoll_ctl(a.number(0)?, a.number(1)?, a.number(2)?, events, word)
            }
            Call::EpollWait => return Some(ready(a.number(0)?, a.int(1)?)),
            _ => return None,
        };
        Some(returned.into())
    }

    /// Mounts, caches, signals.
    fn environment(&self, step: &Step) -> Option<Reply> {
        let a = Args {
            executor: self,
            step,
        };
        let returned = match step.call {
            Call::Mount => raw::mount(
                a.path(0).as_deref(),
                &a.path(1)?,
                a.path(2).as_deref(),
                a.int(3)?.cast_unsigned(),
                a.path(4).as_deref(),
            ),
            Call::Umount2 => raw::umount2(&a.path(0)?, a.number(1)?),
            Call::DropCaches => drop_caches(),
            Call::Signals => return Some(signals()),
            _ => return None,
        };
        Some(returned.into())
    }

    /// A group is drained, unless a size is given: that is one read(2). Any other file is read once.
    fn read(&self, step: &Step, fd: i32, size: Option<i64>) -> Reply {
        let tag = match std::fs::read_link(format!("/proc/self/fd/{fd}")) {
            Ok(link) if link.as_os_str() == "anon_inode:inotify" => Tag::Events,
            Ok(link) if link.as_os_str() == "anon_inode:[fanotify]" => Tag::FanotifyEvents,
            _ => Tag::Content,
        };
        // A blocking group that is empty would stop the run here for good.
        let wait_ms = self.first_wait_ms(step);
        if tag != Tag::Content && size.is_some() && raw::readable(fd, wait_ms) == Ok(false) {
            return Errno::EAGAIN.into();
        }
        let size = size.and_then(|size| usize::try_from(size).ok());
        match (tag, size) {
            (Tag::Events, None) => drain(fd, wait_ms),
            (Tag::FanotifyEvents, None) => {
                taken(take::drain(fd, wait_ms, &mut Namer::new(self.paths())))
            }
            (Tag::FanotifyEvents, Some(size)) => {
                taken(take::read(fd, size, &mut Namer::new(self.paths())))
            }
            (tag, size) => {
                let mut buffer = vec![0; size.unwrap_or(FILE_READ)];
                let returned = raw::read(fd, &mut buffer);
                filled(returned, buffer, tag)
            }
        }
    }

    /// Answers the oldest permission event that was read from the group and not answered yet.
    fn answer(&self, group: i32, response: u32) -> raw::Returned {
        let event = self.journal.to_answer(group).ok_or(Errno::ENOENT)?;
        let mut bytes = event.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&response.to_ne_bytes());
        raw::write(group, &bytes)
    }

    /// Every path that the scenario names.
    fn paths(&self) -> Vec<PathBuf> {
        let steps = self.scenario.steps.iter();
        let args = steps.flat_map(|step| step.args.iter().zip(step.call.signature().args));
        args.filter_map(|pair| match pair {
            (Arg::Bytes(bytes), ArgKind::Path | ArgKind::PathOrNull) => {
                std::path::absolute(OsStr::from_bytes(&bytes.0)).ok()
            }
            _ => None,
        })
        .collect()
    }

    /// Another process may be about to block in a call that makes an event.
    fn first_wait_ms(&self, step: &Step) -> i32 {
        let steps = self.scenario.steps.iter();
        let n_of = |phase| {
            let before = steps
                .clone()
                .take_while(|other| !std::ptr::eq(*other, step));
            before.filter(|step| step.phase == phase).count()
        };
        if n_of(Phase::Unfinished) > n_of(Phase::Resumed) {
            UNFINISHED_WAIT_MS
        } else {
            0
        }
    }
}

/// The arguments of a step, with names resolved. Each accessor is none where there is no such
/// argument or it is of another kind.
struct Args<'a> {
    executor: &'a Executor<'a>,
    step: &'a Step,
}

impl Args<'_> {
    fn int(&self, index: usize) -> Option<i64> {
        match self.step.args.get(index)? {
            Arg::Int(number) => Some(*number),
            Arg::Mode(mode) => Some((*mode).into()),
            Arg::Flags(_, bits) => Some(bits.cast_signed()),
            Arg::Name(Name(name)) if name == Name::MAIN => Some(std::process::id().into()),
            Arg::Name(name) => Some(self.executor.journal.value(name)),
            Arg::Cwd => Some(nix::libc::AT_FDCWD.into()),
            _ => None,
        }
    }

    /// As a number of the width that the call takes: its low bits, as the C caller would pass it.
    fn number<T: Low>(&self, index: usize) -> Option<T> {
        self.int(index).map(T::low)
    }

    fn mode(&self, index: usize) -> u32 {
        self.number(index).unwrap_or(0)
    }

    fn content(&self, index: usize) -> Option<&[u8]> {
        match self.step.args.get(index)? {
            Arg::Bytes(bytes) => Some(&bytes.0),
            _ => None,
        }
    }

    fn path(&self, index: usize) -> Option<CString> {
        CString::new(self.content(index)?).ok()
    }

    fn device(&self, index: usize) -> u64 {
        match self.step.args.get(index) {
            Some(Arg::Device(major, minor)) => {
                nix::sys::stat::makedev((*major).into(), (*minor).into())
            }
            _ => 0,
        }
    }

    fn times(&self, index: usize) -> Option<[(i64, i64); 2]> {
        match self.step.args.get(index)? {
            Arg::Null => Some([(0, nix::libc::UTIME_NOW); 2]),
            Arg::Times(times) => Some(times.map(|time| match time {
                Time::Now => (0, nix::libc::UTIME_NOW),
                Time::Omit => (0, nix::libc::UTIME_OMIT),
                Time::At { sec, nsec } => (sec, nsec.into()),
            })),
            _ => None,
        }
    }
}

/// The low 32 bits of a number.
trait Low {
    fn low(number: i64) -> Self;
}

impl Low for i32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low bits are what is asked for"
    )]
    fn low(number: i64) -> Self {
        number as Self
    }
}

impl Low for u32 {
    fn low(number: i64) -> Self {
        i32::low(number).cast_unsigned()
    }
}

/// Reads an inotify group until nothing is left, waiting at most `wait_ms` for the first event.
/// Asks before each read, so a blocking group does not hang.
fn drain(fd: i32, wait_ms: i32) -> Reply {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; DRAIN_BUFFER];
    let mut wait_ms = wait_ms;
    loop {
        match raw::readable(fd, wait_ms) {
            Ok(true) => {}
            Ok(false) => break,
            Err(errno) => return errno.into(),
        }
        wait_ms = 0;
        match raw::read(fd, &mut buffer) {
            Ok(n) => bytes.extend_from_slice(&buffer[..usize::try_from(n).unwrap_or(0)]),
            Err(Errno::EAGAIN) => break,
            Err(errno) => return errno.into(),
        }
    }
    let ret = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    Reply::with(ret, Tag::Events, bytes)
}

fn taken(taken: Result<Taken, Errno>) -> Reply {
    match taken {
        Ok(Taken {
            bytes,
            links,
            names,
        }) => Reply {
            ret: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            errno: 0,
            chunks: vec![
                (Tag::FanotifyEvents, bytes),
                (Tag::EventLinks, links),
                (Tag::HandleLinks, names),
            ],
        },
        Err(errno) => errno.into(),
    }
}

fn filled(returned: raw::Returned, mut buffer: Vec<u8>, tag: Tag) -> Reply {
    match returned {
        Ok(n) => {
            buffer.truncate(usize::try_from(n).unwrap_or(0));
            Reply::with(n, tag, buffer)
        }
        Err(errno) => errno.into(),
    }
}

/// Names in one buffer of a directory.
fn list(fd: i32) -> Reply {
    let mut names = Vec::new();
    let mut buffer = vec![0; DRAIN_BUFFER];
    let ret = match raw::getdents64(fd, &mut buffer) {
        Ok(ret) => ret,
        Err(errno) => return errno.into(),
    };
    let mut rest = &buffer[..usize::try_from(ret).unwrap_or(0)];
    // struct linux_dirent64: d_ino 8, d_off 8, d_reclen 2, d_type 1, d_name up to a NUL.
    while rest.len() > 19 {
        let length = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
        let name = &rest[19..length];
        let end = name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(name.len());
        names.extend_from_slice(&name[..end]);
        names.push(0);
        rest = &rest[length..];
    }
    Reply::with(ret, Tag::Names, names)
}

fn ready(epoll: i32, most: i64) -> Reply {
    let most = usize::try_from(most.clamp(1, EPOLL_MOST)).expect("clamped");
    match raw::epoll_poll(epoll, most) {
        Ok(ready) => {
            let n_ready = i64::try_from(ready.len()).expect("few");
            let mut bytes = Vec::new();
            for (events, word) in ready {
                bytes.extend_from_slice(&events.to_le_bytes());
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            Reply::with(n_ready, Tag::Epoll, bytes)
        }
        Err(errno) => errno.into(),
    }
}

/// Takes every pending signal.
fn signals() -> Reply {
    let mut set = SigSet::all();
    set.remove(Signal::SIGCONT);
    set.remove(Signal::SIGCHLD);
    let mut bytes = Vec::new();
    let mut n_signals = 0;
    while let Some((signal, fd)) = raw::take_signal(&set) {
        bytes.extend_from_slice(&signal.to_le_bytes());
        bytes.extend_from_slice(&fd.unwrap_or(-1).to_le_bytes());
        n_signals += 1;
    }
    Reply::with(n_signals, Tag::Signals, bytes)
}

/// `count` events on one file: `IN_ATTRIB` and `IN_MODIFY` in turn, since equal neighbours would
/// merge. Neither call opens the file.
fn flood(path: &std::ffi::CStr, count: i64) -> raw::Returned {
    let times = |nanoseconds| [(0, nix::libc::UTIME_OMIT), (0, nanoseconds)];
    for index in 0..count {
        if index % 2 == 0 {
            raw::chmod(path, 0o600)?;
        } else {
            raw::utimensat(
                nix::libc::AT_FDCWD,
                Some(path),
                &times(index % 1_000_000_000),
                0,
            )?;
        }
    }
    Ok(count)
}

/// Clean dentries and inodes (2) of the whole machine: the cold cache that a restore after a
/// reboot sees.
fn drop_caches() -> raw::Returned {
    match std::fs::write("/proc/sys/vm/drop_caches", "2") {
        Ok(()) => Ok(0),
        Err(error) => Err(Errno::from_raw(
            error.raw_os_error().unwrap_or(nix::libc::EIO),
        )),
    }
}
