//! Unread events of a group: drained, written down, and declared lost where [`forge`] cannot make
//! them again.
//!
//! An event that names an object by descriptor cannot be made again unheard: only that very object,
//! which others may watch, makes it. The overflow event names nothing: [`overflow`] makes it in a
//! filesystem of our own.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};

use fsnotify::event::DecodeError;
use fsnotify::event::fanotify::{Event, Events, Fid, Record};
use fsnotify::fanotify::{InitFlags, Mask};
use nix::errno::Errno;

use super::forge::{self, Unforgeable};
use super::take::Namer;
use crate::image::{Fanotify, Text};
use crate::loss::{Loss, LossKind};
use crate::sys::fanotify::{Response, Target, close_number, fanotify_mark, read_event, respond};
use crate::sys::inspect::unread as unread_bytes;
use crate::sys::tmpfs;

/// What was in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    pub overflow: bool,
    /// Every other event, in order.
    pub events: Vec<String>,
    /// The same events as read(2) returned them, if they name objects by handle; the numbers of
    /// process descriptors are 0.
    pub bytes: Vec<u8>,
}

/// Why a queue was not drained to its end.
#[derive(Debug)]
pub enum QueueError {
    Call(&'static str, Errno),
    Decode(DecodeError),
    /// A process asked for permission while we read; it was allowed.
    Permission {
        pid: i32,
    },
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call, errno) => write!(f, "{call}: {errno}"),
            Self::Decode(error) => write!(f, "queue: {error}"),
            Self::Permission { pid } => {
                write!(
                    f,
                    "process {pid} asked for permission during the dump, and was allowed"
                )
            }
        }
    }
}

impl std::error::Error for QueueError {}

/// Whether events name objects by handle and bring no descriptor.
#[must_use]
pub fn reports_records(flags: InitFlags) -> bool {
    let records = InitFlags::REPORT_FID.0 | InitFlags::REPORT_DIR_FID.0 | InitFlags::REPORT_MNT.0;
    flags.0 & records != 0
}

/// Reads a queue until it is empty. Descriptors that come with events are closed; they are such
/// that closing makes no event.
///
/// # Errors
///
/// [`QueueError`].
pub fn drain(
    group: BorrowedFd<'_>,
    flags: InitFlags,
    namer: &mut Namer,
) -> Result<Unread, QueueError> {
    let mut unread = Unread::default();
    // A group may block on an empty queue, and its owner may not have asked otherwise.
    while unread_bytes(group).map_err(|errno| QueueError::Call("FIONREAD", errno))? != 0 {
        if reports_records(flags) || flags.contains(InitFlags(libc::FAN_REPORT_PIDFD)) {
            read_records(group, namer, &mut unread)?;
        } else {
            read_descriptor(group, &mut unread)?;
        }
    }
    Ok(unread)
}

fn read_records(
    group: BorrowedFd<'_>,
    namer: &mut Namer,
    unread: &mut Unread,
) -> Result<(), QueueError> {
    let mut buffer = vec![0; 1 << 16];
    let n_read = nix::unistd::read(group, &mut buffer);
    let n_read = n_read.map_err(|errno| QueueError::Call("read", errno))?;
    for event in Events::new(&buffer[..n_read]) {
        let event = event.map_err(QueueError::Decode)?;
        let link = (event.fd >= 0).then(|| link_of(event.fd));
        if event.mask.0 & Mask::Q_OVERFLOW.0 != 0 {
            unread.overflow = true;
        } else {
            unread.events.push(text(&event, link.as_deref(), namer));
            forge::keep(&event, event.pid, &mut unread.bytes);
        }
        let permission = event.mask.0 & Mask::PERMISSION.0 != 0;
        if permission {
            allow(group, event.fd)?;
        }
        close_all(&event);
        if permission {
            return Err(QueueError::Permission { pid: event.pid });
        }
    }
    Ok(())
}

/// Closes what the kernel opened for the reader of an event.
pub(super) fn close_all(event: &Event<'_>) {
    let pidfds = event.records().filter_map(|record| match record {
        Record::Pidfd(fd) => Some(fd),
        _ => None,
    });
    for fd in pidfds.chain([event.fd]).filter(|fd| *fd >= 0) {
        close_number(fd);
    }
}

fn read_descriptor(group: BorrowedFd<'_>, unread: &mut Unread) -> Result<(), QueueError> {
    let event = read_event(group).map_err(|errno| QueueError::Call("read", errno))?;
    if event.mask & Mask::Q_OVERFLOW.0 != 0 {
        unread.overflow = true;
        return Ok(());
    }
    let link = event.fd.as_ref().map(|fd| link_of(fd.as_raw_fd()));
    let link = link.as_deref().unwrap_or(b"?");
    if event.mask & Mask::PERMISSION.0 != 0 {
        if let Some(fd) = &event.fd {
            allow(group, fd.as_raw_fd())?;
        }
        return Err(QueueError::Permission { pid: event.pid });
    }
    let mask = Mask(event.mask);
    unread
        .events
        .push(format!("{mask} \"{}\" pid {}", Text(link), event.pid));
    Ok(())
}

fn allow(group: BorrowedFd<'_>, fd: i32) -> Result<(), QueueError> {
    let answered = respond(group, fd, Response::Allow);
    answered.map_err(|errno| QueueError::Call("write of the answer", errno))
}

fn link_of(fd: i32) -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt;
    let link = fs::read_link(format!("/proc/self/fd/{fd}"));
    link.map_or_else(|_| b"?".to_vec(), |link| link.into_os_string().into_vec())
}

/// Events that name objects by handle, in words.
pub(super) fn texts(queue: &[u8], namer: &mut Namer) -> Vec<String> {
    let events = Events::new(queue).flatten();
    events.map(|event| text(&event, None, namer)).collect()
}

/// An event in words.
fn text(event: &Event<'_>, link: Option<&[u8]>, namer: &mut Namer) -> String {
    let mut text = event.mask.to_string();
    if let Some(link) = link {
        text.push_str(&format!(" \"{}\"", Text(link)));
    }
    let mut named = |kind: &str, fid: &Fid, name: Option<&[u8]>| {
        let inode = match namer.name(fid) {
            Some(path) => format!("\"{}\"", Text(&path)),
            None => format!("handle {}", fid.handle),
        };
        match name {
            Some(name) => text.push_str(&format!(" {kind} {inode} \"{}\"", Text(name))),
            None => text.push_str(&format!(" {kind} {inode}")),
        }
    };
    let mut others = Vec::new();
    for record in event.records() {
        match record {
            Record::Fid(fid) => named("FID", &fid, None),
            Record::Dfid(fid) => named("DFID", &fid, None),
            Record::DfidName(fid, name) => named("DFID_NAME", &fid, Some(name)),
            Record::OldDfidName(fid, name) => named("OLD_DFID_NAME", &fid, Some(name)),
            Record::NewDfidName(fid, name) => named("NEW_DFID_NAME", &fid, Some(name)),
            Record::Pidfd(_) => {}
            Record::Error { error, count } => others.push(format!("error {error}, {count} times")),
            Record::Range { offset, count } => others.push(format!("{count} bytes at {offset}")),
            Record::Mount(id) => others.push(format!("mount {id}")),
            Record::Unknown { kind, .. } => others.push(format!("record of type {kind}")),
        }
    }
    for other in others {
        text.push(' ');
        text.push_str(&other);
    }
    if event.pid != 0 {
        text.push_str(&format!(" pid {}", event.pid));
    }
    text
}

/// What of a drained queue a restore cannot bring back; `forged` says whether it brings back all
/// but an overflow event.
pub(super) fn losses(name: &str, group: &Fanotify, forged: Result<(), Unforgeable>) -> Vec<Loss> {
    let flags = InitFlags(group.init_flags);
    let mut losses = Vec::new();
    if let (Err(reason), false) = (forged, group.unread.is_empty()) {
        let n_events = group.unread.len();
        let plural = if n_events == 1 { "event" } else { "events" };
        losses.push(Loss::new(
            reason.kind(),
            format!("queue of {name}: {n_events} {plural}"),
            format!("{reason}: {}", named(&group.unread)),
        ));
    }
    if group.overflow && !can_overflow(flags) {
        losses.push(Loss::new(
            LossKind::MountOverflow,
            format!("queue of {name}: overflow event"),
            "mount events fill the queue, and others hear those",
        ));
    }
    losses
}

/// Events that a loss of a queue names; how many there are besides is said, and `show` has them all.
const MOST_NAMED: usize = 3;

fn named(events: &[String]) -> String {
    let (first, rest) = events.split_at(events.len().min(MOST_NAMED));
    let first = first.join("; ");
    match rest.len() {
        0 => first,
        n_more => format!("{first}; and {n_more} more"),
    }
}

/// Whether [`overflow`] can fill the queue of such a group.
fn can_overflow(flags: InitFlags) -> bool {
    !flags.contains(InitFlags::REPORT_MNT) && !flags.contains(InitFlags(libc::FAN_UNLIMITED_QUEUE))
}

/// Leaves one overflow event in the queue of a new group: fills it with events on directories of a
/// filesystem that nobody else sees, and reads all but the last one, which is the overflow.
///
/// Directories, because in every group an event on one differs from that on another; the kernel
/// would merge events that do not differ.
///
/// # Errors
///
/// The call and its errno; `EIO` if the queue does not fill as said.
pub fn overflow(group: BorrowedFd<'_>, flags: InitFlags) -> Result<(), (&'static str, Errno)> {
    if !can_overflow(flags) {
        return Ok(());
    }
    let call = |name| move |errno| (name, errno);
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").ok();
    let limit: u64 = limit
        .and_then(|text| text.trim().parse().ok())
        .ok_or(("read max_queued_events", Errno::ENOENT))?;
    let scratch = tmpfs::detached().map_err(call("fsmount"))?;
    let path = CString::new(format!("/proc/self/fd/{}", scratch.as_raw_fd())).expect("no NUL");
    let mask = libc::FAN_OPEN | libc::FAN_ONDIR | libc::FAN_EVENT_ON_CHILD;
    let mark = |flags| fanotify_mark(group, flags, mask, Target::Path(&path));
    mark(libc::FAN_MARK_ADD).map_err(call("fanotify_mark"))?;
    let unread = || unread_bytes(group).map_err(call("FIONREAD"));
    let mode = nix::sys::stat::Mode::S_IRWXU;
    let open = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
    for index in 0..=limit {
        let name = index.to_string();
        nix::sys::stat::mkdirat(&scratch, name.as_str(), mode).map_err(call("mkdirat"))?;
        nix::fcntl::openat(&scratch, name.as_str(), open, mode).map_err(call("openat"))?;
    }
    mark(libc::FAN_MARK_REMOVE).map_err(call("fanotify_mark"))?;
    // FIONREAD counts 24 bytes for every event, whatever records come with it.
    const EVENT: u64 = fsnotify::event::fanotify::METADATA_SIZE as u64;
    if unread()? != (limit + 1) * EVENT {
        return Err(("filling the queue", Errno::EIO));
    }
    let mut length = 4096;
    while unread()? > EVENT {
        // All of them are of one length, which the first read finds out.
        let n_left = usize::try_from(unread()? / EVENT - 1).map_err(|_| ("read", Errno::EIO))?;
        let mut buffer = vec![
            0;
            if length == 4096 {
                length
            } else {
                length * n_left.min(64)
            }
        ];
        let n_read = nix::unistd::read(group, &mut buffer).map_err(call("read"))?;
        for event in Events::new(&buffer[..n_read]) {
            let event = event.map_err(|_| ("read", Errno::EIO))?;
            length = event.size();
            close_all(&event);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_long_queue_is_named_by_its_first_events() {
        let events = ["a", "b", "c", "d", "e"].map(str::to_owned);
        assert_eq!(named(&events[..1]), "a");
        assert_eq!(named(&events[..3]), "a; b; c");
        assert_eq!(named(&events), "a; b; c; and 2 more");
    }
}
