//! What is wrong with a line that was refused. Reading lines needs none of this; it is here so that
//! a refusal says what a person would say.

use super::error::{ErrorKind, Excerpt, Fault};
use super::mark::{Form, HANDLE};

/// Names what a reader stumbled over. `line` has no line feed.
pub(super) fn explain(line: &[u8], fault: Fault, form: &Form) -> Fault {
    match fault.kind {
        ErrorKind::FieldMissing => missing_field(line, fault, form),
        ErrorKind::TrailingGarbage => trailing_text(line, fault, form),
        ErrorKind::HandlePartial => partial_handle(line, fault),
        _ => fault,
    }
}

/// The key of `fault.field` does not stand at `fault.at`.
fn missing_field(line: &[u8], fault: Fault, form: &Form) -> Fault {
    let Fault { at, field, .. } = fault;
    let expected = form.fields.iter().position(|name| *name == field);
    let expected = expected.expect("a form has the field that was looked for");
    let rest = &line[at..];
    let (Some(first), previous) = (rest.first(), form.fields[expected - 1]) else {
        return fault;
    };
    if *first != b' ' {
        return bad_value_or_separator(line, at, previous, field);
    }
    let word = word(&rest[1..]);
    let Some(key) = key(word) else {
        let glued = word.is_empty() || word.starts_with(b"\t") || is_name(word, form);
        let kind = if glued {
            ErrorKind::BadSeparator
        } else {
            ErrorKind::UnknownField
        };
        return Fault::new(kind, at + 1, field);
    };
    match form.fields.iter().position(|name| name.as_bytes() == key) {
        Some(found) if found < expected => {
            Fault::new(ErrorKind::FieldDuplicate, at + 1, form.fields[found])
        }
        Some(_) if has_key(rest, field) => Fault::new(ErrorKind::FieldOrder, at + 1, field),
        Some(_) => Fault::new(ErrorKind::FieldMissing, at + 1, field),
        None if is_handle(key) => Fault::new(ErrorKind::FieldMissing, at + 1, field),
        None => Fault::new(ErrorKind::UnknownField, at + 1, field),
    }
}

/// The line does not end at `fault.at`, where all its fields have been read.
fn trailing_text(line: &[u8], fault: Fault, form: &Form) -> Fault {
    let Fault { at, field, .. } = fault;
    let rest = &line[at..];
    let last = form.fields[form.fields.len() - 1];
    let last = if field.is_empty() { last } else { field };
    match rest.first() {
        // The space that ends an inode's line without handle is missing.
        None => return Fault::new(ErrorKind::BadSeparator, at, last),
        Some(b' ') => {}
        Some(_) => return bad_value_or_separator(line, at, last, HANDLE[0]),
    }
    let word = word(&rest[1..]);
    if word.is_empty() || word[0] == b'\t' {
        return Fault::new(ErrorKind::BadSeparator, at, last);
    }
    let Some(key) = key(word) else {
        let glued = form.handle && HANDLE.iter().any(|name| name.as_bytes() == word);
        let kind = if glued {
            ErrorKind::BadSeparator
        } else {
            ErrorKind::TrailingGarbage
        };
        return Fault::new(kind, at + 1, "");
    };
    if let Some(found) = form.fields.iter().find(|name| name.as_bytes() == key) {
        return Fault::new(ErrorKind::FieldDuplicate, at + 1, found);
    }
    let kind = match (is_handle(key), form.handle) {
        (false, _) => ErrorKind::UnknownField,
        (true, false) => ErrorKind::HandleUnexpected,
        (true, true) if field.is_empty() => ErrorKind::HandlePartial,
        (true, true) => ErrorKind::FieldDuplicate,
    };
    Fault::new(kind, at + 1, "")
}

/// `fault.field` of a handle does not stand at `fault.at`.
fn partial_handle(line: &[u8], fault: Fault) -> Fault {
    let Fault { at, field, .. } = fault;
    let rest = &line[at..];
    let index = HANDLE.iter().position(|name| *name == field).unwrap_or(1);
    match rest.first() {
        None => return fault,
        Some(b' ') => {}
        Some(_) => return bad_value_or_separator(line, at, HANDLE[index - 1], field),
    }
    let word = word(&rest[1..]);
    match key(word) {
        Some(key) if key == HANDLE[index - 1].as_bytes() => {
            Fault::new(ErrorKind::FieldDuplicate, at + 1, HANDLE[index - 1])
        }
        Some(key) if is_handle(key) && has_key(rest, field) => {
            Fault::new(ErrorKind::FieldOrder, at + 1, field)
        }
        Some(key) if is_handle(key) => Fault::new(ErrorKind::HandlePartial, at + 1, field),
        Some(_) => Fault::new(ErrorKind::UnknownField, at + 1, field),
        None if word.is_empty() || word[0] == b'\t' || word == field.as_bytes() => {
            Fault::new(ErrorKind::BadSeparator, at + 1, field)
        }
        None => Fault::new(ErrorKind::HandlePartial, at + 1, field),
    }
}

/// Something other than a space stands behind the value of `previous`.
fn bad_value_or_separator(
    line: &[u8],
    at: usize,
    previous: &'static str,
    next: &'static str,
) -> Fault {
    let rest = &line[at..];
    if rest.starts_with(b"\t") || key(word(rest)) == Some(next.as_bytes()) {
        return Fault::new(ErrorKind::BadSeparator, at, next);
    }
    let kind = if previous == "mnt_ns" {
        ErrorKind::BadDecimal
    } else {
        ErrorKind::BadHex
    };
    Fault::new(kind, at, previous)
}

/// The bytes up to the next space.
fn word(rest: &[u8]) -> &[u8] {
    let end = rest.iter().position(|byte| *byte == b' ');
    &rest[..end.unwrap_or(rest.len())]
}

/// The part of a word before its colon.
fn key(word: &[u8]) -> Option<&[u8]> {
    let colon = word.iter().position(|byte| *byte == b':')?;
    (word[0] != b'\t').then_some(&word[..colon])
}

fn has_key(rest: &[u8], field: &str) -> bool {
    let words = rest.split(|byte| *byte == b' ');
    words.filter_map(key).any(|key| key == field.as_bytes())
}

fn is_name(word: &[u8], form: &Form) -> bool {
    form.fields.iter().any(|name| name.as_bytes() == word)
}

fn is_handle(key: &[u8]) -> bool {
    HANDLE.iter().any(|name| name.as_bytes() == key)
}

/// The text to quote: the word at the fault, or the line if the fault is all of it or its end.
pub(super) fn excerpt(line: &[u8], at: usize) -> Excerpt {
    let quoted = match line.get(at..) {
        Some(rest) if at > 0 && !rest.is_empty() => {
            let n_spaces = usize::from(rest[0] == b' ');
            &rest[..n_spaces + word(&rest[n_spaces..]).len()]
        }
        Some(_) | None => line,
    };
    Excerpt::new(quoted)
}
