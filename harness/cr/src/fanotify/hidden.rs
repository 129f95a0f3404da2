//! What fdinfo does not show of a group, found out without a trace.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use fsnotify::fanotify::InitFlags;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys::fanotify::{Response, Target, fanotify_mark, open_elsewhere, respond};
use crate::sys::tmpfs;

/// Whether the group was made with `FAN_ENABLE_AUDIT`, which kernels from 5.13 on hide.
///
/// `process_access_response` checks the answer before it looks for the event: an audited answer to
/// an event that cannot exist is `EINVAL` without the flag and `ENOENT` with it.
#[must_use]
pub fn audited(group: impl AsFd) -> bool {
    respond(group, i32::MAX, Response::AllowAudited) == Err(Errno::ENOENT)
}

/// What no unprivileged caller may ask for (`FANOTIFY_ADMIN_INIT_FLAGS`).
const PRIVILEGED: u32 = libc::FAN_CLASS_CONTENT
    | libc::FAN_CLASS_PRE_CONTENT
    | libc::FAN_UNLIMITED_QUEUE
    | libc::FAN_UNLIMITED_MARKS
    | libc::FAN_ENABLE_AUDIT
    | libc::FAN_REPORT_PIDFD
    | libc::FAN_REPORT_TID
    | FAN_REPORT_FD_ERROR;
const FAN_REPORT_FD_ERROR: u32 = 0x2000;

/// Whether the group was made by a caller without `CAP_SYS_ADMIN` (`FANOTIFY_UNPRIV`). Its queue
/// has to be empty: the answer is the event of another process on a file of our own, which a
/// privileged group shows with the pid of that process, and an unprivileged one without. Flags
/// often answer without asking.
///
/// # Errors
///
/// The errno of the call that failed; `EIO` if the event did not come.
pub fn unprivileged(group: impl AsFd, flags: InitFlags) -> Result<bool, Errno> {
    let reports_fid = InitFlags::REPORT_FID.0 | InitFlags::REPORT_DIR_FID.0;
    if flags.0 & PRIVILEGED != 0 || flags.0 & reports_fid == 0 {
        return Ok(false);
    }
    let group = group.as_fd();
    // A file without a name has no directory to report it by.
    let (scratch, mask) = match flags.contains(InitFlags::REPORT_FID) {
        true => (
            memfd_create(c"notifreeze", MFdFlags::MFD_CLOEXEC)?,
            libc::FAN_OPEN,
        ),
        false => (tmpfs::detached()?, libc::FAN_OPEN | libc::FAN_ONDIR),
    };
    let path = CString::new(format!("/proc/self/fd/{}", scratch.as_raw_fd())).expect("no NUL");
    let mark = |flags| fanotify_mark(group, flags, mask, Target::Path(&path));
    mark(libc::FAN_MARK_ADD)?;
    let opener = open_elsewhere(&path, libc::O_RDONLY);
    if let Ok(opener) = opener {
        opener.finish();
    }
    mark(libc::FAN_MARK_REMOVE)?;
    if crate::sys::inspect::unread(group)? == 0 {
        return Err(Errno::EIO);
    }
    let mut buffer = [0; 512];
    let n_read = nix::unistd::read(group, &mut buffer)?;
    let event = fsnotify::event::fanotify::Events::new(&buffer[..n_read]).next();
    let event = event.and_then(Result::ok).ok_or(Errno::EIO)?;
    Ok(event.pid == 0)
}
