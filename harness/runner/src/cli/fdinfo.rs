//! `notifreeze fdinfo`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level as Severity, Renderer, Snippet};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use fsnotify::counted;
use fsnotify::fdinfo::{
    Body, Group, Kind, Level, Lines, Lock, MAX_TEXT, Mark, MarkTarget, Options, ParseError, Watch,
    audit,
};
use fsnotify::handle::FileHandle;
use fsnotify::{Ino, Sdev};
use serde_json::{Map, Value, json};

/// What to read, and how to show it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file with a text of fdinfo, a descriptor of a process (`PID:FD`), or `-` for standard
    /// input.
    #[arg(value_name = "FILE|PID:FD|-")]
    source: String,
    /// Refuse everything that no known kernel prints.
    #[arg(long)]
    strict: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "print")]
    json: bool,
    /// Print the text as the kernel would.
    #[arg(long)]
    print: bool,
}

/// Where a text comes from.
enum Source {
    File(PathBuf),
    Descriptor { pid: u32, fd: u32 },
    Standard,
}

/// A text, what to call it, and the kind that its descriptor's link states.
struct Text {
    name: String,
    bytes: Vec<u8>,
    kind: Option<Kind>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let text = Source::of(&args.source).read()?;
    let level = if args.strict {
        Level::Strict
    } else {
        Level::Lenient
    };
    let options = Options {
        kind: text.kind,
        ..Options::new(level)
    };
    let group = match Group::parse_with(&text.bytes, options) {
        Ok(group) => group,
        Err(error) => {
            anstream::eprintln!("{}", refusal(&text, &error));
            return Ok(crate::EXIT_USAGE);
        }
    };
    let output = if args.print {
        group.to_string()
    } else if args.json {
        format!("{:#}\n", json_of(&group))
    } else {
        table_of(&group)
    };
    let mut stdout = anstream::stdout();
    match stdout
        .write_all(output.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(crate::EXIT_OK),
        result => result.map_err(|error| format!("standard output: {error}"))?,
    }
    for remark in remarks(&text, options, &group) {
        anstream::eprintln!("{}: {remark}", text.name);
    }
    Ok(crate::EXIT_OK)
}

impl Source {
    /// `PID:FD` unless there is a file of that name.
    fn of(argument: &str) -> Self {
        if argument == "-" {
            return Self::Standard;
        }
        let path = PathBuf::from(argument);
        let numbers = argument.split_once(':').and_then(|(pid, fd)| {
            let (pid, fd) = (pid.parse().ok()?, fd.parse().ok()?);
            Some(Self::Descriptor { pid, fd })
        });
        match numbers {
            Some(descriptor) if !path.exists() => descriptor,
            Some(_) | None => Self::File(path),
        }
    }

    fn read(self) -> Result<Text, String> {
        match self {
            Self::Standard => {
                let bytes = read_limited(io::stdin().lock());
                let name = "standard input".to_owned();
                let bytes = bytes.map_err(|error| format!("{name}: {error}"))?;
                let kind = None;
                Ok(Text { name, bytes, kind })
            }
            Self::File(path) => {
                let name = path.display().to_string();
                let bytes = File::open(&path).and_then(read_limited);
                let bytes = bytes.map_err(|error| format!("{name}: {error}"))?;
                let kind = None;
                Ok(Text { name, bytes, kind })
            }
            Self::Descriptor { pid, fd } => read_descriptor(pid, fd),
        }
    }
}

/// One byte more than the reader takes is enough for it to refuse the text.
fn read_limited(source: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_TEXT).expect("a length") + 1;
    source.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a live descriptor. The kernel looks its number up at every read, so the link is
/// compared before and after.
fn read_descriptor(pid: u32, fd: u32) -> Result<Text, String> {
    let name = format!("/proc/{pid}/fdinfo/{fd}");
    let link = format!("/proc/{pid}/fd/{fd}");
    let failed = |path: &str| {
        let path = path.to_owned();
        move |error: io::Error| format!("{path}: {error}")
    };
    let before = fs::read_link(&link).map_err(failed(&link))?;
    let kind = kind_of(&before)
        .ok_or_else(|| format!("{link}: {}: neither inotify nor fanotify", before.display()))?;
    let bytes = File::open(&name)
        .and_then(read_limited)
        .map_err(failed(&name))?;
    let after = fs::read_link(&link).map_err(failed(&link))?;
    if after != before {
        return Err(format!("{link}: became {} meanwhile", after.display()));
    }
    let kind = Some(kind);
    Ok(Text { name, bytes, kind })
}

fn kind_of(link: &Path) -> Option<Kind> {
    match link.to_str()? {
        "anon_inode:inotify" => Some(Kind::Inotify),
        "anon_inode:[fanotify]" => Some(Kind::Fanotify),
        _ => None,
    }
}

/// The error in its line; without the line where the text is no text.
fn refusal(text: &Text, error: &ParseError) -> String {
    let line = text.bytes.split(|byte| *byte == b'\n').nth(error.line - 1);
    let line: String = String::from_utf8_lossy(line.unwrap_or_default())
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    let mut offsets = line.char_indices().map(|(at, _)| at);
    let start = offsets.nth(error.column - 1).unwrap_or(line.len());
    let word = line[start..].split(' ').next().unwrap_or_default().len();
    let end = start + word;
    let field = if error.field.is_empty() {
        String::new()
    } else {
        format!("{}: ", error.field)
    };
    let title = format!("{field}{}", error.kind.sentence());
    let snippet = Snippet::source(&line)
        .path(&text.name)
        .line_start(error.line)
        .annotation(AnnotationKind::Primary.span(start..end));
    let report = Severity::ERROR.primary_title(title).element(snippet);
    let renderer = Renderer::styled().decor_style(DecorStyle::Ascii);
    renderer.render(&[report])
}

/// What is odd about a text that was read all the same.
fn remarks(text: &Text, options: Options, group: &Group) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut lines = Lines::with(&text.bytes, options);
    while lines.next().is_some() {
        if let Some(tolerance) = lines.tolerance() {
            remarks.push(format!("line {}: {tolerance}", lines.line_number()));
        }
    }
    let unknown = group.unknown.iter();
    remarks.extend(unknown.map(|unknown| format!("not understood: {}", unknown.text)));
    remarks.extend(audit(group).iter().map(ToString::to_string));
    if group.body == Body::Unstated {
        let reason = "no line tells what kind of descriptor this is; an inotify descriptor without \
                      watches looks so";
        remarks.push(reason.to_owned());
    }
    remarks
}

fn table_of(group: &Group) -> String {
    let head = &group.head;
    let mut output = format!("flags {}", head.flags);
    if let Body::Fanotify {
        flags, event_flags, ..
    } = &group.body
    {
        output += &format!("\nfanotify_init({flags}, {event_flags})");
    }
    output += "\n";
    let mut table = Table::new();
    table.load_preset(NOTHING);
    match &group.body {
        Body::Unstated => {}
        Body::Inotify { watches } => {
            output += &format!("{} of inotify\n", counted(watches.len(), "watch"));
            table.set_header(["wd", "mask", "inode", "device", "handle"]);
            for watch in watches {
                table.add_row(watch_row(watch));
            }
        }
        Body::Fanotify { marks, .. } => {
            output += &format!("{} of fanotify\n", counted(marks.len(), "mark"));
            table.set_header(["on", "mask", "ignored mask", "flags", "handle"]);
            for mark in marks {
                table.add_row(mark_row(mark));
            }
        }
    }
    for lock in &group.locks {
        output += &lock.to_string();
    }
    if table.row_count() > 0 {
        let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
        output.extend(lines);
    }
    output
}

fn watch_row(watch: &Watch) -> [String; 5] {
    [
        watch.wd.to_string(),
        watch.mask.to_string(),
        watch.ino.0.to_string(),
        device(watch.sdev),
        handle_cell(watch.handle.as_ref()),
    ]
}

fn mark_row(mark: &Mark) -> [String; 5] {
    let (target, handle) = match &mark.target {
        MarkTarget::Inode { ino, sdev, handle } => {
            let target = format!("inode {} of {}", ino.0, device(*sdev));
            (target, handle_cell(handle.as_ref()))
        }
        MarkTarget::Mount(mnt_id) => (format!("mount {}", mnt_id.0), String::new()),
        MarkTarget::Filesystem(sdev) => (format!("filesystem {}", device(*sdev)), String::new()),
        MarkTarget::MountNamespace(mnt_ns) => {
            (format!("mount namespace {}", mnt_ns.0), String::new())
        }
    };
    let (mask, ignored_mask) = (mark.mask.to_string(), mark.ignored_mask.to_string());
    [target, mask, ignored_mask, mark.flags.to_string(), handle]
}

fn device(sdev: Sdev) -> String {
    format!("{}:{}", sdev.major(), sdev.minor())
}

fn handle_cell(handle: Option<&FileHandle>) -> String {
    handle.map_or_else(|| "none".to_owned(), ToString::to_string)
}

/// Numbers as numbers; names beside them, where there are names.
fn json_of(group: &Group) -> Value {
    let head = &group.head;
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
    set("pos", json!(head.pos));
    set("flags", flags(head.flags.0.into(), head.flags));
    set("mnt_id", json!(head.mnt_id));
    set("ino", json!(head.ino.map(|Ino(ino)| ino)));
    set("locks", group.locks.iter().map(lock_json).collect());
    match &group.body {
        Body::Unstated => set("kind", Value::Null),
        Body::Inotify { watches } => {
            set("kind", json!("inotify"));
            set("watches", watches.iter().map(watch_json).collect())
        }
        Body::Fanotify {
            flags: init,
            event_flags,
            marks,
        } => {
            set("kind", json!("fanotify"));
            set("init_flags", flags(init.0.into(), init));
            set("event_flags", flags(event_flags.0.into(), event_flags));
            set("marks", marks.iter().map(mark_json).collect())
        }
    };
    let unknown = group.unknown.iter().map(|unknown| json!(unknown.text));
    set("unknown", unknown.collect());
    Value::Object(object)
}

fn flags(bits: u64, names: impl ToString) -> Value {
    json!({ "bits": bits, "names": names.to_string() })
}

/// Null for a lock of which the kernel told nothing.
fn lock_json(lock: &Lock) -> Value {
    let Lock::Shown {
        number,
        class,
        access,
        pid,
        file,
        start,
        end,
    } = lock
    else {
        return Value::Null;
    };
    let file =
        file.map(|file| json!({ "major": file.major, "minor": file.minor, "ino": file.ino.0 }));
    json!({
        "number": number,
        "class": class.text().trim_end(),
        "access": access.text().trim_end(),
        "pid": pid,
        "file": file,
        "start": start,
        "end": end,
    })
}

fn watch_json(watch: &Watch) -> Value {
    json!({
        "wd": watch.wd.number(),
        "ino": watch.ino.0,
        "sdev": sdev_json(watch.sdev),
        "mask": flags(watch.mask.0.into(), watch.mask),
        "ignored_mask": flags(watch.ignored_mask.0.into(), watch.ignored_mask),
        "handle": watch.handle.as_ref().map(handle_json),
    })
}

fn mark_json(mark: &Mark) -> Value {
    let target = match &mark.target {
        MarkTarget::Inode { ino, sdev, handle } => json!({
            "inode": {
                "ino": ino.0,
                "sdev": sdev_json(*sdev),
                "handle": handle.as_ref().map(handle_json),
            },
        }),
        MarkTarget::Mount(mnt_id) => json!({ "mount": mnt_id.0 }),
        MarkTarget::Filesystem(sdev) => json!({ "filesystem": sdev_json(*sdev) }),
        MarkTarget::MountNamespace(mnt_ns) => json!({ "mount_namespace": mnt_ns.0 }),
    };
    json!({
        "target": target,
        "flags": flags(mark.flags.0.into(), mark.flags),
        "mask": flags(mark.mask.0, mark.mask),
        "ignored_mask": flags(mark.ignored_mask.0, mark.ignored_mask),
    })
}

fn sdev_json(sdev: Sdev) -> Value {
    json!({ "number": sdev.0, "major": sdev.major(), "minor": sdev.minor() })
}

fn handle_json(handle: &FileHandle) -> Value {
    let bytes: String = handle
        .bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({ "type": handle.kind(), "bytes": bytes })
}
