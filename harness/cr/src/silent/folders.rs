//! Directories opened in silence, many of them: what a search needs.
//!
//! The mount is cloned, and the clone, which nobody else can reach, gets a permission mark: so
//! every opening through it is ours to deny, and nobody else ever waits for us.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use fsnotify::handle::FileHandle;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::stat::Mode;
use std::os::fd::AsRawFd;

use super::{SilentErrorKind, call, new_listener};
use crate::sys::fanotify::{Response, Target, fanotify_mark, read_event, respond};
use crate::sys::{handle, path};

/// Most directories above one another that a path can name (`PATH_MAX`).
const MOST_DEPTH: usize = 2048;

/// The directories of one mount.
#[derive(Debug)]
pub struct Folders {
    clone: OwnedFd,
    /// Where the listener leaves what it denied.
    denied: Arc<Mutex<Option<OwnedFd>>>,
    /// Closing it ends the listener.
    stop: Option<OwnedFd>,
    listener: Option<JoinHandle<()>>,
}

impl Folders {
    /// Of a clone that [`bare_tree`](crate::sys::path::bare_tree) made.
    ///
    /// # Errors
    ///
    /// [`SilentErrorKind::NotPermitted`] without `CAP_SYS_ADMIN` in the initial user namespace, and
    /// `EINVAL` of fanotify_mark(2) for a filesystem about which nobody can be asked: procfs.
    pub fn of(clone: OwnedFd) -> Result<Self, SilentErrorKind> {
        let group = new_listener(libc::O_RDONLY)?;
        let path = handle::proc_path(&clone);
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in a number");
        let add = libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT;
        let mask = libc::FAN_OPEN_PERM | libc::FAN_ONDIR;
        fanotify_mark(&group, add, mask, Target::Path(&path)).map_err(call("fanotify_mark"))?;
        let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(call("pipe2"))?;
        let denied = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&denied);
        let listener = std::thread::Builder::new()
            .spawn(move || listen(&group, &stopped, &slot))
            .map_err(|_| SilentErrorKind::Call("clone3", Errno::EAGAIN))?;
        Ok(Self {
            clone,
            denied,
            stop: Some(stop),
            listener: Some(listener),
        })
    }

    /// Opens a directory by its path below the mounted directory, `.` for that itself. Reading it
    /// makes no event and changes no time.
    ///
    /// # Errors
    ///
    /// The errno of openat(2); `ENOTSUP` if it was really opened, which whoever listens has heard.
    pub fn open(&mut self, path: &CStr) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&self.clone, path, flags, Mode::empty());
        match (opened, self.take_denied()) {
            (Err(_), Some(file)) => Ok(file),
            (Err(errno), None) => Err(errno),
            (Ok(_), _) => Err(Errno::ENOTSUP),
        }
    }

    /// Opens a handle with `O_PATH`, of an inode with this number. The working directory of the
    /// calling thread must be [`root`](Self::root).
    ///
    /// If the kernel has forgotten the name of a directory, it looks for it in the directory above,
    /// and so on up to one whose name it knows (`reconnect_path`). Each time that is denied, and
    /// what was to be read is read here instead; to look a name up makes it known again.
    ///
    /// # Errors
    ///
    /// The errno of open_by_handle_at(2); `ESTALE` if the name was not to be found.
    pub fn open_handle(&self, handle: &FileHandle, ino: u64) -> Result<OwnedFd, Errno> {
        let mut child = ino;
        // What hangs together but not with the root is forgotten once nobody holds it.
        let mut held = Vec::new();
        for _ in 0..MOST_DEPTH {
            let opened = handle::open_here(handle);
            let Some(folder) = self.take_denied() else {
                return opened;
            };
            let above = path::stat(&folder, c"")?.ino;
            held.push(make_known(folder, child)?);
            child = above;
        }
        Err(Errno::ESTALE)
    }

    /// What a file that was opened here is named where the mount is at `point`: the clone is mounted
    /// nowhere, so the kernel names what is in it from its root on.
    #[must_use]
    pub fn name_at(point: &[u8], name: Vec<u8>) -> Vec<u8> {
        match &name[..] {
            b"/" => point.to_vec(),
            [b'/', ..] => [point.strip_suffix(b"/").unwrap_or(point), &name].concat(),
            _ => name,
        }
    }

    fn take_denied(&self) -> Option<OwnedFd> {
        let denied = self.denied.lock();
        denied.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The mounted directory, as an `O_PATH` descriptor.
    #[must_use]
    pub fn root(&self) -> &OwnedFd {
        &self.clone
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(listener) = self.listener.take() {
            // A listener that panicked has closed its group, which lets everybody through.
            let _ = listener.join();
        }
    }
}

/// Looks up the name of an inode in a directory. The numbers that a directory shows are those that
/// the kernel goes by (`get_name`); where none fits, each name is looked up.
fn make_known(folder: OwnedFd, ino: u64) -> Result<OwnedFd, Errno> {
    let mut folder = Dir::from_fd(folder)?;
    let entries: Vec<_> = folder.iter().collect::<Result<_, _>>()?;
    let (shown, others): (Vec<_>, Vec<_>) = entries.iter().partition(|it| it.ino() == ino);
    let names = shown.iter().chain(&others).map(|entry| entry.file_name());
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut files = names
        .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
        .filter_map(|name| openat(&folder, name, flags, Mode::empty()).ok());
    files
        .find(|file| path::stat(file, c"").is_ok_and(|stat| stat.ino == ino))
        .ok_or(Errno::ESTALE)
}

/// Denies every opening and keeps what the kernel opened for us.
fn listen(group: &OwnedFd, stopped: &OwnedFd, slot: &Mutex<Option<OwnedFd>>) {
    loop {
        let mut polled = [
            PollFd::new(group.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match nix::poll::poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        if polled[1].any() == Some(true) {
            return;
        }
        let Ok(received) = read_event(group) else {
            continue;
        };
        let Some(file) = received.fd else { continue };
        let number = file.as_raw_fd();
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        // Whoever is not answered waits, so there is nothing else to be done about a failure.
        let _ = respond(group, number, Response::Deny);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use fsnotify::inotify::Mask;

    use super::*;
    use crate::sys::watch;

    #[test]
    fn a_watched_directory_is_read_without_an_event() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("watched")).unwrap();
        std::fs::write(folder.path().join("watched/file"), "").unwrap();
        let root = handle::open_path(folder.path()).unwrap();
        let folders = path::bare_tree(&root, c"")
            .map_err(|errno| SilentErrorKind::Call("open_tree", errno))
            .and_then(Folders::of);
        let mut folders = match folders {
            Ok(folders) => folders,
            Err(reason) => {
                eprintln!("skipped: {reason:?}");
                return;
            }
        };
        let group = watch::init().unwrap();
        for name in ["", "watched"] {
            let name = folder.path().join(name);
            let name = name.as_os_str().as_bytes();
            watch::add_watch(group.as_fd(), name, Mask::ALL_EVENTS).unwrap();
        }
        let watched = folders.open(c"watched").unwrap();
        let mut buffer = [0; 1024];
        let size = crate::sys::raw::getdents64(watched.as_raw_fd(), &mut buffer).unwrap();
        assert!(size > 0);
        drop(watched);
        assert_eq!(folders.open(c"nothing").unwrap_err(), Errno::ENOENT);
        drop(folders);
        assert_eq!(watch::unread(group.as_fd()), Ok(0));
    }
}
