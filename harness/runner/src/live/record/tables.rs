//! Which descriptor of which process is which open file: tables are shared by threads, copied by
//! fork(2), and lose their close-on-exec descriptors at execve(2).

use std::collections::{BTreeMap, HashMap};

use super::line::{Call, Entry};

/// An open file description, by its place in the recorder's list.
pub(super) type File = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub file: File,
    pub close_on_exec: bool,
}

/// What `CLONE_FS` shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The working directory, absolute.
    pub directory: Vec<u8>,
    pub umask: u32,
}

/// All processes of a log.
#[derive(Debug)]
pub(super) struct Tables {
    descriptors: Vec<BTreeMap<i32, Slot>>,
    surroundings: Vec<Surroundings>,
    /// Table and surroundings of each thread.
    threads: HashMap<i32, (usize, usize)>,
    /// Who made whom, sharing what: told by the calls, used when somebody new speaks.
    parents: HashMap<i32, (i32, Shares)>,
    /// Whose table it is when nobody knows.
    first: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    files: bool,
    surroundings: bool,
}

impl Tables {
    /// The processes of a log. `first` is the one that was there at the beginning; a stranger
    /// whose maker is not in the log counts as one of its threads.
    pub(super) fn of(
        entries: &[Entry],
        first: i32,
        descriptors: BTreeMap<i32, Slot>,
        surroundings: Surroundings,
    ) -> Self {
        let mut parents = HashMap::new();
        for entry in entries {
            if let Entry::Call(call) = entry
                && let Some((child, shares)) = child(call)
            {
                parents.insert(child, (call.pid, shares));
            }
        }
        Self {
            descriptors: vec![descriptors],
            surroundings: vec![surroundings],
            threads: HashMap::from([(first, (0, 0))]),
            parents,
            first,
        }
    }

    /// Gives a process its tables, if it is new: a child may speak before its parent's call ends.
    pub(super) fn meet(&mut self, pid: i32) {
        let mut lineage = vec![pid];
        while let Some(&last) = lineage.last()
            && !self.threads.contains_key(&last)
        {
            match self.parents.get(&last) {
                Some((parent, _)) if !lineage.contains(parent) => lineage.push(*parent),
                Some(_) | None => break,
            }
        }
        for pid in lineage.into_iter().rev() {
            if self.threads.contains_key(&pid) {
                continue;
            }
            let made = self.parents.get(&pid).copied();
            let shares = Shares {
                files: true,
                surroundings: true,
            };
            let (parent, shares) = made.unwrap_or((self.first, shares));
            let (files, surroundings) = self.threads.get(&parent).copied().unwrap_or((0, 0));
            let files = if shares.files {
                files
            } else {
                self.descriptors.push(self.descriptors[files].clone());
                self.descriptors.len() - 1
            };
            let surroundings = if shares.surroundings {
                surroundings
            } else {
                self.surroundings
                    .push(self.surroundings[surroundings].clone());
                self.surroundings.len() - 1
            };
            self.threads.insert(pid, (files, surroundings));
        }
    }

    fn files_of(&mut self, pid: i32) -> &mut BTreeMap<i32, Slot> {
        let (files, _) = self.threads.get(&pid).copied().unwrap_or((0, 0));
        &mut self.descriptors[files]
    }

    pub(super) fn surroundings(&mut self, pid: i32) -> &mut Surroundings {
        let (_, surroundings) = self.threads.get(&pid).copied().unwrap_or((0, 0));
        &mut self.surroundings[surroundings]
    }

    /// Working directories, for what a rename does to them.
    pub(super) fn directories(&mut self) -> impl Iterator<Item = &mut Vec<u8>> {
        self.surroundings.iter_mut().map(|one| &mut one.directory)
    }

    pub(super) fn get(&mut self, pid: i32, fd: i32) -> Option<File> {
        self.files_of(pid).get(&fd).map(|slot| slot.file)
    }

    /// Puts a file at a number; what was there has lost it.
    pub(super) fn put(&mut self, pid: i32, fd: i32, slot: Slot) -> Option<File> {
        let old = self.files_of(pid).insert(fd, slot);
        old.map(|old| old.file)
    }

    pub(super) fn set_close_on_exec(&mut self, pid: i32, fd: i32, close_on_exec: bool) {
        if let Some(slot) = self.files_of(pid).get_mut(&fd) {
            slot.close_on_exec = close_on_exec;
        }
    }

    pub(super) fn close(&mut self, pid: i32, fd: i32) -> Option<File> {
        self.files_of(pid).remove(&fd).map(|slot| slot.file)
    }

    /// Closes a range of numbers.
    pub(super) fn close_range(&mut self, pid: i32, first: i32, last: i32) -> Vec<File> {
        let table = self.files_of(pid);
        let numbers: Vec<i32> = table.range(first..=last).map(|(fd, _)| *fd).collect();
        numbers
            .iter()
            .filter_map(|fd| table.remove(fd).map(|slot| slot.file))
            .collect()
    }

    /// execve(2): a table of its own, without what was to be closed.
    pub(super) fn exec(&mut self, pid: i32) -> Vec<File> {
        let (files, surroundings) = self.threads.get(&pid).copied().unwrap_or((0, 0));
        let (keep, close): (BTreeMap<i32, Slot>, BTreeMap<i32, Slot>) = self.descriptors[files]
            .iter()
            .partition(|(_, slot)| !slot.close_on_exec);
        let others = self.threads.iter();
        let is_shared = { others }.any(|(other, own)| *other != pid && own.0 == files);
        if is_shared {
            self.descriptors.push(keep);
            let own = self.descriptors.len() - 1;
            self.threads.insert(pid, (own, surroundings));
        } else {
            self.descriptors[files] = keep;
        }
        close.into_values().map(|slot| slot.file).collect()
    }

    /// The end of a thread, and of its table if it was the last: what that held.
    pub(super) fn exit(&mut self, pid: i32) -> Vec<File> {
        let Some((files, _)) = self.threads.remove(&pid) else {
            return Vec::new();
        };
        if self.threads.values().any(|own| own.0 == files) {
            return Vec::new();
        }
        let held = std::mem::take(&mut self.descriptors[files]);
        held.into_values().map(|slot| slot.file).collect()
    }

    /// Whether anybody still has it open.
    pub(super) fn is_open(&self, file: File) -> bool {
        let mut tables = self.descriptors.iter();
        tables.any(|table| table.values().any(|slot| slot.file == file))
    }
}

/// The child that a call made.
fn child(call: &Call) -> Option<(i32, Shares)> {
    let pid = i32::try_from(call.success()?).ok().filter(|pid| *pid > 0)?;
    let flags = match call.name.as_str() {
        "fork" | "vfork" => String::new(),
        "clone" | "clone3" => call.arguments.join(" "),
        _ => return None,
    };
    Some((
        pid,
        Shares {
            files: flags.contains("CLONE_FILES"),
            surroundings: flags.contains("CLONE_FS"),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::super::line::entries;
    use super::*;

    /// Tables of process 1, which holds file 10 at 3, and file 11 at 4 until it executes another
    /// program.
    fn tables(log: &str) -> Tables {
        let slot = |file, close_on_exec| Slot {
            file,
            close_on_exec,
        };
        let descriptors = BTreeMap::from([(3, slot(10, false)), (4, slot(11, true))]);
        let surroundings = Surroundings {
            directory: b"/".to_vec(),
            umask: 0o022,
        };
        Tables::of(&entries(log), 1, descriptors, surroundings)
    }

    #[test]
    fn a_fork_has_a_table_of_its_own_and_a_thread_shares() {
        let mut tables = tables(
            "1 fork() = 2\n1 clone(child_stack=0x1, flags=CLONE_VM|CLONE_FS|CLONE_FILES) = 3\n",
        );
        tables.meet(2);
        tables.meet(3);
        assert_eq!(tables.close(1, 3), Some(10));
        assert_eq!(tables.get(3, 3), None);
        assert_eq!(tables.get(2, 3), Some(10));
        assert!(tables.is_open(10));
        tables.surroundings(3).directory = b"/a".to_vec();
        assert_eq!(tables.surroundings(1).directory, b"/a");
        assert_eq!(tables.surroundings(2).directory, b"/");
        assert!(tables.exit(3).is_empty());
        assert_eq!(tables.exit(2), [10, 11]);
        assert!(!tables.is_open(10));
        assert!(tables.is_open(11));
    }

    #[test]
    fn another_program_has_lost_what_was_to_be_closed() {
        let mut tables = tables("1 vfork() = 2\n");
        tables.meet(2);
        assert_eq!(tables.exec(2), [11]);
        assert_eq!(tables.get(2, 4), None);
        assert_eq!(tables.get(2, 3), Some(10));
        assert_eq!(tables.get(1, 4), Some(11));
    }

    #[test]
    fn a_child_of_a_child_may_speak_first() {
        let mut tables = tables("2 fork() = 3\n1 fork() = 2\n");
        tables.meet(3);
        assert_eq!(tables.get(3, 3), Some(10));
        tables.close(3, 3);
        assert_eq!(tables.get(2, 3), Some(10));
    }

    #[test]
    fn ranges_are_closed_from_end_to_end() {
        let mut tables = tables("");
        assert_eq!(tables.close_range(1, 4, i32::MAX), [11]);
        assert_eq!(tables.get(1, 3), Some(10));
        // A stranger is a thread of the first.
        tables.meet(9);
        assert_eq!(tables.get(9, 3), Some(10));
    }
}
