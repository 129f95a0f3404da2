//! Reports of `run`, `generate` and `saboteur` in every form, and what GitHub Actions is told: all of
//! it by the program itself, as a user starts it.
//!
//! Where no sandbox can be had nothing is shown, and the reason is printed; `NOTIFREEZE_STRICT=1`
//! makes that a failure.

use std::path::PathBuf;
use std::process::Command;

use fsnotify::counted;
use serde_json::Value;

/// What a command left behind.
struct Reported {
    code: Option<i32>,
    output: String,
    html: String,
    junit: String,
    tap: String,
    json: Value,
    /// The summary of a job of GitHub Actions.
    summary: String,
}

/// Runs a command that writes reports; none, with a word about it, where nothing could be run.
fn reported(args: &[&str]) -> Option<Reported> {
    let folder = tempfile::tempdir().unwrap();
    let file = |ending: &str| folder.path().join(format!("report.{ending}"));
    let endings = ["html", "xml", "tap", "json"].map(file);
    let reports = endings
        .iter()
        .flat_map(|path| [PathBuf::from("--report"), path.clone()]);
    let output = Command::new(env!("CARGO_BIN_EXE_notifreeze"))
        .args(args)
        .args(reports)
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", file("md"))
        .output()
        .unwrap();
    let text = |ending: &str| std::fs::read_to_string(file(ending)).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(2), "{errors}");
    let json: Value = serde_json::from_str(&text("json")).unwrap();
    let counts = json["counts"].as_object().unwrap();
    if counts.iter().all(|(word, n)| word == "skip" || *n == 0) {
        let strict = std::env::var_os("NOTIFREEZE_STRICT").is_some_and(|value| value == "1");
        assert!(!strict, "{json:#}");
        eprintln!("skipped: {json:#}");
        return None;
    }
    Some(Reported {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        html: text("html"),
        junit: text("xml"),
        tap: text("tap"),
        json,
        summary: text("md"),
    })
}

#[track_caller]
fn check(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn a_run_is_reported() {
    let seen = reported(&["run", "scenarios/inotify/mask-added.scn"]);
    let Some(seen) = seen else { return };
    assert_eq!(seen.code, Some(0), "{}", seen.output);
    check(&seen.html, &["1 scenario in", "mask-added</span>"]);
    check(&seen.junit, &["tests=\"1\" skipped=\"0\" failures=\"0\""]);
    check(
        &seen.tap,
        &["1..1\nok 1 - inotify/mask-added under builtin"],
    );
    assert_eq!(seen.json["counts"]["pass"], 1);
    check(&seen.summary, &["### notifreeze: 1 pass, "]);
    assert!(!seen.output.contains("::error"), "{}", seen.output);
}

#[test]
fn generated_cases_that_hold_are_counted() {
    let Some(seen) = reported(&["generate", "--seed", "1", "--cases", "3"]) else {
        return;
    };
    assert_eq!(seen.code, Some(0), "{}", seen.output);
    // Some of them an ordinary user skips.
    let [n_passed, n_skipped] =
        ["pass", "skip"].map(|verdict| seen.json["counts"][verdict].as_u64().unwrap());
    assert_eq!(n_passed + n_skipped, 3);
    let n_kinds = u8::from(n_passed > 0) + u8::from(n_skipped > 0);
    check(&seen.html, &["3 scenarios in", "<span id=\"shown\">0<"]);
    let cases = counted(n_passed, "case");
    let counted = format!("testcase name=\"{cases}: pass\"");
    check(&seen.junit, &[&format!("tests=\"{n_kinds}\""), &counted]);
    let plan = format!("1..{n_kinds}\nok 1 - {cases} in one point");
    check(&seen.tap, &[&plan]);
    assert_eq!(seen.json["cases"], Value::Array(Vec::new()));
    let summary = format!("### notifreeze: {n_passed} pass, ");
    check(&seen.summary, &[&summary]);
}

#[test]
fn a_generated_case_that_fails_is_told_with_the_command_that_repeats_it() {
    let engine = ["--engine", "saboteur=drop-every-watch"];
    let seen = reported(&[&["generate", "--seed", "1", "--cases", "20"], &engine[..]].concat());
    let Some(seen) = seen else { return };
    assert_eq!(seen.code, Some(1), "{}", seen.output);
    let case = &seen.json["cases"][0];
    let name = case["name"].as_str().unwrap();
    let number = name.strip_prefix("generated/seed_1-case_").unwrap();
    let repeat = format!(
        "notifreeze generate --seed 1 --case {number} {}",
        engine.join(" ")
    );
    assert_eq!(case["repeat"], repeat.as_str());
    assert_eq!(seen.json["counts"]["fail"], 1);
    let short = name.strip_prefix("generated/").unwrap();
    check(&seen.html, &["class=\"box lost\"", short]);
    check(
        &seen.junit,
        &["failures=\"1\"", "<failure message=\"undeclared: ", name],
    );
    check(&seen.tap, &[&format!("\nnot ok 1 - {name} under saboteur")]);
    check(&seen.output, &[&format!("::error file={name}.scn,line=")]);
    check(&seen.summary, &["| fail | generated/", "```diff\n"]);
}

#[test]
fn a_planted_defect_passes_when_it_is_caught() {
    let few = ["scenarios/inotify", "--filter", "mask-added"];
    let seen = reported(&[&["saboteur", "--defect", "drop-"], &few[..]].concat());
    let Some(seen) = seen else { return };
    assert_eq!(seen.code, Some(1), "{}", seen.output);
    check(
        &seen.html,
        &["drop-last-watch</span>", "drop-mount-marks</span>"],
    );
    check(
        &seen.junit,
        &[
            "name=\"saboteur/drop-last-watch\"",
            "message=\"no scenario catches it\"",
        ],
    );
    check(
        &seen.tap,
        &[
            "\nok 1 - saboteur/drop-last-watch under saboteur=drop-last-watch\n",
            "  message: \"no scenario catches it\"\n  file: \"scenarios/inotify\"\n",
        ],
    );
    let cases = seen.json["cases"].as_array().unwrap();
    let case = |name: &str| cases.iter().find(|case| case["name"] == name).unwrap();
    let caught = case("saboteur/drop-last-watch");
    assert_eq!(caught["file"], "scenarios/inotify/mask-added.scn");
    let missed = case("saboteur/drop-mount-marks");
    assert_eq!(
        missed["summary"],
        "It is noticed that mount marks are gone."
    );
    assert_eq!(
        missed["repeat"],
        "notifreeze run scenarios/inotify --engine saboteur=drop-mount-marks"
    );
    check(
        &seen.output,
        &["::error file=scenarios/inotify,line=1,title=saboteur/drop-"],
    );
    check(&seen.summary, &["| fail | saboteur/drop-mount-marks |"]);
}
