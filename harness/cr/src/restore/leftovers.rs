//! What a restore that is killed leaves of the ghosts that it was making, and how it is cleared.
//!
//! For a moment a ghost has its name again, and where another file had that name by then, that file
//! is in a directory of ours. So before anything is renamed a journal beside the image says what is
//! about to be: [`clear`] finds from there what is not as it was, and puts it right. The next
//! restore from the image does so before anything else.
//!
//! A journal is believed if it is of this boot and of the caller's own, and if it is the very file that
//! it was written to, whose number stands in its first line: it came neither with the image nor as a
//! copy, which is its maker's whoever wrote the original. And still no line is acted upon that a
//! restore would not have written.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{Context, RestoreError, RestoreErrorKind};
use super::tree::{Tree, c_string, link_to, split};
use crate::dump::{boot_id, journal::began};
use crate::image::check_path;
use crate::sys::path::{self, Stat, bare_tree, open_beneath};
use crate::sys::raw;

/// Between the name of the image and the pid of who restores.
const SUFFIX: &str = ".restore-";

/// Most bytes of a journal that are read: a line for each of a million ghosts.
const MOST_BYTES: u64 = 1 << 30;

/// The journal of a restore under way.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Makes the journal of a restore from this image; none where nothing can be written beside it.
    pub(super) fn create(image: &Path) -> Result<Option<Self>, RestoreError> {
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
    pub(super) fn room(&mut self, mount: &[u8], name: &[u8]) -> Result<(), RestoreError> {
        self.note(&Line::Room { mount, name })
    }

    /// The directory that was to be made is ours.
    pub(super) fn made(&mut self, mount: &[u8], name: &[u8]) -> Result<(), RestoreError> {
        self.note(&Line::Made { mount, name })
    }

    /// What has a name in the room is about to get this path.
    pub(super) fn move_to(
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

    /// The times of a directory are about to change, which a mount may be over.
    pub(super) fn times(
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
    pub(super) fn remove(self) -> Result<(), RestoreError> {
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
type Words<'a> = (&'a str, Vec<Vec<u8>>, Vec<i64>);

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

/// Puts right what restores from this image left that were killed.
pub(super) fn clear(image: &Path, tree: &Tree) -> Result<(), RestoreError> {
    let directory = match image.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let prefix = [
        image.file_name().unwrap_or_default().as_encoded_bytes(),
        SUFFIX.as_bytes(),
    ]
    .concat();
    let failed = |error: io::Error| of_io("readdir", directory, &error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(&prefix) {
            let path = entry.path();
            let Some((pid, text)) = read(&path).map_err(|error| of_io("journal", &path, &error))?
            else {
                continue;
            };
            let lines = parse(&text, pid);
            let cleared = lines.and_then(|lines| clear_one(&lines, tree));
            cleared.map_err(|error| error.at(&path.display().to_string()))?;
            fs::remove_file(&path).map_err(|error| of_io("unlink", &path, &error))?;
        }
    }
    Ok(())
}

/// What names a file within a boot: no copy of it has the same.
fn identity(metadata: &fs::Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

const COPIED: &str =
    "a copy, which no restore has written: what it tells of is cleared from where it was made";

/// The lines of a journal that is ours, and the process that is gone; none of another. What is left
/// is what has been written whole.
fn read(path: &Path) -> io::Result<Option<(Pid, String)>> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        // Nobody makes us wait with a fifo of that name.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    let is_ours = metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw();
    if !is_ours || metadata.len() > MOST_BYTES {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    (&file).read_to_end(&mut bytes)?;
    // What is no text is no line.
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    let Some((head, lines)) = text.split_once('\n') else {
        return Ok(Some((Pid::this(), String::new())));
    };
    let gone = writer(head, &identity(&metadata))?
        .filter(|(boot, pid, start)| *boot == boot_id() && began(*pid).ok() != Some(*start));
    Ok(gone.map(|(_, pid, _)| (pid, lines.to_owned())))
}

/// Boot, pid and start of who has written a journal, by its first line.
fn writer<'a>(head: &'a str, identity: &str) -> io::Result<Option<(&'a str, Pid, u64)>> {
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
fn parse(text: &str, pid: Pid) -> Result<Vec<Words<'_>>, RestoreError> {
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
    match (*kind, &bytes[..], &numbers[..]) {
        ("room" | "made", [above, room], []) => is_path(above).and(is_room(room)),
        ("move", [above, room, name, path], [_, 0 | 1]) => {
            is_path(above).and(is_room(room)).and(is_path(path))?;
            let is_name = is_number(name) && path != b"/";
            is_name
                .then_some(())
                .ok_or("not a name of the restore's own")
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
pub(super) fn room_name(pid: Pid, attempt: impl fmt::Display) -> String {
    format!(".notifreeze-{pid}-{attempt}")
}

fn clear_one(lines: &[Words<'_>], tree: &Tree) -> Result<(), RestoreError> {
    // The last first: what is in a directory before the directory.
    for (kind, bytes, numbers) in lines.iter().rev() {
        if let ("move", [mount, room, name, path], [ino, is_directory]) =
            (*kind, &bytes[..], &numbers[..])
        {
            let (ino, is_directory) = (ino.cast_unsigned(), *is_directory == 1);
            move_back(tree, (mount, room, name), (ino, is_directory), path)?;
        }
    }
    for (kind, bytes, _) in lines {
        if let ("made", [mount, name]) = (*kind, &bytes[..]) {
            remove_room(tree, mount, name, Contents::Ours)?;
        }
    }
    for (kind, bytes, _) in lines {
        if let ("room", [mount, name]) = (*kind, &bytes[..]) {
            remove_room(tree, mount, name, Contents::Unknown)?;
        }
    }
    for (kind, bytes, numbers) in lines {
        if let ("times", [mount, path], [ino, a, an, m, mn]) = (*kind, &bytes[..], &numbers[..]) {
            let times = [(*a, *an), (*m, *mn)];
            set_back(tree, (mount, path), ino.cast_unsigned(), &times)?;
        }
    }
    Ok(())
}

/// None where something is not there any more: then it is as it is to be.
fn there<T>(result: Result<T, RestoreError>) -> Result<Option<T>, RestoreError> {
    use super::error::RestoreErrorKind::Call;
    match result {
        Err(RestoreError {
            kind:
                Call {
                    errno: Errno::ENOENT | Errno::ENOTDIR,
                    ..
                },
            ..
        }) => Ok(None),
        result => result.map(Some),
    }
}

/// Gives a path back to who had it. What is in the room is the ghost, which had not got there, or
/// who had to make way for it; the inode's number tells.
fn move_back(
    tree: &Tree,
    (mount, room, name): (&[u8], &[u8], &[u8]),
    (ino, is_directory): (u64, bool),
    path: &[u8],
) -> Result<(), RestoreError> {
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    let Some(parent) = there(tree.open(mount, directory))? else {
        return Ok(());
    };
    let opened = open_beneath(&parent, &c_string(room)?, directory, 0).context("open", "");
    let Some(room) = there(opened)? else {
        return Ok(());
    };
    let (above, last) = split(path);
    let (name, last) = (c_string(name)?, c_string(last)?);
    for folder in folders(parent, above.strip_prefix(mount).unwrap_or(above))? {
        let own = inode_of(&folder, &last)? == Some(ino);
        let aside = inode_of(&room, &name)?.filter(|&aside| aside != ino);
        let unlink = || {
            let flags = if is_directory { libc::AT_REMOVEDIR } else { 0 };
            raw::unlinkat(folder.as_raw_fd(), &last, flags)
                .map(drop)
                .context("unlinkat", "of a ghost's name")
        };
        match (own, aside) {
            (false, _) => {}
            (true, None) => unlink()?,
            (true, Some(_)) => {
                // In the room they are of any type; a directory takes no file's name, and the
                // other way round.
                let (from, to) = (room.as_raw_fd(), folder.as_raw_fd());
                raw::renameat2(from, &name, to, &last, libc::RENAME_EXCHANGE)
                    .context("renameat2", "back")?;
            }
        }
    }
    Ok(())
}

/// Gives a directory its times back. What is there by now may be another; the inode's number tells.
fn set_back(
    tree: &Tree,
    (mount, path): (&[u8], &[u8]),
    ino: u64,
    times: &[(i64, i64); 2],
) -> Result<(), RestoreError> {
    let Some(parent) = there(tree.open(mount, libc::O_PATH | libc::O_DIRECTORY))? else {
        return Ok(());
    };
    for folder in folders(parent, path.strip_prefix(mount).unwrap_or(path))? {
        if inode_of(&folder, c"")? == Some(ino) {
            return match raw::utimensat(libc::AT_FDCWD, Some(&link_to(&folder)), times, 0) {
                // Who was killed could not have put them back either.
                Err(Errno::EPERM)
                    if !path::owns(path::stat(&folder, c"").context("statx", "")?.uid) =>
                {
                    Ok(())
                }
                set => set.map(drop).context("utimensat", ""),
            };
        }
    }
    Ok(())
}

/// The directory of this path below `above` and on the mount of it, by each way that there is: another
/// filesystem may be mounted over it by now.
fn folders(above: OwnedFd, path: &[u8]) -> Result<Vec<OwnedFd>, RestoreError> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = c_string(if path.is_empty() { b"." } else { path })?;
    let mount = |file: &OwnedFd| path::stat(file, c"").map(|stat| stat.mount);
    let bare = bare_tree(&above, c"").ok();
    let mut folders = Vec::new();
    for root in [Some(above), bare].into_iter().flatten() {
        let opened = open_beneath(&root, &path, libc::O_PATH | libc::O_DIRECTORY, 0);
        let folder = there(opened.context("open", ""))?;
        folders.extend(folder.filter(|folder| mount(folder) == mount(&root)));
    }
    Ok(folders)
}

fn inode_of(folder: &OwnedFd, name: &std::ffi::CStr) -> Result<Option<u64>, RestoreError> {
    match path::stat(folder, name) {
        Ok(stat) => Ok(Some(stat.ino)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(RestoreError::call("statx", "", errno)),
    }
}

/// What is in a directory of our name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// By now, ghosts and nothing else.
    Ours,
    /// It may be that of another, which had the name first.
    Unknown,
}

fn remove_room(
    tree: &Tree,
    mount: &[u8],
    name: &[u8],
    contents: Contents,
) -> Result<(), RestoreError> {
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    let Some(parent) = there(tree.open(mount, directory))? else {
        return Ok(());
    };
    let name = c_string(name)?;
    if contents == Contents::Unknown {
        // Not if there is something in it.
        let _ = raw::unlinkat(parent.as_raw_fd(), &name, libc::AT_REMOVEDIR);
        return Ok(());
    }
    let opened = open_beneath(&parent, &name, directory, 0).context("open", "");
    match there(opened)? {
        Some(room) => super::ghosts::empty_and_remove(&parent, &name, &room),
        None => Ok(()),
    }
}

fn of_io(call: &'static str, path: &Path, error: &io::Error) -> RestoreError {
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
