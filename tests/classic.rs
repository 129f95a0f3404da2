//! The engine `classic` does what CRIU's documentation describes, and what that costs is what its
//! snapshots say; the cycle that the documentation warns of is there, and need not be.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use cr::sys::inspect;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use notifreeze::case::{self, Options, Snapshot};
use notifreeze::engine::{EngineSpec, Ghosts, Policies, Queue};
use notifreeze::gate;
use notifreeze::suite::{self, Case};
use verify::{Kind, Verdict, invariant};

const NOTIFREEZE: &str = env!("CARGO_BIN_EXE_notifreeze");

fn cases(filter: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/inotify");
    let (cases, _) = suite::select(&[folder], Some(filter)).expect("the scenarios can be listed");
    assert!(!cases.is_empty());
    cases
}

/// How often each event stands with `spurious I5.1` behind it in a snapshot.
fn named(snapshot: &str) -> BTreeMap<String, usize> {
    let mut events = BTreeMap::new();
    for line in snapshot.lines() {
        if let Some((event, invariant)) = line
            .strip_prefix("+ ")
            .and_then(|line| line.rsplit_once("  spurious"))
            && invariant.trim() == "I5.1"
        {
            *events.entry(event.trim().to_owned()).or_default() += 1;
        }
    }
    events
}

/// What the removal of a ghost's name is heard as: by its directory with a name, by itself without.
/// And whatever is heard later of a ghost that has kept the name of its link.
fn is_of_a_link(event: &str) -> bool {
    let words: Vec<&str> = event.splitn(3, ' ').collect();
    if words
        .get(2)
        .is_some_and(|name| name.starts_with("\".notifreeze-link-"))
    {
        return true;
    }
    match words[1..] {
        ["IN_DELETE", name] => name.starts_with('"'),
        ["IN_ATTRIB"] => true,
        ["IN_ATTRIB", name] => name.starts_with('"'),
        _ => false,
    }
}

#[test]
fn the_spurious_events_of_classic_are_those_that_its_snapshots_name() {
    let engine = EngineSpec::with(Policies::CLASSIC);
    let options = Options {
        snapshot: Snapshot::Ignore,
        ..Options::default()
    };
    let mut n_events = 0;
    for case in cases("ghost-") {
        let report = case::run(&case, &engine, Path::new(NOTIFREEZE), &options);
        if let Verdict::Skip(reason) = &report.verdict {
            eprintln!("{}: skipped: {reason}", case.name);
            continue;
        }
        // Where its name is not to be had, or the queue mattered, the header says what else follows.
        let known = case.scenario.known.iter();
        let has_header = known.into_iter().any(|known| known.engine == engine.name());
        let mut heard: BTreeMap<String, usize> = BTreeMap::new();
        let spurious = report
            .differences
            .iter()
            .filter(|it| it.kind == Kind::Spurious && it.invariant == invariant::SPURIOUS_INOTIFY);
        for difference in spurious {
            let event = difference.restored.as_ref().expect("an event").text.clone();
            assert!(has_header || is_of_a_link(&event), "{}: {event}", case.name);
            *heard.entry(event).or_default() += 1;
            n_events += 1;
        }
        let recorded = gate::recorded(&case, &engine).expect("a snapshot");
        assert_eq!(heard, named(&recorded), "{}", case.name);
    }
    eprintln!("{n_events} spurious events");
    assert!(n_events > 0, "classic made no event, or none was looked at");
}

/// The cut of a subject that has read all its events, by builtin with these policies.
fn cut(queue: Queue, ghosts: Ghosts) -> Option<Verdict> {
    let case = &cases("ghost-queue_read_before_the_cut")[0];
    let engine = EngineSpec::with(Policies { queue, ghosts });
    let report = case::run(case, &engine, Path::new(NOTIFREEZE), &Options::default());
    match report.verdict {
        Verdict::Skip(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
        verdict => Some(verdict),
    }
}

#[test]
fn who_links_ghosts_and_refuses_unread_events_refuses_its_own() {
    let Some(verdict) = cut(Queue::Refuse, Ghosts::Hardlink) else {
        return;
    };
    let reason = verdict.reason().unwrap_or_default();
    assert_eq!(verdict.word(), "fail", "{verdict}");
    assert!(reason.contains("fd 4: 48 bytes unread"), "{reason}");
    let silent = cut(Queue::Refuse, Ghosts::Silent).expect("the other one was not skipped");
    assert_eq!(silent, Verdict::Pass);
}

/// A subject that stands still behind the steps of a plan.
struct Standing {
    child: Child,
    folder: tempfile::TempDir,
}

impl Standing {
    fn start(plan: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("w")).expect("a folder");
        std::fs::write(path("plan"), plan).expect("a plan");
        std::fs::write(path("log"), "").expect("a log");
        let child = Command::new(NOTIFREEZE)
            .arg("subject")
            .args([path("plan"), path("log")])
            .current_dir(path("w"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the subject");
        let standing = Self { child, folder };
        let status = waitpid(standing.pid(), Some(WaitPidFlag::WUNTRACED));
        assert!(matches!(status, Ok(WaitStatus::Stopped(..))), "{status:?}");
        standing
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// `notifreeze dump`, which ends it if it is not refused or told otherwise.
    fn dump(&self, policies: &[&str]) -> Output {
        let folder = self.folder.path();
        Command::new(NOTIFREEZE)
            .arg("dump")
            .arg(self.pid().to_string())
            .arg("--images")
            .arg(folder.join("images"))
            .arg("--path")
            .arg(folder.join("w/dir"))
            .arg("--only-fsnotify")
            .args(policies)
            .output()
            .expect("the program")
    }

    /// Reads its queue, as it would itself: the unread bytes.
    fn read_queue(&self) -> usize {
        let pidfd = inspect::pidfd_open(self.pid()).expect("a pidfd");
        let groups = inspect::groups(self.pid()).expect("its groups");
        let group = inspect::pidfd_getfd(&pidfd, groups[0]).expect("its group");
        cr::queue::drain(group.as_fd()).expect("its queue").len()
    }

    /// What is in its directory.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("w/dir")).expect("the directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const GHOST: &str = "\
# A watched ghost in a watched directory: a dump of groups alone takes no other.
mkdir(\"dir\", 0755)
open(\"dir/a\", O_RDWR|O_CREAT, 0644) = a
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"dir\", IN_CREATE|IN_DELETE) = 1
inotify_add_watch(n, \"dir/a\", IN_ACCESS) = 2
unlink(\"dir/a\")
checkpoint
";

/// What the documentation calls an endless cycle: to refuse a queue with unread events makes some.
#[test]
fn every_refused_dump_makes_the_events_that_refuse_the_next_one() {
    let subject = Standing::start(GHOST);
    assert!(subject.read_queue() > 0, "the ghost's own end");
    for attempt in 1..=3 {
        let output = subject.dump(&["--queue", "refuse", "--ghosts", "hardlink"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "attempt {attempt}: {said}");
        assert!(said.contains("fd 4: 48 bytes unread"), "{said}");
        assert_eq!(subject.names(), [""; 0], "attempt {attempt} left a link");
        // The subject reads what the attempt made, and so is as ready as it can be for the next.
        assert!(subject.read_queue() > 0, "attempt {attempt} was silent");
    }
    let silent = ["--queue", "refuse", "--ghosts", "silent", "--leave-running"];
    let output = subject.dump(&silent);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(subject.read_queue(), 0, "the silent dump was heard");
}
