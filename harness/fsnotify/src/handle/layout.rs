//! What is known of the bytes of a handle, by filesystem and type.
//!
//! The type alone tells nothing: 81 is an inode number on xfs and a node id with its words swapped
//! on FUSE; 1 is 8 bytes of ext4 or 12 of tmpfs; on NFS it is a count of words. Whatever is not in
//! the table is [`Layout::Opaque`]. Numbers are read as a little-endian machine writes them.

use super::FileHandle;

/// The content of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout<'a> {
    /// ext4 and those like it; before 6.7 also what a filesystem that cannot open handles gets, its
    /// inode number cut to 32 bits.
    Ino32 { ino: u32, generation: u32 },
    /// xfs; since 6.7 also what a filesystem that cannot open handles gets (procfs, sysfs ...).
    Ino64 { ino: u64, generation: u32 },
    /// tmpfs: the same in another order.
    Tmpfs { ino: u64, generation: u32 },
    /// FUSE and erofs: a number of the filesystem's own, which need not be the inode number.
    Node { node: u64, generation: u32 },
    /// iso9660.
    Iso9660 {
        block: u32,
        offset: u16,
        generation: u32,
    },
    /// btrfs: the inode number within a subvolume, and the subvolume.
    Btrfs {
        ino: u64,
        root: u64,
        generation: u32,
    },
    /// udf.
    Udf {
        block: u32,
        partition: u16,
        generation: u32,
    },
    /// nilfs2: an inode within a checkpoint.
    Nilfs2 {
        checkpoint: u64,
        ino: u64,
        generation: u32,
    },
    /// FAT mounted with `nfs=nostale_ro`: the place of the directory entry.
    FatPosition { position: u64, generation: u32 },
    /// overlayfs: the handle of the real inode on the layer with this UUID.
    Overlay {
        flags: u8,
        uuid: [u8; 16],
        kind: u8,
        bytes: &'a [u8],
    },
    /// cgroup and pidfs: a number that is never given out again.
    Id(u64),
    /// nsfs: number, type (`CLONE_NEW*`) and inode number of a namespace.
    Namespace { id: u64, kind: u32, ino: u32 },
    /// Not known, or not of the type and length that this filesystem has.
    Opaque,
}

/// The table: names as mountinfo has them, types, lengths.
type Reader = for<'a> fn(&'a [u8]) -> Layout<'a>;
const TABLE: [(&[&str], i32, usize, Reader); 15] = [
    (
        &[
            "ext2", "ext3", "ext4", "f2fs", "jfs", "squashfs", "vfat", "msdos",
        ],
        0x1,
        8,
        ino32,
    ),
    (&["tmpfs", "devtmpfs"], 0x1, 12, tmpfs),
    (&["iso9660"], 0x1, 12, iso9660),
    (&["xfs"], 0x81, 12, ino64),
    (&["fuse", "fuseblk", "virtiofs", "erofs"], 0x81, 12, node),
    (CANNOT_OPEN, 0x81, 12, ino64),
    (CANNOT_OPEN, 0x1, 8, ino32),
    (&["btrfs"], 0x4d, 20, btrfs),
    (&["udf"], 0x51, 12, udf),
    (&["nilfs2"], 0x61, 20, nilfs2),
    (&["vfat", "msdos"], 0x71, 12, fat_position),
    (&["cgroup", "cgroup2", "pidfs"], 0xfe, 8, id),
    (&["nsfs"], 0xf1, 16, namespace),
    (&["overlay"], 0x1, 8, ino32),
    (&["overlay"], 0x81, 12, ino64),
];

/// Filesystems without export operations: their handles name an inode, and open nothing.
const CANNOT_OPEN: &[&str] = &[
    "proc",
    "sysfs",
    "devpts",
    "ramfs",
    "hugetlbfs",
    "exfat",
    "debugfs",
    "tracefs",
    "pipefs",
    "sockfs",
    "anon_inodefs",
    "mqueue",
    "securityfs",
    "bpf",
];

impl FileHandle {
    /// Reads the handle as one of `filesystem`, named as in mountinfo.
    #[must_use]
    pub fn layout(&self, filesystem: &str) -> Layout<'_> {
        let bytes = self.bytes();
        if filesystem == "overlay" && self.kind() == 0xf8 {
            return overlay(bytes).unwrap_or(Layout::Opaque);
        }
        let mut table = TABLE.iter();
        let found = table.find(|(names, kind, length, _)| {
            names.contains(&filesystem) && *kind == self.kind() && *length == bytes.len()
        });
        found.map_or(Layout::Opaque, |(_, _, _, read)| read(bytes))
    }
}

fn ino32(bytes: &[u8]) -> Layout<'_> {
    let (ino, generation) = (word(bytes, 0), word(bytes, 4));
    Layout::Ino32 { ino, generation }
}

fn ino64(bytes: &[u8]) -> Layout<'_> {
    let (ino, generation) = (long(bytes, 0), word(bytes, 8));
    Layout::Ino64 { ino, generation }
}

fn tmpfs(bytes: &[u8]) -> Layout<'_> {
    let (ino, generation) = (long(bytes, 4), word(bytes, 0));
    Layout::Tmpfs { ino, generation }
}

fn node(bytes: &[u8]) -> Layout<'_> {
    let node = u64::from(word(bytes, 0)) << 32 | u64::from(word(bytes, 4));
    let generation = word(bytes, 8);
    Layout::Node { node, generation }
}

fn iso9660(bytes: &[u8]) -> Layout<'_> {
    Layout::Iso9660 {
        block: word(bytes, 0),
        offset: half(bytes, 4),
        generation: word(bytes, 8),
    }
}

fn btrfs(bytes: &[u8]) -> Layout<'_> {
    Layout::Btrfs {
        ino: long(bytes, 0),
        root: long(bytes, 8),
        generation: word(bytes, 16),
    }
}

fn udf(bytes: &[u8]) -> Layout<'_> {
    Layout::Udf {
        block: word(bytes, 0),
        partition: half(bytes, 4),
        generation: word(bytes, 8),
    }
}

fn nilfs2(bytes: &[u8]) -> Layout<'_> {
    Layout::Nilfs2 {
        checkpoint: long(bytes, 0),
        ino: long(bytes, 8),
        generation: word(bytes, 16),
    }
}

fn fat_position(bytes: &[u8]) -> Layout<'_> {
    Layout::FatPosition {
        generation: word(bytes, 0),
        position: long(bytes, 4),
    }
}

fn id(bytes: &[u8]) -> Layout<'_> {
    Layout::Id(long(bytes, 0))
}

fn namespace(bytes: &[u8]) -> Layout<'_> {
    Layout::Namespace {
        id: long(bytes, 0),
        kind: word(bytes, 8),
        ino: word(bytes, 12),
    }
}

/// `struct ovl_fh`: three bytes of padding, version 0, magic fb, length, flags, type, UUID, handle.
fn overlay(bytes: &[u8]) -> Option<Layout<'_>> {
    /// Bytes before the handle, without the padding: what the length counts beside the handle.
    const HEAD: usize = 21;
    let (head, rest) = bytes.split_first_chunk::<24>()?;
    let [0, 0, 0, 0, 0xfb, length, flags, kind, uuid @ ..] = *head else {
        return None;
    };
    let n_bytes = usize::from(length).checked_sub(HEAD)?;
    let (bytes, padding) = rest.split_at_checked(n_bytes)?;
    if padding.len() > 3 || padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    Some(Layout::Overlay {
        flags,
        uuid,
        kind,
        bytes,
    })
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filesystem: &str, kind: i32, digits: &str, expected: &Layout<'_>) {
        let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(pair).collect();
        let handle = FileHandle::new(kind, &bytes).expect("short");
        assert_eq!(
            handle.layout(filesystem),
            *expected,
            "{filesystem} {handle}"
        );
    }

    /// Handles of captures in `test_data/fdinfo`.
    #[test]
    fn handles_of_real_filesystems_are_read() {
        let (ino, generation) = (0x9c1, 0xfa6f_2bd7);
        check(
            "ext4",
            0x1,
            "c1090000d72b6ffa",
            &Layout::Ino32 { ino, generation },
        );
        check("xfs", 0x1, "c1090000d72b6ffa", &Layout::Opaque);
        check("nfs", 0x8, "c1090000d72b6ffa", &Layout::Opaque);
        let digits = "8000000000000000a1b2c3d4";
        let (ino, generation) = (0x80, 0xd4c3_b2a1);
        check("xfs", 0x81, digits, &Layout::Ino64 { ino, generation });
        let node = 0x80 << 32;
        check("fuse", 0x81, digits, &Layout::Node { node, generation });
        let (ino, generation) = (0xd4c3_b2a1 << 32, 0x80);
        check("tmpfs", 0x1, digits, &Layout::Tmpfs { ino, generation });
    }

    #[test]
    fn the_real_handle_of_an_overlay_is_found() {
        let uuid: [u8; 16] = *b"0123456789abcdef";
        let expected = Layout::Overlay {
            flags: 4,
            uuid,
            kind: 1,
            bytes: &[0xc1, 9, 0, 0, 0xd7, 0x2b, 0x6f, 0xfa],
        };
        let uuid = "30313233343536373839616263646566";
        let handle = "c1090000d72b6ffa";
        check(
            "overlay",
            0xf8,
            &format!("00000000fb1d0401{uuid}{handle}"),
            &expected,
        );
        check(
            "overlay",
            0xf8,
            &format!("00000000fb1e0401{uuid}{handle}"),
            &Layout::Opaque,
        );
        check(
            "overlay",
            0xf8,
            &format!("00000000fc1d0401{uuid}{handle}"),
            &Layout::Opaque,
        );
        check("overlay", 0xf8, "00000000fb1d0401", &Layout::Opaque);
    }
}
