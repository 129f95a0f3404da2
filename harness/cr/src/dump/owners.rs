//! Owners of descriptors (`F_SETOWN`) that are no processes of the image.
//!
//! A pid names a process only as long as it lives: later, another may have it, and would get the
//! signals. So it is noted when the owner began, and that is compared at the restore.

use nix::unistd::Pid;

use super::declare;
use super::files::Held;
use crate::image::{Image, OpenFile};
use crate::process::began;
use crate::{Loss, LossKind};

/// Notes when each such owner began, and declares that he may not be told of the descriptor any more.
pub(super) fn note(image: &mut Image, held: &[Held]) {
    for (index, holder) in held.iter().enumerate() {
        let file = &image.files[index];
        let Some(owner) = file.owner.filter(|_| !image.is_own(file)) else {
            continue;
        };
        let OpenFile { owner_began, .. } = &mut image.files[index];
        // The first of a group names it. Where he is gone, it cannot be known again.
        *owner_began = began(Pid::from_raw(owner.pid)).unwrap_or(0);
        let object = format!("{}: owner {}", holder.place, owner.pid);
        let reason = "no process of the image, so he is told only in this boot, and while he lives";
        declare(image, Loss::new(LossKind::ForeignOwner, object, reason));
    }
}
