//! From the bytes of a queue to what has to happen for each event. Pure: nothing here asks the kernel.

use std::collections::{BTreeSet, HashSet};

use fsnotify::event::fanotify::{Event, Events, NO_FD, Record};
use fsnotify::fanotify::{InitFlags, Mask};

use super::refusal::{Reason, Unforgeable};
use super::scene::{ENTRY, RENAME, Scene, check, scene, told};

/// Longest queue that is made again: each event takes two calls for its mark and some ten more.
pub const MAX_EVENTS: usize = 16_384;
/// Most filesystems that are forged for one queue, and most objects on them. Each object may take
/// a block of its own for a bitmap.
pub(super) const MAX_FILESYSTEMS: usize = 4;
pub(super) const MAX_OBJECTS: usize = 8192;
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

#[cfg(test)]
mod tests {
    use fsnotify::event::fanotify::{Fid, encode};
    use fsnotify::handle::FileHandle;

    use super::super::scene::{CREATE, DELETE, INO32_GEN};
    use super::*;
    use crate::loss::LossKind;

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
