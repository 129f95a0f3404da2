//! Which calls of `fanotify_mark` make a mark that fdinfo shows with given flags and masks.
//!
//! A mark is often not what one call asked for: `FAN_EVENT_ON_CHILD` that the kernel adds by
//! itself, an ignored mask that a write has emptied, flags that outlive the bits they came with.

use fsnotify::fanotify::{InitFlags, MarkFlags, Mask};

/// What a mark is on, as far as the calls differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Any inode but a directory.
    File,
    Mount,
    Filesystem,
    MountNamespace,
}

/// One call of `fanotify_mark`, but for group and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub flags: u32,
    pub mask: u64,
}

/// The calls for one mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Attach it, with everything that nobody has to wait for.
    pub attach: Vec<Call>,
    /// Ask for its permission events.
    pub arm: Vec<Call>,
}

/// No sequence of calls makes this mark: it has nothing left to report or to ignore, and either
/// the flag `FAN_MARK_IGNORE` or, in a group with `FAN_REPORT_TARGET_FID`, the bit that the kernel
/// sets by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmakeable;

const ADD: u32 = libc::FAN_MARK_ADD;
const REMOVE: u32 = libc::FAN_MARK_REMOVE;
/// Asked for and taken back at once where a mark needs a bit to come into being: an event that
/// every class and every target but a mount namespace knows, and that hardly anything makes.
const PASSING: u64 = libc::FAN_OPEN_EXEC;
/// The same for a mount namespace: `FAN_MNT_ATTACH`.
const PASSING_MOUNT: u64 = 0x0100_0000;

impl Kind {
    /// The flag of `fanotify_mark` for the type of object.
    #[must_use]
    pub const fn flag(self) -> u32 {
        match self {
            Self::Directory | Self::File => libc::FAN_MARK_INODE,
            Self::Mount => libc::FAN_MARK_MOUNT,
            Self::Filesystem => libc::FAN_MARK_FILESYSTEM,
            Self::MountNamespace => libc::FAN_MARK_MOUNT | libc::FAN_MARK_FILESYSTEM,
        }
    }
}

/// The calls that make a mark which fdinfo shows with these flags and masks.
///
/// # Errors
///
/// [`Unmakeable`] if there are none.
pub fn plan(
    group: InitFlags,
    kind: Kind,
    flags: MarkFlags,
    mask: Mask,
    ignored_mask: Mask,
) -> Result<Plan, Unmakeable> {
    // The kernel drops the bit from what is asked of anything but a directory, and adds it to the
    // mask in a group that names the parent; given back with REPORT_TARGET_FID it is ENOTDIR.
    let strip = |mask: Mask| match kind {
        Kind::Directory => mask.0,
        _ => mask.0 & !Mask::EVENT_ON_CHILD.0,
    };
    let permission = strip(mask) & Mask::PERMISSION.0;
    let plain = strip(mask) & !Mask::PERMISSION.0;
    let ignored = strip(ignored_mask);
    let only_added_bit = strip(mask) == 0 && mask.0 != 0;

    let add = ADD | kind.flag() | flags.0 & MarkFlags::EVICTABLE.0;
    let remove = REMOVE | kind.flag();
    let survives = flags.0 & MarkFlags::IGNORED_SURV_MODIFY.0;
    let which = if flags.contains(MarkFlags::IGNORE) {
        libc::FAN_MARK_IGNORE
    } else {
        libc::FAN_MARK_IGNORED_MASK
    };
    let passing = match kind {
        Kind::MountNamespace => PASSING_MOUNT,
        _ => PASSING,
    };
    let call = |flags, mask| Call { flags, mask };

    let mut plan = Plan::default();
    if plain != 0 {
        plan.attach.push(call(add, plain));
    } else if only_added_bit {
        let first = added_bit(group, ignored != 0, passing)?;
        plan.attach.push(call(add, first));
    } else if permission != 0 || ignored == 0 {
        if permission == 0 && flags.contains(MarkFlags::IGNORE) {
            return Err(Unmakeable);
        }
        plan.attach.push(empty(add, kind, group));
    }
    if ignored != 0 {
        plan.attach.push(call(add | which | survives, ignored));
        if only_added_bit {
            plan.attach.push(call(remove, passing));
        }
    }
    if permission != 0 {
        plan.arm.push(call(add, permission));
    }
    if ignored == 0 && (survives != 0 || flags.contains(MarkFlags::IGNORE)) {
        // Removing the last bit would remove a mark that has no mask yet.
        let calls = if plain != 0 {
            &mut plan.attach
        } else {
            &mut plan.arm
        };
        calls.push(call(add | which | survives, passing));
        calls.push(call(remove | which, passing));
    }
    Ok(plan)
}

/// What to ask for so that only the bit that the kernel adds is left in the end.
fn added_bit(group: InitFlags, ignores: bool, passing: u64) -> Result<u64, Unmakeable> {
    match (ignores, group.contains(InitFlags::REPORT_TARGET_FID)) {
        // Taken back when the ignored mask keeps the mark alive.
        (true, _) => Ok(passing),
        (false, false) => Ok(Mask::EVENT_ON_CHILD.0),
        (false, true) => Err(Unmakeable),
    }
}

/// Makes a mark without any bit: the kernel takes these flags for valid and stores neither.
fn empty(add: u32, kind: Kind, group: InitFlags) -> Call {
    if kind != Kind::Directory && !group.contains(InitFlags::REPORT_DIR_FID) {
        return Call {
            flags: add,
            mask: Mask::EVENT_ON_CHILD.0,
        };
    }
    Call {
        flags: add | libc::FAN_MARK_IGNORED_MASK,
        mask: Mask::ONDIR.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTIF: u32 = 0;
    const CONTENT: u32 = 4;
    const DIR_FID: u32 = 0x600;

    fn check(group: u32, kind: Kind, mark: (u32, u64, u64), expected: (&[Call], &[Call])) {
        let (flags, mask, ignored) = mark;
        let plan = plan(
            InitFlags(group),
            kind,
            MarkFlags(flags),
            Mask(mask),
            Mask(ignored),
        );
        let (attach, arm) = (expected.0.to_vec(), expected.1.to_vec());
        assert_eq!(
            plan,
            Ok(Plan { attach, arm }),
            "{group:x} {kind:?} {mark:x?}"
        );
    }

    fn call(flags: u32, mask: u64) -> Call {
        Call { flags, mask }
    }

    #[test]
    fn mask_and_ignored_mask_go_in_calls_of_their_own() {
        let calls = [call(0x1, 0x20), call(0x1 | 0x20, 0x2)];
        check(NOTIF, Kind::File, (0, 0x20, 0x2), (&calls, &[]));
        let calls = [call(0x101, 0x20), call(0x101 | 0x440, 0x2)];
        check(NOTIF, Kind::Filesystem, (0x440, 0x20, 0x2), (&calls, &[]));
    }

    #[test]
    fn every_call_on_an_evictable_mark_says_so() {
        let calls = [call(0x201, 0x20), call(0x201 | 0x60, 0x2)];
        check(NOTIF, Kind::File, (0x240, 0x20, 0x2), (&calls, &[]));
    }

    #[test]
    fn the_added_bit_is_left_to_the_kernel() {
        check(
            DIR_FID,
            Kind::File,
            (0, 0x0800_0004, 0),
            (&[call(0x1, 0x4)], &[]),
        );
        let given = [call(0x1, 0x0800_0004)];
        check(DIR_FID, Kind::Directory, (0, 0x0800_0004, 0), (&given, &[]));
    }

    #[test]
    fn permission_events_are_asked_for_last() {
        let attach = [call(0x1, 0x0800_0000)];
        check(
            CONTENT,
            Kind::File,
            (0, 0x1_0000, 0),
            (&attach, &[call(0x1, 0x1_0000)]),
        );
        let attach = [call(0x1, 0x20)];
        check(
            CONTENT,
            Kind::File,
            (0, 0x1_0020, 0),
            (&attach, &[call(0x1, 0x1_0000)]),
        );
    }

    #[test]
    fn an_emptied_mark_is_made_empty() {
        check(
            NOTIF,
            Kind::File,
            (0, 0, 0),
            (&[call(0x1, 0x0800_0000)], &[]),
        );
        check(
            DIR_FID,
            Kind::File,
            (0, 0, 0),
            (&[call(0x21, 0x4000_0000)], &[]),
        );
        let none = plan(
            InitFlags(0),
            Kind::File,
            MarkFlags::IGNORE,
            Mask(0),
            Mask(0),
        );
        assert_eq!(none, Err(Unmakeable));
    }
}
