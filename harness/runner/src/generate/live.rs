//! Bytes as a scenario, for a fuzzer that looks for what no seed has rolled.

use std::path::Path;

use scenario::Scenario;
use verify::Verdict;

use super::ledger::Ledger;
use super::{Plan, Roll, Rolls, named, settings, try_out, write};
use crate::case::LIMIT_MS;
use crate::engine::EngineSpec;

/// Steps of one input at most: a fuzzer is worth what it gets done, and a defect that takes more is
/// for `notifreeze generate`.
const MAX_ROLLS: usize = 20;
/// Bytes of a roll.
const ROLL: usize = 5;

/// The scenario that bytes stand for: two places to cut at, then rolls. All bytes stand for one.
#[must_use]
pub fn scenario(bytes: &[u8]) -> Scenario {
    let (cuts, rolls) = bytes.split_at(bytes.len().min(2));
    let roll = |bytes: &[u8]| {
        let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
        Roll {
            call: u16::from_le_bytes([at(0), at(1)]),
            first: at(2),
            second: at(3),
            variant: at(4),
        }
    };
    let rolls = Rolls {
        rolls: rolls.chunks(ROLL).take(MAX_ROLLS).map(roll).collect(),
        cuts: cuts.iter().copied().chain([255]).take(2).collect(),
    };
    named(write(&rolls, settings()), 0, 0)
}

/// Runs the scenario of some bytes under builtin, against control and the model, in sandboxes that
/// `program` makes.
///
/// # Panics
///
/// If it does not hold, with the scenario and what differs.
pub fn check_live(bytes: &[u8], program: &Path) {
    let scenario = scenario(bytes);
    let plan = Plan {
        seed: 0,
        n_cases: 1,
        shard: (0, 1),
        engine: EngineSpec::Builtin,
        n_jobs: 1,
        limit_ms: LIMIT_MS,
        ledger: Ledger::default(),
        n_failures: 1,
    };
    let report = try_out(&scenario, &plan, program);
    let holds = match &report.verdict {
        Verdict::Pass | Verdict::Known(_) | Verdict::Fixed(_) | Verdict::Skip(_) => true,
        Verdict::Fail(_) | Verdict::Broken(_) => false,
    };
    let text = scenario::print(&scenario);
    assert!(holds, "{}: {}\n{text}", report.verdict, report.details());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_sound_scenario() {
        let mut state = 1_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        for length in 0..120 {
            let bytes: Vec<u8> = (0..length).map(|_| byte()).collect();
            let text = scenario::print(&scenario(&bytes));
            assert!(
                scenario::parse_and_check(&text).is_ok(),
                "{bytes:?}\n{text}"
            );
        }
    }
}
