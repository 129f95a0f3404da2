//! Open file descriptions on their way: made, and held at high numbers until every process has
//! its own.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use super::error::{Context, RestoreError};
use crate::image::Image;
use crate::sys::{descriptor, raw};

#[derive(Debug)]
pub(super) struct Stage {
    /// No number from here on is one of the image, or one that was open before.
    base: RawFd,
    files: Vec<Option<OwnedFd>>,
    /// Working directory of each process.
    pub(super) directories: Vec<Option<OwnedFd>>,
    pub(super) links: Links,
}

impl Stage {
    pub(super) fn new(image: &Image) -> Result<Self, RestoreError> {
        let descriptors = image
            .processes
            .iter()
            .flat_map(|process| &process.descriptors);
        let interests = image.files.iter().flat_map(|file| match &file.object {
            Some(crate::image::Object::Epoll(set)) => &set.interests[..],
            _ => &[],
        });
        let numbers = descriptors.map(|descriptor| descriptor.fd);
        let highest = numbers
            .chain(interests.map(|interest| interest.fd))
            .max()
            .unwrap_or(2);
        let base = highest.max(highest_open()) + 1;
        let files = (0..image.files.len()).map(|_| None).collect();
        let directories = (0..image.processes.len()).map(|_| None).collect();
        Ok(Self {
            base,
            files,
            directories,
            links: Links::default(),
        })
    }

    /// A duplicate at a number that is in nobody's way.
    pub(super) fn lift(&self, file: impl AsFd) -> Result<OwnedFd, RestoreError> {
        descriptor::duplicate_above(file, self.base).context("fcntl", "F_DUPFD_CLOEXEC")
    }

    pub(super) fn put(&mut self, file: usize, made: impl AsFd) -> Result<(), RestoreError> {
        self.files[file] = Some(self.lift(made)?);
        Ok(())
    }

    pub(super) fn get(&self, file: usize) -> Option<BorrowedFd<'_>> {
        self.files[file].as_ref().map(AsFd::as_fd)
    }

    /// Gives every descriptor up: from here on the numbers are closed by range.
    pub(super) fn into_numbers(self) -> (RawFd, Vec<Option<RawFd>>, Vec<Option<RawFd>>) {
        let give_up = |files: Vec<Option<OwnedFd>>| {
            files
                .into_iter()
                .map(|file| file.map(IntoRawFd::into_raw_fd))
                .collect()
        };
        (self.base, give_up(self.files), give_up(self.directories))
    }
}

/// The names that ghosts have until the watches are back. A restore that fails leaves each as the
/// dump made it.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

#[derive(Debug)]
pub(super) struct Link {
    pub(super) folder: OwnedFd,
    /// As the dump called it.
    pub(super) link: CString,
    /// What it is called now.
    pub(super) name: CString,
}

impl Links {
    pub(super) fn push(&mut self, link: Link) {
        self.0.push(link);
    }

    /// Removes the names. Whoever watches hears it.
    pub(super) fn remove(&mut self) -> Result<(), RestoreError> {
        self.0.drain(..).try_for_each(|link| {
            let removed = raw::unlinkat(link.folder.as_raw_fd(), &link.name, 0);
            removed.map(drop).context("unlinkat", "of a ghost's name")
        })
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for Link { folder, link, name } in self.0.drain(..) {
            let fd = folder.as_raw_fd();
            // That the restore failed is what is reported.
            let _ = raw::renameat2(fd, &name, fd, &link, libc::RENAME_NOREPLACE);
        }
    }
}

/// The highest number that is open now.
fn highest_open() -> RawFd {
    let entries = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.max().unwrap_or(2)
}

/// Sets the offset of a file that has one.
pub(super) fn seek(file: BorrowedFd<'_>, offset: i64) -> Result<(), RestoreError> {
    raw::lseek(file.as_raw_fd(), offset, libc::SEEK_SET)
        .map(drop)
        .context("lseek", "")
}
