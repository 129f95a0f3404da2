//! System calls, thin and safe: one call a function.

pub mod fanotify;
pub mod inspect;
pub mod raw;
pub mod spawn;
pub mod tmpfs;
pub mod watch;
