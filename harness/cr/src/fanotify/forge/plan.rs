//! From the bytes of a queue to what has to happen where, and the reasons why a queue cannot be
//! made again. Pure: nothing here asks the kernel.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use fsnotify::event::fanotify::{Event, Events, Fid, NO_FD, Record};
use fsnotify::fanotify::{InitFlags, Mask};

use crate::ext4;
use crate::loss::LossKind;

/// Longest queue that is made again: each event takes two calls for its mark and some ten more.
pub const MAX_EVENTS: usize = 16_384;
/// Most filesystems that are forged for one queue, and most objects on them. Each object may take
/// a block of its own for a bitmap.
const MAX_FILESYSTEMS: usize = 4;
const MAX_OBJECTS: usize = 8192;
/// `FILEID_INO32_GEN`: inode number and generation, 32 bits each (`generic_encode_ino32_fh`).
const INO32_GEN: i32 = 1;

/// Events that name an entry of a directory (`ALL_FSNOTIFY_DIRENT_EVENTS`).
pub(super) const CREATE: u64 = libc::FAN_CREATE;
pub(super) const DELETE: u64 = libc::FAN_DELETE;
pub(super) const MOVED_FROM: u64 = libc::FAN_MOVED_FROM;
pub(super) const MOVED_TO: u64 = libc::FAN_MOVED_TO;
pub(super) const RENAME: u64 = 0x1000_0000;
const ENTRY: u64 = CREATE | DELETE | MOVED_FROM | MOVED_TO;
/// Events that an object has by itself, whoever knows its directory.
const SELF: u64 = libc::FAN_DELETE_SELF | libc::FAN_MOVE_SELF;
/// Events of using an object.
const USE: u64 = libc::FAN_ACCESS
    | libc::FAN_MODIFY
    | libc::FAN_ATTRIB
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_CLOSE_NOWRITE
    | libc::FAN_OPEN
    | libc::FAN_OPEN_EXEC;

/// Why a queue is not made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unforgeable {
    /// The group reports descriptors.
    Descriptors,
    /// The group reports mounts.
    Mounts,
    /// The overflow event is one of many.
    Overflowed,
    TooMany,
    /// Readers of the group see no pids but their own.
    Unprivileged,
    Undecodable,
    /// An event, counted from 1, and what is wrong with it.
    Event(usize, Reason),
    /// It was tried, and this happened.
    Tried(String),
}

/// What keeps an event from being made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// By a process that the reader cannot see.
    Maker,
    /// The process lives, and is not the one that makes the queue.
    Alive(i32),
    Handle {
        kind: i32,
        n_bytes: usize,
    },
    /// A filesystem without a number takes no mark on all of it.
    NoNumber,
    Inode(u32),
    Name,
    NewDirectory,
    Operation(Mask),
    Records,
    /// As an earlier event, with which the kernel would merge it.
    Twice(usize),
}

impl Unforgeable {
    /// What it is called among all that cannot be kept.
    #[must_use]
    pub fn kind(&self) -> LossKind {
        match self {
            Self::Descriptors => LossKind::DescriptorEvents,
            Self::Mounts => LossKind::MountEvents,
            Self::Overflowed => LossKind::OverflowedEvents,
            Self::TooMany => LossKind::LongQueue,
            Self::Unprivileged => LossKind::UnprivilegedQueue,
            Self::Undecodable => LossKind::UnknownEvent,
            Self::Event(_, reason) => reason.kind(),
            Self::Tried(_) => LossKind::FailedRehearsal,
        }
    }
}

impl Reason {
    fn kind(&self) -> LossKind {
        match self {
            Self::Maker => LossKind::UnseenMaker,
            Self::Alive(_) => LossKind::LivingMaker,
            Self::Handle { .. } | Self::NoNumber | Self::Inode(_) => LossKind::ForeignObject,
            Self::NewDirectory => LossKind::NewDirectory,
            Self::Name | Self::Operation(_) | Self::Records => LossKind::UnknownEvent,
            Self::Twice(_) => LossKind::MergingEvents,
        }
    }
}

impl fmt::Display for Unforgeable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors | Self::Mounts => {
                f.write_str("only the objects themselves make them again")
            }
            Self::Overflowed => f.write_str("the queue overflowed"),
            Self::TooMany => write!(
                f,
                "they are more than {MAX_EVENTS}, or of more than {MAX_OBJECTS} objects or \
                 {MAX_FILESYSTEMS} filesystems"
            ),
            Self::Unprivileged => f.write_str(
                "the group is unprivileged and shows its own process alone who made them",
            ),
            Self::Undecodable => f.write_str("not as any kernel writes them"),
            Self::Event(number, reason) => write!(f, "event {number}: {reason}"),
            Self::Tried(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maker => f.write_str("made by a process that cannot be seen"),
            Self::Alive(pid) => {
                write!(
                    f,
                    "made by process {pid}, which lives and would have to make it again itself"
                )
            }
            Self::Handle { kind, n_bytes } => write!(
                f,
                "only the object itself makes it again, as no filesystem can be forged that has \
                 handles of type {kind:#x} with {n_bytes} bytes"
            ),
            Self::NoNumber => f.write_str("its filesystem has no number"),
            Self::Inode(ino) => write!(f, "inode {ino} cannot be forged"),
            Self::Name => f.write_str("no name of a directory entry"),
            Self::NewDirectory => f.write_str("the generation of a new directory cannot be chosen"),
            Self::Operation(mask) => write!(f, "nothing is known to make {mask} so"),
            Self::Records => f.write_str("nothing is known to make such records"),
            Self::Twice(other) => write!(f, "the kernel would merge it with event {other}"),
        }
    }
}

/// What an object is called in a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Inode {
    pub(super) ino: u32,
    pub(super) generation: u32,
}

/// Where an event happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    /// To an object, wherever it is.
    Alone(Inode),
    /// To an object whose directory the kernel does not know or does not say.
    Parentless(Inode),
    /// To an entry of a directory, and what the entry leads to, if that matters.
    Entry(Entry, Option<Inode>),
    /// A rename of an entry, of which one side or both are told.
    Renamed {
        from: Option<Entry>,
        to: Option<Entry>,
        object: Option<Inode>,
    },
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) folder: Inode,
    pub(super) name: Vec<u8>,
}

/// What has to happen for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Happening {
    pub(super) fsid: [u32; 2],
    pub(super) pid: i32,
    /// To a directory (`FAN_ONDIR`).
    pub(super) folder: bool,
    /// Single bits of the mask, lowest first, and where each comes about.
    pub(super) acts: Vec<(u64, Scene)>,
}

/// Who is who when a queue is made again.
#[derive(Clone, Debug, Default)]
pub struct Makers {
    /// Processes that live and will, other than the one that makes the queue.
    pub alive: BTreeSet<i32>,
}

/// What has to happen for each event of a queue, in order.
pub(super) fn plan(
    flags: InitFlags,
    queue: &[u8],
    makers: &Makers,
) -> Result<Vec<Happening>, Unforgeable> {
    let mut happenings = Vec::new();
    let mut seen = Seen::default();
    let mut numbers = HashSet::new();
    let mut objects = HashSet::new();
    for (index, event) in Events::new(queue).enumerate() {
        let event = event.map_err(|_| Unforgeable::Undecodable)?;
        if event.mask.0 & Mask::Q_OVERFLOW.0 != 0 {
            return Err(Unforgeable::Overflowed);
        }
        if index == MAX_EVENTS {
            return Err(Unforgeable::TooMany);
        }
        let at = |reason| Unforgeable::Event(index + 1, reason);
        let happening = happening(flags, &event, makers).map_err(at)?;
        seen.add(&event, index + 1).map_err(at)?;
        numbers.insert(happening.fsid);
        let inodes = happening.acts.iter().flat_map(|(_, scene)| scene.inodes());
        objects.extend(inodes.map(|inode| (happening.fsid, inode.ino)));
        if numbers.len() > MAX_FILESYSTEMS || objects.len() > MAX_OBJECTS {
            return Err(Unforgeable::TooMany);
        }
        happenings.push(happening);
    }
    Ok(happenings)
}

/// What the kernel compares before it merges two events (`fanotify_should_merge`).
#[derive(Default)]
struct Seen(std::collections::HashMap<(i32, u64, Vec<u8>), usize>);

impl Seen {
    fn add(&mut self, event: &Event<'_>, number: usize) -> Result<(), Reason> {
        let kept_apart = event.mask.0 & (Mask::ONDIR.0 | RENAME);
        let mut records = Vec::new();
        let told = event
            .records()
            .filter(|record| !matches!(record, Record::Pidfd(_)));
        fsnotify::event::fanotify::encode(Mask(0), NO_FD, 0, told, &mut records);
        match self.0.insert((event.pid, kept_apart, records), number) {
            None => Ok(()),
            Some(other) => Err(Reason::Twice(other)),
        }
    }
}

fn happening(flags: InitFlags, event: &Event<'_>, makers: &Makers) -> Result<Happening, Reason> {
    if event.pid <= 0 {
        return Err(Reason::Maker);
    }
    if event.fd != NO_FD {
        return Err(Reason::Records);
    }
    let told = told(flags, event)?;
    let folder = event.mask.0 & Mask::ONDIR.0 != 0;
    let bits = event.mask.0 & !Mask::ONDIR.0;
    let is_file = bits & !ENTRY != 0 && told.entry.is_none() && told.from.is_none();
    if bits == 0 || !folder && bits & ENTRY != 0 && is_file {
        return Err(Reason::Records);
    }
    let fsid = told.fsid()?;
    let bits = (0..64).map(|bit| 1 << bit).filter(|bit| bits & bit != 0);
    let acts = bits.map(|bit| {
        let scene = scene(flags, &told, bit, folder)?;
        check(&scene, bit, folder)?;
        Ok((bit, scene))
    });
    let acts = acts.collect::<Result<_, _>>()?;
    if makers.alive.contains(&event.pid) {
        return Err(Reason::Alive(event.pid));
    }
    Ok(Happening {
        fsid,
        pid: event.pid,
        folder,
        acts,
    })
}

/// The handles and names of an event.
#[derive(Default)]
struct Told<'a> {
    object: Option<Fid>,
    /// The name is none where the group reports none.
    entry: Option<(Fid, Option<&'a [u8]>)>,
    from: Option<(Fid, &'a [u8])>,
    to: Option<(Fid, &'a [u8])>,
}

fn told<'a>(flags: InitFlags, event: &Event<'a>) -> Result<Told<'a>, Reason> {
    let mut told = Told::default();
    // Without FAN_REPORT_FID a directory is all that is told, under either type of record.
    let of_directory = !flags.contains(InitFlags::REPORT_FID);
    for record in event.records() {
        let unknown = match record {
            Record::Fid(fid) | Record::Dfid(fid) if of_directory => {
                told.entry.replace((fid, None)).is_some()
            }
            Record::Fid(fid) => told.object.replace(fid).is_some(),
            Record::Dfid(fid) => told.entry.replace((fid, None)).is_some(),
            Record::DfidName(fid, name) => told.entry.replace((fid, Some(name))).is_some(),
            Record::OldDfidName(fid, name) => told.from.replace((fid, name)).is_some(),
            Record::NewDfidName(fid, name) => told.to.replace((fid, name)).is_some(),
            Record::Pidfd(_) => false,
            Record::Error { .. }
            | Record::Range { .. }
            | Record::Mount(_)
            | Record::Unknown { .. } => true,
        };
        if unknown {
            return Err(Reason::Records);
        }
    }
    Ok(told)
}

impl Told<'_> {
    /// The number of the one filesystem that an event is of.
    fn fsid(&self) -> Result<[u32; 2], Reason> {
        let entry = self.entry.map(|(fid, _)| fid);
        let sides = [self.from, self.to].map(|side| side.map(|(fid, _)| fid));
        let mut fsids = [self.object, entry].into_iter().chain(sides).flatten();
        let fsid = fsids.next().ok_or(Reason::Records)?.fsid;
        if fsids.any(|other| other.fsid != fsid) {
            return Err(Reason::Records);
        }
        if fsid == [0, 0] {
            return Err(Reason::NoNumber);
        }
        Ok(fsid)
    }
}

/// Where a bit of the mask comes about, told by records.
fn scene(flags: InitFlags, told: &Told<'_>, bit: u64, folder: bool) -> Result<Scene, Reason> {
    let object = told.object.as_ref().map(inode).transpose()?;
    let names_entry = bit & ENTRY != 0;
    match (told.entry, told.from, told.to) {
        (None, None, None) => {
            let object = object.ok_or(Reason::Records)?;
            Ok(
                match (names_entry, flags.contains(InitFlags::REPORT_DIR_FID)) {
                    (true, false) => Scene::Entry(Entry::any_in(object), None),
                    (true, true) => return Err(Reason::Records),
                    (false, true) if !folder => Scene::Parentless(object),
                    (false, _) => Scene::Alone(object),
                },
            )
        }
        // The kernel tells of a directory by itself, and so it does where names are told.
        (Some((fid, name)), None, None) if folder && !names_entry => {
            let itself = inode(&fid)?;
            let other = object.is_some_and(|object| object != itself);
            if other || name.is_some_and(|name| name != b".") {
                return Err(Reason::Records);
            }
            Ok(Scene::Alone(itself))
        }
        (Some((fid, None)), None, None) => Ok(Scene::Entry(Entry::any_in(inode(&fid)?), object)),
        (Some((fid, Some(name))), None, None) => Ok(Scene::Entry(Entry::new(&fid, name)?, object)),
        (None, from, to) => {
            let side = |side: Option<(Fid, &[u8])>| {
                side.map(|(fid, name)| Entry::new(&fid, name)).transpose()
            };
            Ok(Scene::Renamed {
                from: side(from)?,
                to: side(to)?,
                object,
            })
        }
        (Some(_), _, _) => Err(Reason::Records),
    }
}

impl Entry {
    fn new(folder: &Fid, name: &[u8]) -> Result<Self, Reason> {
        let special = matches!(name, b"" | b"." | b"..");
        if special || name.len() > 255 || name.contains(&b'/') || name.contains(&0) {
            return Err(Reason::Name);
        }
        Ok(Self {
            folder: inode(folder)?,
            name: name.to_vec(),
        })
    }

    /// Where no name is told.
    fn any_in(folder: Inode) -> Self {
        Self {
            folder,
            name: b"x".to_vec(),
        }
    }
}

fn inode(fid: &Fid) -> Result<Inode, Reason> {
    let bytes: Result<[u8; 8], _> = fid.handle.bytes().try_into();
    let (INO32_GEN, Ok(bytes)) = (fid.handle.kind(), bytes) else {
        return Err(Reason::Handle {
            kind: fid.handle.kind(),
            n_bytes: fid.handle.bytes().len(),
        });
    };
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 of 8"));
    let (ino, generation) = (word(0), word(4));
    if ino != ext4::ROOT && !(ext4::FIRST..=ext4::LAST).contains(&ino) {
        return Err(Reason::Inode(ino));
    }
    Ok(Inode { ino, generation })
}

/// Whether the bit can come about there, and whether the objects do not contradict each other.
fn check(scene: &Scene, bit: u64, folder: bool) -> Result<(), Reason> {
    let mask = Mask(bit | if folder { Mask::ONDIR.0 } else { 0 });
    let (possible, object, folders) = match scene {
        Scene::Alone(object) if folder => {
            let never = libc::FAN_CLOSE_WRITE | libc::FAN_OPEN_EXEC;
            (USE & !never | SELF, Some(*object), vec![])
        }
        Scene::Alone(object) => (USE | SELF, Some(*object), vec![]),
        Scene::Parentless(object) => (libc::FAN_ATTRIB | SELF, Some(*object), vec![]),
        Scene::Entry(entry, object) => {
            if folder && bit == CREATE && object.is_some() {
                return Err(Reason::NewDirectory);
            }
            let uses = if folder { 0 } else { USE };
            (ENTRY | uses, *object, vec![entry.folder])
        }
        Scene::Renamed { from, to, object } => {
            let sides = [from, to].into_iter().flatten();
            (RENAME, *object, sides.map(|entry| entry.folder).collect())
        }
    };
    if possible & bit == 0 {
        return Err(Reason::Operation(mask));
    }
    if let Some(Inode { ino, .. }) = object {
        let root = ino == ext4::ROOT;
        let is_root = root && folder && bit & SELF == 0 && folders.is_empty();
        if root && !is_root || folders.iter().any(|folder| folder.ino == ino) {
            return Err(Reason::Inode(ino));
        }
    }
    match folders[..] {
        [one, other] if one.ino == other.ino && one != other => Err(Reason::Inode(one.ino)),
        _ => Ok(()),
    }
}

impl Scene {
    /// Every object of it.
    pub(super) fn inodes(&self) -> impl Iterator<Item = Inode> {
        let (object, folders) = match self {
            Self::Alone(object) | Self::Parentless(object) => (Some(*object), [None, None]),
            Self::Entry(entry, object) => (*object, [Some(entry), None]),
            Self::Renamed { from, to, object } => (*object, [from.as_ref(), to.as_ref()]),
        };
        let folders = folders.into_iter().flatten().map(|entry| entry.folder);
        object.into_iter().chain(folders)
    }

    /// Every name of it.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        let entries = match self {
            Self::Alone(_) | Self::Parentless(_) => [None, None],
            Self::Entry(entry, _) => [Some(entry), None],
            Self::Renamed { from, to, .. } => [from.as_ref(), to.as_ref()],
        };
        entries.into_iter().flatten().map(|entry| &entry.name[..])
    }
}

#[cfg(test)]
mod tests {
    use fsnotify::event::fanotify::encode;
    use fsnotify::handle::FileHandle;

    use super::*;

    const ALL: u32 = 0x1e00;
    const ONDIR: u64 = Mask::ONDIR.0;

    fn fid(ino: u32) -> Fid {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&ino.to_le_bytes());
        bytes[4] = 7;
        Fid {
            fsid: [1, 2],
            handle: FileHandle::new(INO32_GEN, &bytes).unwrap(),
        }
    }

    fn event(mask: u64, pid: i32, records: &[Record<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(Mask(mask), NO_FD, pid, records.iter().copied(), &mut bytes);
        bytes
    }

    fn check(flags: u32, queue: &[u8], expected: Result<usize, Unforgeable>) {
        let makers = Makers { alive: [77].into() };
        let planned = plan(InitFlags(flags), queue, &makers);
        assert_eq!(planned.map(|happenings| happenings.len()), expected);
    }

    #[track_caller]
    fn refused(flags: u32, mask: u64, records: &[Record<'_>], reason: Reason) {
        let queue = event(mask, 5, records);
        check(flags, &queue, Err(Unforgeable::Event(1, reason)));
    }

    #[test]
    fn makers_are_dead_or_ourselves() {
        let by = |pid| event(libc::FAN_OPEN, pid, &[Record::Fid(fid(12))]);
        check(0x200, &by(5), Ok(1));
        let no = |reason| Err(Unforgeable::Event(1, reason));
        check(0x200, &by(0), no(Reason::Maker));
        check(0x200, &by(-3), no(Reason::Maker));
        check(0x200, &by(77), no(Reason::Alive(77)));
    }

    /// What the first of the reasons is called that a queue is not made again for.
    #[track_caller]
    fn check_kind(queue: &[u8], kind: LossKind) {
        let makers = Makers { alive: [77].into() };
        let refused = plan(InitFlags(0x200), queue, &makers);
        assert_eq!(refused.map_err(|reason| reason.kind()), Err(kind));
    }

    #[test]
    fn a_refused_queue_has_a_kind() {
        let of = |mask, pid, fid| event(mask, pid, &[Record::Fid(fid)]);
        let open = |pid| of(libc::FAN_OPEN, pid, fid(12));
        check_kind(&open(0), LossKind::UnseenMaker);
        check_kind(&open(77), LossKind::LivingMaker);
        check_kind(&of(1, 5, fid(0)), LossKind::ForeignObject);
        check_kind(&of(1 << 40, 5, fid(12)), LossKind::UnknownEvent);
        check_kind(&[1; 30], LossKind::UnknownEvent);
        check_kind(&[open(5), open(5)].concat(), LossKind::MergingEvents);
        let on = |number| Fid {
            fsid: [1, number],
            ..fid(12)
        };
        let on_each: Vec<u8> = (0..5).flat_map(|number| of(1, 5, on(number))).collect();
        check_kind(&on_each, LossKind::LongQueue);
    }

    #[test]
    fn only_handles_of_number_and_generation_are_forged() {
        for (kind, n_bytes) in [(1, 12), (1, 4), (2, 8), (0x81, 12), (0x4d, 40)] {
            let handle = FileHandle::new(kind, &vec![1; n_bytes]).unwrap();
            let other = Fid { handle, ..fid(12) };
            let reason = Reason::Handle { kind, n_bytes };
            refused(0x200, 1, &[Record::Fid(other)], reason);
        }
        for ino in [0, 1, 3, 10, u32::MAX] {
            refused(0x200, 1, &[Record::Fid(fid(ino))], Reason::Inode(ino));
        }
        let nowhere = Fid {
            fsid: [0, 0],
            ..fid(12)
        };
        refused(0x200, 1, &[Record::Fid(nowhere)], Reason::NoNumber);
        let elsewhere = Fid {
            fsid: [1, 3],
            ..fid(13)
        };
        let records = [Record::DfidName(fid(12), b"x"), Record::Fid(elsewhere)];
        refused(ALL, 1, &records, Reason::Records);
    }

    #[test]
    fn names_stay_in_their_directory() {
        let long = [b'x'; 256];
        for name in [&b""[..], b"..", b"a/b", b"/", &long] {
            refused(
                ALL,
                CREATE,
                &[Record::DfidName(fid(12), name)],
                Reason::Name,
            );
        }
        refused(
            ALL,
            CREATE,
            &[Record::DfidName(fid(12), b".")],
            Reason::Name,
        );
        let queue = event(CREATE, 5, &[Record::DfidName(fid(2), &long[1..])]);
        check(ALL, &queue, Ok(1));
    }

    #[test]
    fn an_object_is_not_in_itself_and_the_root_stays() {
        let inside = [Record::DfidName(fid(12), b"x"), Record::Fid(fid(12))];
        refused(ALL, libc::FAN_OPEN, &inside, Reason::Inode(12));
        let root = [Record::DfidName(fid(12), b"x"), Record::Fid(fid(2))];
        refused(ALL, DELETE | ONDIR, &root, Reason::Inode(2));
        let root = [Record::Dfid(fid(2))];
        refused(0x400, libc::FAN_MOVE_SELF | ONDIR, &root, Reason::Inode(2));
        let queue = event(libc::FAN_ATTRIB | ONDIR, 5, &root);
        check(0x400, &queue, Ok(1));
    }

    #[test]
    fn what_no_call_makes_so_is_refused() {
        let object = [Record::Fid(fid(12))];
        for (flags, mask) in [
            (0x200, 0x8000),
            (0x200, 1 << 40),
            (0x200, 0x8 | ONDIR),
            (0x200, RENAME),
            (0x600, libc::FAN_OPEN),
        ] {
            let bit = mask & !ONDIR;
            let reason = Reason::Operation(Mask(bit | mask & ONDIR));
            refused(flags, mask, &object, reason);
        }
        let entry = [Record::DfidName(fid(12), b"x"), Record::Fid(fid(13))];
        refused(ALL, CREATE | ONDIR, &entry, Reason::NewDirectory);
        refused(ALL, libc::FAN_OPEN | ONDIR, &entry, Reason::Records);
        refused(0x200, 0, &object, Reason::Records);
        refused(0x200, CREATE | libc::FAN_OPEN, &object, Reason::Records);
        refused(0x200, 1, &[], Reason::Records);
        refused(0x200, 1, &[object[0], object[0]], Reason::Records);
        refused(0x200, 1, &[object[0], Record::Mount(1)], Reason::Records);
    }

    #[test]
    fn events_that_the_kernel_would_merge_are_refused() {
        let of = |mask, pid| event(mask, pid, &[Record::Fid(fid(12))]);
        let twice = [of(libc::FAN_OPEN, 5), of(libc::FAN_ACCESS, 5)].concat();
        check(0x200, &twice, Err(Unforgeable::Event(2, Reason::Twice(1))));
        let others = [
            of(libc::FAN_OPEN, 5),
            of(libc::FAN_OPEN, 6),
            of(libc::FAN_OPEN | ONDIR, 5),
        ];
        check(0x200, &others.concat(), Ok(3));
    }

    #[test]
    fn a_broken_queue_and_an_overflow_are_refused() {
        check(0x200, &[1; 30], Err(Unforgeable::Undecodable));
        let overflow = event(Mask::Q_OVERFLOW.0, 0, &[]);
        check(0x200, &overflow, Err(Unforgeable::Overflowed));
    }
}
