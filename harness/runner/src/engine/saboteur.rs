//! Planted defects: builtin with one thing done wrong on purpose. Each has to be judged `Fail` by
//! some scenario; that is the test of the tester.

use serde::{Deserialize, Serialize};

/// A defect by name. Closed: a new one needs a scenario that catches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Defect {
    /// The watch made last is not restored.
    DropLastWatch,
    /// The lowest bit of the first watch's mask is lost.
    ClearMaskBit,
    /// The restorer changes the mode of the first watched object and back.
    AddEvent,
}

impl Defect {
    /// Every defect.
    pub const ALL: &[Self] = &[Self::DropLastWatch, Self::ClearMaskBit, Self::AddEvent];

    /// As `--engine saboteur=NAME` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DropLastWatch => "drop-last-watch",
            Self::ClearMaskBit => "clear-mask-bit",
            Self::AddEvent => "add-event",
        }
    }

    /// The defect of this name.
    ///
    /// # Errors
    ///
    /// A sentence that lists the names.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|defect| defect.name() == name)
            .ok_or_else(|| format!("no defect {name:?}: one of {}", Self::list()))
    }

    /// All names, for a message.
    #[must_use]
    pub fn list() -> String {
        let names: Vec<&str> = Self::ALL.iter().map(|defect| defect.name()).collect();
        names.join(", ")
    }
}
