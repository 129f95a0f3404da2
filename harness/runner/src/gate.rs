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

/// Outcomes of one race that are recorded at most: what comes out in more ways says nothing.
pub const MOST_OUTCOMES: usize = 9;

/// The recorded text, of a race that of its first outcome; none where nothing is recorded.
#[must_use]
pub fn recorded(case: &Case, engine: &EngineSpec) -> Option<String> {
    outcomes(case, engine).into_iter().next()
}

/// The recorded texts: none where nothing is recorded, several where the scenario says of this engine
/// that it `races`, each outcome in a file of its own, `NAME.2.snap` beside `NAME.snap`.
#[must_use]
pub fn outcomes(case: &Case, engine: &EngineSpec) -> Vec<String> {
    let texts = paths(case, engine).into_iter();
    texts
        .map_while(|path| fs::read_to_string(path).ok())
        .map(|text| content(&text).to_owned())
        .collect()
}

/// Where outcomes are recorded, the first one first.
fn paths(case: &Case, engine: &EngineSpec) -> Vec<PathBuf> {
    let races = case.scenario.known.iter();
    let races = races
        .filter(|known| engine.is_meant(known))
        .any(|known| known.races);
    let n_most = if races { MOST_OUTCOMES } else { 1 };
    let Some(first) = path(case, engine) else {
        return Vec::new();
    };
    let others = (2..=n_most).map(|number| first.with_extension(format!("{number}.snap")));
    std::iter::once(first.clone()).chain(others).collect()
}

/// The name of the scenario that a snapshot is of, from the stem of its file: `NAME.2` is an outcome of
/// `NAME`. What names scenarios have, a test of the tree checks.
#[must_use]
pub fn scenario_of(stem: &str) -> &str {
    stem.split('.').next().unwrap_or(stem)
}

/// The part of a snapshot file behind insta's header.
fn content(text: &str) -> &str {
    text.strip_prefix("---\n")
        .and_then(|rest| rest.split_once("\n---\n"))
        .map_or(text, |(_, content)| content)
}

/// Writes the text as the snapshot, in the place of what was there; of a race, beside what was there.
///
/// # Errors
///
/// If the file cannot be written, or a race has more outcomes than can be recorded.
pub fn accept(case: &Case, engine: &EngineSpec, rendered: &str) -> std::io::Result<()> {
    let recorded = outcomes(case, engine);
    if recorded.iter().any(|text| same(text, rendered)) {
        return Ok(());
    }
    let paths = paths(case, engine);
    match paths.get(recorded.len()).or(paths.first()) {
        Some(_) if paths.len() > 1 && recorded.len() == paths.len() => Err(std::io::Error::other(
            format!("a race of more than {MOST_OUTCOMES} outcomes"),
        )),
        Some(path) => write(path, rendered),
        None => Ok(()),
    }
}

/// Writes the text beside the snapshot, for `cargo insta review`.
///
/// # Errors
///
/// If the file cannot be written.
pub fn offer(case: &Case, engine: &EngineSpec, rendered: &str) -> std::io::Result<()> {
    match path(case, engine) {
        Some(path) => write(&path.with_extension("snap.new"), rendered),
        None => Ok(()),
    }
}

fn write(path: &Path, rendered: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(
        path,
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

/// Whether two renderings are the same but for what bystanders are bound to hear. Who may be asked
/// about openings restores with less of it than who may not, and snapshots are of the former.
#[must_use]
pub fn same_but_for_unavoidable(one: &str, other: &str) -> bool {
    fn rest(text: &str) -> impl Iterator<Item = &str> {
        let bound = |line: &&str| {
            line.trim_start().starts_with("bystander ") && line.contains(" unavoidable U")
        };
        text.trim_end().lines().filter(move |line| !bound(line))
    }
    rest(one).eq(rest(other))
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

    #[test]
    fn only_what_is_unavoidable_may_be_more() {
        let less = "checkpoint {\n  fd 3 \"a\"\n}\n";
        let more =
            "checkpoint {\n  fd 3 \"a\"\n  bystander \"d\": IN_MODIFY \"#\"   unavoidable U9\n}\n";
        assert!(same_but_for_unavoidable(less, more));
        assert!(!same(less, more));
        let spurious = more.replace("unavoidable U9", "spurious I8.1");
        assert!(!same_but_for_unavoidable(less, &spurious));
    }
}
