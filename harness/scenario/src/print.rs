//! From a scenario to its canonical text.

use std::fmt::{self, Display, Write as _};

use crate::errno;
use crate::flags::FlagSet;
use crate::step::{Arg, Expect, Known, Note, Phase, Scenario, Step, Time};

/// The canonical text. `parse` gives the scenario back, and printing that gives the same text.
#[must_use]
pub fn print(scenario: &Scenario) -> String {
    let mut text = String::new();
    for line in &scenario.summary {
        print_comment(line, &mut text);
    }
    print_header(scenario, &mut text);
    for step in &scenario.steps {
        print_notes(&step.notes, &mut text);
        let _ = writeln!(text, "{step}");
    }
    print_notes(&scenario.tail, &mut text);
    text
}

fn print_header(scenario: &Scenario, text: &mut String) {
    if !scenario.requires.is_empty() {
        text.push_str("requires");
        for requirement in &scenario.requires {
            let _ = write!(text, " {}", requirement.0);
        }
        text.push('\n');
    }
    for known in &scenario.known {
        let _ = writeln!(text, "{known}");
    }
    if !scenario.criu_opts.is_empty() {
        let _ = writeln!(text, "criu-opts {}", scenario.criu_opts.join(" "));
    }
}

fn print_notes(notes: &[Note], text: &mut String) {
    for note in notes {
        match note {
            Note::Blank => text.push('\n'),
            Note::Comment(comment) => print_comment(comment, text),
        }
    }
}

fn print_comment(comment: &str, text: &mut String) {
    text.push('#');
    if !comment.is_empty() {
        text.push(' ');
        text.push_str(comment);
    }
    text.push('\n');
}

impl Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "known {}", self.engine)?;
        if let Some(versions) = &self.versions {
            write!(f, " {versions}")?;
        }
        if self.races {
            f.write_str(" races")?;
        }
        write!(f, " {}", crate::Bytes::from(self.why.as_str()))
    }
}

/// One line, without the notes before it.
impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.invocation())?;
        match &self.expect {
            Expect::Success => Ok(()),
            Expect::Bind(name) => write!(f, " = {}", name.0),
            Expect::Value(number) => write!(f, " = {number}"),
            Expect::Errno(number) => match errno::name(*number) {
                Some(name) => write!(f, " = -1 {name}"),
                None => write!(f, " = -1 {number}"),
            },
            Expect::Any => f.write_str(" = ?"),
        }
    }
}

impl Step {
    /// The step as text without what is said of its result: `[p] close(3)`.
    pub fn invocation(&self) -> impl Display {
        Invocation(self)
    }
}

struct Invocation<'a>(&'a Step);

impl Display for Invocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step {
            process,
            call,
            phase,
            args,
            ..
        } = self.0;
        if let Some(process) = process {
            write!(f, "[{}] ", process.0)?;
        }
        let name = call.signature().name;
        if *phase == Phase::Resumed {
            return write!(f, "<... {name} resumed>");
        }
        f.write_str(name)?;
        if !call.is_bare_word() {
            print_args(args, f)?;
        }
        match phase {
            Phase::Unfinished => f.write_str(" <unfinished ...>"),
            Phase::Whole | Phase::Resumed => Ok(()),
        }
    }
}

fn print_args(args: &[Arg], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("(")?;
    for (index, arg) in args.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(f, "{separator}{arg}")?;
    }
    f.write_str(")")
}

impl Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Mode(mode) => print_mode(*mode, f),
            Self::Flags(set, value) => set.text(*value).fmt(f),
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Name(name) => f.write_str(&name.0),
            Self::Cwd => f.write_str("AT_FDCWD"),
            Self::Null => f.write_str("NULL"),
            Self::Device(0, 0) => f.write_str("0"),
            Self::Device(major, minor) => write!(f, "makedev({major}, {minor})"),
            Self::EpollEvent { events, data } => {
                let events = FlagSet::EpollEvents.text(u64::from(*events));
                write!(f, "{{events={events}, data={data}}}")
            }
            Self::Response(response) => {
                let response = FlagSet::FanotifyResponse.text(u64::from(*response));
                write!(f, "{{response={response}}}")
            }
            Self::Times([access, modification]) => write!(f, "[{access}, {modification}]"),
        }
    }
}

fn print_mode(mode: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const TYPE: u32 = 0o170_000;
    if mode & TYPE != 0 {
        write!(f, "{}|", FlagSet::FileType.text(u64::from(mode & TYPE)))?;
    }
    write!(f, "0{:03o}", mode & !TYPE)
}

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("UTIME_NOW"),
            Self::Omit => f.write_str("UTIME_OMIT"),
            Self::At { sec, nsec } => write!(f, "{{tv_sec={sec}, tv_nsec={nsec}}}"),
        }
    }
}
