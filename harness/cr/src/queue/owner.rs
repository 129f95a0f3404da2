//! Who is sent a signal for each event of a group (`F_SETOWN` and `O_ASYNC`). Of the events that a dumper
//! makes he is not to hear, so he is taken away for as long; for what others did meanwhile he is sent a
//! signal all the same.

use std::os::fd::BorrowedFd;

use fsnotify::Wd;
use nix::errno::Errno;

use super::cursor::Probe;
use super::drain;
use crate::sys::descriptor::set_owner;

/// As `F_GETOWN_EX` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: i32,
    pub pid: i32,
}

impl Owner {
    /// Takes him away.
    pub(super) fn hush(group: BorrowedFd<'_>) -> Result<(), Errno> {
        set_owner(group, 0, 0)
    }

    /// Gives the group its owner again. One that is gone is told nothing.
    ///
    /// # Errors
    ///
    /// The errno of fcntl(2).
    pub fn give_back(self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        match set_owner(group, self.kind, self.pid) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Has the kernel send him the signal of an event (`kill_fasync`). The group must be empty and
    /// have no watch.
    pub(super) fn signal(self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        self.give_back(group)?;
        let wd = Wd::new(i32::MAX).expect("positive");
        Probe::new()?.end(group, wd)?;
        Self::hush(group)?;
        drain(group).map(drop)
    }
}
