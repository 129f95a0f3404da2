//! Steps on names.

use scenario::{Arg, Call, FlagSet, Name, Time};

use super::super::rolls::Roll;
use super::{Writer, bytes, path};

/// Beyond the usual length of a queue.
const FLOOD: i64 = 17_000;

impl Writer {
    pub(super) fn with_path(&mut self, process: Option<Name>, call: Call, roll: Roll) {
        self.push_or_fail(process, call, vec![path(roll.first)], roll);
    }

    pub(super) fn rename(&mut self, process: Option<Name>, roll: Roll) {
        let (old, new) = (path(roll.first), path(roll.second));
        if roll.variant.is_multiple_of(4) {
            let flags = Arg::Flags(FlagSet::Rename, 2);
            let args = vec![Arg::Cwd, old, Arg::Cwd, new, flags];
            self.push_or_fail(process, Call::Renameat2, args, roll);
        } else {
            self.push_or_fail(process, Call::Rename, vec![old, new], roll);
        }
    }

    pub(super) fn make(&mut self, process: Option<Name>, roll: Roll) {
        let (call, args) = match roll.variant % 3 {
            0 => (Call::Link, vec![path(roll.first), path(roll.second)]),
            1 => (Call::Mkdir, vec![path(roll.first), Arg::Mode(0o755)]),
            _ => (Call::Symlink, vec![path(roll.second), path(roll.first)]),
        };
        self.push_or_fail(process, call, args, roll);
    }

    pub(super) fn attributes(&mut self, process: Option<Name>, roll: Roll) {
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

    /// Rare, since it takes as long as all the rest.
    pub(super) fn flood(&mut self, roll: Roll) {
        if roll.second.is_multiple_of(16) {
            self.push(None, Call::Flood, vec![path(roll.first), Arg::Int(FLOOD)]);
        }
    }

    /// An attribute is set, or removed.
    pub(super) fn xattr(&mut self, process: Option<Name>, roll: Roll) {
        let name = bytes(["user.a", "user.b"][usize::from(roll.second) % 2]);
        let (call, args) = if roll.variant % 4 == 3 {
            (Call::Removexattr, vec![path(roll.first), name])
        } else {
            let flags = Arg::Flags(FlagSet::Xattr, 0);
            (
                Call::Setxattr,
                vec![path(roll.first), name, bytes("value"), flags],
            )
        };
        self.push_or_fail(process, call, args, roll);
    }

    /// Into a directory of the world, and out of it again if chance wants it.
    pub(super) fn chdir(&mut self, process: Option<Name>, roll: Roll) {
        let to = if roll.variant % 3 == 1 {
            bytes("..")
        } else {
            path(roll.first)
        };
        self.push_or_fail(process, Call::Chdir, vec![to], roll);
    }
}
