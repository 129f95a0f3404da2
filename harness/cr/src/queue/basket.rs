//! Where the bytes of a queue go when they are read out of it.
//!
//! Reading is the one thing in a dump that takes something from the subject, and a dumper can be
//! killed behind any system call. So the kernel may write right into memory that outlives the
//! dumper ([`super::Journal`]), and whoever comes later knows from the phase what was under way.

use std::os::fd::BorrowedFd;

use fsnotify::Wd;
use nix::errno::Errno;

use crate::sys::watch;

/// How far the taking and putting back of a queue has come. In each phase, everything noted in an
/// earlier one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// What is in the basket comes before what is in the group.
    Draining,
    /// Besides, a watch is made and removed to find the cursor. Its `IN_IGNORED` is in the group
    /// or in the basket behind the bytes that were there when this phase began.
    Probing,
    /// Besides, the watches of the group are being removed; their `IN_IGNORED` likewise.
    Stripping,
    /// The basket has the final queue. The group holds nothing of worth.
    Rebuilding,
    /// The group has its queue again, and is getting its watches.
    Attaching,
}

/// Keeps what is read from a group.
pub trait Basket {
    /// Free memory of at least `size` bytes, to read into.
    ///
    /// # Errors
    ///
    /// That there is no more: `ENOSPC`.
    fn room(&mut self, size: usize) -> Result<&mut [u8], Errno>;

    /// Notes that the first `size` bytes of the room were read into.
    fn add(&mut self, size: usize);

    /// All that was read, in order.
    fn bytes(&self) -> &[u8];

    /// Notes that a phase begins. If it began before, it is that beginning that stays noted.
    fn enter(&mut self, phase: Phase);

    /// Bytes there were when a phase began that has begun.
    fn began(&self, phase: Phase) -> usize;

    /// Notes which wd the next watch gets.
    fn set_next_wd(&mut self, wd: Wd);

    /// The wd that was noted.
    fn next_wd(&self) -> Option<Wd>;

    /// Notes what the queue is to be when all is done, and which watches the group is to have.
    ///
    /// # Errors
    ///
    /// As [`Basket::room`].
    fn set_final(&mut self, queue: &[u8], watches: &[Wd]) -> Result<(), Errno>;
}

/// Keeps the bytes in memory, and forgets everything with its process.
#[derive(Debug, Default)]
pub struct Memory {
    bytes: Vec<u8>,
    used: usize,
    began: Vec<(Phase, usize)>,
    next_wd: Option<Wd>,
}

impl Memory {
    /// The bytes that were read.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.used);
        self.bytes
    }
}

impl Basket for Memory {
    fn room(&mut self, size: usize) -> Result<&mut [u8], Errno> {
        self.bytes.resize(self.used + size, 0);
        Ok(&mut self.bytes[self.used..])
    }

    fn add(&mut self, size: usize) {
        self.used += size;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    fn enter(&mut self, phase: Phase) {
        if self.began.last().is_none_or(|(last, _)| *last < phase) {
            self.began.push((phase, self.used));
        }
    }

    fn began(&self, phase: Phase) -> usize {
        let mut began = self.began.iter();
        let found = began.find(|(it, _)| *it == phase);
        found.map_or(self.used, |(_, bytes)| *bytes)
    }

    fn set_next_wd(&mut self, wd: Wd) {
        self.next_wd = Some(wd);
    }

    fn next_wd(&self) -> Option<Wd> {
        self.next_wd
    }

    fn set_final(&mut self, _: &[u8], _: &[Wd]) -> Result<(), Errno> {
        Ok(())
    }
}

/// Reads the events of a group into a basket that are unread now, and none that come meanwhile: while
/// others are busy, those may never end. Never waits.
///
/// # Errors
///
/// The errno of ioctl(2) or read(2), or that of the basket.
pub fn drain_into(group: BorrowedFd<'_>, basket: &mut dyn Basket) -> Result<(), Errno> {
    let unread = watch::unread(group)?;
    if unread > 0 {
        let room = &mut basket.room(unread)?[..unread];
        let n_read = watch::read(group, room)?;
        basket.add(n_read);
    }
    Ok(())
}
