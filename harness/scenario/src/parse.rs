//! From text to a scenario: one line after the other, each error with its exact place.
//!
//! The grammar and the kinds of arguments are settled here. What needs more than one line to tell,
//! such as whether a name is bound, is for [`crate::check`].

mod argument;
mod value;

use std::ops::Range;

use crate::call::{Call, ResultKind};
use crate::errno;
use crate::limits::{MAX_PROBLEMS, MAX_STEPS, MAX_TEXT};
use crate::problem::{Problem, ProblemKind};
use crate::requirement;
use crate::step::{Arg, Expect, Known, Name, Note, Phase, Requirement, Scenario, Step};
use crate::suggest::nearest;
use value::{Cursor, Value};

/// A scenario, and where in the text its parts stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub scenario: Scenario,
    /// One for each step.
    pub places: Vec<StepPlace>,
    /// One for each requirement.
    pub requirement_spans: Vec<Range<usize>>,
}

/// Where the parts of a step stand: bytes of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlace {
    /// From 1.
    pub line: usize,
    /// The step without the space around it.
    pub whole: Range<usize>,
    /// What stands between the brackets of `[p]`.
    pub process: Option<Range<usize>>,
    pub call: Range<usize>,
    pub args: Vec<Range<usize>>,
    /// What stands behind the `=`.
    pub expect: Option<Range<usize>>,
}

/// Reads a scenario.
///
/// No panic and no more memory than a multiple of the text, whatever the text is.
///
/// # Errors
///
/// Every [`Problem`] that was found, in the order of the text, [`MAX_PROBLEMS`] at most.
pub fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    if text.len() > MAX_TEXT {
        let kind = ProblemKind::TooLong {
            n_bytes: text.len(),
            limit: MAX_TEXT,
        };
        return Err(vec![kind.at(0..0)]);
    }
    let mut reader = Reader::default();
    let mut start = 0;
    for line in text.split('\n') {
        let end = start + line.len();
        reader.n_lines += 1;
        let trimmed = start..start + line.trim_end().len();
        reader.line(text, trimmed);
        start = end + 1;
        if reader.problems.len() >= MAX_PROBLEMS {
            reader.problems.truncate(MAX_PROBLEMS);
            let here = start.min(text.len());
            reader
                .problems
                .push(ProblemKind::TooManyProblems.at(here..here));
            break;
        }
    }
    reader.finish()
}

/// Reads a scenario that can be run: [`parse`], then [`crate::check`].
///
/// # Errors
///
/// Those of `parse`, or, if it has none, those of `check`.
pub fn parse_and_check(text: &str) -> Result<Parsed, Vec<Problem>> {
    let parsed = parse(text)?;
    let problems = crate::check(&parsed);
    if problems.is_empty() {
        Ok(parsed)
    } else {
        Err(problems)
    }
}

/// How far the text has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Summary,
    Header,
    Steps,
}

#[derive(Debug, Default)]
struct Reader {
    parsed: Parsed,
    problems: Vec<Problem>,
    stage: Stage,
    n_lines: usize,
    /// Comments and blank lines since the last step.
    notes: Vec<(Note, Range<usize>)>,
    /// Calls that have not been resumed yet.
    unfinished: Vec<(Option<Name>, Call, Vec<Arg>)>,
}

impl Reader {
    fn line(&mut self, text: &str, line: Range<usize>) {
        let content = text[line.clone()].trim_start();
        let line = line.end - content.len()..line.end;
        if content.is_empty() {
            self.blank(line);
        } else if let Some(comment) = content.strip_prefix('#') {
            self.comment(comment.strip_prefix(' ').unwrap_or(comment), line);
        } else if let Some(header) = header_of(content) {
            self.header(text, line, header);
        } else if let Some(step) = self.step(text, line.clone()) {
            self.push_step(step, line);
        } else {
            self.stage = Stage::Steps;
            self.notes.clear();
        }
    }

    fn blank(&mut self, line: Range<usize>) {
        match (self.stage, self.notes.last()) {
            (Stage::Summary, None) if self.parsed.scenario.summary.is_empty() => {}
            (_, Some((Note::Blank, _))) => {}
            _ => self.notes.push((Note::Blank, line)),
        }
    }

    fn comment(&mut self, comment: &str, line: Range<usize>) {
        if self.stage == Stage::Summary && self.notes.is_empty() {
            self.parsed.scenario.summary.push(comment.to_owned());
        } else {
            self.notes.push((Note::Comment(comment.to_owned()), line));
        }
    }

    fn push_step(&mut self, (mut step, place): (Step, StepPlace), line: Range<usize>) {
        self.stage = Stage::Steps;
        step.notes = self.notes.drain(..).map(|(note, _)| note).collect();
        if self.parsed.scenario.steps.len() == MAX_STEPS {
            let kind = ProblemKind::Limit {
                what: "steps",
                limit: MAX_STEPS,
            };
            self.problems.push(kind.at(line));
        }
        self.parsed.scenario.steps.push(step);
        self.parsed.places.push(place);
    }

    fn finish(mut self) -> Result<Parsed, Vec<Problem>> {
        let mut tail: Vec<Note> = self.notes.drain(..).map(|(note, _)| note).collect();
        while tail.last() == Some(&Note::Blank) {
            tail.pop();
        }
        self.parsed.scenario.tail = tail;
        if self.problems.is_empty() {
            Ok(self.parsed)
        } else {
            self.problems.sort_by_key(|problem| problem.span.start);
            Err(self.problems)
        }
    }
}

// Header lines.

/// The words that start a header line.
#[derive(Clone, Copy, Debug)]
enum Header {
    Requires,
    Known,
    CriuOpts,
}

impl Header {
    const fn word(self) -> &'static str {
        match self {
            Self::Requires => "requires",
            Self::Known => "known",
            Self::CriuOpts => "criu-opts",
        }
    }
}

fn header_of(content: &str) -> Option<Header> {
    let word = content.split([' ', '\t']).next()?;
    let headers = [Header::Requires, Header::Known, Header::CriuOpts];
    headers.into_iter().find(|header| header.word() == word)
}

impl Reader {
    fn header(&mut self, text: &str, line: Range<usize>, header: Header) {
        if self.stage == Stage::Steps {
            self.problems
                .push(ProblemKind::HeaderAfterSteps(header.word()).at(line));
            return;
        }
        self.stage = Stage::Header;
        for (note, span) in self.notes.drain(..) {
            if note != Note::Blank {
                self.problems.push(ProblemKind::CommentInHeader.at(span));
            }
        }
        let rest = line.start + header.word().len()..line.end;
        let cursor = Cursor::new(text, rest);
        match header {
            Header::Requires => self.requires(&cursor, line),
            Header::Known => self.known(cursor, line),
            Header::CriuOpts => self.criu_opts(&cursor, line),
        }
    }

    fn requires(&mut self, cursor: &Cursor, line: Range<usize>) {
        if cursor.is_at_end() {
            let form = "requires WORD...";
            self.problems.push(ProblemKind::HeaderSyntax(form).at(line));
        }
        for (word, span) in words_of(cursor) {
            let requirement = Requirement(word.to_owned());
            let scenario = &mut self.parsed.scenario;
            if requirement.need().is_none() {
                let known: Vec<String> = requirement::words().collect();
                let kind = ProblemKind::UnknownRequirement {
                    word: word.to_owned(),
                    near: nearest(word, known.iter().map(String::as_str)).map(str::to_owned),
                };
                self.problems.push(kind.at(span));
            } else if scenario.requires.contains(&requirement) {
                self.problems
                    .push(ProblemKind::RepeatedRequirement.at(span));
            } else {
                scenario.requires.push(requirement);
                self.parsed.requirement_spans.push(span);
            }
        }
    }

    fn known(&mut self, mut cursor: Cursor, line: Range<usize>) {
        let form = ProblemKind::HeaderSyntax(r#"known ENGINE [<= VERSION] [races] "why""#);
        let Some(quote) = cursor.rest().find('"') else {
            self.problems.push(form.at(line));
            return;
        };
        let before = &cursor.rest()[..quote];
        let mut words = before.split_ascii_whitespace();
        let engine = words.next().filter(|word| is_engine_name(word));
        let mut versions: Vec<&str> = words.collect();
        let races = versions.pop_if(|word| *word == "races").is_some();
        let has_form = versions.len().is_multiple_of(2)
            && versions
                .chunks(2)
                .all(|pair| ["<", "<=", ">", ">=", "="].contains(&pair[0]) && is_version(pair[1]));
        cursor.at += quote;
        match (engine, cursor.string()) {
            (_, Err(problem)) => self.problems.push(problem),
            (Some(engine), Ok(why)) if has_form && cursor.is_at_end() => {
                let versions = (!versions.is_empty()).then(|| versions.join(" "));
                self.parsed.scenario.known.push(Known {
                    engine: engine.to_owned(),
                    versions,
                    races,
                    why: String::from_utf8_lossy(&why).into_owned(),
                });
            }
            _ => self.problems.push(form.at(line)),
        }
    }

    fn criu_opts(&mut self, cursor: &Cursor, line: Range<usize>) {
        if cursor.is_at_end() {
            let form = "criu-opts OPTION...";
            self.problems.push(ProblemKind::HeaderSyntax(form).at(line));
        }
        let words = words_of(cursor).map(|(word, _)| word.to_owned());
        self.parsed.scenario.criu_opts.extend(words);
    }
}

fn words_of<'a>(cursor: &Cursor<'a>) -> impl Iterator<Item = (&'a str, Range<usize>)> {
    let rest = cursor.rest();
    let start = cursor.at;
    rest.split_ascii_whitespace().map(move |word| {
        let at = start + (word.as_ptr().addr() - rest.as_ptr().addr());
        (word, at..at + word.len())
    })
}

fn is_engine_name(word: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.bytes().all(inside)
}

fn is_version(word: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    word.split('.').all(is_number)
}

// Steps.

impl Reader {
    /// The step on this line; none if something is wrong with it.
    fn step(&mut self, text: &str, line: Range<usize>) -> Option<(Step, StepPlace)> {
        let n_before = self.problems.len();
        let step = match self.try_step(text, line) {
            Ok(step) => step,
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        };
        step.filter(|_| self.problems.len() == n_before)
    }

    fn try_step(
        &mut self,
        text: &str,
        line: Range<usize>,
    ) -> Result<Option<(Step, StepPlace)>, Problem> {
        let mut cursor = Cursor::new(text, line.clone());
        let (process, process_span) = self.process(&mut cursor)?;
        let head = self.call(&mut cursor, process.as_ref())?;
        if cursor.rest().starts_with('#') {
            return Err(ProblemKind::TrailingComment.at(cursor.at..line.end));
        }
        let mut expect_span = None;
        let mut expect = Expect::Success;
        if head.phase != Phase::Unfinished && cursor.eat("=") {
            let start = cursor.at;
            let result = head.call.result(&head.result_args);
            expect = self.expect(&mut cursor, head.call, result)?;
            let end = start + text[start..cursor.at].trim_end().len();
            expect_span = Some(start..end);
        }
        if cursor.rest().starts_with('#') {
            return Err(ProblemKind::TrailingComment.at(cursor.at..line.end));
        }
        if !cursor.is_at_end() {
            return Err(ProblemKind::Expected("the end of the line").at(cursor.at..line.end));
        }
        let place = StepPlace {
            line: self.n_lines,
            whole: line,
            process: process_span,
            call: head.span,
            args: head.arg_spans,
            expect: expect_span,
        };
        let step = Step {
            notes: Vec::new(),
            process,
            call: head.call,
            phase: head.phase,
            args: head.args,
            expect,
        };
        Ok(Some((step, place)))
    }

    /// `[p]`.
    fn process(
        &mut self,
        cursor: &mut Cursor,
    ) -> Result<(Option<Name>, Option<Range<usize>>), Problem> {
        if !cursor.eat("[") {
            return Ok((None, None));
        }
        let word = cursor.word();
        let word = word.ok_or_else(|| cursor.expected("the name of a process"))?;
        cursor.expect("]", "`]`")?;
        let name = argument::name(&word, &mut self.problems);
        Ok((name, Some(word.span)))
    }

    fn call(&mut self, cursor: &mut Cursor, process: Option<&Name>) -> Result<Head, Problem> {
        if cursor.eat("<...") {
            return self.resumed(cursor, process);
        }
        let (call, span) = call_name(cursor)?;
        let mut head = Head {
            call,
            span,
            phase: Phase::Whole,
            args: Vec::new(),
            arg_spans: Vec::new(),
            result_args: Vec::new(),
        };
        if !cursor.eat("(") {
            if !call.is_bare_word() {
                return Err(ProblemKind::NoParentheses(call).at(head.span));
            }
            return Ok(head);
        }
        const UNFINISHED: &str = "<unfinished ...>";
        let values = cursor.values(&[")", UNFINISHED])?;
        // strace leaves the parenthesis open; a closed one reads better and is canonical.
        let mut is_unfinished = cursor.eat(UNFINISHED);
        let close = cursor.here();
        if !is_unfinished {
            cursor.expect(")", "`,` or `)`")?;
            is_unfinished = cursor.eat(UNFINISHED);
        }
        self.arguments(&mut head, values, close);
        head.result_args.clone_from(&head.args);
        if is_unfinished {
            head.phase = Phase::Unfinished;
            self.unfinished
                .push((process.cloned(), call, head.args.clone()));
        }
        Ok(head)
    }

    /// `<... open resumed>`, with or without the parenthesis that strace puts behind.
    fn resumed(&mut self, cursor: &mut Cursor, process: Option<&Name>) -> Result<Head, Problem> {
        let (call, span) = call_name(cursor)?;
        cursor.expect("resumed>", "`resumed>`")?;
        cursor.eat(")");
        let pending = self
            .unfinished
            .iter()
            .position(|(owner, pending, _)| owner.as_ref() == process && *pending == call);
        let result_args = pending.map_or_else(Vec::new, |at| self.unfinished.remove(at).2);
        Ok(Head {
            call,
            span,
            phase: Phase::Resumed,
            args: Vec::new(),
            arg_spans: Vec::new(),
            result_args,
        })
    }

    fn arguments(&mut self, head: &mut Head, values: Vec<Value>, close: Range<usize>) {
        let signature = head.call.signature();
        let n_before = self.problems.len();
        let n_given = values.len();
        for (index, value) in values.into_iter().enumerate() {
            if self.problems.len() > n_before && is_of_command(head.call, index) {
                // Its kind depends on an argument that is wrong.
                return;
            }
            let Some(kind) = head.call.kind(index, &head.args) else {
                let kind = ProblemKind::TooManyArguments {
                    call: head.call,
                    n_max: index,
                };
                self.problems.push(kind.at(value.span));
                return;
            };
            head.arg_spans.push(value.span.clone());
            let name = signature.arg_names[index];
            let arg = argument::convert(value, kind, name, &mut self.problems);
            // A placeholder keeps the index of the arguments behind it; the step is dropped anyway.
            head.args.push(arg.unwrap_or(Arg::Null));
        }
        let needs_more = n_given < signature.n_required
            || (is_of_command(head.call, n_given) && head.call.kind(n_given, &head.args).is_some());
        if needs_more {
            let kind = ProblemKind::TooFewArguments {
                call: head.call,
                missing: signature.arg_names[n_given],
            };
            self.problems.push(kind.at(close));
        } else if self.problems.len() == n_before {
            self.check_mode(head, close);
        }
    }

    /// Arguments that another argument makes necessary.
    fn check_mode(&mut self, head: &Head, close: Range<usize>) {
        const O_CREAT: u64 = 0o100;
        const O_TMPFILE_BIT: u64 = 0o20_000_000;
        let flags_at = match head.call {
            Call::Open => 1,
            Call::Openat => 2,
            Call::Mknod => {
                let is_device = match head.args[1] {
                    Arg::Mode(mode) => [0o020_000, 0o060_000].contains(&(mode & 0o170_000)),
                    _ => false,
                };
                if is_device && head.args.len() < 3 {
                    self.problems.push(ProblemKind::NoDevice.at(close));
                }
                return;
            }
            _ => return,
        };
        let creates = match head.args[flags_at] {
            Arg::Flags(_, flags) => flags & (O_CREAT | O_TMPFILE_BIT) != 0,
            _ => false,
        };
        if creates && head.args.len() == flags_at + 1 {
            self.problems.push(ProblemKind::NoMode.at(close));
        }
    }

    /// What stands behind the `=`.
    fn expect(
        &mut self,
        cursor: &mut Cursor,
        call: Call,
        result: ResultKind,
    ) -> Result<Expect, Problem> {
        let start = cursor.at;
        if cursor.eat("?") {
            return match result {
                ResultKind::Nothing => Err(ProblemKind::NothingToAssert(call).at(start..start + 1)),
                _ => Ok(Expect::Any),
            };
        }
        let word = cursor.word();
        let word = word.ok_or_else(|| cursor.expected("a name, a number, an error or `?`"))?;
        if result == ResultKind::Nothing {
            return Err(ProblemKind::NothingToAssert(call).at(word.span));
        }
        if !word.is_number() {
            let Some(name) = argument::name(&word, &mut self.problems) else {
                return Ok(Expect::Success);
            };
            return match result {
                ResultKind::Fd | ResultKind::Wd | ResultKind::Process => Ok(Expect::Bind(name)),
                ResultKind::Zero | ResultKind::Number | ResultKind::Nothing => {
                    Err(ProblemKind::NothingToBind(call).at(word.span))
                }
            };
        }
        if word.text == "-1" {
            return failure(cursor, word.span);
        }
        let number = word.number().and_then(|number| i64::try_from(number).ok());
        let out_of_range = ProblemKind::NumberOutOfRange("one that a call returns");
        let number = number.filter(|number| *number >= 0);
        let number = number.ok_or_else(|| out_of_range.at(word.span))?;
        match (result, number) {
            // What strace prints for success says no more than nothing does.
            (ResultKind::Zero, 0) => Ok(Expect::Success),
            _ => Ok(Expect::Value(number)),
        }
    }
}

/// A call without its result, and what is needed to read its result.
#[derive(Debug)]
struct Head {
    call: Call,
    span: Range<usize>,
    phase: Phase,
    args: Vec<Arg>,
    arg_spans: Vec<Range<usize>>,
    /// Those of the first half in the second half of a call.
    result_args: Vec<Arg>,
}

fn call_name(cursor: &mut Cursor) -> Result<(Call, Range<usize>), Problem> {
    let word = cursor.word().ok_or_else(|| cursor.expected("a call"))?;
    match Call::named(&word.text) {
        Some(call) => Ok((call, word.span)),
        None => {
            let names = Call::ALL.iter().map(|call| call.signature().name);
            let headers = ["requires", "known", "criu-opts"];
            let near = nearest(&word.text, names.chain(headers));
            let name = word.text;
            Err(ProblemKind::UnknownCall { name, near }.at(word.span))
        }
    }
}

fn is_of_command(call: Call, index: usize) -> bool {
    call.signature().args.get(index) == Some(&crate::ArgKind::OfCommand)
}

/// `ENOENT` behind `-1`, with or without the sentence that strace adds in parentheses.
fn failure(cursor: &mut Cursor, minus_one: Range<usize>) -> Result<Expect, Problem> {
    let word = cursor.word();
    let word = word.ok_or_else(|| ProblemKind::NoErrno.at(minus_one))?;
    let Some(number) = errno::number(&word.text) else {
        let near = nearest(&word.text, errno::names().map(|(name, _)| name));
        let kind = ProblemKind::UnknownErrno {
            word: word.text,
            near,
        };
        return Err(kind.at(word.span));
    };
    if cursor.eat("(") {
        let length = cursor.rest().find(')');
        cursor.at += length.ok_or_else(|| cursor.expected("`)`"))?;
        cursor.eat(")");
    }
    Ok(Expect::Errno(number))
}

/// The property of the language, for whoever has bytes to try: reading and printing never panic, a
/// problem lies within the text, and canonical text stands for the same scenario and for itself.
///
/// # Panics
///
/// If the property does not hold.
pub fn check_parse(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let parsed = match parse(text) {
        Ok(parsed) => parsed,
        Err(problems) => return check_problems(text, &problems),
    };
    check_problems(text, &crate::check(&parsed));
    let canonical = crate::print(&parsed.scenario);
    let again = parse(&canonical).expect("canonical text has no problem");
    assert_eq!(again.scenario, parsed.scenario, "{canonical}");
    assert_eq!(crate::print(&again.scenario), canonical);
}

fn check_problems(text: &str, problems: &[Problem]) {
    for problem in problems {
        assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
        assert!(!problem.kind.to_string().is_empty(), "{problem:?}");
        let (line, column) = problem.line_and_column(text);
        assert!(line > 0 && column > 0, "{problem:?}");
        if let Some((span, _)) = problem.related() {
            assert!(text.get(span).is_some(), "{problem:?}");
        }
        let _ = problem.help();
    }
}
