//! The cut at other places than the one that the scenario has it at, and several cuts in one run.
//!
//! One scenario gives one report, whatever the number of places: that of the first place where it
//! does not hold, which the reason names.

use std::path::Path;
use std::time::Instant;

use scenario::{Scenario, cut_at, positions, repeat_cuts};
use verify::Verdict;

use crate::case::{self, Options, Report, Snapshot};
use crate::engine::EngineSpec;
use crate::suite::Case;

/// Places tried in one scenario: a scenario of a thousand watches would take an hour otherwise. The
/// first and the last are among them, the others are spread.
pub const MAX_PLACES: usize = 64;

/// Where to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutAt {
    /// Where the scenario says.
    Written,
    /// Behind this many steps, or behind the last.
    Place(usize),
    /// One place after the other, each in a run of its own.
    All,
    /// One place, chosen by the seed.
    Random,
}

/// Where and how often to cut.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    pub at: CutAt,
    /// Cuts in a row at each place.
    pub n_cycles: usize,
    pub seed: u64,
}

impl Cuts {
    /// The options of `notifreeze run` that ask for these cuts, with a space before them.
    #[must_use]
    pub fn options(&self) -> String {
        let mut options = match self.at {
            CutAt::Written => String::new(),
            CutAt::Place(place) => format!(" --cut-at {place}"),
            CutAt::All => " --cut-at all".to_owned(),
            CutAt::Random => format!(" --cut-at random --seed {}", self.seed),
        };
        if self.n_cycles != 1 {
            options += &format!(" --cycles {}", self.n_cycles);
        }
        options
    }
}

impl CutAt {
    /// Reads `all`, `random` or a number.
    ///
    /// # Errors
    ///
    /// A sentence that names what is known.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "random" => Ok(Self::Random),
            _ => text
                .parse()
                .map(Self::Place)
                .map_err(|_| format!("{text:?} is none of all, random, and a number of steps")),
        }
    }
}

/// Runs a scenario, cut where `cuts` says.
#[must_use]
pub fn run(
    case: &Case,
    cuts: &Cuts,
    engine: &EngineSpec,
    notifreeze: &Path,
    options: &Options,
) -> Report {
    if cuts.at == CutAt::Written && cuts.n_cycles == 1 {
        return case::run(case, engine, notifreeze, options);
    }
    let options = Options {
        // A snapshot records what comes of the scenario as it is written.
        snapshot: Snapshot::Ignore,
        ..options.clone()
    };
    let started = Instant::now();
    let mut worst: Option<Report> = None;
    for (place, scenario) in cut(case, cuts) {
        let cut = Case {
            scenario,
            ..case.clone()
        };
        let mut report = case::run(&cut, engine, notifreeze, &options);
        if place.is_some() && matches!(report.verdict, Verdict::Fixed(_)) {
            // What is declared is declared of the cut as it is written.
            report.verdict = Verdict::Pass;
        }
        if let (true, Some(_), Some(reason)) = (report.refused, place, report.verdict.reason()) {
            // Whoever wrote the scenario did not ask for a cut here, and the engine says that it
            // makes none.
            report.verdict = Verdict::Known(format!("refused by name: {reason}"));
        }
        name_place(&mut report.verdict, place, &case.scenario);
        let is_worse = worst
            .as_ref()
            .is_none_or(|worst| rank(&report.verdict) > rank(&worst.verdict));
        if is_worse {
            worst = Some(report);
        }
        // What lacks, lacks everywhere; what does not hold is found.
        if worst.as_ref().is_some_and(|worst| rank(&worst.verdict) > 1) {
            break;
        }
    }
    let mut report = worst.expect("every scenario has a place to cut at");
    report.wall = started.elapsed();
    report
}

/// In how many places a scenario is to be cut, one after another: as many runs.
#[must_use]
pub fn n_places(case: &Case, cuts: &Cuts) -> usize {
    cut(case, cuts).len()
}

/// How much a verdict weighs against one of another place.
fn rank(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Known(_) | Verdict::Fixed(_) => 1,
        Verdict::Skip(_) => 2,
        Verdict::Fail(_) => 3,
        Verdict::Broken(_) => 4,
    }
}

/// The scenario for each place, with the place where there is a choice of them.
fn cut(case: &Case, cuts: &Cuts) -> Vec<(Option<usize>, Scenario)> {
    let scenario = &case.scenario;
    let all = positions(scenario);
    let last = *all.last().expect("there is a place before the first step");
    let chosen: Vec<usize> = match cuts.at {
        CutAt::Written => return vec![(None, repeat_cuts(scenario, cuts.n_cycles))],
        CutAt::Place(wanted) => {
            let before = all.iter().rev().find(|at| **at <= wanted);
            vec![before.copied().unwrap_or(last)]
        }
        CutAt::All => spread(&all, MAX_PLACES),
        CutAt::Random => vec![all[choose(cuts.seed, &case.name, all.len())]],
    };
    chosen
        .into_iter()
        .map(|at| {
            (
                Some(at),
                repeat_cuts(&cut_at(scenario, &[at]), cuts.n_cycles),
            )
        })
        .collect()
}

/// At most `n_most` of the places, the first and the last among them.
fn spread(all: &[usize], n_most: usize) -> Vec<usize> {
    if all.len() <= n_most {
        return all.to_vec();
    }
    (0..n_most)
        .map(|index| all[index * (all.len() - 1) / (n_most - 1)])
        .collect()
}

/// A number below `n`, another one for each scenario (FNV-1a).
fn choose(seed: u64, name: &str, n: usize) -> usize {
    let bytes = seed.to_le_bytes();
    let hash = bytes
        .iter()
        .chain(name.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    usize::try_from(hash % n as u64).expect("below a usize")
}

fn name_place(verdict: &mut Verdict, place: Option<usize>, scenario: &Scenario) {
    let Some(place) = place else {
        return;
    };
    let steps = scenario.steps.iter();
    let mut steps = steps.filter(|step| step.call != scenario::Call::Checkpoint);
    let before = match place.checked_sub(1).and_then(|index| steps.nth(index)) {
        Some(step) => format!("cut at {place}, behind `{}`", step.invocation()),
        None => "cut at 0, before the first step".to_owned(),
    };
    match verdict {
        Verdict::Pass | Verdict::Skip(_) => {}
        Verdict::Known(reason)
        | Verdict::Fixed(reason)
        | Verdict::Fail(reason)
        | Verdict::Broken(reason) => *reason = format!("{before}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_spread_from_the_first_to_the_last() {
        let all: Vec<usize> = (0..=1000).collect();
        let some = spread(&all, 5);
        assert_eq!(some, [0, 250, 500, 750, 1000]);
        assert_eq!(spread(&all[..3], 5), [0, 1, 2]);
    }

    #[test]
    fn a_seed_chooses_a_place_for_each_scenario() {
        let chosen: Vec<usize> = ["a", "b", "c", "d"]
            .iter()
            .map(|n| choose(7, n, 1000))
            .collect();
        assert_eq!(
            chosen,
            ["a", "b", "c", "d"].map(|name| choose(7, name, 1000))
        );
        assert!(
            chosen.windows(2).any(|pair| pair[0] != pair[1]),
            "{chosen:?}"
        );
        assert!(chosen.iter().all(|place| *place < 1000));
    }
}
