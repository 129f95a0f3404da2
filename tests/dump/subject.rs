//! A process that is dumped: not in a sandbox, and not stopped.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::NOTIFREEZE;

/// Runs on behind its group, in a read that never ends.
pub(crate) const PLAN: &str = "\
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
pub(crate) const GROUP: i32 = 5;

/// In the environment of a dumper and of whom it forks: the folder of its subject.
pub(crate) const MARK: &str = "NOTIFREEZE_KILLED_DUMP";

pub(crate) struct Subject {
    pub(crate) child: Child,
    pub(crate) folder: tempfile::TempDir,
}

/// What a subject has, seen from outside without changing it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) is_stopped: bool,
    pub(crate) info: String,
    pub(crate) unread: u64,
}

impl Subject {
    pub(crate) fn start() -> Self {
        Self::start_as(PLAN)
    }

    /// Another, whose group has the same number, and that ends in the same read.
    pub(crate) fn start_as(plan: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("w")).expect("a folder");
        fs::write(path("plan"), plan).expect("a plan");
        fs::write(path("log"), "").expect("a log");
        let child = Command::new(NOTIFREEZE)
            .arg("subject")
            .args([path("plan"), path("log")])
            .current_dir(path("w"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the subject");
        let subject = Self { child, folder };
        wait_for("the subject's read", || {
            let wchan = fs::read_to_string(format!("/proc/{}/wchan", subject.pid()));
            wchan.is_ok_and(|wchan| wchan.contains("pipe_read"))
        });
        assert!(subject.state().is_some_and(|state| state.unread > 0));
        subject
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    /// None of a process that has ended.
    pub(crate) fn state(&self) -> Option<State> {
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

    pub(crate) fn notifreeze(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(NOTIFREEZE);
        let command = command.args(arguments).env(MARK, self.folder.path());
        command.output().expect("notifreeze")
    }

    pub(crate) fn recover(&self) -> Result<(), String> {
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

    pub(crate) fn left(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.images()) else {
            return Vec::new();
        };
        let names = entries.map(|it| it.expect("a name").file_name());
        names.map(|it| it.to_string_lossy().into_owned()).collect()
    }

    /// Processes that the dumper of this subject has forked, and that outlived it.
    pub(crate) fn holders(&self) -> Vec<i32> {
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
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        std::thread::yield_now();
    }
}

/// Whether these tests can run: a queue is rebuilt on a mount.
pub(crate) fn is_permitted() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let strict = std::env::var_os("NOTIFREEZE_STRICT").is_some_and(|value| value == "1");
    assert!(!strict, "needs root: a queue is rebuilt on a mount");
    eprintln!("skip: needs root: a queue is rebuilt on a mount");
    false
}
