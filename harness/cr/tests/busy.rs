//! A superblock that is busy: a remount of one filesystem waits for another one, which is frozen,
//! and as long as it waits the kernel shows no handle of a watched inode.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cr::DumpOptions;
use cr::dump::{Foreseen, foresee};
use cr::sys::fanotify::{Target, fanotify_init, fanotify_mark};
use cr::sys::watch;
use fsnotify::inotify::Mask;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;

/// An argument of this program: be the one with a mount namespace of its own.
const ROLE: &str = "in-a-world-of-its-own";
/// What that one ends with where the kernel or the machine does not have it.
const SKIP: u8 = 77;
/// How long a remount may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(ROLE) {
        let directory = std::env::args().nth(2).expect("a directory");
        return match in_a_world(Path::new(&directory)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                eprintln!("{reason}");
                ExitCode::from(SKIP)
            }
        };
    }
    let trial = Trial::ignorable_test("handles_of_a_busy_superblock_are_waited_for", || {
        let directory = tempfile::tempdir()?;
        let mut run = Command::new(std::env::current_exe()?);
        run.arg(ROLE).arg(directory.path()).stdin(Stdio::null());
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
    std::env::set_current_dir(directory).expect("a directory of our own");
    // On a tmpfs, so that what is frozen is nobody else's.
    let none = MsFlags::empty();
    mount(Some("none"), ".", Some("tmpfs"), none, None::<&str>)
        .map_err(|errno| format!("tmpfs: {errno}"))?;
    std::env::set_current_dir(directory).expect("what is mounted there by now");
    for (image, size, mounted) in [
        ("image", 64 << 20, "outer"),
        ("outer/image", 16 << 20, "inner"),
    ] {
        fs::create_dir(mounted).unwrap();
        File::create(image).unwrap().set_len(size).unwrap();
        run("mkfs.ext4", &["-q", image])?;
        run("mount", &["-o", "loop", image, mounted])?;
    }
    let _thaw = Thaw;
    watches_and_marks();
    Ok(())
}

/// Ends the freeze whatever happens: a process that waits for a frozen filesystem cannot be killed.
struct Thaw;

impl Drop for Thaw {
    fn drop(&mut self) {
        let _ = run("fsfreeze", &["-u", "outer"]);
    }
}

fn watches_and_marks() {
    fs::write("inner/f", "content").unwrap();
    let inotify = watch::init().unwrap();
    watch::add_watch(inotify.as_fd(), b"inner/f", Mask(libc::IN_MODIFY)).unwrap();
    let fanotify = fanotify_init(libc::FAN_CLASS_NOTIF | libc::FAN_NONBLOCK, 0).unwrap();
    let target = Target::Path(c"inner/f");
    fanotify_mark(&fanotify, libc::FAN_MARK_ADD, libc::FAN_MODIFY, target).unwrap();
    let groups = [inotify.as_fd(), fanotify.as_fd()];
    assert_eq!(refusals(groups), [None, None], "before");

    let mut remount = make_busy(fanotify.as_fd());
    let refused = refusals(groups).map(|refusal| refusal.expect("a refusal"));
    for refusal in refused {
        assert!(
            refusal.ends_with("has no file handle: its superblock is busy"),
            "{refusal}"
        );
    }

    // It is free while the dump waits, or before that on a slow machine: no refusal either way.
    let mut thaw = Command::new("sh");
    let mut thaw = thaw
        .args(["-c", "sleep 0.3; fsfreeze -u outer"])
        .spawn()
        .unwrap();
    assert_eq!(refusals(groups), [None, None], "after");
    assert!(thaw.wait().unwrap().success());
    assert!(remount.wait().unwrap().success());
}

/// Why each group would not be dumped.
fn refusals(groups: [BorrowedFd<'_>; 2]) -> [Option<String>; 2] {
    let Foreseen { mut refusals, .. } = foresee(Pid::this(), &DumpOptions::default()).unwrap();
    groups.map(|group| {
        let refusals = refusals.remove(&group.as_raw_fd()).unwrap_or_default();
        refusals.first().map(ToString::to_string)
    })
}

/// Has a remount of `inner` wait for `outer`, until the thaw.
fn make_busy(group: BorrowedFd<'_>) -> Child {
    // Something for the remount to write back.
    let mut file = File::options().append(true).open("inner/f").unwrap();
    file.write_all(&[b'x'; 1 << 16]).unwrap();
    drop(file);
    run("fsfreeze", &["-f", "outer"]).unwrap();
    let mut remount = Command::new("mount");
    let remount = remount.args(["-o", "remount,ro", "inner"]).spawn().unwrap();
    let fdinfo = format!("/proc/self/fdinfo/{}", group.as_raw_fd());
    let started = Instant::now();
    while fs::read_to_string(&fdinfo).unwrap().contains("f_handle") {
        assert!(
            started.elapsed() < PATIENCE,
            "the superblock did not get busy"
        );
        std::thread::yield_now();
    }
    remount
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            text.trim()
        )),
    }
}
