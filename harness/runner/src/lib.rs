//! Engines, sandbox, snapshots and the command line.

#![forbid(unsafe_code)]

pub mod diagnostics;
