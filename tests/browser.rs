//! The HTML report in a real browser, headless: it opens without an error, its script runs, and its
//! filters hide what they should.
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
use notifreeze::suite::Case;
use scenario::{
    Bystander, Bytes, Event, Fact, Loss, Object, Observation, Outcome, Place, Transcript, Watch,
};
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

/// Names of the scenarios that the page shows, in a DOM that the browser printed.
fn shown(dom: &str) -> Vec<&str> {
    let entries = dom.split("<details id=\"case-").skip(1);
    let visible = entries.filter(|entry| {
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
    let page = folder.path().join("report.html");
    report::write(&page, &results()).expect("it writes");
    let dom = |query: &str| {
        let address = format!("file://{}{query}", page.display());
        let args = [OsStr::new("--dump-dom"), OsStr::new(&address)];
        String::from_utf8(browse(&program, &folder.path().join("profile"), &args)).expect("UTF-8")
    };
    let all = dom("");
    assert!(
        all.contains("data-ready=\"yes\""),
        "the script did not run to its end"
    );
    let every = [
        "inotify/pass",
        "inotify/fail",
        "inotify/known",
        "inotify/skip",
    ];
    assert_eq!(shown(&all), every);
    assert_eq!(
        shown(&dom("?verdict=fail,known")),
        ["inotify/fail", "inotify/known"]
    );
    assert_eq!(shown(&dom("?group=I6")), ["inotify/fail", "inotify/known"]);
    assert_eq!(shown(&dom("?group=I9")), [""; 0]);
    assert_eq!(shown(&dom("?text=unread+CRIU")), ["inotify/known"]);
    let opened = dom("#case-1");
    assert!(
        opened.contains("open=\"\""),
        "the address does not open the scenario"
    );
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
