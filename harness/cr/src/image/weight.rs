//! What a message takes in memory once it is decoded, found without decoding it.
//!
//! An empty entry of a table is two bytes of a message and some hundred bytes of memory. So a message
//! is weighed first, and one that says next to nothing with very many entries is refused. Tables
//! grow by doubling, which for a moment takes three times what they hold: whoever decodes a message
//! of `n` bytes that [fits](Shape::fits) `most` needs at most `3 * (most * n + SPARE)`.

/// Bytes of memory for a short message, whatever it holds.
pub const SPARE: usize = 1 << 20;

/// A kind of message: its size in memory, and which of its fields are messages themselves.
#[derive(Debug)]
pub struct Shape {
    pub size: usize,
    pub fields: &'static [(u64, &'static Shape)],
}

impl Shape {
    #[must_use]
    pub const fn of<M>(fields: &'static [(u64, &'static Shape)]) -> Self {
        Self {
            size: size_of::<M>(),
            fields,
        }
    }

    /// Whether a message of this shape takes at most so many bytes of memory for each of its own.
    #[must_use]
    pub fn fits(&self, message: &[u8], most: usize) -> bool {
        self.weigh(message) <= most * message.len() + SPARE
    }

    /// Bytes of memory that the message takes, up to where it is none.
    #[must_use]
    pub fn weigh(&self, mut message: &[u8]) -> usize {
        let mut weight = self.size;
        while let Some((tag, field)) = field(&mut message) {
            let shape = self.fields.iter().find(|(known, _)| *known == tag);
            weight += match (shape, field) {
                (Some((_, shape)), Field::Bytes(bytes)) => shape.weigh(bytes),
                // A string in a table, or numbers that each were a byte.
                (None, Field::Bytes(bytes)) => size_of::<String>() + 4 * bytes.len(),
                // A number in a table.
                (_, Field::Number) => 8,
            };
        }
        weight
    }
}

enum Field<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// The next field and its tag; none at the end, and where it is none.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = varint(message)?;
    let length = match key & 7 {
        0 => {
            varint(message)?;
            0
        }
        1 => 8,
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            let (bytes, rest) = message.split_at_checked(length)?;
            *message = rest;
            return Some((key >> 3, Field::Bytes(bytes)));
        }
        5 => 4,
        // Groups are skipped by the decoder, and nobody writes them.
        _ => return None,
    };
    *message = message.get(length..)?;
    Some((key >> 3, Field::Number))
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNER: Shape = Shape {
        size: 100,
        fields: &[],
    };
    const OUTER: Shape = Shape {
        size: 10,
        fields: &[(2, &INNER)],
    };

    #[test]
    fn every_entry_counts_at_any_depth() {
        assert_eq!(OUTER.weigh(b""), 10);
        assert_eq!(OUTER.weigh(b"\x12\0\x12\0"), 10 + 2 * 100);
        assert_eq!(OUTER.weigh(b"\x12\x02\x08\x01"), 10 + 100 + 8);
        assert_eq!(OUTER.weigh(b"\x0a\x01x"), 10 + size_of::<String>() + 4);
        assert_eq!(OUTER.weigh(b"\x0d1234\x0912345678"), 10 + 8 + 8);
    }

    #[test]
    fn what_is_no_message_ends() {
        for message in [&b"\x12"[..], b"\x12\xff", b"\x0b", b"\xff", &[0xff; 20]] {
            assert_eq!(OUTER.weigh(message), 10, "{message:?}");
        }
    }

    #[test]
    fn a_message_of_empty_entries_does_not_fit() {
        let empty = |n: usize| b"\x12\0".repeat(n);
        assert!(OUTER.fits(&empty(1000), 16));
        assert!(!OUTER.fits(&empty(1_000_000), 16));
        assert!(OUTER.fits(&b"\x12\x08\x0a\x06honest".repeat(100_000), 16));
    }
}
