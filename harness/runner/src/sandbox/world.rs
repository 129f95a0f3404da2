//! The mounts of a sandbox: nothing of them is visible outside, nothing is made on the host.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::filesystem::Filesystem;

/// Where the sandbox keeps its files, all on mounts of its own.
#[derive(Debug)]
pub(super) struct World {
    /// Plan, log and images.
    pub(super) control: PathBuf,
    /// The scenario's own filesystem, alone in carrying the bystander's filesystem mark.
    pub(super) root: PathBuf,
}

/// Directories that a sandbox may mount over, in its own mount namespace: any that exists and does
/// not hold the programs will do.
const MOUNT_POINTS: [&str; 5] = ["/mnt", "/media", "/srv", "/opt", "/tmp"];

/// Makes the mounts, the world on a filesystem of this kind, and a `/proc` for the new pid namespace.
///
/// `programs` are files that have to stay reachable.
///
/// # Errors
///
/// A sentence: what could not be mounted, and why.
pub(super) fn make(kind: Filesystem, programs: &[&Path]) -> Result<World, String> {
    attach(
        "none",
        Path::new("/"),
        None,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
    )?;
    let base = MOUNT_POINTS
        .iter()
        .map(Path::new)
        .find(|base| base.is_dir() && programs.iter().all(|program| !program.starts_with(base)))
        .ok_or_else(|| format!("none of {} can be mounted over", MOUNT_POINTS.join(", ")))?;
    let guards = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    attach("notifreeze", base, Some("tmpfs"), guards)?;
    // The world is a directory of its filesystem, not the root: so an engine has a directory on
    // the same mount that nobody watches.
    let filesystem = base.join("fs");
    let world = World {
        control: base.join("ctl"),
        root: filesystem.join("w"),
    };
    make_directory(&world.control)?;
    make_directory(&filesystem)?;
    kind.attach(&world.control, &filesystem)?;
    make_directory(&world.root)?;
    let guards = guards | MsFlags::MS_NOEXEC;
    attach("proc", Path::new("/proc"), Some("proc"), guards)?;
    Ok(world)
}

fn make_directory(path: &Path) -> Result<(), String> {
    fs::create_dir(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn attach(source: &str, target: &Path, kind: Option<&str>, flags: MsFlags) -> Result<(), String> {
    mount(Some(source), target, kind, flags, None::<&str>)
        .map_err(|errno| format!("mount {source} on {}: {errno}", target.display()))
}
