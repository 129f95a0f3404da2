//! The HTML report in a real browser, headless: it opens without an error, its script runs, and its
//! filters hide what they should. That is shown on a run that has one of everything, and on a real
//! one: of the whole suite under CRIU, whose page `NOTIFREEZE_REPORT` names (`.ci/run` makes one).
//!
//! Skipped with a reason where there is no Chromium; `NOTIFREEZE_STRICT=1` makes that a failure.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fsnotify::inotify::Mask;
use notifreeze::case::Report;
use notifreeze::engine::EngineSpec;
use notifreeze::job::Times;
use notifreeze::report::{self, Results};
use notifreeze::suite::{self, Case};
use scenario::{
    Bystander, Bytes, Event, Fact, Loss, Object, Observation, Outcome, Place, Transcript, Watch,
};
use serde_json::Value;
use verify::Verdict;

const SCENARIO: &str = include_str!("../scenarios/inotify/ghost-two_files.scn");
const CHECKPOINT: usize = 8;
const READ: usize = 11;

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The browser, or none with a reason printed.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        let reason = format!("none of {} in PATH", NAMES.join(", "));
        assert!(std::env::var_os("NOTIFREEZE_STRICT").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
    }
    found
}

/// Runs the browser without a window.
fn browse(program: &Path, profile: &Path, args: &[&OsStr]) -> Vec<u8> {
    let output = Command::new(program)
        // Its own sandbox needs what a container may lack; the page is ours.
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--hide-scrollbars",
            "--allow-file-access-from-files",
            "--virtual-time-budget=5000",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(args)
        .output()
        .expect("the browser starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(!errors.contains("Uncaught"), "{errors}");
    output.stdout
}

/// A page, opened anew for every question.
struct Page {
    browser: PathBuf,
    profile: tempfile::TempDir,
    path: PathBuf,
}

impl Page {
    fn new(browser: PathBuf, path: &Path) -> Self {
        let path = std::path::absolute(path).expect("a working directory");
        let profile = tempfile::tempdir().expect("a temporary folder");
        Self {
            browser,
            profile,
            path,
        }
    }

    /// Its elements once its script has run, the address having these words at its end.
    fn dom(&self, query: &str) -> String {
        let address = format!("file://{}{query}", self.path.display());
        let args = [OsStr::new("--dump-dom"), OsStr::new(&address)];
        let dom = browse(&self.browser, self.profile.path(), &args);
        let dom = String::from_utf8(dom).expect("UTF-8");
        let is_ready = dom.contains("data-ready=\"yes\"");
        assert!(is_ready, "{query}: the script did not run to its end");
        dom
    }
}

fn event(wd: i32, mask: u32, name: &str) -> Fact {
    Fact::Event(Event {
        fd: None,
        wd,
        mask: Mask(mask),
        cookie: 0,
        name: Bytes::from(name),
    })
}

fn transcript(cut: Vec<Fact>, read: Vec<Fact>) -> Transcript {
    let results = [0, 3, 4, 5, 1, 2, 3, 0, 0].map(Outcome::Value);
    let rest = [
        Outcome::None,
        Outcome::Value(4),
        Outcome::Value(0),
        Outcome::Value(64),
    ];
    let mut observations: Vec<Observation> = results
        .into_iter()
        .chain(rest)
        .enumerate()
        .map(|(index, outcome)| Observation {
            place: Place::Step(index),
            outcome,
            facts: Vec::new(),
        })
        .collect();
    observations[CHECKPOINT + 1].facts = cut;
    observations[READ + 1].facts = read;
    Transcript { observations }
}

fn watch(wd: i32, mask: u32) -> Fact {
    let target = Object::Ghost(Bytes::from("dir/b"));
    Fact::Watch(Watch {
        process: None,
        fd: 5,
        wd,
        target,
        mask: Mask(mask),
    })
}

/// A run with every kind of difference: the control queue and watches, and what became of them.
fn differing() -> (Transcript, Transcript) {
    let queue = [
        event(2, 0x4, ""),
        event(1, 0x200, "a"),
        event(3, 0x4, ""),
        event(1, 0x200, "b"),
        event(1, 0x2, "a"),
        event(2, 0x2, ""),
        event(1, 0x8, "b"),
    ];
    let control = transcript(vec![watch(3, 0x0400_0fff)], queue.to_vec());
    let heard = Bystander {
        watched: Some(Object::Path(Bytes::from("dir"))),
        mask: Mask(0x200),
        name: Bytes::from("b.cr.1.ghost"),
    };
    let restored = transcript(
        vec![watch(3, 0xfff), Fact::Bystander(heard)],
        vec![
            queue[1].clone(),
            queue[0].clone(),
            event(1, 0x200, "b.cr.1.ghost"),
            queue[4].clone(),
        ],
    );
    (control, restored)
}

fn results() -> Results {
    let scenario = scenario::parse(SCENARIO).expect("it parses").scenario;
    let verdicts = [
        Verdict::Pass,
        Verdict::Fail("undeclared: an event".to_owned()),
        Verdict::Known("criu drops what is unread".to_owned()),
        Verdict::Skip("needs root".to_owned()),
    ];
    let reports: Vec<(Case, Report)> = verdicts
        .into_iter()
        .map(|verdict| {
            let (control, restored) = differing();
            let name = format!("inotify/{}", verdict.word());
            let differences = verify::diff(&scenario, &control, &restored);
            let rendered = verify::render(&scenario, &control, &restored, &differences);
            let differs = matches!(verdict, Verdict::Fail(_) | Verdict::Known(_));
            let report = Report {
                name: name.clone(),
                engine: EngineSpec::Builtin,
                verdict,
                refused: false,
                differences: if differs { differences } else { Vec::new() },
                rendered: differs.then_some(rendered),
                recorded: None,
                control: differs.then_some(control),
                restored: differs.then_some(restored),
                losses: vec![Loss {
                    kind: Some("queue-dropped".to_owned()),
                    invariant: 4,
                    object: "queue of fd 5: 4 events".to_owned(),
                    reason: "not carried over".to_owned(),
                }],
                notes: Vec::new(),
                wall: Duration::from_millis(15),
                times: Times::default(),
            };
            let case = Case {
                path: PathBuf::from(format!("scenarios/{name}.scn")),
                name,
                scenario: scenario.clone(),
            };
            (case, report)
        })
        .collect();
    let wall = Duration::from_millis(60);
    Results::of(reports.iter().map(|(case, report)| (case, report)), wall)
}

/// What the page has of each scenario, in a DOM that the browser printed.
fn entries(dom: &str) -> impl Iterator<Item = &str> {
    let cases = dom.split_once("<details class=\"legend\"");
    let cases = cases.expect("the scenarios end at the legend").0;
    cases.split("<details id=\"case-").skip(1)
}

/// Names of the scenarios that the page shows.
fn shown(dom: &str) -> Vec<&str> {
    let visible = entries(dom).filter(|entry| {
        let tag = entry.split_once('>').map_or("", |(tag, _)| tag);
        !tag.contains("hidden")
    });
    visible
        .filter_map(|entry| entry.split_once("class=\"name\">")?.1.split_once('<'))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn the_report_opens_and_filters_in_a_browser() {
    let Some(program) = chromium() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("report.html");
    report::write(&file, &results()).expect("it writes");
    let page = Page::new(program, &file);
    let every = [
        "inotify/pass",
        "inotify/fail",
        "inotify/known",
        "inotify/skip",
    ];
    assert_eq!(shown(&page.dom("")), every);
    assert_eq!(
        shown(&page.dom("?verdict=fail,known")),
        ["inotify/fail", "inotify/known"]
    );
    assert_eq!(
        shown(&page.dom("?group=I6")),
        ["inotify/fail", "inotify/known"]
    );
    let none = page.dom("?group=I9");
    assert_eq!(shown(&none), [""; 0]);
    assert!(none.contains("<p id=\"none\" class=\"dim\">No scenario"));
    assert_eq!(shown(&page.dom("?text=unread+CRIU")), ["inotify/known"]);
    let opened = page.dom("#case-1");
    assert!(
        opened.contains("open=\"\""),
        "the address does not open the scenario"
    );
}

/// The page of a run of the whole suite under CRIU, and the same run as JSON, which lies beside it.
fn full_run() -> Option<(PathBuf, Value)> {
    let Some(page) = std::env::var_os("NOTIFREEZE_REPORT").map(PathBuf::from) else {
        // Not a want of the machine, but of the caller.
        eprintln!(
            "skipped: NOTIFREEZE_REPORT names no page of a run under CRIU, made by: notifreeze run \
             --engine criu --report target/criu.html --report target/criu.json"
        );
        return None;
    };
    let json = page.with_extension("json");
    let text = std::fs::read(&json).unwrap_or_else(|error| panic!("{}: {error}", json.display()));
    Some((page, serde_json::from_slice(&text).expect("JSON")))
}

/// Whether a difference of this kind is a defect in the case.
fn has_defect(case: &Value, is: impl Fn(&Value) -> bool) -> bool {
    let mut differences = case["differences"].as_array().expect("a list").iter();
    differences.any(|it| it["unavoidable"].is_null() && is(it))
}

#[test]
fn the_report_of_the_suite_under_criu_opens_and_filters_in_a_browser() {
    let Some(program) = chromium() else { return };
    let Some((file, run)) = full_run() else {
        return;
    };
    let cases = run["cases"].as_array().expect("a list");
    let suite = suite::find(&[PathBuf::from("scenarios")]).expect("the suite");
    assert_eq!(cases.len(), suite.len(), "not of the whole suite");
    let names = |keep: &dyn Fn(&Value) -> bool| -> Vec<&str> {
        let kept = cases.iter().filter(|case| keep(case));
        kept.map(|case| case["name"].as_str().expect("a name"))
            .collect()
    };
    let under_criu = |case: &Value| {
        case["engine"]
            .as_str()
            .is_some_and(|it| it.contains("criu"))
    };
    assert_eq!(names(&under_criu).len(), cases.len(), "not under CRIU");

    let page = Page::new(program, &file);
    let all = page.dom("");
    assert_eq!(shown(&all), names(&|_| true));
    for word in ["fail", "broken", "fixed", "known", "pass", "skip"] {
        let dom = page.dom(&format!("?verdict={word}"));
        assert_eq!(shown(&dom), names(&|case| case["verdict"] == word));
        let count = &run["counts"][word];
        assert!(
            dom.contains(&format!("<span id=\"shown\">{count}</span> shown")),
            "not {count} {word} by the page's own count"
        );
    }
    for group in ["I1", "I4"] {
        let of_group = |it: &Value| {
            let invariant = it["invariant"].as_str().and_then(|it| it.split('.').next());
            invariant == Some(group)
        };
        let dom = page.dom(&format!("?group={group}"));
        assert_eq!(shown(&dom), names(&|case| has_defect(case, of_group)));
    }

    // CRIU drops what is unread, so the pictures of some runs have lost events, right below a cut.
    let with_lost = names(&|case| has_defect(case, |it| it["kind"] == "lost"));
    assert!(with_lost.contains(&"criu/queue-dropped"), "{with_lost:?}");
    let marked = entries(&all).zip(cases).filter(|(entry, case)| {
        let has_mark = entry.contains("class=\"box lost\"");
        let has_cut = entry.contains(">checkpoint: cut by criu");
        assert!(!has_mark || has_cut, "{}: lost without a cut", case["name"]);
        has_mark
    });
    let marked: Vec<_> = marked.map(|(_, case)| &case["name"]).collect();
    assert_eq!(marked, with_lost, "lost facts without a mark, or the like");
}

#[test]
fn the_picture_is_painted() {
    let Some(program) = chromium() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = folder.path().join("report.html");
    report::write(&page, &results()).expect("it writes");
    let keep = std::env::var_os("NOTIFREEZE_SCREENSHOT").map(PathBuf::from);
    let picture = keep.unwrap_or_else(|| folder.path().join("report.png"));
    let shoot = format!("--screenshot={}", picture.display());
    let address = format!("file://{}#case-1", page.display());
    let args = [shoot.as_str(), "--window-size=1280,1800", &address].map(OsStr::new);
    browse(&program, &folder.path().join("profile"), &args);
    let bytes = std::fs::read(&picture).expect("a picture");
    assert!(bytes.starts_with(b"\x89PNG"), "not a PNG");
    // A blank page of this size compresses to a few kilobytes.
    assert!(bytes.len() > 50_000, "{} bytes: an empty page", bytes.len());
}
