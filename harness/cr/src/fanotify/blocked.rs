//! Tasks that wait for a permission listener's answer.
//!
//! No call asks a group which events wait for its answer. The waiting task tells: it sleeps in
//! `fanotify_handle_event` of the kernel, inside a system call whose arguments name the file.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use fsnotify::fanotify::Mask;
use fsnotify::fdinfo::{Mark, MarkTarget};

use crate::mounts::mount_id;

/// A task that waits for a listener's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its thread's number in our pid namespace.
    pub tid: i32,
    /// Its name, `comm`.
    pub name: String,
    /// The file that it wants; none if its arguments do not tell.
    pub file: Option<PathBuf>,
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
    let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
    let name = name.trim_end().to_owned();
    let file = wanted(&task).and_then(named);
    Some(Waiting { tid, name, file })
}

/// The path of what a link of /proc leads to, or the link where that path is not ours: the task may
/// live in another mount namespace.
fn named(link: PathBuf) -> Option<PathBuf> {
    let of = |path: &Path| fs::metadata(path).map(|stat| (stat.dev(), stat.ino()));
    let file = of(&link).ok()?;
    let path = fs::canonicalize(&link).ok();
    let path = path.filter(|path| of(path).is_ok_and(|found| found == file));
    Some(path.unwrap_or(link))
}

/// The first of `waiting` that a group with these marks may have to answer. A file that cannot be
/// told may be any.
#[must_use]
pub fn concerned<'a>(waiting: &'a [Waiting], marks: &[Mark]) -> Option<&'a Waiting> {
    waiting.iter().find(|waiting| match &waiting.file {
        None => true,
        Some(file) => marks.iter().any(|mark| covers(mark, file)),
    })
}

fn covers(mark: &Mark, file: &Path) -> bool {
    if mark.mask.0 & Mask::PERMISSION.0 == 0 {
        return false;
    }
    match mark.target {
        MarkTarget::Inode { ino, sdev, .. } => {
            let is = |path: &Path| {
                fs::metadata(path).is_ok_and(|stat| {
                    let device = (sdev.major(), sdev.minor());
                    stat.ino() == ino.0 && (major(stat.dev()), minor(stat.dev())) == device
                })
            };
            is(file) || file.parent().is_some_and(is)
        }
        MarkTarget::Mount(id) => mount_id(file).is_ok_and(|found| found == id.0),
        MarkTarget::Filesystem(sdev) => fs::metadata(file).is_ok_and(|stat| {
            (major(stat.dev()), minor(stat.dev())) == (sdev.major(), sdev.minor())
        }),
        MarkTarget::MountNamespace(_) => false,
    }
}

fn major(device: u64) -> u32 {
    libc::major(device)
}

fn minor(device: u64) -> u32 {
    libc::minor(device)
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
