//! A dump is heard by nobody: under the engine `copy`, which dumps a subject that runs on, every
//! scenario goes on as if nothing had been, and a watcher of all of it has nothing to tell.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use notifreeze::case::{self, Options, Report};
use notifreeze::engine::EngineSpec;
use notifreeze::sandbox;
use notifreeze::suite::{self, Case};
use scenario::Fact;
use verify::Verdict;

/// What a dump of a subject that runs on cannot keep, and nothing can say beforehand.
const KNOWN: &[(&str, &str)] = &[(
    "inotify/cursor-at_busy_number_freed",
    "the next number is found by making a watch, which passes over numbers in use",
)];

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert_with(sandbox::n_jobs);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (cases, _) =
        suite::select(&[root.join("scenarios")], None).expect("the scenarios can be listed");
    assert!(cases.len() > 300, "too few scenarios to say something");
    let trials = cases.into_iter().map(trial).collect();
    libtest_mimic::run(&args, trials).exit_code()
}

fn trial(case: Case) -> Trial {
    let name = case.name.replace('/', "::").replace('-', "_");
    Trial::ignorable_test(name, move || {
        let notifreeze = Path::new(env!("CARGO_BIN_EXE_notifreeze"));
        let report = case::run(&case, &EngineSpec::Copy, notifreeze, &Options::default());
        check(&case, &report)
    })
}

fn check(case: &Case, report: &Report) -> Result<Completion, Failed> {
    let known = KNOWN.iter().find(|(name, _)| *name == case.name);
    match (&report.verdict, known) {
        (Verdict::Skip(reason), _) => return Ok(Completion::ignored_with(reason.clone())),
        // Then the subject was left as it was, and there is nothing to compare.
        (_, None) if report.refused => return Ok(Completion::Completed),
        (Verdict::Pass | Verdict::Known(_), None) | (Verdict::Fail(_), Some(_)) => {}
        (verdict, _) => return Err(format!("{verdict}\n{}", report.details()).into()),
    }
    let restored = report.restored.as_ref().ok_or("no transcript")?;
    let heard: Vec<String> = restored
        .observations
        .iter()
        .flat_map(|observation| &observation.facts)
        .filter(|fact| matches!(fact, Fact::Bystander(_)))
        .map(|fact| format!("{fact:?}"))
        .collect();
    if heard.is_empty() {
        Ok(Completion::Completed)
    } else {
        Err(format!("a bystander heard {heard:#?}").into())
    }
}
