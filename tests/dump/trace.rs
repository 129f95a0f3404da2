//! A command that is traced up to one of its system calls, where something happens to it.

use std::collections::HashSet;
use std::fs;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::NOTIFREEZE;
use crate::subject::{MARK, Subject};

/// What happens at a call of the dumper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fatal {
    Kill,
    /// Ctrl-C.
    Interrupt,
    /// The subject is killed, not the dumper.
    SubjectEnds,
    /// Another command runs meanwhile, with these arguments, to its end; its status is in the folder
    /// of the subject, in the file `rival`.
    Rival(&'static [&'static str]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Before its end, by this signal.
    By(Signal),
    Exited(i32),
}

/// Runs `dump` as [`run`] does.
pub(crate) fn dump(subject: &Subject, more: &[&str], call: (usize, Fatal)) -> (bool, Ended) {
    let (pid, images) = (subject.pid().to_string(), subject.images());
    let images = images.to_str().expect("letters");
    let arguments = [&["dump", &pid, "--only-fsnotify", "--images", images], more].concat();
    run(subject, &arguments, call)
}

/// Runs a command up to its `n`th call, where something happens. Whether there was such a call, and how
/// it ended.
pub(crate) fn run(
    subject: &Subject,
    arguments: &[&str],
    (n, fatal): (usize, Fatal),
) -> (bool, Ended) {
    // It waits, stopped, for its tracer.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh", NOTIFREEZE])
        .args(arguments)
        .env(MARK, subject.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED));
    assert!(matches!(status, Ok(WaitStatus::Stopped(..))), "{status:?}");
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).expect("PTRACE_SEIZE");
    kill(pid, Signal::SIGCONT).expect("SIGCONT");
    let ended = trace(subject, pid, (n, fatal));
    // The tracer has waited for it.
    let _ = child.wait();
    ended
}

fn trace(subject: &Subject, pid: Pid, (n, fatal): (usize, Fatal)) -> (bool, Ended) {
    let mut n_calls = 0;
    let mut is_reached = false;
    let mut is_ours = false;
    let mut inside = HashSet::new();
    // Those that the dumper has forked, too: who is traced does not end by itself.
    let mut alive = HashSet::from([pid]);
    let mut ended = None;
    while !alive.is_empty() {
        // Of this thread alone: other tests wait for other processes.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let (tid, signal) = match waitpid(None, Some(flags)).expect("a traced process") {
            WaitStatus::PtraceSyscall(tid) => {
                let is_entry = inside.insert(tid) || !inside.remove(&tid);
                let call = ptrace::getregs(tid).map(|it| it.orig_rax).unwrap_or(0);
                // fchmod(2) fills a queue, thousands of times.
                if is_entry && is_ours && call != 91 {
                    if n_calls == n {
                        is_reached = true;
                        strike(subject, pid, fatal);
                    }
                    n_calls += 1;
                }
                (tid, None)
            }
            WaitStatus::PtraceEvent(tid, _, event) => {
                // The shell has become the one that is traced; or that one its command.
                if event == EXEC {
                    is_ours = !is_ours;
                    inside.insert(tid);
                }
                // It may be killed by now: then what it started is seen when that stops.
                if let (CLONE, Ok(started)) = (event, ptrace::getevent(tid)) {
                    alive.insert(Pid::from_raw(i32::try_from(started).expect("a pid")));
                }
                alive.insert(tid);
                (tid, None)
            }
            WaitStatus::Stopped(tid, signal) => (tid, Some(signal)),
            WaitStatus::Exited(tid, status) => {
                alive.remove(&tid);
                ended = ended.or((tid == pid).then_some(Ended::Exited(status)));
                continue;
            }
            WaitStatus::Signaled(tid, signal, _) => {
                alive.remove(&tid);
                ended = ended.or((tid == pid).then_some(Ended::By(signal)));
                continue;
            }
            _ => continue,
        };
        match ptrace::syscall(tid, signal) {
            // It may be killed by now.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => panic!("PTRACE_SYSCALL: {errno}"),
        }
    }
    (is_reached, ended.expect("the dumper ended"))
}

/// `PTRACE_EVENT_CLONE` and `PTRACE_EVENT_EXEC`.
const CLONE: i32 = 3;
const EXEC: i32 = 4;

fn strike(subject: &Subject, dumper: Pid, fatal: Fatal) {
    // Whoever it is may have ended.
    match fatal {
        Fatal::Kill => drop(kill(dumper, Signal::SIGKILL)),
        Fatal::Interrupt => drop(kill(dumper, Signal::SIGINT)),
        Fatal::SubjectEnds => drop(kill(subject.pid(), Signal::SIGKILL)),
        Fatal::Rival(arguments) => {
            let pid = subject.pid().to_string();
            let arguments = arguments.iter().map(|&word| match word {
                "PID" => &pid,
                word => word,
            });
            let output = Command::new(NOTIFREEZE)
                .args(arguments)
                .current_dir(subject.folder.path())
                .env(MARK, subject.folder.path())
                .output()
                .expect("a rival");
            let said = [output.stdout, output.stderr].concat();
            fs::write(subject.folder.path().join("rival"), said).expect("a file");
        }
    }
}
