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

#[cfg(test)]
mod tests {
    use std::fs::TryLockError;
    use std::path::PathBuf;

    use super::*;

    fn case(text: &str) -> Case {
        let parsed = scenario::parse(&format!("# It holds.\n{text}")).unwrap();
        Case {
            name: "test/case".to_owned(),
            path: PathBuf::new(),
            scenario: parsed.scenario,
        }
    }

    #[test]
    fn who_drops_the_caches_is_alone_with_worlds_on_disks() {
        let (drops, other) = (case("drop_caches()\n"), case("mkdir(\"d\", 0755)\n"));
        assert!(hold(&other, Filesystem::Tmpfs).is_none());
        let Some(disk) = hold(&other, Filesystem::Ext4) else {
            eprintln!("skipped: {LOCK} is not to be opened");
            return;
        };
        let late = File::options().write(true).open(LOCK).unwrap();
        let is_taken = |lock| matches!(lock, Err(TryLockError::WouldBlock));
        assert!(is_taken(late.try_lock()));
        drop(disk);
        let _dropper = hold(&drops, Filesystem::Tmpfs).unwrap();
        assert!(is_taken(late.try_lock_shared()));
    }
}
