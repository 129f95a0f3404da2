//! The bodies of the targets.

use fsnotify::event::check::{check_fanotify, check_inotify};
use fsnotify::fdinfo::check::{check_pieces, check_text};
use fsnotify::fdinfo::{Kind, Level, Options};

use crate::{oracle, structured};

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every target but [`empty`], which finds nothing.
pub const ALL: [Target; 8] = [
    ("fanotify_events", fanotify_events),
    ("fdinfo", fdinfo),
    ("fdinfo_oracle", fdinfo_oracle),
    ("fdinfo_structured", fdinfo_structured),
    ("image", image),
    ("inotify_events", inotify_events),
    ("scenario", scenario),
    ("transcript", transcript),
];

/// Nothing: what the other targets' speed is compared with.
pub fn empty(_input: &[u8]) {}

/// Any text: read, printed, read again, at both levels; then in pieces, with options that the
/// length of the text chooses, so that the input stays plain text.
pub fn fdinfo(text: &[u8]) {
    check_text(text);
    let choice = text.len();
    let level = if choice.is_multiple_of(2) {
        Level::Strict
    } else {
        Level::Lenient
    };
    let kind = match choice % 5 {
        0 => Some(Kind::Inotify),
        1 => Some(Kind::Fanotify),
        _ => None,
    };
    let default = Options::new(level);
    let options = Options {
        level,
        kind,
        glued_locks: choice.is_multiple_of(3),
        max_text: if choice.is_multiple_of(7) {
            200
        } else {
            default.max_text
        },
        max_marks: if choice.is_multiple_of(11) {
            2
        } else {
            default.max_marks
        },
    };
    check_pieces(text, 1 + choice % 61, options);
}

/// The strict level against an independent reading.
pub fn fdinfo_oracle(text: &[u8]) {
    oracle::check_against_oracle(text);
}

/// A group that a kernel could have prints and reads back; one change of its text is noticed.
pub fn fdinfo_structured(input: &[u8]) {
    structured::check_structured(input);
}

/// Any buffer of inotify events.
pub fn inotify_events(buffer: &[u8]) {
    check_inotify(buffer);
}

/// Any buffer of fanotify events.
pub fn fanotify_events(buffer: &[u8]) {
    check_fanotify(buffer);
}

/// Any image.
pub fn image(bytes: &[u8]) {
    cr::image::check_image(bytes);
}

/// Any scenario.
pub fn scenario(text: &[u8]) {
    ::scenario::check_parse(text);
}

/// Any log: what is read encodes to the same bytes.
pub fn transcript(log: &[u8]) {
    let Ok(records) = ::scenario::log::decode(log) else {
        return;
    };
    let mut encoded = Vec::new();
    for record in &records {
        ::scenario::log::encode(record, &mut encoded);
    }
    assert!(encoded == log, "encode(decode(x)) is not x");
}
