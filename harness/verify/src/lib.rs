//! Compares two transcripts, judges what differs, and renders both as one text.
//!
//! Everything here is a function from values to values. There is no file, process, clock or thread.

#![forbid(unsafe_code)]

mod align;
mod diff;
mod difference;
pub mod invariant;
mod judge;
pub mod model;
mod render;
mod text;

pub use diff::diff;
pub use difference::{Difference, Kind, Side};
pub use judge::{Verdict, covers, exit_code, judge, judge_controls, text_diff};
pub use render::{Row, SideBySide, render, render_transcript, side_by_side};
