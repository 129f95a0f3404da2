//! What is known to differ, as classes, so that a campaign stops at what is new.
//!
//! The classes come from scenarios that are known to differ: each is run under the engine, and what
//! differs there is what it names. A class is made of typed parts (what kind of fact, how it differs,
//! which invariant, which field, which bits of a mask), never of a reason's wording. What differs in a
//! case is known if its class is named; or if it follows, at a later step, from a known difference of
//! the same descriptor: a group that came back with another mask hears other things ever after.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use scenario::{Arg, Fact, MarkTarget, Name, Place, Scenario};
use verify::{Difference, Kind, Verdict};

use crate::case::{self, Options, Report, Snapshot};
use crate::engine::EngineSpec;
use crate::suite::Case;

/// A class of differences, in words.
pub type Class = String;

/// The classes that are known, each with the scenarios that name it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    known: BTreeMap<Class, BTreeSet<String>>,
}

/// What a case differs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// In nothing that counts against the engine.
    Alike,
    /// In what these scenarios name, and in nothing else.
    Known(BTreeSet<String>),
    /// In this too.
    New(Class),
}

impl Ledger {
    /// Runs the scenarios that are known to differ under this engine, and takes note of how.
    ///
    /// # Errors
    ///
    /// A sentence, if one of them is broken: then it names nothing.
    pub fn learn(cases: &[Case], engine: &EngineSpec, notifreeze: &Path) -> Result<Self, String> {
        let mut ledger = Self::default();
        let options = Options {
            snapshot: Snapshot::Ignore,
            ..Options::default()
        };
        for case in cases {
            let mut known = case.scenario.known.iter();
            if !known.any(|known| engine.is_meant(known)) {
                continue;
            }
            let report = case::run(case, engine, notifreeze, &options);
            if let Verdict::Broken(reason) = &report.verdict {
                return Err(format!("{}: {reason}", case.name));
            }
            for class in classes(&case.scenario, &report) {
                ledger.add(class, &case.name);
            }
        }
        Ok(ledger)
    }

    /// Names a class.
    pub fn add(&mut self, class: Class, name: &str) {
        self.known.entry(class).or_default().insert(name.to_owned());
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How many classes are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Judges what a run of a generated scenario gave.
    #[must_use]
    pub fn judge(&self, scenario: &Scenario, report: &Report) -> Judged {
        let mut names = BTreeSet::new();
        let mut touched: Vec<String> = Vec::new();
        let sharing = sharing(report);
        for (class, difference) in told(scenario, report) {
            let own = difference.and_then(|it| descriptor(&it.object));
            let subject = own.map(|own| sharing.get(own).map_or(own, String::as_str).to_owned());
            match (self.known.get(&class), difference) {
                (Some(found), _) => {
                    names.extend(found.iter().take(1).cloned());
                    touched.extend(subject);
                }
                (None, Some(difference)) if follows(difference, subject.as_deref(), &touched) => {}
                (None, _) => return Judged::New(class),
            }
        }
        if names.is_empty() {
            Judged::Alike
        } else {
            Judged::Known(names)
        }
    }
}

/// What a run of a known scenario names.
fn classes(scenario: &Scenario, report: &Report) -> Vec<Class> {
    let told = told(scenario, report).into_iter();
    told.map(|(class, _)| class).collect()
}

/// Everything that counts against the engine, with its class; a cut that failed has no differences.
fn told<'a>(scenario: &Scenario, report: &'a Report) -> Vec<(Class, Option<&'a Difference>)> {
    if report.restored.is_none() {
        let is_bad = matches!(report.verdict, Verdict::Fail(_) | Verdict::Known(_));
        let words = report.rendered.as_deref().unwrap_or_default();
        let class = || (failure(words, scenario), None);
        return is_bad.then(class).into_iter().collect();
    }
    let counts = |difference: &&Difference| {
        let is_declared = report
            .losses
            .iter()
            .any(|loss| verify::covers(loss, difference));
        difference.is_defect() && !difference.repeated && !is_declared
    };
    let differences = report.differences.iter().filter(counts);
    differences
        .map(|difference| (class(scenario, report, difference), Some(difference)))
        .collect()
}

/// Whether a difference is what an earlier one of the same descriptor makes of a later step. What a
/// survey shows of the group itself never is.
fn follows(difference: &Difference, subject: Option<&str>, touched: &[String]) -> bool {
    let is_survey = matches!(difference.invariant.group, 1 | 2 | 3 | 7 | 8 | 10);
    !is_survey && subject.is_some_and(|subject| touched.iter().any(|it| it == subject))
}

/// The descriptors of control that share an open file with an earlier one, and which that is: what is
/// lost to a group is lost to all of them.
fn sharing(report: &Report) -> BTreeMap<String, String> {
    let control = report.control.iter();
    let facts = control.flat_map(|control| &control.observations);
    facts
        .flat_map(|observation| &observation.facts)
        .filter_map(|fact| match fact {
            Fact::Descriptor(it) => Some((it, it.shared_with.as_ref()?)),
            _ => None,
        })
        .map(|(it, (process, fd))| {
            let own = fd_of(it.process.as_ref(), it.fd);
            (own, fd_of(process.as_ref(), *fd))
        })
        .collect()
}

/// A descriptor as the object of a difference names it.
fn fd_of(process: Option<&Name>, fd: i32) -> String {
    match process {
        Some(Name(process)) => format!("fd {fd} of {process}"),
        None => format!("fd {fd}"),
    }
}

/// The first `fd N` of an object, with its process.
fn descriptor(object: &str) -> Option<&str> {
    let first = object.split(", ").next()?;
    first.contains("fd ").then_some(first)
}

/// The first line of what an engine says of a cut that failed is its cause.
fn failure(words: &str, scenario: &Scenario) -> Class {
    let paths: Vec<String> = scenario
        .steps
        .iter()
        .flat_map(|step| &step.args)
        .filter_map(|arg| match arg {
            Arg::Bytes(bytes) => String::from_utf8(bytes.0.clone()).ok(),
            _ => None,
        })
        .collect();
    let first = words.lines().next().unwrap_or_default();
    let shape = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '/' && c != '.');
        // A sentence may end behind a path.
        let ended = bare.trim_end_matches('.');
        let is_path = paths.iter().any(|path| path == bare || path == ended) || word.contains('"');
        if is_path {
            return "NAME".to_owned();
        }
        word.chars()
            .map(|c| if c.is_ascii_digit() { '#' } else { c })
            .collect()
    };
    let mut shapes: Vec<String> = Vec::new();
    for word in without_watches(first).split_whitespace() {
        let shape = shape(word);
        // How many digits a number has is chance.
        shapes.push(shape.replace("##", "#").replace("##", "#"));
    }
    format!("failed: {}", shapes.join(" "))
}

/// What CRIU's log calls an object is followed by the watches on it, in parentheses.
fn without_watches(line: &str) -> String {
    let mut text = line
        .replace("an object without a known name", "\"?\"")
        .replace(" (deleted)", "");
    while let Some(start) = text.find(" (wd ").or_else(|| text.find(" (mark ")) {
        let end = text[start..]
            .find(')')
            .map_or(text.len(), |end| start + end + 1);
        text.replace_range(start..end, "");
    }
    text
}

fn class(scenario: &Scenario, report: &Report, difference: &Difference) -> Class {
    let fact = fact(report, difference);
    let mut words = vec![
        difference.kind.to_string(),
        difference.invariant.to_string(),
    ];
    words.extend(fact.map(|fact| kind(fact).to_owned()));
    words.extend(difference.field.clone());
    match (fact, difference.kind) {
        // A queue is dropped whole, whatever is in it.
        (Some(Fact::Event(_) | Fact::FanotifyEvent(_)), _) if difference.invariant.group == 4 => {}
        (Some(fact), Kind::Lost | Kind::Spurious) => words.extend(shape(fact)),
        (_, Kind::Changed) => words.extend(change(difference)),
        (None, _) => words.extend(call(scenario, difference.place)),
        (Some(_), Kind::Reordered | Kind::Outcome) => {}
    }
    words.join(" ")
}

/// The fact that a difference is about, of the run that has it.
fn fact<'a>(report: &'a Report, difference: &Difference) -> Option<&'a Fact> {
    let sides = [
        (&report.control, &difference.control),
        (&report.restored, &difference.restored),
    ];
    sides.into_iter().find_map(|(transcript, side)| {
        let index = side.as_ref()?.index?;
        let observations = &transcript.as_ref()?.observations;
        let mut here = observations.iter();
        let observation = here.find(|it| it.place == difference.place)?;
        observation.facts.get(index)
    })
}

fn kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::Event(_) => "event",
        Fact::FanotifyEvent(_) => "fanotify event",
        Fact::Content(_) => "content",
        Fact::Ready { .. } => "ready",
        Fact::Signal { .. } => "signal",
        Fact::Descriptor(_) => "descriptor",
        Fact::Watch(_) => "watch",
        Fact::Mark(mark) => match mark.target {
            MarkTarget::Inode(_) => "inode mark",
            MarkTarget::Mount(_) => "mount mark",
            MarkTarget::Filesystem(_) => "filesystem mark",
            MarkTarget::MountNamespace(_) => "mount namespace mark",
            MarkTarget::Unknown(_) => "unknown mark",
        },
        Fact::NextWd { .. } => "next wd",
        Fact::WorkingDirectory { .. } => "working directory",
        Fact::Bystander(_) => "bystander",
        Fact::Entry(_) => "entry",
        Fact::Leftover(_) => "leftover",
        Fact::Loss(_) => "loss",
    }
}

/// What tells one lost or spurious fact from another of its kind.
fn shape(fact: &Fact) -> Option<String> {
    match fact {
        Fact::Event(event) => Some(format!("{} {}", event.mask, name(&event.name.0))),
        Fact::FanotifyEvent(event) => Some(fsnotify::fanotify::Mask(event.mask).to_string()),
        Fact::Bystander(heard) => Some(format!("{} {}", heard.mask, name(&heard.name.0))),
        Fact::Entry(entry) => Some(name(&entry.path.0).to_owned()),
        Fact::Leftover(text) => text.split_whitespace().next().map(str::to_owned),
        Fact::Content(_)
        | Fact::Ready { .. }
        | Fact::Signal { .. }
        | Fact::Descriptor(_)
        | Fact::Watch(_)
        | Fact::Mark(_)
        | Fact::NextWd { .. }
        | Fact::WorkingDirectory { .. }
        | Fact::Loss(_) => None,
    }
}

/// Names that an engine makes have a form of their own.
fn name(name: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(name);
    match &*text {
        "" => "itself",
        _ if text.ends_with(".ghost") => "a ghost's name",
        _ if text.ends_with(".cr_link") => "a link's name",
        _ if text.starts_with("link_remap.") => "a remap's name",
        _ => "a name",
    }
}

/// What became of the words of a field, where it is made of words; else that it changed.
fn change(difference: &Difference) -> Option<String> {
    let text = |side: &Option<verify::Side>| side.as_ref().map(|side| side.text.clone());
    let (control, restored) = (text(&difference.control)?, text(&difference.restored)?);
    // How large a number was is chance, as the size of an open file is.
    if let (Ok(before), Ok(after)) = (control.parse::<u64>(), restored.parse::<u64>()) {
        let direction = match after {
            0 => "to none",
            _ if after < before => "less",
            _ => "more",
        };
        return Some(direction.to_owned());
    }
    let words = |text: &str| -> Option<BTreeSet<String>> {
        let is_word = |word: &&str| {
            word.chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        };
        let words: Vec<&str> = text.split('|').collect();
        words
            .iter()
            .all(is_word)
            .then(|| words.into_iter().map(str::to_owned).collect())
    };
    let (Some(before), Some(after)) = (words(&control), words(&restored)) else {
        // A path may have become another, a ghost's say.
        let form = |text: &str| name(text.trim_end_matches([')', '"', '(']).trim().as_bytes());
        return text(&difference.restored).map(|text| format!("to {}", form(&text)));
    };
    let list = |words: Vec<&String>| {
        let words: Vec<&str> = words.into_iter().map(String::as_str).collect();
        words.join("|")
    };
    let gone = list(before.difference(&after).collect());
    let come = list(after.difference(&before).collect());
    Some(format!("-{gone} +{come}"))
}

/// The call whose result differs.
fn call(scenario: &Scenario, place: Place) -> Option<String> {
    let Place::Step(index) = place else {
        return None;
    };
    let step = scenario.steps.get(index)?;
    Some(step.call.signature().name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &str, expected: &str) {
        let text = "# A cut fails.\nopen(\"d/a\", O_RDONLY) = f\ncheckpoint\nclose(f)\n";
        let scenario = scenario::parse(text).expect("the text is sound").scenario;
        assert_eq!(failure(words, &scenario), expected);
    }

    #[test]
    fn a_failure_is_known_by_its_first_line_without_names_and_numbers() {
        check(
            "dump failed: fsnotify: Can't find suitable path for handle (\"f\" (deleted) (wd 1 of fd 4, wd 22 of fd 5)): -2\n  more",
            "failed: dump failed: fsnotify: Can't find suitable path for handle NAME -#",
        );
        check(
            "dump failed: fsnotify: Can't find suitable path for handle (an object without a known name (wd 1 of fd 3)): -2",
            "failed: dump failed: fsnotify: Can't find suitable path for handle NAME -#",
        );
        check(
            "restore failed: Can't open file d/a on restore: 12",
            "failed: restore failed: Can't open file NAME on restore: #",
        );
        check(
            "dump failed: Can't create link remap for d/a. Use link-remap option.",
            "failed: dump failed: Can't create link remap for NAME Use link-remap option.",
        );
    }

    #[test]
    fn an_object_is_known_by_its_descriptor() {
        assert_eq!(descriptor("fd 3, wd 1"), Some("fd 3"));
        assert_eq!(descriptor("fd 3 of p, \"a\""), Some("fd 3 of p"));
        assert_eq!(descriptor("\"a\""), None);
    }
}
