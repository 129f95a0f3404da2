//! Two runs side by side, for a picture of them.

use scenario::{Fact, Observation, Outcome, Place, Transcript};

use super::Detail;
use super::page::{Page, Remarks, Standing};
use crate::diff::by_place;
use crate::diff::family::families;
use crate::difference::{Difference, Kind};
use crate::invariant::Invariant;
use crate::text;

/// What control and restored noticed at one place, side by side: events and whatever else a step
/// yielded; of surveys only what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideBySide {
    pub place: Place,
    pub rows: Vec<Row>,
}

/// A fact of one run, of the other, or of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub control: Option<String>,
    pub restored: Option<String>,
    /// How it differs and which invariant that breaks; none where both are the same.
    pub differs: Option<(Kind, Invariant)>,
    /// It differs by a rule of the unavoidable.
    pub unavoidable: bool,
}

/// The two runs side by side, for a picture of them. Places where neither noticed anything are left
/// out.
#[must_use]
pub fn side_by_side(
    control: &Transcript,
    restored: &Transcript,
    differences: &[Difference],
) -> Vec<SideBySide> {
    let mut places = Vec::new();
    for (a, b) in by_place(&control.observations, &restored.observations) {
        let Some(place) = a.or(b).map(|it| it.place) else {
            continue;
        };
        let nothing = Observation {
            place,
            outcome: Outcome::None,
            facts: Vec::new(),
        };
        let here: Vec<&Difference> = differences.iter().filter(|it| it.place == place).collect();
        let page = Page {
            control: a.unwrap_or(&nothing),
            restored: b.unwrap_or(&nothing),
            remarks: Remarks::of(&here),
            detail: Detail::Telling,
        };
        let mut rows: Vec<Row> = page.remarks.outcome.iter().map(|it| row(it)).collect();
        for (_, members) in families(&page.control.facts, &page.restored.facts) {
            rows.extend(page.walk(&members).into_iter().flat_map(|it| page.rows(it)));
        }
        if !rows.is_empty() {
            places.push(SideBySide { place, rows });
        }
    }
    places
}

/// A difference that is no fact of either run: an outcome, a field.
fn row(difference: &Difference) -> Row {
    let name = difference
        .field
        .as_deref()
        .map(|field| format!("{field} "))
        .unwrap_or_default();
    let text = |side: &Option<crate::Side>| side.as_ref().map(|it| format!("{name}{}", it.text));
    Row {
        control: text(&difference.control),
        restored: text(&difference.restored),
        differs: Some((difference.kind, difference.invariant)),
        unavoidable: !difference.is_defect(),
    }
}

impl Page<'_> {
    /// The rows of a fact in a picture.
    fn rows(&self, standing: Standing) -> Vec<Row> {
        let of = |differences: &[&Difference], control: Option<&Fact>, restored: Option<&Fact>| {
            let first = differences.first()?;
            Some(Row {
                control: control.map(|fact| self.fact_text(fact)),
                restored: restored.map(|fact| self.fact_text(fact)),
                differs: Some((first.kind, first.invariant)),
                unavoidable: !first.is_defect(),
            })
        };
        let (control, restored) = (&self.control.facts, &self.restored.facts);
        match standing {
            Standing::Control(i) => of(self.remarks.on_control(i), Some(&control[i]), None)
                .into_iter()
                .collect(),
            Standing::Restored(j) => of(self.remarks.on_restored(j), None, Some(&restored[j]))
                .into_iter()
                .collect(),
            Standing::Both(i, j) => match (self.remarks.on_control(i), &control[i]) {
                ([], fact) if is_of_step(fact) => {
                    let text = Some(self.fact_text(fact));
                    vec![Row {
                        control: text.clone(),
                        restored: text,
                        differs: None,
                        unavoidable: false,
                    }]
                }
                ([], _) => Vec::new(),
                (differences, fact) if is_of_step(fact) => {
                    of(differences, Some(fact), Some(&restored[j]))
                        .into_iter()
                        .collect()
                }
                (differences, fact) => {
                    let named = |difference: &&Difference| {
                        let mut row = row(difference);
                        for text in row.control.iter_mut().chain(&mut row.restored) {
                            *text = format!("{}: {text}", subject(fact));
                        }
                        row
                    };
                    differences.iter().map(named).collect()
                }
            },
        }
    }
}

/// What a step read, not what a survey found.
fn is_of_step(fact: &Fact) -> bool {
    match fact {
        Fact::Event(_)
        | Fact::FanotifyEvent(_)
        | Fact::Content(_)
        | Fact::Ready { .. }
        | Fact::Signal { .. } => true,
        Fact::Descriptor(_)
        | Fact::Watch(_)
        | Fact::Mark(_)
        | Fact::NextWd { .. }
        | Fact::WorkingDirectory { .. }
        | Fact::Bystander(_)
        | Fact::Entry(_)
        | Fact::Leftover(_)
        | Fact::Loss(_) => false,
    }
}

/// What a field of a survey's fact is a field of, in short.
fn subject(fact: &Fact) -> String {
    match fact {
        Fact::Descriptor(it) => text::fd_of(it.process.as_ref(), it.fd),
        Fact::Watch(it) => format!("wd={}", it.wd),
        Fact::Mark(it) => text::mark_target(&it.target),
        Fact::NextWd { process, fd, .. } => text::fd_of(process.as_ref(), *fd),
        Fact::Entry(it) => it.path.to_string(),
        other => text::fact(other),
    }
}
