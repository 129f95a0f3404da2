//! What epoll sets wait for: registered under the numbers that were registered.

use std::os::fd::RawFd;

use super::error::{Context, RestoreError};
use crate::image::Epoll;
use crate::sys::raw;

/// Registers everything that a set waits for. `numbers` are the staged numbers of all files;
/// `placed` tells which file a number of this process is now, and whether it is closed on
/// exec.
///
/// A number that now means another description is lent to the registered one for a moment: the
/// set remembers number and description together.
pub(super) fn register(
    set: RawFd,
    epoll: &Epoll,
    numbers: &[Option<RawFd>],
    placed: impl Fn(i32) -> Option<(u32, bool)>,
) -> Result<(), RestoreError> {
    for interest in &epoll.interests {
        let staged = numbers[interest.file as usize];
        let own = placed(interest.fd);
        let borrowed = own.is_none_or(|(file, _)| file != interest.file);
        if borrowed && let Some(staged) = staged {
            raw::dup3(staged, interest.fd, libc::O_CLOEXEC)
                .context("dup3", interest.fd.to_string())?;
        }
        let (fd, events, word) = (interest.fd, interest.events, interest.word);
        raw::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, events, word)
            .context("epoll_ctl", format!("fd {fd}"))?;
        if borrowed {
            let own = own.and_then(|(file, cloexec)| Some((numbers[file as usize]?, cloexec)));
            match own {
                Some((own, true)) => raw::dup3(own, fd, libc::O_CLOEXEC),
                Some((own, false)) => raw::dup3(own, fd, 0),
                None => raw::close(fd),
            }
            .context("dup3", fd.to_string())?;
        }
    }
    Ok(())
}
