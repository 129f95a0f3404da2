//! The gate: a group that lets through exactly as many events as it is told to.
//!
//! `fsnotify_insert_event` drops every event that comes to a full queue, `IN_IGNORED` included. It
//! queues an overflow event for the first, and nothing at all for the others while the overflow
//! event is still unread. So a queue that was filled with junk until it overflowed is *closed*:
//! whatever is done to the watches of the group and to what they watch is not heard. Reading n
//! junk events from its head opens it for exactly n events (a *ticket*).
//!
//! A group holds one overflow event at most. Where the saved queue has one of its own, the events
//! before it are made in a gate that is still *open*: it is filled so far only that they bring the
//! queue to its limit, and nothing must be done that makes an event beside them.

use std::os::fd::{BorrowedFd, OwnedFd};

use fsnotify::Wd;
use fsnotify::inotify::Mask;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};

use super::error::RebuildError;
use super::record;
use crate::sys::watch;

/// Both an overflow event and an event without a name.
const BARE: usize = record::HEADER;
/// An event with the name of the junk file.
const NAMED: usize = record::HEADER + 16;

/// What is read at a time.
const CHUNK: usize = 1 << 18;

#[derive(Debug)]
pub(super) struct Gate<'g> {
    group: BorrowedFd<'g>,
    /// What makes junk, as long as the gate is open.
    source: Option<Source>,
    /// Where the queue of the group is full (`group->max_events`).
    limit: usize,
    /// The junk events at the head that are not read yet.
    junk: Junk,
    /// The overflow event that closes the gate is ours, and lies behind the junk.
    own_overflow: bool,
    /// Events in the queue, of all kinds.
    length: usize,
    closed: bool,
}

impl<'g> Gate<'g> {
    /// Fills an empty group until it is closed. `limit` is where its queue should be full; where
    /// it is full is found out.
    pub(super) fn closed(
        group: BorrowedFd<'g>,
        scratch: &OwnedFd,
        wds: [Wd; 2],
        limit: usize,
    ) -> Result<Self, RebuildError> {
        let source = Source::new(scratch, group, wds).map_err(failed("junk watch"))?;
        let mut made = Junk::default();
        // More events than the limit by at least two, so that a queue that took them all is told
        // from one that took an overflow event in the place of the last.
        let mut n_calls = limit.div_ceil(2) + 1;
        let unread = loop {
            for _ in 0..n_calls {
                source.make_two().map_err(failed("fchmod"))?;
            }
            made.end += 2 * n_calls;
            let unread = watch::unread(group).map_err(failed("FIONREAD"))?;
            if unread != made.size() {
                break unread;
            }
            n_calls = limit.max(64);
        };
        let junk = Junk::of_size(unread.saturating_sub(BARE));
        expect_full(junk.size() + BARE, unread)?;
        // Unheard from here on, and the user may have no watch to spare.
        source
            .drop_watches(group)
            .map_err(failed("inotify_rm_watch"))?;
        Ok(Self {
            group,
            source: None,
            limit: junk.end,
            junk,
            own_overflow: true,
            length: junk.end + 1,
            closed: true,
        })
    }

    /// Fills an empty group so far that `n_before` events more bring it to its limit.
    pub(super) fn open(
        group: BorrowedFd<'g>,
        scratch: &OwnedFd,
        wds: [Wd; 2],
        (limit, n_before): (usize, usize),
    ) -> Result<Self, RebuildError> {
        let source = Source::new(scratch, group, wds).map_err(failed("junk watch"))?;
        let end = limit - n_before;
        let junk = Junk {
            end,
            n_lead: end % 2,
            ..Junk::default()
        };
        if junk.n_lead == 1 {
            source.make_one().map_err(failed("fchmod"))?;
        }
        for _ in 0..end / 2 {
            source.make_two().map_err(failed("fchmod"))?;
        }
        let unread = watch::unread(group).map_err(failed("FIONREAD"))?;
        expect_full(junk.size(), unread)?;
        Ok(Self {
            group,
            source: Some(source),
            limit,
            junk,
            own_overflow: false,
            length: end,
            closed: false,
        })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn unread(&self) -> Result<usize, Errno> {
        watch::unread(self.group)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Lets the next `n_events` through.
    pub(super) fn admit(&mut self, n_events: usize) -> Result<(), Errno> {
        if self.closed {
            let room = self.limit - n_events;
            let n_junk = self.length.saturating_sub(room);
            self.take(n_junk)?;
        }
        self.length += n_events;
        Ok(())
    }

    /// Makes the overflow event that the saved queue has here, and so closes the gate.
    ///
    /// Of the two junk events the first becomes it and the second is dropped; if the queue is not
    /// full after all, its size tells.
    pub(super) fn overflow(&mut self) -> Result<(), Errno> {
        let source = self.source.as_ref().expect("the gate is open");
        source.make_two()?;
        self.length += 1;
        self.closed = true;
        Ok(())
    }

    /// Notes that an admitted event was the overflow event.
    pub(super) fn has_overflowed(&mut self) {
        self.closed = true;
    }

    /// Unread bytes that are not of the saved queue.
    pub(super) fn junk_size(&self) -> usize {
        self.junk.size() + if self.own_overflow { BARE } else { 0 }
    }

    /// Drops the watches of the gate itself. It must be closed.
    pub(super) fn drop_watches(&self) -> Result<(), Errno> {
        match &self.source {
            Some(source) => source.drop_watches(self.group),
            None => Ok(()),
        }
    }

    /// Reads what is left of the junk: the queue is the saved one then.
    pub(super) fn finish(mut self) -> Result<BorrowedFd<'g>, Errno> {
        self.take(self.junk.end - self.junk.start)?;
        if self.own_overflow {
            read_exactly(self.group, BARE)?;
        }
        Ok(self.group)
    }

    fn take(&mut self, n_junk: usize) -> Result<(), Errno> {
        let mut left = n_junk;
        while left > 0 {
            let n = left.min(CHUNK / NAMED);
            let part = Junk {
                end: self.junk.start + n,
                ..self.junk
            };
            read_exactly(self.group, part.size())?;
            self.junk.start += n;
            self.length -= n;
            left -= n;
        }
        Ok(())
    }
}

/// Junk events from the `start`th to the `end`th: they alternate between named and bare, behind
/// `n_lead` (0 or 1) bare ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Junk {
    start: usize,
    end: usize,
    n_lead: usize,
}

impl Junk {
    /// As many alternating events as have this size together; too few if none do.
    fn of_size(size: usize) -> Self {
        let n_named = usize::from(size % (NAMED + BARE) >= NAMED);
        let end = size / (NAMED + BARE) * 2 + n_named;
        Self {
            end,
            ..Self::default()
        }
    }

    fn size(self) -> usize {
        let bytes_before = |n: usize| {
            let alternating = n.saturating_sub(self.n_lead);
            let n_named = alternating.div_ceil(2);
            n_named * NAMED + (n - n_named) * BARE
        };
        bytes_before(self.end) - bytes_before(self.start)
    }
}

/// A file in a directory, both watched: each chmod of the file makes two events, which differ from
/// each other and so never merge. Cheaper by a third than one event a call. Where the user may have one
/// watch only, it is that of the directory, whose chmod makes the same event as the other of the file.
#[derive(Debug)]
struct Source {
    file: OwnedFd,
    dir: OwnedFd,
    /// Of the directory, and of the file.
    wds: Vec<Wd>,
}

impl Source {
    fn new(scratch: &OwnedFd, group: BorrowedFd<'_>, wds: [Wd; 2]) -> Result<Self, Errno> {
        let mode = Mode::S_IRWXU;
        mkdirat(scratch, "junk", mode)?;
        let dir = openat(scratch, "junk", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, mode)?;
        let file = openat(
            &dir,
            "j",
            OFlag::O_CREAT | OFlag::O_RDWR | OFlag::O_CLOEXEC,
            mode,
        )?;
        let mut made = Vec::with_capacity(wds.len());
        for (target, wd) in [(&dir, wds[0]), (&file, wds[1])] {
            watch::set_next_wd(group, wd)?;
            match watch::add_watch_on(group, target, Mask(libc::IN_ATTRIB)) {
                Ok(got) if got == wd => made.push(wd),
                Ok(_) => return Err(Errno::EBUSY),
                Err(Errno::ENOSPC) if !made.is_empty() => {}
                Err(errno) => return Err(errno),
            }
        }
        let wds = made;
        Ok(Self { file, dir, wds })
    }

    fn drop_watches(&self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut wds = self.wds.iter();
        wds.try_for_each(|wd| watch::rm_watch(group, *wd))
    }

    /// Two events: one of the directory, with the name of the file, and a bare one.
    fn make_two(&self) -> Result<(), Errno> {
        fchmod(&self.file, Mode::S_IRWXU)?;
        if self.wds.len() == 1 {
            self.make_one()?;
        }
        Ok(())
    }

    /// One event: of the directory.
    fn make_one(&self) -> Result<(), Errno> {
        fchmod(&self.dir, Mode::S_IRWXU)
    }
}

/// Reads `size` bytes, which must be whole events.
fn read_exactly(group: BorrowedFd<'_>, size: usize) -> Result<(), Errno> {
    let mut buffer = vec![0; size];
    match watch::read(group, &mut buffer)? {
        n if n == size => Ok(()),
        _ => Err(Errno::EIO),
    }
}

fn expect_full(expected: usize, found: usize) -> Result<(), RebuildError> {
    if expected == found {
        Ok(())
    } else {
        Err(RebuildError::Fill { expected, found })
    }
}

fn failed(call: &'static str) -> impl Fn(Errno) -> RebuildError {
    move |errno| RebuildError::Call { call, errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_junk_is_that_of_its_events() {
        for n_lead in [0, 1] {
            let one = |start: usize| {
                Junk {
                    start,
                    end: start + 1,
                    n_lead,
                }
                .size()
            };
            let sizes: Vec<usize> = (0..4).map(one).collect();
            let expected = if n_lead == 0 {
                [32, 16, 32, 16]
            } else {
                [16, 32, 16, 32]
            };
            assert_eq!(sizes, expected);
            let all = Junk {
                start: 0,
                end: 4,
                n_lead,
            };
            assert_eq!(all.size(), 96);
        }
        for n in 0..9 {
            let junk = Junk {
                end: n,
                ..Junk::default()
            };
            assert_eq!(Junk::of_size(junk.size()), junk);
        }
    }
}
