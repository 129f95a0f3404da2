//! Unread events made again on a forged filesystem, unheard.
//!
//! An event of a group that reports handles names a filesystem by the number that statfs(2) shows,
//! and an object by its handle. On ext4 the number is made of the UUID in the superblock
//! (`uuid_to_fsid`) and the handle of inode number and generation (`generic_encode_ino32_fh`), and
//! all of these are for whoever writes the filesystem to choose. So an ext4 of our own, of memory
//! and in no mount namespace, can stand for every filesystem with such handles: what happens there
//! is told to a group with the very bytes, and to nobody else.
//!
//! [`plan`](self::plan) says what has to happen, [`scene`] where, [`script`] with which calls; [`crate::ext4`] writes
//! the filesystem, [`ground`] fills it, [`perform`] makes the calls, in a process with the pid that
//! the event names. What comes out in a group of our own is compared with what was unread, before the
//! group itself hears anything.
//!
//! What is not here: other handles (tmpfs, btrfs, xfs with numbers of 64 bits), events whose maker
//! lives and is another process, and new directories that are told by their handle. [`forgeable`]
//! refuses them, and the dump declares them.

mod ground;
mod perform;
mod plan;
mod refusal;
mod scene;
mod script;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use fsnotify::event::fanotify::{Event, Events, METADATA_SIZE, Record};
use fsnotify::fanotify::InitFlags;
use nix::errno::Errno;

use self::ground::Ground;
use self::plan::Happening;
pub use self::plan::{MAX_EVENTS, Makers};
pub use self::refusal::{Reason, Unforgeable};
use super::queue::close_all;
use crate::image::Fanotify;
use crate::sys::actor::{ActError, act_as};
use crate::sys::fanotify::fanotify_init;
use crate::sys::inspect::unread;

/// Events that one process makes before the next one: as much as is copied into each.
const MOST_AT_ONCE: usize = 256;

/// Why a queue was not made again.
#[derive(Debug)]
pub enum ForgeError {
    Unforgeable(Unforgeable),
    /// A call for the filesystem or for the rehearsal.
    Call(&'static str, Errno),
    /// A call for an event, counted from 1.
    Step {
        event: usize,
        step: String,
        errno: Errno,
    },
    /// The process that an event names could not be started.
    Maker {
        event: usize,
        pid: i32,
        errno: Errno,
    },
    /// Another event came than the one that was unread.
    Differs {
        event: usize,
        found: String,
    },
    /// Bytes that FIONREAD shows in the end.
    Length {
        bytes: u64,
    },
}

impl fmt::Display for ForgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unforgeable(reason) => reason.fmt(f),
            Self::Call(call, errno) => write!(f, "forged filesystem: {call}: {errno}"),
            Self::Step { event, step, errno } => {
                write!(f, "forged filesystem: event {event}: {step}: {errno}")
            }
            Self::Maker { event, pid, errno } => {
                write!(
                    f,
                    "forged filesystem: event {event}: clone3 of process {pid}: {errno}"
                )
            }
            Self::Differs { event, found } => {
                write!(f, "forged filesystem: event {event} came out as {found}")
            }
            Self::Length { bytes } => {
                write!(f, "forged filesystem: the queue shows {bytes} bytes")
            }
        }
    }
}

impl std::error::Error for ForgeError {}

/// Whether a queue can be made again, as far as its bytes tell. `makers` are those of its events.
///
/// # Errors
///
/// Why not.
pub fn forgeable(group: &Fanotify, makers: &Makers) -> Result<(), Unforgeable> {
    events_of(group, makers).map(drop)
}

fn events_of(group: &Fanotify, makers: &Makers) -> Result<Vec<Happening>, Unforgeable> {
    let flags = InitFlags(group.init_flags);
    let reports = InitFlags::REPORT_FID.0 | InitFlags::REPORT_DIR_FID.0;
    if flags.contains(InitFlags::REPORT_MNT) {
        return Err(Unforgeable::Mounts);
    }
    if flags.0 & reports == 0 {
        return Err(Unforgeable::Descriptors);
    }
    if group.overflow {
        return Err(Unforgeable::Overflowed);
    }
    if group.unprivileged {
        return Err(Unforgeable::Unprivileged);
    }
    plan::plan(flags, &group.queue, makers)
}

/// Makes the queue in a group of our own and compares. What `main` made, we make in its place, who
/// have another pid.
///
/// A thread that forks meanwhile copies our descriptors, so that what we close is still open there:
/// then the queue may come out otherwise, and is declared lost for nothing.
///
/// # Errors
///
/// [`ForgeError`]: the queue of a group would not be made again.
pub fn rehearse(group: &Fanotify, main: i32) -> Result<(), ForgeError> {
    let mut forge = Forge::new(group, main)?;
    forge.rehearse(group)
}

/// Makes the queue of a new group, which has no mark yet; before that in another group, to compare.
/// What this process made, it makes again; what others made, processes with their pids.
///
/// # Errors
///
/// [`ForgeError`]; what is in the queue then is of no use.
pub fn replay(fd: BorrowedFd<'_>, group: &Fanotify) -> Result<(), ForgeError> {
    let mut forge = Forge::new(group, own_id(group))?;
    forge.rehearse(group)?;
    forge.play(fd)?;
    let bytes = unread(fd).map_err(|errno| ForgeError::Call("FIONREAD", errno))?;
    if bytes == (forge.happenings.len() * METADATA_SIZE) as u64 {
        Ok(())
    } else {
        Err(ForgeError::Length { bytes })
    }
}

/// How events of ours are told.
fn own_id(group: &Fanotify) -> i32 {
    let thread = InitFlags(libc::FAN_REPORT_TID);
    if InitFlags(group.init_flags).contains(thread) {
        nix::unistd::gettid().as_raw()
    } else {
        nix::unistd::getpid().as_raw()
    }
}

struct Forge {
    happenings: Vec<Happening>,
    grounds: HashMap<[u32; 2], Ground>,
    /// Whose events we make without another process.
    main: i32,
}

impl Forge {
    fn new(group: &Fanotify, main: i32) -> Result<Self, ForgeError> {
        let happenings = events_of(group, &Makers::default()).map_err(ForgeError::Unforgeable)?;
        let mut scenes: HashMap<[u32; 2], Vec<_>> = HashMap::new();
        for happening in &happenings {
            let of = scenes.entry(happening.fsid).or_default();
            of.extend(happening.acts.iter().map(|(_, scene)| scene));
        }
        let grounds = scenes.into_iter().map(|(fsid, scenes)| {
            let ground = Ground::new(fsid, &scenes);
            ground.map(|ground| (fsid, ground))
        });
        let grounds = grounds.collect::<Result<_, _>>();
        Ok(Self {
            grounds: grounds.map_err(|(call, errno)| ForgeError::Call(call, errno))?,
            happenings,
            main,
        })
    }

    fn rehearse(&mut self, group: &Fanotify) -> Result<(), ForgeError> {
        let twin = fanotify_init(group.init_flags, group.event_flags)
            .map_err(|errno| ForgeError::Call("fanotify_init", errno))?;
        self.play(twin.as_fd())?;
        let own = own_id(group);
        let found = read_all(twin.as_fd(), |pid| if pid == own { self.main } else { pid })?;
        compare(&group.queue, &found)
    }

    /// Makes every event, in order.
    fn play(&mut self, group: BorrowedFd<'_>) -> Result<(), ForgeError> {
        let mut first = 0;
        for run in self.happenings.chunk_by(|one, next| one.pid == next.pid) {
            for part in run.chunks(MOST_AT_ONCE) {
                play_run((part, first), &mut self.grounds, group, self.main)?;
                first += part.len();
            }
        }
        Ok(())
    }
}

/// Makes events of one process.
fn play_run(
    (run, first): (&[Happening], usize),
    grounds: &mut HashMap<[u32; 2], Ground>,
    group: BorrowedFd<'_>,
    main: i32,
) -> Result<(), ForgeError> {
    let mut steps = Vec::new();
    let mut ends = Vec::new();
    for happening in run {
        let ground = grounds.get_mut(&happening.fsid).expect("one for each");
        let root = ground.mounted.root.as_raw_fd();
        let script = ground.state.script(happening);
        steps.extend(script.into_iter().map(|step| (root, step)));
        ends.push(steps.len());
    }
    let pid = run.first().expect("chunks are not empty").pid;
    let perform = || perform::perform(group.as_raw_fd(), &steps);
    let done = if pid == main {
        perform().map_err(ActError::Stopped)
    } else {
        act_as(pid, perform)
    };
    done.map_err(|error| match error {
        ActError::Stopped((index, errno)) => ForgeError::Step {
            event: first + 1 + ends.partition_point(|end| *end <= index),
            step: steps
                .get(index)
                .map_or_else(String::new, |(_, step)| format!("{step:?}")),
            errno,
        },
        ActError::Start(errno) => ForgeError::Maker {
            event: first + 1,
            pid,
            errno,
        },
        ActError::Killed => ForgeError::Maker {
            event: first + 1,
            pid,
            errno: Errno::ESRCH,
        },
    })
}

/// Reads a group until its queue is empty.
fn read_all(group: BorrowedFd<'_>, pid: impl Fn(i32) -> i32) -> Result<Vec<u8>, ForgeError> {
    let call = |name| move |errno| ForgeError::Call(name, errno);
    let mut found = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while unread(group).map_err(call("FIONREAD"))? != 0 {
        let n_read = nix::unistd::read(group, &mut buffer).map_err(call("read"))?;
        for event in Events::new(&buffer[..n_read]) {
            let event = event.map_err(|_| ForgeError::Call("read", Errno::EIO))?;
            close_all(&event);
            keep(&event, pid(event.pid), &mut found);
        }
    }
    Ok(found)
}

/// Appends an event as the image has it: the number of a process descriptor is the reader's and
/// becomes 0.
pub(super) fn keep(event: &Event<'_>, pid: i32, out: &mut Vec<u8>) {
    let records = event.records().map(|record| match record {
        Record::Pidfd(fd) => Record::Pidfd(fd.min(0)),
        other => other,
    });
    fsnotify::event::fanotify::encode(event.mask, event.fd, pid, records, out);
}

fn compare(expected: &[u8], found: &[u8]) -> Result<(), ForgeError> {
    if expected == found {
        return Ok(());
    }
    let mut expected = Events::new(expected);
    let mut found = Events::new(found);
    let mut event = 0;
    loop {
        event += 1;
        match (expected.next(), found.next()) {
            (None, None) => return Ok(()),
            (expected, found) if expected != found => {
                let found = match found {
                    Some(Ok(found)) => {
                        let records: Vec<_> = found.records().collect();
                        format!("{} pid {} {records:?}", found.mask, found.pid)
                    }
                    _ => "nothing".to_owned(),
                };
                return Err(ForgeError::Differs { event, found });
            }
            _ => {}
        }
    }
}
