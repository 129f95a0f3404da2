//! What a dump of the groups of a process would say, asked of a process that runs on.
//!
//! Nothing is stopped, drained or copied, so two things are not foreseen: what only an empty queue
//! shows, and what the process changes until it is dumped.

use std::collections::BTreeMap;

use fsnotify::fanotify::InitFlags;
use nix::unistd::Pid;

use super::error::{DumpError, DumpErrorKind};
use super::files::{self, Found, Held};
use super::places::Places;
use super::wanted::Wanted;
use super::{DumpOptions, content, grounds, group, in_own_directory, keepers, queues, sharers};
use crate::image::{Image, Object, Process};
use crate::sys::{inspect, path};
use crate::{Loss, LossKind};

/// What stands between a process and its image.
#[derive(Debug, Default)]
pub struct Foreseen {
    /// Why there would be no image; the dump itself would say the first one only. By number of
    /// descriptor.
    pub refusals: BTreeMap<i32, Vec<DumpError>>,
    /// What the image would declare as lost. By number of descriptor.
    pub losses: BTreeMap<i32, Vec<Loss>>,
    /// What the image may declare as lost: only the dump finds out. By number of descriptor.
    pub doubts: BTreeMap<i32, Vec<Doubt>>,
}

/// A thing that may be lost. Of what kind the loss is, the dump finds out as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub object: String,
    pub reason: String,
}

/// Foresees a dump with [`DumpOptions::only_groups`].
///
/// # Errors
///
/// What keeps the whole process from being looked at, by name.
pub fn foresee(pid: Pid, options: &DumpOptions) -> Result<Foreseen, DumpError> {
    let options = DumpOptions {
        only_groups: true,
        ..options.clone()
    };
    in_own_directory(|| {
        let mut image = Image {
            only_groups: true,
            processes: vec![Process {
                pid: pid.as_raw(),
                ..Process::default()
            }],
            ..Image::default()
        };
        let mut places = Places::new(pid, &options)?;
        let mut foreseen = Foreseen::default();
        let held = collect(pid, &options, (&mut image, &mut places), &mut foreseen)?;
        for (index, one) in held.iter().enumerate() {
            let n_declared = image.lost.len();
            let refused = refused(&mut image, &mut places, &held, index);
            foreseen.refusals.entry(one.fd).or_default().extend(refused);
            let losses = image.lost[n_declared..].iter().map(Loss::from);
            foreseen.losses.entry(one.fd).or_default().extend(losses);
            unread(&image, index, one, &mut foreseen);
            if let Ok(Some(error)) = queues::unmakeable(&image, (index, one)) {
                foreseen.refuse(one.fd, error);
            }
        }
        for (index, error) in sharers::refused(&image, &held) {
            foreseen.refuse(held[index].fd, error);
        }
        for (index, error) in keepers::refused(&image, &mut places) {
            foreseen.refuse(held[index].fd, error);
        }
        for (index, error) in grounds::refused(&image, &mut places, &held) {
            if let Some(index) = index {
                foreseen.refuse(held[index].fd, error);
            }
        }
        Ok(foreseen)
    })
}

/// Why a group would be refused: every watch that is, not only the first one.
fn refused(image: &mut Image, places: &mut Places, held: &[Held], index: usize) -> Vec<DumpError> {
    if let Some(Object::Inotify(_)) = image.files[index].object {
        let watches = group::each_watch(image, places, &held[index]);
        let refused = watches.map(|watches| watches.into_iter().filter_map(Result::err).collect());
        let refused: Vec<DumpError> = refused.unwrap_or_else(|error| vec![error]);
        if !refused.is_empty() {
            return refused;
        }
    }
    group::collect_one(image, places, held, index)
        .err()
        .into_iter()
        .collect()
}

impl Foreseen {
    fn refuse(&mut self, fd: i32, error: DumpError) {
        self.refusals.entry(fd).or_default().push(error);
    }
}

/// The groups and ghosts that a process holds, each that can be described.
fn collect(
    pid: Pid,
    options: &DumpOptions,
    (image, places): (&mut Image, &mut Places),
    foreseen: &mut Foreseen,
) -> Result<Vec<Held>, DumpError> {
    let pidfd = inspect::pidfd_open(pid)
        .map_err(|errno| DumpError::on("pidfd_open", pid.to_string(), errno))?;
    let mut held = Vec::new();
    let wanted = Wanted::of(pid, options);
    for fd in files::numbers(pid)? {
        let place = format!("fd {fd}");
        let found = match files::look(&pidfd, (pid, fd), &place, (&wanted, places)) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // Closed while we looked.
            Err(DumpError {
                kind:
                    DumpErrorKind::Call {
                        errno: nix::errno::Errno::EBADF | nix::errno::Errno::ENOENT,
                        ..
                    },
                ..
            }) => continue,
            Err(error) => {
                foreseen.refuse(fd, error.at(&place));
                continue;
            }
        };
        if let Some(error) = too_large(&found, options) {
            foreseen.refuse(fd, error.at(&place));
        }
        match files::describe(image, places, &found) {
            Ok(file) => {
                image.files.push(file);
                held.push(found.held);
            }
            Err(error) => foreseen.refuse(fd, error.at(&place)),
        }
    }
    Ok(held)
}

/// A ghost beyond the limit.
fn too_large(found: &Found, options: &DumpOptions) -> Option<DumpError> {
    let stat = path::stat(&found.held.file, c"").ok()?;
    let is_ghost = stat.nlink == 0 && stat.mode & libc::S_IFMT == libc::S_IFREG;
    let (bytes, limit) = (content::size(&stat), options.ghost_limit);
    (is_ghost && bytes > limit)
        .then(|| DumpError::new("", DumpErrorKind::TooLarge { bytes, limit }))
}

/// Events of fanotify are read and named one by one by a dump; here they are only counted.
fn unread(image: &Image, index: usize, held: &Held, foreseen: &mut Foreseen) {
    let Some(Object::Fanotify(group)) = &image.files[index].object else {
        return;
    };
    let Ok(bytes @ 1..) = inspect::unread(&held.file) else {
        return;
    };
    let flags = InitFlags(group.init_flags);
    let reports = InitFlags::REPORT_FID.0 | InitFlags::REPORT_DIR_FID.0;
    let object = format!("{}: {bytes} bytes of unread events", held.place);
    let mut lost = |kind| {
        let loss = Loss::new(kind, object.clone(), "no call makes them again");
        foreseen.losses.entry(held.fd).or_default().push(loss);
    };
    if flags.contains(InitFlags::REPORT_MNT) {
        lost(LossKind::MountEvents);
    } else if flags.0 & reports == 0 {
        lost(LossKind::DescriptorEvents);
    } else {
        let reason = "they are made again if a filesystem can be forged for them, which is tried at \
                      the dump";
        foreseen.doubts.entry(held.fd).or_default().push(Doubt {
            object,
            reason: reason.to_owned(),
        });
    }
}
