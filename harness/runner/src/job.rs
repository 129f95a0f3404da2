//! What crosses the two pipes of a sandbox: a job in, an answer out, both JSON.

use std::path::PathBuf;

use scenario::{Loss, Transcript};
use serde::{Deserialize, Serialize};

use crate::engine::{EngineSpec, Flavour};

/// One run of one scenario under one engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Canonical text.
    pub scenario: String,
    pub engine: EngineSpec,
    /// Where the subject lives: that of the engine under test, also for its control.
    pub flavour: Flavour,
    /// The run is given up after this time.
    pub limit_ms: u64,
    /// Where to copy images and logs to; the sandbox itself keeps nothing.
    pub keep: Option<PathBuf>,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Every step was reached.
    Finished {
        transcript: Transcript,
        /// Declared by the engine at dump, of all cuts.
        losses: Vec<Loss>,
        /// What the engine found out about itself.
        notes: Vec<String>,
        /// Where the time went.
        times: Times,
    },
    /// The engine or the machine lacks something.
    Skipped(String),
    /// The engine refused by name to dump; the subject was left unharmed.
    Refused(String),
    /// The engine failed to dump or to restore.
    Failed(String),
    /// We could not tell. Names the step where there is one.
    Broken(String),
}

/// Wall time of the parts of a run, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Namespaces, mounts, start of the subject.
    pub setup_us: u64,
    /// The engine's cuts.
    pub cut_us: u64,
    /// Surveys and bystander.
    pub watch_us: u64,
    /// All.
    pub total_us: u64,
    /// Resident memory of the subject at the end of the run, in KiB (`VmRSS`).
    pub resident_kib: u64,
}
