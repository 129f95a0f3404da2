//! Steps: a call, its arguments, and what stands behind the `=`.

use std::ops::Range;

use crate::call::{Call, ResultKind};
use crate::errno;
use crate::problem::{Problem, ProblemKind};
use crate::step::{Arg, Expect, Name, Phase, Step};
use crate::suggest::nearest;

use super::value::{Cursor, Value};
use super::{Reader, StepPlace, argument};

impl Reader {
    /// The step on this line; none if something is wrong with it.
    pub(super) fn step(&mut self, text: &str, line: Range<usize>) -> Option<(Step, StepPlace)> {
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
