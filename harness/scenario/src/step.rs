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

/// `known ENGINE [VERSION RANGE] "why"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The engine's name: `criu`, `classic`, `builtin` ...
    pub engine: String,
    /// A bound such as `<= 4.1.1`; none means every version.
    pub versions: Option<String>,
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
    /// Of the kinds that `call.signature()` names; optional ones at the end may be absent.
    pub args: Vec<Arg>,
    pub expect: Expect,
}

/// The name of a result: `[a-z_][a-z0-9_]*`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Name(pub String);

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number that is written in decimal.
    Int(i64),
    /// Permission bits, written in octal with a leading zero.
    Mode(u32),
    /// Symbolic flags of one set.
    Flags(FlagSet, u64),
    /// A path or content.
    Bytes(Bytes),
    /// A result that an earlier step bound.
    Name(Name),
    /// `AT_FDCWD`.
    Cwd,
    /// `NULL`.
    Null,
    /// `makedev(MAJOR, MINOR)`.
    Device(u32, u32),
    /// `{events=EPOLLIN, data=7}`.
    EpollEvent { events: u32, data: u64 },
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
