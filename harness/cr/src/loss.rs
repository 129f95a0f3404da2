//! What a dump could not keep, said beforehand.

use std::fmt;

use crate::image::LossRecord;

/// A thing that will not be after the restore what it was before the dump.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loss {
    /// Number of the invariant's group, 1 to 10.
    pub invariant: u8,
    /// What is lost: `queue of fd 3: 5 events`.
    pub object: String,
    pub reason: String,
}

impl Loss {
    #[must_use]
    pub fn new(invariant: u8, object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            invariant,
            object: object.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{} {}: {}", self.invariant, self.object, self.reason)
    }
}

impl From<&LossRecord> for Loss {
    fn from(record: &LossRecord) -> Self {
        Self {
            invariant: u8::try_from(record.invariant).unwrap_or(u8::MAX),
            object: record.object.clone(),
            reason: record.reason.clone(),
        }
    }
}

impl From<Loss> for LossRecord {
    fn from(loss: Loss) -> Self {
        Self {
            invariant: loss.invariant.into(),
            object: loss.object,
            reason: loss.reason,
        }
    }
}
