//! A model of inotify: what a scenario reads, from what we know of the kernel and without one.
//!
//! It is documentation that runs. Under control, and with no checkpoint at all, the kernel has to do
//! what the model says; where it does not, our understanding is wrong, and so is the judgement of an
//! engine that rests on it. What the model does not know it says ([`Unmodelled`]); it never guesses.
//!
//! It stands here, and not beside the language, because it is an oracle: it compares. The generator
//! walks through it to know which steps make sense.

mod execute;
mod group;
mod tree;

use std::fmt;

use scenario::{Event, Fact, Outcome, Place, Scenario, Step, Transcript};

pub use execute::Model;

/// The oldest kernel that the model was held against. Order and merging of events are details that
/// kernels have changed before, so nothing is claimed of older ones.
pub const OLDEST_KERNEL: (u32, u32) = (6, 18);

/// What of the machine the model has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `/proc/sys/fs/inotify/max_queued_events`.
    pub max_queued_events: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_queued_events: 16_384,
        }
    }
}

/// What the model says of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predicted {
    /// None: the call works or fails in a way that the model has no part in.
    pub outcome: Option<Outcome>,
    /// What a read on a group gives; cookies numbered by first appearance.
    pub events: Vec<Event>,
}

/// What the model says of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prediction {
    pub steps: Vec<Predicted>,
    /// What is still queued when the last step is done, by the descriptor of the main process that
    /// the group has.
    pub end: Vec<Event>,
}

/// A step that the model knows nothing of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmodelled {
    /// Index of the step.
    pub step: usize,
    pub reason: &'static str,
}

impl fmt::Display for Unmodelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {} is not modelled", self.step + 1, self.reason)
    }
}

/// What every step of a scenario gives. A checkpoint changes nothing.
///
/// # Errors
///
/// The first step that the model knows nothing of.
pub fn predict(scenario: &Scenario, settings: Settings) -> Result<Prediction, Unmodelled> {
    let mut model = Model::new(settings);
    let mut steps = Vec::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        let predicted = model.step(step).map_err(|reason| Unmodelled {
            step: index,
            reason,
        })?;
        steps.push(predicted);
    }
    Ok(Prediction {
        steps,
        end: model.drain_all(),
    })
}

/// A place where the kernel did something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    pub place: Place,
    /// The text of the step; empty at the end.
    pub step: String,
    pub predicted: Predicted,
    pub observed: Predicted,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Step(index) => writeln!(f, "step {}: {}", index + 1, self.step)?,
            Place::End => writeln!(f, "at the end")?,
        }
        write!(
            f,
            "  the model:  {}\n  the kernel: {}",
            self.predicted, self.observed
        )
    }
}

impl fmt::Display for Predicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Some(Outcome::Value(value)) => write!(f, "{value}")?,
            Some(Outcome::Errno(errno)) => {
                write!(f, "-1 {}", scenario::errno::name(errno).unwrap_or("?"))?;
            }
            Some(Outcome::None) | None => f.write_str("-")?,
        }
        for event in &self.events {
            f.write_str("\n    ")?;
            if let Some(fd) = event.fd {
                write!(f, "fd={fd} ")?;
            }
            write!(f, "wd={} {}", event.wd, event.mask)?;
            if event.cookie != 0 {
                write!(f, " cookie#{}", event.cookie)?;
            }
            if !event.name.0.is_empty() {
                write!(f, " {}", event.name)?;
            }
        }
        Ok(())
    }
}

/// Where a run did not do what was predicted.
#[must_use]
pub fn compare(
    scenario: &Scenario,
    prediction: &Prediction,
    transcript: &Transcript,
) -> Vec<Disagreement> {
    let mut disagreements = Vec::new();
    for observation in &transcript.observations {
        let events = observation.facts.iter().filter_map(|fact| match fact {
            Fact::Event(event) => Some(event.clone()),
            _ => None,
        });
        let observed = Predicted {
            outcome: Some(observation.outcome),
            events: events.collect(),
        };
        let (mut predicted, step) = match observation.place {
            Place::Step(index) => (
                prediction.steps.get(index).cloned().unwrap_or_default(),
                scenario
                    .steps
                    .get(index)
                    .map(Step::to_string)
                    .unwrap_or_default(),
            ),
            Place::End => (
                Predicted {
                    outcome: None,
                    events: prediction.end.clone(),
                },
                String::new(),
            ),
        };
        // Nothing is claimed where nothing is predicted.
        predicted.outcome = predicted.outcome.or(observed.outcome);
        if predicted != observed {
            disagreements.push(Disagreement {
                place: observation.place,
                step,
                predicted,
                observed,
            });
        }
    }
    disagreements
}
