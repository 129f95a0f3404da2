//! An image for people, and its bytes in JSON.

use std::fmt;

use fsnotify::counted;

use super::{Image, Inode, Object, Place, PlaceKind};
use crate::loss::{Loss, LossKind};

/// Bytes as text: printable ASCII as it is, the rest as in a scenario.
#[derive(Debug)]
pub(crate) struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// Words of an image: what could move the cursor, or begin a line, is escaped.
struct Words<'a>(&'a str);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| {
            if is_unseen(char) {
                write!(f, "{}", char.escape_unicode())
            } else {
                write!(f, "{char}")
            }
        })
    }
}

/// Control characters, and those that change the order of what stands around them.
fn is_unseen(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

pub(super) fn text<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Text(bytes))
}

pub(super) fn hex<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    serializer.serialize_str(&digits)
}

/// Content of files is left out; its length says enough.
pub(super) fn size<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(bytes.len() as u64)
}

/// The name of a kind of loss, or a number that is none.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(super) fn loss_kind<S: serde::Serializer>(
    number: &u32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match LossKind::try_from(*number) {
        Ok(kind) => serializer.serialize_str(kind.name()),
        Err(number) => serializer.serialize_u32(number),
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parked) = &self.parked {
            writeln!(f, "parked in process {}, queues and all", parked.holder)?;
        }
        for process in &self.processes {
            write!(f, "process {}", process.pid)?;
            match process.exited {
                Some(status) => write!(f, ": ended, status {status:#x}")?,
                None => write!(f, ": {}", counted(process.descriptors.len(), "descriptor"))?,
            }
            if let Some(place) = process.working_directory {
                write!(f, ", in {}", self.place(place))?;
            }
            writeln!(f, ", umask {:03o}", process.umask)?;
            for descriptor in &process.descriptors {
                write!(f, "  fd {} = file {}", descriptor.fd, descriptor.file)?;
                let note = if descriptor.close_on_exec {
                    ", close on exec"
                } else {
                    ""
                };
                writeln!(f, "{note}")?;
            }
        }
        for index in 0..self.files.len() {
            self.show_file(index, f)?;
        }
        for (index, inode) in self.inodes.iter().enumerate() {
            if let Some(ghost) = &inode.ghost {
                write!(f, "ghost inode {index}: mode {:o}, ", inode.mode)?;
                write!(f, "owner {}:{}", ghost.uid, ghost.gid)?;
                let extents = counted(ghost.extents.len(), "extent");
                writeln!(f, ", {}, {extents}", counted(ghost.size, "byte"))?;
            }
        }
        for record in &self.lost {
            let loss = Loss::from(record).to_string();
            writeln!(f, "loss {}", Words(&loss))?;
        }
        Ok(())
    }
}

impl Image {
    fn show_file(&self, index: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.files[index];
        write!(f, "file {index}: ")?;
        match &file.object {
            Some(Object::Place(place)) => write!(f, "{}", self.place(*place))?,
            Some(Object::Inotify(group)) => {
                let watches = counted(group.watches.len(), "watch");
                write!(f, "inotify, {watches}")?;
                // The queue of a parked group is where it was.
                if self.parked.is_none() {
                    let unread = counted(group.queue.len(), "byte");
                    write!(f, ", {unread} unread")?;
                }
            }
            Some(Object::Epoll(set)) => {
                write!(f, "epoll, {}", counted(set.interests.len(), "interest"))?;
            }
            Some(Object::Fanotify(group)) => {
                write!(f, "fanotify, {}", counted(group.marks.len(), "mark"))?;
            }
            None => f.write_str("unknown")?,
        }
        write!(f, ", flags {:#o}", file.flags)?;
        if file.offset != 0 {
            write!(f, ", offset {}", file.offset)?;
        }
        if let Some(owner) = file.owner {
            let kind = match owner.kind {
                0 => "thread",
                1 => "process",
                _ => "process group",
            };
            write!(f, ", owner {kind} {}", owner.pid)?;
        }
        if file.signal != 0 {
            write!(f, ", signal {}", file.signal)?;
        }
        writeln!(f)?;
        match &file.object {
            Some(Object::Inotify(group)) => {
                for watch in &group.watches {
                    let mask = fsnotify::inotify::Mask(watch.mask);
                    writeln!(
                        f,
                        "  watch {} {mask} on {}",
                        watch.wd,
                        self.place(watch.place)
                    )?;
                }
                if let Some(wd) = group.next_wd {
                    writeln!(f, "  next watch {wd}")?;
                }
            }
            Some(Object::Epoll(set)) => {
                for interest in &set.interests {
                    let (fd, word) = (interest.fd, interest.word);
                    writeln!(f, "  fd {fd} events {:#x} data {word}", interest.events)?;
                }
            }
            Some(Object::Fanotify(group)) => {
                for mark in &group.marks {
                    write!(f, "  mark {:?} mask {:#x}", mark.kind(), mark.mask)?;
                    write!(
                        f,
                        " ignored {:#x} flags {:#x}",
                        mark.ignored_mask, mark.flags
                    )?;
                    match mark.place {
                        Some(place) => writeln!(f, " on {}", self.place(place))?,
                        None => writeln!(f)?,
                    }
                }
                for event in &group.unread {
                    let lost = if group.queue.is_empty() { "lost " } else { "" };
                    writeln!(f, "  {lost}event {}", Words(event))?;
                }
                if group.overflow {
                    writeln!(f, "  overflow event")?;
                }
            }
            Some(Object::Place(_)) | None => {}
        }
        Ok(())
    }

    /// A place in words; of an image that was not checked, too.
    fn place(&self, index: u32) -> String {
        match self.places.get(index as usize) {
            Some(place) => describe(place, self.inodes.get(place.inode as usize)),
            None => format!("place {index}?"),
        }
    }
}

fn describe(place: &Place, inode: Option<&Inode>) -> String {
    let path = Text(&place.path);
    let note = match (
        place.kind(),
        inode.is_some_and(|inode| inode.ghost.is_some()),
    ) {
        (PlaceKind::Named, _) => "",
        (PlaceKind::Gone, true) => " (ghost)",
        (PlaceKind::Gone, false) => " (removed; the inode has another name)",
        (PlaceKind::Hidden, _) => " (by handle)",
        (PlaceKind::Unnamed, _) => " (never had a name)",
    };
    format!("{path}{note}")
}
