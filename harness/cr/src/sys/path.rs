//! Paths that go where they say: openat2(2), statx(2), and a look under a mount point.

use std::ffi::{CStr, CString, OsString};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use fsnotify::Sdev;
use nix::errno::Errno;

/// openat2(2) below a directory: never above it, through no symbolic link and no magic link. A
/// link as the last component is opened itself with `O_PATH`, and refused otherwise.
///
/// # Errors
///
/// The errno of the call: `EXDEV` for a path that leads out, `ELOOP` for a symbolic link.
pub fn open_beneath(dir: impl AsFd, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: open_how is plain old data for which zero is a valid value of every field.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC | libc::O_NOFOLLOW).cast_unsigned());
    how.mode = u64::from(mode);
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: `path` is a C string and `how` has the size that is given; both outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    owned(fd)
}

/// Whether the caller may set the times of what has this owner: he is the owner, or root where the
/// owner has a number (`inode_owner_or_capable`). An unknown map of numbers has nobody else in it.
pub(crate) fn owns(uid: u32) -> bool {
    let own = nix::unistd::geteuid();
    let is_mapped = |map: String| {
        map.lines().any(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let (Some(Ok(first)), Some(Ok(_)), Some(Ok(length))) =
                (numbers.next(), numbers.next(), numbers.next())
            else {
                return false;
            };
            (first..first.saturating_add(length)).contains(&u64::from(uid))
        })
    };
    own.as_raw() == uid
        || own.is_root() && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(is_mapped)
}

/// open_tree(2) with `OPEN_TREE_CLONE`: the mount of a directory from there on, without what is
/// mounted below. The clone is in no namespace and goes away with the descriptor.
///
/// # Errors
///
/// The errno of the call: `EPERM` without `CAP_SYS_ADMIN` in the namespace's user namespace.
pub fn bare_tree(dir: impl AsFd, path: &CStr) -> Result<OwnedFd, Errno> {
    const OPEN_TREE_CLONE: libc::c_int = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    // SAFETY: a C string and plain numbers.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
        )
    };
    owned(fd)
}

/// Whether the name by which a file was opened is gone; none where the kernel does not say, as to who
/// may mount nothing, and of a directory, which has one name.
///
/// It is asked to mount a directory over the file, which it refuses for one reason or the other: the
/// name is gone (`cant_mount`), or it is no directory (`graft_tree`).
pub fn is_name_gone(file: impl AsFd) -> Option<bool> {
    let is_directory = |stat: Stat| stat.mode & libc::S_IFMT == libc::S_IFDIR;
    if stat(&file, c"").map_or(true, is_directory) {
        return None;
    }
    let link = super::handle::proc_path(file);
    let none = None::<&str>;
    match nix::mount::mount(Some("/"), &link, none, nix::mount::MsFlags::MS_BIND, none) {
        Err(Errno::ENOENT) => Some(true),
        Err(Errno::ENOTDIR) => Some(false),
        _ => None,
    }
}

/// A path that leads to the same file from any working directory. Where there is none to count from, the
/// path as it is, and whoever opens it says what is wrong.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

pub(crate) fn owned(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(Errno::result(fd)?).expect("a descriptor number");
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What statx(2) tells of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub ino: u64,
    pub size: u64,
    /// Of 512 bytes each.
    pub blocks: u64,
    /// Not always that of the superblock, by which fdinfo knows an inode (btrfs).
    pub device: Sdev,
    /// Of a device node.
    pub node: (u32, u32),
    pub accessed: (i64, i64),
    pub modified: (i64, i64),
    pub mount: u64,
    /// `STATX_ATTR_APPEND`, ...
    pub attributes: u64,
}

impl Stat {
    const IMMUTABLE: u64 = 0x10;
    const APPEND: u64 = 0x20;
    const MOUNT_ROOT: u64 = 0x2000;

    /// Whether something is mounted here, and this is the root of it.
    #[must_use]
    pub fn is_mount_root(&self) -> bool {
        self.attributes & Self::MOUNT_ROOT != 0
    }

    /// Whether chattr(1) has made it immutable: nothing of it can be changed, and no name of it.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.attributes & Self::IMMUTABLE != 0
    }

    /// Whether chattr(1) allows adding to it alone: no name of it, or in it, can be removed.
    #[must_use]
    pub fn is_append_only(&self) -> bool {
        self.attributes & Self::APPEND != 0
    }
}

/// statx(2) of what a path below a directory names, which is not followed if it is a symbolic
/// link; of the directory itself if the path is empty.
///
/// # Errors
///
/// The errno of the call.
pub fn stat(dir: impl AsFd, path: &CStr) -> Result<Stat, Errno> {
    stat_number(dir.as_fd().as_raw_fd(), path)
}

/// [`stat`] from the working directory or an absolute path.
///
/// # Errors
///
/// The errno of the call.
pub fn stat_path(path: &CStr) -> Result<Stat, Errno> {
    stat_number(libc::AT_FDCWD, path)
}

fn stat_number(dir: i32, path: &CStr) -> Result<Stat, Errno> {
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    // SAFETY: `path` is a C string, and the kernel fills at most a struct statx.
    let returned = unsafe { libc::statx(dir, path.as_ptr(), flags, mask, found.as_mut_ptr()) };
    Errno::result(returned)?;
    // SAFETY: the call succeeded, and every bit pattern is a valid struct statx.
    let found = unsafe { found.assume_init() };
    let time = |time: libc::statx_timestamp| (time.tv_sec, i64::from(time.tv_nsec));
    Ok(Stat {
        mode: u32::from(found.stx_mode),
        nlink: found.stx_nlink,
        uid: found.stx_uid,
        gid: found.stx_gid,
        ino: found.stx_ino,
        size: found.stx_size,
        blocks: found.stx_blocks,
        device: Sdev::new(found.stx_dev_major, found.stx_dev_minor),
        node: (found.stx_rdev_major, found.stx_rdev_minor),
        accessed: time(found.stx_atime),
        modified: time(found.stx_mtime),
        mount: found.stx_mnt_id,
        attributes: found.stx_attributes,
    })
}

/// readlinkat(2), of the descriptor itself if the path is empty.
///
/// # Errors
///
/// The errno of the call; `ENAMETOOLONG` for a path longer than a page.
pub fn read_link(dir: impl AsFd, path: &CStr) -> Result<Vec<u8>, Errno> {
    nix::fcntl::readlinkat(dir, path).map(OsString::into_vec)
}

/// What `/proc/self/fd/N` of a file leads to, in the kernel's words.
///
/// # Errors
///
/// As [`read_link`].
pub fn name_of(file: impl AsFd) -> Result<Vec<u8>, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    nix::fcntl::readlink(path.as_str()).map(OsString::into_vec)
}

/// The links of this process's descriptors in /proc, for who reads many: the way to each is long.
#[derive(Debug)]
pub struct Links(OwnedFd);

impl Links {
    /// # Errors
    ///
    /// The errno of open(2).
    pub fn open() -> Result<Self, Errno> {
        super::handle::open_path("/proc/self/fd".as_ref()).map(Self)
    }

    /// As [`name_of`].
    ///
    /// # Errors
    ///
    /// As [`read_link`].
    pub fn name_of(&self, file: impl AsFd) -> Result<Vec<u8>, Errno> {
        // Room for ten digits and a NUL.
        let mut number = [0; 11];
        write!(&mut number[..], "{}", file.as_fd().as_raw_fd()).expect("room enough");
        let number = CStr::from_bytes_until_nul(&number).expect("a NUL behind the digits");
        let mut text = [0; MAX_LINK];
        match read_link_into(&self.0, number, &mut text)? {
            // It may have been longer.
            MAX_LINK => read_link(&self.0, number),
            length => Ok(text[..length].to_vec()),
        }
    }
}

/// Longest text of a link in /proc: a page (`do_proc_readlink`).
const MAX_LINK: usize = 4096;

/// readlinkat(2): how many bytes of `text` were filled.
fn read_link_into(dir: impl AsFd, path: &CStr, text: &mut [u8]) -> Result<usize, Errno> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `path` is a C string, and the kernel fills at most the length of `text`.
    let returned =
        unsafe { libc::readlinkat(dir, path.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
    Errno::result(returned).map(|length| usize::try_from(length).expect("a length"))
}

/// mknodat(2).
///
/// # Errors
///
/// The errno of the call.
pub fn make_node(dir: impl AsFd, name: &CStr, mode: u32, device: u64) -> Result<(), Errno> {
    // SAFETY: a C string and plain numbers.
    let returned = unsafe { libc::mknodat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode, device) };
    Errno::result(returned).map(drop)
}

/// mkdirat(2).
///
/// # Errors
///
/// The errno of the call.
pub fn make_directory(dir: impl AsFd, name: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: a C string and plain numbers.
    let returned = unsafe { libc::mkdirat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode) };
    Errno::result(returned).map(drop)
}

/// symlinkat(2).
///
/// # Errors
///
/// The errno of the call.
pub fn make_link(target: &CStr, dir: impl AsFd, name: &CStr) -> Result<(), Errno> {
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: two C strings and a plain number.
    let returned = unsafe { libc::symlinkat(target.as_ptr(), dir, name.as_ptr()) };
    Errno::result(returned).map(drop)
}

/// fchownat(2) of an open file, which may be open with `O_PATH`.
///
/// # Errors
///
/// The errno of the call.
pub fn own(file: impl AsFd, uid: u32, gid: u32) -> Result<(), Errno> {
    let file = file.as_fd().as_raw_fd();
    // SAFETY: a C string and plain numbers.
    let returned = unsafe { libc::fchownat(file, c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) };
    Errno::result(returned).map(drop)
}

/// chmod(2) of an open file, which may be open with `O_PATH`: fchmod(2) takes none such, and by a name
/// it would go where a link leads.
///
/// # Errors
///
/// The errno of the call: `EOPNOTSUPP` of a symbolic link.
pub fn set_mode(file: impl AsFd, mode: u32) -> Result<(), Errno> {
    let path = super::handle::proc_path(file);
    let path = c_path(path.as_os_str().as_encoded_bytes())?;
    super::raw::chmod(&path, mode).map(drop)
}

/// lsetxattr(2).
///
/// # Errors
///
/// The errno of the call.
pub fn set_xattr(path: &CStr, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: two C strings, and bytes readable for their length.
    let returned = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(returned).map(drop)
}

/// lremovexattr(2).
///
/// # Errors
///
/// The errno of the call.
pub fn remove_xattr(path: &CStr, name: &CStr) -> Result<(), Errno> {
    // SAFETY: two C strings.
    let returned = unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) };
    Errno::result(returned).map(drop)
}

/// A path as the system calls take it.
///
/// # Errors
///
/// `EINVAL` for a path with a NUL in it.
pub fn c_path(path: &[u8]) -> Result<CString, Errno> {
    CString::new(path).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sys::handle::open_path;

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("out"), "").unwrap();
        symlink("../out", folder.path().join("in/link")).unwrap();
        symlink("..", folder.path().join("in/up")).unwrap();
        let dir = open_path(&folder.path().join("in")).unwrap();
        for (path, errno) in [
            (c"../out", Errno::EXDEV),
            (c"/etc", Errno::EXDEV),
            (c"link", Errno::ELOOP),
            (c"up/out", Errno::ELOOP),
        ] {
            assert_eq!(
                open_beneath(&dir, path, libc::O_RDONLY, 0).unwrap_err(),
                errno
            );
        }
        open_beneath(&dir, c"new", libc::O_CREAT | libc::O_RDWR, 0o600).unwrap();
    }

    #[test]
    fn a_name_that_is_gone_is_told_from_its_lookalike() {
        let folder = tempfile::tempdir().unwrap();
        let [path, lookalike] = ["x", "x (deleted)"].map(|name| folder.path().join(name));
        let gone = std::fs::File::create(&path).unwrap();
        std::fs::hard_link(&path, &lookalike).unwrap();
        let named = open_path(&lookalike).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(name_of(&gone), name_of(&named));
        // Not everybody may mount.
        assert_ne!(is_name_gone(&gone), Some(false));
        assert_ne!(is_name_gone(&named), Some(true));
        assert_eq!(is_name_gone(open_path(folder.path()).unwrap()), None);
        assert_eq!(
            is_name_gone(&gone).is_some(),
            is_name_gone(&named).is_some()
        );
    }

    #[test]
    fn a_link_reads_the_same_however_it_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let links = Links::open().unwrap();
        let long = format!("{}/", "n".repeat(255)).repeat(15);
        for name in ["f", "a (deleted)", &long] {
            let path = directory.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            let file = open_path(&path).unwrap();
            assert_eq!(links.name_of(&file), name_of(&file), "{name}");
            assert!(links.name_of(&file).is_ok());
        }
    }
}
