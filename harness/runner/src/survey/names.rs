//! From inodes to names: what a path of the scenario, a descriptor or a handle refers to.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use fsnotify::handle::FileHandle;
use fsnotify::{Ino, Sdev};
use nix::libc;
use scenario::{Arg, ArgKind, Bytes, Call, FlagSet, Object, Scenario};

use super::descriptor::{Linked, Seen};

/// What the names of the links that `--link-remap` makes begin with.
const CRIU_LINK: &[u8] = b"link_remap.";

/// The paths that a scenario names. They are what may be looked up without listing a directory,
/// which would make events.
#[derive(Clone, Debug)]
pub struct Names {
    /// The root of the world as it is reached from here.
    world: PathBuf,
    /// The same as the subject sees it.
    seen: PathBuf,
    candidates: Vec<PathBuf>,
    /// Whether the scenario makes files by `O_TMPFILE`.
    has_unnamed: bool,
}

impl Names {
    /// Every path argument of the scenario and every directory above it, sorted, relative to the
    /// root of the world.
    #[must_use]
    pub fn of(scenario: &Scenario, world: &Path) -> Self {
        let mut candidates = vec![PathBuf::new()];
        // A relative path counts from every directory that some step changes to.
        let mut bases = vec![PathBuf::new()];
        for step in &scenario.steps {
            let kinds = step.call.signature().args;
            for (arg, kind) in step.args.iter().zip(kinds) {
                let (Arg::Bytes(bytes), ArgKind::Path | ArgKind::PathOrNull) = (arg, kind) else {
                    continue;
                };
                let path = Path::new(std::ffi::OsStr::from_bytes(&bytes.0));
                for base in bases.clone() {
                    let Some(path) = normal(&base, path) else {
                        continue;
                    };
                    if step.call == Call::Chdir && !bases.contains(&path) {
                        bases.push(path.clone());
                    }
                    candidates.extend(path.ancestors().map(Path::to_path_buf));
                }
            }
        }
        candidates.sort();
        candidates.dedup();
        Self {
            world: world.to_path_buf(),
            seen: world.to_path_buf(),
            candidates,
            has_unnamed: makes_unnamed(scenario),
        }
    }

    /// From here on the world is reached by another path than the subject's own.
    pub fn reach(&mut self, world: PathBuf) {
        self.world = world;
    }

    /// The root of the world, absolute, as it is reached from here.
    #[must_use]
    pub fn world(&self) -> &Path {
        &self.world
    }

    /// Relative to the root of the world, which itself is the empty path.
    #[must_use]
    pub fn candidates(&self) -> &[PathBuf] {
        &self.candidates
    }

    /// The name in an event. That of a file made by `O_TMPFILE` is `#` and its inode number
    /// (`d_mark_tmpfile`), which no more stays the same than any other inode number: only the `#` of
    /// it is shown, in a scenario that makes such files. The same of the links that CRIU makes, which it
    /// numbers as the files of its image.
    #[must_use]
    pub fn of_event(&self, name: &[u8]) -> Bytes {
        let link = name.strip_prefix(CRIU_LINK);
        if link.is_some_and(|number| number.iter().all(u8::is_ascii_digit)) {
            return Bytes([CRIU_LINK, b"#"].concat());
        }
        match name.strip_prefix(b"#") {
            Some(number) if self.has_unnamed && number.iter().all(u8::is_ascii_digit) => {
                Bytes::from("#")
            }
            _ => Bytes::from(name),
        }
    }

    /// Where a path that the subject sees is from here.
    fn here(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.seen) {
            Ok(inner) if inner.as_os_str().is_empty() => self.world.clone(),
            Ok(inner) => self.world.join(inner),
            Err(_) => path.to_path_buf(),
        }
    }

    /// A path as facts show it: relative to the world, `.` for its root; as it is elsewhere.
    #[must_use]
    pub fn shown(&self, path: &[u8]) -> Bytes {
        let path_here = Path::new(std::ffi::OsStr::from_bytes(path));
        let inner = path_here
            .strip_prefix(&self.seen)
            .or_else(|_| path_here.strip_prefix(&self.world));
        match inner {
            Ok(inner) if inner.as_os_str().is_empty() => Bytes::from("."),
            Ok(inner) => Bytes::from(inner.as_os_str().as_bytes()),
            Err(_) => Bytes::from(path),
        }
    }
}

/// Whether some step opens with `O_TMPFILE`.
fn makes_unnamed(scenario: &Scenario) -> bool {
    let tmpfile = u64::from(nix::libc::O_TMPFILE.cast_unsigned());
    scenario.steps.iter().any(|step| {
        step.args
            .iter()
            .any(|arg| matches!(arg, Arg::Flags(FlagSet::Open, bits) if bits & tmpfile == tmpfile))
    })
}

/// A path without `.` and `..`, below the world; none for one that leaves it.
fn normal(base: &Path, path: &Path) -> Option<PathBuf> {
    if path.is_absolute() {
        return None;
    }
    let mut normal = base.to_path_buf();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

/// Names for the inodes of one survey.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    names: &'a Names,
    by_handle: HashMap<(Sdev, FileHandle), Object>,
    by_number: HashMap<(Sdev, Ino), Object>,
    /// For filesystems whose files have other device numbers than their marks: stat(2) of btrfs gives
    /// that of the subvolume (`btrfs_getattr`), fdinfo that of the superblock.
    by_handle_anywhere: HashMap<FileHandle, Object>,
    n_unnamed: u32,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(names: &'a Names, descriptors: &[Seen]) -> Self {
        let mut resolver = Self {
            names,
            by_handle: HashMap::new(),
            by_number: HashMap::new(),
            by_handle_anywhere: HashMap::new(),
            n_unnamed: 0,
        };
        for candidate in &names.candidates {
            resolver.add_path(&names.world.join(candidate));
        }
        for seen in descriptors {
            if let Some(number) = seen.number {
                let object = resolver.link_object(&seen.linked());
                resolver.add(number, seen.handle, &object);
            }
        }
        resolver
    }

    /// A path as facts show it.
    pub(super) fn shown(&self, path: &[u8]) -> Bytes {
        self.names.shown(path)
    }

    fn add_path(&mut self, path: &Path) {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return;
        };
        let number = (sdev(metadata.dev()), Ino(metadata.ino()));
        let handle = cr::sys::handle::of_path(path).ok();
        let object = Object::Path(self.names.shown(path.as_os_str().as_bytes()));
        self.add(number, handle, &object);
    }

    /// The first name wins: candidates are sorted, and come before descriptors.
    fn add(&mut self, number: (Sdev, Ino), handle: Option<FileHandle>, object: &Object) {
        if let Some(handle) = handle {
            self.by_handle
                .entry((number.0, handle))
                .or_insert_with(|| object.clone());
            self.by_handle_anywhere
                .entry(handle)
                .or_insert_with(|| object.clone());
        }
        self.by_number
            .entry(number)
            .or_insert_with(|| object.clone());
    }

    /// What the link of a descriptor says, read with the link count in mind: the kernel appends
    /// ` (deleted)` to a name that is gone (`d_path`), and a real name may end so too.
    pub(super) fn link_object(&self, seen: &Linked<'_>) -> Object {
        const DELETED: &[u8] = b" (deleted)";
        let link = seen.link;
        if !link.starts_with(b"/") {
            let kind = link.split(|&byte| byte == b':').next().unwrap_or(link);
            let kind = String::from_utf8_lossy(kind);
            let own = || fs::read_link(format!("/proc/{}/ns/{kind}", seen.pid));
            let text = match &*kind {
                "pipe" | "socket" => kind.into_owned(),
                // A namespace is called by a number that it has in this run.
                _ if own().is_ok_and(|own| own.as_os_str().as_bytes() == link) => {
                    format!("{kind}:[own]")
                }
                _ => String::from_utf8_lossy(link).into_owned(),
            };
            return Object::Other(text);
        }
        let path = Path::new(std::ffi::OsStr::from_bytes(link));
        let has_this_name = seen.n_links > 0
            && !seen.whereabouts.is_name_gone
            && fs::symlink_metadata(self.names.here(path)).is_ok_and(|metadata| {
                seen.number == Some((sdev(metadata.dev()), Ino(metadata.ino())))
            });
        match link.strip_suffix(DELETED) {
            _ if seen.whereabouts.is_mounted_nowhere => {
                let text = String::from_utf8_lossy(link);
                Object::Other(format!("{text} on a filesystem that is mounted nowhere"))
            }
            Some(name) if !has_this_name => {
                Object::Ghost(self.names.shown(unnumbered(name, seen.number)))
            }
            _ => Object::Path(self.names.shown(link)),
        }
    }

    /// The target of a watch or an inode mark. A handle that nothing known has is opened, where
    /// that is permitted, for its name.
    pub(super) fn target(&mut self, number: (Sdev, Ino), handle: Option<&FileHandle>) -> Object {
        let known = match handle {
            Some(handle) => self
                .by_handle
                .get(&(number.0, *handle))
                .or_else(|| self.by_number.get(&number))
                .or_else(|| self.by_handle_anywhere.get(handle)),
            None => self.by_number.get(&number),
        };
        if let Some(object) = known {
            return object.clone();
        }
        let object = handle
            .and_then(|handle| self.opened(handle, number))
            .unwrap_or_else(|| {
                self.n_unnamed += 1;
                Object::Unnamed(self.n_unnamed)
            });
        self.add(number, handle.copied(), &object);
        object
    }

    fn opened(&self, handle: &FileHandle, number: (Sdev, Ino)) -> Option<Object> {
        let root = cr::sys::handle::open_path(&self.names.world).ok()?;
        let file = cr::sys::handle::open(&root, handle).ok()?;
        let link = fs::read_link(cr::sys::handle::proc_path(&file)).ok()?;
        let link = link.into_os_string().into_vec();
        match link.strip_suffix(b" (deleted)") {
            Some(name) => {
                let name = unnumbered(name, Some(number));
                Some(Object::Ghost(self.names.shown(name)))
            }
            None => Some(Object::Path(self.names.shown(&link))),
        }
    }
}

/// A file made by `O_TMPFILE` is called by its inode number (`d_mark_tmpfile`: `#12`), which is no
/// more the same after a restore than any other inode number: only the `#` of it is kept.
fn unnumbered(name: &[u8], number: Option<(Sdev, Ino)>) -> &[u8] {
    let own = number.map(|(_, ino)| ino.0.to_string());
    match own.and_then(|own| name.strip_suffix(own.as_bytes())) {
        Some(rest) if rest.ends_with(b"/#") => rest,
        _ => name,
    }
}

/// The device number as fdinfo prints it: 12 bits of major number above 20 of minor number.
pub(super) fn sdev(device: u64) -> Sdev {
    Sdev::new(libc::major(device), libc::minor(device))
}
