//! The silent open: a descriptor that makes no event, opened without making one.
//!
//! A permission event carries a descriptor that the kernel opened for the listener with
//! `FMODE_NONOTIFY`. So we listen to a file ourselves, have a process of ours try to open it, keep
//! the descriptor of the event and deny the opening: nobody hears of it, and with `O_NOATIME` no
//! time changes. It works for a file that its owner can only write, and for one without any name.
//!
//! The class is `FAN_CLASS_PRE_CONTENT`, whose listeners are asked first. With
//! `FAN_CLASS_CONTENT` the opener would wait behind a listener of the frozen subject, for ever.
//! Against other listeners of our own class there is no such rule, so every wait is bounded.

mod folders;
mod parents;

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::sys::fanotify::{
    Opener, Response, Target, fanotify_init, fanotify_mark, open_elsewhere, read_event,
    read_nothing_elsewhere, respond,
};
use crate::sys::{descriptor, handle};

pub use folders::Folders;
pub use parents::Parents;

/// How long another listener may keep our opener waiting.
const LIMIT: Duration = Duration::from_secs(2);
/// The same where only the answer counts that somebody keeps it waiting.
const ASK_LIMIT: Duration = Duration::from_millis(300);

/// What the descriptor may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Not possible for a directory, nor on a read-only mount.
    ReadWrite,
}

/// Why there is no silent descriptor.
#[derive(Debug)]
pub struct SilentError {
    path: String,
    kind: SilentErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilentErrorKind {
    /// Listening to permission events needs `CAP_SYS_ADMIN` in the initial user namespace.
    NotPermitted,
    /// The kernel asks no listener about this type of file.
    Unsupported,
    /// Another listener did not answer in time.
    Blocked,
    /// This call failed.
    Call(&'static str, Errno),
}

impl SilentError {
    #[must_use]
    pub fn kind(&self) -> SilentErrorKind {
        self.kind
    }
}

impl fmt::Display for SilentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "silent open of {}: ", self.path)?;
        match self.kind {
            SilentErrorKind::NotPermitted => f.write_str("not permitted: needs CAP_SYS_ADMIN"),
            SilentErrorKind::Unsupported => f.write_str("neither a regular file nor a directory"),
            SilentErrorKind::Blocked => f.write_str("another permission listener does not answer"),
            SilentErrorKind::Call(call, errno) => write!(f, "{call}: {errno}"),
        }
    }
}

impl std::error::Error for SilentError {}

/// Whether the caller may be asked about the openings of others: `CAP_SYS_ADMIN` in the initial
/// user namespace. Who may not cannot open in silence, either.
#[must_use]
pub fn is_permitted() -> bool {
    !matches!(
        new_listener(libc::O_RDONLY),
        Err(SilentErrorKind::NotPermitted)
    )
}

/// Opens a regular file or a directory, which may be the `/proc/PID/fd/N` of another process,
/// without an event, now or when the descriptor is used or closed. The descriptor has an offset of
/// its own. Only reading, writing and allocating through it are silent: fchmod(2), ftruncate(2)
/// and opening it once more are not.
///
/// # Errors
///
/// [`SilentError`]; then nothing has been opened, and nobody has heard of it.
pub fn open(path: &CStr, access: Access) -> Result<OwnedFd, SilentError> {
    open_within(path, access, LIMIT).map_err(|kind| SilentError {
        path: path.to_string_lossy().into_owned(),
        kind,
    })
}

fn open_within(path: &CStr, access: Access, limit: Duration) -> Result<OwnedFd, SilentErrorKind> {
    let directory = match nix::sys::stat::stat(path).map_err(call("stat"))?.st_mode & libc::S_IFMT {
        libc::S_IFREG => false,
        libc::S_IFDIR => true,
        // No event is made for these, so the opener would really open them.
        _ => return Err(SilentErrorKind::Unsupported),
    };
    let mode = match access {
        Access::Read => libc::O_RDONLY,
        Access::ReadWrite => libc::O_RDWR,
    };
    let group = listener(path, mode, libc::FAN_OPEN_PERM, directory)?;
    let opener = open_elsewhere(path, libc::O_RDONLY | libc::O_CLOEXEC).map_err(call("clone3"))?;
    let opened = take(&group, &opener, Instant::now() + limit)?;
    // Denied, it ends at once; dropping the opener reaps it.
    drop(opener);
    Ok(opened)
}

/// Whether who reads this open file has to wait for permission listeners. Since Linux 6.14 that is
/// settled when a file is opened, by whether anybody listened then
/// (`file_set_fsnotify_mode_from_watchers`), and nothing shows it: so a process of ours reads no
/// byte, and we see whether we are asked.
///
/// # Errors
///
/// [`SilentErrorKind`]; the file must be a regular file or a directory that is open for reading.
pub fn asks(file: impl AsFd, directory: bool) -> Result<bool, SilentErrorKind> {
    let path = handle::proc_path(&file);
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in a number");
    let group = listener(&path, libc::O_RDONLY, libc::FAN_ACCESS_PERM, directory)?;
    // Reading nothing is still an access.
    let flags = descriptor::flags(&file).map_err(call("fcntl"))?;
    descriptor::set_flags(&file, flags | libc::O_NOATIME).map_err(call("fcntl"))?;
    let reader = read_nothing_elsewhere(&file).map_err(call("clone3"));
    let taken = reader.and_then(|reader| take(&group, &reader, Instant::now() + ASK_LIMIT));
    descriptor::set_flags(&file, flags).map_err(call("fcntl"))?;
    match taken {
        Ok(_) => Ok(true),
        // It ended without asking us.
        Err(SilentErrorKind::Unsupported) => Ok(false),
        // It waits for another, who was asked before us.
        Err(SilentErrorKind::Blocked) => Ok(true),
        Err(error) => Err(error),
    }
}

/// A group of the first class to be asked, with one mark.
fn listener(
    path: &CStr,
    mode: i32,
    permission: u64,
    directory: bool,
) -> Result<OwnedFd, SilentErrorKind> {
    let group = new_listener(mode)?;
    let on_directory = if directory { libc::FAN_ONDIR } else { 0 };
    let mask = permission | on_directory;
    fanotify_mark(&group, libc::FAN_MARK_ADD, mask, Target::Path(path))
        .map_err(call("fanotify_mark"))?;
    Ok(group)
}

/// A group of the first class to be asked.
fn new_listener(mode: i32) -> Result<OwnedFd, SilentErrorKind> {
    let event_flags = mode | libc::O_NOATIME | libc::O_LARGEFILE | libc::O_CLOEXEC;
    fanotify_init(
        libc::FAN_CLASS_PRE_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK,
        event_flags.cast_unsigned(),
    )
    .map_err(|errno| match errno {
        Errno::EPERM => SilentErrorKind::NotPermitted,
        errno => SilentErrorKind::Call("fanotify_init", errno),
    })
}

/// A file that is opened while this is held asks permission listeners from then on, as [`asks`]
/// says. Whoever reads it meanwhile waits until this is dropped, and is let through then.
#[derive(Debug)]
pub struct Asking {
    _group: OwnedFd,
}

impl Asking {
    /// For the file that `path` leads to.
    ///
    /// # Errors
    ///
    /// The call that failed, and its errno.
    pub fn on(path: &CStr, directory: bool) -> Result<Self, (&'static str, Errno)> {
        let class = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
        let group = fanotify_init(class, 0).map_err(|errno| ("fanotify_init", errno))?;
        // Opening needs another permission than this one.
        let on_directory = if directory { libc::FAN_ONDIR } else { 0 };
        let mask = libc::FAN_ACCESS_PERM | on_directory;
        fanotify_mark(&group, libc::FAN_MARK_ADD, mask, Target::Path(path))
            .map_err(|errno| ("fanotify_mark", errno))?;
        Ok(Self { _group: group })
    }
}

/// Answers events until that of the opener comes, which is denied.
fn take(group: &OwnedFd, opener: &Opener, deadline: Instant) -> Result<OwnedFd, SilentErrorKind> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).map_err(|_| SilentErrorKind::Blocked)?;
        let mut polled = [
            PollFd::new(group.as_fd(), PollFlags::POLLIN),
            PollFd::new(opener.as_fd(), PollFlags::POLLIN),
        ];
        match nix::poll::poll(&mut polled, timeout) {
            Ok(0) => return Err(SilentErrorKind::Blocked),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(SilentErrorKind::Call("poll", errno)),
        }
        let ended = polled[1].any() == Some(true);
        let received = match read_event(group) {
            Ok(received) => received,
            Err(Errno::EAGAIN) if ended => return Err(SilentErrorKind::Unsupported),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(errno) => return Err(SilentErrorKind::Call("read of the event", errno)),
        };
        let Some(event) = received.fd else { continue };
        if received.pid == opener.pid() {
            answer(group, &event, Response::Deny)?;
            return Ok(event);
        }
        answer(group, &event, Response::Allow)?;
    }
}

fn answer(group: &OwnedFd, event: &OwnedFd, response: Response) -> Result<(), SilentErrorKind> {
    respond(group, event.as_raw_fd(), response).map_err(call("write of the answer"))
}

fn call(name: &'static str) -> impl Fn(Errno) -> SilentErrorKind {
    move |errno| SilentErrorKind::Call(name, errno)
}
