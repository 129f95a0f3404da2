//! Facts that are compared with each other: one group's events, one group's watches, the names of
//! the tree. Within a family order counts, between families it does not.

use std::collections::HashMap;

use scenario::{Bytes, Event, Fact, FanotifyEvent, MarkTarget, Name};

use crate::align::{self, Row};

/// What a fact is compared within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family<'a> {
    Events(Option<i32>),
    Content,
    Ready,
    Signal,
    Descriptors,
    Watches(&'a Option<Name>, i32),
    Marks(&'a Option<Name>, i32),
    NextWd(&'a Option<Name>, i32),
    WorkingDirectory(&'a Option<Name>),
    Bystander,
    Entries,
    Leftovers,
    Losses,
}

/// The family of a fact.
pub(crate) fn family(fact: &Fact) -> Family<'_> {
    match fact {
        Fact::Event(Event { fd, .. }) | Fact::FanotifyEvent(FanotifyEvent { fd, .. }) => {
            Family::Events(*fd)
        }
        Fact::Content(_) => Family::Content,
        Fact::Ready { .. } => Family::Ready,
        Fact::Signal { .. } => Family::Signal,
        Fact::Descriptor(_) => Family::Descriptors,
        Fact::Watch(watch) => Family::Watches(&watch.process, watch.fd),
        Fact::Mark(mark) => Family::Marks(&mark.process, mark.fd),
        Fact::NextWd { process, fd, .. } => Family::NextWd(process, *fd),
        Fact::WorkingDirectory { process, .. } => Family::WorkingDirectory(process),
        Fact::Bystander(_) => Family::Bystander,
        Fact::Entry(_) => Family::Entries,
        Fact::Leftover(_) => Family::Leftovers,
        Fact::Loss(_) => Family::Losses,
    }
}

/// Indices of the facts of one family in the two observations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) control: Vec<usize>,
    pub(crate) restored: Vec<usize>,
}

/// The families of two observations, in order of first appearance.
pub(crate) fn families<'a>(
    control: &'a [Fact],
    restored: &'a [Fact],
) -> Vec<(Family<'a>, Members)> {
    let mut position = HashMap::new();
    let mut families: Vec<(Family, Members)> = Vec::new();
    let mut members = |fact: &'a Fact, side: fn(&mut Members) -> &mut Vec<usize>, index| {
        let family = family(fact);
        let position = *position.entry(family).or_insert_with(|| {
            families.push((family, Members::default()));
            families.len() - 1
        });
        side(&mut families[position].1).push(index);
    };
    for (index, fact) in control.iter().enumerate() {
        members(fact, |members| &mut members.control, index);
    }
    for (index, fact) in restored.iter().enumerate() {
        members(fact, |members| &mut members.restored, index);
    }
    families
}

/// How the facts of a family correspond; indices into the two observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pairing {
    /// One thing in both; its fields may differ.
    Both(usize, usize),
    /// One thing in both, at another position.
    Reordered(usize, usize),
    Lost(usize),
    Spurious(usize),
}

/// Aligns the facts of a family in sequence, then pairs what stands alone: first the same thing
/// at another position, then a thing of which one field makes another.
pub(super) fn pair(members: &Members, control: &[Fact], restored: &[Fact]) -> Vec<Pairing> {
    let (a, b) = align::intern(
        members
            .control
            .iter()
            .map(|index| identity(&control[*index])),
        members
            .restored
            .iter()
            .map(|index| identity(&restored[*index])),
    );
    let rows = align::align(&a, &b);
    let mut partners = Partners::new(&rows, &a, &b);
    partners.pair_moved();
    let fact_pair =
        |i: usize, j: usize| (&control[members.control[i]], &restored[members.restored[j]]);
    partners.pair_changed(|i, j| {
        let (control, restored) = fact_pair(i, j);
        one_field_apart(control, restored, members)
    });
    let pairing = |row: Row| match row {
        Row::Both(i, j) => Some(Pairing::Both(members.control[i], members.restored[j])),
        Row::Control(i) => Some(match partners.of_control.get(&i) {
            Some((j, Apart::Position)) => {
                Pairing::Reordered(members.control[i], members.restored[*j])
            }
            Some((j, Apart::Field)) => Pairing::Both(members.control[i], members.restored[*j]),
            None => Pairing::Lost(members.control[i]),
        }),
        Row::Restored(j) if partners.is_taken(j) => None,
        Row::Restored(j) => Some(Pairing::Spurious(members.restored[j])),
    };
    rows.iter().copied().filter_map(pairing).collect()
}

/// What two facts that are paired after the alignment differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apart {
    Position,
    Field,
}

/// What stands alone in an alignment, and what of it was paired since. A *gap* is the stretch
/// between two aligned elements.
struct Partners<'a> {
    a: &'a [usize],
    b: &'a [usize],
    /// Elements that stand alone, each with its gap.
    control: Vec<(usize, usize)>,
    restored: Vec<(usize, usize)>,
    of_control: HashMap<usize, (usize, Apart)>,
    taken: Vec<bool>,
}

/// How far [`Partners::pair_changed`] looks for a partner: keeps two long queues that have nothing
/// in common from being compared each with each.
const WINDOW: usize = 32;

impl<'a> Partners<'a> {
    fn new(rows: &[Row], a: &'a [usize], b: &'a [usize]) -> Self {
        let (mut control, mut restored, mut gap) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            match *row {
                Row::Both(..) => gap += 1,
                Row::Control(i) => control.push((i, gap)),
                Row::Restored(j) => restored.push((j, gap)),
            }
        }
        let taken = vec![false; b.len()];
        Self {
            a,
            b,
            control,
            restored,
            of_control: HashMap::new(),
            taken,
        }
    }

    fn is_taken(&self, restored: usize) -> bool {
        self.taken[restored]
    }

    fn take(&mut self, control: usize, restored: usize, apart: Apart) {
        self.of_control.insert(control, (restored, apart));
        self.taken[restored] = true;
    }

    fn pair_moved(&mut self) {
        let mut waiting: HashMap<usize, Vec<usize>> = HashMap::new();
        for &(j, _) in self.restored.iter().rev() {
            waiting.entry(self.b[j]).or_default().push(j);
        }
        for (i, _) in self.control.clone() {
            if let Some(j) = waiting.get_mut(&self.a[i]).and_then(Vec::pop) {
                self.take(i, j, Apart::Position);
            }
        }
    }

    fn pair_changed(&mut self, one_field_apart: impl Fn(usize, usize) -> bool) {
        let mut first = 0;
        for (i, gap) in self.control.clone() {
            if self.of_control.contains_key(&i) {
                continue;
            }
            while self
                .restored
                .get(first)
                .is_some_and(|&(j, at)| at < gap || self.taken[j])
            {
                first += 1;
            }
            let near = self.restored[first..]
                .iter()
                .take_while(|&&(_, at)| at == gap);
            let free = near.take(WINDOW).filter(|&&(j, _)| !self.taken[j]);
            let found = free.map(|&(j, _)| j).find(|&j| one_field_apart(i, j));
            if let Some(j) = found {
                self.take(i, j, Apart::Field);
            }
        }
    }
}

/// What makes two facts of a family the same thing. The rest are fields of it.
#[derive(PartialEq, Eq, Hash)]
enum Identity<'a> {
    Event {
        wd: i32,
        mask: u32,
        paired: bool,
        name: &'a Bytes,
    },
    Ready(u64),
    Signal(i32),
    Descriptor(&'a Option<Name>, i32),
    Wd(i32),
    Target(&'a MarkTarget),
    Path(&'a Bytes),
    /// One of its kind.
    Only,
    Whole(&'a Fact),
}

fn identity(fact: &Fact) -> Identity<'_> {
    match fact {
        Fact::Event(event) => Identity::Event {
            wd: event.wd,
            mask: event.mask.0,
            paired: event.cookie != 0,
            name: &event.name,
        },
        Fact::Ready { data, .. } => Identity::Ready(*data),
        Fact::Signal { signal, .. } => Identity::Signal(*signal),
        Fact::Descriptor(descriptor) => Identity::Descriptor(&descriptor.process, descriptor.fd),
        Fact::Watch(watch) => Identity::Wd(watch.wd),
        Fact::Mark(mark) => Identity::Target(&mark.target),
        Fact::Entry(entry) => Identity::Path(&entry.path),
        Fact::NextWd { .. } | Fact::WorkingDirectory { .. } => Identity::Only,
        Fact::FanotifyEvent(_)
        | Fact::Content(_)
        | Fact::Bystander(_)
        | Fact::Leftover(_)
        | Fact::Loss(_) => Identity::Whole(fact),
    }
}

/// Whether two facts that stand alone are better told as one that changed. Events under two names
/// are two events, unless one name is the other with something behind it (`a`, `a.cr.1.ghost`).
fn one_field_apart(control: &Fact, restored: &Fact, members: &Members) -> bool {
    match (control, restored) {
        (Fact::Event(a), Fact::Event(b)) => {
            let equal = [a.wd == b.wd, a.mask == b.mask, a.name == b.name];
            // Equal in all three and still apart: one has a cookie, the other has none.
            equal.iter().filter(|equal| **equal).count() >= 2
                && KIND & a.mask.0 & b.mask.0 != 0
                && (a.name.0.starts_with(&b.name.0) || b.name.0.starts_with(&a.name.0))
        }
        (Fact::FanotifyEvent(a), Fact::FanotifyEvent(b)) => {
            let equal = [
                a.mask == b.mask,
                a.process == b.process,
                a.object == b.object,
                a.records == b.records,
            ];
            equal.iter().filter(|equal| **equal).count() == 3
                && u64::from(KIND) & a.mask & b.mask != 0
        }
        (Fact::Watch(a), Fact::Watch(b)) => a.target == b.target,
        (Fact::Content(_), Fact::Content(_)) => {
            members.control.len() == 1 && members.restored.len() == 1
        }
        _ => false,
    }
}

/// Bits that say what happened; the others say to what (`IN_ISDIR`). The numbers of inotify and
/// fanotify are the same here.
const KIND: u32 = 0x003f_ffff;
