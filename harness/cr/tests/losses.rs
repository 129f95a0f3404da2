//! Losses that come of what a process may not do. Each is made in a room: a process in a user and a
//! mount namespace of its own, with a filesystem of its own, which dumps a subject there.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use cr::sys::fanotify::{Target, fanotify_init, fanotify_mark};
use cr::sys::{descriptor, watch};
use cr::{Afterwards, DumpOptions, Loss, LossKind};
use fsnotify::inotify::Mask;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

const ROOM: &str = "be-the-room";
const SUBJECT: &str = "be-the-subject";
/// What a room has to say, in its directory.
const SAID: &str = "said";
/// A directory of a user whom a room does not know; without root, that of temporary files is one.
const OTHERS: &str = "others";
const NOBODY: u32 = 65534;
/// The answer of a room that may not be.
const NO_ROOM: u8 = 77;

/// What the subject has when it is dumped, and how it is.
struct Scene {
    test: &'static str,
    subject: fn(&Path) -> Vec<OwnedFd>,
    dump: fn(Pid, &Path, &DumpOptions) -> Result<Vec<Loss>, String>,
    losses: &'static [LossKind],
}

const SCENES: [Scene; 9] = [
    Scene {
        test: "who_may_watch_no_more_declares_what_a_watch_would_tell",
        subject: many_watches,
        dump: copied,
        losses: &[LossKind::NextWatch, LossKind::WindowUnknown],
    },
    Scene {
        test: "a_queue_is_filled_with_one_watch_where_there_may_be_no_more",
        subject: one_watch_beside_many,
        dump: copied,
        losses: &[
            LossKind::NextWatch,
            LossKind::NextWatch,
            LossKind::WindowUnknown,
        ],
    },
    Scene {
        test: "a_ghost_that_nobody_reads_is_heard_opened",
        subject: ghost_to_write,
        dump: taken,
        losses: &[LossKind::GhostOpened],
    },
    Scene {
        test: "unwritten_pages_of_a_ghost_that_nobody_has_open_are_somewhere",
        subject: ghost_by_path,
        dump: taken,
        losses: &[LossKind::GhostOpened, LossKind::UnwrittenPages],
    },
    Scene {
        test: "an_unprivileged_group_loses_its_queue",
        subject: unprivileged_group,
        dump: groups_taken,
        losses: &[LossKind::UnprivilegedQueue],
    },
    Scene {
        test: "a_locked_file_that_no_group_watches_is_left",
        subject: watch_and_locked_ghost,
        dump: groups_taken,
        losses: &[],
    },
    Scene {
        test: "groups_parked_alone_hear_the_rest_closed",
        subject: one_watch,
        dump: parked,
        losses: &[LossKind::ClosedBesideParked],
    },
    Scene {
        test: "an_owner_that_is_not_dumped_may_be_told_no_more",
        subject: owned_by_parent,
        dump: taken,
        losses: &[LossKind::ForeignOwner],
    },
    Scene {
        test: "a_ghost_in_the_directory_of_another_changes_its_times",
        subject: ghost_at_others,
        dump: taken,
        losses: &[LossKind::OthersDirectory],
    },
];

/// As many watches as the user may have in a room.
const N_WATCHES: usize = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [ROOM, test, directory] => return room(scene(test), Path::new(directory)),
        [SUBJECT, test, tree] => return subject(scene(test), Path::new(tree)),
        _ => {}
    }
    let trials = SCENES.iter();
    let trials = trials.map(|scene| Trial::ignorable_test(scene.test, || check(scene)));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn scene(test: &str) -> &'static Scene {
    let found = SCENES.iter().find(|scene| scene.test == test);
    found.expect("a scene of ours")
}

fn check(scene: &Scene) -> Result<Completion, Failed> {
    let directory = tempfile::tempdir()?;
    if Uid::effective().is_root() {
        let others = directory.path().join(OTHERS);
        fs::create_dir(&others)?;
        fs::set_permissions(&others, fs::Permissions::from_mode(0o777))?;
        chown(&others, Some(NOBODY), Some(NOBODY))?;
    } else if scene.losses == [LossKind::OthersDirectory]
        && fs::metadata(std::env::temp_dir())?.uid() == Uid::effective().as_raw()
    {
        return Ok(Completion::ignored_with("no directory of another"));
    }
    let status = Command::new(std::env::current_exe()?)
        .args([ROOM, scene.test])
        .arg(directory.path())
        .stdin(Stdio::null())
        .status()?;
    let declared = fs::read_to_string(directory.path().join(SAID)).unwrap_or_default();
    match status.code() {
        Some(code) if code == i32::from(NO_ROOM) => return Ok(Completion::ignored_with(declared)),
        Some(0) => {}
        _ => return Err(format!("{status}: {declared}").into()),
    }
    let expected: String = scene
        .losses
        .iter()
        .map(|kind| format!("{kind}\n"))
        .collect();
    if declared == expected {
        Ok(Completion::Completed)
    } else {
        Err(format!("{declared:?} is declared, not {expected:?}").into())
    }
}

fn room(scene: &Scene, directory: &Path) -> ExitCode {
    let tree = directory.join("tree");
    let said = |text: String, code| {
        fs::write(directory.join(SAID), text).unwrap();
        code
    };
    if let Err(reason) = enter(&tree) {
        return said(reason, ExitCode::from(NO_ROOM));
    }
    let subject = Subject::start(scene, &tree);
    let entries = fs::read_dir(&tree).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let options = DumpOptions {
        // Handles of files cannot be opened here.
        paths: paths.chain([tree]).collect(),
        ..DumpOptions::default()
    };
    match (scene.dump)(subject.pid(), &directory.join("image"), &options) {
        Ok(losses) => {
            let kinds = losses.iter().map(|loss| format!("{}\n", loss.kind_name()));
            said(kinds.collect(), ExitCode::SUCCESS)
        }
        Err(error) => said(error, ExitCode::FAILURE),
    }
}

fn enter(tree: &Path) -> Result<(), String> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let spaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    unshare(spaces).map_err(|errno| format!("unshare: {errno}"))?;
    let write = |file: &str, content: String| {
        fs::write(file, content).map_err(|error| format!("{file}: {error}"))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    write("/proc/sys/user/max_inotify_watches", N_WATCHES.to_string())?;
    fs::create_dir(tree).map_err(|error| error.to_string())?;
    let none = None::<&str>;
    mount(Some("room"), tree, Some("tmpfs"), MsFlags::empty(), none)
        .map_err(|errno| format!("mount: {errno}"))
}

fn copied(pid: Pid, image: &Path, options: &DumpOptions) -> Result<Vec<Loss>, String> {
    let dumped = cr::dump_to_file(pid, image, (options, Afterwards::RunsOn));
    let (image, more) = dumped.map_err(|error| error.to_string())?;
    Ok(image.losses().into_iter().chain(more).collect())
}

fn taken(pid: Pid, _: &Path, options: &DumpOptions) -> Result<Vec<Loss>, String> {
    let dumped = cr::dump(pid, options).map_err(|error| error.to_string())?;
    Ok(dumped.losses())
}

fn groups_taken(pid: Pid, image: &Path, options: &DumpOptions) -> Result<Vec<Loss>, String> {
    taken(pid, image, &groups_alone(options))
}

fn parked(pid: Pid, image: &Path, options: &DumpOptions) -> Result<Vec<Loss>, String> {
    let parked = cr::dump::park(pid, image, &groups_alone(options));
    let parked = parked.map_err(|error| error.to_string())?;
    let holder = parked.parked.as_ref().ok_or("no holder")?;
    cr::dump::release(holder);
    Ok(parked.losses())
}

fn groups_alone(options: &DumpOptions) -> DumpOptions {
    DumpOptions {
        only_groups: true,
        ..options.clone()
    }
}

struct Subject(Child);

impl Subject {
    fn start(scene: &Scene, tree: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([SUBJECT, scene.test])
            .arg(tree)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let subject = Self(child);
        let status = waitpid(subject.pid(), Some(WaitPidFlag::WUNTRACED));
        assert!(matches!(status, Ok(WaitStatus::Stopped(..))), "{status:?}");
        subject
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn subject(scene: &Scene, tree: &Path) -> ExitCode {
    descriptor::close_range(3, u32::MAX).unwrap();
    let held = (scene.subject)(tree);
    raise(Signal::SIGSTOP).unwrap();
    drop(held);
    ExitCode::SUCCESS
}

fn many_watches(tree: &Path) -> Vec<OwnedFd> {
    let group = watch::init().unwrap();
    let watched = |path: &PathBuf| {
        let path = path.as_os_str().as_encoded_bytes();
        watch::add_watch(group.as_fd(), path, Mask(libc::IN_ATTRIB | libc::IN_CREATE)).unwrap();
    };
    let files = (1..N_WATCHES).map(|n| tree.join(n.to_string()));
    let files: Vec<PathBuf> = files.collect();
    files
        .iter()
        .for_each(|path| drop(File::create(path).unwrap()));
    files.iter().chain([&tree.to_owned()]).for_each(watched);
    File::create(tree.join("a")).unwrap();
    // To make these again takes as many watches as there are, and the gate's.
    let mode = || fs::Permissions::from_mode(0o600);
    files
        .iter()
        .for_each(|path| fs::set_permissions(path, mode()).unwrap());
    vec![group]
}

fn ghost_to_write(tree: &Path) -> Vec<OwnedFd> {
    let path = tree.join("g");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"content").unwrap();
    fs::remove_file(&path).unwrap();
    vec![file.into()]
}

/// Of two pages, one is behind the end.
fn ghost_by_path(tree: &Path) -> Vec<OwnedFd> {
    let path = tree.join("g");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"content").unwrap();
    fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 8192).unwrap();
    let by_path = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&path)
        .unwrap();
    fs::remove_file(&path).unwrap();
    vec![by_path.into()]
}

fn ghost_at_others(tree: &Path) -> Vec<OwnedFd> {
    let others = tree.with_file_name(OTHERS);
    let folder = if others.exists() {
        others
    } else {
        std::env::temp_dir()
    };
    vec![
        tempfile::NamedTempFile::new_in(folder)
            .unwrap()
            .into_file()
            .into(),
    ]
}

fn unprivileged_group(tree: &Path) -> Vec<OwnedFd> {
    let path = tree.join("a");
    File::create(&path).unwrap();
    let group = fanotify_init(libc::FAN_REPORT_FID | libc::FAN_NONBLOCK, 0).unwrap();
    let name = CString::new(path.to_str().unwrap()).unwrap();
    let target = Target::Path(&name);
    fanotify_mark(&group, libc::FAN_MARK_ADD, libc::FAN_OPEN, target).unwrap();
    File::open(&path).unwrap();
    vec![group]
}

fn watch_and_locked_ghost(tree: &Path) -> Vec<OwnedFd> {
    let mut held = one_watch(tree);
    let path = tree.join("locked");
    let file = File::create_new(&path).unwrap();
    file.lock().unwrap();
    fs::remove_file(path).unwrap();
    held.push(file.into());
    held
}

fn owned_by_parent(tree: &Path) -> Vec<OwnedFd> {
    let group = one_watch(tree);
    let parent = nix::unistd::getppid().as_raw();
    descriptor::set_owner(&group[0], 1, parent).unwrap();
    group
}

/// The queue is that of the one watch.
fn one_watch_beside_many(tree: &Path) -> Vec<OwnedFd> {
    let mut groups = one_watch(tree);
    let others = watch::init().unwrap();
    for n in 1..N_WATCHES {
        let path = tree.join(n.to_string());
        File::create(&path).unwrap();
        let path = path.as_os_str().as_encoded_bytes();
        watch::add_watch(others.as_fd(), path, Mask(libc::IN_ATTRIB)).unwrap();
    }
    groups.push(others);
    groups
}

fn one_watch(tree: &Path) -> Vec<OwnedFd> {
    let group = watch::init().unwrap();
    let path = tree.as_os_str().as_encoded_bytes();
    watch::add_watch(group.as_fd(), path, Mask(libc::IN_CREATE)).unwrap();
    vec![group]
}
