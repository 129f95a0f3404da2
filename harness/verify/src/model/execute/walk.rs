//! From a path to a dentry.

use super::super::tree::{DentryId, Kind, Tree};
use super::{Done, EBADF, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, Model, Opened, Stop};
use scenario::{Reference, Step};

/// `NAME_MAX`.
const MAX_NAME: usize = 255;
/// `PATH_MAX` counts the NUL.
const MAX_PATH: usize = 4095;
/// `MAXSYMLINKS`.
const MAX_LINKS: u32 = 40;

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

/// Where a path leads.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The directory that the last name is in; the object itself where there is no last name (`.`,
    /// `..`, `/proc/self/fd/3`).
    pub(super) parent: DentryId,
    pub(super) name: LastName,
    /// What has the name; something may be mounted on it ([`Model::shown`]).
    pub(super) dentry: Option<DentryId>,
    pub(super) has_slash: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LastName {
    Normal(Vec<u8>),
    Dot,
    DotDot,
    /// A link of procfs jumps straight to the object.
    Jump,
}

impl Found {
    /// What is there.
    pub(super) fn there(&self) -> Done<DentryId> {
        self.dentry.ok_or(ENOENT)
    }
}

impl Model {
    /// Where the path at `path_at` leads, from the directory at `dir_at` or the working directory.
    pub(super) fn walk(
        &self,
        step: &Step,
        dir_at: Option<usize>,
        path_at: usize,
        last: Last,
    ) -> Done<Found> {
        let path = step.path(path_at);
        let start = match dir_at {
            Some(at) if step.reference(at) != Reference::Cwd && path.first() != Some(&b'/') => {
                match self.files[self.opened(step, at)?].what {
                    Opened::Dentry(dentry) => dentry,
                    Opened::Group(_) | Opened::Fanotify | Opened::Other => return Err(ENOTDIR),
                }
            }
            _ => self.process(step).cwd,
        };
        if path.is_empty() {
            return Err(ENOENT);
        }
        if path.len() > MAX_PATH {
            return Err(ENAMETOOLONG);
        }
        self.walk_from(step, start, path, last, &mut 0)
    }

    /// The object that a path leads to, which has to be there.
    pub(super) fn lookup(
        &self,
        step: &Step,
        dir_at: Option<usize>,
        path_at: usize,
        last: Last,
    ) -> Done<DentryId> {
        let found = self.walk(step, dir_at, path_at, last)?;
        let dentry = self.shown(&found)?;
        if found.has_slash && !self.tree.is_directory(dentry) {
            return Err(ENOTDIR);
        }
        Ok(dentry)
    }

    /// What is there for whoever goes in: what is mounted on it, if anything is.
    pub(super) fn shown(&self, found: &Found) -> Done<DentryId> {
        let dentry = found.there()?;
        Ok(match found.name {
            LastName::Normal(_) | LastName::DotDot => self.tree.top(dentry),
            LastName::Dot | LastName::Jump => dentry,
        })
    }

    fn walk_from(
        &self,
        step: &Step,
        mut at: DentryId,
        path: &[u8],
        last: Last,
        n_links: &mut u32,
    ) -> Done<Found> {
        let mut rest = path;
        if let Some(absolute) = path.strip_prefix(b"/") {
            let jump = self.jump(step, absolute, last)?;
            at = jump.0;
            rest = jump.1;
        }
        let has_slash = rest.ends_with(b"/");
        let names: Vec<&[u8]> = rest
            .split(|b| *b == b'/')
            .filter(|n| !n.is_empty())
            .collect();
        let Some((name, before)) = names.split_last() else {
            return Ok(Found {
                parent: at,
                name: LastName::Jump,
                dentry: Some(at),
                has_slash,
            });
        };
        for name in before {
            at = self.component(step, at, name, n_links)?;
        }
        if !self.tree.is_directory(at) {
            return Err(ENOTDIR);
        }
        self.last_component(step, at, name, (last, has_slash), n_links)
    }

    /// A directory on the way.
    fn component(
        &self,
        step: &Step,
        at: DentryId,
        name: &[u8],
        n_links: &mut u32,
    ) -> Done<DentryId> {
        if !self.tree.is_directory(at) {
            return Err(ENOTDIR);
        }
        let found = self.last_component(step, at, name, (Last::Follow, true), n_links)?;
        self.shown(&found)
    }

    fn last_component(
        &self,
        step: &Step,
        at: DentryId,
        name: &[u8],
        (last, has_slash): (Last, bool),
        n_links: &mut u32,
    ) -> Done<Found> {
        let special = |name, dentry| Found {
            parent: at,
            name,
            dentry: Some(dentry),
            has_slash,
        };
        match name {
            b"." => return Ok(special(LastName::Dot, at)),
            b".." => {
                let mut below = at;
                while let Some(on) = self.tree.mounted_on(below) {
                    below = on;
                }
                if below == Tree::ROOT {
                    return Err(Stop::Beyond("a path out of the world"));
                }
                return Ok(special(LastName::DotDot, self.tree.dentry(below).parent));
            }
            _ if name.len() > MAX_NAME => return Err(ENAMETOOLONG),
            _ => {}
        }
        let dentry = self.tree.child(at, name);
        let link = dentry.and_then(|dentry| match self.tree.kind_of(dentry) {
            Kind::Symlink(target) => Some(target.clone()),
            _ => None,
        });
        match link {
            Some(target) if last == Last::Follow || has_slash => {
                *n_links += 1;
                if *n_links > MAX_LINKS {
                    return Err(ELOOP);
                }
                let mut found = self.walk_from(step, at, &target, last, n_links)?;
                found.has_slash |= has_slash;
                Ok(found)
            }
            _ => Ok(Found {
                parent: at,
                name: LastName::Normal(name.to_vec()),
                dentry,
                has_slash,
            }),
        }
    }

    /// `/proc/self/fd/N`, and what of the path is behind it.
    fn jump<'a>(&self, step: &Step, absolute: &'a [u8], last: Last) -> Done<(DentryId, &'a [u8])> {
        let beyond = Stop::Beyond("a path out of the world");
        let rest = absolute.strip_prefix(b"proc/self/fd/").ok_or(beyond)?;
        let end = rest
            .iter()
            .position(|byte| *byte == b'/')
            .unwrap_or(rest.len());
        if last == Last::Keep && end == rest.len() {
            return Err(Stop::Beyond("a link of procfs"));
        }
        let digits = std::str::from_utf8(&rest[..end]).map_err(|_| beyond)?;
        let fd: i32 = digits.parse().map_err(|_| beyond)?;
        let file = self.process(step).fds.get(&fd).ok_or(ENOENT)?;
        match self.files[*file].what {
            Opened::Dentry(dentry) => Ok((dentry, &rest[end..])),
            Opened::Group(_) | Opened::Fanotify | Opened::Other => Err(beyond),
        }
    }

    /// The dentry of an open file that stands for a file: `F_GETFL` and the like work on any
    /// descriptor, these calls do not.
    pub(super) fn dentry_of(&self, file: usize) -> Done<DentryId> {
        match self.files[file].what {
            Opened::Dentry(_) if self.is_path_only(file) => Err(EBADF),
            Opened::Dentry(dentry) => Ok(dentry),
            Opened::Group(_) | Opened::Fanotify | Opened::Other => {
                Err(Stop::Beyond("this call on no file"))
            }
        }
    }

    pub(super) fn is_path_only(&self, file: usize) -> bool {
        const O_PATH: u64 = 0o10_000_000;
        self.files[file].flags & O_PATH != 0
    }
}
