//! Directories that the kernel has forgotten the names of. Who opens such a one by its handle has
//! the kernel look for its name, in every directory above it (`exportfs_get_name`): it opens, reads
//! and closes them, and whoever watches hears that. Neither a dump nor a restore does.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use cr::image::PlaceKind;
use cr::sys::fanotify::{Target, fanotify_init, fanotify_mark};
use cr::sys::{handle, watch};
use cr::{Afterwards, DumpOptions, RestoreOptions};
use fsnotify::inotify::Mask;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, raise};

mod parked;

use parked::Parked;

/// Arguments of this program: be the one with a mount namespace of its own, the subject, its heir.
const WORLD: &str = "in-a-world-of-its-own";
const SUBJECT: &str = "be-the-subject";
const HEIR: &str = "be-the-heir";
/// What the first ends with where the machine does not have what it needs.
const SKIP: u8 = 77;

/// From the root of the filesystem down; the subject watches the last two.
const FOLDERS: [&str; 5] = ["", "a", "a/b", "a/b/c", "a/b/c/d"];

/// What the subject makes there.
const NEW: &str = "a/b/c/d/new";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [WORLD, directory] => {
            return match in_a_world(Path::new(directory)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(reason) => {
                    eprintln!("{reason}");
                    ExitCode::from(SKIP)
                }
            };
        }
        [SUBJECT, root] => return subject(Path::new(root)),
        [HEIR, image] => return heir(Path::new(image)),
        _ => {}
    }
    let name = "directories_with_forgotten_names_are_found_unheard";
    let trial = Trial::ignorable_test(name, || {
        let directory = tempfile::tempdir()?;
        let mut run = Command::new(std::env::current_exe()?);
        run.arg(WORLD).arg(directory.path()).stdin(Stdio::null());
        let output = run.output()?;
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => Ok(Completion::Completed),
            Some(code) if code == i32::from(SKIP) => Ok(Completion::ignored_with(text)),
            _ => Err(Failed::from(format!("{}: {text}", output.status))),
        }
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

/// The test; why not where something that it needs is missing.
fn in_a_world(directory: &Path) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("no mount namespace: {errno}"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
    let (disk, root) = (directory.join("disk"), directory.join("root"));
    File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    fs::create_dir(&root).unwrap();
    run("mkfs.ext4", &["-q".as_ref(), disk.as_os_str()])?;
    let loops = [
        "-o".as_ref(),
        "loop".as_ref(),
        disk.as_os_str(),
        root.as_os_str(),
    ];
    run("mount", &loops)?;
    fs::create_dir_all(root.join(FOLDERS[4])).unwrap();
    // Whoever looks for a name has others to look at first.
    for n in 0..200 {
        fs::create_dir(root.join(format!("a/b/c/other{n}"))).unwrap();
    }

    let bystander = Bystander::of(&root);
    if !is_heard_without_care(&root, &bystander) {
        return Err("this kernel finds names in silence".to_owned());
    }
    let image = directory.join("image");
    cut(&root, &image, &bystander, PlaceKind::Named);
    cut(&root, &image, &bystander, PlaceKind::Hidden);
    Ok(())
}

/// Dumps a subject and restores it, with names forgotten before both.
fn cut(root: &Path, image: &Path, bystander: &Bystander, kind: PlaceKind) {
    let subject = Parked::start(&[SUBJECT.as_ref(), root.as_os_str()]).unwrap();
    if kind == PlaceKind::Hidden {
        let over = root.join(FOLDERS[2]);
        let none = MsFlags::empty();
        mount(Some("none"), &over, Some("tmpfs"), none, None::<&str>).unwrap();
    }
    // The subject makes a directory, for an event that cannot be kept.
    bystander.heard();
    forget_names(root);
    let pid = subject.pid();
    let options = (&DumpOptions::default(), Afterwards::Ends);
    let (dumped, losses) = cr::dump_to_file(pid, image, options).unwrap();
    assert_eq!(bystander.heard(), 0, "bytes of events, of a dump: {kind:?}");
    assert_eq!(losses, vec![]);
    let lost: Vec<&str> = dumped.lost.iter().map(|loss| &loss.reason[..]).collect();
    let told = format!(
        "DFID_NAME {:?} \"new\" FID {:?}",
        root.join(FOLDERS[4]),
        root.join(NEW)
    );
    assert!(
        lost.len() == 1 && lost[0].contains(&told),
        "{told}: {lost:#?}"
    );
    let found = dumped.places.iter().map(|it| (it.path.clone(), it.kind()));
    let mut found: Vec<_> = found.collect();
    found.retain(|(path, _)| path.starts_with(root.as_os_str().as_encoded_bytes()));
    found.sort_by_key(|(path, _)| path.len());
    let kinds: Vec<PlaceKind> = found.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [kind; 2], "{:?}", dumped.places);
    if kind == PlaceKind::Named {
        let expected = FOLDERS[3..].iter().map(|folder| path_of(root, folder));
        assert!(found.into_iter().map(|(path, _)| path).eq(expected));
    }
    drop(subject);
    if kind == PlaceKind::Named {
        fs::remove_dir(root.join(NEW)).unwrap();
        bystander.heard();
    }

    forget_names(root);
    let this = std::env::current_exe().unwrap();
    let said = Command::new(this).arg(HEIR).arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{text}");
    let heard = bystander.heard();
    assert_eq!(heard, 0, "bytes of events, of a restore: {kind:?}");
}

fn path_of(root: &Path, folder: &str) -> Vec<u8> {
    root.join(folder).into_os_string().into_encoded_bytes()
}

/// Without which the test would show nothing: the kernel is heard when it looks for a name.
fn is_heard_without_care(root: &Path, bystander: &Bystander) -> bool {
    let anchor = handle::open_path(root).unwrap();
    let found = handle::of_path(&root.join(FOLDERS[4])).unwrap();
    forget_names(root);
    drop(handle::open(&anchor, &found).unwrap());
    bystander.heard() > 0
}

/// A remount forgets every name of a filesystem that nobody uses (`reconfigure_super` calls
/// `shrink_dcache_sb`).
fn forget_names(root: &Path) {
    let words = ["-o".as_ref(), "remount".as_ref(), root.as_os_str()];
    run("mount", &words).unwrap();
}

/// Hears everything in each of the directories. A watch keeps the inode, not its name.
struct Bystander(OwnedFd);

impl Bystander {
    fn of(root: &Path) -> Self {
        let group = watch::init().unwrap();
        for folder in FOLDERS {
            watch::add_watch(group.as_fd(), &path_of(root, folder), Mask::ALL_EVENTS).unwrap();
        }
        Self(group)
    }

    /// Bytes of events since the last time.
    fn heard(&self) -> usize {
        cr::queue::drain(self.0.as_fd()).unwrap().len()
    }
}

/// Watches by path, which opens nothing, leaves an event unread that tells of a new directory by its
/// handle, and stops.
fn subject(root: &Path) -> ExitCode {
    cr::sys::descriptor::close_range(3, u32::MAX).unwrap();
    let group = watch::init().unwrap();
    for folder in &FOLDERS[3..] {
        watch::add_watch(group.as_fd(), &path_of(root, folder), Mask(libc::IN_CREATE)).unwrap();
    }
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_NONBLOCK | libc::FAN_REPORT_DFID_NAME_TARGET;
    let marked = CString::new(path_of(root, FOLDERS[4])).unwrap();
    let group = fanotify_init(flags, 0).unwrap();
    let (add, mask) = (libc::FAN_MARK_ADD, libc::FAN_CREATE | libc::FAN_ONDIR);
    fanotify_mark(&group, add, mask, Target::Path(&marked)).unwrap();
    fs::create_dir(root.join(NEW)).unwrap();
    for fd in 0..3 {
        let _ = cr::sys::raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    ExitCode::SUCCESS
}

/// Restores, and says why not where nothing that it restores is in the way.
fn heir(image: &Path) -> ExitCode {
    match cr::restore_file(image, &RestoreOptions::default()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::stderr().write_all(error.to_string().as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line: PathBuf = arguments.iter().collect();
    Err(format!("{program} {}: {}", line.display(), text.trim()))
}
