//! Whether two queues are the same to a reader: all bytes but the cookies, whose values may differ
//! as long as the same events share one.

use std::collections::HashMap;
use std::fmt::Write;

use fsnotify::inotify::Mask;

pub(crate) struct Event<'a> {
    pub(crate) wd: i32,
    pub(crate) mask: u32,
    pub(crate) cookie: u32,
    /// With its padding.
    pub(crate) name: &'a [u8],
}

pub(crate) fn events(mut queue: &[u8]) -> Vec<Event<'_>> {
    let mut events = Vec::new();
    while let Some((header, rest)) = queue.split_first_chunk::<16>() {
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let (name, rest) = rest.split_at(usize::try_from(word(12)).unwrap());
        events.push(Event {
            wd: word(0).cast_signed(),
            mask: word(4),
            cookie: word(8),
            name,
        });
        queue = rest;
    }
    events
}

/// The first difference in words; none if the queues are equal.
pub(crate) fn difference(saved: &[u8], rebuilt: &[u8]) -> Option<String> {
    let (saved, rebuilt) = (events(saved), events(rebuilt));
    let mut cookies = (HashMap::new(), HashMap::new());
    for (index, (one, other)) in saved.iter().zip(&rebuilt).enumerate() {
        let equal = (one.wd, one.mask, one.name) == (other.wd, other.mask, other.name)
            && (one.cookie == 0) == (other.cookie == 0)
            && *cookies.0.entry(one.cookie).or_insert(other.cookie) == other.cookie
            && *cookies.1.entry(other.cookie).or_insert(one.cookie) == one.cookie;
        if !equal {
            return Some(format!(
                "event {index}: {} became {}",
                show(one),
                show(other)
            ));
        }
    }
    (saved.len() != rebuilt.len())
        .then(|| format!("{} events became {}", saved.len(), rebuilt.len()))
}

fn show(event: &Event<'_>) -> String {
    let mut text = format!("wd {} {}", event.wd, Mask(event.mask));
    if event.cookie != 0 {
        write!(text, " cookie {}", event.cookie).unwrap();
    }
    if !event.name.is_empty() {
        write!(text, " \"{}\"", event.name.escape_ascii()).unwrap();
    }
    text
}
