//! Steps on groups of fanotify. What they give is compared with control alone: the model keeps out
//! of fanotify.
//!
//! Most report handles. An unread event of one that does not keeps a file open, of which the model of
//! inotify cannot know: where there is such a group, no file comes to its end.

use scenario::{Arg, Call, FlagSet, Name};

use super::super::rolls::Roll;
use super::{Writer, path};

const MAX_GROUPS: usize = 2;
/// `FAN_CLASS_NOTIF|FAN_NONBLOCK` with `FAN_REPORT_FID`, and with directory, name and target.
const INIT_FLAGS: [u64; 4] = [0x202, 0xe02, 0x602, 0x1e02];
/// `FAN_MARK_ADD` on an inode, ...
const MARK_FLAGS: [u64; 11] = [
    0x1, 0x1, 0x1, // on the filesystem, on the mount,
    0x101, 0x11, // on directories only, on links themselves,
    0x9, 0x5, // to be ignored in either way,
    0x461, 0x61,  // to be forgotten with the inode,
    0x201, // and `FAN_MARK_REMOVE`.
    0x2,
];
const MASKS: [u64; 6] = [
    0x0800_003b, // all of a file, of children too
    0x4800_0fff, // every event of inotify
    0x0000_0002, // FAN_MODIFY
    0x4000_0fc0, // names
    0x5000_0000, // FAN_RENAME
    0x0800_0038, // opened and closed
];

impl Writer {
    pub(super) fn fanotify_init(&mut self, process: Option<Name>, roll: Roll) {
        if self.fanotify_groups.len() == MAX_GROUPS {
            return;
        }
        let name = self.new_name("m");
        let flags = INIT_FLAGS[usize::from(roll.variant) % INIT_FLAGS.len()];
        let args = vec![
            Arg::Flags(FlagSet::FanotifyInit, flags),
            Arg::Flags(FlagSet::Open, 0),
        ];
        if self
            .bind(process.clone(), Call::FanotifyInit, args, &name)
            .is_some()
        {
            self.fanotify_groups.push((process.clone(), name));
            // A group without a mark is a bore.
            self.fanotify_mark(process, roll);
        }
    }

    /// A group whose events bring descriptors.
    pub(super) fn fanotify_init_with_files(&mut self, process: Option<Name>, roll: Roll) {
        const FAN_NONBLOCK: u64 = 0x2;
        if self.fanotify_groups.len() == MAX_GROUPS {
            return self.fanotify_read(process, roll);
        }
        let name = self.new_name("m");
        let args = vec![
            Arg::Flags(FlagSet::FanotifyInit, FAN_NONBLOCK),
            Arg::Flags(FlagSet::Open, 0),
        ];
        let made = self.bind(process.clone(), Call::FanotifyInit, args, &name);
        if made.is_some() {
            self.fanotify_groups.push((process.clone(), name));
            self.fanotify_mark(process, roll);
        }
    }

    /// Many combinations are refused, and have to be after the cut.
    pub(super) fn fanotify_mark(&mut self, process: Option<Name>, roll: Roll) {
        let Some(group) = self.fanotify_group(process.as_ref(), roll) else {
            return self.fanotify_init(process, roll);
        };
        let flags = MARK_FLAGS[usize::from(roll.second) % MARK_FLAGS.len()];
        let mask = MASKS[usize::from(roll.variant) % MASKS.len()];
        let args = vec![
            Arg::Name(group),
            Arg::Flags(FlagSet::FanotifyMark, flags),
            Arg::Flags(FlagSet::FanotifyMask, mask),
            Arg::Cwd,
            path(roll.first),
        ];
        self.any(process, Call::FanotifyMark, args);
    }

    pub(super) fn fanotify_read(&mut self, process: Option<Name>, roll: Roll) {
        if let Some(group) = self.fanotify_group(process.as_ref(), roll) {
            self.any(process, Call::Read, vec![Arg::Name(group)]);
        }
    }

    fn fanotify_group(&self, process: Option<&Name>, roll: Roll) -> Option<Name> {
        let own = self.fanotify_groups.iter();
        let own = own.filter(|(owner, _)| owner.as_ref() == process);
        let own: Vec<&Name> = own.map(|(_, name)| name).collect();
        super::pick(&own, roll.first).map(|name| (*name).clone())
    }
}
