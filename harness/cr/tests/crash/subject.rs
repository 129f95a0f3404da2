//! A process with groups that have unread events, stopped.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use cr::queue::{cursor, drain};
use cr::sys::fanotify::{Target, fanotify_init, fanotify_mark};
use cr::sys::{inspect, raw, watch};
use fsnotify::Wd;
use fsnotify::inotify::Mask;
use libtest_mimic::Failed;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::equal::difference;

pub(crate) const ROLE: &str = "be-the-subject";
pub(crate) const LISTENER: &str = "be-a-listener";

/// Names below its directory.
pub(crate) const PATHS: [&str; 4] = ["tree", "tree/d", "tree/d/moved", "tree/g"];

pub(crate) struct Subject {
    child: Child,
    directory: tempfile::TempDir,
}

/// What reading the groups yields: queues and next wds.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) queues: Vec<Vec<u8>>,
    next_wds: Vec<Wd>,
}

impl Subject {
    pub(crate) fn start() -> Result<Self, Failed> {
        Self::start_as(ROLE)
    }

    pub(crate) fn start_as(role: &str) -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        fs::create_dir(directory.path().join("tree"))?;
        fs::create_dir(directory.path().join("images"))?;
        let child = Command::new(std::env::current_exe()?)
            .args([role, directory.path().to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let subject = Self { child, directory };
        match waitpid(subject.pid(), Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(subject),
            other => Err(format!("the subject did not stop: {other:?}").into()),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn kill(&mut self) -> Result<(), Failed> {
        let ended = self.child.kill().and_then(|()| self.child.wait().map(drop));
        match ended {
            // A dump has killed it, and who waits for all children has waited for it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ECHILD)) => {
                Ok(())
            }
            ended => Ok(ended?),
        }
    }

    /// Whether a dump has killed it.
    /// Whether it is gone. One that was killed a moment ago neither is nor is stopped any more, and will be
    /// gone soon.
    pub(crate) fn has_ended(&self) -> bool {
        let Ok(pidfd) = inspect::pidfd_open(self.pid()) else {
            return true;
        };
        let may_end = !self.is_stopped().unwrap_or(false);
        may_end && raw::readable(pidfd.as_raw_fd(), crate::LIMIT_MS).unwrap_or(false)
    }

    /// Kills it, and starts another that stops in its place.
    pub(crate) fn replace(&mut self, heir: &mut Command) -> Result<(), Failed> {
        self.kill()?;
        self.start_heir(heir)
    }

    /// Starts another that stops in the place of one that was killed.
    pub(crate) fn start_heir(&mut self, heir: &mut Command) -> Result<(), Failed> {
        self.child = heir.spawn()?;
        match waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(()),
            other => Err(format!("the heir did not stop: {other:?}").into()),
        }
    }

    /// Its groups, by descriptors of our own.
    pub(crate) fn groups(&self) -> Result<Vec<OwnedFd>, Failed> {
        let pidfd = inspect::pidfd_open(self.pid())?;
        let numbers = inspect::groups(self.pid())?;
        let groups = numbers
            .into_iter()
            .map(|fd| inspect::pidfd_getfd(&pidfd, fd));
        Ok(groups.collect::<Result<_, _>>()?)
    }

    /// Watches, flags and offsets of all that is open. Looking at them changes nothing.
    pub(crate) fn fdinfo(&self) -> Result<Vec<String>, Failed> {
        let pid = self.pid();
        let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
        let numbers: Result<Vec<_>, _> = entries.map(|it| it.map(|it| it.file_name())).collect();
        let mut numbers: Vec<i32> = numbers?
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let numbers = numbers.into_iter();
        let texts = numbers.map(|fd| fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")));
        Ok(texts.collect::<Result<_, _>>()?)
    }

    /// Reads the queues, for good.
    pub(crate) fn read(&self) -> Result<State, Failed> {
        let mut state = State {
            queues: Vec::new(),
            next_wds: Vec::new(),
        };
        for group in self.groups()? {
            state.queues.push(drain(group.as_fd())?);
            let next_wd = cursor::probe(group.as_fd(), &mut Vec::new())?;
            state.next_wds.push(next_wd);
        }
        Ok(state)
    }

    /// Every file below its tree: path, inode, time of change of content, and content.
    pub(crate) fn tree(&self) -> Result<Vec<String>, Failed> {
        let mut found = Vec::new();
        let mut next = vec![self.directory().join("tree")];
        while let Some(path) = next.pop() {
            let metadata = fs::symlink_metadata(&path)?;
            let mut text = format!("{} {}", path.display(), metadata.ino());
            if metadata.is_dir() {
                let entries = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path()));
                next.extend(entries.collect::<Result<Vec<_>, _>>()?);
            } else {
                text += &format!(" {:?}", fs::read(&path)?);
            }
            let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
            found.push(format!("{text} {seconds}.{nanoseconds:09}"));
        }
        found.sort();
        Ok(found)
    }

    /// What a restorer, or the heir, left in the roots of mounts that a restore may put something into.
    /// Others restore meanwhile, and have what is theirs there.
    pub(crate) fn strays(&self, restorer: Pid) -> Result<Vec<String>, Failed> {
        let root = fs::read_dir("/")?.chain(fs::read_dir("/tmp")?);
        let names = root.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<Result<_, std::io::Error>>()?;
        let ours = [restorer, self.pid()].map(|pid| format!(".notifreeze-{pid}-"));
        let is_ours = |name: &String| ours.iter().any(|start| name.starts_with(start));
        Ok(names.into_iter().filter(is_ours).collect())
    }

    /// The letter of /proc/PID/stat: T for stopped.
    pub(crate) fn is_stopped(&self) -> Result<bool, Failed> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        Ok(stat.contains(") T "))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It is stopped, and must not run on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl State {
    /// Another subject that did the same must have the same.
    pub(crate) fn expect(&self, found: &Self) -> Result<(), Failed> {
        if self.next_wds != found.next_wds {
            return Err(format!("next wds {:?}, not {:?}", found.next_wds, self.next_wds).into());
        }
        for (expected, found) in self.queues.iter().zip(&found.queues) {
            if let Some(difference) = difference(expected, found) {
                return Err(difference.into());
            }
        }
        Ok(())
    }
}

/// Another subject: a permission listener that says nothing.
pub(crate) fn listen(directory: &Path) -> ExitCode {
    std::env::set_current_dir(directory.join("tree")).unwrap();
    cr::sys::descriptor::close_range(3, u32::MAX).unwrap();
    fs::write("f", "content").unwrap();
    let flags = libc::FAN_CLASS_CONTENT | libc::FAN_NONBLOCK;
    let group = fanotify_init(flags, 0).unwrap();
    let target = Target::Path(c"f");
    fanotify_mark(&group, libc::FAN_MARK_ADD, libc::FAN_OPEN_PERM, target).unwrap();
    for fd in 0..3 {
        let _ = raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    ExitCode::SUCCESS
}

/// The subject: a group with watches and unread events of many kinds, and one without; a watched
/// ghost.
pub(crate) fn run(directory: &Path) -> ExitCode {
    std::env::set_current_dir(directory.join("tree")).unwrap();
    // Whatever the one who runs the tests left open.
    cr::sys::descriptor::close_range(3, u32::MAX).unwrap();
    let group = watch::init().unwrap();
    let group = group.as_fd();
    let quiet = watch::init().unwrap();
    let all = Mask::ALL_EVENTS;
    fs::create_dir("d").unwrap();
    for file in ["d/f", "g", "gone"] {
        fs::write(file, "content").unwrap();
    }
    watch::add_watch(group, b".", Mask(all.0 & !libc::IN_ACCESS)).unwrap();
    watch::add_watch(group, b"d", all).unwrap();
    watch::set_next_wd(group, Wd::new(40).unwrap()).unwrap();
    watch::add_watch(group, b"d/f", Mask(all.0 | libc::IN_EXCL_UNLINK)).unwrap();
    watch::add_watch(group, b"g", Mask(libc::IN_ATTRIB | libc::IN_ONESHOT)).unwrap();
    let dead = watch::add_watch(group, b"gone", all).unwrap();
    watch::add_watch(quiet.as_fd(), b"g", all).unwrap();

    let ghost = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open("ghost")
        .unwrap();
    watch::add_watch_on(group, &ghost, all).unwrap();
    fs::remove_file("ghost").unwrap();
    nix::unistd::write(&ghost, b"ghostly").unwrap();
    // Behind a hole: where that is looked for, an offset moves that others share.
    ghost.write_all_at(b"end", 1 << 20).unwrap();
    // One whose name is another's by now, and one whose directory is gone.
    fs::create_dir("lost").unwrap();
    let ghosts = ["taken", "lost/f"].map(|name| {
        let options = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(name);
        let ghost = options.unwrap();
        nix::unistd::write(&ghost, name.as_bytes()).unwrap();
        fs::remove_file(name).unwrap();
        ghost
    });
    fs::remove_dir("lost").unwrap();
    fs::write("taken", "the one that took it").unwrap();
    fs::write("d/f", "other content").unwrap();
    fs::rename("d/f", "d/moved").unwrap();
    fs::remove_file("gone").unwrap();
    assert!(
        watch::rm_watch(group, dead).is_err(),
        "ended with its inode"
    );
    fs::write("d/new", "").unwrap();
    fs::rename("d/new", "new").unwrap();
    fs::remove_file("new").unwrap();
    watch::set_next_wd(group, Wd::new(60).unwrap()).unwrap();
    // The descriptors that it began with are not of a kind that is dumped.
    for fd in 0..3 {
        let _ = raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    assert!(group.as_raw_fd() > 2 && ghost.as_raw_fd() > 2 && ghosts[1].as_raw_fd() > 2);
    ExitCode::SUCCESS
}
