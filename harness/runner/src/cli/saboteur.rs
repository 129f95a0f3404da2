//! `notifreeze saboteur`: the suite against every planted defect.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use fsnotify::counted;
use indicatif::{ProgressBar, ProgressStyle};
use scenario::{Scenario, Transcript};
use verify::Verdict;

use super::Selection;
use crate::case::{self, Options, Report, Snapshot};
use crate::engine::{Defect, EngineSpec};
use crate::report::{self, Results};
use crate::suite::{self, Case};

/// How long a run under a defect may hang. Some defects do hang, each in two runs; without one the
/// longest scenario takes a hundredth of this.
const LIMIT_MS: u64 = 20_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Only defects whose name contains this.
    #[arg(long, value_name = "TEXT")]
    defect: Option<String>,
    /// Write a report, a case for each defect: it passes if some scenario catches the defect, and
    /// shows by what. The ending says the form: .html, .xml (JUnit), .tap, .json.
    #[arg(long, value_name = "FILE", value_parser = report::path)]
    report: Vec<PathBuf>,
}

/// A scenario that builtin gets right, and what control yields.
struct Usable<'a> {
    case: &'a Case,
    control: Transcript,
}

/// Which scenario catches a defect, and by what.
struct Caught<'a> {
    case: &'a Case,
    report: Report,
}

impl Caught<'_> {
    fn how(&self) -> &str {
        let reason = self.report.verdict.reason().unwrap_or_default();
        reason.lines().next().unwrap_or_default()
    }
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let Selection { scenarios, filter } = &args.selection;
    let (cases, unreadable) = suite::select(scenarios, filter.as_deref())?;
    let notifreeze = std::env::current_exe().map_err(|error| error.to_string())?;
    let defects: Vec<Defect> = Defect::all()
        .filter(|defect| {
            let wanted = args.defect.as_deref().unwrap_or_default();
            defect.name().contains(wanted)
        })
        .collect();
    let options = Options {
        snapshot: Snapshot::Ignore,
        ..Options::default()
    };
    let started = Instant::now();
    let right = in_parallel("scenarios without a defect", &cases, |case| {
        usable(case, &notifreeze, &options)
    });
    let usable: Vec<Usable> = right.into_iter().flatten().collect();
    let options = Options {
        limit_ms: LIMIT_MS,
        ..options
    };
    let caught = in_parallel("defects", &defects, |defect| {
        catch(*defect, &usable, &notifreeze, &options)
    });
    anstream::println!("{}", table(&defects, &caught));
    let n_caught = caught.iter().flatten().count();
    anstream::println!(
        "{n_caught} of {} caught, by {} that builtin gets right",
        counted(defects.len(), "defect"),
        counted(usable.len(), "scenario")
    );
    super::publish(
        &args.report,
        &results(&defects, &caught, scenarios, started),
    )?;
    let code = if n_caught == defects.len() {
        crate::EXIT_OK
    } else {
        crate::EXIT_FAIL
    };
    Ok(super::report_unreadable(&unreadable).max(code))
}

/// A scenario that is not right without a defect cannot show one. Nor can one whose difference a
/// header excuses: the header speaks of builtin, and excuses nothing under a saboteur.
fn usable<'a>(case: &'a Case, notifreeze: &Path, options: &Options) -> Option<Usable<'a>> {
    let engine = EngineSpec::Builtin;
    let excused = case
        .scenario
        .known
        .iter()
        .any(|known| engine.is_meant(known));
    let report = (!excused).then(|| case::run(case, &engine, notifreeze, options))?;
    let control = report.control?;
    matches!(report.verdict, Verdict::Pass | Verdict::Known(_)).then_some(Usable { case, control })
}

/// The first scenario that is judged `fail` under the defect, twice: once may have been bad luck.
fn catch<'a>(
    defect: Defect,
    usable: &[Usable<'a>],
    notifreeze: &Path,
    options: &Options,
) -> Option<Caught<'a>> {
    usable.iter().find_map(|Usable { case, control }| {
        let engine = EngineSpec::Saboteur(defect);
        let run = || {
            let report = case::against(case, control.clone(), &engine, notifreeze, options);
            matches!(report.verdict, Verdict::Fail(_)).then_some(report)
        };
        let report = run().and_then(|_| run())?;
        Some(Caught { case, report })
    })
}

/// For a report: a defect that is caught is right.
fn results(
    defects: &[Defect],
    caught: &[Option<Caught>],
    scenarios: &[PathBuf],
    started: Instant,
) -> Results {
    let told = defects.iter().zip(caught).map(|(defect, caught)| {
        let name = format!("saboteur/{}", defect.name());
        match caught {
            Some(Caught { case, report }) => {
                let report = Report {
                    name,
                    verdict: Verdict::Pass,
                    wall: Duration::from_micros(report.times.total_us),
                    ..report.clone()
                };
                ((*case).clone(), report)
            }
            None => {
                let case = every(scenarios, name, defect);
                let nothing = Verdict::Fail("no scenario catches it".to_owned());
                let report = Report::new(&case, &EngineSpec::Saboteur(*defect), nothing);
                (case, report)
            }
        }
    });
    let told: Vec<(Case, Report)> = told.collect();
    let pairs = told.iter().map(|(case, report)| (case, report));
    Results::of(pairs, started.elapsed())
}

/// All scenarios as one case: what nothing catches is said of none of them.
fn every(scenarios: &[PathBuf], name: String, defect: &Defect) -> Case {
    let paths: Vec<_> = scenarios
        .iter()
        .map(|path| path.to_string_lossy())
        .collect();
    Case {
        name,
        path: PathBuf::from(paths.join(" ")),
        scenario: Scenario {
            summary: vec![format!("It is noticed that {}.", defect.what())],
            requires: Vec::new(),
            known: Vec::new(),
            criu_opts: Vec::new(),
            steps: Vec::new(),
            tail: Vec::new(),
        },
    }
}

fn table(defects: &[Defect], caught: &[Option<Caught>]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header([
        "defect",
        "what is wrong",
        "caught first by",
        "as",
    ]);
    for (defect, caught) in defects.iter().zip(caught) {
        let (scenario, how) = match caught {
            Some(caught) => (caught.case.name.as_str(), caught.how()),
            None => ("nothing", ""),
        };
        table.add_row([defect.name(), defect.what(), scenario, how]);
    }
    table
}

/// Shows progress and maps on as many threads as there are jobs; results in the order of the items.
fn in_parallel<'a, T: Sync, R: Send>(
    what: &'static str,
    items: &'a [T],
    work: impl Fn(&'a T) -> R + Sync,
) -> Vec<R> {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a fixed template");
    let bar = ProgressBar::new(items.len() as u64)
        .with_style(style)
        .with_message(what);
    let n_threads = crate::sandbox::n_jobs();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else {
                        return;
                    };
                    let result = work(item);
                    bar.inc(1);
                    let mut done = done.lock().expect("no thread panics while it holds this");
                    done.push((index, result));
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().expect("no thread panicked");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
