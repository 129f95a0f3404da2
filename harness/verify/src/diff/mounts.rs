//! Mounts in events have numbers that the kernel chose; a transcript counts them as they first
//! appear. Where an event is lost the two runs count differently, so those of the restored run are
//! given the numbers of the control run, one for one, by the events that are alike but for them.

use std::borrow::Cow;
use std::collections::HashMap;

use scenario::{Fact, FanotifyEvent, Observation, Transcript};

/// How a record names a mount: `MNT mount#2`.
const WORD: &str = "mount#";

/// The restored transcript with the numbers of the control run.
pub(super) fn renumber<'a>(control: &Transcript, restored: &'a Transcript) -> Cow<'a, Transcript> {
    if restored
        .observations
        .iter()
        .flat_map(numbers_of)
        .next()
        .is_none()
    {
        return Cow::Borrowed(restored);
    }
    let mut renumbered = restored.clone();
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    let mut next = control
        .observations
        .iter()
        .flat_map(numbers_of)
        .max()
        .unwrap_or(0)
        + 1;
    for observation in &mut renumbered.observations {
        let same_place = |it: &&Observation| it.place == observation.place;
        let facts = control.observations.iter().find(same_place);
        let mut facts: Vec<&Fact> = facts.iter().flat_map(|it| &it.facts).collect();
        for fact in &mut observation.facts {
            let Fact::FanotifyEvent(event) = fact else {
                continue;
            };
            if records_of(event).next().is_none() {
                continue;
            }
            let alike = facts.iter().position(|fact| match fact {
                Fact::FanotifyEvent(other) => without(other) == without(event),
                _ => false,
            });
            let other = alike.map(|index| facts.remove(index));
            let others: Vec<u32> = match other {
                Some(Fact::FanotifyEvent(other)) => records_of(other).collect(),
                _ => Vec::new(),
            };
            let own: Vec<u32> = records_of(event).collect();
            for (index, number) in own.iter().enumerate() {
                let free = others.get(index);
                let free = free.filter(|other| numbers.values().all(|taken| taken != *other));
                let free = free.copied();
                numbers.entry(*number).or_insert_with(|| {
                    next += u32::from(free.is_none());
                    free.unwrap_or(next - 1)
                });
            }
            for record in &mut event.records {
                if let Some((head, number)) = split(record) {
                    *record = format!("{head}{WORD}{}", numbers[&number]);
                }
            }
        }
    }
    Cow::Owned(renumbered)
}

fn split(record: &str) -> Option<(&str, u32)> {
    let (head, number) = record.split_once(WORD)?;
    Some((head, number.parse().ok()?))
}

fn records_of(event: &FanotifyEvent) -> impl Iterator<Item = u32> {
    let numbers = event.records.iter().filter_map(|record| split(record));
    numbers.map(|(_, number)| number)
}

fn numbers_of(observation: &Observation) -> impl Iterator<Item = u32> {
    let events = observation.facts.iter().filter_map(|fact| match fact {
        Fact::FanotifyEvent(event) => Some(event),
        _ => None,
    });
    events.flat_map(records_of)
}

/// The event with every mount alike.
fn without(event: &FanotifyEvent) -> FanotifyEvent {
    let records = event.records.iter().map(|record| match split(record) {
        Some((head, _)) => format!("{head}{WORD}"),
        None => record.clone(),
    });
    FanotifyEvent {
        records: records.collect(),
        ..event.clone()
    }
}
