//! A filesystem of one's own that is in no mount namespace.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

use super::path::owned;

/// Whether this process may mount at all, asked of fsopen(2), which leaves nothing behind (`may_mount`).
///
/// # Errors
///
/// The errno of the call: `EPERM` without `CAP_SYS_ADMIN` in the user namespace that owns the mount
/// namespace.
pub fn may_mount() -> Result<(), Errno> {
    open(c"tmpfs").map(drop)
}

/// fsopen(2), fsconfig(2) and fsmount(2): a new filesystem of a kind, with a source and with mount
/// options, that nothing but the descriptor holds. It is in no mount table and has no path; closing
/// the last descriptor unmounts it at once.
///
/// # Errors
///
/// The errno of the first call that failed: `EPERM` without `CAP_SYS_ADMIN` in the user namespace
/// that owns the mount namespace.
pub(super) fn detached(
    kind: &CStr,
    source: Option<&CStr>,
    options: &[&CStr],
) -> Result<OwnedFd, Errno> {
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    const SET_FLAG: libc::c_uint = 0;
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    let context = open(kind)?;
    let set = |command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>| {
        let fd = context.as_raw_fd();
        let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
        let (key, value) = (pointer(key), pointer(value));
        // SAFETY: both are null or C strings that outlive the call.
        let returned = unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key, value, 0) };
        Errno::result(returned).map(drop)
    };
    if let Some(source) = source {
        set(SET_STRING, Some(c"source"), Some(source))?;
    }
    for option in options {
        set(SET_FLAG, Some(option), None)?;
    }
    set(CREATE, None, None)?;
    // SAFETY: plain numbers.
    let mount =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) };
    owned(mount)
}

fn open(kind: &CStr) -> Result<OwnedFd, Errno> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    // SAFETY: a C string and a plain number.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}
