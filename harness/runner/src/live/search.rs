//! The search for names of an inode: a walk through its filesystem, silent, parallel, bounded.
//!
//! Directories are opened by [`Folders`], which nobody hears. procfs cannot be read so; there no
//! directory is opened that anybody watches, nor one in such a directory.

use std::collections::{BTreeSet, HashSet};
use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use cr::mounts::Mount;
use cr::silent::{Folders, SilentErrorKind};
use cr::sys::path;
use fsnotify::counted;
use fsnotify::fdinfo::{Body, Group, Level, MarkTarget};
use fsnotify::{Ino, Sdev};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::home::{Home, handle_of};
use super::place::{Name, Target, Wanted, leads_to, printable, settle};
use super::process;

/// Names looked at by default before a search gives up.
pub const LIMIT: u64 = 5_000_000;
const MAX_WORKERS: usize = 4;

/// How to search.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// Most names to look at on one filesystem; 0 for no search at all.
    pub limit: u64,
    /// Called with the number of names looked at, from several threads.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl std::fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search")
            .field("limit", &self.limit)
            .finish()
    }
}

/// Searches for the targets of these indices, filesystem by filesystem.
pub(super) fn complete(
    home: &Home,
    wanted: &[Wanted],
    lacking: &[usize],
    targets: &mut [Target],
    search: &Search<'_>,
) -> Result<(), String> {
    let devices: BTreeSet<Sdev> = lacking.iter().map(|index| wanted[*index].device).collect();
    for device in devices {
        let here: Vec<usize> = lacking
            .iter()
            .copied()
            .filter(|index| wanted[*index].device == device)
            .collect();
        let walked = if search.limit == 0 {
            Err("and no search was wanted".to_owned())
        } else {
            walk_all(home, device, wanted, &here, targets, search)
        };
        let (found, note) = match walked {
            Ok((found, note)) => (found, note),
            Err(reason) => (Vec::new(), reason),
        };
        adopt(home, wanted, &here, targets, &found, &note)?;
    }
    Ok(())
}

/// Paths within the filesystem, of which target each, and what is said where there is none.
type Walked = (Vec<(usize, Vec<u8>)>, String);
/// A name that was found: of which target, in which mount's clone, by which path.
type Found = (usize, usize, Vec<u8>);

/// Walks the mounts of a filesystem that are not part of one another.
fn walk_all(
    home: &Home,
    device: Sdev,
    wanted: &[Wanted],
    here: &[usize],
    targets: &[Target],
    search: &Search<'_>,
) -> Result<Walked, String> {
    let mounts = home.mounts_of(device);
    let mut tops: Vec<&Mount> = Vec::new();
    for &mount in &mounts {
        if !tops
            .iter()
            .any(|top| beneath(&mount.root, &top.root).is_some())
        {
            tops.push(mount);
        }
    }
    let n_workers = std::thread::available_parallelism().map_or(1, usize::from);
    let n_workers = n_workers.clamp(1, MAX_WORKERS);
    let clones = home.enter(|inside| {
        let clone = |mount: &Mount| {
            let root = inside.mount_root(mount)?;
            Some(
                (0..n_workers)
                    .map(|_| path::bare_tree(&root, c""))
                    .collect(),
            )
        };
        tops.iter()
            .map(|mount| clone(mount))
            .collect::<Vec<Option<Vec<Result<OwnedFd, Errno>>>>>()
    })?;
    let filesystem = mounts.first().map_or("", |mount| mount.filesystem.as_str());
    let mut workers: Vec<Vec<Option<Opener>>> = (0..n_workers).map(|_| Vec::new()).collect();
    for clones in clones {
        match clones {
            None => workers.iter_mut().for_each(|worker| worker.push(None)),
            Some(clones) => {
                for (worker, clone) in workers.iter_mut().zip(clones) {
                    let clone =
                        clone.map_err(|errno| not_possible(errno == Errno::EPERM, errno))?;
                    worker.push(Some(Opener::of(clone, device)?));
                }
            }
        }
    }
    let walk = Walk {
        wanted: here.iter().map(|index| (*index, wanted[*index])).collect(),
        left: Mutex::new(here.iter().map(|index| n_names(&targets[*index])).collect()),
        trusts_numbers: TRUSTED.contains(&filesystem),
        search,
        queue: Mutex::new(Queue {
            folders: (0..tops.len())
                .map(|top| Folder {
                    top,
                    path: b".".to_vec(),
                    parent: 0,
                })
                .collect(),
            n_busy: 0,
        }),
        changed: Condvar::new(),
        n_entries: AtomicU64::new(0),
        n_avoided: AtomicU64::new(0),
        n_unread: AtomicU64::new(0),
        done: AtomicBool::new(false),
        found: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for openers in workers {
            scope.spawn(|| walk.work(openers));
        }
    });
    let note = walk.note();
    let found = walk
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let full = |(target, top, path): Found| {
        let root = &tops[top].root;
        (target, join(root, &path))
    };
    Ok((found.into_iter().map(full).collect(), note))
}

fn not_possible(lacks_privilege: bool, error: impl std::fmt::Display) -> String {
    match lacks_privilege {
        true => "and a search takes CAP_SYS_ADMIN: whoever watches a directory hears it read, \
                 unless it is opened as root can"
            .to_owned(),
        false => format!("and its filesystem cannot be searched: {error}"),
    }
}

/// How many names are to be found: all of a file, one of a directory.
fn n_names(target: &Target) -> u32 {
    match (target.directory, target.links) {
        (Some(false), Some(links)) => links.max(1),
        _ => 1,
    }
}

/// Filesystems whose directories show the inode number that fdinfo shows.
const TRUSTED: [&str; 9] = [
    "tmpfs", "ext2", "ext3", "ext4", "xfs", "f2fs", "sysfs", "cgroup", "cgroup2",
];

/// Opens directories.
enum Opener {
    Silent(Folders),
    /// For filesystems that have no permission events.
    Careful {
        root: OwnedFd,
        watched: HashSet<u64>,
    },
}

impl Opener {
    fn of(clone: OwnedFd, device: Sdev) -> Result<Self, String> {
        let kept = clone.try_clone().map_err(|error| error.to_string())?;
        match Folders::of(clone) {
            Ok(folders) => Ok(Self::Silent(folders)),
            Err(SilentErrorKind::Call("fanotify_mark", Errno::EINVAL)) => {
                let watched = watched_inodes(device).ok_or(
                    "and a search would be heard: somebody has a mark on its filesystem or on \
                     one of its mounts",
                )?;
                Ok(Self::Careful {
                    root: kept,
                    watched,
                })
            }
            Err(SilentErrorKind::NotPermitted) => Err(not_possible(true, "")),
            Err(kind) => Err(not_possible(false, format!("{kind:?}"))),
        }
    }

    /// None: somebody would hear it.
    fn open(&mut self, folder: &Folder) -> Option<Result<Dir, Errno>> {
        let path = CString::new(folder.path.as_slice()).ok()?;
        let file = match self {
            Self::Silent(folders) => folders.open(&path),
            Self::Careful { root, watched } => {
                let number = path::stat(&*root, &path).ok()?.ino;
                if watched.contains(&number) || watched.contains(&folder.parent) {
                    return None;
                }
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOATIME;
                let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(&*root, &*path, flags, Mode::empty())
            }
        };
        Some(file.and_then(Dir::from_fd))
    }
}

/// Inodes of a filesystem that anybody watches; none if somebody has a mark on all of it.
fn watched_inodes(device: Sdev) -> Option<HashSet<u64>> {
    let mut watched = HashSet::new();
    for (pid, fd, _) in process::all_pids()
        .into_iter()
        .flat_map(process::descriptors)
    {
        let text = fs::read(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let Ok(group) = Group::parse(&text, Level::Lenient) else {
            continue;
        };
        match group.body {
            Body::Unstated => {}
            Body::Inotify { watches } => {
                let here = watches.iter().filter(|watch| watch.sdev == device);
                watched.extend(here.map(|watch| watch.ino.0));
            }
            Body::Fanotify { marks, .. } => {
                for mark in marks {
                    match mark.target {
                        MarkTarget::Inode { ino, sdev, .. } if sdev == device => {
                            watched.insert(ino.0);
                        }
                        MarkTarget::Filesystem(sdev) if sdev == device => return None,
                        // Which filesystem it is of does not matter: a clone is another mount.
                        MarkTarget::Inode { .. }
                        | MarkTarget::Filesystem(_)
                        | MarkTarget::Mount(_)
                        | MarkTarget::MountNamespace(_) => {}
                    }
                }
            }
        }
    }
    Some(watched)
}

struct Folder {
    top: usize,
    path: Vec<u8>,
    /// The number of the directory that it is in.
    parent: u64,
}

struct Queue {
    folders: Vec<Folder>,
    n_busy: usize,
}

struct Walk<'a> {
    wanted: Vec<(usize, Wanted)>,
    /// Names of each that are still to be found.
    left: Mutex<Vec<u32>>,
    trusts_numbers: bool,
    search: &'a Search<'a>,
    queue: Mutex<Queue>,
    changed: Condvar,
    n_entries: AtomicU64,
    n_avoided: AtomicU64,
    n_unread: AtomicU64,
    done: AtomicBool,
    found: Mutex<Vec<Found>>,
}

impl Walk<'_> {
    fn work(&self, mut openers: Vec<Option<Opener>>) {
        while let Some(folder) = self.next() {
            if let Some(opener) = &mut openers[folder.top] {
                match opener.open(&folder) {
                    Some(Ok(dir)) => self.read(&folder, dir),
                    Some(Err(_)) => {
                        self.n_unread.fetch_add(1, Ordering::Relaxed);
                    }
                    None => {
                        self.n_avoided.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            self.lock().n_busy -= 1;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next directory; none once there is nothing left and nobody who may find more.
    fn next(&self) -> Option<Folder> {
        let mut queue = self.lock();
        loop {
            if self.done.load(Ordering::Relaxed) {
                self.changed.notify_all();
                return None;
            }
            if let Some(folder) = queue.folders.pop() {
                queue.n_busy += 1;
                return Some(folder);
            }
            if queue.n_busy == 0 {
                return None;
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read(&self, folder: &Folder, mut dir: Dir) {
        let file = match nix::unistd::dup(&dir) {
            Ok(file) => file,
            Err(_) => return,
        };
        let own = path::stat(&file, c"").map_or(0, |stat| stat.ino);
        if folder.path == b"." {
            self.compare(folder.top, &file, c"", None, b".");
        }
        let mut below = Vec::new();
        let mut n_entries = 0;
        for entry in dir.iter() {
            // readdir(3) would say the same again, for ever: of a dead process's net, for one.
            let Ok(entry) = entry else {
                self.n_unread.fetch_add(1, Ordering::Relaxed);
                break;
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            n_entries += 1;
            let path = join(&folder.path, name.to_bytes());
            let is_folder = match entry.file_type() {
                Some(kind) => kind == Type::Directory,
                None => path::stat(&file, name)
                    .is_ok_and(|stat| stat.mode & nix::libc::S_IFMT == nix::libc::S_IFDIR),
            };
            self.compare(folder.top, &file, name, Some(entry.ino()), &path);
            if is_folder {
                below.push(Folder {
                    top: folder.top,
                    path,
                    parent: own,
                });
            }
        }
        let before = self.n_entries.fetch_add(n_entries, Ordering::Relaxed);
        (self.search.progress)(before + n_entries);
        if before + n_entries >= self.search.limit {
            self.done.store(true, Ordering::Relaxed);
        }
        self.lock().folders.append(&mut below);
        self.changed.notify_all();
    }

    /// Whether an entry is one of the wanted inodes.
    fn compare(
        &self,
        top: usize,
        dir: &OwnedFd,
        name: &std::ffi::CStr,
        number: Option<u64>,
        path: &[u8],
    ) {
        let by_number = |wanted: &Wanted| number.is_none_or(|number| wanted.ino == Ino(number));
        if self.trusts_numbers && !self.wanted.iter().any(|(_, wanted)| by_number(wanted)) {
            return;
        }
        let handle = match number {
            Some(_) => handle_of(dir, name),
            None => cr::sys::handle::of_file(dir).ok(),
        };
        for (index, (target, wanted)) in self.wanted.iter().enumerate() {
            let same = match (&handle, &wanted.handle) {
                (Some(one), Some(other)) => one == other,
                (None, _) | (_, None) => {
                    path::stat(dir, name).is_ok_and(|stat| stat.ino == wanted.ino.0)
                }
            };
            if same {
                self.note_found(index, (*target, top, path.to_vec()));
            }
        }
    }

    fn note_found(&self, index: usize, found: Found) {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(found);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left[index] = left[index].saturating_sub(1);
        if left.iter().all(|left| *left == 0) {
            self.done.store(true, Ordering::Relaxed);
        }
    }

    /// What the search came to, for a target that it did not find.
    fn note(&self) -> String {
        let n_entries = self.n_entries.load(Ordering::Relaxed);
        let mut note = format!(
            "and none of the {} of its filesystem",
            counted(n_entries, "name")
        );
        if n_entries >= self.search.limit {
            let names = counted(n_entries, "name");
            note = format!("and none of the first {names}; raise --search-limit");
        }
        let n_avoided = self.n_avoided.load(Ordering::Relaxed);
        if n_avoided > 0 {
            note.push_str(&format!(
                "; left alone: {}, whose reading is heard",
                counted(n_avoided, "watched directory")
            ));
        }
        let n_unread = self.n_unread.load(Ordering::Relaxed);
        if n_unread > 0 {
            let directories = counted(n_unread, "directory");
            note.push_str(&format!("; {directories} could not be read"));
        }
        note
    }
}

/// Turns paths within a filesystem into paths of the process.
fn adopt(
    home: &Home,
    wanted: &[Wanted],
    here: &[usize],
    targets: &mut [Target],
    found: &[(usize, Vec<u8>)],
    note: &str,
) -> Result<(), String> {
    home.enter(|inside| {
        for &index in here {
            let mut paths = BTreeSet::new();
            let mut hidden = None;
            let own = found.iter().filter(|(target, _)| *target == index);
            for (_, within) in own {
                let mounts = home.mounts_of(wanted[index].device);
                let candidates = mounts.iter().filter_map(|mount| {
                    let rest = beneath(within, &mount.root)?;
                    Some(join(&mount.path, rest))
                });
                let candidates: Vec<Vec<u8>> = candidates.collect();
                let visible = candidates.iter().find_map(|path| {
                    let stat = leads_to(inside, path, &wanted[index])?;
                    Some((path, stat))
                });
                match visible {
                    Some((path, stat)) => {
                        targets[index].numbers_match =
                            stat.device == wanted[index].device && stat.ino == wanted[index].ino.0;
                        targets[index].directory =
                            Some(stat.mode & nix::libc::S_IFMT == nix::libc::S_IFDIR);
                        targets[index].links = Some(stat.nlink);
                        targets[index].size = Some(stat.size);
                        paths.insert(printable(path));
                    }
                    None => hidden = candidates.first().map(|path| printable(path)),
                }
            }
            settle(&mut targets[index], paths, hidden);
            if let Name::NoName { why } = &mut targets[index].name {
                why.push_str(", ");
                why.push_str(note);
            }
        }
    })
}

/// What of a path is below a directory: empty for the directory itself.
fn beneath<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(directory)?;
    match (directory.last(), rest.first()) {
        (_, None) => Some(rest),
        (Some(b'/'), Some(_)) => Some(rest),
        (_, Some(b'/')) => Some(&rest[1..]),
        (_, Some(_)) => None,
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory, name) {
        (b".", name) => name.to_vec(),
        (directory, b"" | b".") => directory.to_vec(),
        (directory, name) => {
            let mut path = directory.to_vec();
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            path
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_a_directory_by_whole_names() {
        let cases = [
            ("/a/b", "/", Some("a/b")),
            ("/a/b", "/a", Some("b")),
            ("/a", "/a", Some("")),
            ("/ab", "/a", None),
            ("/", "/", Some("")),
            ("/b", "/a", None),
        ];
        for (path, directory, expected) in cases {
            let below = beneath(path.as_bytes(), directory.as_bytes());
            assert_eq!(below, expected.map(str::as_bytes));
        }
        assert_eq!(join(b"/", b"a"), b"/a");
        assert_eq!(join(b"/mnt", b""), b"/mnt");
        assert_eq!(join(b".", b"a"), b"a");
    }
}
