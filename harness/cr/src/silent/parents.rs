//! Which directory a file is in that has no name any more. The text of its link in /proc does not
//! tell apart two directories that had one path after the other.
//!
//! A mark on a directory hears of what is in it, names or not. So one listener is asked about the
//! directory and another about the file, and whichever comes first denies the opening: nobody else
//! hears of it. Listeners of one class are asked in an order of the kernel's choosing that stays
//! the same for the two (`fsnotify_compare_groups`); a file of our own shows it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{LIMIT, SilentErrorKind, answer, call, new_listener};
use crate::sys::fanotify::{
    Opener, Response, Target, fanotify_mark, flush, open_elsewhere, read_event,
};
use crate::sys::handle;

/// Two listeners, of which the first is asked first.
#[derive(Debug)]
pub struct Parents {
    first: OwnedFd,
    second: OwnedFd,
}

impl Parents {
    /// # Errors
    ///
    /// [`SilentErrorKind::NotPermitted`] without `CAP_SYS_ADMIN` in the initial user namespace.
    pub fn new() -> Result<Self, SilentErrorKind> {
        let (first, second) = (new_listener(libc::O_RDONLY)?, new_listener(libc::O_RDONLY)?);
        let file = memfd_create(c"order", MFdFlags::MFD_CLOEXEC).map_err(call("memfd_create"))?;
        let path = path_of(&file);
        for group in [&first, &second] {
            mark(group, libc::FAN_OPEN_PERM, &path)?;
        }
        let in_order = who_is_asked(&path, [&first, &second])? == 0;
        for group in [&first, &second] {
            flush(group).map_err(call("fanotify_mark"))?;
        }
        let (first, second) = if in_order {
            (first, second)
        } else {
            (second, first)
        };
        Ok(Self { first, second })
    }

    /// Whether a regular file is in a directory. Both may be reached by descriptors with `O_PATH`.
    ///
    /// # Errors
    ///
    /// [`SilentErrorKind`]; nothing has been opened then, and nobody has heard of it.
    pub fn is_in(&self, file: impl AsFd, directory: impl AsFd) -> Result<bool, SilentErrorKind> {
        let (file, directory) = (path_of(file), path_of(directory));
        let on_child = libc::FAN_OPEN_PERM | libc::FAN_EVENT_ON_CHILD;
        let asked = mark(&self.first, on_child, &directory)
            .and_then(|()| mark(&self.second, libc::FAN_OPEN_PERM, &file))
            .and_then(|()| who_is_asked(&file, [&self.first, &self.second]));
        for group in [&self.first, &self.second] {
            flush(group).map_err(call("fanotify_mark"))?;
        }
        Ok(asked? == 0)
    }
}

fn path_of(file: impl AsFd) -> CString {
    let path = handle::proc_path(file);
    CString::new(path.as_os_str().as_bytes()).expect("no NUL in a number")
}

fn mark(group: &OwnedFd, mask: u64, path: &CStr) -> Result<(), SilentErrorKind> {
    fanotify_mark(group, libc::FAN_MARK_ADD, mask, Target::Path(path))
        .map_err(call("fanotify_mark"))
}

/// Has a process try to open the file, and denies it: which listener was asked.
fn who_is_asked(path: &CStr, groups: [&OwnedFd; 2]) -> Result<usize, SilentErrorKind> {
    let opener = open_elsewhere(path, libc::O_RDONLY | libc::O_CLOEXEC).map_err(call("clone3"))?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).map_err(|_| SilentErrorKind::Blocked)?;
        let mut polled = [
            PollFd::new(groups[0].as_fd(), PollFlags::POLLIN),
            PollFd::new(groups[1].as_fd(), PollFlags::POLLIN),
            PollFd::new(opener.as_fd(), PollFlags::POLLIN),
        ];
        match nix::poll::poll(&mut polled, timeout) {
            Ok(0) => return Err(SilentErrorKind::Blocked),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(SilentErrorKind::Call("poll", errno)),
        }
        let ended = polled[2].any() == Some(true);
        for (index, group) in groups.into_iter().enumerate() {
            if polled[index].any() == Some(true) && is_asked(group, &opener)? {
                return Ok(index);
            }
        }
        if ended {
            return Err(SilentErrorKind::Unsupported);
        }
    }
}

/// Whether the listener's next event is of our opener, which is denied; all others are let through.
fn is_asked(group: &OwnedFd, opener: &Opener) -> Result<bool, SilentErrorKind> {
    let received = match read_event(group) {
        Ok(received) => received,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
        Err(errno) => return Err(SilentErrorKind::Call("read of the event", errno)),
    };
    let Some(event) = received.fd else {
        return Ok(false);
    };
    let is_ours = received.pid == opener.pid();
    let response = if is_ours {
        Response::Deny
    } else {
        Response::Allow
    };
    answer(group, &event, response)?;
    Ok(is_ours)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use fsnotify::inotify::Mask;

    use super::*;
    use crate::sys::watch;

    #[test]
    fn a_removed_file_is_in_the_directory_that_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("d"), folder.path().join("e"));
        fs::create_dir(&old).unwrap();
        fs::create_dir(&new).unwrap();
        let before = handle::open_path(&old).unwrap();
        let mut files = Vec::new();
        for n in 0..8 {
            let name = old.join(n.to_string());
            files.push(File::create(&name).unwrap());
            fs::remove_file(name).unwrap();
        }
        fs::rename(&new, &old).unwrap();
        let after = handle::open_path(&old).unwrap();
        let other = File::create(old.join("other")).unwrap();
        fs::remove_file(old.join("other")).unwrap();
        let group = watch::init().unwrap();
        for file in files.iter().chain([&other]) {
            watch::add_watch_on(group.as_fd(), file, Mask::ALL_EVENTS).unwrap();
        }
        for directory in [&before, &after] {
            watch::add_watch_on(group.as_fd(), directory, Mask::ALL_EVENTS).unwrap();
        }
        // Whichever listener the kernel prefers, the answer is the same.
        for _ in 0..4 {
            let parents = match Parents::new() {
                Ok(parents) => parents,
                Err(reason) => {
                    eprintln!("skipped: {reason:?}");
                    return;
                }
            };
            for file in &files {
                assert_eq!(parents.is_in(file, &before), Ok(true));
                assert_eq!(parents.is_in(file, &after), Ok(false));
            }
            assert_eq!(parents.is_in(&other, &before), Ok(false));
            assert_eq!(parents.is_in(&other, &after), Ok(true));
        }
        assert_eq!(watch::unread(group.as_fd()), Ok(0));
    }
}
