//! Properties of the reader that hold for every input whatsoever. Fuzz targets and property tests
//! call these; each panics if its property does not hold.

use std::fmt::{self, Write};

use super::cursor::Cursor;
use super::{
    Body, ErrorKind, Group, Kind, Level, Line, Lines, Mark, MarkTarget, Options, ParseError,
    Stream, Tolerance, UnknownKind, Watch, mark, quick, scan,
};

/// Whatever holds for a text by itself: [`check_lines`], [`check_quick`], and [`check_group_of`] at
/// both levels.
///
/// # Panics
///
/// If one of them does not hold.
pub fn check_text(text: &[u8]) {
    check_lines(text);
    check_quick(text);
    check_group_of(text, Level::Strict);
    check_group_of(text, Level::Lenient);
}

/// Reading never panics, and an error is in the line behind those that were read: the least that can
/// be asked, and the quickest. Whether the lenient level accepts the text.
///
/// # Panics
///
/// If it does not hold.
#[must_use]
pub fn check_reading(text: &[u8]) -> bool {
    let mut lines = Lines::new(text, Level::Lenient);
    let mut n_lines = 0;
    loop {
        let rest = lines.rest();
        match lines.next_apart() {
            None => return true,
            Some(Ok(_)) => n_lines += 1,
            Some(Err(error)) => {
                assert_eq!(error.line, n_lines + 1, "{error}: another line");
                check_column(rest, &error);
                return false;
            }
        }
    }
}

/// Reading never panics; every line prints as it stands; strict accepts no more than lenient, and
/// means the same; an error is where there is text.
///
/// Fuzzing is as fast as what is here, which therefore prints into a comparison instead of a string,
/// and does not read again what printed back: equal bytes read as equal values.
///
/// # Panics
///
/// If one of these does not hold.
pub fn check_lines(text: &[u8]) {
    let mut lenient = Lines::new(text, Level::Lenient);
    let mut strict = Some(Lines::new(text, Level::Strict));
    let mut rest = Expected(text);
    loop {
        let line = lenient.next_apart();
        if let Some(lines) = &mut strict {
            let read = lines.next_apart();
            assert_eq!(lines.tolerance(), None, "strict tolerated something");
            if let Some(Err(error)) = read {
                check_place(text, &error);
                strict = None;
            } else {
                assert_eq!(line, read, "the levels read a line differently");
            }
        }
        match (line, lenient.tolerance()) {
            (None, _) => break,
            (Some(Err(error)), _) => {
                assert!(
                    strict.is_none(),
                    "strict accepts what lenient refuses: {error}"
                );
                return check_place(text, &error);
            }
            (Some(Ok(line)), None) => rest.print(line),
            (Some(Ok(line)), Some(tolerance)) => rest.print_tolerated(line, tolerance),
        }
    }
    assert!(rest.0.is_empty(), "print(parse(x)) is shorter than x");
}

/// What is still to be printed: writing takes from its start, and fails where it differs.
struct Expected<'a>(&'a [u8]);

impl Expected<'_> {
    fn print(&mut self, value: impl fmt::Display) {
        let printed = write!(self, "{value}");
        assert!(printed.is_ok(), "print(parse(x)) is not x: {value}");
    }

    /// The line stands here but for the space that was tolerated.
    fn print_tolerated(&mut self, line: Line<'_>, tolerance: Tolerance) {
        let end = scan::line_feed(self.0);
        let (here, rest) = self
            .0
            .split_at(end.expect("only a whole line is tolerated"));
        assert!(tolerance.to_string().contains("space"), "{tolerance}");
        let printed = line.to_string();
        let printed = printed.strip_suffix('\n').expect("a whole line").as_bytes();
        match tolerance {
            Tolerance::MissingSpace => assert_eq!(printed.strip_suffix(b" "), Some(here)),
            Tolerance::ExtraSpace => assert_eq!(here.strip_suffix(b" "), Some(printed)),
        }
        self.0 = &rest[1..];
    }
}

impl Write for Expected<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text.as_bytes()).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// Of lines with handles, the quick reading takes those that the other takes, and reads the same.
///
/// # Panics
///
/// If it takes more or fewer, or reads one differently.
pub fn check_quick(text: &[u8]) {
    let mut rest = text;
    loop {
        assert_eq!(quickly(rest), slowly(rest), "two readings of a line");
        let Some(end) = scan::line_feed(rest) else {
            return;
        };
        rest = &rest[end + 1..];
    }
}

/// The line that stands here and what follows it, by the quick reading.
fn quickly(text: &[u8]) -> Option<(Line<'_>, &[u8])> {
    let watch = quick::watch(text).map(|(watch, rest)| (Line::Watch(watch.decode()), rest));
    let mark = || quick::mark(text).map(|(mark, rest)| (Line::Mark(mark.decode()), rest));
    watch.or_else(mark)
}

/// The same by the other reading.
fn slowly(text: &[u8]) -> Option<(Line<'_>, &[u8])> {
    const WATCH: &[u8] = b"inotify wd:";
    const MARK: &[u8] = b"fanotify ino:";
    let (line, end) = if text.starts_with(WATCH) {
        let read = mark::watch(Cursor::new(text, WATCH.len()), Level::Strict);
        let (watch, end, _) = read.ok()?;
        (Line::Watch(watch.decode()), end)
    } else if text.starts_with(MARK) {
        let read = mark::inode(Cursor::new(text, MARK.len()), Level::Strict);
        let (mark, end, _) = read.ok()?;
        (Line::Mark(mark.decode()), end)
    } else {
        return None;
    };
    let has_handle = match line {
        Line::Watch(Watch { handle, .. }) => handle.is_some(),
        Line::Mark(Mark {
            target: MarkTarget::Inode { handle, .. },
            ..
        }) => handle.is_some(),
        _ => false,
    };
    has_handle.then_some((line, &text[end..]))
}

/// A group is its lines, if they end well and no two are about the same object, and prints as them;
/// otherwise it is refused where they are, or at the second line about an object.
///
/// # Panics
///
/// If it is not.
pub fn check_group_of(text: &[u8], level: Level) {
    let mut lines = Lines::new(text, level);
    match Group::parse(text, level) {
        Ok(group) => {
            let mut n_tolerated = 0;
            for of_group in group.lines() {
                let line = lines.next_apart();
                assert_eq!(line, Some(Ok(of_group)), "the group has another line");
                n_tolerated += usize::from(lines.tolerance().is_some());
            }
            assert_eq!(lines.next_apart(), None, "the group lacks a line");
            let is_known = level == Level::Lenient || group.unknown.is_empty();
            assert!(is_known, "strict kept something unknown");
            check_print(text, &group, n_tolerated);
            check_kind(text, &group, level);
        }
        Err(error) => {
            check_place(text, &error);
            check_message(&error);
            let is_duplicate = matches!(
                error.kind,
                ErrorKind::WdDuplicate | ErrorKind::MarkDuplicate
            );
            while lines.line_number() < error.line || !is_duplicate {
                match lines
                    .next_apart()
                    .expect("the lines end well, and the group is refused")
                {
                    Ok(_) => {}
                    Err(of_line) => return assert_eq!(error, of_line, "another error"),
                }
            }
        }
    }
}

/// A group prints as the text that it was read from; or, if an odd space at the end of a line was
/// tolerated, as what it reads as.
fn check_print(text: &[u8], group: &Group, n_tolerated: usize) {
    if n_tolerated == 0 {
        let mut rest = Expected(text);
        rest.print(group);
        assert!(rest.0.is_empty(), "print(parse(x)) is shorter than x");
        return;
    }
    let printed = group.to_string();
    let again = Group::parse(printed.as_bytes(), Level::Lenient);
    assert_eq!(
        again.as_ref(),
        Ok(group),
        "parse(print(parse(x))) is not parse(x)"
    );
    let difference = printed.len().abs_diff(text.len());
    assert!(
        difference <= n_tolerated,
        "more is tolerated than a space a line"
    );
}

/// The kind that the text tells may be stated, and no other.
fn check_kind(text: &[u8], group: &Group, level: Level) {
    let (same, other) = match &group.body {
        // A mark of an unknown kind tells the kind of the group, though it is not in the body.
        Body::Unstated if has_unknown_mark(group) => return,
        Body::Unstated => return check_without_kind(text, level),
        Body::Inotify { .. } => (Kind::Inotify, Kind::Fanotify),
        Body::Fanotify { .. } => (Kind::Fanotify, Kind::Inotify),
    };
    let stated = Group::parse_as(text, same, level);
    assert_eq!(stated.as_ref(), Ok(group), "another group of this kind");
    let refused = Group::parse_as(text, other, level).map_err(|error| error.kind);
    assert_eq!(refused, Err(ErrorKind::KindMismatch), "a group of any kind");
}

fn has_unknown_mark(group: &Group) -> bool {
    let mut unknown = group.unknown.iter();
    unknown.any(|unknown| unknown.kind == UnknownKind::Mark)
}

/// A text without a line of its kind is inotify without watches, if that is stated; and lacks a line
/// if fanotify is.
fn check_without_kind(text: &[u8], level: Level) {
    let inotify = Group::parse_as(text, Kind::Inotify, level).map(|group| group.body);
    let watches = Vec::new();
    assert_eq!(inotify, Ok(Body::Inotify { watches }), "watches of nowhere");
    let fanotify = Group::parse_as(text, Kind::Fanotify, level).map_err(|error| error.kind);
    assert_eq!(fanotify, Err(ErrorKind::GroupMissing), "a group of no line");
}

/// An error names a line that exists, or the one behind the last, and a column in it.
fn check_place(text: &[u8], error: &ParseError) {
    let mut line = text;
    for _ in 1..error.line {
        let end = scan::line_feed(line).unwrap_or_else(|| panic!("{error}: no such line"));
        line = &line[end + 1..];
    }
    check_column(line, error);
}

/// An error names a column of its line, which stands at the start of this text.
fn check_column(text: &[u8], error: &ParseError) {
    let length = scan::line_feed(text).unwrap_or(text.len());
    assert!(error.column <= length + 1, "{error}: no such column");
}

/// An error reads as its place and a sentence.
fn check_message(error: &ParseError) {
    let place = format!("line {}:{}: ", error.line, error.column);
    assert!(error.to_string().starts_with(&place), "{error}");
}

/// Pieces of any size give the same lines and the same error as the whole.
///
/// # Panics
///
/// If they do not.
pub fn check_pieces(text: &[u8], size: usize, options: Options) {
    let mut whole = Lines::with(text, options);
    let mut error = None;
    let mut stream = Stream::with(options);
    let mut compare = |line: Line<'_>| {
        let expected = whole
            .next_apart()
            .expect("the stream has more lines than the whole");
        assert_eq!(Ok(line), expected, "the stream has another line");
    };
    for piece in text.chunks(size.max(1)) {
        if let Err(found) = stream.push(piece, &mut compare) {
            assert_eq!(stream.push(b"\n", &mut compare), Err(found), "it goes on");
            error = Some(found);
            break;
        }
    }
    if error.is_none() {
        error = stream.finish(&mut compare).err();
    }
    let expected = whole
        .next_apart()
        .map(|line| line.expect_err("the whole has more lines"));
    assert_eq!(error, expected, "the stream ends otherwise");
}

/// A group that a kernel could have prints as a text that reads as this group.
///
/// # Panics
///
/// If it does not.
pub fn check_group(group: &Group) {
    let text = group.to_string();
    let read = Group::parse(text.as_bytes(), Level::Strict);
    assert_eq!(read.as_ref(), Ok(group), "parse(print(x)) is not x\n{text}");
}

/// A text that was changed is refused, or reads as another group; never silently as the same.
///
/// # Panics
///
/// If the change goes unnoticed.
pub fn check_change(group: &Group, changed: &[u8]) {
    check_text(changed);
    if changed == group.to_string().as_bytes() {
        return;
    }
    let mut lines = Lines::new(changed, Level::Lenient);
    while let Some(Ok(_)) = lines.next_apart() {
        if lines.tolerance().is_some() {
            return;
        }
    }
    for level in [Level::Strict, Level::Lenient] {
        let read = Group::parse(changed, level);
        assert_ne!(read.as_ref(), Ok(group), "a change goes unnoticed");
    }
}
