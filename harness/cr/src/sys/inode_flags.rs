//! Flags and project of an inode: chattr(1). Each call takes a descriptor that is open in earnest.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// The flags of an inode (`FS_APPEND_FL`, ...).
pub const COMPRESSED: u32 = 0x4;
pub const IMMUTABLE: u32 = 0x10;
pub const APPEND: u32 = 0x20;
pub const NO_COPY_ON_WRITE: u32 = 0x0080_0000;
/// What is made in such a directory gets its project.
pub const INHERITS_PROJECT: u32 = 0x2000_0000;
/// Names in such a directory are the same in upper and lower case.
pub const FOLDS_CASE: u32 = 0x4000_0000;

/// Those that chattr(1) sets; all others tell how the filesystem stores the inode. Synchronous,
/// immutable, append, no dump, no access time, not compressed, journalled, synchronous directory.
pub const SETTABLE: u32 = COMPRESSED
    | 0x8
    | IMMUTABLE
    | APPEND
    | 0x40
    | 0x80
    | 0x400
    | 0x4000
    | 0x1_0000
    | NO_COPY_ON_WRITE
    | INHERITS_PROJECT
    | FOLDS_CASE;

/// Those of [`SETTABLE`] that take a capability: immutable, append, journalled.
pub const PRIVILEGED: u32 = IMMUTABLE | APPEND | 0x4000;
/// The content is checked against hashes when it is read, and never changes.
pub const VERITY: u32 = 0x10_0000;

/// Whether the caller is root where that counts for flags and projects: in the first user namespace
/// (`fileattr_set_prepare`).
#[must_use]
pub fn may_set_all() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    nix::unistd::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
const FS_IOC_SETFLAGS: libc::c_ulong = 0x4008_6602;
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;

/// struct fsxattr: flags, extent size, extents, project, extent size of copies, padding.
type Attributes = [u32; 7];
const PROJECT: usize = 3;

/// ioctl(2) `FS_IOC_GETFLAGS`.
///
/// # Errors
///
/// The errno of the call: `ENOTTY` where the filesystem has none.
pub fn flags(file: impl AsFd) -> Result<u32, Errno> {
    // The number says long, the kernel writes an int.
    let mut flags = [0_u32; 2];
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the kernel writes no more than a long through the pointer.
    Errno::result(unsafe { libc::ioctl(fd, FS_IOC_GETFLAGS, flags.as_mut_ptr()) })?;
    Ok(flags[0])
}

/// ioctl(2) `FS_IOC_SETFLAGS`.
///
/// # Errors
///
/// The errno of the call: `EPERM` for immutable and append without `CAP_LINUX_IMMUTABLE`.
pub fn set_flags(file: impl AsFd, flags: u32) -> Result<(), Errno> {
    let flags = [flags, 0];
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the kernel reads no more than a long through the pointer.
    Errno::result(unsafe { libc::ioctl(fd, FS_IOC_SETFLAGS, flags.as_ptr()) }).map(drop)
}

/// The project that the space of an inode counts for.
///
/// # Errors
///
/// The errno of the call: `ENOTTY` where the filesystem has no such thing.
pub fn project(file: impl AsFd) -> Result<u32, Errno> {
    attributes(file).map(|found| found[PROJECT])
}

/// Gives an inode another project.
///
/// # Errors
///
/// The errno of the call: `EINVAL` in a user namespace.
pub fn set_project(file: impl AsFd, project: u32) -> Result<(), Errno> {
    let mut attributes = attributes(&file)?;
    attributes[PROJECT] = project;
    set_attributes(file, &attributes)
}

/// ioctl(2) `FS_IOC_FSGETXATTR`.
fn attributes(file: impl AsFd) -> Result<Attributes, Errno> {
    let mut found = Attributes::default();
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the kernel writes a struct fsxattr of 28 bytes through the pointer.
    Errno::result(unsafe { libc::ioctl(fd, FS_IOC_FSGETXATTR, found.as_mut_ptr()) })?;
    Ok(found)
}

/// ioctl(2) `FS_IOC_FSSETXATTR`.
fn set_attributes(file: impl AsFd, attributes: &Attributes) -> Result<(), Errno> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the kernel reads a struct fsxattr of 28 bytes through the pointer.
    Errno::result(unsafe { libc::ioctl(fd, FS_IOC_FSSETXATTR, attributes.as_ptr()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_set_and_seen() {
        const NO_DUMP: u32 = 0x40;
        let file = tempfile::tempfile().unwrap();
        // Not every filesystem has some.
        let Ok(found) = flags(&file) else { return };
        set_flags(&file, found | NO_DUMP).unwrap();
        assert_eq!(flags(&file), Ok(found | NO_DUMP));
        if let Ok(own) = project(&file) {
            assert!(matches!(
                set_project(&file, own),
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOTTY)
            ));
            assert_eq!(project(&file), Ok(own));
        }
    }
}
