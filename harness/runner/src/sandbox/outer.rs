//! The first process of a sandbox: makes the namespaces, starts init, waits for it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, getegid, geteuid, pipe};

use super::closer::{self, Closing};
use super::init;
use crate::job::{Answer, Job, receive, send};

/// Runs the job that `talk` brings in a sandbox of its own, and sends the answer back. The caller is a
/// fork of `zygote`, and exits afterwards.
pub(super) fn run(talk: UnixStream, zygote: Pid) -> io::Result<()> {
    let job: Job = receive(&talk)?;
    if let Err(reason) = enter_namespaces() {
        return send(&talk, &Answer::Skipped(reason));
    }
    // Credentials are settled now; a change of them would have cleared the request.
    set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != zygote {
        return Err(io::Error::other("the zygote is gone"));
    }
    let (closer, closing) = closer::pair()?;
    let (parent_alive, keep_open) = pipe()?;
    match cr::sys::spawn::fork()? {
        Some(init) => {
            drop((parent_alive, closer));
            watch_over(init, &talk, closing)?;
            drop(keep_open);
            Ok(())
        }
        None => {
            drop((keep_open, closing));
            set_pdeathsig(Signal::SIGKILL)?;
            // In a new pid namespace the parent's pid is always 0, so its death before the request
            // above shows only by its end of this pipe.
            let mut entry = [PollFd::new(parent_alive.as_fd(), PollFlags::POLLIN)];
            if poll(&mut entry, PollTimeout::ZERO)? != 0 {
                return Err(io::Error::other("the sandbox is gone"));
            }
            drop(parent_alive);
            init::run(&job, closer, |answer| send(&talk, answer))
        }
    }
}

/// Waits for the end of init, or makes it when the harness has closed its end of the line; and closes
/// what it is given meanwhile.
fn watch_over(init: Pid, talk: &UnixStream, mut closing: Closing) -> io::Result<()> {
    let pidfd = cr::sys::inspect::pidfd_open(init)?;
    let mut wanted = PollFlags::POLLIN;
    let gave_up = loop {
        let mut entries = [
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            // Whether it is closed is told unasked.
            PollFd::new(talk.as_fd(), PollFlags::empty()),
            PollFd::new(closing.as_fd(), wanted),
        ];
        match poll(&mut entries, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        let [ended, closed, asked] = entries.map(|entry| entry.any() == Some(true));
        if ended || closed {
            break closed;
        }
        if asked && !closing.step()? {
            wanted = PollFlags::empty();
        }
    };
    if gave_up {
        kill(init, Signal::SIGKILL)?;
    }
    match waitpid(init, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        _ if gave_up => Ok(()),
        status => Err(io::Error::other(format!("init: {status:?}"))),
    }
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
