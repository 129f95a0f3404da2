//! Defects of unread queues: one event lost, moved, doubled or changed.

use cr::Image;
use fsnotify::Cookie;
use fsnotify::event::inotify::{Event, Events, encode};
use fsnotify::inotify::Mask;

/// `IN_ISDIR`.
const ISDIR: u32 = 0x4000_0000;
/// `IN_MOVED_TO`.
const MOVED_TO: u32 = 0x80;

/// Changes the events of every queue that has some. A queue that does not decode stays.
fn change(image: &mut Image, how: impl for<'a> Fn(&mut Vec<Event<'a>>)) {
    for (_, group) in image.groups_mut() {
        let queue = std::mem::take(&mut group.queue);
        let events: Result<Vec<Event>, _> = Events::new(&queue).collect();
        let Ok(mut events) = events else {
            group.queue = queue;
            continue;
        };
        if !events.is_empty() {
            how(&mut events);
        }
        for event in &events {
            encode(event, &mut group.queue);
        }
    }
}

pub(super) fn forget(image: &mut Image) {
    change(image, |events| events.truncate(0));
}

pub(super) fn forget_first(image: &mut Image) {
    change(image, |events| {
        events.remove(0);
    });
}

pub(super) fn forget_last(image: &mut Image) {
    change(image, |events| {
        events.pop();
    });
}

pub(super) fn forget_overflow(image: &mut Image) {
    change(image, |events| {
        events.retain(|event| !event.mask.contains(Mask::Q_OVERFLOW));
    });
}

/// The first two that differ and are no halves of a rename change places.
pub(super) fn reorder(image: &mut Image) {
    change(image, |events| {
        let differ =
            |pair: &[Event]| pair[0] != pair[1] && pair[0].cookie.0 == 0 && pair[1].cookie.0 == 0;
        if let Some(first) = events.windows(2).position(differ) {
            events.swap(first, first + 1);
        }
    });
}

/// At the end, where it merges with nothing unless there is but one event.
pub(super) fn duplicate(image: &mut Image) {
    change(image, |events| {
        if events.len() > 1 {
            events.push(events[0]);
        }
    });
}

pub(super) fn break_pair(image: &mut Image) {
    change(image, |events| {
        for event in events {
            if event.mask.0 & MOVED_TO != 0 {
                event.cookie = Cookie(event.cookie.0.wrapping_add(1));
            }
        }
    });
}

pub(super) fn rename(image: &mut Image) {
    change(image, |events| {
        for event in events {
            if !event.name.is_empty() {
                event.name = b"another";
            }
        }
    });
}

pub(super) fn lose_isdir(image: &mut Image) {
    change(image, |events| {
        for event in events {
            event.mask = Mask(event.mask.0 & !ISDIR);
        }
    });
}
