//! A harness that is killed leaves nothing behind: no process, no mount, no file.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Stops at its last step until it is killed: the child never parks, so the run never ends.
const ENDLESS: &str = "\
# Hangs: a blocking read of a fifo that nobody writes to.
requires inotify
mknod(\"fifo\", S_IFIFO|0644)
open(\"fifo\", O_RDWR) = fifo
read(fifo) = ?
checkpoint
";

/// One process waits for another's permission, and that one as above: no group that is told of the
/// file can be closed meanwhile.
const ENDLESS_PERMISSION: &str = "\
# Hangs: a process waits for permission, and its listener for a fifo that nobody writes to.
requires root
mknod(\"f\", S_IFREG|0644)
mknod(\"fifo\", S_IFIFO|0644)
open(\"fifo\", O_RDWR) = fifo
fanotify_init(FAN_CLASS_CONTENT|FAN_NONBLOCK, O_RDONLY) = n
fanotify_mark(n, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, \"f\")
fork() = p
checkpoint
[p] open(\"f\", O_RDONLY) <unfinished ...>
read(fifo) = ?
[p] <... open resumed> = ?
";

/// Pids of processes that run a program of this package.
fn ours() -> BTreeSet<i32> {
    let program = Path::new(env!("CARGO_BIN_EXE_notifreeze"));
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program))
        .collect()
}

/// Those of them that descend from a process, itself among them.
fn family(head: u32) -> BTreeSet<i32> {
    let ours = ours();
    let mut family = BTreeSet::from([i32::try_from(head).unwrap()]);
    loop {
        let child = |pid: &&i32| !family.contains(pid) && family.contains(&parent(**pid));
        let Some(child) = ours.iter().find(child).copied() else {
            return family;
        };
        family.insert(child);
    }
}

/// Of a process that is there; else one that nobody has.
fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let parent = fields.split_ascii_whitespace().nth(1);
    parent.and_then(|pid| pid.parse().ok()).unwrap_or(-1)
}

/// Whether it is the process under test, by its name.
fn is_subject(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"subject\n")
}

/// Waits until `done`, giving the machine away between two looks, for 10 s at most.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        std::thread::yield_now();
    }
}

/// Whether it waits for permission: where it sleeps in the kernel.
fn waits(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|at| at.starts_with("fanotify_"))
}

#[test]
fn a_killed_harness_leaves_nothing_behind() {
    kill_the_harness(ENDLESS, is_subject);
}

#[test]
fn nor_does_one_that_is_killed_while_a_process_waits_for_permission() {
    kill_the_harness(ENDLESS_PERMISSION, |pid| is_subject(pid) && waits(pid));
}

fn kill_the_harness(scenario: &str, is_there: impl Fn(i32) -> bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("endless.scn");
    fs::write(&path, scenario).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut harness = Command::new(env!("CARGO_BIN_EXE_notifreeze"))
        .args(["run", "--jobs", "1"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut skipped = false;
    let mut started = BTreeSet::new();
    wait_for("the subject", || {
        skipped = harness.try_wait().unwrap().is_some();
        started = family(harness.id());
        skipped || started.iter().any(|pid| is_there(*pid))
    });
    if skipped {
        let mut words = String::new();
        harness
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut words)
            .unwrap();
        eprintln!("skipped: no sandbox on this machine: {words}");
        return;
    }
    assert!(
        started.len() > 4,
        "harness, zygote, sandbox, init, subject: {started:?}"
    );
    harness.kill().unwrap();
    harness.wait().unwrap();
    wait_for("the end of every process", || ours().is_disjoint(&started));
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
