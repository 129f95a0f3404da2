//! What was read of fanotify queues, which nothing fills again: in `IMAGE.unread-PID-FD` beside the
//! image, in words, from before the first event is read until the image is complete and the subject is
//! gone. A dump that fails behind the reading says where it is, and so does
//! [`recover`](super::recover()) of one that was killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::Pid;

use super::error::DumpError;
use super::files::Held;
use super::journal::sibling;
use super::record::{Place, Standpoint, has_ended};
use super::recover::Outcome;
use super::stop;
use crate::process::began;

/// Between the name of the image and the numbers of process and descriptor.
pub(super) const UNREAD: &str = ".unread-";

/// How much longer events are in words, names and all, for most; it is what is reserved.
pub(super) const WORDS: u64 = 16;

/// Room for the first line.
const HEAD: u64 = 4096;

/// Most files of one descriptor that are left from earlier dumps.
const MOST: u32 = 1000;

#[derive(Debug, Default)]
pub(super) struct Unread {
    files: Vec<(PathBuf, File)>,
}

impl Unread {
    /// The queue of a group is about to be read.
    pub(super) fn announce(
        &mut self,
        image: &Path,
        (group, bytes): (&Held, usize),
    ) -> Result<(), DumpError> {
        let began = began(group.pid).map_err(stop::of_stat(group.pid))?;
        let (pid, fd, place) = (group.pid, group.fd, Standpoint::own()?.0);
        let head = format!("{pid} {fd} {began} {bytes} {place}\n");
        let (path, file) = create(image, &format!("{UNREAD}{pid}-{fd}"))?;
        let name = path.display().to_string();
        let reserved = HEAD + WORDS * bytes as u64;
        let reserved = i64::try_from(reserved).unwrap_or(i64::MAX);
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let reserved = match fallocate(&file, keep, 0, reserved) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(DumpError::on("fallocate", &*name, errno)),
        };
        let written = reserved.and_then(|()| {
            let written = (&file).write_all(head.as_bytes());
            written.map_err(|error| DumpError::io("write", &*name, &error))
        });
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written?;
        self.files.push((path, file));
        Ok(())
    }

    /// What was read of the queue that was announced last.
    pub(super) fn tell(&mut self, events: &[String]) -> Result<(), DumpError> {
        let Some((path, file)) = self.files.last_mut().filter(|_| !events.is_empty()) else {
            return Ok(());
        };
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        let written = file.write_all(lines.as_bytes());
        written.map_err(|error| DumpError::io("write", path.display().to_string(), &error))
    }

    pub(super) fn into_files(self) -> Vec<PathBuf> {
        self.files.into_iter().map(|(path, _)| path).collect()
    }

    /// The events are in the image.
    pub(super) fn remove(self) -> Result<(), DumpError> {
        self.files.into_iter().try_for_each(|(path, _)| {
            fs::remove_file(&path)
                .map_err(|error| DumpError::io("unlink", path.display().to_string(), &error))
        })
    }
}

fn create(image: &Path, suffix: &str) -> Result<(PathBuf, File), DumpError> {
    for n in 0..MOST {
        // One of an earlier dump may be there, which only its reader removes.
        let more = if n == 0 {
            String::new()
        } else {
            format!("-{n}")
        };
        let path = sibling(image, &format!("{suffix}{more}"));
        let mut options = OpenOptions::new();
        let file = options
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match file {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(DumpError::io("open", path.display().to_string(), &error)),
        }
    }
    let name = format!("{}{suffix}", image.display());
    Err(DumpError::on("open", name, Errno::EEXIST))
}

/// Whose events are in a file that was left, and whether they still want them.
pub(super) fn found(path: &Path) -> Result<Outcome, DumpError> {
    let name = path.display().to_string();
    let failed = |error: io::Error| DumpError::io("read", &*name, &error);
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(failed)?;
    let mut head = String::new();
    BufReader::new(io::Read::take(file, HEAD))
        .read_line(&mut head)
        .map_err(failed)?;
    let words: Vec<&str> = head.trim_end().split(' ').collect();
    let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
    let numbers = (number(0), number(1), number(2), number(3));
    let (Some(pid), Some(fd), Some(start), Some(bytes)) = numbers else {
        // It was not even announced.
        return Ok(Outcome::Untouched);
    };
    let number = |it: u64| i32::try_from(it).unwrap_or(0);
    let (pid, fd) = (number(pid), number(fd));
    let place = words[4..].join(" ");
    match Standpoint::of(&place).place()? {
        Place::Elsewhere => Err(super::record::elsewhere(&name)),
        Place::BeforeBoot => Ok(Outcome::Gone { pid }),
        Place::Here if has_ended(Pid::from_raw(pid), start).map_err(failed)? => {
            Ok(Outcome::Gone { pid })
        }
        Place::Here => Ok(Outcome::Lost { pid, fd, bytes }),
    }
}
