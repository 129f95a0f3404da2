//! The log, opened for each record and closed again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use scenario::log::{self, Record};
use scenario::{Expect, Name, Scenario};

/// The log on disk and what this process has learnt from it.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// Bytes read or written so far.
    offset: u64,
    bindings: HashMap<Name, i64>,
    /// Step of the last record.
    last: Option<u32>,
}

impl Journal {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            bindings: HashMap::new(),
            last: None,
        }
    }

    /// Appends a record.
    pub(crate) fn write(&mut self, scenario: &Scenario, record: &Record) -> io::Result<()> {
        let mut bytes = Vec::new();
        log::encode(record, &mut bytes);
        OpenOptions::new()
            .append(true)
            .open(&self.path)?
            .write_all(&bytes)?;
        self.offset += bytes.len() as u64;
        self.learn(scenario, record);
        Ok(())
    }

    /// Reads what other processes have appended.
    pub(crate) fn catch_up(&mut self, scenario: &Scenario) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        file.read_to_end(&mut bytes)?;
        for record in log::decode(&bytes).map_err(io::Error::other)? {
            self.learn(scenario, &record);
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn learn(&mut self, scenario: &Scenario, record: &Record) {
        self.last = Some(record.step);
        if let Some(step) = scenario.steps.get(record.step as usize)
            && let Expect::Bind(name) = &step.expect
        {
            self.bindings.insert(name.clone(), record.ret);
        }
    }

    /// What a name stands for; -1 if its step failed or was not made, so that the call that uses
    /// it fails as it would in a program that ignores errors.
    pub(crate) fn value(&self, name: &Name) -> i64 {
        self.bindings.get(name).copied().unwrap_or(-1)
    }

    /// The step that comes next.
    pub(crate) fn next_step(&self) -> usize {
        self.last.map_or(0, |step| step as usize + 1)
    }
}
