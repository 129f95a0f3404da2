//! The records of a saved queue, checked for being what the kernel can have written.
//!
//! A saved queue may come from a foreign image, so nothing is believed: what the decoder refuses,
//! and names that would leave the scratch directory, are errors.

use std::collections::HashMap;

use fsnotify::Wd;
use fsnotify::event::inotify::{EVENT_SIZE, Event, Events};
use fsnotify::inotify::Mask;

use super::error::{self, Reason, RebuildError};

/// `struct inotify_event` without its name.
pub(super) const HEADER: usize = EVENT_SIZE;

/// `NAME_MAX`.
const LONGEST_NAME: usize = 255;

pub(super) const ISDIR: u32 = 0x4000_0000;

/// One event of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) index: usize,
    /// None in an overflow event.
    pub(super) wd: Option<Wd>,
    pub(super) mask: u32,
    pub(super) cookie: u32,
    pub(super) name: Option<&'a [u8]>,
    /// In the queue, header and padding included.
    pub(super) size: usize,
}

impl<'a> Record<'a> {
    pub(super) fn is_overflow(&self) -> bool {
        self.mask == Mask::Q_OVERFLOW.0
    }

    pub(super) fn is_ignored(&self) -> bool {
        self.mask == Mask::IGNORED.0
    }

    /// The mask without the bit that says directory.
    pub(super) fn kind(&self) -> u32 {
        self.mask & !ISDIR
    }

    /// Whether the kernel would have merged this event into one like `earlier` right before it
    /// (`inotify_merge`, `event_compare`): all but IGNORED, cookies not compared.
    pub(super) fn merges_into(&self, earlier: &Record<'a>) -> bool {
        !self.is_ignored()
            && (self.wd, self.mask, self.name) == (earlier.wd, earlier.mask, earlier.name)
    }

    pub(super) fn error(&self, reason: Reason) -> RebuildError {
        RebuildError::Event {
            event: error::Event {
                index: self.index,
                wd: self.wd,
                mask: Mask(self.mask),
                name: self.name.map(<[u8]>::to_vec),
            },
            reason,
        }
    }
}

/// Splits the bytes of a queue into its records.
pub(super) fn parse(queue: &[u8]) -> Result<Vec<Record<'_>>, RebuildError> {
    let mut records = Vec::with_capacity(queue.len() / HEADER);
    for event in Events::new(queue) {
        let index = records.len();
        let event = event.map_err(|error| RebuildError::Decode { index, error })?;
        let record = record(index, &event);
        check(&record)?;
        records.push(record);
    }
    Ok(records)
}

fn record<'a>(index: usize, event: &Event<'a>) -> Record<'a> {
    Record {
        index,
        wd: event.wd,
        mask: event.mask.0,
        cookie: event.cookie.0,
        name: (!event.name.is_empty()).then_some(event.name),
        size: event.size(),
    }
}

fn check(record: &Record<'_>) -> Result<(), RebuildError> {
    if record.is_overflow() != record.wd.is_none() {
        return Err(record.error(Reason::BadWd));
    }
    match record.name {
        Some(name) if matches!(name, b"." | b"..") || name.contains(&b'/') => {
            Err(record.error(Reason::BadName))
        }
        Some(name) if name.len() > LONGEST_NAME => Err(record.error(Reason::BadName)),
        _ => Ok(()),
    }
}

/// How many bytes of whole events there are before the first that is none. Zeroes are none: no
/// event has a wd of 0.
pub(super) fn length_of_events(bytes: &[u8]) -> usize {
    let mut events = Events::new(bytes);
    while let Some(Ok(_)) = events.next() {}
    events.offset()
}

/// The byte at which the first event at or behind the byte `from` lies that is wanted.
pub(super) fn find(
    queue: &[u8],
    from: usize,
    wanted: impl Fn(&Event<'_>) -> bool,
) -> Option<usize> {
    let mut events = Events::new(queue.get(from..)?);
    loop {
        let at = from + events.offset();
        if wanted(&events.next()?.ok()?) {
            return Some(at);
        }
    }
}

/// Where something is heard of a wd first, and where of its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) first: usize,
    pub(super) ended: Option<usize>,
}

/// By wd, the bytes at which events at or behind the byte `from` lie.
pub(super) fn first_heard(queue: &[u8], from: usize) -> HashMap<Wd, Heard> {
    let mut heard = HashMap::new();
    let mut events = Events::new(queue.get(from..).unwrap_or_default());
    loop {
        let at = from + events.offset();
        let Some(Ok(event)) = events.next() else {
            return heard;
        };
        let Some(wd) = event.wd else {
            continue;
        };
        let entry = heard.entry(wd).or_insert(Heard {
            first: at,
            ended: None,
        });
        if event.mask == Mask::IGNORED {
            entry.ended.get_or_insert(at);
        }
    }
}

/// The bytes at which events without a name lie, of one watch, at or behind the byte `from`.
pub(super) fn of_watch(queue: &[u8], from: usize, wd: Wd) -> Vec<usize> {
    let mut places = Vec::new();
    let mut events = Events::new(queue.get(from..).unwrap_or_default());
    loop {
        let at = from + events.offset();
        match events.next() {
            Some(Ok(event)) if event.wd == Some(wd) && event.name.is_empty() => places.push(at),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return places,
        }
    }
}

/// How many events there are.
pub(super) fn count(queue: &[u8]) -> usize {
    Events::new(queue).map_while(Result::ok).count()
}

/// As [`find`], an `IN_IGNORED` whose wd is wanted; and that wd.
pub(super) fn find_ignored(
    queue: &[u8],
    from: usize,
    wanted: impl Fn(Wd) -> bool,
) -> Option<(usize, Wd)> {
    let is_wanted = |it: &Event<'_>| it.mask == Mask::IGNORED && it.wd.is_some_and(&wanted);
    let at = find(queue, from, is_wanted)?;
    let event = Events::new(&queue[at..]).next()?.ok()?;
    Some((at, event.wd?))
}

/// The bytes of one event as read(2) on a group returns them.
#[cfg(test)]
pub(super) fn encode(wd: i32, mask: u32, cookie: u32, name: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let event = Event {
        wd: Wd::new(wd),
        mask: Mask(mask),
        cookie: fsnotify::Cookie(cookie),
        name: name.unwrap_or_default(),
    };
    fsnotify::event::inotify::encode(&event, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_at_their_lengths() {
        let mut queue = encode(3, 0x100, 0, Some(b"name"));
        queue.extend(encode(-1, 0x4000, 0, None));
        let records = parse(&queue).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].name, Some(&b"name"[..]));
        assert_eq!((records[0].size, records[1].size), (32, 16));
        assert!(records[1].is_overflow());
    }

    #[test]
    fn what_would_leave_the_scratch_directory_is_refused_by_name() {
        #[track_caller]
        fn check(queue: &[u8], expected: &str) {
            assert_eq!(parse(queue).unwrap_err().to_string(), expected);
        }
        let cut = encode(3, 0x100, 0, Some(b"name"));
        check(
            &cut[..31],
            "event 0: offset 0: the buffer ends inside an event",
        );
        let no_wd = "event 0 (wd -1 IN_MODIFY): not a watch descriptor";
        check(&encode(-1, 0x2, 0, None), no_wd);
        for name in [&b"../up"[..], b"..", b".", b"a/b", &[b'n'; 256]] {
            let error = parse(&encode(1, 0x100, 0, Some(name))).unwrap_err();
            let expected = "not the name of a directory entry";
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }

    #[test]
    fn the_events_of_one_watch_are_found() {
        let end = encode(1, 0x8000, 0, None);
        let rest = [encode(2, 0x8000, 0, None), encode(1, 0x20, 0, Some(b"n"))].concat();
        let queue = [&end[..], &rest, &end].concat();
        let wd = Wd::new(1).unwrap();
        assert_eq!(of_watch(&queue, 0, wd), [0, 64]);
        assert_eq!(of_watch(&queue, 16, wd), [64]);
        assert_eq!(of_watch(&queue, 999, wd), []);
        assert_eq!(count(&queue), 4);
        assert_eq!(length_of_events(&[&queue[..], &[0; 40]].concat()), 80);
    }
}
