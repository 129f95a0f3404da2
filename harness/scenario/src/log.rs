//! The log that the subject writes: one record a step, appended, never rewritten.
//!
//! The subject writes raw results; names, decoded events and order of rendering come later, in
//! [`crate::Transcript`]. A record is `step u32, ret i64, errno i32, length u32, payload`, all
//! little-endian; the payload is chunks of `tag u8, length u32, bytes`.

use std::fmt;

/// Bytes of a record before its payload.
const HEAD: usize = 20;
/// Bytes of a chunk before its content.
const CHUNK_HEAD: usize = 5;

/// The `step` of the record that the subject writes after its last step.
pub const END: u32 = u32::MAX;

/// What the bytes of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// Records that an inotify group gave; several reads of one drain follow one another.
    Events = 1,
    /// Records that a fanotify group gave, likewise.
    FanotifyEvents = 2,
    /// `/proc/self/fd/N` of the event descriptors of the [`Tag::FanotifyEvents`] chunk before, in
    /// event order, each ended by a NUL; empty for an event that has none.
    EventLinks = 3,
    /// What `read(2)` or `pread(2)` of a file returned.
    Content = 4,
    /// Names that `getdents64(2)` returned, each ended by a NUL.
    Names = 5,
    /// `events u32, data u64` of each descriptor that `epoll_wait(2)` reported.
    Epoll = 6,
    /// `signal i32, descriptor i32` of each signal taken; descriptor -1 for none.
    Signals = 7,
    /// Paths of the objects that the records of the [`Tag::FanotifyEvents`] chunk before name by
    /// handle, in order, each ended by a NUL; empty for an object that has none any more.
    HandleLinks = 8,
}

impl Tag {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Events,
            Self::FanotifyEvents,
            Self::EventLinks,
            Self::Content,
            Self::Names,
            Self::Epoll,
            Self::Signals,
            Self::HandleLinks,
        ]
        .into_iter()
        .find(|tag| *tag as u8 == byte)
    }
}

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Index into [`crate::Scenario::steps`].
    pub step: u32,
    /// What the call returned; -1 with `errno` set on failure.
    pub ret: i64,
    pub errno: i32,
    pub chunks: Vec<(Tag, Vec<u8>)>,
}

impl Record {
    /// The bytes of a tag; none are no bytes.
    #[must_use]
    pub fn chunk(&self, tag: Tag) -> &[u8] {
        let mut chunks = self.chunks.iter();
        let chunk = chunks.find(|(of, _)| *of == tag);
        chunk.map_or(&[], |(_, bytes)| bytes)
    }
}

/// Why a log could not be read: the offset of the record, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogError {
    pub offset: usize,
    pub kind: LogErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogErrorKind {
    /// The log ends inside a record or a chunk.
    Truncated,
    /// No such [`Tag`].
    Tag(u8),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            LogErrorKind::Truncated => {
                write!(f, "log offset {}: ends inside a record", self.offset)
            }
            LogErrorKind::Tag(tag) => write!(f, "log offset {}: unknown tag {tag}", self.offset),
        }
    }
}

impl std::error::Error for LogError {}

/// Appends the bytes of a record.
///
/// # Panics
///
/// If a chunk is larger than 4 GiB, which no read of the subject can be.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let length: usize = record
        .chunks
        .iter()
        .map(|(_, bytes)| CHUNK_HEAD + bytes.len())
        .sum();
    out.extend_from_slice(&record.step.to_le_bytes());
    out.extend_from_slice(&record.ret.to_le_bytes());
    out.extend_from_slice(&record.errno.to_le_bytes());
    out.extend_from_slice(&size(length).to_le_bytes());
    for (tag, bytes) in &record.chunks {
        out.push(*tag as u8);
        out.extend_from_slice(&size(bytes.len()).to_le_bytes());
        out.extend_from_slice(bytes);
    }
}

fn size(length: usize) -> u32 {
    u32::try_from(length).expect("a record is smaller than 4 GiB")
}

/// Reads every record of a log.
///
/// # Errors
///
/// [`LogError`] with the offset of the first record that is cut short or malformed.
pub fn decode(log: &[u8]) -> Result<Vec<Record>, LogError> {
    let mut records = Vec::new();
    let mut rest = log;
    while !rest.is_empty() {
        let offset = log.len() - rest.len();
        let (record, after) = decode_record(rest).map_err(|kind| LogError { offset, kind })?;
        records.push(record);
        rest = after;
    }
    Ok(records)
}

fn decode_record(input: &[u8]) -> Result<(Record, &[u8]), LogErrorKind> {
    let (head, rest) = split(input, HEAD)?;
    let length = le_u32(&head[16..20]) as usize;
    let (mut payload, rest) = split(rest, length)?;
    let mut chunks = Vec::new();
    while !payload.is_empty() {
        let (chunk_head, after) = split(payload, CHUNK_HEAD)?;
        let tag = Tag::from_byte(chunk_head[0]).ok_or(LogErrorKind::Tag(chunk_head[0]))?;
        let (bytes, after) = split(after, le_u32(&chunk_head[1..5]) as usize)?;
        chunks.push((tag, bytes.to_vec()));
        payload = after;
    }
    let record = Record {
        step: le_u32(&head[0..4]),
        ret: i64::from_le_bytes(head[4..12].try_into().expect("8 bytes")),
        errno: i32::from_le_bytes(head[12..16].try_into().expect("4 bytes")),
        chunks,
    };
    Ok((record, rest))
}

fn split(input: &[u8], at: usize) -> Result<(&[u8], &[u8]), LogErrorKind> {
    input.split_at_checked(at).ok_or(LogErrorKind::Truncated)
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("4 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            step: 7,
            ret: -1,
            errno: 2,
            chunks: vec![(Tag::Events, vec![1, 2, 3]), (Tag::Signals, Vec::new())],
        }
    }

    #[test]
    fn a_log_reads_back_as_written() {
        let mut log = Vec::new();
        encode(&record(), &mut log);
        encode(&record(), &mut log);
        assert_eq!(decode(&log), Ok(vec![record(), record()]));
    }

    #[test]
    fn a_log_that_ends_early_names_the_record() {
        let mut log = Vec::new();
        encode(&record(), &mut log);
        let first = log.len();
        encode(&record(), &mut log);
        for end in first + 1..log.len() {
            let error = decode(&log[..end]).unwrap_err();
            assert_eq!(error.offset, first, "cut at {end}");
            assert_eq!(error.kind, LogErrorKind::Truncated, "cut at {end}");
        }
    }
}
