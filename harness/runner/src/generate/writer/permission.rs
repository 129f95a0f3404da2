//! Opens that wait for the answer of a listener. Nobody but them opens the file: whoever did would
//! wait for an answer that no step gives.

use scenario::{Arg, Call, Expect, FlagSet, Name, Phase, Step};

use super::super::rolls::Roll;
use super::{Writer, bytes, has_to_be_kept_out, step};

/// A name that no other step has.
const FILE: &str = "q";
const EPERM: i32 = 1;

impl Writer {
    /// A child opens a file, the main process reads of it and answers. All of it or nothing.
    pub(super) fn ask_permission(&mut self, roll: Roll) {
        let before = self.clone();
        if self.try_to_ask(roll).is_none() {
            *self = before;
        }
    }

    fn try_to_ask(&mut self, roll: Roll) -> Option<()> {
        const FAN_ALLOW: u32 = 1;
        const FAN_DENY: u32 = 2;
        let listener = match self.listeners.first() {
            Some(listener) => listener.clone(),
            None => self.listen()?,
        };
        if self.children.is_empty() {
            self.fork();
        }
        let process = super::pick(&self.children, roll.first)?.clone();
        let is_denied = roll.variant.is_multiple_of(3);
        let flags = Arg::Flags(FlagSet::Open, 0);
        let begin = Step {
            phase: Phase::Unfinished,
            ..step(
                Some(process.clone()),
                Call::Open,
                vec![bytes(FILE), flags],
                Expect::Success,
            )
        };
        self.add(begin)?;
        self.uncut.push(self.steps.len());
        self.push(None, Call::Read, vec![Arg::Name(listener.clone())])?;
        self.uncut.push(self.steps.len());
        let answer = Arg::Response(if is_denied { FAN_DENY } else { FAN_ALLOW });
        self.push(None, Call::Write, vec![Arg::Name(listener), answer])?;
        self.uncut.push(self.steps.len());
        let name = self.new_name("f");
        let expect = if is_denied {
            Expect::Errno(EPERM)
        } else {
            Expect::Bind(name.clone())
        };
        let end = Step {
            phase: Phase::Resumed,
            ..step(Some(process.clone()), Call::Open, Vec::new(), expect)
        };
        self.add(end)?;
        if !is_denied {
            self.files.push((Some(process), name));
        }
        Some(())
    }

    /// The file, and a group that is asked whoever opens it.
    fn listen(&mut self) -> Option<Name> {
        const S_IFREG: u32 = 0o100_000;
        const FAN_CLASS_CONTENT_NONBLOCK: u64 = 0x6;
        const FAN_MARK_ADD: u64 = 0x1;
        const FAN_OPEN_PERM: u64 = 0x1_0000;
        let args = vec![bytes(FILE), Arg::Mode(S_IFREG | 0o644)];
        self.push(None, Call::Mknod, args)?;
        let name = self.new_name("m");
        let args = vec![
            Arg::Flags(FlagSet::FanotifyInit, FAN_CLASS_CONTENT_NONBLOCK),
            Arg::Flags(FlagSet::Open, 0),
        ];
        self.bind(None, Call::FanotifyInit, args, &name)?;
        let args = vec![
            Arg::Name(name.clone()),
            Arg::Flags(FlagSet::FanotifyMark, FAN_MARK_ADD),
            Arg::Flags(FlagSet::FanotifyMask, FAN_OPEN_PERM),
            Arg::Cwd,
            bytes(FILE),
        ];
        self.push(None, Call::FanotifyMark, args)?;
        self.listeners.push(name.clone());
        Some(name)
    }

    /// Adds a step that the model can make, with the result that the step says.
    fn add(&mut self, step: Step) -> Option<()> {
        let mut model = self.model.clone();
        let outcome = model.step(&step).ok()?.outcome;
        let fits = match (&step.expect, outcome) {
            (Expect::Errno(wanted), Some(scenario::Outcome::Errno(errno))) => *wanted == errno,
            (Expect::Errno(_), _) => false,
            (_, Some(scenario::Outcome::Errno(_))) => false,
            _ => true,
        };
        if !fits || has_to_be_kept_out(&model) {
            return None;
        }
        self.model = model;
        self.steps.push(step);
        Some(())
    }
}
