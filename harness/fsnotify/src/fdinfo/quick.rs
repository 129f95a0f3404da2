//! The lines that nearly every text consists of, read quickly: a watch, or a mark on an inode, with
//! a file handle.
//!
//! A second reading of what [`super::mark`] reads, for speed alone. It knows no error and no level:
//! what it does not take goes to the other, which says what it is. The two take the same lines with
//! handles and read them alike ([`super::check::check_quick`]).
//!
//! Each step takes bytes and gives the rest. What makes it quick: literals and windows of known
//! length, so that their bounds are compared once; digits by a table, whose number is easy to
//! predict, for lines resemble the one before; nothing copied; all of it within the caller. A fuzzer
//! gets one copy of each function instead: it visits every edge, and takes each length of each number
//! for news.

use crate::fanotify::{MarkFlags, Mask as FanotifyMask};
use crate::inotify::Mask as InotifyMask;
use crate::{Ino, Sdev, Wd};

use super::cursor::is_hex;
use super::mark::{RawHandle, RawMark, RawTarget, RawWatch, is_handle_size, is_handle_type};

/// The watch that stands here, and what follows its line.
#[cfg_attr(not(fuzzing), inline(always))]
#[cfg_attr(fuzzing, inline(never))]
pub(super) fn watch(text: &[u8]) -> Option<(RawWatch<'_>, &[u8])> {
    let rest = literal(text, b"inotify wd:")?;
    let (wd, rest) = number::<8>(rest)?;
    let rest = literal(rest, b" ino:")?;
    let (ino, rest) = number::<16>(rest)?;
    let rest = literal(rest, b" sdev:")?;
    let (sdev, rest) = number::<8>(rest)?;
    let rest = literal(rest, b" mask:")?;
    let (mask, rest) = number::<8>(rest)?;
    let rest = literal(rest, b" ignored_mask:0 fhandle-bytes:")?;
    let (handle, rest) = handle(rest)?;
    let watch = RawWatch {
        wd: i32::try_from(wd).ok().and_then(Wd::new)?,
        ino: Ino(ino),
        sdev: Sdev(narrow(sdev)),
        mask: InotifyMask(narrow(mask)),
        ignored_mask: InotifyMask(0),
        handle: Some(handle),
    };
    Some((watch, rest))
}

/// The mark on an inode that stands here, and what follows its line.
#[cfg_attr(not(fuzzing), inline(always))]
#[cfg_attr(fuzzing, inline(never))]
pub(super) fn mark(text: &[u8]) -> Option<(RawMark<'_>, &[u8])> {
    let rest = literal(text, b"fanotify ino:")?;
    let (ino, rest) = number::<16>(rest)?;
    let rest = literal(rest, b" sdev:")?;
    let (sdev, rest) = number::<8>(rest)?;
    let rest = literal(rest, b" mflags:")?;
    let (flags, rest) = number::<8>(rest)?;
    let rest = literal(rest, b" mask:")?;
    let (mask, rest) = number::<8>(rest)?;
    let rest = literal(rest, b" ignored_mask:")?;
    let (ignored_mask, rest) = number::<8>(rest)?;
    let rest = literal(rest, b" fhandle-bytes:")?;
    let (handle, rest) = handle(rest)?;
    let mark = RawMark {
        target: RawTarget::Inode {
            ino: Ino(ino),
            sdev: Sdev(narrow(sdev)),
            handle: Some(handle),
        },
        flags: MarkFlags(narrow(flags)),
        mask: FanotifyMask(mask),
        ignored_mask: FanotifyMask(ignored_mask),
    };
    Some((mark, rest))
}

/// The size of a handle, its type, its digits, and the end of the line.
#[inline(always)]
fn handle(rest: &[u8]) -> Option<(RawHandle<'_>, &[u8])> {
    let (n_bytes, rest) = number::<8>(rest)?;
    let rest = literal(rest, b" fhandle-type:")?;
    let (kind, rest) = number::<8>(rest)?;
    let rest = literal(rest, b" f_handle:")?;
    let (n_bytes, kind) = (narrow(n_bytes), narrow(kind));
    if !is_handle_size(n_bytes) || !is_handle_type(kind) {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(2 * n_bytes as usize)?;
    let mut all_hex = true;
    for eight in digits.as_chunks::<8>().0 {
        // All of them whatever the first is: so the compiler compares eight bytes at once.
        all_hex &= eight.iter().fold(true, |all, byte| all & is_hex(byte));
    }
    let rest = rest.strip_prefix(b"\n")?;
    all_hex.then_some((RawHandle { kind, digits }, rest))
}

#[inline(always)]
fn literal<'a, const N: usize>(rest: &'a [u8], text: &[u8; N]) -> Option<&'a [u8]> {
    let (here, rest) = rest.split_first_chunk()?;
    (here == text).then_some(rest)
}

/// A number of `%x` of at most `N` digits. More text than that stands behind every number of these
/// lines. Digits that are left, of a number too long or with a leading zero, are no literal.
#[cfg_attr(not(fuzzing), inline(always))]
#[cfg_attr(fuzzing, inline(never))]
fn number<const N: usize>(rest: &[u8]) -> Option<(u64, &[u8])> {
    let window: &[u8; N] = rest.first_chunk()?;
    let mut value = digit(window[0])?;
    let mut n_digits = 1;
    if value != 0 {
        while n_digits < N
            && let Some(digit) = digit(window[n_digits])
        {
            value = value << 4 | digit;
            n_digits += 1;
        }
    }
    Some((value, &rest[n_digits..]))
}

/// A number of at most eight digits.
#[expect(clippy::cast_possible_truncation, reason = "a digit has four bits")]
const fn narrow(number: u64) -> u32 {
    number as u32
}

#[inline(always)]
fn digit(byte: u8) -> Option<u64> {
    let digit = DIGITS[usize::from(byte)];
    (digit < 16).then_some(digit.into())
}

/// The value of each byte that is a lower-case hex digit.
static DIGITS: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let mut digit = 0;
    while digit < 16 {
        digits[b"0123456789abcdef"[digit as usize] as usize] = digit;
        digit += 1;
    }
    digits
};
