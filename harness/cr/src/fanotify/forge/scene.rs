//! Where an event has to happen, told by its records, and whether it can happen there. Pure.

use fsnotify::event::fanotify::{Event, Fid, Record};
use fsnotify::fanotify::{InitFlags, Mask};

use super::refusal::Reason;
use crate::ext4;

/// `FILEID_INO32_GEN`: inode number and generation, 32 bits each (`generic_encode_ino32_fh`).
pub(super) const INO32_GEN: i32 = 1;

/// Events that name an entry of a directory (`ALL_FSNOTIFY_DIRENT_EVENTS`).
pub(super) const CREATE: u64 = libc::FAN_CREATE;
pub(super) const DELETE: u64 = libc::FAN_DELETE;
pub(super) const MOVED_FROM: u64 = libc::FAN_MOVED_FROM;
pub(super) const MOVED_TO: u64 = libc::FAN_MOVED_TO;
pub(super) const RENAME: u64 = 0x1000_0000;
pub(super) const ENTRY: u64 = CREATE | DELETE | MOVED_FROM | MOVED_TO;
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

/// The handles and names of an event.
#[derive(Default)]
pub(super) struct Told<'a> {
    object: Option<Fid>,
    /// The name is none where the group reports none.
    pub(super) entry: Option<(Fid, Option<&'a [u8]>)>,
    pub(super) from: Option<(Fid, &'a [u8])>,
    to: Option<(Fid, &'a [u8])>,
}

pub(super) fn told<'a>(flags: InitFlags, event: &Event<'a>) -> Result<Told<'a>, Reason> {
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
    pub(super) fn fsid(&self) -> Result<[u32; 2], Reason> {
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
pub(super) fn scene(
    flags: InitFlags,
    told: &Told<'_>,
    bit: u64,
    folder: bool,
) -> Result<Scene, Reason> {
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
pub(super) fn check(scene: &Scene, bit: u64, folder: bool) -> Result<(), Reason> {
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
