//! Lines before the body: the head that every fdinfo file has.

use crate::{Ino, OpenFlags};

use super::Line;
use super::cursor::Cursor;
use super::error::{ErrorKind, Fault};

/// Lines of the head in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HeadKey {
    Pos,
    Flags,
    MntId,
    Ino,
}

impl HeadKey {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pos => "pos",
            Self::Flags => "flags",
            Self::MntId => "mnt_id",
            Self::Ino => "ino",
        }
    }

    /// The key that a line starts with, its colon included.
    pub(super) fn of(line: &[u8]) -> Option<Self> {
        let colon = line.iter().take(8).position(|byte| *byte == b':')?;
        match &line[..colon] {
            b"pos" => Some(Self::Pos),
            b"flags" => Some(Self::Flags),
            b"mnt_id" => Some(Self::MntId),
            b"ino" => Some(Self::Ino),
            _ => None,
        }
    }

    /// Its bit in [`Seen`]: bits are in the order of the lines.
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What has been seen of the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen(u8);

impl Seen {
    pub(super) const fn new() -> Self {
        Self(0)
    }

    const fn has(self, key: HeadKey) -> bool {
        self.0 & key.bit() != 0
    }

    /// Notes `key`, and refuses it if it cannot come now.
    pub(super) fn note(&mut self, key: HeadKey) -> Result<(), Fault> {
        if self.0 >= key.bit() {
            return Err(self.refuse(key));
        }
        self.complete_before(key)?;
        self.0 |= key.bit();
        Ok(())
    }

    /// Refuses a key that cannot come any more.
    pub(super) fn refuse(self, key: HeadKey) -> Fault {
        let kind = if self.has(key) {
            ErrorKind::HeadDuplicate
        } else {
            ErrorKind::HeadOrder
        };
        Fault::new(kind, 0, key.name())
    }

    /// Refuses the end of the head before `pos:` and `flags:`, which every kernel prints.
    pub(super) fn complete(self) -> Result<(), Fault> {
        self.complete_before(HeadKey::MntId)
    }

    fn complete_before(self, key: HeadKey) -> Result<(), Fault> {
        let required = [HeadKey::Pos, HeadKey::Flags];
        let mut missing = required.into_iter().filter(|key| !self.has(*key));
        match missing.find(|missing| *missing < key) {
            Some(missing) => Err(Fault::new(ErrorKind::HeadMissing, 0, missing.name())),
            None => Ok(()),
        }
    }
}

/// The value of a line of the head; gives the line and the offset of its end.
pub(super) fn value(key: HeadKey, line: &[u8]) -> Result<(Line<'static>, usize), Fault> {
    let name = key.name();
    let mut cursor = Cursor::new(line, name.len() + 1);
    if !cursor.take(b"\t") {
        return Err(Fault::new(ErrorKind::BadSeparator, cursor.at(), name));
    }
    let value = match key {
        HeadKey::Pos => Line::Pos(cursor.signed(i64::MAX, name)?),
        HeadKey::Flags => Line::Flags(OpenFlags(cursor.octal(name)?)),
        HeadKey::MntId => {
            let number = cursor.signed(i64::from(i32::MAX), name)?;
            Line::MntId(i32::try_from(number).expect("within i32"))
        }
        HeadKey::Ino => Line::Ino(Ino(cursor.decimal(u64::MAX, name)?)),
    };
    if !cursor.take(b"\n") {
        let kind = match (key, cursor.rest().first()) {
            (_, Some(b' ' | b'\t')) => ErrorKind::TrailingGarbage,
            (HeadKey::Flags, _) => ErrorKind::BadOctal,
            (HeadKey::Pos | HeadKey::MntId | HeadKey::Ino, _) => ErrorKind::BadDecimal,
        };
        return Err(Fault::new(kind, cursor.at(), name));
    }
    Ok((value, cursor.at()))
}
