//! Live processes of real programs: what `explain` says of them is what they were told to watch,
//! and nobody hears that it was asked.
//!
//! The programs come from Debian (`ci/programs` installs them). What is missing is skipped with a
//! reason; `NOTIFREEZE_STRICT=1` makes that a failure.

mod around_criu;
mod filesystems;
mod names;
mod outlook;
mod programs;
mod recording;
mod schema;
mod silence;
