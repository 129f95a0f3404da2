//! The command `dump` is killed at one in a few of its system calls, from its first to its last. Behind
//! `recover` the process runs, and has what it had; or its image is complete, and it is gone.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::NOTIFREEZE;
use crate::subject::{Subject, is_permitted};
use crate::trace::{Ended, Fatal, dump};

/// Of how many calls one is killed at. Those that fill a queue are left out.
pub(crate) const SAMPLE: usize = 23;

/// What a dump leaves that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    RunsOn,
    Ends,
    Parks,
}

fn everywhere(more: &[&str], fatal: Fatal, done: Done) {
    if !is_permitted() {
        return;
    }
    let (mut n_images, mut n_whole) = (0, 0);
    for n in (0..).step_by(SAMPLE) {
        let subject = Subject::start();
        let before = subject.state().expect("a subject");
        let (is_reached, ended) = dump(&subject, more, (n, fatal));
        let at = format!("{more:?}: {fatal:?} at call {n}: {ended:?}");
        let expected = match fatal {
            _ if !is_reached => ended == Ended::Exited(0),
            Fatal::Kill => ended == Ended::By(Signal::SIGKILL),
            // Too late to be heard, or in time to end cleanly.
            Fatal::Interrupt => matches!(ended, Ended::By(Signal::SIGINT) | Ended::Exited(0)),
            Fatal::SubjectEnds | Fatal::Rival(_) => unreachable!("other tests"),
        };
        assert!(expected, "{at}");
        if fatal == Fatal::Kill && is_reached {
            // The next dump to the same place does what `recover` does.
            let again = (done == Done::RunsOn && n / SAMPLE % 2 == 1)
                .then(|| dump(&subject, more, (usize::MAX, Fatal::Kill)));
            match again {
                Some((_, ended)) => assert_eq!(ended, Ended::Exited(0), "{at}: the next dump"),
                None => subject
                    .recover()
                    .unwrap_or_else(|error| panic!("{at}: {error}")),
            }
        }
        let left = subject.left();
        let has_image = left == ["image.nf"];
        assert!(has_image || left.is_empty(), "{at}: {left:?}");
        if has_image {
            cr::Image::read(&subject.images().join("image.nf"))
                .unwrap_or_else(|error| panic!("{at}: {error}"));
        }
        let has_holder = !subject.holders().is_empty();
        assert_eq!(has_holder, has_image && done == Done::Parks, "{at}: holder");
        match subject.state() {
            Some(state) => {
                assert_eq!(state, before, "{at}");
                n_whole += 1;
            }
            None => {
                assert!(has_image && done != Done::RunsOn, "{at}: it is gone");
                n_images += 1;
            }
        }
        if !is_reached {
            assert!(
                has_image && (done == Done::RunsOn) == (n_images == 0),
                "{at}"
            );
            break;
        }
    }
    eprintln!("{more:?}: {n_whole} whole, {n_images} in an image");
    assert!(n_whole > 100 / SAMPLE, "{n_whole} whole");
}

#[test]
fn a_dump_may_be_killed_anywhere() {
    everywhere(&[], Fatal::Kill, Done::Ends);
}

#[test]
fn a_dump_that_lets_the_process_run_on_may_be_killed_anywhere() {
    everywhere(&["--leave-running"], Fatal::Kill, Done::RunsOn);
}

#[test]
fn who_parks_may_be_killed_anywhere() {
    everywhere(&["--park"], Fatal::Kill, Done::Parks);
}

#[test]
fn a_dump_may_be_interrupted_anywhere() {
    everywhere(&[], Fatal::Interrupt, Done::Ends);
}

#[test]
fn a_dump_is_not_undone_by_who_does_not_listen() {
    if !is_permitted() {
        return;
    }
    let mut subject = Subject::start();
    let full = || {
        Stdio::from(
            fs::File::options()
                .write(true)
                .open("/dev/full")
                .expect("it"),
        )
    };
    let status = Command::new(NOTIFREEZE)
        .args([
            "dump",
            &subject.pid().to_string(),
            "--only-fsnotify",
            "--images",
        ])
        .arg(subject.images())
        .stdout(full())
        .stderr(full())
        .status()
        .expect("a dump");
    assert!(status.success(), "{status:?}");
    assert_eq!(subject.left(), ["image.nf"]);
    let ended = subject.child.wait().expect("its end");
    assert_eq!(ended.signal(), Some(Signal::SIGKILL as i32));
}
