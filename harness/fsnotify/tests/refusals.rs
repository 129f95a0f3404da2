//! What is refused, with which error and where: one row an input, rows of one rule together.

use fsnotify::fdinfo::ErrorKind::{
    BadByte, BadDecimal, BadHex, BadLock, BadOctal, BadSeparator, FieldDuplicate, FieldMissing,
    FieldOrder, GroupDuplicate, GroupMissing, HandleLength, HandlePartial, HandleSize, HandleType,
    HandleUnexpected, HeadDuplicate, HeadMissing, HeadOrder, IgnoredMask, KindMismatch,
    MarkDuplicate, MixedKinds, MntIdRange, Overflow, TooLarge, TooLong, TooMany, TrailingGarbage,
    Truncated, UnknownField, UnknownHead, UnknownLine, UnknownMarkKind, WdDuplicate, WdRange,
};
use fsnotify::fdinfo::{ErrorKind, Group, Kind, Level, Options, ParseError, Stream};

/// What the lenient level does with the row.
enum Lenient {
    /// The same.
    Same,
    /// It accepts the text.
    Accepts,
}

use Lenient::{Accepts, Same};

/// A text, the strict level's error, its line and column, and what the lenient level does.
///
/// The first character of a text stands for what comes before: `+` for `HEAD`, `@` for that and
/// `WATCH`, `*` for `HEAD` and `GROUP`.
type Row = (&'static str, ErrorKind, usize, usize, Lenient);

const HEAD: &str = "pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1039\n";
const WATCH: &str = "inotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:0";
const GROUP: &str = "fanotify flags:0 event-flags:0\n";

const CHARACTERS: &[Row] = &[
    ("+inotify wd:1 ino:\u{e9}\n", BadByte, 5, 18, Same),
    ("+inotify wd:1\0ino:5\n", BadByte, 5, 13, Same),
    ("+inotify wd:1 ino:5\r\n", BadByte, 5, 19, Same),
    ("+inotify wd:1 \u{b}ino:5\n", BadByte, 5, 14, Same),
    ("+hello \u{7f}\n", BadByte, 5, 7, Same),
    ("@ ", Truncated, 5, 49, Same),
    ("+inotify wd:1 ino:5 sd", Truncated, 5, 22, Same),
    ("pos:\t0\nflags:\t02", Truncated, 2, 10, Same),
    ("+\n", BadSeparator, 5, 1, Same),
    ("\npos:\t0\n", BadSeparator, 1, 1, Same),
    ("+ inotify wd:1\n", BadSeparator, 5, 1, Same),
    ("+\tinotify wd:1\n", BadSeparator, 5, 1, Same),
    ("+inotify\twd:1 ino:5\n", BadSeparator, 5, 8, Same),
    ("+inotify  wd:1 ino:5\n", BadSeparator, 5, 8, Same),
    ("+inotify wd:1\tino:5\n", BadSeparator, 5, 13, Same),
    ("+inotify wd:1  ino:5\n", BadSeparator, 5, 14, Same),
    ("+inotify wd:1 \tino:5\n", BadSeparator, 5, 14, Same),
    ("+inotify wd:1ino:5 sdev:6\n", BadSeparator, 5, 13, Same),
    ("+inotify wd:1 ino sdev:6\n", BadSeparator, 5, 14, Same),
    ("+inotify wd:1 \n", BadSeparator, 5, 14, Same),
];

const HEADS: &[Row] = &[
    ("", HeadMissing, 1, 1, Same),
    ("pos:\t0\n", HeadMissing, 2, 1, Same),
    ("flags:\t02\n", HeadMissing, 1, 1, Same),
    (
        "pos:\t0\nmnt_id:\t17\nflags:\t02\n",
        HeadMissing,
        2,
        1,
        Same,
    ),
    ("pos:\t0\ninotify wd:1\n", HeadMissing, 2, 1, Same),
    ("hello\n", HeadMissing, 1, 1, Same),
    (
        "pos:\t0\nflags:\t02\nino:\t1\nmnt_id:\t17\n",
        HeadOrder,
        4,
        1,
        Same,
    ),
    (
        "pos:\t0\nflags:\t02\ninotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:0 \nino:\t1\n",
        HeadOrder,
        4,
        1,
        Same,
    ),
    (
        "pos:\t0\nflags:\t02\nlock:\t1: FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 EOF\nino:\t1\n",
        HeadOrder,
        4,
        1,
        Same,
    ),
    (
        "@ \nlock:\t1: FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 EOF\n",
        HeadOrder,
        6,
        1,
        Same,
    ),
    ("+pos:\t0\n", HeadDuplicate, 5, 1, Same),
    ("@ \nflags:\t02\n", HeadDuplicate, 6, 1, Same),
    ("pos:\t0\nflags:\t2\n", BadOctal, 2, 8, Same),
    ("pos:\t0\nflags:\t0\n", BadOctal, 2, 8, Same),
    ("pos:\t0\nflags:\t002\n", BadOctal, 2, 8, Same),
    ("pos:\t0\nflags:\t08\n", BadOctal, 2, 8, Same),
    ("pos:\t0\nflags:\t0x8\n", BadOctal, 2, 8, Same),
    ("pos:\t0\nflags:\t04a\n", BadOctal, 2, 10, Same),
    ("pos:\t0\nflags:\t\n", BadOctal, 2, 8, Same),
    ("pos:\t0\nflags:\t040000000000\n", Overflow, 2, 8, Same),
    ("pos:\t\n", BadDecimal, 1, 6, Same),
    ("pos:\t+1\n", BadDecimal, 1, 6, Same),
    ("pos:\t 1\n", BadDecimal, 1, 6, Same),
    ("pos:\t0x1\n", BadDecimal, 1, 7, Same),
    ("pos:\t01\n", BadDecimal, 1, 6, Same),
    ("pos:\t-0\n", BadDecimal, 1, 6, Same),
    ("pos:\t-\n", BadDecimal, 1, 6, Same),
    ("pos:\t9223372036854775808\n", Overflow, 1, 6, Same),
    ("pos:\t-9223372036854775809\n", Overflow, 1, 6, Same),
    ("pos:0\n", BadSeparator, 1, 5, Same),
    ("pos:\t0 \n", TrailingGarbage, 1, 7, Same),
    (
        "pos:\t0\nflags:\t02\nmnt_id:\t2147483648\n",
        Overflow,
        3,
        9,
        Same,
    ),
    (
        "pos:\t0\nflags:\t02\nino:\t18446744073709551616\n",
        Overflow,
        3,
        6,
        Same,
    ),
    ("pos:\t0\nflags:\t02\nino:\t-1\n", BadDecimal, 3, 6, Same),
    ("+size:\t0\n", UnknownHead, 5, 1, Accepts),
    ("+path:\t/a b\n", UnknownHead, 5, 1, Accepts),
    (
        "size:\t0\npos:\t0\nflags:\t00\n",
        UnknownHead,
        1,
        1,
        Accepts,
    ),
    ("@ \nsize:\t0\n", UnknownHead, 6, 1, Same),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 EOF\nsize:\t0\n",
        UnknownHead,
        6,
        1,
        Accepts,
    ),
];

const NUMBERS: &[Row] = &[
    ("+inotify wd: ino:5\n", BadHex, 5, 12, Same),
    ("+inotify wd:0x1 ino:5\n", BadHex, 5, 13, Same),
    ("+inotify wd:A ino:5\n", BadHex, 5, 12, Same),
    ("+inotify wd:1A ino:5\n", BadHex, 5, 13, Same),
    ("+inotify wd:-1 ino:5\n", BadHex, 5, 12, Same),
    ("+inotify wd:+1 ino:5\n", BadHex, 5, 12, Same),
    ("+inotify wd:1_0 ino:5\n", BadHex, 5, 13, Same),
    ("+inotify wd:g ino:5\n", BadHex, 5, 12, Same),
    ("+inotify wd:01 ino:5\n", BadHex, 5, 12, Same),
    ("+inotify wd:000000001 ino:5\n", BadHex, 5, 12, Same),
    ("+inotify wd:100000000 ino:5\n", Overflow, 5, 12, Same),
    ("+inotify wd:1 ino:00 sdev:6\n", BadHex, 5, 18, Same),
    (
        "+inotify wd:1 ino:10000000000000000 sdev:6\n",
        Overflow,
        5,
        18,
        Same,
    ),
    (
        "+inotify wd:1 ino:00000000000000001 sdev:6\n",
        BadHex,
        5,
        18,
        Same,
    ),
    (
        "+inotify wd:1 ino:5 sdev:100000000 mask:1\n",
        Overflow,
        5,
        25,
        Same,
    ),
    (
        "+inotify wd:0 ino:5 sdev:6 mask:1 ignored_mask:0 \n",
        WdRange,
        5,
        12,
        Same,
    ),
    (
        "+inotify wd:80000000 ino:5 sdev:6 mask:1 ignored_mask:0 \n",
        WdRange,
        5,
        12,
        Same,
    ),
    ("@x \n", BadHex, 5, 48, Same),
    (
        "+inotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:2 \n",
        IgnoredMask,
        5,
        47,
        Accepts,
    ),
];

const FIELDS: &[Row] = &[
    ("+inotify \n", FieldMissing, 5, 8, Same),
    ("+inotify\n", FieldMissing, 5, 8, Same),
    ("+inotify wd:1\n", FieldMissing, 5, 13, Same),
    (
        "+inotify wd:1 sdev:6 mask:1 ignored_mask:0 \n",
        FieldMissing,
        5,
        14,
        Same,
    ),
    ("+inotify wd:1 fhandle-bytes:8\n", FieldMissing, 5, 14, Same),
    (
        "+inotify wd:1 sdev:6 ino:5 mask:1 ignored_mask:0 \n",
        FieldOrder,
        5,
        14,
        Same,
    ),
    (
        "+inotify wd:1 ino:5 ino:5 sdev:6\n",
        FieldDuplicate,
        5,
        20,
        Same,
    ),
    ("@ mask:1\n", FieldDuplicate, 5, 49, Same),
    ("+inotify wd:1 inode:5 sdev:6\n", UnknownField, 5, 14, Same),
    ("+inotify wd:1 five sdev:6\n", UnknownField, 5, 14, Same),
    ("@ path:x\n", UnknownField, 5, 49, Same),
    ("@ junk\n", TrailingGarbage, 5, 49, Same),
    ("@\tjunk\n", BadSeparator, 5, 48, Same),
    ("@\n", BadSeparator, 5, 48, Accepts),
    ("@  \n", BadSeparator, 5, 48, Same),
    (
        "@ fhandle-bytes:8 fhandle-type:1 f_handle:c1090000d72b6ffa \n",
        BadSeparator,
        5,
        105,
        Accepts,
    ),
    (
        "@ fhandle-bytes:8 fhandle-type:1 f_handle:c1090000d72b6ffa junk\n",
        TrailingGarbage,
        5,
        106,
        Same,
    ),
    (
        "@ fhandle-bytes:8 fhandle-type:1 f_handle:c1090000d72b6ffa f_handle:00\n",
        FieldDuplicate,
        5,
        106,
        Same,
    ),
    ("+fanotify flags:0\n", FieldMissing, 5, 17, Same),
    (
        "+fanotify flags:0 event-flags:0 \n",
        BadSeparator,
        5,
        31,
        Accepts,
    ),
    (
        "+fanotify flags:0 event-flags:0 more:1\n",
        UnknownField,
        5,
        32,
        Same,
    ),
    (
        "*fanotify sdev:6 mflags:0 mask:1 ignored_mask:0 \n",
        BadSeparator,
        6,
        47,
        Accepts,
    ),
    (
        "*fanotify sdev:6 mask:1 mflags:0 ignored_mask:0\n",
        FieldOrder,
        6,
        17,
        Same,
    ),
    (
        "*fanotify sdev:6 mflags:0 mask:100000000 ignored_mask:0\n",
        Overflow,
        6,
        31,
        Accepts,
    ),
    (
        "*fanotify sdev:6 mflags:0 mask:10000000000000000 ignored_mask:0\n",
        Overflow,
        6,
        31,
        Same,
    ),
];

const KINDS: &[Row] = &[
    (
        "*fanotify user_ns_id:7 mflags:0 mask:1 ignored_mask:0\n",
        UnknownMarkKind,
        6,
        1,
        Accepts,
    ),
    (
        "*fanotify mnt_ns_id:7 mflags:0 mask:1 ignored_mask:0\n",
        UnknownMarkKind,
        6,
        1,
        Accepts,
    ),
    ("+inotify xd:1 ino:5\n", UnknownMarkKind, 5, 1, Accepts),
    ("+fanotify user_ns_id:7\n", GroupMissing, 5, 1, Same),
    ("+dnotify fd:1\n", UnknownLine, 5, 1, Accepts),
    ("+inotifywd:1\n", UnknownLine, 5, 1, Accepts),
    (
        "+eventfd-count:                0\n",
        UnknownLine,
        5,
        1,
        Accepts,
    ),
    (
        "+fanotify sdev:6 mflags:0 mask:1 ignored_mask:0\n",
        GroupMissing,
        5,
        1,
        Same,
    ),
    (
        "*fanotify flags:0 event-flags:0\n",
        GroupDuplicate,
        6,
        1,
        Same,
    ),
    (
        "*inotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:0 \n",
        MixedKinds,
        6,
        1,
        Same,
    ),
    (
        "@ \nfanotify flags:0 event-flags:0\n",
        MixedKinds,
        6,
        1,
        Same,
    ),
    (
        "@ \ninotify wd:1 ino:6 sdev:6 mask:1 ignored_mask:0 \n",
        WdDuplicate,
        6,
        12,
        Same,
    ),
    (
        "*fanotify sdev:6 mflags:0 mask:1 ignored_mask:0\n\
         fanotify sdev:6 mflags:0 mask:2 ignored_mask:0\n",
        MarkDuplicate,
        7,
        1,
        Same,
    ),
    (
        "*fanotify mnt_id:6 mflags:0 mask:1 ignored_mask:0\n\
         fanotify mnt_id:6 mflags:0 mask:2 ignored_mask:0\n",
        MarkDuplicate,
        7,
        1,
        Same,
    ),
    (
        "*fanotify mnt_ns:6 mflags:0 mask:1 ignored_mask:0\n\
         fanotify mnt_ns:6 mflags:0 mask:2 ignored_mask:0\n",
        MarkDuplicate,
        7,
        1,
        Same,
    ),
    (
        "*fanotify ino:5 sdev:6 mflags:0 mask:1 ignored_mask:0 fhandle-bytes:4 \
         fhandle-type:1 f_handle:c1090000\n\
         fanotify ino:5 sdev:6 mflags:0 mask:2 ignored_mask:0 fhandle-bytes:4 \
         fhandle-type:1 f_handle:c1090000\n",
        MarkDuplicate,
        7,
        1,
        Same,
    ),
];

const HANDLES: &[Row] = &[
    (
        "@ fhandle-bytes:0x8 fhandle-type:1 f_handle:c1090000d72b6ffa\n",
        BadHex,
        5,
        64,
        Same,
    ),
    (
        "@ fhandle-bytes:8 fhandle-type:0x1 f_handle:c1090000d72b6ffa\n",
        BadHex,
        5,
        79,
        Same,
    ),
    (
        "@ fhandle-bytes:8 \tfhandle-type:1 f_handle:c1090000d72b6ffa\n",
        BadSeparator,
        5,
        65,
        Same,
    ),
    (
        "*fanotify mnt_ns:a mflags:0 mask:1 ignored_mask:0\n",
        BadDecimal,
        6,
        17,
        Same,
    ),
    (
        "*fanotify mnt_ns:1a mflags:0 mask:1 ignored_mask:0\n",
        BadDecimal,
        6,
        18,
        Same,
    ),
    (
        "*fanotify mnt_ns:4294967296 mflags:0 mask:1 ignored_mask:0\n",
        Overflow,
        6,
        17,
        Same,
    ),
    (
        "*fanotify mnt_id:0 mflags:0 mask:1 ignored_mask:0\n",
        MntIdRange,
        6,
        17,
        Same,
    ),
    (
        "*fanotify mnt_id:80000000 mflags:0 mask:1 ignored_mask:0\n",
        MntIdRange,
        6,
        17,
        Same,
    ),
    (
        "*fanotify sdev:6 mflags:0 mask:1 ignored_mask:0 fhandle-bytes:4 \
         fhandle-type:1 f_handle:c1090000\n",
        HandleUnexpected,
        6,
        48,
        Same,
    ),
    ("@ fhandle-bytes:8\n", HandlePartial, 5, 64, Same),
    ("@ fhandle-type:1\n", HandlePartial, 5, 49, Same),
    (
        "@ fhandle-bytes:8 f_handle:c1090000d72b6ffa\n",
        HandlePartial,
        5,
        65,
        Same,
    ),
    (
        "@ fhandle-bytes:8 f_handle:c1090000d72b6ffa fhandle-type:1\n",
        FieldOrder,
        5,
        65,
        Same,
    ),
    (
        "@ fhandle-bytes:8 fhandle-type:1\n",
        HandlePartial,
        5,
        79,
        Same,
    ),
    (
        "@ fhandle-bytes:8 fhandle-bytes:8\n",
        FieldDuplicate,
        5,
        65,
        Same,
    ),
    ("@ fhandle-bytes:8 path:1\n", UnknownField, 5, 65, Same),
    (
        "@ fhandle-bytes:8  fhandle-type:1\n",
        BadSeparator,
        5,
        65,
        Same,
    ),
    ("@ fhandle-bytes:8 junk\n", HandlePartial, 5, 65, Same),
    ("@ fhandle-bytes:8x fhandle-type:1\n", BadHex, 5, 64, Same),
    ("@ fhandle-bytes 8\n", BadSeparator, 5, 49, Same),
    (
        "@ fhandle-bytes:8 fhandle-type:1 f_handle:c1090000d72b6ff\n",
        HandleLength,
        5,
        89,
        Same,
    ),
    (
        "@ fhandle-bytes:8 fhandle-type:1 f_handle:c1090000d72b6ffa1\n",
        HandleLength,
        5,
        89,
        Same,
    ),
    (
        "@ fhandle-bytes:8 fhandle-type:1 f_handle:c1090000\n",
        HandleLength,
        5,
        89,
        Same,
    ),
    (
        "@ fhandle-bytes:8 fhandle-type:1 f_handle:c1090000d72b6ffa00\n",
        HandleLength,
        5,
        89,
        Same,
    ),
    (
        "@ fhandle-bytes:8 fhandle-type:1 f_handle:C1090000d72b6ffa\n",
        BadHex,
        5,
        89,
        Same,
    ),
    (
        "@ fhandle-bytes:8 fhandle-type:1 f_handle:c1090000d72b6ffA\n",
        BadHex,
        5,
        104,
        Same,
    ),
    (
        "@ fhandle-bytes:0 fhandle-type:1 f_handle:\n",
        HandleSize,
        5,
        63,
        Same,
    ),
    (
        "@ fhandle-bytes:6 fhandle-type:1 f_handle:c1090000d72b\n",
        HandleSize,
        5,
        63,
        Same,
    ),
    (
        "@ fhandle-bytes:84 fhandle-type:1 f_handle:c1\n",
        HandleSize,
        5,
        63,
        Same,
    ),
    (
        "@ fhandle-bytes:4 fhandle-type:0 f_handle:c1090000\n",
        HandleType,
        5,
        78,
        Same,
    ),
    (
        "@ fhandle-bytes:4 fhandle-type:ff f_handle:c1090000\n",
        HandleType,
        5,
        78,
        Same,
    ),
    (
        "@ fhandle-bytes:4 fhandle-type:10000 f_handle:c1090000\n",
        HandleType,
        5,
        78,
        Same,
    ),
];

const LOCKS: &[Row] = &[
    ("+lock:\t\n", BadLock, 5, 7, Same),
    (
        "+lock:\tinotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:0 \n",
        BadLock,
        5,
        7,
        Same,
    ),
    (
        "+lock: 1: FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 EOF\n",
        BadSeparator,
        5,
        6,
        Same,
    ),
    (
        "+lock:\t1 FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 EOF\n",
        BadLock,
        5,
        8,
        Same,
    ),
    (
        "+lock:\t1: FLOCK ADVISORY WRITE 4423 00:10:1039 0 EOF\n",
        BadLock,
        5,
        10,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  RW    4423 00:10:1039 0 EOF\n",
        BadLock,
        5,
        27,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  MSNFS     READ 4423 00:10:1039 0 EOF\n",
        BadLock,
        5,
        27,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE x 00:10:1039 0 EOF\n",
        BadLock,
        5,
        33,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 0:10:1039 0 EOF\n",
        BadLock,
        5,
        39,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 010:10:1039 0 EOF\n",
        BadLock,
        5,
        38,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 00:10:0a 0 EOF\n",
        BadLock,
        5,
        45,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 99\n",
        BadLock,
        5,
        49,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 EOF more\n",
        BadLock,
        5,
        54,
        Same,
    ),
    (
        "+lock:\t1: POSIX  ADVISORY  READ 4423 00:10:1039 5\n",
        BadLock,
        5,
        49,
        Same,
    ),
    ("@ \nlock:\t\n", HeadOrder, 6, 1, Same),
];

#[test]
fn characters_and_line_ends() {
    check_rows(CHARACTERS);
}

#[test]
fn lines_of_the_head() {
    check_rows(HEADS);
}

#[test]
fn numbers() {
    check_rows(NUMBERS);
}

#[test]
fn fields() {
    check_rows(FIELDS);
}

#[test]
fn kinds_of_lines() {
    check_rows(KINDS);
}

#[test]
fn file_handles() {
    check_rows(HANDLES);
}

#[test]
fn locks() {
    check_rows(LOCKS);
}

#[test]
fn a_line_is_limited_to_512_bytes() {
    let long = format!("{HEAD}path:\t{}\n", "x".repeat(506));
    check(&long, Options::new(Level::Lenient), Some((TooLong, 5, 1)));
    let longest = format!("{HEAD}path:\t{}\n", "x".repeat(505));
    check(&longest, Options::new(Level::Lenient), None);
}

#[test]
fn text_and_marks_have_limits() {
    let watches = "inotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:0 \n\
                   inotify wd:2 ino:6 sdev:6 mask:1 ignored_mask:0 \n";
    let text = format!("{HEAD}{watches}");
    let strict = Options::new(Level::Strict);
    let max_text = text.len() - 1;
    check(
        &text,
        Options { max_text, ..strict },
        Some((TooLarge, 6, 1)),
    );
    let max_text = text.len();
    check(&text, Options { max_text, ..strict }, None);
    let max_marks = 1;
    check(
        &text,
        Options {
            max_marks,
            ..strict
        },
        Some((TooMany, 6, 1)),
    );
    let text = format!(
        "{HEAD}fanotify flags:0 event-flags:0\n\
         fanotify sdev:6 mflags:0 mask:1 ignored_mask:0\n"
    );
    check(
        &text,
        Options {
            max_marks,
            ..strict
        },
        None,
    );
}

#[test]
fn a_kind_that_the_caller_states_is_held_to() {
    let inotify = format!("{HEAD}inotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:0 \n");
    let fanotify = format!("{HEAD}fanotify flags:0 event-flags:0\n");
    let stated = |kind| Options {
        kind: Some(kind),
        ..Options::new(Level::Strict)
    };
    check(&inotify, stated(Kind::Inotify), None);
    check(&inotify, stated(Kind::Fanotify), Some((KindMismatch, 5, 1)));
    check(&fanotify, stated(Kind::Fanotify), None);
    check(&fanotify, stated(Kind::Inotify), Some((KindMismatch, 5, 1)));
    check(HEAD, stated(Kind::Inotify), None);
    check(HEAD, stated(Kind::Fanotify), Some((GroupMissing, 5, 1)));
}

#[test]
fn glued_locks_are_split_where_the_caller_says_that_the_kernel_glues_them() {
    let options = Options {
        glued_locks: true,
        ..Options::new(Level::Strict)
    };
    let watch = "inotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:0 \n";
    for text in [
        format!("{HEAD}lock:\t{watch}"),
        format!("{HEAD}lock:\tlock:\t{watch}"),
        format!("{HEAD}lock:\tlock:\t1: FLOCK  ADVISORY  WRITE 4 00:10:1039 0 EOF\n{watch}"),
        format!("{HEAD}lock:\tfanotify flags:0 event-flags:0\n"),
        format!("{HEAD}lock:\t"),
        format!("{HEAD}{}{watch}", "lock:\t".repeat(300)),
    ] {
        check(&text, options, None);
        let group = Group::parse_with(text.as_bytes(), options).expect("checked");
        assert_eq!(group.to_string(), text);
    }
    let text = format!("{HEAD}lock:\tlock:\tinotify wd:1 ino:x\n");
    check(&text, options, Some((BadHex, 5, 12 + 18)));
    let text = format!("{HEAD}lock:\t\n");
    check(&text, options, Some((BadLock, 5, 7)));
}

#[test]
fn what_looks_wrong_and_is_right_is_accepted() {
    let watches = "inotify wd:7fffffff ino:ffffffffffffffff sdev:ffffffff mask:0 ignored_mask:0 \n\
                   inotify wd:1 ino:0 sdev:0 mask:ffffffff ignored_mask:0 \n\
                   inotify wd:2 ino:5 sdev:6 mask:800afce ignored_mask:0 fhandle-bytes:4 \
                   fhandle-type:fe f_handle:00000000\n\
                   inotify wd:3 ino:5 sdev:6 mask:1 ignored_mask:0 fhandle-bytes:8 \
                   fhandle-type:1 f_handle:0000000000000000\n";
    let inodes_without_handle = "fanotify flags:ffffffff event-flags:0\n\
         fanotify ino:5 sdev:6 mflags:0 mask:0 ignored_mask:40000000 \n\
         fanotify ino:5 sdev:6 mflags:ffffffff mask:0 ignored_mask:0 \n";
    let locks = "lock:\t1: FLOCK  MSNFS     READ  4 00:10:1039 0 EOF\n\
                 lock:\t2: POSIX  *NOINODE* READ 0 <none>:0 -1 5\n\
                 lock:\t3: OFDLCK ADVISORY  WRITE -1 fe:100:18446744073709551615 0 EOF\n\
                 lock:\t4: UNKNOWN UNKNOWN  UNLCK 4 00:10:1039 0 EOF\n";
    for text in [
        "pos:\t0\nflags:\t00\n".to_owned(),
        "pos:\t-9223372036854775808\nflags:\t037777777777\nmnt_id:\t-2147483648\n".to_owned(),
        "pos:\t9223372036854775807\nflags:\t00\nino:\t18446744073709551615\n".to_owned(),
        HEAD.to_owned(),
        format!("{HEAD}{locks}"),
        format!("{HEAD}{locks}{watches}"),
        format!("{HEAD}{inodes_without_handle}"),
    ] {
        check(&text, Options::new(Level::Strict), None);
        let group = Group::parse(text.as_bytes(), Level::Strict).expect("checked");
        assert_eq!(group.to_string(), text);
    }
}

#[test]
fn what_the_lenient_level_keeps_prints_back() {
    let text = format!(
        "size:\t0\n{HEAD}path:\t/a b\nfanotify flags:0 event-flags:0\n\
         fanotify user_ns_id:7 mflags:0 mask:1 ignored_mask:0\nsomething else \n\
         fanotify sdev:6 mflags:0 mask:100000000 ignored_mask:0\n dnotify\n"
    );
    let text = text.replace("\n dnotify", "\ndnotify");
    let group = Group::parse(text.as_bytes(), Level::Lenient).expect("lenient");
    assert_eq!(group.unknown.len(), 5);
    assert_eq!(group.to_string(), text);
}

#[test]
fn an_error_says_where_and_what() {
    let text = format!("{HEAD}inotify wd:1 ino:5 sdev:zz mask:1\n");
    let error = Group::parse(text.as_bytes(), Level::Strict).expect_err("zz");
    let expected = "line 5:25: sdev: no lower-case hex number: \"zz\"";
    assert_eq!(error.to_string(), expected);
}

/// The error of a text as kind, line and column.
type Place = (ErrorKind, usize, usize);

fn check_rows(rows: &[Row]) {
    for (text, kind, line, column, lenient) in rows {
        let text = match text.split_at_checked(1) {
            Some(("+", rest)) => format!("{HEAD}{rest}"),
            Some(("@", rest)) => format!("{HEAD}{WATCH}{rest}"),
            Some(("*", rest)) => format!("{HEAD}{GROUP}{rest}"),
            Some(_) | None => (*text).to_owned(),
        };
        let strict = Some((*kind, *line, *column));
        check(&text, Options::new(Level::Strict), strict);
        let lenient = match lenient {
            Same => strict,
            Accepts => None,
        };
        check(&text, Options::new(Level::Lenient), lenient);
    }
}

/// The text as a whole and byte by byte gives this error.
#[track_caller]
fn check(text: &str, options: Options, expected: Option<Place>) {
    let whole = Group::parse_with(text.as_bytes(), options);
    let place = |error: ParseError| (error.kind, error.line, error.column);
    let found = whole.as_ref().err().copied().map(place);
    assert_eq!(found, expected, "{:?} {text:?}: {whole:?}", options.level);
    let whole = whole.err();
    if whole.is_some_and(|error| matches!(error.kind, WdDuplicate | MarkDuplicate)) {
        return;
    }
    let mut stream = Stream::with(options);
    let pushed = text
        .as_bytes()
        .chunks(1)
        .try_for_each(|piece| stream.push(piece, |_| {}));
    let streamed = pushed.and_then(|()| stream.finish(|_| {})).err();
    assert_eq!(streamed, whole, "{:?} {text:?} in pieces", options.level);
}
