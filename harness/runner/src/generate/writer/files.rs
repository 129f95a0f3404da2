//! Steps on open files.

use scenario::{Arg, Call, FlagSet, Name};

use super::super::rolls::Roll;
use super::{Writer, bytes, path};

const O_RDWR_CREAT: u64 = 0o102;
const O_RDWR_TMPFILE: u64 = 0o20_200_002;

impl Writer {
    pub(super) fn open(&mut self, process: Option<Name>, roll: Roll) {
        const FLAGS: [u64; 7] = [
            O_RDWR_CREAT,
            O_RDWR_CREAT,
            0,
            0o1_001,
            0o2_001,
            0o10_000_000,
            0o10_400_000,
        ];
        let flags = FLAGS[usize::from(roll.variant) % FLAGS.len()];
        let mut args = vec![path(roll.first), Arg::Flags(FlagSet::Open, flags)];
        if flags == O_RDWR_CREAT {
            args.push(Arg::Mode(0o644));
        }
        let name = self.new_name("f");
        if self
            .bind(process.clone(), Call::Open, args, &name)
            .is_some()
        {
            self.files.push((process, name));
        }
    }

    pub(super) fn close(&mut self, process: Option<Name>, roll: Roll) {
        let Some(at) = self.file_at(process.as_ref(), roll.first) else {
            return;
        };
        let (_, name) = self.files[at].clone();
        if self
            .push(process, Call::Close, vec![Arg::Name(name)])
            .is_some()
        {
            self.files.remove(at);
        }
    }

    pub(super) fn write_or_read(&mut self, process: Option<Name>, roll: Roll) {
        let Some(at) = self.file_at(process.as_ref(), roll.first) else {
            return;
        };
        let fd = Arg::Name(self.files[at].1.clone());
        let (call, args) = match roll.variant % 10 {
            0 | 1 => (Call::Write, vec![fd, bytes("more")]),
            2 => (
                Call::Pwrite,
                vec![fd, bytes("x"), Arg::Int(i64::from(roll.second))],
            ),
            3 => (Call::Pread, vec![fd, Arg::Int(2), Arg::Int(0)]),
            4 => (
                Call::Ftruncate,
                vec![fd, Arg::Int(i64::from(roll.second % 8))],
            ),
            5 => {
                let whence = Arg::Flags(FlagSet::Whence, 0);
                let to = Arg::Int(i64::from(roll.second));
                (Call::Lseek, vec![fd, to, whence])
            }
            6 => {
                let mode = Arg::Flags(FlagSet::Fallocate, u64::from(roll.second % 2));
                let from = Arg::Int(i64::from(roll.second) * 64);
                (Call::Fallocate, vec![fd, mode, from, Arg::Int(8192)])
            }
            7 => (Call::Getdents64, vec![fd]),
            8 => (Call::Read, vec![fd, Arg::Int(3)]),
            _ => (Call::Fchmod, vec![fd, Arg::Mode(0o600)]),
        };
        self.push(process, call, args);
    }

    /// A file that has no name and never had one.
    pub(super) fn open_unnamed(&mut self, process: Option<Name>, roll: Roll) {
        let directory = ["d", "e", "."][usize::from(roll.first) % 3];
        let flags = Arg::Flags(FlagSet::Open, O_RDWR_TMPFILE);
        let name = self.new_name("t");
        let args = vec![bytes(directory), flags, Arg::Mode(0o600)];
        if self
            .bind(process.clone(), Call::Open, args, &name)
            .is_some()
        {
            self.files.push((process, name));
        }
    }
}
