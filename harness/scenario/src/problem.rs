//! What is wrong with a text, where, and what may have been meant.

use std::fmt;
use std::ops::Range;

use fsnotify::counted;

use crate::{Name, ResultKind, call::Call};

/// One thing wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the text.
    pub span: Range<usize>,
    pub kind: ProblemKind,
}

/// What is wrong. The offending text is that of the span, or stands here where a message needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    // The text as a whole.
    TooManyProblems,
    TooLong {
        n_bytes: usize,
        limit: usize,
    },
    /// The first line says what must hold.
    NoSummary,
    NoSteps,

    // Header lines.
    HeaderAfterSteps(&'static str),
    CommentInHeader,
    HeaderSyntax(&'static str),
    UnknownRequirement {
        word: String,
        near: Option<String>,
    },
    RepeatedRequirement,

    // The form of a line.
    Expected(&'static str),
    BadEscape,
    UnclosedString,
    CutString,
    TooDeep,
    TrailingComment,
    BadName(String),
    NameTooLong,

    // Calls and arguments.
    UnknownCall {
        name: String,
        near: Option<&'static str>,
    },
    NoParentheses(Call),
    TooFewArguments {
        call: Call,
        missing: &'static str,
    },
    TooManyArguments {
        call: Call,
        n_max: usize,
    },
    WrongArgument {
        name: &'static str,
        wanted: &'static str,
    },
    /// A struct's fields stand in one order.
    WrongField(&'static str),
    UnknownFlag {
        word: String,
        near: Option<&'static str>,
        /// A call that takes the word.
        elsewhere: Option<&'static str>,
    },
    RepeatedFlag(String),
    /// `O_RDONLY|O_RDWR`.
    ConflictingFlags(String),
    NoLeadingZero(String),
    NumberOutOfRange(&'static str),
    NulInPath,
    /// `O_CREAT` without a mode.
    NoMode,
    NoDevice,

    // Results.
    UnknownErrno {
        word: String,
        near: Option<&'static str>,
    },
    NoErrno,
    NothingToAssert(Call),
    NothingToBind(Call),

    // Names.
    Unbound {
        name: String,
        near: Option<String>,
    },
    Unused(String),
    BoundTwice {
        name: String,
        first: Range<usize>,
    },
    WrongKind {
        name: String,
        is: ResultKind,
        wanted: ResultKind,
        bound: Range<usize>,
    },
    ReservedName,

    // Processes.
    ForkWithoutName,
    ForkInChild,
    MainMarked,
    MainExits,
    StepAfterExit {
        process: Name,
        exit: Range<usize>,
    },
    WaitForLiving(Name),
    WaitedTwice(Name),
    WordInChild(Call),
    UnfinishedInMain,
    ResumedWithoutStart(Call),
    StepWhileUnfinished {
        process: Name,
        start: Range<usize>,
    },
    NeverResumed,

    /// Too many of something: what, and how many there may be.
    Limit {
        what: &'static str,
        limit: usize,
    },
}

impl ProblemKind {
    pub(crate) fn at(self, span: Range<usize>) -> Problem {
        Problem { span, kind: self }
    }
}

impl Problem {
    /// Line and column of where it starts, both from 1; the column counts bytes.
    #[must_use]
    pub fn line_and_column(&self, text: &str) -> (usize, usize) {
        let before = &text.as_bytes()[..self.span.start.min(text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        (line, before.len() - start + 1)
    }

    /// What may have been meant, or what to do.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        use ProblemKind as K;
        let near = |near: &str| Some(format!("did you mean `{near}`?"));
        match &self.kind {
            K::UnknownRequirement { near: word, .. } | K::Unbound { near: word, .. } => {
                word.as_deref().and_then(near)
            }
            K::UnknownFlag {
                elsewhere: Some(call),
                ..
            } => Some(format!("`{call}` takes it, this argument does not")),
            K::UnknownCall { near: word, .. }
            | K::UnknownFlag { near: word, .. }
            | K::UnknownErrno { near: word, .. } => word.and_then(near),
            K::NoLeadingZero(text) => near(&format!("0{text}")),
            K::NoErrno => near("-1 ENOENT"),
            K::NoSummary => Some("start with `# ` and one sentence".to_owned()),
            K::CutString => Some("let strace print whole strings: `strace -s 4096`".to_owned()),
            K::Unused(_) => Some("leave ` = name` away: a call must succeed anyway".to_owned()),
            K::CommentInHeader => Some("put it before the headers or after them".to_owned()),
            K::TrailingComment => Some("put the comment on a line of its own, above".to_owned()),
            K::NoMode => Some("add a third argument such as `0644`".to_owned()),
            K::NoDevice => Some("add a third argument such as `makedev(1, 3)`".to_owned()),
            K::ForkWithoutName => Some("`fork() = p`, then `[p] call(...)`".to_owned()),
            K::WaitForLiving(name) => Some(format!("`[{}] exit_group(0)` first", name.0)),
            K::NoParentheses(call) if call.signature().args.is_empty() => {
                near(&format!("{}()", call.signature().name))
            }
            _ => None,
        }
    }

    /// Another place that the message speaks of, with what it is.
    #[must_use]
    pub fn related(&self) -> Option<(Range<usize>, &'static str)> {
        match &self.kind {
            ProblemKind::BoundTwice { first, .. } => Some((first.clone(), "first bound here")),
            ProblemKind::WrongKind { bound, .. } => Some((bound.clone(), "bound here")),
            ProblemKind::StepAfterExit { exit, .. } => Some((exit.clone(), "it exits here")),
            ProblemKind::StepWhileUnfinished { start, .. } => {
                Some((start.clone(), "unfinished since here"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for ProblemKind {
    #[expect(
        clippy::too_many_lines,
        reason = "one line a message; matched without `_`"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyProblems => f.write_str("too many problems: the rest is not shown"),
            Self::TooLong { n_bytes, limit } => {
                write!(f, "{n_bytes} bytes: a scenario has at most {limit}")
            }
            Self::NoSummary => f.write_str("no sentence at the top says what must hold"),
            Self::NoSteps => f.write_str("no steps"),
            Self::HeaderAfterSteps(word) => write!(f, "`{word}` after the first step"),
            Self::CommentInHeader => f.write_str("a comment between header lines"),
            Self::HeaderSyntax(form) => write!(f, "a header line of this kind reads `{form}`"),
            Self::UnknownRequirement { word, .. } => write!(f, "unknown requirement `{word}`"),
            Self::RepeatedRequirement => f.write_str("required twice"),
            Self::Expected(what) => write!(f, "expected {what}"),
            Self::BadEscape => f.write_str(r#"escapes are \n \t \r \v \f \" \\ \xNN and octal"#),
            Self::UnclosedString => f.write_str("this string has no end"),
            Self::CutString => f.write_str("this string was cut short"),
            Self::TooDeep => f.write_str("values nested too deeply"),
            Self::TrailingComment => f.write_str("a comment behind a step"),
            Self::BadName(name) => {
                write!(f, "`{name}` is no name: names are made of a-z, 0-9 and _")
            }
            Self::NameTooLong => f.write_str("a name that is too long"),
            Self::UnknownCall { name, .. } => write!(f, "unknown call `{name}`"),
            Self::NoParentheses(call) => {
                write!(f, "`{}` without parentheses", call.signature().name)
            }
            Self::TooFewArguments { call, missing } => {
                write!(
                    f,
                    "`{}` lacks its argument `{missing}`",
                    call.signature().name
                )
            }
            Self::TooManyArguments { call, n_max } => {
                let name = call.signature().name;
                write!(f, "`{name}` takes {} here", counted(n_max, "argument"))
            }
            Self::WrongArgument { name, wanted } => write!(f, "`{name}` has to be {wanted}"),
            Self::WrongField(wanted) => write!(f, "the field here is `{wanted}`"),
            Self::UnknownFlag { word, .. } => write!(f, "unknown flag `{word}`"),
            Self::RepeatedFlag(word) => write!(f, "`{word}` is given twice"),
            Self::ConflictingFlags(word) => {
                write!(f, "`{word}` contradicts the value before it")
            }
            Self::NoLeadingZero(text) => write!(f, "mode `{text}` is not octal"),
            Self::NumberOutOfRange(range) => write!(f, "the number has to be {range}"),
            Self::NulInPath => f.write_str("a path cannot hold a NUL"),
            Self::NoMode => f.write_str("`O_CREAT` and `O_TMPFILE` need a mode"),
            Self::NoDevice => f.write_str("a device node needs its number"),
            Self::UnknownErrno { word, .. } => write!(f, "unknown error `{word}`"),
            Self::NoErrno => f.write_str("a failure names its error"),
            Self::NothingToAssert(call) => {
                write!(f, "`{}` has no result", call.signature().name)
            }
            Self::NothingToBind(call) => {
                let name = call.signature().name;
                write!(
                    f,
                    "no argument takes the result of `{name}`: there is nothing to bind"
                )
            }
            Self::Unbound { name, .. } => write!(f, "`{name}` is not bound here"),
            Self::Unused(name) => write!(f, "`{name}` is bound and never used"),
            Self::BoundTwice { name, .. } => write!(f, "`{name}` is bound twice"),
            Self::WrongKind {
                name, is, wanted, ..
            } => {
                write!(f, "`{name}` is {}, not {}", noun(*is), noun(*wanted))
            }
            Self::ReservedName => f.write_str("`main` is the main process"),
            Self::ForkWithoutName => f.write_str("a child process needs a name"),
            Self::ForkInChild => f.write_str("only the main process may fork"),
            Self::MainMarked => f.write_str("a step of the main process has no mark"),
            Self::MainExits => f.write_str("the main process cannot exit: it is under test"),
            Self::StepAfterExit { process, .. } => {
                write!(f, "`{}` has exited before", process.0)
            }
            Self::WaitForLiving(process) => {
                write!(
                    f,
                    "`{}` has not exited: this would wait for ever",
                    process.0
                )
            }
            Self::WaitedTwice(process) => {
                write!(f, "`{}` has been waited for before", process.0)
            }
            Self::WordInChild(call) => {
                let name = call.signature().name;
                write!(
                    f,
                    "`{name}` is about all processes: it is no step of a child"
                )
            }
            Self::UnfinishedInMain => {
                f.write_str("only a call of a child may stay unfinished: the main process goes on")
            }
            Self::ResumedWithoutStart(call) => {
                let name = call.signature().name;
                write!(f, "no unfinished `{name}` of this process comes before")
            }
            Self::StepWhileUnfinished { process, .. } => {
                write!(f, "`{}` is still in an unfinished call", process.0)
            }
            Self::NeverResumed => f.write_str("this call is never resumed"),
            Self::Limit { what, limit } => write!(f, "at most {limit} {what}"),
        }
    }
}

fn noun(kind: ResultKind) -> &'static str {
    match kind {
        ResultKind::Zero | ResultKind::Nothing => "nothing",
        ResultKind::Fd => "a descriptor",
        ResultKind::Wd => "a watch descriptor",
        ResultKind::Process => "a process",
        ResultKind::Number => "a number",
    }
}
