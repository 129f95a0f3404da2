//! Groups that are parked: whatever becomes of who would take them over, they are in reach.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use cr::process::{Status, waits_for};
use cr::sys::fanotify::{Target, fanotify_init, fanotify_mark};
use cr::sys::raw::readable;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::NOTIFREEZE;
use crate::failed::said;
use crate::subject::{Subject, is_permitted, wait_for};
use crate::trace::{Ended, Fatal, run};

#[test]
fn what_is_parked_stays_in_reach() {
    if !is_permitted() {
        return;
    }
    let (parked, holder) = park();
    let images = parked.images().display().to_string();
    let shown = parked.notifreeze(&["show", &images]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains(&format!("parked in process {holder}")),
        "{shown}"
    );
    assert!(!shown.contains("unread"), "{shown}");
    let is_there = || fs::read_to_string(format!("/proc/{holder}/comm")).is_ok();
    for command in ["/no/such/command", "no-such-command", "/etc/passwd"] {
        let output = parked.notifreeze(&["restore", "--images", &images, "--", command]);
        assert!(
            !output.status.success() && is_there(),
            "{command}: {output:?}"
        );
    }
    // It is found, and cannot be executed, since it is open for writing (ETXTBSY).
    let program = parked.folder.path().join("program");
    fs::copy("/bin/true", &program).expect("a program");
    let writer = fs::File::options().append(true).open(&program).expect("it");
    let program = program.display().to_string();
    let output = parked.notifreeze(&["restore", "--images", &images, "--", &program]);
    assert!(said(&output).contains("parked as before"), "{output:?}");
    drop(writer);
    assert_eq!(parked.left(), ["image.nf"]);
    let other = Subject::start();
    let before = other.state();
    let pid = other.pid().to_string();
    let output = other.notifreeze(&["dump", &pid, "--only-fsnotify", "--images", &images]);
    assert!(
        said(&output).contains(&format!("parked in process {holder}")),
        "{output:?}"
    );
    assert_eq!(other.state(), before);
    assert!(is_there());
    take_over(&parked, holder);
}

/// It is known by its holder, and nothing is missing.
fn take_over(parked: &Subject, holder: i32) {
    let images = parked.images().display().to_string();
    let look = "grep -c ^inotify /proc/$$/fdinfo/5; dd bs=4096 count=1 <&5 2>/dev/null | wc -c";
    let output = parked.notifreeze(&["restore", "--images", &images, "--", "sh", "-c", look]);
    let found = String::from_utf8_lossy(&output.stdout);
    assert_eq!(found, "2\n48\n", "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    wait_for("the end of the holder", || {
        let stat = cr::process::stat(holder);
        stat.map_or(true, |fields| fields[0] == "Z")
    });
}

#[test]
fn a_restore_of_what_is_parked_may_be_killed_anywhere() {
    if !is_permitted() {
        return;
    }
    let (parked, holder) = park();
    let images = parked.images().display().to_string();
    let arguments = ["restore", "--images", &images, "--", "true"];
    let mut n_killed = 0;
    for n in 0.. {
        let (is_reached, ended) = run(&parked, &arguments, (n, Fatal::Kill));
        if !is_reached {
            assert_eq!(ended, Ended::Exited(0));
            break;
        }
        assert_eq!(ended, Ended::By(Signal::SIGKILL), "at call {n}");
        assert!(cr::process::stat(holder).is_ok(), "killed at call {n}");
        n_killed += 1;
    }
    assert!(n_killed > 100, "{n_killed} killed");
    // Its tracer was another, each time, so the holder stays behind the last as well.
    take_over(&parked, holder);
}

/// It is traced by the holder, and has not become the program yet.
#[test]
fn a_restore_of_what_is_parked_may_be_killed_while_its_program_begins() {
    if !is_permitted() {
        return;
    }
    let (parked, holder) = park();
    let mut slow = Slow::start(&parked, holder);
    slow.restore.kill().expect("a kill");
    slow.restore.wait().expect("its end");
    drop(slow);
    take_over(&parked, holder);
}

#[test]
fn of_two_restores_at_once_one_has_the_groups() {
    if !is_permitted() {
        return;
    }
    let (parked, holder) = park();
    let mut slow = Slow::start(&parked, holder);
    let second = Command::new(NOTIFREEZE)
        .args(["restore", "--images"])
        .arg(parked.images())
        .args(["--", "true"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("notifreeze");
    wait_for("the second to ask", || {
        waits_for(Pid::from_raw(holder), Signal::SIGUSR1)
    });
    // The first goes on.
    drop(slow.listener);
    assert!(slow.restore.wait().expect("its end").success());
    let output = second.wait_with_output().expect("its end");
    assert!(!output.status.success(), "{output:?}");
    assert!(said(&output).contains("groups are gone"), "{output:?}");
}

/// Whoever may send a signal can ask.
#[test]
fn a_holder_does_not_end_with_a_stranger() {
    if !is_permitted() {
        return;
    }
    let (parked, holder) = park();
    let ask = format!("kill -USR1 {holder}; sleep 0.1; exec true");
    let status = Command::new("sh").args(["-c", &ask]).status();
    assert!(status.expect("a shell").success());
    take_over(&parked, holder);
}

/// A restore whose program does not begin as long as the listener does not allow it.
struct Slow {
    restore: Child,
    listener: OwnedFd,
}

impl Slow {
    fn start(parked: &Subject, holder: i32) -> Self {
        let program = parked.folder.path().join("program");
        fs::copy("/bin/true", &program).expect("a program");
        let class = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
        let listener = fanotify_init(class, 0).expect("a group");
        let name = CString::new(program.as_os_str().as_bytes()).expect("a path");
        let (add, asks) = (libc::FAN_MARK_ADD, libc::FAN_OPEN_EXEC_PERM);
        fanotify_mark(&listener, add, asks, Target::Path(&name)).expect("a mark");
        let restore = Command::new(NOTIFREEZE)
            .args(["restore", "--images"])
            .arg(parked.images())
            .arg("--")
            .arg(&program)
            .spawn()
            .expect("notifreeze");
        assert_eq!(readable(listener.as_raw_fd(), 10_000), Ok(true));
        let status = Status::of(restore.id()).expect("it waits");
        assert_eq!(status.number("TracerPid"), Some(holder));
        Self { restore, listener }
    }
}

fn park() -> (Subject, i32) {
    let parked = Subject::start();
    let output = parked.notifreeze(&[
        "dump",
        &parked.pid().to_string(),
        "--only-fsnotify",
        "--park",
        "--images",
        parked.images().to_str().expect("letters"),
    ]);
    assert!(output.status.success(), "{output:?}");
    let image = cr::Image::read(&parked.images().join("image.nf")).expect("an image");
    (parked, image.parked.expect("a holder").holder)
}
