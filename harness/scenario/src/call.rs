//! The calls of the language and what arguments they take.

/// A system call, named as in the manual, or a plain word where no call says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Open,
    Close,
    InotifyInit1,
    InotifyAddWatch,
    InotifyRmWatch,
    Read,
    Write,
    Mkdir,
    Unlink,
    Checkpoint,
    Look,
}

/// The sets that symbolic flags come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlagSet {
    /// `O_*` of open(2).
    Open,
    /// `IN_NONBLOCK`, `IN_CLOEXEC`.
    InotifyInit,
    /// `IN_*` of a watch.
    InotifyMask,
}

/// What an argument has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    Fd,
    Wd,
    Path,
    Content,
    Mode,
    Size,
    Flags(FlagSet),
}
