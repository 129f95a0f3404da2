//! Mounts of the subject: from the device in a line of fdinfo to a directory where a handle can be
//! opened.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use super::anchors::Anchor;
use super::error::DumpError;
use super::places::relative;
use crate::sys::path;

/// A line of `/proc/PID/mountinfo`.
#[derive(Debug)]
pub(super) struct Mount {
    id: u64,
    pub(super) sdev: u32,
    /// Where it is mounted, seen from the subject's root.
    pub(super) point: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Mounts {
    by_id: HashMap<u64, Mount>,
    by_sdev: HashMap<u32, Vec<u64>>,
}

impl Mounts {
    pub(super) fn of(pid: Pid) -> Result<Self, DumpError> {
        let name = format!("/proc/{pid}/mountinfo");
        let text = std::fs::read(&name).map_err(|error| DumpError::io("read", &name, &error))?;
        let mut mounts = Self {
            by_id: HashMap::new(),
            by_sdev: HashMap::new(),
        };
        for mount in text.split(|&byte| byte == b'\n').filter_map(parse) {
            mounts.by_sdev.entry(mount.sdev).or_default().push(mount.id);
            mounts.by_id.insert(mount.id, mount);
        }
        Ok(mounts)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Mount> {
        self.by_id.get(&id)
    }

    /// The mounts of a filesystem, each opened with `O_PATH` if nothing is mounted over it.
    pub(super) fn open(&self, root: &OwnedFd, sdev: u32) -> Vec<Anchor> {
        let ids = self.by_sdev.get(&sdev).into_iter().flatten();
        let open = |id: &u64| {
            let point = &self.by_id[id].point;
            let file = path::open_beneath(root, &relative(point)?, libc::O_PATH, 0).ok()?;
            let stat = path::stat(&file, c"").ok()?;
            (stat.mount == *id).then(|| Anchor::new(file, point.clone()))
        };
        ids.filter_map(open).collect()
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime ...`: id, parent, device, root, mount point.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = std::str::from_utf8(fields.nth(1)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let sdev = sdev(major.parse().ok()?, minor.parse().ok()?);
    let point = unescape(fields.nth(1)?);
    Some(Mount { id, sdev, point })
}

/// A device number as fdinfo prints it.
pub(super) const fn sdev(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

/// `\040` and the like (`mangle_path`, called by `show_mountinfo`).
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
    fn a_line_of_mountinfo_is_read() {
        let line = br"36 35 7:300 / /mnt\040a\134b rw,noatime master:1 - ext4 /dev/root rw";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.sdev), (36, 0x70_012c));
        assert_eq!(mount.point, br"/mnt a\b");
    }
}
