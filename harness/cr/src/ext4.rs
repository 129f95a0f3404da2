//! Filesystems of memory, which nothing but a descriptor holds, and the bytes of an empty one in which
//! the kernel can take only the inode numbers that it is meant to take: ext2 of revision 1 with
//! blocks of 4096 bytes, which is an ext4 without extents and journal.
//!
//! Every inode is marked as used, but for the wanted ones; so whatever is made there takes one of
//! these. Of a group of inodes without a wanted one nothing is written but its descriptor: the
//! kernel reads no bitmap of a group that has nothing free.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys::block::{Mounted, mount_memory};

pub(crate) const ROOT: u32 = 2;
/// Numbers below it, but for the root, are reserved (`EXT4_GOOD_OLD_FIRST_INO`).
pub(crate) const FIRST: u32 = 11;
/// More groups would have more inodes than 32 bits count.
const MAX_GROUPS: u32 = 131_071;
pub(crate) const LAST: u32 = MAX_GROUPS * INODES;

const BLOCK: u32 = 4096;
/// Blocks of a group, and inodes of a group: as many as the bits of a block.
const BLOCKS: u32 = 8 * BLOCK;
const INODES: u32 = 8 * BLOCK;
const INODE_SIZE: u32 = 256;
const DESCRIPTOR: u32 = 32;
/// Blocks of an inode table.
const TABLE: u32 = INODES * INODE_SIZE / BLOCK;

/// The second half of the UUID. Nothing else has it, so that nobody who looks for another
/// filesystem by its UUID finds this one.
const OURS: [u8; 8] = *b"notifrze";

/// The options that keep the kernel from working on it in the background.
const OPTIONS: [&CStr; 3] = [
    c"noinit_itable",
    c"no_prefetch_block_bitmaps",
    c"noblock_validity",
];

/// An empty filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What statfs(2) is to say (`uuid_to_fsid`: the exclusive or of the two halves).
    pub fsid: [u32; 2],
    /// A directory in the root.
    pub home: (u32, Vec<u8>),
    /// The numbers that new inodes get.
    pub free: BTreeSet<u32>,
}

/// What stands where; zeroes elsewhere.
struct Pieces {
    size: u64,
    written: Vec<(u64, Vec<u8>)>,
}

impl Layout {
    /// Mounts it, in no mount namespace.
    ///
    /// # Errors
    ///
    /// The first call that failed, and its errno.
    pub fn mount(&self) -> Result<Mounted, (&'static str, Errno)> {
        let call = |name| move |errno| (name, errno);
        let memory = memfd_create(c"notifreeze-ext4", MFdFlags::MFD_CLOEXEC);
        let memory = File::from(memory.map_err(call("memfd_create"))?);
        let io = |name| {
            move |error: std::io::Error| {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                (name, Errno::from_raw(errno))
            }
        };
        let pieces = self.pieces();
        memory.set_len(pieces.size).map_err(io("ftruncate"))?;
        for (at, bytes) in &pieces.written {
            memory.write_all_at(bytes, *at).map_err(io("pwrite"))?;
        }
        mount_memory(&memory, c"ext4", &OPTIONS)
    }

    fn pieces(&self) -> Pieces {
        let highest = self.free.last().copied().unwrap_or(0).max(self.home.0);
        let shape = Shape::new(highest);
        let mut written = vec![
            (1024, self.superblock(&shape)),
            (u64::from(BLOCK), self.descriptors(&shape)),
            (at_block(shape.group(0)), used_blocks(&shape)),
        ];
        written.extend(self.inode_bitmaps(&shape));
        written.extend(self.directories(&shape));
        Pieces {
            size: at_block(shape.n_groups * BLOCKS),
            written,
        }
    }

    fn superblock(&self, shape: &Shape) -> Vec<u8> {
        let mut bytes = Bytes::new(1024);
        for (at, word) in [
            (0, shape.n_groups * INODES),
            (4, shape.n_groups * BLOCKS),
            (12, shape.n_free_blocks()),
            (16, u32::try_from(self.free.len()).expect("32 bits")),
            (24, 2),
            (28, 2),
            (32, BLOCKS),
            (36, BLOCKS),
            (40, INODES),
            (76, 1),
            (84, FIRST),
            (88, INODE_SIZE),
            // EXT4_FEATURE_INCOMPAT_FILETYPE; SPARSE_SUPER and LARGE_FILE.
            (96, 2),
            (100, 3),
        ] {
            bytes.put(at, &word.to_le_bytes());
        }
        // Never to be checked, magic, clean, errors are passed over.
        for (at, half) in [(54, 0xffff_u16), (56, 0xef53), (58, 1), (60, 1)] {
            bytes.put(at, &half.to_le_bytes());
        }
        let [low, high] = self.fsid;
        let fsid = u64::from(low) | u64::from(high) << 32;
        let first = fsid ^ u64::from_le_bytes(OURS);
        bytes.put(104, &first.to_le_bytes());
        bytes.put(112, &OURS);
        bytes.0
    }

    fn descriptors(&self, shape: &Shape) -> Vec<u8> {
        let mut bytes = Bytes::new(shape.n_groups * DESCRIPTOR);
        let mut free = self.free.iter().map(|ino| group_of(*ino)).peekable();
        for group in 0..shape.n_groups {
            let mut n_free: u16 = 0;
            while free.next_if(|of| *of == group).is_some() {
                n_free += 1;
            }
            let (at, start) = (group * DESCRIPTOR, shape.group(group));
            for (index, block) in [start, start + 1, start + 2].into_iter().enumerate() {
                bytes.put(
                    at + 4 * u32::try_from(index).expect("3"),
                    &block.to_le_bytes(),
                );
            }
            let n_blocks = if group == 0 { shape.n_free_blocks() } else { 0 };
            let n_blocks = u16::try_from(n_blocks).expect("a group has 2^15");
            let n_directories = if group == 0 { 2_u16 } else { 0 };
            bytes.put(at + 12, &n_blocks.to_le_bytes());
            bytes.put(at + 14, &n_free.to_le_bytes());
            bytes.put(at + 16, &n_directories.to_le_bytes());
        }
        bytes.0
    }

    fn inode_bitmaps(&self, shape: &Shape) -> Vec<(u64, Vec<u8>)> {
        let mut bitmaps = vec![(0, vec![0xff; BLOCK as usize])];
        for ino in &self.free {
            let group = group_of(*ino);
            if bitmaps.last().is_none_or(|(last, _)| *last != group) {
                bitmaps.push((group, vec![0xff; BLOCK as usize]));
            }
            let (_, bitmap) = bitmaps.last_mut().expect("pushed");
            let bit = (ino - 1) % INODES;
            bitmap[(bit / 8) as usize] &= !(1 << (bit % 8));
        }
        let place = |group| at_block(shape.group(group) + 1);
        bitmaps
            .into_iter()
            .map(|(group, bitmap)| (place(group), bitmap))
            .collect()
    }

    /// The root and the one in it.
    fn directories(&self, shape: &Shape) -> Vec<(u64, Vec<u8>)> {
        let (home, name) = (self.home.0, &self.home.1);
        let block = shape.first_free() - 2;
        let mut root = Bytes::new(BLOCK);
        root.entry((0, 12), ROOT, b".");
        root.entry((12, 12), ROOT, b"..");
        root.entry((24, BLOCK - 24), home, name);
        let mut inner = Bytes::new(BLOCK);
        inner.entry((0, 12), home, b".");
        inner.entry((12, BLOCK - 12), ROOT, b"..");
        vec![
            (shape.inode(ROOT), directory(3, block)),
            (shape.inode(home), directory(2, block + 1)),
            (at_block(block), root.0),
            (at_block(block + 1), inner.0),
        ]
    }
}

/// Where the parts are.
struct Shape {
    n_groups: u32,
    /// Blocks of the table of group descriptors.
    n_descriptors: u32,
}

impl Shape {
    fn new(highest: u32) -> Self {
        let n_groups = group_of(highest) + 1;
        Self {
            n_groups,
            n_descriptors: (n_groups * DESCRIPTOR).div_ceil(BLOCK),
        }
    }

    /// The block bitmap of a group; its inode bitmap and inode table are behind it.
    fn group(&self, group: u32) -> u32 {
        let before = if group == 0 {
            1 + self.n_descriptors
        } else {
            0
        };
        group * BLOCKS + before
    }

    /// Behind everything in the first group, which alone has free blocks.
    fn first_free(&self) -> u32 {
        self.group(0) + 2 + TABLE + 2
    }

    fn n_free_blocks(&self) -> u32 {
        BLOCKS - self.first_free()
    }

    fn inode(&self, ino: u32) -> u64 {
        let table = at_block(self.group(group_of(ino)) + 2);
        table + u64::from((ino - 1) % INODES) * u64::from(INODE_SIZE)
    }
}

fn group_of(ino: u32) -> u32 {
    (ino - 1) / INODES
}

fn at_block(block: u32) -> u64 {
    u64::from(block) * u64::from(BLOCK)
}

fn used_blocks(shape: &Shape) -> Vec<u8> {
    let mut bitmap = vec![0; BLOCK as usize];
    for block in 0..shape.first_free() {
        bitmap[(block / 8) as usize] |= 1 << (block % 8);
    }
    bitmap
}

/// The inode of a directory of one block.
fn directory(n_links: u16, block: u32) -> Vec<u8> {
    let mut bytes = Bytes::new(INODE_SIZE);
    bytes.put(0, &0o40755_u16.to_le_bytes());
    bytes.put(4, &BLOCK.to_le_bytes());
    bytes.put(26, &n_links.to_le_bytes());
    bytes.put(28, &(BLOCK / 512).to_le_bytes());
    bytes.put(40, &block.to_le_bytes());
    bytes.0
}

struct Bytes(Vec<u8>);

impl Bytes {
    fn new(length: u32) -> Self {
        Self(vec![0; length as usize])
    }

    fn put(&mut self, at: u32, bytes: &[u8]) {
        self.0[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// An entry of a directory, of this length, that leads to a directory.
    fn entry(&mut self, (at, length): (u32, u32), ino: u32, name: &[u8]) {
        self.put(at, &ino.to_le_bytes());
        let length = u16::try_from(length).expect("at most a block");
        self.put(at + 4, &length.to_le_bytes());
        let n_bytes = u8::try_from(name.len()).expect("a name has at most 255");
        self.put(at + 6, &[n_bytes, 2]);
        self.put(at + 8, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(free: &[u32]) -> Layout {
        Layout {
            fsid: [0x1234_5678, 0x9abc_def0],
            home: (11, b"home".to_vec()),
            free: free.iter().copied().collect(),
        }
    }

    #[test]
    fn the_last_inode_number_fits_32_bits_of_blocks() {
        let pieces = layout(&[LAST]).pieces();
        assert_eq!(pieces.size, u64::from(MAX_GROUPS) * 8 * 4096 * 4096);
        let n_bytes: usize = pieces.written.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(n_bytes < 5 << 20, "{n_bytes} bytes");
    }

    #[test]
    fn only_wanted_inodes_are_free() {
        let pieces = layout(&[12, 40, 32_769, 5_000_000]).pieces();
        let n_zeroes: u32 = pieces.written[3..]
            .iter()
            .filter(|(_, bytes)| bytes.len() == 4096 && bytes[0] != ROOT.to_le_bytes()[0])
            .filter(|(at, _)| at % (4096 * 32768) < 16 * 4096)
            .flat_map(|(_, bytes)| bytes.iter().map(|byte| byte.count_zeros()))
            .sum();
        assert_eq!(n_zeroes, 4);
    }

    #[test]
    fn the_halves_of_the_uuid_make_the_number_of_the_filesystem() {
        let superblock = layout(&[12]).pieces().written[0].1.clone();
        let half = |at: usize| u64::from_le_bytes(superblock[at..at + 8].try_into().unwrap());
        assert_eq!(half(104) ^ half(112), 0x9abc_def0_1234_5678);
    }
}
