//! Random queues: those that random operations on a real tree have made, and those put together
//! event by event from the table of kinds. Each must come out of [`cr::queue::rebuild`] equal.
//!
//! `NOTIFREEZE_QUEUES` says how many (200), `NOTIFREEZE_SEED` with what to begin.

use std::cell::Cell;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use libtest_mimic::{Failed, Trial};

use crate::equal::{self, difference};
use crate::kinds::{encode, rebuilt};
use crate::tree::Tree;

/// Longest queue, but for those that overflow.
const MOST_EVENTS: usize = 300;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("random_queues_are_equal", || many(0)),
        Trial::test("random_queues_are_equal_in_a_rename_storm", in_a_storm),
    ]
}

/// A sequence of numbers that the seed alone decides (splitmix64).
pub(crate) struct Dice {
    state: Cell<u64>,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: Cell::new(seed),
        }
    }

    /// From 0 to `sides` - 1.
    pub(crate) fn roll(&self, sides: usize) -> usize {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(sides).unwrap()).unwrap()
    }

    pub(crate) fn one_in(&self, n: usize) -> bool {
        self.roll(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn first_seed() -> u64 {
    number("NOTIFREEZE_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs() << 20
    })
}

fn many(salt: u64) -> Result<(), Failed> {
    let seed = first_seed();
    let n_queues = number("NOTIFREEZE_QUEUES").unwrap_or(200);
    let mut n_events = 0;
    for n in 0..n_queues {
        let dice = Dice::new(seed.wrapping_add(n) ^ salt);
        let queue = match n % 3 {
            0 => synthetic(&dice),
            _ => Tree::new()
                .and_then(|tree| tree.random_queue(&dice, MOST_EVENTS))
                .map_err(|errno| format!("the {n}th tree, seed {seed}: {errno}"))?,
        };
        n_events += equal::events(&queue).len();
        let found = rebuilt(&queue)
            .map_err(|error| error.to_string())
            .map(|rebuilt| difference(&queue, &rebuilt));
        let problem = match found {
            Ok(None) => continue,
            Ok(Some(problem)) | Err(problem) => problem,
        };
        let again = seed.wrapping_add(n);
        return Err(format!(
            "{problem}\nthe {n}th queue; first with NOTIFREEZE_SEED={again} NOTIFREEZE_QUEUES=3"
        )
        .into());
    }
    eprintln!("{n_queues} queues of {n_events} events, NOTIFREEZE_SEED={seed}");
    if n_events == 0 {
        Err("no event was made".into())
    } else {
        Ok(())
    }
}

/// Ends its process when it goes.
struct Storm(Child);

impl Drop for Storm {
    fn drop(&mut self) {
        // It may be dead already, which the test itself looks at.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same while another process renames in a loop: both take cookies from one counter.
fn in_a_storm() -> Result<(), Failed> {
    let this = std::env::current_exe()?;
    let child = Command::new(this)
        .arg(crate::STORM)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut storm = Storm(child);
    many(1)?;
    match storm.0.try_wait()? {
        None => Ok(()),
        Some(status) => Err(format!("the storm was over before: {status}").into()),
    }
}

/// What the other process does, until the one that started it is gone.
pub(crate) fn storm() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    std::fs::write(&one, "").unwrap();
    let parent = nix::unistd::getppid();
    while nix::unistd::getppid() == parent {
        std::fs::rename(&one, &other).unwrap();
        std::fs::rename(&other, &one).unwrap();
    }
}

/// Events by the table of kinds, in any order that merging allows.
fn synthetic(dice: &Dice) -> Vec<u8> {
    const ISDIR: u32 = 0x4000_0000;
    const KINDS: [u32; 15] = [
        0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800, 0x2000, 0x8000, 0x6,
    ];
    let mut queue = Vec::new();
    let mut last = (0, 0, Vec::new());
    let overflow = dice.one_in(4).then(|| dice.roll(MOST_EVENTS));
    let mut cookie = 1000;
    for n in 0..dice.roll(MOST_EVENTS) {
        if overflow == Some(n) {
            queue.extend(encode(-1, 0x4000, 0, b""));
            last = (0, 0, Vec::new());
        }
        let wd = 1 + i32::try_from(dice.roll(12)).unwrap();
        let kind = dice.pick(&KINDS);
        let of_self = kind & 0xac00 != 0;
        let of_child = kind & 0x3c0 != 0;
        let never_dir = matches!(kind, 0x8 | 0x6) || of_self && kind != 0x2000;
        // Before an overflow a watch keeps its inode: even ones are files, odd ones directories,
        // and none ends.
        let careful = overflow.is_some_and(|at| n < at);
        if careful && (kind & 0xa400 != 0 || (wd % 2 == 0 && of_child)) {
            continue;
        }
        let dir = match careful {
            _ if never_dir => false,
            true if wd % 2 == 0 => false,
            _ => dice.one_in(2),
        };
        let named = match careful {
            _ if of_self => false,
            _ if of_child => true,
            true if wd % 2 == 0 => false,
            true if !dir => true,
            _ => dice.one_in(2),
        };
        let name = if named { name(dice) } else { Vec::new() };
        let mask = kind | if dir { ISDIR } else { 0 };
        let event = (wd, mask, name);
        if event == last && mask & 0x8000 == 0 {
            continue;
        }
        let (wd, mask, name) = event;
        if mask & 0xc0 != 0 {
            cookie += 1;
            queue.extend(encode(wd, mask, cookie, &name));
        } else {
            queue.extend(encode(wd, mask, 0, &name));
        }
        last = (wd, mask, name);
        if kind == 0x40 && dice.one_in(2) {
            let to = 1 + 2 * i32::try_from(dice.roll(6)).unwrap();
            let (mask, mut name) = (0x80 | mask & ISDIR, last.2.clone());
            name.truncate(200);
            name.extend(b"2");
            queue.extend(encode(to, mask, cookie, &name));
            last = (to, mask, name);
        }
    }
    queue
}

fn name(dice: &Dice) -> Vec<u8> {
    let length = if dice.one_in(10) {
        255
    } else {
        1 + dice.roll(40)
    };
    let mut name = format!("n{}", dice.roll(5)).into_bytes();
    name.resize(length.max(2), 0xe9);
    name
}
