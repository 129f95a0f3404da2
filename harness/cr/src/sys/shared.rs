//! A file mapped shared and writable: what is stored there outlives the process that stored it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::slice;

use nix::errno::Errno;

/// The first bytes of a file, in memory.
#[derive(Debug)]
pub struct SharedMap {
    file: File,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for SharedMap {}

impl SharedMap {
    /// fallocate(2) and mmap(2) with `MAP_SHARED|MAP_POPULATE`: room for `length` bytes, all of it
    /// there, so that no later access can fail.
    ///
    /// # Errors
    ///
    /// The errno of either call: `ENOSPC` where the file cannot have so many bytes.
    pub fn new(file: File, length: usize) -> Result<Self, Errno> {
        allocate(&file, length)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address that the kernel chooses; it touches no other.
        let start = unsafe {
            let fd = file.as_raw_fd();
            libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Self {
            file,
            start,
            length,
        })
    }

    /// Grows file and mapping to `length` bytes. The content stays.
    ///
    /// # Errors
    ///
    /// As [`SharedMap::new`]; the mapping is then as it was.
    pub fn grow(&mut self, length: usize) -> Result<(), Errno> {
        if length > self.length {
            *self = Self::new(self.file.try_clone().map_err(|_| Errno::EMFILE)?, length)?;
        }
        Ok(())
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable for its length as long as `self` lives. The file is
        // private to its dumper by name, and nobody writes to it but through `bytes_mut`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; the mapping is writable, and borrowed mutably here.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and is not used any more. It
        // cannot fail, as the range is a whole mapping.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn allocate(file: &File, length: usize) -> Result<(), Errno> {
    let length = i64::try_from(length).map_err(|_| Errno::EFBIG)?;
    // SAFETY: plain numbers.
    let returned = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) };
    Errno::result(returned).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_in_the_file() {
        let file = tempfile::tempfile().unwrap();
        let mut map = SharedMap::new(file.try_clone().unwrap(), 4096).unwrap();
        map.bytes_mut()[..5].copy_from_slice(b"event");
        map.grow(1 << 20).unwrap();
        assert_eq!(map.bytes().len(), 1 << 20);
        map.bytes_mut()[4096] = b'!';
        drop(map);
        let mut content = [0; 4097];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut content, 0).unwrap();
        assert_eq!((&content[..5], content[4096]), (&b"event"[..], b'!'));
    }
}
