//! The log, opened for each record and closed again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use scenario::log::{self, Record, Tag};
use scenario::{Arg, Expect, Name, Scenario};

/// The log on disk and what this process has learnt from it.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// Bytes read or written so far.
    offset: u64,
    bindings: HashMap<Name, i64>,
    /// Permission events that were read and not answered yet: the group's number and the event's,
    /// oldest first.
    to_answer: Vec<(i32, i32)>,
    /// Step of the last record.
    last: Option<u32>,
}

impl Journal {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            bindings: HashMap::new(),
            to_answer: Vec::new(),
            last: None,
        }
    }

    /// Appends a record. A process that was blocked in a call may append one at the same moment,
    /// so what others wrote is read first, and nobody writes meanwhile.
    pub(crate) fn write(&mut self, scenario: &Scenario, record: &Record) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(&self.path)?;
        file.lock()?;
        self.read_on(scenario, &mut file)?;
        let mut bytes = Vec::new();
        log::encode(record, &mut bytes);
        file.write_all(&bytes)?;
        self.offset += bytes.len() as u64;
        self.learn(scenario, record);
        Ok(())
    }

    /// Reads what other processes have appended.
    pub(crate) fn catch_up(&mut self, scenario: &Scenario) -> io::Result<()> {
        self.read_on(scenario, &mut File::open(&self.path)?)
    }

    fn read_on(&mut self, scenario: &Scenario, file: &mut File) -> io::Result<()> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset))?;
        file.read_to_end(&mut bytes)?;
        for record in log::decode(&bytes).map_err(io::Error::other)? {
            self.learn(scenario, &record);
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn learn(&mut self, scenario: &Scenario, record: &Record) {
        // The second half of a call may be written before the step that let it go on.
        self.last = self.last.max(Some(record.step));
        let Some(step) = scenario.steps.get(record.step as usize) else {
            return;
        };
        if let Expect::Bind(name) = &step.expect {
            self.bindings.insert(name.clone(), record.ret);
        }
        let group = match step.args.first() {
            Some(Arg::Int(number)) => *number,
            Some(Arg::Name(name)) => self.value(name),
            _ => return,
        };
        let Ok(group) = i32::try_from(group) else {
            return;
        };
        for (tag, bytes) in &record.chunks {
            if *tag == Tag::FanotifyEvents {
                let events = cr::fanotify::take::to_answer(bytes);
                self.to_answer
                    .extend(events.into_iter().map(|event| (group, event)));
            }
        }
        if record.ret >= 0 && matches!(step.args.get(1), Some(Arg::Response(_))) {
            let mut waiting = self.to_answer.iter();
            if let Some(index) = waiting.position(|(of, _)| *of == group) {
                self.to_answer.remove(index);
            }
        }
    }

    /// The number under which the oldest permission event of a group is answered.
    pub(crate) fn to_answer(&self, group: i32) -> Option<i32> {
        let mut waiting = self.to_answer.iter();
        waiting
            .find(|(of, _)| *of == group)
            .map(|(_, event)| *event)
    }

    /// What a name stands for; -1 if its step failed or was not made, so that the call that uses
    /// it fails as it would in a program that ignores errors.
    pub(crate) fn value(&self, name: &Name) -> i64 {
        self.bindings.get(name).copied().unwrap_or(-1)
    }

    /// The step that comes next.
    #[allow(dead_code, reason = "a restored process begins there")]
    pub(crate) fn next_step(&self) -> usize {
        self.last.map_or(0, |step| step as usize + 1)
    }
}
