//! Signals that are put off while a process has not all that is its own.

use nix::sys::signal::{SigSet, Signal};

use cr::dump::SIGNALS;
use cr::process::{Status, bit};

/// Blocks the signals by which a user ends a command, which a dump asks for itself where it can end
/// cleanly, and the one that a file gets that may not grow. Whoever ignores one, as nohup(1) makes us,
/// goes on to.
pub(super) fn put_off() -> Result<SigSet, String> {
    let ignored = Status::of("self").map_or(0, |status| status.set("SigIgn"));
    let is_ignored = |signal: &Signal| ignored & bit(*signal) != 0;
    let mut blocked = SigSet::from(Signal::SIGXFSZ);
    blocked.extend(SIGNALS.into_iter().filter(|signal| !is_ignored(signal)));
    blocked
        .thread_block()
        .map_err(|errno| format!("sigprocmask: {errno}"))?;
    Ok(blocked)
}

/// Takes the signal that was put off, which ends this process; the status to exit with otherwise.
pub(super) fn take(blocked: &SigSet, signal: i32) -> u8 {
    let _ = blocked.thread_unblock();
    u8::try_from(128 + signal).unwrap_or(crate::EXIT_FAIL)
}
