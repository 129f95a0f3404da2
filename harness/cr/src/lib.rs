//! Dump, image and restore of file notification state. The only crate with `unsafe`.

pub mod dump;
pub mod ext4;
pub mod fanotify;
pub mod image;
mod loss;
pub mod mounts;
pub mod process;
pub mod queue;
pub mod restore;
pub mod silent;
pub mod sys;

pub use dump::{
    Afterwards, DumpError, DumpErrorKind, DumpOptions, Ghosts, QueuePolicy, dump, dump_to_file,
    recover,
};
pub use image::Image;
pub use loss::{Loss, LossKind};
pub use restore::{
    Defect, Others, RestoreError, RestoreErrorKind, RestoreOptions, Restored, clear_leftovers,
    restore, restore_file, restore_opened,
};
