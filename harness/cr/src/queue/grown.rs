//! A queue that was read out in parts, put together as it would be had nobody read it.
//!
//! While the parts are read others go on, and the kernel, which finds the queue empty, neither merges
//! their events with what was read nor counts it. So it is done here, as `fsnotify_insert_event` and
//! `inotify_merge` do it: a queue that the kernel cannot have cannot be made again.

use fsnotify::event::inotify::{Event, Events, encode};
use fsnotify::inotify::Mask;

use super::record::HEADER;

/// Where cookie and length lie in an event.
const COOKIE: usize = 8;
const LENGTH: usize = 12;

#[derive(Debug)]
pub(super) struct Grown {
    bytes: Vec<u8>,
    n_events: usize,
    /// Where the last event begins.
    last: usize,
    has_overflowed: bool,
    /// How many events the queue may hold.
    limit: usize,
}

impl Grown {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            n_events: 0,
            last: 0,
            has_overflowed: false,
            limit,
        }
    }

    /// All that was read, but for events of the dumper's own making. Both these and where a part
    /// begins are given by byte, in any order; none of the events has a name.
    pub(super) fn of_parts(bytes: &[u8], own: &[usize], parts: &[usize], limit: usize) -> Self {
        let own = own.iter().map(|&at| (at, HEADER));
        let mut cuts: Vec<(usize, usize)> = own.chain(parts.iter().map(|&at| (at, 0))).collect();
        cuts.sort_unstable();
        cuts.push((bytes.len(), 0));
        let mut grown = Self::new(limit);
        let mut from = 0;
        for (at, size) in cuts {
            if at > from {
                grown.append(&bytes[from..at]);
            }
            from = from.max(at + size);
        }
        grown
    }

    /// Appends what was read at a time. Bytes that are no events are kept: whoever makes events of
    /// the queue will say so.
    pub(super) fn append(&mut self, part: &[u8]) {
        let mut events = Events::new(part);
        let mut is_first = true;
        loop {
            let from = events.offset();
            match events.next() {
                Some(Ok(event)) => self.push(&part[from..events.offset()], event.mask, is_first),
                Some(Err(_)) => return self.bytes.extend_from_slice(&part[from..]),
                None => return,
            }
            is_first = false;
        }
    }

    fn push(&mut self, event: &[u8], mask: Mask, is_first: bool) {
        if self.n_events >= self.limit || mask == Mask::Q_OVERFLOW {
            if !self.has_overflowed {
                self.has_overflowed = true;
                self.add(&overflow());
            }
            return;
        }
        // Within a part the kernel has looked, and opens may be equal to a reader alone: one of them
        // is that of an execve(2).
        let may_merge = is_first || mask.0 != libc::IN_OPEN;
        if !(may_merge && self.merges(event, mask)) {
            self.add(event);
        }
    }

    /// `event_compare`: all is equal but the cookie, of which it takes no notice.
    fn merges(&self, event: &[u8], mask: Mask) -> bool {
        let last = &self.bytes[self.last..];
        mask != Mask::IGNORED
            && !last.is_empty()
            && (&last[..COOKIE], &last[LENGTH..]) == (&event[..COOKIE], &event[LENGTH..])
    }

    fn add(&mut self, event: &[u8]) {
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(event);
        self.n_events += 1;
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn overflow() -> Vec<u8> {
    let mut bytes = Vec::new();
    let event = Event {
        wd: None,
        mask: Mask::Q_OVERFLOW,
        cookie: fsnotify::Cookie(0),
        name: &[],
    };
    encode(&event, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::record::encode as event;
    use super::*;

    const OVERFLOW: (i32, u32, u32, &str) = (-1, 0x4000, 0, "");

    fn queue(events: &[(i32, u32, u32, &str)]) -> Vec<u8> {
        let one = |it: &(i32, u32, u32, &str)| {
            let name = Some(it.3.as_bytes()).filter(|name| !name.is_empty());
            event(it.0, it.1, it.2, name)
        };
        events.iter().flat_map(one).collect()
    }

    #[track_caller]
    fn check(limit: usize, parts: &[&[(i32, u32, u32, &str)]], expected: &[(i32, u32, u32, &str)]) {
        let mut grown = Grown::new(limit);
        parts.iter().for_each(|part| grown.append(&queue(part)));
        assert_eq!(grown.into_bytes(), queue(expected));
    }

    #[test]
    fn what_comes_later_merges_with_the_tail_as_in_the_kernel() {
        let write = (1, 2, 0, "f");
        let other = (1, 2, 0, "g");
        check(9, &[&[write], &[write, other]], &[write, other]);
        check(9, &[&[write], &[other], &[write]], &[write, other, write]);
        check(
            9,
            &[&[(1, 0x40, 7, "f")], &[(1, 0x40, 8, "f")]],
            &[(1, 0x40, 7, "f")],
        );
        let end = (1, 0x8000, 0, "");
        check(9, &[&[end], &[end]], &[end, end]);
        // The kernel has found the two of the later part to differ.
        let open = (1, 0x20, 0, "");
        check(9, &[&[open], &[open, open]], &[open, open]);
    }

    #[test]
    fn what_comes_later_stops_at_the_limit_as_in_the_kernel() {
        let [a, b, c] = [(1, 2, 0, "a"), (1, 2, 0, "b"), (1, 2, 0, "c")];
        check(2, &[&[a, b], &[c, a]], &[a, b, OVERFLOW]);
        check(2, &[&[a, b, OVERFLOW], &[c, a]], &[a, b, OVERFLOW]);
        check(3, &[&[OVERFLOW, a], &[b, c]], &[OVERFLOW, a, b]);
        check(
            9,
            &[&[a], &[b, OVERFLOW], &[c, OVERFLOW]],
            &[a, b, OVERFLOW, c],
        );
        // The limit is looked at before the tail is.
        check(1, &[&[a], &[a]], &[a, OVERFLOW]);
    }

    #[test]
    fn what_the_dumper_made_is_left_out_and_parts_its_neighbours() {
        let open = (1, 0x20, 0, "");
        let bytes = queue(&[open, (9, 0x8000, 0, ""), open, open, (9, 4, 0, "")]);
        let grown = Grown::of_parts(&bytes, &[64, 16], &[48], 9);
        assert_eq!(grown.into_bytes(), queue(&[open]));
        assert_eq!(Grown::of_parts(&bytes, &[], &[], 9).into_bytes(), bytes);
    }
}
