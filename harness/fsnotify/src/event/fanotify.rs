//! `struct fanotify_event_metadata` and the info records behind it.

use std::iter::FusedIterator;

use crate::fanotify::Mask;
use crate::handle::{FileHandle, MAX_HANDLE_BYTES};

use super::{DecodeError, ErrorKind, array, is_zero, u32_at};

/// Size of the metadata of an event: the least length of an event.
pub const METADATA_SIZE: usize = 24;
/// `FANOTIFY_METADATA_VERSION`; no other has been seen since 2.6.37.
pub const METADATA_VERSION: u8 = 3;
/// What `fd` is where an event has no descriptor (`FAN_NOFD`).
pub const NO_FD: i32 = -1;

/// Size of `struct fanotify_event_info_header`: type, padding, length.
const RECORD_HEAD: usize = 4;
/// Records end at a multiple of this (`FANOTIFY_EVENT_ALIGN`).
const ALIGN: usize = 4;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    pub mask: Mask,
    /// A descriptor of the reader, [`NO_FD`], or a negated errno (`FAN_REPORT_FD_ERROR`).
    pub fd: i32,
    /// Process, or thread with `FAN_REPORT_TID`; 0 for one that the reader cannot see.
    pub pid: i32,
    /// The info records, each checked already.
    records: &'a [u8],
}

/// An info record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// `FAN_EVENT_INFO_TYPE_FID`: the object.
    Fid(Fid),
    /// `FAN_EVENT_INFO_TYPE_DFID`: the directory.
    Dfid(Fid),
    /// `FAN_EVENT_INFO_TYPE_DFID_NAME`: the directory and the name in it (`.` is itself).
    DfidName(Fid, &'a [u8]),
    /// `FAN_EVENT_INFO_TYPE_OLD_DFID_NAME`: before a rename.
    OldDfidName(Fid, &'a [u8]),
    /// `FAN_EVENT_INFO_TYPE_NEW_DFID_NAME`: after a rename.
    NewDfidName(Fid, &'a [u8]),
    /// `FAN_EVENT_INFO_TYPE_PIDFD`: a descriptor of the reader, or `FAN_NOPIDFD`, `FAN_EPIDFD`.
    Pidfd(i32),
    /// `FAN_EVENT_INFO_TYPE_ERROR`: the first error of the filesystem and how many since.
    Error { error: i32, count: u32 },
    /// `FAN_EVENT_INFO_TYPE_RANGE`: the part of the file that is about to be read.
    Range { offset: u64, count: u64 },
    /// `FAN_EVENT_INFO_TYPE_MNT`: the unique id of the mount.
    Mount(u64),
    /// A type that is not known, and its content.
    Unknown { kind: u8, content: &'a [u8] },
}

/// Filesystem id and file handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fid {
    /// `f_fsid` of statfs(2).
    pub fsid: [u32; 2],
    pub handle: FileHandle,
}

/// Types of info records.
mod kind {
    pub(super) const FID: u8 = 1;
    pub(super) const DFID_NAME: u8 = 2;
    pub(super) const DFID: u8 = 3;
    pub(super) const PIDFD: u8 = 4;
    pub(super) const ERROR: u8 = 5;
    pub(super) const RANGE: u8 = 6;
    pub(super) const MOUNT: u8 = 7;
    pub(super) const OLD_DFID_NAME: u8 = 10;
    pub(super) const NEW_DFID_NAME: u8 = 12;
}

impl<'a> Event<'a> {
    /// The info records, in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut rest = self.records;
        std::iter::from_fn(move || {
            let (record, size) = (!rest.is_empty()).then(|| {
                decode_record(rest).expect("records are checked when the event is decoded")
            })?;
            rest = &rest[size..];
            Some(record)
        })
    }

    /// How many bytes of a buffer the event takes.
    #[must_use]
    pub const fn size(&self) -> usize {
        METADATA_SIZE + self.records.len()
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
            Err((kind, at)) => {
                self.buffer = &self.buffer[..self.offset];
                let offset = self.offset + at;
                Some(Err(DecodeError { kind, offset }))
            }
        }
    }
}

impl FusedIterator for Events<'_> {}

/// The event at the start of `rest`; what is wrong, and where.
fn decode(rest: &[u8]) -> Result<Event<'_>, (ErrorKind, usize)> {
    let head: [u8; METADATA_SIZE] = array(rest, 0).ok_or((ErrorKind::Truncated, 0))?;
    let [.., version, reserved, low, high] = *head.first_chunk::<8>().expect("8 of 24");
    if version != METADATA_VERSION {
        return Err((ErrorKind::BadVersion(version), 0));
    }
    if reserved != 0 {
        return Err((ErrorKind::BadPadding, 0));
    }
    let metadata_length = u32::from(u16::from_le_bytes([low, high]));
    if metadata_length as usize != METADATA_SIZE {
        return Err((ErrorKind::BadLength(metadata_length), 0));
    }
    let word = |at| u32_at(&head, at).expect("within the head");
    let length = word(0);
    let size = usize::try_from(length)
        .ok()
        .filter(|size| *size >= METADATA_SIZE);
    let size = size.ok_or((ErrorKind::BadLength(length), 0))?;
    let event = rest.get(..size).ok_or((ErrorKind::Truncated, 0))?;
    let records = &event[METADATA_SIZE..];
    let mut at = 0;
    while at < records.len() {
        let (_, size) = decode_record(&records[at..]).map_err(|kind| (kind, METADATA_SIZE + at))?;
        at += size;
    }
    Ok(Event {
        mask: Mask(u64::from(word(8)) | u64::from(word(12)) << 32),
        fd: word(16).cast_signed(),
        pid: word(20).cast_signed(),
        records,
    })
}

/// The record at the start of `rest`, and its size.
fn decode_record(rest: &[u8]) -> Result<(Record<'_>, usize), ErrorKind> {
    let [kind, padding, low, high] = array(rest, 0).ok_or(ErrorKind::Truncated)?;
    let length = u16::from_le_bytes([low, high]);
    let size = usize::from(length);
    if size < RECORD_HEAD {
        return Err(ErrorKind::BadLength(length.into()));
    }
    if padding != 0 {
        return Err(ErrorKind::BadPadding);
    }
    let content = rest.get(RECORD_HEAD..size).ok_or(ErrorKind::Truncated)?;
    let record = decode_content(kind, content);
    let record = record.map_err(|kind| kind.unwrap_or(ErrorKind::BadLength(length.into())))?;
    Ok((record, size))
}

/// A record by its type. No error kind: the length does not fit the content.
fn decode_content(kind: u8, content: &[u8]) -> Result<Record<'_>, Option<ErrorKind>> {
    let word = |at| u32_at(content, at).ok_or(None);
    let long = |at| array(content, at).map(u64::from_le_bytes).ok_or(None);
    let of_size = |size| {
        if content.len() == size {
            Ok(())
        } else {
            Err(None)
        }
    };
    Ok(match kind {
        kind::FID => Record::Fid(lone_fid(content)?),
        kind::DFID => Record::Dfid(lone_fid(content)?),
        kind::DFID_NAME => named_fid(content).map(|(fid, name)| Record::DfidName(fid, name))?,
        kind::OLD_DFID_NAME => {
            named_fid(content).map(|(fid, name)| Record::OldDfidName(fid, name))?
        }
        kind::NEW_DFID_NAME => {
            named_fid(content).map(|(fid, name)| Record::NewDfidName(fid, name))?
        }
        kind::PIDFD => {
            of_size(4)?;
            Record::Pidfd(word(0)?.cast_signed())
        }
        kind::ERROR => {
            of_size(8)?;
            let (error, count) = (word(0)?.cast_signed(), word(4)?);
            Record::Error { error, count }
        }
        kind::RANGE => {
            of_size(20)?;
            zero(&content[..4])?;
            let (offset, count) = (long(4)?, long(12)?);
            Record::Range { offset, count }
        }
        kind::MOUNT => {
            of_size(12)?;
            zero(&content[..4])?;
            Record::Mount(long(4)?)
        }
        _ => Record::Unknown { kind, content },
    })
}

fn zero(padding: &[u8]) -> Result<(), Option<ErrorKind>> {
    if is_zero(padding) {
        Ok(())
    } else {
        Err(Some(ErrorKind::BadPadding))
    }
}

/// A handle with nothing behind it but padding.
fn lone_fid(content: &[u8]) -> Result<Fid, Option<ErrorKind>> {
    let (fid, rest) = fid(content)?;
    let used = RECORD_HEAD + content.len() - rest.len();
    if rest.len() != used.next_multiple_of(ALIGN) - used {
        return Err(None);
    }
    zero(rest)?;
    Ok(fid)
}

/// A handle, and a name that ends with a zero and is padded with zeros.
fn named_fid(content: &[u8]) -> Result<(Fid, &[u8]), Option<ErrorKind>> {
    let (fid, rest) = fid(content)?;
    let end = rest.iter().position(|byte| *byte == 0);
    let (name, padding) = rest.split_at(end.ok_or(Some(ErrorKind::BadName))?);
    zero(padding)?;
    let used = RECORD_HEAD + content.len() - padding.len() + 1;
    if padding.len() - 1 != used.next_multiple_of(ALIGN) - used {
        return Err(None);
    }
    Ok((fid, name))
}

/// `fsid`, `handle_bytes`, `handle_type`, `f_handle`, and the rest.
fn fid(content: &[u8]) -> Result<(Fid, &[u8]), Option<ErrorKind>> {
    let word = |at| u32_at(content, at).ok_or(None);
    let length = word(8)?;
    let too_long = Err(Some(ErrorKind::BadHandle(length)));
    let Some(n_bytes) = usize::try_from(length)
        .ok()
        .filter(|n| *n <= MAX_HANDLE_BYTES)
    else {
        return too_long;
    };
    let kind = word(12)?.cast_signed();
    let (bytes, rest) = content[16..].split_at_checked(n_bytes).ok_or(None)?;
    let Ok(handle) = FileHandle::new(kind, bytes) else {
        return too_long;
    };
    let fsid = [word(0)?, word(4)?];
    Ok((Fid { fsid, handle }, rest))
}

/// Appends the bytes of an event with these records, as the kernel would have written it.
///
/// # Panics
///
/// If a record is longer than 64 KiB, which neither a name nor a handle can be.
pub fn encode<'a>(
    mask: Mask,
    fd: i32,
    pid: i32,
    records: impl IntoIterator<Item = Record<'a>>,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(METADATA_VERSION);
    out.push(0);
    let metadata_length = u16::try_from(METADATA_SIZE).expect("24");
    out.extend_from_slice(&metadata_length.to_le_bytes());
    out.extend_from_slice(&mask.0.to_le_bytes());
    out.extend_from_slice(&fd.to_le_bytes());
    out.extend_from_slice(&pid.to_le_bytes());
    for record in records {
        encode_record(&record, out);
    }
    let length = u32::try_from(out.len() - start).expect("an event is small");
    out[start..][..4].copy_from_slice(&length.to_le_bytes());
}

fn encode_record(record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let kind = record_kind(record);
    out.extend_from_slice(&[kind, 0, 0, 0]);
    match record {
        Record::Fid(fid) | Record::Dfid(fid) => {
            encode_fid(fid, out);
            pad(start, out);
        }
        Record::DfidName(fid, name)
        | Record::OldDfidName(fid, name)
        | Record::NewDfidName(fid, name) => {
            encode_fid(fid, out);
            out.extend_from_slice(name);
            out.push(0);
            pad(start, out);
        }
        Record::Pidfd(pidfd) => out.extend_from_slice(&pidfd.to_le_bytes()),
        Record::Error { error, count } => {
            out.extend_from_slice(&error.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
        }
        Record::Range { offset, count } => {
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
        }
        Record::Mount(id) => {
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&id.to_le_bytes());
        }
        Record::Unknown { content, .. } => out.extend_from_slice(content),
    }
    let length = u16::try_from(out.len() - start).expect("a record is smaller than 64 KiB");
    out[start + 2..][..2].copy_from_slice(&length.to_le_bytes());
}

const fn record_kind(record: &Record<'_>) -> u8 {
    match record {
        Record::Fid(_) => kind::FID,
        Record::Dfid(_) => kind::DFID,
        Record::DfidName(..) => kind::DFID_NAME,
        Record::OldDfidName(..) => kind::OLD_DFID_NAME,
        Record::NewDfidName(..) => kind::NEW_DFID_NAME,
        Record::Pidfd(_) => kind::PIDFD,
        Record::Error { .. } => kind::ERROR,
        Record::Range { .. } => kind::RANGE,
        Record::Mount(_) => kind::MOUNT,
        Record::Unknown { kind, .. } => *kind,
    }
}

fn encode_fid(fid: &Fid, out: &mut Vec<u8>) {
    out.extend_from_slice(&fid.fsid[0].to_le_bytes());
    out.extend_from_slice(&fid.fsid[1].to_le_bytes());
    let length = u32::try_from(fid.handle.bytes().len()).expect("at most 128");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&fid.handle.kind().to_le_bytes());
    out.extend_from_slice(fid.handle.bytes());
}

fn pad(start: usize, out: &mut Vec<u8>) {
    let size = (out.len() - start).next_multiple_of(ALIGN);
    out.resize(start + size, 0);
}
