//! A whole text, collected.

use std::collections::HashSet;

use crate::fanotify::{EventFlags, InitFlags};
use crate::handle::FileHandle;
use crate::{Ino, MntId, NsIno, OpenFlags, Sdev, Wd};

use super::error::{ErrorKind, Excerpt};
use super::{Kind, Level, Line, Lines, Lock, Mark, MarkTarget, Options, ParseError, Watch};

/// A group as fdinfo shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub head: Head,
    /// Locks on the descriptor itself.
    pub locks: Vec<Lock>,
    pub body: Body,
    /// Lines that are not understood, in the order of the text; always empty at the strict level.
    /// Who acts on a group has to refuse it unless this is empty.
    pub unknown: Vec<Unknown>,
}

/// The lines that every fdinfo file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub pos: i64,
    /// State of the descriptor now; the flags of a fanotify group are what it began with.
    pub flags: OpenFlags,
    /// Since 3.15.
    pub mnt_id: Option<i32>,
    /// Since 5.14.
    pub ino: Option<Ino>,
}

/// The lines of one kind of group, in the order of the text: newest mark first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// No line tells the kind, and the caller did not state it: inotify without watches looks so,
    /// and so does a descriptor of any other kind.
    Unstated,
    Inotify {
        watches: Vec<Watch>,
    },
    Fanotify {
        flags: InitFlags,
        event_flags: EventFlags,
        marks: Vec<Mark>,
    },
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub kind: UnknownKind,
    /// How many lines stand before it.
    pub index: usize,
    /// The line without its line feed.
    pub text: String,
}

/// Where an unknown line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnknownKind {
    /// `key:<TAB>value` before the body.
    Head,
    /// `inotify` or `fanotify` with an unknown first key.
    Mark,
    /// Anything else.
    Line,
}

impl Group {
    /// Reads a whole text with default limits; the kind is what the lines tell.
    ///
    /// # Errors
    ///
    /// The first [`ParseError`] of [`Lines`], or two lines for one watch descriptor or object.
    pub fn parse(text: &[u8], level: Level) -> Result<Self, ParseError> {
        Self::parse_with(text, Options::new(level))
    }

    /// Reads a whole text of a descriptor whose link states its kind.
    ///
    /// # Errors
    ///
    /// As [`Group::parse`], and lines of another kind.
    pub fn parse_as(text: &[u8], kind: Kind, level: Level) -> Result<Self, ParseError> {
        let kind = Some(kind);
        Self::parse_with(
            text,
            Options {
                kind,
                ..Options::new(level)
            },
        )
    }

    /// Reads a whole text.
    ///
    /// # Errors
    ///
    /// As [`Group::parse`].
    pub fn parse_with(text: &[u8], options: Options) -> Result<Self, ParseError> {
        let mut builder = Builder::new(options.kind);
        let mut lines = Lines::with(text, options);
        while let Some(line) = lines.next_apart() {
            builder.add(&line?, lines.line_number())?;
        }
        Ok(builder.group)
    }

    /// The lines of the text, unknown ones at their places.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let mut known = self.known_lines();
        let mut unknown = self.unknown.iter().peekable();
        let mut index = 0;
        std::iter::from_fn(move || {
            let here = unknown.next_if(|unknown| unknown.index <= index);
            let line = match here {
                Some(unknown) => Some(unknown.line()),
                None => known.next().or_else(|| unknown.next().map(Unknown::line)),
            };
            index += 1;
            line
        })
    }

    fn known_lines(&self) -> impl Iterator<Item = Line<'_>> {
        let Head {
            pos,
            flags,
            mnt_id,
            ino,
        } = self.head;
        let head = [Line::Pos(pos), Line::Flags(flags)].into_iter();
        let head = head
            .chain(mnt_id.map(Line::MntId))
            .chain(ino.map(Line::Ino));
        let (group, watches, marks) = match &self.body {
            Body::Unstated => (None, &[][..], &[][..]),
            Body::Inotify { watches } => (None, &watches[..], &[][..]),
            Body::Fanotify {
                flags,
                event_flags,
                marks,
            } => {
                let (flags, event_flags) = (*flags, *event_flags);
                (
                    Some(Line::Group { flags, event_flags }),
                    &[][..],
                    &marks[..],
                )
            }
        };
        head.chain(self.locks.iter().copied().map(Line::Lock))
            .chain(group)
            .chain(watches.iter().copied().map(Line::Watch))
            .chain(marks.iter().copied().map(Line::Mark))
    }
}

impl Unknown {
    fn line(&self) -> Line<'_> {
        match self.kind {
            UnknownKind::Head => Line::UnknownHead(&self.text),
            UnknownKind::Mark => Line::UnknownMark(&self.text),
            UnknownKind::Line => Line::Unknown(&self.text),
        }
    }
}

/// A group under construction.
struct Builder {
    group: Group,
    n_lines: usize,
    wds: HashSet<Wd>,
    targets: HashSet<Target>,
}

/// What a group can have one mark on. Inodes count by their handle: `(sdev, ino)` is not unique
/// where one superblock has several inode number spaces (btrfs).
#[derive(PartialEq, Eq, Hash)]
enum Target {
    Inode(Sdev, FileHandle),
    Mount(MntId),
    Filesystem(Sdev),
    MountNamespace(NsIno),
}

impl Target {
    /// None for an inode without handle, which nothing tells from others.
    fn of(mark: &Mark) -> Option<Self> {
        match mark.target {
            MarkTarget::Inode { sdev, handle, .. } => Some(Self::Inode(sdev, handle?)),
            MarkTarget::Mount(mnt_id) => Some(Self::Mount(mnt_id)),
            MarkTarget::Filesystem(sdev) => Some(Self::Filesystem(sdev)),
            MarkTarget::MountNamespace(mnt_ns) => Some(Self::MountNamespace(mnt_ns)),
        }
    }
}

impl Builder {
    fn new(kind: Option<Kind>) -> Self {
        let body = match kind {
            Some(Kind::Inotify) => Body::Inotify {
                watches: Vec::new(),
            },
            Some(Kind::Fanotify) | None => Body::Unstated,
        };
        let head = Head {
            pos: 0,
            flags: OpenFlags(0),
            mnt_id: None,
            ino: None,
        };
        Self {
            group: Group {
                head,
                locks: Vec::new(),
                body,
                unknown: Vec::new(),
            },
            n_lines: 0,
            wds: HashSet::new(),
            targets: HashSet::new(),
        }
    }

    fn add(&mut self, line: &Line<'_>, number: usize) -> Result<(), ParseError> {
        let group = &mut self.group;
        match *line {
            Line::Pos(pos) => group.head.pos = pos,
            Line::Flags(flags) => group.head.flags = flags,
            Line::MntId(mnt_id) => group.head.mnt_id = Some(mnt_id),
            Line::Ino(ino) => group.head.ino = Some(ino),
            Line::Lock(lock) => group.locks.push(lock),
            Line::Group { flags, event_flags } => {
                let marks = Vec::new();
                group.body = Body::Fanotify {
                    flags,
                    event_flags,
                    marks,
                };
            }
            Line::Watch(watch) => self.add_watch(watch, number)?,
            Line::Mark(mark) => self.add_mark(mark, number)?,
            Line::UnknownHead(text) => self.add_unknown(UnknownKind::Head, text),
            Line::UnknownMark(text) => self.add_unknown(UnknownKind::Mark, text),
            Line::Unknown(text) => self.add_unknown(UnknownKind::Line, text),
        }
        self.n_lines += 1;
        Ok(())
    }

    fn add_watch(&mut self, watch: Watch, number: usize) -> Result<(), ParseError> {
        if !self.wds.insert(watch.wd) {
            let wd = format!("{:x}", watch.wd.number());
            let column = "inotify wd:".len() + 1;
            return Err(duplicate(
                ErrorKind::WdDuplicate,
                (number, column),
                "wd",
                &wd,
            ));
        }
        match &mut self.group.body {
            Body::Inotify { watches } => watches.push(watch),
            body @ Body::Unstated => {
                *body = Body::Inotify {
                    watches: vec![watch],
                }
            }
            Body::Fanotify { .. } => unreachable!("lines of one kind: Reader::enter_body"),
        }
        Ok(())
    }

    fn add_mark(&mut self, mark: Mark, number: usize) -> Result<(), ParseError> {
        if Target::of(&mark).is_some_and(|target| !self.targets.insert(target)) {
            let line = mark.to_string();
            let line = line.trim_end();
            return Err(duplicate(ErrorKind::MarkDuplicate, (number, 1), "", line));
        }
        match &mut self.group.body {
            Body::Fanotify { marks, .. } => marks.push(mark),
            Body::Unstated | Body::Inotify { .. } => {
                unreachable!("the group's line comes first: Reader::enter_marks")
            }
        }
        Ok(())
    }

    fn add_unknown(&mut self, kind: UnknownKind, text: &str) {
        self.group.unknown.push(Unknown {
            kind,
            index: self.n_lines,
            text: text.to_owned(),
        });
    }
}

fn duplicate(
    kind: ErrorKind,
    (line, column): (usize, usize),
    field: &'static str,
    text: &str,
) -> ParseError {
    ParseError {
        kind,
        line,
        column,
        field,
        text: Excerpt::new(text.as_bytes()),
    }
}
