//! fanotify groups: what a dump keeps of one, and how a restore makes it again.
//!
//! A group is read from its fdinfo, oldest mark first, and from what fdinfo hides: whether answers
//! are audited, and whether the group is unprivileged ([`hidden`]). A mark is kept by what it is
//! on, never by a number that holds on one boot only. [`plan`] says which calls make a mark with
//! exactly the text that it had; permission events are asked for last, by [`restore::arm`], since
//! from then on whoever opens a file waits for a listener that may not run yet.
//!
//! Unread events are drained and written down ([`queue`]). Those that name objects by a handle of
//! inode number and generation are made again on a forged filesystem ([`forge`]); others cannot be
//! made again without others hearing of it, and are declared lost. Nothing here finds or opens the objects that marks are on:
//! the caller does, who knows the files of the subject.

pub mod blocked;
pub mod dump;
pub mod forge;
pub mod hidden;
pub mod plan;
pub mod queue;
pub mod restore;
pub mod take;
