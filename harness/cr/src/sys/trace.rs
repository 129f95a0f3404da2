//! ptrace(2), for what nothing else tells: signals that wait to be taken, and that a process runs another
//! program now.

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

/// Waits until a process, of one thread, runs another program; false if it ends before. It then stands
/// still before the first instruction of that program, until this process ends.
///
/// # Errors
///
/// The errno of ptrace(2): `EPERM` without the right to trace the process, and if another does.
pub fn wait_for_exec(pid: Pid) -> Result<bool, Errno> {
    // SAFETY: plain numbers.
    Errno::result(unsafe {
        libc::ptrace(
            libc::PTRACE_SEIZE,
            pid.as_raw(),
            0,
            libc::PTRACE_O_TRACEEXEC,
        )
    })?;
    loop {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        let waited = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::__WALL) };
        match Errno::result(waited) {
            Err(Errno::EINTR) => continue,
            Ok(_) if libc::WIFSTOPPED(status) => {}
            _ => return Ok(false),
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let (request, signal) = match event {
            libc::PTRACE_EVENT_EXEC => return Ok(true),
            // It was stopped as by a shell, and goes on.
            libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => (libc::PTRACE_CONT, 0),
            // It is stopped so.
            libc::PTRACE_EVENT_STOP => (libc::PTRACE_LISTEN, 0),
            _ => (libc::PTRACE_CONT, signal),
        };
        // It may have been killed meanwhile, which the next wait tells.
        // SAFETY: plain numbers.
        let _ = unsafe { libc::ptrace(request, pid.as_raw(), 0, signal) };
    }
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
