//! Scenarios that nobody thought of: made from a seed, run under an engine, and made small where
//! they fail.
//!
//! A case is a list of rolls ([`Roll`]), from which [`write`] makes a scenario: it walks through the
//! model of inotify, so each step makes sense where it stands, and no list of rolls is invalid. That
//! is what lets a failing case shrink freely.

pub mod ledger;
pub mod live;
mod rolls;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use scenario::{Expect, Scenario};
use verify::Verdict;
use verify::model::Settings;

use crate::case::{self, Options, Report, Snapshot};
use crate::engine::EngineSpec;
use crate::suite::Case;
use ledger::{Class, Judged, Ledger};

pub use rolls::{Case as Rolls, Roll, rolls};
pub use writer::write;

/// Runs that the search for a smaller failing case may take. Each is three sandboxes.
const MAX_SHRINKS: usize = 400;

/// What to make and how to run it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub n_cases: usize,
    /// This shard of so many: every so many-th case.
    pub shard: (usize, usize),
    pub engine: EngineSpec,
    pub n_jobs: usize,
    pub limit_ms: u64,
    /// Differences that do not count as failures; empty: all do.
    pub ledger: Ledger,
    /// Failures to make small before the run ends. Of one class there is one failure.
    pub n_failures: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub n_run: usize,
    pub n_skipped: usize,
    pub skip_reason: Option<String>,
    pub n_passed: usize,
    /// Cases that differ as the engine declared.
    pub n_declared: usize,
    /// Cases that differ in nothing that is not known.
    pub n_known: usize,
    /// How many cases differ in what a scenario names.
    pub known: BTreeMap<String, usize>,
    pub failures: Vec<Failure>,
    pub wall: Duration,
}

/// A case that does not hold, as small as it could be made.
#[derive(Debug)]
pub struct Failure {
    pub case: usize,
    pub scenario: Scenario,
    pub report: Report,
    /// What the ledger does not name.
    pub class: Option<Class>,
}

/// What threads learn together.
struct Shared {
    ledger: Ledger,
    n_known: usize,
    known: BTreeMap<String, usize>,
    failures: Vec<Failure>,
}

/// Makes and runs cases until so many have failed as the plan says.
#[must_use]
pub fn run(plan: &Plan, notifreeze: &Path, progress: impl Fn() + Sync) -> Outcome {
    let started = Instant::now();
    let next = AtomicUsize::new(plan.shard.0);
    let stop = AtomicBool::new(false);
    let (n_run, n_skipped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (n_passed, n_declared) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let skip_reason = Mutex::new(None);
    let shared = Mutex::new(Shared {
        ledger: plan.ledger.clone(),
        n_known: 0,
        known: BTreeMap::new(),
        failures: Vec::new(),
    });
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(plan.shard.1, Ordering::Relaxed);
            if index >= plan.n_cases {
                return;
            }
            let mut tree = tree(plan.seed, index);
            let scenario = named(write(&tree.current(), settings()), plan.seed, index);
            let report = try_out(&scenario, plan, notifreeze);
            n_run.fetch_add(1, Ordering::Relaxed);
            progress();
            if let Verdict::Skip(reason) = &report.verdict {
                n_skipped.fetch_add(1, Ordering::Relaxed);
                *skip_reason.lock().expect("held for this only") = Some(reason.clone());
                continue;
            }
            let ledger = shared.lock().expect(UNSHAKEN).ledger.clone();
            let class = match blame(&ledger, &scenario, &report) {
                Blame::Nothing => {
                    let declared = matches!(report.verdict, Verdict::Known(_));
                    let count = if declared { &n_declared } else { &n_passed };
                    count.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Blame::Known(names) => {
                    let mut shared = shared.lock().expect(UNSHAKEN);
                    shared.n_known += 1;
                    for name in names {
                        *shared.known.entry(name).or_default() += 1;
                    }
                    continue;
                }
                Blame::Engine(class) => class,
            };
            {
                // Whoever finds the same while this is made small has found nothing new.
                let mut shared = shared.lock().expect(UNSHAKEN);
                if let Some(class) = &class {
                    shared.ledger.add(class.clone(), &format!("case {index}"));
                }
                if plan.n_failures == 1 && stop.swap(true, Ordering::Relaxed) {
                    return;
                }
            }
            let first = (scenario, report);
            let small = shrink(
                &mut *tree,
                first,
                (plan, &ledger),
                (index, notifreeze),
                class,
            );
            let mut shared = shared.lock().expect(UNSHAKEN);
            shared.failures.push(small);
            if shared.failures.len() >= plan.n_failures {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.n_jobs {
            scope.spawn(work);
        }
    });
    let mut shared = shared.into_inner().expect("no thread panicked");
    shared.failures.sort_by_key(|failure| failure.case);
    Outcome {
        n_run: n_run.into_inner(),
        n_skipped: n_skipped.into_inner(),
        skip_reason: skip_reason.into_inner().expect("no thread panicked"),
        n_passed: n_passed.into_inner(),
        n_declared: n_declared.into_inner(),
        n_known: shared.n_known,
        known: shared.known,
        failures: shared.failures,
        wall: started.elapsed(),
    }
}

const UNSHAKEN: &str = "no thread panics while it holds this";

/// Whom the outcome of a case speaks against.
enum Blame {
    Nothing,
    Known(std::collections::BTreeSet<String>),
    /// With a ledger, by what it does not name.
    Engine(Option<Class>),
}

fn blame(ledger: &Ledger, scenario: &Scenario, report: &Report) -> Blame {
    match &report.verdict {
        Verdict::Pass | Verdict::Known(_) | Verdict::Fixed(_) | Verdict::Skip(_) => Blame::Nothing,
        Verdict::Fail(_) if !ledger.is_empty() => match ledger.judge(scenario, report) {
            Judged::Alike => Blame::Nothing,
            Judged::Known(names) => Blame::Known(names),
            Judged::New(class) => Blame::Engine(Some(class)),
        },
        Verdict::Fail(_) | Verdict::Broken(_) => Blame::Engine(None),
    }
}

fn settings() -> Settings {
    let machine = crate::machine::Machine::here();
    machine.model_settings().unwrap_or_default()
}

/// The case with this number, as a value that can shrink. Cases of one seed do not depend on each
/// other, so shards and single cases can be repeated.
fn tree(seed: u64, index: usize) -> Box<dyn ValueTree<Value = Rolls>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&(index as u64).to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    Box::new(rolls().new_tree(&mut runner).expect("no filter can refuse"))
}

/// The scenario of a case.
#[must_use]
pub fn scenario(seed: u64, index: usize) -> Scenario {
    named(write(&tree(seed, index).current(), settings()), seed, index)
}

fn named(scenario: Scenario, seed: u64, index: usize) -> Scenario {
    Scenario {
        summary: vec![format!("Case {index} of seed {seed} goes on as before.")],
        ..scenario
    }
}

fn try_out(scenario: &Scenario, plan: &Plan, notifreeze: &Path) -> Report {
    let case = Case {
        name: "generated".to_owned(),
        path: PathBuf::from("generated.scn"),
        scenario: scenario.clone(),
    };
    let options = Options {
        limit_ms: plan.limit_ms,
        keep: None,
        filesystem: None,
        snapshot: Snapshot::Ignore,
    };
    case::run(&case, &plan.engine, notifreeze, &options)
}

/// First the rolls shrink, then single steps are left out.
fn shrink(
    tree: &mut dyn ValueTree<Value = Rolls>,
    mut best: (Scenario, Report),
    (plan, ledger): (&Plan, &Ledger),
    (index, notifreeze): (usize, &Path),
    class: Option<Class>,
) -> Failure {
    let mut n_left = MAX_SHRINKS;
    let fails = |scenario: &Scenario, best: &mut (Scenario, Report), n_left: &mut usize| {
        *n_left -= 1;
        let report = try_out(scenario, plan, notifreeze);
        let is_same_kind = kind(&report.verdict) == kind(&best.1.verdict)
            && match blame(ledger, scenario, &report) {
                Blame::Engine(found) => found == class,
                Blame::Nothing | Blame::Known(_) => false,
            };
        if is_same_kind {
            *best = (scenario.clone(), report);
        }
        is_same_kind
    };
    let mut can_go_on = tree.simplify();
    while can_go_on && n_left > 0 {
        let smaller = named(write(&tree.current(), settings()), plan.seed, index);
        let failed = smaller == best.0 || fails(&smaller, &mut best, &mut n_left);
        can_go_on = if failed {
            tree.simplify()
        } else {
            tree.complicate()
        };
    }
    let mut at = best.0.steps.len();
    while at > 0 && n_left > 0 {
        at -= 1;
        let mut smaller = best.0.clone();
        smaller.steps.remove(at);
        drop_unused_names(&mut smaller);
        let is_sound = scenario::parse_and_check(&scenario::print(&smaller)).is_ok();
        if is_sound {
            fails(&smaller, &mut best, &mut n_left);
        }
        at = at.min(best.0.steps.len());
    }
    Failure {
        case: index,
        scenario: best.0,
        report: best.1,
        class,
    }
}

/// The word of a verdict, and of one that says nothing of an engine what kind of trouble there was:
/// a scenario that has lost the step that a later one needs is broken as well.
fn kind(verdict: &Verdict) -> (&'static str, String) {
    let of_broken = match verdict {
        Verdict::Broken(reason) => {
            let line = reason.lines().next().unwrap_or_default();
            let parts: Vec<&str> = line.split(": ").take(2).collect();
            parts.join(": ").replace(|c: char| c.is_ascii_digit(), "")
        }
        Verdict::Pass
        | Verdict::Known(_)
        | Verdict::Fixed(_)
        | Verdict::Fail(_)
        | Verdict::Skip(_) => String::new(),
    };
    (verdict.word(), of_broken)
}

/// A name that nothing refers to is an error of the language.
pub(crate) fn drop_unused_names(scenario: &mut Scenario) {
    let used: Vec<_> = scenario
        .steps
        .iter()
        .flat_map(|step| {
            let args = step.args.iter().filter_map(|arg| match arg {
                scenario::Arg::Name(name) => Some(name.clone()),
                _ => None,
            });
            args.chain(step.process.clone())
        })
        .collect();
    for step in &mut scenario.steps {
        if let Expect::Bind(name) = &step.expect
            && step.call != scenario::Call::Fork
            && !used.contains(name)
        {
            step.expect = Expect::Success;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_sound_and_modelled() {
        for index in 0..500 {
            let scenario = scenario(1, index);
            let text = scenario::print(&scenario);
            if let Err(problems) = scenario::parse_and_check(&text) {
                panic!("case {index}: {problems:?}\n{text}");
            }
            let prediction = verify::model::predict(&scenario, settings());
            assert!(prediction.is_ok(), "case {index}: {prediction:?}\n{text}");
        }
    }

    #[test]
    fn a_broken_scenario_shrinks_to_one_that_is_broken_alike() {
        let broken = |reason: &str| kind(&Verdict::Broken(reason.to_owned()));
        let missing = broken("control: step 1: open(\"e\", O_RDWR): got -1 ENOENT");
        assert_eq!(missing, broken("control: step 12: rmdir(\"d\"): got 0"));
        let model = "control: not as the model of inotify says\nstep 3: read(n)";
        assert_ne!(missing, broken(model));
        assert_ne!(missing, broken("criu 4.1.1: fd 4: a time of the ghost"));
        let fail = |reason: &str| kind(&Verdict::Fail(reason.to_owned()));
        assert_eq!(fail("undeclared: a"), fail("criu: b"));
    }

    #[test]
    fn cases_differ_and_repeat() {
        assert_eq!(scenario(3, 7), scenario(3, 7));
        assert_ne!(scenario(3, 7).steps, scenario(3, 8).steps);
        assert_ne!(scenario(3, 7).steps, scenario(4, 7).steps);
    }

    #[test]
    fn cases_reach_what_is_hard() {
        let texts: Vec<String> = (0..500)
            .map(|index| scenario::print(&scenario(1, index)))
            .collect();
        for word in [
            "IN_ONESHOT",
            "IN_EXCL_UNLINK",
            "IN_MASK_ADD",
            "rename(",
            "RENAME_EXCHANGE",
            "unlink(",
            "rmdir(",
            "link(",
            "O_PATH",
            "/proc/self/fd/",
            "fork()",
            "[p] ",
            "inotify_rm_watch(",
            "INOTIFY_IOC_SETNEXTWD",
            "dup(",
            "exit_group(",
            "= -1 E",
            "flood(",
            "O_TRUNC",
            "O_TMPFILE",
            "fanotify_init(",
            "FAN_MARK_FILESYSTEM",
            "epoll_wait(",
            "O_ASYNC",
            "setxattr(",
            "chdir(",
            "mount(\"tmpfs\"",
            "umount2(",
            "S_IFIFO",
            "O_RDWR|O_NONBLOCK",
            "fanotify_init(FAN_CLASS_NOTIF|FAN_NONBLOCK, ",
            "FAN_MARK_MOUNT",
            "<unfinished ...>",
            "{response=FAN_DENY}",
            "= -1 EBUSY",
            "= -1 EXDEV",
        ] {
            let n_with = texts.iter().filter(|text| text.contains(word)).count();
            assert!(n_with > 0, "no case of 500 has {word}");
        }
        let cuts: usize = texts
            .iter()
            .map(|text| text.matches("\ncheckpoint\n").count())
            .sum();
        assert!(cuts >= texts.len(), "every case has a cut");
    }
}
