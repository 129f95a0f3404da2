use scenario::{Bytes, Event, Fact, Observation, Outcome, Transcript};

use super::*;
use crate::engine::EngineSpec;

const TEXT: &str = "# Holds & <stays>.\n# More words.\ninotify_init1(IN_NONBLOCK) = n\n\n# Why.\ncheckpoint\nread(n)\n";

fn case(name: &str) -> Case {
    Case {
        name: name.to_owned(),
        path: PathBuf::from(format!("scenarios/{name}.scn")),
        scenario: scenario::parse(TEXT).expect("it parses").scenario,
    }
}

fn transcript(name: &str) -> Transcript {
    let event = Fact::Event(Event {
        fd: None,
        wd: 1,
        mask: fsnotify::inotify::Mask(0x20),
        cookie: 0,
        name: Bytes::from(name),
    });
    let observation = |index, outcome, facts| Observation {
        place: Place::Step(index),
        outcome,
        facts,
    };
    Transcript {
        observations: vec![
            observation(0, Outcome::Value(3), Vec::new()),
            observation(1, Outcome::None, Vec::new()),
            observation(2, Outcome::Value(32), vec![event]),
        ],
    }
}

fn report(case: &Case, verdict: Verdict, restored: Option<&str>) -> Report {
    let control = restored.map(|_| transcript("a<b"));
    let restored = restored.map(transcript);
    let differences = match (&control, &restored) {
        (Some(control), Some(restored)) => verify::diff(&case.scenario, control, restored),
        _ => Vec::new(),
    };
    let rendered = match (&control, &restored) {
        (Some(control), Some(restored)) => Some(verify::render(
            &case.scenario,
            control,
            restored,
            &differences,
        )),
        _ => None,
    };
    Report {
        name: case.name.clone(),
        engine: EngineSpec::Builtin,
        verdict,
        refused: false,
        differences,
        rendered,
        recorded: None,
        control,
        restored,
        losses: vec![Loss {
            kind: Some("queue-dropped".to_owned()),
            invariant: 4,
            object: "fd 3".to_owned(),
            reason: "because".to_owned(),
        }],
        notes: Vec::new(),
        wall: Duration::from_micros(1500),
        times: Times::default(),
    }
}

/// One of each verdict.
fn results() -> Results {
    let table = [
        ("inotify/passes", Verdict::Pass, Some("a<b")),
        (
            "inotify/fails",
            Verdict::Fail("undeclared: 100% gone\nmore".to_owned()),
            Some("x"),
        ),
        (
            "inotify/is_known",
            Verdict::Known("issue #7".to_owned()),
            Some("x"),
        ),
        (
            "fanotify/is_fixed",
            Verdict::Fixed("delete it".to_owned()),
            Some("a<b"),
        ),
        (
            "fanotify/skips",
            Verdict::Skip("needs root".to_owned()),
            None,
        ),
        (
            "fanotify/breaks",
            Verdict::Broken("step 3: hung".to_owned()),
            None,
        ),
    ];
    let reports: Vec<(Case, Report)> = table
        .into_iter()
        .map(|(name, verdict, restored)| {
            let case = case(name);
            let report = report(&case, verdict, restored);
            (case, report)
        })
        .collect();
    Results::of(
        reports.iter().map(|(case, report)| (case, report)),
        Duration::from_millis(12),
    )
}

fn print(form: Form) -> String {
    form.print(&results()).expect("it prints")
}

#[test]
fn the_ending_says_the_form() {
    let form = |name: &str| Form::of(Path::new(name));
    assert_eq!(form("a/b.html"), Ok(Form::Html));
    assert_eq!(form("b.xml"), Ok(Form::Junit));
    assert_eq!(form("b.tap"), Ok(Form::Tap));
    assert_eq!(form("b.json"), Ok(Form::Json));
    assert!(
        form("b.txt")
            .unwrap_err()
            .contains(".html, .xml (JUnit), .tap or .json")
    );
    assert!(form("b").is_err());
}

#[test]
fn verdicts_are_counted() {
    let counts = results().counts;
    assert_eq!(
        counts,
        Counts {
            pass: 1,
            known: 1,
            fixed: 1,
            fail: 1,
            skip: 1,
            broken: 1
        }
    );
}

#[test]
fn a_difference_names_the_line_of_its_step() {
    let results = results();
    let difference = &results.cases[1].differences[0];
    assert_eq!((difference.step, difference.line), (Some(3), Some(7)));
    assert_eq!(TEXT.lines().nth(6), Some("read(n)"));
}

#[test]
fn tap_has_a_point_for_each_scenario() {
    let text = print(Form::Tap);
    let points: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("  "))
        .collect();
    assert_eq!(
        points,
        [
            "TAP version 14",
            "1..6",
            "ok 1 - inotify/passes under builtin",
            "not ok 2 - inotify/fails under builtin",
            "not ok 3 - inotify/is_known under builtin # TODO issue \\#7",
            "not ok 4 - fanotify/is_fixed under builtin",
            "ok 5 - fanotify/skips under builtin # SKIP needs root",
            "not ok 6 - fanotify/breaks under builtin",
        ]
    );
    assert!(
        text.contains("  message: \"undeclared: 100% gone\\nmore\"\n"),
        "{text}"
    );
    assert!(
        text.contains("repeat: \"notifreeze run scenarios/inotify/fails.scn --engine builtin\"")
    );
    let opened = text.matches("\n  ---\n").count();
    assert_eq!((opened, text.matches("\n  ...\n").count()), (5, 5));
}

/// What has no entry of its own is no less there: a run of which nothing is told is not empty.
#[test]
fn what_is_only_counted_is_said_by_every_form() {
    let mut results = results();
    results.counts.pass += 20;
    results.counts.known += 3;
    results.counts.skip += 2;
    let print = |form: Form| form.print(&results).expect("it prints");
    let tap = print(Form::Tap);
    assert!(tap.contains("\n1..9\n"), "{tap}");
    let end = "\
ok 7 - 20 cases in one point
not ok 8 - 3 cases in one point # TODO each differs as is known
ok 9 - 2 cases in one point # SKIP none of them was run
";
    assert!(tap.ends_with(end), "{tap}");
    let junit = print(Form::Junit);
    for part in [
        r#"tests="9" skipped="2" failures="2" errors="1""#,
        r#"<testcase name="20 cases: pass" classname="counted""#,
        r#"<testcase name="2 cases: skip" classname="counted""#,
    ] {
        assert!(junit.contains(part), "{junit}");
    }
    assert!(print(Form::Html).contains(">31 scenarios in 12 ms"));
}

#[test]
fn junit_counts_failures_errors_and_skips() {
    let text = print(Form::Junit);
    let head = text.lines().nth(1).unwrap();
    assert!(
        head.contains(r#"tests="6" skipped="1" failures="2" errors="1""#),
        "{head}"
    );
    assert!(
        text.contains(r#"<testsuite name="builtin.inotify" tests="3""#),
        "{text}"
    );
    assert!(
        text.contains(r#"<failure message="undeclared: 100% gone" type="fail">"#),
        "{text}"
    );
    assert!(
        text.contains(r#"<error message="step 3: hung" type="broken">"#),
        "{text}"
    );
    assert!(
        text.contains(r#"<skipped message="needs root" type="skip""#),
        "{text}"
    );
    assert!(text.contains("# Holds &amp; &lt;stays&gt;."), "{text}");
}

#[test]
fn github_shows_what_is_bad_at_its_line() {
    let text = github::annotations(&results());
    assert_eq!(text.lines().count(), 3);
    assert_eq!(
        text.lines().next(),
        Some(
            "::error file=scenarios/inotify/fails.scn,line=7,title=inotify/fails under builtin%3A fail::undeclared: 100%25 gone%0Amore"
        )
    );
    let summary = github::summary(&results());
    assert!(
        summary.contains("| known | inotify/is_known | builtin | issue #7 |"),
        "{summary}"
    );
    assert!(
        summary.contains("```diff\n# Holds & <stays>.\n"),
        "{summary}"
    );
    assert!(!summary.contains("inotify/passes"), "{summary}");
}

#[test]
fn html_escapes_what_scenarios_say() {
    let text = print(Form::Html);
    assert!(text.contains("Holds &amp; &lt;stays&gt;."));
    assert!(!text.contains("<stays>"));
    assert!(text.contains("class=\"timeline\""));
    assert_eq!(text.matches("<details id=\"case-").count(), 6);
    for word in ["http://", "https://", "src="] {
        let n_svg = if word == "http://" {
            text.matches("http://www.w3.org/2000/svg").count()
        } else {
            0
        };
        assert_eq!(
            text.matches(word).count(),
            n_svg,
            "the page needs no other file: {word}"
        );
    }
}

/// Paths of all fields, `cases[].differences[].kind`.
fn fields(value: &serde_json::Value, path: &str, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                found.insert(path.clone());
                fields(value, &path, found);
            }
        }
        serde_json::Value::Array(array) => {
            for value in array {
                fields(value, &format!("{path}[]"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn the_document_describes_every_field_of_json() {
    let value: serde_json::Value = serde_json::from_str(&print(Form::Json)).unwrap();
    assert_eq!(value["version"], VERSION);
    let mut found = std::collections::BTreeSet::new();
    fields(&value, "", &mut found);
    let page = include_str!("../../../../docs/report.md");
    let cell = |line: &str| {
        line.strip_prefix("| `")?
            .split_once('`')
            .map(|(field, _)| field.to_owned())
    };
    let described: std::collections::BTreeSet<String> = page.lines().filter_map(cell).collect();
    assert_eq!(found, described);
}
