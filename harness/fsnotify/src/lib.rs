//! The vocabulary of Linux file notification, and decoders for its two formats: the text of
//! `/proc/PID/fdinfo/FD` and the event records that `read(2)` on a group returns.
//!
//! Everything here is a function from bytes to values. There is no file, process, clock or thread.

#![forbid(unsafe_code)]

pub mod inotify;
mod number;

pub use number::{Cookie, Ino, Sdev, Wd};
