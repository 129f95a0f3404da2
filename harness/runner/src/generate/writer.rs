//! From rolls to a scenario.
//!
//! The world is small on purpose: few names, so that steps meet each other.

mod fanotify;
mod files;
mod groups;
mod mounts;
mod names;
mod permission;
mod processes;

use scenario::{Arg, Bytes, Call, Expect, Name, Outcome, Phase, Requirement, Scenario, Step};
use verify::model::{Model, Settings};

use super::drop_unused_names;
use super::rolls::{Case, Roll};

/// Names of files and directories: two directories, and the same names in and beside them.
const PATHS: [&str; 10] = [
    "d/a", "d/b", "a", "d", "e/a", "e", "d/s", "e/b", "b", "d/s/a",
];
/// Writes the scenario that the rolls stand for. Sound, and known to the model, whatever they are.
#[must_use]
pub fn write(case: &Case, settings: Settings) -> Scenario {
    let mut writer = Writer {
        model: Model::new(settings),
        steps: Vec::new(),
        files: Vec::new(),
        groups: Vec::new(),
        watches: Vec::new(),
        fanotify_groups: Vec::new(),
        listeners: Vec::new(),
        fifos: Vec::new(),
        sets: Vec::new(),
        children: Vec::new(),
        n_names: 0,
        uncut: Vec::new(),
    };
    writer.begin();
    for roll in &case.rolls {
        writer.roll(*roll);
    }
    let n_steps = writer.steps.len();
    let mut places: Vec<usize> = case
        .cuts
        .iter()
        .map(|cut| usize::from(*cut) * (n_steps + 1) / 256)
        .map(|place| (place..).find(|place| !writer.uncut.contains(place)))
        .map(|place| place.expect("the last step has an end"))
        .collect();
    places.sort_unstable();
    let scenario = Scenario {
        requires: requires(&writer.steps),
        steps: writer.steps,
        ..Scenario::default()
    };
    let mut scenario = scenario::cut_at(&scenario, &places);
    drop_unused_names(&mut scenario);
    scenario
}

#[derive(Clone)]
struct Writer {
    model: Model,
    steps: Vec<Step>,
    /// Open files of each process, by name.
    files: Vec<(Option<Name>, Name)>,
    groups: Vec<(Option<Name>, Name)>,
    /// Groups with the numbers that they have given out.
    watches: Vec<(Name, i64)>,
    /// Groups of fanotify of each process.
    fanotify_groups: Vec<(Option<Name>, Name)>,
    /// Groups of the main process that are asked for permission.
    listeners: Vec<Name>,
    /// Open fifos of each process.
    fifos: Vec<(Option<Name>, Name)>,
    /// Descriptors of epoll, of the main process.
    sets: Vec<Name>,
    children: Vec<Name>,
    n_names: usize,
    /// Steps that no cut stands before.
    uncut: Vec<usize>,
}

impl Writer {
    /// Two directories, one of them watched.
    fn begin(&mut self) {
        for path in ["d", "e"] {
            self.push(None, Call::Mkdir, vec![bytes(path), Arg::Mode(0o755)]);
        }
        self.init(None);
        let (_, group) = self.groups[0].clone();
        self.add_watch(&(None, group), "d", 0xfff);
    }

    /// Adds the step that a roll stands for, if the world allows one.
    fn roll(&mut self, roll: Roll) {
        let process = self.process(roll);
        match roll.call % 112 {
            0..=11 => self.open(process, roll),
            12..=17 => self.close(process, roll),
            18..=24 => self.write_or_read(process, roll),
            25..=30 => self.with_path(process, Call::Unlink, roll),
            31..=38 => self.rename(process, roll),
            39..=42 => self.make(process, roll),
            43..=45 => self.with_path(process, Call::Rmdir, roll),
            46..=49 => self.attributes(process, roll),
            50 => self.xattr(process, roll),
            51 => self.chdir(process, roll),
            52..=58 => self.watch(process, roll),
            59..=61 => self.unwatch(process, roll),
            62..=66 => self.read_group(process, roll),
            67 => self.init(process),
            68..=69 => self.set_next_wd(process, roll),
            70..=71 => self.dup(process, roll),
            72..=74 => self.watch_descriptor(process, roll),
            75 => self.close_group(process, roll),
            76 => self.async_signal(roll),
            77..=78 => self.epoll(roll),
            79..=80 => self.open_unnamed(process, roll),
            81..=82 => self.fanotify_init(process, roll),
            83..=86 => self.fanotify_mark(process, roll),
            87..=89 => self.fanotify_read(process, roll),
            90..=91 => self.fork(),
            92..=93 => self.exit(roll),
            94..=97 => self.mount(process, roll),
            98..=99 => self.umount(process, roll),
            100..=104 => self.fifo(process, roll),
            105..=106 => self.fanotify_init_with_files(process, roll),
            107..=109 => self.ask_permission(roll),
            _ => self.flood(roll),
        }
    }

    /// Mostly the main process.
    fn process(&self, roll: Roll) -> Option<Name> {
        let is_child = roll.variant >= 192;
        let child = pick(&self.children, roll.variant)?;
        is_child.then(|| child.clone())
    }

    fn file_at(&self, process: Option<&Name>, roll: u8) -> Option<usize> {
        let own = (0..self.files.len()).filter(|at| self.files[*at].0.as_ref() == process);
        pick(&own.collect::<Vec<_>>(), roll).copied()
    }

    fn group_of(&self, process: Option<&Name>, roll: u8) -> Option<Name> {
        let own = self
            .groups
            .iter()
            .filter(|(owner, _)| owner.as_ref() == process);
        let own: Vec<&Name> = own.map(|(_, name)| name).collect();
        pick(&own, roll).map(|name| (*name).clone())
    }

    fn new_name(&mut self, letter: &str) -> Name {
        self.n_names += 1;
        Name(format!("{letter}{}", self.n_names))
    }

    fn bind(
        &mut self,
        process: Option<Name>,
        call: Call,
        args: Vec<Arg>,
        name: &Name,
    ) -> Option<i64> {
        self.step(process, call, args, Expect::Bind(name.clone()))
    }

    fn push(&mut self, process: Option<Name>, call: Call, args: Vec<Arg>) -> Option<i64> {
        self.step(process, call, args, Expect::Success)
    }

    /// A step that succeeds; or one that fails, now and then, which has to fail alike after a cut.
    fn push_or_fail(&mut self, process: Option<Name>, call: Call, args: Vec<Arg>, roll: Roll) {
        let is_done = self.push(process.clone(), call, args.clone()).is_some();
        if is_done || !roll.call.is_multiple_of(5) {
            return;
        }
        let mut step = step(process, call, args, Expect::Success);
        let mut model = self.model.clone();
        if let Ok(predicted) = model.step(&step)
            && let Some(Outcome::Errno(errno)) = predicted.outcome
        {
            step.expect = Expect::Errno(errno);
            self.model = model;
            self.steps.push(step);
        }
    }

    /// A step that may fail or not, of which the model has no opinion.
    fn any(&mut self, process: Option<Name>, call: Call, args: Vec<Arg>) {
        let step = step(process, call, args, Expect::Any);
        let mut model = self.model.clone();
        if model.step(&step).is_ok() {
            self.model = model;
            self.steps.push(step);
        }
    }

    /// Adds a step if the model knows it and it succeeds; its result, 0 where it has none.
    ///
    fn step(
        &mut self,
        process: Option<Name>,
        call: Call,
        args: Vec<Arg>,
        expect: Expect,
    ) -> Option<i64> {
        let step = step(process, call, args, expect);
        let mut model = self.model.clone();
        let value = match model.step(&step).ok()?.outcome {
            Some(Outcome::Value(value)) => value,
            Some(Outcome::None) | None => 0,
            Some(Outcome::Errno(_)) => return None,
        };
        if has_to_be_kept_out(&model) {
            return None;
        }
        self.model = model;
        self.steps.push(step);
        Some(value)
    }
}

/// Three states are kept out, since they cannot be kept across a cut: a next wd that is in use
/// (`scenarios/inotify/cursor-at_busy_number_freed.scn`), an event at the end of a queue that tells of
/// an inode number (`scenarios/inotify/queue-tmpfile_merges_with_tail.scn`), and a mount that no path
/// leads into (`scenarios/inotify/mount-covered_refused.scn`).
fn has_to_be_kept_out(model: &Model) -> bool {
    model.has_next_wd_in_use() || model.has_unread_without_name() || model.has_covered_mount()
}

const FAN_MARK_MOUNT: u64 = 0x10;
const FAN_MARK_FILESYSTEM: u64 = 0x100;
const FAN_REPORT_FID: u64 = 0x200;

/// What the machine has to have for these steps.
fn requires(steps: &[Step]) -> Vec<Requirement> {
    let words = [
        (Call::FanotifyInit, "fanotify"),
        (Call::Setxattr, "user_xattr"),
        (Call::Mount, "mount"),
    ];
    let needed = words.iter().filter(|(call, _)| {
        let mut calls = steps.iter().map(|step| step.call);
        calls.any(|it| it == *call)
    });
    // In a user namespace of its own anybody may mark a filesystem, but not before Linux 6.16.
    // A group that reports files, or is asked for permission, is root's as well.
    let is_roots = steps.iter().any(|step| match step.call {
        Call::FanotifyMark => step.flags(1) & (FAN_MARK_FILESYSTEM | FAN_MARK_MOUNT) != 0,
        Call::FanotifyInit => step.flags(0) & FAN_REPORT_FID == 0,
        _ => false,
    });
    is_roots
        .then_some("root")
        .into_iter()
        .chain(needed.map(|(_, word)| *word))
        .map(|word| Requirement(word.to_owned()))
        .collect()
}

fn step(process: Option<Name>, call: Call, args: Vec<Arg>, expect: Expect) -> Step {
    Step {
        notes: Vec::new(),
        process,
        call,
        phase: Phase::Whole,
        args,
        expect,
    }
}

fn bytes(text: &str) -> Arg {
    Arg::Bytes(Bytes::from(text))
}

fn path(roll: u8) -> Arg {
    bytes(PATHS[usize::from(roll) % PATHS.len()])
}

/// One of the list; the first for the smallest roll.
fn pick<T>(list: &[T], roll: u8) -> Option<&T> {
    list.get(usize::from(roll) % list.len().max(1))
}
