//! Journals of a dump, and what to do about those of a dumper that was killed.
//!
//! While events are read, they are kept in `IMAGE.journal-PID-FD` beside the image: the group's
//! process, its descriptor and its watches, and the events. [`recover`] gives them back.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use fsnotify::Wd;
use fsnotify::fdinfo::{Body, Group, Kind, Level};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{DumpError, DumpErrorKind};
use super::files::{self, Held};
use super::places::Places;
use super::{DumpOptions, boot_id, tree};
use crate::image::Image;
use crate::queue::{self, Journal, Live, LiveWatch, Owner, Targets};
use crate::sys::handle::with_own_directory;
use crate::sys::inspect;
use crate::sys::path;

/// A journal that was found, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub journal: PathBuf,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The group has its queue and its watches again.
    PutBack { pid: i32, fd: i32 },
    /// Nothing had been read yet.
    Untouched,
    /// The process is gone.
    Gone { pid: i32 },
}

/// Makes the journal of a group.
pub(super) fn create(
    image: &Path,
    (group, owner): (&Held, Option<Owner>),
) -> Result<(Journal, PathBuf), DumpError> {
    let path = sibling(image, &format!("{JOURNAL}{}-{}", group.pid, group.fd));
    let name = path.display().to_string();
    let failed = |error: io::Error| DumpError::io("journal", &name, &error);
    let began = began(group.pid).map_err(failed)?;
    let owner = owner.map_or_else(String::new, |it| format!(" {} {}", it.kind, it.pid));
    let boot = boot_id();
    let mut context = format!("{} {} {began} {boot}{owner}\n", group.pid, group.fd).into_bytes();
    context.extend_from_slice(&group.info);
    let journal = Journal::create(&path, &context).map_err(failed)?;
    Ok((journal, path))
}

/// Between the name of the image and the numbers of process and descriptor.
const JOURNAL: &str = ".journal-";

fn sibling(image: &Path, suffix: &str) -> PathBuf {
    let mut path = image.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// When a process began, in ticks since the boot: the field `starttime` of /proc/PID/stat. With
/// the pid, it names the process for good.
pub(crate) fn began(pid: Pid) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, in parentheses, may contain anything.
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest);
    let field = rest.and_then(|rest| rest.split(' ').nth(19)?.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat without starttime"))
}

/// Puts right what dumpers left behind that were killed while they wrote this image: the subjects
/// have their queues again, and what is no image goes.
///
/// The subjects must not have run since; they are left stopped, as they were found.
///
/// # Errors
///
/// The first thing that failed. Its journal is kept.
pub fn recover(image: &Path, options: &DumpOptions) -> Result<Vec<Recovered>, DumpError> {
    let image = &path::absolute(image);
    let directory = match image.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed =
        |error: io::Error| DumpError::io("readdir", directory.display().to_string(), &error);
    let name = image.file_name().unwrap_or_default().to_os_string();
    let name = name.into_encoded_bytes();
    let mut recovered = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file_name = entry.file_name().into_encoded_bytes();
        let Some(suffix) = file_name.strip_prefix(&name[..]) else {
            continue;
        };
        let path = entry.path();
        let on = |error: io::Error| DumpError::io("journal", path.display().to_string(), &error);
        if suffix.starts_with(JOURNAL.as_bytes()) {
            let outcome = recover_one(&path, options)?;
            fs::remove_file(&path).map_err(on)?;
            let journal = path;
            recovered.push(Recovered { journal, outcome });
        } else if is_unfinished(suffix) {
            fs::remove_file(&path).map_err(on)?;
        }
    }
    Ok(recovered)
}

/// `.PID.tmp` of an image whose writer is gone (`Image::write`).
fn is_unfinished(suffix: &[u8]) -> bool {
    let pid = suffix
        .strip_prefix(b".")
        .and_then(|it| it.strip_suffix(b".tmp"));
    let pid = pid.and_then(|it| std::str::from_utf8(it).ok()?.parse::<i32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn recover_one(path: &Path, options: &DumpOptions) -> Result<Outcome, DumpError> {
    let name = path.display().to_string();
    let failed = |error: io::Error| DumpError::io("journal", &name, &error);
    let Some(mut journal) = Journal::open(path).map_err(failed)? else {
        return Ok(Outcome::Untouched);
    };
    let Context {
        pid,
        fd,
        start,
        boot,
        owner,
        info,
    } = context(journal.context())
        .ok_or_else(|| DumpError::new(&*name, DumpErrorKind::Text("journal".to_owned())))?;
    if boot != boot_id() || began(pid).ok() != Some(start) {
        return Ok(Outcome::Gone { pid: pid.as_raw() });
    }
    let pidfd = inspect::pidfd_open(pid)
        .map_err(|errno| DumpError::on("pidfd_open", pid.to_string(), errno))?;
    let group = inspect::pidfd_getfd(&pidfd, fd)
        .map_err(|errno| DumpError::on("pidfd_getfd", fd.to_string(), errno))?;
    let options = DumpOptions {
        only_groups: true,
        ..options.clone()
    };
    with_own_directory(|| {
        let mut found = Found::new(pid, &info, &options)?;
        let mut live = Live {
            group: group.as_fd(),
            watches: &found.watches,
            targets: &mut found.targets,
            owner,
        };
        queue::recover(&mut live, &mut journal)
            .map_err(|error| DumpError::new("", DumpErrorKind::NotPutBack(error.to_string())))
    })
    .map_err(|errno| DumpError::on("unshare", "", errno))?
    .map_err(|error| error.at(&name))?;
    if let Some(owner) = owner {
        // It was given back, but not by one who was killed behind that.
        let given = owner.give_back(group.as_fd());
        given.map_err(|errno| DumpError::on("fcntl", "F_SETOWN_EX", errno).at(&name))?;
    }
    let pid = pid.as_raw();
    Ok(Outcome::PutBack { pid, fd })
}

/// What is written before the events.
struct Context {
    pid: Pid,
    fd: i32,
    /// When the process began, in ticks since the boot; and in which boot.
    start: u64,
    boot: String,
    owner: Option<Owner>,
    /// fdinfo of the group.
    info: Vec<u8>,
}

fn context(bytes: &[u8]) -> Option<Context> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&bytes[..end]).ok()?.split(' ');
    let pid = Pid::from_raw(words.next()?.parse().ok()?);
    let fd = words.next()?.parse().ok()?;
    let start = words.next()?.parse().ok()?;
    // Empty where the kernel does not tell.
    let boot = words.next()?.to_owned();
    let owner = match (words.next(), words.next()) {
        (Some(kind), Some(pid)) => Some(Owner {
            kind: kind.parse().ok().filter(|kind| (0..=2).contains(kind))?,
            pid: pid.parse().ok().filter(|pid| *pid > 0)?,
        }),
        _ => None,
    };
    Some(Context {
        pid,
        fd,
        start,
        boot,
        owner,
        info: bytes[end + 1..].to_vec(),
    })
}

/// The watches that a group had, and a way to each.
struct Found {
    watches: Vec<LiveWatch>,
    targets: FoundTargets,
}

#[derive(Debug)]
struct FoundTargets {
    image: Image,
    held: Vec<Held>,
    places: Places,
    by_wd: HashMap<Wd, u32>,
}

impl Found {
    fn new(pid: Pid, info: &[u8], options: &DumpOptions) -> Result<Self, DumpError> {
        let parsed = Group::parse_as(info, Kind::Inotify, Level::Lenient)
            .map_err(|error| DumpError::new("", DumpErrorKind::Text(error.to_string())))?;
        let watches = match parsed.body {
            Body::Inotify { watches } => watches,
            Body::Fanotify { .. } | Body::Unstated => Vec::new(),
        };
        let mut image = Image {
            processes: tree::processes(pid, tree::Scope::Alone)?,
            only_groups: true,
            ..Image::default()
        };
        let mut places = Places::new(pid, options)?;
        let held = files::collect(&mut image, &mut places, options)?;
        let mut by_wd = HashMap::with_capacity(watches.len());
        for watch in &watches {
            let sdev = watch.sdev;
            let place = places.of_inode(&mut image, sdev.0, watch.ino.0, watch.handle.as_ref())?;
            // A watch may have ended with its inode.
            by_wd.extend(place.map(|place| (watch.wd, place)));
        }
        let live = |watch: &fsnotify::fdinfo::Watch| LiveWatch {
            wd: watch.wd,
            mask: watch.mask,
        };
        Ok(Self {
            watches: watches.iter().map(live).collect(),
            targets: FoundTargets {
                image,
                held,
                places,
                by_wd,
            },
        })
    }
}

impl Targets for FoundTargets {
    fn open(&mut self, wd: Wd) -> Result<Option<OwnedFd>, Errno> {
        match self.by_wd.get(&wd) {
            Some(&place) => self.places.reopen(&self.image, &self.held, place),
            None => Ok(None),
        }
    }
}
