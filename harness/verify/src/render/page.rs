//! One place of two runs: which facts stand in both and which in one, and the lines of its block.

use std::collections::{HashMap, HashSet};

use scenario::{
    Call, Descriptor, DescriptorKind, Expect, Fact, Name, Object, Observation, Outcome, Place, Step,
};

use super::Detail;
use super::lines::{Line, Sign};
use crate::diff::family::{Family, Members, families};
use crate::difference::{Difference, Kind};
use crate::text;

/// The differences of one place, by the fact that they are about.
pub(super) struct Remarks<'a> {
    of_control: HashMap<usize, Vec<&'a Difference>>,
    of_restored: HashMap<usize, Vec<&'a Difference>>,
    pub(super) outcome: Option<&'a Difference>,
}

impl<'a> Remarks<'a> {
    pub(super) fn of(differences: &[&'a Difference]) -> Self {
        let mut remarks = Self {
            of_control: HashMap::new(),
            of_restored: HashMap::new(),
            outcome: None,
        };
        for &difference in differences {
            if difference.kind == Kind::Outcome {
                remarks.outcome = Some(difference);
            }
            let index = |side: &Option<crate::Side>| side.as_ref().and_then(|side| side.index);
            if let Some(index) = index(&difference.control) {
                remarks
                    .of_control
                    .entry(index)
                    .or_default()
                    .push(difference);
            }
            if let Some(index) = index(&difference.restored) {
                remarks
                    .of_restored
                    .entry(index)
                    .or_default()
                    .push(difference);
            }
        }
        remarks
    }

    pub(super) fn on_control(&self, index: usize) -> &[&'a Difference] {
        self.of_control.get(&index).map_or(&[], Vec::as_slice)
    }

    pub(super) fn on_restored(&self, index: usize) -> &[&'a Difference] {
        self.of_restored.get(&index).map_or(&[], Vec::as_slice)
    }
}

/// What stands after a line: `changed    I3.1 mask, I2.1 target`.
fn remark(differences: &[&Difference], kind: Kind) -> String {
    let of_kind: Vec<&&Difference> = differences.iter().filter(|it| it.kind == kind).collect();
    let cite = |it: &&&Difference| match &it.field {
        Some(field) => format!("{} {field}", it.invariant),
        None => it.invariant.to_string(),
    };
    match of_kind.iter().find_map(|it| it.unavoidable) {
        Some(rule) => format!("{:<11} {rule}", "unavoidable"),
        None => {
            let cited: Vec<String> = of_kind.iter().map(cite).collect();
            format!("{kind:<11} {}", cited.join(", "))
        }
    }
}

/// One place of the two runs.
pub(super) struct Page<'a> {
    pub(super) control: &'a Observation,
    pub(super) restored: &'a Observation,
    pub(super) remarks: Remarks<'a>,
    pub(super) detail: Detail,
}

/// How a fact stands in the two runs.
#[derive(Clone, Copy)]
pub(super) enum Standing {
    Both(usize, usize),
    Control(usize),
    Restored(usize),
}

impl Page<'_> {
    pub(super) fn lines(&self, step: Option<&Step>) -> Vec<Line> {
        let mut lines = Vec::new();
        let body = self.body();
        let open = if body.is_empty() { "" } else { " {" };
        match (step, self.remarks.outcome) {
            (None, _) if body.is_empty() => return lines,
            (None, _) => lines.push(Line::same(0, format!("end{open}"))),
            (Some(step), None) => {
                let head = head(step, self.control, !body.is_empty());
                lines.push(Line::same(0, format!("{head}{open}")));
            }
            (Some(step), Some(difference)) => {
                let line = |sign, observation, open| Line {
                    sign,
                    ..Line::same(0, format!("{}{open}", head(step, observation, false)))
                };
                let remark = remark(&[difference], Kind::Outcome);
                lines.push(Line {
                    remark,
                    ..line(Sign::Minus, self.control, "")
                });
                lines.push(line(Sign::Plus, self.restored, open));
            }
        }
        if !body.is_empty() {
            lines.extend(body);
            lines.push(Line::same(0, "}"));
        }
        lines
    }

    /// The block: each descriptor followed by what hangs on it, then the rest in order.
    fn body(&self) -> Vec<Line> {
        let families = families(&self.control.facts, &self.restored.facts);
        let owned = |process: &Option<Name>, fd: i32| -> Vec<&(Family<'_>, Members)> {
            let hangs = |family: &Family<'_>| match family {
                Family::Watches(p, f) | Family::Marks(p, f) | Family::NextWd(p, f) => {
                    *p == process && *f == fd
                }
                _ => false,
            };
            families
                .iter()
                .filter(|(family, _)| hangs(family))
                .collect()
        };
        let mut lines = Vec::new();
        let mut shown: HashSet<Family<'_>> = HashSet::new();
        for (family, members) in &families {
            if shown.contains(family) {
                continue;
            }
            if *family != Family::Descriptors {
                lines.extend(self.family(family, members, 1));
                continue;
            }
            for standing in self.walk(members) {
                let Some(descriptor) = self.descriptor(standing) else {
                    continue;
                };
                let hanging = owned(&descriptor.process, descriptor.fd);
                let depth = if self.control.place == Place::End {
                    1
                } else {
                    2
                };
                let below: Vec<Line> = hanging
                    .iter()
                    .flat_map(|(family, members)| self.family(family, members, depth))
                    .collect();
                shown.extend(hanging.iter().map(|(family, _)| *family));
                lines.extend(self.standing(standing, 1));
                if descriptor.shared_with.is_none() || below.iter().any(|it| it.sign != Sign::Same)
                {
                    lines.extend(below);
                }
            }
        }
        lines
    }

    fn descriptor(&self, standing: Standing) -> Option<&Descriptor> {
        let fact = match standing {
            Standing::Both(i, _) | Standing::Control(i) => &self.control.facts[i],
            Standing::Restored(j) => &self.restored.facts[j],
        };
        match fact {
            Fact::Descriptor(descriptor) => Some(descriptor),
            _ => None,
        }
    }

    fn family(&self, family: &Family<'_>, members: &Members, depth: usize) -> Vec<Line> {
        let mut lines: Vec<Line> = self
            .walk(members)
            .into_iter()
            .flat_map(|it| self.standing(it, depth))
            .collect();
        if let (Family::Events(Some(fd)), false) = (family, lines.is_empty()) {
            for line in &mut lines {
                line.depth += 1;
            }
            lines.insert(0, Line::same(depth, format!("unread in fd {fd}:")));
        }
        lines
    }

    /// The facts of a family in an order that keeps both runs' own.
    pub(super) fn walk(&self, members: &Members) -> Vec<Standing> {
        let alone = |differences: &[&Difference], kind: Kind| {
            differences
                .iter()
                .any(|it| it.kind == kind || it.kind == Kind::Reordered)
        };
        let mut walk = Vec::new();
        let mut waiting: HashSet<usize> = HashSet::new();
        let mut restored = members.restored.iter().copied().peekable();
        for &i in &members.control {
            let remarks = self.remarks.on_control(i);
            if alone(remarks, Kind::Lost) {
                walk.push(Standing::Control(i));
                continue;
            }
            let is_alone = |j: &usize| {
                waiting.contains(j) || alone(self.remarks.on_restored(*j), Kind::Spurious)
            };
            while let Some(j) = restored.next_if(is_alone) {
                walk.push(Standing::Restored(j));
            }
            let partner = remarks.iter().find_map(|it| it.restored.as_ref()?.index);
            match partner.filter(|partner| restored.peek() != Some(partner)) {
                // Changed, and its partner stands elsewhere: there it gets a line of its own.
                Some(elsewhere) => {
                    waiting.insert(elsewhere);
                    walk.push(Standing::Control(i));
                }
                None => walk.extend(restored.next().map(|j| Standing::Both(i, j))),
            }
        }
        walk.extend(restored.map(Standing::Restored));
        walk
    }

    fn standing(&self, standing: Standing, depth: usize) -> Vec<Line> {
        let line = |sign, fact: &Fact, remark| Line {
            sign,
            remark,
            ..Line::same(depth, self.fact_text(fact))
        };
        match standing {
            Standing::Both(i, j) => self.both(i, j, depth),
            Standing::Control(i) => {
                let remarks = self.remarks.on_control(i);
                let Some(first) = remarks.first().filter(|_| !self.hides(remarks)) else {
                    return Vec::new();
                };
                vec![line(
                    Sign::Minus,
                    &self.control.facts[i],
                    remark(remarks, first.kind),
                )]
            }
            Standing::Restored(j) => {
                let remarks = self.remarks.on_restored(j);
                // What an engine declares is no difference.
                if let loss @ Fact::Loss(_) = &self.restored.facts[j] {
                    return vec![line(Sign::Same, loss, String::new())];
                }
                let Some(first) = remarks.first().filter(|_| !self.hides(remarks)) else {
                    return Vec::new();
                };
                let sign = if first.is_defect() {
                    Sign::Plus
                } else {
                    Sign::Same
                };
                vec![line(
                    sign,
                    &self.restored.facts[j],
                    remark(remarks, first.kind),
                )]
            }
        }
    }

    /// At the end only what no earlier survey has shown is told.
    fn hides(&self, differences: &[&Difference]) -> bool {
        self.control.place == Place::End && differences.iter().all(|it| it.repeated)
    }

    fn both(&self, i: usize, j: usize, depth: usize) -> Vec<Line> {
        let (control, restored) = (&self.control.facts[i], &self.restored.facts[j]);
        let remarks = self.remarks.on_control(i);
        if remarks.is_empty() || self.hides(remarks) {
            let shown = self.detail == Detail::All || self.is_telling(control);
            return if shown {
                vec![Line::same(depth, self.fact_text(control))]
            } else {
                Vec::new()
            };
        }
        let texts = (self.fact_text(control), self.fact_text(restored));
        let by_field =
            matches!(control, Fact::Descriptor(_) | Fact::Entry(_)) || texts.0 == texts.1;
        let pair = |control: String, restored: String, remark| {
            let minus = Line {
                sign: Sign::Minus,
                remark,
                ..Line::same(depth, control)
            };
            [
                minus,
                Line {
                    sign: Sign::Plus,
                    ..Line::same(depth, restored)
                },
            ]
        };
        if !by_field {
            return pair(texts.0, texts.1, remark(remarks, Kind::Changed)).to_vec();
        }
        let telling = matches!(control, Fact::Descriptor(it) if is_telling(it));
        let mut lines = Vec::new();
        if telling {
            lines.push(Line::same(depth, texts.0));
        }
        for difference in remarks {
            let field = difference.field.as_deref().unwrap_or_default();
            let side = |side: &Option<crate::Side>| {
                let value = side.as_ref().map_or("", |side| &side.text);
                format!("{}: {field} {value}", difference.object)
            };
            let remark = format!(
                "{:<11} {}",
                difference.kind.to_string(),
                difference.invariant
            );
            lines.extend(pair(
                side(&difference.control),
                side(&difference.restored),
                remark,
            ));
        }
        lines
    }

    /// Whether a fact that is the same in both is worth a line.
    fn is_telling(&self, fact: &Fact) -> bool {
        match fact {
            Fact::Event(_)
            | Fact::FanotifyEvent(_)
            | Fact::Content(_)
            | Fact::Ready { .. }
            | Fact::Signal { .. }
            | Fact::Bystander(_)
            | Fact::Leftover(_)
            | Fact::Loss(_) => true,
            Fact::Descriptor(descriptor) => {
                self.control.place != Place::End && is_telling(descriptor)
            }
            Fact::Watch(_) | Fact::Mark(_) | Fact::NextWd { .. } => {
                self.control.place != Place::End
            }
            Fact::Entry(_) | Fact::WorkingDirectory { .. } => false,
        }
    }

    /// At the end no descriptor stands above its watches.
    pub(super) fn fact_text(&self, fact: &Fact) -> String {
        let text = text::fact(fact);
        let group = match fact {
            Fact::Watch(it) => Some((&it.process, it.fd)),
            Fact::Mark(it) => Some((&it.process, it.fd)),
            Fact::NextWd { process, fd, .. } => Some((process, *fd)),
            _ => None,
        };
        match group.filter(|_| self.control.place == Place::End) {
            Some((process, fd)) => format!("{}: {text}", text::fd_of(process.as_ref(), fd)),
            None => text,
        }
    }
}

/// Groups, what refers to them, and ghosts.
fn is_telling(descriptor: &Descriptor) -> bool {
    match descriptor.kind {
        DescriptorKind::Inotify | DescriptorKind::Fanotify | DescriptorKind::Epoll => true,
        DescriptorKind::Regular
        | DescriptorKind::Directory
        | DescriptorKind::Fifo
        | DescriptorKind::Socket
        | DescriptorKind::Symlink
        | DescriptorKind::Device
        | DescriptorKind::Other => matches!(descriptor.object, Object::Ghost(_)),
    }
}

/// A step with its result. Of a step that yielded something the block tells the number.
fn head(step: &Step, observation: &Observation, has_block: bool) -> String {
    let call = step.invocation();
    match (observation.outcome, &step.expect) {
        (Outcome::None, Expect::Bind(Name(name))) => format!("{call} = {name}"),
        (Outcome::None, _) => call.to_string(),
        (Outcome::Value(_), _) if has_block => format!("{call} ="),
        (Outcome::Value(value), Expect::Bind(Name(name))) => format!("{call} = {value}<{name}>"),
        (Outcome::Value(0), _) if matches!(step.call, Call::DropCaches | Call::Signals) => {
            call.to_string()
        }
        (outcome, _) => format!("{call} = {}", text::outcome(outcome)),
    }
}
