//! One test a scenario and engine, named `builtin::inotify::ghost_two_files`.
//!
//! `NOTIFREEZE_STRICT=1` turns skips into failures. A difference from a snapshot is written as
//! insta writes it, so `cargo insta review` shows it.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use notifreeze::case::{self, Report};
use notifreeze::engine::{Criu, EngineSpec, Policies};
use notifreeze::gate;
use notifreeze::sandbox;
use notifreeze::suite::{self, Case};
use verify::Verdict;

/// Builtin and classic everywhere; CRIU where the variable `CRIU` names one (`ci/criu` fetches one).
fn engines() -> Vec<EngineSpec> {
    let classic = EngineSpec::with(Policies::CLASSIC);
    let mut engines = vec![EngineSpec::Builtin, classic];
    if std::env::var_os("CRIU").is_some() {
        let criu = EngineSpec::Criu(Criu::from_environment());
        if let Some(reason) = criu.lacks() {
            eprintln!("warning: every test under criu is skipped: {reason}");
        }
        engines.push(criu);
    } else {
        eprintln!("note: no tests under criu: the variable CRIU names none (see ci/criu)");
    }
    engines
}

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert_with(sandbox::n_jobs);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let notifreeze = Path::new(env!("CARGO_BIN_EXE_notifreeze"));
    let strict = std::env::var_os("NOTIFREEZE_STRICT").is_some_and(|value| value == "1");
    let (cases, unreadable) =
        suite::select(&[root.join("scenarios")], None).expect("the scenarios can be listed");
    assert!(!cases.is_empty(), "no scenario found");
    let mut trials: Vec<Trial> = Vec::new();
    for file in unreadable {
        let path = file.path.display().to_string();
        trials.push(Trial::test(format!("parse::{path}"), move || {
            Err(Failed::from(format!(
                "{path} does not parse: notifreeze check {path}"
            )))
        }));
    }
    for engine in engines() {
        for case in &cases {
            trials.push(trial(case.clone(), engine.clone(), notifreeze, strict));
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

fn trial(case: Case, engine: EngineSpec, notifreeze: &'static Path, strict: bool) -> Trial {
    let name = format!(
        "{}::{}",
        engine.name(),
        case.name.replace('/', "::").replace('-', "_")
    );
    // nextest shows a test as skipped only if it is ignored when tests are listed.
    let lacking = case::lacks(&case);
    let ignored = lacking.is_some() && !strict && std::env::var_os("NEXTEST").is_some();
    Trial::ignorable_test(name, move || {
        let report = case::run(&case, &engine, notifreeze, &case::Options::default());
        complete(&case, &engine, &report, strict)
    })
    .with_ignored_flag(ignored)
}

fn complete(
    case: &Case,
    engine: &EngineSpec,
    report: &Report,
    strict: bool,
) -> Result<Completion, Failed> {
    match &report.verdict {
        Verdict::Pass | Verdict::Known(_) => Ok(Completion::Completed),
        Verdict::Skip(reason) if !strict => Ok(Completion::ignored_with(reason.clone())),
        verdict => {
            let rendered = report.rendered.as_ref();
            let offered = rendered.map_or(Ok(()), |text| gate::offer(case, engine, text));
            // What differs matters more than that it could not be put down.
            let unwritten = offered
                .map_err(|error| format!("\nthe new snapshot cannot be written: {error}"))
                .err()
                .unwrap_or_default();
            let text = format!("{verdict}\n{}{unwritten}", report.details());
            Err(Failed::from(text))
        }
    }
}
