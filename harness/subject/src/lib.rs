//! The process under test: executes the steps of a plan and appends what it got to a log.
//!
//! It owns nothing that its scenario did not give it: between steps no descriptor of its own is
//! open, there is one thread, no timer and no handler. At a `checkpoint`, at a `look` and after
//! the last step it parks: it stops itself and waits for `SIGCONT`. What names stand for is read
//! back from the log, so a restored process needs no memory of the one that was dumped.
//!
//! It decodes nothing and judges nothing.

#![forbid(unsafe_code)]

mod execute;
mod journal;
mod process;

pub use process::{Start, run};
