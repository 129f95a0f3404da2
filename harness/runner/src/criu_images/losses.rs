//! On which side of a cut a group lost something: between fdinfo and the image (dump), or between
//! the image and the fdinfo of the restored process (restore).

use std::fmt;

use fsnotify::fanotify::Mask as FanotifyMask;
use fsnotify::fdinfo::{Body, Group, MarkTarget};
use fsnotify::inotify::Mask;

use super::Images;
use super::message::{Fanotify, File, Inotify};

/// A group as fdinfo shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub pid: i32,
    pub fd: u32,
    pub group: Group,
    /// Unread bytes.
    pub unread: u64,
}

/// Half of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Dump,
    Restore,
}

/// Something that a half of the cut did not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub side: Side,
    pub fd: u32,
    /// What, and where it was seen last.
    pub what: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Dump => "dump",
            Side::Restore => "restore",
        };
        write!(f, "lost by {side}: fd {}: {}", self.fd, self.what)
    }
}

/// Compares each group before the cut with the images, and the images with the group after it.
/// Without `after` (restore failed) only the first half.
#[must_use]
pub fn attribute(before: &[Shown], images: &Images, after: Option<&[Shown]>) -> Vec<Lost> {
    let mut lost = Vec::new();
    for shown in before {
        let later = after.map(|after| {
            after
                .iter()
                .find(|later| (later.pid, later.fd) == (shown.pid, shown.fd))
        });
        let mut add = |side, what: String| {
            let fd = shown.fd;
            lost.push(Lost { side, fd, what });
        };
        let Some(file) = group_file(images, shown) else {
            add(Side::Dump, "the group: in no image".to_owned());
            continue;
        };
        if shown.unread > 0 {
            let unread = shown.unread;
            add(
                Side::Dump,
                format!("{unread} unread bytes: an image has no place for events"),
            );
        }
        if later == Some(None) {
            add(
                Side::Restore,
                "the group: in the image, but no such group".to_owned(),
            );
            continue;
        }
        let later = later.flatten().map(|later| &later.group.body);
        if let Some(inotify) = &file.inotify {
            watches(&shown.group.body, inotify, later, &mut add);
        } else if let Some(fanotify) = &file.fanotify {
            marks(&shown.group.body, fanotify, later, &mut add);
        }
    }
    lost
}

/// The image of a group: that of its descriptor, in the table that has a group there.
fn group_file<'a>(images: &'a Images, shown: &Shown) -> Option<&'a File> {
    let descriptors = images.tables.iter().flat_map(|(_, table)| table);
    let files = descriptors
        .filter(|descriptor| descriptor.fd == shown.fd)
        .filter_map(|descriptor| images.file(descriptor));
    let of_kind = files.filter(|file| match shown.group.body {
        Body::Unstated | Body::Inotify { .. } => file.inotify.is_some(),
        Body::Fanotify { .. } => file.fanotify.is_some(),
    });
    // Processes may use one number for different groups: the image with most of the watches is it.
    of_kind.max_by_key(|file| match (&shown.group.body, &file.inotify) {
        (Body::Inotify { watches }, Some(inotify)) => watches
            .iter()
            .filter(|watch| image_watch(inotify, watch.wd.number()).is_some())
            .count(),
        _ => 0,
    })
}

fn image_watch(inotify: &Inotify, wd: i32) -> Option<&super::message::Watch> {
    let watches = inotify.watches.iter();
    watches
        .into_iter()
        .find(|watch| i32::try_from(watch.wd) == Ok(wd))
}

fn watches(
    before: &Body,
    image: &Inotify,
    after: Option<&Body>,
    add: &mut impl FnMut(Side, String),
) {
    let of = |body: &Body| match body {
        Body::Inotify { watches } => watches.clone(),
        Body::Unstated | Body::Fanotify { .. } => Vec::new(),
    };
    let after = after.map(of);
    for watch in of(before) {
        let wd = watch.wd;
        let Some(kept) = image_watch(image, wd.number()) else {
            add(Side::Dump, format!("wd {wd}: in fdinfo, not in the image"));
            continue;
        };
        if kept.mask != watch.mask.0 {
            let gone = Mask(watch.mask.0 & !kept.mask);
            add(
                Side::Dump,
                format!("wd {wd}: {gone} of its mask: not in the image"),
            );
        }
        let Some(after) = &after else {
            continue;
        };
        match after.iter().find(|later| later.wd == wd) {
            None => add(
                Side::Restore,
                format!("wd {wd}: in the image, not restored"),
            ),
            Some(later) if later.mask.0 != kept.mask => {
                let gone = Mask(kept.mask & !later.mask.0);
                let what = format!("wd {wd}: {gone} of its mask: in the image, not restored");
                add(Side::Restore, what);
            }
            Some(later) if later.ino.0 != watch.ino.0 || later.handle != watch.handle => {
                add(Side::Restore, format!("wd {wd}: restored on another inode"));
            }
            Some(_) => {}
        }
    }
}

/// Marks have no number: one is told by its target, which an image describes in part.
fn marks(
    before: &Body,
    image: &Fanotify,
    after: Option<&Body>,
    add: &mut impl FnMut(Side, String),
) {
    let of = |body: &Body| match body {
        Body::Fanotify { marks, .. } => marks.clone(),
        Body::Unstated | Body::Inotify { .. } => Vec::new(),
    };
    let after = after.map(of);
    for mark in of(before) {
        let (name, kept) = match mark.target {
            MarkTarget::Inode { ino, sdev, .. } => (
                "an inode mark",
                image.marks.iter().find(|kept| {
                    let inode = kept.inode.as_ref();
                    kept.sdev == sdev.0 && inode.is_some_and(|inode| inode.ino == ino.0)
                }),
            ),
            MarkTarget::Mount(id) => (
                "a mount mark",
                image.marks.iter().find(|kept| {
                    let mount = kept.mount.as_ref();
                    mount.is_some_and(|mount| mount.mount_id == id.0)
                }),
            ),
            MarkTarget::Filesystem(_) => ("a filesystem mark", None),
            MarkTarget::MountNamespace(_) => ("a mark of a mount namespace", None),
        };
        let described = format!("{name} for {}", mark.mask);
        let Some(kept) = kept else {
            add(
                Side::Dump,
                format!("{described}: in fdinfo, not in the image"),
            );
            continue;
        };
        let ignored = FanotifyMask(u64::from(kept.ignored_mask));
        if (u64::from(kept.mask), ignored) != (mark.mask.0, mark.ignored_mask) {
            add(Side::Dump, format!("{described}: other masks in the image"));
        }
        let Some(after) = &after else {
            continue;
        };
        match after.iter().find(|later| later.target == mark.target) {
            None => add(
                Side::Restore,
                format!("{described}: in the image, not restored"),
            ),
            Some(later)
                if (later.mask, later.ignored_mask, later.flags)
                    != (mark.mask, mark.ignored_mask, mark.flags) =>
            {
                let what = format!("{described}: in the image, restored with other masks or flags");
                add(Side::Restore, what);
            }
            Some(_) => {}
        }
    }
}
