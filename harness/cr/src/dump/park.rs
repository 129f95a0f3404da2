//! Parking: a process that holds every open file description of the subject, so that the kernel
//! objects outlive it.
//!
//! Nothing is read and nothing is made again: queues with their cookies, watches, marks, events
//! that wait for an answer, offsets and locks are those that were. It works within one boot, and
//! keeps the memory of the kernel objects in use. To move to another boot or machine, or to free
//! what the subject used, dump instead.
//!
//! All descriptors of the subject are parked with its groups: the last close of one that was not
//! would put an event into the queue of a watcher that was. Groups alone can be parked too; then
//! that is a declared loss.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

use super::error::{DumpError, DumpErrorKind};
use super::files;
use crate::image::{Image, Parked};
use crate::process::{Status, began, waits_for};
use crate::sys::spawn::Tracer;
use crate::sys::{descriptor, inspect, raw, spawn, trace};

/// A holder that ends with this process until it is told to stay.
#[derive(Debug)]
pub(super) struct Holder {
    parked: Parked,
    /// What it waits for an end of.
    tell: Option<fs::File>,
}

impl Holder {
    /// Starts the holder of these files. The caller has one thread.
    pub(super) fn start(files: Vec<OwnedFd>) -> Result<Self, DumpError> {
        let token = token().map_err(|error| DumpError::io("read", "/dev/urandom", &error))?;
        let mark = memfd_create(mark_name(&token).as_str(), MFdFlags::MFD_CLOEXEC)
            .map_err(|errno| DumpError::on("memfd_create", "", errno))?;
        let (told, tell) =
            pipe2(OFlag::O_CLOEXEC).map_err(|errno| DumpError::on("pipe2", "", errno))?;
        // It may be asked before it comes to wait for that, and would end of it.
        let before = SigSet::from(ASK)
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(|errno| DumpError::on("sigprocmask", "", errno))?;
        let forked = spawn::fork();
        if !matches!(forked, Ok(None)) {
            let _ = before.thread_set_mask();
        }
        let forked = forked.map_err(|error| DumpError::io("clone3", "holder", &error))?;
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let Some(pid) = forked else {
            be_the_holder(&numbers, mark.as_raw_fd(), told);
        };
        let mut holder = Self {
            parked: Parked {
                holder: pid.as_raw(),
                began: 0,
                token,
                mark: mark.as_raw_fd(),
                files: numbers,
            },
            tell: Some(tell.into()),
        };
        // If that fails it ends with the other end of its pipe.
        let began = began(pid).map_err(|error| DumpError::io("stat", "holder", &error))?;
        holder.parked.began = began;
        Ok(holder)
    }

    pub(super) fn parked(&self) -> Parked {
        self.parked.clone()
    }

    /// It is to outlive this process.
    pub(super) fn keep(mut self) -> Result<(), DumpError> {
        let mut tell = self.tell.take().expect("told once");
        tell.write_all(b"k")
            .map_err(|error| DumpError::io("write", "holder", &error))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.tell.take().is_some() {
            let _ = waitpid(Pid::from_raw(self.parked.holder), None);
        }
    }
}

/// The holder: keeps these descriptors until it is killed, if it is told so.
fn be_the_holder(files: &[RawFd], mark: RawFd, told: OwnedFd) -> ! {
    let mut kept: Vec<RawFd> = files.to_vec();
    kept.extend([mark, told.as_raw_fd()]);
    kept.sort_unstable();
    let mut next = 0;
    // None of these can fail in a way that matters: what stays open is closed at the end.
    for fd in kept {
        if fd > next {
            let _ = descriptor::close_range(next.cast_unsigned(), (fd - 1).cast_unsigned());
        }
        next = fd + 1;
    }
    let _ = descriptor::close_range(next.cast_unsigned(), u32::MAX);
    let _ = nix::unistd::setsid();
    let _ = raw::chdir(c"/");
    let _ = nix::sys::prctl::set_name(c"notifreeze-hold");
    // SIGTERM ends it, whatever its parent did about that.
    let _ = spawn::default_action(Signal::SIGTERM);
    let asks = SigSet::from(ASK);
    let _ = asks.thread_set_mask();
    // Whoever may restore need not be a parent of this process (Yama, ptrace_scope 1).
    let _ = spawn::allow_tracer(Tracer::Any);
    let mut word = [0];
    loop {
        match nix::unistd::read(&told, &mut word) {
            Ok(1) => break,
            Err(Errno::EINTR) => {}
            // Who started it is gone, and no image speaks of it.
            _ => {
                let _ = kill(Pid::this(), Signal::SIGKILL);
            }
        }
    }
    drop(told);
    let asks = SignalFd::new(&asks);
    loop {
        match asks.as_ref().map(SignalFd::read_signal) {
            Ok(Ok(Some(ask))) => end_with_exec(ask.ssi_pid, mark),
            Ok(_) => {}
            // Who asks goes unheard, and is told that the holder stays.
            Err(_) => nix::unistd::pause(),
        }
    }
}

/// Ends the holder when a restorer that asks runs another program, before that has done anything: what
/// nobody else has open is closed by then. If the restorer cannot be traced or ends before, the holder
/// stays.
///
/// Whoever can send a signal can ask. A restorer has the holder's mark open for as long as it asks: one
/// that has given up, or runs its program already, has not.
fn end_with_exec(restorer: u32, mark: RawFd) {
    let restorer = Pid::from_raw(i32::try_from(restorer).unwrap_or(0));
    if has(restorer, mark) && trace::wait_for_exec(restorer) == Ok(true) {
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}

/// Whether a process has a description of ours open.
fn has(pid: Pid, own: RawFd) -> bool {
    let link = |pid: Pid, fd: RawFd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok();
    let wanted = link(Pid::this(), own);
    let mut numbers = files::numbers(pid).unwrap_or_default().into_iter();
    numbers.any(|fd| {
        link(pid, fd) == wanted && inspect::same_description((pid, fd), (Pid::this(), own))
    })
}

/// Refuses a place whose image speaks of groups that are parked: they would be out of reach.
pub(super) fn refuse_occupied(image: &Path) -> Result<(), DumpError> {
    let parked = Image::read(image).ok().and_then(|image| image.parked);
    match parked.filter(is_there) {
        None => Ok(()),
        Some(Parked { holder, .. }) => {
            let what = format!(
                "its groups are parked in process {holder}, out of reach without this image: \
                 restore them first, or end that process to let go of them"
            );
            let place = image.display().to_string();
            Err(DumpError::new(place, DumpErrorKind::Refused(what)))
        }
    }
}

/// Removes an image of groups whose holder is gone: it ended with a dumper that was killed before it
/// told it to stay.
pub(super) fn remove_abandoned(image: &Path) -> Result<(), DumpError> {
    let parked = Image::read(image).ok().and_then(|image| image.parked);
    if parked.is_none_or(|parked| is_there(&parked)) {
        return Ok(());
    }
    fs::remove_file(image)
        .map_err(|error| DumpError::io("unlink", image.display().to_string(), &error))
}

/// Something that an image from elsewhere cannot know.
fn token() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn mark_name(token: &str) -> String {
    format!("notifreeze-parking-{token}")
}

/// Whether the holder is there, and is the one that the image speaks of.
#[must_use]
pub fn is_there(parked: &Parked) -> bool {
    let holder = Pid::from_raw(parked.holder);
    let link = format!("/proc/{holder}/fd/{}", parked.mark);
    let expected = format!("/memfd:{} (deleted)", mark_name(&parked.token));
    parked.token.len() == 32
        && began(holder).is_ok_and(|began| began == parked.began)
        && fs::read_link(link).is_ok_and(|link| link.as_os_str() == expected.as_str())
}

/// Ends the holder, and waits for its end: what nobody else has open is closed then.
pub fn release(parked: &Parked) {
    let holder = Pid::from_raw(parked.holder);
    let Ok(pidfd) = inspect::pidfd_open(holder) else {
        return;
    };
    if is_there(parked) && inspect::pidfd_signal(&pidfd, Signal::SIGKILL).is_ok() {
        // A holder that the kernel does not end in time ends later.
        let _ = raw::readable(pidfd.as_raw_fd(), END_LIMIT_MS);
    }
}

/// How long the end of a process that was killed may take.
const END_LIMIT_MS: i32 = 5000;

/// What the holder of parked groups does about a restorer that has asked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It ends when the restorer runs another program, and not before. Until then, and if no program can
    /// be run, the groups stay where they are, whatever becomes of the restorer.
    AtExec,
    /// It goes on holding the groups: it may not trace the restorer, or another does.
    Never,
    /// It does not answer: it is stopped, or another restorer has asked it.
    Busy,
    /// There is no such holder.
    Gone,
}

/// Asks the holder to end when the calling process, of one thread, runs another program.
#[must_use]
pub fn release_at_exec(parked: &Parked) -> Release {
    let holder = Pid::from_raw(parked.holder);
    let pidfd = match inspect::pidfd_open(holder) {
        Ok(pidfd) if is_there(parked) => pidfd,
        Ok(_) | Err(_) => return Release::Gone,
    };
    let tracer = || Status::of("self").ok()?.number("TracerPid");
    let (Some(0), Ok(mark)) = (tracer(), inspect::pidfd_getfd(&pidfd, parked.mark)) else {
        return Release::Never;
    };
    // Only Yama asks for it.
    let _ = spawn::allow_tracer(Tracer::Process(holder));
    if inspect::pidfd_signal(&pidfd, ASK).is_err() {
        return Release::Gone;
    }
    let mut deadline = Instant::now() + TAKE_LIMIT;
    let mut has_taken = false;
    while tracer() == Some(0) && Instant::now() < deadline && is_there(parked) {
        if !has_taken && !waits_for(holder, ASK) {
            has_taken = true;
            deadline = Instant::now() + TRACE_LIMIT;
        }
        let _ = nix::poll::poll(&mut [], POLL_MS);
    }
    drop(mark);
    match tracer() {
        Some(pid) if pid == parked.holder => Release::AtExec,
        _ if !is_there(parked) => Release::Gone,
        _ if !has_taken => Release::Busy,
        _ => Release::Never,
    }
}

/// By which a restorer asks the holder.
const ASK: Signal = Signal::SIGUSR1;

/// How long a holder, which does nothing else, may take to hear that it is asked.
const TAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to trace who asked, which is the next that it does.
const TRACE_LIMIT: Duration = Duration::from_secs(1);
/// A tracer shows in /proc alone.
const POLL_MS: u8 = 1;
