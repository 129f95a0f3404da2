//! What needs more than one line to tell: names, processes, limits.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::call::{ArgKind, Call, ResultKind};
use crate::limits::{MAX_CHECKPOINTS, MAX_FLOOD, MAX_PROBLEMS, MAX_PROCESSES, MAX_READ};
use crate::parse::{Parsed, StepPlace};
use crate::problem::{Problem, ProblemKind};
use crate::step::{Arg, Expect, Name, Phase, Step};
use crate::suggest::nearest;

/// Everything that is wrong with a scenario whose grammar is right, in the order of the text; at
/// most [`MAX_PROBLEMS`].
#[must_use]
pub fn check(parsed: &Parsed) -> Vec<Problem> {
    let mut state = State::default();
    if parsed.scenario.summary.first().is_none_or(String::is_empty) {
        state.problems.push(ProblemKind::NoSummary.at(0..0));
    }
    if parsed.scenario.steps.is_empty() {
        state.problems.push(ProblemKind::NoSteps.at(0..0));
    }
    for (step, place) in parsed.scenario.steps.iter().zip(&parsed.places) {
        state.step(step, place);
    }
    state.finish()
}

#[derive(Debug, Default)]
struct State<'a> {
    problems: Vec<Problem>,
    names: BTreeMap<&'a Name, Binding>,
    children: BTreeMap<&'a Name, Child>,
    n_checkpoints: usize,
}

#[derive(Debug)]
struct Binding {
    kind: ResultKind,
    span: Range<usize>,
    is_used: bool,
}

#[derive(Debug, Default)]
struct Child {
    /// Where it called `exit_group`.
    exit: Option<Range<usize>>,
    is_reaped: bool,
    /// Where its unfinished call is.
    unfinished: Option<(Call, Range<usize>)>,
}

impl<'a> State<'a> {
    fn problem(&mut self, kind: ProblemKind, span: &Range<usize>) {
        self.problems.push(kind.at(span.clone()));
    }

    fn step(&mut self, step: &'a Step, place: &StepPlace) {
        match (&step.process, &place.process) {
            (Some(process), Some(span)) => self.step_of_child(process, step, place, span),
            _ => self.step_of_main(step, place),
        }
        for (index, arg) in step.args.iter().enumerate() {
            self.argument(step, index, arg, &place.args[index]);
        }
        self.limits(step, place);
        if let (Expect::Bind(name), Some(span)) = (&step.expect, &place.expect) {
            self.bind(name, step, span);
        }
    }

    fn step_of_main(&mut self, step: &'a Step, place: &StepPlace) {
        if step.phase != Phase::Whole {
            self.problem(ProblemKind::UnfinishedInMain, &place.whole);
        }
        match step.call {
            Call::ExitGroup => self.problem(ProblemKind::MainExits, &place.call),
            Call::Fork if !matches!(step.expect, Expect::Bind(_)) => {
                self.problem(ProblemKind::ForkWithoutName, &place.call);
            }
            Call::Wait4 => self.wait(step, place),
            _ => {}
        }
    }

    fn wait(&mut self, step: &'a Step, place: &StepPlace) {
        let Some(Arg::Name(process)) = step.args.first() else {
            return;
        };
        let Some(child) = self.children.get_mut(process) else {
            return;
        };
        let was_reaped = std::mem::replace(&mut child.is_reaped, true);
        if child.exit.is_none() {
            let kind = ProblemKind::WaitForLiving(process.clone());
            self.problem(kind, &place.args[0]);
        } else if was_reaped {
            let kind = ProblemKind::WaitedTwice(process.clone());
            self.problem(kind, &place.args[0]);
        }
    }

    fn step_of_child(
        &mut self,
        process: &'a Name,
        step: &'a Step,
        place: &StepPlace,
        span: &Range<usize>,
    ) {
        if process.0 == Name::MAIN {
            self.problem(ProblemKind::MainMarked, span);
            return;
        }
        self.name(process, ResultKind::Process, span);
        match step.call {
            Call::Fork => self.problem(ProblemKind::ForkInChild, &place.call),
            Call::Checkpoint | Call::DropCaches | Call::Look | Call::Wait4 => {
                self.problem(ProblemKind::WordInChild(step.call), &place.call);
            }
            _ => {}
        }
        let Some(child) = self.children.get_mut(process) else {
            return;
        };
        if let Some(exit) = child.exit.clone() {
            let process = process.clone();
            self.problem(ProblemKind::StepAfterExit { process, exit }, &place.whole);
            return;
        }
        match (step.phase, child.unfinished.take()) {
            (Phase::Resumed, Some((call, _))) if call == step.call => {}
            (Phase::Resumed, unfinished) => {
                child.unfinished = unfinished;
                self.problem(ProblemKind::ResumedWithoutStart(step.call), &place.whole);
            }
            (Phase::Whole | Phase::Unfinished, Some((call, start))) => {
                child.unfinished = Some((call, start.clone()));
                let process = process.clone();
                let kind = ProblemKind::StepWhileUnfinished { process, start };
                self.problem(kind, &place.whole);
            }
            (Phase::Unfinished, None) => {
                child.unfinished = Some((step.call, place.whole.clone()));
            }
            (Phase::Whole, None) if step.call == Call::ExitGroup => {
                child.exit = Some(place.whole.clone());
            }
            (Phase::Whole, None) => {}
        }
    }

    fn argument(&mut self, step: &'a Step, index: usize, arg: &'a Arg, span: &Range<usize>) {
        let Arg::Name(name) = arg else {
            return;
        };
        let wanted = match step.call.kind(index, &step.args[..index]) {
            Some(ArgKind::Fd | ArgKind::DirFd) => ResultKind::Fd,
            Some(ArgKind::Wd) => ResultKind::Wd,
            Some(ArgKind::Process) => {
                if name.0 == Name::MAIN && step.call != Call::Wait4 {
                    return;
                }
                ResultKind::Process
            }
            _ => return,
        };
        self.name(name, wanted, span);
    }

    /// A use of a name.
    fn name(&mut self, name: &'a Name, wanted: ResultKind, span: &Range<usize>) {
        let Some(binding) = self.names.get_mut(name) else {
            let same_kind = self
                .names
                .iter()
                .filter(|(_, binding)| binding.kind == wanted);
            let near = nearest(&name.0, same_kind.map(|(name, _)| name.0.as_str()));
            let kind = ProblemKind::Unbound {
                near: near.map(str::to_owned),
                name: name.0.clone(),
            };
            self.problem(kind, span);
            return;
        };
        binding.is_used = true;
        if binding.kind != wanted {
            let kind = ProblemKind::WrongKind {
                name: name.0.clone(),
                is: binding.kind,
                wanted,
                bound: binding.span.clone(),
            };
            self.problem(kind, span);
        }
    }

    fn bind(&mut self, name: &'a Name, step: &'a Step, span: &Range<usize>) {
        if name.0 == Name::MAIN {
            self.problem(ProblemKind::ReservedName, span);
            return;
        }
        if let Some(first) = self.names.get(name) {
            let kind = ProblemKind::BoundTwice {
                name: name.0.clone(),
                first: first.span.clone(),
            };
            self.problem(kind, span);
            return;
        }
        // A resumed call has no arguments of its own; only open and its like can block and bind.
        let kind = step.call.result(&step.args);
        let binding = Binding {
            kind,
            span: span.clone(),
            // A child is there, and shares descriptors, whether or not it makes a step.
            is_used: kind == ResultKind::Process,
        };
        self.names.insert(name, binding);
        if step.call == Call::Fork {
            self.children.insert(name, Child::default());
            if self.children.len() > MAX_PROCESSES {
                self.limit("child processes", MAX_PROCESSES, span);
            }
        }
    }

    fn limits(&mut self, step: &Step, place: &StepPlace) {
        match (step.call, step.args.as_slice()) {
            (Call::Checkpoint, _) => {
                self.n_checkpoints += 1;
                if self.n_checkpoints == MAX_CHECKPOINTS + 1 {
                    self.limit("checkpoints", MAX_CHECKPOINTS, &place.whole);
                }
            }
            (Call::Read | Call::Pread, [_, Arg::Int(size), ..]) if *size > MAX_READ => {
                let kind = ProblemKind::NumberOutOfRange("at most 1048576 (bytes of one read)");
                self.problem(kind, &place.args[1]);
            }
            (Call::Flood, [_, Arg::Int(count)]) if *count > MAX_FLOOD => {
                let kind = ProblemKind::NumberOutOfRange("at most 100000 (events of one flood)");
                self.problem(kind, &place.args[1]);
            }
            _ => {}
        }
    }

    fn limit(&mut self, what: &'static str, limit: usize, span: &Range<usize>) {
        self.problem(ProblemKind::Limit { what, limit }, span);
    }

    fn finish(mut self) -> Vec<Problem> {
        for (name, binding) in &self.names {
            if !binding.is_used {
                let kind = ProblemKind::Unused(name.0.clone());
                self.problems.push(kind.at(binding.span.clone()));
            }
        }
        for child in self.children.values() {
            if let Some((_, start)) = &child.unfinished {
                self.problems
                    .push(ProblemKind::NeverResumed.at(start.clone()));
            }
        }
        self.problems.sort_by_key(|problem| problem.span.start);
        if self.problems.len() > MAX_PROBLEMS {
            self.problems.truncate(MAX_PROBLEMS);
            let last = self.problems[MAX_PROBLEMS - 1].span.end;
            self.problems
                .push(ProblemKind::TooManyProblems.at(last..last));
        }
        self.problems
    }
}
