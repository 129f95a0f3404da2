//! Tasks that wait for a permission listener's answer.
//!
//! No call asks a group which events wait for its answer. The waiting task tells: it sleeps in
//! `fanotify_handle_event` of the kernel, inside a system call whose arguments name the file.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use fsnotify::Sdev;
use fsnotify::fanotify::Mask;
use fsnotify::fdinfo::{Mark, MarkTarget};
use fsnotify::handle::FileHandle;

use crate::mounts::Mounts;
use crate::process;
use crate::sys::path::Stat;
use crate::sys::{handle, path};

/// A task that waits for a listener's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its thread's number in our pid namespace.
    pub tid: i32,
    /// Its name, `comm`.
    pub name: String,
    /// The file that it wants; none if its arguments do not tell.
    pub file: Option<PathBuf>,
    /// The same, by the way that the task itself takes: so it is on the mount that the task sees.
    link: Option<PathBuf>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "process {} ({}) waits for permission",
            self.tid, self.name
        )?;
        match &self.file {
            Some(file) => write!(f, " to use {}", file.display()),
            None => Ok(()),
        }
    }
}

/// Every task that we see and that waits for an answer of some permission listener.
#[must_use]
pub fn waiting() -> Vec<Waiting> {
    let mut found = Vec::new();
    for process in numbers(Path::new("/proc")) {
        // A task that ends meanwhile does not wait.
        for tid in numbers(Path::new(&format!("/proc/{process}/task"))) {
            found.extend(waits(tid));
        }
    }
    found
}

/// A task, if it waits for an answer of some permission listener.
#[must_use]
pub fn waits(tid: i32) -> Option<Waiting> {
    let task = PathBuf::from(format!("/proc/{tid}"));
    let place = fs::read(task.join("wchan")).ok()?;
    if !place.starts_with(b"fanotify_") {
        return None;
    }
    let name = process::name(tid).unwrap_or_default();
    let link = wanted(&task);
    let file = link.as_deref().and_then(named);
    Some(Waiting {
        tid,
        name,
        file,
        link,
    })
}

/// The path of what a link of /proc leads to, or the link where that path is not ours: the task may
/// live in another mount namespace.
fn named(link: &Path) -> Option<PathBuf> {
    let of = |path: &Path| fs::metadata(path).map(|stat| (stat.dev(), stat.ino()));
    let file = of(link).ok()?;
    let path = fs::canonicalize(link).ok();
    let path = path.filter(|path| of(path).is_ok_and(|found| found == file));
    Some(path.unwrap_or_else(|| link.to_owned()))
}

/// The first of `waiting` that a group with these marks may have to answer. A file that cannot be
/// told may be any, unless who wanted it has its answer by now.
#[must_use]
pub fn concerned<'a>(waiting: &'a [Waiting], marks: &[Mark]) -> Option<&'a Waiting> {
    let asks = |mark: &&Mark| mark.mask.0 & Mask::PERMISSION.0 != 0;
    let marks: Vec<&Mark> = marks.iter().filter(asks).collect();
    waiting.iter().find(|waiting| match still_wanted(waiting) {
        None => false,
        Some(None) => true,
        Some(Some(wanted)) => marks.iter().any(|mark| wanted.is_covered_by(mark)),
    })
}

/// How often a task is looked at that was answered while it was: it may wait for the next answer by then.
const MOST_LOOKS: usize = 16;

/// None if the task waits no more; the inner is none if what it waits for is not to be told.
fn still_wanted(waiting: &Waiting) -> Option<Option<Wanted>> {
    let mut wanted = Wanted::of(waiting);
    for _ in 0..MOST_LOOKS {
        if wanted.is_some() {
            break;
        }
        let now = waits(waiting.tid)?;
        wanted = Wanted::of(&now);
    }
    Some(wanted)
}

/// What a task wants, in the words of fdinfo.
struct Wanted {
    file: Seen,
    /// In which the file is, as far as that is to be found.
    directories: Vec<Seen>,
}

/// An inode on a mount.
struct Seen {
    stat: Stat,
    /// That of its superblock: what statx(2) shows is another one on btrfs and on overlays.
    device: Sdev,
    handle: Option<FileHandle>,
}

impl Wanted {
    /// None if its file is not to be seen.
    fn of(waiting: &Waiting) -> Option<Self> {
        let (link, named) = (waiting.link.as_deref()?, waiting.file.as_deref()?);
        let mounts = Mounts::of(waiting.tid).ok();
        let see = |path: &Path| Seen::at(path, mounts.as_ref());
        // Seen from the root of the task, where the path that we see leads elsewhere.
        let own = fs::read_link(link).ok().map(|text| {
            let root = PathBuf::from(format!("/proc/{}/root", waiting.tid));
            let text = text.as_os_str().as_bytes();
            root.join(OsStr::from_bytes(text.strip_prefix(b"/").unwrap_or(text)))
        });
        let paths = [Some(link), Some(named), own.as_deref()];
        let directories = paths.into_iter().flatten().filter_map(Path::parent);
        Some(Self {
            file: see(link)?,
            directories: directories.filter_map(see).collect(),
        })
    }

    fn is_covered_by(&self, mark: &Mark) -> bool {
        match mark.target {
            MarkTarget::Inode { ino, sdev, handle } => {
                let is = |seen: &Seen| {
                    seen.device == sdev
                        && match (seen.handle, handle) {
                            // Subvolumes have equal numbers.
                            (Some(one), Some(other)) => one == other,
                            (None, _) | (_, None) => seen.stat.ino == ino.0,
                        }
                };
                is(&self.file) || self.directories.iter().any(is)
            }
            MarkTarget::Mount(id) => self.file.stat.mount == u64::from(id.0),
            MarkTarget::Filesystem(sdev) => self.file.device == sdev,
            MarkTarget::MountNamespace(_) => false,
        }
    }
}

impl Seen {
    fn at(path: &Path, mounts: Option<&Mounts>) -> Option<Self> {
        let file = handle::open_path(path).ok()?;
        let stat = path::stat(&file, c"").ok()?;
        let mount = mounts.and_then(|mounts| mounts.of_id(stat.mount));
        Some(Self {
            device: mount.map_or(stat.device, |mount| mount.device),
            handle: handle::of_file(&file).ok(),
            stat,
        })
    }
}

/// A path of ours to the file that the system call of a task is about.
fn wanted(task: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(task.join("syscall")).ok()?;
    let mut words = text.split_ascii_whitespace();
    let call: i64 = words.next()?.parse().ok()?;
    let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let arguments: Vec<u64> = words.map_while(hex).collect();
    let argument = |index: usize| arguments.get(index).copied();
    let of_descriptor = |fd: u64| task.join("fd").join(lower(fd).to_string());
    let directory = |fd: u64| match lower(fd) {
        libc::AT_FDCWD => task.join("cwd"),
        _ => of_descriptor(fd),
    };
    match call {
        libc::SYS_open | libc::SYS_execve | libc::SYS_truncate => {
            Some(join(task, &task.join("cwd"), &string(task, argument(0)?)?))
        }
        libc::SYS_openat | libc::SYS_openat2 | libc::SYS_execveat => {
            let path = string(task, argument(1)?)?;
            Some(join(task, &directory(argument(0)?), &path))
        }
        libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_readv
        | libc::SYS_preadv
        | libc::SYS_preadv2
        | libc::SYS_getdents64
        | libc::SYS_write
        | libc::SYS_pwrite64
        | libc::SYS_writev
        | libc::SYS_pwritev
        | libc::SYS_pwritev2
        | libc::SYS_ftruncate
        | libc::SYS_fallocate => Some(of_descriptor(argument(0)?)),
        libc::SYS_mmap => Some(of_descriptor(argument(4)?)),
        _ => None,
    }
}

/// A descriptor is the lower half of the register that it was passed in.
fn lower(register: u64) -> i32 {
    let [a, b, c, d, ..] = register.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

fn join(task: &Path, base: &Path, path: &[u8]) -> PathBuf {
    let (base, path) = match path.strip_prefix(b"/") {
        Some(path) => (task.join("root"), path),
        None => (base.to_owned(), path),
    };
    base.join(OsString::from_vec(path.to_vec()))
}

/// The C string at an address of a task.
fn string(task: &Path, address: u64) -> Option<Vec<u8>> {
    let memory = fs::File::open(task.join("mem")).ok()?;
    let mut bytes = vec![0; 4096];
    let mut filled = 0;
    while filled < bytes.len() {
        // A page at a time: the next one may not be mapped.
        let at = address.checked_add(filled as u64)?;
        let end = bytes
            .len()
            .min(filled + 4096 - usize::try_from(at % 4096).ok()?);
        let n_read = memory
            .read_at(&mut bytes[filled..end], at)
            .ok()
            .filter(|n| *n > 0)?;
        if let Some(nul) = bytes[filled..filled + n_read]
            .iter()
            .position(|&byte| byte == 0)
        {
            bytes.truncate(filled + nul);
            return Some(bytes);
        }
        filled += n_read;
    }
    None
}

fn numbers(directory: &Path) -> Vec<i32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
