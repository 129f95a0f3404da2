//! The model against what the kernel has done: every scenario that it knows the steps of, and what
//! control yielded when its snapshot was recorded.

#![expect(
    clippy::disallowed_methods,
    reason = "the crate reads nothing; what it is held against are files of the tree"
)]

use std::fs;
use std::path::{Path, PathBuf};

use scenario::{Event, Outcome, Scenario, Step};
use verify::model::{Model, Predicted, Settings, predict};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What a snapshot says of a step in control.
struct Recorded {
    /// What stands behind ` = `; empty where a block tells it.
    result: String,
    block: Vec<String>,
}

/// The lines of control: without what only restored has, and without remarks.
fn of_control(snapshot: &str) -> impl Iterator<Item = &str> {
    let lines = snapshot.lines().filter(|line| !line.starts_with("+ "));
    lines.map(|line| {
        let line = line.strip_prefix("- ").unwrap_or(line).trim();
        line.split_once("  ").map_or(line, |(text, _)| text)
    })
}

fn recorded(scenario: &Scenario, snapshot: &str) -> Option<Vec<Recorded>> {
    let mut lines = of_control(snapshot);
    let steps = scenario.steps.iter().map(|step| {
        let call = step.invocation().to_string();
        let rest = lines.find_map(|line| {
            let rest = line.strip_prefix(&call)?;
            let is_whole = rest.is_empty() || rest.starts_with(" =") || rest.starts_with(" {");
            is_whole.then_some(rest)
        })?;
        let block = match rest.strip_suffix('{') {
            Some(_) => lines.by_ref().take_while(|line| *line != "}").collect(),
            None => Vec::new(),
        };
        // A long block is made short.
        if block.iter().any(|line: &&str| line.contains(" more")) {
            return None;
        }
        let result = rest.trim_end_matches('{').trim();
        let result = result.trim_start_matches('=').trim();
        let result = result.split('<').next().unwrap_or_default();
        Some(Recorded {
            result: result.to_owned(),
            block: block.into_iter().map(str::to_owned).collect(),
        })
    });
    steps.collect()
}

fn event(event: &Event) -> String {
    let mut text = format!("wd={} {}", event.wd, event.mask);
    if !event.name.0.is_empty() {
        text += &format!(" {}", event.name);
    }
    if event.cookie != 0 {
        text += &format!(" cookie#{}", event.cookie);
    }
    text
}

/// What does not agree.
fn contradiction(predicted: &Predicted, recorded: &Recorded) -> Option<String> {
    let result = match predicted.outcome {
        None | Some(Outcome::None) => return None,
        Some(Outcome::Value(value)) => value.to_string(),
        Some(Outcome::Errno(errno)) => {
            format!("-1 {}", scenario::errno::name(errno).unwrap_or("?"))
        }
    };
    let events: Vec<String> = predicted.events.iter().map(event).collect();
    let is_event = |line: &&String| line.starts_with("wd=");
    let read: Vec<&String> = recorded.block.iter().filter(is_event).collect();
    let agrees = recorded.result.is_empty() || recorded.result == result;
    (!agrees || events.iter().collect::<Vec<_>>() != read).then(|| {
        let (was, block) = (&recorded.result, &recorded.block);
        format!("{result} {events:?}, but it was {was} {block:?}")
    })
}

#[test]
fn the_kernel_has_done_what_the_model_says() {
    let mut contradictions = Vec::new();
    let (mut n_scenarios, mut n_events) = (0, 0);
    for kind in ["inotify", "profile", "fanotify", "criu"] {
        let folder = root().join("scenarios").join(kind);
        for entry in fs::read_dir(&folder).expect("a folder of scenarios") {
            let path = entry.expect("an entry").path();
            let Some(name) = path
                .file_stem()
                .filter(|_| path.extension() == Some("scn".as_ref()))
            else {
                continue;
            };
            let name = format!("{kind}/{}", name.display());
            let text = fs::read_to_string(&path).expect("a scenario");
            let scenario = scenario::parse(&text).expect("it parses").scenario;
            let snapshot = root().join(format!("snapshots/builtin/{name}.snap"));
            let (Ok(prediction), Ok(snapshot)) = (
                predict(&scenario, Settings::default()),
                fs::read_to_string(snapshot),
            ) else {
                continue;
            };
            let Some(recorded) = recorded(&scenario, &snapshot) else {
                continue;
            };
            n_scenarios += 1;
            for (index, (predicted, recorded)) in prediction.steps.iter().zip(&recorded).enumerate()
            {
                n_events += predicted.events.len();
                let wrong = contradiction(predicted, recorded);
                contradictions.extend(wrong.map(|it| format!("{name}: step {}: {it}", index + 1)));
            }
        }
    }
    assert!(contradictions.is_empty(), "{}", contradictions.join("\n"));
    assert!(
        n_scenarios > 250 && n_events > 500,
        "{n_scenarios} scenarios, {n_events} events: is the comparison blind?"
    );
}

fn steps(lines: &str) -> Vec<Step> {
    let text = format!("# A.\n{lines}");
    scenario::parse(&text).expect("it parses").scenario.steps
}

/// What the last step gives, with room for two events in a queue.
fn last(lines: &str) -> Predicted {
    let settings = Settings {
        max_queued_events: 2,
    };
    let mut model = Model::new(settings);
    let steps = steps(lines);
    let predicted = steps.iter().map(|step| model.step(step).expect("modelled"));
    predicted.last().expect("a step")
}

const WATCHED: &str = "\
mkdir(\"d\", 0755)
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"d\", IN_CREATE) = 1
";

#[test]
fn a_full_queue_overflows_once_and_again_when_it_was_read() {
    let make = |names: &[&str]| -> String {
        let line = |name: &&str| format!("mknod(\"d/{name}\", S_IFREG|0644)\n");
        names.iter().map(line).collect()
    };
    let check = |lines: &str, expected: &[&str]| {
        let events: Vec<String> = last(lines).events.iter().map(event).collect();
        assert_eq!(events, expected, "{lines}");
    };
    let [a, b] = [r#"wd=1 IN_CREATE "a""#, r#"wd=1 IN_CREATE "b""#];
    let overflow = "wd=-1 IN_Q_OVERFLOW";
    let once = format!("{WATCHED}{}read(n)\n", make(&["a", "b", "x", "y"]));
    check(&once, &[a, b, overflow]);
    let [c, e] = [r#"wd=1 IN_CREATE "c""#, r#"wd=1 IN_CREATE "e""#];
    let again = format!("{once}{}read(n)\n", make(&["c", "e", "z"]));
    check(&again, &[c, e, overflow]);
}

#[test]
fn a_mask_that_is_added_keeps_what_there_was() {
    let added = |flag: &str| {
        format!(
            "{WATCHED}inotify_add_watch(n, \"d\", IN_MASK_ADD|{flag}|IN_OPEN) = 1\n\
             open(\"d/a\", O_RDWR|O_CREAT, 0644) = f\n"
        )
    };
    let read = |lines: &str| -> Vec<String> {
        let events = last(&format!("{lines}read(n)\n")).events;
        events.iter().map(event).collect()
    };
    let [made, opened] = [r#"wd=1 IN_CREATE "a""#, r#"wd=1 IN_OPEN "a""#];
    assert_eq!(read(&added("IN_ONESHOT")), [made, "wd=1 IN_IGNORED"]);
    assert_eq!(read(&added("IN_DELETE")), [made, opened]);
    let unlinked = |flag: &str| {
        format!(
            "{WATCHED}open(\"d/a\", O_RDWR|O_CREAT, 0644) = f\nunlink(\"d/a\")\nread(n)\n\
             inotify_add_watch(n, \"d\", IN_MASK_ADD|{flag}|IN_MODIFY) = 1\nwrite(f, \"x\")\n"
        )
    };
    assert_eq!(read(&unlinked("IN_DELETE")), [r#"wd=1 IN_MODIFY "a""#]);
    assert!(read(&unlinked("IN_EXCL_UNLINK")).is_empty());
}

#[test]
fn the_model_tells_where_a_generator_should_not_go() {
    let after = |lines: &str| {
        let mut model = Model::new(Settings::default());
        for step in steps(lines) {
            model.step(&step).expect("modelled");
        }
        model
    };
    let check = |lines: &str, expected: [bool; 3]| {
        let model = after(lines);
        let found = [
            model.has_next_wd_in_use(),
            model.has_unread_without_name(),
            model.has_covered_mount(),
        ];
        assert_eq!(found, expected, "{lines}");
    };
    check(WATCHED, [false; 3]);
    let again = format!("{WATCHED}ioctl(n, INOTIFY_IOC_SETNEXTWD, 1)\n");
    check(&again, [true, false, false]);
    let unnamed = "\
mkdir(\"d\", 0755)
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"d\", IN_MODIFY|IN_CREATE) = 1
open(\"d\", O_RDWR|O_TMPFILE, 0600) = f
write(f, \"x\")
";
    check(unnamed, [false, true, false]);
    let named = format!("{unnamed}mknod(\"d/a\", S_IFREG|0644)\n");
    check(&named, [false; 3]);
    let mounted =
        "mkdir(\"d\", 0755)\nmkdir(\"d/e\", 0755)\nmount(\"tmpfs\", \"d/e\", \"tmpfs\", 0, NULL)\n";
    check(mounted, [false; 3]);
    for over in ["d", "d/e"] {
        let covered = format!("{mounted}mount(\"tmpfs\", \"{over}\", \"tmpfs\", 0, NULL)\n");
        check(&covered, [false, false, true]);
    }
}

#[test]
fn a_mount_is_busy_while_another_is_on_it() {
    let mounted = "\
mkdir(\"d\", 0755)
mount(\"tmpfs\", \"d\", \"tmpfs\", 0, NULL)
mkdir(\"d/e\", 0755)
mount(\"tmpfs\", \"d/e\", \"tmpfs\", 0, NULL)
";
    let busy = Some(Outcome::Errno(16));
    for line in [
        "umount2(\"d\", 0)\n",
        "rmdir(\"d/e\")\n",
        "rename(\"d/e\", \"d/f\")\n",
    ] {
        assert_eq!(last(&format!("{mounted}{line}")).outcome, busy, "{line}");
    }
    let inner = format!("{mounted}umount2(\"d/e\", 0)\n");
    assert_eq!(last(&inner).outcome, Some(Outcome::Value(0)));
    assert_eq!(
        last(&format!("{inner}umount2(\"d\", 0)\n")).outcome,
        Some(Outcome::Value(0))
    );
}
