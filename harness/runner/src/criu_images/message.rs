//! The messages of CRIU's image files that concern descriptors, as far as this program reads them.
//!
//! Fields that are not listed are skipped by the decoder. CRIU declares most of these fields as
//! required; here a missing one reads as 0, since a reader of foreign images should show what is
//! there.

use cr::image::weight::Shape;

/// What a file of images is made of.
pub trait Entry: prost::Message + Default {
    /// What it takes in memory.
    const SHAPE: Shape;
}

impl Entry for File {
    const SHAPE: Shape = Shape::of::<Self>(&[
        (3, &Shape::of::<Regular>(&[(5, &OWNER)])),
        (
            9,
            &Shape::of::<Epoll>(&[(3, &OWNER), (4, &Shape::of::<Interest>(&[]))]),
        ),
        (13, &Shape::of::<Inotify>(&[(4, &OWNER), (5, &WATCH)])),
        (14, &Shape::of::<Fanotify>(&[(3, &OWNER), (6, &MARK)])),
        (17, &Shape::of::<Fifo>(&[])),
    ]);
}

const OWNER: Shape = Shape::of::<Owner>(&[]);
const HANDLE: Shape = Shape::of::<Handle>(&[]);
const WATCH: Shape = Shape::of::<Watch>(&[(7, &HANDLE)]);
const MARK: Shape = Shape::of::<Mark>(&[
    (7, &Shape::of::<InodeMark>(&[(2, &HANDLE)])),
    (8, &Shape::of::<MountMark>(&[])),
]);

impl Entry for Descriptor {
    const SHAPE: Shape = Shape::of::<Self>(&[]);
}

impl Entry for Remap {
    const SHAPE: Shape = Shape::of::<Self>(&[]);
}

impl Entry for Ghost {
    const SHAPE: Shape = Shape::of::<Self>(&[]);
}

/// One open file description (`files.img`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct File {
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(uint32, tag = "2")]
    pub id: u32,
    #[prost(message, optional, tag = "3")]
    pub regular: Option<Regular>,
    #[prost(message, optional, tag = "9")]
    pub epoll: Option<Epoll>,
    #[prost(message, optional, tag = "13")]
    pub inotify: Option<Inotify>,
    #[prost(message, optional, tag = "14")]
    pub fanotify: Option<Fanotify>,
    #[prost(message, optional, tag = "17")]
    pub fifo: Option<Fifo>,
}

/// One descriptor of a process (`fdinfo-N.img`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Descriptor {
    /// [`File::id`].
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// `FD_CLOEXEC`.
    #[prost(uint32, tag = "2")]
    pub flags: u32,
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    #[prost(uint32, tag = "4")]
    pub fd: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Owner {
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    #[prost(uint32, tag = "2")]
    pub euid: u32,
    #[prost(uint32, tag = "3")]
    pub signal: u32,
    #[prost(uint32, tag = "4")]
    pub pid_type: u32,
    #[prost(uint32, tag = "5")]
    pub pid: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Regular {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint32, tag = "2")]
    pub flags: u32,
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    #[prost(message, optional, tag = "5")]
    pub owner: Option<Owner>,
    #[prost(string, tag = "6")]
    pub name: String,
    #[prost(uint64, optional, tag = "8")]
    pub size: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    pub mode: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Fifo {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint32, tag = "2")]
    pub pipe_id: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Epoll {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint32, tag = "2")]
    pub flags: u32,
    #[prost(message, optional, tag = "3")]
    pub owner: Option<Owner>,
    #[prost(message, repeated, tag = "4")]
    pub interest: Vec<Interest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Interest {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint32, tag = "2")]
    pub fd: u32,
    #[prost(uint32, tag = "3")]
    pub events: u32,
    #[prost(uint64, tag = "4")]
    pub data: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Handle {
    #[prost(uint32, tag = "1")]
    pub bytes: u32,
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// The handle in words of 8 bytes, the rest of a fixed array as zeros.
    #[prost(uint64, repeated, packed = "false", tag = "3")]
    pub words: Vec<u64>,
    /// The path that restore will watch, where dump found one.
    #[prost(string, optional, tag = "4")]
    pub path: Option<String>,
    #[prost(uint32, optional, tag = "5")]
    pub mount_id: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Inotify {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint32, tag = "2")]
    pub flags: u32,
    #[prost(message, optional, tag = "4")]
    pub owner: Option<Owner>,
    #[prost(message, repeated, tag = "5")]
    pub watches: Vec<Watch>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Watch {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint64, tag = "2")]
    pub ino: u64,
    #[prost(uint32, tag = "3")]
    pub mask: u32,
    #[prost(uint32, tag = "4")]
    pub ignored_mask: u32,
    #[prost(uint32, tag = "5")]
    pub sdev: u32,
    #[prost(uint32, tag = "6")]
    pub wd: u32,
    #[prost(message, optional, tag = "7")]
    pub handle: Option<Handle>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Fanotify {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint32, tag = "2")]
    pub flags: u32,
    #[prost(message, optional, tag = "3")]
    pub owner: Option<Owner>,
    #[prost(uint32, tag = "4")]
    pub group_flags: u32,
    #[prost(uint32, tag = "5")]
    pub event_flags: u32,
    #[prost(message, repeated, tag = "6")]
    pub marks: Vec<Mark>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Mark {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// 1 inode, 2 mount.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    #[prost(uint32, tag = "3")]
    pub flags: u32,
    #[prost(uint32, tag = "4")]
    pub mask: u32,
    #[prost(uint32, tag = "5")]
    pub ignored_mask: u32,
    #[prost(uint32, tag = "6")]
    pub sdev: u32,
    #[prost(message, optional, tag = "7")]
    pub inode: Option<InodeMark>,
    #[prost(message, optional, tag = "8")]
    pub mount: Option<MountMark>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InodeMark {
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    #[prost(message, optional, tag = "2")]
    pub handle: Option<Handle>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MountMark {
    #[prost(uint32, tag = "1")]
    pub mount_id: u32,
    #[prost(string, optional, tag = "2")]
    pub path: Option<String>,
}

/// A file that has to be made before others can be opened (`remap-fpath.img`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Remap {
    #[prost(uint32, tag = "1")]
    pub file_id: u32,
    #[prost(uint32, tag = "2")]
    pub remap_id: u32,
    /// 0 another link, 1 a ghost, 2 an entry of procfs.
    #[prost(uint32, optional, tag = "3")]
    pub kind: Option<u32>,
}

/// A file without a name (`ghost-file-N.img`); its content, if any, follows the message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ghost {
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    #[prost(uint32, tag = "2")]
    pub gid: u32,
    #[prost(uint32, tag = "3")]
    pub mode: u32,
    #[prost(uint32, optional, tag = "4")]
    pub dev: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    pub ino: Option<u64>,
    #[prost(bool, optional, tag = "9")]
    pub in_chunks: Option<bool>,
    #[prost(uint64, optional, tag = "10")]
    pub size: Option<u64>,
}
