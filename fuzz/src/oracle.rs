//! An independent reading of fdinfo: slow, and obviously right.
//!
//! The grammar is written down here a second time, as one regular expression for each kind of line,
//! and numbers are parsed by the standard library. Nothing is shared with the reader but its result.

use std::collections::HashSet;
use std::sync::LazyLock;

use fsnotify::fdinfo::{Body, Group, Level, Lock, Mark, MarkTarget, Watch};
use fsnotify::handle::FileHandle;
use regex::{Captures, Regex};

/// A line: its first word, its numbers in order, and its handle.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    kind: &'static str,
    numbers: Vec<i128>,
    handle: Option<(i128, Vec<u8>)>,
}

/// The strict level accepts what the oracle accepts, and understands it the same.
pub(crate) fn check_against_oracle(text: &[u8]) {
    let group = Group::parse(text, Level::Strict);
    let expected = read(text);
    match (&group, &expected) {
        (Ok(group), Some(expected)) => assert_eq!(&rows_of(group), expected),
        (Ok(_), None) => panic!("strict accepts what the oracle refuses"),
        (Err(error), Some(_)) => panic!("strict refuses what the oracle accepts: {error}"),
        (Err(_), None) => {}
    }
}

/// How the numbers of a line are written.
#[derive(Clone, Copy)]
enum Base {
    Hex,
    Decimal,
    Octal,
}

/// One kind of line: its name, its expression, and the base and largest value of each number.
struct Form {
    kind: &'static str,
    expression: Regex,
    numbers: &'static [(Base, i128)],
}

const U31: i128 = 0x7fff_ffff;
const U32: i128 = 0xffff_ffff;
const I64: i128 = i64::MAX as i128;
const U64: i128 = u64::MAX as i128;

const TAIL: &str = " mflags:HEX mask:HEX ignored_mask:HEX";
const HANDLE: &str =
    " (?:fhandle-bytes:(?<bytes>HEX0) fhandle-type:(?<type>HEX0) f_handle:(?<handle>[0-9a-f]*))?";
const RANGED: &str = r"(?:POSIX |OFDLCK|ACCESS) (?:ADVISORY |MANDATORY|\*NOINODE\*)";
const WHOLE: &str =
    "FLOCK  ADVISORY |(?:LEASE|DELEG)  (?:ACTIVE   |BREAKING |BREAKER  )|UNKNOWN UNKNOWN ";
const PLACE: &str = "(?:(?:0[0-9a-f]|[1-9a-f][0-9a-f]{1,7}):(?:0[0-9a-f]|[1-9a-f][0-9a-f]{1,7}):(?<ino>DEC0)|<none>:0)";

static HEAD: LazyLock<[Form; 4]> = LazyLock::new(|| {
    use Base::{Decimal, Octal};
    [
        form("pos", "pos:\tINT", &[(Decimal, I64)]),
        form("flags", "flags:\t0(0|[1-7][0-7]*)", &[(Octal, U32)]),
        form("mnt_id", "mnt_id:\tINT", &[(Decimal, U31)]),
        form("ino", "ino:\tDEC", &[(Decimal, U64)]),
    ]
});

static LOCK: LazyLock<[Form; 3]> = LazyLock::new(|| {
    use Base::Decimal;
    let number = (Decimal, I64);
    let pid = (Decimal, U31);
    let ranged = format!("lock:\tINT: {RANGED} (?:READ|WRITE|UNLCK) INT {PLACE} INT (?:INT|EOF)");
    let whole = format!("lock:\tINT: (?:{WHOLE}) (?:READ|WRITE|UNLCK) INT {PLACE} 0 EOF");
    let ms_nfs =
        format!("lock:\tINT: FLOCK  MSNFS     (?:READ |WRITE|RW   |NONE ) INT {PLACE} 0 EOF");
    [
        form(
            "lock",
            &ranged,
            Box::leak(Box::new([number, pid, number, number])),
        ),
        form("lock", &whole, Box::leak(Box::new([number, pid]))),
        form("lock", &ms_nfs, Box::leak(Box::new([number, pid]))),
    ]
});

static BODY: LazyLock<[Form; 6]> = LazyLock::new(|| {
    use Base::{Decimal, Hex};
    const H: (Base, i128) = (Hex, U32);
    const INO: (Base, i128) = (Hex, U64);
    let watch = format!("inotify wd:HEX ino:HEX sdev:HEX mask:HEX ignored_mask:0{HANDLE}");
    let inode = format!("fanotify ino:HEX sdev:HEX{TAIL}{HANDLE}");
    let mount = format!("fanotify mnt_id:HEX{TAIL}");
    let filesystem = format!("fanotify sdev:HEX{TAIL}");
    let namespace = format!("fanotify mnt_ns:DEC{TAIL}");
    [
        form("watch", &watch, &[(Hex, U31), INO, H, H]),
        form("group", "fanotify flags:HEX event-flags:HEX", &[H, H]),
        form("inode", &inode, &[INO, H, H, H, H]),
        form("mount", &mount, &[(Hex, U31), H, H, H]),
        form("filesystem", &filesystem, &[H, H, H, H]),
        form("namespace", &namespace, &[(Decimal, U32), H, H, H]),
    ]
});

/// Words in capitals stand for numbers; the ones that end in 0 are in a group of their own already.
fn form(kind: &'static str, pattern: &str, numbers: &'static [(Base, i128)]) -> Form {
    let pattern = pattern
        .replace("HEX0", "(?:0|[1-9a-f][0-9a-f]*)")
        .replace("DEC0", "(?:0|[1-9][0-9]*)")
        .replace("HEX", "(0|[1-9a-f][0-9a-f]*)")
        .replace("DEC", "(0|[1-9][0-9]*)")
        .replace("INT", "(0|-?[1-9][0-9]*)");
    let expression = Regex::new(&format!("^(?:{pattern})$")).expect("an expression");
    Form {
        kind,
        expression,
        numbers,
    }
}

impl Form {
    /// The row of a line of this kind: every number within its limit, a handle that is one.
    fn read(&self, line: &str) -> Option<Row> {
        let captures = self.expression.captures(line)?;
        let named = ["bytes", "type", "handle", "ino"];
        let named: Vec<_> = named
            .iter()
            .filter_map(|name| captures.name(name))
            .collect();
        let plain = captures.iter().skip(1).flatten();
        let plain = plain.filter(|found| !named.contains(found));
        let mut numbers = Vec::new();
        for (found, (base, limit)) in plain.zip(self.numbers) {
            let radix = match base {
                Base::Hex => 16,
                Base::Decimal => 10,
                Base::Octal => 8,
            };
            let number = i128::from_str_radix(found.as_str(), radix).ok()?;
            if number > *limit || number < -limit - 1 {
                return None;
            }
            numbers.push(number);
        }
        if let Some(ino) = captures.name("ino") {
            ino.as_str().parse::<u64>().ok()?;
        }
        Some(Row {
            kind: self.kind,
            numbers,
            handle: handle(&captures)?,
        })
    }
}

/// None: a handle that is none. Some(None): there is no handle.
fn handle(captures: &Captures<'_>) -> Option<Option<(i128, Vec<u8>)>> {
    let Some(digits) = captures.name("handle") else {
        return Some(None);
    };
    let length = u32::from_str_radix(&captures["bytes"], 16).ok()?;
    let kind = i128::from_str_radix(&captures["type"], 16).ok()?;
    let pairs = digits.as_str().as_bytes().chunks(2);
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = pairs.map(pair).collect::<Option<Vec<u8>>>()?;
    let fits = length as usize * 2 == digits.len();
    let size_is_right = [4, 8, 12, 16, 20, 24, 28, 32].contains(&length)
        || (36..=128).step_by(4).any(|size| size == length);
    let type_is_right = kind != 0 && kind != 0xff && kind <= 0xffff;
    (fits && size_is_right && type_is_right).then_some(Some((kind, bytes)))
}

/// The rows of a text, if it is one.
fn read(text: &[u8]) -> Option<Vec<Row>> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.strip_suffix('\n')?;
    let mut lines = text.split('\n').peekable();
    let mut rows = Vec::new();
    for (index, form) in HEAD.iter().enumerate() {
        match lines.peek().and_then(|line| form.read(line)) {
            Some(row) => {
                rows.push(row);
                lines.next();
            }
            None if index < 2 => return None,
            None => {}
        }
    }
    while let Some(line) = lines.next_if(|line| line.starts_with("lock:")) {
        rows.push(LOCK.iter().find_map(|form| form.read(line))?);
    }
    let n_before = rows.len();
    for line in lines {
        rows.push(BODY.iter().find_map(|form| form.read(line))?);
    }
    body_is_right(&rows[n_before..]).then_some(rows)
}

/// Rules between lines, and values that no line can have.
fn body_is_right(body: &[Row]) -> bool {
    let zero_id = |row: &Row| matches!(row.kind, "watch" | "mount") && row.numbers[0] == 0;
    if body.iter().any(zero_id) {
        return false;
    }
    let n_watches = body.iter().filter(|row| row.kind == "watch").count();
    if n_watches > 0 {
        let wds: HashSet<i128> = body.iter().map(|row| row.numbers[0]).collect();
        return n_watches == body.len() && wds.len() == n_watches;
    }
    let Some((group, marks)) = body.split_first() else {
        return true;
    };
    let mut objects = HashSet::new();
    let is_new = |row: &Row| match (row.kind, &row.handle) {
        ("inode", Some(handle)) => objects.insert((row.kind, row.numbers[1], handle.clone())),
        ("inode", None) => true,
        _ => objects.insert((row.kind, row.numbers[0], (0, Vec::new()))),
    };
    group.kind == "group" && marks.iter().all(|row| row.kind != "group") && marks.iter().all(is_new)
}

/// What the reader understood, in the oracle's terms.
fn rows_of(group: &Group) -> Vec<Row> {
    let mut rows = vec![
        row("pos", [group.head.pos.into()]),
        row("flags", [group.head.flags.0.into()]),
    ];
    rows.extend(
        group
            .head
            .mnt_id
            .map(|mnt_id| row("mnt_id", [mnt_id.into()])),
    );
    rows.extend(group.head.ino.map(|ino| row("ino", [ino.0.into()])));
    rows.extend(group.locks.iter().map(lock_row));
    match &group.body {
        Body::Unstated => {}
        Body::Inotify { watches } => rows.extend(watches.iter().map(watch_row)),
        Body::Fanotify {
            flags,
            event_flags,
            marks,
        } => {
            rows.push(row("group", [flags.0.into(), event_flags.0.into()]));
            rows.extend(marks.iter().map(mark_row));
        }
    }
    rows
}

fn row<const N: usize>(kind: &'static str, numbers: [i128; N]) -> Row {
    Row {
        kind,
        numbers: numbers.to_vec(),
        handle: None,
    }
}

fn lock_row(lock: &Lock) -> Row {
    let Lock::Shown {
        number,
        pid,
        start,
        end,
        class,
        ..
    } = lock
    else {
        panic!("a hidden lock, though none was announced");
    };
    let mut row = row("lock", [(*number).into(), (*pid).into()]);
    if class.has_range() {
        row.numbers.push((*start).into());
        row.numbers.extend(end.map(i128::from));
    }
    row
}

fn watch_row(watch: &Watch) -> Row {
    let numbers = [
        watch.wd.number().into(),
        watch.ino.0.into(),
        watch.sdev.0.into(),
        watch.mask.0.into(),
    ];
    Row {
        handle: watch.handle.as_ref().map(handle_row),
        ..row("watch", numbers)
    }
}

fn mark_row(mark: &Mark) -> Row {
    let mut row = match &mark.target {
        MarkTarget::Inode { ino, sdev, handle } => Row {
            handle: handle.as_ref().map(handle_row),
            ..row("inode", [ino.0.into(), sdev.0.into()])
        },
        MarkTarget::Mount(mnt_id) => row("mount", [mnt_id.0.into()]),
        MarkTarget::Filesystem(sdev) => row("filesystem", [sdev.0.into()]),
        MarkTarget::MountNamespace(mnt_ns) => row("namespace", [mnt_ns.0.into()]),
    };
    let tail = [
        mark.flags.0.into(),
        mark.mask.0.into(),
        mark.ignored_mask.0.into(),
    ];
    row.numbers.extend::<[i128; 3]>(tail);
    row
}

fn handle_row(handle: &FileHandle) -> (i128, Vec<u8>) {
    (handle.kind().into(), handle.bytes().to_vec())
}
