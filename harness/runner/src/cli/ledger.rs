//! `notifreeze ledger`: what is known to differ, from headers and snapshots, without a run.

use std::collections::BTreeMap;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use fsnotify::counted;

use super::Selection;
use crate::engine::{Criu, EngineSpec};
use crate::gate;
use crate::suite::{self, Case};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Count how often each reason is given, in place of a line for each scenario.
    #[arg(long)]
    reasons: bool,
}

/// The mark of a line of a snapshot that a declared loss accounts for.
const DECLARED: &str = "declared loss ";

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let Selection { scenarios, filter } = &args.selection;
    let (cases, unreadable) = suite::select(scenarios, filter.as_deref())?;
    let criu = EngineSpec::Criu(Criu::unprobed());
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for engine in [EngineSpec::Builtin, criu] {
        for case in &cases {
            let (verdict, reasons) = expected(case, &engine);
            for reason in &reasons {
                *counts.entry((engine.name(), reason.clone())).or_default() += 1;
            }
            if !args.reasons {
                let reasons = reasons.join("; ");
                table.add_row([engine.name(), verdict, &case.name, &reasons]);
            }
        }
    }
    if args.reasons {
        for ((engine, reason), n_scenarios) in &counts {
            table.add_row([*engine, &n_scenarios.to_string(), reason]);
        }
    }
    anstream::println!("{}", table.trim_fmt());
    Ok(super::report_unreadable(&unreadable))
}

/// The verdict that the gate expects of a scenario under an engine, and why. Headers say what is
/// known; a snapshot without header says what the engine itself declared.
fn expected(case: &Case, engine: &EngineSpec) -> (&'static str, Vec<String>) {
    let known = case.scenario.known.iter();
    let headers = known.filter(|known| known.engine == engine.name());
    let reasons: Vec<String> = headers
        .map(|known| {
            let versions = known
                .versions
                .iter()
                .map(|versions| format!("{versions}: "));
            let races = known.races.then(|| {
                let outcomes = counted(gate::outcomes(case, engine).len(), "outcome");
                format!("a race, {outcomes} recorded: ")
            });
            versions.chain(races).chain([known.why.clone()]).collect()
        })
        .collect();
    if !reasons.is_empty() {
        return ("known", reasons);
    }
    let Some(snapshot) = gate::recorded(case, engine) else {
        return ("unrecorded", Vec::new());
    };
    let is_difference = |line: &str| line.starts_with("- ") || line.starts_with("+ ");
    if !snapshot.lines().any(is_difference) {
        return ("pass", Vec::new());
    }
    let declared = snapshot.lines().map(str::trim_start);
    let mut reasons: Vec<String> = declared
        .filter_map(|line| line.strip_prefix(DECLARED))
        .filter_map(|loss| loss.rsplit_once(": "))
        .map(|(_, reason)| format!("declared: {reason}"))
        .collect();
    reasons.sort();
    reasons.dedup();
    ("known", reasons)
}
