//! System calls, thin and safe: one call a function, or the few that nobody wants apart.

pub mod actor;
pub mod block;
mod clone;
pub mod descriptor;
pub mod fanotify;
pub mod handle;
pub mod inode_flags;
pub mod inspect;
pub mod memory;
pub mod mount;
pub mod pass;
pub mod path;
pub mod raw;
pub mod shared;
pub mod spawn;
pub mod tmpfs;
pub mod trace;
pub mod watch;
