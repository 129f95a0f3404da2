//! Putting right what dumpers left that were killed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::Pid;

use super::error::{DumpError, DumpErrorKind};
use super::locks::Locks;
use super::record::{self, Descriptor, Noted, Place, Record, has_ended};
use super::{DumpOptions, journal, park, stop, unread};
use crate::image::{Image, LINK};
use crate::queue::{self, Journal, Live};
use crate::sys::handle::with_own_directory;
use crate::sys::{descriptor, inspect, path, raw};

/// Something that was found, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The journal, or the record of a dump.
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
    /// So many bytes of a fanotify queue cannot be given back; what was read of them is in the file,
    /// in words, which stays.
    Lost { pid: i32, fd: i32, bytes: u64 },
    /// The descriptor has the offset and the flags again that it had.
    SetBack { pid: i32, fd: i32 },
    /// The dumper had stopped the process, which goes on.
    WentOn { pid: i32 },
    /// The dumper had stopped the process, and it stays so.
    LeftStopped { pid: i32 },
}

/// Whether a process goes on that a dumper had stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LetGo {
    GoOn,
    Stay,
}

/// Puts right what a dumper left behind that was killed while it wrote this image: the subjects have
/// their queues again, descriptors their offsets and flags, what is no image goes, and last of all
/// whom it had stopped goes on.
///
/// The subjects must not have run since.
///
/// # Errors
///
/// The first thing that failed: its journal is kept, and nobody goes on. The others are seen to.
pub fn recover(image: &Path, options: &DumpOptions) -> Result<Vec<Recovered>, DumpError> {
    alone(image, options, LetGo::GoOn)
}

/// As [`recover`], but whoever is stopped stays so.
///
/// # Errors
///
/// The same.
pub fn recover_stopped(image: &Path, options: &DumpOptions) -> Result<Vec<Recovered>, DumpError> {
    alone(image, options, LetGo::Stay)
}

fn alone(image: &Path, options: &DumpOptions, let_go: LetGo) -> Result<Vec<Recovered>, DumpError> {
    let image = path::absolute(image);
    let mut record = Record::lock(&image)?;
    let recovered = here(&image, options, (&mut record, let_go))?;
    let removed = record.remove();
    removed.map_err(|error| DumpError::io("unlink", image.display().to_string(), &error))?;
    Ok(recovered)
}

/// The same under the lock of the place, of which the record is left.
pub(super) fn here(
    image: &Path,
    options: &DumpOptions,
    (record, let_go): (&mut Record, LetGo),
) -> Result<Vec<Recovered>, DumpError> {
    let mut recovered = Vec::new();
    let noted = record.read()?;
    match put_right(image, (options, &noted), &mut recovered) {
        Ok(()) => {}
        Err(error) => {
            if noted == Noted::default() {
                // It is ours, made for its lock.
                let _ = record.remove();
            }
            return Err(error);
        }
    }
    for &(pid, start) in noted.stopped.iter().rev() {
        let process = Pid::from_raw(pid);
        let outcome = match let_go {
            LetGo::GoOn if stop::go_on(process, start)? => Outcome::WentOn { pid },
            LetGo::Stay if !has_ended(process, start).map_err(stop::of_stat(process))? => {
                Outcome::LeftStopped { pid }
            }
            LetGo::GoOn | LetGo::Stay => Outcome::Gone { pid },
        };
        let journal = record.path().to_owned();
        recovered.push(Recovered { journal, outcome });
    }
    Ok(recovered)
}

/// All but to let the subjects go on.
fn put_right(
    image: &Path,
    (options, noted): (&DumpOptions, &Noted),
    recovered: &mut Vec<Recovered>,
) -> Result<(), DumpError> {
    let mut locks = Locks::default();
    let mut first = Ok(());
    let mut attempt = |journal: &Path, result: Result<Option<Outcome>, DumpError>| match result {
        Ok(outcome) => recovered.extend(outcome.map(|outcome| Recovered {
            journal: journal.to_owned(),
            outcome,
        })),
        Err(error) if first.is_ok() => first = Err(error),
        Err(_) => {}
    };
    for (path, left) in leftovers(image)? {
        let on = |error: io::Error| DumpError::io("unlink", path.display().to_string(), &error);
        let outcome = match left {
            Left::Journal => recover_one(&path, options, &mut locks).map(Some),
            Left::Unread => unread::found(&path).map(Some),
            Left::Unfinished => Ok(None),
        };
        let outcome = outcome.and_then(|outcome| match outcome {
            Some(Outcome::Lost { .. }) => Ok(outcome),
            _ => fs::remove_file(&path).map_err(on).map(|()| outcome),
        });
        attempt(&path, outcome);
    }
    for file in &noted.files {
        attempt(&journal::sibling(image, record::SUFFIX), set_back(file));
    }
    for link in &noted.links {
        attempt(link, remove_link(image, link).map(|()| None));
    }
    if *noted != Noted::default() {
        attempt(image, park::remove_abandoned(image).map(|()| None));
    }
    first
}

/// A file beside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Journal,
    Unread,
    /// `.PID.tmp` of an image (`Image::write`). Its writer had the lock, if it was a dumper.
    Unfinished,
}

fn leftovers(image: &Path) -> Result<Vec<(PathBuf, Left)>, DumpError> {
    let directory = match image.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed =
        |error: io::Error| DumpError::io("readdir", directory.display().to_string(), &error);
    let name = image.file_name().unwrap_or_default().as_bytes();
    let mut left = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file_name = entry.file_name();
        let Some(suffix) = file_name.as_bytes().strip_prefix(name) else {
            continue;
        };
        let kind = if suffix.starts_with(journal::JOURNAL.as_bytes()) {
            Left::Journal
        } else if suffix.starts_with(unread::UNREAD.as_bytes()) {
            Left::Unread
        } else if is_unfinished(suffix) {
            Left::Unfinished
        } else {
            continue;
        };
        left.push((entry.path(), kind));
    }
    Ok(left)
}

fn is_unfinished(suffix: &[u8]) -> bool {
    let pid = suffix
        .strip_prefix(b".")
        .and_then(|it| it.strip_suffix(b".tmp"));
    pid.is_some_and(|pid| !pid.is_empty() && pid.iter().all(u8::is_ascii_digit))
}

fn recover_one(
    path: &Path,
    options: &DumpOptions,
    locks: &mut Locks,
) -> Result<Outcome, DumpError> {
    let name = path.display().to_string();
    let failed = |error: io::Error| DumpError::io("journal", &name, &error);
    let Some(mut journal) = Journal::open(path).map_err(failed)? else {
        return Ok(Outcome::Untouched);
    };
    let context = journal::context(journal.context())
        .ok_or_else(|| DumpError::new(&*name, DumpErrorKind::Text("journal".to_owned())))?;
    let (pid, fd) = (context.pid, context.fd);
    let gone = Outcome::Gone { pid: pid.as_raw() };
    match context.standpoint.place()? {
        Place::Elsewhere => return Err(record::elsewhere(&name)),
        Place::BeforeBoot => return Ok(gone),
        Place::Here if has_ended(pid, context.began).map_err(failed)? => return Ok(gone),
        Place::Here => {}
    }
    locks.take(pid).map_err(|error| error.at(&name))?;
    let pidfd = inspect::pidfd_open(pid)
        .map_err(|errno| DumpError::on("pidfd_open", pid.to_string(), errno).at(&name))?;
    let group = inspect::pidfd_getfd(&pidfd, fd)
        .map_err(|errno| DumpError::on("pidfd_getfd", fd.to_string(), errno).at(&name))?;
    journal::refuse_other(&context, &journal).map_err(|error| error.at(&name))?;
    let options = DumpOptions {
        only_groups: true,
        ..options.clone()
    };
    with_own_directory(|| {
        let mut found = journal::Found::new(pid, &context.info, &options)?;
        let mut live = Live {
            group: group.as_fd(),
            watches: &found.watches,
            targets: &mut found.targets,
            owner: context.owner,
        };
        queue::recover(&mut live, &mut journal)
            .map_err(|error| DumpError::new("", DumpErrorKind::NotPutBack(error.to_string())))
    })
    .map_err(|errno| DumpError::on("unshare", "", errno))?
    .map_err(|error| error.at(&name))?;
    if let Some(owner) = context.owner {
        // It was given back, but not by one who was killed behind that.
        let given = owner.give_back(group.as_fd());
        given.map_err(|errno| DumpError::on("fcntl", "F_SETOWN_EX", errno).at(&name))?;
    }
    let pid = pid.as_raw();
    Ok(Outcome::PutBack { pid, fd })
}

/// Gives a description the offset and the flags that it had, if it is the one that was looked at and
/// its process stands still yet.
fn set_back(noted: &Descriptor) -> Result<Option<Outcome>, DumpError> {
    let &Descriptor { pid, fd, .. } = noted;
    let process = Pid::from_raw(pid);
    if has_ended(process, noted.began).map_err(stop::of_stat(process))?
        || !stop::is_stopped(process).map_err(stop::of_stat(process))?
    {
        return Ok(None);
    }
    let on = |call, errno| DumpError::on(call, format!("process {pid}: fd {fd}"), errno);
    let pidfd = inspect::pidfd_open(process).map_err(|errno| on("pidfd_open", errno))?;
    let file: OwnedFd = match inspect::pidfd_getfd(&pidfd, fd) {
        Err(Errno::EBADF) => return Ok(None),
        file => file.map_err(|errno| on("pidfd_getfd", errno))?,
    };
    let stat = fstat(&file).map_err(|errno| on("fstat", errno))?;
    if (stat.st_dev, stat.st_ino) != (noted.device, noted.ino) {
        return Ok(None);
    }
    let flags = descriptor::flags(&file).map_err(|errno| on("fcntl", errno))?;
    if flags & libc::O_PATH != 0 {
        return Ok(None);
    }
    let mut is_other = false;
    if flags != noted.flags {
        is_other = true;
        descriptor::set_flags(&file, noted.flags).map_err(|errno| on("fcntl", errno))?;
    }
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    // What has no offset, as a fifo, has not another one.
    let offset = raw::lseek(number, 0, libc::SEEK_CUR);
    if offset.is_ok_and(|offset| offset != noted.offset) {
        is_other = true;
        raw::lseek(number, noted.offset, libc::SEEK_SET).map_err(|errno| on("lseek", errno))?;
    }
    Ok(is_other.then_some(Outcome::SetBack { pid, fd }))
}

/// Removes the link to a ghost, unless the image is complete, which leads a restore to it.
fn remove_link(image: &Path, link: &Path) -> Result<(), DumpError> {
    let name = link.file_name().map_or(&b""[..], OsStr::as_bytes);
    if !name.starts_with(LINK) {
        let what = DumpErrorKind::Text("link to a ghost".to_owned());
        return Err(DumpError::new(link.display().to_string(), what));
    }
    let names_it = |image: Image| image.places.iter().any(|place| place.link == name);
    if Image::read(image).is_ok_and(names_it) {
        return Ok(());
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DumpError::io("unlink", link.display().to_string(), &error))
        }
        _ => Ok(()),
    }
}
