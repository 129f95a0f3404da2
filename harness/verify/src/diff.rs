//! Two transcripts to what differs between them.
//!
//! Observations are aligned by place; within one, facts of a kind are aligned in sequence and
//! compared field by field, typed. Nothing is sorted and nothing is rendered first.

use std::collections::HashSet;

use scenario::{Call, Fact, Observation, Outcome, Place, Scenario, Transcript};

use crate::difference::{Difference, Kind, Side};
use crate::invariant::{self, Invariant};
use crate::text;

mod binds;
mod consequence;
mod cookies;
pub(crate) mod family;
mod fields;
mod mounts;
mod track;
mod unavoidable;

use consequence::Consequences;
use cookies::Cookies;
use family::{Family, Pairing};
use track::Track;
use unavoidable::Allowances;

/// Everything in which `restored` differs from `control`, in order of place.
///
/// The scenario says which steps cut and which descriptor a step reads. Steps that it does not
/// have count as cuts, so two transcripts of nothing but surveys compare under an empty scenario.
#[must_use]
pub fn diff(scenario: &Scenario, control: &Transcript, restored: &Transcript) -> Vec<Difference> {
    let mut diff = Diff {
        track: Track::new(scenario),
        cookies: Cookies::default(),
        consequences: Consequences::default(),
        seen: HashSet::new(),
        differences: Vec::new(),
    };
    let restored = mounts::renumber(control, restored);
    for (control, restored) in by_place(&control.observations, &restored.observations) {
        let nothing = Observation {
            place: control.or(restored).map_or(Place::End, |it| it.place),
            outcome: Outcome::None,
            facts: Vec::new(),
        };
        diff.observation(control.unwrap_or(&nothing), restored.unwrap_or(&nothing));
    }
    diff.differences
}

/// Pairs observations by place; each transcript is in order of place.
pub(crate) fn by_place<'a>(
    control: &'a [Observation],
    restored: &'a [Observation],
) -> Vec<(Option<&'a Observation>, Option<&'a Observation>)> {
    let rank = |observation: &Observation| match observation.place {
        Place::Step(index) => index,
        Place::End => usize::MAX,
    };
    let (mut control, mut restored) = (control.iter().peekable(), restored.iter().peekable());
    let mut pairs = Vec::new();
    loop {
        pairs.push(match (control.peek(), restored.peek()) {
            (None, None) => return pairs,
            (Some(a), Some(b)) if rank(a) == rank(b) => (control.next(), restored.next()),
            (Some(a), Some(b)) if rank(a) > rank(b) => (None, restored.next()),
            (Some(_), _) => (control.next(), None),
            (None, Some(_)) => (None, restored.next()),
        });
    }
}

/// What is known on the way through the observations.
struct Diff<'a> {
    track: Track<'a>,
    cookies: Cookies,
    consequences: Consequences,
    /// What surveys have found so far.
    seen: HashSet<String>,
    differences: Vec<Difference>,
}

impl Diff<'_> {
    fn observation(&mut self, control: &Observation, restored: &Observation) {
        self.track.enter(control);
        let unread = self.track.unread_at_cut(control);
        let before = self.differences.len();
        let mut allowances = Allowances::of(&control.facts, self.track.binds(control.place));
        for (family, members) in family::families(&control.facts, &restored.facts) {
            if family == Family::Losses {
                continue;
            }
            let pairings = family::pair(&members, &control.facts, &restored.facts);
            let lost = pairings.iter().filter_map(|pairing| match *pairing {
                Pairing::Lost(i) if unread[i] => Some(&control.facts[i]),
                _ => None,
            });
            let lost: Vec<&Fact> = lost.collect();
            for pairing in pairings {
                let pair = Pair {
                    control,
                    restored,
                    pairing,
                    unread: &unread,
                    lost: &lost,
                };
                self.pair(&pair, &mut allowances);
            }
        }
        let found = self.differences.len() > before;
        if control.outcome != restored.outcome && !(found && follows(control, restored)) {
            self.outcome(before, control, restored);
        }
    }

    fn pair(&mut self, pair: &Pair<'_>, allowances: &mut Allowances) {
        match pair.pairing {
            Pairing::Both(i, j) => self.fields(pair, i, j),
            Pairing::Reordered(i, j) => {
                let invariant = reordered(&pair.control.facts[i], pair.unread[i]);
                self.whole(pair, Kind::Reordered, invariant, (Some(i), Some(j)));
                self.fields(pair, i, j);
            }
            Pairing::Lost(i) => {
                let fact = &pair.control.facts[i];
                let invariant = lost(fact, pair.unread[i]);
                self.whole(pair, Kind::Lost, invariant, (Some(i), None));
                let at = self.differences.len() - 1;
                self.consequences.lost(fact, &mut self.differences, at);
            }
            Pairing::Spurious(j) => {
                let fact = &pair.restored.facts[j];
                let is_rest = pair
                    .lost
                    .iter()
                    .any(|lost| consequence::is_rest(lost, fact));
                let invariant = if is_rest {
                    invariant::UNREAD_FIELDS
                } else {
                    spurious(fact)
                };
                self.whole(pair, Kind::Spurious, invariant, (None, Some(j)));
                if !pair.lost.is_empty() && !is_rest {
                    let at = self.differences.len() - 1;
                    self.consequences.came_early(fact, &self.differences, at);
                }
                if let (Fact::Bystander(heard), Some(last)) = (fact, self.differences.last_mut()) {
                    last.unavoidable = allowances.take(heard);
                }
            }
        }
    }

    /// A difference of whole facts.
    fn whole(
        &mut self,
        pair: &Pair<'_>,
        kind: Kind,
        invariant: Invariant,
        (i, j): (Option<usize>, Option<usize>),
    ) {
        let side = |observation: &Observation, index: usize| Side {
            index: Some(index),
            text: text::fact(&observation.facts[index]),
        };
        let fact = i
            .map(|i| &pair.control.facts[i])
            .or(j.map(|j| &pair.restored.facts[j]));
        let Some(fact) = fact else { return };
        self.push(
            fact,
            Difference {
                place: pair.control.place,
                kind,
                invariant,
                object: self.track.object(fact),
                field: None,
                control: i.map(|i| side(pair.control, i)),
                restored: j.map(|j| side(pair.restored, j)),
                unavoidable: None,
                repeated: false,
            },
        );
    }

    /// The fields in which two facts of one thing differ.
    fn fields(&mut self, pair: &Pair<'_>, i: usize, j: usize) {
        let (control, restored) = (&pair.control.facts[i], &pair.restored.facts[j]);
        let unread = pair.unread[i];
        let at = self.differences.len();
        let mut fields = fields::compare(control, restored, unread);
        fields.extend(self.cookies.compare(control, restored, unread));
        for field in fields {
            self.push(
                control,
                Difference {
                    place: pair.control.place,
                    kind: Kind::Changed,
                    invariant: field.invariant,
                    object: self.track.object(control),
                    field: Some(field.name.to_owned()),
                    control: Some(Side {
                        index: Some(i),
                        text: field.control,
                    }),
                    restored: Some(Side {
                        index: Some(j),
                        text: field.restored,
                    }),
                    unavoidable: None,
                    repeated: false,
                },
            );
        }
        let is_changed = self.differences.len() > at;
        if unread && is_changed && matches!(control, Fact::Event(_) | Fact::FanotifyEvent(_)) {
            let object = self.track.object(control);
            self.consequences.came_instead(restored, object);
        }
    }

    /// A step returned something else, and no difference of its facts says so already.
    fn outcome(&mut self, at: usize, control: &Observation, restored: &Observation) {
        let side = |observation: &Observation| Side {
            index: None,
            text: text::outcome(observation.outcome),
        };
        let is_value = |outcome| matches!(outcome, Outcome::Value(_));
        let values = is_value(control.outcome) && is_value(restored.outcome);
        let invariant = match self.track.call(control.place) {
            Some((Call::InotifyAddWatch, _)) if values => invariant::NEXT_WD,
            Some((Call::Ioctl, Some(scenario::call::ioctl::FIONREAD))) if values => {
                invariant::UNREAD_BYTES
            }
            _ => invariant::OUTCOME,
        };
        let difference = Difference {
            place: control.place,
            kind: Kind::Outcome,
            invariant,
            object: self.track.object_of_step(control.place),
            field: None,
            control: Some(side(control)),
            restored: Some(side(restored)),
            unavoidable: None,
            repeated: false,
        };
        self.differences.insert(at, difference);
    }

    fn push(&mut self, fact: &Fact, mut difference: Difference) {
        if is_of_survey(fact) {
            let text = |side: &Option<Side>| side.as_ref().map(|side| side.text.clone());
            let key = format!(
                "{:?}",
                (
                    difference.kind,
                    difference.invariant,
                    &difference.object,
                    &difference.field,
                    text(&difference.control),
                    text(&difference.restored),
                )
            );
            difference.repeated = !self.seen.insert(key);
        }
        self.differences.push(difference);
    }
}

/// A pairing, and where it was found.
struct Pair<'a> {
    control: &'a Observation,
    restored: &'a Observation,
    pairing: Pairing,
    /// By index into the facts of control: whether the event was in the queue at the cut.
    unread: &'a [bool],
    /// Unread events of the same group that are lost.
    lost: &'a [&'a Fact],
}

/// State that a later survey sees again. Events, signals and what others heard happen once.
fn is_of_survey(fact: &Fact) -> bool {
    match fact {
        Fact::Descriptor(_)
        | Fact::Watch(_)
        | Fact::Mark(_)
        | Fact::NextWd { .. }
        | Fact::WorkingDirectory { .. }
        | Fact::Entry(_)
        | Fact::Leftover(_) => true,
        Fact::Event(_)
        | Fact::FanotifyEvent(_)
        | Fact::Content(_)
        | Fact::Ready { .. }
        | Fact::Signal { .. }
        | Fact::Bystander(_)
        | Fact::Loss(_) => false,
    }
}

fn is_overflow(fact: &Fact) -> bool {
    match fact {
        Fact::Event(event) => event.mask.contains(fsnotify::inotify::Mask::Q_OVERFLOW),
        Fact::FanotifyEvent(event) => event.mask & 0x4000 != 0,
        _ => false,
    }
}

fn lost(fact: &Fact, unread: bool) -> Invariant {
    match fact {
        _ if is_overflow(fact) => invariant::OVERFLOW,
        Fact::Event(_) | Fact::FanotifyEvent(_) if unread => invariant::UNREAD,
        Fact::Event(_) | Fact::FanotifyEvent(_) => invariant::EVENT,
        Fact::Content(_) => invariant::CONTENT,
        Fact::Ready { .. } => invariant::READY,
        Fact::Signal { .. } => invariant::SIGNAL,
        Fact::Descriptor(_) => invariant::DESCRIPTOR,
        Fact::Watch(_) => invariant::WATCH,
        Fact::Mark(_) => invariant::MARK,
        Fact::NextWd { .. } => invariant::NEXT_WD,
        Fact::WorkingDirectory { .. } => invariant::WORKING_DIRECTORY,
        Fact::Bystander(_) | Fact::Loss(_) => invariant::BYSTANDER,
        Fact::Entry(_) => invariant::ENTRY,
        Fact::Leftover(text) => leftover(text),
    }
}

fn spurious(fact: &Fact) -> Invariant {
    match fact {
        _ if is_overflow(fact) => invariant::OVERFLOW,
        Fact::Event(_) => invariant::SPURIOUS_INOTIFY,
        Fact::FanotifyEvent(_) => invariant::SPURIOUS_FANOTIFY,
        Fact::Descriptor(_) => invariant::LEFT_DESCRIPTOR,
        Fact::Watch(_) => invariant::WATCH_SPURIOUS,
        Fact::Mark(_) => invariant::MARK_SPURIOUS,
        Fact::Entry(_) => invariant::ENTRY_SPURIOUS,
        Fact::Content(_)
        | Fact::Ready { .. }
        | Fact::Signal { .. }
        | Fact::NextWd { .. }
        | Fact::WorkingDirectory { .. }
        | Fact::Bystander(_)
        | Fact::Leftover(_)
        | Fact::Loss(_) => lost(fact, false),
    }
}

fn reordered(fact: &Fact, unread: bool) -> Invariant {
    match fact {
        _ if is_overflow(fact) => invariant::OVERFLOW,
        Fact::Event(_) | Fact::FanotifyEvent(_) if unread => invariant::UNREAD_ORDER,
        Fact::Event(_) | Fact::FanotifyEvent(_) => invariant::EVENT_ORDER,
        Fact::Watch(_) => invariant::WATCH_ORDER,
        Fact::Mark(_) => invariant::MARK_ORDER,
        Fact::Content(_)
        | Fact::Ready { .. }
        | Fact::Signal { .. }
        | Fact::Descriptor(_)
        | Fact::NextWd { .. }
        | Fact::WorkingDirectory { .. }
        | Fact::Bystander(_)
        | Fact::Entry(_)
        | Fact::Leftover(_)
        | Fact::Loss(_) => lost(fact, false),
    }
}

/// The first word of a leftover says what it is.
fn leftover(text: &str) -> Invariant {
    match text.split_whitespace().next() {
        Some("mount") => invariant::LEFT_MOUNT,
        Some("process") => invariant::LEFT_PROCESS,
        Some("descriptor" | "fd") => invariant::LEFT_DESCRIPTOR,
        _ => invariant::LEFT_FILE,
    }
}

/// Whether both outcomes are just the number of bytes or entries that the facts tell of: then a
/// difference of facts has said it.
fn follows(control: &Observation, restored: &Observation) -> bool {
    let counts = |observation: &Observation| match observation.outcome {
        Outcome::Errno(EAGAIN) => observation.facts.is_empty(),
        Outcome::Value(value) => match &observation.facts[..] {
            [] => value == 0,
            facts => facts_count(facts).is_none_or(|count| count == value),
        },
        Outcome::Errno(_) | Outcome::None => false,
    };
    counts(control) && counts(restored)
}

const EAGAIN: i32 = 11;

/// The result of a call that yielded these facts; none where they do not say it.
fn facts_count(facts: &[Fact]) -> Option<i64> {
    let mut count = 0;
    for fact in facts {
        count += match fact {
            Fact::Event(event) => i64::try_from(track::size(event)).ok()?,
            Fact::Content(bytes) => i64::try_from(bytes.0.len()).ok()?,
            Fact::Ready { .. } => 1,
            _ => return None,
        };
    }
    Some(count)
}
