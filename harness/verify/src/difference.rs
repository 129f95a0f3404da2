//! One thing that differs between control and restored.

use std::fmt;

use scenario::Place;
use serde::{Deserialize, Serialize};

use crate::invariant::{Invariant, Unavoidable};

/// A difference. Facts are given by their printed form and by their index in the observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub place: Place,
    pub kind: Kind,
    pub invariant: Invariant,
    /// What it is about, as a [`scenario::Loss`] names it: `fd 3, wd 2`, `"dir/a"`.
    pub object: String,
    /// The field that differs, of a changed fact.
    pub field: Option<String>,
    pub control: Option<Side>,
    pub restored: Option<Side>,
    /// The rule by which this is no defect.
    pub unavoidable: Option<Unavoidable>,
    /// An earlier survey found the same difference.
    pub repeated: bool,
}

/// How the two runs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only in control.
    Lost,
    /// Only in restored.
    Spurious,
    /// In both, and a field differs.
    Changed,
    /// In both, at another position of the sequence.
    Reordered,
    /// The call returned something else.
    Outcome,
}

/// One of the two runs: the fact, or the field of it that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Index into [`scenario::Observation::facts`]; none for an outcome.
    pub index: Option<usize>,
    pub text: String,
}

impl Difference {
    /// Whether this counts against an engine.
    #[must_use]
    pub const fn is_defect(&self) -> bool {
        self.unavoidable.is_none()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lost => "lost",
            Self::Spurious => "spurious",
            Self::Changed => "changed",
            Self::Reordered => "reordered",
            Self::Outcome => "outcome",
        })
    }
}

impl fmt::Display for Difference {
    /// `step 7: fd 3, wd 2: mask IN_OPEN became IN_CLOSE: changed, I3.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Step(index) => write!(f, "step {}", index + 1)?,
            Place::End => write!(f, "end")?,
        }
        if !self.object.is_empty() {
            write!(f, ": {}", self.object)?;
        }
        f.write_str(": ")?;
        if let Some(field) = &self.field {
            write!(f, "{field} ")?;
        }
        match (&self.control, &self.restored) {
            (Some(control), Some(restored)) if control.text != restored.text => {
                write!(f, "{} became {}", control.text, restored.text)?;
            }
            (Some(side), _) | (None, Some(side)) => f.write_str(&side.text)?,
            (None, None) => {}
        }
        write!(f, ": {}, {}", self.kind, self.invariant)?;
        match self.unavoidable {
            Some(rule) => write!(f, " (unavoidable, {rule})"),
            None => Ok(()),
        }
    }
}
