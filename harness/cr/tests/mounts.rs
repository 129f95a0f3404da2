//! Mount points that a mount table could be misread for, and mounts that no path of the subject leads
//! to. What is watched and held there comes through a dump and a restore.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use cr::DumpOptions;
use cr::sys::{descriptor, raw, watch};
use fsnotify::inotify::Mask;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, raise};

mod heir;
mod parked;
#[path = "queue/user.rs"]
mod user;

use parked::Parked;

const WORLD: &str = "be-the-world";
const SUBJECT: &str = "be-the-subject";
const HEIR: &str = "be-the-heir";

/// The subject's group, and the first of the descriptors that lead below mount points.
const GROUP: i32 = 10;
const FIRST: i32 = 20;

/// Each is a mount point: what mountinfo writes by its number, what looks like such a number, like the
/// rest of a line or like another line, and what the kernel says of names that are gone.
const POINTS: [&[u8]; 14] = [
    b"plain",
    b"a b",
    b" ",
    b"a\tb",
    b"a\nb",
    b"a\\b",
    b"a\\",
    b"a\\040b",
    b"a - tmpfs none rw",
    b"a rw\n36 35 0:1 x y rw - tmpfs none rw",
    b"a (deleted)",
    b"#",
    b"\xff\xfe",
    &[b'\n'; 255],
];

/// Where the subject stops, seen from its world.
const WORLDS: [(&str, &str); 6] = [
    ("points", "a_mount_point_is_found_whatever_its_name"),
    ("covered", "what_another_mount_covers_is_refused_by_name"),
    (
        "removed",
        "a_mount_of_what_is_removed_is_found_by_its_point",
    ),
    (
        "exchanged",
        "another_filesystem_with_the_same_names_is_noticed",
    ),
    ("root", "a_mount_over_the_root_hides_nothing_below_it"),
    (
        "overlay",
        "directories_that_no_handle_opens_are_found_by_their_paths",
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [WORLD, kind, tree] => return world(kind, Path::new(tree)),
        [SUBJECT, kind, tree] => return subject(kind, Path::new(tree)),
        [HEIR, image, said] => {
            let paths = (Path::new(image), Path::new(said));
            return heir::restore(paths, GROUP, |group| state(group, group));
        }
        _ => {}
    }
    let permitted = user::settle();
    let trials = WORLDS.map(|(kind, name)| Trial::test(name, move || in_world(kind)));
    let trials = user::trials(permitted, Vec::from(trials));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The mounts are those of a process of its own, and go with it.
fn in_world(kind: &str) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let output = Command::new(std::env::current_exe()?)
        .args([WORLD, kind])
        .arg(directory.path())
        .current_dir("/")
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
}

fn world(kind: &str, directory: &Path) -> ExitCode {
    match cut(kind, directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.message().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

/// What the subject sees before a dump, its heir sees behind the restore.
fn cut(kind: &str, directory: &Path) -> Result<(), Failed> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let [tree, image, said] = ["tree", "image", "said"].map(|name| directory.join(name));
    fs::create_dir(&tree)?;
    let this = std::env::current_exe()?;
    let subject = Parked::start(&[SUBJECT.as_ref(), kind.as_ref(), tree.as_os_str()])?;
    let expected = fs::read_to_string(tree.with_extension("expected"))?;
    let options = DumpOptions {
        // Where handles, or those of files, cannot be opened.
        paths: if kind != "overlay" && nix::unistd::geteuid().is_root() && !is_in_user_namespace()?
        {
            Vec::new()
        } else {
            let text = fs::read(tree.with_extension("paths"))?;
            let paths = text.split(|&byte| byte == 0).map(OsStr::from_bytes);
            paths.map(PathBuf::from).collect()
        },
        ..DumpOptions::default()
    };
    let dumped = cr::dump(subject.pid(), &options);
    drop(subject);
    let dumped = match (kind, dumped) {
        ("covered", dumped) => {
            let refusal = dumped.err().map(|error| error.to_string());
            let expected = "fd 20: file on a mount that another mount covers: not supported";
            return same(&Some(expected.to_owned()), &refusal);
        }
        (_, dumped) => dumped.map_err(|error| error.to_string())?,
    };
    same(&Vec::new(), &dumped.lost)?;
    dumped.write(&image)?;
    if kind == "exchanged" {
        mount_tmpfs(&tree);
        fs::write(tree.join("file"), "another")?;
    }
    Command::new(&this)
        .arg(HEIR)
        .args([&image, &said])
        .status()?;
    let found = fs::read_to_string(said)?;
    if kind == "exchanged" {
        let file = tree.join("file");
        let problem = "is on another filesystem than at the dump";
        let expected = format!("fd 10: watch 1: {}: {problem}", file.display());
        return same(&expected, &found);
    }
    let differ = expected
        .lines()
        .zip(found.lines())
        .find(|(one, other)| one != other);
    same(&None, &differ)?;
    same(&expected.lines().count(), &found.lines().count())
}

fn is_in_user_namespace() -> Result<bool, Failed> {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    Ok(map.split_whitespace().ne(["0", "0", "4294967295"]))
}

/// Makes the mounts, watches what is there with two groups, of which one is read to know what is in the
/// other, and stops.
fn subject(kind: &str, tree: &Path) -> ExitCode {
    descriptor::close_range(3, u32::MAX).unwrap();
    let mut subject = Subject {
        groups: [watch::init().unwrap(), watch::init().unwrap()],
        next: FIRST,
        paths: Vec::new(),
    };
    match kind {
        "points" => {
            for point in POINTS {
                let point = tree.join(OsStr::from_bytes(point));
                fs::create_dir(&point).unwrap();
                mount_tmpfs(&point);
                subject.fill(&point);
            }
        }
        "covered" => {
            mount_tmpfs(tree);
            subject.fill(tree);
            mount_tmpfs(tree);
            // Another of each name, and by chance of each inode number.
            subject.fill(tree);
        }
        "exchanged" => {
            mount_tmpfs(tree);
            let file = tree.join("file");
            fs::write(&file, "content").unwrap();
            subject.watch(&file);
        }
        "removed" => {
            for point in POINTS {
                let folder = tree.join(OsStr::from_bytes(point));
                let [source, at] = ["source", "at"].map(|name| folder.join(name));
                for path in [&source, &at] {
                    fs::create_dir_all(path).unwrap();
                }
                bind(&source, &at);
                fs::remove_dir(&source).unwrap();
                subject.watch(&at);
                let [source, at] = ["source file", "at file"].map(|name| folder.join(name));
                for path in [&source, &at] {
                    fs::write(path, "content").unwrap();
                }
                bind(&source, &at);
                fs::remove_file(&source).unwrap();
                subject.watch(&at);
                // Another has the name by now.
                fs::write(&source, "another").unwrap();
            }
        }
        "overlay" => {
            mount_tmpfs(tree);
            let [lower, upper, work, top] =
                ["lower", "upper", "work", "top"].map(|name| tree.join(name));
            for path in [&lower, &upper, &work, &top] {
                fs::create_dir(path).unwrap();
            }
            let layers = [("lower", &lower), ("upper", &upper), ("work", &work)];
            let layers = layers.map(|(name, path)| format!("{name}dir={}", path.display()));
            let layers = layers.join(",");
            let none = MsFlags::empty();
            mount(Some("none"), &top, Some("overlay"), none, Some(&*layers)).unwrap();
            // Each name in each directory is more than a dump looks up.
            for n in 0..1000 {
                let path = top.join(format!("{n}"));
                fs::create_dir(&path).unwrap();
                subject.watch(&path);
            }
        }
        _ => {
            // It is the machine's: others open it and list it as they like.
            subject.watch_for(Path::new("/"), Mask(libc::IN_MODIFY));
            subject.fill(tree);
            mount_tmpfs(Path::new("/"));
        }
    }
    let paths: Vec<&[u8]> = subject
        .paths
        .iter()
        .map(|it| it.as_os_str().as_bytes())
        .collect();
    fs::write(tree.with_extension("paths"), paths.join(&0)).unwrap();
    let [unread, read] = subject.groups;
    let expected = state(&read, &unread);
    fs::write(tree.with_extension("expected"), expected).unwrap();
    drop(read);
    raw::dup3(unread.as_raw_fd(), GROUP, 0).unwrap();
    drop(unread);
    for fd in 0..3 {
        let _ = raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    ExitCode::SUCCESS
}

fn mount_tmpfs(point: &Path) {
    let none = MsFlags::empty();
    mount(Some("none"), point, Some("tmpfs"), none, None::<&str>).unwrap();
}

fn bind(source: &Path, at: &Path) {
    let bind = MsFlags::MS_BIND;
    mount(Some(source), at, None::<&str>, bind, None::<&str>).unwrap();
}

struct Subject {
    groups: [OwnedFd; 2],
    /// Number of the next descriptor.
    next: i32,
    /// What is watched.
    paths: Vec<PathBuf>,
}

impl Subject {
    /// A file and a directory that are there, and a file and a directory that are not any more.
    fn fill(&mut self, directory: &Path) {
        self.watch(directory);
        for name in ["file", "ghost"] {
            let path = directory.join(name);
            fs::write(&path, "content").unwrap();
            self.hold(&path);
            self.watch(&path);
        }
        for name in ["folder", "gone"] {
            let path = directory.join(name);
            fs::create_dir(&path).unwrap();
            self.hold(&path);
            self.watch(&path);
        }
        fs::remove_file(directory.join("ghost")).unwrap();
        fs::remove_dir(directory.join("gone")).unwrap();
    }

    fn hold(&mut self, path: &Path) {
        let file = File::open(path).unwrap();
        raw::dup3(file.as_raw_fd(), self.next, 0).unwrap();
        self.next += 1;
    }

    fn watch(&mut self, path: &Path) {
        self.watch_for(path, Mask::ALL_EVENTS);
    }

    fn watch_for(&mut self, path: &Path, mask: Mask) {
        self.paths.push(path.to_owned());
        for group in &self.groups {
            let path = path.as_os_str().as_bytes();
            watch::add_watch(group.as_fd(), path, mask).unwrap();
        }
    }
}

/// What the descriptors lead to, the events of one group and the watches of the other.
fn state(read: &OwnedFd, group: &OwnedFd) -> String {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", group.as_raw_fd())).unwrap();
    let watches = info.lines().filter(|line| line.starts_with("inotify "));
    let mut lines: Vec<String> = watches.map(str::to_owned).collect();
    // What is made again is another inode.
    let ghosts = ["ghost", "gone"];
    let mut n_ghosts = 0;
    for fd in FIRST.. {
        let Ok(link) = fs::read_link(format!("/proc/self/fd/{fd}")) else {
            break;
        };
        let mount = inspect_mount(fd);
        let is_ghost = ghosts.iter().any(|name| {
            let end = format!("/{name} (deleted)");
            link.as_os_str().as_bytes().ends_with(end.as_bytes())
        });
        n_ghosts += usize::from(is_ghost);
        lines.push(format!("{fd} {link:?} {mount}"));
    }
    if n_ghosts > 0 {
        for line in &mut lines {
            let words = line.split(' ').filter(|word| !word.starts_with("ino:"));
            let words = words.filter(|word| !word.starts_with("f_handle:"));
            *line = words.collect::<Vec<_>>().join(" ");
        }
    }
    let events = cr::queue::drain(read.as_fd()).unwrap();
    lines.push(format!("{} {events:?}", events.len()));
    lines.join("\n")
}

/// Which mount a descriptor is of.
fn inspect_mount(fd: i32) -> String {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let line = info.lines().find(|line| line.starts_with("mnt_id:"));
    line.unwrap_or_default().to_owned()
}

fn same<T: std::fmt::Debug + PartialEq>(expected: &T, found: &T) -> Result<(), Failed> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{expected:#?} became {found:#?}").into())
}
