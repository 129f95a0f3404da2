//! `notifreeze saboteur`: the suite against every planted defect.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use scenario::Transcript;
use verify::Verdict;

use super::Selection;
use crate::case::{self, Options, Snapshot};
use crate::engine::{Defect, EngineSpec};
use crate::sandbox::Programs;
use crate::suite::{self, Case};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Only defects whose name contains this.
    #[arg(long, value_name = "TEXT")]
    defect: Option<String>,
}

/// A scenario that builtin gets right, and what control yields.
struct Usable<'a> {
    case: &'a Case,
    control: Transcript,
}

/// Which scenario catches a defect, and by what.
struct Caught {
    scenario: String,
    how: String,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let Selection { scenarios, filter } = &args.selection;
    let (cases, unreadable) = suite::select(scenarios, filter.as_deref())?;
    let programs = Programs::beside_current().map_err(|error| error.to_string())?;
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
    let usable: Vec<Usable> = in_parallel(&cases, |case| usable(case, &programs, &options))
        .into_iter()
        .flatten()
        .collect();
    let caught = in_parallel(&defects, |defect| {
        catch(*defect, &usable, &programs, &options)
    });
    anstream::println!("{}", table(&defects, &caught));
    let n_caught = caught.iter().flatten().count();
    anstream::println!(
        "{n_caught} of {} defects caught, by {} scenarios that builtin gets right",
        defects.len(),
        usable.len()
    );
    let code = if n_caught == defects.len() {
        crate::EXIT_OK
    } else {
        crate::EXIT_FAIL
    };
    Ok(super::report_unreadable(&unreadable).max(code))
}

/// A scenario that is not right without a defect cannot show one.
fn usable<'a>(case: &'a Case, programs: &Programs, options: &Options) -> Option<Usable<'a>> {
    let report = case::run(case, &EngineSpec::Builtin, programs, options);
    let control = report.control?;
    matches!(report.verdict, Verdict::Pass | Verdict::Known(_)).then_some(Usable { case, control })
}

/// The first scenario that is judged `fail` under the defect.
fn catch(
    defect: Defect,
    usable: &[Usable],
    programs: &Programs,
    options: &Options,
) -> Option<Caught> {
    usable.iter().find_map(|Usable { case, control }| {
        let engine = EngineSpec::Saboteur(defect);
        let report = case::against(case, control.clone(), &engine, programs, options);
        match report.verdict {
            Verdict::Fail(reason) => Some(Caught {
                scenario: case.name.clone(),
                how: reason.lines().next().unwrap_or_default().to_owned(),
            }),
            _ => None,
        }
    })
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
            Some(Caught { scenario, how }) => (scenario.as_str(), how.as_str()),
            None => ("nothing", ""),
        };
        table.add_row([defect.name(), defect.what(), scenario, how]);
    }
    table
}

/// Maps on as many threads as there are cores; results in the order of the items.
fn in_parallel<'a, T: Sync, R: Send>(items: &'a [T], work: impl Fn(&'a T) -> R + Sync) -> Vec<R> {
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
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
                    let mut done = done.lock().expect("no thread panics while it holds this");
                    done.push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panicked");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
