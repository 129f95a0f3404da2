//! A scenario as a value.

use crate::{Bytes, Call, FlagSet};

/// A scenario: what must hold, what it needs, what is tolerated, and the steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenario {
    /// The leading comment, a line an entry, without `# `: the first line says what must hold.
    pub summary: Vec<String>,
    /// What the kernel, the filesystem or the caller must have for this to run at all.
    pub requires: Vec<Requirement>,
    /// Differences that are expected of an engine.
    pub known: Vec<Known>,
    /// Options for `criu dump` and `criu restore`.
    pub criu_opts: Vec<String>,
    pub steps: Vec<Step>,
    /// Comments and blank lines after the last step.
    pub tail: Vec<Note>,
}

/// One word after `requires`: decides a skip, with its reason, without running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement(pub String);

/// `known ENGINE [VERSION RANGE] [races] "why"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The engine's name: `criu`, `classic`, `builtin` ...
    pub engine: String,
    /// A bound such as `<= 4.1.1`; none means every version.
    pub versions: Option<String>,
    /// What the engine does is decided by a race within it: each outcome has a snapshot of its own, and
    /// any of them will do.
    pub races: bool,
    pub why: String,
}

/// A comment or blank line that stands before a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Blank,
    /// Without `# `.
    Comment(String),
}

/// One line: a call, its arguments, and what is said of its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub notes: Vec<Note>,
    /// `[p]`: the child process that makes the call; none is the main process.
    pub process: Option<Name>,
    pub call: Call,
    pub phase: Phase,
    /// Of the kinds that [`Call::kind`] names; optional ones at the end may be absent. Empty in the
    /// second half of a call.
    pub args: Vec<Arg>,
    /// [`Expect::Success`] in the first half of a call, which says nothing of its result.
    pub expect: Expect,
}

/// Which part of a call a line is, as `strace -f` splits a call that blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Whole,
    /// `[p] open("f", O_RDONLY <unfinished ...>`: the child makes the call, which blocks.
    Unfinished,
    /// `[p] <... open resumed>) = 4`: the call has returned.
    Resumed,
}

/// Arguments by index. A step that [`crate::parse`] gave has arguments of the kinds that its call
/// asks for, so asking for the wrong kind is a mistake of the caller.
///
/// # Panics
///
/// Each panics if the argument is not of the kind asked for.
impl Step {
    /// The path, text or content at `index`; none for `NULL`.
    #[must_use]
    pub fn bytes(&self, index: usize) -> Option<&[u8]> {
        match self.args.get(index) {
            Some(Arg::Bytes(bytes)) => Some(&bytes.0),
            Some(Arg::Null) => None,
            other => self.refuse(index, other, "bytes"),
        }
    }

    /// The path at `index`.
    #[must_use]
    pub fn path(&self, index: usize) -> &[u8] {
        match self.bytes(index) {
            Some(bytes) => bytes,
            None => self.refuse(index, self.args.get(index), "a path"),
        }
    }

    /// The value of the flags, or of the one word, at `index`.
    #[must_use]
    pub fn flags(&self, index: usize) -> u64 {
        match self.args.get(index) {
            Some(Arg::Flags(_, value)) => *value,
            other => self.refuse(index, other, "flags"),
        }
    }

    /// The number at `index`.
    #[must_use]
    pub fn int(&self, index: usize) -> i64 {
        match self.args.get(index) {
            Some(Arg::Int(number)) => *number,
            other => self.refuse(index, other, "a number"),
        }
    }

    /// The number at `index`, none if it was left out.
    #[must_use]
    pub fn optional_int(&self, index: usize) -> Option<i64> {
        self.args.get(index).map(|_| self.int(index))
    }

    /// Type and permission bits at `index`, none if they were left out.
    #[must_use]
    pub fn mode(&self, index: usize) -> Option<u32> {
        match self.args.get(index) {
            Some(Arg::Mode(mode)) => Some(*mode),
            None => None,
            other => self.refuse(index, other, "a mode"),
        }
    }

    /// The descriptor, watch descriptor or process at `index`, not yet looked up.
    #[must_use]
    pub fn reference(&self, index: usize) -> Reference<'_> {
        match self.args.get(index) {
            Some(Arg::Name(name)) => Reference::Name(name),
            Some(Arg::Int(number)) => Reference::Number(*number),
            Some(Arg::Cwd) => Reference::Cwd,
            other => self.refuse(index, other, "a descriptor"),
        }
    }

    fn refuse(&self, index: usize, found: Option<&Arg>, wanted: &str) -> ! {
        let call = self.call.signature().name;
        panic!("argument {index} of {call} is {found:?}, not {wanted}")
    }
}

/// What an argument that names a result of another step says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    Name(&'a Name),
    Number(i64),
    Cwd,
}

/// The name of a result: `[a-z_][a-z0-9_]*`. `main` is the main process and never bound.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Name(pub String);

impl Name {
    /// What the main process is called where a process has to be named.
    pub const MAIN: &str = "main";
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number that is written in decimal.
    Int(i64),
    /// Permission bits in octal with a leading zero, after a type where the call takes one:
    /// `0644`, `S_IFIFO|0644`.
    Mode(u32),
    /// Symbolic flags of one set, or one word of it.
    Flags(FlagSet, u64),
    /// A path or content.
    Bytes(Bytes),
    /// A result that an earlier step bound.
    Name(Name),
    /// `AT_FDCWD`.
    Cwd,
    /// `NULL`.
    Null,
    /// `makedev(MAJOR, MINOR)`; 0 is written `0`.
    Device(u32, u32),
    /// `{events=EPOLLIN, data=7}`.
    EpollEvent { events: u32, data: u64 },
    /// `{response=FAN_ALLOW}`: the answer to a permission event.
    Response(u32),
    /// `[{tv_sec=1, tv_nsec=0}, UTIME_OMIT]`: access time, modification time.
    Times([Time; 2]),
}

/// One time of utimensat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    Now,
    Omit,
    At { sec: i64, nsec: u32 },
}

/// What a step says of its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: it must succeed.
    Success,
    /// `= name`: must succeed, and the result is bound.
    Bind(Name),
    /// `= 1`: must be this number.
    Value(i64),
    /// `= -1 ENOENT`: must fail so. The number is that of errno(3) on this architecture.
    Errno(i32),
    /// `= ?`: anything goes; the transcripts are compared all the same.
    Any,
}
