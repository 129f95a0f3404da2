//! Engines, sandbox, snapshots and the command line: everything that does I/O.
//!
//! A scenario is run in sandboxes ([`sandbox`]), cut by an engine ([`engine`]), watched from outside
//! ([`survey`], [`bystander`]), and what was seen is put in order ([`observe`]), compared and judged
//! ([`case`]), and held against its snapshot ([`gate`]).
//! What came of a whole run is told as a table or as a file ([`report`]).

#![forbid(unsafe_code)]

pub mod bystander;
pub mod caches;
pub mod case;
pub mod cli;
pub mod criu_images;
pub mod cuts;
pub mod diagnostics;
pub mod engine;
pub mod gate;
pub mod generate;
pub mod job;
pub mod live;
pub mod machine;
pub mod observe;
pub mod park;
pub mod pids;
pub mod report;
pub mod sandbox;
pub mod suite;
pub mod survey;

/// Only Pass, Known and Skip.
pub const EXIT_OK: u8 = 0;
/// Any Fail or Fixed.
pub const EXIT_FAIL: u8 = 1;
/// Bad usage, or a scenario that does not parse.
pub const EXIT_USAGE: u8 = 2;
/// Any Broken.
pub const EXIT_BROKEN: u8 = 3;
