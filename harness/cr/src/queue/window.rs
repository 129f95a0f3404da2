//! What came while the watches of a live group were off: heard by nobody but a group of our own.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fsnotify::event::inotify::Events;
use fsnotify::inotify::Mask;
use fsnotify::{Wd, counted};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};

use super::leave_running::LiveWatch;
use crate::sys::watch;
use crate::{Loss, LossKind};

/// Whether an event can have come while the watches were off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// All that came is in the queue.
    Quiet,
    /// So many events came that are missing.
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
                    "{} came while its watches were off",
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

/// A group of our own with the same watches as the subject's.
///
/// It gets them before the subject's are taken off, one by one, so what it hears at first the other
/// has heard as well. Up to where, a *mark* says: an event that both get at once, on a file that nobody
/// else has. Behind it both hear the same, until a watch is taken off; what the sentinel hears of that
/// watch from then on is missing.
#[derive(Debug)]
pub(super) struct Sentinel {
    group: OwnedFd,
    mark: OwnedFd,
    /// The watches that were taken off and are not there again.
    off: HashSet<Wd>,
    /// Of these, those that have ended meanwhile.
    ended: HashSet<Wd>,
    n_lost: usize,
}

impl Sentinel {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            group: watch::init()?,
            mark: memfd_create(c"mark", MFdFlags::MFD_CLOEXEC)?,
            off: HashSet::new(),
            ended: HashSet::new(),
            n_lost: 0,
        })
    }

    pub(super) fn add(&mut self, watch: LiveWatch, target: &OwnedFd) -> Result<(), Errno> {
        // It must hear more than one event.
        let mask = Mask((watch.mask.0 | watch::NO_EVENT.0) & !libc::IN_ONESHOT);
        let group = self.group.as_fd();
        watch::set_next_wd(group, watch.wd)?;
        watch::add_watch_on(group, target, mask).map(drop)
    }

    /// Makes the mark, by a watch with a number that is free in the subject's group.
    pub(super) fn mark(&mut self, group: BorrowedFd<'_>, wd: Wd) -> Result<(), Errno> {
        let both = [self.group.as_fd(), group];
        for group in both {
            watch::attach(group, wd, Mask(libc::IN_ATTRIB), &self.mark)?;
        }
        fchmod(&self.mark, Mode::S_IRWXU)?;
        both.into_iter().try_for_each(|it| watch::rm_watch(it, wd))
    }

    /// Compares with what the subject has heard, now that its watches are off: the bytes of which are
    /// given, and the number of the mark.
    pub(super) fn compare(
        &mut self,
        (bytes, mark): (&[u8], Wd),
        off: &[LiveWatch],
    ) -> Result<(), Errno> {
        let theirs = behind_mark(bytes, mark)?;
        let heard = super::drain(self.group.as_fd())?;
        let ours = behind_mark(&heard, mark)?;
        for watch in off {
            let of = |counts: &HashMap<Wd, usize>| counts.get(&watch.wd).copied().unwrap_or(0);
            self.n_lost += of(&ours).saturating_sub(of(&theirs));
            self.off.insert(watch.wd);
        }
        self.note(&heard, false);
        Ok(())
    }

    /// Whether a watch that was taken off has ended since.
    pub(super) fn has_ended(&mut self, wd: Wd) -> Result<bool, Errno> {
        self.listen()?;
        Ok(self.ended.contains(&wd))
    }

    /// The subject has the watch again.
    pub(super) fn leave(&mut self, wd: Wd) -> Result<(), Errno> {
        self.listen()?;
        self.off.remove(&wd);
        // It may have ended by itself.
        let _ = watch::rm_watch(self.group.as_fd(), wd);
        Ok(())
    }

    pub(super) fn window(mut self) -> Window {
        match self.listen() {
            Err(errno) => Window::Unknown(errno),
            Ok(()) if self.n_lost == 0 => Window::Quiet,
            Ok(()) => Window::Heard {
                n_events: self.n_lost,
            },
        }
    }

    fn listen(&mut self) -> Result<(), Errno> {
        let heard = super::drain(self.group.as_fd())?;
        self.note(&heard, true);
        Ok(())
    }

    fn note(&mut self, heard: &[u8], are_lost: bool) {
        for event in Events::new(heard).map_while(Result::ok) {
            match event.wd {
                // More than it can hold came.
                None => self.n_lost += 1,
                // The subject will be told.
                Some(wd) if event.mask == Mask::IGNORED => drop(self.ended.insert(wd)),
                Some(wd) => self.n_lost += usize::from(are_lost && self.off.contains(&wd)),
            }
        }
    }
}

/// How many events of each watch lie behind the mark, its end not counted.
fn behind_mark(bytes: &[u8], mark: Wd) -> Result<HashMap<Wd, usize>, Errno> {
    let mut found = None;
    for event in Events::new(bytes).map_while(Result::ok) {
        let Some(wd) = event.wd else {
            continue;
        };
        if wd == mark && event.mask.0 == libc::IN_ATTRIB {
            found = Some(HashMap::new());
        } else if event.mask != Mask::IGNORED
            && let Some(found) = &mut found
        {
            *found.entry(wd).or_default() += 1;
        }
    }
    // It was dropped if either queue was full.
    found.ok_or(Errno::ENOBUFS)
}
