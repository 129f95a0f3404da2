//! From text to a scenario: one line after the other, each error with its exact place.
//!
//! The grammar and the kinds of arguments are settled here. What needs more than one line to tell,
//! such as whether a name is bound, is for [`crate::check`].

mod argument;
mod header;
mod step;
mod value;

use std::ops::Range;

use crate::call::Call;
use crate::limits::{MAX_PROBLEMS, MAX_STEPS, MAX_TEXT};
use crate::problem::{Problem, ProblemKind};
use crate::step::{Arg, Name, Note, Scenario, Step};
use header::header_of;

/// A scenario, and where in the text its parts stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub scenario: Scenario,
    /// One for each step.
    pub places: Vec<StepPlace>,
    /// One for each requirement.
    pub requirement_spans: Vec<Range<usize>>,
}

/// Where the parts of a step stand: bytes of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlace {
    /// From 1.
    pub line: usize,
    /// The step without the space around it.
    pub whole: Range<usize>,
    /// What stands between the brackets of `[p]`.
    pub process: Option<Range<usize>>,
    pub call: Range<usize>,
    pub args: Vec<Range<usize>>,
    /// What stands behind the `=`.
    pub expect: Option<Range<usize>>,
}

/// Reads a scenario.
///
/// No panic and no more memory than a multiple of the text, whatever the text is.
///
/// # Errors
///
/// Every [`Problem`] that was found, in the order of the text, [`MAX_PROBLEMS`] at most.
pub fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    if text.len() > MAX_TEXT {
        let kind = ProblemKind::TooLong {
            n_bytes: text.len(),
            limit: MAX_TEXT,
        };
        return Err(vec![kind.at(0..0)]);
    }
    let mut reader = Reader::default();
    let mut start = 0;
    for line in text.split('\n') {
        let end = start + line.len();
        reader.n_lines += 1;
        let trimmed = start..start + line.trim_end().len();
        reader.line(text, trimmed);
        start = end + 1;
        if reader.problems.len() >= MAX_PROBLEMS {
            reader.problems.truncate(MAX_PROBLEMS);
            let here = start.min(text.len());
            reader
                .problems
                .push(ProblemKind::TooManyProblems.at(here..here));
            break;
        }
    }
    reader.finish()
}

/// Reads a scenario that can be run: [`parse`], then [`crate::check`].
///
/// # Errors
///
/// Those of `parse`, or, if it has none, those of `check`.
pub fn parse_and_check(text: &str) -> Result<Parsed, Vec<Problem>> {
    let parsed = parse(text)?;
    let problems = crate::check(&parsed);
    if problems.is_empty() {
        Ok(parsed)
    } else {
        Err(problems)
    }
}

/// How far the text has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Summary,
    Header,
    Steps,
}

#[derive(Debug, Default)]
struct Reader {
    parsed: Parsed,
    problems: Vec<Problem>,
    stage: Stage,
    n_lines: usize,
    /// Comments and blank lines since the last step.
    notes: Vec<(Note, Range<usize>)>,
    /// Calls that have not been resumed yet.
    unfinished: Vec<(Option<Name>, Call, Vec<Arg>)>,
}

impl Reader {
    fn line(&mut self, text: &str, line: Range<usize>) {
        let content = text[line.clone()].trim_start();
        let line = line.end - content.len()..line.end;
        if content.is_empty() {
            self.blank(line);
        } else if let Some(comment) = content.strip_prefix('#') {
            self.comment(comment.strip_prefix(' ').unwrap_or(comment), line);
        } else if let Some(header) = header_of(content) {
            self.header(text, line, header);
        } else if let Some(step) = self.step(text, line.clone()) {
            self.push_step(step, line);
        } else {
            self.stage = Stage::Steps;
            self.notes.clear();
        }
    }

    fn blank(&mut self, line: Range<usize>) {
        match (self.stage, self.notes.last()) {
            (Stage::Summary, None) if self.parsed.scenario.summary.is_empty() => {}
            (_, Some((Note::Blank, _))) => {}
            _ => self.notes.push((Note::Blank, line)),
        }
    }

    fn comment(&mut self, comment: &str, line: Range<usize>) {
        if self.stage == Stage::Summary && self.notes.is_empty() {
            self.parsed.scenario.summary.push(comment.to_owned());
        } else {
            self.notes.push((Note::Comment(comment.to_owned()), line));
        }
    }

    fn push_step(&mut self, (mut step, place): (Step, StepPlace), line: Range<usize>) {
        self.stage = Stage::Steps;
        step.notes = self.notes.drain(..).map(|(note, _)| note).collect();
        if self.parsed.scenario.steps.len() == MAX_STEPS {
            let kind = ProblemKind::Limit {
                what: "steps",
                limit: MAX_STEPS,
            };
            self.problems.push(kind.at(line));
        }
        self.parsed.scenario.steps.push(step);
        self.parsed.places.push(place);
    }

    fn finish(mut self) -> Result<Parsed, Vec<Problem>> {
        let mut tail: Vec<Note> = self.notes.drain(..).map(|(note, _)| note).collect();
        while tail.last() == Some(&Note::Blank) {
            tail.pop();
        }
        self.parsed.scenario.tail = tail;
        if self.problems.is_empty() {
            Ok(self.parsed)
        } else {
            self.problems.sort_by_key(|problem| problem.span.start);
            Err(self.problems)
        }
    }
}

/// The property of the language, for whoever has bytes to try: reading and printing never panic, a
/// problem lies within the text, and canonical text stands for the same scenario and for itself.
///
/// # Panics
///
/// If the property does not hold.
pub fn check_parse(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let parsed = match parse(text) {
        Ok(parsed) => parsed,
        Err(problems) => return check_problems(text, &problems),
    };
    check_problems(text, &crate::check(&parsed));
    let canonical = crate::print(&parsed.scenario);
    let again = parse(&canonical).expect("canonical text has no problem");
    assert_eq!(again.scenario, parsed.scenario, "{canonical}");
    assert_eq!(crate::print(&again.scenario), canonical);
}

fn check_problems(text: &str, problems: &[Problem]) {
    for problem in problems {
        assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
        assert!(!problem.kind.to_string().is_empty(), "{problem:?}");
        let (line, column) = problem.line_and_column(text);
        assert!(line > 0 && column > 0, "{problem:?}");
        if let Some((span, _)) = problem.related() {
            assert!(text.get(span).is_some(), "{problem:?}");
        }
        let _ = problem.help();
    }
}
