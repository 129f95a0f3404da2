//! The mount table of a process: from the numbers in fdinfo to paths and back.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
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
    /// Into `mounts`.
    by_id: HashMap<u64, usize>,
}

/// A line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u32,
    /// The device of its superblock.
    pub device: Sdev,
    /// Which directory of its filesystem is mounted; `//deleted` behind it says that it is removed.
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
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let mounts = parse(&text);
        let numbered = mounts.iter().enumerate();
        let by_id = numbered.map(|(index, mount)| (u64::from(mount.id), index));
        Ok(Self {
            by_id: by_id.collect(),
            root,
            mounts,
        })
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
        self.reachable(|mount| mount.device == device)
    }

    /// The mount of this number, as statx(2) has it.
    #[must_use]
    pub fn of_id(&self, id: u64) -> Option<&Mount> {
        self.by_id.get(&id).map(|&index| &self.mounts[index])
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
        mount_id(&self.root.join(OsStr::from_bytes(relative)))
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

fn parse(text: &[u8]) -> Vec<Mount> {
    let lines = text.split(|&byte| byte == b'\n');
    lines.filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let device = fields.nth(1)?;
    let colon = device.iter().position(|&byte| byte == b':')?;
    let device = Sdev::new(number(&device[..colon])?, number(&device[colon + 1..])?);
    let root = unescape(fields.next()?);
    let path = unescape(fields.next()?);
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

/// Space, tab, line feed and backslash are written as `\ooo` (`mangle_path`, called by
/// `show_mountinfo`), all other bytes as they are.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'\\').then(|| octal(after)).flatten();
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.get(..3)?.iter().try_fold(0_u8, |code, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        code.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_number_device_and_path() {
        let line = br"36 35 7:300 /mnt1 /a\040b\134 rw,noatime master:1 - ext3 /dev/root rw";
        let expected = Mount {
            id: 36,
            device: Sdev(0x70_012c),
            root: b"/mnt1".to_vec(),
            filesystem: "ext3".to_owned(),
            path: br"/a b\".to_vec(),
        };
        assert_eq!(parse_line(line), Some(expected));
        assert_eq!(parse_line(b""), None);
    }

    #[test]
    fn a_hostile_mount_point_is_read_as_the_bytes_that_it_is() {
        let check = |field: &[u8], expected: &[u8]| {
            let head = &b"36 35 98:0 "[..];
            let tail = &b" rw master:1 - ext3 /dev/root rw"[..];
            let text = [head, field, b" ", field, tail, b"\n", head, b"/ /", tail].concat();
            let mounts = parse(&text);
            assert_eq!(mounts.len(), 2, "{}", field.escape_ascii());
            assert_eq!(mounts[0].root, expected, "{}", field.escape_ascii());
            assert_eq!(mounts[0].path, expected, "{}", field.escape_ascii());
            assert_eq!(mounts[0].filesystem, "ext3", "{}", field.escape_ascii());
        };
        check(br"/a\040b", b"/a b");
        check(br"/\040-\040ext4\040", b"/ - ext4 ");
        check(br"/a\012b\011c", b"/a\nb\tc");
        check(br"/a\134", br"/a\");
        check(br"/a\134040b", br"/a\040b");
        check(br"/a\134\134\040", br"/a\\ ");
        check(br"/a\040(deleted)", b"/a (deleted)");
        check(b"/a//deleted", b"/a//deleted");
        check(b"/\xff\xfe\x01#", b"/\xff\xfe\x01#");
        // The kernel writes none of these.
        check(br"/a\", br"/a\");
        check(br"/a\04", br"/a\04");
        check(br"/a\089", br"/a\089");
        check(br"/a\400b", br"/a\400b");
        check(br"/a\377", b"/a\xff");
    }

    #[test]
    fn the_root_is_reachable_by_number_and_by_device() {
        let mounts = Mounts::of(std::process::id().cast_signed()).unwrap();
        let id = mount_id(Path::new("/")).unwrap();
        assert_eq!(mounts.path_of_mount(MntId(id)), Some(&b"/"[..]));
        assert_eq!(mounts.path_of_mount(MntId(0x7fff_fff0)), None);
        let mount = mounts.of_id(u64::from(id)).unwrap();
        assert_eq!(mount.id, id);
        assert_eq!(mounts.path_of_filesystem(mount.device), Some(&b"/"[..]));
    }
}
