//! `notifreeze generate`.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use fsnotify::counted;
use indicatif::ProgressBar;

use super::CriuArgs;
use crate::case::{LIMIT_MS, Report};
use crate::engine::EngineSpec;
use crate::generate::ledger::Ledger;
use crate::generate::{self, Failure, Outcome, Plan};
use crate::report::Results;
use crate::suite::{self, Case};

/// What to make.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the numbers come from; default: the clock. Printed, so that it can be given back.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 200)]
    cases: usize,
    /// How to cut; `control` holds the kernel against the model and cuts nothing.
    #[arg(long, short, value_name = "ENGINE", default_value = "builtin", value_parser = EngineSpec::parse)]
    engine: EngineSpec,
    #[command(flatten)]
    criu: CriuArgs,
    /// Scenarios, or folders of them, that are known to differ under the engine: what differs as they
    /// do is counted and is no failure.
    #[arg(long, value_name = "SCENARIO", num_args = 1..)]
    known: Vec<PathBuf>,
    /// End at the N-th failure. With `--known` each is of another class.
    #[arg(long, value_name = "N", default_value_t = 1)]
    failures: usize,
    /// Only every N-th case, from the I-th on (from 1).
    #[arg(long, value_name = "I/N", default_value = "1/1", value_parser = parse_shard)]
    shard: (usize, usize),
    /// Only this case: what repeats a failure before it was made small.
    #[arg(long, value_name = "N", conflicts_with_all = ["cases", "shard"])]
    case: Option<usize>,
    /// Cases at a time; default: two a core.
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
    /// Print the cases instead of running them.
    #[arg(long)]
    print: bool,
    /// Write a case that fails to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a report of the case that fails, if one does, and of how many did not. The ending says
    /// the form: .html, .xml (JUnit), .tap, .json.
    #[arg(long, value_name = "FILE", value_parser = crate::report::path)]
    report: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = args
        .seed
        .unwrap_or_else(|| clock.map_or(0, |now| now.as_secs()));
    // A single case is a shard of its own.
    let (shard, n_cases) = match args.case {
        Some(case) => ((case, case + 1), case + 1),
        None => (args.shard, args.cases),
    };
    if args.print {
        for index in (shard.0..n_cases).step_by(shard.1) {
            anstream::println!("{}", scenario::print(&generate::scenario(seed, index)));
        }
        return Ok(crate::EXIT_OK);
    }
    let notifreeze = std::env::current_exe().map_err(|error| error.to_string())?;
    let engine = args.criu.chosen(&args.engine);
    let (known, unreadable) = match args.known.as_slice() {
        [] => (Vec::new(), Vec::new()),
        known => suite::select(known, None)?,
    };
    if super::report_unreadable(&unreadable) != crate::EXIT_OK {
        return Ok(crate::EXIT_USAGE);
    }
    let plan = Plan {
        seed,
        n_cases,
        shard,
        ledger: Ledger::learn(&known, &engine, &notifreeze)?,
        n_failures: args.failures.max(1),
        engine,
        n_jobs: args.jobs.unwrap_or_else(crate::sandbox::n_jobs).max(1),
        limit_ms: LIMIT_MS,
    };
    anstream::println!("seed {seed}");
    if !plan.ledger.is_empty() {
        let classes = counted(plan.ledger.len(), "class");
        anstream::println!("{classes} of known differences");
    }
    let bar = ProgressBar::new((n_cases.saturating_sub(shard.0)).div_ceil(shard.1) as u64);
    let outcome = generate::run(&plan, &notifreeze, || bar.inc(1));
    bar.finish_and_clear();
    anstream::println!("{}", summary(&outcome, &plan));
    let mut code = crate::EXIT_OK;
    for (index, failure) in outcome.failures.iter().enumerate() {
        code = code.max(report(failure, &plan, out(args, index))?);
    }
    super::publish(&args.report, &results(&outcome, &plan, args))?;
    Ok(code)
}

/// Where the scenario of a failure is written, if that is wanted.
fn out(args: &Args, index: usize) -> Option<PathBuf> {
    let path = args.out.as_ref()?;
    Some(match index {
        0 => path.clone(),
        _ => path.with_extension(format!("{}.scn", index + 1)),
    })
}

fn summary(outcome: &Outcome, plan: &Plan) -> String {
    let seconds = outcome.wall.as_secs_f64();
    let rate = f64::from(u32::try_from(outcome.n_run).unwrap_or(u32::MAX)) / seconds.max(0.001);
    let mut summary = format!(
        "{} under {} in {seconds:.1} s, {rate:.0} a second, {} failed",
        counted(outcome.n_run, "case"),
        plan.engine,
        outcome.failures.len()
    );
    if outcome.n_known > 0 {
        summary += &format!(", {} differ as is known", outcome.n_known);
    }
    if let Some(reason) = &outcome.skip_reason {
        summary += &format!(", {} skipped: {reason}", outcome.n_skipped);
    }
    for (name, n_cases) in &outcome.known {
        summary += &format!("\n{n_cases:>6} {name}");
    }
    summary
}

/// Only the case that failed is told of; the others are counted.
fn results(outcome: &Outcome, plan: &Plan, args: &Args) -> Results {
    let told = outcome.failures.iter().enumerate().map(|(index, failure)| {
        let name = format!("generated/seed_{}-case_{}", plan.seed, failure.case);
        let report = Report {
            name: name.clone(),
            ..failure.report.clone()
        };
        let path = out(args, index).unwrap_or_else(|| PathBuf::from(format!("{name}.scn")));
        let scenario = failure.scenario.clone();
        let case = Case {
            name,
            path,
            scenario,
        };
        (case, report)
    });
    let told: Vec<(Case, Report)> = told.collect();
    let pairs = told.iter().map(|(case, report)| (case, report));
    let mut results = Results::of(pairs, outcome.wall);
    results.counts.pass += outcome.n_passed;
    results.counts.known += outcome.n_declared + outcome.n_known;
    results.counts.skip += outcome.n_skipped;
    if args.out.is_none() {
        for (case, failure) in results.cases.iter_mut().zip(&outcome.failures) {
            case.repeat = from_the_start(failure, plan);
        }
    }
    results
}

/// The command that makes and runs the case once more, before it was made small.
fn from_the_start(failure: &Failure, plan: &Plan) -> String {
    format!(
        "notifreeze generate --seed {} --case {} {}",
        plan.seed,
        failure.case,
        plan.engine.options()
    )
}

fn report(failure: &Failure, plan: &Plan, out: Option<PathBuf>) -> Result<u8, String> {
    let text = scenario::print(&failure.scenario);
    anstream::println!("\n{}", failure.report.details());
    if let Some(class) = &failure.class {
        anstream::println!("\nnot known: {class}");
    }
    anstream::println!("\nthe smallest scenario that was found:\n\n{text}");
    if let Some(path) = &out {
        std::fs::write(path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
        let options = plan.engine.options();
        anstream::println!("repeat: notifreeze run {} {options}", path.display());
    }
    anstream::println!("from the start: {}", from_the_start(failure, plan));
    Ok(failure.report.verdict.exit_code())
}

/// Reads `1/4` as the first of four: offset and stride.
fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let wrong = || format!("{text:?} is no shard such as 1/4");
    let (index, count) = text.split_once('/').ok_or_else(wrong)?;
    let (index, count): (usize, usize) = (
        index.parse().map_err(|_| wrong())?,
        count.parse().map_err(|_| wrong())?,
    );
    if index == 0 || index > count {
        return Err(wrong());
    }
    Ok((index - 1, count))
}
