//! Real programs, each started in a mount namespace of its own where a test may mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a test lacks; `NOTIFREEZE_STRICT` makes it a failure.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("NOTIFREEZE_STRICT").is_none(), "{reason}");
    eprintln!("skipped: {reason}");
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The path of a program; none, with a word about it, where it is not installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    let more = ["/usr/sbin", "/usr/lib/systemd", "/lib/systemd"].map(PathBuf::from);
    let found = folders
        .chain(more)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("no {program} (ci/programs installs it)"));
    }
    found
}

/// Which filesystem the watched files are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// That of the temporary directory.
    Disk,
    /// The same, in our own mount namespace.
    Here,
    Tmpfs,
    Overlay,
    Xfs,
    /// `dir` is a subvolume.
    Btrfs,
    Erofs,
    Squashfs,
    /// The same files once more, through a server.
    Fuse,
}

impl Ground {
    pub(crate) fn is_read_only(self) -> bool {
        matches!(self, Self::Erofs | Self::Squashfs)
    }
}

/// A folder for a program to watch in: `dir`, `dir/file` and `dir/sub` below `work`, and the same in
/// `new`, which is on no lower layer.
#[derive(Debug)]
pub(crate) struct Place {
    folder: tempfile::TempDir,
    ground: Ground,
}

impl Place {
    pub(crate) fn on(ground: Ground) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["work", "lower/dir/sub", "upper", "scratch"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("lower/dir/file"), "line\n").unwrap();
        Self { folder, ground }
    }

    /// A path as the program sees it.
    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.folder.path().join("work").join(name);
        path.to_str().unwrap().to_owned()
    }

    /// Writes a file beside the folder, and says where.
    pub(crate) fn note(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Shell lines that put the files there.
    fn script(&self) -> String {
        let base = self.folder.path().display();
        let new = format!("cp -a {base}/lower/dir {base}/work/new");
        let copy = format!("cp -a {base}/lower/dir {base}/work && {new}");
        match self.ground {
            Ground::Disk | Ground::Here => copy,
            Ground::Tmpfs => format!("mount -t tmpfs none {base}/work && {copy}"),
            Ground::Xfs => format!(
                "truncate -s 310M {base}/image && mkfs.xfs -q {base}/image && \
                 mount -o loop {base}/image {base}/work && {copy}"
            ),
            Ground::Btrfs => format!(
                "truncate -s 130M {base}/image && mkfs.btrfs -q {base}/image >&2 && \
                 mount -o loop {base}/image {base}/work && \
                 btrfs -q subvolume create {base}/work/dir && \
                 cp -a {base}/lower/dir/. {base}/work/dir && {new}"
            ),
            Ground::Erofs => format!(
                "mkfs.erofs --quiet {base}/image {base}/lower >&2 && \
                 mount -o loop,ro {base}/image {base}/work"
            ),
            Ground::Squashfs => format!(
                "mksquashfs {base}/lower {base}/image -quiet -no-progress >&2 && \
                 mount -o loop,ro {base}/image {base}/work"
            ),
            // The server ends with the program that this shell becomes.
            Ground::Fuse => format!(
                "setpriv --pdeathsig KILL bindfs -f {base}/lower {base}/work & \
                 until mountpoint -q {base}/work; do :; done"
            ),
            Ground::Overlay => format!(
                "mount -t tmpfs none {base}/scratch && mkdir {base}/scratch/up {base}/scratch/wk && \
                 mount -t overlay -o lowerdir={base}/lower,upperdir={base}/scratch/up,\
                 workdir={base}/scratch/wk none {base}/work && {new}"
            ),
        }
    }
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts it behind the place's script, and waits until it has as many watches or marks.
    pub(crate) fn start(place: &Place, command: &[&str], n_watches: usize) -> Self {
        let running = Self::spawn(place, command);
        running.wait_for(n_watches);
        running
    }

    /// The same where a child of it has them.
    pub(crate) fn start_tree(place: &Place, command: &[&str], n_watches: usize) -> Self {
        let running = Self::spawn(place, command);
        let children = format!("/proc/{0}/task/{0}/children", running.pid());
        running.wait("watches of a child", || {
            let pids = fs::read_to_string(&children).unwrap_or_default();
            let pids = pids.split_ascii_whitespace();
            pids.map(|pid| watches(pid.parse().unwrap())).sum::<usize>() >= n_watches
        });
        running
    }

    /// None: it has ended instead.
    pub(crate) fn try_start(place: &Place, command: &[&str], n_watches: usize) -> Option<Self> {
        let running = Self::spawn(place, command);
        running.wait("watches, or an end", || {
            running.has_ended() || watches(running.pid()) >= n_watches
        });
        (!running.has_ended()).then_some(running)
    }

    fn spawn(place: &Place, command: &[&str]) -> Self {
        let script = format!("{} && exec \"$@\"", place.script());
        let mut program = if is_root() && place.ground != Ground::Here {
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "--propagation", "private", "sh"]);
            unshare
        } else {
            Command::new("sh")
        };
        program.args(["-c", &script, "sh"]).args(command);
        program.stdin(Stdio::null()).stdout(Stdio::null());
        Self {
            child: program.spawn().unwrap(),
        }
    }

    fn has_ended(&self) -> bool {
        let alive = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        alive.unwrap().contains(") Z ")
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits for watches, giving the machine away between two looks, for 60 s at most.
    pub(crate) fn wait_for(&self, n_watches: usize) {
        self.wait("watches", || {
            assert!(!self.has_ended(), "the program has ended");
            watches(self.pid()) >= n_watches
        });
    }

    /// Waits for a group, watches or not.
    pub(crate) fn wait_for_group(&self) {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        self.wait("a group", || {
            !cr::sys::inspect::groups(pid).unwrap().is_empty()
        });
    }

    /// Waits until it has read so much of an open file.
    pub(crate) fn wait_for_offset(&self, name: &str, offset: usize) {
        let folder = format!("/proc/{}", self.pid());
        let line = format!("pos:\t{offset}\n");
        self.wait("an offset", || {
            let entries = fs::read_dir(format!("{folder}/fd")).unwrap().flatten();
            let mut files = entries.filter(|entry| {
                let link = fs::read_link(entry.path()).unwrap_or_default();
                link.ends_with(name)
            });
            files.any(|entry| {
                let number = entry.file_name();
                let number = number.to_str().unwrap();
                let info = fs::read_to_string(format!("{folder}/fdinfo/{number}"));
                info.unwrap_or_default().starts_with(&line)
            })
        });
    }

    fn wait(&self, what: &str, mut is_there: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_there() {
            assert!(Instant::now() < deadline, "no {what} in 60 s");
            let _ = nix::poll::poll(&mut [], 5_u8);
        }
    }

    /// Tells it to end.
    pub(crate) fn end(&self) {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// A path of the program, for us.
    pub(crate) fn see(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid())).join(path.trim_start_matches('/'))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many watches and marks fdinfo shows of a process.
fn watches(pid: i32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let entries = entries.into_iter().flatten().flatten();
    let texts = entries.map(|entry| fs::read_to_string(entry.path()).unwrap_or_default());
    texts
        .map(|text| {
            let is_watch = |line: &&str| {
                line.starts_with("inotify wd:")
                    || line.starts_with("fanotify ") && !line.starts_with("fanotify flags:")
            };
            text.lines().filter(is_watch).count()
        })
        .sum()
}

/// What `notifreeze explain --json` says.
pub(crate) fn explain(pid: i32, args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_notifreeze"))
        .args(["explain", &pid.to_string(), "--json"])
        .args(args)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "", "quiet where there is no terminal");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The targets of all watches and inode marks, in order.
pub(crate) fn targets(explanation: &Value) -> Vec<Value> {
    let mut targets = Vec::new();
    for process in explanation["processes"].as_array().unwrap() {
        for group in process["groups"].as_array().unwrap() {
            for kind in ["watches", "marks"] {
                let each = group[kind].as_array().unwrap().iter();
                targets.extend(each.map(|one| one["target"].clone()));
            }
        }
    }
    targets
}

/// Paths of all watches; for what has no name, its status.
pub(crate) fn names(explanation: &Value) -> Vec<String> {
    let name = |target: &Value| {
        let name = &target["name"];
        match name["status"].as_str().unwrap() {
            "named" => {
                let paths = name["paths"].as_array().unwrap().iter();
                let paths: Vec<&str> = paths.map(|path| path.as_str().unwrap()).collect();
                paths.join(" = ")
            }
            "ghost" => format!("ghost {}", name["last_path"].as_str().unwrap_or("?")),
            other => format!("{other}: {name}"),
        }
    };
    targets(explanation).iter().map(name).collect()
}
