//! Groups that a process has which is not of the dump: by fork, or because it was sent the descriptor.
//!
//! It reads the same queue. While it runs, it would read what the dumper makes there and not what the
//! dumper has taken; and what it reads itself in the midst of it the dumper waits for.

use std::{fs, iter};

use nix::unistd::Pid;

use super::error::DumpError;
use super::files::Held;
use super::settled::settled;
use crate::image::{Image, Object};
use crate::process::stat;
use crate::sys::inspect;

/// Refuses inotify groups that somebody else may read from. Whom we may not look at we do not find.
pub(super) fn refuse(image: &Image, held: &[Held]) -> Result<(), DumpError> {
    let groups = image.files.iter().zip(held);
    let groups: Vec<&Held> = groups
        .filter(|(file, _)| matches!(file.object, Some(Object::Inotify(_))))
        .map(|(_, group)| group)
        .collect();
    if groups.is_empty() {
        return Ok(());
    }
    // Who is forked by another thread of ours has what we have, until it runs a program.
    let found = settled(|| Ok(find(image, &groups)), Option::is_some)?;
    match found {
        None => Ok(()),
        Some((pid, group)) => {
            let what = format!("a group that process {pid} has too, which is not stopped");
            Err(DumpError::not_supported(&group.place, what))
        }
    }
}

/// A process that may run, and which of the groups it has.
fn find<'a>(image: &Image, groups: &[&'a Held]) -> Option<(Pid, &'a Held)> {
    others(image).into_iter().find_map(|pid| {
        let numbers = inspect::groups(pid).unwrap_or_default();
        let mut shared = numbers.into_iter().filter_map(|fd| {
            let same = |it: &&Held| inspect::same_description((pid, fd), (it.pid, it.fd));
            groups.iter().copied().find(same)
        });
        shared
            .next()
            .filter(|_| may_run(pid))
            .map(|group| (pid, group))
    })
}

/// Processes that may have a group and are neither dumped nor ours. A dump with descendants leaves those
/// that the first process was forked by; one of groups alone, all others.
fn others(image: &Image) -> Vec<Pid> {
    let dumped: Vec<i32> = image.processes.iter().map(|process| process.pid).collect();
    let others = if image.only_groups {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.collect()
    } else {
        let first = image.processes.first().map(|process| process.parent);
        iter::successors(first, |pid| parent(*pid)).collect::<Vec<i32>>()
    };
    let own = Pid::this().as_raw();
    let others = others.into_iter();
    let others = others.filter(|pid| *pid > 0 && *pid != own && !dumped.contains(pid));
    others.map(Pid::from_raw).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let parent = stat(pid).ok()?.get(1)?.parse().ok()?;
    (parent > 0).then_some(parent)
}

fn may_run(pid: Pid) -> bool {
    let fields = stat(pid).unwrap_or_default();
    let state = fields.first().and_then(|state| state.chars().next());
    state.is_some_and(|state| !matches!(state, 'T' | 't' | 'Z' | 'X'))
}
