//! A position in a line, and the numbers that can stand there.
//!
//! A cursor may see bytes beyond its line: no key and no number contains a line feed, so nothing is
//! read across the end of a line.

use super::error::{ErrorKind, Fault};
use super::scan::{HIGH, ONES, at_least};

type Step<T> = Result<T, Fault>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    /// What has not been stepped over.
    rest: &'a [u8],
    /// Length of the whole.
    length: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            rest: bytes.get(at..).unwrap_or_default(),
            length: bytes.len(),
        }
    }

    pub(super) const fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    fn skip(&mut self, n_bytes: usize) {
        self.rest = self.rest.get(n_bytes..).unwrap_or_default();
    }

    /// Steps over `text` if it stands here.
    #[inline(always)]
    pub(super) fn take(&mut self, text: &[u8]) -> bool {
        let behind = self.rest.strip_prefix(text);
        if let Some(behind) = behind {
            self.rest = behind;
        }
        behind.is_some()
    }

    /// Steps over the key of `field`, a field like all others: a space before, a colon after.
    #[inline(always)]
    pub(super) fn key(&mut self, text: &[u8], field: &'static str) -> Step<()> {
        if self.take(text) {
            Ok(())
        } else {
            Err(Fault::new(ErrorKind::FieldMissing, self.at(), field))
        }
    }

    /// A number of `%x` in at most 32 bits.
    #[inline(always)]
    pub(super) fn hex32(&mut self, field: &'static str) -> Step<u32> {
        let start = *self;
        let (value, n_digits) = hex_word(self.rest);
        self.skip(n_digits);
        if n_digits == 8 && is_hex(self.rest) {
            return Err(start.wide(8, field));
        }
        start.canonical_hex(n_digits, field)?;
        Ok(value)
    }

    /// A number of `%x` that has one digit more often than not.
    #[inline(always)]
    pub(super) fn short_hex(&mut self, field: &'static str) -> Step<u32> {
        let digit = match self.rest {
            [digit @ b'0'..=b'9', b' ', ..] => digit - b'0',
            [digit @ b'a'..=b'f', b' ', ..] => digit - b'a' + 10,
            _ => return self.hex32(field),
        };
        self.skip(1);
        Ok(digit.into())
    }

    /// A number of `%lx` or `%llx`.
    #[inline(always)]
    pub(super) fn hex64(&mut self, field: &'static str) -> Step<u64> {
        let start = *self;
        let (high, n_digits) = hex_word(self.rest);
        self.skip(n_digits);
        let mut value = u64::from(high);
        if n_digits == 8 {
            let (low, n_digits) = hex_word(self.rest);
            self.skip(n_digits);
            value = value << (4 * n_digits) | u64::from(low);
            if n_digits == 8 && is_hex(self.rest) {
                return Err(start.wide(16, field));
            }
        }
        start.canonical_hex(n_digits, field)?;
        Ok(value)
    }

    /// The fault of a number that begins here and has more digits than its type holds.
    #[cold]
    fn wide(&self, n_digits: usize, field: &'static str) -> Fault {
        let digits = self.rest;
        let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
        let kind = if zeros > 0 {
            ErrorKind::BadHex
        } else {
            ErrorKind::Overflow
        };
        debug_assert!(digits.len() > n_digits, "there is a digit too many");
        Fault::new(kind, self.at(), field)
    }

    /// Refuses no digits at all, and a leading zero, of the number that begins here.
    #[inline(always)]
    fn canonical_hex(&self, n_digits: usize, field: &'static str) -> Step<()> {
        if n_digits == 0 || (n_digits > 1 && self.rest.first() == Some(&b'0')) {
            return Err(Fault::new(ErrorKind::BadHex, self.at(), field));
        }
        Ok(())
    }

    /// As many hex digits, a multiple of 8.
    #[inline(always)]
    pub(super) fn hex_digits(&mut self, length: usize, field: &'static str) -> Step<&'a [u8]> {
        let start = *self;
        for _ in 0..length / 8 {
            let n_digits = leading_digits(first_word(self.rest));
            self.skip(n_digits);
            if n_digits < 8 {
                return Err(self.short_handle(start.at(), field));
            }
        }
        if is_hex(self.rest) {
            return Err(Fault::new(ErrorKind::HandleLength, start.at(), field));
        }
        Ok(&start.rest[..length])
    }

    #[cold]
    fn short_handle(&self, start: usize, field: &'static str) -> Fault {
        match self.rest.first() {
            None | Some(b'\n' | b' ' | b'\t') => Fault::new(ErrorKind::HandleLength, start, field),
            Some(_) => Fault::new(ErrorKind::BadHex, self.at(), field),
        }
    }

    /// A number of `%llu`, up to `max`.
    pub(super) fn decimal(&mut self, max: u64, field: &'static str) -> Step<u64> {
        let start = self.at();
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit());
        let n_digits = digits.count();
        let digits = &self.rest[..n_digits];
        if n_digits == 0 || (n_digits > 1 && digits[0] == b'0') {
            return Err(Fault::new(ErrorKind::BadDecimal, start, field));
        }
        let value = digits.iter().try_fold(0u64, |value, digit| {
            value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        });
        let value = value.filter(|value| *value <= max);
        self.skip(n_digits);
        value.ok_or(Fault::new(ErrorKind::Overflow, start, field))
    }

    /// A number of `%lld`, between `-max - 1` and `max`.
    pub(super) fn signed(&mut self, max: i64, field: &'static str) -> Step<i64> {
        let start = self.at();
        if !self.take(b"-") {
            let value = self.decimal(max.unsigned_abs(), field)?;
            return Ok(i64::try_from(value).expect("at most max"));
        }
        let value = self.decimal(max.unsigned_abs() + 1, field);
        let value = value.map_err(|fault| Fault { at: start, ..fault })?;
        if value == 0 {
            return Err(Fault::new(ErrorKind::BadDecimal, start, field));
        }
        Ok(0i64.wrapping_sub_unsigned(value))
    }

    /// A number of `0%o` in at most 32 bits: zero is `00`.
    pub(super) fn octal(&mut self, field: &'static str) -> Step<u32> {
        let start = self.at();
        let fault = |kind| Fault::new(kind, start, field);
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit());
        let n_digits = digits.count();
        let digits = &self.rest[..n_digits];
        let [b'0', value @ ..] = digits else {
            return Err(fault(ErrorKind::BadOctal));
        };
        let padded = value.len() > 1 && value[0] == b'0';
        if value.is_empty() || padded || value.iter().any(|digit| *digit > b'7') {
            return Err(fault(ErrorKind::BadOctal));
        }
        let value = value.iter().try_fold(0u32, |value, digit| {
            value.checked_mul(8)?.checked_add(u32::from(digit - b'0'))
        });
        self.skip(n_digits);
        value.ok_or(fault(ErrorKind::Overflow))
    }
}

fn is_hex(rest: &[u8]) -> bool {
    matches!(rest.first(), Some(b'0'..=b'9' | b'a'..=b'f'))
}

/// The number that up to eight lower-case hex digits at the start of `rest` make, and how many.
#[inline(always)]
fn hex_word(rest: &[u8]) -> (u32, usize) {
    let word = first_word(rest);
    let n_digits = leading_digits(word);
    if n_digits == 0 {
        return (0, 0);
    }
    (value_of_digits(word << (8 * (8 - n_digits))), n_digits)
}

/// Decodes digits that [`Cursor::hex_digits`] has seen; gives the number of bytes.
#[inline(always)]
pub(super) fn decode_digits(digits: &[u8], bytes: &mut [u8]) -> usize {
    let (words, _) = digits.as_chunks::<8>();
    for (word, bytes) in words.iter().zip(bytes.chunks_exact_mut(4)) {
        let value = value_of_digits(u64::from_le_bytes(*word));
        bytes.copy_from_slice(&value.to_be_bytes());
    }
    digits.len() / 2
}

/// The first eight bytes.
#[inline(always)]
fn first_word(rest: &[u8]) -> u64 {
    match rest.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => near_the_end(rest),
    }
}

/// The last bytes of the text, with zeros after them, which are no digits.
#[cold]
fn near_the_end(rest: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(word)
}

/// How many bytes of the word, from its lowest, are lower-case hex digits.
#[inline(always)]
fn leading_digits(word: u64) -> usize {
    let at_least = at_least(word);
    let decimal = at_least(b'0') & !at_least(b'9' + 1);
    let letter = at_least(b'a') & !at_least(b'f' + 1);
    let others = !((decimal | letter) & !word) & HIGH;
    (others.trailing_zeros() / 8) as usize
}

/// The number that eight hex digits make, the first of them in the lowest byte; a zero byte counts
/// as the digit 0.
#[inline(always)]
fn value_of_digits(word: u64) -> u32 {
    // Bit 6 tells letters from decimal digits, and `a` has the low bits of 1.
    let letters = (word >> 6) & ONES;
    let nibbles = (word & (0x0f * ONES)) + 9 * letters;
    let bytes = (nibbles << 4 | nibbles >> 8) & 0x00ff_00ff_00ff_00ff;
    let words = (bytes << 8 | bytes >> 16) & 0x0000_ffff_0000_ffff;
    ((words << 16 | words >> 32) & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_once_agree_with_one_at_a_time() {
        let mut text = *b"0123abcf";
        for place in 0..8 {
            for byte in 0..=u8::MAX {
                let kept = std::mem::replace(&mut text[place], byte);
                let digits = text
                    .iter()
                    .take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                    .count();
                let value = std::str::from_utf8(&text[..digits]).expect("digits");
                let value = u32::from_str_radix(value, 16).unwrap_or(0);
                assert_eq!(hex_word(&text), (value, digits), "{}", text.escape_ascii());
                let mut long = text.to_vec();
                long.extend_from_slice(b"0 mask");
                assert_eq!(hex_word(&long), (value, digits), "{}", long.escape_ascii());
                text[place] = kept;
            }
        }
    }
}
