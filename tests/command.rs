//! The engine `command`, with CRIU wrapped in two shell lines: the same differences as the engine
//! `criu`, and each way of breaking the contract noticed by name.
//!
//! Runs where the variable `CRIU` names one (`ci/criu` fetches one).

use std::path::Path;

use notifreeze::case::{self, Options, Report};
use notifreeze::engine::{Commands, Criu, EngineSpec};
use notifreeze::suite;
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
        dump: format!("'{program}' dump --tree {{pid}} --images-dir {{images}}"),
        restore: format!("'{program}' restore --images-dir {{images}} --restore-detached"),
    }
}

#[test]
fn two_shell_lines_around_criu_differ_where_criu_does() {
    let Some(criu) = criu() else {
        return;
    };
    let command = EngineSpec::Command(wrapped(&criu));
    let criu = EngineSpec::Criu(criu);
    for scenario in [
        "criu/mask-oneshot",
        "criu/queue-dropped",
        "criu/wd-used_again",
        "criu/ghost-file_heard_by_watched_directory",
    ] {
        let wanted = run(scenario, &criu);
        let seen = run(scenario, &command);
        let lines = |report: &Report| -> Vec<String> {
            let differences = report.differences.iter();
            differences.map(ToString::to_string).collect()
        };
        assert!(
            !lines(&wanted).is_empty(),
            "{scenario}: {:?}",
            wanted.verdict
        );
        assert_eq!(lines(&seen), lines(&wanted), "{scenario}");
        assert_eq!(seen.notes, wanted.notes, "{scenario}");
    }
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
        |commands| commands.dump = "true".to_owned(),
        &["dump command: returned 0, but left process 2 (main) in state T"],
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
