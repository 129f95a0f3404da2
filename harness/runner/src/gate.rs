//! Snapshots: what a scenario yields under an engine, kept beside the code and reviewed like it.
//!
//! The files are insta's, `snapshots/ENGINE/KIND/NAME.snap`, so `cargo insta review` works on them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::EngineSpec;
use crate::suite::Case;

/// The folder of snapshots that belongs to a folder of scenarios: its sibling `snapshots/`.
#[must_use]
pub fn folder(case: &Case, engine: &EngineSpec) -> Option<PathBuf> {
    let kind = case.path.parent()?;
    let suite = kind.parent()?;
    let name = kind.file_name()?;
    Some(
        suite
            .parent()?
            .join("snapshots")
            .join(engine.folder())
            .join(name),
    )
}

/// The path of a scenario's snapshot.
#[must_use]
pub fn path(case: &Case, engine: &EngineSpec) -> Option<PathBuf> {
    let stem = case.path.file_stem()?.to_str()?;
    Some(folder(case, engine)?.join(format!("{stem}.snap")))
}

/// The recorded text; none where nothing is recorded.
#[must_use]
pub fn recorded(case: &Case, engine: &EngineSpec) -> Option<String> {
    let text = fs::read_to_string(path(case, engine)?).ok()?;
    Some(content(&text).to_owned())
}

/// The part of a snapshot file behind insta's header.
fn content(text: &str) -> &str {
    text.strip_prefix("---\n")
        .and_then(|rest| rest.split_once("\n---\n"))
        .map_or(text, |(_, content)| content)
}

/// Writes the text as the snapshot, in the place of what was there.
///
/// # Errors
///
/// If the file cannot be written.
pub fn accept(case: &Case, engine: &EngineSpec, rendered: &str) -> std::io::Result<()> {
    write(case, engine, rendered, "snap")
}

/// Writes the text beside the snapshot, for `cargo insta review`.
///
/// # Errors
///
/// If the file cannot be written.
pub fn offer(case: &Case, engine: &EngineSpec, rendered: &str) -> std::io::Result<()> {
    write(case, engine, rendered, "snap.new")
}

fn write(case: &Case, engine: &EngineSpec, rendered: &str, ending: &str) -> std::io::Result<()> {
    let Some(path) = path(case, engine) else {
        return Ok(());
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let path = path.with_extension(ending);
    fs::write(
        &path,
        format!("---\nsource: {SOURCE}\n---\n{}\n", rendered.trim_end()),
    )
}

/// The test that a snapshot belongs to, as insta names it.
const SOURCE: &str = "tests/scenarios.rs";

/// Whether two renderings are the same but for space at the end.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    one.trim_end() == other.trim_end()
}

/// Whether a file of the snapshots folder is one (and not, say, a pending one).
#[must_use]
pub fn is_snapshot(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "snap")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_not_content() {
        assert_eq!(
            content("---\nsource: x\n---\ntext\n---\nmore\n"),
            "text\n---\nmore\n"
        );
        assert_eq!(content("plain"), "plain");
    }
}
