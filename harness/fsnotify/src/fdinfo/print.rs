//! The canonical text: what the kernel printed.

use std::fmt;

use crate::handle::{FileHandle, print_hex};

use super::{Group, Line, Lock, Mark, MarkTarget, Watch};

/// The line with its line feed (a hidden lock has none).
impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pos(pos) => writeln!(f, "pos:\t{pos}"),
            Self::Flags(flags) => writeln!(f, "flags:\t0{:o}", flags.0),
            Self::MntId(mnt_id) => writeln!(f, "mnt_id:\t{mnt_id}"),
            Self::Ino(ino) => writeln!(f, "ino:\t{}", ino.0),
            Self::Lock(lock) => lock.fmt(f),
            Self::Group { flags, event_flags } => {
                let (flags, event_flags) = (flags.0, event_flags.0);
                writeln!(f, "fanotify flags:{flags:x} event-flags:{event_flags:x}")
            }
            Self::Watch(watch) => watch.fmt(f),
            Self::Mark(mark) => mark.fmt(f),
            Self::UnknownHead(text) | Self::UnknownMark(text) | Self::Unknown(text) => {
                writeln!(f, "{text}")
            }
        }
    }
}

/// The line with its line feed.
impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wd, ino, sdev) = (self.wd.number(), self.ino.0, self.sdev.0);
        let (mask, ignored_mask) = (self.mask.0, self.ignored_mask.0);
        write!(
            f,
            "inotify wd:{wd:x} ino:{ino:x} sdev:{sdev:x} mask:{mask:x} "
        )?;
        write!(f, "ignored_mask:{ignored_mask:x} ")?;
        print_handle(self.handle.as_ref(), f)
    }
}

/// The line with its line feed.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            MarkTarget::Inode { ino, sdev, .. } => {
                write!(f, "fanotify ino:{:x} sdev:{:x}", ino.0, sdev.0)
            }
            MarkTarget::Mount(mnt_id) => write!(f, "fanotify mnt_id:{:x}", mnt_id.0),
            MarkTarget::Filesystem(sdev) => write!(f, "fanotify sdev:{:x}", sdev.0),
            MarkTarget::MountNamespace(mnt_ns) => write!(f, "fanotify mnt_ns:{}", mnt_ns.0),
        }?;
        let (flags, mask, ignored_mask) = (self.flags.0, self.mask.0, self.ignored_mask.0);
        write!(
            f,
            " mflags:{flags:x} mask:{mask:x} ignored_mask:{ignored_mask:x}"
        )?;
        match &self.target {
            MarkTarget::Inode { handle, .. } => {
                f.write_str(" ")?;
                print_handle(handle.as_ref(), f)
            }
            MarkTarget::Mount(_) | MarkTarget::Filesystem(_) | MarkTarget::MountNamespace(_) => {
                f.write_str("\n")
            }
        }
    }
}

/// The end of an inode's line, behind the space that is always there.
fn print_handle(handle: Option<&FileHandle>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(handle) = handle {
        let (length, kind) = (handle.bytes().len(), handle.kind());
        write!(
            f,
            "fhandle-bytes:{length:x} fhandle-type:{kind:x} f_handle:"
        )?;
        print_hex(handle.bytes(), f)?;
    }
    f.write_str("\n")
}

/// The line with its line feed; a hidden lock ends behind the tab.
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Shown {
            number,
            class,
            access,
            pid,
            file,
            start,
            end,
        } = self
        else {
            return f.write_str("lock:\t");
        };
        write!(
            f,
            "lock:\t{number}: {}{}{pid} ",
            class.text(),
            access.text()
        )?;
        match file {
            Some(file) => write!(f, "{:02x}:{:02x}:{}", file.major, file.minor, file.ino.0),
            None => f.write_str("<none>:0"),
        }?;
        match end {
            Some(end) => writeln!(f, " {start} {end}"),
            None => writeln!(f, " {start} EOF"),
        }
    }
}

/// The whole text.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().try_for_each(|line| line.fmt(f))
    }
}
