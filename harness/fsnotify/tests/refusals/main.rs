//! What is refused, with which error and where: one row an input, rows of one rule together.

mod fields;
mod handles;
mod locks;
mod text;

use fsnotify::fdinfo::ErrorKind::{
    BadHex, BadLock, GroupMissing, KindMismatch, MarkDuplicate, TooLarge, TooLong, TooMany,
    WdDuplicate,
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

#[test]
fn characters_and_line_ends() {
    check_rows(text::CHARACTERS);
}

#[test]
fn lines_of_the_head() {
    check_rows(text::HEADS);
}

#[test]
fn numbers() {
    check_rows(fields::NUMBERS);
}

#[test]
fn fields() {
    check_rows(fields::FIELDS);
}

#[test]
fn kinds_of_lines() {
    check_rows(fields::KINDS);
}

#[test]
fn file_handles() {
    check_rows(handles::HANDLES);
}

#[test]
fn locks() {
    check_rows(locks::LOCKS);
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
fn limits_hold_for_the_usual_lines_too() {
    let handle = "fhandle-bytes:8 fhandle-type:1 f_handle:c109000050f477b";
    let watch = |n| format!("inotify wd:{n} ino:5 sdev:6 mask:1 ignored_mask:0 {handle}{n}\n");
    let mark = |n| format!("fanotify ino:5 sdev:6 mflags:0 mask:1 ignored_mask:0 {handle}{n}\n");
    let watches: String = (1..=3).map(watch).collect();
    let marks: String = (1..=3).map(mark).collect();
    for (text, line) in [
        (format!("{HEAD}{watches}"), 7),
        (format!("{HEAD}{GROUP}{marks}"), 8),
    ] {
        let strict = Options::new(Level::Strict);
        for (max_text, expected) in [
            (text.len() - 1, Some((TooLarge, line, 1))),
            (text.len(), None),
        ] {
            check(&text, Options { max_text, ..strict }, expected);
        }
        for (max_marks, expected) in [(2, Some((TooMany, line, 1))), (3, None)] {
            let options = Options {
                max_marks,
                ..strict
            };
            check(&text, options, expected);
        }
    }
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
