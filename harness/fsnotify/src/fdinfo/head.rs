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
    pub(super) const ALL: [Self; 4] = [Self::Pos, Self::Flags, Self::MntId, Self::Ino];

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
        let mut keys = Self::ALL.into_iter();
        keys.find(|key| key.name().as_bytes() == &line[..colon])
    }
}

/// What has been seen of the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen([bool; 4]);

impl Seen {
    pub(super) const fn new() -> Self {
        Self([false; 4])
    }

    /// Notes `key`, and refuses it if it cannot come now.
    pub(super) fn note(&mut self, key: HeadKey) -> Result<(), Fault> {
        let index = key as usize;
        let fault = |kind, key: HeadKey| Fault::new(kind, 0, key.name());
        if self.0[index] {
            return Err(fault(ErrorKind::HeadDuplicate, key));
        }
        if self.0[index..].contains(&true) {
            return Err(fault(ErrorKind::HeadOrder, key));
        }
        self.complete_before(key)?;
        self.0[index] = true;
        Ok(())
    }

    /// Refuses the key of a head line in the body.
    pub(super) fn refuse(self, key: HeadKey) -> Fault {
        let seen = self.0[key as usize];
        let kind = if seen {
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
        let mut missing = required.into_iter().filter(|key| !self.0[*key as usize]);
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
