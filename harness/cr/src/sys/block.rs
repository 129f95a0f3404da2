//! A block device of one's own that is a file in memory, and a filesystem on it that is in no mount
//! namespace. All of it goes with the descriptors, also when their owner is killed.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::mount::detached;
use super::{path, raw, tmpfs};

/// `struct loop_config` of linux/loop.h, of which we use little.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    before_flags: [u32; 13],
    flags: u32,
    names: [u64; 20],
    init: [u64; 2],
    reserved: [u64; 8],
}

const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const AUTOCLEAR: u32 = 4;
/// `misc`, and the number of `/dev/loop-control` in it.
const CONTROL: (u32, u32) = (10, 237);
const LOOP_MAJOR: u32 = 7;
/// Others may take the device that was free.
const MOST_TRIES: u32 = 64;

/// A filesystem that nothing but this holds.
#[derive(Debug)]
pub struct Mounted {
    /// Open for reading, not with `O_PATH`: fanotify_mark(2) takes it.
    pub root: OwnedFd,
    mount: OwnedFd,
}

impl Mounted {
    /// move_mount(2): puts it over a directory, where it stays.
    ///
    /// # Errors
    ///
    /// The call and its errno.
    pub fn attach(self, target: &Path) -> Result<(), (&'static str, Errno)> {
        let call = |errno| ("move_mount", errno);
        let target = path::c_path(target.as_os_str().as_bytes()).map_err(call)?;
        // SAFETY: two C strings that outlive the call, and plain numbers.
        let returned = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            )
        };
        Errno::result(returned).map(drop).map_err(call)
    }
}

/// Mounts the content of `file` as a filesystem of a kind, with mount options, in no namespace.
///
/// The device files are our own, in a filesystem that nobody sees: whoever watches `/dev` hears
/// nothing.
///
/// # Errors
///
/// The first call that failed, and its errno.
pub fn mount_memory(
    file: &File,
    kind: &CStr,
    options: &[&CStr],
) -> Result<Mounted, (&'static str, Errno)> {
    let call = |name| move |errno| (name, errno);
    let devices = tmpfs::detached().map_err(call("fsmount of a tmpfs"))?;
    let writable = configure(&devices, file)?;
    // A kernel may refuse to mount what is open for writing; the device lives on its last opener.
    let readable =
        open(&devices, c"loop", libc::O_RDONLY).map_err(call("open of a loop device"))?;
    drop(writable);
    let source = format!("/proc/self/fd/{}/loop", devices.as_raw_fd());
    let source = CString::new(source).expect("no NUL");
    let mount = detached(kind, Some(&source), options);
    let mount = mount.map_err(call("mount of the forged filesystem"))?;
    drop(readable);
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let root = raw::openat(mount.as_raw_fd(), c".", flags, 0).and_then(path::owned);
    Ok(Mounted {
        root: root.map_err(call("open of the forged root"))?,
        mount,
    })
}

/// A loop device of the file, which is cleared when nobody has it open.
fn configure(devices: &OwnedFd, file: &File) -> Result<OwnedFd, (&'static str, Errno)> {
    let call = |name| move |errno| (name, errno);
    let node = |name, (major, minor)| {
        path::make_node(
            devices,
            name,
            libc::S_IFBLK | 0o600,
            libc::makedev(major, minor),
        )
    };
    let (major, minor) = CONTROL;
    let control = libc::makedev(major, minor);
    path::make_node(devices, c"control", libc::S_IFCHR | 0o600, control).map_err(call("mknod"))?;
    let control = open(devices, c"control", libc::O_RDWR).map_err(call("open of loop-control"))?;
    // SAFETY: loop_config is plain old data for which zero is a valid value of every field.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd().cast_unsigned();
    config.flags = AUTOCLEAR;
    for _ in 0..MOST_TRIES {
        // SAFETY: no argument.
        let free = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        let free = Errno::result(free).map_err(call("LOOP_CTL_GET_FREE"))?;
        node(c"loop", (LOOP_MAJOR, free.cast_unsigned())).map_err(call("mknod"))?;
        let device = open(devices, c"loop", libc::O_RDWR).map_err(call("open of a loop device"))?;
        // SAFETY: the kernel reads a `struct loop_config`, which outlives the call.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        match Errno::result(done) {
            Ok(_) => return Ok(device),
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(("LOOP_CONFIGURE", errno)),
        }
        raw::unlinkat(devices.as_raw_fd(), c"loop", 0).map_err(call("unlink"))?;
    }
    Err(("LOOP_CONFIGURE", Errno::EBUSY))
}

fn open(dir: impl AsFd, name: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    let flags = flags | libc::O_CLOEXEC;
    raw::openat(dir.as_fd().as_raw_fd(), name, flags, 0).and_then(path::owned)
}

/// ioctl(2) `EXT4_IOC_SETVERSION`: the generation of an inode, which is part of its handle.
///
/// # Errors
///
/// The errno of the call: `ENOTTY` on a filesystem that is not ext4 or has checksums.
pub fn set_generation(fd: i32, generation: u32) -> Result<(), Errno> {
    /// `_IOW('f', 4, long)`; the kernel reads an int.
    const EXT4_IOC_SETVERSION: libc::c_ulong = 0x4008_6604;
    let generation = generation.cast_signed();
    // SAFETY: the kernel reads one int through the pointer.
    let returned = unsafe { libc::ioctl(fd, EXT4_IOC_SETVERSION, &raw const generation) };
    Errno::result(returned).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_the_size_that_the_kernel_reads() {
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(std::mem::offset_of!(LoopConfig, flags), 8 + 52);
    }
}
