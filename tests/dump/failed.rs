//! Dumps that cannot be: each is refused, and leaves the process and the disk as they were.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};

use crate::NOTIFREEZE;
use crate::killed::SAMPLE;
use crate::subject::{State, Subject, is_permitted};
use crate::trace::{Ended, Fatal, dump};

/// Its group is of fanotify; all else is as with the other.
const FANOTIFY: &str = "\
# A fanotify group with unread events.
mkdir(\"dir\", 0755)
mknod(\"fifo\", S_IFIFO|0644)
open(\"dir/a\", O_RDWR|O_CREAT, 0644) = a
open(\"fifo\", O_RDWR) = fifo
fanotify_init(FAN_CLASS_NOTIF|FAN_REPORT_DFID_NAME|FAN_NONBLOCK, O_RDONLY) = n
fanotify_mark(n, FAN_MARK_ADD, FAN_CREATE|FAN_DELETE, AT_FDCWD, \"dir\")
open(\"dir/b\", O_RDWR|O_CREAT, 0644)
unlink(\"dir/b\")
read(fifo) = ?
";

/// It has a file open that has no name.
const GHOST: &str = "\
# A watched ghost.
mkdir(\"dir\", 0755)
mknod(\"fifo\", S_IFIFO|0644)
open(\"dir/a\", O_RDWR|O_CREAT, 0644) = a
open(\"fifo\", O_RDWR) = fifo
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"dir/a\", IN_ATTRIB) = 1
unlink(\"dir/a\")
read(fifo) = ?
";

const LEAVE: [&str; 1] = ["--leave-running"];

/// Runs `dump` by a shell that runs this first.
fn dump_behind(subject: &Subject, first: &str, more: &[&str]) -> Output {
    Command::new("/bin/sh")
        .args([
            "-c",
            &format!("{first}; exec \"$@\""),
            "sh",
            NOTIFREEZE,
            "dump",
        ])
        .arg(subject.pid().to_string())
        .args(["--only-fsnotify", "--images"])
        .arg(subject.images())
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("a dump")
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It fails, says so, and all is as before; or it succeeds, and the process has what it had.
fn check(subject: &Subject, before: &State, (what, output): (&str, &Output)) -> bool {
    let said = said(output);
    let succeeded = output.status.success();
    assert!(
        succeeded || output.status.code() == Some(1),
        "{what}: {output:?}"
    );
    assert!(
        succeeded || said.contains("the process runs on"),
        "{what}: {said}"
    );
    let state = subject.state();
    assert_eq!(state.as_ref(), Some(before), "{what}: {said}");
    let left = subject.left();
    let expected: &[&str] = if succeeded { &["image.nf"] } else { &[] };
    assert_eq!(left, expected, "{what}: {said}");
    let _ = fs::remove_dir_all(subject.images());
    succeeded
}

/// Each of the limits, from none to enough.
fn under(limit: &str, numbers: impl Iterator<Item = u32>) {
    if !is_permitted() {
        return;
    }
    let subject = Subject::start();
    let before = subject.state().expect("a subject");
    let (mut n_failed, mut n_succeeded) = (0, 0);
    for number in numbers {
        let what = format!("{limit} {number}");
        let output = dump_behind(&subject, &format!("ulimit {what}"), &LEAVE);
        // Not even a library can be opened.
        if output.status.code() == Some(127) {
            continue;
        }
        // There may be no folder to be refused in.
        if said(&output).contains("the process runs on") || output.status.success() {
            match check(&subject, &before, (&what, &output)) {
                true => n_succeeded += 1,
                false => n_failed += 1,
            }
        } else {
            assert_eq!(
                subject.state().as_ref(),
                Some(&before),
                "{what}: {output:?}"
            );
            let _ = fs::remove_dir_all(subject.images());
        }
    }
    assert!(n_failed > 2 && n_succeeded > 0, "{n_failed}, {n_succeeded}");
}

#[test]
fn files_that_may_not_grow_are_an_error() {
    under("-f", (0..400).step_by(24));
}

#[test]
fn a_lack_of_descriptors_is_an_error() {
    under("-n", 4..60);
}

#[test]
fn a_full_disk_takes_nothing_from_the_process() {
    if !is_permitted() {
        return;
    }
    for plan in [crate::subject::PLAN, FANOTIFY] {
        let subject = Subject::start_as(plan);
        let before = subject.state().expect("a subject");
        fs::create_dir(subject.images()).expect("a folder");
        let images = subject.images().display().to_string();
        let mut n_failed = 0;
        for pages in (1..=64).step_by(3) {
            let size = pages * 4096;
            let mount = format!("mount -t tmpfs -o size={size} none {images}");
            let output = Command::new("unshare")
                .args(["--mount", "/bin/sh", "-c"])
                .arg(format!(
                    "{mount}; \"$@\"; status=$?; ls {images} >&2; exit $status"
                ))
                .args(["sh", NOTIFREEZE, "dump", &subject.pid().to_string()])
                .args(["--only-fsnotify", "--images", &images])
                .args(if plan == FANOTIFY {
                    &[][..]
                } else {
                    &LEAVE[..]
                })
                .output()
                .expect("unshare");
            let said = said(&output);
            if output.status.success() {
                assert!(said.ends_with("image.nf\n"), "{size}: {said}");
                break;
            }
            n_failed += 1;
            assert!(said.contains("ENOSPC"), "{size}: {said}");
            assert!(said.trim_end().lines().count() == 1, "{size}: {said}");
            assert_eq!(subject.state().as_ref(), Some(&before), "{size}: {said}");
        }
        assert!(n_failed > 3, "{n_failed} failed");
    }
}

#[test]
fn a_place_that_cannot_be_written_to_is_an_error() {
    if !is_permitted() {
        return;
    }
    let subject = Subject::start();
    let before = subject.state();
    for images in ["/proc/sys", "/dev/null", "/dev/null/images"] {
        let output = subject.notifreeze(&["dump", &subject.pid().to_string(), "--images", images]);
        assert!(!output.status.success(), "{images}");
        assert_eq!(subject.state(), before, "{images}");
    }
}

#[test]
fn a_traced_process_is_refused() {
    if !is_permitted() {
        return;
    }
    let subject = Subject::start();
    let before = subject.state().expect("a subject");
    ptrace::seize(subject.pid(), Options::empty()).expect("PTRACE_SEIZE");
    let output = dump_behind(&subject, ":", &LEAVE);
    assert!(said(&output).contains("is traced by process"), "{output:?}");
    ptrace::interrupt(subject.pid()).expect("PTRACE_INTERRUPT");
    waitpid(subject.pid(), Some(WaitPidFlag::__WALL)).expect("a stop");
    let output = dump_behind(&subject, ":", &LEAVE);
    assert!(said(&output).contains("is traced by process"), "{output:?}");
    assert!(!subject.images().exists());
    ptrace::detach(subject.pid(), None).expect("PTRACE_DETACH");
    crate::subject::wait_for("its read", || subject.state().as_ref() == Some(&before));
}

#[test]
fn a_process_that_ends_meanwhile_leaves_nothing_or_its_image() {
    if !is_permitted() {
        return;
    }
    for n in (0..).step_by(SAMPLE) {
        let subject = Subject::start();
        let (is_reached, ended) = dump(&subject, &LEAVE, (n, Fatal::SubjectEnds));
        assert!(matches!(ended, Ended::Exited(0 | 1)), "{n}: {ended:?}");
        subject
            .recover()
            .unwrap_or_else(|error| panic!("{n}: {error}"));
        let left = subject.left();
        assert!(
            left.is_empty() || left == ["image.nf"],
            "{n}: {ended:?}: {left:?}"
        );
        if !is_reached {
            break;
        }
    }
}

#[test]
fn two_at_once_take_nothing_from_each_other() {
    if !is_permitted() {
        return;
    }
    let others: [&[&str]; 4] = [
        &[
            "dump",
            "PID",
            "--only-fsnotify",
            "--leave-running",
            "--images",
            "images2",
        ],
        &[
            "dump",
            "PID",
            "--only-fsnotify",
            "--leave-running",
            "--images",
            "images",
        ],
        &[
            "dump",
            "PID",
            "--only-fsnotify",
            "--images",
            "images2",
            "--park",
        ],
        &["recover", "images"],
    ];
    let mut n_refused = 0;
    for rival in others {
        // From where the first has begun.
        for n in (150..).step_by(3 * SAMPLE) {
            let subject = Subject::start();
            let before = subject.state();
            let (is_reached, ended) = dump(&subject, &LEAVE, (n, Fatal::Rival(rival)));
            let words = fs::read_to_string(subject.folder.path().join("rival"));
            let words = words.unwrap_or_default();
            let at = format!("{rival:?} at call {n}: {ended:?}: {words}");
            let refused = words.contains("another dump");
            n_refused += usize::from(refused);
            let image = subject.folder.path().join("images2/image.nf");
            match cr::Image::read(&image) {
                Ok(image) if image.parked.is_some() => assert_eq!(subject.state(), None, "{at}"),
                Ok(image) => {
                    assert!(
                        image.to_string().contains("48 bytes unread"),
                        "{at}: {image}"
                    );
                    assert_eq!(subject.state(), before, "{at}");
                }
                Err(_) => {
                    assert_eq!(ended, Ended::Exited(0), "{at}");
                    assert_eq!(subject.state(), before, "{at}");
                }
            }
            let left = subject.left();
            assert!(left.is_empty() || left == ["image.nf"], "{at}: {left:?}");
            if !is_reached {
                break;
            }
        }
    }
    assert!(n_refused > 10, "{n_refused} refused");
}

#[test]
fn a_recovery_that_cannot_judge_keeps_what_there_is() {
    if !is_permitted() {
        return;
    }
    let mut n_failed = 0;
    for n in (300..).step_by(2 * SAMPLE) {
        let subject = Subject::start();
        let before = subject.state();
        let (is_reached, _) = dump(&subject, &LEAVE, (n, Fatal::Kill));
        if !is_reached {
            break;
        }
        for first in [
            "ulimit -n 4",
            "ulimit -n 5",
            "ulimit -n 6",
            "ulimit -n 8",
            "ulimit -n 12",
        ] {
            let output = Command::new("/bin/sh")
                .args([
                    "-c",
                    &format!("{first}; exec \"$@\""),
                    "sh",
                    NOTIFREEZE,
                    "recover",
                ])
                .arg(subject.images())
                .output()
                .expect("recover");
            n_failed += usize::from(!output.status.success());
        }
        let elsewhere = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", NOTIFREEZE, "recover"])
            .arg(subject.images())
            .output()
            .expect("unshare");
        n_failed += usize::from(!elsewhere.status.success());
        subject
            .recover()
            .unwrap_or_else(|error| panic!("{n}: {error}"));
        assert_eq!(subject.state(), before, "killed at call {n}");
    }
    assert!(n_failed > 10, "{n_failed} failed");
}

#[test]
fn fanotify_events_are_in_the_process_or_in_the_image_or_said_to_be_lost() {
    if !is_permitted() {
        return;
    }
    let (mut n_lost, mut n_whole) = (0, 0);
    for n in (0..).step_by(SAMPLE) {
        let subject = Subject::start_as(FANOTIFY);
        let before = subject.state().expect("a subject");
        let (is_reached, ended) = dump(&subject, &[], (n, Fatal::Kill));
        let images = subject.images().display().to_string();
        let output = subject.notifreeze(&["recover", &images]);
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        let left = subject.left();
        let at = format!("killed at call {n}: {ended:?}: {words}: {left:?}");
        let file = left.iter().find(|name| name.contains(".unread-"));
        match subject.state() {
            None => assert_eq!(left, ["image.nf"], "{at}"),
            Some(state) if state == before => {
                assert!(
                    file.is_none() || words.contains("cannot be given back"),
                    "{at}"
                );
                n_whole += 1;
            }
            Some(state) => {
                assert!(
                    !state.is_stopped && state.info == before.info,
                    "{at}: {state:?}"
                );
                assert!(
                    words.contains("cannot be given back") && file.is_some(),
                    "{at}"
                );
                n_lost += 1;
            }
        }
        if !is_reached {
            break;
        }
    }
    eprintln!("{n_whole} whole, {n_lost} said to be lost");
    assert!(n_whole > 5, "{n_whole} whole");
}

#[test]
fn the_link_of_a_ghost_goes_with_its_dumper() {
    if !is_permitted() {
        return;
    }
    for n in (0..).step_by(SAMPLE) {
        let subject = Subject::start_as(GHOST);
        let more = ["--ghosts", "hardlink"];
        let (is_reached, ended) = dump(&subject, &more, (n, Fatal::Kill));
        subject
            .recover()
            .unwrap_or_else(|error| panic!("{n}: {error}"));
        let folder = subject.folder.path().join("w/dir");
        let names = fs::read_dir(folder).expect("a folder").count();
        let has_image = subject.left() == ["image.nf"];
        assert_eq!(
            names,
            usize::from(has_image),
            "killed at call {n}: {ended:?}"
        );
        if !is_reached {
            break;
        }
    }
}

#[test]
fn what_is_no_subject_is_refused_by_name() {
    if !is_permitted() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let images = folder.path().join("images").display().to_string();
    let shell = |script: &str| {
        let output = Command::new("/bin/sh")
            .args(["-c", script, "sh", NOTIFREEZE, &images])
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        assert!(!output.status.success(), "{script}: {output:?}");
        assert!(!folder.path().join("images").exists(), "{script}");
        said(&output)
    };
    let cases = [
        ("exec \"$1\" dump $$ --images \"$2\"", "is this one"),
        ("\"$1\" dump $$ --images \"$2\"; exit $?", "an ancestor"),
        (
            "exec \"$1\" dump 1 --images \"$2\"",
            "the init of this pid namespace",
        ),
        (
            "exec \"$1\" dump 0 --images \"$2\"",
            "not the number of a process",
        ),
        (
            "exec \"$1\" dump 2147483647 --images \"$2\"",
            "there is no process",
        ),
        (
            "sleep 100 & \"$1\" dump $! --images \"$2\" --only-fsnotify; s=$?; kill $!; exit $s",
            "no inotify or fanotify group",
        ),
    ];
    for (script, expected) in cases {
        let said = shell(script);
        assert!(said.contains(expected), "{script}: {said}");
    }
    let kernel = fs::read_to_string("/proc/2/comm").unwrap_or_default();
    if kernel == "kthreadd\n" {
        let said = shell("exec \"$1\" dump 2 --images \"$2\"");
        assert!(said.contains("a thread of the kernel"), "{said}");
    }
    // A child that nobody has waited for.
    let mut child = Command::new("/bin/true").spawn().expect("a child");
    let ended = format!("/proc/{}/stat", child.id());
    crate::subject::wait_for("its end", || {
        fs::read_to_string(&ended).is_ok_and(|stat| stat.contains(") Z "))
    });
    let said = shell(&format!("exec \"$1\" dump {} --images \"$2\"", child.id()));
    assert!(said.contains("has ended, and its parent"), "{said}");
    child.wait().expect("its end");
    // A thread of this process.
    let thread = fs::read_dir("/proc/self/task")
        .expect("threads")
        .find_map(|entry| {
            let thread: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            (thread != std::process::id()).then_some(thread)
        });
    let said = shell(&format!(
        "exec \"$1\" dump {} --images \"$2\"",
        thread.expect("one")
    ));
    assert!(said.contains("is a thread of process"), "{said}");
}

#[test]
fn who_was_stopped_before_stays_so() {
    if !is_permitted() {
        return;
    }
    let subject = Subject::start();
    kill(subject.pid(), Signal::SIGSTOP).expect("a stop");
    crate::subject::wait_for("its stop", || {
        subject.state().is_some_and(|it| it.is_stopped)
    });
    let output = dump_behind(&subject, ":", &["--queue", "refuse"]);
    assert!(
        said(&output).contains("is stopped, as it was"),
        "{output:?}"
    );
    assert!(subject.state().is_some_and(|it| it.is_stopped));
    // The folder is for no eyes but ours.
    assert!(!subject.images().exists());
    let output = dump_behind(&subject, ":", &LEAVE);
    assert!(output.status.success(), "{output:?}");
    let mode = fs::metadata(subject.images())
        .expect("a folder")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
    assert!(subject.state().is_some_and(|it| it.is_stopped));
    kill(subject.pid(), Signal::SIGCONT).expect("on");
}
