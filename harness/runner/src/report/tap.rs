//! TAP, version 14: one test point a scenario. `Known` is a TODO that does not pass yet, as TAP
//! means it; everything else that is said of a point stands in its YAML block.

use std::fmt::Write as _;

use fsnotify::counted;

use super::{CaseResult, Results};

/// Differences shown in the block of one point: the text has them all.
const MAX_DIFFERENCES: usize = 20;

pub(super) fn print(results: &Results) -> String {
    let n_points = results.cases.len() + results.untold().count();
    let mut out = format!("TAP version 14\n1..{n_points}\n");
    for (number, case) in (1..).zip(&results.cases) {
        point(number, case, &mut out).expect("a String takes everything");
    }
    for (number, (verdict, count)) in (results.cases.len() + 1..).zip(results.untold()) {
        let (ok, directive) = match verdict {
            "known" => ("not ok", " # TODO each differs as is known"),
            "skip" => ("ok", " # SKIP none of them was run"),
            _ => ("ok", ""),
        };
        let cases = counted(count, "case");
        let line = format!("{ok} {number} - {cases} in one point{directive}\n");
        out.push_str(&line);
    }
    out
}

fn point(number: usize, case: &CaseResult, out: &mut String) -> std::fmt::Result {
    let ok = if matches!(case.verdict, "pass" | "skip") {
        "ok"
    } else {
        "not ok"
    };
    let what = escape(&format!("{} under {}", case.name, case.engine));
    write!(out, "{ok} {number} - {what}")?;
    match case.verdict {
        "skip" => write!(out, " # SKIP {}", escape(case.headline()))?,
        "known" => write!(out, " # TODO {}", escape(case.headline()))?,
        _ => {}
    }
    writeln!(out)?;
    if case.verdict == "pass" {
        return Ok(());
    }
    writeln!(out, "  ---\n  verdict: {}", case.verdict)?;
    if let Some(reason) = &case.reason {
        writeln!(out, "  message: {}", quoted(reason))?;
    }
    writeln!(
        out,
        "  file: {}\n  repeat: {}",
        quoted(&case.file),
        quoted(&case.repeat)
    )?;
    writeln!(out, "  duration_ms: {}", case.wall_us / 1000)?;
    let told: Vec<_> = case
        .differences
        .iter()
        .filter(|it| it.unavoidable.is_none())
        .collect();
    if !told.is_empty() {
        writeln!(out, "  differences:")?;
    }
    for it in told.iter().take(MAX_DIFFERENCES) {
        let field = it.field.as_deref().unwrap_or("");
        let sides = [&it.control, &it.restored].map(|side| side.as_deref().unwrap_or("none"));
        let text = format!(
            "{} {} {} {field} control: {} restored: {}",
            it.invariant, it.kind, it.object, sides[0], sides[1]
        );
        writeln!(out, "    - {}", quoted(&text))?;
    }
    if told.len() > MAX_DIFFERENCES {
        writeln!(
            out,
            "    - {}",
            quoted(&format!("{} more", told.len() - MAX_DIFFERENCES))
        )?;
    }
    writeln!(out, "  ...")
}

/// `#` begins a directive.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('#', "\\#")
        .replace('\n', " ")
}

/// A string of YAML: those of JSON are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
