//! The command `dump` is killed at one in a few of its system calls, from its first to its last. Behind
//! `recover` the process runs, and has what it had; or its image is complete, and it is gone.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const NOTIFREEZE: &str = env!("CARGO_BIN_EXE_notifreeze");

/// Runs on behind its group, in a read that never ends.
const PLAN: &str = "\
# A group with unread events.
mkdir(\"dir\", 0755)
mknod(\"fifo\", S_IFIFO|0644)
open(\"dir/a\", O_RDWR|O_CREAT, 0644) = a
open(\"fifo\", O_RDWR) = fifo
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"dir\", IN_CREATE|IN_DELETE) = 1
inotify_add_watch(n, \"dir/a\", IN_MODIFY) = 2
open(\"dir/b\", O_RDWR|O_CREAT, 0644)
write(a, \"x\")
read(fifo) = ?
";

/// The descriptor of the group.
const GROUP: i32 = 5;

/// Of how many calls one is killed at. Those that fill a queue are left out.
const SAMPLE: usize = 23;

/// In the environment of a dumper and of whom it forks: the folder of its subject.
const MARK: &str = "NOTIFREEZE_KILLED_DUMP";

struct Subject {
    child: Child,
    folder: tempfile::TempDir,
}

/// What a subject has, seen from outside without changing it.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// Stopped or not.
    is_stopped: bool,
    info: String,
    unread: u64,
}

impl Subject {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("w")).expect("a folder");
        fs::write(path("plan"), PLAN).expect("a plan");
        fs::write(path("log"), "").expect("a log");
        let child = Command::new(NOTIFREEZE)
            .arg("subject")
            .args([path("plan"), path("log")])
            .current_dir(path("w"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the subject");
        let subject = Self { child, folder };
        let unread = || subject.state().is_some_and(|state| state.unread == 48);
        wait_for("the subject's events", unread);
        wait_for("the subject's read", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", subject.pid()));
            stat.is_ok_and(|stat| stat.contains(") S "))
        });
        subject
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    /// None of a process that has ended.
    fn state(&self) -> Option<State> {
        let pid = self.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{GROUP}")).ok()?;
        let pidfd = cr::sys::inspect::pidfd_open(pid).ok()?;
        let group = cr::sys::inspect::pidfd_getfd(&pidfd, GROUP).ok()?;
        let unread = cr::sys::inspect::unread(group.as_fd()).ok()?;
        let is_stopped = stat.contains(") T ");
        Some(State {
            is_stopped,
            info,
            unread,
        })
    }

    fn notifreeze(&self, arguments: &[&str]) -> Output {
        let output = Command::new(NOTIFREEZE).args(arguments).output();
        output.expect("notifreeze")
    }

    fn recover(&self) -> Result<(), String> {
        let images = self.images();
        if !images.exists() {
            return Ok(());
        }
        let output = self.notifreeze(&["recover", images.to_str().expect("letters")]);
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("recover: {said}"))
        }
    }

    fn left(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.images()) else {
            return Vec::new();
        };
        let names = entries.map(|it| it.expect("a name").file_name());
        names.map(|it| it.to_string_lossy().into_owned()).collect()
    }

    /// Processes that the dumper of this subject has forked, and that outlived it.
    fn holders(&self) -> Vec<i32> {
        let mark = format!("{MARK}={}", self.folder.path().display());
        let entries = fs::read_dir("/proc").expect("/proc");
        let pids = entries.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
        let has_mark = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut words = environ.split(|&byte| byte == 0);
            words.any(|word| word == mark.as_bytes())
        };
        pids.filter(has_mark).collect()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for holder in self.holders() {
            let _ = kill(Pid::from_raw(holder), Signal::SIGKILL);
        }
    }
}

/// Waits until `done`, giving the machine away between two looks, for 10 s at most.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        std::thread::yield_now();
    }
}

/// What becomes of a dumper at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fatal {
    Kill,
    /// Ctrl-C.
    Interrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Before its end, by this signal.
    By(Signal),
    Exited(i32),
}

/// Runs `dump` up to its `n`th call, and sends it a signal there. Whether there was such a call, and how
/// it ended.
fn dump(subject: &Subject, more: &[&str], (n, fatal): (usize, Fatal)) -> (bool, Ended) {
    // It waits, stopped, for its tracer.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh", NOTIFREEZE, "dump"])
        .arg(subject.pid().to_string())
        .args(["--only-fsnotify", "--images"])
        .arg(subject.images())
        .args(more)
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
    let ended = trace(pid, (n, fatal));
    // The tracer has waited for it.
    let _ = child.wait();
    ended
}

fn trace(pid: Pid, (n, fatal): (usize, Fatal)) -> (bool, Ended) {
    let mut n_calls = 0;
    let mut is_reached = false;
    let mut is_ours = false;
    let mut inside = HashSet::new();
    loop {
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
                        let signal = match fatal {
                            Fatal::Kill => Signal::SIGKILL,
                            Fatal::Interrupt => Signal::SIGINT,
                        };
                        let _ = kill(pid, signal);
                    }
                    n_calls += 1;
                }
                (tid, None)
            }
            WaitStatus::PtraceEvent(tid, _, libc_event) => {
                // PTRACE_EVENT_EXEC: the shell has become the dumper.
                if libc_event == 4 {
                    is_ours = true;
                    inside.insert(tid);
                }
                (tid, None)
            }
            WaitStatus::Stopped(tid, signal) => (tid, Some(signal)),
            WaitStatus::Exited(tid, status) if tid == pid => {
                return (is_reached, Ended::Exited(status));
            }
            WaitStatus::Signaled(tid, signal, _) if tid == pid => {
                return (is_reached, Ended::By(signal));
            }
            _ => continue,
        };
        match ptrace::syscall(tid, signal) {
            // It may be killed by now.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => panic!("PTRACE_SYSCALL: {errno}"),
        }
    }
}

/// What a dump leaves that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    RunsOn,
    Ends,
    Parks,
}

fn everywhere(more: &[&str], fatal: Fatal, done: Done) {
    if !nix::unistd::geteuid().is_root() {
        let strict = std::env::var_os("NOTIFREEZE_STRICT").is_some_and(|value| value == "1");
        assert!(!strict, "needs root: a queue is rebuilt on a mount");
        eprintln!("skip: needs root: a queue is rebuilt on a mount");
        return;
    }
    let (mut n_images, mut n_whole) = (0, 0);
    for n in (0..).step_by(SAMPLE) {
        let subject = Subject::start();
        let before = subject.state().expect("a subject");
        let (is_reached, ended) = dump(&subject, more, (n, fatal));
        let at = format!("{more:?}: {fatal:?} at call {n}: {ended:?}");
        let expected = match fatal {
            _ if !is_reached => ended == Ended::Exited(0),
            Fatal::Kill => ended == Ended::By(Signal::SIGKILL),
            // Too late to be heard, or in time to end cleanly.
            Fatal::Interrupt => matches!(ended, Ended::By(Signal::SIGINT) | Ended::Exited(0)),
        };
        assert!(expected, "{at}");
        if fatal == Fatal::Kill {
            subject
                .recover()
                .unwrap_or_else(|error| panic!("{at}: {error}"));
        }
        let left = subject.left();
        let has_image = left == ["image.nf"];
        assert!(has_image || left.is_empty(), "{at}: {left:?}");
        if has_image {
            cr::Image::read(&subject.images().join("image.nf"))
                .unwrap_or_else(|error| panic!("{at}: {error}"));
        }
        let has_holder = !subject.holders().is_empty();
        assert_eq!(has_holder, has_image && done == Done::Parks, "{at}: holder");
        match subject.state() {
            Some(state) => {
                assert_eq!(state, before, "{at}");
                n_whole += 1;
            }
            None => {
                assert!(has_image && done != Done::RunsOn, "{at}: it is gone");
                n_images += 1;
            }
        }
        if !is_reached {
            assert!(
                has_image && (done == Done::RunsOn) == (n_images == 0),
                "{at}"
            );
            break;
        }
    }
    eprintln!("{more:?}: {n_whole} whole, {n_images} in an image");
    assert!(n_whole > 100 / SAMPLE, "{n_whole} whole");
}

#[test]
fn a_dump_may_be_killed_anywhere() {
    everywhere(&[], Fatal::Kill, Done::Ends);
}

#[test]
fn a_dump_that_lets_the_process_run_on_may_be_killed_anywhere() {
    everywhere(&["--leave-running"], Fatal::Kill, Done::RunsOn);
}

#[test]
fn who_parks_may_be_killed_anywhere() {
    everywhere(&["--park"], Fatal::Kill, Done::Parks);
}

#[test]
fn a_dump_may_be_interrupted_anywhere() {
    everywhere(&[], Fatal::Interrupt, Done::Ends);
}

#[test]
fn a_dump_is_not_undone_by_who_does_not_listen() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skip: needs root");
        return;
    }
    let mut subject = Subject::start();
    let full = || {
        Stdio::from(
            fs::File::options()
                .write(true)
                .open("/dev/full")
                .expect("it"),
        )
    };
    let status = Command::new(NOTIFREEZE)
        .args([
            "dump",
            &subject.pid().to_string(),
            "--only-fsnotify",
            "--images",
        ])
        .arg(subject.images())
        .stdout(full())
        .stderr(full())
        .status()
        .expect("a dump");
    assert!(status.success(), "{status:?}");
    assert_eq!(subject.left(), ["image.nf"]);
    let ended = subject.child.wait().expect("its end");
    assert_eq!(ended.signal(), Some(Signal::SIGKILL as i32));
    assert!(Path::new(&subject.images()).join("image.nf").exists());
}
