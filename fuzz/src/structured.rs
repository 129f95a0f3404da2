//! Groups that a kernel could have, and one change of their text.

use arbitrary::{Arbitrary, Unstructured};
use fsnotify::fanotify::{EventFlags, InitFlags, MarkFlags, Mask as FanotifyMask};
use fsnotify::fdinfo::check::{check_change, check_group};
use fsnotify::fdinfo::{
    Body, Group, Head, Lock, LockAccess, LockClass, LockFile, Mark, MarkTarget, Watch,
};
use fsnotify::handle::FileHandle;
use fsnotify::inotify::Mask as InotifyMask;
use fsnotify::{Ino, MntId, NsIno, OpenFlags, Sdev, Wd};

/// Raw choices; [`Plan::group`] makes of them what a kernel could have.
#[derive(Arbitrary, Debug)]
struct Plan {
    pos: i64,
    flags: u32,
    mnt_id: Option<i32>,
    ino: Option<u64>,
    locks: Vec<LockPlan>,
    body: BodyPlan,
    change: Change,
}

#[derive(Arbitrary, Debug)]
struct LockPlan {
    number: i64,
    class: u8,
    access: u8,
    pid: i32,
    file: Option<(u32, u32, u64)>,
    range: (i64, Option<i64>),
}

#[derive(Arbitrary, Debug)]
enum BodyPlan {
    None,
    Inotify {
        first_wd: u16,
        watches: Vec<WatchPlan>,
    },
    Fanotify {
        flags: u32,
        event_flags: u32,
        marks: Vec<MarkPlan>,
    },
}

#[derive(Arbitrary, Debug)]
struct WatchPlan {
    ino: u64,
    sdev: u32,
    mask: u32,
    handle: Option<HandlePlan>,
}

#[derive(Arbitrary, Debug)]
struct MarkPlan {
    target: TargetPlan,
    flags: u32,
    mask: u32,
    ignored_mask: u32,
}

#[derive(Arbitrary, Debug)]
enum TargetPlan {
    Inode {
        ino: u64,
        sdev: u32,
        handle: Option<HandlePlan>,
    },
    Mount(u32),
    Filesystem(u32),
    MountNamespace(u32),
}

#[derive(Arbitrary, Debug)]
struct HandlePlan {
    kind: u16,
    words: Vec<u32>,
}

/// One change of the text.
#[derive(Arbitrary, Debug)]
enum Change {
    Byte { at: u16, byte: u8 },
    Insert { at: u16, byte: u8 },
    Remove { at: u16 },
    CutEnd { at: u16 },
    UpperCase { at: u16 },
    SwapLines { first: u8, second: u8 },
    RepeatLine { line: u8 },
    DropLine { line: u8 },
    DropHandle { line: u8 },
    LongerHandle { line: u8 },
    GlueLock { line: u8 },
    HexNamespace { line: u8 },
    UnknownKey { line: u8 },
}

/// Makes a group of the input, and checks it and its changed text.
pub(crate) fn check_structured(input: &[u8]) {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    let group = plan.group();
    check_group(&group);
    let changed = plan.change.apply(group.to_string().as_bytes());
    check_change(&group, &changed);
}

impl Plan {
    fn group(&self) -> Group {
        let body = match &self.body {
            BodyPlan::None => Body::Unstated,
            BodyPlan::Inotify { watches, .. } if watches.is_empty() => Body::Unstated,
            BodyPlan::Inotify { first_wd, watches } => {
                let wds = i32::from(*first_wd) + 1..;
                let watches = wds.zip(watches).map(|(wd, plan)| plan.watch(wd));
                Body::Inotify {
                    watches: watches.collect(),
                }
            }
            BodyPlan::Fanotify {
                flags,
                event_flags,
                marks,
            } => Body::Fanotify {
                flags: InitFlags(*flags),
                event_flags: EventFlags(*event_flags),
                marks: marks_of(marks),
            },
        };
        Group {
            head: Head {
                pos: self.pos,
                flags: OpenFlags(self.flags),
                mnt_id: self.mnt_id,
                ino: self.ino.map(Ino),
            },
            locks: self.locks.iter().map(LockPlan::lock).collect(),
            body,
            unknown: Vec::new(),
        }
    }
}

impl LockPlan {
    fn lock(&self) -> Lock {
        let class = chosen(LockClass::ALL.iter(), self.class);
        let fitting = LockAccess::ALL.iter().filter(|access| access.fits(class));
        let (start, end) = if class.has_range() {
            self.range
        } else {
            (0, None)
        };
        Lock::Shown {
            number: self.number,
            class,
            access: chosen(fitting, self.access),
            pid: self.pid,
            file: self.file.map(|(major, minor, ino)| LockFile {
                major,
                minor,
                ino: Ino(ino),
            }),
            start,
            end,
        }
    }
}

/// One of several, by any number.
fn chosen<'a, T: Copy + 'a>(all: impl Iterator<Item = &'a T> + Clone, choice: u8) -> T {
    let index = usize::from(choice) % all.clone().count();
    *all.clone().nth(index).expect("less than the count")
}

impl WatchPlan {
    fn watch(&self, wd: i32) -> Watch {
        Watch {
            wd: Wd::new(wd).expect("counted from 1"),
            ino: Ino(self.ino),
            sdev: Sdev(self.sdev),
            mask: InotifyMask(self.mask),
            ignored_mask: InotifyMask(0),
            handle: self.handle.as_ref().map(HandlePlan::handle),
        }
    }
}

/// The marks, without a second one on the same object.
fn marks_of(plans: &[MarkPlan]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for mark in plans.iter().map(MarkPlan::mark) {
        let same = |other: &Mark| match (&mark.target, &other.target) {
            (
                MarkTarget::Inode { sdev, handle, .. },
                MarkTarget::Inode {
                    sdev: other_sdev,
                    handle: other_handle,
                    ..
                },
            ) => handle.is_some() && (sdev, handle) == (other_sdev, other_handle),
            (target, other) => target == other,
        };
        if !marks.iter().any(same) {
            marks.push(mark);
        }
    }
    marks
}

impl MarkPlan {
    fn mark(&self) -> Mark {
        let target = match &self.target {
            TargetPlan::Inode { ino, sdev, handle } => MarkTarget::Inode {
                ino: Ino(*ino),
                sdev: Sdev(*sdev),
                handle: handle.as_ref().map(HandlePlan::handle),
            },
            TargetPlan::Mount(id) => MarkTarget::Mount(MntId(id % 0x7fff_ffff + 1)),
            TargetPlan::Filesystem(sdev) => MarkTarget::Filesystem(Sdev(*sdev)),
            TargetPlan::MountNamespace(ino) => MarkTarget::MountNamespace(NsIno(*ino)),
        };
        Mark {
            target,
            flags: MarkFlags(self.flags),
            mask: FanotifyMask(self.mask.into()),
            ignored_mask: FanotifyMask(self.ignored_mask.into()),
        }
    }
}

impl HandlePlan {
    fn handle(&self) -> FileHandle {
        let kind = match self.kind {
            0 | 0xff => 1,
            kind => kind.into(),
        };
        let words = self.words.iter().take(32);
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        if bytes.is_empty() {
            bytes = vec![0; 8];
        }
        FileHandle::new(kind, &bytes).expect("at most 128 bytes")
    }
}

impl Change {
    fn apply(&self, text: &[u8]) -> Vec<u8> {
        let place = |at: &u16| usize::from(*at) % text.len();
        let mut changed = text.to_vec();
        match self {
            Self::Byte { at, byte } => changed[place(at)] = *byte,
            Self::Insert { at, byte } => changed.insert(place(at), *byte),
            Self::Remove { at } => drop(changed.remove(place(at))),
            Self::CutEnd { at } => changed.truncate(place(at)),
            Self::UpperCase { at } => {
                let from = place(at);
                let mut rest = changed[from..].iter_mut();
                if let Some(letter) = rest.find(|byte| byte.is_ascii_lowercase()) {
                    letter.make_ascii_uppercase();
                }
            }
            Self::SwapLines { first, second } => {
                return with_lines(text, |lines| {
                    let n_lines = lines.len();
                    lines.swap(
                        usize::from(*first) % n_lines,
                        usize::from(*second) % n_lines,
                    );
                });
            }
            Self::RepeatLine { line } => {
                return with_lines(text, |lines| {
                    let index = usize::from(*line) % lines.len();
                    lines.insert(index, lines[index].clone());
                });
            }
            Self::DropLine { line } => {
                return with_lines(text, |lines| {
                    lines.remove(usize::from(*line) % lines.len());
                });
            }
            Self::DropHandle { line } => {
                return in_line(text, *line, |line| {
                    line.split("fhandle-bytes").next().map(into)
                });
            }
            Self::LongerHandle { line } => {
                return in_line(text, *line, |line| Some(format!("{line}0")));
            }
            Self::GlueLock { line } => {
                return in_line(text, *line, |line| Some(format!("lock:\t{line}")));
            }
            Self::HexNamespace { line } => {
                return in_line(text, *line, |line| {
                    Some(line.replacen("mnt_ns:", "mnt_ns:f", 1))
                });
            }
            Self::UnknownKey { line } => {
                return in_line(text, *line, |line| {
                    Some(line.replacen("sdev:", "user_ns_id:", 1))
                });
            }
        }
        changed
    }
}

fn into(text: &str) -> String {
    text.to_owned()
}

/// The text with its lines changed; each line is without its line feed.
fn with_lines(text: &[u8], change: impl FnOnce(&mut Vec<String>)) -> Vec<u8> {
    let text = std::str::from_utf8(text).expect("printed text is ASCII");
    let mut lines: Vec<String> = text.lines().map(into).collect();
    change(&mut lines);
    lines
        .iter()
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .into_bytes()
}

fn in_line(text: &[u8], line: u8, change: impl FnOnce(&str) -> Option<String>) -> Vec<u8> {
    with_lines(text, |lines| {
        let index = usize::from(line) % lines.len();
        if let Some(changed) = change(&lines[index]) {
            lines[index] = changed;
        }
    })
}
