//! What epoll sets wait for: registered under the numbers that were registered.

use std::os::fd::{BorrowedFd, RawFd};

use super::error::{Context, RestoreError};
use crate::image::{Epoll, Image, Inotify, Interest, Object};
use crate::queue;
use crate::queue::cursor::Probe;
use crate::sys::{descriptor, raw, watch};

/// Bits of an interest that are no event (`EP_PRIVATE_BITS`).
const NO_EVENTS: u32 = 0xf000_0000;

/// Descriptions and numbers of the process that registers.
pub(super) struct Numbers<'a> {
    pub(super) image: &'a Image,
    /// Where each description is staged.
    pub(super) staged: &'a [Option<RawFd>],
    /// Which description a number is now, and whether it is closed on exec.
    pub(super) placed: &'a dyn Fn(i32) -> Option<(u32, bool)>,
}

/// Registers everything that a set waits for.
///
/// One that has fired and waits to be armed again comes first, so that nothing else is in the set
/// when it has to fire once more; then those whose edge was reported already, which is taken once
/// more.
pub(super) fn register(
    set: RawFd,
    epoll: &Epoll,
    numbers: &Numbers<'_>,
) -> Result<(), RestoreError> {
    let (disarmed, armed): (Vec<&Interest>, Vec<&Interest>) = epoll
        .interests
        .iter()
        .partition(|interest| is_disarmed(interest));
    for interest in disarmed {
        match &numbers.image.files[interest.file as usize].object {
            Some(Object::Inotify(group)) => {
                let events = interest.events | libc::EPOLLIN.cast_unsigned();
                add(
                    set,
                    &Interest {
                        events,
                        ..*interest
                    },
                    numbers,
                )?;
                if let Some(staged) = numbers.staged[interest.file as usize] {
                    fire(set, descriptor::borrow(&staged), group)?;
                }
            }
            _ => add(set, interest, numbers)?,
        }
    }
    let (seen, unseen): (Vec<&Interest>, Vec<&Interest>) =
        armed.into_iter().partition(|interest| interest.seen);
    for interest in &seen {
        add(set, interest, numbers)?;
    }
    if !seen.is_empty() {
        // Nothing else in the set is ready yet.
        raw::epoll_poll(set, seen.len()).context("epoll_wait", "")?;
    }
    unseen
        .into_iter()
        .try_for_each(|interest| add(set, interest, numbers))
}

/// Whether an interest has `EPOLLONESHOT` and has fired. The kernel takes no such interest: it adds
/// `EPOLLERR` and `EPOLLHUP` to what is asked for.
pub(crate) const fn is_disarmed(interest: &Interest) -> bool {
    interest.events & !NO_EVENTS == 0
}

/// A number that now means another description is lent to the registered one for a moment: the
/// set remembers number and description together.
fn add(set: RawFd, interest: &Interest, numbers: &Numbers<'_>) -> Result<(), RestoreError> {
    let own = (numbers.placed)(interest.fd);
    let borrowed = own.is_none_or(|(file, _)| file != interest.file);
    if borrowed && let Some(staged) = numbers.staged[interest.file as usize] {
        raw::dup3(staged, interest.fd, libc::O_CLOEXEC).context("dup3", interest.fd.to_string())?;
    }
    let (fd, events, word) = (interest.fd, interest.events, interest.word);
    raw::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, events, word)
        .context("epoll_ctl", format!("fd {fd}"))?;
    if borrowed {
        let own = own.and_then(|(file, exec)| Some((numbers.staged[file as usize]?, exec)));
        match own {
            Some((own, true)) => raw::dup3(own, fd, libc::O_CLOEXEC),
            Some((own, false)) => raw::dup3(own, fd, 0),
            None => raw::close(fd),
        }
        .context("dup3", fd.to_string())?;
    }
    Ok(())
}

/// Makes a one-shot interest in a group fire: on its queue, or, if that is empty, on an event that
/// is made for it and read again.
fn fire(set: RawFd, group: BorrowedFd<'_>, state: &Inotify) -> Result<(), RestoreError> {
    let is_empty = watch::unread(group).context("FIONREAD", "")? == 0;
    if is_empty {
        Probe::new()
            .and_then(|probe| probe.find(group))
            .context("inotify_add_watch", "to make an event")?;
    }
    raw::epoll_poll(set, 1).context("epoll_wait", "")?;
    if is_empty {
        queue::drain(group).context("read", "")?;
        if let Some(wd) = state.next_wd.and_then(fsnotify::Wd::new) {
            watch::set_next_wd(group, wd).context("ioctl", "INOTIFY_IOC_SETNEXTWD")?;
        }
    }
    Ok(())
}
