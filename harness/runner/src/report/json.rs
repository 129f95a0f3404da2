//! JSON, version 1: `docs/report.md` describes every field.

use super::Results;

pub(super) fn print(results: &Results) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(results)?;
    text.push('\n');
    Ok(text)
}
