//! The record of a dump under way, `IMAGE.dump` beside the image: what the dump is about to change,
//! a line each, before it changes it. [`recover`](super::recover()) undoes from there what a dumper
//! that was killed could not; one that ends by itself removes it.
//!
//! It is the lock of the image's place, too: who dumps or recovers holds flock(2) on it, which the
//! kernel frees at any death.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::error::{DumpError, DumpErrorKind};
use super::journal::sibling;
use crate::process::began;

/// Behind the name of the image.
pub(super) const SUFFIX: &str = ".dump";

/// Most bytes that are read: a line for each of a million descriptors.
const MOST_BYTES: u64 = 1 << 28;

/// How long those may take to end that a dumper has forked which was killed, and which have its lock.
const LIMIT: Duration = Duration::from_secs(10);
const POLL_MS: u8 = 2;

/// The record of this process, locked.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    file: File,
}

/// An open file description by a descriptor of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) pid: i32,
    pub(super) began: u64,
    pub(super) fd: i32,
    /// So that no other file is taken for it.
    pub(super) device: u64,
    pub(super) ino: u64,
    pub(super) flags: i32,
    pub(super) offset: i64,
}

/// What a dumper that was killed had noted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// Processes that it has stopped, and when they began.
    pub(super) stopped: Vec<(i32, u64)>,
    /// Flags and offsets, which are shared with the subject.
    pub(super) files: Vec<Descriptor>,
    /// Links to ghosts.
    pub(super) links: BTreeSet<PathBuf>,
}

impl Record {
    /// Locks the place of an image. What another left in its record is to be seen to first.
    ///
    /// # Errors
    ///
    /// That another is at work there, that the record is another user's, and those of its file.
    pub(super) fn lock(image: &Path) -> Result<Self, DumpError> {
        let path = sibling(image, SUFFIX);
        let name = path.display().to_string();
        let failed = |error: io::Error| DumpError::io("open", &name, &error);
        let refused = |what: &str| {
            let place = image.display().to_string();
            Err(DumpError::new(
                place,
                DumpErrorKind::Refused(what.to_owned()),
            ))
        };
        let deadline = Instant::now() + LIMIT;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)
                .map_err(failed)?;
            let found = file.metadata().map_err(failed)?;
            if found.uid() != nix::unistd::geteuid().as_raw() || !found.is_file() {
                return refused("the record of a dump there is another user's");
            }
            let mut record = Self {
                path: path.clone(),
                file,
            };
            match record.file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let is_over = record.has_ended()? && Instant::now() < deadline;
                    if !is_over {
                        return refused("another dump or recovery is under way there");
                    }
                    let _ = nix::poll::poll(&mut [], POLL_MS);
                    continue;
                }
                Err(TryLockError::Error(error)) => {
                    return Err(DumpError::io("flock", &name, &error));
                }
            }
            // Whoever held the lock may have removed the file meanwhile.
            let is_there = fs::symlink_metadata(&path)
                .is_ok_and(|it| (it.dev(), it.ino()) == (found.dev(), found.ino()));
            if is_there {
                return Ok(record);
            }
            if Instant::now() > deadline {
                return refused("others dump there without end");
            }
        }
    }

    /// Whether the dumper whose record it is has ended: then a process holds the lock that it has
    /// forked, and that is about to end.
    fn has_ended(&mut self) -> Result<bool, DumpError> {
        let text = self.text()?;
        let words: Vec<&str> = text.lines().next().unwrap_or_default().split(' ').collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
        let (Some(pid), Some(start)) = (number(WORDS), number(WORDS + 1)) else {
            return Ok(false);
        };
        let is_here = Standpoint::of(&words[..WORDS].join(" ")).place()? == Place::Here;
        let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(0));
        Ok(is_here && has_ended(pid, start).unwrap_or(false))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the dumper had noted whose record it was.
    pub(super) fn read(&mut self) -> Result<Noted, DumpError> {
        let name = self.path.display().to_string();
        let text = self.text()?;
        let Some((head, lines)) = text.split_once('\n') else {
            return Ok(Noted::default());
        };
        let place: Vec<&str> = head.split(' ').take(WORDS).collect();
        match Standpoint::of(&place.join(" ")).place()? {
            Place::Here => {}
            Place::BeforeBoot => return Ok(Noted::default()),
            Place::Elsewhere => return Err(elsewhere(&name)),
        }
        parse(lines)
            .ok_or_else(|| DumpError::new(name, DumpErrorKind::Text("record of a dump".to_owned())))
    }

    /// All lines that were written whole: one that was not announced nothing that was done.
    fn text(&mut self) -> Result<String, DumpError> {
        let mut bytes = Vec::new();
        let mut read = || -> io::Result<()> {
            self.file.rewind()?;
            (&self.file).take(MOST_BYTES).read_to_end(&mut bytes)?;
            Ok(())
        };
        let name = self.path.display().to_string();
        read().map_err(|error| DumpError::io("read", name, &error))?;
        let end = bytes.iter().rposition(|&byte| byte == b'\n');
        bytes.truncate(end.map_or(0, |end| end + 1));
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Makes it that of a dump by this process, which begins.
    pub(super) fn begin(&mut self) -> Result<(), DumpError> {
        let failed = |error| DumpError::io("write", self.path.display().to_string(), &error);
        let (own, place) = (Pid::this(), Standpoint::own()?.0);
        let head = format!("{place} {own} {}\n", began(own).map_err(failed)?);
        let begun = self.file.set_len(0);
        let begun = begun.and_then(|()| (&self.file).write_all(head.as_bytes()));
        begun.map_err(failed)
    }

    fn note(&mut self, lines: &str) -> Result<(), DumpError> {
        // One call, so that a line is there or not.
        let written = self.file.write_all(lines.as_bytes());
        written.map_err(|error| DumpError::io("write", self.path.display().to_string(), &error))
    }

    /// A process is about to be stopped.
    pub(super) fn stop(&mut self, pid: Pid, began: u64) -> Result<(), DumpError> {
        self.note(&format!("stop {pid} {began}\n"))
    }

    /// Flags and offsets of these may change from here on, for as long as they are read.
    pub(super) fn files(&mut self, files: &[Descriptor]) -> Result<(), DumpError> {
        let mut lines = String::new();
        for file in files {
            let Descriptor {
                pid,
                began,
                fd,
                device,
                ino,
                flags,
                offset,
            } = file;
            lines += &format!("file {pid} {began} {fd} {device} {ino} {flags} {offset}\n");
        }
        self.note(&lines)
    }

    /// A ghost is about to get this name.
    pub(super) fn link(&mut self, path: &Path) -> Result<(), DumpError> {
        self.note(&format!("link {}\n", hex(path)))
    }

    /// The name was another's.
    pub(super) fn not_link(&mut self, path: &Path) -> Result<(), DumpError> {
        self.note(&format!("not-link {}\n", hex(path)))
    }

    /// All is as it was, or is in the image.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

fn hex(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(word: &str) -> Option<PathBuf> {
    let digits = word.as_bytes().chunks(2);
    let bytes = digits.map(|it| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok());
    let bytes: Option<Vec<u8>> = bytes.collect();
    Some(std::ffi::OsString::from_vec(bytes?).into())
}

fn parse(lines: &str) -> Option<Noted> {
    let mut noted = Noted::default();
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["stop", pid, began] => noted.stopped.push((pid.parse().ok()?, began.parse().ok()?)),
            ["file", pid, began, fd, device, ino, flags, offset] => noted.files.push(Descriptor {
                pid: pid.parse().ok()?,
                began: began.parse().ok()?,
                fd: fd.parse().ok()?,
                device: device.parse().ok()?,
                ino: ino.parse().ok()?,
                flags: flags.parse().ok()?,
                offset: offset.parse().ok()?,
            }),
            ["link", path] => {
                noted.links.insert(unhex(path)?);
            }
            ["not-link", path] => {
                noted.links.remove(&unhex(path)?);
            }
            _ => return None,
        }
    }
    Some(noted)
}

/// Where numbers of processes and the times at which they began mean something: the boot, the pid
/// namespace, and the time namespace, by which /proc shifts those times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standpoint(pub(super) String);

/// How many words it has.
pub(super) const WORDS: usize = 3;

/// A standpoint, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Here,
    /// All of its processes are gone.
    BeforeBoot,
    /// Its processes have other numbers here.
    Elsewhere,
}

impl Standpoint {
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// # Errors
    ///
    /// That /proc does not tell for want of something, such as descriptors: what it does not have at
    /// all is left out.
    pub(super) fn own() -> Result<Self, DumpError> {
        let or_none = |path: &str, found: io::Result<String>| match found {
            Ok(found) => Ok(found.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("-".to_owned()),
            Err(error) => Err(DumpError::io("read", path, &error)),
        };
        let namespace = |name: &str| {
            let path = format!("/proc/self/ns/{name}");
            let link = fs::read_link(&path).map(|link| link.display().to_string());
            or_none(&path, link)
        };
        let path = "/proc/sys/kernel/random/boot_id";
        let boot = or_none(path, fs::read_to_string(path))?;
        let (pids, times) = (namespace("pid")?, namespace("time")?);
        Ok(Self(format!("{boot} {pids} {times}")))
    }

    pub(super) fn place(&self) -> Result<Place, DumpError> {
        let own = Self::own()?;
        let boot = |it: &Self| it.0.split(' ').next().map(ToOwned::to_owned);
        Ok(if *self == own {
            Place::Here
        } else if boot(self) == boot(&own) {
            Place::Elsewhere
        } else {
            Place::BeforeBoot
        })
    }
}

pub(super) fn elsewhere(name: &str) -> DumpError {
    let what = "made in another pid namespace: recover there";
    DumpError::new(name, DumpErrorKind::Refused(what.to_owned()))
}

/// Whether a process has ended that began then, be it waited for or not.
///
/// # Errors
///
/// That /proc does not tell: then it may be there.
pub(super) fn has_ended(pid: Pid, start: u64) -> io::Result<bool> {
    let is_none = |error: &io::Error| {
        matches!(
            error.raw_os_error(),
            Some(libc::ENOENT | libc::ESRCH | libc::ENOTDIR)
        )
    };
    match began(pid) {
        Ok(began) if began != start => return Ok(true),
        Ok(_) => {}
        Err(error) if is_none(&error) => return Ok(true),
        Err(error) => return Err(error),
    }
    match super::stop::states(pid) {
        Ok(states) => Ok(states.iter().all(|(_, state)| matches!(state, 'Z' | 'X'))),
        Err(error) if is_none(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_and_half_a_line_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let mut record = Record::lock(&image).unwrap();
        assert_eq!(record.read().unwrap(), Noted::default());
        record.begin().unwrap();
        record.stop(Pid::from_raw(7), 99).unwrap();
        let file = Descriptor {
            pid: 7,
            began: 99,
            fd: 3,
            device: 1,
            ino: 2,
            flags: 0o2,
            offset: 5,
        };
        record.files(&[file]).unwrap();
        record.link(Path::new("/a b/\u{fc}")).unwrap();
        record.link(Path::new("/c")).unwrap();
        record.not_link(Path::new("/c")).unwrap();
        record.note("stop 8 1").unwrap();
        let noted = Noted {
            stopped: vec![(7, 99)],
            files: vec![file],
            links: BTreeSet::from([PathBuf::from("/a b/\u{fc}")]),
        };
        assert_eq!(record.read().unwrap(), noted);
    }

    #[test]
    fn a_place_belongs_to_one() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let record = Record::lock(&image).unwrap();
        let refused = Record::lock(&image).unwrap_err().to_string();
        assert!(refused.contains("under way"), "{refused}");
        record.remove().unwrap();
        Record::lock(&image).unwrap();
    }

    #[test]
    fn a_record_of_another_boot_says_nothing_and_one_of_another_namespace_is_refused() {
        let own = Standpoint::own().unwrap();
        assert_eq!(own.place().unwrap(), Place::Here);
        let (boot, rest) = own.0.split_once(' ').unwrap();
        assert_eq!(
            Standpoint::of(&format!("{boot} pid:[1] time:[1]"))
                .place()
                .unwrap(),
            Place::Elsewhere
        );
        let other = Standpoint::of(&format!("another {rest}"));
        assert_eq!(other.place().unwrap(), Place::BeforeBoot);
        assert_eq!(own.0.split(' ').count(), WORDS);
    }
}
