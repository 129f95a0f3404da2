//! The scenario files: found, read and named.

use std::fs;
use std::path::{Path, PathBuf};

use scenario::Scenario;

/// A scenario file.
#[derive(Clone, Debug)]
pub struct Case {
    /// Path below the suite's folder without its ending, parts joined by `/`:
    /// `inotify/ghost-two_files`.
    pub name: String,
    pub path: PathBuf,
    pub scenario: Scenario,
}

/// A file that could not be read or does not parse.
#[derive(Debug)]
pub struct Unreadable {
    pub path: PathBuf,
    /// Text of the file, for a report that shows the lines.
    pub text: String,
    pub problem: Problem,
}

#[derive(Debug)]
pub enum Problem {
    Io(std::io::Error),
    Parse(Vec<scenario::Problem>),
}

/// Ending of scenario files.
pub const ENDING: &str = "scn";

/// What to do where the scenarios are not.
const NO_SCENARIOS: &str = "; name a scenario or a folder of them, or go to where a folder \
    scenarios is, as in the source of notifreeze; `notifreeze record -o x.scn -- COMMAND` makes one";

/// Every scenario file below the given files and folders, in order of path.
///
/// # Errors
///
/// If a folder cannot be listed or a path does not exist.
pub fn find(paths: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        collect(path, &mut found).map_err(|error| {
            let next = match error.kind() {
                std::io::ErrorKind::NotFound => NO_SCENARIOS,
                _ => "",
            };
            std::io::Error::new(error.kind(), format!("{}: {error}{next}", path.display()))
        })?;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        found.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|ending| ending == ENDING) {
            collect(&path, found)?;
        }
    }
    Ok(())
}

/// Reads every scenario below `paths` whose name contains `filter`.
///
/// # Errors
///
/// A sentence, if a path does not exist or cannot be listed.
pub fn select(
    paths: &[PathBuf],
    filter: Option<&str>,
) -> Result<(Vec<Case>, Vec<Unreadable>), String> {
    let mut cases = Vec::new();
    let mut unreadable = Vec::new();
    for path in find(paths).map_err(|error| error.to_string())? {
        match read(&path) {
            Ok(case) if filter.is_none_or(|filter| case.name.contains(filter)) => cases.push(case),
            Ok(_) => {}
            Err(problem) => unreadable.push(problem),
        }
    }
    Ok((cases, unreadable))
}

/// Reads and parses one file.
///
/// # Errors
///
/// [`Unreadable`], with the text where there is one.
pub fn read(path: &Path) -> Result<Case, Unreadable> {
    let unreadable = |text: String, problem| Unreadable {
        path: path.to_path_buf(),
        text,
        problem,
    };
    let text =
        fs::read_to_string(path).map_err(|error| unreadable(String::new(), Problem::Io(error)))?;
    match scenario::parse_and_check(&text) {
        Ok(parsed) => Ok(Case {
            name: name(path),
            path: path.to_path_buf(),
            scenario: parsed.scenario,
        }),
        Err(errors) => Err(unreadable(text, Problem::Parse(errors))),
    }
}

/// The last folder and the file's name: what tells scenarios of one suite apart.
fn name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match path.parent().and_then(Path::file_name) {
        Some(folder) => format!("{}/{stem}", folder.to_string_lossy()),
        None => stem.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_named_by_folder_and_file() {
        assert_eq!(name(Path::new("scenarios/inotify/a-b.scn")), "inotify/a-b");
        assert_eq!(name(Path::new("a-b.scn")), "a-b");
    }

    #[test]
    fn who_names_what_is_not_there_is_told_what_to_do() {
        let reason = find(&[PathBuf::from("not-there.scn")]).expect_err("nothing is there");
        let reason = reason.to_string();
        assert!(reason.starts_with("not-there.scn: "), "{reason}");
        assert!(reason.contains("; name a scenario or a folder"), "{reason}");
    }
}
