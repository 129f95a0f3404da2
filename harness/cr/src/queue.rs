//! The queue of an inotify group: taken out of a live group, and rebuilt in another.
//!
//! There is no call that puts an event into a queue. [`rebuild`] has every event of the saved queue
//! made by the kernel itself, by the operation that makes such an event, but on scratch inodes of
//! a filesystem nobody else can see; and it does so in a group that lets through exactly the event
//! wanted (the `gate` module says how). The result has the same wds, masks, names, padding and order.
//! No other watcher hears anything, no real inode is touched, and whether the objects of the events
//! still exist does not matter.
//!
//! What cannot be kept is small and known before anything is done: [`losses`].

mod basket;
mod cookie;
pub mod cursor;
mod error;
mod gate;
mod grown;
mod journal;
mod leave_running;
mod owner;
mod pairs;
mod plan;
mod record;
mod reenact;
mod scratch;
mod window;

use std::ops::Range;
use std::os::fd::BorrowedFd;

use fsnotify::Wd;
use nix::errno::Errno;

pub use self::basket::{Basket, Memory, Phase, drain_into};
pub use self::cookie::DISTANCE as COOKIE_DISTANCE;
pub use self::error::{Event, Reason, RebuildError};
use self::gate::Gate;
use self::grown::Grown;
pub use self::journal::Journal;
pub use self::leave_running::{
    Live, LiveWatch, PutBack, PutBackError, Taken, Targets, put_back, recover, take,
};
pub use self::owner::Owner;
pub use self::pairs::{Unread, losses_across};
use self::plan::Plan;
use self::scratch::Scratch;
pub use self::window::Window;
use crate::sys::watch;
use crate::{Loss, LossKind};

/// How many unread events a group made now may hold.
const LIMIT: &str = "/proc/sys/fs/inotify/max_queued_events";

/// Reads the events of a group that are unread now: the bytes as read(2) returns them.
///
/// Never waits, even if the group is a blocking one.
///
/// # Errors
///
/// The errno of ioctl(2) or read(2).
pub fn drain(group: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut memory = Memory::default();
    drain_into(group, &mut memory)?;
    Ok(memory.into_bytes())
}

/// The queue without the bytes from one to another, which are whole events. What was behind them now
/// comes behind what was before them, and so it may merge.
#[must_use]
pub fn leave_out(queue: &[u8], bytes: Range<usize>) -> Vec<u8> {
    let mut grown = Grown::new(usize::MAX);
    grown.append(&queue[..bytes.start]);
    grown.append(&queue[bytes.end..]);
    grown.into_bytes()
}

/// How many events a queue may hold in a group made now (`fs.inotify.max_queued_events`).
///
/// A group made earlier keeps the limit of its time.
///
/// # Errors
///
/// That the sysctl is not there or no number; then there is nothing to fill.
pub fn limit() -> Result<usize, RebuildError> {
    let read = std::fs::read_to_string(LIMIT).ok();
    let number = read.and_then(|text| text.trim().parse().ok());
    number.ok_or(RebuildError::Call {
        call: "read max_queued_events",
        errno: Errno::ENOENT,
    })
}

/// What the queue of a group, called `name` in the losses, will lack once it is rebuilt in a group
/// with this limit.
///
/// - The two events of one rename, with another between them, no longer have a common cookie.
/// - A queue that was full to the last event and had not overflowed gets an overflow event. Exact
///   would be a group whose limit is higher, but the sysctl that sets it is one for the whole
///   machine: others would make groups with the wrong limit meanwhile, two restorers would put back
///   each other's value, and a kill would leave it raised. The marker tells a reader that something
///   may be missing, where nothing is.
/// - A queue may begin with the second half of a rename, whose first half may have been read already:
///   its cookie will have another value, and the reader cannot pair the two. Cookies come from one
///   counter of the whole machine, which goes up only. In another boot it may be brought to where it
///   was ([`rebuild_with_cookies`]).
///
/// # Errors
///
/// That it cannot be rebuilt at all: the bytes are not a queue, it is longer than the limit, or it
/// holds an event that nothing known makes.
pub fn losses(name: &str, queue: &[u8], limit: usize) -> Result<Vec<Loss>, RebuildError> {
    let plan = Plan::new(queue, limit)?;
    let loss = |kind, what, reason| Loss::new(kind, format!("queue of {name}: {what}"), reason);
    let mut losses = Vec::new();
    if let Some(index) = plan.head_cookie() {
        losses.push(loss(
            LossKind::CookieChanged,
            format!("cookie of event {index}"),
            "its other half may have been read already, and the kernel counts cookies upwards",
        ));
    }
    losses.extend(plan.parted.iter().map(|(from, to)| {
        loss(
            LossKind::RenameParted,
            format!("events {from} and {to} of one rename"),
            "another event stands between them, so their cookies will differ",
        )
    }));
    if plan.overflow == Some(plan.n_records) {
        losses.push(overflow_added(name));
    }
    Ok(losses)
}

/// Whether there is a way to make a saved queue again, where a queue may be as long. Makes none: no call
/// is made.
pub(crate) fn is_makeable(queue: &[u8]) -> bool {
    Plan::new(queue, usize::MAX).is_ok()
}

fn overflow_added(name: &str) -> Loss {
    Loss::new(
        LossKind::OverflowAdded,
        format!("queue of {name}: exactly full"),
        "it gets an overflow event: a queue is filled by overflowing it",
    )
}

/// Makes the events of a saved queue again in a group that has no unread event.
///
/// The group must have no watch whose wd occurs in the queue. `avoid` are further wds not to use
/// for a moment, such as those of watches that it has. Afterwards it has the events and no watch
/// more than before; where the next wd is searched for is anywhere. What [`losses`] lists is
/// missing.
///
/// # Errors
///
/// Which event could not be made, and why; or what else went wrong. The group is then empty.
pub fn rebuild(group: BorrowedFd<'_>, queue: &[u8], avoid: &[Wd]) -> Result<(), RebuildError> {
    rebuild_with_cookies(group, queue, avoid, 0)
}

/// [`rebuild`], with the cookie of [`LossKind::CookieChanged`] the one that it was, where the machine's
/// counter is at most `distance` before it. If others rename at the same moment, it may be missed.
///
/// # Errors
///
/// Those of [`rebuild`].
pub fn rebuild_with_cookies(
    group: BorrowedFd<'_>,
    queue: &[u8],
    avoid: &[Wd],
    distance: u32,
) -> Result<(), RebuildError> {
    if queue.is_empty() {
        return Ok(());
    }
    let limit = limit()?;
    let plan = Plan::new(queue, limit)?;
    let unread = watch::unread(group).map_err(failed("FIONREAD"))?;
    if unread != 0 {
        return Err(RebuildError::NotEmpty { unread });
    }
    rebuild_planned(group, &plan, ((limit, distance), None), avoid)
}

/// Makes the events of a queue again in the group that had them, which has neither watches nor unread
/// events now. Its limit is that of the time it was made in, and may be another than that of a new one.
///
/// Whether it gets an overflow event that it did not have, as [`losses`] says, is the result.
fn rebuild_again(group: BorrowedFd<'_>, queue: &[u8]) -> Result<bool, RebuildError> {
    if queue.is_empty() {
        return Ok(false);
    }
    let filled = Filled::new(group)?;
    let limit = filled.gate.limit();
    let mut grown = Grown::new(limit);
    grown.append(queue);
    let queue = grown.into_bytes();
    let plan = Plan::new(&queue, limit)?;
    let is_full = plan.overflow == Some(plan.n_records);
    let params = (limit, 0);
    let filled = match plan.overflow {
        None => Some(filled),
        Some(_) => {
            drain(group).map_err(failed("read"))?;
            None
        }
    };
    rebuild_planned(group, &plan, (params, filled), &[]).map(|()| is_full)
}

/// A group with a closed gate, which shows its limit, and nothing else.
struct Filled<'g> {
    scratch: Scratch<'g>,
    gate: Gate<'g>,
}

impl<'g> Filled<'g> {
    fn new(group: BorrowedFd<'g>) -> Result<Self, RebuildError> {
        // Any that are free: a closed gate has no watch.
        let wds = [i32::MAX, i32::MAX - 1].map(|number| Wd::new(number).expect("positive"));
        let scratch = Scratch::new(group).map_err(failed("fsmount of a tmpfs"))?;
        let gate = Gate::closed(group, scratch.root(), wds, limit()?);
        if gate.is_err() {
            clear(group, wds);
        }
        Ok(Self {
            scratch,
            gate: gate?,
        })
    }
}

/// Takes what is left of a failed attempt: the report is that of the failure, and this can fail only
/// where that did.
fn clear(group: BorrowedFd<'_>, wds: [Wd; 2]) {
    for wd in wds {
        let _ = watch::rm_watch(group, wd);
    }
    let _ = drain(group);
}

fn rebuild_planned<'g>(
    group: BorrowedFd<'g>,
    plan: &Plan<'_>,
    ((limit, distance), filled): ((usize, u32), Option<Filled<'g>>),
    avoid: &[Wd],
) -> Result<(), RebuildError> {
    // A sampled check may find too late to say which event it was. The second time, every one is
    // looked at.
    let sampled = (limit, Check::Sampled, distance);
    attempt(group, plan, (sampled, filled), avoid)
        .or_else(|_| attempt(group, plan, ((limit, Check::Each, distance), None), avoid))
}

/// How often the size of the queue is compared with what it should be. Counting takes the kernel
/// time linear in the length of the queue, which is full of junk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Each,
    /// Each of the first steps, then every so many.
    Sampled,
}

impl Check {
    const FIRST: usize = 16;

    fn at(self, n_step: usize, limit: usize) -> bool {
        match self {
            Self::Each => true,
            // At 5 ns an event, a comparison then costs a step 0.3 us.
            Self::Sampled => n_step < Self::FIRST || n_step.is_multiple_of(limit / 64 + 1),
        }
    }
}

/// One go at it, which leaves the group empty and without scratch watches if it fails.
fn attempt<'g>(
    group: BorrowedFd<'g>,
    plan: &Plan<'_>,
    ((limit, check, distance), filled): ((usize, Check, u32), Option<Filled<'g>>),
    avoid: &[Wd],
) -> Result<(), RebuildError> {
    let wds = plan.unused_wds(avoid);
    let (mut scratch, gate) = match filled {
        Some(Filled { scratch, gate }) => (scratch, Ok(gate)),
        None => {
            let scratch = Scratch::new(group).map_err(failed("fsmount of a tmpfs"))?;
            let gate = fill(group, plan, (limit, wds), &scratch);
            (scratch, gate)
        }
    };
    let rebuilt = gate.and_then(|mut gate| {
        play(plan, (check, distance), &mut gate, &mut scratch)?;
        finish(plan, gate, &mut scratch)
    });
    if rebuilt.is_err() {
        let _ = scratch.drop_watches();
        clear(group, wds);
    }
    rebuilt
}

fn fill<'g>(
    group: BorrowedFd<'g>,
    plan: &Plan<'_>,
    (limit, wds): (usize, [Wd; 2]),
    scratch: &Scratch<'g>,
) -> Result<Gate<'g>, RebuildError> {
    match plan.overflow {
        Some(n_before) => Gate::open(group, scratch.root(), wds, (limit, n_before)),
        None => Gate::closed(group, scratch.root(), wds, limit),
    }
}

/// Makes the events, behind the junk that the gate has at its head.
fn play<'g>(
    plan: &Plan<'_>,
    (check, distance): (Check, u32),
    gate: &mut Gate<'g>,
    scratch: &mut Scratch<'g>,
) -> Result<(), RebuildError> {
    for (n_step, step) in plan.steps.iter().enumerate() {
        if plan.head_cookie() == Some(step.record.index) {
            cookie::approach(step.record.cookie, distance).map_err(failed("rename"))?;
        }
        reenact::perform(step, gate, scratch).map_err(|reason| step.record.error(reason))?;
        if check.at(n_step, gate.limit()) {
            let found = gate.unread().map_err(failed("FIONREAD"))?;
            let expected = gate.junk_size() + step.end;
            if found != expected {
                return Err(step.record.error(Reason::Unheard { expected, found }));
            }
        }
    }
    Ok(())
}

/// Takes the scaffolding away: what is left is the saved queue.
fn finish(
    plan: &Plan<'_>,
    mut gate: Gate<'_>,
    scratch: &mut Scratch<'_>,
) -> Result<(), RebuildError> {
    let mut size = plan.steps.last().map_or(0, |step| step.end);
    if !gate.is_closed() {
        gate.overflow().map_err(failed("fchmod"))?;
        size += record::HEADER;
    }
    let expected = gate.junk_size() + size;
    scratch
        .drop_watches()
        .and_then(|()| gate.drop_watches())
        .map_err(failed("inotify_rm_watch"))?;
    let found = gate.unread().map_err(failed("FIONREAD"))?;
    if found != expected {
        return Err(RebuildError::Size { expected, found });
    }
    let group = gate.finish().map_err(failed("read"))?;
    let found = watch::unread(group).map_err(failed("FIONREAD"))?;
    if found != size {
        let expected = size;
        return Err(RebuildError::Size { expected, found });
    }
    Ok(())
}

fn failed(call: &'static str) -> impl Fn(Errno) -> RebuildError {
    move |errno| RebuildError::Call { call, errno }
}
