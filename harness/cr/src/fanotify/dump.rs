//! From a group in a frozen process to its part of an image.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fsnotify::event::fanotify::Events;
use fsnotify::fanotify::{InitFlags, MarkFlags, Mask};
use fsnotify::fdinfo::{self, Body, Kind as GroupKind, Level, MarkTarget};
use fsnotify::handle::FileHandle;
use fsnotify::{Ino, Sdev};
use nix::errno::Errno;

use super::forge::{self, Makers, Unforgeable};
use super::plan::{self, Kind};
use super::take::Namer;
use super::{blocked, hidden, queue};
use crate::dump::settled::settled;
use crate::image::{Fanotify, Mark, MarkKind};
use crate::loss::{Loss, LossKind};
use crate::mounts::Mounts;

/// A group to dump.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// How messages and losses call it: `fd 5`, `process 12: fd 5`.
    pub name: &'a str,
    pub pid: i32,
    /// Its number in that process.
    pub fd: i32,
    /// Our own descriptor of it.
    pub group: BorrowedFd<'a>,
    /// Every process of the tree that is dumped.
    pub tree: &'a [i32],
}

/// Finds the places that marks are on, for the image.
pub trait Places {
    /// The place of an inode, and whether it is a directory or a file.
    ///
    /// # Errors
    ///
    /// Why there is none, in words.
    fn of_inode(
        &mut self,
        ino: Ino,
        sdev: Sdev,
        handle: &FileHandle,
    ) -> Result<(u32, Kind), String>;

    /// The place of a path of the subject's mount namespace.
    ///
    /// # Errors
    ///
    /// Why there is none, in words.
    fn of_path(&mut self, path: &[u8]) -> Result<u32, String>;

    /// The path of a place, for messages.
    fn name(&self, place: u32) -> String;
}

/// Why a group is not dumped.
#[derive(Debug)]
pub enum Refusal {
    Read(io::Error),
    Text(fdinfo::ParseError),
    /// The descriptor is of no fanotify group.
    OtherKind,
    /// The kernel did not show the handle of this inode, though asked for two seconds: the
    /// superblock is being mounted, unmounted, remounted or frozen.
    NoHandle {
        ino: Ino,
        sdev: Sdev,
    },
    /// What a mark is on, and why it cannot be kept.
    Target {
        target: String,
        reason: String,
    },
    /// Flags or bits that this program does not know.
    Unknown(String),
    /// A process waits for the listener's answer; it would be let through.
    Waiting(blocked::Waiting),
    Call(&'static str, Errno),
    Queue(queue::QueueError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fanotify: ")?;
        match self {
            Self::Read(error) => write!(f, "fdinfo: {error}"),
            Self::Text(error) => write!(f, "fdinfo: {error}"),
            Self::OtherKind => f.write_str("not a fanotify group"),
            Self::NoHandle { ino, sdev } => write!(
                f,
                "inode {} of device {}:{} has no file handle: its superblock is busy",
                ino.0,
                sdev.major(),
                sdev.minor()
            ),
            Self::Target { target, reason } => write!(f, "{target}: {reason}"),
            Self::Unknown(what) => write!(f, "{what}: not known to this program"),
            Self::Waiting(waiting) => waiting.fmt(f),
            Self::Call(call, errno) => write!(f, "{call}: {errno}"),
            Self::Queue(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

/// Refuses a group that a process waits for: its answer would be lost with the group.
///
/// # Errors
///
/// [`Refusal::Waiting`], or what keeps the group from being read.
pub fn refuse_waiting(source: Source<'_>) -> Result<(), Refusal> {
    let (flags, _, marks) = read_settled(source)?;
    let listens = flags.0 & InitFlags::CLASS.0 != 0;
    match blocked::concerned(&blocked::waiting(), &marks) {
        Some(waiting) if listens => Err(Refusal::Waiting(waiting.clone())),
        _ => Ok(()),
    }
}

/// Reads everything that a group is but its queue, and leaves no trace. What is read but cannot be
/// made again is declared.
///
/// # Errors
///
/// [`Refusal`] of what can be neither kept nor declared.
pub fn inspect(
    source: Source<'_>,
    places: &mut dyn Places,
) -> Result<(Fanotify, Vec<Loss>), Refusal> {
    let (flags, event_flags, marks) = read_settled(source)?;
    if flags.unknown().0 != 0 {
        return Err(Refusal::Unknown(format!("group flags {flags}")));
    }
    let mounts = Mounts::of(source.pid).map_err(Refusal::Read)?;
    let audited = hidden::audited(source.group);
    let mut group = Fanotify {
        init_flags: flags.0 | if audited { libc::FAN_ENABLE_AUDIT } else { 0 },
        event_flags: event_flags.0,
        ..Fanotify::default()
    };
    let mut losses = Vec::new();
    for mark in &marks {
        let target = describe(mark);
        let unknown = MarkFlags(mark.flags.0 & !MarkFlags::SHOWN.0);
        if unknown.0 != 0 || mark.mask.unknown().0 | mark.ignored_mask.unknown().0 != 0 {
            return Err(Refusal::Unknown(format!("a bit of the mark on {target}")));
        }
        let (kind, place) =
            find(source, &mounts, mark, places).map_err(|reason| Refusal::Target {
                target: target.clone(),
                reason,
            })?;
        let target = place.map_or(target, |place| places.name(place));
        group.marks.extend(keep(
            source,
            flags,
            mark,
            (kind, place),
            &target,
            &mut losses,
        ));
    }
    Ok((group, losses))
}

/// A mark as the image has it; none if it cannot be made again, which is declared.
fn keep(
    source: Source<'_>,
    group: InitFlags,
    mark: &fdinfo::Mark,
    (kind, place): (Kind, Option<u32>),
    target: &str,
    losses: &mut Vec<Loss>,
) -> Option<Mark> {
    let name = source.name;
    let mut mark = *mark;
    if ends_with_next_write(source, &mark) {
        losses.push(Loss::new(
            LossKind::IgnoredMask,
            format!(
                "{name}: ignored mask {} of the mark on {target}",
                mark.ignored_mask
            ),
            "it lasts until the file is written, and the kernel takes no such mask while the file \
             is open for writing",
        ));
        mark.ignored_mask = Mask(0);
        if mark.mask.0 == 0 {
            return None;
        }
    }
    if plan::plan(group, kind, mark.flags, mark.mask, mark.ignored_mask).is_err() {
        losses.push(Loss::new(
            LossKind::EmptiedMark,
            format!("{name}: mark on {target}"),
            "it reports nothing and ignores nothing any more, and no call makes it so",
        ));
        return None;
    }
    let kind = match kind {
        Kind::Directory | Kind::File => MarkKind::Inode,
        Kind::Mount => MarkKind::Mount,
        Kind::Filesystem => MarkKind::Filesystem,
        Kind::MountNamespace => MarkKind::MountNamespace,
    };
    Some(Mark {
        kind: kind.into(),
        place,
        flags: mark.flags.0,
        mask: mark.mask.0,
        ignored_mask: mark.ignored_mask.0,
    })
}

/// Takes the queue and finds out what only an empty one shows. From here on the events are gone
/// from the kernel.
///
/// # Errors
///
/// [`Refusal`] if the queue cannot be read to its end.
pub fn drain(source: Source<'_>, group: &mut Fanotify) -> Result<Vec<Loss>, Refusal> {
    let flags = InitFlags(group.init_flags);
    let unread = queue::drain(source.group, flags, &mut Namer::blind());
    let unread = unread.map_err(Refusal::Queue)?;
    group.overflow = unread.overflow;
    group.unread = unread.events;
    let unprivileged = hidden::unprivileged(source.group, flags);
    group.unprivileged = unprivileged.map_err(|errno| Refusal::Call("event of our own", errno))?;
    group.queue = unread.bytes;
    let forged = forged(source, group);
    if forged.is_err() {
        if queue::reports_records(flags) {
            group.unread = queue::texts(&group.queue, &mut Namer::quiet());
        }
        group.queue.clear();
    }
    Ok(queue::losses(source.name, group, forged))
}

/// Whether a restore will make the queue again: it is tried.
fn forged(source: Source<'_>, group: &Fanotify) -> Result<(), Unforgeable> {
    if group.unread.is_empty() {
        return Ok(());
    }
    let main = *source.tree.first().unwrap_or(&source.pid);
    let makers = Events::new(&group.queue).flatten().map(|event| event.pid);
    let others = makers.filter(|pid| *pid != main);
    let makers = Makers {
        alive: others
            .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
            .collect(),
    };
    forge::forgeable(group, &makers)?;
    forge::rehearse(group, main).map_err(|error| Unforgeable::Tried(error.to_string()))
}

/// The inodes that a group has marks on.
///
/// # Errors
///
/// [`Refusal`] if fdinfo cannot be read.
pub fn marked_inodes(source: Source<'_>) -> Result<Vec<(Ino, Sdev)>, Refusal> {
    let (_, _, marks) = read(source)?;
    let inodes = marks.iter().filter_map(|mark| match mark.target {
        MarkTarget::Inode { ino, sdev, .. } => Some((ino, sdev)),
        MarkTarget::Mount(_) | MarkTarget::Filesystem(_) | MarkTarget::MountNamespace(_) => None,
    });
    Ok(inodes.collect())
}

type Shown = (InitFlags, fsnotify::fanotify::EventFlags, Vec<fdinfo::Mark>);

/// The group as fdinfo shows it, with a handle for every inode.
fn read_settled(source: Source<'_>) -> Result<Shown, Refusal> {
    let shown = settled(|| read(source), |shown| without_handle(shown).is_some())?;
    match without_handle(&shown) {
        Some((ino, sdev)) => Err(Refusal::NoHandle { ino, sdev }),
        None => Ok(shown),
    }
}

/// An inode that is shown without its handle.
fn without_handle((_, _, marks): &Shown) -> Option<(Ino, Sdev)> {
    marks.iter().find_map(|mark| match mark.target {
        MarkTarget::Inode {
            ino,
            sdev,
            handle: None,
        } => Some((ino, sdev)),
        _ => None,
    })
}

fn read(source: Source<'_>) -> Result<Shown, Refusal> {
    let text = fs::read(format!("/proc/{}/fdinfo/{}", source.pid, source.fd));
    let text = text.map_err(Refusal::Read)?;
    shown(fdinfo::Group::parse_as(
        &text,
        GroupKind::Fanotify,
        Level::Strict,
    ))
}

fn shown(group: Result<fdinfo::Group, fdinfo::ParseError>) -> Result<Shown, Refusal> {
    match group.map_err(Refusal::Text)?.body {
        Body::Fanotify {
            flags,
            event_flags,
            marks,
        } => Ok((flags, event_flags, marks)),
        Body::Inotify { .. } | Body::Unstated => Err(Refusal::OtherKind),
    }
}

/// What a mark is on, in the image; or why it cannot be found.
fn find(
    source: Source<'_>,
    mounts: &Mounts,
    mark: &fdinfo::Mark,
    places: &mut dyn Places,
) -> Result<(Kind, Option<u32>), String> {
    match mark.target {
        MarkTarget::Inode { ino, sdev, handle } => {
            let handle = handle.ok_or("its file handle is not shown")?;
            let (place, kind) = places.of_inode(ino, sdev, &handle)?;
            Ok((kind, Some(place)))
        }
        MarkTarget::Mount(id) => {
            let path = mounts
                .path_of_mount(id)
                .ok_or("no path of the subject leads to it")?;
            Ok((Kind::Mount, Some(places.of_path(path)?)))
        }
        MarkTarget::Filesystem(sdev) => {
            let path = mounts.path_of_filesystem(sdev);
            let path = path.ok_or("no path of the subject leads to it")?;
            Ok((Kind::Filesystem, Some(places.of_path(path)?)))
        }
        MarkTarget::MountNamespace(ino) => {
            let own = fs::metadata(format!("/proc/{}/ns/mnt", source.pid));
            let own = own.map_err(|error| error.to_string())?.ino();
            if own != u64::from(ino.0) {
                return Err("not the mount namespace of the subject".to_owned());
            }
            Ok((Kind::MountNamespace, None))
        }
    }
}

fn describe(mark: &fdinfo::Mark) -> String {
    match mark.target {
        MarkTarget::Inode { ino, sdev, .. } => {
            format!(
                "inode {} of device {}:{}",
                ino.0,
                sdev.major(),
                sdev.minor()
            )
        }
        MarkTarget::Mount(id) => format!("mount {}", id.0),
        MarkTarget::Filesystem(sdev) => {
            format!("filesystem of device {}:{}", sdev.major(), sdev.minor())
        }
        MarkTarget::MountNamespace(ino) => format!("mount namespace {}", ino.0),
    }
}

/// Whether the ignored mask of a mark ends with the next write to its file while a process of the
/// tree has that file open for writing (`fanotify_add_inode_mark` takes no such mask then).
fn ends_with_next_write(source: Source<'_>, mark: &fdinfo::Mark) -> bool {
    let MarkTarget::Inode { ino, sdev, .. } = mark.target else {
        return false;
    };
    if mark.ignored_mask.0 == 0 || mark.flags.contains(MarkFlags::IGNORED_SURV_MODIFY) {
        return false;
    }
    source.tree.iter().any(|pid| {
        let mounts = Mounts::of(*pid).ok();
        let entries = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        entries.map(|entry| entry.path()).any(|path| {
            let Ok(stat) = fs::metadata(&path) else {
                return false;
            };
            if stat.ino() != ino.0 {
                return false;
            }
            let number = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
            let info = info.unwrap_or_default();
            // The device of the superblock, which stat(2) does not show on every filesystem.
            let mount = value(&info, "mnt_id:").and_then(|id| id.parse().ok());
            let mount = mount.and_then(|id| mounts.as_ref()?.of_id(id));
            let own = Sdev::new(libc::major(stat.dev()), libc::minor(stat.dev()));
            mount.map_or(own, |mount| mount.device) == sdev && is_open_for_writing(&info)
        })
    })
}

fn is_open_for_writing(info: &str) -> bool {
    let flags = value(info, "flags:").and_then(|flags| u32::from_str_radix(flags, 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE.cast_unsigned() != 0)
}

/// What fdinfo says behind a key.
fn value<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(key)).map(str::trim)
}
