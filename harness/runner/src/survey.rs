//! What can be seen of a parked process tree from outside, without making an event: every
//! descriptor, watch and mark, as facts with names in place of inodes.
//!
//! The audit at the end of a run also lives here. It drains queues and reads files, so it comes
//! when nobody listens any more.

use std::collections::HashMap;

use nix::unistd::Pid;
use scenario::{Descriptor, DescriptorKind, Fact, Mark, Name, Object, Watch};

mod audit;
mod descriptor;
mod names;

pub use audit::{Drained, Queue, drain, leftovers, mounts, new_mounts, tree};
pub use names::Names;

use descriptor::{Seen, Times};
use names::Resolver;

/// A process of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// None: the main process.
    pub name: Option<Name>,
    pub pid: Pid,
}

/// What was seen.
#[derive(Debug)]
pub struct Survey {
    descriptors: Vec<Seen>,
    /// Of each process that lives.
    directories: Vec<Fact>,
}

impl Survey {
    /// Looks at every descriptor of every process.
    ///
    /// # Errors
    ///
    /// In words: which call on which descriptor failed.
    pub fn take(processes: &[Process], names: &Names) -> Result<Self, String> {
        let mut descriptors: Vec<Seen> = Vec::new();
        for process in processes {
            descriptor::see_all(process, processes, &mut descriptors)?;
        }
        let mut resolver = Resolver::new(names, &descriptors);
        for seen in &mut descriptors {
            seen.name_objects(&mut resolver);
        }
        let directory = |process: &Process| {
            let object = descriptor::working_directory(process, &resolver)?;
            let process = process.name.clone();
            Some(Fact::WorkingDirectory { process, object })
        };
        let directories = processes.iter().filter_map(directory).collect();
        Ok(Self {
            descriptors,
            directories,
        })
    }

    /// A descriptor of a ghost with a time that would look whole to a dumper which keeps microseconds, as
    /// CRIU does, whether it was or not. A time of a whole second is one that a program has set, and one
    /// that was there behind the last cut is what that cut made of it.
    pub(crate) fn ghost_of_whole_microseconds(&self, behind_cut: Option<&Self>) -> Option<i32> {
        let made: Vec<Times> = behind_cut
            .iter()
            .flat_map(|survey| &survey.descriptors)
            .filter_map(|seen| seen.times)
            .collect();
        let mut ghosts = self.descriptors.iter().filter(|seen| {
            let is_chance = |times: Times| times.has_whole_microseconds(&made);
            matches!(seen.fact.object, Object::Ghost(_)) && seen.times.is_some_and(is_chance)
        });
        ghosts.next().map(|seen| seen.fact.fd)
    }

    /// Reads the content of every regular file that a descriptor refers to. Makes events.
    ///
    /// # Errors
    ///
    /// In words: which descriptor cannot be read.
    pub fn read_contents(&mut self) -> Result<(), String> {
        for seen in &mut self.descriptors {
            seen.read_content()
                .map_err(|error| format!("read fd {}: {error}", seen.fact.fd))?;
        }
        Ok(())
    }

    /// Everything, in order of process and descriptor. With an earlier survey of the same run,
    /// each object's times are compared with it.
    #[must_use]
    pub fn facts(&self, earlier: Option<&Self>) -> Vec<Fact> {
        let times: HashMap<(&Option<Name>, i32), Times> = earlier
            .iter()
            .flat_map(|survey| &survey.descriptors)
            .filter_map(|seen| Some(((&seen.fact.process, seen.fact.fd), seen.times?)))
            .collect();
        let mut facts = Vec::new();
        for seen in &self.descriptors {
            let mut fact = seen.fact.clone();
            if let (Some(stat), Some(now), Some(then)) = (
                &mut fact.stat,
                seen.times,
                times.get(&(&fact.process, fact.fd)),
            ) {
                stat.changed = now.changed_since(*then);
            }
            facts.push(Fact::Descriptor(fact));
            facts.extend(seen.body_facts());
        }
        facts.extend(self.directories.iter().cloned());
        facts
    }

    /// One descriptor: what a `look` shows.
    #[must_use]
    pub fn facts_of(&self, process: Option<&Name>, fd: i32) -> Vec<Fact> {
        self.descriptors
            .iter()
            .filter(|seen| seen.fact.process.as_ref() == process && seen.fact.fd == fd)
            .flat_map(|seen| {
                let mut facts = vec![Fact::Descriptor(seen.fact.clone())];
                facts.extend(seen.body_facts());
                facts
            })
            .collect()
    }

    /// Every descriptor that refers to an inode of the world, for whoever wants to watch it.
    pub(crate) fn inodes(&self) -> impl Iterator<Item = (Pid, i32, &Object)> {
        self.descriptors
            .iter()
            .filter(|seen| {
                !matches!(
                    seen.fact.kind,
                    DescriptorKind::Inotify | DescriptorKind::Fanotify | DescriptorKind::Epoll
                )
            })
            .map(|seen| (seen.pid, seen.fact.fd, &seen.fact.object))
    }
}

/// What hangs on a group.
#[derive(Debug, Default)]
struct Body {
    watches: Vec<Watch>,
    marks: Vec<Mark>,
    next_wd: Option<i32>,
}

impl Seen {
    fn body_facts(&self) -> Vec<Fact> {
        let Descriptor { process, fd, .. } = &self.fact;
        let mut facts: Vec<Fact> = self.body.watches.iter().cloned().map(Fact::Watch).collect();
        facts.extend(self.body.marks.iter().cloned().map(Fact::Mark));
        facts.extend(self.body.next_wd.map(|wd| Fact::NextWd {
            process: process.clone(),
            fd: *fd,
            wd,
        }));
        facts
    }
}
