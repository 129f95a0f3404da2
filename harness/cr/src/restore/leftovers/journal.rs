//! The journal of a restore: its lines, written and read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::super::error::{RestoreError, RestoreErrorKind};
use crate::dump::boot_id;
use crate::image::check_path;
use crate::process::began;
use crate::sys::path::Stat;

/// Between the name of the image and the pid of who restores.
pub(super) const SUFFIX: &str = ".restore-";

/// Most bytes of a journal that are read: a line for each of a million ghosts.
pub(super) const MOST_BYTES: u64 = 1 << 30;

/// The journal of a restore under way.
#[derive(Debug)]
pub(in crate::restore) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Makes the journal of a restore from this image; none where nothing can be written beside it.
    pub(in crate::restore) fn create(image: &Path) -> Result<Option<Self>, RestoreError> {
        let pid = std::process::id();
        let mut path = image.as_os_str().to_owned();
        path.push(format!("{SUFFIX}{pid}"));
        let path = PathBuf::from(path);
        let create = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            let mut file = options
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            let began = began(Pid::this())?;
            let identity = identity(&file.metadata()?);
            file.write_all(format!("{} {pid} {began} {identity}\n", boot_id()).as_bytes())?;
            Ok(file)
        };
        match create() {
            Ok(file) => Ok(Some(Self { path, file })),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EROFS | libc::EACCES | libc::EPERM)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(of_io("journal", &path, &error)),
        }
    }

    fn note(&mut self, line: &Line<'_>) -> Result<(), RestoreError> {
        // One call, so that a line is there or not.
        let written = self.file.write_all(line.print().as_bytes());
        written.map_err(|error| of_io("write", &self.path, &error))
    }

    /// A directory of ours is about to be made below a mount's root.
    pub(in crate::restore) fn room(
        &mut self,
        mount: &[u8],
        name: &[u8],
    ) -> Result<(), RestoreError> {
        self.note(&Line::Room { mount, name })
    }

    /// The directory that was to be made is ours.
    pub(in crate::restore) fn made(
        &mut self,
        mount: &[u8],
        name: &[u8],
    ) -> Result<(), RestoreError> {
        self.note(&Line::Made { mount, name })
    }

    /// What has a name in the room is about to get this path.
    pub(in crate::restore) fn move_to(
        &mut self,
        (mount, room, name): (&[u8], &[u8], &[u8]),
        stat: &Stat,
        path: &[u8],
    ) -> Result<(), RestoreError> {
        let is_directory = stat.mode & libc::S_IFMT == libc::S_IFDIR;
        let ino = stat.ino;
        self.note(&Line::Move {
            mount,
            room,
            name,
            ino,
            is_directory,
            path,
        })
    }

    /// What had that name in the room has been moved, and its path is as it was: who has it later is
    /// another, even if his inode has the number by then.
    pub(in crate::restore) fn done(
        &mut self,
        (mount, room, name): (&[u8], &[u8], &[u8]),
    ) -> Result<(), RestoreError> {
        self.note(&Line::Done { mount, room, name })
    }

    /// The times of a directory are about to change, which a mount may be over.
    pub(in crate::restore) fn times(
        &mut self,
        (mount, path): (&[u8], &[u8]),
        stat: &Stat,
    ) -> Result<(), RestoreError> {
        let (ino, times) = (stat.ino, [stat.accessed, stat.modified]);
        self.note(&Line::Times {
            mount,
            path,
            ino,
            times,
        })
    }

    /// Everything is as it was.
    pub(in crate::restore) fn remove(self) -> Result<(), RestoreError> {
        fs::remove_file(&self.path).map_err(|error| of_io("unlink", &self.path, &error))
    }
}

/// A line of a journal.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Room {
        mount: &'a [u8],
        name: &'a [u8],
    },
    Made {
        mount: &'a [u8],
        name: &'a [u8],
    },
    Move {
        mount: &'a [u8],
        room: &'a [u8],
        name: &'a [u8],
        ino: u64,
        is_directory: bool,
        path: &'a [u8],
    },
    Done {
        mount: &'a [u8],
        room: &'a [u8],
        name: &'a [u8],
    },
    Times {
        mount: &'a [u8],
        path: &'a [u8],
        ino: u64,
        times: [(i64, i64); 2],
    },
}

impl Line<'_> {
    fn print(&self) -> String {
        let hex = |bytes: &[u8]| -> String {
            // A word that is empty would be none.
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                + "."
        };
        match self {
            Self::Room { mount, name } => format!("room {} {}\n", hex(mount), hex(name)),
            Self::Made { mount, name } => format!("made {} {}\n", hex(mount), hex(name)),
            Self::Move {
                mount,
                room,
                name,
                ino,
                is_directory,
                path,
            } => {
                let (mount, room, name) = (hex(mount), hex(room), hex(name));
                let is_directory = u8::from(*is_directory);
                format!(
                    "move {mount} {room} {name} {ino} {is_directory} {}\n",
                    hex(path)
                )
            }
            Self::Done { mount, room, name } => {
                format!("done {} {} {}\n", hex(mount), hex(room), hex(name))
            }
            Self::Times {
                mount,
                path,
                ino,
                times,
            } => {
                let [(a, an), (m, mn)] = times;
                let (mount, path) = (hex(mount), hex(path));
                format!("times {mount} {path} {ino} {a} {an} {m} {mn}\n")
            }
        }
    }
}

/// The first word of a line, the bytes and the numbers that follow.
pub(super) type Words<'a> = (&'a str, Vec<Vec<u8>>, Vec<i64>);

fn words(line: &str) -> Option<Words<'_>> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
    for word in words {
        match word.strip_suffix('.') {
            Some(digits) => {
                let pairs = digits.as_bytes().chunks(2);
                let byte =
                    |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                bytes.push(pairs.map(byte).collect::<Option<Vec<u8>>>()?);
            }
            None => numbers.push(word.parse().ok()?),
        }
    }
    Some((kind, bytes, numbers))
}

/// What names a file within a boot: no copy of it has the same.
pub(super) fn identity(metadata: &fs::Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

pub(super) const COPIED: &str =
    "a copy, which no restore has written: what it tells of is cleared from where it was made";

/// Boot, pid and start of who has written a journal, by its first line.
pub(super) fn writer<'a>(head: &'a str, identity: &str) -> io::Result<Option<(&'a str, Pid, u64)>> {
    let mut words = head.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let (boot, pid, start) = (next(), next().parse().ok(), next().parse().ok());
    if next() != identity {
        return Err(io::Error::new(io::ErrorKind::InvalidData, COPIED));
    }
    let known = pid.map(Pid::from_raw).zip(start);
    let known = known.filter(|_| !boot.is_empty());
    Ok(known.map(|(pid, start)| (boot, pid, start)))
}

/// The lines of the journal of a process, if a restore by it can have written each.
pub(super) fn parse(text: &str, pid: Pid) -> Result<Vec<Words<'_>>, RestoreError> {
    // The first line has been read.
    let lines = text.lines().zip(2..);
    let parsed = lines.map(|(line, number)| {
        let words = words(line).ok_or("neither a number nor a name");
        let checked = words.and_then(|words| check(&words, pid).map(|()| words));
        let wrong = |what| RestoreError::new(RestoreErrorKind::Impossible(what));
        checked.map_err(|what| wrong(what).at(&format!("line {number}")))
    });
    parsed.collect()
}

fn check((kind, bytes, numbers): &Words<'_>, pid: Pid) -> Result<(), &'static str> {
    let is_path = |path: &[u8]| check_path(path).map_err(|invalid| invalid.reason);
    let is_room = |name: &[u8]| {
        let attempt = name.strip_prefix(room_name(pid, "").as_bytes());
        let is_ours = attempt.is_some_and(is_number);
        is_ours
            .then_some(())
            .ok_or("not a directory of the restore's own")
    };
    let is_name = |holds: bool| holds.then_some(()).ok_or("not a name of the restore's own");
    match (*kind, &bytes[..], &numbers[..]) {
        ("room" | "made", [above, room], []) => is_path(above).and(is_room(room)),
        ("move", [above, room, name, path], [_, 0 | 1]) => {
            is_path(above).and(is_room(room)).and(is_path(path))?;
            is_name(is_number(name) && path != b"/")
        }
        ("done", [above, room, name], []) => {
            is_path(above).and(is_room(room))?;
            is_name(is_number(name))
        }
        ("times", [mount, path], [_, _, _, _, _]) => is_path(mount).and(is_path(path)),
        _ => Err("not a line of a restore's journal"),
    }
}

/// The property for fuzzing: any text is refused, or each of its lines is one that a restore has
/// written and writes again.
///
/// # Panics
///
/// If the property does not hold.
pub fn check_restore_journal(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (head, lines) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(Some((_, pid, _))) = writer(head, "1:1") else {
        return;
    };
    let Ok(parsed) = parse(lines, pid) else {
        return;
    };
    for (kind, bytes, numbers) in parsed {
        let line = match (kind, &bytes[..], &numbers[..]) {
            ("room", [mount, name], []) => Line::Room { mount, name },
            ("made", [mount, name], []) => Line::Made { mount, name },
            ("move", [mount, room, name, path], [ino, is_directory]) => Line::Move {
                mount,
                room,
                name,
                ino: ino.cast_unsigned(),
                is_directory: *is_directory == 1,
                path,
            },
            ("done", [mount, room, name], []) => Line::Done { mount, room, name },
            ("times", [mount, path], [ino, a, an, m, mn]) => Line::Times {
                mount,
                path,
                ino: ino.cast_unsigned(),
                times: [(*a, *an), (*m, *mn)],
            },
            other => panic!("{other:?} was accepted"),
        };
        let printed = line.print();
        let again = words(printed.trim_end()).map(|(kind, bytes, _)| (kind, bytes));
        assert_eq!(again, Some((kind, bytes)));
    }
}

fn is_number(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

/// The name of a directory of a restore's own.
pub(in crate::restore) fn room_name(pid: Pid, attempt: impl fmt::Display) -> String {
    format!(".notifreeze-{pid}-{attempt}")
}

pub(super) fn of_io(call: &'static str, path: &Path, error: &io::Error) -> RestoreError {
    let operand = path.display().to_string();
    match error.raw_os_error() {
        Some(errno) => RestoreError::call(call, operand, Errno::from_raw(errno)),
        None if error.kind() == io::ErrorKind::InvalidData => {
            RestoreError::new(RestoreErrorKind::Impossible(COPIED)).at(&operand)
        }
        None => RestoreError::call(call, operand, Errno::UnknownErrno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = Line::Move {
            mount: b"/",
            room: b".notifreeze-1-0",
            name: b"",
            ino: 7,
            is_directory: true,
            path: b"/a b\n\xff",
        };
        let text = line.print();
        let (kind, bytes, numbers) = words(text.trim_end()).expect("a line");
        assert_eq!(kind, "move");
        assert_eq!(numbers, [7, 1]);
        let expected: [&[u8]; 4] = [b"/", b".notifreeze-1-0", b"", b"/a b\n\xff"];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn half_a_line_is_none() {
        assert_eq!(
            words("move 2f. 3"),
            Some(("move", vec![b"/".to_vec()], vec![3]))
        );
        assert_eq!(words("move 2"), Some(("move", vec![], vec![2])));
        assert_eq!(words("move 2f.x"), None);
    }
}
