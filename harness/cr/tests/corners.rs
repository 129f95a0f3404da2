//! Ghosts that are held by more or less than a descriptor, and in places that do not take everything.
//! Each comes through a dump and a restore as it was, or is refused by name at the dump.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use cr::sys::{descriptor, inode_flags, inspect, raw, watch};
use cr::{Afterwards, DumpOptions, LossKind};
use fsnotify::inotify::Mask;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, raise};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

#[path = "corners/cases.rs"]
mod cases;
mod heir;
mod parked;

use cases::{CASES, of_project};
use parked::Parked;

const WORLD: &str = "be-the-world";
const SUBJECT: &str = "be-the-subject";
const HEIR: &str = "be-the-heir";
/// The answer of a world that cannot be had here.
const NO_WORLD: u8 = 77;

/// The subject's group, and the first of its other descriptors.
const GROUP: i32 = 10;
const FIRST: i32 = 20;

struct Case {
    name: &'static str,
    filesystem: Filesystem,
    who: Who,
    what: What,
    /// What it holds is at numbers from [`FIRST`] on when it is dumped.
    lay: fn(&mut Subject),
    /// A part of the refusal; none where all is kept.
    refusal: Option<&'static str>,
    /// What is declared; then not all has to be as it was.
    losses: &'static [LossKind],
}

#[derive(Clone, Copy)]
enum Filesystem {
    Tmpfs,
    Xfs,
    Btrfs,
}

/// Who dumps and restores.
#[derive(Clone, Copy)]
enum Who {
    Root,
    /// Without any capability.
    User,
    /// One whose files are of a project.
    UserOfProject,
}

#[derive(Clone, Copy)]
enum What {
    Everything,
    GroupsAlone,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [WORLD, name, tree] => return world(case(name), Path::new(tree)),
        [SUBJECT, name, tree] => return subject(case(name), Path::new(tree)),
        [HEIR, image, said] => {
            let paths = (Path::new(image), Path::new(said));
            return heir::restore(paths, GROUP, state);
        }
        _ => {}
    }
    let trials = CASES.iter();
    let trials = trials.map(|case| Trial::ignorable_test(case.name, || check(case)));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn case(name: &str) -> &'static Case {
    let found = CASES.iter().find(|case| case.name == name);
    found.expect("a case of ours")
}

/// The mounts are those of a process of its own, and go with it.
fn check(case: &Case) -> Result<Completion, Failed> {
    let directory = tempfile::tempdir()?;
    let output = Command::new(std::env::current_exe()?)
        .args([WORLD, case.name])
        .arg(directory.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => Ok(Completion::Completed),
        Some(code) if code == i32::from(NO_WORLD) => Ok(Completion::ignored_with(said)),
        _ => Err(said.into()),
    }
}

fn world(case: &Case, directory: &Path) -> ExitCode {
    let tree = directory.join("tree");
    if let Err(reason) = enter(case.filesystem, directory, &tree) {
        eprintln!("{reason}");
        return ExitCode::from(NO_WORLD);
    }
    if let Who::UserOfProject = case.who {
        of_project(tree.to_str().unwrap());
    }
    if let Who::User | Who::UserOfProject = case.who
        && let Err(reason) = become_user(directory, &tree)
    {
        eprintln!("{reason}");
        return ExitCode::from(NO_WORLD);
    }
    match cut(case, directory, &tree) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.message().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

/// Whoever has this number: it is as good as any.
const USER: u32 = 1000;

fn become_user(directory: &Path, tree: &Path) -> Result<(), String> {
    for path in [directory, tree] {
        chown(path, Some(USER), Some(USER)).map_err(|error| error.to_string())?;
    }
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    let become_user = || {
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)
    };
    become_user().map_err(|errno| format!("setresuid: {errno}"))?;
    let this = std::env::current_exe().and_then(File::open);
    this.map(drop)
        .map_err(|error| format!("a user may not open this program: {error}"))
}

fn enter(filesystem: Filesystem, directory: &Path, tree: &Path) -> Result<(), String> {
    if !is_first_root() {
        return Err("needs root outside of user namespaces".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("unshare: {errno}"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|errno| format!("mount: {errno}"))?;
    fs::create_dir(tree).map_err(|error| error.to_string())?;
    match filesystem {
        Filesystem::Tmpfs => {
            let none = MsFlags::empty();
            mount(Some("none"), tree, Some("tmpfs"), none, None::<&str>)
                .map_err(|errno| format!("mount: {errno}"))
        }
        Filesystem::Xfs => on_disk("mkfs.xfs", (directory, tree)),
        Filesystem::Btrfs => on_disk("mkfs.btrfs", (directory, tree)),
    }
}

/// In a sparse file.
fn on_disk(make: &str, (directory, tree): (&Path, &Path)) -> Result<(), String> {
    let disk = directory.join("disk");
    let made = File::create(&disk).and_then(|file| file.set_len(400 << 20));
    made.map_err(|error| error.to_string())?;
    run(Command::new(make).arg("-q").arg(&disk))?;
    run(Command::new("mount")
        .args(["-o", "loop"])
        .args([disk.as_path(), tree]))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output();
    match output.map_err(|error| format!("{name}: {error}"))? {
        output if output.status.success() => Ok(()),
        output => Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// May a process here do what the first root may?
fn is_first_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    nix::unistd::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// What the subject has before a dump, its heir has behind the restore.
fn cut(case: &Case, directory: &Path, tree: &Path) -> Result<(), Failed> {
    let [image, said] = ["image", "said"].map(|name| directory.join(name));
    let subject = Parked::start(&[SUBJECT.as_ref(), case.name.as_ref(), tree.as_os_str()])?;
    let expected = fs::read_to_string(tree.with_extension("expected"))?;
    let options = DumpOptions {
        only_groups: matches!(case.what, What::GroupsAlone),
        // Where handles cannot be opened.
        paths: vec![tree.join("d")],
        ..DumpOptions::default()
    };
    let dumped = cr::dump_to_file(subject.pid(), &image, (&options, Afterwards::Ends));
    drop(subject);
    match (case.refusal, dumped) {
        (None, dumped) => {
            let (image, _) = dumped.map_err(|error| error.to_string())?;
            let losses = image.losses();
            let kinds: Vec<_> = losses.iter().filter_map(|loss| loss.kind.ok()).collect();
            if kinds != case.losses {
                return Err(format!("declared: {losses:?}").into());
            }
        }
        (Some(refusal), Err(error)) if error.to_string().contains(refusal) => return Ok(()),
        (Some(_), Err(error)) => return Err(error.to_string().into()),
        (Some(_), Ok(_)) => return Err("it is dumped".into()),
    }
    let before = names(tree);
    Command::new(std::env::current_exe()?)
        .arg(HEIR)
        .args([&image, &said])
        .status()?;
    let found = fs::read_to_string(said)?;
    if case.losses.is_empty() {
        same(&expected, &found)?;
    } else {
        same(
            expected.lines().last().unwrap(),
            found.lines().last().unwrap_or(&found),
        )?;
    }
    same(&before.join("\n"), &names(tree).join("\n"))
}

/// Whatever has a name.
fn names(tree: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = vec![tree.to_owned()];
    while let Some(path) = next.pop() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        for entry in entries {
            found.push(entry.path().display().to_string());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                next.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn same(expected: &str, found: &str) -> Result<(), Failed> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{expected}\nbecame\n{found}").into())
}

/// Lays out the case in a directory `d`, which is watched, and stops.
fn subject(case: &Case, tree: &Path) -> ExitCode {
    descriptor::close_range(3, u32::MAX).unwrap();
    std::env::set_current_dir(tree).unwrap();
    fs::create_dir("d").unwrap();
    let mut subject = Subject {
        group: watch::init().unwrap(),
        next: FIRST,
        mapped: Vec::new(),
    };
    subject.watch("d");
    (case.lay)(&mut subject);
    raw::dup3(subject.group.as_raw_fd(), GROUP, 0).unwrap();
    let Subject { group, mapped, .. } = subject;
    drop(group);
    let group = inspect::pidfd_open(nix::unistd::getpid()).unwrap();
    let group = inspect::pidfd_getfd(group, GROUP).unwrap();
    // Only what happens behind the cut is of interest.
    cr::queue::drain(group.as_fd()).unwrap();
    fs::write(tree.with_extension("expected"), state(&group)).unwrap();
    cr::queue::drain(group.as_fd()).unwrap();
    drop(group);
    for fd in 0..3 {
        let _ = raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    drop(mapped);
    ExitCode::SUCCESS
}

struct Subject {
    group: OwnedFd,
    /// Number of the next descriptor.
    next: i32,
    mapped: Vec<cr::sys::memory::Mapping>,
}

impl Subject {
    fn file(&self, path: &str) -> File {
        let options = &mut OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o644);
        let mut file = options.open(path).unwrap();
        file.write_all(b"content").unwrap();
        file
    }

    /// A file without a name that is held and watched.
    fn ghost(&mut self, path: &str) -> i32 {
        let file = self.file(path);
        self.watch(path);
        fs::remove_file(path).unwrap();
        self.hold(&file)
    }

    fn hold(&mut self, file: &impl AsFd) -> i32 {
        raw::dup3(file.as_fd().as_raw_fd(), self.next, 0).unwrap();
        self.next += 1;
        self.next - 1
    }

    fn watch(&self, path: &str) {
        let mask = Mask::ALL_EVENTS;
        watch::add_watch(self.group.as_fd(), path.as_bytes(), mask).unwrap();
    }

    fn map(&mut self, file: File) {
        self.mapped
            .push(cr::sys::memory::Mapping::new(file.as_fd(), 0, 4096).unwrap());
    }
}

/// What the descriptors are open on, the watches and the unread events.
fn state(group: &OwnedFd) -> String {
    // Before anything is read, which makes some.
    let events = cr::queue::drain(group.as_fd()).unwrap();
    let mut lines = vec![format!("{events:?}")];
    // An inode that is made again has another number, and so has a file that never had a name.
    let mut numbers: Vec<u64> = Vec::new();
    let this = inspect::pidfd_open(nix::unistd::getpid()).unwrap();
    for fd in FIRST.. {
        let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
        let (Ok(link), Ok(found)) = (fs::read_link(&path), fs::metadata(&path)) else {
            break;
        };
        let file = inspect::pidfd_getfd(&this, fd).unwrap();
        let number = numbers.iter().position(|&it| it == found.ino());
        let number = number.unwrap_or_else(|| {
            numbers.push(found.ino());
            numbers.len() - 1
        });
        let own = format!("/#{} (deleted)", found.ino());
        let link = link.to_string_lossy().replace(&own, "/# (deleted)");
        let (mode, size, n_links) = (found.mode(), found.size(), found.nlink());
        let (owner, project) = (found.uid(), inode_flags::project(&file).ok());
        let flags = inode_flags::flags(&file).map(|flags| flags & inode_flags::SETTABLE);
        let flags = flags.ok();
        let xattrs = inspect::xattrs(&path).unwrap();
        let pipe = descriptor::pipe_size(&file).ok();
        let hint = descriptor::write_hint(&file).ok();
        let mut text = [0; 8];
        let length = raw::pread(fd, &mut text, 0).unwrap_or(0);
        let text = &text[..usize::try_from(length).unwrap()];
        lines.push(format!(
            "{fd} {link:?} inode {number} {mode:o} {size} {n_links} {owner} {flags:x?} {project:?} {xattrs:?} {text:?} {pipe:?} {hint:?}"
        ));
    }
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", group.as_raw_fd())).unwrap();
    // What is made again is another inode.
    let word = |line: &str, at| line.split(' ').nth(at).unwrap_or_default().to_owned();
    let watches = info.lines().filter(|line| line.starts_with("inotify "));
    lines.extend(watches.map(|line| format!("{} {}", word(line, 1), word(line, 4))));
    lines.join("\n")
}
