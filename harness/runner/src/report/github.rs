//! What GitHub Actions shows: annotations at the lines of scenarios, and a summary of the job.

use std::fmt::Write as _;
use std::io::Write as _;

use fsnotify::counted;

use super::{CaseResult, Results};

/// GitHub shows ten annotations of a kind a step; more are noise in the log.
const MAX_ANNOTATIONS: usize = 10;
/// A summary may have 1 MiB; a text longer than this is cut.
const MAX_TEXT: usize = 20_000;

/// Appends the summary to the file that `GITHUB_STEP_SUMMARY` names, and gives the annotations to
/// print. Nothing outside of GitHub Actions.
///
/// # Errors
///
/// A sentence, if the summary cannot be written.
pub fn publish(results: &Results) -> Result<Option<String>, String> {
    if std::env::var_os("GITHUB_ACTIONS").is_none_or(|value| value != "true") {
        return Ok(None);
    }
    if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY") {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(summary(results).as_bytes()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(Some(annotations(results)))
}

/// Workflow commands, one a line.
#[must_use]
pub fn annotations(results: &Results) -> String {
    let mut out = String::new();
    let bad: Vec<&CaseResult> = results.cases.iter().filter(|case| case.is_bad()).collect();
    for case in bad.iter().take(MAX_ANNOTATIONS) {
        let line = case
            .differences
            .iter()
            .filter(|it| it.unavoidable.is_none())
            .find_map(|it| it.line);
        let title = format!("{} under {}: {}", case.name, case.engine, case.verdict);
        let command = format!(
            "::error file={},line={},title={}::{}\n",
            property(&case.file),
            line.unwrap_or(1),
            property(&title),
            message(case.reason.as_deref().unwrap_or_default()),
        );
        out.push_str(&command);
    }
    if bad.len() > MAX_ANNOTATIONS {
        out.push_str(&format!(
            "::notice::{} more\n",
            counted(bad.len() - MAX_ANNOTATIONS, "scenario")
        ));
    }
    out
}

fn message(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

/// Markdown.
#[must_use]
pub fn summary(results: &Results) -> String {
    let mut out = format!("### notifreeze: {}\n\n", results.counts);
    let told: Vec<&CaseResult> = results
        .cases
        .iter()
        .filter(|case| case.verdict != "pass")
        .collect();
    if !told.is_empty() {
        out.push_str("| verdict | scenario | engine | reason |\n|---|---|---|---|\n");
    }
    for case in &told {
        let row = [case.verdict, &case.name, &case.engine, case.headline()].map(cell);
        writeln!(out, "| {} |", row.join(" | ")).expect("a String takes everything");
    }
    for case in told.iter().filter(|case| case.is_bad()) {
        let Some(text) = &case.text else { continue };
        let end = text.floor_char_boundary(MAX_TEXT);
        let fence = fence(text);
        let details = format!(
            "\n<details><summary>{} under {}</summary>\n\n{fence}diff\n{}\n{fence}\n\n</details>\n",
            case.name,
            case.engine,
            text[..end].trim_end(),
        );
        out.push_str(&details);
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('\n', " ")
}

/// A fence that the text does not contain.
fn fence(text: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    fence
}
