//! From the subject's log and init's surveys to a transcript. A function of values.

use std::collections::HashMap;

use fsnotify::event::inotify::Events;
use nix::unistd::Pid;
use scenario::log::{self, Record, Tag};
use scenario::{
    Arg, Bystander, Bytes, Call, Event, Expect, Fact, Name, Observation, Outcome, Place, Scenario,
    Step, Transcript,
};

use crate::survey::{Drained, Names, Process, Queue};

mod fanotify;

use fanotify::{Cast, Read};

/// What the names of a scenario stand for, from the log so far.
fn bindings<'a>(scenario: &'a Scenario, records: &[Record]) -> HashMap<&'a Name, i64> {
    let mut bindings = HashMap::new();
    for record in records {
        if let Some(step) = scenario.steps.get(record.step as usize)
            && let Expect::Bind(name) = &step.expect
        {
            bindings.insert(name, record.ret);
        }
    }
    bindings
}

/// The processes of the run: the main process and every child that was forked and has not exited.
#[must_use]
pub fn processes(scenario: &Scenario, records: &[Record], main: Pid) -> Vec<Process> {
    let mut processes = vec![Process {
        name: None,
        pid: main,
    }];
    for record in records {
        let Some(step) = scenario.steps.get(record.step as usize) else {
            continue;
        };
        match (step.call, &step.expect) {
            (Call::Fork, Expect::Bind(name)) if record.ret > 0 => {
                let pid = Pid::from_raw(i32::try_from(record.ret).expect("fork returned a pid"));
                processes.push(Process {
                    name: Some(name.clone()),
                    pid,
                });
            }
            (Call::ExitGroup, _) => processes.retain(|process| process.name != step.process),
            _ => {}
        }
    }
    processes
}

/// The descriptor that a `look` step names.
#[must_use]
pub fn looked_at(step: &Step, scenario: &Scenario, records: &[Record]) -> Option<i32> {
    let number = match step.args.first()? {
        Arg::Int(number) => *number,
        Arg::Name(name) => *bindings(scenario, records).get(name)?,
        _ => return None,
    };
    i32::try_from(number).ok()
}

/// Numbers of processes, as the log and as init know them.
#[derive(Debug)]
pub struct Numbers<'a> {
    /// The main process in its own pid namespace.
    pub main: Pid,
    /// Every process by the number that it has or had in init's.
    pub outside: &'a HashMap<i32, Name>,
}

/// Puts the parts of a run in order.
///
/// # Errors
///
/// If the log holds events that no kernel makes.
pub fn transcript(
    scenario: &Scenario,
    records: &[Record],
    surveys: Vec<(usize, Vec<Fact>)>,
    end: Vec<Fact>,
    drained: Vec<Drained>,
    numbers: &Numbers,
    names: &Names,
) -> Result<Transcript, String> {
    let mut surveys: HashMap<usize, Vec<Fact>> = surveys.into_iter().collect();
    let mut cookies = Cookies::default();
    let mut cast = Cast::new(scenario, records, numbers.main, names);
    let mut observations = Vec::new();
    // A call that was blocked may have been logged before the step that let it go on.
    let mut records: Vec<&Record> = records.iter().collect();
    records.sort_by_key(|record| record.step);
    for record in records.into_iter().filter(|record| record.step != log::END) {
        let index = record.step as usize;
        let step = &scenario.steps[index];
        let mut facts = read_facts(record, &mut cookies, &mut cast)
            .map_err(|reason| format!("step {}: {reason}", index + 1))?;
        facts.extend(surveys.remove(&index).unwrap_or_default());
        observations.push(Observation {
            place: Place::Step(index),
            outcome: outcome(step, record),
            facts,
        });
    }
    // The queues were drained from outside, and the kernel numbers processes as the reader does.
    cast.add_processes(numbers.outside);
    let mut facts = end;
    for Drained { fd, queue } in drained {
        let unread = match &queue {
            Queue::Inotify(bytes) => events(bytes, Some(fd), &mut cookies),
            Queue::Fanotify(taken) => cast.facts(
                Read {
                    events: &taken.bytes,
                    links: &taken.links,
                    names: &taken.names,
                },
                Some(fd),
            ),
        };
        facts.extend(unread.map_err(|error| format!("fd {fd}: {error}"))?);
    }
    observations.push(Observation {
        place: Place::End,
        outcome: Outcome::None,
        facts,
    });
    let mut transcript = Transcript { observations };
    forget_numbers(&mut transcript, names);
    Ok(transcript)
}

/// Takes inode numbers out of the names in events.
fn forget_numbers(transcript: &mut Transcript, names: &Names) {
    let facts = transcript.observations.iter_mut();
    for fact in facts.flat_map(|observation| &mut observation.facts) {
        let (Fact::Event(Event { name, .. }) | Fact::Bystander(Bystander { name, .. })) = fact
        else {
            continue;
        };
        *name = names.of_event(&name.0);
    }
}

fn outcome(step: &Step, record: &Record) -> Outcome {
    match step.call {
        _ if record.ret < 0 => Outcome::Errno(record.errno),
        Call::Checkpoint | Call::Look | Call::Fork | Call::Wait4 => Outcome::None,
        _ => Outcome::Value(record.ret),
    }
}

fn read_facts(
    record: &Record,
    cookies: &mut Cookies,
    cast: &mut Cast<'_>,
) -> Result<Vec<Fact>, String> {
    let mut facts = Vec::new();
    for (tag, bytes) in &record.chunks {
        match tag {
            Tag::Events => facts.extend(events(bytes, None, cookies)?),
            Tag::Content => facts.push(Fact::Content(Bytes(bytes.clone()))),
            Tag::Names => {
                // Order of a directory listing is the filesystem's own and not kept by anybody.
                let mut names: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == 0).collect();
                names.sort_unstable();
                facts.extend(names.into_iter().map(|name| {
                    Fact::Content(Bytes::from(name.strip_suffix(b"\0").unwrap_or(name)))
                }));
            }
            Tag::Epoll => facts.extend(bytes.chunks_exact(12).map(|entry| Fact::Ready {
                events: u32::from_le_bytes(entry[..4].try_into().expect("4 bytes")),
                data: u64::from_le_bytes(entry[4..].try_into().expect("8 bytes")),
            })),
            Tag::Signals => facts.extend(bytes.chunks_exact(8).map(|entry| {
                let fd = i32::from_le_bytes(entry[4..].try_into().expect("4 bytes"));
                Fact::Signal {
                    signal: i32::from_le_bytes(entry[..4].try_into().expect("4 bytes")),
                    fd: (fd >= 0).then_some(fd),
                }
            })),
            Tag::FanotifyEvents => facts.extend(cast.facts(
                Read {
                    events: bytes,
                    links: record.chunk(Tag::EventLinks),
                    names: record.chunk(Tag::HandleLinks),
                },
                None,
            )?),
            // Told with the events that they belong to.
            Tag::EventLinks | Tag::HandleLinks => {}
        }
    }
    Ok(facts)
}

fn events(bytes: &[u8], fd: Option<i32>, cookies: &mut Cookies) -> Result<Vec<Fact>, String> {
    Events::new(bytes)
        .map(|event| {
            let event = event.map_err(|error| error.to_string())?;
            Ok(Fact::Event(Event {
                fd,
                wd: event.wd.map_or(-1, fsnotify::Wd::number),
                mask: event.mask,
                cookie: cookies.number(event.cookie.0),
                name: Bytes::from(event.name),
            }))
        })
        .collect()
}

/// Numbers cookies from 1 by first appearance: their values are a global counter's, only their
/// pairing means something.
#[derive(Debug, Default)]
struct Cookies {
    seen: HashMap<u32, u32>,
}

impl Cookies {
    fn number(&mut self, cookie: u32) -> u32 {
        if cookie == 0 {
            return 0;
        }
        let next = u32::try_from(self.seen.len() + 1).expect("fewer cookies than events");
        *self.seen.entry(cookie).or_insert(next)
    }
}
