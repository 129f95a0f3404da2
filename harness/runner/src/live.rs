//! Live processes: what they watch, and what a checkpoint would make of it. Asking disturbs
//! nobody: no event, no time of access, no stop.
//!
//! A process is read ([`process`]), its marks are traced to paths ([`place`]) as it sees them
//! ([`home`]), by [`search`] where nothing else leads there; engines are asked beforehand
//! ([`outlook`]); all of it is one value ([`explain`]), shown as text ([`show`]) or as JSON. Two values
//! of different times are compared ([`capture`](mod@capture), [`compare`](mod@compare)).
//!
//! What a process does, rather than has, is recorded ([`record`](mod@record)): through strace, which it
//! may notice by the time that it takes.

pub mod capture;
pub mod compare;
pub mod explain;
pub mod home;
pub mod outlook;
pub mod place;
pub mod process;
pub mod record;
pub mod search;
pub mod show;
pub mod words;
