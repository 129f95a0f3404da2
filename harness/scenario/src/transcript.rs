//! What a run yielded, typed: observations in step order, each with the facts that were noticed.
//!
//! Inodes, devices and handles are names here already ([`Object`]); cookies are numbered by first
//! appearance. Watch descriptors stay numbers, since keeping them is what is tested. No fact holds
//! a value that differs between two equal runs.

use fsnotify::inotify::Mask;
use serde::{Deserialize, Serialize};

use crate::{Bytes, Name};

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    pub observations: Vec<Observation>,
}

/// What was noticed at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub place: Place,
    pub outcome: Outcome,
    pub facts: Vec<Fact>,
}

/// Where: a step of the scenario by its index, or the audit after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    Step(usize),
    End,
}

/// What the call returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Value(i64),
    /// errno(3).
    Errno(i32),
    /// The step was not reached, or has no result of its own.
    None,
}

/// One thing that was noticed. The order of facts within an observation is significant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fact {
    /// An inotify event: read by a step, or, at the end, drained from the group at `fd`.
    Event(Event),
    FanotifyEvent(FanotifyEvent),
    /// Content that a step read.
    Content(Bytes),
    /// `epoll_wait` reported this: the data word that the program registered, and the events.
    Ready {
        data: u64,
        events: u32,
    },
    /// A signal was pending, and the descriptor that it told of, if any.
    Signal {
        signal: i32,
        fd: Option<i32>,
    },
    /// Survey: a descriptor of a process.
    Descriptor(Descriptor),
    /// Survey: an inotify watch, in the order of fdinfo.
    Watch(Watch),
    /// Survey: a fanotify mark, in the order of fdinfo.
    Mark(Mark),
    /// Survey: the wd that the next new watch of the group would get. Only asked of a group whose
    /// queue is empty, since asking leaves an `IN_IGNORED` that has to be read.
    NextWd {
        process: Option<Name>,
        fd: i32,
        wd: i32,
    },
    /// Survey: where a process is.
    WorkingDirectory {
        process: Option<Name>,
        object: Object,
    },
    /// Another watcher of the same tree heard this between dump and the end of restore.
    Bystander(Bystander),
    /// An object of the visible tree.
    Entry(Entry),
    /// Something that was not there before: a file, a mount, a process, a descriptor.
    Leftover(String),
    /// The engine declared that it could not keep this.
    Loss(Loss),
}

/// An inotify event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// The group, where the place does not say it (drained at the end).
    pub fd: Option<i32>,
    /// -1 on an overflow event.
    pub wd: i32,
    pub mask: Mask,
    /// Cookies numbered from 1 by first appearance in the run; 0 for none.
    pub cookie: u32,
    pub name: Bytes,
}

/// A fanotify event, decoded to the names of things.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FanotifyEvent {
    pub fd: Option<i32>,
    pub mask: u64,
    /// The process that made the event, by its name in the scenario; `main` for the main process.
    pub process: Option<Name>,
    /// What the event descriptor refers to, if the event had one.
    pub object: Option<Object>,
    /// Info records in order, each printed (`DFID_NAME "d" "f"`).
    pub records: Vec<String>,
}

/// An inode, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Object {
    /// Has this path below the world.
    Path(Bytes),
    /// Has no name any more; a descriptor still shows the one that it had.
    Ghost(Bytes),
    /// Is no file of the world: `anon_inode:inotify`, `pipe` ...
    Other(String),
    /// Nothing names it; numbered by first appearance.
    Unnamed(u32),
}

/// A descriptor of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Descriptor {
    /// None: the main process.
    pub process: Option<Name>,
    pub fd: i32,
    pub kind: DescriptorKind,
    pub object: Object,
    /// `F_GETFL`: access mode and status flags.
    pub flags: u32,
    /// `FD_CLOEXEC`.
    pub close_on_exec: bool,
    /// File offset; none where a descriptor has none.
    pub offset: Option<u64>,
    /// `F_GETOWN_EX`, a process by its name in the scenario, printed; none for no owner.
    pub owner: Option<String>,
    /// `F_GETSIG`; 0 is the default, `SIGIO`.
    pub signal: i32,
    /// The first descriptor in survey order that shares this open file description (kcmp(2)).
    pub shared_with: Option<(Option<Name>, i32)>,
    /// Unread bytes of a group (`FIONREAD`).
    pub unread: Option<u64>,
    /// fanotify: `flags` and `event-flags` of fdinfo.
    pub group_flags: Option<(u32, u32)>,
    /// epoll: `tfd`, `events`, `data` of fdinfo, in rising order of `tfd`.
    pub interest: Vec<(i32, u32, u64)>,
    /// Regular files, directories, fifos ...: fstat(2).
    pub stat: Option<Stat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DescriptorKind {
    Inotify,
    Fanotify,
    Epoll,
    Regular,
    Directory,
    Fifo,
    Socket,
    Symlink,
    Device,
    Other,
}

/// What stat(2) shows, without what must differ from run to run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Blocks of 512 bytes: shows holes that were filled.
    pub blocks: u64,
    /// Extended attributes, names sorted.
    pub xattrs: Vec<(Bytes, Bytes)>,
    /// Of atime and mtime: those that differ from the same object's times just before the cut
    /// (`"atime"`, `"mtime"`). Empty in a survey that no cut precedes.
    pub changed: Vec<String>,
    /// Content of a regular file, only in the survey at the end: FNV-1a of all bytes.
    pub content: Option<u64>,
}

/// An inotify watch as fdinfo shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Watch {
    pub process: Option<Name>,
    pub fd: i32,
    pub wd: i32,
    pub target: Object,
    pub mask: Mask,
}

/// A fanotify mark as fdinfo shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    pub process: Option<Name>,
    pub fd: i32,
    pub target: MarkTarget,
    pub flags: u32,
    pub mask: u64,
    pub ignored_mask: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MarkTarget {
    Inode(Object),
    /// The mount at this path.
    Mount(Object),
    /// The filesystem mounted at this path.
    Filesystem(Object),
    /// A mount namespace; `own` is that of the subject.
    MountNamespace(String),
    /// A kind that this program does not know, as fdinfo printed it.
    Unknown(String),
}

/// What another watcher heard.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bystander {
    /// The object that the bystander watched; none for its filesystem mark.
    pub watched: Option<Object>,
    pub mask: Mask,
    pub name: Bytes,
}

/// An object of the visible tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    pub path: Bytes,
    pub stat: Stat,
    /// Target of a symbolic link.
    pub link: Option<Bytes>,
    /// Entries with the same number are names of one inode; 0 for an inode with one name.
    pub inode: u32,
}

/// What an engine could not keep: declared at dump, never found out later.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Loss {
    /// What the engine calls such a loss, if it has a name for it: `queue-dropped`.
    pub kind: Option<String>,
    /// Number of the invariant's group: 1 to 10.
    pub invariant: u8,
    /// What is lost: `fd 3`, `queue of fd 3: 5 events`.
    pub object: String,
    pub reason: String,
}
