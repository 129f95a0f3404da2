//! `struct inotify_event`: wd, mask, cookie, length, and a name padded with zeros.

use std::iter::FusedIterator;

use crate::inotify::Mask;
use crate::{Cookie, Wd};

use super::{DecodeError, ErrorKind, is_zero, u32_at};

/// Size of the fixed part of an event; `round_event_name_len` pads names to a multiple of it.
pub const EVENT_SIZE: usize = 16;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event<'a> {
    /// None on an overflow, where the kernel writes -1.
    pub wd: Option<Wd>,
    pub mask: Mask,
    pub cookie: Cookie,
    /// Without padding; empty for an event of the watched object itself.
    pub name: &'a [u8],
}

impl Event<'_> {
    /// The watch descriptor as the kernel wrote it.
    #[must_use]
    pub fn raw_wd(&self) -> i32 {
        self.wd.map_or(-1, Wd::number)
    }

    /// How many bytes of a buffer the event takes.
    #[must_use]
    pub fn size(&self) -> usize {
        EVENT_SIZE + padded_length(self.name.len())
    }
}

/// What `round_event_name_len` makes of the length of a name.
const fn padded_length(length: usize) -> usize {
    if length == 0 {
        0
    } else {
        (length + 1).next_multiple_of(EVENT_SIZE)
    }
}

/// Iterator over the events of a buffer; ends after the first error.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    buffer: &'a [u8],
    offset: usize,
}

impl<'a> Events<'a> {
    #[must_use]
    pub const fn new(buffer: &'a [u8]) -> Self {
        Self { buffer, offset: 0 }
    }

    /// Offset of the next event, or of the one that was refused.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.buffer[self.offset..];
        if rest.is_empty() {
            return None;
        }
        match decode(rest) {
            Ok(event) => {
                self.offset += event.size();
                Some(Ok(event))
            }
            Err(kind) => {
                let offset = self.offset;
                self.buffer = &self.buffer[..offset];
                Some(Err(DecodeError { kind, offset }))
            }
        }
    }
}

impl FusedIterator for Events<'_> {}

fn decode(rest: &[u8]) -> Result<Event<'_>, ErrorKind> {
    let (head, rest) = rest
        .split_at_checked(EVENT_SIZE)
        .ok_or(ErrorKind::Truncated)?;
    let word = |at| u32_at(head, at).expect("within the head");
    let length = word(12);
    let padded = usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length));
    let padded = padded.ok_or(ErrorKind::Truncated)?;
    let wd = match word(0).cast_signed() {
        -1 => None,
        wd => Some(Wd::new(wd).ok_or(ErrorKind::BadWd(wd))?),
    };
    Ok(Event {
        wd,
        mask: Mask(word(4)),
        cookie: Cookie(word(8)),
        name: name(padded).map_err(|kind| kind.unwrap_or(ErrorKind::BadLength(length)))?,
    })
}

/// The name without its padding. No error kind: the length is not what the kernel would have made.
fn name(padded: &[u8]) -> Result<&[u8], Option<ErrorKind>> {
    if padded.is_empty() {
        return Ok(padded);
    }
    let end = padded.iter().position(|byte| *byte == 0);
    let (name, padding) = padded.split_at(end.ok_or(Some(ErrorKind::BadName))?);
    if !is_zero(padding) {
        return Err(Some(ErrorKind::BadPadding));
    }
    if padded_length(name.len()) != padded.len() {
        return Err(None);
    }
    Ok(name)
}

/// Appends the bytes of an event, as the kernel would have written it.
///
/// # Panics
///
/// If the name is as long as no name can be.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    let length = padded_length(event.name.len());
    let end = out.len() + EVENT_SIZE + length;
    out.extend_from_slice(&event.raw_wd().to_le_bytes());
    out.extend_from_slice(&event.mask.0.to_le_bytes());
    out.extend_from_slice(&event.cookie.0.to_le_bytes());
    let length = u32::try_from(length).expect("a name has at most 255 bytes");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(event.name);
    out.resize(end, 0);
}
