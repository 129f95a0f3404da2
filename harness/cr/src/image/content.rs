//! Content of ghosts in the file of an image, before its message: written and read piece by piece,
//! so that a ghost may be larger than memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::codec::{HEADER, header};
use super::{Extent, Image, Stored};

/// Most bytes of an extent that a dump makes; what is in memory at once.
pub(crate) const PIECE: u64 = 1 << 20;

/// An image under way: a file under a temporary name, beside the one that it will have.
#[derive(Debug)]
pub(crate) struct Writer {
    temporary: PathBuf,
    path: PathBuf,
    file: File,
    length: u64,
    is_finished: bool,
}

impl Writer {
    /// # Errors
    ///
    /// That the file cannot be made.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            // It may hold what was in a file that nobody else could read.
            .mode(0o600)
            .open(&temporary)?;
        Ok(Self {
            temporary,
            path: path.to_owned(),
            file,
            length: 0,
            is_finished: false,
        })
    }

    /// Writes content, and says where it is.
    ///
    /// # Errors
    ///
    /// Those of write(2).
    pub(crate) fn store(&mut self, bytes: &[u8]) -> io::Result<Stored> {
        let position = self.length;
        self.file.write_all_at(bytes, HEADER as u64 + position)?;
        self.length += bytes.len() as u64;
        Ok(Stored {
            position,
            checksum: crc32fast::hash(bytes),
        })
    }

    /// Makes sure that so much more can be written, where the filesystem can.
    ///
    /// # Errors
    ///
    /// Those of fallocate(2).
    pub(crate) fn reserve(&self, length: u64) -> io::Result<()> {
        let number = |it: u64| i64::try_from(it).map_err(|_| io::Error::from(Errno::EFBIG));
        let start = number(HEADER as u64 + self.length)?;
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, keep, start, number(length)?) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What was written until now.
    ///
    /// # Errors
    ///
    /// That the descriptor cannot be duplicated.
    pub(crate) fn content(&self) -> io::Result<Content> {
        Ok(Content {
            file: self.file.try_clone()?,
        })
    }

    /// Gives the image its name, complete and synchronised.
    ///
    /// # Errors
    ///
    /// Any error of the file; no temporary file stays behind.
    pub(crate) fn finish(mut self, image: &mut Image) -> io::Result<()> {
        image.content_length = self.length;
        let message = prost::Message::encode_to_vec(image);
        self.file
            .write_all_at(&message, HEADER as u64 + self.length)?;
        self.file.write_all_at(&header(&message), 0)?;
        // What was reserved and is not used.
        let length = self.length + message.len() as u64;
        self.file.set_len(HEADER as u64 + length)?;
        self.file.flush()?;
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.is_finished = true;
        let folder = self.path.parent();
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_finished {
            // Whatever went wrong before is what is reported.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The content in the file of an image, which stays the same when another image gets its name.
#[derive(Debug)]
pub(crate) struct Content {
    file: File,
}

impl Content {
    pub(super) fn of(file: File) -> Self {
        Self { file }
    }

    /// Hands the bytes of an extent over, in pieces.
    ///
    /// # Errors
    ///
    /// Those of read(2), `EIO` if the bytes are not those that were written, and whatever `take`
    /// returns, which gets where a piece is in the extent.
    pub(crate) fn read(
        &self,
        extent: &Extent,
        take: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(stored) = &extent.stored else {
            return take(0, &extent.content);
        };
        let piece = usize::try_from(extent.length.min(PIECE)).expect("no more than PIECE");
        let mut buffer = vec![0; piece];
        let mut checksum = crc32fast::Hasher::new();
        let mut at = 0;
        while at < extent.length {
            let left = usize::try_from(extent.length - at).unwrap_or(usize::MAX);
            let part = &mut buffer[..left.min(piece)];
            let position = HEADER as u64 + stored.position + at;
            self.file.read_exact_at(part, position)?;
            checksum.update(part);
            take(at, part)?;
            at += part.len() as u64;
        }
        if checksum.finalize() == stored.checksum {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }

    /// Reads it all, so that nothing is done for an image that is spoiled.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(crate) fn verify(&self, image: &Image) -> io::Result<()> {
        let ghosts = image.inodes.iter().filter_map(|inode| inode.ghost.as_ref());
        let extents = ghosts.flat_map(|ghost| &ghost.extents);
        extents
            .filter(|extent| extent.stored.is_some())
            .try_for_each(|extent| self.read(extent, &mut |_, _| Ok(())))
    }
}
