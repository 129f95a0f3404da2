//! Who the tests run as.

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgid, setuid};

/// Root becomes nobody, for good.
pub(crate) fn become_user() -> Result<(), String> {
    let nobody = 65534;
    setgid(Gid::from_raw(nobody))
        .and_then(|()| setuid(Uid::from_raw(nobody)))
        .map_err(|errno| format!("setuid: {errno}"))
}

/// Sees to it that this process may mount: by a user namespace if it is not root.
pub(crate) fn own_mounts() -> Result<(), String> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::effective(), Gid::effective());
    // After setuid the files of /proc/self belong to root until this.
    nix::sys::prctl::set_dumpable(true).map_err(|errno| format!("prctl: {errno}"))?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| format!("unshare(CLONE_NEWUSER|CLONE_NEWNS): {errno}"))?;
    let write = |file: &str, content: String| {
        std::fs::write(file, content).map_err(|error| format!("{file}: {error}"))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}
