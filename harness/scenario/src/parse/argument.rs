//! From a value to an argument of the kind that the call asks for.

use std::ops::Range;

use super::value::{Form, Value, Word};
use crate::call::{ArgKind, Call};
use crate::flags::FlagSet;
use crate::limits::{MAX_CONTENT, MAX_NAME, MAX_PATH};
use crate::problem::{Problem, ProblemKind};
use crate::step::{Arg, Name, Time};
use crate::suggest::nearest;

/// The argument that `value` is, if it is of this kind; what is wrong goes to `problems`, and there
/// may be more than one thing.
pub(super) fn convert(
    value: Value,
    kind: ArgKind,
    name: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Arg> {
    let span = value.span.clone();
    let wrong = || {
        let wanted = wanted(kind);
        ProblemKind::WrongArgument { name, wanted }.at(span.clone())
    };
    let n_before = problems.len();
    let arg = match kind {
        ArgKind::Fd => reference(&value, 0..=i64::from(i32::MAX), problems),
        ArgKind::DirFd if is_word(&value, "AT_FDCWD") => Some(Arg::Cwd),
        ArgKind::DirFd => reference(&value, 0..=i64::from(i32::MAX), problems),
        ArgKind::Wd => reference(&value, -1..=i64::from(i32::MAX), problems),
        ArgKind::Process => process(&value, problems),
        ArgKind::PathOrNull | ArgKind::TextOrNull | ArgKind::EpollEvent | ArgKind::Times
            if is_word(&value, "NULL") =>
        {
            Some(Arg::Null)
        }
        ArgKind::Path | ArgKind::PathOrNull | ArgKind::Text | ArgKind::TextOrNull => {
            path(value, problems)
        }
        ArgKind::Content => content(value, problems),
        ArgKind::ContentOrResponse => match value.form {
            Form::Struct(fields) => response(fields, problems),
            _ => content(value, problems),
        },
        ArgKind::Mode => mode(&value, Types::Refused, problems),
        ArgKind::FileMode => mode(&value, Types::Taken, problems),
        ArgKind::Device => device(&value, problems),
        ArgKind::Size => number(&value, 0..=i64::MAX, "0 or more", problems),
        ArgKind::Offset => number(&value, i64::MIN..=i64::MAX, "one of 64 bits", problems),
        ArgKind::Timeout => number(
            &value,
            0..=0,
            "0: nothing here waits for time to pass",
            problems,
        ),
        ArgKind::Flags(set) | ArgKind::Choice(set) => match &value.form {
            Form::Words(words) => flags(words, set, problems).map(|bits| Arg::Flags(set, bits)),
            _ => None,
        },
        ArgKind::EpollEvent => match value.form {
            Form::Struct(fields) => epoll_event(fields, problems),
            _ => None,
        },
        ArgKind::Times => match value.form {
            Form::List(times) => time_pair(times, problems),
            _ => None,
        },
        ArgKind::OfCommand => None,
    };
    if arg.is_none() && problems.len() == n_before {
        problems.push(wrong());
    }
    arg
}

/// What a kind is called in a message.
fn wanted(kind: ArgKind) -> &'static str {
    match kind {
        ArgKind::Fd => "a descriptor: a bound name or a number",
        ArgKind::DirFd => "a descriptor or `AT_FDCWD`",
        ArgKind::Wd => "a watch descriptor: a bound name or a number",
        ArgKind::Path => "a path in quotes",
        ArgKind::PathOrNull => "a path in quotes, or `NULL`",
        ArgKind::Text => "a string",
        ArgKind::TextOrNull => "a string, or `NULL`",
        ArgKind::Content => "content in quotes",
        ArgKind::ContentOrResponse => "content in quotes, or `{response=FAN_ALLOW}`",
        ArgKind::Mode => "permission bits in octal: `0644`",
        ArgKind::FileMode => "a type and permission bits: `S_IFIFO|0644`",
        ArgKind::Device => "`makedev(MAJOR, MINOR)` or 0",
        ArgKind::Size | ArgKind::Offset => "a number",
        ArgKind::Timeout => "0",
        ArgKind::Flags(_) => "flags joined by `|`, or 0",
        ArgKind::Choice(_) => "one of the words that the call knows",
        ArgKind::Process => "the name of a process",
        ArgKind::EpollEvent => "`{events=EPOLLIN, data=7}`, or `NULL`",
        ArgKind::Times => "`[{tv_sec=1, tv_nsec=0}, UTIME_OMIT]`, or `NULL`",
        ArgKind::OfCommand => "left out",
    }
}

fn single(value: &Value) -> Option<&Word> {
    match &value.form {
        Form::Words(words) if words.len() == 1 => words.first(),
        _ => None,
    }
}

fn is_word(value: &Value, text: &str) -> bool {
    single(value).is_some_and(|word| word.text == text)
}

fn reference(
    value: &Value,
    range: std::ops::RangeInclusive<i64>,
    problems: &mut Vec<Problem>,
) -> Option<Arg> {
    let word = single(value)?;
    if word.is_number() {
        return number(value, range, "from 0 to 2147483647", problems);
    }
    name(word, problems).map(Arg::Name)
}

fn process(value: &Value, problems: &mut Vec<Problem>) -> Option<Arg> {
    let word = single(value).filter(|word| !word.is_number())?;
    name(word, problems).map(Arg::Name)
}

/// A name in its lexical form; whether it is bound is for the check.
pub(super) fn name(word: &Word, problems: &mut Vec<Problem>) -> Option<Name> {
    let starts = |c: char| c.is_ascii_lowercase() || c == '_';
    let inside = |c: char| starts(c) || c.is_ascii_digit();
    if !word.text.starts_with(starts) || !word.text.chars().all(inside) {
        let problem = ProblemKind::BadName(word.text.clone());
        problems.push(problem.at(word.span.clone()));
        return None;
    }
    if word.text.len() > MAX_NAME {
        problems.push(ProblemKind::NameTooLong.at(word.span.clone()));
        return None;
    }
    Some(Name(word.text.clone()))
}

fn path(value: Value, problems: &mut Vec<Problem>) -> Option<Arg> {
    let Form::Bytes(bytes) = value.form else {
        return None;
    };
    if bytes.contains(&0) {
        problems.push(ProblemKind::NulInPath.at(value.span));
        return None;
    }
    limit(
        bytes.len(),
        MAX_PATH,
        "bytes in a path",
        &value.span,
        problems,
    )?;
    Some(Arg::Bytes(crate::Bytes(bytes)))
}

fn content(value: Value, problems: &mut Vec<Problem>) -> Option<Arg> {
    let Form::Bytes(bytes) = value.form else {
        return None;
    };
    limit(
        bytes.len(),
        MAX_CONTENT,
        "bytes of content",
        &value.span,
        problems,
    )?;
    Some(Arg::Bytes(crate::Bytes(bytes)))
}

fn limit(
    n: usize,
    limit: usize,
    what: &'static str,
    span: &Range<usize>,
    problems: &mut Vec<Problem>,
) -> Option<()> {
    if n > limit {
        problems.push(ProblemKind::Limit { what, limit }.at(span.clone()));
        return None;
    }
    Some(())
}

fn number(
    value: &Value,
    range: std::ops::RangeInclusive<i64>,
    what: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Arg> {
    let word = single(value).filter(|word| word.is_number())?;
    let number = word.number().and_then(|number| i64::try_from(number).ok());
    match number.filter(|number| range.contains(number)) {
        Some(number) => Some(Arg::Int(number)),
        None => {
            problems.push(ProblemKind::NumberOutOfRange(what).at(word.span.clone()));
            None
        }
    }
}

/// Whether a mode may name the type of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Types {
    Taken,
    Refused,
}

fn mode(value: &Value, types: Types, problems: &mut Vec<Problem>) -> Option<Arg> {
    let Form::Words(words) = &value.form else {
        return None;
    };
    let mut mode = None;
    let mut file_type = None;
    for word in words {
        let slot = if word.is_number() {
            &mut mode
        } else {
            &mut file_type
        };
        if slot.is_some() || (!word.is_number() && types == Types::Refused) {
            return None;
        }
        *slot = Some(if word.is_number() {
            permission_bits(word, problems)?
        } else {
            let bits = flags(std::slice::from_ref(word), FlagSet::FileType, problems)?;
            u32::try_from(bits).ok()?
        });
    }
    Some(Arg::Mode(file_type.unwrap_or(0) | mode?))
}

fn permission_bits(word: &Word, problems: &mut Vec<Problem>) -> Option<u32> {
    if !word.text.starts_with('0') {
        let problem = ProblemKind::NoLeadingZero(word.text.clone());
        problems.push(problem.at(word.span.clone()));
        return None;
    }
    let mode = word.number().and_then(|number| u32::try_from(number).ok());
    let mode = mode.filter(|mode| *mode <= 0o7777);
    if mode.is_none() {
        let problem = ProblemKind::NumberOutOfRange("a mode of 0000 to 07777");
        problems.push(problem.at(word.span.clone()));
    }
    mode
}

fn device(value: &Value, problems: &mut Vec<Problem>) -> Option<Arg> {
    if is_word(value, "0") {
        return Some(Arg::Device(0, 0));
    }
    let Form::Call(word, parts) = &value.form else {
        return None;
    };
    let [major, minor] = parts.as_slice() else {
        return None;
    };
    if word.text != "makedev" {
        return None;
    }
    let mut part = |value, max: i64| match number(value, 0..=max, "a device number", problems)? {
        Arg::Int(number) => u32::try_from(number).ok(),
        _ => None,
    };
    Some(Arg::Device(part(major, 0xfff)?, part(minor, 0xf_ffff)?))
}

/// The value of words of a set.
fn flags(words: &[Word], set: FlagSet, problems: &mut Vec<Problem>) -> Option<u64> {
    if set.is_choice() && words.len() > 1 {
        return None;
    }
    let field = set.field_mask();
    let mut has_field = false;
    let mut value = 0;
    let mut is_known = true;
    for (index, word) in words.iter().enumerate() {
        let repeated = words[..index].iter().any(|other| other.text == word.text);
        let bits = match flag(word, set) {
            Ok(_) if repeated => {
                is_known = false;
                let problem = ProblemKind::RepeatedFlag(word.text.clone());
                problems.push(problem.at(word.span.clone()));
                continue;
            }
            Ok(bits) => bits,
            Err(problem) => {
                is_known = false;
                problems.push(problem);
                continue;
            }
        };
        let of_field = field != 0 && bits & !field == 0 && !word.is_number();
        if of_field && has_field {
            is_known = false;
            let problem = ProblemKind::ConflictingFlags(word.text.clone());
            problems.push(problem.at(word.span.clone()));
        }
        has_field |= of_field;
        value |= bits;
    }
    is_known.then_some(value)
}

fn flag(word: &Word, set: FlagSet) -> Result<u64, Problem> {
    if word.is_number() {
        let number = word.number().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| *number <= set.max());
        let out_of_range = ProblemKind::NumberOutOfRange("one that the call can take");
        return number.ok_or_else(|| out_of_range.at(word.span.clone()));
    }
    set.value(&word.text).ok_or_else(|| {
        let names = set.names().map(|(name, _)| name);
        let kind = ProblemKind::UnknownFlag {
            word: word.text.clone(),
            near: nearest(&word.text, names),
            elsewhere: call_that_takes(&word.text),
        };
        kind.at(word.span.clone())
    })
}

/// A call with an argument that this flag can stand in.
fn call_that_takes(flag: &str) -> Option<&'static str> {
    Call::ALL.iter().find_map(|call| {
        let signature = call.signature();
        let takes = signature.args.iter().any(|kind| match kind {
            ArgKind::Flags(set) | ArgKind::Choice(set) => set.value(flag).is_some(),
            _ => false,
        });
        takes.then_some(signature.name)
    })
}

fn response(fields: Vec<(Word, Value)>, problems: &mut Vec<Problem>) -> Option<Arg> {
    let [value] = named(fields, ["response"], problems)?;
    let Form::Words(words) = &value.form else {
        return None;
    };
    let bits = flags(words, FlagSet::FanotifyResponse, problems)?;
    Some(Arg::Response(u32::try_from(bits).ok()?))
}

fn epoll_event(fields: Vec<(Word, Value)>, problems: &mut Vec<Problem>) -> Option<Arg> {
    let [events, data] = named(fields, ["events", "data"], problems)?;
    let Form::Words(words) = &events.form else {
        return None;
    };
    let events = flags(words, FlagSet::EpollEvents, problems)?;
    let word = single(&data)?;
    let number = word.number().and_then(|number| u64::try_from(number).ok());
    if number.is_none() {
        let problem = ProblemKind::NumberOutOfRange("one of 64 bits");
        problems.push(problem.at(word.span.clone()));
    }
    Some(Arg::EpollEvent {
        events: u32::try_from(events).ok()?,
        data: number?,
    })
}

fn time_pair(times: Vec<Value>, problems: &mut Vec<Problem>) -> Option<Arg> {
    let [access, modification]: [Value; 2] = times.try_into().ok()?;
    let access = time(access, problems)?;
    let modification = time(modification, problems)?;
    Some(Arg::Times([access, modification]))
}

fn time(value: Value, problems: &mut Vec<Problem>) -> Option<Time> {
    if is_word(&value, "UTIME_NOW") {
        return Some(Time::Now);
    }
    if is_word(&value, "UTIME_OMIT") {
        return Some(Time::Omit);
    }
    let Form::Struct(fields) = value.form else {
        return None;
    };
    let [sec, nsec] = named(fields, ["tv_sec", "tv_nsec"], problems)?;
    let Arg::Int(sec) = number(&sec, i64::MIN..=i64::MAX, "one of 64 bits", problems)? else {
        return None;
    };
    let Arg::Int(nsec) = number(&nsec, 0..=999_999_999, "below 1000000000", problems)? else {
        return None;
    };
    let nsec = u32::try_from(nsec).ok()?;
    Some(Time::At { sec, nsec })
}

/// The values of a struct, which has to have these fields in this order.
fn named<const N: usize>(
    fields: Vec<(Word, Value)>,
    names: [&'static str; N],
    problems: &mut Vec<Problem>,
) -> Option<[Value; N]> {
    for (name, (word, _)) in names.iter().zip(&fields) {
        if word.text != *name {
            problems.push(ProblemKind::WrongField(name).at(word.span.clone()));
            return None;
        }
    }
    let values: Vec<Value> = fields.into_iter().map(|(_, value)| value).collect();
    values.try_into().ok()
}
