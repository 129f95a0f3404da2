//! Taking the queue of a live group, and putting it back into the same group.
//!
//! To be copied, a queue must be read, and then the subject no longer has it. If the subject is to
//! run on, because it was only to be copied or because the dump failed, its group is *stripped* of
//! its watches, gets its queue rebuilt, and its watches attached again.
//!
//! An event that comes while a watch is off is heard by nobody. Whether one came is not guessed: a
//! sentinel group has the same watches all that time, and what it heard must be in the queue that
//! was rebuilt ([`Window`]). The subject itself is stopped meanwhile; it is about others.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::{fmt, fs, io};

use fsnotify::fdinfo::{Body, Group, Kind, Level};
use fsnotify::inotify::Mask;
use fsnotify::{Wd, counted};
use nix::errno::Errno;

use super::basket::{Basket, Phase, drain_into};
use super::cursor::{self, Probe};
use super::error::RebuildError;
use super::journal::Journal;
use super::{rebuild, record};
use crate::sys::watch;
use crate::{Loss, LossKind};

/// A watch of a live group, and a way to its inode.
#[derive(Clone, Copy, Debug)]
pub struct LiveWatch<'a> {
    pub wd: Wd,
    /// As fdinfo shows it.
    pub mask: Mask,
    /// Opened with `O_PATH`, so that having it makes no event.
    pub target: BorrowedFd<'a>,
}

/// What was read out of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Unread events as read(2) returns them.
    pub queue: Vec<u8>,
    /// The wd that the next new watch gets; or why that could not be found.
    pub next_wd: Result<Wd, Errno>,
}

/// Whether an event can have come while the watches were off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// All that came is in the queue.
    Quiet,
    /// So many events came from the beginning to the end of it, and some are missing.
    Heard { n_events: usize },
    /// Nobody could listen, for want of watches.
    Unknown(Errno),
}

impl Window {
    /// What the queue of a group, called `name` in the loss, may lack for it.
    #[must_use]
    pub fn loss(self, name: &str) -> Option<Loss> {
        let (kind, reason) = match self {
            Self::Quiet => return None,
            Self::Heard { n_events } => (
                LossKind::WindowHeard,
                format!(
                    "{} came while its watches were off, and some are missing",
                    counted(n_events, "event")
                ),
            ),
            Self::Unknown(errno) => (
                LossKind::WindowUnknown,
                format!(
                    "nobody listened while its watches were off: {}",
                    errno.desc()
                ),
            ),
        };
        let object = format!("queue of {name}, which runs on");
        Some(Loss::new(kind, object, reason))
    }
}

/// Failure of [`put_back`] or [`recover`].
#[derive(Debug)]
pub enum PutBackError {
    Call {
        call: &'static str,
        errno: Errno,
    },
    /// A watch could not be attached again.
    Attach {
        wd: Wd,
        errno: Errno,
    },
    Rebuild(RebuildError),
    /// The group's fdinfo or the journal could not be read.
    Read(io::Error),
}

/// Reads the queue of a group into the basket, and finds its cursor. What it was read from must
/// not run before [`put_back`], unless it is never to run again.
///
/// # Errors
///
/// The errno of ioctl(2) or read(2), or that of the basket. Part of the queue may be in the basket.
pub fn take(group: BorrowedFd<'_>, basket: &mut dyn Basket) -> Result<Taken, Errno> {
    basket.enter(Phase::Draining);
    drain_into(group, basket)?;
    let next_wd = match basket.next_wd() {
        Some(wd) => Ok(wd),
        None => find_next_wd(group, basket)?,
    };
    if let Ok(wd) = next_wd {
        cursor::set(group, wd)?;
    }
    let mut queue = basket.bytes().to_vec();
    remove_probe(&mut queue, basket);
    Ok(Taken { queue, next_wd })
}

fn find_next_wd(
    group: BorrowedFd<'_>,
    basket: &mut dyn Basket,
) -> Result<Result<Wd, Errno>, Errno> {
    let probe = Probe::new()?;
    basket.enter(Phase::Probing);
    let next_wd = probe.find(group);
    drain_into(group, basket)?;
    if let Ok(wd) = next_wd {
        basket.set_next_wd(wd);
    }
    Ok(next_wd)
}

/// Takes the end of the watch out that found the cursor.
fn remove_probe(queue: &mut Vec<u8>, basket: &dyn Basket) {
    if let Some(wd) = basket.next_wd() {
        record::remove_ignored(queue, basket.began(Phase::Probing), wd);
    }
}

/// Puts the queue back into the group from which [`take`] read it into the basket, and behind it
/// what came since.
///
/// `watches` are those of the group, in the order of fdinfo.
///
/// # Errors
///
/// What failed. A basket that outlives this process has what [`recover`] needs.
pub fn put_back(
    group: BorrowedFd<'_>,
    watches: &[LiveWatch<'_>],
    basket: &mut dyn Basket,
) -> Result<Window, PutBackError> {
    let mut taken = basket.bytes().to_vec();
    remove_probe(&mut taken, basket);
    if taken.is_empty() && basket.began(Phase::Stripping) == basket.bytes().len() {
        return Ok(Window::Quiet);
    }
    let sentinel = Sentinel::new(watches);
    drain_into(group, basket).map_err(failed("read"))?;
    basket.enter(Phase::Stripping);
    strip(group, watches, basket)?;
    let (queue, stripped) = without_strip(watches, basket);
    restore(group, &stripped, &queue, basket)?;
    Ok(
        match sentinel.and_then(|sentinel| sentinel.compare(&queue)) {
            Ok(window) => window,
            Err(errno) => Window::Unknown(errno),
        },
    )
}

/// Removed between two reads: their ends must not overflow the queue, where they would be missed.
const AT_ONCE: usize = 256;

/// Removes the watches that are there, and reads their ends.
fn strip(
    group: BorrowedFd<'_>,
    watches: &[LiveWatch<'_>],
    basket: &mut dyn Basket,
) -> Result<(), PutBackError> {
    let limit = super::limit().map_err(PutBackError::Rebuild)?;
    for watches in watches.chunks(AT_ONCE.min(limit / 2).max(1)) {
        for watch in watches {
            match watch::rm_watch(group, watch.wd) {
                // It has ended by itself, or a dumper that was killed has removed it.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(errno) => return Err(failed("inotify_rm_watch")(errno)),
            }
        }
        drain_into(group, basket).map_err(failed("read"))?;
    }
    drain_into(group, basket).map_err(failed("read"))
}

/// All that was read, without the ends of watches that the dumper itself made; and those watches.
fn without_strip<'a>(
    watches: &[LiveWatch<'a>],
    basket: &dyn Basket,
) -> (Vec<u8>, Vec<LiveWatch<'a>>) {
    let began = basket.began(Phase::Stripping);
    let heard = record::first_heard(basket.bytes(), began);
    let ended_by_itself = |watch: &&LiveWatch<'_>| {
        let heard = heard.get(&watch.wd);
        let ended = heard.and_then(|heard| heard.ended);
        // Having the inode open keeps it from ending otherwise.
        let fired = watch.mask.0 & libc::IN_ONESHOT != 0 && heard.map(|it| it.first) != ended;
        ended.is_none() || fired
    };
    let stripped: Vec<_> = watches
        .iter()
        .filter(|it| !ended_by_itself(it))
        .copied()
        .collect();
    let ends = stripped.iter().filter_map(|it| heard.get(&it.wd)?.ended);
    let mut queue = record::without(basket.bytes(), ends.collect());
    remove_probe(&mut queue, basket);
    (queue, stripped)
}

/// Gives a stripped and empty group its queue, its watches and its cursor.
fn restore(
    group: BorrowedFd<'_>,
    watches: &[LiveWatch<'_>],
    queue: &[u8],
    basket: &mut dyn Basket,
) -> Result<(), PutBackError> {
    let wds: Vec<Wd> = watches.iter().map(|watch| watch.wd).collect();
    basket.set_final(queue, &wds).map_err(failed("journal"))?;
    basket.enter(Phase::Rebuilding);
    rebuild(group, queue, &[]).map_err(PutBackError::Rebuild)?;
    basket.enter(Phase::Attaching);
    attach(group, watches, basket.next_wd())
}

/// Attaches watches, the oldest first, and sets the cursor.
fn attach(
    group: BorrowedFd<'_>,
    watches: &[LiveWatch<'_>],
    next_wd: Option<Wd>,
) -> Result<(), PutBackError> {
    for LiveWatch { wd, mask, target } in watches.iter().rev() {
        // Selecting nothing is asked for by a bit that cannot be selected; a second watch of one
        // inode would be an update of the first.
        let mask = if mask.0 == 0 {
            libc::IN_IGNORED
        } else {
            mask.0
        };
        let mask = Mask(mask | libc::IN_MASK_CREATE);
        let attached = watch::set_next_wd(group, *wd)
            .and_then(|()| watch::add_watch_on(group, target, mask))
            .and_then(|got| {
                if got == *wd {
                    Ok(())
                } else {
                    Err(Errno::EBUSY)
                }
            });
        attached.map_err(|errno| PutBackError::Attach { wd: *wd, errno })?;
    }
    match next_wd {
        Some(wd) => cursor::set(group, wd).map_err(failed("INOTIFY_IOC_SETNEXTWD")),
        None => Ok(()),
    }
}

/// A group of our own with the same watches.
struct Sentinel {
    group: OwnedFd,
}

impl Sentinel {
    fn new(watches: &[LiveWatch<'_>]) -> Result<Self, Errno> {
        let group = watch::init()?;
        for LiveWatch { wd, mask, target } in watches {
            // It must hear more than one event.
            let mask = Mask((mask.0 | libc::IN_IGNORED) & !libc::IN_ONESHOT);
            watch::set_next_wd(group.as_fd(), *wd)?;
            watch::add_watch_on(group.as_fd(), target, mask)?;
        }
        Ok(Self { group })
    }

    /// Whether all it heard is in what the other group got in the same time and before.
    fn compare(&self, late: &[u8]) -> Result<Window, Errno> {
        let heard = super::drain(self.group.as_fd())?;
        if late.ends_with(&heard) {
            return Ok(Window::Quiet);
        }
        let n_events = record::parse(&heard).map_or(0, |records| records.len());
        Ok(Window::Heard { n_events })
    }
}

/// Does what a dumper had left to do that was killed between the beginning of [`take`] and the
/// end of [`put_back`]: the group has its queue and its watches again.
///
/// `watches` are those that the group had when the journal was made, in the order of fdinfo then.
/// The subject must not have run meanwhile.
///
/// # Errors
///
/// What failed; the journal is as good as before.
pub fn recover(
    group: BorrowedFd<'_>,
    watches: &[LiveWatch<'_>],
    journal: &mut Journal,
) -> Result<(), PutBackError> {
    let Some((queue, wds)) = journal.final_state().map_err(PutBackError::Read)? else {
        recover_next_wd(group, watches, journal)?;
        take(group, journal).map_err(failed("read"))?;
        return put_back(group, watches, journal).map(drop);
    };
    let wds: HashSet<Wd> = wds.into_iter().collect();
    let is_final = |watch: &&LiveWatch<'_>| wds.contains(&watch.wd);
    let watches: Vec<_> = watches.iter().filter(is_final).copied().collect();
    if journal.phase().map_err(PutBackError::Read)? == Phase::Rebuilding {
        // The group has no watch of the subject, and what it holds is scaffolding.
        super::drain(group).map_err(failed("read"))?;
        return restore(group, &watches, &queue, journal);
    }
    let there = wds_of(group).map_err(PutBackError::Read)?;
    let missing = |watch: &&LiveWatch<'_>| !there.contains(&watch.wd);
    let missing: Vec<_> = watches.iter().filter(missing).copied().collect();
    attach(group, &missing, journal.next_wd())
}

/// A dumper may have died when it had made a watch to find the cursor, and had not noted its wd.
///
/// The subject was stopped, so a watch is the dumper's that ended since and is not among those
/// that the subject had.
fn recover_next_wd(
    group: BorrowedFd<'_>,
    watches: &[LiveWatch<'_>],
    journal: &mut Journal,
) -> Result<(), PutBackError> {
    drain_into(group, journal).map_err(failed("read"))?;
    let known: HashSet<Wd> = watches.iter().map(|watch| watch.wd).collect();
    let began = journal.began(Phase::Probing);
    let found = record::find_ignored(journal.bytes(), began, |wd| !known.contains(&wd));
    if let (None, Some((_, wd))) = (journal.next_wd(), found) {
        journal.set_next_wd(wd);
    }
    Ok(())
}

/// The wds that a group has.
fn wds_of(group: BorrowedFd<'_>) -> io::Result<HashSet<Wd>> {
    let text = fs::read(format!("/proc/self/fdinfo/{}", group.as_raw_fd()))?;
    let parsed = Group::parse_as(&text, Kind::Inotify, Level::Lenient).map_err(io::Error::other)?;
    Ok(match parsed.body {
        Body::Inotify { watches } => watches.iter().map(|watch| watch.wd).collect(),
        Body::Unstated | Body::Fanotify { .. } => HashSet::new(),
    })
}

fn failed(call: &'static str) -> impl Fn(Errno) -> PutBackError {
    move |errno| PutBackError::Call { call, errno }
}

impl fmt::Display for PutBackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { call, errno } => write!(f, "{call}: {}", errno.desc()),
            Self::Attach { wd, errno } => write!(f, "inotify_add_watch wd {wd}: {}", errno.desc()),
            Self::Rebuild(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PutBackError {}
