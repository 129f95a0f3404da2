//! A real tree on a filesystem of its own, a group that watches it, and random operations there.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use cr::queue::drain;
use cr::sys::{tmpfs, watch};
use fsnotify::Wd;
use fsnotify::inotify::Mask;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, major, minor, mkdirat, mknodat, stat};
use nix::unistd::{UnlinkatFlags, ftruncate, linkat, read, unlinkat, write};

use crate::random::Dice;

const DIRS: [&str; 4] = ["", "a/", "b/", "a/c/"];
const NAMES: [&str; 6] = ["x", "y", "z", "longer-than-sixteen-bytes", "d", "\u{e9}"];

pub(crate) struct Tree {
    root: OwnedFd,
    pub(crate) group: OwnedFd,
    /// Filesystems that are unmounted in the course of it.
    others: Vec<OwnedFd>,
    open: Vec<OwnedFd>,
}

impl Tree {
    pub(crate) fn new() -> Result<Self, Errno> {
        let root = tmpfs::detached()?;
        for dir in ["a", "b", "a/c"] {
            mkdirat(&root, dir, Mode::S_IRWXU)?;
        }
        let group = watch::init()?;
        Ok(Self {
            root,
            group,
            others: Vec::new(),
            open: Vec::new(),
        })
    }

    pub(crate) fn group(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }

    /// A path that every process has to what is below the root.
    fn path(&self, below: &str) -> Vec<u8> {
        format!("/proc/self/fd/{}/{below}", self.root.as_raw_fd()).into_bytes()
    }

    /// Watches with everything selected, or one kind left out.
    pub(crate) fn watch(&self, below: &str, dice: &Dice) -> Result<Wd, Errno> {
        let mut mask = 0xfff;
        if dice.one_in(3) {
            mask &= !(1 << dice.roll(12));
        }
        self.watch_for(below, Mask(mask))
    }

    pub(crate) fn watch_for(&self, below: &str, mask: Mask) -> Result<Wd, Errno> {
        watch::add_watch(self.group(), &self.path(below), mask)
    }

    /// A path to each inode that has one, by device as fdinfo prints it and number.
    pub(crate) fn inodes(&self) -> Result<HashMap<(u32, u64), Vec<u8>>, Errno> {
        let names = DIRS
            .iter()
            .flat_map(|dir| NAMES.map(|name| format!("{dir}{name}")));
        let paths = names
            .chain(DIRS.map(str::to_owned))
            .map(|below| self.path(&below));
        let others = self.others.iter().flat_map(|other| {
            let root = format!("/proc/self/fd/{}/", other.as_raw_fd());
            [root.clone().into_bytes(), (root + "f").into_bytes()]
        });
        let mut inodes = HashMap::new();
        for path in paths.chain(others) {
            if let Ok(status) = stat(&path[..]) {
                // As the kernel keeps a device: 12 bits of major number, 20 of minor.
                let sdev = (major(status.st_dev) << 20) | minor(status.st_dev);
                inodes.insert((u32::try_from(sdev).unwrap(), status.st_ino), path);
            }
        }
        Ok(inodes)
    }

    /// Runs random operations and drains what they have made.
    pub(crate) fn random_queue(mut self, dice: &Dice, most: usize) -> Result<Vec<u8>, Errno> {
        for dir in DIRS {
            if dice.one_in(4) {
                self.set_next(1 + dice.roll(100));
            }
            if !dice.one_in(4) {
                self.watch(dir, dice)?;
            }
        }
        for _ in 0..dice.roll(most / 3) {
            self.step(dice);
        }
        if dice.one_in(30) {
            self.overflow(dice)?;
        }
        let mut queue = drain(self.group())?;
        // As after a read(2) that took the head.
        let n_events = crate::equal::events(&queue).len();
        if n_events > most {
            let overflow = queue.windows(8).position(|it| it == OVERFLOW);
            let from = overflow.unwrap_or(queue.len()).saturating_sub(2048);
            let whole = fsnotify::event::inotify::Events::new(&queue);
            let from = starts(whole).find(|at| *at >= from).unwrap_or(0);
            queue.drain(..from);
        }
        Ok(queue)
    }

    /// One random operation. Many fail, as names are there or are not; that is as well.
    pub(crate) fn step(&mut self, dice: &Dice) {
        let _ = self.try_step(dice);
    }

    fn try_step(&mut self, dice: &Dice) -> Result<(), Errno> {
        let path = random_path(dice);
        let other = random_path(dice);
        let root = &self.root;
        match dice.roll(26) {
            0..=2 => mknodat(root, &path[..], SFlag::S_IFREG, Mode::S_IRWXU, 0),
            3 => mkdirat(root, &path[..], Mode::S_IRWXU),
            4 | 5 => unlinkat(root, &path[..], UnlinkatFlags::NoRemoveDir),
            6 => unlinkat(root, &path[..], UnlinkatFlags::RemoveDir),
            7..=9 => renameat2(root, &path[..], root, &other[..], RenameFlags::empty()),
            10 => renameat2(
                root,
                &path[..],
                root,
                &other[..],
                RenameFlags::RENAME_EXCHANGE,
            ),
            11 => linkat(root, &path[..], root, &other[..], AtFlags::empty()),
            12..=14 => self.open(&path, dice),
            15 | 16 => self.use_open(dice),
            17 => {
                if !self.open.is_empty() {
                    self.open.swap_remove(dice.roll(self.open.len()));
                }
                Ok(())
            }
            18 => fchmodat(root, &path[..], Mode::S_IRWXU, FchmodatFlags::FollowSymlink),
            19 => {
                let path = std::ffi::CString::new(path).unwrap();
                tmpfs::open_to_execute(root.as_fd(), &path)
            }
            20 | 21 => self
                .watch(std::str::from_utf8(&path).unwrap(), dice)
                .map(drop),
            22 => {
                let wd = Wd::new(1 + i32::try_from(dice.roll(12)).unwrap()).unwrap();
                watch::rm_watch(self.group(), wd)
            }
            23 => self.mount(dice),
            24 => {
                if !self.others.is_empty() {
                    self.others.swap_remove(dice.roll(self.others.len()));
                }
                Ok(())
            }
            _ => {
                self.set_next(1 + dice.roll(20));
                Ok(())
            }
        }
    }

    fn set_next(&self, wd: usize) {
        let wd = Wd::new(i32::try_from(wd).unwrap()).unwrap();
        watch::set_next_wd(self.group(), wd).expect("INOTIFY_IOC_SETNEXTWD");
    }

    fn open(&mut self, path: &[u8], dice: &Dice) -> Result<(), Errno> {
        let flags = [
            OFlag::O_RDONLY,
            OFlag::O_RDWR,
            OFlag::O_WRONLY,
            OFlag::O_RDWR | OFlag::O_CREAT,
            OFlag::O_RDWR | OFlag::O_TRUNC,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        ];
        let flags = dice.pick(&flags) | OFlag::O_CLOEXEC;
        self.open
            .push(openat(&self.root, path, flags, Mode::S_IRWXU)?);
        Ok(())
    }

    fn use_open(&self, dice: &Dice) -> Result<(), Errno> {
        let Some(file) = self.open.get(dice.roll(self.open.len().max(1))) else {
            return Ok(());
        };
        match dice.roll(5) {
            0 | 1 => write(file, b"content").map(drop),
            2 => read(file, &mut [0; 4]).map(drop),
            3 => cr::sys::raw::getdents64(file.as_raw_fd(), &mut [0; 256]).map(drop),
            _ => {
                let set_ids = Mode::from_bits_truncate(0o6755);
                nix::sys::stat::fchmod(file, set_ids)?;
                tmpfs::without_fsetid(|| ftruncate(file, 0))
            }
        }
    }

    /// Watches a directory and a file of another filesystem.
    fn mount(&mut self, dice: &Dice) -> Result<(), Errno> {
        let other = tmpfs::detached()?;
        let file = openat(&other, "f", OFlag::O_CREAT | OFlag::O_RDWR, Mode::S_IRWXU)?;
        drop(file);
        let root = format!("/proc/self/fd/{}", other.as_raw_fd());
        for below in ["", "/f"] {
            if dice.one_in(2) {
                let path = format!("{root}{below}");
                watch::add_watch(self.group(), path.as_bytes(), Mask(0xfff))?;
            }
        }
        drop(File::open(format!("{root}/f")));
        self.others.push(other);
        Ok(())
    }

    /// Makes the queue overflow, reads some of it, and goes on.
    fn overflow(&mut self, dice: &Dice) -> Result<(), Errno> {
        let flood = openat(
            &self.root,
            "flood",
            OFlag::O_CREAT | OFlag::O_RDWR,
            Mode::S_IRWXU,
        )?;
        self.watch("flood", &Dice::new(0))?;
        for _ in 0..=cr::queue::limit().unwrap() / 2 {
            write(&flood, b"x")?;
            nix::sys::stat::fchmod(&flood, Mode::S_IRWXU)?;
        }
        // Room for the longest event at least: less is an error.
        let mut buffer = vec![0; 288 + 16 * dice.roll(1000)];
        watch::read(self.group(), &mut buffer)?;
        for _ in 0..dice.roll(100) {
            self.step(dice);
        }
        Ok(())
    }
}

/// wd and mask of an overflow event.
const OVERFLOW: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0x40, 0, 0];

/// Where events begin.
fn starts(mut events: fsnotify::event::inotify::Events<'_>) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = events.offset();
        events.next().map(|_| at)
    })
}

fn random_path(dice: &Dice) -> Vec<u8> {
    [dice.pick(&DIRS), dice.pick(&NAMES)].concat().into_bytes()
}
