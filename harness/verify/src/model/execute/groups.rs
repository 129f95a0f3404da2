//! Calls on groups.

use scenario::call::ioctl;
use scenario::{Event, Step};

use super::super::group::{Added, Group};
use super::walk::Last;
use super::{Done, EAGAIN, EBADF, EEXIST, EINVAL, ENOTDIR, ENOTTY, Model, Opened, Stop};

/// `ALL_INOTIFY_BITS`.
const INOTIFY_BITS: u32 = 0xf700_efff;
const IN_ONLYDIR: u32 = 0x0100_0000;
const IN_DONT_FOLLOW: u32 = 0x0200_0000;
const IN_MASK_CREATE: u32 = 0x1000_0000;
const IN_MASK_ADD: u32 = 0x2000_0000;

impl Model {
    /// Whether the descriptor that is read from is a group of fanotify.
    pub(super) fn is_fanotify(&self, step: &Step) -> Done<bool> {
        let file = self.opened(step, 0)?;
        Ok(self.files[file].what == Opened::Fanotify)
    }

    /// A group that does not report handles keeps the file of each unread event open, and watches
    /// of inotify hear when that ends: from then on the model knows nothing of the end of a file.
    pub(super) fn fanotify_init(&mut self, step: &Step) -> Done {
        const REPORT_FID: u64 = 0x200;
        self.keeps_files |= step.flags(0) & REPORT_FID == 0;
        self.install(step, Opened::Fanotify, 2)
    }

    pub(super) fn inotify_init(&mut self, step: &Step) -> Done {
        self.groups
            .push(Some(Group::new(self.settings.max_queued_events)));
        self.install(step, Opened::Group(self.groups.len() - 1), 0)
    }

    pub(super) fn inotify_add_watch(&mut self, step: &Step) -> Done {
        let mask = u32::try_from(step.flags(2)).map_err(|_| EINVAL)?;
        if mask & !INOTIFY_BITS != 0 || mask & INOTIFY_BITS == 0 {
            return Err(EINVAL);
        }
        let file = self.opened(step, 0)?;
        if self.is_path_only(file) {
            return Err(EBADF);
        }
        if mask & IN_MASK_ADD != 0 && mask & IN_MASK_CREATE != 0 {
            return Err(EINVAL);
        }
        let Opened::Group(group) = self.files[file].what else {
            return Err(EINVAL);
        };
        let keep = mask & IN_DONT_FOLLOW != 0;
        let last = if keep { Last::Keep } else { Last::Follow };
        let dentry = self.lookup(step, None, 1, last)?;
        if mask & IN_ONLYDIR != 0 && !self.tree.is_directory(dentry) {
            return Err(ENOTDIR);
        }
        let inode = self.tree.inode_of(dentry);
        match self.group(group).add(inode, mask) {
            Added::Wd(wd) => Ok(wd.into()),
            Added::Exists => Err(EEXIST),
        }
    }

    pub(super) fn inotify_rm_watch(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        if self.is_path_only(file) {
            return Err(EBADF);
        }
        let Opened::Group(group) = self.files[file].what else {
            return Err(EINVAL);
        };
        let wd = i32::try_from(self.number(step, 1)?).map_err(|_| EINVAL)?;
        if self.group(group).remove(wd) {
            Ok(0)
        } else {
            Err(EINVAL)
        }
    }

    pub(super) fn ioctl(&mut self, step: &Step) -> Done {
        let file = self.opened(step, 0)?;
        match (step.flags(1), self.files[file].what) {
            (ioctl::INOTIFY_SETNEXTWD, Opened::Group(group)) => {
                let wd = i32::try_from(step.int(2))
                    .ok()
                    .filter(|wd| *wd >= 1)
                    .ok_or(EINVAL)?;
                self.group(group).set_next_wd(wd);
                Ok(0)
            }
            (ioctl::INOTIFY_SETNEXTWD, Opened::Dentry(_)) => {
                self.dentry_of(file)?;
                Err(ENOTTY)
            }
            (ioctl::FIONREAD, Opened::Group(group)) => {
                let n_unread = self.group(group).n_unread();
                Ok(i64::try_from(n_unread).expect("a queue is short"))
            }
            _ => Err(Stop::Beyond("this request")),
        }
    }

    /// Without a limit, as many reads as there is something to read; with one, one read.
    pub(super) fn read_group(
        &mut self,
        group: usize,
        limit: Option<u64>,
        events: &mut Vec<Event>,
    ) -> Done {
        let limit = limit.map(|limit| usize::try_from(limit).expect("64 bits"));
        let mut n_read = 0;
        while let Some(next) = self.group(group).front() {
            let n_bytes = next.n_bytes();
            if limit.is_some_and(|limit| n_read + n_bytes > limit) {
                break;
            }
            n_read += n_bytes;
            let event = self.pop(group).expect("there is a first one");
            let event = self.named(event, None);
            events.push(event);
        }
        let is_left = self.group(group).front().is_some();
        match (n_read, limit) {
            // `copy_event_to_user` is not reached: the buffer cannot hold the first event.
            (0, Some(_)) if is_left => Err(EINVAL),
            (0, Some(_)) => Err(EAGAIN),
            _ => Ok(i64::try_from(n_read).expect("a queue is short")),
        }
    }

    fn group(&mut self, group: usize) -> &mut Group {
        self.groups[group]
            .as_mut()
            .expect("an open file keeps its group")
    }
}

#[cfg(test)]
mod tests {
    use fsnotify::inotify::Mask;

    #[test]
    fn inotify_takes_the_bits_that_have_names() {
        let named: u32 = (0..32)
            .map(|bit| 1 << bit)
            .filter(|bit| Mask(*bit).to_string().starts_with("IN_"))
            .fold(0, |all, bit| all | bit);
        assert_eq!(named, super::INOTIFY_BITS);
    }
}
