//! A live group whose queue is taken and put back, undisturbed and disturbed.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use cr::queue::{Live, LiveWatch, Memory, PutBackError, Targets, Window, drain, put_back, take};
use cr::sys::watch;
use fsnotify::inotify::Mask;
use fsnotify::{Wd, fdinfo};
use libtest_mimic::{Completion, Failed, Trial};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::equal::difference;
use crate::random::Dice;
use crate::tree::Tree;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("the_next_wd_is_found_without_a_trace", next_wd),
        Trial::test(
            "a_live_group_is_the_same_after_its_queue_was_taken",
            undisturbed,
        ),
        Trial::test("an_empty_queue_is_not_put_back", empty),
        Trial::ignorable_test("a_live_group_may_have_more_watches_than_events", many),
    ]
}

/// What watches are on, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Open(pub(crate) HashMap<Wd, OwnedFd>);

impl Targets for Open {
    fn open(&mut self, wd: Wd) -> Result<Option<OwnedFd>, Errno> {
        let target = self.0.get(&wd).map(OwnedFd::try_clone).transpose();
        Ok(target.expect("a descriptor more"))
    }
}

/// A group with watches of many kinds, and unread events.
struct Busy {
    tree: Tree,
    targets: Open,
    watches: Vec<LiveWatch>,
}

impl Busy {
    fn new(seed: u64) -> Result<Self, Errno> {
        let dice = Dice::new(seed);
        let mut tree = Tree::new()?;
        for (below, mask) in [
            ("", 0xfff),
            ("a", 0x0400_0fff),
            ("b", 0x8000_0fff),
            ("a/c", 0x8000),
        ] {
            tree.watch_for(below, Mask(mask))?;
        }
        for _ in 0..40 {
            tree.step(&dice);
        }
        let mut live = Self {
            tree,
            targets: Open::default(),
            watches: Vec::new(),
        };
        live.find_targets()?;
        Ok(live)
    }

    /// What the watches are on, found by inode.
    fn find_targets(&mut self) -> Result<(), Errno> {
        let by_inode = self.tree.inodes()?;
        for watch in watches(&self.fdinfo()) {
            // A watch whose inode has no name is left out of the test by removing it.
            match by_inode.get(&(watch.sdev.0, watch.ino.0)) {
                Some(path) => {
                    let target = open(&path[..], OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
                    self.targets.0.insert(watch.wd, target);
                    self.watches.push(LiveWatch {
                        wd: watch.wd,
                        mask: watch.mask,
                    });
                }
                None => watch::rm_watch(self.tree.group(), watch.wd)?,
            }
        }
        Ok(())
    }

    fn put_back(&mut self, basket: &mut Memory) -> Result<Window, PutBackError> {
        let mut live = Live {
            group: self.tree.group.as_fd(),
            watches: &self.watches,
            targets: &mut self.targets,
            owner: None,
        };
        put_back(&mut live, basket).map(|done| done.window)
    }

    fn fdinfo(&self) -> String {
        let path = format!("/proc/self/fdinfo/{}", self.tree.group.as_raw_fd());
        std::fs::read_to_string(path).unwrap()
    }
}

fn watches(text: &str) -> Vec<fdinfo::Watch> {
    let group = fdinfo::Group::parse(text.as_bytes(), fdinfo::Level::Strict).unwrap();
    match group.body {
        fdinfo::Body::Inotify { watches } => watches,
        other => panic!("not an inotify group with watches: {other:?}"),
    }
}

fn expect(what: &str, difference: Option<String>) -> Result<(), Failed> {
    match difference {
        None => Ok(()),
        Some(difference) => Err(format!("{what}: {difference}").into()),
    }
}

fn next_wd() -> Result<(), Failed> {
    let group = watch::init()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_str().unwrap().as_bytes();
    for wanted in [1, 7, i32::MAX, 3] {
        let wanted = Wd::new(wanted).unwrap();
        cr::queue::cursor::set(group.as_fd(), wanted)?;
        let mut late = Vec::new();
        for _ in 0..2 {
            let found = cr::queue::cursor::probe(group.as_fd(), &mut late)?;
            assert_eq!((found, &late), (wanted, &Vec::new()));
        }
        assert!(drain(group.as_fd())?.is_empty());
        assert_eq!(watch::add_watch(group.as_fd(), path, Mask(0x2))?, wanted);
        watch::rm_watch(group.as_fd(), wanted)?;
        drain(group.as_fd())?;
    }
    Ok(())
}

fn undisturbed() -> Result<(), Failed> {
    for seed in 0..20 {
        let mut live = Busy::new(seed)?;
        let before = live.fdinfo();
        let mut basket = Memory::default();
        let taken = take(live.tree.group(), &mut basket, None)?;
        let window = live.put_back(&mut basket)?;
        let group = live.tree.group();
        if window != Window::Quiet {
            return Err(format!("seed {seed}: nothing happened, yet {window:?}").into());
        }
        if before != live.fdinfo() {
            return Err(format!("seed {seed}: {before} became {}", live.fdinfo()).into());
        }
        expect(
            &format!("seed {seed}"),
            difference(&taken.queue, &drain(group)?),
        )?;
        let next_wd = cr::queue::cursor::probe(group, &mut Vec::new());
        assert_eq!(next_wd, taken.next_wd, "seed {seed}");
        // Removed while open: the targets must be closed for the end of a watch to come.
        let n_watches = live.watches.len();
        assert!(
            seed > 0 || n_watches > 2,
            "{n_watches} watches are too few to say something"
        );
    }
    Ok(())
}

/// Watches of which nothing is known stay as they are.
fn empty() -> Result<(), Failed> {
    let file = tempfile::tempfile()?;
    let group = watch::init()?;
    let wd = watch::add_watch_on(group.as_fd(), &file, Mask(libc::IN_ATTRIB))?;
    let mut basket = Memory::default();
    let taken = take(group.as_fd(), &mut basket, None)?;
    assert_eq!(
        (taken.queue.len(), taken.next_wd.map(Wd::number)),
        (0, Ok(2))
    );
    let mut live = Live {
        group: group.as_fd(),
        watches: &[],
        targets: &mut Open::default(),
        owner: None,
    };
    assert_eq!(put_back(&mut live, &mut basket)?.window, Window::Quiet);
    watch::rm_watch(group.as_fd(), wd)?;
    Ok(())
}

/// Paths of what watches are on.
#[derive(Debug, Default)]
struct Paths(HashMap<Wd, PathBuf>);

impl Targets for Paths {
    fn open(&mut self, wd: Wd) -> Result<Option<OwnedFd>, Errno> {
        open(&self.0[&wd], OFlag::O_PATH, Mode::empty()).map(Some)
    }
}

/// The ends of as many watches would overflow the queue, were they not read in between.
fn many() -> Result<Completion, Failed> {
    let n_watches = cr::queue::limit()? + 100;
    let directory = tempfile::tempdir()?;
    let group = watch::init()?;
    let group = group.as_fd();
    let mask = Mask(libc::IN_ATTRIB);
    let mut paths = Paths::default();
    let mut watches = Vec::new();
    for n in 0..n_watches {
        let path = directory.path().join(n.to_string());
        std::fs::write(&path, "")?;
        match watch::add_watch(group, path.as_os_str().as_bytes(), mask) {
            Ok(wd) => {
                watches.push(LiveWatch { wd, mask });
                paths.0.insert(wd, path);
            }
            Err(errno @ Errno::ENOSPC) => {
                return Ok(Completion::ignored_with(format!(
                    "inotify_add_watch: {errno}"
                )));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    let path = directory.path().join("0");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    watches.reverse();
    let fdinfo = format!("/proc/self/fdinfo/{}", group.as_raw_fd());
    let info = std::fs::read(&fdinfo)?;
    let mut basket = Memory::default();
    take(group, &mut basket, None)?;
    let mut live = Live {
        group,
        watches: &watches,
        targets: &mut paths,
        owner: None,
    };
    let window = put_back(&mut live, &mut basket)?.window;
    // A group of ours with as many watches listened.
    assert_eq!(window, Window::Quiet, "of {n_watches} watches");
    assert!(std::fs::read(&fdinfo)? == info, "fdinfo is another");
    assert_eq!(drain(group)?.len(), 16);
    Ok(Completion::Completed)
}
