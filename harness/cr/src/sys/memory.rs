//! Memory that is a file: reading without read(2).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// A private mapping of a part of a file, for reading.
///
/// Reading a page that is a hole makes a block of it on tmpfs (`shmem_fault`), so only what
/// `SEEK_DATA` reports may be mapped.
#[derive(Debug)]
pub struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    /// mmap(2). `offset` is a multiple of the page size.
    ///
    /// # Errors
    ///
    /// The errno of the call: `EACCES` for a descriptor that cannot be read.
    pub fn new(file: impl AsFd, offset: i64, length: usize) -> Result<Self, Errno> {
        // SAFETY: the kernel picks an address that nothing else uses; the other arguments are
        // plain numbers.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_fd().as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            Err(Errno::last())
        } else {
            Ok(Self { start, length })
        }
    }

    /// A copy of the first `size` bytes. The file must not shrink meanwhile: its last holder is
    /// stopped, and it has no name by which another could reach it.
    #[must_use]
    pub fn copy(&self, size: usize) -> Vec<u8> {
        let size = size.min(self.length);
        let mut bytes = vec![0; size];
        // SAFETY: the mapping is readable for its length, which is no less than `size`, and does
        // not overlap a fresh vector. Raw copying, so that no reference to memory exists that
        // another process could write.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.cast::<u8>(), bytes.as_mut_ptr(), size);
        }
        bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was returned by mmap with this length and is unmapped once.
        unsafe {
            libc::munmap(self.start, self.length);
        }
    }
}
