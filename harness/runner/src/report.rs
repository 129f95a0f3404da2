//! Reports of a whole run, for people and for the programs that read them: HTML, JUnit, TAP, JSON,
//! and what GitHub Actions shows.
//!
//! All are made from one value, [`Results`]. Nothing here runs or judges anything.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use scenario::{Loss, Place, Scenario};
use serde::Serialize;
use verify::Verdict;

use crate::case::Report;
use crate::job::Times;
use crate::suite::Case;

pub mod github;
mod html;
mod json;
mod junit;
mod tap;
mod timeline;

/// Version of the JSON form; `docs/report.md` describes it. A new field does not change it, a field
/// that is gone or means something else does.
const VERSION: u32 = 1;

/// What came of every scenario of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    pub version: u32,
    /// Name and version of the program.
    pub program: String,
    pub wall_us: u64,
    pub counts: Counts,
    pub cases: Vec<CaseResult>,
}

/// How many scenarios got each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub pass: usize,
    pub known: usize,
    pub fixed: usize,
    pub fail: usize,
    pub skip: usize,
    pub broken: usize,
}

/// What came of one scenario under one engine.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    pub name: String,
    pub file: String,
    pub engine: String,
    /// What the scenario says must hold.
    pub summary: String,
    pub verdict: &'static str,
    pub reason: Option<String>,
    pub wall_us: u64,
    pub times: Times,
    pub differences: Vec<Difference>,
    pub losses: Vec<Loss>,
    /// Both runs as one text, in the language of the scenarios.
    pub text: Option<String>,
    /// The command that runs this scenario again.
    pub repeat: String,
    /// Both runs as a picture, SVG.
    #[serde(skip)]
    pub timeline: Option<String>,
}

/// A difference in words.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// From 1; none for the audit at the end.
    pub step: Option<usize>,
    /// Line of that step in the canonical file.
    pub line: Option<usize>,
    pub kind: String,
    pub invariant: String,
    pub object: String,
    pub field: Option<String>,
    pub control: Option<String>,
    pub restored: Option<String>,
    pub unavoidable: Option<String>,
    pub repeated: bool,
}

impl Results {
    /// Puts together what came of the cases, in their order.
    #[must_use]
    pub fn of<'a>(
        results: impl IntoIterator<Item = (&'a Case, &'a Report)>,
        wall: Duration,
    ) -> Self {
        let mut counts = Counts::default();
        let mut cases = Vec::new();
        for (case, report) in results {
            *counts.of_verdict(&report.verdict) += 1;
            cases.push(CaseResult::of(case, report));
        }
        Self {
            version: VERSION,
            program: concat!("notifreeze ", env!("CARGO_PKG_VERSION")).to_owned(),
            wall_us: micros(wall),
            counts,
            cases,
        }
    }
}

impl Results {
    /// How many cases of a verdict are counted and have no entry: none of them is bad.
    fn untold(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let counts = self.counts;
        let counted = [
            ("pass", counts.pass),
            ("known", counts.known),
            ("skip", counts.skip),
        ];
        counted.into_iter().filter_map(|(word, count)| {
            let told = self.cases.iter().filter(|case| case.verdict == word);
            let more = count.saturating_sub(told.count());
            (more > 0).then_some((word, more))
        })
    }
}

impl Counts {
    fn total(&self) -> usize {
        let Self {
            pass,
            known,
            fixed,
            fail,
            skip,
            broken,
        } = self;
        pass + known + fixed + fail + skip + broken
    }

    fn of_verdict(&mut self, verdict: &Verdict) -> &mut usize {
        match verdict {
            Verdict::Pass => &mut self.pass,
            Verdict::Known(_) => &mut self.known,
            Verdict::Fixed(_) => &mut self.fixed,
            Verdict::Fail(_) => &mut self.fail,
            Verdict::Skip(_) => &mut self.skip,
            Verdict::Broken(_) => &mut self.broken,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pass,
            known,
            fixed,
            fail,
            skip,
            broken,
        } = self;
        write!(
            f,
            "{pass} pass, {known} known, {fixed} fixed, {fail} fail, {skip} skip, {broken} broken"
        )
    }
}

impl CaseResult {
    fn of(case: &Case, report: &Report) -> Self {
        let difference = |it: &verify::Difference| Difference::of(it, &case.scenario);
        let timeline = match (&report.control, &report.restored) {
            (Some(control), Some(restored)) => Some(timeline::picture(
                &case.scenario,
                &report.engine.to_string(),
                &verify::side_by_side(control, restored, &report.differences),
            )),
            _ => None,
        };
        Self {
            name: report.name.clone(),
            file: case.path.display().to_string(),
            engine: report.engine.to_string(),
            summary: case.scenario.summary.first().cloned().unwrap_or_default(),
            verdict: report.verdict.word(),
            reason: report.verdict.reason().map(str::to_owned),
            wall_us: micros(report.wall),
            times: report.times,
            differences: report.differences.iter().map(difference).collect(),
            losses: report.losses.clone(),
            text: report.rendered.clone(),
            repeat: format!(
                "notifreeze run {} {}",
                case.path.display(),
                report.engine.options()
            ),
            timeline,
        }
    }

    /// Whether somebody has to look at it.
    fn is_bad(&self) -> bool {
        matches!(self.verdict, "fail" | "fixed" | "broken")
    }

    /// The first line of the reason.
    fn headline(&self) -> &str {
        self.reason
            .as_deref()
            .and_then(|reason| reason.lines().next())
            .unwrap_or_default()
    }
}

impl Difference {
    fn of(difference: &verify::Difference, scenario: &Scenario) -> Self {
        let step = match difference.place {
            Place::Step(index) => Some(index),
            Place::End => None,
        };
        let text = |side: &Option<verify::Side>| side.as_ref().map(|side| side.text.clone());
        Self {
            step: step.map(|index| index + 1),
            line: step.map(|index| line_of(scenario, index)),
            kind: difference.kind.to_string(),
            invariant: difference.invariant.to_string(),
            object: difference.object.clone(),
            field: difference.field.clone(),
            control: text(&difference.control),
            restored: text(&difference.restored),
            unavoidable: difference.unavoidable.map(|rule| rule.to_string()),
            repeated: difference.repeated,
        }
    }
}

/// The line of a step in the canonical text, from 1.
fn line_of(scenario: &Scenario, index: usize) -> usize {
    let until = Scenario {
        steps: scenario.steps.iter().take(index + 1).cloned().collect(),
        tail: Vec::new(),
        ..scenario.clone()
    };
    scenario::print(&until).lines().count()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The form of a report, by the ending of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Html,
    Junit,
    Tap,
    Json,
}

impl Form {
    /// The form that a file name asks for.
    ///
    /// # Errors
    ///
    /// A sentence that names the endings that are known.
    pub fn of(path: &Path) -> Result<Self, String> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("html") => Ok(Self::Html),
            Some("xml") => Ok(Self::Junit),
            Some("tap") => Ok(Self::Tap),
            Some("json") => Ok(Self::Json),
            _ => Err(format!(
                "report {}: the ending says the form: .html, .xml (JUnit), .tap or .json",
                path.display()
            )),
        }
    }

    /// The text of the report.
    ///
    /// # Errors
    ///
    /// A sentence, if the results cannot be put into this form.
    pub fn print(self, results: &Results) -> Result<String, String> {
        match self {
            Self::Html => html::print(results).map_err(|error| format!("HTML: {error:#}")),
            Self::Junit => junit::print(results).map_err(|error| format!("JUnit: {error}")),
            Self::Tap => Ok(tap::print(results)),
            Self::Json => json::print(results).map_err(|error| format!("JSON: {error}")),
        }
    }
}

/// Reads the value of `--report`: a form that is not known and a folder that is not there are said
/// before anything runs.
///
/// # Errors
///
/// A sentence that names the endings that are known, or the folder.
pub fn path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    Form::of(&path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(format!(
            "report {text}: there is no folder {}; make it first",
            folder.display()
        )),
        _ => Ok(path),
    }
}

/// Writes a report.
///
/// # Errors
///
/// A sentence, if the form is not known or the file cannot be written.
pub fn write(path: &Path, results: &Results) -> Result<(), String> {
    let text = Form::of(path)?.print(results)?;
    std::fs::write(path, text).map_err(|error| format!("report {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
