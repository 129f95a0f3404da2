//! Who is sent a signal for each event of a group (`F_SETOWN` and `O_ASYNC`). Of the events that a dumper
//! makes he is not to hear, so he is taken away for as long; for what others did meanwhile he is sent a
//! signal all the same.

use std::os::fd::BorrowedFd;

use fsnotify::Wd;
use nix::errno::Errno;
use nix::unistd::Pid;

use super::cursor::Probe;
use super::drain;
use crate::process;
use crate::sys::descriptor::set_owner;

/// As `F_GETOWN_EX` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: i32,
    pub pid: i32,
    /// When he began: later, another may have his number. 0 of one who is gone already.
    pub began: u64,
}

impl Owner {
    /// Who has that number now.
    #[must_use]
    pub fn now(kind: i32, pid: i32) -> Self {
        let began = process::began(Pid::from_raw(pid)).unwrap_or(0);
        Self { kind, pid, began }
    }

    /// Takes him away.
    pub(super) fn hush(group: BorrowedFd<'_>) -> Result<(), Errno> {
        set_owner(group, 0, 0)
    }

    /// Gives the group its owner again. One that is gone is told nothing, nor is who has his number.
    ///
    /// # Errors
    ///
    /// The errno of fcntl(2).
    pub fn give_back(self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        let now = Self::now(self.kind, self.pid);
        // A group may outlive the process whose number it has.
        if now.began != self.began && now.began != 0 {
            return Ok(());
        }
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::{inspect, watch};

    #[test]
    fn who_has_the_number_of_an_owner_is_not_taken_for_him() {
        let group = watch::init().unwrap();
        let owner = Owner::now(1, Pid::this().as_raw());
        assert!(owner.began > 0);
        let began = owner.began - 1;
        Owner { began, ..owner }.give_back(group.as_fd()).unwrap();
        assert_eq!(inspect::owner(&group), Ok(None));
        owner.give_back(group.as_fd()).unwrap();
        let found = inspect::owner(&group);
        assert_eq!(found, Ok(Some(inspect::Owner::Process(owner.pid))));
    }
}
