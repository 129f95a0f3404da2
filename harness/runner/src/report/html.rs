//! One HTML file that needs no other: summary, a table that can be filtered, and for each scenario
//! the picture of its two runs and their text.

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, context};
use serde::Serialize;

use super::{CaseResult, Results};

const PAGE: &str = include_str!("page.html");

/// A line of a text, and what colour it has.
#[derive(Serialize)]
struct Line<'a> {
    class: &'static str,
    text: &'a str,
}

/// A case with what only a page has.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    case: &'a CaseResult,
    id: String,
    headline: &'a str,
    wall_ms: u64,
    lines: Vec<Line<'a>>,
    timeline: Option<&'a str>,
    /// Groups of invariants that are broken, each `I4`.
    groups: Vec<String>,
    n_defects: usize,
}

pub(super) fn print(results: &Results) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page.html", PAGE)?;
    let cases: Vec<Entry<'_>> = results.cases.iter().enumerate().map(entry).collect();
    let groups: Vec<_> = verify::invariant::GROUPS
        .iter()
        .zip(1..)
        .map(|(title, number)| context! { name => format!("I{number}"), title => *title })
        .collect();
    let invariants: Vec<_> = verify::invariant::TABLE
        .iter()
        .map(|(invariant, sentence)| context! { name => invariant.to_string(), sentence => *sentence })
        .collect();
    environment.get_template("page.html")?.render(context! {
        program => results.program.as_str(),
        wall => wall(results.wall_us),
        counts => Value::from(Serde(results.counts)),
        n_cases => results.counts.total(),
        n_told => results.cases.len(),
        cases => Value::from(Serde(&cases)),
        groups => groups,
        invariants => invariants,
    })
}

/// Seconds, or less than one as milliseconds.
fn wall(wall_us: u64) -> String {
    match wall_us {
        0..1_000_000 => format!("{} ms", wall_us / 1000),
        _ => format!("{}.{} s", wall_us / 1_000_000, wall_us / 100_000 % 10),
    }
}

fn entry((index, case): (usize, &CaseResult)) -> Entry<'_> {
    let defects = case
        .differences
        .iter()
        .filter(|it| it.unavoidable.is_none());
    let mut groups: Vec<String> = defects
        .clone()
        .filter_map(|it| it.invariant.split('.').next().map(str::to_owned))
        .collect();
    let n_defects = groups.len();
    groups.sort_by_key(|group| (group.len(), group.clone()));
    groups.dedup();
    Entry {
        case,
        id: format!("case-{index}"),
        headline: case.headline(),
        wall_ms: case.wall_us / 1000,
        lines: case
            .text
            .iter()
            .flat_map(|text| text.lines())
            .map(line)
            .collect(),
        timeline: case.timeline.as_deref(),
        groups,
        n_defects,
    }
}

fn line(text: &str) -> Line<'_> {
    let class = match text.as_bytes().first() {
        Some(b'-') => "minus",
        Some(b'+') => "plus",
        Some(b'#') => "note",
        _ if text.starts_with("checkpoint") => "cut",
        _ => "",
    };
    Line { class, text }
}
