//! A live group whose queue is taken and put back, undisturbed and disturbed.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use cr::LossKind;
use cr::queue::{Basket, LiveWatch, Memory, Phase, Window, drain, put_back, take};
use cr::sys::watch;
use fsnotify::inotify::Mask;
use fsnotify::{Wd, fdinfo};
use libtest_mimic::{Completion, Failed, Trial};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fchmod};

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
        Trial::test(
            "an_event_in_the_window_is_declared_and_one_before_it_is_kept",
            disturbed,
        ),
        Trial::test("an_empty_queue_is_not_put_back", empty),
        Trial::ignorable_test("a_live_group_may_have_more_watches_than_events", many),
    ]
}

/// A group with watches of many kinds, and unread events.
struct Live {
    tree: Tree,
    targets: Vec<OwnedFd>,
    watches: Vec<(Wd, Mask)>,
}

impl Live {
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
            targets: Vec::new(),
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
                    self.targets.push(target);
                    self.watches.push((watch.wd, watch.mask));
                }
                None => watch::rm_watch(self.tree.group(), watch.wd)?,
            }
        }
        Ok(())
    }

    fn watches(&self) -> Vec<LiveWatch<'_>> {
        let watches = self.watches.iter().zip(&self.targets);
        watches
            .map(|(&(wd, mask), target)| LiveWatch {
                wd,
                mask,
                target: target.as_fd(),
            })
            .collect()
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
        let live = Live::new(seed)?;
        let group = live.tree.group();
        let before = live.fdinfo();
        let mut basket = Memory::default();
        let taken = take(group, &mut basket)?;
        let window = put_back(group, &live.watches(), &mut basket)?;
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

/// Does something to a watched file when a phase begins.
struct Disturbance<'a> {
    basket: Memory,
    at: Phase,
    file: &'a OwnedFd,
}

impl Basket for Disturbance<'_> {
    fn room(&mut self, size: usize) -> Result<&mut [u8], Errno> {
        self.basket.room(size)
    }

    fn add(&mut self, size: usize) {
        self.basket.add(size);
    }

    fn bytes(&self) -> &[u8] {
        self.basket.bytes()
    }

    fn enter(&mut self, phase: Phase) {
        if phase == self.at {
            fchmod(self.file, Mode::S_IRWXU).unwrap();
        }
        self.basket.enter(phase);
    }

    fn began(&self, phase: Phase) -> usize {
        self.basket.began(phase)
    }

    fn set_next_wd(&mut self, wd: Wd) {
        self.basket.set_next_wd(wd);
    }

    fn next_wd(&self) -> Option<Wd> {
        self.basket.next_wd()
    }

    fn set_final(&mut self, queue: &[u8], watches: &[Wd]) -> Result<(), Errno> {
        self.basket.set_final(queue, watches)
    }
}

fn disturbed() -> Result<(), Failed> {
    let phases = [
        Phase::Draining,
        Phase::Probing,
        Phase::Stripping,
        Phase::Rebuilding,
    ];
    for at in phases.into_iter().chain([Phase::Attaching]) {
        let file: OwnedFd = tempfile::tempfile()?.into();
        let group = watch::init()?;
        let group = group.as_fd();
        let mask = Mask(libc::IN_ATTRIB | libc::IN_MODIFY);
        let wd = watch::add_watch_on(group, &file, mask)?;
        nix::unistd::write(&file, b"x")?;
        let watches = [LiveWatch {
            wd,
            mask,
            target: file.as_fd(),
        }];
        let basket = Memory::default();
        let mut basket = Disturbance {
            basket,
            at,
            file: &file,
        };
        take(group, &mut basket)?;
        let window = put_back(group, &watches, &mut basket)?;
        let queue = drain(group)?;
        let kinds: Vec<u32> = crate::equal::events(&queue)
            .iter()
            .map(|it| it.mask)
            .collect();
        let expected = if at <= Phase::Stripping {
            // The watch was on, so the event is kept.
            (Window::Quiet, vec![libc::IN_MODIFY, libc::IN_ATTRIB])
        } else {
            (Window::Heard { n_events: 1 }, vec![libc::IN_MODIFY])
        };
        if (window, &kinds) != (expected.0, &expected.1) {
            return Err(format!("{at:?}: {window:?} {kinds:x?}, not {expected:x?}").into());
        }
        let declared = window.loss("fd 3").map(|loss| loss.kind);
        let is_heard = window != Window::Quiet;
        assert_eq!(declared, is_heard.then_some(Ok(LossKind::WindowHeard)));
    }
    Ok(())
}

/// Watches of which nothing is known stay as they are.
fn empty() -> Result<(), Failed> {
    let file = tempfile::tempfile()?;
    let group = watch::init()?;
    let wd = watch::add_watch_on(group.as_fd(), &file, Mask(libc::IN_ATTRIB))?;
    let mut basket = Memory::default();
    let taken = take(group.as_fd(), &mut basket)?;
    assert_eq!(
        (taken.queue.len(), taken.next_wd.map(Wd::number)),
        (0, Ok(2))
    );
    assert_eq!(put_back(group.as_fd(), &[], &mut basket)?, Window::Quiet);
    watch::rm_watch(group.as_fd(), wd)?;
    Ok(())
}

/// The ends of as many watches would overflow the queue, were they not read in between.
fn many() -> Result<Completion, Failed> {
    let n_watches = cr::queue::limit()? + 100;
    let (_, hard) = cr::sys::descriptor::raise_file_limit()?;
    if hard < u64::try_from(n_watches)? + 100 {
        return Ok(Completion::ignored_with(format!(
            "{hard} descriptors at most"
        )));
    }
    let directory = tempfile::tempdir()?;
    let group = watch::init()?;
    let group = group.as_fd();
    let mut targets = Vec::new();
    for n in 0..n_watches {
        let path = directory.path().join(n.to_string());
        std::fs::write(&path, "")?;
        let target = open(&path, OFlag::O_PATH, Mode::empty())?;
        let mask = Mask(libc::IN_ATTRIB);
        match watch::add_watch_on(group, &target, mask) {
            Ok(wd) => targets.push((wd, mask, target)),
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
    let watches: Vec<LiveWatch<'_>> = targets
        .iter()
        .rev()
        .map(|(wd, mask, target)| LiveWatch {
            wd: *wd,
            mask: *mask,
            target: target.as_fd(),
        })
        .collect();
    let fdinfo = format!("/proc/self/fdinfo/{}", group.as_raw_fd());
    let info = std::fs::read(&fdinfo)?;
    let mut basket = Memory::default();
    take(group, &mut basket)?;
    let window = put_back(group, &watches, &mut basket)?;
    // A group of ours with as many watches listened.
    assert_eq!(window, Window::Quiet, "of {n_watches} watches");
    assert!(std::fs::read(&fdinfo)? == info, "fdinfo is another");
    assert_eq!(drain(group)?.len(), 16);
    Ok(Completion::Completed)
}
