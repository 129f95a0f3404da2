//! Holds the rules of the house that no compiler holds: the edges between the crates, licences and
//! duplicates of what we depend on, the truth of the documents, the order among scenarios and
//! snapshots, and file names.
//!
//! Reads the source tree and `cargo metadata`, never the network, and runs no scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use notifreeze::engine::Defect;
use notifreeze::gate;
use serde_json::Value;

/// What each crate may depend on, of ours. A line more is a design change: its own commit, its own
/// reason, and a word in ARCHITECTURE.md.
const EDGES: [(&str, &[&str]); 7] = [
    ("fsnotify", &[]),
    ("scenario", &["fsnotify"]),
    ("verify", &["fsnotify", "scenario"]),
    ("cr", &["fsnotify"]),
    ("subject", &["cr", "fsnotify", "scenario"]),
    (
        "notifreeze",
        &[
            "cr",
            "fsnotify",
            // For tests: what fuzzing found is replayed by a plain `cargo test`.
            "notifreeze-fuzz",
            "scenario",
            "subject",
            "verify",
        ],
    ),
    (
        "notifreeze-fuzz",
        &["cr", "fsnotify", "notifreeze", "scenario", "verify"],
    ),
];

/// Documents whose paths have to exist.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "INVARIANTS.md",
    "scenarios/README.md",
];

/// Words that name no thing: a file called so collects what found no place.
const NAMES_NOT_USED: [&str; 7] = [
    "mod.rs",
    "util.rs",
    "utils.rs",
    "helper.rs",
    "helpers.rs",
    "common.rs",
    "manager.rs",
];

#[test]
fn crates_depend_only_on_what_the_map_allows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = EDGES
        .iter()
        .map(|(name, edges)| (*name, edges.iter().copied().collect()))
        .collect();
    let Some(metadata) = metadata(&["--no-deps"]) else {
        return;
    };
    let mut seen = BTreeSet::new();
    for package in array(&metadata["packages"]) {
        let name = text(&package["name"]);
        let allowed = allowed
            .get(name)
            .unwrap_or_else(|| panic!("crate `{name}` is not on the map in tests/house.rs"));
        seen.insert(name);
        for dependency in array(&package["dependencies"]) {
            let to = text(&dependency["name"]);
            let ours = EDGES.iter().any(|(name, _)| *name == to);
            assert!(
                !ours || allowed.contains(to),
                "{name} may not depend on {to}: see ARCHITECTURE.md"
            );
        }
    }
    let expected: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    assert_eq!(seen, expected, "the map names crates that are gone");
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allowed = list_in_deny_toml("allow");
    let mut used = BTreeSet::new();
    let Some(packages) = linked_packages() else {
        return;
    };
    for package in packages {
        let name = text(&package["name"]);
        let licence = package["license"]
            .as_str()
            .unwrap_or_else(|| panic!("{name} states no licence"));
        let all_of = licence.replace(['(', ')'], "").replace(" or ", " OR ");
        for part in all_of.split(" AND ") {
            let mut any_of = part.split(" OR ").flat_map(|word| word.split('/'));
            let found = any_of.find(|word| allowed.contains(word.trim()));
            let found = found.unwrap_or_else(|| panic!("{name}: `{licence}` is not in deny.toml"));
            used.insert(found.trim().to_owned());
        }
    }
    let unused: Vec<_> = allowed.difference(&used).collect();
    assert!(
        unused.is_empty(),
        "deny.toml allows what nothing needs: {unused:?}"
    );
}

#[test]
fn no_crate_is_linked_in_two_versions() {
    let tolerated = list_in_deny_toml("skip");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let Some(packages) = linked_packages() else {
        return;
    };
    for package in packages {
        let version = text(&package["version"]).to_owned();
        let name = text(&package["name"]).to_owned();
        versions.entry(name).or_default().insert(version);
    }
    let mut duplicates = BTreeSet::new();
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let old = versions.iter().find_map(|version| {
            let major = version.split('.').next()?;
            let skip = format!("{name}@{major}");
            tolerated.contains(&skip).then_some(skip)
        });
        let old = old.unwrap_or_else(|| panic!("{name} is linked as {versions:?}: see deny.toml"));
        duplicates.insert(old);
    }
    assert_eq!(duplicates, tolerated, "deny.toml tolerates what is gone");
}

#[test]
fn every_path_that_a_document_names_exists() {
    let mut missing = Vec::new();
    let mut n_paths = 0;
    for document in DOCUMENTS {
        let Ok(content) = fs::read_to_string(root().join(document)) else {
            missing.push(format!("{document}: is not there"));
            continue;
        };
        for (line, path) in paths_named_in(&content) {
            n_paths += 1;
            if !root().join(&path).exists() {
                missing.push(format!("{document}:{line}: `{path}` does not exist"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(
        n_paths > 20,
        "found only {n_paths} paths: is the search blind?"
    );
}

#[test]
fn the_readme_shows_a_scenario_and_a_snapshot_as_they_are() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let block = |fence: &str| {
        let open = format!("\n```{fence}\n");
        let start = readme.find(&open).expect("a block of this kind") + open.len();
        let length = readme[start..].find("```").expect("a block ends");
        &readme[start..start + length]
    };
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a file of the tree");
    let scenario = read("scenarios/inotify/mask-oneshot_unfired.scn");
    let lines = scenario.lines().filter(|line| !line.starts_with("known "));
    let scenario: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert_eq!(block(""), scenario);
    let snapshot = read("snapshots/criu/inotify/mask-oneshot_unfired.snap");
    let shown = block("diff");
    assert!(snapshot.contains(shown), "not in the snapshot:\n{shown}");
    let n_scenarios = files_below("scenarios", "scn").len();
    let summary = format!("\n    {n_scenarios} scenarios under criu ");
    assert!(
        readme.contains(&summary),
        "no summary of {n_scenarios} scenarios"
    );
}

/// The page is made by a command that runs the suite against each defect. Here it is held only that it
/// is about the defects that there are, and that what catches them is in the suite.
#[test]
fn the_page_of_defects_has_each_one_and_what_catches_it() {
    let page = fs::read_to_string(root().join("docs/defects.md")).expect("docs/defects.md");
    let rows = page.lines().filter(|line| line.starts_with('|')).skip(2);
    let mut told = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, what, scenario] = cells[..] else {
            panic!("not three cells: {row}");
        };
        let file = format!("scenarios/{scenario}.scn");
        assert!(root().join(&file).is_file(), "{name}: there is no {file}");
        told.push((name, what));
    }
    let planted: Vec<_> = Defect::all().map(|it| (it.name(), it.what())).collect();
    assert_eq!(told, planted, "`notifreeze saboteur` makes the table");
}

#[test]
fn every_crate_is_on_the_map() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let Some(metadata) = metadata(&["--no-deps"]) else {
        return;
    };
    for package in array(&metadata["packages"]) {
        let manifest = Path::new(text(&package["manifest_path"]));
        let folder = manifest.parent().expect("a manifest has a folder");
        let folder = folder.strip_prefix(root()).expect("a member is below root");
        if folder != Path::new("") {
            let heading = format!("### `{}`", folder.display());
            assert!(map.contains(&heading), "ARCHITECTURE.md lacks {heading}");
        }
    }
}

#[test]
fn every_scenario_says_what_must_hold() {
    for path in files_below("scenarios", "scn") {
        let content = fs::read(&path).expect("a scenario is readable");
        let first = content.split(|byte| *byte == b'\n').next().unwrap_or(b"");
        let first = String::from_utf8_lossy(first);
        let sentence = first.strip_prefix("# ").unwrap_or_else(|| {
            panic!("{}:1: starts without a sentence", path.display());
        });
        assert!(
            sentence.ends_with('.') && sentence.starts_with(char::is_alphanumeric),
            "{}:1: `{sentence}` is no sentence",
            path.display()
        );
    }
}

#[test]
fn every_scenario_is_canonical() {
    let mut wrong = Vec::new();
    let paths = files_below("scenarios", "scn");
    for path in &paths {
        let text = fs::read_to_string(path).expect("a scenario is readable");
        let name = path.strip_prefix(root()).expect("below root").display();
        match scenario::parse_and_check(&text) {
            Err(problems) => {
                for problem in problems {
                    let (line, column) = problem.line_and_column(&text);
                    wrong.push(format!("{name}:{line}:{column}: {}", problem.kind));
                }
            }
            Ok(parsed) => {
                let canonical = scenario::print(&parsed.scenario);
                let differs = text.lines().zip(canonical.lines());
                let differs = differs
                    .zip(1..)
                    .find(|((found, wanted), _)| found != wanted);
                if let Some(((_, wanted), line)) = differs {
                    wrong.push(format!("{name}:{line}: is not canonical: `{wanted}`"));
                } else if text != canonical {
                    wrong.push(format!(
                        "{name}: ends in another way than the canonical text"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(paths.len() > 100, "found only {} scenarios", paths.len());
}

#[test]
fn scenarios_have_names_that_differ() {
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files_below("scenarios", "scn") {
        let relative = path.strip_prefix(root()).expect("below root");
        let stem = relative.file_stem().expect("a file").to_string_lossy();
        assert!(
            stem.contains('-') && stem.bytes().all(is_name_byte),
            "{}: a scenario is called <object>-<behaviour>.scn",
            relative.display()
        );
        let folder = relative.parent().expect("a folder").display();
        let key = format!("{folder}/{}", stem.replace('_', "-"));
        if let Some(other) = seen.insert(key, path.clone()) {
            panic!(
                "{} and {} differ in hyphens only",
                path.display(),
                other.display()
            );
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
}

#[test]
fn every_snapshot_has_its_scenario() {
    for path in files_below("snapshots", "snap") {
        let below = path.strip_prefix(root().join("snapshots")).expect("below");
        let scenario: PathBuf = below.iter().skip(1).collect();
        let stem = scenario.file_stem().expect("a name").to_string_lossy();
        let name = gate::scenario_of(&stem);
        let scenario = root()
            .join("scenarios")
            .join(scenario.with_file_name(name))
            .with_extension("scn");
        assert!(
            scenario.exists(),
            "{}: no scenario produces it",
            path.display()
        );
        let engine = below.iter().next().expect("a folder").to_string_lossy();
        let header = format!("\nknown {engine} ");
        let text = fs::read_to_string(&scenario).expect("a scenario");
        assert!(
            name == stem || text.contains(&format!("{header}races ")),
            "{}: the scenario does not say that {engine} races",
            path.display()
        );
    }
}

#[test]
fn no_source_file_has_a_name_that_says_nothing() {
    for folder in ["harness", "fuzz", "tests"] {
        for path in files_below(folder, "rs") {
            let name = path.file_name().expect("a file").to_string_lossy();
            // What several test programs of one crate share has to be a `mod.rs`: cargo takes any
            // other file of `tests/` for a test program of its own.
            let shared = path
                .ancestors()
                .nth(2)
                .is_some_and(|folder| folder.ends_with("tests"));
            assert!(
                (name == "mod.rs" && shared) || !NAMES_NOT_USED.contains(&name.as_ref()),
                "{}: name it after what it holds (CONTRIBUTING.md)",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_code_stays_in_cr() {
    for path in files_below("harness", "rs") {
        if !path.ends_with("src/lib.rs") || path.ends_with("harness/cr/src/lib.rs") {
            continue;
        }
        let content = fs::read_to_string(&path).expect("a source file is readable");
        assert!(
            content.contains("#![forbid(unsafe_code)]"),
            "{}: lacks #![forbid(unsafe_code)]",
            path.display()
        );
    }
}

#[test]
fn pure_crates_forbid_files_processes_clocks_and_threads() {
    for name in ["fsnotify", "scenario", "verify"] {
        let path = root().join("harness").join(name).join("clippy.toml");
        let rules = fs::read_to_string(&path).unwrap_or_default();
        for word in [
            "thread::sleep",
            "thread::spawn",
            "fs::File",
            "process::Command",
            "time::Instant",
        ] {
            assert!(
                rules.contains(&format!("\"std::{word}\"")),
                "{}: allows {word}",
                path.display()
            );
        }
    }
}

#[test]
fn paths_are_found_in_text() {
    let text = "See `harness/cr` and [x](CHANGELOG.md#y).\n`/proc/self/fd` `a/b` `deny.toml`,\n";
    let found = paths_named_in(text);
    let expected = [(1, "harness/cr"), (1, "CHANGELOG.md"), (2, "deny.toml")];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

/// Paths of the source tree in a document, each with its line: targets of links, and what stands
/// between backquotes and starts with a folder of ours or ends as a file at the root does.
fn paths_named_in(document: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in document.lines().enumerate() {
        let quoted = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| is_our_path(word));
        let linked = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let linked = linked
            .map(|target| target.split('#').next().unwrap_or_default())
            .filter(|target| !target.is_empty() && !target.contains("://"));
        for path in quoted.chain(linked) {
            found.push((index + 1, path.to_owned()));
        }
    }
    found
}

fn is_our_path(word: &str) -> bool {
    const FOLDERS: [&str; 10] = [
        "harness",
        "fuzz",
        "scenarios",
        "snapshots",
        "tests",
        "benches",
        "ci",
        ".ci",
        ".github",
        "docs",
    ];
    const ENDINGS: [&str; 5] = [".md", ".toml", ".rs", ".yml", ".svg"];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let first = word.split('/').next().unwrap_or_default();
    let in_folder = word.contains('/') && FOLDERS.contains(&first);
    let at_root = !word.contains('/') && ENDINGS.iter().any(|ending| word.ends_with(ending));
    !word.is_empty() && word.bytes().all(plain) && (in_folder || at_root)
}

/// The quoted words of a list in deny.toml.
fn list_in_deny_toml(key: &str) -> BTreeSet<String> {
    let content = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let start = content
        .find(&format!("\n{key} = ["))
        .unwrap_or_else(|| panic!("deny.toml has no list `{key}`"));
    let list = content[start..].split("\n]").next().unwrap_or_default();
    let lines = list
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    lines
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .map(ToOwned::to_owned)
        .collect()
}

/// Every package that is linked into a program of ours on this platform, build scripts included;
/// none where this user has no packages to look at.
fn linked_packages() -> Option<Vec<Value>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    if !home.is_some_and(|home| home.join("registry").is_dir()) {
        skip("this user has no packages");
        return None;
    }
    let metadata = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"])?;
    let nodes = array(&metadata["resolve"]["nodes"]);
    let linked: BTreeSet<&str> = nodes.iter().map(|node| text(&node["id"])).collect();
    let packages = array(&metadata["packages"]).iter();
    let packages = packages.filter(|package| linked.contains(text(&package["id"])));
    Some(packages.cloned().collect())
}

/// None where this user may not start cargo.
fn metadata(arguments: &[&str]) -> Option<Value> {
    // The cargo of the machine that runs the test, which need not be the one that built it.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            skip(&format!("cargo does not start: {error}"));
            return None;
        }
    };
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {message}");
    Some(serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON"))
}

fn skip(reason: &str) {
    let strict = std::env::var_os("NOTIFREEZE_STRICT").is_some_and(|value| value == "1");
    assert!(!strict, "{reason}");
    eprintln!("skipped: {reason}");
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a folder of the root with this extension, in order; none if the folder is absent.
fn files_below(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
