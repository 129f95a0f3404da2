//! Groups that a process has which is not of the dump: by fork, or because it was sent the descriptor.
//!
//! It reads the same queue. While it runs, it would read what the dumper makes there and not what the
//! dumper has taken; and what it reads itself in the midst of it the dumper waits for.

use std::collections::BTreeMap;
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
    // Who is forked by another thread of ours has what we have, until it runs a program.
    let found = settled(|| Ok(refused(image, held)), |found| !found.is_empty())?;
    match found.into_iter().next() {
        None => Ok(()),
        Some((_, error)) => Err(error),
    }
}

/// Each inotify group that a process has which may run, by [`Image::files`].
pub(super) fn refused(image: &Image, held: &[Held]) -> Vec<(usize, DumpError)> {
    let groups = image.files.iter().zip(held).enumerate();
    let groups: Vec<(usize, &Held)> = groups
        .filter(|(_, (file, _))| matches!(file.object, Some(Object::Inotify(_))))
        .map(|(index, (_, group))| (index, group))
        .collect();
    if groups.is_empty() {
        return Vec::new();
    }
    let mut found = BTreeMap::new();
    for pid in others(image) {
        for fd in inspect::groups(pid).unwrap_or_default() {
            let same =
                |(_, it): &&(usize, &Held)| inspect::same_description((pid, fd), (it.pid, it.fd));
            if let Some((index, group)) = groups.iter().find(same)
                && may_run(pid)
            {
                let what = format!("a group that process {pid} has too, which is not stopped");
                let error = || DumpError::not_supported(&group.place, what);
                found.entry(*index).or_insert_with(error);
            }
        }
    }
    found.into_iter().collect()
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
