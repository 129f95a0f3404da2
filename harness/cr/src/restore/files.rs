//! Open file descriptions on files that have a name.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::error::{Context, RestoreError};
use super::stage::{Stage, seek};
use super::tree::{Tree, link_to};
use crate::image::{Image, Object, OpenFile, Place, PlaceKind, Text};
use crate::silent::Asking;
use crate::sys::{descriptor, path, raw};

/// Flags that act when a file is opened and show in no `F_GETFL`, or that are set later.
const NOT_TO_OPEN: i32 =
    libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY | libc::O_ASYNC | libc::O_CLOEXEC;

/// `__O_TMPFILE` without the `O_DIRECTORY` that goes with it.
const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;

/// Opens what [`Image::files`] has on places that are there.
pub(super) fn open(image: &Image, tree: &Tree, stage: &mut Stage) -> Result<(), RestoreError> {
    // The reading end of a fifo first: without it a writing end is not to be had.
    let mut order: Vec<usize> = (0..image.files.len()).collect();
    order.sort_by_key(|&file| {
        image.files[file].flags.cast_signed() & libc::O_ACCMODE == libc::O_WRONLY
    });
    for index in order {
        let file = &image.files[index];
        let Some(Object::Place(place)) = file.object else {
            continue;
        };
        let place = &image.places[place as usize];
        if matches!(place.kind(), PlaceKind::Named | PlaceKind::Hidden) {
            let name = || image.name_of_file(index);
            let opened = tree
                .find(image, place)
                .and_then(|found| open_place(&found, file, (tree, place)))
                .and_then(|opened| finish(&opened, file).map(|()| opened))
                .map_err(|error| error.at(&name()))?;
            stage.put(index, opened)?;
        }
    }
    Ok(())
}

/// As [`open_again`]. With `O_NOFOLLOW` only a name will do, and what is mounted over a directory takes
/// the names in it away: it is looked up where its directory is.
fn open_place(
    found: &OwnedFd,
    file: &OpenFile,
    (tree, place): (&Tree, &Place),
) -> Result<OwnedFd, RestoreError> {
    let flags = file.flags.cast_signed() & !NOT_TO_OPEN;
    if place.kind() != PlaceKind::Hidden || flags & libc::O_NOFOLLOW == 0 {
        return open_again(found, file);
    }
    let (is_directory, flags) = unwaiting(found, flags)?;
    let above;
    let (directory, name) = if is_directory {
        (found, c".".to_owned())
    } else {
        let (directory, name) = tree.hidden_parent(place)?;
        above = directory;
        (&above, name)
    };
    leads_to(directory.as_raw_fd(), &name, found)?;
    let opened = raw::openat(directory.as_raw_fd(), &name, flags | libc::O_CLOEXEC, 0)
        .and_then(path::owned)
        .context("openat", Text(&place.path))?;
    same(&opened, found)?;
    Ok(opened)
}

/// Opens an inode that we have by `O_PATH` as a description was opened.
pub(super) fn open_again(found: &OwnedFd, file: &OpenFile) -> Result<OwnedFd, RestoreError> {
    let mode = path::stat(found, c"").context("statx", "")?.mode;
    // Held until the file is open.
    let _asking = file
        .asks
        .then(|| Asking::on(&link_to(found), mode & libc::S_IFMT == libc::S_IFDIR))
        .transpose()
        .map_err(|(call, errno)| RestoreError::call(call, "", errno))?;
    let mut flags = file.flags.cast_signed() & !NOT_TO_OPEN;
    if flags & TMPFILE != 0 {
        flags &= !libc::O_TMPFILE;
    }
    if flags & libc::O_PATH != 0 {
        // What O_NOFOLLOW would refuse to follow is the link in /proc.
        if flags & libc::O_NOFOLLOW != 0 {
            return no_follow(found, flags);
        }
        return descriptor_of(found, flags);
    }
    let is_fifo = mode & libc::S_IFMT == libc::S_IFIFO;
    (_, flags) = unwaiting(found, flags)?;
    if flags & libc::O_NOFOLLOW != 0 {
        return no_follow(found, flags);
    }
    match descriptor_of(found, flags) {
        // A writing end whose reader has closed: a reader for as long as it takes.
        Err(_) if is_fifo && flags & libc::O_ACCMODE == libc::O_WRONLY => {
            let _reader = descriptor_of(found, libc::O_RDONLY | libc::O_NONBLOCK)?;
            descriptor_of(found, flags)
        }
        opened => opened,
    }
}

/// Whether it is a directory, and the flags to open it with: to open a fifo or a device must not make
/// anybody wait. [`finish`] sets those that it had. What the image says of its type may be wrong.
fn unwaiting(found: &OwnedFd, flags: i32) -> Result<(bool, i32), RestoreError> {
    let mode = path::stat(found, c"").context("statx", "")?.mode;
    Ok(match mode & libc::S_IFMT {
        libc::S_IFDIR => (true, flags),
        // One that is leased would not be opened, where the kernel gives the lease up in time.
        libc::S_IFREG => (false, flags),
        _ => (false, flags | libc::O_NONBLOCK),
    })
}

fn descriptor_of(found: &OwnedFd, flags: i32) -> Result<OwnedFd, RestoreError> {
    raw::open(&link_to(found), flags | libc::O_CLOEXEC, 0)
        .and_then(path::owned)
        .context("open", format!("flags {flags:#o}"))
}

/// Opens with `O_NOFOLLOW`, which the description keeps and shows: by name, in the directory.
fn no_follow(found: &OwnedFd, flags: i32) -> Result<OwnedFd, RestoreError> {
    let name = path::name_of(found).context("readlink", "")?;
    let path = path::c_path(&name).context("open", Text(&name))?;
    leads_to(libc::AT_FDCWD, &path, found)?;
    let file = raw::open(&path, flags | libc::O_CLOEXEC, 0)
        .and_then(path::owned)
        .context("open", Text(&name))?;
    same(&file, found)?;
    Ok(file)
}

/// Makes sure that a name leads to a file, before anything that another may do on being opened.
fn leads_to(directory: RawFd, name: &CStr, found: &OwnedFd) -> Result<(), RestoreError> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let seen = raw::openat(directory, name, flags, 0)
        .and_then(path::owned)
        .context("openat", Text(name.to_bytes()))?;
    same(&seen, found)
}

fn same(file: &OwnedFd, found: &OwnedFd) -> Result<(), RestoreError> {
    let stat = |file: &OwnedFd| path::stat(file, c"").context("statx", "");
    let (one, other) = (stat(file)?, stat(found)?);
    if (one.device, one.ino) == (other.device, other.ino) {
        return Ok(());
    }
    let errno = nix::errno::Errno::ESTALE;
    Err(RestoreError::call(
        "open",
        "the name leads elsewhere",
        errno,
    ))
}

/// Offset, status flags, and what else fcntl(2) sets.
pub(super) fn finish(opened: &OwnedFd, file: &OpenFile) -> Result<(), RestoreError> {
    let flags = file.flags.cast_signed();
    if flags & libc::O_PATH != 0 {
        return Ok(());
    }
    let wanted = flags & !libc::O_ASYNC;
    let now = descriptor::flags(opened).context("fcntl", "F_GETFL")?;
    if now != wanted {
        descriptor::set_flags(opened, wanted).context("fcntl", "F_SETFL")?;
    }
    if file.pipe_size != 0 && descriptor::pipe_size(opened) != Ok(file.pipe_size) {
        descriptor::set_pipe_size(opened, file.pipe_size).context("fcntl", "F_SETPIPE_SZ")?;
    }
    if file.write_hint != 0 && descriptor::write_hint(opened) != Ok(file.write_hint) {
        descriptor::set_write_hint(opened, file.write_hint).context("fcntl", "F_SET_RW_HINT")?;
    }
    if file.offset != 0 && raw::lseek(opened.as_raw_fd(), 0, libc::SEEK_CUR).is_ok() {
        seek(opened.as_fd(), file.offset)?;
    }
    Ok(())
}
