//! A position in a line, and the numbers that can stand there.
//!
//! A cursor may see bytes beyond its line: no key and no number contains a line feed, so nothing is
//! read across the end of a line.

use super::error::{ErrorKind, Fault};
use super::scan::ONES;

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

    fn skip(&mut self, n_bytes: usize) {
        self.rest = self.rest.get(n_bytes..).unwrap_or_default();
    }

    /// Steps over `text` if it stands here.
    pub(super) fn take(&mut self, text: &[u8]) -> bool {
        let behind = self.rest.strip_prefix(text);
        if let Some(behind) = behind {
            self.rest = behind;
        }
        behind.is_some()
    }

    /// Steps over the key of `field`, a field like all others: a space before, a colon after.
    pub(super) fn key(&mut self, text: &[u8], field: &'static str) -> Step<()> {
        if self.take(text) {
            Ok(())
        } else {
            Err(Fault::new(ErrorKind::FieldMissing, self.at(), field))
        }
    }

    /// A number of `%x` in at most 32 bits.
    pub(super) fn hex32(&mut self, field: &'static str) -> Step<u32> {
        let value = self.hex(8, field)?;
        Ok(u32::try_from(value).expect("at most 8 digits"))
    }

    /// A number of `%lx` or `%llx`.
    pub(super) fn hex64(&mut self, field: &'static str) -> Step<u64> {
        self.hex(16, field)
    }

    #[inline(never)]
    fn hex(&mut self, most_digits: usize, field: &'static str) -> Step<u64> {
        let fault = |kind| Fault::new(kind, self.at(), field);
        // One more than fit is enough to see that they do not.
        let digits = self.rest.iter().take(most_digits + 1);
        let n_digits = digits.take_while(|byte| is_hex(byte)).count();
        let digits = &self.rest[..n_digits];
        if n_digits == 0 || (n_digits > 1 && digits[0] == b'0') {
            return Err(fault(ErrorKind::BadHex));
        }
        if n_digits > most_digits {
            return Err(fault(ErrorKind::Overflow));
        }
        let digits = digits.iter().map(|digit| u64::from(value_of(*digit)));
        let value = digits.fold(0, |value, digit| value << 4 | digit);
        self.skip(n_digits);
        Ok(value)
    }

    /// As many hex digits, and no more.
    pub(super) fn hex_digits(&mut self, length: usize, field: &'static str) -> Step<&'a [u8]> {
        let digits = self.rest.iter().take(length + 1);
        let n_digits = digits.take_while(|byte| is_hex(byte)).count();
        if n_digits == length {
            let digits = &self.rest[..length];
            self.skip(length);
            return Ok(digits);
        }
        match self.rest.get(n_digits) {
            Some(byte) if n_digits < length && !matches!(byte, b'\n' | b' ' | b'\t') => {
                Err(Fault::new(ErrorKind::BadHex, self.at() + n_digits, field))
            }
            Some(_) | None => Err(Fault::new(ErrorKind::HandleLength, self.at(), field)),
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

pub(super) const fn is_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

const fn value_of(digit: u8) -> u8 {
    if digit <= b'9' {
        digit - b'0'
    } else {
        digit - b'a' + 10
    }
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
    fn eight_digits_at_once_agree_with_one_at_a_time() {
        for place in 0..8 {
            for digit in *b"0123456789abcdef" {
                let mut digits = *b"09af1b3e";
                digits[place] = digit;
                let mut bytes = [0; 4];
                assert_eq!(decode_digits(&digits, &mut bytes), 4);
                let text = std::str::from_utf8(&digits).expect("digits");
                let expected = u32::from_str_radix(text, 16).expect("digits");
                assert_eq!(u32::from_be_bytes(bytes), expected, "{text}");
            }
        }
    }
}
