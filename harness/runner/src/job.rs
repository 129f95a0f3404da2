//! What crosses the line between a harness and a sandbox: a job in, an answer out, both JSON behind
//! their length.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use scenario::{Loss, Transcript};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::{EngineSpec, Flavour};
use crate::sandbox::Filesystem;

/// One run of one scenario under one engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Canonical text.
    pub scenario: String,
    pub engine: EngineSpec,
    /// Where the subject lives: that of the engine under test, also for its control.
    pub flavour: Flavour,
    /// What the world lives on.
    pub filesystem: Filesystem,
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
    /// By chance this run could not show what others do: start another.
    Again(String),
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

/// Writes a message.
///
/// # Errors
///
/// As write(2).
pub fn send(mut line: impl Write, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u64::try_from(text.len()).expect("a size");
    line.write_all(&[&length.to_le_bytes(), &text[..]].concat())
}

/// Reads a message that [`send`] wrote.
///
/// # Errors
///
/// As read(2), and if the line ends before the message does or it is none.
pub fn receive<T: DeserializeOwned>(mut line: impl Read) -> io::Result<T> {
    let mut length = [0; size_of::<u64>()];
    line.read_exact(&mut length)?;
    let mut text = Vec::new();
    let length = u64::from_le_bytes(length);
    if line.take(length).read_to_end(&mut text)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&text)?)
}
