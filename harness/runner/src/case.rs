//! One scenario under one engine: control twice, once restored, compared and judged.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use scenario::{Call, Expect, Known, Loss, Need, Outcome, Place, Scenario, Transcript};
use verify::{Difference, Verdict, model};

use crate::caches;
use crate::engine::{EngineSpec, Flavour};
use crate::gate;
use crate::job::{Answer, Job, Times};
use crate::machine::Machine;
use crate::sandbox::{self, Filesystem};
use crate::suite::Case;

/// A run that takes this long hangs: the longest of the suite takes a tenth of it under load.
pub const LIMIT_MS: u64 = 60_000;

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct Options {
    pub limit_ms: u64,
    /// Where images and logs are copied to, a folder for each scenario.
    pub keep: Option<PathBuf>,
    /// What worlds live on, instead of what the scenario says or tmpfs.
    pub filesystem: Option<Filesystem>,
    /// Whether the recorded snapshot has a say.
    pub snapshot: Snapshot,
}

/// What to do about a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// Compare with it.
    Compare,
    /// Judge as if it said what was seen.
    Ignore,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit_ms: LIMIT_MS,
            keep: None,
            filesystem: None,
            snapshot: Snapshot::Compare,
        }
    }
}

/// What came of a scenario under an engine.
#[derive(Clone, Debug)]
pub struct Report {
    pub name: String,
    pub engine: EngineSpec,
    pub verdict: Verdict,
    /// Whether the engine refused by name to dump, and left the subject unharmed.
    pub refused: bool,
    pub differences: Vec<Difference>,
    /// The text that a snapshot holds; none where there is nothing to compare.
    pub rendered: Option<String>,
    /// The recorded snapshot.
    pub recorded: Option<String>,
    pub control: Option<Transcript>,
    pub restored: Option<Transcript>,
    /// What the engine declared that it could not keep.
    pub losses: Vec<Loss>,
    /// What the engine found out about itself.
    pub notes: Vec<String>,
    pub wall: Duration,
    /// Of the run under the engine.
    pub times: Times,
}

impl Report {
    pub(crate) fn new(case: &Case, engine: &EngineSpec, verdict: Verdict) -> Self {
        Self {
            name: case.name.clone(),
            engine: engine.clone(),
            verdict,
            refused: false,
            differences: Vec::new(),
            rendered: None,
            recorded: None,
            control: None,
            restored: None,
            losses: Vec::new(),
            notes: Vec::new(),
            wall: Duration::ZERO,
            times: Times::default(),
        }
    }

    /// What there is to show of it: the transcript with what differs, or the reason alone.
    #[must_use]
    pub fn details(&self) -> String {
        let mut text = self.rendered.clone().unwrap_or_default();
        if !text.is_empty() {
            text.push('\n');
        }
        if let Some(reason) = self.verdict.reason() {
            text.push_str(reason);
        }
        for note in &self.notes {
            text.push('\n');
            text.push_str(note);
        }
        text
    }
}

/// Why this machine cannot run a scenario; none if it can.
#[must_use]
pub fn lacks(case: &Case) -> Option<String> {
    case.scenario
        .requires
        .iter()
        .find_map(|requirement| Machine::here().lacks(requirement))
}

/// What the world of a scenario lives on.
///
/// # Errors
///
/// That it asks for another than there is to be, or for one that no world can live on.
fn filesystem(case: &Case, options: &Options) -> Result<Filesystem, String> {
    let mut requires = case.scenario.requires.iter();
    let asked = requires.find_map(|requirement| match requirement.need() {
        Some(Need::Filesystem(name)) => Some(name),
        _ => None,
    });
    match (asked, options.filesystem) {
        (None, chosen) => Ok(chosen.unwrap_or_default()),
        (Some(name), None) => {
            Filesystem::named(&name).ok_or_else(|| format!("no world can be on {name}"))
        }
        (Some(name), Some(chosen)) if name == chosen.name() => Ok(chosen),
        (Some(name), Some(chosen)) => Err(format!("the world is on {}, not {name}", chosen.name())),
    }
}

/// Runs a scenario under control twice and under the engine once, and judges.
#[must_use]
pub fn run(case: &Case, engine: &EngineSpec, notifreeze: &Path, options: &Options) -> Report {
    let flavour = engine.flavour();
    let world = filesystem(case, options);
    let lacks = lacks(case).or_else(|| world.as_ref().err().cloned());
    let _held = caches::hold(case, world.unwrap_or_default());
    let started = Instant::now();
    let mut report = match lacks.or_else(|| engine.lacks()) {
        Some(reason) => Report::new(case, engine, Verdict::Skip(reason)),
        // The three runs know nothing of each other, so they go on at once.
        None => std::thread::scope(|scope| {
            let cut =
                scope.spawn(|| sandbox::run(&job(case, engine, flavour, options), notifreeze));
            let control = control(case, flavour, notifreeze, options);
            let answer = cut.join().unwrap_or_else(|panic| resume_unwind(panic));
            match control {
                Ok(control) => judged(case, control, engine, options, answer),
                Err(verdict) => Report::new(case, engine, verdict),
            }
        }),
    };
    report.wall = started.elapsed();
    report
}

/// What a scenario yields untouched. Two runs have to agree, each step with what it says of itself,
/// and all of it with the model.
///
/// # Errors
///
/// The verdict that this comes to: a scenario that control cannot tell anything about.
pub fn control(
    case: &Case,
    flavour: Flavour,
    notifreeze: &Path,
    options: &Options,
) -> Result<Transcript, Verdict> {
    let job = job(case, &EngineSpec::Control, flavour, options);
    let run = || match sandbox::run(&job, notifreeze) {
        Answer::Finished { transcript, .. } => Ok(transcript),
        Answer::Skipped(reason) => Err(Verdict::Skip(reason)),
        Answer::Refused(reason)
        | Answer::Failed(reason)
        | Answer::Again(reason)
        | Answer::Broken(reason) => Err(Verdict::Broken(format!("control: {reason}"))),
    };
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(run);
        let first = run();
        (
            first,
            second.join().unwrap_or_else(|panic| resume_unwind(panic)),
        )
    });
    let (first, second) = (first?, second?);
    if let Some(verdict) = verify::judge_controls(&verify::diff(&case.scenario, &first, &second)) {
        return Err(verdict);
    }
    let unexpected = unexpected(&case.scenario, &first);
    if let Some((reason, true)) = &unexpected
        && let Some(elsewhere) = elsewhere(case, options)
    {
        let filesystem = elsewhere.name();
        return Err(Verdict::Skip(format!(
            "{filesystem} does not do that: {reason}"
        )));
    }
    let reason = unexpected.map(|(reason, _)| reason);
    match reason.or_else(|| contradicted(&case.scenario, &first)) {
        Some(reason) => Err(Verdict::Broken(format!("control: {reason}"))),
        None => Ok(first),
    }
}

/// What worlds live on, if that was chosen and scenarios are not written for it.
fn elsewhere(case: &Case, options: &Options) -> Option<Filesystem> {
    let written_for = filesystem(case, &Options::default()).ok()?;
    options.filesystem.filter(|chosen| *chosen != written_for)
}

/// Runs a scenario under an engine and judges it by a control run that there is already.
#[must_use]
pub fn against(
    case: &Case,
    control: Transcript,
    engine: &EngineSpec,
    notifreeze: &Path,
    options: &Options,
) -> Report {
    let answer = sandbox::run(&job(case, engine, engine.flavour(), options), notifreeze);
    judged(case, control, engine, options, answer)
}

fn judged(
    case: &Case,
    control: Transcript,
    engine: &EngineSpec,
    options: &Options,
    answer: Answer,
) -> Report {
    let mut report = Report::new(case, engine, Verdict::Pass);
    report.control = Some(control);
    report.refused = matches!(answer, Answer::Refused(_));
    report.verdict = match answer {
        Answer::Finished {
            transcript,
            losses,
            notes,
            times,
        } => {
            report.notes = notes;
            report.times = times;
            report.losses = losses;
            report.restored = Some(transcript);
            judge(case, engine, options, &mut report)
        }
        Answer::Skipped(reason) => Verdict::Skip(reason),
        Answer::Again(reason) | Answer::Broken(reason) => {
            Verdict::Broken(format!("{engine}: {reason}"))
        }
        // The handles of an overlay cannot be opened (`ovl_export_fid_operations`), so what they alone lead
        // to is refused.
        Answer::Refused(reason) if elsewhere(case, options).is_some() && takes_handles(&reason) => {
            Verdict::Skip(reason)
        }
        Answer::Refused(reason) | Answer::Failed(reason) => {
            judge_failure(case, engine, options, &mut report, reason)
        }
    };
    report
}

/// Whether a refusal is for want of handles.
fn takes_handles(reason: &str) -> bool {
    let reasons = [
        "no handle or path leads to",
        "on a filesystem without handles",
    ];
    reasons.iter().any(|known| reason.contains(known))
}

fn job(case: &Case, engine: &EngineSpec, flavour: Flavour, options: &Options) -> Job {
    Job {
        scenario: scenario::print(&case.scenario),
        engine: engine.clone(),
        flavour,
        // Who asks for another is not run.
        filesystem: filesystem(case, options).unwrap_or_default(),
        limit_ms: options.limit_ms,
        keep: options.keep.as_ref().map(|keep| keep.join(&case.name)),
    }
}

fn judge(case: &Case, engine: &EngineSpec, options: &Options, report: &mut Report) -> Verdict {
    let (Some(control), Some(restored)) = (&report.control, &report.restored) else {
        return Verdict::Broken("a run gave no transcript".to_owned());
    };
    report.differences = verify::diff(&case.scenario, control, restored);
    // What is known of other engines is none of this snapshot's business.
    let mut own = case.scenario.clone();
    own.known
        .retain(|known| [engine.name(), engine.folder()].contains(&known.engine.as_str()));
    let rendered = verify::render(&own, control, restored, &report.differences);
    report.recorded = recorded(case, engine, options, &rendered);
    let known = known(case, engine);
    let verdict = verify::judge(
        &report.differences,
        &report.losses,
        &known,
        report.recorded.as_deref(),
        &rendered,
    );
    report.rendered = Some(rendered);
    match verdict {
        // A header speaks of the filesystem that the scenario is written for.
        Verdict::Fixed(_) if elsewhere(case, options).is_some() => Verdict::Pass,
        verdict => verdict,
    }
}

/// A cut that failed is known as a difference is: by a header that says why, and a snapshot that
/// holds the words of the failure.
fn judge_failure(
    case: &Case,
    engine: &EngineSpec,
    options: &Options,
    report: &mut Report,
    reason: String,
) -> Verdict {
    report.recorded = recorded(case, engine, options, &reason);
    let known = known(case, engine);
    let verdict = match &report.recorded {
        _ if known.is_empty() => Verdict::Fail(format!("{engine}: {reason}")),
        Some(recorded) if !gate::same(recorded, &reason) => Verdict::Fail(format!(
            "not as the snapshot records:\n{}",
            verify::text_diff(recorded, &format!("{reason}\n"))
        )),
        Some(_) | None => {
            let whys: Vec<String> = known.into_iter().map(|known| known.why).collect();
            Verdict::Known(whys.join("; "))
        }
    };
    report.rendered = Some(reason + "\n");
    verdict
}

/// The snapshot to hold a text against: of a race the outcome that it is, if it is one of them.
fn recorded(case: &Case, engine: &EngineSpec, options: &Options, rendered: &str) -> Option<String> {
    match options.snapshot {
        Snapshot::Compare => {
            let outcomes = gate::outcomes(case, engine);
            let seen = outcomes.iter().find(|text| gate::same(text, rendered));
            let as_good = |text: &String| gate::same_but_for_unavoidable(text, rendered);
            if seen.is_none() && outcomes.iter().any(as_good) && !cr::silent::is_permitted() {
                return Some(rendered.to_owned());
            }
            seen.or(outcomes.first()).cloned()
        }
        Snapshot::Ignore => None,
    }
}

/// The headers that speak of this engine.
fn known(case: &Case, engine: &EngineSpec) -> Vec<Known> {
    let known = case.scenario.known.iter();
    known
        .filter(|known| engine.is_meant(known))
        .cloned()
        .collect()
}

/// Where control did not do what the model of inotify says, in both words. A judgement that rests
/// on a wrong understanding of the kernel says nothing about an engine.
fn contradicted(scenario: &Scenario, control: &Transcript) -> Option<String> {
    let settings = Machine::here().model_settings()?;
    let prediction = model::predict(scenario, settings).ok()?;
    let disagreements = model::compare(scenario, &prediction, control);
    let first = disagreements.first()?;
    Some(format!("not as the model of inotify says\n{first}"))
}

/// The first result of control that is not what its step says, and whether the filesystem may be why.
fn unexpected(scenario: &Scenario, control: &Transcript) -> Option<(String, bool)> {
    control.observations.iter().find_map(|observation| {
        let Place::Step(index) = observation.place else {
            return None;
        };
        let step = &scenario.steps[index];
        let fits = match (&step.expect, observation.outcome) {
            (Expect::Any, _) => true,
            (Expect::Value(wanted), Outcome::Value(value)) => *wanted == value,
            (Expect::Errno(wanted), Outcome::Errno(errno)) => *wanted == errno,
            (Expect::Success | Expect::Bind(_), outcome) => !matches!(outcome, Outcome::Errno(_)),
            (Expect::Value(_) | Expect::Errno(_), _) => false,
        };
        (!fits).then(|| {
            let got = match observation.outcome {
                Outcome::Value(value) => value.to_string(),
                Outcome::Errno(errno) => {
                    format!("-1 {}", scenario::errno::name(errno).unwrap_or("?"))
                }
                Outcome::None => "nothing".to_owned(),
            };
            let reason = format!("step {}: {step}: got {got}", index + 1);
            let is_unable = match observation.outcome {
                Outcome::Errno(nix::libc::EOPNOTSUPP) => true,
                // An overlay is no upper layer of another (`ovl_mount_dir_check`).
                Outcome::Errno(nix::libc::EINVAL) => step.call == Call::Mount,
                Outcome::Errno(_) | Outcome::Value(_) | Outcome::None => false,
            };
            (reason, is_unable)
        })
    })
}
