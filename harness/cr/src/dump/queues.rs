//! The last step: unread events, and the number that the next watch would get.
//!
//! Draining takes something from the subject, which gets it back if it is to run on: because that
//! was asked for, or because anything fails from then on. Until then the events can be kept in a
//! journal, which outlives the dumper.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use fsnotify::event::inotify::Events;
use fsnotify::inotify::Mask;
use fsnotify::{Ino, Sdev, Wd};
use nix::errno::Errno;

use super::error::{DumpError, DumpErrorKind};
use super::files::Held;
use super::group::{pids, source};
use super::places::Places;
use super::{QueuePolicy, declare, journal, unread};
use crate::image::{Fanotify, Image, MarkKind, Object, PlaceKind, Text, Watch};
use crate::queue::{
    self, Basket, Journal, Live, LiveWatch, Memory, Owner, PutBack, Targets, Unread,
};
use crate::sys::mount;
use crate::{Loss, LossKind, fanotify};

/// What was read out of the groups.
#[derive(Default)]
pub(super) struct Taken {
    groups: Vec<TakenGroup>,
}

struct TakenGroup {
    /// Into [`Image::files`].
    index: usize,
    kept: Kept,
    /// Who is not told of what happens in the group for now.
    owner: Option<Owner>,
}

/// Where the events are that were read.
enum Kept {
    Memory(Memory),
    Journal(Journal, PathBuf),
}

impl Kept {
    fn basket(&mut self) -> &mut dyn Basket {
        match self {
            Self::Memory(memory) => memory,
            Self::Journal(journal, _) => journal,
        }
    }
}

/// Of each group, by its index into [`Image::files`], the bytes that the dump itself put into its
/// queue: a ghost that can only be written is opened to be read, and heard, where the dumper has
/// not the right to open it in silence. The subject is stopped, so that nothing of its own is
/// among them.
pub(super) type Own = HashMap<usize, Range<usize>>;

/// Unread bytes of each inotify group, by its index into [`Image::files`].
pub(super) fn unread(image: &Image, held: &[Held]) -> Result<HashMap<usize, usize>, DumpError> {
    let files = image.files.iter().zip(held).enumerate();
    files
        .filter(|(_, (file, _))| matches!(file.object, Some(Object::Inotify(_))))
        .map(|(index, (_, group))| Ok((index, unread_bytes(group)?)))
        .collect()
}

/// What came into the queues since they were that long.
pub(super) fn heard_since(
    image: &Image,
    held: &[Held],
    before: &HashMap<usize, usize>,
) -> Result<Own, DumpError> {
    let after = unread(image, held)?;
    let grown = after
        .into_iter()
        .map(|(index, after)| (index, before[&index]..after));
    Ok(grown.filter(|(_, bytes)| !bytes.is_empty()).collect())
}

impl Taken {
    /// Fills the queues and cursors of the groups. What is read goes through journals beside
    /// `image_path`, if there is one. Whatever was read is here, also after an error.
    pub(super) fn take(
        &mut self,
        image: &mut Image,
        (held, own): (&[Held], &Own),
        (policy, image_path): (QueuePolicy, Option<&PathBuf>),
    ) -> Result<(), DumpError> {
        for (index, group) in held.iter().enumerate() {
            if !matches!(image.files[index].object, Some(Object::Inotify(_))) {
                continue;
            }
            let at = |error: DumpError| error.at(&group.place);
            let own = own.get(&index).cloned().unwrap_or_default();
            let is_async = image.files[index].flags.cast_signed() & libc::O_ASYNC != 0;
            let owner = image.files[index].owner.filter(|_| is_async);
            let owner = owner.map(|it| Owner::now(it.kind, it.pid));
            refuse_unread(group, policy, own.len()).map_err(at)?;
            let kept = match image_path {
                None => Kept::Memory(Memory::default()),
                Some(image) => {
                    let (journal, path) = journal::create(image, (group, owner)).map_err(at)?;
                    Kept::Journal(journal, path)
                }
            };
            self.groups.push(TakenGroup { index, kept, owner });
            let taken = self.groups.last_mut().expect("pushed");
            take_one(image, taken, (group, own), policy).map_err(at)?;
        }
        if policy != QueuePolicy::Drop {
            declare_pairs(image, held);
        }
        Ok(())
    }

    /// Gives every group its queue again. What may be missing from it is the result.
    ///
    /// One that does not get it does not keep the others from it; its journal is kept.
    pub(super) fn put_back(
        self,
        image: &Image,
        held: &[Held],
        places: &mut Places,
    ) -> Result<Vec<Loss>, DumpError> {
        let mut losses = Vec::new();
        let mut result = Ok(());
        for taken in self.groups {
            let place = &held[taken.index].place;
            match put_back_one(image, held, places, taken) {
                Ok(put_back) => losses.extend(put_back.losses(place)),
                Err(error) => result = result.and(Err(error.at(place))),
            }
        }
        // That a queue is exactly full may have been known before.
        losses.retain(|loss| !image.lost.iter().any(|known| Loss::from(known) == *loss));
        result.map(|()| losses)
    }

    /// The subject is not to run on: what was read is in the image.
    pub(super) fn forget(mut self) -> Result<(), DumpError> {
        // All at once, as far as a kill can tell: no journal is to be put back when another is gone.
        for group in &mut self.groups {
            if let Kept::Journal(journal, _) = &mut group.kept {
                journal.retire();
            }
        }
        self.groups
            .into_iter()
            .try_for_each(|group| forget(group.kept))
    }
}

/// Reads the queues of fanotify groups, which nothing fills again: what is read goes to files beside the
/// image too, if it is written to one.
pub(super) fn take_fanotify_queues(
    image: &mut Image,
    held: &[Held],
    (policy, (files, image_path)): (QueuePolicy, (&mut unread::Unread, Option<&Path>)),
) -> Result<(), DumpError> {
    for (index, group) in held.iter().enumerate() {
        let Some(Object::Fanotify(state)) = &image.files[index].object else {
            continue;
        };
        let state = state.clone();
        let take = || {
            refuse_unread(group, policy, 0)?;
            if let (Some(path), bytes @ 1..) = (image_path, unread_bytes(group)?) {
                files.announce(path, (group, bytes))?;
            }
            take_fanotify(image, index, state, group)?;
            match &image.files[index].object {
                Some(Object::Fanotify(state)) => files.tell(&state.unread),
                _ => Ok(()),
            }
        };
        take().map_err(|error| error.at(&group.place))?;
    }
    Ok(())
}

fn forget(kept: Kept) -> Result<(), DumpError> {
    match kept {
        Kept::Memory(_) => Ok(()),
        Kept::Journal(_, path) => std::fs::remove_file(&path)
            .map_err(|error| DumpError::io("unlink", path.display().to_string(), &error)),
    }
}

pub(super) fn unread_bytes(group: &Held) -> Result<usize, DumpError> {
    let unread = crate::sys::watch::unread(group.file.as_fd());
    unread.map_err(|errno| DumpError::on("FIONREAD", "", errno))
}

/// `n_own` bytes are of the dump's own making.
fn refuse_unread(group: &Held, policy: QueuePolicy, n_own: usize) -> Result<(), DumpError> {
    let bytes = unread_bytes(group)?.saturating_sub(n_own);
    match policy {
        QueuePolicy::Refuse if bytes > 0 => {
            Err(DumpError::new("", DumpErrorKind::Unread { bytes }))
        }
        QueuePolicy::Refuse | QueuePolicy::Keep | QueuePolicy::Drop => Ok(()),
    }
}

/// Refuses unread events that nothing puts back.
pub(super) fn refuse_for_good(image: &Image, held: &[Held]) -> Result<(), DumpError> {
    for (file, group) in image.files.iter().zip(held) {
        if matches!(file.object, Some(Object::Fanotify(_))) {
            refuse_unread(group, QueuePolicy::Refuse, 0).map_err(|error| error.at(&group.place))?;
        }
    }
    Ok(())
}

/// Refuses unread events where none could be made again. Should a dump fail once it has read them, they
/// could not be put back.
pub(super) fn refuse_unmakeable(image: &Image, held: &[Held]) -> Result<(), DumpError> {
    for (index, group) in held.iter().enumerate() {
        if let Some(error) = unmakeable(image, (index, group))? {
            return Err(error);
        }
    }
    Ok(())
}

/// Why the unread events of a group, one of [`Image::files`], could not be made again.
pub(super) fn unmakeable(
    image: &Image,
    (index, group): (usize, &Held),
) -> Result<Option<DumpError>, DumpError> {
    if !matches!(image.files[index].object, Some(Object::Inotify(_))) {
        return Ok(None);
    }
    let (bytes @ 1.., Err(errno)) = (unread_bytes(group)?, mount::may_mount()) else {
        return Ok(None);
    };
    let what = format!(
        "{bytes} bytes unread, which this user could not put back: fsopen of a tmpfs: {errno}"
    );
    let error = DumpError::new("", DumpErrorKind::Refused(what));
    Ok(Some(error.at(&group.place)))
}

fn take_fanotify(
    image: &mut Image,
    index: usize,
    mut state: Fanotify,
    group: &Held,
) -> Result<(), DumpError> {
    let tree = pids(image);
    let losses = fanotify::dump::drain(source(group, &tree), &mut state)
        .map_err(|refusal| DumpError::new("", DumpErrorKind::Fanotify(refusal)))?;
    for loss in losses {
        declare(image, loss);
    }
    drop_ended(image, &mut state, group)?;
    image.files[index].object = Some(Object::Fanotify(state));
    Ok(())
}

/// An unread event may have been all that kept a removed file: with the event goes the file, and its
/// mark.
fn drop_ended(image: &mut Image, state: &mut Fanotify, group: &Held) -> Result<(), DumpError> {
    if state.unread.is_empty() {
        return Ok(());
    }
    let tree = pids(image);
    let left = fanotify::dump::marked_inodes(source(group, &tree))
        .map_err(|refusal| DumpError::new("", DumpErrorKind::Fanotify(refusal)))?;
    let mut ended = Vec::new();
    state.marks.retain(|mark| {
        let place = mark.place.filter(|_| mark.kind() == MarkKind::Inode);
        let Some(place) = place.map(|place| &image.places[place as usize]) else {
            return true;
        };
        let inode = &image.inodes[place.inode as usize];
        let is_left = left.contains(&(Ino(inode.ino), Sdev(inode.sdev)));
        if !is_left {
            let object = format!("{}: mark on {}", group.place, Text(&place.path));
            ended.push(Loss::new(
                LossKind::EndedMark,
                object,
                "an unread event was all that kept its file",
            ));
        }
        is_left
    });
    for loss in ended {
        declare(image, loss);
    }
    Ok(())
}

fn take_one(
    image: &mut Image,
    taken: &mut TakenGroup,
    (group, own): (&Held, Range<usize>),
    policy: QueuePolicy,
) -> Result<(), DumpError> {
    let mut found = queue::take(group.file.as_fd(), taken.kept.basket(), taken.owner)
        .map_err(|errno| DumpError::on("read", "queue", errno))?;
    found.queue = queue::leave_out(&found.queue, own);
    match policy {
        QueuePolicy::Keep | QueuePolicy::Refuse => {
            declare_losses(image, &found.queue, group)?;
            declare_numbers(image, &found.queue, group);
        }
        QueuePolicy::Drop if found.queue.is_empty() => {}
        QueuePolicy::Drop => {
            let object = format!("queue of {}: {} bytes", group.place, found.queue.len());
            let reason = "unread events are dropped (--queue drop)";
            declare(image, Loss::new(LossKind::QueueDropped, object, reason));
        }
    }
    if let Err(errno) = found.next_wd {
        let object = format!("next watch of {}", group.place);
        let reason = format!("its number is found by making a watch: {}", errno.desc());
        declare(image, Loss::new(LossKind::NextWatch, object, reason));
    }
    if let Some(Object::Inotify(state)) = &mut image.files[taken.index].object {
        state.next_wd = found.next_wd.ok().map(fsnotify::Wd::number);
        state.queue = match policy {
            QueuePolicy::Keep | QueuePolicy::Refuse => found.queue,
            QueuePolicy::Drop => Vec::new(),
        };
    }
    Ok(())
}

/// Unread events that name a file by the number of its inode, as a file without a name is (`d_tmpfile`).
/// It is made again as another, so a later event neither merges with them nor can be told to be of it.
fn declare_numbers(image: &mut Image, queue: &[u8], group: &Held) {
    let unnamed = image
        .places
        .iter()
        .filter(|place| place.kind() == PlaceKind::Unnamed);
    let inodes = unnamed.map(|place| &image.inodes[place.inode as usize]);
    let numbers: HashSet<Vec<u8>> = inodes
        .filter(|inode| inode.ghost.is_some())
        .map(|inode| format!("#{}", inode.ino).into_bytes())
        .collect();
    if numbers.is_empty() {
        return;
    }
    let events = Events::new(queue).map_while(Result::ok);
    let wds: BTreeSet<i32> = events
        .filter(|event| numbers.contains(event.name))
        .map(|event| event.raw_wd())
        .collect();
    for wd in wds {
        let object = format!("{}: wd {wd}", group.place);
        let reason =
            "a file without a name is called by the number of its inode, which is made anew";
        declare(image, Loss::new(LossKind::UnnamedNumber, object, reason));
    }
}

/// What a rebuilt queue will lack; a queue that cannot be rebuilt is refused now.
fn declare_losses(image: &mut Image, events: &[u8], group: &Held) -> Result<(), DumpError> {
    if events.is_empty() {
        return Ok(());
    }
    let refused =
        |error: queue::RebuildError| DumpError::not_supported("", format!("queue: {error}"));
    let limit = queue::limit().map_err(refused)?;
    for loss in queue::losses(&group.place, events, limit).map_err(refused)? {
        declare(image, loss);
    }
    Ok(())
}

/// Renames that several groups have heard of.
fn declare_pairs(image: &mut Image, held: &[Held]) {
    let mut groups = Vec::new();
    for (file, held) in image.files.iter().zip(held) {
        if let Some(Object::Inotify(state)) = &file.object {
            let masks = state.watches.iter().map(|watch| watch.mask);
            groups.push(Unread {
                name: &held.place,
                queue: &state.queue,
                selects: Mask(masks.fold(0, |all, mask| all | mask)),
            });
        }
    }
    for loss in queue::losses_across(&groups) {
        declare(image, loss);
    }
}

fn put_back_one(
    image: &Image,
    held: &[Held],
    places: &mut Places,
    mut taken: TakenGroup,
) -> Result<PutBack, DumpError> {
    let group = &held[taken.index].file;
    let watches = match &image.files[taken.index].object {
        Some(Object::Inotify(state)) => &state.watches[..],
        _ => &[],
    };
    let by_wd = |watch: &Watch| Some((Wd::new(watch.wd)?, watch.place));
    let mut targets = Reopened {
        image,
        held,
        places,
        by_wd: watches.iter().filter_map(by_wd).collect(),
    };
    let live = |watch: &Watch| {
        let mask = Mask(watch.mask);
        Some(LiveWatch {
            wd: Wd::new(watch.wd)?,
            mask,
        })
    };
    let watches: Vec<LiveWatch> = watches.iter().filter_map(live).collect();
    let mut live = Live {
        group: group.as_fd(),
        watches: &watches,
        targets: &mut targets,
        owner: taken.owner,
    };
    let done = queue::put_back(&mut live, taken.kept.basket()).map_err(|error| {
        let kept = match &taken.kept {
            Kept::Memory(_) => String::new(),
            Kept::Journal(_, path) => format!("; its events are in {}", path.display()),
        };
        DumpError::new("", DumpErrorKind::NotPutBack(format!("{error}{kept}")))
    });
    // Whatever has failed.
    let told = taken.owner.map(|owner| owner.give_back(group.as_fd()));
    let done = done?;
    told.transpose()
        .map_err(|errno| DumpError::on("fcntl", "F_SETOWN_EX", errno))?;
    forget(taken.kept)?;
    Ok(done)
}

/// What watches of the image are on.
#[derive(Debug)]
struct Reopened<'a> {
    image: &'a Image,
    held: &'a [Held],
    places: &'a mut Places,
    by_wd: HashMap<Wd, u32>,
}

impl Targets for Reopened<'_> {
    fn open(&mut self, wd: Wd) -> Result<Option<OwnedFd>, Errno> {
        match self.by_wd.get(&wd) {
            Some(&place) => self.places.reopen(self.image, self.held, place),
            None => Ok(None),
        }
    }
}
