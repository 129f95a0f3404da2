//! The mounts of a sandbox: nothing of them is visible outside, nothing is made on the host.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cr::ext4::Layout;
use nix::mount::{MsFlags, mount};
use scenario::{Need, Scenario};

/// Where the sandbox keeps its files, all on mounts of its own.
#[derive(Debug)]
pub(super) struct World {
    /// Plan, log and images.
    pub(super) control: PathBuf,
    /// The scenario's own filesystem, alone in carrying the bystander's filesystem mark.
    pub(super) root: PathBuf,
}

/// What filesystem the scenario's own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filesystem {
    Tmpfs,
    /// In memory, without a journal.
    Ext4,
}

impl Filesystem {
    /// The one that a scenario asks for (`requires fs:ext4`).
    pub(super) fn of(scenario: &Scenario) -> Self {
        let ext4 = Some(Need::Filesystem("ext4".to_owned()));
        let asks = scenario.requires.iter().any(|word| word.need() == ext4);
        if asks { Self::Ext4 } else { Self::Tmpfs }
    }
}

/// Directories that a sandbox may mount over, in its own mount namespace: any that exists and does
/// not hold the programs will do.
const MOUNT_POINTS: [&str; 5] = ["/mnt", "/media", "/srv", "/opt", "/tmp"];

/// Makes the mounts, and a `/proc` for the new pid namespace.
///
/// `programs` are files that have to stay reachable.
///
/// # Errors
///
/// A sentence: what could not be mounted, and why.
pub(super) fn make(programs: &[&Path], kind: Filesystem) -> Result<World, String> {
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
    match kind {
        Filesystem::Tmpfs => {
            attach("world", &filesystem, Some("tmpfs"), MsFlags::empty())?;
            make_directory(&world.root)?;
        }
        Filesystem::Ext4 => attach_ext4(&filesystem)?,
    }
    let guards = guards | MsFlags::MS_NOEXEC;
    attach("proc", Path::new("/proc"), Some("proc"), guards)?;
    Ok(world)
}

/// Mounts a new ext4 in which the directory of the world is there already.
fn attach_ext4(target: &Path) -> Result<(), String> {
    const NUMBER: [u32; 2] = [0x646c_726f, 0x6f6e_7f77];
    let at = |call, errno| format!("{call} of an ext4 on {}: {errno}", target.display());
    let mounted = Layout::small(NUMBER, b"w").mount();
    let mounted = mounted.map_err(|(call, errno)| at(call, errno))?;
    let path = CString::new(target.as_os_str().as_bytes()).expect("no NUL");
    mounted
        .attach(&path)
        .map_err(|errno| at("move_mount", errno))
}

fn make_directory(path: &Path) -> Result<(), String> {
    fs::create_dir(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn attach(source: &str, target: &Path, kind: Option<&str>, flags: MsFlags) -> Result<(), String> {
    mount(Some(source), target, kind, flags, None::<&str>)
        .map_err(|errno| format!("mount {source} on {}: {errno}", target.display()))
}
