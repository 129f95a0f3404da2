//! Texts with what is to come of them: the folder says whether a text is sound.
//!
//! `ok/NAME.scn` comes out as `ok/NAME.canonical`, or as itself where there is no such file.
//! `err/NAME.scn` gives the problems of `err/NAME.problems`. With `UPDATE_TEST_DATA=1` in the
//! environment the expected texts are written instead of compared.
#![expect(
    clippy::disallowed_methods,
    reason = "the cases are files; the crate under test reads none"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use scenario::{Call, Problem, parse_and_check, print};

#[test]
fn sound_texts_become_canonical() {
    for path in cases("ok") {
        let text = fs::read_to_string(&path).expect("a case is readable");
        let parsed = parse_and_check(&text)
            .unwrap_or_else(|problems| panic!("{}:\n{}", path.display(), list(&text, &problems)));
        let canonical = print(&parsed.scenario);
        let expected = path.with_extension("canonical");
        if canonical != text || expected.exists() {
            compare(&expected, &canonical);
        }
        let again = parse_and_check(&canonical).expect("canonical text is sound");
        assert_eq!(again.scenario, parsed.scenario, "{}", path.display());
    }
}

#[test]
fn unsound_texts_give_their_problems() {
    for path in cases("err") {
        let text = fs::read_to_string(&path).expect("a case is readable");
        let problems = parse_and_check(&text)
            .err()
            .unwrap_or_else(|| panic!("{}: no problem was found", path.display()));
        compare(&path.with_extension("problems"), &list(&text, &problems));
    }
}

#[test]
fn the_page_about_the_language_names_every_call() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/README.md");
    let page = fs::read_to_string(page).expect("the page is readable");
    for call in Call::ALL {
        let name = call.signature().name;
        let forms = [format!("`{name}`"), format!("`{name}(")];
        assert!(forms.iter().any(|form| page.contains(form)), "{name}");
    }
}

#[test]
fn the_example_on_the_page_is_canonical() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/README.md");
    let page = fs::read_to_string(page).expect("the page is readable");
    let lines = page.lines().skip_while(|line| !line.starts_with("    #"));
    let lines = lines.map_while(|line| line.strip_prefix("    "));
    let example: String = lines.flat_map(|line| [line, "\n"]).collect();
    let parsed = parse_and_check(&example).expect("the example is sound");
    assert_eq!(print(&parsed.scenario), example);
}

/// A problem a line: where, what, the offending text, and the help.
fn list(text: &str, problems: &[Problem]) -> String {
    let mut listed = String::new();
    for problem in problems {
        let (line, column) = problem.line_and_column(text);
        let span = &text[problem.span.clone()];
        let _ = writeln!(listed, "{line}:{column}: {} <{span}>", problem.kind);
        if let Some((span, label)) = problem.related() {
            let _ = writeln!(listed, "    {label}: <{}>", &text[span]);
        }
        if let Some(help) = problem.help() {
            let _ = writeln!(listed, "    help: {help}");
        }
    }
    listed
}

fn compare(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_TEST_DATA").is_some() {
        fs::write(path, actual).expect("test data is writable");
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(actual, expected, "{}", path.display());
}

fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("test_data")
        .join(folder);
    let entries = fs::read_dir(&folder).expect("test data is there");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder is readable").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "scn"))
        .collect();
    cases.sort();
    assert!(cases.len() > 5, "{}: are the cases gone?", folder.display());
    cases
}
