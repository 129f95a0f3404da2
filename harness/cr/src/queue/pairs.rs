//! Renames that several groups have heard. Each queue is made again for itself, so a rename has
//! another cookie in each, and who compares them across groups finds no pair any more.

use std::collections::HashMap;

use fsnotify::counted;
use fsnotify::event::inotify::{Event, Events};
use fsnotify::inotify::Mask;

use crate::{Loss, LossKind};

/// One group of several that are dumped together.
#[derive(Clone, Copy, Debug)]
pub struct Unread<'a> {
    /// What the group is called in the losses.
    pub name: &'a str,
    pub queue: &'a [u8],
    /// What any of its watches selects.
    pub selects: Mask,
}

/// What will not pair across these groups. Within a queue, [`super::losses`] says it; and that its first
/// event is the second half of a rename, of which the first may have been read.
#[must_use]
pub fn losses_across(groups: &[Unread<'_>]) -> Vec<Loss> {
    // By cookie, of which groups the halves are.
    let mut heard_by: HashMap<u32, Vec<usize>> = HashMap::new();
    for (index, group) in groups.iter().enumerate() {
        for (_, event) in halves(group.queue) {
            heard_by.entry(event.cookie.0).or_default().push(index);
        }
    }
    let mut losses = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let others = groups
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        let selected = others.fold(0, |mask, (_, other)| mask | other.selects.0);
        let (mut n_shared, mut n_lone) = (0, 0);
        for (at, event) in halves(group.queue) {
            let heard_by = &heard_by[&event.cookie.0];
            let is_shared = heard_by.iter().any(|other| *other != index);
            let is_head = at == 0 && event.mask.0 & libc::IN_MOVED_TO != 0;
            let other_half = libc::IN_MOVE & !event.mask.0;
            let may_be_read = heard_by.len() == 1 && selected & other_half != 0;
            n_shared += usize::from(is_shared);
            n_lone += usize::from(may_be_read && !is_head);
        }
        for (n, reason) in [
            (
                n_shared,
                "another group has heard of the same renames, and each gets cookies of its own",
            ),
            (
                n_lone,
                "another group may have read the other half, and the kernel counts cookies upwards",
            ),
        ] {
            if n > 0 {
                let object = format!(
                    "queue of {}: cookies of {}",
                    group.name,
                    counted(n, "event")
                );
                losses.push(Loss::new(LossKind::CookieChanged, object, reason));
            }
        }
    }
    losses
}

/// Events of renames, and which of all events they are.
fn halves(queue: &[u8]) -> impl Iterator<Item = (usize, Event<'_>)> {
    let events = Events::new(queue).map_while(Result::ok).enumerate();
    events.filter(|(_, event)| event.mask.0 & libc::IN_MOVE != 0)
}

#[cfg(test)]
mod tests {
    use super::super::record::encode;
    use super::*;

    const FROM: u32 = libc::IN_MOVED_FROM;
    const TO: u32 = libc::IN_MOVED_TO;

    /// Kind and cookie of what is unread in each of two groups, and what each selects.
    #[track_caller]
    fn check(groups: [(&[(u32, u32)], u32); 2], expected: &[&str]) {
        let queues = groups.map(|(events, _)| {
            let bytes = events.iter().map(|it| encode(1, it.0, it.1, Some(b"name")));
            bytes.flatten().collect::<Vec<u8>>()
        });
        let group = |index: usize| Unread {
            name: ["fd 3", "fd 4"][index],
            queue: &queues[index],
            selects: Mask(groups[index].1),
        };
        let losses = losses_across(&[group(0), group(1)]);
        let found: Vec<String> = losses.iter().map(|loss| loss.object.clone()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn renames_of_several_groups_are_declared() {
        let (both, pair) = (FROM | TO, [(FROM, 7), (TO, 7)]);
        check([(&pair, both), (&[], both)], &[]);
        check(
            [(&pair, both), (&pair, both)],
            &[
                "queue of fd 3: cookies of 2 events",
                "queue of fd 4: cookies of 2 events",
            ],
        );
        check(
            [(&[(FROM, 7)], FROM), (&[(libc::IN_CREATE, 0), (TO, 7)], TO)],
            &[
                "queue of fd 3: cookies of 1 event",
                "queue of fd 4: cookies of 1 event",
            ],
        );
    }

    #[test]
    fn a_half_that_another_group_may_have_read_is_declared() {
        let late = [(libc::IN_CREATE, 0), (TO, 7)];
        check(
            [(&[], FROM), (&late, TO)],
            &["queue of fd 4: cookies of 1 event"],
        );
        check([(&[], TO), (&late, TO)], &[]);
        check(
            [(&[(FROM, 7)], FROM), (&[], TO)],
            &["queue of fd 3: cookies of 1 event"],
        );
        // Its own queue says so.
        check([(&[], FROM), (&[(TO, 7)], TO)], &[]);
    }
}
