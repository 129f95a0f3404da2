//! From rolls to a scenario.
//!
//! The world is small on purpose: few names, so that steps meet each other.

use scenario::call::ioctl;
use scenario::{Arg, Bytes, Call, Expect, FlagSet, Name, Outcome, Phase, Scenario, Step, Time};
use verify::model::{Model, Settings};

use super::drop_unused_names;
use super::rolls::{Case, Roll};

/// Names of files and directories: two directories, and the same names in and beside them.
const PATHS: [&str; 10] = [
    "d/a", "d/b", "a", "d", "e/a", "e", "d/s", "e/b", "b", "d/s/a",
];
const MAX_GROUPS: usize = 3;
const MAX_CHILDREN: usize = 2;
/// Beyond the usual length of a queue.
const FLOOD: i64 = 17_000;

const O_RDWR_CREAT: u64 = 0o102;
const MASKS: [u64; 8] = [
    0xfff,
    0xfff,
    0xfff | 0x0400_0000,
    0xfff | 0x8000_0000,
    0xc0 | 0x300,
    0x2 | 0x2000_0000,
    0x400 | 0x800,
    0x38 | 0x0400_0000 | 0x2000_0000,
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
        children: Vec::new(),
        n_names: 0,
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
        .collect();
    places.sort_unstable();
    let scenario = Scenario {
        steps: writer.steps,
        ..Scenario::default()
    };
    let mut scenario = scenario::cut_at(&scenario, &places);
    drop_unused_names(&mut scenario);
    scenario
}

struct Writer {
    model: Model,
    steps: Vec<Step>,
    /// Open files of each process, by name.
    files: Vec<(Option<Name>, Name)>,
    groups: Vec<(Option<Name>, Name)>,
    /// Groups with the numbers that they have given out.
    watches: Vec<(Name, i64)>,
    children: Vec<Name>,
    n_names: usize,
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
        match roll.call % 64 {
            0..=9 => self.open(process, roll),
            10..=14 => self.close(process, roll),
            15..=20 => self.write_or_read(process, roll),
            21..=25 => self.with_path(process, Call::Unlink, roll),
            26..=32 => self.rename(process, roll),
            33..=35 => self.make(process, roll),
            36..=37 => self.with_path(process, Call::Rmdir, roll),
            38..=41 => self.attributes(process, roll),
            42..=47 => self.watch(process, roll),
            48..=49 => self.unwatch(process, roll),
            50..=53 => self.read_group(process, roll),
            54 => self.init(process),
            55 => self.set_next_wd(process, roll),
            56..=57 => self.dup(process, roll),
            58..=60 => self.watch_descriptor(process, roll),
            61 => self.fork(),
            62 => self.exit(roll),
            _ => self.flood(roll),
        }
    }

    /// Mostly the main process.
    fn process(&self, roll: Roll) -> Option<Name> {
        let is_child = roll.variant >= 192;
        let child = pick(&self.children, roll.variant)?;
        is_child.then(|| child.clone())
    }

    fn open(&mut self, process: Option<Name>, roll: Roll) {
        const FLAGS: [u64; 6] = [
            O_RDWR_CREAT,
            O_RDWR_CREAT,
            0,
            0o1_001,
            0o10_000_000,
            0o10_400_000,
        ];
        let flags = FLAGS[usize::from(roll.variant) % FLAGS.len()];
        let mut args = vec![path(roll.first), Arg::Flags(FlagSet::Open, flags)];
        if flags == O_RDWR_CREAT {
            args.push(Arg::Mode(0o644));
        }
        let name = self.new_name("f");
        if self
            .bind(process.clone(), Call::Open, args, &name)
            .is_some()
        {
            self.files.push((process, name));
        }
    }

    fn close(&mut self, process: Option<Name>, roll: Roll) {
        let Some(at) = self.file_at(process.as_ref(), roll.first) else {
            return;
        };
        let (_, name) = self.files[at].clone();
        if self
            .push(process, Call::Close, vec![Arg::Name(name)])
            .is_some()
        {
            self.files.remove(at);
        }
    }

    fn write_or_read(&mut self, process: Option<Name>, roll: Roll) {
        let Some(at) = self.file_at(process.as_ref(), roll.first) else {
            return;
        };
        let fd = Arg::Name(self.files[at].1.clone());
        let (call, args) = match roll.variant % 6 {
            0 | 1 => (Call::Write, vec![fd, bytes("more")]),
            2 => (
                Call::Pwrite,
                vec![fd, bytes("x"), Arg::Int(i64::from(roll.second))],
            ),
            3 => (Call::Pread, vec![fd, Arg::Int(2), Arg::Int(0)]),
            4 => (
                Call::Ftruncate,
                vec![fd, Arg::Int(i64::from(roll.second % 8))],
            ),
            _ => (Call::Fchmod, vec![fd, Arg::Mode(0o600)]),
        };
        self.push(process, call, args);
    }

    fn with_path(&mut self, process: Option<Name>, call: Call, roll: Roll) {
        self.push_or_fail(process, call, vec![path(roll.first)], roll);
    }

    fn rename(&mut self, process: Option<Name>, roll: Roll) {
        let (old, new) = (path(roll.first), path(roll.second));
        if roll.variant.is_multiple_of(4) {
            let flags = Arg::Flags(FlagSet::Rename, 2);
            let args = vec![Arg::Cwd, old, Arg::Cwd, new, flags];
            self.push_or_fail(process, Call::Renameat2, args, roll);
        } else {
            self.push_or_fail(process, Call::Rename, vec![old, new], roll);
        }
    }

    fn make(&mut self, process: Option<Name>, roll: Roll) {
        let (call, args) = match roll.variant % 3 {
            0 => (Call::Link, vec![path(roll.first), path(roll.second)]),
            1 => (Call::Mkdir, vec![path(roll.first), Arg::Mode(0o755)]),
            _ => (Call::Symlink, vec![path(roll.second), path(roll.first)]),
        };
        self.push_or_fail(process, call, args, roll);
    }

    fn attributes(&mut self, process: Option<Name>, roll: Roll) {
        let path = path(roll.first);
        let (call, args) = match roll.variant % 3 {
            0 => (Call::Chmod, vec![path, Arg::Mode(0o700)]),
            1 => (
                Call::Truncate,
                vec![path, Arg::Int(i64::from(roll.second % 16))],
            ),
            _ => {
                let at = Time::At { sec: 1, nsec: 0 };
                let times = match roll.second % 3 {
                    0 => [at, at],
                    1 => [at, Time::Omit],
                    _ => [Time::Omit, at],
                };
                let flags = Arg::Flags(FlagSet::At, 0);
                (
                    Call::Utimensat,
                    vec![Arg::Cwd, path, Arg::Times(times), flags],
                )
            }
        };
        self.push(process, call, args);
    }

    fn init(&mut self, process: Option<Name>) {
        if self.groups.len() == MAX_GROUPS {
            return;
        }
        let name = self.new_name("n");
        let args = vec![Arg::Flags(FlagSet::InotifyInit, 0o4_000)];
        if self
            .bind(process.clone(), Call::InotifyInit1, args, &name)
            .is_some()
        {
            self.groups.push((process, name));
        }
    }

    fn watch(&mut self, process: Option<Name>, roll: Roll) {
        let Some(group) = self.group_of(process.as_ref(), roll.second) else {
            return;
        };
        let mask = MASKS[usize::from(roll.variant) % MASKS.len()];
        let path = PATHS[usize::from(roll.first) % PATHS.len()];
        self.add_watch(&(process, group), path, mask);
    }

    /// A watch on what a descriptor refers to: a ghost, perhaps.
    fn watch_descriptor(&mut self, process: Option<Name>, roll: Roll) {
        let Some(group) = self.group_of(process.as_ref(), roll.second) else {
            return;
        };
        let fd = 3 + i32::from(roll.first % 6);
        let mask = MASKS[usize::from(roll.variant) % MASKS.len()];
        self.add_watch(&(process, group), &format!("/proc/self/fd/{fd}"), mask);
    }

    fn add_watch(&mut self, (process, group): &(Option<Name>, Name), path: &str, mask: u64) {
        let args = vec![
            Arg::Name(group.clone()),
            bytes(path),
            Arg::Flags(FlagSet::InotifyMask, mask),
        ];
        if let Some(wd) = self.push(process.clone(), Call::InotifyAddWatch, args) {
            if let Some(step) = self.steps.last_mut() {
                step.expect = Expect::Value(wd);
            }
            self.watches.push((group.clone(), wd));
        }
    }

    fn unwatch(&mut self, process: Option<Name>, roll: Roll) {
        let Some((group, wd)) = pick(&self.watches, roll.first).cloned() else {
            return;
        };
        let is_own = self.groups.contains(&(process.clone(), group.clone()));
        if is_own {
            let args = vec![Arg::Name(group), Arg::Int(wd)];
            self.push_or_fail(process, Call::InotifyRmWatch, args, roll);
        }
    }

    fn read_group(&mut self, process: Option<Name>, roll: Roll) {
        if let Some(group) = self.group_of(process.as_ref(), roll.first) {
            let mut args = vec![Arg::Name(group)];
            if roll.variant % 8 == 1 {
                args.push(Arg::Int(64));
            }
            self.push_or_fail(process, Call::Read, args, roll);
        }
    }

    fn set_next_wd(&mut self, process: Option<Name>, roll: Roll) {
        const NUMBERS: [i64; 4] = [40, 2, 1, 0x7fff_fffe];
        if let Some(group) = self.group_of(process.as_ref(), roll.first) {
            let number = NUMBERS[usize::from(roll.variant) % NUMBERS.len()];
            let request = Arg::Flags(FlagSet::Ioctl, ioctl::INOTIFY_SETNEXTWD);
            let args = vec![Arg::Name(group), request, Arg::Int(number)];
            self.push(process, Call::Ioctl, args);
        }
    }

    fn dup(&mut self, process: Option<Name>, roll: Roll) {
        let name = self.new_name("c");
        if let (true, Some(group)) = (
            roll.variant.is_multiple_of(2),
            self.group_of(process.as_ref(), roll.first),
        ) {
            let args = vec![Arg::Name(group)];
            if self.bind(process.clone(), Call::Dup, args, &name).is_some() {
                self.groups.push((process, name));
            }
        } else if let Some(at) = self.file_at(process.as_ref(), roll.first) {
            let args = vec![Arg::Name(self.files[at].1.clone())];
            if self.bind(process.clone(), Call::Dup, args, &name).is_some() {
                self.files.push((process, name));
            }
        }
    }

    /// The child has what the main process has, under the same numbers.
    fn fork(&mut self) {
        if self
            .steps
            .iter()
            .filter(|step| step.call == Call::Fork)
            .count()
            == MAX_CHILDREN
        {
            return;
        }
        let name = Name(["p", "q"][self.children.len() % 2].to_owned());
        let is_taken = self
            .steps
            .iter()
            .any(|step| step.expect == Expect::Bind(name.clone()));
        if is_taken {
            return;
        }
        if self
            .step(None, Call::Fork, Vec::new(), Expect::Bind(name.clone()))
            .is_some()
        {
            let of_main = |list: &[(Option<Name>, Name)]| -> Vec<(Option<Name>, Name)> {
                let own = list.iter().filter(|(process, _)| process.is_none());
                own.map(|(_, fd)| (Some(name.clone()), fd.clone()))
                    .collect()
            };
            let (files, groups) = (of_main(&self.files), of_main(&self.groups));
            self.files.extend(files);
            self.groups.extend(groups);
            self.children.push(name);
        }
    }

    fn exit(&mut self, roll: Roll) {
        let Some(name) = pick(&self.children, roll.first).cloned() else {
            return;
        };
        let process = Some(name.clone());
        if self
            .push(process.clone(), Call::ExitGroup, vec![Arg::Int(0)])
            .is_some()
        {
            self.files.retain(|(owner, _)| *owner != process);
            self.groups.retain(|(owner, _)| *owner != process);
            self.children.retain(|child| *child != name);
            self.push(None, Call::Wait4, vec![Arg::Name(name)]);
        }
    }

    /// Rare, since it takes as long as all the rest.
    fn flood(&mut self, roll: Roll) {
        if roll.second.is_multiple_of(16) {
            self.push(None, Call::Flood, vec![path(roll.first), Arg::Int(FLOOD)]);
        }
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

    /// Adds a step if the model knows it and it succeeds; its result, 0 where it has none.
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
        self.model = model;
        self.steps.push(step);
        Some(value)
    }
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
