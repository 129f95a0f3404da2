//! Wall time of one scenario: two control runs, one under builtin, compared and judged; and where
//! it goes. `cargo bench --bench scenario`.
//!
//! A table instead of a benchmark library: what is wanted is the split of each run into its parts,
//! which only the run itself knows.

use std::path::Path;
use std::time::Duration;

use notifreeze::case::{self, Options, Report, Snapshot};
use notifreeze::engine::EngineSpec;
use notifreeze::suite;
use verify::Verdict;

/// Odd, so that there is a median.
const RUNS: usize = 41;

/// An empty queue, unread events, and many watches.
const SCENARIOS: [&str; 3] = [
    "inotify/group-blocking.scn",
    "inotify/ghost-two_files.scn",
    "inotify/watch-thousand.scn",
];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let notifreeze = Path::new(env!("CARGO_BIN_EXE_notifreeze"));
    anstream::println!(
        "{:<32} {:>8} {:>8} {:>8} {:>8} {:>9}",
        "median of 41, ms",
        "wall",
        "setup",
        "cut",
        "survey",
        "subject"
    );
    for name in SCENARIOS {
        let Ok(case) = suite::read(&root.join(name)) else {
            anstream::println!("{name:<32} not there");
            continue;
        };
        let reports: Vec<Report> = (0..RUNS)
            .map(|_| {
                let options = Options {
                    snapshot: Snapshot::Ignore,
                    ..Options::default()
                };
                case::run(&case, &EngineSpec::Builtin, notifreeze, &options)
            })
            .collect();
        if let Some(bad) = reports
            .iter()
            .find(|report| !matches!(report.verdict, Verdict::Pass | Verdict::Known(_)))
        {
            anstream::println!("{name:<32} {}", bad.verdict);
            continue;
        }
        let ms = |of: &dyn Fn(&Report) -> Duration| median(&reports, of).as_secs_f64() * 1e3;
        let micros = Duration::from_micros;
        anstream::println!(
            "{name:<32} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>5} KiB",
            ms(&|report| report.wall),
            ms(&|report| micros(report.times.setup_us)),
            ms(&|report| micros(report.times.cut_us)),
            ms(&|report| micros(report.times.watch_us)),
            reports[RUNS / 2].times.resident_kib,
        );
    }
}

fn median(reports: &[Report], of: &dyn Fn(&Report) -> Duration) -> Duration {
    let mut times: Vec<Duration> = reports.iter().map(of).collect();
    times.sort_unstable();
    times[times.len() / 2]
}
