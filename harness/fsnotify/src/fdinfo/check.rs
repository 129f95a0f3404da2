//! Properties of the reader that hold for every input whatsoever. Fuzz targets and property tests
//! call these; each panics if its property does not hold.

use super::{Group, Level, Line, Lines, Options, ParseError, Stream};

/// Reading never panics; printing gives back what was read; strict accepts no more than lenient,
/// and means the same; an error is where there is text.
///
/// # Panics
///
/// If one of these does not hold.
pub fn check_text(text: &[u8]) {
    let strict = Group::parse(text, Level::Strict);
    let lenient = Group::parse(text, Level::Lenient);
    match (&strict, &lenient) {
        (Ok(strict), Ok(lenient)) => {
            assert_eq!(strict, lenient, "the levels read the same text differently");
            assert!(strict.unknown.is_empty(), "strict kept something unknown");
            assert!(
                strict.to_string().as_bytes() == text,
                "strict print(parse(x)) is not x"
            );
        }
        (Ok(_), Err(error)) => panic!("lenient refuses what strict accepts: {error}"),
        (Err(_), _) => {}
    }
    if let Ok(lenient) = &lenient {
        check_print(text, lenient);
    }
    for error in [strict.err(), lenient.err()].into_iter().flatten() {
        check_place(text, &error);
    }
}

/// What the lenient level read prints as what it reads as; the text itself, unless an odd space at
/// the end of a line was tolerated.
fn check_print(text: &[u8], group: &Group) {
    let printed = group.to_string();
    let again = Group::parse(printed.as_bytes(), Level::Lenient);
    assert_eq!(
        again.as_ref(),
        Ok(group),
        "parse(print(parse(x))) is not parse(x)"
    );
    let mut lines = Lines::new(text, Level::Lenient);
    let mut n_tolerated = 0;
    while let Some(line) = lines.next() {
        line.expect("the group was read from the same lines");
        n_tolerated += usize::from(lines.tolerance().is_some());
    }
    if n_tolerated == 0 {
        assert!(
            printed.as_bytes() == text,
            "lenient print(parse(x)) is not x"
        );
    } else {
        assert!(
            printed.as_bytes() != text,
            "tolerated something that prints back"
        );
        let difference = printed.len().abs_diff(text.len());
        assert!(
            difference <= n_tolerated,
            "more is tolerated than a space a line"
        );
    }
}

/// An error names a line that exists, or the one behind the last, and a column in it.
fn check_place(text: &[u8], error: &ParseError) {
    let mut lines = text.split(|byte| *byte == b'\n');
    let line = lines.nth(error.line - 1);
    let line = line.unwrap_or_else(|| panic!("{error}: no such line"));
    assert!(error.column <= line.len() + 1, "{error}: no such column");
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
            .next()
            .expect("the stream has more lines than the whole");
        assert_eq!(Ok(line), expected, "the stream has another line");
    };
    for piece in text.chunks(size.max(1)) {
        if let Err(found) = stream.push(piece, &mut compare) {
            error = Some(found);
            break;
        }
    }
    if error.is_none() {
        error = stream.finish(&mut compare).err();
    }
    let expected = whole
        .next()
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
    while let Some(Ok(_)) = lines.next() {
        if lines.tolerance().is_some() {
            return;
        }
    }
    for level in [Level::Strict, Level::Lenient] {
        let read = Group::parse(changed, level);
        assert_ne!(read.as_ref(), Ok(group), "a change goes unnoticed");
    }
}
