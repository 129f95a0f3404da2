//! Paths that may lead to an inode which no handle leads to.

use std::collections::{HashMap, VecDeque};

use super::Places;

/// Most look-ups of file names in directories that a fallback makes.
const MAX_LOOKUPS: usize = 200_000;

/// Paths that may lead somewhere, looked up when they are needed first.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Those that we were told of, until they are looked up.
    pub(super) given: Vec<Vec<u8>>,
    /// Their last components, until they are looked up in every directory that was found.
    pub(super) names: Vec<Vec<u8>>,
    pub(super) directories: VecDeque<Vec<u8>>,
    pub(super) found: HashMap<(u32, u64), Vec<Vec<u8>>>,
}

/// Which candidates are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    Given,
    /// And each of their last components in each directory among them: names move with their
    /// directories.
    Everywhere,
}

impl Places {
    /// What these candidates lead to. The given ones come first, however many they are: each name in
    /// each directory soon is more than can be looked up.
    pub(super) fn candidates(&mut self, search: Search) -> &HashMap<(u32, u64), Vec<Vec<u8>>> {
        let given = std::mem::take(&mut self.candidates.given);
        if !given.is_empty() {
            let last = |path: &[u8]| path.rsplit(|&byte| byte == b'/').next().map(<[u8]>::to_vec);
            let mut names: Vec<Vec<u8>> = given.iter().filter_map(|path| last(path)).collect();
            names.sort();
            names.dedup();
            names.retain(|name| !matches!(&name[..], b"" | b"." | b".."));
            self.candidates.names = names;
        }
        for path in given {
            self.note_candidate(path);
        }
        if search == Search::Everywhere {
            let names = std::mem::take(&mut self.candidates.names);
            let mut n_left = MAX_LOOKUPS;
            while let Some(directory) = self.candidates.directories.pop_front()
                && n_left > 0
            {
                for name in names.iter().take(n_left) {
                    self.note_candidate([&directory[..], b"/", name].concat());
                }
                n_left = n_left.saturating_sub(names.len());
            }
        }
        &self.candidates.found
    }

    pub(super) fn note_candidate(&mut self, path: Vec<u8>) {
        let Some(stat) = self.look_up(&path) else {
            return;
        };
        let inode = (self.sdev(&stat), stat.ino);
        let known = self.candidates.found.entry(inode).or_default();
        if known.contains(&path) {
            return;
        }
        if stat.mode & libc::S_IFMT == libc::S_IFDIR {
            self.candidates.directories.push_back(path.clone());
        }
        known.push(path);
    }
}
