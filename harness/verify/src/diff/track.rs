//! What has to be remembered from step to step of control: which descriptor a name is bound to,
//! which descriptors are one group, and how much of each queue was unread at the last cut.

use std::collections::HashMap;

use scenario::{
    Arg, Call, Descriptor, Event, Expect, Fact, Name, Observation, Outcome, Place, Scenario, Step,
};

use super::binds::Binds;
use crate::text;

/// A group by the first descriptor that refers to it.
type GroupId = (Option<Name>, i32);

#[derive(Debug)]
pub(super) struct Track<'a> {
    scenario: &'a Scenario,
    bound: HashMap<&'a Name, i64>,
    /// Descriptors that share a group with an earlier one.
    shared: HashMap<GroupId, GroupId>,
    /// Bytes of each queue that were unread at the last cut and were not read since.
    unread: HashMap<GroupId, u64>,
    /// Which descriptor an epoll data word stands for.
    interest: HashMap<u64, i32>,
    /// What the current step reads from.
    reads: Option<GroupId>,
}

impl<'a> Track<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            bound: HashMap::new(),
            shared: HashMap::new(),
            unread: HashMap::new(),
            interest: HashMap::new(),
            reads: None,
        }
    }

    /// Takes note of what control yielded at the next place.
    pub(super) fn enter(&mut self, control: &Observation) {
        let step = self.step(control.place);
        self.reads = step.and_then(|step| self.group_of(step));
        if let (
            Some(Step {
                expect: Expect::Bind(name),
                ..
            }),
            Outcome::Value(value),
        ) = (step, control.outcome)
        {
            self.bound.insert(name, value);
        }
        if let (Some(step), Outcome::Value(value)) = (step, control.outcome) {
            self.descriptor(step, value);
        }
        let Place::Step(_) = control.place else {
            return;
        };
        if step.is_none_or(|step| step.call == Call::Checkpoint) {
            self.survey(&control.facts);
        }
    }

    /// A descriptor that is made of another since the cut reads what was unread in it.
    fn descriptor(&mut self, step: &Step, value: i64) {
        let (Some(from), Ok(made)) = (self.reads.clone(), i32::try_from(value)) else {
            return;
        };
        match step.call {
            Call::Dup | Call::Dup2 | Call::Dup3 => {
                let first = self.first(from);
                let made = (step.process.clone(), made);
                if made != first {
                    self.shared.insert(made, first);
                }
            }
            Call::Close => {
                self.shared.remove(&from);
            }
            _ => {}
        }
    }

    /// The descriptor that a group is known by.
    fn first(&self, descriptor: GroupId) -> GroupId {
        let first = self.shared.get(&descriptor).cloned();
        first.unwrap_or(descriptor)
    }

    /// The survey at a cut.
    fn survey(&mut self, facts: &[Fact]) {
        self.shared.clear();
        self.unread.clear();
        for fact in facts {
            let Fact::Descriptor(Descriptor {
                process,
                fd,
                shared_with,
                unread,
                interest,
                ..
            }) = fact
            else {
                continue;
            };
            match shared_with {
                Some(first) => {
                    self.shared.insert((process.clone(), *fd), first.clone());
                }
                None => {
                    let group = unread.map(|unread| ((process.clone(), *fd), unread));
                    self.unread.extend(group);
                }
            }
            for (tfd, _, data) in interest {
                self.interest.insert(*data, *tfd);
            }
        }
    }

    /// By index of fact: whether an event was in the queue at the last cut.
    pub(super) fn unread_at_cut(&mut self, control: &Observation) -> Vec<bool> {
        let is_unread = |fact: &Fact| {
            let (fd, size) = match fact {
                Fact::Event(event) => (event.fd, size(event)),
                // FIONREAD counts the metadata of a fanotify event, not its records.
                Fact::FanotifyEvent(event) => (event.fd, FANOTIFY_METADATA),
                _ => return false,
            };
            let left = match fd {
                None => {
                    let group = self.reads.clone();
                    let group = group.map(|group| self.first(group));
                    // A child that was made since has what the main process has.
                    let group = group.map(|(process, fd)| {
                        let is_known = self.unread.contains_key(&(process.clone(), fd));
                        (process.filter(|_| is_known), fd)
                    });
                    group.and_then(|group| self.unread.get_mut(&group))
                }
                // At the end the queues of all processes are drained, the main process's first.
                Some(fd) => {
                    let all = self.unread.iter_mut();
                    let same = all.filter(|((_, other), left)| *other == fd && **left >= size);
                    same.min_by(|one, other| one.0.cmp(other.0))
                        .map(|(_, left)| left)
                }
            };
            left.is_some_and(|left| {
                let enough = *left >= size;
                *left = left.saturating_sub(size);
                enough
            })
        };
        control.facts.iter().map(is_unread).collect()
    }

    /// The bind mounts that stand at a place.
    pub(super) fn binds(&self, place: Place) -> Binds {
        let steps = &self.scenario.steps;
        match place {
            Place::Step(index) => Binds::after(&steps[..index.min(steps.len())]),
            Place::End => Binds::after(steps),
        }
    }

    /// What a fact is about, as a declared loss names it.
    pub(super) fn object(&self, fact: &Fact) -> String {
        let group = |fd: &Option<i32>| match (fd, &self.reads) {
            (Some(fd), _) => text::fd_of(None, *fd),
            (None, Some(read)) => {
                let (process, fd) = self.first(read.clone());
                text::fd_of(process.as_ref(), fd)
            }
            (None, None) => String::new(),
        };
        match fact {
            Fact::Event(event) => format!("{}, wd {}", group(&event.fd), event.wd),
            Fact::FanotifyEvent(event) => group(&event.fd),
            Fact::Content(_) => group(&None),
            Fact::Ready { data, .. } => match self.interest.get(data) {
                Some(tfd) => format!("{}, fd {tfd}", group(&None)),
                None => group(&None),
            },
            Fact::Signal { signal, fd } => match fd {
                Some(fd) => format!("{}, fd {fd}", text::signal(*signal)),
                None => text::signal(*signal),
            },
            Fact::Descriptor(it) => {
                let fd = text::fd_of(it.process.as_ref(), it.fd);
                format!("{fd}, {}", text::object_of(it))
            }
            Fact::Watch(it) => {
                let fd = text::fd_of(it.process.as_ref(), it.fd);
                format!("{fd}, wd {}, {}", it.wd, text::object(&it.target))
            }
            Fact::Mark(it) => {
                let fd = text::fd_of(it.process.as_ref(), it.fd);
                format!("{fd}, {}", text::mark_target(&it.target))
            }
            Fact::NextWd { process, fd, .. } => text::fd_of(process.as_ref(), *fd),
            Fact::WorkingDirectory { process, .. } => match process {
                Some(Name(process)) => format!("working directory of {process}"),
                None => "working directory".to_owned(),
            },
            Fact::Bystander(it) => it
                .watched
                .as_ref()
                .map_or_else(|| "filesystem".to_owned(), text::object),
            Fact::Entry(it) => it.path.to_string(),
            Fact::Leftover(_) => String::new(),
            Fact::Loss(it) => it.object.clone(),
        }
    }

    /// What a step is about.
    pub(super) fn object_of_step(&self, place: Place) -> String {
        let group = self.step(place).and_then(|step| self.group_of(step));
        group.map_or_else(String::new, |(process, fd)| {
            text::fd_of(process.as_ref(), fd)
        })
    }

    /// The call of a step, and the value of the word that is its second argument, if it is one.
    pub(super) fn call(&self, place: Place) -> Option<(Call, Option<u64>)> {
        let step = self.step(place)?;
        let word = match step.args.get(1) {
            Some(Arg::Flags(_, value)) => Some(*value),
            _ => None,
        };
        Some((step.call, word))
    }

    fn step(&self, place: Place) -> Option<&'a Step> {
        match place {
            Place::Step(index) => self.scenario.steps.get(index),
            Place::End => None,
        }
    }

    /// The descriptor that is the first argument of a step.
    fn group_of(&self, step: &Step) -> Option<GroupId> {
        let number = match step.args.first()? {
            Arg::Name(name) => *self.bound.get(name)?,
            Arg::Int(number) => *number,
            _ => return None,
        };
        Some((step.process.clone(), i32::try_from(number).ok()?))
    }
}

/// Bytes of an inotify event in a queue: `struct inotify_event`, and the name with at least one NUL,
/// filled up to a multiple of it (`round_event_name_len`).
pub(super) fn size(event: &Event) -> u64 {
    const HEAD: usize = 16;
    let name = match event.name.0.len() {
        0 => 0,
        n => (n + 1).next_multiple_of(HEAD),
    };
    u64::try_from(HEAD + name).unwrap_or(u64::MAX)
}

/// `struct fanotify_event_metadata`.
const FANOTIFY_METADATA: u64 = 24;
