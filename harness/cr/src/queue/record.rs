//! The records of a saved queue, checked for being what the kernel can have written.
//!
//! A saved queue may come from a foreign image, so nothing is believed: names that would leave the
//! scratch directory, lengths that run out of the bytes and padding that
//! `round_event_name_len` would not make are errors that name the event.

use fsnotify::inotify::Mask;

use super::error::{Event, Reason, RebuildError};

/// `struct inotify_event` without its name.
pub(super) const HEADER: usize = 16;

/// What an overflow event carries instead of a wd.
const NO_WD: i32 = -1;

/// `NAME_MAX`.
const LONGEST_NAME: usize = 255;

pub(super) const ISDIR: u32 = 0x4000_0000;

/// One event of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) index: usize,
    /// -1 in an overflow event.
    pub(super) wd: i32,
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
            event: Event {
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
    let mut rest = queue;
    while !rest.is_empty() {
        let (record, after) = parse_one(records.len(), rest)?;
        records.push(record);
        rest = after;
    }
    Ok(records)
}

fn parse_one(index: usize, bytes: &[u8]) -> Result<(Record<'_>, &[u8]), RebuildError> {
    let cut = RebuildError::Truncated { index };
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(cut)?;
    let word = |at: usize| {
        header[at..at + 4]
            .try_into()
            .expect("four bytes of sixteen")
    };
    let length = u32::from_ne_bytes(word(12));
    let length = usize::try_from(length).expect("usize holds 32 bits on Linux");
    let (padded, rest) = rest
        .split_at_checked(length)
        .ok_or(RebuildError::Truncated { index })?;
    let end = padded.iter().position(|byte| *byte == 0);
    let name = &padded[..end.unwrap_or(padded.len())];
    let record = Record {
        index,
        wd: i32::from_ne_bytes(word(0)),
        mask: u32::from_ne_bytes(word(4)),
        cookie: u32::from_ne_bytes(word(8)),
        name: (!padded.is_empty()).then_some(name),
        size: HEADER + length,
    };
    check(&record, padded)?;
    Ok((record, rest))
}

fn check(record: &Record<'_>, padded: &[u8]) -> Result<(), RebuildError> {
    if record.is_overflow() != (record.wd == NO_WD) || (record.wd < 1 && record.wd != NO_WD) {
        return Err(record.error(Reason::BadWd));
    }
    let Some(name) = record.name else {
        return Ok(());
    };
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.len() > LONGEST_NAME {
        return Err(record.error(Reason::BadName));
    }
    let room = (name.len() + 1).next_multiple_of(HEADER);
    if padded.len() != room || padded[name.len()..].iter().any(|byte| *byte != 0) {
        return Err(record.error(Reason::BadPadding));
    }
    Ok(())
}

/// The bytes of one event as read(2) on a group returns them.
#[cfg(test)]
pub(super) fn encode(wd: i32, mask: u32, cookie: u32, name: Option<&[u8]>) -> Vec<u8> {
    let length = name.map_or(0, |name| (name.len() + 1).next_multiple_of(HEADER));
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.extend(wd.to_ne_bytes());
    bytes.extend(mask.to_ne_bytes());
    bytes.extend(cookie.to_ne_bytes());
    bytes.extend(u32::try_from(length).unwrap().to_ne_bytes());
    bytes.extend(name.unwrap_or_default());
    bytes.resize(HEADER + length, 0);
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
    fn what_the_kernel_cannot_have_written_is_refused_by_name() {
        #[track_caller]
        fn check(queue: &[u8], expected: &str) {
            assert_eq!(parse(queue).unwrap_err().to_string(), expected);
        }
        let cut = encode(3, 0x100, 0, Some(b"name"));
        check(&cut[..31], "event 0: the bytes end within it");
        check(&cut[..15], "event 0: the bytes end within it");
        check(
            &encode(0, 0x100, 0, Some(b"n")),
            "event 0 (wd 0 IN_CREATE \"n\"): not a watch descriptor",
        );
        check(
            &encode(-1, 0x2, 0, None),
            "event 0 (wd -1 IN_MODIFY): not a watch descriptor",
        );
        for name in [&b"../up"[..], b"..", b".", b"a/b", b""] {
            let error = parse(&encode(1, 0x100, 0, Some(name))).unwrap_err();
            assert!(
                error
                    .to_string()
                    .ends_with("not the name of a directory entry")
            );
        }
        let long = encode(1, 0x100, 0, Some(&[b'n'; 256]));
        assert!(parse(&long).is_err());
        let mut padded = encode(1, 0x100, 0, Some(b"n"));
        padded[31] = 1;
        check(
            &padded,
            "event 0 (wd 1 IN_CREATE \"n\"): the name is not padded as the kernel does it",
        );
    }
}
