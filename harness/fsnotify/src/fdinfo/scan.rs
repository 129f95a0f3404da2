//! Looking for a byte, eight at a time.

/// One in every byte.
pub(super) const ONES: u64 = 0x0101_0101_0101_0101;
/// The high bit of every byte.
pub(super) const HIGH: u64 = 0x80 * ONES;

/// Where the first line feed is.
#[inline(never)]
pub(super) fn line_feed(bytes: &[u8]) -> Option<usize> {
    position(bytes, |word| {
        // Borrows can mark bytes above the first line feed, never below.
        let difference = word ^ (u64::from(b'\n') * ONES);
        difference.wrapping_sub(ONES) & !difference
    })
}

/// Where the first byte is that no line has: kernels print ASCII, and of control characters the tab
/// only.
#[inline(never)]
pub(super) fn bad_byte(bytes: &[u8]) -> Option<usize> {
    position(bytes, |word| {
        let at_least = at_least(word);
        let tab = at_least(b'\t') & !at_least(b'\t' + 1);
        word | at_least(b'~' + 1) | !(at_least(b' ') | tab)
    })
}

/// The high bit of a byte of the result is set if the seven low bits of that byte of the word are
/// `byte` or more.
#[inline(always)]
pub(super) fn at_least(word: u64) -> impl Fn(u8) -> u64 {
    let low = word & !HIGH;
    move |byte| low + (0x80 - u64::from(byte)) * ONES
}

/// The place of the first byte whose high bit `find` sets; a space is never found.
#[inline(always)]
fn position(bytes: &[u8], find: impl Fn(u64) -> u64) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    let found = |word: [u8; 8]| {
        let found = find(u64::from_le_bytes(word)) & HIGH;
        (found != 0).then(|| (found.trailing_zeros() / 8) as usize)
    };
    for (index, word) in words.iter().enumerate() {
        if let Some(at) = found(*word) {
            return Some(8 * index + at);
        }
    }
    // Behind the end stand spaces, which nobody looks for.
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    found(last).map(|at| 8 * words.len() + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_once_agree_with_one_at_a_time() {
        let is_bad = |byte: u8| (byte < b' ' && byte != b'\t') || byte > b'~';
        for length in 0..=17 {
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = *b"mask:1 ino:80\tabc";
                    text[place] = byte;
                    text[length - 1] = if place + 1 == length { byte } else { 0x0b };
                    let text = &text[..length];
                    let shown = text.escape_ascii();
                    let expected = text.iter().position(|byte| is_bad(*byte));
                    assert_eq!(bad_byte(text), expected, "{shown}");
                    let expected = text.iter().position(|byte| *byte == b'\n');
                    assert_eq!(line_feed(text), expected, "{shown}");
                }
            }
        }
    }
}
