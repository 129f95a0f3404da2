//! Lines of watches, groups and marks.

use crate::fanotify::{EventFlags, InitFlags, MarkFlags, Mask as FanotifyMask};
use crate::handle::{FileHandle, MAX_HANDLE_BYTES};
use crate::inotify::Mask as InotifyMask;
use crate::{Ino, MntId, NsIno, Sdev, Wd};

use super::cursor::{Cursor, decode_digits};
use super::error::{ErrorKind, Fault};
use super::{Level, Mark, MarkTarget, Tolerance, Watch};

type Step<T> = Result<T, Fault>;

/// The fields of one kind of line, in order: what [`super::explain`] compares a faulty line with.
pub(super) struct Form {
    pub(super) fields: &'static [&'static str],
    /// Whether a file handle may follow the last field.
    pub(super) handle: bool,
}

pub(super) static WATCH: Form = Form {
    fields: &["wd", "ino", "sdev", "mask", "ignored_mask"],
    handle: true,
};
pub(super) static GROUP: Form = Form {
    fields: &["flags", "event-flags"],
    handle: false,
};
pub(super) static INODE: Form = Form {
    fields: &["ino", "sdev", "mflags", "mask", "ignored_mask"],
    handle: true,
};
pub(super) static MOUNT: Form = Form {
    fields: &["mnt_id", "mflags", "mask", "ignored_mask"],
    handle: false,
};
pub(super) static FILESYSTEM: Form = Form {
    fields: &["sdev", "mflags", "mask", "ignored_mask"],
    handle: false,
};
pub(super) static MOUNT_NAMESPACE: Form = Form {
    fields: &["mnt_ns", "mflags", "mask", "ignored_mask"],
    handle: false,
};

/// The fields of a handle, in order.
pub(super) const HANDLE: [&str; 3] = ["fhandle-bytes", "fhandle-type", "f_handle"];

/// A watch whose handle is not decoded yet: small, so that the large value is made only once, where
/// it is wanted.
pub(super) struct RawWatch<'a> {
    pub(super) wd: Wd,
    pub(super) ino: Ino,
    pub(super) sdev: Sdev,
    pub(super) mask: InotifyMask,
    pub(super) ignored_mask: InotifyMask,
    pub(super) handle: Option<RawHandle<'a>>,
}

/// A mark whose handle is not decoded yet.
pub(super) struct RawMark<'a> {
    pub(super) target: RawTarget<'a>,
    pub(super) flags: MarkFlags,
    pub(super) mask: FanotifyMask,
    pub(super) ignored_mask: FanotifyMask,
}

pub(super) enum RawTarget<'a> {
    Inode {
        ino: Ino,
        sdev: Sdev,
        handle: Option<RawHandle<'a>>,
    },
    Mount(MntId),
    Filesystem(Sdev),
    MountNamespace(NsIno),
}

/// A type, and digits that are known to be pairs of hex digits of at most 128 bytes.
#[derive(Clone, Copy)]
pub(super) struct RawHandle<'a> {
    pub(super) kind: u32,
    pub(super) digits: &'a [u8],
}

impl RawHandle<'_> {
    #[inline(always)]
    fn decode(self) -> FileHandle {
        let mut bytes = [0; MAX_HANDLE_BYTES];
        let n_bytes = decode_digits(self.digits, &mut bytes);
        FileHandle::inline(self.kind, n_bytes, bytes)
    }
}

impl RawWatch<'_> {
    #[inline(always)]
    pub(super) fn decode(self) -> Watch {
        Watch {
            wd: self.wd,
            ino: self.ino,
            sdev: self.sdev,
            mask: self.mask,
            ignored_mask: self.ignored_mask,
            handle: self.handle.map(RawHandle::decode),
        }
    }
}

impl RawMark<'_> {
    #[inline(always)]
    pub(super) fn decode(self) -> Mark {
        let target = match self.target {
            RawTarget::Inode { ino, sdev, handle } => MarkTarget::Inode {
                ino,
                sdev,
                handle: handle.map(RawHandle::decode),
            },
            RawTarget::Mount(mnt_id) => MarkTarget::Mount(mnt_id),
            RawTarget::Filesystem(sdev) => MarkTarget::Filesystem(sdev),
            RawTarget::MountNamespace(mnt_ns) => MarkTarget::MountNamespace(mnt_ns),
        };
        Mark {
            target,
            flags: self.flags,
            mask: self.mask,
            ignored_mask: self.ignored_mask,
        }
    }
}

/// What a line was read as, where the next one begins, and what was tolerated.
pub(super) type Parsed<T> = (T, usize, Option<Tolerance>);

/// `inotify wd:`; the cursor is behind the colon.
pub(super) fn watch(mut cursor: Cursor<'_>, level: Level) -> Step<Parsed<RawWatch<'_>>> {
    let start = cursor.at();
    let wd = cursor.hex32("wd")?;
    cursor.key(b" ino:", "ino")?;
    let wd = i32::try_from(wd).ok().and_then(Wd::new);
    let wd = wd.ok_or(Fault::new(ErrorKind::WdRange, start, "wd"))?;
    let ino = Ino(cursor.hex64("ino")?);
    cursor.key(b" sdev:", "sdev")?;
    let sdev = Sdev(cursor.hex32("sdev")?);
    cursor.key(b" mask:", "mask")?;
    let mask = InotifyMask(cursor.hex32("mask")?);
    cursor.key(b" ignored_mask:", "ignored_mask")?;
    let start = cursor.at();
    let ignored_mask = InotifyMask(cursor.hex32("ignored_mask")?);
    let (handle, end, tolerance) = inode_end(cursor, level)?;
    if ignored_mask.0 != 0 && level == Level::Strict {
        return Err(Fault::new(ErrorKind::IgnoredMask, start, "ignored_mask"));
    }
    let watch = RawWatch {
        wd,
        ino,
        sdev,
        mask,
        ignored_mask,
        handle,
    };
    Ok((watch, end, tolerance))
}

/// `fanotify flags:`; the cursor is behind the colon.
pub(super) fn group(mut cursor: Cursor<'_>, level: Level) -> Step<Parsed<(InitFlags, EventFlags)>> {
    let flags = InitFlags(cursor.hex32("flags")?);
    cursor.key(b" event-flags:", "event-flags")?;
    let event_flags = EventFlags(cursor.hex32("event-flags")?);
    let (end, tolerance) = plain_end(cursor, level)?;
    Ok(((flags, event_flags), end, tolerance))
}

/// `fanotify ino:`; the cursor is behind the colon.
pub(super) fn inode(mut cursor: Cursor<'_>, level: Level) -> Step<Parsed<RawMark<'_>>> {
    let ino = Ino(cursor.hex64("ino")?);
    cursor.key(b" sdev:", "sdev")?;
    let sdev = Sdev(cursor.hex32("sdev")?);
    let (flags, mask, ignored_mask) = tail(&mut cursor, level)?;
    let (handle, end, tolerance) = inode_end(cursor, level)?;
    let mark = RawMark {
        target: RawTarget::Inode { ino, sdev, handle },
        flags,
        mask,
        ignored_mask,
    };
    Ok((mark, end, tolerance))
}

/// `fanotify mnt_id:`; the cursor is behind the colon.
pub(super) fn mount(mut cursor: Cursor<'_>, level: Level) -> Step<Parsed<RawMark<'_>>> {
    let start = cursor.at();
    let mnt_id = cursor.hex32("mnt_id")?;
    let mark = mark_without_handle(RawTarget::Mount(MntId(mnt_id)), cursor, level)?;
    if mnt_id == 0 || mnt_id > 0x7fff_ffff {
        return Err(Fault::new(ErrorKind::MntIdRange, start, "mnt_id"));
    }
    Ok(mark)
}

/// `fanotify sdev:`; the cursor is behind the colon.
pub(super) fn filesystem(mut cursor: Cursor<'_>, level: Level) -> Step<Parsed<RawMark<'_>>> {
    let sdev = Sdev(cursor.hex32("sdev")?);
    mark_without_handle(RawTarget::Filesystem(sdev), cursor, level)
}

/// `fanotify mnt_ns:`; the cursor is behind the colon.
pub(super) fn mount_namespace(mut cursor: Cursor<'_>, level: Level) -> Step<Parsed<RawMark<'_>>> {
    let mnt_ns = cursor.decimal(u64::from(u32::MAX), "mnt_ns")?;
    let mnt_ns = NsIno(u32::try_from(mnt_ns).expect("at most u32::MAX"));
    mark_without_handle(RawTarget::MountNamespace(mnt_ns), cursor, level)
}

fn mark_without_handle<'a>(
    target: RawTarget<'a>,
    mut cursor: Cursor<'a>,
    level: Level,
) -> Step<Parsed<RawMark<'a>>> {
    let (flags, mask, ignored_mask) = tail(&mut cursor, level)?;
    let (end, tolerance) = plain_end(cursor, level)?;
    let mark = RawMark {
        target,
        flags,
        mask,
        ignored_mask,
    };
    Ok((mark, end, tolerance))
}

fn tail(cursor: &mut Cursor<'_>, level: Level) -> Step<(MarkFlags, FanotifyMask, FanotifyMask)> {
    cursor.key(b" mflags:", "mflags")?;
    let flags = MarkFlags(cursor.hex32("mflags")?);
    cursor.key(b" mask:", "mask")?;
    let mask = fanotify_mask(cursor, level, "mask")?;
    cursor.key(b" ignored_mask:", "ignored_mask")?;
    let ignored_mask = fanotify_mask(cursor, level, "ignored_mask")?;
    Ok((flags, mask, ignored_mask))
}

/// 32 bits on every kernel so far; patches that widen it to 64 have been proposed.
fn fanotify_mask(cursor: &mut Cursor<'_>, level: Level, field: &'static str) -> Step<FanotifyMask> {
    Ok(FanotifyMask(match level {
        Level::Strict => u64::from(cursor.hex32(field)?),
        Level::Lenient => cursor.hex64(field)?,
    }))
}

/// The end of a line that never has a handle.
fn plain_end(mut cursor: Cursor<'_>, level: Level) -> Step<(usize, Option<Tolerance>)> {
    if cursor.take(b"\n") {
        return Ok((cursor.at(), None));
    }
    extra_space(cursor, level, "")
}

/// The end of an inode's line: a space, the handle if there is one, a line feed.
fn inode_end(mut cursor: Cursor<'_>, level: Level) -> Step<Parsed<Option<RawHandle<'_>>>> {
    if cursor.take(b" fhandle-bytes:") {
        let handle = handle(&mut cursor)?;
        if cursor.take(b"\n") {
            return Ok((Some(handle), cursor.at(), None));
        }
        let (end, tolerance) = extra_space(cursor, level, "f_handle")?;
        return Ok((Some(handle), end, tolerance));
    }
    if cursor.take(b" \n") {
        return Ok((None, cursor.at(), None));
    }
    let missing = Fault::new(ErrorKind::TrailingGarbage, cursor.at(), "");
    if level == Level::Lenient && cursor.take(b"\n") {
        return Ok((None, cursor.at(), Some(Tolerance::MissingSpace)));
    }
    Err(missing)
}

/// A space before the line feed, where kernels print none.
fn extra_space(
    mut cursor: Cursor<'_>,
    level: Level,
    field: &'static str,
) -> Step<(usize, Option<Tolerance>)> {
    let fault = Fault::new(ErrorKind::TrailingGarbage, cursor.at(), field);
    if level == Level::Lenient && cursor.take(b" \n") {
        Ok((cursor.at(), Some(Tolerance::ExtraSpace)))
    } else {
        Err(fault)
    }
}

/// A handle; the cursor is behind `fhandle-bytes:`.
fn handle<'a>(cursor: &mut Cursor<'a>) -> Step<RawHandle<'a>> {
    let size_at = cursor.at();
    let n_bytes = cursor.hex32("fhandle-bytes")?;
    if !cursor.take(b" fhandle-type:") {
        return Err(Fault::new(
            ErrorKind::HandlePartial,
            cursor.at(),
            "fhandle-type",
        ));
    }
    if !is_handle_size(n_bytes) {
        return Err(Fault::new(ErrorKind::HandleSize, size_at, "fhandle-bytes"));
    }
    let type_at = cursor.at();
    let kind = cursor.hex32("fhandle-type")?;
    if !cursor.take(b" f_handle:") {
        return Err(Fault::new(
            ErrorKind::HandlePartial,
            cursor.at(),
            "f_handle",
        ));
    }
    if !is_handle_type(kind) {
        return Err(Fault::new(ErrorKind::HandleType, type_at, "fhandle-type"));
    }
    let digits = cursor.hex_digits(2 * n_bytes as usize, "f_handle")?;
    Ok(RawHandle { kind, digits })
}

/// Whether a handle of so many bytes can be.
pub(super) const fn is_handle_size(n_bytes: u32) -> bool {
    n_bytes > 0 && n_bytes as usize <= MAX_HANDLE_BYTES && n_bytes.is_multiple_of(4)
}

/// Whether it is a type of handles. 0 is `FILEID_ROOT`, ff `FILEID_INVALID`: `show_mark_fhandle`
/// prints neither.
pub(super) const fn is_handle_type(kind: u32) -> bool {
    kind != 0 && kind != 0xff && kind <= 0xffff
}
