//! The engine `command`, with CRIU wrapped in two shell lines: the same differences as the engine
//! `criu`, and each way of breaking the contract noticed by name.
//!
//! Runs where the variable `CRIU` names one (`ci/criu` fetches one).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use notifreeze::case::{self, Options, Report};
use notifreeze::engine::{Commands, Criu, EngineSpec};
use notifreeze::suite::{self, Case};
use verify::Verdict;

/// A CRIU that works; none, with a word about it, where there is none.
fn criu() -> Option<Criu> {
    let criu = std::env::var_os("CRIU").map(|_| Criu::from_environment());
    match criu {
        Some(criu) if criu.probe.is_ok() => Some(criu),
        Some(criu) => {
            eprintln!("skipped: {:?}", criu.probe);
            None
        }
        None => {
            eprintln!("skipped: the variable CRIU names none (see ci/criu)");
            None
        }
    }
}

fn run(scenario: &str, engine: &EngineSpec) -> Report {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{scenario}.scn"));
    let case = suite::read(&path).expect("a scenario of the suite");
    let notifreeze = Path::new(env!("CARGO_BIN_EXE_notifreeze"));
    case::run(&case, engine, notifreeze, &Options::default())
}

/// Command lines that do what the engine `criu` does.
fn wrapped(criu: &Criu) -> Commands {
    let program = criu.program.display();
    Commands {
        dump: format!("'{program}' dump --tree {{pid}} --images-dir {{images}} $CRIU_OPTS"),
        restore: format!(
            "'{program}' restore --images-dir {{images}} --restore-detached $CRIU_OPTS"
        ),
    }
}

#[test]
fn two_shell_lines_around_criu_differ_where_criu_does() {
    let Some(criu) = criu() else {
        return;
    };
    let command = EngineSpec::Command(wrapped(&criu));
    let criu = EngineSpec::Criu(criu);
    let sample = Mutex::new(sample().into_iter());
    let next = || sample.lock().expect("no panic at a step").next();
    thread::scope(|scope| {
        for _ in 0..SCENARIOS_AT_A_TIME {
            scope.spawn(|| {
                while let Some(scenario) = next() {
                    assert_same(&scenario, &criu, &command);
                }
            });
        }
    });
}

/// A run mostly waits for the kernel.
const SCENARIOS_AT_A_TIME: usize = 4;

/// Every finding, and of each other kind one scenario in so many.
const ONE_IN: usize = 12;

fn sample() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let (cases, _) = suite::select(&[root], None).expect("the suite");
    let is_race = |case: &Case| case.scenario.known.iter().any(|known| known.races);
    let cases = cases.iter().enumerate().filter(|(index, case)| {
        (case.name.starts_with("criu/") || index % ONE_IN == 0) && !is_race(case)
    });
    cases.map(|(_, case)| case.name.clone()).collect()
}

/// The same differences; or both fail, in the same half.
fn assert_same(scenario: &str, criu: &EngineSpec, command: &EngineSpec) {
    let wanted = run(scenario, criu);
    let seen = run(scenario, command);
    if matches!(wanted.verdict, Verdict::Skip(_)) {
        assert_eq!(seen.verdict, wanted.verdict, "{scenario}");
        return;
    }
    assert!(
        matches!(wanted.verdict, Verdict::Known(_)),
        "{scenario}: {:?}",
        wanted.verdict
    );
    // What is known of CRIU is not known of a command, and CRIU's log declares what it drops.
    assert!(
        matches!(seen.verdict, Verdict::Fail(_)),
        "{scenario}: {:?}",
        seen.verdict
    );
    let lines = |report: &Report| -> BTreeSet<String> {
        let differences = report.differences.iter();
        differences.map(ToString::to_string).collect()
    };
    assert_eq!(lines(&seen), lines(&wanted), "{scenario}");
    assert_eq!(seen.notes, wanted.notes, "{scenario}");
    let half = |report: &Report| {
        let text = report.rendered.clone().unwrap_or_default();
        let halves = [
            "dump failed:",
            "restore failed:",
            "dump command:",
            "restore command:",
        ];
        let place = halves.iter().position(|half| text.starts_with(half));
        place.map(|place| place % 2)
    };
    assert_eq!(half(&seen), half(&wanted), "{scenario}: {:?}", seen.verdict);
}

/// The scenario of every sabotage: one watch, one event after the cut.
const SCENARIO: &str = "criu/mask-oneshot";

/// Changes the command lines, and expects a verdict that says what happened.
fn check(sabotage: impl FnOnce(&mut Commands), wanted: &[&str]) {
    let Some(criu) = criu() else {
        return;
    };
    let mut commands = wrapped(&criu);
    sabotage(&mut commands);
    let report = run(SCENARIO, &EngineSpec::Command(commands));
    let Verdict::Fail(reason) = &report.verdict else {
        panic!("{:?}", report.verdict);
    };
    for words in wanted {
        assert!(reason.contains(words), "{words:?} is not in: {reason}");
    }
}

#[test]
fn a_dump_that_fails_is_told_with_what_it_printed() {
    check(
        |commands| commands.dump = "echo no such luck >&2; exit 3".to_owned(),
        &["dump command: ended with 3", "it printed: no such luck"],
    );
}

#[test]
fn a_dump_that_leaves_the_process_there_is_told() {
    check(
        |commands| commands.dump.push_str(" --leave-stopped"),
        &["dump command: returned 0, but left process 2 (main) in state"],
    );
    check(
        |commands| commands.dump.push_str(" --leave-running"),
        &["dump command: returned 0, but left process 2 (main) in state"],
    );
    check(
        |commands| commands.dump = "true".to_owned(),
        &["dump command: returned 0, but left process 2 (main) in state T"],
    );
    check(
        |commands| commands.dump = "kill -CONT {pid}".to_owned(),
        &["dump command: returned 0, but left process 2 (main)"],
    );
}

#[test]
fn a_dump_that_lets_the_subject_run_on_is_told() {
    // Its log grows, and it parks itself at the next stop.
    let runs_on = "log={images}/../log; size=$(stat -c %s $log); kill -CONT {pid}; \
                   until [ $(stat -c %s $log) -gt $size ]; do :; done; \
                   until grep -q 'State:.T' /proc/{pid}/status; do :; done; ";
    check(
        |commands| commands.dump.insert_str(0, runs_on),
        &["dump command: let the subject run on before it ended"],
    );
}

#[test]
fn an_image_that_is_gone_is_noticed() {
    check(
        |commands| commands.dump.push_str(" && rm {images}/core-*.img"),
        &["restore command: ended with"],
    );
    // CRIU takes a missing table for an empty one, and returns 0.
    check(
        |commands| commands.dump.push_str(" && rm {images}/fdinfo-*.img"),
        &["fd 3, inotify", "lost, I1.1"],
    );
}

#[test]
fn a_restore_that_restores_nothing_is_told() {
    check(
        |commands| commands.restore = "true".to_owned(),
        &["restore command: restore returned 0, but process 2 is not there"],
    );
}

#[test]
fn a_restore_that_lets_the_subject_run_on_is_told() {
    check(
        |commands| commands.restore.push_str(" && kill -CONT {pid}"),
        &["restore command: restore let the subject run on"],
    );
}

/// Long enough to be seen, shorter than what counts as a hang.
const DELAY: &str = "sleep 1 && ";

#[test]
fn a_delay_of_either_half_changes_nothing() {
    let Some(criu) = criu() else {
        return;
    };
    let wanted = run(SCENARIO, &EngineSpec::Command(wrapped(&criu)));
    let delays: [fn(&mut Commands); 3] = [
        |commands| commands.dump.insert_str(0, DELAY),
        |commands| commands.restore.insert_str(0, DELAY),
        // It returns late: the subject waits, stopped, and is not taken for one that ran on.
        |commands| commands.restore.push_str(" && sleep 1"),
    ];
    for delay in delays {
        let mut commands = wrapped(&criu);
        delay(&mut commands);
        let seen = run(SCENARIO, &EngineSpec::Command(commands.clone()));
        assert_eq!(seen.verdict, wanted.verdict, "{commands:?}");
        assert_eq!(seen.rendered, wanted.rendered, "{commands:?}");
    }
}

#[test]
fn a_dump_that_takes_for_ever_is_ended() {
    check(
        |commands| commands.dump = "sleep 600".to_owned(),
        &["dump command: no end: it waits, and nothing runs"],
    );
}

#[test]
fn a_restore_that_fails_is_told_with_what_it_printed() {
    check(
        |commands| commands.restore = "echo half a tree; kill -9 $$".to_owned(),
        &[
            "restore command: was killed by SIGKILL",
            "it printed: half a tree",
        ],
    );
}

#[test]
fn a_restore_that_takes_for_ever_is_ended() {
    check(
        |commands| commands.restore = "sleep 600".to_owned(),
        &["restore command: no end: it waits, and nothing runs"],
    );
}
