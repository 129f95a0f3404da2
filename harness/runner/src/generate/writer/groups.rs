//! Steps on groups of inotify.

use scenario::call::{fcntl, ioctl};
use scenario::{Arg, Call, Expect, FlagSet, Name};

use super::super::rolls::Roll;
use super::{PATHS, Writer, bytes, pick};

const MAX_GROUPS: usize = 3;
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

impl Writer {
    pub(super) fn init(&mut self, process: Option<Name>) {
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

    pub(super) fn watch(&mut self, process: Option<Name>, roll: Roll) {
        let Some(group) = self.group_of(process.as_ref(), roll.second) else {
            return;
        };
        let mask = MASKS[usize::from(roll.variant) % MASKS.len()];
        let path = PATHS[usize::from(roll.first) % PATHS.len()];
        self.add_watch(&(process, group), path, mask);
    }

    /// A watch on what a descriptor refers to: a ghost, perhaps.
    pub(super) fn watch_descriptor(&mut self, process: Option<Name>, roll: Roll) {
        let Some(group) = self.group_of(process.as_ref(), roll.second) else {
            return;
        };
        let fd = 3 + i32::from(roll.first % 6);
        let mask = MASKS[usize::from(roll.variant) % MASKS.len()];
        self.add_watch(&(process, group), &format!("/proc/self/fd/{fd}"), mask);
    }

    pub(super) fn add_watch(
        &mut self,
        (process, group): &(Option<Name>, Name),
        path: &str,
        mask: u64,
    ) {
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

    pub(super) fn unwatch(&mut self, process: Option<Name>, roll: Roll) {
        let Some((group, wd)) = pick(&self.watches, roll.first).cloned() else {
            return;
        };
        let is_own = self.groups.contains(&(process.clone(), group.clone()));
        if is_own {
            let args = vec![Arg::Name(group), Arg::Int(wd)];
            self.push_or_fail(process, Call::InotifyRmWatch, args, roll);
        }
    }

    pub(super) fn read_group(&mut self, process: Option<Name>, roll: Roll) {
        if let Some(group) = self.group_of(process.as_ref(), roll.first) {
            let mut args = vec![Arg::Name(group)];
            if roll.variant % 8 == 1 {
                args.push(Arg::Int(64));
            }
            self.push_or_fail(process, Call::Read, args, roll);
        }
    }

    pub(super) fn set_next_wd(&mut self, process: Option<Name>, roll: Roll) {
        const NUMBERS: [i64; 4] = [40, 2, 1, 0x7fff_fffe];
        if let Some(group) = self.group_of(process.as_ref(), roll.first) {
            let number = NUMBERS[usize::from(roll.variant) % NUMBERS.len()];
            let request = Arg::Flags(FlagSet::Ioctl, ioctl::INOTIFY_SETNEXTWD);
            let args = vec![Arg::Name(group), request, Arg::Int(number)];
            self.push(process, Call::Ioctl, args);
        }
    }

    pub(super) fn dup(&mut self, process: Option<Name>, roll: Roll) {
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

    /// A group, or one of its descriptors, goes; not the last one.
    pub(super) fn close_group(&mut self, process: Option<Name>, roll: Roll) {
        let own = |(owner, _): &&(Option<Name>, Name)| *owner == process;
        if self.groups.iter().filter(own).count() < 2 {
            return;
        }
        let Some(name) = self.group_of(process.as_ref(), roll.first) else {
            return;
        };
        let args = vec![Arg::Name(name.clone())];
        if self.push(process.clone(), Call::Close, args).is_some() {
            self.groups
                .retain(|it| *it != (process.clone(), name.clone()));
        }
    }

    /// A signal when there is something to read, and who gets it.
    pub(super) fn async_signal(&mut self, roll: Roll) {
        const O_NONBLOCK: u64 = 0o4_000;
        const O_ASYNC: u64 = 0o20_000;
        const SIGUSR1: u64 = 10;
        let Some(group) = self.group_of(None, roll.first) else {
            return;
        };
        let group = || Arg::Name(group.clone());
        let command = |command| Arg::Flags(FlagSet::Fcntl, command);
        let status = |bits| Arg::Flags(FlagSet::Status, bits);
        match roll.variant % 4 {
            0 | 1 => {
                let main = Arg::Name(Name(Name::MAIN.to_owned()));
                self.push(
                    None,
                    Call::Fcntl,
                    vec![group(), command(fcntl::SETOWN), main],
                );
                if roll.variant % 4 == 1 {
                    let signal = Arg::Flags(FlagSet::Signal, SIGUSR1);
                    let args = vec![group(), command(fcntl::SETSIG), signal];
                    self.push(None, Call::Fcntl, args);
                }
                let flags = status(O_ASYNC | O_NONBLOCK);
                self.push(
                    None,
                    Call::Fcntl,
                    vec![group(), command(fcntl::SETFL), flags],
                );
            }
            2 => {
                let flags = status(O_NONBLOCK);
                self.push(
                    None,
                    Call::Fcntl,
                    vec![group(), command(fcntl::SETFL), flags],
                );
            }
            _ => {
                self.push(None, Call::Signals, Vec::new());
            }
        }
    }

    /// A set of epoll with groups in it, which is asked now and then.
    pub(super) fn epoll(&mut self, roll: Roll) {
        let Some(set) = pick(&self.sets, roll.second).cloned() else {
            let name = self.new_name("e");
            let flags = vec![Arg::Flags(FlagSet::EpollCreate, 0)];
            if self.bind(None, Call::EpollCreate1, flags, &name).is_some() {
                self.sets.push(name);
            }
            return;
        };
        let group = self.group_of(None, roll.first);
        let (3.., Some(group)) = (roll.variant % 8, group) else {
            let args = vec![Arg::Name(set), Arg::Int(8), Arg::Int(0)];
            self.any(None, Call::EpollWait, args);
            return;
        };
        /// In, edge triggered, once.
        const EVENTS: [u32; 4] = [0x1, 0x1, 0x8000_0001, 0x4000_0001];
        const ADD: u64 = 1;
        const DELETE: u64 = 2;
        let op = |op| Arg::Flags(FlagSet::EpollOp, op);
        let fd = Arg::Name(group);
        let args = if roll.variant % 8 == 3 {
            vec![Arg::Name(set), op(DELETE), fd]
        } else {
            let events = EVENTS[usize::from(roll.second) % EVENTS.len()];
            let event = Arg::EpollEvent { events, data: 7 };
            vec![Arg::Name(set), op(ADD), fd, event]
        };
        self.any(None, Call::EpollCtl, args);
    }
}
