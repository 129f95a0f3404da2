//! Lines of `strace -f -o`: which process called what, and what came of it. A call that lines of
//! other processes interrupt is put together, at the place where it began: who reads the event that it
//! makes may be told so before it ends. What waits for others stands where it ended.

use std::collections::HashMap;

/// What a log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Call(Call),
    /// A process or thread is no more.
    Exited(i32),
}

/// A finished call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub pid: i32,
    pub name: String,
    /// As they stand: strings with their quotes, comments taken out.
    pub arguments: Vec<String>,
    /// None: it did not return.
    pub returned: Option<i64>,
    /// Of -1: `ENOENT`.
    pub errno: Option<String>,
}

impl Call {
    pub(super) fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", String::as_str)
    }

    /// What it returned, unless it failed.
    pub(super) fn success(&self) -> Option<i64> {
        self.returned.filter(|value| *value >= 0)
    }
}

/// Calls that may wait for what others do.
const WAITING: [&str; 5] = ["read", "readv", "epoll_wait", "epoll_pwait", "epoll_pwait2"];

/// All finished calls and all exits.
pub(super) fn entries(log: &str) -> Vec<Entry> {
    // Where each interrupted call began, and what of it was seen.
    let mut begun: HashMap<i32, (usize, String)> = HashMap::new();
    let mut entries: Vec<Option<Entry>> = Vec::new();
    for line in log.lines() {
        let Some((pid, rest)) = line.trim_start().split_once(char::is_whitespace) else {
            continue;
        };
        let (Ok(pid), rest) = (pid.parse(), rest.trim_start()) else {
            continue;
        };
        if rest.starts_with("+++ exited") || rest.starts_with("+++ killed") {
            begun.remove(&pid);
            entries.push(Some(Entry::Exited(pid)));
            continue;
        }
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(pid, (entries.len(), start.trim_end().to_owned()));
            entries.push(None);
            continue;
        }
        let Some(resumed) = rest.strip_prefix("<... ") else {
            entries.push(call(pid, rest).map(Entry::Call));
            continue;
        };
        let tail = resumed.split_once(" resumed>").map(|(_, tail)| tail);
        let (Some((place, start)), Some(tail)) = (begun.remove(&pid), tail) else {
            continue;
        };
        let whole = call(pid, &format!("{start}{tail}"));
        match whole {
            Some(call) if WAITING.contains(&call.name.as_str()) => {
                entries.push(Some(Entry::Call(call)));
            }
            whole => entries[place] = whole.map(Entry::Call),
        }
    }
    entries.into_iter().flatten().collect()
}

/// `name(arguments) = result`; none for signals and whatever else is no call.
fn call(pid: i32, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_name) {
        return None;
    }
    let (arguments, rest) = split(rest, ')')?;
    let result = rest.trim_start().strip_prefix('=')?.trim_start();
    let (number, rest) = result.split_once(' ').unwrap_or((result, ""));
    let returned = match number.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => number.parse().ok(),
    };
    let word = rest.split_ascii_whitespace().next();
    Some(Call {
        pid,
        name: name.to_owned(),
        arguments,
        returned,
        errno: word.filter(|_| returned == Some(-1)).map(str::to_owned),
    })
}

/// Splits at the commas outside strings and brackets, up to `end`; what follows `end`, too.
fn split(text: &str, end: char) -> Option<(Vec<String>, &str)> {
    let mut arguments = Vec::new();
    let mut current = String::new();
    let mut depth = 0_usize;
    let mut rest = text;
    loop {
        let c = rest.chars().next()?;
        let mut taken = c.len_utf8();
        match c {
            '"' => {
                taken = string_end(rest)?;
                current.push_str(&rest[..taken]);
            }
            '/' if rest.starts_with("/*") => taken = rest.find("*/")? + 2,
            c if c == end && depth == 0 => {
                let last = current.trim();
                if !last.is_empty() || !arguments.is_empty() {
                    arguments.push(last.to_owned());
                }
                return Some((arguments, &rest[taken..]));
            }
            ',' if depth == 0 => arguments.push(std::mem::take(&mut current).trim().to_owned()),
            c => {
                match c {
                    '(' | '{' | '[' => depth += 1,
                    ')' | '}' | ']' => depth = depth.checked_sub(1)?,
                    _ => {}
                }
                current.push(c);
            }
        }
        rest = &rest[taken..];
    }
}

/// How long the string is that a text begins with, quotes included.
fn string_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The bytes of a string as strace quotes it; none for an address, `NULL`, or a string that it cut.
pub(super) fn string(text: &str) -> Option<Vec<u8>> {
    let end = string_end(text.strip_prefix('"').map(|_| text)?)?;
    if end != text.len() {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = &text.as_bytes()[1..end - 1];
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let [letter, tail @ ..] = rest else {
            return None;
        };
        rest = tail;
        bytes.push(match letter {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'r' => b'\r',
            b'x' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            b'0'..=b'7' => {
                let mut value = u32::from(letter - b'0');
                for _ in 0..2 {
                    let [digit @ b'0'..=b'7', tail @ ..] = rest else {
                        break;
                    };
                    value = value * 8 + u32::from(digit - b'0');
                    rest = tail;
                }
                u8::try_from(value).ok()?
            }
            other => *other,
        });
    }
    Some(bytes)
}

/// The items of `[a, b]`, or the fields of `{a=1, b=2}`.
pub(super) fn items(text: &str) -> Vec<String> {
    let (end, inner) = match (text.strip_prefix('['), text.strip_prefix('{')) {
        (Some(inner), _) => (']', inner),
        (_, Some(inner)) => ('}', inner),
        (None, None) => return Vec::new(),
    };
    split(inner, end).map_or_else(Vec::new, |(items, _)| items)
}

/// A field of `{a=1, b=2}`.
pub(super) fn field(text: &str, name: &str) -> Option<String> {
    let items = items(text).into_iter();
    let mut fields = items.filter_map(|item| {
        let (own, value) = item.split_once('=')?;
        (own == name).then(|| value.to_owned())
    });
    fields.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, arguments, result, error.
    type Expected<'a> = (&'a str, &'a [&'a str], Option<i64>, Option<&'a str>);

    fn check(log: &str, expected: &[Expected<'_>]) {
        let found: Vec<Call> = entries(log)
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Call(call) => Some(call),
                Entry::Exited(_) => None,
            })
            .collect();
        let seen: Vec<_> = found
            .iter()
            .map(|call| {
                let arguments: Vec<&str> = call.arguments.iter().map(String::as_str).collect();
                let errno = call.errno.as_deref();
                (call.name.as_str(), arguments, call.returned, errno)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, arguments, returned, errno)| {
                (*name, arguments.to_vec(), *returned, *errno)
            })
            .collect();
        assert_eq!(seen, expected, "{log}");
    }

    #[test]
    fn a_line_is_a_call_with_arguments_and_result() {
        check(
            "7 mkdir(\"a, (b)\", 0777) = 0\n",
            &[("mkdir", &["\"a, (b)\"", "0777"], Some(0), None)],
        );
        check(
            "7     openat(AT_FDCWD, \"g\\\"\", O_RDONLY) = -1 ENOENT (No such file or directory)\n",
            &[(
                "openat",
                &["AT_FDCWD", "\"g\\\"\"", "O_RDONLY"],
                Some(-1),
                Some("ENOENT"),
            )],
        );
        check(
            "7 epoll_ctl(4, EPOLL_CTL_ADD, 3, {events=EPOLLIN, data={u32=3, u64=3}}) = 0\n",
            &[(
                "epoll_ctl",
                &[
                    "4",
                    "EPOLL_CTL_ADD",
                    "3",
                    "{events=EPOLLIN, data={u32=3, u64=3}}",
                ],
                Some(0),
                None,
            )],
        );
        check(
            "7 execve(\"sh\", [\"a,b\", \"c\"], 0x7ffe /* 35 vars, all */) = 0\n",
            &[(
                "execve",
                &["\"sh\"", "[\"a,b\", \"c\"]", "0x7ffe"],
                Some(0),
                None,
            )],
        );
        check("7 getpid() = 7\n", &[("getpid", &[], Some(7), None)]);
        check(
            "7 exit_group(0) = ?\n",
            &[("exit_group", &["0"], None, None)],
        );
        check(
            "7 read(3, 0x55, 65536) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)\n",
            &[("read", &["3", "0x55", "65536"], None, None)],
        );
    }

    #[test]
    fn what_is_no_call_is_passed_over() {
        for line in [
            "",
            "7",
            "7 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED} ---",
            "7 <... read resumed>\"\", 4) = 0",
            "strace: Process 8 attached",
            "7 read(3, \"cut",
            "7 read(3, [)] = 1",
            "7 ????( = 0",
        ] {
            check(line, &[]);
        }
    }

    #[test]
    fn an_interrupted_call_stands_where_it_began_unless_it_waits() {
        let log = "\
7 read(3,  <unfinished ...>
8 mkdir(\"a\", 0777) = 0
9 vfork( <unfinished ...>
7 <... read resumed>\"\\1\\0\", 655) = 48
9 <... vfork resumed>) = 10
8 close(3 <unfinished ...>
8 <... close resumed>) = 0
9 read(0,  <unfinished ...>
9 +++ killed by SIGKILL +++
8 +++ exited with 0 +++
";
        check(
            log,
            &[
                ("mkdir", &["\"a\"", "0777"], Some(0), None),
                ("vfork", &[], Some(10), None),
                ("read", &["3", "\"\\1\\0\"", "655"], Some(48), None),
                ("close", &["3"], Some(0), None),
            ],
        );
        let exits: Vec<Entry> = entries(log)
            .into_iter()
            .filter(|entry| matches!(entry, Entry::Exited(_)))
            .collect();
        assert_eq!(exits, [Entry::Exited(9), Entry::Exited(8)]);
    }

    #[test]
    fn strings_are_bytes() {
        let check = |text: &str, expected: Option<&[u8]>| {
            assert_eq!(string(text).as_deref(), expected, "{text}");
        };
        check("\"\"", Some(b""));
        check("\"a b\"", Some(b"a b"));
        check("\"\\x61\\xff\\x00\"", Some(b"a\xff\0"));
        check("\"\\1\\0\\177\\n\\t\\\"\\\\\"", Some(b"\x01\0\x7f\n\t\"\\"));
        check("\"\\0019\"", Some(b"\x019"));
        check("NULL", None);
        check("0x7ffe", None);
        check("\"cut\"...", None);
        check("\"\\x6\"", None);
        check("\"open", None);
        check("\"\\777\"", None);
    }

    #[test]
    fn structures_have_fields() {
        let event = "{events=EPOLLIN|EPOLLET, data={u32=3, u64=9}}";
        assert_eq!(field(event, "events").as_deref(), Some("EPOLLIN|EPOLLET"));
        let data = field(event, "data").unwrap();
        assert_eq!(field(&data, "u64").as_deref(), Some("9"));
        assert_eq!(field(event, "no"), None);
        let vector = "[{iov_base=\"a, b\", iov_len=4}, {iov_base=\"c\", iov_len=1}]";
        assert_eq!(items(vector).len(), 2);
        assert_eq!(items("NULL"), Vec::<String>::new());
        assert_eq!(items("[]"), Vec::<String>::new());
    }
}
