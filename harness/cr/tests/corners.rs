//! Ghosts that are held by more or less than a descriptor, and in places that do not take everything.
//! Each comes through a dump and a restore as it was, or is refused by name at the dump.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
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

mod heir;
mod parked;

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

const CASES: &[Case] = &[
    Case {
        name: "a_removed_file_that_a_mapping_alone_keeps_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.watch("d/f");
            subject.map(file);
            subject.file("d/new");
            fs::rename("d/new", "d/f").unwrap();
        },
        refusal: Some("fd 10: watch 2: file without a name that is kept by a mapping alone"),
        losses: &[],
    },
    Case {
        name: "a_mapping_beside_a_descriptor_hinders_nobody",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.watch("d/f");
            subject.hold(&file);
            subject.map(file);
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_directory_of_what_a_mapping_alone_keeps_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::GroupsAlone,
        lay: |subject| {
            fs::create_dir("d/e").unwrap();
            let file = subject.file("d/e/f");
            subject.watch("d/e");
            subject.map(file);
            fs::remove_dir_all("d/e").unwrap();
        },
        refusal: Some("fd 10: watch 2: file without a name that is kept by a mapping alone"),
        losses: &[],
    },
    Case {
        name: "a_removed_directory_that_one_only_is_in_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::GroupsAlone,
        lay: |subject| {
            fs::create_dir("d/e").unwrap();
            subject.watch("d/e");
            std::env::set_current_dir("d/e").unwrap();
            fs::remove_dir("../e").unwrap();
        },
        refusal: Some("watch 2: file without a name that is kept by a working directory alone"),
        losses: &[],
    },
    Case {
        name: "a_removed_device_by_path_is_one_again",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::GroupsAlone,
        lay: |subject| {
            let kind = nix::sys::stat::SFlag::S_IFCHR;
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
            let device = libc::makedev(10, 200);
            nix::sys::stat::mknod("d/c", kind, mode, device).unwrap();
            subject.watch("d/c");
            let by_path = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open("d/c");
            subject.hold(&by_path.unwrap());
            fs::remove_file("d/c").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_in_the_directory_of_a_project_is_made_in_it",
        filesystem: Filesystem::Xfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            of_project("d");
            let file = subject.file("d/f");
            subject.hold(&file);
            subject.watch("d/f");
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_in_a_removed_directory_of_a_project_is_made_in_it",
        filesystem: Filesystem::Xfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            of_project("d");
            fs::create_dir_all("d/e/g").unwrap();
            let file = subject.file("d/e/g/f");
            subject.hold(&file);
            subject.watch("d/e");
            fs::remove_dir_all("d/e").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_in_a_subvolume_is_made_in_it",
        filesystem: Filesystem::Btrfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let subvolume = ["subvolume", "create", "d/sub"];
            run(Command::new("btrfs").args(subvolume)).unwrap();
            fs::create_dir("d/sub/e").unwrap();
            let file = subject.file("d/sub/e/f");
            subject.hold(&file);
            subject.watch("d/sub/e/f");
            fs::remove_file("d/sub/e/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_in_an_immutable_directory_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            add_flags("d", inode_flags::IMMUTABLE);
        },
        refusal: Some("d/f: file without a name in a directory that is immutable: not supported"),
        losses: &[],
    },
    Case {
        name: "a_ghost_in_a_directory_that_only_grows_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            add_flags("d", inode_flags::APPEND);
        },
        refusal: Some("d/f: file without a name in a directory that only grows"),
        losses: &[],
    },
    Case {
        name: "a_root_that_only_grows_takes_nothing",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            add_flags(".", inode_flags::APPEND);
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_on_a_mount_that_is_read_only_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            drop(file);
            let file = File::open("d/f").unwrap();
            subject.hold(&file);
            subject.watch("d/f");
            drop(file);
            fs::remove_file("d/f").unwrap();
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            let none = None::<&str>;
            let tree = std::env::current_dir().unwrap();
            mount(none, &tree, none, flags, none).unwrap();
        },
        refusal: Some("d/f: file without a name on a mount that is read-only"),
        losses: &[],
    },
    Case {
        name: "a_removed_name_of_an_immutable_file_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            fs::hard_link("d/f", "d/g").unwrap();
            subject.hold(&file);
            subject.watch("d/f");
            fs::remove_file("d/f").unwrap();
            add_flags("d/g", inode_flags::IMMUTABLE);
        },
        refusal: Some("d/f: removed name of a file that chattr keeps from being linked"),
        losses: &[],
    },
    Case {
        name: "a_name_that_an_immutable_file_has_by_now_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            subject.file("d/f");
            add_flags("d/f", inode_flags::IMMUTABLE);
        },
        refusal: Some("d/f: file whose name is by now that of one that may not be moved"),
        losses: &[],
    },
    Case {
        name: "a_list_that_the_root_gives_is_none_of_a_ghost",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            let list = ["system.posix_acl_default", "."];
            let [name, path] = list.map(|text| CString::new(text).unwrap());
            raw::setxattr(&path, &name, ACCESS_LIST, 0).unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "what_chattr_has_set_of_ghosts_is_kept",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            for flags in [
                inode_flags::APPEND,
                inode_flags::IMMUTABLE,
                NO_DUMP | NO_ATIME,
            ] {
                let fd = subject.ghost("d/f");
                add_flags(&format!("/proc/self/fd/{fd}"), flags);
            }
            fs::create_dir("d/e").unwrap();
            add_flags("d/e", NO_DUMP);
            subject.hold(&File::open("d/e").unwrap());
            fs::remove_dir("d/e").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "what_the_root_gives_to_what_is_made_in_it_is_not_of_a_ghost",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.hold(&file);
            subject.watch("d/f");
            fs::remove_file("d/f").unwrap();
            add_flags(".", NO_DUMP | NO_ATIME);
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "what_is_not_to_be_copied_when_written_is_not",
        filesystem: Filesystem::Btrfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            fs::create_dir("d/e").unwrap();
            add_flags("d/e", inode_flags::NO_COPY_ON_WRITE);
            subject.ghost("d/e/f");
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "the_size_of_a_fifo_and_a_hint_to_writing_are_kept",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            for name in ["d/gone", "d/there"] {
                nix::unistd::mkfifo(name, nix::sys::stat::Mode::S_IRWXU).unwrap();
                let fifo = OpenOptions::new().read(true).write(true).open(name);
                let fifo = fifo.unwrap();
                descriptor::set_pipe_size(&fifo, 1 << 18).unwrap();
                subject.hold(&fifo);
            }
            fs::remove_file("d/gone").unwrap();
            let file = subject.file("d/f");
            // RWH_WRITE_LIFE_EXTREME.
            descriptor::set_write_hint(&file, 5).unwrap();
            subject.hold(&file);
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "the_largest_file_is_one_again",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.hold(&file);
            file.set_len(i64::MAX.cast_unsigned()).unwrap();
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "what_a_user_may_not_set_is_declared",
        filesystem: Filesystem::Xfs,
        who: Who::UserOfProject,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
        },
        refusal: None,
        losses: &[LossKind::InodeFlags],
    },
    Case {
        name: "what_only_its_owner_may_do_he_does_in_time",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            set_user_attribute("d/f");
            subject.hold(&file);
            file.set_permissions(Permissions::from_mode(0o444)).unwrap();
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "an_attribute_that_its_owner_may_not_read_is_declared",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            set_user_attribute("d/f");
            subject.hold(&file);
            file.set_permissions(Permissions::from_mode(0o200)).unwrap();
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[LossKind::HiddenAttribute],
    },
    Case {
        name: "a_watched_ghost_that_its_owner_may_not_read_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.watch("d/f");
            subject.hold(&file);
            file.set_permissions(Permissions::from_mode(0o000)).unwrap();
            fs::remove_file("d/f").unwrap();
        },
        refusal: Some("d/f: watched file without a name that may not be read"),
        losses: &[],
    },
    Case {
        name: "a_file_that_never_had_a_name_keeps_its_mode",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let options = &mut OpenOptions::new();
            let options = options.read(true).write(true).mode(0o755);
            let mut file = options.custom_flags(libc::O_TMPFILE).open("d").unwrap();
            file.write_all(b"content").unwrap();
            subject.hold(&file);
            let again = OpenOptions::new()
                .read(true)
                .open(format!("/proc/self/fd/{}", file.as_raw_fd()));
            subject.hold(&again.unwrap());
            file.set_permissions(Permissions::from_mode(0o4111))
                .unwrap();
        },
        refusal: None,
        losses: &[],
    },
];

const NO_DUMP: u32 = 0x40;
const NO_ATIME: u32 = 0x80;

/// For the owner, a user, the group, all others: version 2, entries of tag, rights and number.
const ACCESS_LIST: &[u8] = b"\x02\0\0\0\
    \x01\0\x07\0\xff\xff\xff\xff\
    \x02\0\x07\0\x01\0\0\0\
    \x04\0\x05\0\xff\xff\xff\xff\
    \x10\0\x07\0\xff\xff\xff\xff\
    \x20\0\x05\0\xff\xff\xff\xff";

fn set_user_attribute(path: &str) {
    let [path, name] = [path, "user.x"].map(|text| CString::new(text).unwrap());
    raw::setxattr(&path, &name, b"value", 0).unwrap();
}

fn add_flags(path: &str, flags: u32) {
    let file = File::open(path).unwrap();
    let own = inode_flags::flags(&file).unwrap();
    inode_flags::set_flags(&file, own | flags).unwrap();
}

/// Gives a directory a project, which what is made in it gets, too.
fn of_project(path: &str) {
    let directory = File::open(path).unwrap();
    inode_flags::set_project(&directory, 42).unwrap();
    add_flags(path, inode_flags::INHERITS_PROJECT);
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
