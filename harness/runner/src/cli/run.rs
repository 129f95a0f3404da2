//! `notifreeze run`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use fsnotify::counted;
use indicatif::{ProgressBar, ProgressStyle};
use verify::Verdict;

use super::{CriuArgs, Selection};
use crate::case::{self, Options, Report, Snapshot};
use crate::cuts::{self, CutAt, Cuts};
use crate::engine::{Commands, EngineSpec, Ghosts, Policies, Queue};
use crate::gate;
use crate::report::{self, Results};
use crate::sandbox::{self, Filesystem};
use crate::suite::{self, Case};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 if nothing is but pass, known and skip; 1 if something is fail, or fixed, so that its
declaration has to go; 2 if the command or a scenario is wrong; 3 if something is broken: we could
not tell.

  notifreeze run --engine criu --criu-bin /path/to/criu --report criu.html
  notifreeze run x.scn --cut-at all")]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// How to cut: control, builtin, copy, classic, criu, command, saboteur=DEFECT.
    #[arg(long, short, value_name = "ENGINE", default_value = "builtin", value_parser = EngineSpec::parse)]
    engine: EngineSpec,
    #[command(flatten)]
    criu: CriuArgs,
    /// Of the engine `command`: the shell command that dumps and kills the process tree of `{pid}`
    /// into the folder `{images}`.
    #[arg(long, value_name = "COMMAND", required_if_eq("engine", "command"))]
    dump: Option<String>,
    /// Of the engine `command`: the shell command that restores the tree from `{images}`, stopped,
    /// with the same pids, and returns.
    #[arg(long, value_name = "COMMAND", required_if_eq("engine", "command"))]
    restore: Option<String>,
    /// Of builtin: what to do about unread events.
    #[arg(long, value_enum)]
    queue: Option<Queue>,
    /// Of builtin: how to keep open files without a name.
    #[arg(long, value_enum)]
    ghosts: Option<Ghosts>,
    /// Scenarios at a time; default: two a core, since a run mostly waits for the kernel.
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
    /// What worlds live on, instead of what a scenario says or tmpfs. Snapshots are of that: elsewhere
    /// the control run on the same filesystem alone is what a cut is held against.
    #[arg(long = "fs", value_name = "FS", value_enum, conflicts_with = "accept")]
    filesystem: Option<Filesystem>,
    /// Keep images and logs of every cut below this folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Give up a run that takes longer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = case::LIMIT_MS / 1000)]
    limit: u64,
    /// Where to cut instead of where the scenario says: `all` places one after the other, a `random`
    /// one, or behind this many steps.
    #[arg(long, value_name = "PLACE", value_parser = CutAt::parse)]
    cut_at: Option<CutAt>,
    /// Cuts in a row at each place.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    cycles: u16,
    /// Chooses the random place.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Record what is seen as the snapshots, instead of comparing with them.
    #[arg(long, conflicts_with_all = ["cut_at", "cycles"])]
    accept: bool,
    /// Show the transcript of every scenario, not only of those that fail. A single scenario is
    /// always shown.
    #[arg(long)]
    show: bool,
    /// Write a report, of the form that the ending says: .html, .xml (JUnit), .tap, .json.
    #[arg(long, value_name = "FILE", value_parser = report::path)]
    report: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let Selection { scenarios, filter } = &args.selection;
    let (cases, unreadable) = suite::select(scenarios, filter.as_deref())?;
    let notifreeze = std::env::current_exe().map_err(|error| error.to_string())?;
    if cases.is_empty() && unreadable.is_empty() {
        return Err("no scenario matches".to_owned());
    }
    let options = Options {
        limit_ms: args.limit * 1000,
        keep: args.keep.clone(),
        filesystem: args.filesystem,
        snapshot: if args.accept || args.filesystem.is_some() {
            Snapshot::Ignore
        } else {
            Snapshot::Compare
        },
    };
    let cuts = Cuts {
        at: args.cut_at.unwrap_or(CutAt::Written),
        n_cycles: args.cycles.into(),
        seed: args.seed,
    };
    let started = Instant::now();
    let engine = engine(args)?;
    if let Some(reason) = engine.lacks() {
        anstream::eprintln!(
            "warning: the engine {engine} cannot work here, every scenario is skipped: {reason}"
        );
    }
    let reports = run_all(&cases, (args.jobs, &cuts), &engine, &notifreeze, &options);
    let wall = started.elapsed();
    if args.accept {
        for (case, report) in cases.iter().zip(&reports) {
            accept(case, report)?;
        }
    }
    anstream::println!("{}", table(&reports).trim_fmt());
    for (case, report) in cases.iter().zip(&reports) {
        let bad = matches!(
            report.verdict,
            Verdict::Fail(_) | Verdict::Fixed(_) | Verdict::Broken(_)
        );
        if bad || args.show || cases.len() == 1 {
            show(case, report, args.filesystem, &cuts);
        }
    }
    let n_places = cases.iter().map(|case| cuts::n_places(case, &cuts)).sum();
    let places = (cuts.at != CutAt::Written).then_some(n_places);
    anstream::println!("{}", summary(&reports, places, &engine, wall));
    let mut results = Results::of(cases.iter().zip(&reports), wall);
    for case in &mut results.cases {
        case.repeat += &more_options(args.filesystem, &cuts);
    }
    super::publish(&args.report, &results)?;
    let worst = reports
        .iter()
        .map(|report| report.verdict.exit_code())
        .max();
    Ok(super::report_unreadable(&unreadable).max(worst.unwrap_or(crate::EXIT_OK)))
}

/// The engine with the settings that options of their own give.
fn engine(args: &Args) -> Result<EngineSpec, String> {
    let policies = Policies {
        queue: args.queue.unwrap_or(Policies::BUILTIN.queue),
        ghosts: args.ghosts.unwrap_or(Policies::BUILTIN.ghosts),
    };
    if args.engine == EngineSpec::Builtin {
        return Ok(EngineSpec::with(policies));
    }
    if args.queue.is_some() || args.ghosts.is_some() {
        return Err("--queue and --ghosts are choices of the engine builtin".to_owned());
    }
    Ok(match (&args.engine, &args.dump, &args.restore) {
        (EngineSpec::Command(_), Some(dump), Some(restore)) => EngineSpec::Command(Commands {
            dump: dump.clone(),
            restore: restore.clone(),
        }),
        (engine, ..) => args.criu.chosen(engine),
    })
}

/// Runs the cases on as many threads as there are jobs; reports in the order of the cases.
fn run_all(
    cases: &[Case],
    (n_jobs, cuts): (Option<usize>, &Cuts),
    engine: &EngineSpec,
    notifreeze: &Path,
    options: &Options,
) -> Vec<Report> {
    let n_jobs = n_jobs
        .unwrap_or_else(sandbox::n_jobs)
        .clamp(1, cases.len().max(1));
    let bar = ProgressBar::new(cases.len() as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}").expect("a fixed template"),
    );
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Report>>> = Mutex::new(vec![None; cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..n_jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else {
                        return;
                    };
                    bar.set_message(case.name.clone());
                    let report = cuts::run(case, cuts, engine, notifreeze, options);
                    done.lock().expect("no thread panics while it holds this")[index] =
                        Some(report);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let done = done.into_inner().expect("no thread panicked");
    done.into_iter()
        .map(|report| report.expect("every case was run"))
        .collect()
}

fn accept(case: &Case, report: &Report) -> Result<(), String> {
    let Some(rendered) = &report.rendered else {
        return Ok(());
    };
    gate::accept(case, &report.engine, rendered).map_err(|error| format!("{}: {error}", case.name))
}

fn table(reports: &[Report]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["verdict", "scenario", "ms", "reason"]);
    for report in reports {
        table.add_row([
            verdict_cell(&report.verdict),
            Cell::new(&report.name),
            Cell::new(report.wall.as_millis()).set_alignment(comfy_table::CellAlignment::Right),
            Cell::new(report.verdict.reason().unwrap_or_default()),
        ]);
    }
    table
}

fn verdict_cell(verdict: &Verdict) -> Cell {
    let color = match verdict {
        Verdict::Pass => Color::Green,
        Verdict::Known(_) => Color::Cyan,
        Verdict::Skip(_) => Color::Yellow,
        Verdict::Fixed(_) | Verdict::Fail(_) | Verdict::Broken(_) => Color::Red,
    };
    Cell::new(verdict.word())
        .fg(color)
        .add_attribute(Attribute::Bold)
}

fn show(case: &Case, report: &Report, filesystem: Option<Filesystem>, cuts: &Cuts) {
    anstream::println!(
        "\n{} under {}: {}",
        report.name,
        report.engine,
        report.verdict
    );
    anstream::println!("{}", report.details());
    anstream::println!(
        "repeat: notifreeze run {} {}{}\n",
        case.path.display(),
        report.engine.options(),
        more_options(filesystem, cuts)
    );
}

/// What a command line needs besides the engine for the same run.
fn more_options(filesystem: Option<Filesystem>, cuts: &Cuts) -> String {
    let filesystem = filesystem.map_or(String::new(), |kind| format!(" --fs {}", kind.name()));
    filesystem + &cuts.options()
}

/// The last line; `places` is in how many places the scenarios were cut, where they say otherwise.
fn summary(
    reports: &[Report],
    places: Option<usize>,
    engine: &EngineSpec,
    wall: Duration,
) -> String {
    let count = |word: &str| {
        reports
            .iter()
            .filter(|report| report.verdict.word() == word)
            .count()
    };
    let counts: Vec<String> = ["pass", "known", "fixed", "fail", "skip", "broken"]
        .iter()
        .map(|word| format!("{} {word}", count(word)))
        .collect();
    format!(
        "{}{} under {engine}: {} in {:.2} s",
        counted(reports.len(), "scenario"),
        places.map_or(String::new(), |n| format!(
            " cut in {}",
            counted(n, "place")
        )),
        counts.join(", "),
        wall.as_secs_f64()
    )
}
