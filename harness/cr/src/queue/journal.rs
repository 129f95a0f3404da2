//! A basket that outlives its dumper: a file that is mapped while events are read into it.
//!
//! The file has a header, then what the dumper wants to find again (its *context*), then the
//! events. Behind the last event are zeroes, and no event begins with a wd of 0, so the events say
//! themselves where they end: a dumper killed right behind its read(2) has noted nothing and lost
//! nothing.
//!
//! The journal is against the death of its process, not of the machine: nothing is synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{Ordering, compiler_fence};

use fsnotify::Wd;
use nix::errno::Errno;

use super::basket::{Basket, Phase};
use super::record;
use crate::sys::raw;
use crate::sys::shared::SharedMap;

const MAGIC: [u8; 8] = *b"NFJOURN2";

/// Words of the header, by their places.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const PHASE: usize = 8;
    pub(super) const NEXT_WD: usize = 16;
    /// Length of the context.
    pub(super) const CONTEXT: usize = 24;
    /// Bytes of events when a phase began, from `Draining` on.
    pub(super) const BEGAN: usize = 32;
    /// Where the final queue begins among the bytes of events, its length, and how many wds lie
    /// behind it.
    pub(super) const QUEUE: usize = 72;
    pub(super) const QUEUE_LENGTH: usize = 80;
    pub(super) const WATCHES: usize = 88;
    /// Device and number of the file itself: no copy of it has the same.
    pub(super) const DEVICE: usize = 96;
    pub(super) const INODE: usize = 104;
    pub(super) const END: usize = 112;
}

const PHASES: [Phase; 5] = [
    Phase::Draining,
    Phase::Probing,
    Phase::Stripping,
    Phase::Rebuilding,
    Phase::Attaching,
];

/// The room for events grows by this much at least.
const GROWTH: usize = 1 << 16;

/// No journal is read that is longer: a million events with the longest names.
const LONGEST: u64 = 1 << 29;

#[derive(Debug)]
pub struct Journal {
    map: SharedMap,
    /// Where the events begin.
    start: usize,
    used: usize,
}

impl Journal {
    /// Makes a new journal file with the given context and no event.
    ///
    /// # Errors
    ///
    /// That the file exists already, or cannot be made as long as it must be.
    pub fn create(path: &Path, context: &[u8]) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let start = (at::END + context.len()).next_multiple_of(record::HEADER);
        let mut map = SharedMap::new(file, start + GROWTH)?;
        map.bytes_mut()[at::END..at::END + context.len()].copy_from_slice(context);
        let mut journal = Self {
            map,
            start,
            used: 0,
        };
        journal.store(at::CONTEXT, context.len());
        let [device, inode] = identity(&journal.map.file().metadata()?);
        journal.put(at::DEVICE, device);
        journal.put(at::INODE, inode);
        journal.enter(Phase::Draining);
        // Last: a file without it is no journal, and nothing was taken yet.
        journal.map.bytes_mut()[at::MAGIC..at::PHASE].copy_from_slice(&MAGIC);
        Ok(journal)
    }

    /// Makes sure that so many more bytes can be kept: behind a point from which only a journal with
    /// all of them leads back.
    ///
    /// # Errors
    ///
    /// That there is no room for them.
    pub fn reserve(&mut self, size: usize) -> io::Result<()> {
        let needed = self.start + self.used + size + record::HEADER;
        Ok(self.map.grow(needed)?)
    }

    /// Opens the journal that another process left. None if it never got as far as to take
    /// anything.
    ///
    /// # Errors
    ///
    /// That the file cannot be read, is no journal, is another user's or a copy: who can write where
    /// the image is may not have us put a queue of his into a group of somebody else's.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        Self::of_file(file)
    }

    fn of_file(file: File) -> io::Result<Option<Self>> {
        let length = checked_length(&file)?;
        if length < at::END {
            return Ok(None);
        }
        let map = SharedMap::new(file, length)?;
        match map.bytes()[at::MAGIC..at::PHASE] {
            ref magic if *magic == MAGIC => {}
            ref magic if *magic == [0; 8] => return Ok(None),
            _ => return Err(bad("not a journal")),
        }
        let mut journal = Self {
            map,
            start: 0,
            used: 0,
        };
        let own = identity(&journal.map.file().metadata()?);
        if [at::DEVICE, at::INODE].map(|place| journal.number(place)) != own {
            return Err(bad("a copy, which no dump has written"));
        }
        let context = journal.load(at::CONTEXT);
        let start = context
            .checked_add(at::END)
            .and_then(|end| end.checked_next_multiple_of(record::HEADER))
            .filter(|start| *start <= length)
            .ok_or_else(|| bad("context longer than the journal"))?;
        journal.start = start;
        // Behind the events of a final state lies that state.
        journal.used = match journal.final_state()? {
            Some(_) => journal.load(at::QUEUE),
            None => record::length_of_events(&journal.map.bytes()[start..]),
        };
        Ok(Some(journal))
    }

    /// The property for fuzzing: any bytes in a file are refused, or are a journal whose parts lie in it.
    /// They are given the file's own number, which no fuzzer can guess. The context, where there is one.
    ///
    /// # Panics
    ///
    /// If the property does not hold.
    pub(crate) fn check(bytes: &[u8]) -> Option<Vec<u8>> {
        let flags = libc::MFD_CLOEXEC;
        let memory = raw::memfd_create(c"journal", flags).and_then(crate::sys::path::owned);
        let file = File::from(memory.expect("memory"));
        let metadata = file.metadata().expect("of memory");
        let mut bytes = bytes.to_vec();
        if let Some(place) = bytes.get_mut(at::DEVICE..at::END) {
            let own = identity(&metadata).map(u64::to_ne_bytes).concat();
            place.copy_from_slice(&own);
        }
        (&file).write_all(&bytes).expect("memory");
        let mut journal = Self::of_file(file).ok().flatten()?;
        let events = journal.bytes();
        let is_whole = journal.final_state().is_ok_and(|it| it.is_some())
            || record::length_of_events(events) == events.len();
        assert!(is_whole, "half an event");
        for phase in PHASES {
            assert!(
                journal.began(phase) <= events.len(),
                "{phase:?} began behind the end"
            );
        }
        let _ = journal.next_wd();
        let context = journal.context().to_vec();
        let room = journal.room(1).map(|room| room.len());
        assert!(room.is_ok_and(|length| length > 0), "no room");
        journal.retire();
        Some(context)
    }

    /// Makes it the journal of one who has taken nothing: what it has is safe elsewhere.
    pub fn retire(&mut self) {
        self.map.bytes_mut()[at::MAGIC..at::PHASE].fill(0);
    }

    /// What its dumper wanted to find again.
    #[must_use]
    pub fn context(&self) -> &[u8] {
        &self.map.bytes()[at::END..at::END + self.load(at::CONTEXT)]
    }

    /// How far it had come.
    ///
    /// # Errors
    ///
    /// That the number is no phase.
    pub fn phase(&self) -> io::Result<Phase> {
        let phase = PHASES.get(self.load(at::PHASE).wrapping_sub(1));
        phase.copied().ok_or_else(|| bad("unknown phase"))
    }

    /// What the queue was to be and which watches the group was to have, from
    /// [`Phase::Rebuilding`] on.
    ///
    /// # Errors
    ///
    /// That they do not lie in the file.
    pub fn final_state(&self) -> io::Result<Option<(Vec<u8>, Vec<Wd>)>> {
        if self.phase()? < Phase::Rebuilding {
            return Ok(None);
        }
        let events = &self.map.bytes()[self.start..];
        let place = self.load(at::QUEUE);
        let length = self.load(at::QUEUE_LENGTH);
        let n_watches = self.load(at::WATCHES);
        let parts = events.get(place..).and_then(|rest| {
            let (queue, rest) = rest.split_at_checked(length)?;
            let wds = rest.get(..n_watches.checked_mul(WD_SIZE)?)?;
            Some((queue.to_vec(), decode_wds(wds)?))
        });
        parts
            .map(Some)
            .ok_or_else(|| bad("final queue outside the journal"))
    }

    fn load(&self, place: usize) -> usize {
        usize::try_from(self.number(place)).unwrap_or(usize::MAX)
    }

    fn number(&self, place: usize) -> u64 {
        let bytes = self.map.bytes()[place..place + 8].try_into();
        u64::from_ne_bytes(bytes.expect("eight bytes"))
    }

    fn store(&mut self, place: usize, number: usize) {
        self.put(place, u64::try_from(number).expect("no usize is longer"));
    }

    fn put(&mut self, place: usize, number: u64) {
        // What was stored before must be in the file when this is: the process may end anywhere.
        compiler_fence(Ordering::SeqCst);
        self.map.bytes_mut()[place..place + 8].copy_from_slice(&number.to_ne_bytes());
        compiler_fence(Ordering::SeqCst);
    }
}

impl Basket for Journal {
    fn room(&mut self, size: usize) -> Result<&mut [u8], Errno> {
        // Zeroes behind the last event are what ends the events.
        let needed = self.start + self.used + size + record::HEADER;
        if needed > self.map.bytes().len() {
            self.map.grow(needed + GROWTH)?;
        }
        let from = self.start + self.used;
        let to = self.map.bytes().len() - record::HEADER;
        Ok(&mut self.map.bytes_mut()[from..to])
    }

    fn add(&mut self, size: usize) {
        self.used += size;
    }

    fn bytes(&self) -> &[u8] {
        &self.map.bytes()[self.start..self.start + self.used]
    }

    fn enter(&mut self, phase: Phase) {
        if self.load(at::PHASE) < index(phase) + 1 {
            self.store(began(phase), self.used);
            self.store(at::PHASE, index(phase) + 1);
        }
    }

    fn began(&self, phase: Phase) -> usize {
        if self.load(at::PHASE) < index(phase) + 1 {
            return self.used;
        }
        self.load(began(phase)).min(self.used)
    }

    fn next_wd(&self) -> Option<Wd> {
        let number = i32::try_from(self.load(at::NEXT_WD)).ok()?;
        Wd::new(number)
    }

    fn set_next_wd(&mut self, wd: Wd) {
        let number = usize::try_from(wd.number()).expect("a wd is positive");
        self.store(at::NEXT_WD, number);
    }

    fn set_final(&mut self, queue: &[u8], watches: &[Wd]) -> Result<(), Errno> {
        let place = self.used;
        let wds = watches.iter().flat_map(|wd| wd.number().to_ne_bytes());
        let bytes: Vec<u8> = queue.iter().copied().chain(wds).collect();
        self.room(bytes.len())?[..bytes.len()].copy_from_slice(&bytes);
        self.store(at::QUEUE, place);
        self.store(at::QUEUE_LENGTH, queue.len());
        self.store(at::WATCHES, watches.len());
        Ok(())
    }
}

const WD_SIZE: usize = 4;

fn decode_wds(bytes: &[u8]) -> Option<Vec<Wd>> {
    let numbers = bytes.chunks_exact(WD_SIZE);
    let wds = numbers.map(|it| Wd::new(i32::from_ne_bytes(it.try_into().expect("four bytes"))));
    wds.collect()
}

fn index(phase: Phase) -> usize {
    match phase {
        Phase::Draining => 0,
        Phase::Probing => 1,
        Phase::Stripping => 2,
        Phase::Rebuilding => 3,
        Phase::Attaching => 4,
    }
}

fn began(phase: Phase) -> usize {
    at::BEGAN + 8 * index(phase)
}

fn checked_length(file: &File) -> io::Result<usize> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Err(bad("not a journal"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(bad("of another user"));
    }
    Ok(usize::try_from(metadata.len()).expect("less than LONGEST"))
}

/// What names a file within a boot.
fn identity(metadata: &std::fs::Metadata) -> [u64; 2] {
    [metadata.dev(), metadata.ino()]
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(journal: &mut Journal, bytes: &[u8]) {
        journal.room(bytes.len()).unwrap()[..bytes.len()].copy_from_slice(bytes);
    }

    #[test]
    fn events_that_nobody_noted_are_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = Journal::create(&path, b"context").unwrap();
        let first = record::encode(1, 2, 0, Some(b"a"));
        fill(&mut journal, &first);
        journal.add(first.len());
        journal.enter(Phase::Probing);
        journal.set_next_wd(Wd::new(7).unwrap());
        // As read(2) leaves it when the process ends before `add`.
        let second = record::encode(3, 4, 0, None);
        fill(&mut journal, &second);
        drop(journal);

        let journal = Journal::open(&path).unwrap().unwrap();
        assert_eq!(journal.context(), b"context");
        assert_eq!(journal.phase().unwrap(), Phase::Probing);
        assert_eq!(journal.began(Phase::Probing), first.len());
        assert_eq!(journal.next_wd(), Wd::new(7));
        assert_eq!(journal.bytes(), [first, second].concat());
        assert_eq!(journal.final_state().unwrap(), None);
        let mut journal = journal;
        journal.retire();
        assert!(Journal::open(&path).unwrap().is_none());
    }

    #[test]
    fn the_final_queue_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = Journal::create(&path, b"").unwrap();
        let event = record::encode(1, 2, 0, Some(&[b'n'; 255]));
        for _ in 0..1000 {
            fill(&mut journal, &event);
            journal.add(event.len());
        }
        let queue = journal.bytes()[..288 * 9].to_vec();
        let wds = [Wd::new(7).unwrap(), Wd::new(i32::MAX).unwrap()];
        journal.set_final(&queue, &wds).unwrap();
        journal.enter(Phase::Rebuilding);
        drop(journal);
        let journal = Journal::open(&path).unwrap().unwrap();
        assert_eq!(journal.final_state().unwrap(), Some((queue, wds.to_vec())));
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut content = vec![0; 4096];
        std::fs::write(&path, &content).unwrap();
        assert!(Journal::open(&path).unwrap().is_none(), "nothing was taken");
        content[..8].copy_from_slice(&MAGIC);
        for (place, number) in [at::DEVICE, at::INODE]
            .into_iter()
            .zip(identity(&std::fs::metadata(&path).unwrap()))
        {
            content[place..place + 8].copy_from_slice(&number.to_ne_bytes());
        }
        content[at::PHASE] = 1;
        content[at::CONTEXT..at::CONTEXT + 8].fill(0xff);
        std::fs::write(&path, &content).unwrap();
        assert!(
            Journal::open(&path).is_err(),
            "the context ends within the file"
        );
        content[at::CONTEXT..at::CONTEXT + 8].fill(0);
        content[at::PHASE] = 9;
        std::fs::write(&path, &content).unwrap();
        assert!(Journal::open(&path).is_err(), "there is no ninth phase");
        content[at::PHASE] = 4;
        content[at::QUEUE] = 0xff;
        content[at::QUEUE + 1] = 0xff;
        std::fs::write(&path, &content).unwrap();
        assert!(
            Journal::open(&path).is_err(),
            "the queue ends within the file"
        );
    }
}
