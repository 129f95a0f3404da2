//! ptrace(2), for the one thing that /proc does not show: signals that wait to be taken.

use nix::errno::Errno;
use nix::unistd::Pid;

/// `struct ptrace_peeksiginfo_args`.
#[repr(C)]
struct Peek {
    offset: u64,
    flags: u32,
    count: i32,
}

/// The most signals read at once.
const BATCH: usize = 32;
/// `PTRACE_PEEKSIGINFO_SHARED`: those of the process, not of the thread.
const SHARED: u32 = 1;

/// The signals that wait for a stopped process of one thread, each as its `siginfo_t` and whether
/// it was sent to the process; they keep waiting. The process is stopped again afterwards.
///
/// # Errors
///
/// The errno of ptrace(2): `EPERM` without the right to trace the process.
pub fn pending_signals(pid: Pid) -> Result<Vec<([u8; 128], bool)>, Errno> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw(), 0, 0) })?;
    let mut found = peek_all(pid, 0);
    if let Ok(own) = &mut found {
        match peek_all(pid, SHARED) {
            Ok(shared) => own.extend(shared),
            Err(errno) => found = Err(errno),
        }
    }
    // SAFETY: plain numbers.
    let detached = unsafe { libc::ptrace(libc::PTRACE_DETACH, pid.as_raw(), 0, 0) };
    let found = found?;
    Errno::result(detached)?;
    Ok(found)
}

fn peek_all(pid: Pid, flags: u32) -> Result<Vec<([u8; 128], bool)>, Errno> {
    let mut all = Vec::new();
    loop {
        let batch = peek(pid, flags, all.len() as u64)?;
        if batch.is_empty() {
            return Ok(all);
        }
        all.extend(batch.into_iter().map(|info| (info, flags == SHARED)));
    }
}

fn peek(pid: Pid, flags: u32, offset: u64) -> Result<Vec<[u8; 128]>, Errno> {
    const PTRACE_PEEKSIGINFO: libc::c_uint = 0x4209;
    let peek = Peek {
        offset,
        flags,
        count: i32::try_from(BATCH).expect("a small number"),
    };
    let mut infos = vec![[0_u8; 128]; BATCH];
    // SAFETY: the kernel reads struct ptrace_peeksiginfo_args and writes at most `count` entries
    // of the size of siginfo_t, for which there is room.
    let returned = unsafe {
        libc::ptrace(
            PTRACE_PEEKSIGINFO,
            pid.as_raw(),
            &raw const peek,
            infos.as_mut_ptr(),
        )
    };
    let count = Errno::result(returned)?;
    infos.truncate(usize::try_from(count).unwrap_or(0));
    Ok(infos)
}
