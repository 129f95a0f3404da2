//! The vocabulary of Linux file notification, and decoders for its two formats: the text of
//! `/proc/PID/fdinfo/FD` and the event records that `read(2)` on a group returns.
//!
//! Everything here is a function from bytes to values. There is no file, process, clock or thread.
//! Every decoder takes hostile input: it never panics, its memory is bounded by the input, and what
//! it does not know it keeps as a typed unknown or refuses by name.

#![forbid(unsafe_code)]

mod bits;
mod count;
pub mod event;
pub mod fanotify;
pub mod fdinfo;
pub mod handle;
pub mod inotify;
mod number;
mod open;

pub use bits::ParseFlagsError;
pub use count::counted;
pub use number::{Cookie, Ino, MntId, NsIno, Sdev, Wd};
pub use open::OpenFlags;
