//! Whether there is room for ghosts, before anything is made: a short image can ask for a lot.

use std::collections::{HashMap, HashSet};

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;

use super::error::RestoreError;
use super::tree::Tree;
use crate::image::{Image, PlaceKind, Text};

#[derive(Clone, Copy, Debug, Default)]
struct Need {
    /// A filesystem that compresses takes less for it.
    content: u64,
    /// Allocated for certain.
    empty: u64,
}

/// Refuses content that no filesystem of this size can hold, and space that is not free.
pub(super) fn check(image: &Image, tree: &Tree) -> Result<(), RestoreError> {
    for (mount, need) in needs(image) {
        // Whoever makes the ghost says why this fails.
        let Ok(root) = tree.open(mount, libc::O_PATH | libc::O_DIRECTORY) else {
            continue;
        };
        let Ok(found) = fstatvfs(&root) else {
            continue;
        };
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        let (all, free) = (bytes(found.blocks()), bytes(found.blocks_free()));
        // Some have no size: a network's, and a tmpfs without a limit.
        if all > 0 && (need.content > all || need.empty > free) {
            let operand = format!(
                "{}: ghosts take {} bytes, of {free} that are free",
                Text(mount),
                need.content.saturating_add(need.empty)
            );
            return Err(RestoreError::call("statvfs", operand, Errno::ENOSPC));
        }
    }
    Ok(())
}

/// What the ghosts of each mount need.
fn needs(image: &Image) -> HashMap<&[u8], Need> {
    let mut needs: HashMap<&[u8], Need> = HashMap::new();
    let mut seen = HashSet::new();
    for place in &image.places {
        let ghost = image.inodes[place.inode as usize].ghost.as_ref();
        let is_made = matches!(place.kind(), PlaceKind::Gone | PlaceKind::Unnamed);
        let Some(ghost) = ghost.filter(|_| is_made && seen.insert(place.inode)) else {
            continue;
        };
        let mount = match &place.mount[..] {
            [] => b"/",
            mount => mount,
        };
        let need = needs.entry(mount).or_default();
        for extent in &ghost.extents {
            let of = if extent.is_empty() {
                &mut need.empty
            } else {
                &mut need.content
            };
            *of = of.saturating_add(extent.length);
        }
    }
    needs
}
