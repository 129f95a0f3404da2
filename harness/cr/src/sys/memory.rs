//! Memory that is a file: reading without read(2), and no longer holding what is not used.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Gives back what a piece of work that is over has left in memory: free blocks of the heap, and code
/// that has run, which the kernel maps again when it is wanted.
pub fn give_back() {
    trim_heap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for code in maps.lines().filter_map(code) {
        forget(&code);
    }
}

/// malloc_trim(3).
fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain number; the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The addresses of a line of `/proc/self/maps`, if it is code of a file, that nobody can write to:
/// `7f1005307000-7f100532d000 r-xp 00026000 fe:00 1234 /usr/lib/libc.so.6`.
fn code(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let is_code = fields.next()? == "r-xp" && fields.nth(3)?.starts_with('/');
    (is_code).then_some(address(start)?..address(end)?)
}

/// madvise(2) `MADV_DONTNEED`.
fn forget(code: &Range<usize>) {
    let start = std::ptr::without_provenance_mut::<libc::c_void>(code.start);
    // SAFETY: the pages are those of a file and were never written, for they hold code; whoever reads
    // or runs them reads the same from the file.
    unsafe {
        libc::madvise(start, code.len(), libc::MADV_DONTNEED);
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_there_when_it_is_wanted() {
        let kept = vec![7_u8; 1 << 20];
        drop(vec![1_u8; 1 << 16]);
        give_back();
        assert!(kept.iter().all(|&byte| byte == 7));
        give_back();
        assert_eq!(format!("{:>4}", kept[0]), "   7");
    }

    #[test]
    fn code_is_what_can_run_and_is_of_a_file() {
        let check = |line: &str, expected| assert_eq!(code(line), expected, "{line}");
        let addresses = Some(0x1000..0x3000);
        check(
            "1000-3000 r-xp 00026000 fe:00 12 /lib/libc.so.6",
            addresses.clone(),
        );
        check("1000-3000 r-xp 00026000 fe:00 12 /a b (deleted)", addresses);
        check("1000-3000 r--p 00026000 fe:00 12 /lib/libc.so.6", None);
        check("1000-3000 rwxp 00026000 fe:00 12 /lib/libc.so.6", None);
        check("1000-3000 r-xp 00000000 00:00 0 [vdso]", None);
        check("1000-3000 r-xp 00000000 00:00 0", None);
        check("", None);
    }
}
