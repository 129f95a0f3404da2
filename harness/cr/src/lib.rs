//! Dump, image and restore of file notification state. The only crate with `unsafe`.

pub mod queue;
pub mod silent;
pub mod sys;
