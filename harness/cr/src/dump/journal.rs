//! Journals of a dump.
//!
//! While events are read, they are kept in `IMAGE.journal-PID-FD` beside the image: the group's
//! process, its descriptor and its watches, and the events. [`recover`](super::recover()) gives those
//! of a dumper back that was killed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use fsnotify::Wd;
use fsnotify::event::inotify::EVENT_SIZE;
use fsnotify::fdinfo::{self, Body, Group, Kind, Level};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{DumpError, DumpErrorKind};
use super::files::{self, Held};
use super::places::Places;
use super::record::{self, Standpoint};
use super::wanted::Wanted;
use super::{DumpOptions, tree};
use crate::image::Image;
use crate::process::began;
use crate::queue::{Basket, Journal, LiveWatch, Owner, Phase, Targets};
use crate::sys::watch;

/// Makes the journal of a group.
pub(super) fn create(
    image: &Path,
    (group, owner): (&Held, Option<Owner>),
) -> Result<(Journal, PathBuf), DumpError> {
    let path = sibling(image, &format!("{JOURNAL}{}-{}", group.pid, group.fd));
    let name = path.display().to_string();
    let failed = |error: io::Error| DumpError::io("journal", &name, &error);
    let began = began(group.pid).map_err(failed)?;
    let owner = owner.map_or_else(String::new, |it| {
        format!(" {} {} {}", it.kind, it.pid, it.began)
    });
    let (pid, fd, place) = (group.pid, group.fd, Standpoint::own()?.0);
    let mut context = format!("{pid} {fd} {began} {place}{owner}\n").into_bytes();
    context.extend_from_slice(&group.info);
    let unread = watch::unread(group.file.as_fd());
    let unread = unread.map_err(|errno| DumpError::on("FIONREAD", "", errno))?;
    let made = Journal::create(&path, &context).and_then(|mut journal| {
        journal.reserve(room(unread, &group.info))?;
        Ok(journal)
    });
    match made {
        Ok(journal) => Ok((journal, path)),
        Err(error) => {
            if error.kind() != io::ErrorKind::AlreadyExists {
                // Nothing is in it.
                let _ = fs::remove_file(&path);
            }
            Err(failed(error))
        }
    }
}

/// What a journal may come to hold: once the watches are off, there must be room to get back. The
/// queue is in it twice, the end of each watch, and the numbers of the watches.
fn room(unread: usize, info: &[u8]) -> usize {
    let lines = info.split(|&byte| byte == b'\n');
    let n_watches = lines.filter(|line| line.starts_with(b"inotify wd")).count();
    2 * (unread + n_watches * EVENT_SIZE) + n_watches * size_of::<i32>()
}

/// Between the name of the image and the numbers of process and descriptor.
pub(super) const JOURNAL: &str = ".journal-";

pub(super) fn sibling(image: &Path, suffix: &str) -> PathBuf {
    let mut path = image.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Whose group a journal is of.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) pid: Pid,
    pub(super) fd: i32,
    pub(super) began: u64,
    pub(super) standpoint: Standpoint,
    pub(super) owner: Option<Owner>,
    /// fdinfo.
    pub(super) info: Vec<u8>,
}

pub(super) fn context(bytes: &[u8]) -> Option<Context> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&bytes[..end]).ok()?.split(' ');
    let pid = Pid::from_raw(words.next()?.parse().ok()?);
    let fd = words.next()?.parse().ok()?;
    let began = words.next()?.parse().ok()?;
    let place: Vec<&str> = words.by_ref().take(record::WORDS).collect();
    let owner = match (words.next(), words.next(), words.next()) {
        (Some(kind), Some(pid), Some(began)) => Some(Owner {
            kind: kind.parse().ok().filter(|kind| (0..=2).contains(kind))?,
            pid: pid.parse().ok().filter(|pid| *pid > 0)?,
            began: began.parse().ok()?,
        }),
        _ => None,
    };
    Some(Context {
        pid,
        fd,
        began,
        standpoint: Standpoint::of(&place.join(" ")),
        owner,
        info: bytes[end + 1..].to_vec(),
    })
}

/// Refuses a descriptor that is not of the group any more: of a process that has run since, and has
/// something else there. Watches may be missing that a dumper has removed, or that ended with their
/// files; none can have come.
pub(super) fn refuse_other(context: &Context, journal: &Journal) -> Result<(), DumpError> {
    let (pid, fd) = (context.pid, context.fd);
    let path = format!("/proc/{pid}/fdinfo/{fd}");
    let info = fs::read(&path).map_err(|error| DumpError::io("read", &path, &error))?;
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
    let (had, has) = (watches(&context.info)?, watches(&info)?);
    let known = |watch: &fdinfo::Watch| {
        had.iter()
            .any(|it| (it.wd, it.ino, it.sdev) == (watch.wd, watch.ino, watch.sdev))
    };
    let phase = journal.phase();
    let phase = phase.map_err(|error| DumpError::io("read", "journal", &error))?;
    let lacks_all = has.is_empty() && !had.is_empty() && phase < Phase::Stripping;
    // A watch that ends by itself leaves an event.
    let is_other = lacks_all && journal.bytes().is_empty();
    if link != Path::new("anon_inode:inotify") || !has.iter().all(known) || is_other {
        let what = format!(
            "fd {fd} of process {pid}, which has run since, is another group or none: whoever removes \
             this journal gives its events up"
        );
        return Err(DumpError::new("", DumpErrorKind::Refused(what)));
    }
    Ok(())
}

fn watches(info: &[u8]) -> Result<Vec<fdinfo::Watch>, DumpError> {
    let parsed = Group::parse_as(info, Kind::Inotify, Level::Lenient)
        .map_err(|error| DumpError::new("", DumpErrorKind::Text(error.to_string())))?;
    Ok(match parsed.body {
        Body::Inotify { watches } => watches,
        Body::Unstated | Body::Fanotify { .. } => Vec::new(),
    })
}

/// The property for fuzzing: any bytes in a file are refused, or are the journal of a dump that says
/// which group it is of.
///
/// # Panics
///
/// If the property does not hold.
pub fn check_journal(bytes: &[u8]) {
    let Some(found) = Journal::check(bytes).and_then(|text| context(&text)) else {
        return;
    };
    let Context { owner, info, .. } = found;
    let is_known = |owner: Owner| (0..=2).contains(&owner.kind) && owner.pid > 0;
    assert!(owner.is_none_or(is_known), "{owner:?}");
    let _ = Group::parse_as(&info, Kind::Inotify, Level::Lenient);
}

/// The watches that a group had, and a way to each.
pub(super) struct Found {
    pub(super) watches: Vec<LiveWatch>,
    pub(super) targets: FoundTargets,
}

#[derive(Debug)]
pub(super) struct FoundTargets {
    image: Image,
    held: Vec<Held>,
    places: Places,
    by_wd: HashMap<Wd, u32>,
}

impl Found {
    pub(super) fn new(pid: Pid, info: &[u8], options: &DumpOptions) -> Result<Self, DumpError> {
        let watches = watches(info)?;
        let mut image = Image {
            processes: tree::processes(pid, tree::Scope::Alone)?,
            only_groups: true,
            ..Image::default()
        };
        let mut places = Places::new(pid, options)?;
        let held = files::collect(&mut image, &mut places, |pid| {
            Wanted::of_watched(pid, &watches)
        })?;
        let mut by_wd = HashMap::with_capacity(watches.len());
        for watch in &watches {
            let sdev = watch.sdev;
            let place = places.of_inode(&mut image, sdev.0, watch.ino.0, watch.handle.as_ref())?;
            // A watch may have ended with its inode.
            by_wd.extend(place.map(|place| (watch.wd, place)));
        }
        let live = |watch: &fdinfo::Watch| LiveWatch {
            wd: watch.wd,
            mask: watch.mask,
        };
        Ok(Self {
            watches: watches.iter().map(live).collect(),
            targets: FoundTargets {
                image,
                held,
                places,
                by_wd,
            },
        })
    }
}

impl Targets for FoundTargets {
    fn open(&mut self, wd: Wd) -> Result<Option<OwnedFd>, Errno> {
        match self.by_wd.get(&wd) {
            Some(&place) => self.places.reopen(&self.image, &self.held, place),
            None => Ok(None),
        }
    }
}
