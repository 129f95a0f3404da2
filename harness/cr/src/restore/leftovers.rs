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

mod journal;

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{Context, RestoreError};
use super::tree::{Tree, c_string, link_to, split};
use crate::dump::boot_id;
use crate::process::began;
use crate::sys::path::{self, bare_tree, open_beneath};
use crate::sys::raw;
pub use journal::check_restore_journal;
pub(super) use journal::{Journal, room_name};
use journal::{MOST_BYTES, SUFFIX, Words, identity, of_io, parse, writer};

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

fn clear_one(lines: &[Words<'_>], tree: &Tree) -> Result<(), RestoreError> {
    let done: HashSet<&[Vec<u8>]> = lines
        .iter()
        .filter(|(kind, ..)| *kind == "done")
        .map(|(_, bytes, _)| &bytes[..])
        .collect();
    // The last first: what is in a directory before the directory.
    for (kind, bytes, numbers) in lines.iter().rev() {
        if let ("move", [mount, room, name, path], [ino, is_directory]) =
            (*kind, &bytes[..], &numbers[..])
            && !done.contains(&bytes[..3])
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
