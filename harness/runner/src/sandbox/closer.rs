//! Somebody else to close what takes the kernel long.
//!
//! Whoever closes the last descriptor of a group waits until no reader of its marks is left
//! (`fsnotify_destroy_group`), some milliseconds. A subject that is killed would wait for each of its
//! groups before it can be reaped. So init holds a duplicate of each while it kills, and gives them to
//! the process that it was forked from, which has nothing else to do: they end when they would have,
//! and nobody waits for them to be gone. What a group holds must not be missed meanwhile: an unread
//! event that is an open file keeps a ghost.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use cr::sys::pass;

/// Takes descriptors to close.
#[derive(Debug)]
pub struct Closer(UnixStream);

/// The process that closes them: its side.
#[derive(Debug)]
pub(super) struct Closing {
    line: UnixStream,
    files: Vec<OwnedFd>,
}

/// Both sides.
///
/// # Errors
///
/// As socketpair(2).
pub(super) fn pair() -> io::Result<(Closer, Closing)> {
    let (here, line) = UnixStream::pair()?;
    let files = Vec::new();
    Ok((Closer(here), Closing { line, files }))
}

impl Closer {
    /// Has these closed. They must not be open elsewhere in this process.
    ///
    /// # Errors
    ///
    /// If nobody is there to do it. They are closed then.
    pub fn close(&self, files: Vec<OwnedFd>) -> io::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        for some in files.chunks(pass::MOST) {
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            pass::send(&self.0, &some)?;
        }
        // Ours must not be the last ones.
        drop(files);
        Ok(pass::send(&self.0, &[])?)
    }
}

impl Closing {
    /// Does what was asked for last. False when nobody is there to ask any more.
    ///
    /// # Errors
    ///
    /// As recvmsg(2).
    pub(super) fn step(&mut self) -> io::Result<bool> {
        let Some(files) = pass::receive(&self.line)? else {
            return Ok(false);
        };
        if files.is_empty() {
            self.files.clear();
        }
        self.files.extend(files);
        Ok(true)
    }
}

impl AsFd for Closing {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.line.as_fd()
    }
}
