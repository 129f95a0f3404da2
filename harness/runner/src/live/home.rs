//! Where a process lives: its root directory, its mount namespace, its mounts.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use cr::mounts::{Mount, Mounts};
use cr::sys::path::Stat;
use cr::sys::{handle, path};
use fsnotify::Sdev;
use fsnotify::handle::FileHandle;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{chroot, fchdir};

/// Where a process lives.
#[derive(Debug)]
pub struct Home {
    root: OwnedFd,
    /// None: the mount namespace is ours.
    namespace: Option<fs::File>,
    /// Whether the root directory is not ours.
    other_root: bool,
    /// Our `/proc`, for paths of descriptors.
    proc: OwnedFd,
    mounts: Mounts,
}

impl Home {
    /// # Errors
    ///
    /// In words: what of the process cannot be read.
    pub fn of(pid: i32) -> Result<Self, String> {
        let path = format!("/proc/{pid}/root");
        let open = |path: &str| {
            handle::open_path(path.as_ref()).map_err(|errno| format!("{path}: {errno}"))
        };
        let root = open(&path)?;
        let number = |path: &str| fs::metadata(path).map(|stat| (stat.dev(), stat.ino()));
        let failed = |error: std::io::Error| format!("/proc/{pid}: {error}");
        let name = format!("/proc/{pid}/ns/mnt");
        let ours = number("/proc/self/ns/mnt").map_err(failed)?;
        let namespace = (number(&name).map_err(failed)? != ours)
            .then(|| fs::File::open(&name).map_err(|error| format!("{name}: {error}")))
            .transpose()?;
        Ok(Self {
            other_root: number(&path).map_err(failed)? != number("/").map_err(failed)?,
            root,
            namespace,
            proc: open("/proc")?,
            mounts: Mounts::of(pid).map_err(|error| format!("/proc/{pid}/mountinfo: {error}"))?,
        })
    }

    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.namespace.is_some() || self.other_root
    }

    pub fn mounts(&self) -> &[Mount] {
        self.mounts.all()
    }

    /// Mounts of a filesystem, those of its whole before those of its parts.
    pub fn mounts_of(&self, device: Sdev) -> Vec<&Mount> {
        let all = self.mounts().iter();
        let mut mounts: Vec<&Mount> = all.filter(|mount| mount.device == device).collect();
        mounts.sort_by_key(|mount| mount.root.len());
        mounts
    }

    /// Runs `body` in a thread that sees paths as the process does.
    ///
    /// # Errors
    ///
    /// In words: which call is not allowed. Entering another mount namespace takes
    /// `CAP_SYS_ADMIN` and `CAP_SYS_CHROOT`.
    pub fn enter<T: Send>(&self, body: impl FnOnce(&Inside<'_>) -> T + Send) -> Result<T, String> {
        let entered = handle::with_own_directory(|| {
            if let Some(namespace) = &self.namespace {
                nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)
                    .map_err(|errno| format!("enter the mount namespace: {errno}"))?;
            }
            if self.is_elsewhere() {
                fchdir(&self.root)
                    .and_then(|()| chroot("."))
                    .map_err(|errno| format!("enter the root directory: {errno}"))?;
            }
            Ok(body(&Inside { home: self }))
        });
        entered.map_err(|errno| format!("unshare: {errno}"))?
    }
}

/// The view from within. Every path is absolute.
#[derive(Debug)]
pub struct Inside<'a> {
    home: &'a Home,
}

impl Inside<'_> {
    #[must_use]
    pub fn home(&self) -> &Home {
        self.home
    }

    /// What a path leads to; a symbolic link in its last place is not followed.
    ///
    /// # Errors
    ///
    /// The errno of statx(2).
    pub fn stat(&self, path: &[u8]) -> Result<Stat, Errno> {
        path::stat_path(&c_path(path)?)
    }

    /// Opens a path with `O_PATH`; a symbolic link in its last place is not followed.
    ///
    /// # Errors
    ///
    /// The errno of open(2).
    pub fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        use nix::fcntl::OFlag;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = nix::sys::stat::Mode::empty();
        nix::fcntl::open(&*c_path(path)?, flags, mode)
    }

    /// The path of an open file, in the kernel's words.
    ///
    /// # Errors
    ///
    /// The errno of readlink(2).
    pub fn name_of(&self, file: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let name = format!("self/fd/{}", file.as_raw_fd());
        path::read_link(&self.home.proc, &CString::new(name).expect("no NUL"))
    }

    /// The root of a mount, unless another mount covers it.
    #[must_use]
    pub fn mount_root(&self, mount: &Mount) -> Option<OwnedFd> {
        let root = self.open(&mount.path).ok()?;
        let stat = path::stat(&root, c"").ok()?;
        (stat.mount == u64::from(mount.id)).then_some(root)
    }

    /// Opens a handle on a filesystem, by the first of its mounts that takes it.
    ///
    /// # Errors
    ///
    /// The errno of the last try; `ENODEV` if no mount of it can be reached.
    pub fn open_handle(&self, device: Sdev, handle: &FileHandle) -> Result<Vec<OwnedFd>, Errno> {
        let mut opened = Vec::new();
        let mut last = Errno::ENODEV;
        for mount in self.home.mounts_of(device) {
            let Some(root) = self.mount_root(mount) else {
                continue;
            };
            // A mounted file is no working directory.
            if fchdir(&root).is_err() {
                continue;
            }
            match handle::open_here(handle) {
                Ok(file) => opened.push(file),
                Err(errno) => last = errno,
            }
        }
        match opened.is_empty() {
            true => Err(last),
            false => Ok(opened),
        }
    }

    /// The filesystem that a file is on, by its mount; by its own word where that is in no table.
    #[must_use]
    pub fn device_of(&self, stat: &Stat) -> Sdev {
        let mount = self.home.mounts.of_id(stat.mount);
        mount.map_or(stat.device, |mount| mount.device)
    }
}

pub(super) fn c_path(path: &[u8]) -> Result<CString, Errno> {
    CString::new(path).map_err(|_| Errno::EINVAL)
}

/// The handle of an entry of a directory, and none where there is none to be had.
pub(super) fn handle_of(dir: &OwnedFd, name: &CStr) -> Option<FileHandle> {
    handle::of_entry(dir, name).ok()
}
