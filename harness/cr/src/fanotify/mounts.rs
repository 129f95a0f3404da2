//! The mount table of a process: from the numbers in fdinfo to paths and back.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use fsnotify::{MntId, Sdev};

/// What is mounted where, for one process.
#[derive(Debug)]
pub struct Mounts {
    root: PathBuf,
    mounts: Vec<Mount>,
}

/// A line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u32,
    pub device: (u32, u32),
    /// Which directory of its filesystem is mounted.
    pub root: Vec<u8>,
    /// Where, seen from the root directory of the process.
    pub path: Vec<u8>,
    /// Its type: `ext4`.
    pub filesystem: String,
}

impl Mounts {
    /// Reads `/proc/PID/mountinfo`.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn of(pid: i32) -> io::Result<Self> {
        let text = std::fs::read(format!("/proc/{pid}/mountinfo"))?;
        let mounts = text
            .split(|&byte| byte == b'\n')
            .filter_map(parse)
            .collect();
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        Ok(Self { root, mounts })
    }

    /// The path that leads to this mount; none if it is mounted nowhere, or if another mount
    /// covers it.
    #[must_use]
    pub fn path_of_mount(&self, id: MntId) -> Option<&[u8]> {
        self.reachable(|mount| mount.id == id.0)
    }

    /// A path that leads to this filesystem.
    #[must_use]
    pub fn path_of_filesystem(&self, device: Sdev) -> Option<&[u8]> {
        self.reachable(|mount| mount.device == (device.major(), device.minor()))
    }

    /// The mount of this number.
    #[must_use]
    pub fn of_id(&self, id: u32) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.id == id)
    }

    /// Every mount, in the order of the table.
    #[must_use]
    pub fn all(&self) -> &[Mount] {
        &self.mounts
    }

    /// Every path that something is mounted at.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let paths = self
            .mounts
            .iter()
            .map(|mount| OsString::from_vec(mount.path.clone()));
        paths.map(PathBuf::from)
    }

    fn reachable(&self, wanted: impl Fn(&Mount) -> bool) -> Option<&[u8]> {
        let mut found = self.mounts.iter().filter(|mount| wanted(mount));
        let mount = found.find(|mount| self.mount_at(&mount.path).ok() == Some(mount.id))?;
        Some(&mount.path)
    }

    /// The number of the mount that a path of the process leads to.
    fn mount_at(&self, path: &[u8]) -> io::Result<u32> {
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        mount_id(&self.root.join(std::ffi::OsStr::from_bytes(relative)))
    }
}

/// The number of the mount that a path leads to. Opening with `O_PATH` makes no event.
///
/// # Errors
///
/// If the path leads nowhere.
pub fn mount_id(path: &Path) -> io::Result<u32> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let id = id.and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "fdinfo without mnt_id"))
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let device = fields.nth(1)?;
    let colon = device.iter().position(|&byte| byte == b':')?;
    let device = (number(&device[..colon])?, number(&device[colon + 1..])?);
    let root = unescape(fields.next()?).into_vec();
    let path = unescape(fields.next()?).into_vec();
    // Optional fields end with a lone hyphen.
    let filesystem = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount {
        id,
        device,
        root,
        path,
        filesystem: String::from_utf8_lossy(filesystem).into_owned(),
    })
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `mangle` of the kernel writes space, tab, line feed and backslash as `\ooo`.
fn unescape(text: &[u8]) -> OsString {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| {
            byte == b'\\' && digits[0] <= b'3' && digits.iter().all(|d| (b'0'..=b'7').contains(d))
        });
        match octal {
            Some(digits) => {
                path.push(
                    digits
                        .iter()
                        .fold(0, |value, digit| value * 8 + (digit - b'0')),
                );
                rest = &after[3..];
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_number_device_and_path() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134 rw,noatime master:1 - ext3 /dev/root rw";
        let expected = Mount {
            id: 36,
            device: (98, 0),
            root: b"/mnt1".to_vec(),
            filesystem: "ext3".to_owned(),
            path: br"/a b\".to_vec(),
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_root_is_reachable_by_number_and_by_device() {
        let mounts = Mounts::of(std::process::id().cast_signed()).unwrap();
        let id = MntId(mount_id(Path::new("/")).unwrap());
        assert_eq!(mounts.path_of_mount(id), Some(&b"/"[..]));
        assert_eq!(mounts.path_of_mount(MntId(0x7fff_fff0)), None);
    }
}
