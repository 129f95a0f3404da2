//! Two captures: what somebody's checkpoint and restore made of the watches. The differences cite
//! the sentences of `INVARIANTS.md`.

use std::fmt;

use fsnotify::counted;

use super::capture::{Capture, CapturedGroup, CapturedMark, CapturedTarget, CapturedWatch};

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The sentence that does not hold: `I2.1`.
    pub invariant: &'static str,
    /// `fd 3: wd 2 on /etc`.
    pub object: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Lost,
    New,
    Changed {
        field: &'static str,
        before: String,
        after: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            invariant, object, ..
        } = self;
        match &self.what {
            What::Lost => write!(f, "- {object}: lost ({invariant})"),
            What::New => write!(f, "+ {object}: new ({invariant})"),
            What::Changed {
                field,
                before,
                after,
            } => write!(
                f,
                "! {object}: {field} was {before}, is {after} ({invariant})"
            ),
        }
    }
}

/// What differs between a process before a checkpoint and after the restore.
#[must_use]
pub fn compare(before: &Capture, after: &Capture) -> Vec<Difference> {
    let mut found = Comparison {
        same_boot: !before.boot_id.is_empty() && before.boot_id == after.boot_id,
        differences: Vec::new(),
    };
    let n_processes = before.processes.len().max(after.processes.len());
    for place in 0..n_processes {
        let (one, other) = (before.processes.get(place), after.processes.get(place));
        let name = |process: &super::capture::Process| match place {
            0 => String::new(),
            place => format!("process {place} ({}): ", process.name),
        };
        match (one, other) {
            (Some(one), Some(other)) => found.groups(&name(one), &one.groups, &other.groups),
            (Some(one), None) => found.groups(&name(one), &one.groups, &[]),
            (None, Some(other)) => found.groups(&name(other), &[], &other.groups),
            (None, None) => {}
        }
    }
    found.differences
}

struct Comparison {
    same_boot: bool,
    differences: Vec<Difference>,
}

impl Comparison {
    fn add(&mut self, invariant: &'static str, object: &str, what: What) {
        self.differences.push(Difference {
            invariant,
            object: object.to_owned(),
            what,
        });
    }

    fn field<T: PartialEq>(
        &mut self,
        (invariant, object, field): (&'static str, &str, &'static str),
        (before, after): (&T, &T),
        text: impl Fn(&T) -> String,
    ) {
        if before != after {
            let what = What::Changed {
                field,
                before: text(before),
                after: text(after),
            };
            self.add(invariant, object, what);
        }
    }

    fn groups(&mut self, process: &str, before: &[CapturedGroup], after: &[CapturedGroup]) {
        for one in before {
            let object = format!("{process}fd {}", one.fd);
            match after.iter().find(|other| other.fd == one.fd) {
                Some(other) => self.group(&object, one, other),
                None => self.add("I1.1", &format!("{object}, {}", one.kind), What::Lost),
            }
        }
        let is_new = |other: &&CapturedGroup| before.iter().all(|one| one.fd != other.fd);
        for other in after.iter().filter(is_new) {
            let object = format!("{process}fd {}, {}", other.fd, other.kind);
            self.add("I10.4", &object, What::New);
        }
    }

    fn group(&mut self, object: &str, before: &CapturedGroup, after: &CapturedGroup) {
        let flags = |flags: &Option<String>| flags.clone().unwrap_or_else(|| "none".to_owned());
        self.field(
            ("I1.1", object, "kind"),
            (&before.kind, &after.kind),
            String::clone,
        );
        self.field(
            ("I1.2", object, "flags"),
            (&before.status_flags, &after.status_flags),
            String::clone,
        );
        self.field(
            ("I1.4", object, "shared"),
            (&before.shared_with, &after.shared_with),
            |sharers| format!("with {}", counted(sharers.len(), "descriptor")),
        );
        self.field(
            ("I3.6", object, "flags of fanotify_init"),
            (&before.init_flags, &after.init_flags),
            flags,
        );
        self.field(
            ("I3.6", object, "event flags"),
            (&before.event_flags, &after.event_flags),
            flags,
        );
        if let (Some(one), Some(other)) = (&before.unread_bytes, &after.unread_bytes) {
            self.field(
                ("I4.6", object, "unread bytes"),
                (one, other),
                u64::to_string,
            );
        }
        self.watches(object, &before.watches, &after.watches);
        self.marks(object, &before.marks, &after.marks);
    }

    fn watches(&mut self, group: &str, before: &[CapturedWatch], after: &[CapturedWatch]) {
        let mut paired = vec![false; after.len()];
        let mut pair = |find: &dyn Fn(&CapturedWatch) -> bool| {
            let free = (0..after.len()).find(|index| !paired[*index] && find(&after[*index]))?;
            paired[free] = true;
            Some(&after[free])
        };
        // First by number and object, then by object alone: those got another number.
        let exact: Vec<Option<&CapturedWatch>> = before
            .iter()
            .map(|one| pair(&|other| other.wd == one.wd && self.same(&one.target, &other.target)))
            .collect();
        let found: Vec<Option<&CapturedWatch>> = before
            .iter()
            .zip(exact)
            .map(|(one, exact)| {
                exact.or_else(|| pair(&|other| self.same(&one.target, &other.target)))
            })
            .collect();
        for (one, other) in before.iter().zip(&found) {
            let object = format!("{group}: wd {} on {}", one.wd, one.target.name);
            match other {
                None => self.add("I2.1", &object, What::Lost),
                Some(other) => {
                    self.field(
                        ("I2.1", &object, "wd"),
                        (&one.wd, &other.wd),
                        i32::to_string,
                    );
                    self.field(
                        ("I3.1", &object, "mask"),
                        (&one.mask, &other.mask),
                        String::clone,
                    );
                    self.name(&object, &one.target, &other.target);
                }
            }
        }
        for (other, _) in after.iter().zip(&paired).filter(|(_, paired)| !**paired) {
            let object = format!("{group}: wd {} on {}", other.wd, other.target.name);
            self.add("I2.2", &object, What::New);
        }
        let order = |watches: &mut dyn Iterator<Item = i32>| -> Vec<i32> { watches.collect() };
        let kept: Vec<i32> = order(&mut found.iter().flatten().map(|other| other.wd));
        let now = order(
            &mut after
                .iter()
                .map(|other| other.wd)
                .filter(|wd| kept.contains(wd)),
        );
        self.field(("I2.4", group, "order of watches"), (&kept, &now), |wds| {
            let wds: Vec<String> = wds.iter().map(i32::to_string).collect();
            wds.join(" ")
        });
    }

    fn marks(&mut self, group: &str, before: &[CapturedMark], after: &[CapturedMark]) {
        let mut paired = vec![false; after.len()];
        for one in before {
            let object = format!("{group}: {} mark on {}", one.on, one.place.name);
            let same =
                |other: &CapturedMark| other.on == one.on && self.same(&one.place, &other.place);
            let found = (0..after.len()).find(|index| !paired[*index] && same(&after[*index]));
            let Some(index) = found else {
                self.add("I3.2", &object, What::Lost);
                continue;
            };
            paired[index] = true;
            let other = &after[index];
            let fields = [
                ("I3.4", "mask", &one.mask, &other.mask),
                (
                    "I3.4",
                    "ignored mask",
                    &one.ignored_mask,
                    &other.ignored_mask,
                ),
                ("I3.5", "flags", &one.flags, &other.flags),
            ];
            for (invariant, field, before, after) in fields {
                self.field((invariant, &object, field), (before, after), String::clone);
            }
            self.name(&object, &one.place, &other.place);
        }
        for (other, _) in after.iter().zip(&paired).filter(|(_, paired)| !**paired) {
            let object = format!("{group}: {} mark on {}", other.on, other.place.name);
            self.add("I3.3", &object, What::New);
        }
    }

    /// Whether it is the object that it was: the same inode, or within another boot the same name.
    /// A ghost that was made again has its old name and another inode.
    fn same(&self, one: &CapturedTarget, other: &CapturedTarget) -> bool {
        let same_inode = one.device == other.device
            && one.inode == other.inode
            && one.handle == other.handle
            && one.inode != 0;
        self.same_boot && same_inode || one.name == other.name
    }

    /// Of what is the same object: whether name and inode are.
    fn name(&mut self, object: &str, one: &CapturedTarget, other: &CapturedTarget) {
        self.field(
            ("I2.1", object, "path"),
            (&one.name, &other.name),
            String::clone,
        );
        let is_ghost = one.name.starts_with("ghost ");
        if self.same_boot && !is_ghost && one.name == other.name {
            let inode = |target: &CapturedTarget| format!("{} of {}", target.inode, target.device);
            let with_handle = |target: &CapturedTarget| {
                let handle = target.handle.as_deref().unwrap_or("none");
                format!("{}, handle {handle}", inode(target))
            };
            self.field(
                ("I2.1", object, "inode"),
                (&with_handle(one), &with_handle(other)),
                String::clone,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::capture::{Process, VERSION};

    fn capture(watches: &[(i32, &str, &str, u64)], unread: u64) -> Capture {
        let watch = |(wd, mask, name, inode): &(i32, &str, &str, u64)| CapturedWatch {
            wd: *wd,
            mask: (*mask).to_owned(),
            target: CapturedTarget {
                name: (*name).to_owned(),
                device: "8:1".to_owned(),
                inode: *inode,
                handle: None,
            },
        };
        Capture {
            capture: VERSION,
            program: String::new(),
            boot_id: "boot".to_owned(),
            processes: vec![Process {
                pid: 1,
                name: "program".to_owned(),
                groups: vec![CapturedGroup {
                    fd: 3,
                    kind: "inotify".to_owned(),
                    status_flags: "O_RDONLY".to_owned(),
                    init_flags: None,
                    event_flags: None,
                    shared_with: Vec::new(),
                    unread_bytes: Some(unread),
                    watches: watches.iter().map(watch).collect(),
                    marks: Vec::new(),
                }],
            }],
        }
    }

    const BEFORE: [(i32, &str, &str, u64); 2] = [
        (2, "IN_MODIFY|IN_ONESHOT", "/b", 12),
        (1, "IN_CREATE", "/a", 11),
    ];

    fn check(after: &[(i32, &str, &str, u64)], unread: u64, expected: &[&str]) {
        let differences = compare(&capture(&BEFORE, 32), &capture(after, unread));
        let lines: Vec<String> = differences.iter().map(Difference::to_string).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_capture_equals_itself() {
        check(&BEFORE, 32, &[]);
    }

    #[test]
    fn each_difference_is_told_by_itself() {
        check(
            &[(2, "IN_MODIFY", "/b", 12), (1, "IN_CREATE", "/a", 11)],
            0,
            &[
                "! fd 3: unread bytes was 32, is 0 (I4.6)",
                "! fd 3: wd 2 on /b: mask was IN_MODIFY|IN_ONESHOT, is IN_MODIFY (I3.1)",
            ],
        );
        check(
            &[(2, "IN_MODIFY|IN_ONESHOT", "/b", 12)],
            32,
            &["- fd 3: wd 1 on /a: lost (I2.1)"],
        );
        check(
            &[
                (5, "IN_MODIFY|IN_ONESHOT", "/b", 12),
                (1, "IN_CREATE", "/a", 11),
            ],
            32,
            &["! fd 3: wd 2 on /b: wd was 2, is 5 (I2.1)"],
        );
        check(
            &[
                (1, "IN_CREATE", "/a", 11),
                (2, "IN_MODIFY|IN_ONESHOT", "/b", 12),
            ],
            32,
            &["! fd 3: order of watches was 2 1, is 1 2 (I2.4)"],
        );
        check(
            &[
                (2, "IN_MODIFY|IN_ONESHOT", "/b", 99),
                (1, "IN_CREATE", "/c", 11),
            ],
            32,
            &[
                "! fd 3: wd 2 on /b: inode was 12 of 8:1, handle none, is 99 of 8:1, handle none \
                 (I2.1)",
                "! fd 3: wd 1 on /a: path was /a, is /c (I2.1)",
            ],
        );
        check(
            &[
                (2, "IN_MODIFY|IN_ONESHOT", "/b", 12),
                (1, "IN_CREATE", "/a", 11),
                (3, "IN_OPEN", "/d", 14),
            ],
            32,
            &["+ fd 3: wd 3 on /d: new (I2.2)"],
        );
    }
}
