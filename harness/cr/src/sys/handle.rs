//! File handles: from a file, and back to a file. No call here makes an event or changes a time,
//! as every descriptor is `O_PATH`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fsnotify::handle::{FileHandle, MAX_HANDLE_BYTES};
use nix::errno::Errno;

/// [`MAX_HANDLE_BYTES`] as the kernel counts.
const BUFFER_BYTES: u32 = 128;

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct Buffer {
    bytes: u32,
    kind: i32,
    handle: [u8; MAX_HANDLE_BYTES],
}

/// name_to_handle_at(2) of a path, which is not followed if it is a symbolic link.
///
/// # Errors
///
/// The errno of the call; `EOPNOTSUPP` where the filesystem has no handles.
pub fn of_path(path: &Path) -> Result<FileHandle, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    of_name(&path)
}

/// [`of_path`] of a path in the kernel's own form.
///
/// # Errors
///
/// As [`of_path`].
pub fn of_name(path: &CStr) -> Result<FileHandle, Errno> {
    at(libc::AT_FDCWD, path, 0)
}

/// name_to_handle_at(2) of an open file.
///
/// # Errors
///
/// As [`of_path`].
pub fn of_file(file: impl AsFd) -> Result<FileHandle, Errno> {
    at(file.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// name_to_handle_at(2) of a path below a directory.
///
/// # Errors
///
/// As [`of_path`].
pub fn of_entry(dir: impl AsFd, path: &CStr) -> Result<FileHandle, Errno> {
    at(dir.as_fd().as_raw_fd(), path, 0)
}

fn at(dir: i32, path: &CStr, flags: i32) -> Result<FileHandle, Errno> {
    const AT_HANDLE_FID: i32 = 0x200;
    match encode(dir, path, flags) {
        // It cannot be opened again, but it is what fdinfo shows.
        Err(Errno::EOPNOTSUPP) => encode(dir, path, flags | AT_HANDLE_FID),
        handle => handle,
    }
}

fn encode(dir: i32, path: &CStr, flags: i32) -> Result<FileHandle, Errno> {
    let mut buffer = Buffer {
        bytes: BUFFER_BYTES,
        kind: 0,
        handle: [0; MAX_HANDLE_BYTES],
    };
    let mut mount = 0;
    // SAFETY: `buffer` is laid out as struct file_handle and has room for as many bytes as it
    // says; `path` is a C string; both outlive the call.
    let returned = unsafe {
        let handle = (&raw mut buffer).cast();
        libc::name_to_handle_at(dir, path.as_ptr(), handle, &raw mut mount, flags)
    };
    Errno::result(returned)?;
    let length = usize::try_from(buffer.bytes).map_or(0, |bytes| bytes.min(MAX_HANDLE_BYTES));
    Ok(FileHandle::new(buffer.kind, &buffer.handle[..length]).expect("no longer than the buffer"))
}

/// open_by_handle_at(2) with `O_PATH`; `mount` is any file of the filesystem.
///
/// The call takes no `O_PATH` descriptor for the mount (`get_path_anchor`), and a real one could
/// not be opened in silence. A working directory is taken whatever it was opened with: so for an
/// `O_PATH` directory this starts a thread with a working directory of its own. Who opens many
/// handles does better with [`with_own_directory`] and [`open_here`].
///
/// # Errors
///
/// The errno of the call: `ESTALE` when the inode is gone, `EPERM` without
/// `CAP_DAC_READ_SEARCH` in the initial user namespace.
pub fn open(mount: impl AsFd, handle: &FileHandle) -> Result<OwnedFd, Errno> {
    let mount = mount.as_fd();
    match open_with(mount.as_raw_fd(), handle, libc::O_PATH) {
        Err(Errno::EBADF) => with_own_directory(|| {
            nix::unistd::fchdir(mount)?;
            open_with(libc::AT_FDCWD, handle, libc::O_PATH)
        })?,
        opened => opened,
    }
}

/// open_by_handle_at(2) with `O_PATH`, on the filesystem of the working directory. Whoever may open
/// no file may still open a directory, where the mount is of its own user namespace
/// (`may_decode_fh`).
///
/// # Errors
///
/// As [`open`]; `EPERM` only for what was not to be opened as a directory either.
pub fn open_here(handle: &FileHandle) -> Result<OwnedFd, Errno> {
    match open_with(libc::AT_FDCWD, handle, libc::O_PATH) {
        Err(Errno::EPERM) => {
            let directory = libc::O_PATH | libc::O_DIRECTORY;
            open_with(libc::AT_FDCWD, handle, directory).map_err(|_| Errno::EPERM)
        }
        opened => opened,
    }
}

/// Runs `body` in a thread with a working directory of its own (unshare(2), `CLONE_FS`), which it
/// may change as it likes.
///
/// # Errors
///
/// The errno of unshare(2), or `EAGAIN` if no thread could be made.
pub fn with_own_directory<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
            Ok(body())
        });
        match thread.map_err(|_| Errno::EAGAIN)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn open_with(mount: i32, handle: &FileHandle, flags: i32) -> Result<OwnedFd, Errno> {
    let bytes = handle.bytes();
    let mut buffer = Buffer {
        bytes: u32::try_from(bytes.len()).expect("at most MAX_HANDLE_BYTES"),
        kind: handle.kind(),
        handle: [0; MAX_HANDLE_BYTES],
    };
    buffer.handle[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: `buffer` is laid out as struct file_handle and holds as many bytes as it says.
    let fd = unsafe {
        libc::open_by_handle_at(mount, (&raw mut buffer).cast(), flags | libc::O_CLOEXEC)
    };
    super::path::owned(fd.into())
}

/// open(2) with `O_PATH`: an anchor for [`open`].
///
/// # Errors
///
/// The errno of the call.
pub fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    use nix::fcntl::OFlag;
    nix::fcntl::open(
        path,
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
}

/// `/proc/self/fd/N`: a path that leads to the very inode, whatever its names.
#[must_use]
pub fn proc_path(file: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_a_path_and_of_its_file_are_equal() {
        let folder = tempfile::tempdir().unwrap();
        let file = open_path(folder.path()).unwrap();
        let by_file = of_file(&file);
        assert_eq!(of_path(folder.path()), by_file);
        let Ok(handle) = by_file else { return };
        match open(&file, &handle) {
            Ok(again) => assert_eq!(of_file(again), Ok(handle)),
            Err(errno) => assert_eq!(errno, Errno::EPERM),
        }
    }
}
