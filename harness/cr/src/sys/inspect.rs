//! Looking at another process without a trace: its descriptors by pidfd, what they share, who
//! owns their signals. None of these calls makes an event or changes a time.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

/// pidfd_open(2).
///
/// # Errors
///
/// The errno of the call: `ESRCH` when there is no such process.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: two plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    owned(fd)
}

/// pidfd_getfd(2): our own descriptor, close-on-exec, of the same open file description.
///
/// # Errors
///
/// The errno of the call: `EBADF` when the number is not open there, `EPERM` without the right to
/// trace the process.
pub fn pidfd_getfd(pidfd: impl AsFd, fd: i32) -> Result<OwnedFd, Errno> {
    let pidfd = pidfd.as_fd().as_raw_fd();
    // SAFETY: three plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, fd, 0) };
    owned(fd)
}

/// pidfd_send_signal(2) of `SIGKILL`: to this very process, whoever has its pid by now.
///
/// # Errors
///
/// The errno of the call.
pub fn pidfd_kill(pidfd: impl AsFd) -> Result<(), Errno> {
    let pidfd = pidfd.as_fd().as_raw_fd();
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: plain numbers; without a siginfo_t the kernel makes one.
    let returned =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, info, 0) };
    Errno::result(returned).map(drop)
}

fn owned(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(Errno::result(fd)?).expect("a descriptor number");
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// kcmp(2) `KCMP_FILE`: whether two descriptors share one open file description. False where the
/// kernel does not say.
#[must_use]
pub fn same_description(one: (Pid, i32), other: (Pid, i32)) -> bool {
    super::descriptor::compare_descriptions(one, other).is_ok_and(std::cmp::Ordering::is_eq)
}

/// Who gets the signals of a descriptor (`F_GETOWN_EX`). Numbers of our own pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Thread(i32),
    Process(i32),
    Group(i32),
}

/// fcntl(2) `F_GETOWN_EX`; none when nobody owns it.
///
/// # Errors
///
/// The errno of the call.
pub fn owner(file: impl AsFd) -> Result<Option<Owner>, Errno> {
    const F_GETOWN_EX: libc::c_int = 16;
    let mut owner = [0_i32; 2];
    // SAFETY: the kernel writes struct f_owner_ex, two ints, through the pointer.
    let returned =
        unsafe { libc::fcntl(file.as_fd().as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()) };
    Errno::result(returned)?;
    Ok(match owner {
        [_, 0] => None,
        [0, tid] => Some(Owner::Thread(tid)),
        [1, pid] => Some(Owner::Process(pid)),
        [_, group] => Some(Owner::Group(group)),
    })
}

/// fcntl(2) `F_GETSIG`: 0 stands for `SIGIO`.
///
/// # Errors
///
/// The errno of the call.
pub fn signal(file: impl AsFd) -> Result<i32, Errno> {
    const F_GETSIG: libc::c_int = 11;
    // SAFETY: two plain numbers.
    let returned = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), F_GETSIG) };
    Errno::result(returned)
}

/// ioctl(2) `FIONREAD`: unread bytes.
///
/// # Errors
///
/// The errno of the call.
pub fn unread(file: impl AsFd) -> Result<u64, Errno> {
    super::raw::unread(file.as_fd().as_raw_fd()).map(i64::cast_unsigned)
}

/// lseek(2) `SEEK_DATA`: where the next data at or behind `offset` begins; none behind the last.
/// Moves the offset of the open file.
///
/// # Errors
///
/// The errno of the call: `EINVAL` where the filesystem does not know.
pub fn next_data(file: impl AsFd, offset: u64) -> Result<Option<u64>, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    match super::raw::lseek(file.as_fd().as_raw_fd(), offset, libc::SEEK_DATA) {
        Ok(data) => Ok(Some(data.cast_unsigned())),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// cachestat(2): how many pages a range of a file has, in memory or swapped out. On tmpfs that is what
/// is allocated, written or not. A length of 0 reaches to the last page.
///
/// # Errors
///
/// The errno of the call: `ENOSYS` before Linux 6.5, `EPERM` where the caller neither owns the file
/// nor may write to it.
pub fn pages(file: impl AsFd, offset: u64, length: u64) -> Result<u64, Errno> {
    // It has this number on every architecture.
    const CACHESTAT: libc::c_long = 451;
    let range = [offset, length];
    // struct cachestat: in memory, dirty, in writeback, evicted, evicted lately.
    let mut found = [0_u64; 5];
    // SAFETY: the kernel reads two numbers through one pointer and writes five through the other.
    let returned = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_fd().as_raw_fd(),
            range.as_ptr(),
            found.as_mut_ptr(),
            0,
        )
    };
    Errno::result(returned)?;
    let [in_memory, _, _, evicted, _] = found;
    Ok(in_memory + evicted)
}

/// A range of bytes, from and to.
pub type Range = (u64, u64);

/// ioctl(2) `FS_IOC_FIEMAP`: the ranges that are allocated and were never written, rising.
///
/// # Errors
///
/// The errno of the call: `EOPNOTSUPP` where the filesystem has no such map, as tmpfs.
pub fn unwritten(file: impl AsFd) -> Result<Vec<Range>, Errno> {
    const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
    const LAST: u32 = 0x1;
    const UNWRITTEN: u32 = 0x800;
    const AT_ONCE: usize = 32;

    /// struct fiemap.
    #[repr(C)]
    #[derive(Default)]
    struct Map {
        start: u64,
        length: u64,
        flags: u32,
        n_mapped: u32,
        n_extents: u32,
        reserved: u32,
        extents: [Mapped; AT_ONCE],
    }
    /// struct `fiemap_extent`.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Mapped {
        logical: u64,
        physical: u64,
        length: u64,
        reserved: [u64; 2],
        flags: u32,
        more_reserved: [u32; 3],
    }

    let mut found = Vec::new();
    let mut start = 0;
    loop {
        let mut map = Map {
            start,
            length: u64::MAX - start,
            n_extents: u32::try_from(AT_ONCE).expect("few"),
            ..Map::default()
        };
        // SAFETY: the kernel reads and writes a struct fiemap with room for as many extents as it
        // says.
        let returned = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FS_IOC_FIEMAP, &mut map) };
        Errno::result(returned)?;
        let n_mapped = usize::try_from(map.n_mapped).expect("no more than asked for");
        let mapped = &map.extents[..n_mapped.min(AT_ONCE)];
        for extent in mapped {
            let end = extent.logical.saturating_add(extent.length);
            if extent.flags & UNWRITTEN != 0 {
                found.push((extent.logical, end));
            }
            start = start.max(end);
        }
        match mapped.last() {
            Some(last) if last.flags & LAST == 0 => {}
            _ => return Ok(found),
        }
    }
}

/// An extended attribute: its name, and its value or why that cannot be read.
pub type Attribute = (Vec<u8>, Result<Vec<u8>, Errno>);

/// Extended attributes of what a path refers to, the path itself if it is a symbolic link; sorted
/// by name. Empty where there are none or the filesystem has no such thing.
///
/// # Errors
///
/// The errno of listxattr(2).
pub fn xattrs(path: &Path) -> Result<Vec<Attribute>, Errno> {
    // A path that is a descriptor stands for what it refers to; one below it is a path like others.
    let follow = path.parent() == Some(Path::new("/proc/self/fd"));
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let names = sized(|buffer, size| {
        // SAFETY: `path` is a C string and the buffer is writable for its size.
        unsafe {
            if follow {
                libc::listxattr(path.as_ptr(), buffer.cast(), size)
            } else {
                libc::llistxattr(path.as_ptr(), buffer.cast(), size)
            }
        }
    });
    let names = match names {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found: Vec<Attribute> = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let c_name = CString::new(name).expect("split at NUL");
            let value = sized(|buffer, size| {
                // SAFETY: both are C strings and the buffer is writable for its size.
                unsafe {
                    if follow {
                        libc::getxattr(path.as_ptr(), c_name.as_ptr(), buffer.cast(), size)
                    } else {
                        libc::lgetxattr(path.as_ptr(), c_name.as_ptr(), buffer.cast(), size)
                    }
                }
            });
            (name.to_vec(), value)
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// Calls twice: for the size, then for the bytes.
fn sized(call: impl Fn(*mut u8, usize) -> isize) -> Result<Vec<u8>, Errno> {
    let size = |returned: isize| Errno::result(returned).map(isize::cast_unsigned);
    let mut buffer = vec![0; size(call(std::ptr::null_mut(), 0))?];
    let length = size(call(buffer.as_mut_ptr(), buffer.len()))?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Numbers of the inotify and fanotify descriptors of a process, rising; of several that share one
/// open file description only the first.
///
/// # Errors
///
/// If the descriptors of the process cannot be listed.
pub fn groups(pid: Pid) -> std::io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // A path of more than a page cannot be read (`do_proc_readlink`); no group has one.
        let Ok(link) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let is_group = [
            OsStr::new("anon_inode:inotify"),
            OsStr::new("anon_inode:[fanotify]"),
        ]
        .contains(&link.as_os_str());
        if is_group && let Some(number) = entry.file_name().to_str().and_then(|n| n.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    let mut distinct: Vec<i32> = Vec::new();
    for number in numbers {
        if !distinct
            .iter()
            .any(|&first| same_description((pid, first), (pid, number)))
        {
            distinct.push(number);
        }
    }
    Ok(distinct)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    #[test]
    fn a_duplicate_shares_its_description_and_a_second_open_does_not() {
        let me = nix::unistd::getpid();
        let first = File::open("/dev/null").unwrap();
        let duplicate = first.try_clone().unwrap();
        let second = File::open("/dev/null").unwrap();
        let fd = |file: &File| (me, file.as_raw_fd());
        assert!(same_description(fd(&first), fd(&duplicate)));
        assert!(!same_description(fd(&first), fd(&second)));
        let pidfd = pidfd_open(me).unwrap();
        let got = pidfd_getfd(&pidfd, first.as_raw_fd()).unwrap();
        assert!(same_description(fd(&first), (me, got.as_raw_fd())));
        assert_eq!(pidfd_getfd(&pidfd, 1 << 20).unwrap_err(), Errno::EBADF);
    }

    #[test]
    fn pages_that_were_never_written_are_counted() {
        let fd = memfd_create(c"pages", MFdFlags::empty()).unwrap();
        super::super::raw::fallocate(fd.as_raw_fd(), 0, 8192, 4096).unwrap();
        match pages(&fd, 0, 0) {
            // Before Linux 6.5.
            Err(Errno::ENOSYS) => {}
            counted => {
                assert_eq!(counted, Ok(1));
                assert_eq!(pages(&fd, 0, 8192), Ok(0));
                assert_eq!(pages(&fd, 8192, 4096), Ok(1));
            }
        }
    }

    #[test]
    fn a_fresh_file_has_no_owner_and_the_default_signal() {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(owner(&file), Ok(None));
        assert_eq!(signal(&file), Ok(0));
    }
}
