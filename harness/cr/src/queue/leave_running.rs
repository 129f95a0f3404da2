//! Taking the queue of a live group, and putting it back into the same group.
//!
//! To be copied, a queue must be read, and then the subject no longer has it. If the subject is to
//! run on, because it was only to be copied or because the dump failed, its group is *stripped* of
//! its watches, gets its queue rebuilt, and its watches attached again.
//!
//! An event that comes while a watch is off is heard by nobody. Whether one came is not guessed: a
//! sentinel group has the same watches all that time ([`Window`]). The subject itself is stopped
//! meanwhile; it is about others.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::{fmt, fs, io};

use fsnotify::Wd;
use fsnotify::fdinfo::{Body, Group, Kind, Level};
use fsnotify::inotify::Mask;
use nix::errno::Errno;

use super::basket::{Basket, Phase, drain_into};
use super::cursor::{self, Probe};
use super::error::RebuildError;
use super::grown::Grown;
use super::journal::Journal;
use super::owner::Owner;
use super::window::{Sentinel, Window};
use super::{overflow_added, rebuild_again, record};
use crate::Loss;
use crate::sys::watch;

/// A watch of a live group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveWatch {
    pub wd: Wd,
    /// As fdinfo shows it.
    pub mask: Mask,
}

/// What watches are on. It is opened when it is needed and closed again: there may be more watches
/// than a process may have open files.
pub trait Targets: fmt::Debug {
    /// Opens it with `O_PATH`, so that having it makes no event. None if nothing leads there any more.
    ///
    /// # Errors
    ///
    /// The errno of a call that says nothing about the target: `EMFILE`.
    fn open(&mut self, wd: Wd) -> Result<Option<OwnedFd>, Errno>;
}

/// A live group, its watches in the order of fdinfo, and what they are on.
#[derive(Debug)]
pub struct Live<'a> {
    pub group: BorrowedFd<'a>,
    pub watches: &'a [LiveWatch],
    pub targets: &'a mut dyn Targets,
    /// Whom [`take`] has taken away.
    pub owner: Option<Owner>,
}

/// What was read out of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Unread events as read(2) returns them.
    pub queue: Vec<u8>,
    /// The wd that the next new watch gets; or why that could not be found.
    pub next_wd: Result<Wd, Errno>,
}

/// What became of a queue that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutBack {
    pub window: Window,
    /// It was exactly full, and has got an overflow event.
    pub overflow_added: bool,
}

impl PutBack {
    const NOTHING: Self = Self {
        window: Window::Quiet,
        overflow_added: false,
    };

    /// What the queue of a group, called `name` in the losses, lacks or has for it.
    #[must_use]
    pub fn losses(self, name: &str) -> Vec<Loss> {
        let overflow = self.overflow_added.then(|| overflow_added(name));
        self.window.loss(name).into_iter().chain(overflow).collect()
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
/// not run before [`put_back`], unless it is never to run again. The owner, if there is one to be sent
/// signals, is taken away: the dumper makes events from here on.
///
/// # Errors
///
/// The errno of ioctl(2) or read(2), or that of the basket. Part of the queue may be in the basket.
pub fn take(
    group: BorrowedFd<'_>,
    basket: &mut dyn Basket,
    owner: Option<Owner>,
) -> Result<Taken, Errno> {
    basket.enter(Phase::Draining);
    drain_into(group, basket)?;
    if owner.is_some() {
        Owner::hush(group)?;
    }
    let next_wd = match basket.next_wd() {
        Some(wd) => Ok(wd),
        None => find_next_wd(group, basket)?,
    };
    if let Ok(wd) = next_wd {
        cursor::set(group, wd)?;
    }
    let queue = whole(basket, own(basket), super::limit().unwrap_or(usize::MAX));
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

/// Where events are that the dumper made by watches of its own. They have the number of the next
/// watch, which is nobody's.
fn own(basket: &dyn Basket) -> Vec<usize> {
    let Some(wd) = basket.next_wd() else {
        return Vec::new();
    };
    record::of_watch(basket.bytes(), basket.began(Phase::Probing), wd)
}

/// All that was read but for the dumper's own, as the queue would be had nobody read it. A queue that
/// was longer than the limit when it was read has another limit.
fn whole(basket: &dyn Basket, own: Vec<usize>, limit: usize) -> Vec<u8> {
    let bytes = basket.bytes();
    let parts = [Phase::Probing, Phase::Stripping].map(|phase| basket.began(phase));
    let first = record::count(&bytes[..parts[0]]);
    Grown::of_parts(bytes, &own, &parts, limit.max(first)).into_bytes()
}

/// Puts the queue back into the group from which [`take`] read it into the basket, and behind it
/// what came since.
///
/// # Errors
///
/// What failed. A basket that outlives this process has what [`recover`] needs.
pub fn put_back(live: &mut Live<'_>, basket: &mut dyn Basket) -> Result<PutBack, PutBackError> {
    if has_only_own(basket) && is_told(live).map_err(failed("F_SETOWN_EX"))? {
        return Ok(PutBack::NOTHING);
    }
    let mut sentinel = listen(live, basket.next_wd())?;
    drain_into(live.group, basket).map_err(failed("read"))?;
    basket.enter(Phase::Stripping);
    if let (Ok(listening), Some(wd)) = (&mut sentinel, basket.next_wd())
        && let Err(errno) = listening.mark(live.group, wd)
    {
        sentinel = Err(errno);
    }
    let stripped = strip(live, basket, |_, _| Ok(false))?;
    if let (Ok(listening), Some(wd)) = (&mut sentinel, basket.next_wd()) {
        let compared = listening.compare((basket.bytes(), wd), &stripped);
        sentinel = compared.and(sentinel);
    }
    let overflow_added = restore(live, &stripped, basket, sentinel.as_mut().ok())?;
    Ok(PutBack {
        window: sentinel.map_or_else(Window::Unknown, Sentinel::window),
        overflow_added,
    })
}

fn has_only_own(basket: &dyn Basket) -> bool {
    own(basket).len() * record::HEADER == basket.bytes().len()
}

/// Gives a group of which nothing was taken its owner again; false if there is something of which he
/// was not told meanwhile.
fn is_told(live: &Live<'_>) -> Result<bool, Errno> {
    let Some(owner) = live.owner else {
        return Ok(true);
    };
    owner.give_back(live.group)?;
    if watch::unread(live.group)? == 0 {
        return Ok(true);
    }
    Owner::hush(live.group)?;
    Ok(false)
}

/// Has a sentinel listen to all that the watches are on. What cannot be opened now cannot be attached
/// later, and is better found out before the watch is taken off.
fn listen(
    live: &mut Live<'_>,
    next_wd: Option<Wd>,
) -> Result<Result<Sentinel, Errno>, PutBackError> {
    let mut sentinel = match next_wd {
        Some(_) => Sentinel::new(),
        // Who may make no watch more.
        None => Err(Errno::ENOSPC),
    };
    let mut lost = Vec::new();
    for &watch in live.watches {
        let target = live.targets.open(watch.wd);
        let target = target.map_err(|errno| PutBackError::Attach {
            wd: watch.wd,
            errno,
        })?;
        match (target, &mut sentinel) {
            (None, _) => lost.push(watch.wd),
            (Some(target), Ok(listening)) => {
                if let Err(errno) = listening.add(watch, &target) {
                    sentinel = Err(errno);
                }
            }
            (Some(_), Err(_)) => {}
        }
    }
    refuse_lost(live.group, &lost)?;
    Ok(sentinel)
}

/// A watch may have ended with what it was on. If it has not, it must stay where it is.
fn refuse_lost(group: BorrowedFd<'_>, lost: &[Wd]) -> Result<(), PutBackError> {
    if lost.is_empty() {
        return Ok(());
    }
    let there = wds_of(group).map_err(PutBackError::Read)?;
    let errno = Errno::ENOENT;
    match lost.iter().find(|wd| there.contains(wd)) {
        Some(&wd) => Err(PutBackError::Attach { wd, errno }),
        None => Ok(()),
    }
}

/// Removes the watches that are there, and reads their ends: each on its own, as no more is known of
/// the group's limit than that it holds one event. Which it removed is the result; and of those that
/// were not there, those that `was_stripped` says a dumper before us has removed.
fn strip(
    live: &mut Live<'_>,
    basket: &mut dyn Basket,
    mut was_stripped: impl FnMut(&mut Live<'_>, LiveWatch) -> Result<bool, PutBackError>,
) -> Result<Vec<LiveWatch>, PutBackError> {
    let mut stripped = Vec::new();
    for &watch in live.watches {
        let is_ours = match watch::rm_watch(live.group, watch.wd) {
            Ok(()) => true,
            Err(Errno::EINVAL) => was_stripped(live, watch)?,
            Err(errno) => return Err(failed("inotify_rm_watch")(errno)),
        };
        if is_ours {
            stripped.push(watch);
        }
        drain_into(live.group, basket).map_err(failed("read"))?;
    }
    // Of watches that are not ours to put back there are none left, so nothing comes any more.
    drain_into(live.group, basket).map_err(failed("read"))?;
    Ok(stripped)
}

/// Where the dumper's own events are, among them the ends of watches that it removed.
fn own_and_ends(basket: &dyn Basket, stripped: &[LiveWatch]) -> Vec<usize> {
    let heard = record::first_heard(basket.bytes(), basket.began(Phase::Stripping));
    let ends = stripped.iter().filter_map(|it| heard.get(&it.wd)?.ended);
    ends.chain(own(basket)).collect()
}

/// Gives a stripped and empty group its queue, its watches and its cursor; whether it has an overflow
/// event more.
fn restore(
    live: &mut Live<'_>,
    stripped: &[LiveWatch],
    basket: &mut dyn Basket,
    sentinel: Option<&mut Sentinel>,
) -> Result<bool, PutBackError> {
    let queue = whole(basket, own_and_ends(basket, stripped), usize::MAX);
    let wds: Vec<Wd> = stripped.iter().map(|watch| watch.wd).collect();
    basket.set_final(&queue, &wds).map_err(failed("journal"))?;
    basket.enter(Phase::Rebuilding);
    let told = &basket.bytes()[..basket.began(Phase::Probing)];
    if let Some(owner) = live.owner
        && record::count(&queue) > record::count(told)
    {
        owner.signal(live.group).map_err(failed("F_SETOWN_EX"))?;
    }
    let overflow_added = rebuild(live, &queue)?;
    basket.enter(Phase::Attaching);
    attach(live, stripped, (basket.next_wd(), sentinel))?;
    Ok(overflow_added)
}

/// From here on events are those of others, so the owner hears of them.
fn rebuild(live: &Live<'_>, queue: &[u8]) -> Result<bool, PutBackError> {
    let overflow_added = rebuild_again(live.group, queue).map_err(PutBackError::Rebuild)?;
    let told = live.owner.map(|owner| owner.give_back(live.group));
    told.transpose().map_err(failed("F_SETOWN_EX"))?;
    Ok(overflow_added)
}

/// Attaches watches, the oldest first, and sets the cursor. One that cannot be attached does not keep
/// the others from it.
fn attach(
    live: &mut Live<'_>,
    watches: &[LiveWatch],
    (next_wd, mut sentinel): (Option<Wd>, Option<&mut Sentinel>),
) -> Result<(), PutBackError> {
    let mut result = Ok(());
    for &watch in watches.iter().rev() {
        let wd = watch.wd;
        if let Err(errno) = attach_one(live, watch, sentinel.as_deref_mut()) {
            result = result.and(Err(PutBackError::Attach { wd, errno }));
        }
    }
    if let Some(wd) = next_wd {
        cursor::set(live.group, wd).map_err(failed("INOTIFY_IOC_SETNEXTWD"))?;
    }
    result
}

fn attach_one(
    live: &mut Live<'_>,
    LiveWatch { wd, mask }: LiveWatch,
    mut sentinel: Option<&mut Sentinel>,
) -> Result<(), Errno> {
    let mut has_ended = || sentinel.as_mut().map(|it| it.has_ended(wd)).transpose();
    let ended = has_ended()?;
    let target = if ended == Some(true) {
        None
    } else {
        live.targets.open(wd)?
    };
    if let Some(target) = target {
        watch::attach(live.group, wd, mask, &target)?;
        return sentinel.map_or(Ok(()), |sentinel| sentinel.leave(wd));
    }
    if has_ended()? == Some(false) {
        return Err(Errno::ENOENT);
    }
    // It has ended with what it was on, as the subject has to be told.
    Probe::new()?.end(live.group, wd)
}

/// Does what a dumper had left to do that was killed between the beginning of [`take`] and the
/// end of [`put_back`]: the group has its queue and its watches again.
///
/// `live` has the watches that the group had when the journal was made, in the order of fdinfo then.
/// The subject must not have run meanwhile.
///
/// # Errors
///
/// What failed; the journal is as good as before.
pub fn recover(live: &mut Live<'_>, journal: &mut Journal) -> Result<(), PutBackError> {
    let Some((queue, wds)) = journal.final_state().map_err(PutBackError::Read)? else {
        return recover_taken(live, journal);
    };
    let wds: HashSet<Wd> = wds.into_iter().collect();
    let mut watches = live.watches.to_vec();
    watches.retain(|watch| wds.contains(&watch.wd));
    if journal.phase().map_err(PutBackError::Read)? == Phase::Rebuilding {
        // The group has no watch of the subject, and what it holds is scaffolding.
        super::drain(live.group).map_err(failed("read"))?;
        rebuild(live, &queue)?;
        journal.enter(Phase::Attaching);
    }
    let there = wds_of(live.group).map_err(PutBackError::Read)?;
    watches.retain(|watch| !there.contains(&watch.wd));
    attach(live, &watches, (journal.next_wd(), None))
}

/// What was read is not yet, or only in part, put together.
fn recover_taken(live: &mut Live<'_>, journal: &mut Journal) -> Result<(), PutBackError> {
    recover_next_wd(live, journal)?;
    take(live.group, journal, live.owner).map_err(failed("read"))?;
    if has_only_own(journal) && is_told(live).map_err(failed("F_SETOWN_EX"))? {
        return Ok(());
    }
    drain_into(live.group, journal).map_err(failed("read"))?;
    let mut lost = Vec::new();
    for watch in live.watches {
        let wd = watch.wd;
        let target = live.targets.open(wd);
        if target
            .map_err(|errno| PutBackError::Attach { wd, errno })?
            .is_none()
        {
            lost.push(wd);
        }
    }
    refuse_lost(live.group, &lost)?;
    let lost: HashSet<Wd> = lost.into_iter().collect();
    let heard = record::first_heard(journal.bytes(), journal.began(Phase::Stripping));
    journal.enter(Phase::Stripping);
    let stripped = strip(live, journal, |_, watch| {
        // A watch ends by itself with what it is on, or by firing.
        let Some((end, first)) = heard
            .get(&watch.wd)
            .and_then(|it| Some((it.ended?, it.first)))
        else {
            return Ok(false);
        };
        let has_fired = watch.mask.0 & libc::IN_ONESHOT != 0 && first != end;
        Ok(!lost.contains(&watch.wd) && !has_fired)
    })?;
    restore(live, &stripped, journal, None).map(drop)
}

/// A dumper may have died when it had made a watch to find the cursor, and had not noted its wd.
///
/// The subject was stopped, so a watch is the dumper's that ended since and is not among those
/// that the subject had.
fn recover_next_wd(live: &Live<'_>, journal: &mut Journal) -> Result<(), PutBackError> {
    drain_into(live.group, journal).map_err(failed("read"))?;
    let known: HashSet<Wd> = live.watches.iter().map(|watch| watch.wd).collect();
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
