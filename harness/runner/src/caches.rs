//! Who may drop the caches of the machine, and when.
//!
//! A filesystem on a disk forgets names with the caches, and to find them again makes events
//! (`exportfs_get_name`). So a scenario that drops them waits until no world is on such a filesystem, and
//! the other way round, over all processes of the harness. A tmpfs keeps its names in any case.

use std::fs::File;

use scenario::Call;

use crate::sandbox::Filesystem;
use crate::suite::Case;

/// The lock is that of the file by which the caches are dropped (flock(2)): whoever may not open it can
/// neither drop them nor have a disk.
const LOCK: &str = "/proc/sys/vm/drop_caches";

/// Waits for the time of a case, which lasts until the file is dropped. None for a case that neither
/// drops the caches nor minds, and where there is no such file.
#[must_use]
pub fn hold(case: &Case, world: Filesystem) -> Option<File> {
    let drops = case
        .scenario
        .steps
        .iter()
        .any(|step| step.call == Call::DropCaches);
    if !drops && world == Filesystem::Tmpfs {
        return None;
    }
    let file = File::options().write(true).open(LOCK).ok()?;
    // What cannot be locked is as it would be without.
    let _ = if drops {
        file.lock()
    } else {
        file.lock_shared()
    };
    Some(file)
}
