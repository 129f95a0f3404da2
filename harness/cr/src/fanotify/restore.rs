//! From a group's part of an image to a new group.

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use fsnotify::counted;
use fsnotify::fanotify::{InitFlags, MarkFlags, Mask};
use fsnotify::fdinfo::{self, Body, Kind as GroupKind, Level};
use nix::errno::Errno;

use super::forge::{self, ForgeError};
use super::plan::{Call, Kind, plan};
use super::queue;
use crate::image::{Fanotify, Mark, MarkKind};
use crate::sys::fanotify::{Target, fanotify_init, fanotify_mark, without_sys_admin};

/// Finds what marks are to be on.
pub trait Objects {
    /// What a place leads to, opened with `O_PATH`, and whether it is a directory or a file.
    ///
    /// # Errors
    ///
    /// Why it leads nowhere, in words.
    fn open(&mut self, place: u32) -> Result<(OwnedFd, Kind), String>;
}

/// A new group, which asks for no permission event yet.
#[derive(Debug)]
pub struct Restored {
    pub fd: OwnedFd,
    arming: Vec<Arming>,
}

/// A mark to be given its permission events.
#[derive(Debug)]
struct Arming {
    index: usize,
    calls: Vec<Call>,
    object: Object,
}

/// What a mark goes on, kept open.
#[derive(Debug)]
enum Object {
    Path { path: CString, _opened: OwnedFd },
    Namespace(OwnedFd),
}

impl Object {
    fn target(&self) -> Target<'_> {
        match self {
            Self::Path { path, _opened } => Target::Path(path),
            Self::Namespace(fd) => Target::Descriptor(fd.as_fd()),
        }
    }
}

/// Why a group was not restored. There is no such group then.
#[derive(Debug)]
pub struct GroupError {
    /// Which mark, counted from the newest, as the image and fdinfo have them.
    mark: Option<usize>,
    kind: GroupErrorKind,
}

#[derive(Debug)]
enum GroupErrorKind {
    Call(&'static str, Errno),
    Queue(ForgeError),
    Object(String),
    /// No sequence of calls makes it.
    Unmakeable,
    /// fdinfo does not show what the image says.
    Differs {
        shown: String,
    },
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fanotify: ")?;
        if let Some(index) = self.mark {
            write!(f, "mark {index}: ")?;
        }
        match &self.kind {
            GroupErrorKind::Call(call, errno) => write!(f, "{call}: {errno}"),
            GroupErrorKind::Queue(error) => write!(f, "queue: {error}"),
            GroupErrorKind::Object(reason) => f.write_str(reason),
            GroupErrorKind::Unmakeable => f.write_str("no call makes such a mark"),
            GroupErrorKind::Differs { shown } => write!(f, "fdinfo shows {shown}"),
        }
    }
}

impl std::error::Error for GroupError {}

/// Makes a group and all its marks, in the order that they had, but for permission events: until
/// [`arm`] nobody has to wait for this group. A group that was unprivileged is made without
/// `CAP_SYS_ADMIN`, so that it has no more rights than it had. Its marks are made with: those on a
/// mount or a filesystem are for whoever has the capability in the user namespace of the group, and
/// no mark remembers who made it (`do_fanotify_mark`).
///
/// # Errors
///
/// [`GroupError`] for the first call that fails.
pub fn restore(group: &Fanotify, objects: &mut dyn Objects) -> Result<Restored, GroupError> {
    let failed = |(call, errno)| GroupError {
        mark: None,
        kind: GroupErrorKind::Call(call, errno),
    };
    let init = || fanotify_init(group.init_flags, group.event_flags);
    let made = if group.unprivileged {
        without_sys_admin(init).map_err(|errno| failed(("capset", errno)))?
    } else {
        init()
    };
    let fd = made.map_err(|errno| failed(("fanotify_init", errno)))?;
    let flags = InitFlags(group.init_flags);
    if group.overflow {
        queue::overflow(fd.as_fd(), flags).map_err(failed)?;
    }
    if !group.queue.is_empty() {
        forge::replay(fd.as_fd(), group).map_err(|error| GroupError {
            mark: None,
            kind: GroupErrorKind::Queue(error),
        })?;
    }
    let mut arming = Vec::new();
    // Oldest first: fdinfo shows the newest mark first.
    for (index, mark) in group.marks.iter().enumerate().rev() {
        let at = |kind| GroupError {
            mark: Some(index),
            kind,
        };
        let (object, kind) = open(mark, objects).map_err(at)?;
        let plan = plan(
            flags,
            kind,
            MarkFlags(mark.flags),
            Mask(mark.mask),
            Mask(mark.ignored_mask),
        )
        .map_err(|_| at(GroupErrorKind::Unmakeable))?;
        apply(fd.as_fd(), &plan.attach, &object).map_err(at)?;
        if !plan.arm.is_empty() {
            arming.push(Arming {
                index,
                calls: plan.arm,
                object,
            });
        }
    }
    Ok(Restored { fd, arming })
}

fn open(mark: &Mark, objects: &mut dyn Objects) -> Result<(Object, Kind), GroupErrorKind> {
    let namespace = |_| GroupErrorKind::Object("/proc/self/ns/mnt cannot be opened".to_owned());
    let mut place = || {
        let place = mark
            .place
            .ok_or_else(|| GroupErrorKind::Object("no place".to_owned()))?;
        let (opened, kind) = objects.open(place).map_err(GroupErrorKind::Object)?;
        let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let path = CString::new(path).expect("no NUL");
        Ok((
            Object::Path {
                path,
                _opened: opened,
            },
            kind,
        ))
    };
    match mark.kind() {
        MarkKind::Inode => place(),
        MarkKind::Mount => place().map(|(object, _)| (object, Kind::Mount)),
        MarkKind::Filesystem => place().map(|(object, _)| (object, Kind::Filesystem)),
        MarkKind::MountNamespace => {
            let file = File::open("/proc/self/ns/mnt").map_err(namespace)?;
            Ok((Object::Namespace(file.into()), Kind::MountNamespace))
        }
    }
}

fn apply(group: BorrowedFd<'_>, calls: &[Call], object: &Object) -> Result<(), GroupErrorKind> {
    for call in calls {
        fanotify_mark(group, call.flags, call.mask, object.target())
            .map_err(|errno| GroupErrorKind::Call("fanotify_mark", errno))?;
    }
    Ok(())
}

impl Restored {
    /// Asks for the permission events, and compares what fdinfo then shows with the image. To be
    /// called when nothing of the restore opens a file any more. `number` is the group's descriptor
    /// by now.
    ///
    /// # Errors
    ///
    /// [`GroupError`] for the first call that fails, or the first mark that differs.
    pub fn arm(&self, number: BorrowedFd<'_>, group: &Fanotify) -> Result<(), GroupError> {
        for Arming {
            index,
            calls,
            object,
        } in &self.arming
        {
            let at = |kind| GroupError {
                mark: Some(*index),
                kind,
            };
            apply(number, calls, object).map_err(at)?;
        }
        compare(number, group)
    }
}

fn compare(number: BorrowedFd<'_>, group: &Fanotify) -> Result<(), GroupError> {
    let differs = |mark, shown: String| GroupError {
        mark,
        kind: GroupErrorKind::Differs { shown },
    };
    let text = std::fs::read(format!("/proc/self/fdinfo/{}", number.as_raw_fd()));
    let text = text.map_err(|error| differs(None, error.to_string()))?;
    let shown = fdinfo::Group::parse_as(&text, GroupKind::Fanotify, Level::Strict);
    let shown = shown.map_err(|error| differs(None, error.to_string()))?;
    let Body::Fanotify { marks, .. } = shown.body else {
        return Err(differs(None, "no fanotify group".to_owned()));
    };
    if marks.len() != group.marks.len() {
        return Err(differs(None, counted(marks.len(), "mark")));
    }
    for (index, (shown, mark)) in marks.iter().zip(&group.marks).enumerate() {
        let fdinfo::Mark {
            flags,
            mask,
            ignored_mask,
            ..
        } = shown;
        if (flags.0, mask.0, ignored_mask.0) != (mark.flags, mark.mask, mark.ignored_mask) {
            let shown = format!("flags {flags}, mask {mask}, ignored mask {ignored_mask}");
            return Err(differs(Some(index), shown));
        }
    }
    Ok(())
}
