//! The scenario language and what a run of a scenario yields.
//!
//! A scenario is a strace transcript with `checkpoint` in it. A transcript is the same text with
//! the results filled in. Both are values here: nothing in this crate runs anything.

#![forbid(unsafe_code)]

mod bytes;
pub mod call;
mod check;
mod cut;
pub mod errno;
mod flags;
pub mod limits;
pub mod log;
mod parse;
mod print;
mod problem;
mod requirement;
mod step;
mod suggest;
mod transcript;

pub use bytes::Bytes;
pub use call::{ArgKind, Call, ResultKind, Signature};
pub use check::check;
pub use cut::{cut_at, positions, repeat_cuts};
pub use flags::{FlagSet, FlagText};
pub use parse::{Parsed, StepPlace, check_parse, parse, parse_and_check};
pub use print::print;
pub use problem::{Problem, ProblemKind};
pub use requirement::Need;
pub use step::{
    Arg, Expect, Known, Name, Note, Phase, Reference, Requirement, Scenario, Step, Time,
};
pub use transcript::{
    Bystander, Descriptor, DescriptorKind, Entry, Event, Fact, FanotifyEvent, Loss, Mark,
    MarkTarget, Object, Observation, Outcome, Place, Stat, Transcript, Watch,
};
