//! Dump and restore of many watches, side by side: builtin, the bare calls that nobody can do
//! without, and CRIU where the variable `CRIU` names one.
//!
//! `cargo bench -p cr --bench watches`. Needs root, since handles are opened. The bare calls: fdinfo
//! read; of each watch, `open_by_handle_at`, `readlink`, `close`; the end of the process; then of each
//! `INOTIFY_IOC_SETNEXTWD` and `inotify_add_watch` by its path. They write no image, start no
//! process, and would not notice if a path led to another inode.
//!
//! A table instead of a benchmark library: what counts is a ratio within one round.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use cr::sys::{handle, path, watch};
use cr::{Afterwards, DumpOptions, Others, RestoreOptions};
use fsnotify::Wd;
use fsnotify::fdinfo::{Body, Group, Kind, Level};
use fsnotify::inotify::Mask;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How many watches, in how many rounds.
const SIZES: [(usize, usize); 3] = [(1_000, 61), (10_000, 9), (100_000, 5)];

/// What builtin may take, as a multiple of the bare calls.
const MOST: f64 = 1.5;

const SUBJECT: &str = "be-the-subject";
const HEIR: &str = "be-the-heir";
/// Where the heir says how long it took.
const TOOK: &str = "took";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let path = |index: usize| PathBuf::from(&arguments[index]);
    match arguments.first().and_then(|word| word.to_str()) {
        Some(SUBJECT) => subject(&path(1)),
        Some(HEIR) => heir(&path(1)),
        Some(_) | None => {}
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: open_by_handle_at needs root");
        return ExitCode::SUCCESS;
    }
    nix::sys::prctl::set_child_subreaper(true).expect("PR_SET_CHILD_SUBREAPER");
    let criu = std::env::var_os("CRIU").filter(|criu| !criu.is_empty());
    println!(
        "least, ms        bare: dump  restore   builtin: dump  restore   ratio   criu: dump  restore"
    );
    let mut is_met = true;
    for (n_watches, n_rounds) in SIZES {
        let rounds = (0..n_rounds).map(|_| Round::run(n_watches, criu.as_deref()));
        let rounds: Vec<Round> = rounds.collect();
        // Whatever else the machine does only ever adds.
        let least = |value: fn(&Round) -> f64| rounds.iter().map(value).fold(f64::MAX, f64::min);
        let bare = [least(|it| it.bare.dump), least(|it| it.bare.restore)];
        let builtin = [least(|it| it.builtin.dump), least(|it| it.builtin.restore)];
        let ratio = builtin.iter().sum::<f64>() / bare.iter().sum::<f64>();
        is_met &= ratio <= MOST;
        print!(
            "{n_watches:>7} watches {:>11.1} {:>8.1} {:>15.1} {:>8.1} {ratio:>7.2}",
            bare[0], bare[1], builtin[0], builtin[1],
        );
        match rounds[0].criu {
            Some(_) => println!(
                " {:>12.1} {:>8.1}",
                least(|it| it.criu.expect("in every round").dump),
                least(|it| it.criu.expect("in every round").restore),
            ),
            None => println!("  no CRIU"),
        }
    }
    println!(
        "builtin is to be within {MOST} of the bare calls: {}",
        if is_met { "met" } else { "NOT MET" }
    );
    ExitCode::from(u8::from(!is_met))
}

/// Milliseconds.
#[derive(Clone, Copy)]
struct Times {
    dump: f64,
    restore: f64,
}

fn timed<T>(body: impl FnOnce() -> T) -> (T, f64) {
    let started = Instant::now();
    let result = body();
    (result, started.elapsed().as_secs_f64() * 1e3)
}

struct Round {
    bare: Times,
    builtin: Times,
    criu: Option<Times>,
}

impl Round {
    fn run(n_watches: usize, criu: Option<&std::ffi::OsStr>) -> Self {
        let folder = folder();
        let files = folder.path().join("w");
        fs::create_dir(&files).expect("a folder");
        for n in 0..n_watches {
            fs::write(files.join(format!("file-{n}")), "").expect("a file");
        }
        Self {
            bare: bare(&files),
            builtin: builtin(&files),
            criu: criu.map(|criu| by_criu(&files, Path::new(criu))),
        }
    }
}

/// In memory, if there is a place in memory: no disk is measured.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a folder")
}

/// Watches every file of a folder, and stops.
fn subject(files: &Path) -> ! {
    let _ = nix::unistd::setsid();
    // Whatever the one who starts benchmarks left open.
    cr::sys::descriptor::close_range(3, u32::MAX).expect("close_range");
    let group = watch::init().expect("inotify_init1");
    for entry in fs::read_dir(files).expect("the folder") {
        let file = entry.expect("an entry").path();
        let name = file.as_os_str().as_encoded_bytes();
        watch::add_watch(group.as_fd(), name, Mask::ALL_EVENTS).expect("a watch");
    }
    stop()
}

fn stop() -> ! {
    raise(Signal::SIGSTOP).expect("a stop");
    std::process::exit(0)
}

/// Starts this program in another role, and waits until it stops.
#[expect(clippy::zombie_processes, reason = "`end` waits for it, by its pid")]
fn start(arguments: &[&std::ffi::OsStr]) -> Pid {
    let this = std::env::current_exe().expect("a program");
    let child = Command::new(this)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED));
    assert!(matches!(status, Ok(WaitStatus::Stopped(..))), "{status:?}");
    pid
}

fn end(pid: Pid) {
    kill(pid, Signal::SIGKILL).expect("a kill");
    waitpid(pid, None).expect("its end");
}

fn bare(files: &Path) -> Times {
    let pid = start(&[SUBJECT.as_ref(), files.as_os_str()]);
    let mount = handle::open_path(files).expect("the mount");
    let in_mount = || {
        // Where the working directory is, handles are opened with no more than `O_PATH`.
        nix::unistd::fchdir(&mount).expect("fchdir");
        bare_dump(pid)
    };
    let (watches, dump) = timed(|| {
        let watches = handle::with_own_directory(in_mount).expect("unshare");
        // As the others do, and with it go its watches, one by one.
        end(pid);
        watches
    });
    let (group, restore) = timed(|| {
        let group = watch::init().expect("inotify_init1");
        for (wd, mask, path) in watches.iter().rev() {
            watch::set_next_wd(group.as_fd(), *wd).expect("INOTIFY_IOC_SETNEXTWD");
            watch::add_watch(group.as_fd(), path, *mask).expect("inotify_add_watch");
        }
        group
    });
    drop(group);
    Times { dump, restore }
}

fn bare_dump(pid: Pid) -> Vec<(Wd, Mask, Vec<u8>)> {
    let fd = cr::sys::inspect::groups(pid).expect("its groups")[0];
    let text = fs::read(format!("/proc/{pid}/fdinfo/{fd}")).expect("fdinfo");
    let group = Group::parse_as(&text, Kind::Inotify, Level::Strict).expect("fdinfo");
    let Body::Inotify { watches } = group.body else {
        return Vec::new();
    };
    let each = watches.iter().map(|it| {
        let found = it.handle.as_ref().expect("a handle");
        let file = handle::open_here(found).expect("open_by_handle_at");
        let name = path::name_of(&file).expect("readlink");
        (it.wd, Mask(it.mask.0), name)
    });
    each.collect()
}

fn builtin(files: &Path) -> Times {
    let images = folder();
    let pid = start(&[SUBJECT.as_ref(), files.as_os_str()]);
    let image = images.path().join("image");
    // The groups alone: another process cannot have the subject's session.
    let options = DumpOptions {
        only_groups: true,
        ..DumpOptions::default()
    };
    let dumped = || cr::dump_to_file(pid, &image, (&options, Afterwards::Ends));
    let (dumped, dump) = timed(dumped);
    let (_, losses) = dumped.expect("a dump");
    assert!(losses.is_empty(), "{losses:?}");
    end(pid);
    let heir = start(&[HEIR.as_ref(), images.path().as_os_str()]);
    let took = fs::read_to_string(images.path().join(TOOK)).expect("its time");
    end(heir);
    let restore = took.parse().expect("a number");
    Times { dump, restore }
}

/// Becomes the subject, says how long that took, and stops.
fn heir(images: &Path) -> ! {
    let options = RestoreOptions {
        others: Others::Keep,
        ..RestoreOptions::default()
    };
    let (restored, took) = timed(|| cr::restore_file(&images.join("image"), &options));
    restored.expect("a restore");
    fs::write(images.join(TOOK), took.to_string()).expect("a file");
    stop()
}

/// As the engine runs it, but for a log that is short.
fn by_criu(files: &Path, program: &Path) -> Times {
    let images = folder();
    let pid = start(&[SUBJECT.as_ref(), files.as_os_str()]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command.arg("--no-default-config").args(arguments);
        command.arg("--images-dir").arg(images.path()).arg("-v1");
        let output = command.output().expect("CRIU");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    let ((), dump) = timed(|| run(&["dump", "--tree", &pid.to_string()]));
    waitpid(pid, None).expect("its end");
    let ((), restore) = timed(|| run(&["restore", "--restore-detached"]));
    end(pid);
    Times { dump, restore }
}
