//! fanotify events as facts: objects, processes and mounts by name.

use std::collections::HashMap;

use fsnotify::event::fanotify::{Event, Events, Fid, Record as Info};
use nix::unistd::Pid;
use scenario::log::Record;
use scenario::{Bytes, Call, Expect, Fact, FanotifyEvent, Name, Object, Scenario};

use crate::survey::Names;

/// What numbers in events stand for, over a whole run.
#[derive(Debug)]
pub(super) struct Cast<'a> {
    names: &'a Names,
    processes: HashMap<i32, Name>,
    /// The last name that an object had.
    objects: HashMap<Fid, Object>,
    mounts: HashMap<u64, usize>,
}

/// One read: the records and what the reader said of their numbers, see [`scenario::log::Tag`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<'a> {
    pub(super) events: &'a [u8],
    pub(super) links: &'a [u8],
    pub(super) names: &'a [u8],
}

impl<'a> Cast<'a> {
    /// Every process that ever was in the run has its name.
    pub(super) fn new(
        scenario: &Scenario,
        records: &[Record],
        main: Pid,
        names: &'a Names,
    ) -> Self {
        let mut processes = HashMap::from([(main.as_raw(), Name(Name::MAIN.to_owned()))]);
        for record in records {
            let step = scenario.steps.get(record.step as usize);
            if let Some(step) = step.filter(|step| step.call == Call::Fork)
                && let (Expect::Bind(name), Ok(pid)) = (&step.expect, i32::try_from(record.ret))
            {
                processes.insert(pid, name.clone());
            }
        }
        Self {
            names,
            processes,
            objects: HashMap::new(),
            mounts: HashMap::new(),
        }
    }

    /// What other numbers stand for from here on.
    pub(super) fn add_processes(&mut self, numbers: &HashMap<i32, Name>) {
        let numbers = numbers.iter();
        self.processes
            .extend(numbers.map(|(&number, name)| (number, name.clone())));
    }

    /// The events of a read; `fd` where the place does not say which group it is.
    pub(super) fn facts(&mut self, read: Read<'_>, fd: Option<i32>) -> Result<Vec<Fact>, String> {
        let mut links = read.links.split(|&byte| byte == 0);
        let mut names = read.names.split(|&byte| byte == 0);
        let mut facts = Vec::new();
        for event in Events::new(read.events) {
            let event = event.map_err(|error| error.to_string())?;
            let link = links.next().unwrap_or_default();
            let mut told = Told::default();
            let records = event.records();
            let records = records.map(|record| self.record(&record, &mut names, &mut told));
            let records = records.collect();
            facts.push(Fact::FanotifyEvent(FanotifyEvent {
                fd,
                mask: event.mask.0,
                process: self.process(event.pid),
                object: self.object(&event, link),
                records,
            }));
        }
        Ok(facts)
    }

    /// None for a pid that the kernel hides. A process that is not of the run is one of the
    /// harness's, and would be a mistake of ours or of an engine.
    fn process(&self, pid: i32) -> Option<Name> {
        let stranger = || Name("stranger".to_owned());
        (pid != 0).then(|| self.processes.get(&pid).cloned().unwrap_or_else(stranger))
    }

    fn object(&self, event: &Event<'_>, link: &[u8]) -> Option<Object> {
        if event.fd < -1 {
            // FAN_REPORT_FD_ERROR: why there is no descriptor.
            let errno = scenario::errno::name(-event.fd);
            return Some(Object::Other(errno.unwrap_or("error").to_owned()));
        }
        (event.fd >= 0).then(|| self.named(link))
    }

    /// What a link of `/proc/self/fd` says.
    fn named(&self, link: &[u8]) -> Object {
        if !link.starts_with(b"/") {
            return Object::Other(String::from_utf8_lossy(link).into_owned());
        }
        match link.strip_suffix(b" (deleted)") {
            Some(name) => {
                let Bytes(shown) = self.names.shown(name);
                let last = shown
                    .iter()
                    .rposition(|&byte| byte == b'/')
                    .map_or(0, |at| at + 1);
                let (directory, last) = shown.split_at(last);
                let Bytes(last) = self.names.of_event(last);
                Object::Ghost(Bytes([directory, &last].concat()))
            }
            None => Object::Path(self.names.shown(link)),
        }
    }

    fn record<'n>(
        &mut self,
        record: &Info<'_>,
        names: &mut impl Iterator<Item = &'n [u8]>,
        told: &mut Told,
    ) -> String {
        let quoted = |name: &[u8]| Bytes::from(name).to_string();
        let all_names = self.names;
        let mut of = |fid: &Fid, name: &[u8]| {
            let Bytes(name) = &all_names.of_event(name);
            let directory = self.fid(fid, names.next().unwrap_or_default(), None);
            told.entry = entry(&directory, name);
            format!("{} {}", shown(&directory), quoted(name))
        };
        match record {
            Info::DfidName(fid, name) => format!("DFID_NAME {}", of(fid, name)),
            Info::OldDfidName(fid, name) => format!("OLD_DFID_NAME {}", of(fid, name)),
            Info::NewDfidName(fid, name) => format!("NEW_DFID_NAME {}", of(fid, name)),
            Info::Fid(fid) => {
                let object = self.fid(fid, names.next().unwrap_or_default(), told.entry.take());
                format!("FID {}", shown(&object))
            }
            Info::Dfid(fid) => {
                let object = self.fid(fid, names.next().unwrap_or_default(), None);
                format!("DFID {}", shown(&object))
            }
            Info::Pidfd(fd) if *fd >= 0 => "PIDFD".to_owned(),
            Info::Pidfd(fd) => format!("PIDFD {fd}"),
            Info::Error { error, count } => format!("ERROR {error} count {count}"),
            Info::Range { offset, count } => format!("RANGE {offset} count {count}"),
            Info::Mount(id) => {
                let next = self.mounts.len() + 1;
                format!("MNT mount#{}", self.mounts.entry(*id).or_insert(next))
            }
            Info::Unknown { kind, content } => format!("type {kind} {}", quoted(content)),
        }
    }

    /// The name of an object; of one that is gone, the name that the event itself tells of, or the
    /// last one that it had; a number for one that never had any when its events were read.
    fn fid(&mut self, fid: &Fid, name: &[u8], told: Option<Bytes>) -> Object {
        if !name.is_empty() {
            let object = self.named(name);
            self.objects.insert(*fid, object.clone());
            return object;
        }
        if let Some(name) = told {
            return Object::Ghost(name);
        }
        let unnamed = self.objects.values();
        let unnamed = unnamed.filter(|object| matches!(object, Object::Unnamed(_)));
        let next = u32::try_from(unnamed.count() + 1).expect("fewer objects than events");
        let object = self.objects.entry(*fid).or_insert(Object::Unnamed(next));
        object.clone()
    }
}

/// What the records of one event tell of each other.
#[derive(Debug, Default)]
struct Told {
    /// The path that the record before spells: its object may be gone when the event is read.
    entry: Option<Bytes>,
}

fn entry(directory: &Object, name: &[u8]) -> Option<Bytes> {
    let directory = match directory {
        Object::Path(path) | Object::Ghost(path) => &path.0[..],
        Object::Other(_) | Object::Unnamed(_) => return None,
    };
    Some(match (directory, name) {
        (_, b".") => Bytes::from(directory),
        (b".", _) => Bytes::from(name),
        _ => Bytes([directory, b"/", name].concat()),
    })
}

fn shown(object: &Object) -> String {
    match object {
        Object::Path(path) => path.to_string(),
        Object::Ghost(path) => format!("{path} (deleted)"),
        Object::Other(text) => text.clone(),
        Object::Unnamed(number) => format!("unnamed#{number}"),
    }
}
