//! A tmpfs of one's own that is in no mount namespace, and what is done there that `nix` lacks.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

use super::mount;

/// A new tmpfs that nothing but the descriptor holds.
///
/// # Errors
///
/// The errno of the first call that failed: `EPERM` without `CAP_SYS_ADMIN` in the user namespace
/// that owns the mount namespace.
pub fn detached() -> Result<OwnedFd, Errno> {
    mount::detached(c"tmpfs", None, &[])
}

/// Opens a file the way execve(2) does (`do_open_execat`), which makes an `IN_OPEN` that differs
/// from that of open(2) in a bit no reader sees (`FS_OPEN_EXEC`), and executes nothing.
///
/// The file must be executable and hold no program: with the content of
/// [`NOT_A_PROGRAM`] every kernel fails behind the open with `ENOEXEC`, and one that knows
/// `AT_EXECVE_CHECK` does not even try.
///
/// # Errors
///
/// The errno of the call, if it failed before or in the open.
pub fn open_to_execute(dir: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    const AT_EXECVE_CHECK: libc::c_int = 0x1_0000;
    match execveat(dir, path, AT_EXECVE_CHECK) {
        Err(Errno::EINVAL) => match execveat(dir, path, 0) {
            Err(Errno::ENOEXEC) => Ok(()),
            other => other,
        },
        other => other,
    }
}

/// No interpreter claims this; printable, so that the kernel does not ask for a module either.
pub const NOT_A_PROGRAM: &[u8] = b"not a program\n";

fn execveat(dir: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> Result<(), Errno> {
    let arguments: [*const libc::c_char; 1] = [ptr::null()];
    // SAFETY: valid string and null-terminated lists; that nothing is executed, which would end
    // this process without running destructors, is what the flag or the content sees to.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            dir.as_raw_fd(),
            path.as_ptr(),
            arguments.as_ptr(),
            arguments.as_ptr(),
            flags,
        )
    };
    Errno::result(returned).map(drop)
}

/// Runs `change` while this thread lacks `CAP_FSETID`, so that truncating a set-user-id file
/// clears the bit (`setattr_should_drop_suidgid`).
///
/// # Errors
///
/// The errno of capget(2) or capset(2), or that of `change`.
pub fn without_fsetid<T>(change: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    const CAP_FSETID: u32 = 1 << 4;
    let before = capabilities()?;
    let mut reduced = before;
    reduced[0].effective &= !CAP_FSETID;
    set_capabilities(&reduced)?;
    let result = change();
    set_capabilities(&before)?;
    result
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// Version 3 of linux/capability.h: two words a set, of our own thread.
const HEADER: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Sets {
    pub(super) effective: u32,
    permitted: u32,
    inheritable: u32,
}

pub(super) fn capabilities() -> Result<[Sets; 2], Errno> {
    let mut header = HEADER;
    let mut sets = [Sets::default(); 2];
    // SAFETY: version 3 writes two `Sets`, and the kernel may write the header's version.
    let returned = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(returned)?;
    Ok(sets)
}

pub(super) fn set_capabilities(sets: &[Sets; 2]) -> Result<(), Errno> {
    let mut header = HEADER;
    // SAFETY: version 3 reads two `Sets`.
    let returned = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    Errno::result(returned).map(drop)
}
