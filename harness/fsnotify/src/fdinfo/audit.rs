//! Whether flags, kinds and masks of a group make sense together.
//!
//! A question apart from parsing: new kernels add bits, and a text that contradicts itself can be
//! read all the same. Who is about to act on a text from elsewhere asks here first.

use std::fmt;

use crate::fanotify::{InitFlags, MarkFlags};

use super::{Body, Group, Mark, MarkTarget, Watch};

/// Something that no kernel so far would have printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inconsistency {
    /// Index of the watch or mark in the body; none for the group itself.
    pub mark: Option<usize>,
    pub kind: InconsistencyKind,
}

/// What contradicts what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InconsistencyKind {
    /// Both classes at once.
    TwoClasses,
    /// `FAN_REPORT_NAME` without `FAN_REPORT_DIR_FID`.
    NameWithoutDirectory,
    /// A class that waits for answers together with file handles.
    HandlesInClass,
    /// `FAN_REPORT_MNT`, but the mark is not on a mount namespace; or the other way round.
    MountReport,
    /// `FAN_MARK_EVICTABLE` on something that is not an inode.
    EvictableObject,
    /// Bits that have no name yet: a newer kernel, or a forgery. A warning.
    UnknownBits,
}

/// Everything about the group that no kernel so far would have printed.
#[must_use]
pub fn audit(group: &Group) -> Vec<Inconsistency> {
    let mut found = Vec::new();
    match &group.body {
        Body::Unstated => {}
        Body::Inotify { watches } => {
            let kinds = watches.iter().map(audit_watch);
            add(&mut found, kinds);
        }
        Body::Fanotify { flags, marks, .. } => {
            let of_group = audit_flags(*flags).into_iter();
            found.extend(of_group.map(|kind| Inconsistency { mark: None, kind }));
            add(
                &mut found,
                marks.iter().map(|mark| audit_mark(mark, *flags)),
            );
        }
    }
    found
}

fn add(found: &mut Vec<Inconsistency>, kinds: impl Iterator<Item = Vec<InconsistencyKind>>) {
    for (index, kinds) in kinds.enumerate() {
        let mark = Some(index);
        found.extend(kinds.into_iter().map(|kind| Inconsistency { mark, kind }));
    }
}

fn audit_watch(watch: &Watch) -> Vec<InconsistencyKind> {
    let unknown = watch.mask.unknown().0 != 0;
    chosen([(unknown, InconsistencyKind::UnknownBits)])
}

fn audit_flags(flags: InitFlags) -> Vec<InconsistencyKind> {
    let has = |bits| flags.contains(bits);
    let handles = InitFlags::REPORT_FID.0 | InitFlags::REPORT_DIR_FID.0;
    let waits = flags.0 & InitFlags::CLASS.0 == InitFlags::CLASS_CONTENT.0;
    chosen([
        (has(InitFlags::CLASS), InconsistencyKind::TwoClasses),
        (
            has(InitFlags::REPORT_NAME) && !has(InitFlags::REPORT_DIR_FID),
            InconsistencyKind::NameWithoutDirectory,
        ),
        (
            waits && flags.0 & handles != 0,
            InconsistencyKind::HandlesInClass,
        ),
        (flags.unknown().0 != 0, InconsistencyKind::UnknownBits),
    ])
}

fn audit_mark(mark: &Mark, flags: InitFlags) -> Vec<InconsistencyKind> {
    let on_namespace = matches!(mark.target, MarkTarget::MountNamespace(_));
    let on_inode = matches!(mark.target, MarkTarget::Inode { .. });
    let unknown_flags = mark.flags.0 & !MarkFlags::SHOWN.0 != 0;
    let unknown_bits = mark.mask.unknown().0 | mark.ignored_mask.unknown().0 != 0;
    chosen([
        (
            on_namespace != flags.contains(InitFlags::REPORT_MNT),
            InconsistencyKind::MountReport,
        ),
        (
            mark.flags.contains(MarkFlags::EVICTABLE) && !on_inode,
            InconsistencyKind::EvictableObject,
        ),
        (
            unknown_flags || unknown_bits,
            InconsistencyKind::UnknownBits,
        ),
    ])
}

fn chosen<const N: usize>(kinds: [(bool, InconsistencyKind); N]) -> Vec<InconsistencyKind> {
    let chosen = kinds.into_iter().filter(|(is_so, _)| *is_so);
    chosen.map(|(_, kind)| kind).collect()
}

impl fmt::Display for Inconsistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.mark {
            write!(f, "mark {}: ", index + 1)?;
        }
        f.write_str(match self.kind {
            InconsistencyKind::TwoClasses => "FAN_CLASS_CONTENT and FAN_CLASS_PRE_CONTENT at once",
            InconsistencyKind::NameWithoutDirectory => "FAN_REPORT_NAME without FAN_REPORT_DIR_FID",
            InconsistencyKind::HandlesInClass => "file handles in a group of FAN_CLASS_CONTENT",
            InconsistencyKind::MountReport => {
                "FAN_REPORT_MNT goes with marks on mount namespaces, and with no others"
            }
            InconsistencyKind::EvictableObject => "FAN_MARK_EVICTABLE on what is not an inode",
            InconsistencyKind::UnknownBits => "bits that have no name",
        })
    }
}
