//! Transcripts as text, in the language of the scenarios: each step with its result, what it read in
//! a block after it, and `-` and `+` where the runs differ.
//!
//! The text is the same for equal runs. It is never compared to find differences; those are given.

use scenario::{Note, Observation, Outcome, Place, Scenario, Transcript};

use crate::diff::by_place;
use crate::difference::Difference;

mod lines;
mod page;
mod picture;

use page::{Page, Remarks};
pub use picture::{Row, SideBySide, side_by_side};

/// How much of a survey to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// Groups, ghosts, and what differs.
    Telling,
    All,
}

/// Control and restored as one text: what a snapshot holds.
///
/// `differences` are those that [`crate::diff`] found between the two.
#[must_use]
pub fn render(
    scenario: &Scenario,
    control: &Transcript,
    restored: &Transcript,
    differences: &[Difference],
) -> String {
    print(scenario, control, restored, differences, Detail::Telling)
}

/// One transcript, with everything that was noticed.
#[must_use]
pub fn render_transcript(scenario: &Scenario, transcript: &Transcript) -> String {
    print(scenario, transcript, transcript, &[], Detail::All)
}

fn print(
    scenario: &Scenario,
    control: &Transcript,
    restored: &Transcript,
    differences: &[Difference],
    detail: Detail,
) -> String {
    let header = Scenario {
        steps: Vec::new(),
        tail: Vec::new(),
        ..scenario.clone()
    };
    let mut text = scenario::print(&header);
    let mut printed = 0;
    let nothing = |place| Observation {
        place,
        outcome: Outcome::None,
        facts: Vec::new(),
    };
    for (a, b) in by_place(&control.observations, &restored.observations) {
        let Some(place) = a.or(b).map(|it| it.place) else {
            continue;
        };
        let until = match place {
            Place::Step(index) => index,
            Place::End => scenario.steps.len(),
        };
        // Steps that neither run reached.
        for step in scenario.steps.get(printed..until).unwrap_or_default() {
            print_notes(&step.notes, &mut text);
            text.push_str(&format!("{}\n", step.invocation()));
        }
        let empty = nothing(place);
        let here: Vec<&Difference> = differences.iter().filter(|it| it.place == place).collect();
        let page = Page {
            control: a.unwrap_or(&empty),
            restored: b.unwrap_or(&empty),
            remarks: Remarks::of(&here),
            detail,
        };
        let step = match place {
            Place::Step(index) => scenario.steps.get(index),
            Place::End => None,
        };
        if let Some(step) = step {
            print_notes(&step.notes, &mut text);
            printed = until + 1;
        }
        lines::print(&page.lines(step), &mut text);
    }
    for step in scenario.steps.get(printed..).unwrap_or_default() {
        print_notes(&step.notes, &mut text);
        text.push_str(&format!("{}\n", step.invocation()));
    }
    print_notes(&scenario.tail, &mut text);
    text
}

fn print_notes(notes: &[Note], text: &mut String) {
    for note in notes {
        match note {
            Note::Blank => text.push('\n'),
            Note::Comment(comment) => text.push_str(format!("# {comment}").trim_end()),
        }
        if *note != Note::Blank {
            text.push('\n');
        }
    }
}
