//! Masks in words.

use fsnotify::fanotify::Mask as FanotifyMask;
use fsnotify::inotify::Mask;

/// What each bit asks for that inotify and fanotify share: the kernel's `FS_*` (fsnotify.h).
const SHARED: [(u64, &str); 12] = [
    (0x1, "reads"),
    (0x2, "writes"),
    (0x4, "changes of attributes"),
    (0x8, "closes after writing"),
    (0x10, "closes without writing"),
    (0x20, "opens"),
    (0x40, "names moved away"),
    (0x80, "names moved in"),
    (0x100, "new names"),
    (0x200, "removed names"),
    (0x400, "its own removal"),
    (0x800, "its own move"),
];

/// What each further bit of a fanotify mask asks for.
const FANOTIFY: [(u64, &str); 9] = [
    (0x1000, "opens to execute"),
    (0x8000, "errors of the filesystem"),
    (0x1_0000, "leave to open"),
    (0x2_0000, "leave to read"),
    (0x4_0000, "leave to open to execute"),
    (0x10_0000, "leave to use content"),
    (0x100_0000, "new mounts"),
    (0x200_0000, "removed mounts"),
    (0x1000_0000, "renames"),
];

/// A watch's mask in words: `reads and writes, once`.
#[must_use]
pub fn of_inotify(mask: Mask) -> String {
    let events = mask.0 & Mask::ALL_EVENTS.0;
    let mut text = if events == Mask::ALL_EVENTS.0 {
        "everything".to_owned()
    } else {
        let bits = SHARED
            .iter()
            .filter(|(bit, _)| u64::from(events) & bit != 0);
        list(bits.map(|(_, word)| *word))
    };
    if mask.contains(Mask::EXCL_UNLINK) {
        text.push_str(", not of children without a name");
    }
    if mask.contains(Mask::ONESHOT) {
        text.push_str(", once");
    }
    text
}

/// A mark's mask in words.
#[must_use]
pub fn of_fanotify(mask: FanotifyMask) -> String {
    let bits = SHARED.iter().chain(&FANOTIFY);
    let bits = bits.filter(|(bit, _)| mask.0 & bit != 0);
    let mut text = list(bits.map(|(_, word)| *word));
    if mask.0 & 0x4000_0000 != 0 {
        text.push_str(", of directories too");
    }
    if mask.0 & 0x0800_0000 != 0 {
        text.push_str(", of children too");
    }
    text
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_reads_as_a_list() {
        let cases = [
            (0xfff, "everything"),
            (0x3, "reads and writes"),
            (
                0x8000_0382,
                "writes, names moved in, new names and removed names, once",
            ),
            (0x0400_0002, "writes, not of children without a name"),
            (0, "nothing"),
        ];
        for (mask, words) in cases {
            assert_eq!(of_inotify(Mask(mask)), words);
        }
    }

    #[test]
    fn every_bit_that_has_a_name_has_words() {
        for bit in 0..64 {
            let mask = FanotifyMask(1 << bit);
            let is_flag = [0x4000_0000, 0x0800_0000, 0x4000].contains(&mask.0);
            if mask.unknown().0 == 0 && !is_flag {
                assert_ne!(of_fanotify(mask), "nothing", "{mask}");
            }
        }
    }
}
