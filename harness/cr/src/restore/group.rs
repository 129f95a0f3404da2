//! inotify groups: the queue first, then the watches, then the number of the next.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fsnotify::Wd;
use fsnotify::inotify::Mask;
use nix::errno::Errno;

use super::error::{Context, RestoreError, RestoreErrorKind};
use super::ghosts::Ghosts;
use super::stage::Stage;
use super::tree::{Tree, c_string, link_to, split};
use super::{Defect, RestoreOptions};
use crate::image::{Fanotify, Image, Inotify, MarkKind, Object, PlaceKind, Text, Watch};
use crate::sys::fanotify::{Target, fanotify_mark};
use crate::sys::{descriptor, handle, path, raw, watch};
use crate::{fanotify, queue};

/// Permission marks of fanotify groups, which are asked for last.
pub(super) type Arming = Vec<(usize, fanotify::restore::Restored)>;

/// Makes every group of the image.
pub(super) fn make(
    image: &Image,
    tree: &Tree,
    ghosts: &Ghosts,
    stage: &mut Stage,
    options: &RestoreOptions,
) -> Result<Arming, RestoreError> {
    let here = raw::open(c".", libc::O_PATH | libc::O_CLOEXEC, 0)
        .and_then(path::owned)
        .context("open", "the working directory")?;
    let mut targets = Targets {
        image,
        tree,
        ghosts,
        folder: None,
    };
    let mut arming = Vec::new();
    for (index, file) in image.files.iter().enumerate() {
        let at = |error: RestoreError| error.at(&image.name_of_file(index));
        match &file.object {
            Some(Object::Inotify(group)) => {
                let made = inotify(group, &mut targets, options).map_err(at)?;
                let flags = file.flags.cast_signed() & !libc::O_ASYNC;
                descriptor::set_flags(&made, flags)
                    .context("fcntl", "F_SETFL")
                    .map_err(at)?;
                stage.put(index, made)?;
            }
            Some(Object::Fanotify(group)) => {
                let made = make_fanotify(group, &mut targets).map_err(at)?;
                if options.defect == Some(Defect::SendBackChildBit) {
                    send_back_masks(group, &made.fd, &mut targets).map_err(at)?;
                }
                let flags = file.flags.cast_signed() & !libc::O_ASYNC;
                descriptor::set_flags(&made.fd, flags)
                    .context("fcntl", "F_SETFL")
                    .map_err(at)?;
                stage.put(index, &made.fd)?;
                arming.push((index, made));
            }
            Some(Object::Place(_) | Object::Epoll(_)) | None => {}
        }
    }
    nix::unistd::fchdir(&here).context("fchdir", "back")?;
    Ok(arming)
}

fn inotify(
    group: &Inotify,
    targets: &mut Targets<'_>,
    options: &RestoreOptions,
) -> Result<OwnedFd, RestoreError> {
    let made = watch::init().context("inotify_init1", "")?;
    let wds: Vec<Wd> = group
        .watches
        .iter()
        .filter_map(|watch| Wd::new(watch.wd))
        .collect();
    queue::rebuild_with_cookies(made.as_fd(), &group.queue, &wds, options.cookie_distance)
        .map_err(|error| RestoreError::new(RestoreErrorKind::Queue(error)))?;
    // fdinfo lists the newest watch first, so the oldest is made first.
    let mut order: Vec<&Watch> = group.watches.iter().rev().collect();
    if options.defect == Some(Defect::ReverseWatches) {
        order.reverse();
    }
    let mut next = None;
    for watch in order {
        attach(made.as_fd(), watch, &mut next, targets)
            .map_err(|error| error.at(&format!("watch {}", watch.wd)))?;
    }
    if let Some(wd) = group.next_wd.and_then(Wd::new)
        && options.defect != Some(Defect::ForgetNextWatch)
    {
        watch::set_next_wd(made.as_fd(), wd).context("ioctl", "INOTIFY_IOC_SETNEXTWD")?;
    }
    if options.defect == Some(Defect::AddEvent)
        && let Some(watch) = group.watches.last()
    {
        let file = targets.open(watch.place)?;
        let mode = path::stat(&file, c"").context("statx", "")?.mode & 0o7777;
        raw::chmod(&link_to(&file), mode).context("chmod", "")?;
    }
    Ok(made)
}

/// Attaches a watch under its number. `next` is the number that comes by itself.
fn attach(
    group: BorrowedFd<'_>,
    watch: &Watch,
    next: &mut Option<i32>,
    targets: &mut Targets<'_>,
) -> Result<(), RestoreError> {
    if *next != Some(watch.wd) {
        let wd = Wd::new(watch.wd).ok_or_else(|| {
            RestoreError::new(RestoreErrorKind::Impossible("no such watch descriptor"))
        })?;
        watch::set_next_wd(group, wd).context("ioctl", "INOTIFY_IOC_SETNEXTWD")?;
    }
    let mask = watch::to_attach(Mask(watch.mask));
    let made = match targets.ghosts.get(watch.place) {
        Some(ghost) => watch::add_watch_on(group, ghost, mask),
        None if targets.is_named(watch.place) => targets.watch_by_name(group, watch.place, mask)?,
        None => watch::add_watch_on(group, targets.open(watch.place)?, mask),
    };
    let made = made.context("inotify_add_watch", mask)?.number();
    if made != watch.wd {
        return Err(RestoreError::new(RestoreErrorKind::OtherWatch {
            found: made,
        }));
    }
    *next = watch.wd.checked_add(1);
    Ok(())
}

fn make_fanotify(
    group: &Fanotify,
    targets: &mut Targets<'_>,
) -> Result<fanotify::restore::Restored, RestoreError> {
    fanotify::restore::restore(group, targets)
        .map_err(|error| RestoreError::new(RestoreErrorKind::Fanotify(error.to_string())))
}

/// [`Defect::SendBackChildBit`].
fn send_back_masks(
    group: &Fanotify,
    made: &OwnedFd,
    targets: &mut Targets<'_>,
) -> Result<(), RestoreError> {
    let inodes = group.marks.iter();
    for mark in inodes.filter(|mark| mark.kind() == MarkKind::Inode && mark.mask != 0) {
        let Some(place) = mark.place else { continue };
        let file = targets.open(place)?;
        let path = link_to(&file);
        let target = Target::Path(&path);
        fanotify_mark(made, libc::FAN_MARK_ADD, mark.mask, target).context("fanotify_mark", "")?;
    }
    Ok(())
}

/// Asks for the permission events of fanotify groups.
pub(super) fn arm(image: &Image, stage: &Stage, arming: &Arming) -> Result<(), RestoreError> {
    for (index, group) in arming {
        let (Some(Object::Fanotify(state)), Some(number)) =
            (&image.files[*index].object, stage.get(*index))
        else {
            continue;
        };
        group.arm(number, state).map_err(|error| {
            let kind = RestoreErrorKind::Fanotify(error.to_string());
            RestoreError::new(kind).at(&image.name_of_file(*index))
        })?;
    }
    Ok(())
}

/// Where places lead.
struct Targets<'a> {
    image: &'a Image,
    tree: &'a Tree,
    ghosts: &'a Ghosts,
    /// Where the working directory is, if in that of a name: there are many in each.
    folder: Option<Vec<u8>>,
}

impl Targets<'_> {
    fn is_named(&self, place: u32) -> bool {
        let place = &self.image.places[place as usize];
        place.kind() == PlaceKind::Named && place.path.len() > 1
    }

    /// Watches what has a name, by its name in its directory: a descriptor of each would take as long
    /// as all the rest. That it is the one is looked at afterwards, so a name that changed hands
    /// before is noticed.
    fn watch_by_name(
        &mut self,
        group: BorrowedFd<'_>,
        place: u32,
        mask: Mask,
    ) -> Result<Result<Wd, Errno>, RestoreError> {
        let place = &self.image.places[place as usize];
        let (directory, name) = split(&place.path);
        if self.folder.as_deref() != Some(directory) {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let opened = self.tree.open(directory, flags)?;
            nix::unistd::fchdir(&opened).context("fchdir", Text(directory))?;
            self.folder = Some(directory.to_vec());
        }
        let mask = Mask(mask.0 | libc::IN_DONT_FOLLOW);
        let name = c_string(name)?;
        let made = watch::add_watch_at(group, &name, mask);
        if made.is_ok() {
            let stat = path::stat_path(&name).context("statx", "")?;
            let inode = &self.image.inodes[place.inode as usize];
            self.tree
                .verify_stat(&stat, inode, || handle::of_name(&name))
                .map_err(|error| error.at(&Text(&place.path).to_string()))?;
        }
        Ok(made)
    }

    fn open(&mut self, place: u32) -> Result<OwnedFd, RestoreError> {
        // It may be found from another working directory.
        self.folder = None;
        match self.ghosts.get(place) {
            Some(ghost) => descriptor::duplicate_above(ghost, 0).context("fcntl", "F_DUPFD"),
            None => self
                .tree
                .find(self.image, &self.image.places[place as usize]),
        }
    }
}

impl fanotify::restore::Objects for Targets<'_> {
    fn open(&mut self, place: u32) -> Result<(OwnedFd, fanotify::plan::Kind), String> {
        let file = Targets::open(self, place).map_err(|error| error.to_string())?;
        let stat = path::stat(&file, c"").map_err(|errno| format!("statx: {errno}"))?;
        let kind = match stat.mode & libc::S_IFMT {
            libc::S_IFDIR => fanotify::plan::Kind::Directory,
            _ => fanotify::plan::Kind::File,
        };
        Ok((file, kind))
    }
}

/// Descriptors of ghosts, by place.
pub(super) type ByPlace = HashMap<u32, OwnedFd>;
