//! The first process of a sandbox: makes the namespaces, starts init, waits for it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{Uid, dup2_stdout, getegid, geteuid, pipe};

use super::init;
use crate::job::{Answer, Job};

/// The hidden subcommand `sandbox`: reads a job from standard input, writes the answer to standard
/// output.
#[must_use]
pub fn main() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("{error}");
            ExitCode::from(crate::EXIT_BROKEN)
        }
    }
}

fn answer() -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let job: Job = serde_json::from_slice(&input)?;
    if let Err(reason) = enter_namespaces() {
        return reply(&Answer::Skipped(reason));
    }
    // Credentials are settled now; a change of them would have cleared the request.
    set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid().as_raw() == 1 {
        return Err(io::Error::other("the harness is gone"));
    }
    let (parent_alive, keep_open) = pipe()?;
    match cr::sys::spawn::fork()? {
        Some(child) => {
            drop(parent_alive);
            close_stdout()?;
            waitpid(child, None)?;
            drop(keep_open);
            Ok(())
        }
        None => {
            drop(keep_open);
            set_pdeathsig(Signal::SIGKILL)?;
            // In a new pid namespace the parent's pid is always 0, so its death before the request
            // above shows only by its end of this pipe.
            let mut entry = [PollFd::new(parent_alive.as_fd(), PollFlags::POLLIN)];
            if poll(&mut entry, PollTimeout::ZERO)? != 0 {
                return Err(io::Error::other("the sandbox is gone"));
            }
            drop(parent_alive);
            init::run(&job, |answer| reply(answer).and_then(|()| close_stdout()))
        }
    }
}

/// The answer ends where the last writer is gone, and it has come long before a sandbox has ended.
fn close_stdout() -> io::Result<()> {
    Ok(dup2_stdout(fs::File::open("/dev/null")?)?)
}

fn reply(answer: &Answer) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(&serde_json::to_vec(answer)?)?;
    out.flush()
}

/// New mount and pid namespaces; without root, in a new user namespace that maps the caller to
/// root.
fn enter_namespaces() -> Result<(), String> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    let (user, group): (Uid, _) = (geteuid(), getegid());
    if user.is_root() {
        return unshare(flags).map_err(|errno| format!("unshare: {errno}"));
    }
    flags |= CloneFlags::CLONE_NEWUSER;
    unshare(flags).map_err(|errno| format!("no user namespaces here: unshare: {errno}"))?;
    let map = |file: &str, text: String| {
        fs::write(file, text).map_err(|error| format!("{file}: {error}"))
    };
    map("/proc/self/setgroups", "deny".to_owned())?;
    map("/proc/self/uid_map", format!("0 {user} 1"))?;
    map("/proc/self/gid_map", format!("0 {group} 1"))
}
