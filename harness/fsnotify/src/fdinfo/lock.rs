//! `lock:` lines: locks on the descriptor itself, as `lock_get_status` prints them.
//!
//! Columns are fixed, so the words are compared with their padding.

use crate::Ino;

use super::cursor::Cursor;
use super::error::{ErrorKind, Fault};

/// One lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lock {
    /// A lock whose owner can be seen.
    Shown {
        /// Number of the lock in this text, from 1.
        number: i64,
        class: LockClass,
        access: LockAccess,
        /// -1 for open file description locks, 0 for an owner of another pid namespace.
        pid: i32,
        file: Option<LockFile>,
        start: i64,
        /// Absent: up to the end of the file, however long (`EOF`).
        end: Option<i64>,
    },
    /// Kernels 4.14 to 4.18, owner not visible: the line has neither content nor end.
    Hidden,
}

/// The file that a lock is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockFile {
    pub major: u32,
    pub minor: u32,
    pub ino: Ino,
}

/// Kind and mode of a lock, with the words that stand for it.
macro_rules! words {
    ($(#[$attribute:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
        }

        impl $name {
            /// Every one, in the order of the words above.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As printed, with the spaces behind it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

words! {
    /// Kind and mode of a lock.
    LockClass {
        Posix = "POSIX  ADVISORY  ",
        PosixMandatory = "POSIX  MANDATORY ",
        PosixNoInode = "POSIX  *NOINODE* ",
        OpenFile = "OFDLCK ADVISORY  ",
        OpenFileMandatory = "OFDLCK MANDATORY ",
        OpenFileNoInode = "OFDLCK *NOINODE* ",
        Access = "ACCESS ADVISORY  ",
        AccessMandatory = "ACCESS MANDATORY ",
        AccessNoInode = "ACCESS *NOINODE* ",
        Flock = "FLOCK  ADVISORY  ",
        FlockMsNfs = "FLOCK  MSNFS     ",
        LeaseActive = "LEASE  ACTIVE    ",
        LeaseBreaking = "LEASE  BREAKING  ",
        LeaseBreaker = "LEASE  BREAKER   ",
        DelegationActive = "DELEG  ACTIVE    ",
        DelegationBreaking = "DELEG  BREAKING  ",
        DelegationBreaker = "DELEG  BREAKER   ",
        Unknown = "UNKNOWN UNKNOWN  ",
    }
}

words! {
    /// What is locked. The last three, and only they and `WRITE`, stand with `FLOCK  MSNFS`.
    LockAccess {
        Read = "READ ",
        Write = "WRITE ",
        Unlock = "UNLCK ",
        MsNfsRead = "READ  ",
        MsNfsReadWrite = "RW    ",
        MsNfsNone = "NONE  ",
    }
}

impl LockAccess {
    /// Whether kernels print it with a lock of this class.
    #[must_use]
    pub const fn fits(self, class: LockClass) -> bool {
        let ms_nfs = matches!(class, LockClass::FlockMsNfs);
        match self {
            Self::Write => true,
            Self::Read | Self::Unlock => !ms_nfs,
            Self::MsNfsRead | Self::MsNfsReadWrite | Self::MsNfsNone => ms_nfs,
        }
    }
}

impl LockClass {
    /// Whether locks of this class can be on a part of a file.
    #[must_use]
    pub const fn has_range(self) -> bool {
        match self {
            Self::Posix | Self::PosixMandatory | Self::PosixNoInode => true,
            Self::OpenFile | Self::OpenFileMandatory | Self::OpenFileNoInode => true,
            Self::Access | Self::AccessMandatory | Self::AccessNoInode => true,
            Self::Flock | Self::FlockMsNfs | Self::Unknown => false,
            Self::LeaseActive | Self::LeaseBreaking | Self::LeaseBreaker => false,
            Self::DelegationActive | Self::DelegationBreaking | Self::DelegationBreaker => false,
        }
    }
}

/// A lock; the line starts with `lock:` and a tab. Gives the lock and the offset of its end.
pub(super) fn parse(line: &[u8]) -> Result<(Lock, usize), Fault> {
    let mut cursor = Cursor::new(line, PREFIX.len());
    let bad = |cursor: Cursor<'_>| Fault::new(ErrorKind::BadLock, cursor.at(), "lock");
    let as_lock = |fault: Fault| Fault {
        kind: ErrorKind::BadLock,
        field: "lock",
        ..fault
    };
    let number = cursor.signed(i64::MAX, "lock").map_err(as_lock)?;
    if !cursor.take(b": ") {
        return Err(bad(cursor));
    }
    let class = class(&mut cursor).ok_or(bad(cursor))?;
    let before = cursor;
    let access = access(&mut cursor, class).ok_or(bad(before))?;
    let pid = cursor
        .signed(i64::from(i32::MAX), "lock")
        .map_err(as_lock)?;
    let pid = i32::try_from(pid).expect("within i32");
    let file = file(&mut cursor).map_err(as_lock)?;
    let before = cursor;
    let (start, end) = range(&mut cursor).map_err(as_lock)?;
    if !class.has_range() && (start, end) != (0, None) {
        return Err(bad(before));
    }
    if !cursor.take(b"\n") {
        return Err(bad(cursor));
    }
    let lock = Lock::Shown {
        number,
        class,
        access,
        pid,
        file,
        start,
        end,
    };
    Ok((lock, cursor.at()))
}

pub(super) const PREFIX: &[u8] = b"lock:\t";

fn class(cursor: &mut Cursor<'_>) -> Option<LockClass> {
    let mut all = LockClass::ALL.iter();
    all.find(|class| cursor.take(class.text().as_bytes()))
        .copied()
}

/// The access, which is the first word that stands here and fits the class.
fn access(cursor: &mut Cursor<'_>, class: LockClass) -> Option<LockAccess> {
    let mut fitting = LockAccess::ALL.iter().filter(|access| access.fits(class));
    fitting
        .find(|access| cursor.take(access.text().as_bytes()))
        .copied()
}

/// ` 00:10:1039 ` (device in hex, inode in decimal) or ` <none>:0 `.
fn file(cursor: &mut Cursor<'_>) -> Result<Option<LockFile>, Fault> {
    if cursor.take(b" <none>:0 ") {
        return Ok(None);
    }
    cursor.key(b" ", "lock")?;
    let major = two_digits(cursor)?;
    cursor.key(b":", "lock")?;
    let minor = two_digits(cursor)?;
    cursor.key(b":", "lock")?;
    let ino = Ino(cursor.decimal(u64::MAX, "lock")?);
    cursor.key(b" ", "lock")?;
    Ok(Some(LockFile { major, minor, ino }))
}

/// A number of `%02x`.
fn two_digits(cursor: &mut Cursor<'_>) -> Result<u32, Fault> {
    let at = cursor.at();
    let padded = cursor.take(b"0");
    let number = cursor.hex32("lock")?;
    if padded != (number < 0x10) {
        return Err(Fault::new(ErrorKind::BadLock, at, "lock"));
    }
    Ok(number)
}

fn range(cursor: &mut Cursor<'_>) -> Result<(i64, Option<i64>), Fault> {
    let start = cursor.signed(i64::MAX, "lock")?;
    cursor.key(b" ", "lock")?;
    let end = if cursor.take(b"EOF") {
        None
    } else {
        Some(cursor.signed(i64::MAX, "lock")?)
    };
    Ok((start, end))
}
