//! The image: what a dump found, as data; written to a file and read back by a restore that trusts
//! nothing in it.
//!
//! Tables refer to each other by index: a process has descriptors, a descriptor an open file
//! description, a description or a watch a place, and a place an inode. So whatever was shared is
//! shared again. What cannot be right is refused by [`Image::decode`], before anything acts on it.

mod check;
mod codec;
mod content;
mod show;
pub mod weight;

pub use check::InvalidImage;
pub(crate) use check::check_path;
pub use codec::{DecodeError, DecodeErrorKind, ImageFile, MAX_IMAGE, ReadError, check_image};
pub(crate) use content::{Content, PIECE, Writer};
pub(crate) use show::Text;

use crate::loss::Loss;

/// Everything that a dump found.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Image {
    /// Parents before their children; the main process is the first.
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<Process>,
    /// Open file descriptions.
    #[prost(message, repeated, tag = "2")]
    pub files: Vec<OpenFile>,
    #[prost(message, repeated, tag = "3")]
    pub places: Vec<Place>,
    #[prost(message, repeated, tag = "4")]
    pub inodes: Vec<Inode>,
    #[prost(message, repeated, tag = "5")]
    pub lost: Vec<LossRecord>,
    /// `/proc/sys/kernel/random/boot_id`: inode numbers and handles are only compared with what a
    /// restore finds when it runs in the same boot.
    #[prost(string, tag = "6")]
    pub boot_id: String,
    /// Whether the image holds notification groups alone, to be restored into another program.
    #[prost(bool, tag = "7")]
    pub only_groups: bool,
    /// A process that holds the open file descriptions themselves.
    #[prost(message, optional, tag = "8")]
    pub parked: Option<Parked>,
    /// Bytes of content of ghosts in the file of the image, before this message.
    #[prost(uint64, tag = "9")]
    pub content_length: u64,
}

/// Where the open file descriptions are.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Parked {
    /// The pid of their holder.
    #[prost(int32, tag = "1")]
    pub holder: i32,
    /// When it began, in ticks since the boot.
    #[prost(uint64, tag = "2")]
    pub began: u64,
    /// In the name of a memfd that it has open at `mark`: no other process is taken for it.
    #[prost(string, tag = "3")]
    pub token: String,
    #[prost(int32, tag = "4")]
    pub mark: i32,
    /// Its descriptor of each of [`Image::files`].
    #[prost(int32, repeated, tag = "5")]
    pub files: Vec<i32>,
}

/// A process of the tree.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Process {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    /// Not in the image for the main process.
    #[prost(int32, tag = "2")]
    pub parent: i32,
    #[prost(int32, tag = "3")]
    pub group: i32,
    #[prost(int32, tag = "4")]
    pub session: i32,
    /// Exit code as `/proc/PID/stat` has it, of a process that nobody has waited for yet.
    #[prost(int32, optional, tag = "5")]
    pub exited: Option<i32>,
    /// Index into [`Image::places`].
    #[prost(uint32, optional, tag = "6")]
    pub working_directory: Option<u32>,
    #[prost(uint32, tag = "7")]
    pub umask: u32,
    #[prost(message, repeated, tag = "8")]
    pub descriptors: Vec<Descriptor>,
    #[prost(message, repeated, tag = "9")]
    pub signals: Vec<PendingSignal>,
}

/// A number in a process that refers to an open file description.
#[derive(Clone, Copy, PartialEq, prost::Message, serde::Serialize)]
pub struct Descriptor {
    #[prost(int32, tag = "1")]
    pub fd: i32,
    /// Index into [`Image::files`].
    #[prost(uint32, tag = "2")]
    pub file: u32,
    #[prost(bool, tag = "3")]
    pub close_on_exec: bool,
}

/// A signal that was sent and not taken: the bytes of its `siginfo_t`.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct PendingSignal {
    #[prost(bytes = "vec", tag = "1")]
    #[serde(serialize_with = "show::hex")]
    pub info: Vec<u8>,
    /// Sent to the process, not to its one thread.
    #[prost(bool, tag = "2")]
    pub shared: bool,
}

/// An open file description.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct OpenFile {
    /// `F_GETFL`.
    #[prost(uint32, tag = "1")]
    pub flags: u32,
    #[prost(int64, tag = "2")]
    pub offset: i64,
    #[prost(message, optional, tag = "3")]
    pub owner: Option<Owner>,
    /// `F_GETSIG`.
    #[prost(int32, tag = "4")]
    pub signal: i32,
    #[prost(oneof = "Object", tags = "5, 6, 7, 8")]
    pub object: Option<Object>,
    /// Who reads it has to wait for permission listeners. Only known where the image has one.
    #[prost(bool, tag = "9")]
    pub asks: bool,
    /// `F_GETPIPE_SZ` of a fifo.
    #[prost(uint32, tag = "10")]
    pub pipe_size: u32,
    /// `F_GET_RW_HINT` of a regular file: how long what is written is expected to last.
    #[prost(uint64, tag = "11")]
    pub write_hint: u64,
    /// When the owner began, in ticks since the boot, if he is no process of the image; 0 where that
    /// is not known.
    #[prost(uint64, tag = "12")]
    pub owner_began: u64,
}

/// `F_GETOWN_EX`.
#[derive(Clone, Copy, PartialEq, prost::Message, serde::Serialize)]
pub struct Owner {
    /// `F_OWNER_TID` 0, `F_OWNER_PID` 1, `F_OWNER_PGRP` 2.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(int32, tag = "2")]
    pub pid: i32,
}

/// `F_OWNER_PGRP`.
pub(crate) const F_OWNER_PGRP: i32 = 2;

/// What an open file description is open on.
#[derive(Clone, PartialEq, prost::Oneof, serde::Serialize)]
pub enum Object {
    /// Index into [`Image::places`].
    #[prost(uint32, tag = "5")]
    Place(u32),
    #[prost(message, tag = "6")]
    Inotify(Inotify),
    #[prost(message, tag = "7")]
    Epoll(Epoll),
    #[prost(message, tag = "8")]
    Fanotify(Fanotify),
}

/// An inotify group.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Inotify {
    /// In the order of fdinfo: the newest first.
    #[prost(message, repeated, tag = "1")]
    pub watches: Vec<Watch>,
    /// Unread events as `read(2)` returns them.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(serialize_with = "show::hex")]
    pub queue: Vec<u8>,
    /// The watch descriptor that the next new watch gets.
    #[prost(int32, optional, tag = "3")]
    pub next_wd: Option<i32>,
}

/// An inotify watch.
#[derive(Clone, Copy, PartialEq, prost::Message, serde::Serialize)]
pub struct Watch {
    #[prost(int32, tag = "1")]
    pub wd: i32,
    #[prost(uint32, tag = "2")]
    pub mask: u32,
    /// Index into [`Image::places`].
    #[prost(uint32, tag = "3")]
    pub place: u32,
}

/// A fanotify group.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Fanotify {
    #[prost(uint32, tag = "1")]
    pub init_flags: u32,
    #[prost(uint32, tag = "2")]
    pub event_flags: u32,
    /// In the order of fdinfo: the newest first.
    #[prost(message, repeated, tag = "3")]
    pub marks: Vec<Mark>,
    /// Made by a caller without `CAP_SYS_ADMIN`: sees no pids but its own.
    #[prost(bool, tag = "4")]
    pub unprivileged: bool,
    /// The queue held an overflow event.
    #[prost(bool, tag = "5")]
    pub overflow: bool,
    /// Other events that were unread, each in words.
    #[prost(string, repeated, tag = "6")]
    pub unread: Vec<String>,
    /// The same as `read(2)` returns them, to be made again; empty if they are lost. The numbers of
    /// process descriptors are 0.
    #[prost(bytes = "vec", tag = "7")]
    #[serde(serialize_with = "show::hex")]
    pub queue: Vec<u8>,
}

/// A fanotify mark.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Mark {
    #[prost(enumeration = "MarkKind", tag = "1")]
    pub kind: i32,
    /// Index into [`Image::places`]: the inode, or a place on the mount or filesystem.
    #[prost(uint32, optional, tag = "2")]
    pub place: Option<u32>,
    #[prost(uint32, tag = "3")]
    pub flags: u32,
    #[prost(uint64, tag = "4")]
    pub mask: u64,
    #[prost(uint64, tag = "5")]
    pub ignored_mask: u64,
}

/// What a fanotify mark is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration, serde::Serialize)]
pub enum MarkKind {
    Inode = 0,
    Mount = 1,
    Filesystem = 2,
    /// The mount namespace of the process that restores.
    MountNamespace = 3,
}

/// An epoll set.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Epoll {
    /// Oldest first as far as fdinfo tells.
    #[prost(message, repeated, tag = "1")]
    pub interests: Vec<Interest>,
}

/// What an epoll set waits for.
#[derive(Clone, Copy, PartialEq, prost::Message, serde::Serialize)]
pub struct Interest {
    /// The number that was registered; another description may have it now.
    #[prost(int32, tag = "1")]
    pub fd: i32,
    /// Index into [`Image::files`].
    #[prost(uint32, tag = "2")]
    pub file: u32,
    #[prost(uint32, tag = "3")]
    pub events: u32,
    #[prost(uint64, tag = "4")]
    pub word: u64,
    /// Of `EPOLLET`: what is ready now has been reported already.
    #[prost(bool, tag = "5")]
    pub seen: bool,
}

/// A name of an inode, which it has or once had.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Place {
    /// Index into [`Image::inodes`].
    #[prost(uint32, tag = "1")]
    pub inode: u32,
    /// Absolute, without a symbolic link.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(serialize_with = "show::text")]
    pub path: Vec<u8>,
    #[prost(enumeration = "PlaceKind", tag = "3")]
    pub kind: i32,
    /// Where the filesystem of the inode is mounted.
    #[prost(bytes = "vec", tag = "4")]
    #[serde(serialize_with = "show::text")]
    pub mount: Vec<u8>,
    /// Of a removed name: the name, in the same directory, that the dump gave the inode to keep it.
    #[prost(bytes = "vec", tag = "5")]
    #[serde(serialize_with = "show::text")]
    pub link: Vec<u8>,
    /// Of a removed name: index into [`Image::places`] of the directory that it was in, where that
    /// is gone itself and its path may lead to another.
    #[prost(uint32, optional, tag = "6")]
    pub parent: Option<u32>,
}

/// What the name of every [`Place::link`] begins with: a restore removes such names.
pub(crate) const LINK: &[u8] = b".notifreeze-link-";

/// How a place leads to its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration, serde::Serialize)]
pub enum PlaceKind {
    /// The path leads there.
    Named = 0,
    /// The name was removed while somebody held it open.
    Gone = 1,
    /// No name leads there, because something is mounted above it or because nobody knows one;
    /// the handle does, or the path below the bare mount.
    Hidden = 2,
    /// Made by `O_TMPFILE` in the directory of the path; never had a name.
    Unnamed = 3,
}

/// An inode.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Inode {
    /// Device of the superblock as fdinfo prints it.
    #[prost(uint32, tag = "1")]
    pub sdev: u32,
    #[prost(uint64, tag = "2")]
    pub ino: u64,
    #[prost(message, optional, tag = "3")]
    pub handle: Option<Handle>,
    /// Type and permissions; 0 where nobody asked.
    #[prost(uint32, tag = "4")]
    pub mode: u32,
    /// What it takes to make the inode again, if it had no name left.
    #[prost(message, optional, tag = "5")]
    pub ghost: Option<Ghost>,
    /// Another name that it has, for an inode of which some name is gone and another is not.
    #[prost(bytes = "vec", tag = "6")]
    #[serde(serialize_with = "show::text")]
    pub other_name: Vec<u8>,
    /// When it was made, where the filesystem says.
    #[prost(message, optional, tag = "7")]
    pub born: Option<Time>,
}

/// A file handle.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message, serde::Serialize)]
pub struct Handle {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    #[serde(serialize_with = "show::hex")]
    pub bytes: Vec<u8>,
}

/// Attributes and content of an inode without a name.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Ghost {
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    #[prost(uint32, tag = "2")]
    pub gid: u32,
    #[prost(uint64, tag = "3")]
    pub size: u64,
    #[prost(message, required, tag = "4")]
    pub accessed: Time,
    #[prost(message, required, tag = "5")]
    pub modified: Time,
    #[prost(message, repeated, tag = "6")]
    pub xattrs: Vec<Xattr>,
    /// Content between the holes, in rising order.
    #[prost(message, repeated, tag = "7")]
    pub extents: Vec<Extent>,
    /// Target of a symbolic link.
    #[prost(bytes = "vec", tag = "8")]
    #[serde(serialize_with = "show::text")]
    pub target: Vec<u8>,
    /// Device number of a device node.
    #[prost(uint64, tag = "9")]
    pub device: u64,
    /// `FS_IOC_GETFLAGS`: those that can be set. None where nobody could ask.
    #[prost(uint32, optional, tag = "10")]
    pub flags: Option<u32>,
    /// The project that its space counts for; none where there are no projects.
    #[prost(uint32, optional, tag = "11")]
    pub project: Option<u32>,
}

/// Seconds and nanoseconds as `utimensat(2)` takes them.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, serde::Serialize)]
pub struct Time {
    #[prost(int64, tag = "1")]
    pub sec: i64,
    #[prost(int64, tag = "2")]
    pub nsec: i64,
}

/// An extended attribute.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Xattr {
    #[prost(bytes = "vec", tag = "1")]
    #[serde(serialize_with = "show::text")]
    pub name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    #[serde(serialize_with = "show::hex")]
    pub value: Vec<u8>,
}

/// Bytes of a file between two holes.
#[derive(Clone, PartialEq, prost::Message, serde::Serialize)]
pub struct Extent {
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// Allocated space that reads as zeroes has a length, and no bytes anywhere.
    #[prost(uint64, tag = "2")]
    pub length: u64,
    #[prost(bytes = "vec", tag = "3")]
    #[serde(serialize_with = "show::size")]
    pub content: Vec<u8>,
    /// Where the bytes are that are not in [`content`](Self::content).
    #[prost(message, optional, tag = "4")]
    pub stored: Option<Stored>,
}

/// A place in the file of an image.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, serde::Serialize)]
pub struct Stored {
    /// From the end of the header.
    #[prost(uint64, tag = "1")]
    pub position: u64,
    /// CRC-32 of the bytes.
    #[prost(fixed32, tag = "2")]
    pub checksum: u32,
}

impl Extent {
    /// Whether it is allocated space that reads as zeroes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && self.stored.is_none()
    }
}

/// A [`Loss`] as the image keeps it.
#[derive(Clone, PartialEq, Eq, prost::Message, serde::Serialize)]
pub struct LossRecord {
    #[prost(uint32, tag = "1")]
    pub invariant: u32,
    #[prost(string, tag = "2")]
    pub object: String,
    #[prost(string, tag = "3")]
    pub reason: String,
    /// Number of a [`LossKind`](crate::LossKind); 0 in an image of a version that had none.
    #[prost(uint32, tag = "4")]
    #[serde(serialize_with = "show::loss_kind")]
    pub kind: u32,
}

impl Image {
    /// Every process, the main process first.
    #[must_use]
    pub fn pids(&self) -> Vec<nix::unistd::Pid> {
        let pids = self.processes.iter();
        pids.map(|process| nix::unistd::Pid::from_raw(process.pid))
            .collect()
    }

    /// What the dump could not keep.
    #[must_use]
    pub fn losses(&self) -> Vec<Loss> {
        self.lost.iter().map(Loss::from).collect()
    }

    /// The inotify groups, each with its index into [`Image::files`].
    pub fn groups_mut(&mut self) -> impl Iterator<Item = (usize, &mut Inotify)> {
        let files = self.files.iter_mut().enumerate();
        files.filter_map(|(index, file)| match &mut file.object {
            Some(Object::Inotify(group)) => Some((index, group)),
            _ => None,
        })
    }

    /// Whether the owner of a file is a process of the image, or a group of these.
    pub(crate) fn is_own(&self, file: &OpenFile) -> bool {
        file.owner.is_none_or(|owner| {
            self.processes.iter().any(|process| match owner.kind {
                F_OWNER_PGRP => process.group == owner.pid,
                _ => process.pid == owner.pid,
            })
        })
    }

    /// What messages call a file: by the descriptor that a process has of it.
    pub(crate) fn name_of_file(&self, file: usize) -> String {
        match self.first_fd(file) {
            Some(fd) => format!("fd {fd}"),
            None => format!("file {file}"),
        }
    }

    /// The lowest descriptor of a file, in the first process that has one.
    #[must_use]
    pub fn first_fd(&self, file: usize) -> Option<i32> {
        self.processes.iter().find_map(|process| {
            let descriptors = process.descriptors.iter();
            descriptors
                .filter(|d| d.file as usize == file)
                .map(|d| d.fd)
                .min()
        })
    }
}
