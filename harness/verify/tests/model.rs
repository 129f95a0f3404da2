//! The model against what the kernel has done: every scenario that it knows the steps of, and what
//! control yielded when its snapshot was recorded.

#![expect(
    clippy::disallowed_methods,
    reason = "the crate reads nothing; what it is held against are files of the tree"
)]

use std::fs;
use std::path::{Path, PathBuf};

use scenario::{Event, Outcome, Scenario};
use verify::model::{Predicted, Settings, predict};

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
