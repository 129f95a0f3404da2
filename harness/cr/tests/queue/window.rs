//! Others are busy while the queue of a live group is taken and put back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use cr::LossKind;
use cr::queue::{
    Basket, Live, LiveWatch, Memory, Owner, Phase, PutBackError, Targets, Window, drain, put_back,
    take,
};
use cr::sys::watch;
use fsnotify::Wd;
use fsnotify::inotify::Mask;
use libtest_mimic::{Completion, Failed, Trial};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use tempfile::TempDir;

use crate::equal::events;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "an_event_in_the_window_is_declared_and_one_before_it_is_kept",
            disturbed,
        ),
        Trial::test("what_comes_late_merges_with_the_tail", merging),
        Trial::test("what_comes_late_to_a_full_queue_is_dropped", overflowing),
        Trial::test("what_is_lost_is_not_found_in_the_old_tail", repeated),
        Trial::test("what_a_part_of_the_sentinel_hears_is_no_loss", early),
        Trial::test("a_watch_that_ends_in_the_window_is_told_of", ending),
        Trial::test("a_one_shot_watch_that_fires_late_is_not_made_again", firing),
        Trial::test("an_owner_is_told_of_others_and_not_of_the_dumper", signals),
        Trial::test("a_target_that_cannot_be_opened_costs_no_other_watch", short),
        Trial::ignorable_test("a_group_of_another_limit_keeps_its_queue", other_limit),
    ]
}

const MODIFY: u32 = libc::IN_MODIFY;
const ATTRIB: u32 = libc::IN_ATTRIB;
const IGNORED: u32 = libc::IN_IGNORED;
const OVERFLOW: u32 = libc::IN_Q_OVERFLOW;

/// A group that watches files.
struct World {
    folder: TempDir,
    group: OwnedFd,
    /// The newest first.
    watches: Vec<LiveWatch>,
    owner: Option<Owner>,
    /// Of the last time.
    overflow_added: Cell<bool>,
}

impl World {
    fn new(n_files: usize, mask: u32) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let group = watch::init()?;
        let mut watches = Vec::new();
        for n in 0..n_files {
            let path = folder.path().join(n.to_string());
            fs::write(&path, "")?;
            let file = File::open(&path)?;
            let mask = Mask(mask);
            let wd = watch::add_watch_on(group.as_fd(), &file, mask)?;
            watches.insert(0, LiveWatch { wd, mask });
        }
        Ok(Self {
            folder,
            group,
            watches,
            owner: None,
            overflow_added: Cell::new(false),
        })
    }

    fn path(&self, n: usize) -> PathBuf {
        self.folder.path().join(n.to_string())
    }

    fn modify(&self, n: usize) {
        fs::write(self.path(n), "x").unwrap();
    }

    fn chmod(&self, n: usize) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path(n), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Takes the queue and puts it back; `others` is called when a phase begins and when the target
    /// of a watch was opened.
    fn go(&self, mut others: impl FnMut(Moment)) -> Result<Window, PutBackError> {
        self.go_with(|moment| {
            others(moment);
            Ok(())
        })
    }

    /// `others` may say that a target cannot be opened.
    fn go_with(
        &self,
        mut others: impl FnMut(Moment) -> Result<(), Errno>,
    ) -> Result<Window, PutBackError> {
        let others: RefCell<&mut Others<'_>> = RefCell::new(&mut others);
        let mut basket = Watched {
            basket: Memory::default(),
            others: &others,
        };
        let paths = (0..self.watches.len()).map(|n| (wd(n), self.path(n)));
        let mut targets = Named {
            paths: paths.collect(),
            n_opened: HashMap::new(),
            others: &others,
        };
        let mut live = Live {
            group: self.group.as_fd(),
            watches: &self.watches,
            targets: &mut targets,
            owner: self.owner,
        };
        take(live.group, &mut basket, self.owner).unwrap();
        let put_back = put_back(&mut live, &mut basket)?;
        self.overflow_added.set(put_back.overflow_added);
        Ok(put_back.window)
    }

    fn group(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }

    /// Wd and mask of what is unread.
    fn queue(&self) -> Vec<(i32, u32)> {
        let queue = drain(self.group()).unwrap();
        events(&queue).iter().map(|it| (it.wd, it.mask)).collect()
    }
}

fn wd(n: usize) -> Wd {
    Wd::new(i32::try_from(n).unwrap() + 1).unwrap()
}

/// When others do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Phase(Phase),
    /// Before the file is opened for the nth time: to be listened to, and to be watched again.
    Opens(usize, usize),
}

type Others<'a> = dyn FnMut(Moment) -> Result<(), Errno> + 'a;
type Shared<'a> = RefCell<&'a mut Others<'a>>;

struct Watched<'a> {
    basket: Memory,
    others: &'a Shared<'a>,
}

impl Basket for Watched<'_> {
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
        (self.others.borrow_mut())(Moment::Phase(phase)).unwrap();
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

struct Named<'a> {
    paths: HashMap<Wd, PathBuf>,
    n_opened: HashMap<Wd, usize>,
    others: &'a Shared<'a>,
}

impl std::fmt::Debug for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.paths.fmt(f)
    }
}

impl Targets for Named<'_> {
    fn open(&mut self, wd: Wd) -> Result<Option<OwnedFd>, Errno> {
        let n_opened = self.n_opened.entry(wd).or_default();
        *n_opened += 1;
        let n = usize::try_from(wd.number()).unwrap() - 1;
        (self.others.borrow_mut())(Moment::Opens(n, *n_opened))?;
        match open(&self.paths[&wd], OFlag::O_PATH, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

fn expect(what: &str, found: impl Into<Found>, expected: impl Into<Found>) -> Result<(), Failed> {
    let (found, expected) = (found.into(), expected.into());
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:x?}, not {expected:x?}").into())
}

/// What came of it, and what is unread.
type Found = (Window, Vec<(i32, u32)>);

fn disturbed() -> Result<(), Failed> {
    let phases = [
        Phase::Draining,
        Phase::Probing,
        Phase::Stripping,
        Phase::Rebuilding,
    ];
    for at in phases.into_iter().chain([Phase::Attaching]) {
        let world = World::new(1, MODIFY | ATTRIB)?;
        world.modify(0);
        let window = world.go(|moment| {
            if moment == Moment::Phase(at) {
                world.chmod(0);
            }
        })?;
        let expected = if at <= Phase::Stripping {
            // The watch was on, so the event is kept.
            (Window::Quiet, vec![(1, MODIFY), (1, ATTRIB)])
        } else {
            (Window::Heard { n_events: 1 }, vec![(1, MODIFY)])
        };
        expect(&format!("{at:?}"), (window, world.queue()), expected)?;
        let declared = window.loss("fd 3").map(|loss| loss.kind);
        let is_heard = window != Window::Quiet;
        assert_eq!(declared, is_heard.then_some(Ok(LossKind::WindowHeard)));
    }
    Ok(())
}

/// The kernel finds the queue empty, but had nobody read it, it would find an equal event.
fn merging() -> Result<(), Failed> {
    for at in [Phase::Draining, Phase::Probing, Phase::Stripping] {
        let world = World::new(2, MODIFY | ATTRIB)?;
        world.chmod(1);
        world.chmod(0);
        let window = world.go(|moment| {
            if moment == Moment::Phase(at) {
                world.chmod(0);
            }
        })?;
        let expected = (Window::Quiet, vec![(2, ATTRIB), (1, ATTRIB)]);
        expect(&format!("{at:?}"), (window, world.queue()), expected)?;
    }
    // What differs only in what the dumper made between them.
    let world = World::new(1, ATTRIB)?;
    world.chmod(0);
    let window = world.go(|moment| {
        if matches!(moment, Moment::Phase(phase) if phase <= Phase::Stripping) {
            world.chmod(0);
        }
    })?;
    expect(
        "each",
        (window, world.queue()),
        (Window::Quiet, vec![(1, ATTRIB)]),
    )
}

fn overflowing() -> Result<(), Failed> {
    let limit = cr::queue::limit()?;
    for n_first in [limit - 1, limit, limit + 1] {
        let world = World::new(2, MODIFY | ATTRIB)?;
        for n in 0..n_first {
            match n % 2 {
                0 => world.chmod(0),
                _ => world.chmod(1),
            }
        }
        let window = world.go(|moment| {
            if moment == Moment::Phase(Phase::Probing) {
                world.modify(0);
            }
        })?;
        let queue = world.queue();
        let last = queue.last().copied();
        // Exactly full, it is overflown by being put back, which is declared.
        assert_eq!(world.overflow_added.get(), n_first + 1 == limit);
        if queue.len() != limit + 1 || last != Some((-1, OVERFLOW)) || window != Window::Quiet {
            let found = format!("{} events, the last {last:x?}, {window:?}", queue.len());
            return Err(format!("{n_first}: {found}").into());
        }
        world.modify(1);
        assert_eq!(world.queue(), [(2, MODIFY)], "the watches are there");
    }
    Ok(())
}

/// What is done again and again looks the same before and in the window.
fn repeated() -> Result<(), Failed> {
    let world = World::new(1, MODIFY | ATTRIB)?;
    let round = || {
        world.modify(0);
        world.chmod(0);
    };
    round();
    let window = world.go(|moment| {
        if let Moment::Phase(Phase::Stripping | Phase::Rebuilding) = moment {
            round();
        }
    })?;
    let kept = [(1, MODIFY), (1, ATTRIB)];
    let expected = (Window::Heard { n_events: 2 }, [kept, kept].concat());
    expect(
        "two rounds kept, one lost",
        (window, world.queue()),
        expected,
    )
}

/// The sentinel gets its watches one by one, and loses them so.
fn early() -> Result<(), Failed> {
    let world = World::new(3, MODIFY | ATTRIB)?;
    world.modify(1);
    let window = world.go(|moment| match moment {
        Moment::Opens(n, 1) => {
            world.chmod((n + 1) % 3);
            world.chmod(n);
        }
        // The newest is watched again last, the oldest first.
        Moment::Opens(2, 2) => world.modify(0),
        Moment::Opens(..) | Moment::Phase(_) => {}
    })?;
    // Equal ones side by side merge.
    let chmods = [1, 3, 2, 1].map(|wd| (wd, ATTRIB));
    let expected = [&[(2, MODIFY)], &chmods[..], &[(1, MODIFY)]].concat();
    expect("all", (window, world.queue()), (Window::Quiet, expected))
}

fn ending() -> Result<(), Failed> {
    let ends = |at: Phase| -> Result<Found, Failed> {
        let world = World::new(2, MODIFY | libc::IN_DELETE_SELF)?;
        world.modify(0);
        world.modify(1);
        let window = world.go(|moment| {
            if moment == Moment::Phase(at) {
                fs::remove_file(world.path(1)).unwrap();
            }
        })?;
        world.modify(0);
        Ok((window, world.queue()))
    };
    let before = [(1, MODIFY), (2, MODIFY)];
    let after = [(2, IGNORED), (1, MODIFY)];
    let both = [&before[..], &[(2, libc::IN_DELETE_SELF)], &after].concat();
    for at in [Phase::Draining, Phase::Probing, Phase::Stripping] {
        expect(&format!("{at:?}"), ends(at)?, (Window::Quiet, both.clone()))?;
    }
    for at in [Phase::Rebuilding, Phase::Attaching] {
        let lost = Window::Heard { n_events: 1 };
        expect(
            &format!("{at:?}"),
            ends(at)?,
            (lost, [before, after].concat()),
        )?;
    }
    Ok(())
}

fn firing() -> Result<(), Failed> {
    for at in [Phase::Draining, Phase::Probing, Phase::Stripping] {
        let world = World::new(2, ATTRIB | libc::IN_ONESHOT)?;
        world.chmod(1);
        let window = world.go(|moment| {
            if moment == Moment::Phase(at) {
                world.chmod(0);
                world.chmod(0);
            }
        })?;
        world.chmod(0);
        let of = |wd: i32| [(wd, ATTRIB), (wd, IGNORED)];
        let expected = (Window::Quiet, [of(2), of(1)].concat());
        expect(&format!("{at:?}"), (window, world.queue()), expected)?;
    }
    Ok(())
}

/// Signals of the group go to this thread.
fn signals() -> Result<(), Failed> {
    let mut sigio = SigSet::empty();
    sigio.add(Signal::SIGIO);
    sigio.thread_block()?;
    let pending = SignalFd::with_flags(&sigio, SfdFlags::SFD_NONBLOCK)?;
    let thread = nix::unistd::gettid().as_raw();
    let n_signals = |at: Option<Phase>, n_before: usize| -> Result<usize, Failed> {
        let mut world = World::new(2, MODIFY | ATTRIB)?;
        (0..n_before).for_each(|n| world.modify(n));
        let owner = Owner::now(0, thread);
        world.owner = Some(owner);
        owner.give_back(world.group())?;
        // Of a world before.
        while pending.read_signal()?.is_some() {}
        cr::sys::descriptor::set_flags(&world.group, libc::O_NONBLOCK | libc::O_ASYNC)?;
        world.go(|moment| {
            if let (Some(at), Moment::Phase(phase)) = (at, moment)
                && at == phase
            {
                world.chmod(0);
            }
        })?;
        let mut n_signals = 0;
        while pending.read_signal()?.is_some() {
            n_signals += 1;
        }
        // And from here on he is told by the kernel.
        world.chmod(1);
        assert!(pending.read_signal()?.is_some());
        Ok(n_signals)
    };
    for n_before in [0, 2] {
        assert_eq!(n_signals(None, n_before)?, 0, "behind {n_before} events");
        for at in [Phase::Probing, Phase::Stripping] {
            // With nothing to put back nothing is stripped.
            let expected = usize::from(at == Phase::Probing || n_before > 0);
            let found = n_signals(Some(at), n_before)?;
            assert_eq!(found, expected, "{at:?} behind {n_before} events");
        }
    }
    Ok(())
}

/// A process may be out of descriptors at any time.
fn short() -> Result<(), Failed> {
    for nth in [1, 2] {
        let world = World::new(3, MODIFY)?;
        world.modify(0);
        let result = world.go_with(|moment| match moment {
            Moment::Opens(1, n) if n == nth => Err(Errno::EMFILE),
            Moment::Opens(..) | Moment::Phase(_) => Ok(()),
        });
        match result {
            Err(PutBackError::Attach { wd, errno }) => {
                assert_eq!((wd.number(), errno), (2, Errno::EMFILE));
            }
            other => return Err(format!("{other:?}").into()),
        }
        let before = world.queue();
        (0..3).for_each(|n| world.modify(n));
        let (there, queue) = match nth {
            // Found out before anything was taken off: recover does the rest.
            1 => (vec![(1, MODIFY), (2, MODIFY), (3, MODIFY)], vec![]),
            _ => (vec![(1, MODIFY), (3, MODIFY)], vec![(1, MODIFY)]),
        };
        assert_eq!((before, world.queue()), (queue, there), "{nth}");
    }
    Ok(())
}

const LIMIT: &str = "/proc/sys/fs/inotify/max_queued_events";

/// The limit of a group is that of when it was made. The one of the machine is not changed: another
/// file is shown in its place.
fn other_limit() -> Result<Completion, Failed> {
    let limit = cr::queue::limit()?;
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| -> Result<Completion, Failed> {
            let shown = tempfile::NamedTempFile::new()?;
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            let bind = mount(
                Some(shown.path()),
                LIMIT,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            );
            if let Err(errno) = bind {
                return Ok(Completion::ignored_with(format!("mount: {errno}")));
            }
            for now in [limit / 3, limit - 1, limit + 1, 3 * limit] {
                fs::write(shown.path(), now.to_string())?;
                assert_eq!(cr::queue::limit()?, now);
                for n_events in [5, limit - 1, limit, limit + 5] {
                    of_limit(limit, n_events).map_err(|error| {
                        let error = error.message().unwrap_or_default().to_owned();
                        Failed::from(format!("{limit} then, {now} now: {error}"))
                    })?;
                }
            }
            Ok(Completion::Completed)
        });
        tried.join().expect("it does not panic")
    })
}

fn of_limit(limit: usize, n_events: usize) -> Result<(), Failed> {
    let world = World::new(2, ATTRIB)?;
    (0..n_events).for_each(|n| world.chmod(n % 2));
    let window = world.go(|_| ())?;
    let queue = world.queue();
    let is_full = n_events == limit;
    let expected = n_events.min(limit + 1) + usize::from(is_full);
    assert_eq!(world.overflow_added.get(), is_full, "{n_events}");
    world.chmod(0);
    if (window, queue.len(), world.queue()) != (Window::Quiet, expected, vec![(1, ATTRIB)]) {
        return Err(format!("{n_events}: {window:?}, {} events", queue.len()).into());
    }
    Ok(())
}
