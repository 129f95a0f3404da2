//! From the records of a saved queue to the steps that make them again. Pure: no call is made.
//!
//! Each step is one operation on a scratch inode that carries the wd of the event. What the plan
//! decides is which records one operation makes together (a rename pair, the end of a watch), and
//! what kind of inode each watch needs over its life, which ends with its `IN_IGNORED`.

use std::collections::{HashMap, HashSet};

use fsnotify::Wd;

use super::error::{Reason, RebuildError};
use super::record::{self, ISDIR, Record};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inode {
    File,
    Dir,
}

/// What is done to an inode and reported both by its own watch and, with its name, by a watch of
/// its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    Access,
    Modify,
    Attrib,
    /// One event with both bits: truncation that clears the set-user-id bit.
    ModifyAttrib,
    Open,
    /// Looks like `Open` to a reader, but does not merge with it.
    OpenToExecute,
    CloseWrite,
    CloseNowrite,
}

/// How a name comes into a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Create,
    MoveIn,
}

/// How a name goes out of a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Delete,
    MoveOut,
}

/// How a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// `IN_DELETE_SELF`, and `IN_IGNORED` if the step makes two events.
    Delete,
    /// `IN_UNMOUNT`, likewise.
    Unmount,
    /// `IN_IGNORED` alone.
    Remove,
}

/// A name in the directory that a watch is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child<'a> {
    pub(super) wd: Wd,
    pub(super) name: &'a [u8],
    /// Of the child; the watch is on a directory.
    pub(super) inode: Inode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act<'a> {
    /// On the watched inode itself.
    TouchSelf(Wd, Touch),
    TouchChild(Child<'a>, Touch),
    Enter(Child<'a>, Entry),
    Leave(Child<'a>, Exit),
    /// `IN_MOVED_FROM` and `IN_MOVED_TO` of one rename, right behind each other.
    Rename {
        from: Child<'a>,
        to: Child<'a>,
    },
    MoveSelf(Wd),
    End(Wd, End),
    Overflow,
}

#[derive(Clone, Debug)]
pub(super) struct Step<'a> {
    pub(super) act: Act<'a>,
    /// What the watch of the act is on; of both watches in a rename.
    pub(super) inode: Inode,
    /// The watch ends by an unmount, and must be on a filesystem of its own from the start.
    pub(super) doomed: bool,
    /// The first record that it makes.
    pub(super) record: Record<'a>,
    pub(super) n_events: usize,
    /// The last event it makes is the overflow event: the `IN_IGNORED` of the watch that ends
    /// finds the queue full.
    pub(super) overflows: bool,
    /// How far the queue is filled with saved events behind this step.
    pub(super) end: usize,
}

#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) steps: Vec<Step<'a>>,
    pub(super) n_records: usize,
    /// How many records lie before the overflow event, if there is one. A queue that is full to the
    /// last event and has none gets one behind it.
    pub(super) overflow: Option<usize>,
    head: Option<Record<'a>>,
    wds: HashSet<Wd>,
    /// Index pairs of `IN_MOVED_FROM` and `IN_MOVED_TO` that keep their places and lose their
    /// common cookie.
    pub(super) parted: Vec<(usize, usize)>,
}

impl<'a> Plan<'a> {
    /// Plans a queue of a group with this limit.
    pub(super) fn new(queue: &'a [u8], limit: usize) -> Result<Self, RebuildError> {
        let records = record::parse(queue)?;
        let overflow = find_overflow(&records)?;
        // The event that overflows a queue comes on top of the limit.
        let events = records.len();
        if events - usize::from(overflow.is_some_and(|at| at + 1 == events)) > limit {
            return Err(RebuildError::TooLong { events, limit });
        }
        let overflow = overflow.or((events == limit).then_some(limit));
        check_adjacent(&records)?;
        let executed = opened_to_execute(&records);
        let mut steps = Vec::with_capacity(records.len());
        let mut rest = records.as_slice();
        let mut end = 0;
        while !rest.is_empty() {
            let before_overflow = overflow.is_some_and(|at| rest[0].index < at);
            let step = step(rest, before_overflow, executed[rest[0].index])?;
            end += rest[..step.n_events]
                .iter()
                .map(|it| it.size)
                .sum::<usize>();
            rest = &rest[step.n_events..];
            steps.push(Step { end, ..step });
        }
        let mut plan = Self {
            steps,
            n_records: records.len(),
            overflow,
            head: records.first().copied(),
            wds: records.iter().filter_map(|record| record.wd).collect(),
            parted: parted_renames(&records),
        };
        plan.doom();
        plan.part_doomed_renames();
        plan.choose_inodes();
        Ok(plan)
    }

    /// Two wds that neither the queue nor `avoid` has.
    pub(super) fn unused_wds(&self, avoid: &[Wd]) -> [Wd; 2] {
        let highest_first = (1..=i32::MAX).rev().filter_map(Wd::new);
        let avoid: HashSet<&Wd> = avoid.iter().collect();
        let mut unused = highest_first.filter(|wd| !self.wds.contains(wd) && !avoid.contains(wd));
        let mut next = || {
            unused
                .next()
                .expect("more numbers than a queue and a group can have")
        };
        [next(), next()]
    }

    /// Where the second half of a rename lies whose first half is not in the queue but may have
    /// been: the two are emitted back to back.
    pub(super) fn head_cookie(&self) -> Option<usize> {
        let head = self.head?;
        (head.kind() == libc::IN_MOVED_TO).then_some(head.index)
    }

    /// Before the overflow event a watch cannot change inodes unheard, so one that is to end by
    /// an unmount must be on a filesystem of its own all its life.
    fn doom(&mut self) {
        let Some(overflow) = self.overflow else {
            return;
        };
        let mut doomed: HashMap<Wd, bool> = HashMap::new();
        for step in self.steps.iter_mut().rev() {
            if step.record.index >= overflow {
                continue;
            }
            if let Act::End(wd, end) = step.act {
                doomed.insert(wd, end == End::Unmount);
            }
            let mut wds = step.act.wds().into_iter().flatten();
            step.doomed = wds.any(|wd| doomed.get(&wd) == Some(&true));
        }
    }

    /// One rename cannot cross filesystems: its two events are made by two renames.
    fn part_doomed_renames(&mut self) {
        let mut parted = Vec::with_capacity(self.steps.len());
        for step in self.steps.drain(..) {
            match step.act {
                Act::Rename { from, to } if step.doomed && from.wd != to.wd => {
                    let to_size =
                        record::HEADER + (to.name.len() + 1).next_multiple_of(record::HEADER);
                    self.parted.push((step.record.index, step.record.index + 1));
                    parted.push(Step {
                        act: Act::Leave(from, Exit::MoveOut),
                        n_events: 1,
                        end: step.end - to_size,
                        ..step.clone()
                    });
                    parted.push(Step {
                        act: Act::Enter(to, Entry::MoveIn),
                        n_events: 1,
                        ..step
                    });
                }
                _ => parted.push(step),
            }
        }
        self.steps = parted;
        self.doom();
    }

    /// Events that fit a file and a directory take what the watch is on before or after them.
    fn choose_inodes(&mut self) {
        let mut later: HashMap<Wd, Inode> = HashMap::new();
        let mut hints = vec![None; self.steps.len()];
        for (step, hint) in self.steps.iter().zip(&mut hints).rev() {
            for wd in step.act.wds().into_iter().flatten() {
                if matches!(step.act, Act::End(..)) {
                    later.remove(&wd);
                }
                if let Some(inode) = step.needs() {
                    later.insert(wd, inode);
                }
                *hint = later.get(&wd).copied();
            }
        }
        let mut now: HashMap<Wd, Inode> = HashMap::new();
        for (step, hint) in self.steps.iter_mut().zip(hints) {
            for wd in step.act.wds().into_iter().flatten() {
                let free = now.get(&wd).copied().or(hint).unwrap_or(Inode::File);
                step.inode = step.needs().unwrap_or(free);
                now.insert(wd, step.inode);
                if matches!(step.act, Act::End(..)) {
                    now.remove(&wd);
                }
            }
        }
    }
}

impl Act<'_> {
    /// The watches it goes through, once each.
    fn wds(&self) -> [Option<Wd>; 2] {
        match *self {
            Self::TouchSelf(wd, _) | Self::MoveSelf(wd) | Self::End(wd, _) => [Some(wd), None],
            Self::TouchChild(child, _) | Self::Enter(child, _) | Self::Leave(child, _) => {
                [Some(child.wd), None]
            }
            Self::Rename { from, to } if from.wd == to.wd => [Some(from.wd), None],
            Self::Rename { from, to } => [Some(from.wd), Some(to.wd)],
            Self::Overflow => [None, None],
        }
    }
}

impl Step<'_> {
    /// What its watch must be on; none if a file and a directory serve.
    fn needs(&self) -> Option<Inode> {
        match self.act {
            Act::TouchSelf(..) | Act::End(_, End::Unmount) => Some(self.record.inode()),
            Act::TouchChild(..) | Act::Enter(..) | Act::Leave(..) | Act::Rename { .. } => {
                Some(Inode::Dir)
            }
            Act::MoveSelf(_) | Act::End(_, End::Delete | End::Remove) | Act::Overflow => None,
        }
    }
}

impl Record<'_> {
    /// What the event says its object is.
    fn inode(&self) -> Inode {
        if self.mask & ISDIR == 0 {
            Inode::File
        } else {
            Inode::Dir
        }
    }
}

fn find_overflow(records: &[Record<'_>]) -> Result<Option<usize>, RebuildError> {
    let mut overflows = records.iter().filter(|record| record.is_overflow());
    let first = overflows.next();
    match overflows.next() {
        Some(second) => Err(second.error(Reason::SecondOverflow)),
        None => Ok(first.map(|record| record.index)),
    }
}

/// Equal neighbours would merge. Only opens can be neighbours and look equal.
fn check_adjacent(records: &[Record<'_>]) -> Result<(), RebuildError> {
    for pair in records.windows(2) {
        if pair[1].merges_into(&pair[0]) && pair[1].mask != libc::IN_OPEN {
            return Err(pair[1].error(Reason::Merged));
        }
    }
    Ok(())
}

/// Plans the first record of `rest`, and those that come with it. An open is `executed` if it is that
/// of an execve(2).
fn step<'a>(
    rest: &[Record<'a>],
    before_overflow: bool,
    executed: bool,
) -> Result<Step<'a>, RebuildError> {
    let record = rest[0];
    let next = rest.get(1);
    let no_recipe = || record.error(Reason::NoRecipe);
    let one = |act| Step {
        act,
        inode: Inode::File,
        doomed: false,
        record,
        n_events: 1,
        overflows: false,
        end: 0,
    };
    if record.is_overflow() {
        return match record.name {
            None => Ok(one(Act::Overflow)),
            Some(_) => Err(no_recipe()),
        };
    }
    let wd = record.wd.ok_or_else(|| record.error(Reason::BadWd))?;
    if let Some(end) = end_of(&record) {
        let with_ignored = end != End::Remove
            && next.is_some_and(|next| next.is_ignored() && next.wd == record.wd);
        let overflows = end != End::Remove && next.is_some_and(Record::is_overflow);
        if before_overflow && end != End::Remove && !with_ignored && !overflows {
            return Err(record.error(Reason::InodeBeforeOverflow));
        }
        return Ok(Step {
            n_events: 1 + usize::from(with_ignored || overflows),
            overflows,
            ..one(Act::End(wd, end))
        });
    }
    if (record.mask, record.name) == (libc::IN_MOVE_SELF, None) {
        return Ok(one(Act::MoveSelf(wd)));
    }
    let inode = record.inode();
    if let Some(touch) = touch_of(&record, executed) {
        if inode == Inode::Dir && matches!(touch, Touch::CloseWrite | Touch::ModifyAttrib) {
            return Err(no_recipe());
        }
        let act = match record.name {
            None => Act::TouchSelf(wd, touch),
            Some(name) => Act::TouchChild(Child { wd, name, inode }, touch),
        };
        return Ok(one(act));
    }
    let name = record.name.ok_or_else(no_recipe)?;
    let child = Child { wd, name, inode };
    match record.kind() {
        libc::IN_CREATE => Ok(one(Act::Enter(child, Entry::Create))),
        libc::IN_DELETE => Ok(one(Act::Leave(child, Exit::Delete))),
        libc::IN_MOVED_TO => Ok(one(Act::Enter(child, Entry::MoveIn))),
        libc::IN_MOVED_FROM => match next.and_then(|next| target_of(&record, next)) {
            Some(to) => Ok(Step {
                n_events: 2,
                ..one(Act::Rename { from: child, to })
            }),
            None => Ok(one(Act::Leave(child, Exit::MoveOut))),
        },
        _ => Err(no_recipe()),
    }
}

/// Whether the event ends its watch.
fn end_of(record: &Record<'_>) -> Option<End> {
    match (record.mask, record.name) {
        (libc::IN_DELETE_SELF, None) => Some(End::Delete),
        (libc::IN_IGNORED, None) => Some(End::Remove),
        // A watched directory reports ISDIR here, a file does not.
        (mask, None) if mask & !ISDIR == libc::IN_UNMOUNT => Some(End::Unmount),
        _ => None,
    }
}

fn touch_of(record: &Record<'_>, executed: bool) -> Option<Touch> {
    const MODIFY_ATTRIB: u32 = libc::IN_MODIFY | libc::IN_ATTRIB;
    Some(match record.kind() {
        libc::IN_ACCESS => Touch::Access,
        libc::IN_MODIFY => Touch::Modify,
        libc::IN_ATTRIB => Touch::Attrib,
        MODIFY_ATTRIB => Touch::ModifyAttrib,
        libc::IN_OPEN if executed => Touch::OpenToExecute,
        libc::IN_OPEN => Touch::Open,
        libc::IN_CLOSE_WRITE => Touch::CloseWrite,
        libc::IN_CLOSE_NOWRITE => Touch::CloseNowrite,
        _ => return None,
    })
}

/// Which records are opens by execve(2).
///
/// Equal opens do not merge if one of two neighbours is that of an execve(2); so they alternate.
/// Which of them was first nobody can read; it decides only whether an open that follows merges. A
/// plain one last is the usual: most files are opened plainly, and a script is by what runs it, behind
/// its execve(2).
fn opened_to_execute(records: &[Record<'_>]) -> Vec<bool> {
    let mut executed = vec![false; records.len()];
    for (at, pair) in records.windows(2).enumerate().rev() {
        executed[at] = pair[1].merges_into(&pair[0]) && !executed[at + 1];
    }
    executed
}

/// The other half of a rename, if `next` is that of `from`.
fn target_of<'a>(from: &Record<'a>, next: &Record<'a>) -> Option<Child<'a>> {
    let same_rename = next.kind() == libc::IN_MOVED_TO
        && next.cookie == from.cookie
        && next.inode() == from.inode()
        // Renaming a name to itself makes no event (`vfs_rename`).
        && (next.wd, next.name) != (from.wd, from.name);
    let (wd, name) = (next.wd?, next.name?);
    same_rename.then_some(Child {
        wd,
        name,
        inode: next.inode(),
    })
}

/// Renames whose two events have others between them. They are emitted back to back, so this
/// happens only where two processors race.
fn parted_renames(records: &[Record<'_>]) -> Vec<(usize, usize)> {
    let mut open: HashMap<u32, &Record<'_>> = HashMap::new();
    let mut parted = Vec::new();
    for record in records {
        match record.kind() {
            libc::IN_MOVED_FROM => drop(open.insert(record.cookie, record)),
            libc::IN_MOVED_TO => {
                if let Some(from) = open.remove(&record.cookie)
                    && (from.index + 1 != record.index || target_of(from, record).is_none())
                {
                    parted.push((from.index, record.index));
                }
            }
            _ => {}
        }
    }
    parted
}

#[cfg(test)]
mod tests {
    use super::super::record::encode;
    use super::*;

    const OVERFLOW: (i32, u32, u32, Option<&[u8]>) = (-1, 0x4000, 0, None);

    fn queue(records: &[(i32, u32, u32, Option<&[u8]>)]) -> Vec<u8> {
        let bytes = records.iter().flat_map(|it| encode(it.0, it.1, it.2, it.3));
        bytes.collect()
    }

    /// One word a step: the act, the inode of its watch, the events it makes.
    fn describe(queue: &[u8]) -> String {
        let plan = match Plan::new(queue, 100) {
            Ok(plan) => plan,
            Err(error) => return error.to_string(),
        };
        let words = plan.steps.iter().map(|step| {
            let act = format!("{:?}", step.act);
            let act = act.split(['(', ' ']).next().unwrap();
            format!("{act}/{:?}/{}", step.inode, step.n_events)
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_operation_makes_what_belongs_together() {
        #[track_caller]
        fn check(records: &[(i32, u32, u32, Option<&[u8]>)], expected: &str) {
            assert_eq!(describe(&queue(records)), expected);
        }
        check(
            &[(1, 0x40, 7, Some(b"a")), (2, 0x80, 7, Some(b"b"))],
            "Rename/Dir/2",
        );
        check(
            &[(1, 0x40, 7, Some(b"a")), (2, 0x80, 8, Some(b"b"))],
            "Leave/Dir/1 Enter/Dir/1",
        );
        check(&[(1, 0x400, 0, None), (1, 0x8000, 0, None)], "End/File/2");
        check(
            &[(1, 0x400, 0, None), (2, 0x8000, 0, None)],
            "End/File/1 End/File/1",
        );
        check(
            &[(5, 0x800, 0, None), (5, 0x2, 0, Some(b"x"))],
            "MoveSelf/Dir/1 TouchChild/Dir/1",
        );
        check(
            &[(5, 0x4000_0020, 0, None), (5, 0x400, 0, None)],
            "TouchSelf/Dir/1 End/Dir/1",
        );
        check(
            &[
                (5, 0x8000, 0, None),
                (5, 0x2, 0, None),
                (5, 0x8000, 0, None),
            ],
            "End/File/1 TouchSelf/File/1 End/File/1",
        );
        check(&[(5, 0x400, 0, None), OVERFLOW], "End/File/2");
    }

    #[test]
    fn what_no_kernel_path_makes_is_refused_by_name() {
        #[track_caller]
        fn check(records: &[(i32, u32, u32, Option<&[u8]>)], expected: &str) {
            assert_eq!(describe(&queue(records)), expected);
        }
        const NO_RECIPE: &str = "no system call is known to make such an event";
        for (mask, name) in [
            (0x4000_0008, None),
            (0x40, None),
            (0x100, None),
            (0x400, Some(&b"n"[..])),
            (0x3, None),
            (0x1000_0002, None),
        ] {
            let error = Plan::new(&encode(1, mask, 0, name), 100).unwrap_err();
            assert!(error.to_string().ends_with(NO_RECIPE), "{mask:#x}: {error}");
        }
        check(
            &[(1, 2, 0, None), (1, 2, 0, None)],
            "event 1 (wd 1 IN_MODIFY): the kernel would merge it into the equal event before",
        );
        check(
            &[OVERFLOW, (1, 2, 0, None), OVERFLOW],
            "event 2 (wd -1 IN_Q_OVERFLOW): a queue holds one overflow event at most",
        );
        check(
            &[
                (1, 0x400, 0, None),
                (2, 2, 0, None),
                (1, 0x8000, 0, None),
                OVERFLOW,
            ],
            "event 0 (wd 1 IN_DELETE_SELF): its watch would have to change inodes before the \
             overflow event",
        );
    }

    #[test]
    fn a_rename_that_others_split_is_named() {
        let queue = queue(&[
            (1, 0x40, 7, Some(b"a")),
            (3, 0x2, 0, None),
            (1, 0x80, 7, Some(b"b")),
            (1, 0x40, 9, Some(b"a")),
            (1, 0x80, 9, Some(b"b")),
        ]);
        assert_eq!(Plan::new(&queue, 100).unwrap().parted, [(0, 2)]);
    }

    #[test]
    fn before_an_overflow_a_rename_does_not_cross_filesystems() {
        let queue = queue(&[
            (1, 0x40, 7, Some(b"a")),
            (2, 0x80, 7, Some(b"b")),
            (1, 0x4000_2000, 0, None),
            (1, 0x8000, 0, None),
            OVERFLOW,
        ]);
        let plan = Plan::new(&queue, 100).unwrap();
        assert_eq!(plan.parted, [(0, 1)]);
        let doomed: Vec<bool> = plan.steps.iter().map(|step| step.doomed).collect();
        assert_eq!(doomed, [true, false, true, false]);
        assert_eq!(plan.steps.last().unwrap().end, queue.len());
    }
}
