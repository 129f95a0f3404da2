//! Differences that follow from others: what a queue that is lost makes of later reads, and content
//! that is lost of later events. Each is laid to the invariant, or to the object, of its cause, so
//! that who declared the cause declared this; no other difference is.

use fsnotify::inotify::Mask;
use scenario::{Event, Fact, FanotifyEvent};

use crate::difference::Difference;
use crate::invariant;

#[derive(Debug, Default)]
pub(super) struct Consequences {
    /// Events read in place of lost ones, each with its group and, where it is told as a difference
    /// of its own, the index of that.
    early: Vec<(String, Fact, Option<usize>)>,
    /// What content was lost of, as a difference names it.
    unread: Vec<String>,
}

impl Consequences {
    /// The restored run read an event where control read unread ones that are lost: a queue that is
    /// shorter is read further by a read of the same size.
    pub(super) fn came_early(&mut self, fact: &Fact, differences: &[Difference], at: usize) {
        let object = differences[at].object.clone();
        self.early.push((object, plain(fact), Some(at)));
    }

    /// As [`Self::came_early`], of an event that is told as what a lost one became.
    pub(super) fn came_instead(&mut self, fact: &Fact, object: String) {
        self.early.push((object, plain(fact), None));
    }

    /// Control has something that the restored run has not, which `differences[at]` tells.
    pub(super) fn lost(&mut self, fact: &Fact, differences: &mut [Difference], at: usize) {
        match fact {
            Fact::Content(_) => self.unread.push(differences[at].object.clone()),
            Fact::Event(_) | Fact::FanotifyEvent(_) => {
                let is_this = |(object, early, _): &(String, Fact, Option<usize>)| {
                    *object == differences[at].object && *early == plain(fact)
                };
                if let Some(index) = self.early.iter().position(is_this) {
                    let (_, _, told) = self.early.remove(index);
                    for index in told.into_iter().chain([at]) {
                        differences[index].invariant = invariant::UNREAD_ORDER;
                    }
                } else if is_access(fact) {
                    // A read that finds nothing is not told.
                    for object in &self.unread {
                        differences[at].object += &format!(", {object}");
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether an event is what is left of a lost one: the kernel merges an event into an unread one of
/// the same object (`fanotify_merge`), and does not where that one is gone.
pub(super) fn is_rest(lost: &Fact, spurious: &Fact) -> bool {
    const DIRECTORY: u64 = 0x4000_0000;
    match (lost, spurious) {
        (Fact::FanotifyEvent(lost), Fact::FanotifyEvent(rest)) => {
            let without_mask = |event: &FanotifyEvent| FanotifyEvent {
                mask: 0,
                ..event.clone()
            };
            let kinds = |event: &FanotifyEvent| event.mask & !DIRECTORY;
            without_mask(lost) == without_mask(rest)
                && kinds(rest) & !kinds(lost) == 0
                && kinds(rest) != kinds(lost)
        }
        _ => false,
    }
}

fn is_access(fact: &Fact) -> bool {
    const ACCESS: u32 = 0x1;
    match fact {
        Fact::Event(event) => event.mask.0 & !Mask::ISDIR.0 == ACCESS,
        Fact::FanotifyEvent(event) => event.mask == u64::from(ACCESS),
        _ => false,
    }
}

/// The event without what depends on who reads it and when.
fn plain(fact: &Fact) -> Fact {
    match fact {
        Fact::Event(event) => Fact::Event(Event {
            fd: None,
            cookie: 0,
            ..event.clone()
        }),
        Fact::FanotifyEvent(event) => Fact::FanotifyEvent(FanotifyEvent {
            fd: None,
            ..event.clone()
        }),
        _ => fact.clone(),
    }
}
