//! Compares two transcripts and judges what differs.

#![forbid(unsafe_code)]

mod align;
mod diff;
mod difference;
pub mod invariant;
mod judge;
mod text;

pub use diff::diff;
pub use difference::{Difference, Kind, Side};
pub use judge::{Verdict, covers, exit_code, judge, judge_controls, text_diff};
