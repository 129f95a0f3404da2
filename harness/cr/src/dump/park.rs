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
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::content::Store;
use super::error::DumpError;
use super::journal::began;
use super::{Dump, DumpOptions, in_own_directory, recover};
use crate::image::{Image, Parked};
use crate::sys::{descriptor, inspect, raw, spawn};
use crate::{Loss, LossKind};

/// Parks a stopped process and its descendants, and writes an image that says where.
///
/// The caller, which has one thread, kills the subject afterwards.
///
/// # Errors
///
/// What cannot be parked or written, by name. The subject is then as it was.
pub fn park(pid: Pid, image_path: &Path, options: &DumpOptions) -> Result<Image, DumpError> {
    recover(image_path, options)?;
    // The rest ends here, and the thread that listens with it: the holder is forked of one thread.
    let (mut image, held) = in_own_directory(|| {
        let Dump { image, held, .. } = Dump::look(pid, options, |_| Ok(Store::Nowhere))?;
        Ok((image, held))
    })?;
    // What cannot be made again is not made again.
    image.lost.clear();
    if options.only_groups {
        let reason = "what the process has open besides is closed at its end, which they hear";
        super::declare(
            &mut image,
            Loss::new(LossKind::ClosedBesideParked, "parked groups", reason),
        );
    }
    let files: Vec<OwnedFd> = held.into_iter().map(|held| held.file).collect();
    image.parked = Some(hold(&files)?);
    let written = image.write(image_path);
    if let (Err(_), Some(parked)) = (&written, &image.parked) {
        release(parked);
    }
    let name = || image_path.display().to_string();
    written.map_err(|error| DumpError::io("write", name(), &error))?;
    Ok(image)
}

/// Starts the holder of these files.
fn hold(files: &[OwnedFd]) -> Result<Parked, DumpError> {
    let token = token().map_err(|error| DumpError::io("read", "/dev/urandom", &error))?;
    let mark = memfd_create(mark_name(&token).as_str(), MFdFlags::MFD_CLOEXEC)
        .map_err(|errno| DumpError::on("memfd_create", "", errno))?;
    let forked = spawn::fork().map_err(|error| DumpError::io("clone3", "holder", &error))?;
    let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let Some(holder) = forked else {
        be_the_holder(&numbers, mark.as_raw_fd());
    };
    let failed = |error| DumpError::io("stat", "holder", &error);
    let began = began(holder).map_err(failed)?;
    Ok(Parked {
        holder: holder.as_raw(),
        began,
        token,
        mark: mark.as_raw_fd(),
        files: numbers,
    })
}

/// The holder: keeps these descriptors until it is killed.
fn be_the_holder(files: &[RawFd], mark: RawFd) -> ! {
    let mut kept: Vec<RawFd> = files.iter().copied().chain([mark]).collect();
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
    // Whoever may restore need not be a parent of this process (Yama, ptrace_scope 1).
    let _ = spawn::allow_any_tracer();
    loop {
        nix::unistd::pause();
    }
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
pub(crate) fn is_there(parked: &Parked) -> bool {
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
    if is_there(parked) && kill(holder, Signal::SIGKILL).is_ok() {
        // A holder that the kernel does not end in time ends later.
        let _ = raw::readable(pidfd.as_raw_fd(), END_LIMIT_MS);
    }
}

/// How long the end of a process that was killed may take.
const END_LIMIT_MS: i32 = 5000;
