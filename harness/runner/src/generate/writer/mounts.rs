//! Filesystems that come and go, and fifos.

use scenario::{Arg, Call, FlagSet, Name};

use super::super::rolls::Roll;
use super::{Writer, bytes, path};

const MAX_MOUNTS: usize = 3;
const DIRECTORIES: [&str; 3] = ["d", "e", "d/s"];

impl Writer {
    /// An empty filesystem over a directory, or over another one.
    pub(super) fn mount(&mut self, process: Option<Name>, roll: Roll) {
        let mounts = self.steps.iter().filter(|step| step.call == Call::Mount);
        if mounts.count() == MAX_MOUNTS {
            return self.umount(process, roll);
        }
        let on = DIRECTORIES[usize::from(roll.first) % DIRECTORIES.len()];
        let flags = Arg::Flags(FlagSet::Mount, 0);
        let args = vec![bytes("tmpfs"), bytes(on), bytes("tmpfs"), flags, Arg::Null];
        self.push_or_fail(process, Call::Mount, args, roll);
    }

    pub(super) fn umount(&mut self, process: Option<Name>, roll: Roll) {
        const DETACH: u64 = 2;
        let on = DIRECTORIES[usize::from(roll.first) % DIRECTORIES.len()];
        let flags = if roll.variant.is_multiple_of(4) {
            DETACH
        } else {
            0
        };
        let args = vec![bytes(on), Arg::Flags(FlagSet::Umount, flags)];
        self.push_or_fail(process, Call::Umount2, args, roll);
    }

    /// A fifo is made, opened, closed, or something goes through it. What it holds at a cut is lost
    /// (`scenarios/inotify/fifo-content.scn`), so no cut finds anything in it.
    pub(super) fn fifo(&mut self, process: Option<Name>, roll: Roll) {
        const O_RDWR_NONBLOCK: u64 = 0o4_002;
        const S_IFIFO: u32 = 0o010_000;
        let own = self.fifos.iter().filter(|(owner, _)| *owner == process);
        let own: Vec<Name> = own.map(|(_, name)| name.clone()).collect();
        let opened = super::pick(&own, roll.second).cloned();
        match (roll.variant % 8, opened) {
            (0 | 1, _) | (_, None) => {
                let args = vec![path(roll.first), Arg::Mode(S_IFIFO | 0o644)];
                self.push(process.clone(), Call::Mknod, args);
                let name = self.new_name("i");
                let flags = Arg::Flags(FlagSet::Open, O_RDWR_NONBLOCK);
                let args = vec![path(roll.first), flags];
                if self.is_fifo(process.as_ref(), roll.first)
                    && self
                        .bind(process.clone(), Call::Open, args, &name)
                        .is_some()
                {
                    self.fifos.push((process, name));
                }
            }
            (2..=4, Some(name)) => {
                let content = vec![Arg::Name(name.clone()), bytes("more")];
                if self.push(process.clone(), Call::Write, content).is_some() {
                    self.uncut.push(self.steps.len());
                    let size = Arg::Int(8);
                    self.push(process, Call::Read, vec![Arg::Name(name), size]);
                }
            }
            (5, Some(name)) => {
                let args = vec![Arg::Name(name), Arg::Mode(0o600)];
                self.push(process, Call::Fchmod, args);
            }
            (6, Some(name)) => {
                let args = vec![Arg::Name(name), Arg::Int(8)];
                self.push_or_fail(process, Call::Read, args, roll);
            }
            (_, Some(name)) => {
                let args = vec![Arg::Name(name.clone())];
                if self.push(process.clone(), Call::Close, args).is_some() {
                    self.fifos
                        .retain(|it| *it != (process.clone(), name.clone()));
                }
            }
        }
    }

    /// Whether the path leads to a fifo, which alone cannot be read at an offset.
    fn is_fifo(&self, process: Option<&Name>, roll: u8) -> bool {
        let mut probe = self.clone();
        let name = probe.new_name("i");
        let flags = Arg::Flags(FlagSet::Open, 0o4_002);
        let opened = probe.bind(process.cloned(), Call::Open, vec![path(roll), flags], &name);
        let seek = vec![Arg::Name(name), Arg::Int(0), Arg::Flags(FlagSet::Whence, 0)];
        opened.is_some() && probe.push(process.cloned(), Call::Lseek, seek).is_none()
    }
}
