//! The bodies of the targets.

use fsnotify::event::check::{check_fanotify, check_inotify};
use fsnotify::fdinfo::check::{
    check_group_of, check_lines, check_pieces, check_quick, check_reading, check_text,
};
use fsnotify::fdinfo::{Kind, Level, Options};

use crate::{oracle, structured};

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every target but [`empty`], which finds nothing.
pub const ALL: [Target; 11] = [
    ("criu_images", criu_images),
    ("dump_journal", dump_journal),
    ("fanotify_events", fanotify_events),
    ("fdinfo", fdinfo),
    ("fdinfo_oracle", fdinfo_oracle),
    ("fdinfo_structured", fdinfo_structured),
    ("image", image),
    ("inotify_events", inotify_events),
    ("restore_journal", restore_journal),
    ("scenario", scenario),
    ("transcript", transcript),
];

/// Nothing: what the other targets' speed is compared with.
pub fn empty(_input: &[u8]) {}

/// Of the texts that are refused, one in so many is looked at more closely. Prime, so that lengths
/// that are its multiples choose all properties.
const REFUSED: usize = 31;
/// How many properties [`fdinfo`] chooses from.
const N_PROPERTIES: usize = 4;

/// Any text. A target is worth what it gets done in a second, so every text is read, and all that
/// are accepted but only some of the refused, which are most, are read again for one of four
/// properties. The length chooses, which keeps the input plain text, and a mutation changes it often
/// enough. [`fdinfo_whole`] checks all of them.
pub fn fdinfo(text: &[u8]) {
    if cfg!(not(fuzzing)) {
        // Whoever replays an input has the time for all of it.
        return fdinfo_whole(text);
    }
    if !check_reading(text) && !text.len().is_multiple_of(REFUSED) {
        return;
    }
    match text.len() % N_PROPERTIES {
        0 => check_lines(text),
        1 => check_quick(text),
        2 => check_group_of(text, level(text)),
        _ => check_pieces(text, piece(text), options(text)),
    }
}

/// All that [`fdinfo`] checks of one text or another, and pieces with locks split whatever the length.
pub fn fdinfo_whole(text: &[u8]) {
    let _ = check_reading(text);
    check_text(text);
    check_pieces(text, piece(text), options(text));
    let glued = Options {
        glued_locks: true,
        ..Options::new(Level::Lenient)
    };
    check_pieces(text, piece(text), glued);
}

fn choice(text: &[u8]) -> usize {
    text.len() / N_PROPERTIES
}

fn piece(text: &[u8]) -> usize {
    1 + choice(text) % 61
}

fn level(text: &[u8]) -> Level {
    if choice(text).is_multiple_of(2) {
        Level::Strict
    } else {
        Level::Lenient
    }
}

fn options(text: &[u8]) -> Options {
    let choice = choice(text);
    let default = Options::new(level(text));
    Options {
        kind: match choice % 5 {
            0 => Some(Kind::Inotify),
            1 => Some(Kind::Fanotify),
            _ => None,
        },
        glued_locks: choice.is_multiple_of(7),
        max_text: if choice.is_multiple_of(11) {
            200
        } else {
            default.max_text
        },
        max_marks: if choice.is_multiple_of(13) {
            2
        } else {
            default.max_marks
        },
        ..default
    }
}

/// The strict level against an independent reading; and the quick reading against the other.
pub fn fdinfo_oracle(text: &[u8]) {
    check_quick(text);
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

/// Any file of CRIU's images.
pub fn criu_images(bytes: &[u8]) {
    notifreeze::criu_images::check_file(bytes);
}

/// Any journal of a dump.
pub fn dump_journal(bytes: &[u8]) {
    cr::dump::check_journal(bytes);
}

/// Any journal of a restore.
pub fn restore_journal(bytes: &[u8]) {
    cr::restore::check_restore_journal(bytes);
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
