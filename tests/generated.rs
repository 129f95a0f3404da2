//! Scenarios made by chance hold under builtin, and the kernel does in them what the model says.
//!
//! `NOTIFREEZE_SEED=N` gives a seed back that a failure printed; `NOTIFREEZE_STRICT=1` turns a skip
//! into a failure.

use std::path::Path;

use notifreeze::case::LIMIT_MS;
use notifreeze::engine::EngineSpec;
use notifreeze::generate::ledger::Ledger;
use notifreeze::generate::{self, Plan};

/// The seed of every run that names none, so that a commit does not fail by chance; other seeds are
/// for the night (`ci/nightly`).
const SEED: u64 = 1;
const N_CASES: usize = 200;

#[test]
fn generated_scenarios_go_on_as_before() {
    let seed = std::env::var("NOTIFREEZE_SEED");
    let seed = seed.map_or(SEED, |seed| seed.parse().expect("a seed is a number"));
    let notifreeze = Path::new(env!("CARGO_BIN_EXE_notifreeze"));
    let plan = Plan {
        seed,
        n_cases: N_CASES,
        shard: (0, 1),
        engine: EngineSpec::Builtin,
        n_jobs: notifreeze::sandbox::n_jobs(),
        limit_ms: LIMIT_MS,
        ledger: Ledger::default(),
        n_failures: 1,
    };
    let outcome = generate::run(&plan, notifreeze, || ());
    if let Some(failure) = outcome.failures.first() {
        panic!(
            "seed {seed}, case {}: {}\n{}",
            failure.case,
            failure.report.details(),
            scenario::print(&failure.scenario)
        );
    }
    assert_eq!(outcome.n_run, N_CASES);
    if let Some(reason) = &outcome.skip_reason {
        let is_strict = std::env::var_os("NOTIFREEZE_STRICT").is_some_and(|value| value == "1");
        assert!(!is_strict, "{} skipped: {reason}", outcome.n_skipped);
        eprintln!("skipped {} of {N_CASES} cases: {reason}", outcome.n_skipped);
    }
}
