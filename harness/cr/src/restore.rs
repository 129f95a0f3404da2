//! Restore: the process that calls it becomes what the image says, children and all.
//!
//! The order matters. Ghosts first, while nothing is watched; then every other file; then groups,
//! each with its queue rebuilt before its first real watch; then the children; and in each process
//! its numbers, what depends on a number (epoll sets, `O_ASYNC`), and its signals. So nothing that
//! the restore does is heard by a group that it restores.
//!
//! Descriptors are made at high numbers, duplicated to their own at the end, and everything else
//! is closed.
//!
//! What an image says is believed as far as its owner is: as a crontab, it may have anything of its
//! owner's done. So an image that belongs neither to the caller nor to root is refused, unless the
//! restore is kept below a directory ([`RestoreOptions::root`]), out of which nothing leads ([`tree`]),
//! or the caller says that he believes it ([`RestoreOptions::trust`]). Whoever owns it, it is checked
//! before anything is done, and it names what it opens by paths without links.

pub(crate) mod epoll;
mod error;
mod files;
pub(crate) mod ghosts;
mod group;
pub(crate) mod inode;
mod leftovers;
mod parked;
mod processes;
mod space;
mod stage;
mod tree;

use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

pub use error::{RestoreError, RestoreErrorKind};
pub use leftovers::check_restore_journal;

use crate::image::{Content, Image, ImageFile, Object, ReadError};
use crate::sys::{descriptor, path, raw};
use error::Context;
use stage::Stage;
use tree::Tree;

/// What a restore may do.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Directory that the paths of the image are below. Nothing outside of it is opened, made,
    /// linked or changed.
    pub root: PathBuf,
    /// Believe an image of another user.
    pub trust: bool,
    /// What becomes of descriptors that the image does not have.
    pub others: Others,
    /// Leave parked groups with their holder as well, which the caller then ends
    /// ([`release_at_exec`](crate::dump::release_at_exec)).
    pub keep_holder: bool,
    /// How far the machine's counter of cookies is moved at most, for the second half of a rename
    /// whose first half has been read.
    pub cookie_distance: u32,
    /// A defect to plant.
    pub defect: Option<Defect>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            trust: false,
            others: Others::Close,
            keep_holder: false,
            cookie_distance: crate::queue::COOKIE_DISTANCE,
            defect: None,
        }
    }
}

impl RestoreOptions {
    /// Whether there is anything outside of [`root`](Self::root).
    pub(crate) fn is_fenced(&self) -> bool {
        self.root != Path::new("/")
    }
}

/// What becomes of descriptors that the image does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    Close,
    Keep,
}

/// A thing done wrong on purpose, which no change of an image can express: the test of who tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// After all watches are attached, changes the mode of the first watched inode to what it is.
    AddEvent,
    /// Makes the groups' watches in the order of fdinfo, which reverses that order.
    ReverseWatches,
    /// Does not set the number of the next watch.
    ForgetNextWatch,
    /// Gives duplicates of one description a description each.
    SplitDuplicates,
    /// Leaves a file behind in the directory of the first ghost.
    LeaveFile,
    /// Asks for fanotify masks as fdinfo shows them, with `FAN_EVENT_ON_CHILD` where the kernel
    /// added it by itself.
    SendBackChildBit,
}

impl Defect {
    /// Every defect, with its name on the command line.
    pub const ALL: [(Self, &str); 6] = [
        (Self::AddEvent, "add-event"),
        (Self::ReverseWatches, "reverse-watches"),
        (Self::ForgetNextWatch, "forget-next-watch"),
        (Self::SplitDuplicates, "split-duplicates"),
        (Self::LeaveFile, "leave-file"),
        (Self::SendBackChildBit, "send-back-child-bit"),
    ];

    /// The defect of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(defect, _)| *defect)
    }
}

/// Which process of the image the caller is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The pid that the image has for it.
    pub pid: i32,
    /// Set in a child: its own pid. The children return from [`restore`] as their parent does.
    pub child: Option<i32>,
    /// Its own children that live; each is on its way back from [`restore`] in itself.
    pub children: Vec<i32>,
}

/// Makes the calling process, which has one thread, what the image says. Returns in each process
/// of the image.
///
/// # Errors
///
/// What could not be restored, by name. The process should end then: some of it may be.
pub fn restore(image: &Image, options: &RestoreOptions) -> Result<Restored, RestoreError> {
    space::check(image, &Tree::new(image, options)?)?;
    become_image(image, (options, None))
}

fn become_image(
    image: &Image,
    (options, source): (&RestoreOptions, Option<(&Path, Content)>),
) -> Result<Restored, RestoreError> {
    let limit = descriptor::raise_file_limit().context("setrlimit", "RLIMIT_NOFILE")?;
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let content = source.as_ref().map(|(path, content)| (*path, content));
    let stage = unstopped(|| make(image, (options, content)))?;
    drop(source);
    // Nothing but the stage is open here: a descriptor at a number of the image would be closed.
    let restored = processes::become_tree(image, stage, options)?;
    if image.only_groups {
        nix::sys::stat::umask(umask);
    }
    descriptor::set_file_limit(limit).context("setrlimit", "RLIMIT_NOFILE")?;
    if let (Some(parked), None, false) = (&image.parked, restored.child, options.keep_holder) {
        crate::dump::release(parked);
    }
    Ok(restored)
}

/// Does something that is not to be left half done: what would end the process waits. While ghosts
/// have their names, files of others have not.
fn unstopped<T>(body: impl FnOnce() -> Result<T, RestoreError>) -> Result<T, RestoreError> {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        ends.add(signal);
    }
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&ends), Some(&mut before))
        .context("sigprocmask", "")?;
    let result = body();
    before.thread_set_mask().context("sigprocmask", "")?;
    result
}

/// Makes every open file description, and opens every working directory.
fn make(
    image: &Image,
    (options, source): (&RestoreOptions, Option<(&Path, &Content)>),
) -> Result<Stage, RestoreError> {
    let tree = Tree::new(image, options)?;
    if let Some(parked) = &image.parked {
        return parked::take(image, parked, &tree);
    }
    let mut stage = Stage::new(image)?;
    let ghosts = ghosts::make(image, &tree, &mut stage, (options, source))?;
    files::open(image, &tree, &mut stage)?;
    let arming = group::make(image, &tree, &ghosts, &mut stage, options)?;
    for (index, file) in image.files.iter().enumerate() {
        if matches!(file.object, Some(Object::Epoll(_))) {
            let set = raw::epoll_create1(libc::EPOLL_CLOEXEC).and_then(path::owned);
            stage.put(index, set.context("epoll_create1", "")?)?;
        }
    }
    processes::working_directories(image, &tree, &ghosts, &mut stage)?;
    // Nothing opens a file from here on: nobody can have to wait for a listener that is not there.
    group::arm(image, &stage, &arming)?;
    stage.links.remove()?;
    Ok(stage)
}

/// Reads an image and restores it. Before that, puts right what a restore from it left that was
/// killed; should this one be, the next does so.
///
/// # Errors
///
/// That it is no image, that it is another's, or as [`restore`].
pub fn restore_file(path: &Path, options: &RestoreOptions) -> Result<Restored, RestoreError> {
    restore_opened(ImageFile::open(path).map_err(RestoreError::read)?, options)
}

/// Refuses an image of another user that nobody answers for.
///
/// # Errors
///
/// Whose it is.
pub fn refuse_foreign(file: &ImageFile, options: &RestoreOptions) -> Result<(), RestoreError> {
    let owner = file.owner;
    let is_ours = owner == 0 || owner == nix::unistd::geteuid().as_raw();
    if is_ours || options.trust || options.is_fenced() {
        Ok(())
    } else {
        Err(RestoreError::new(RestoreErrorKind::OtherOwner(owner)))
    }
}

/// [`restore_file`] of an image that has been looked at.
///
/// # Errors
///
/// As [`restore_file`].
pub fn restore_opened(file: ImageFile, options: &RestoreOptions) -> Result<Restored, RestoreError> {
    refuse_foreign(&file, options)?;
    let ImageFile {
        path,
        image,
        content,
        ..
    } = file;
    let path = path::absolute(&path);
    space::check(&image, &Tree::new(&image, options)?)?;
    let spoiled = |error| RestoreError::read(ReadError::Io(error)).at("content of ghosts");
    content.verify(&image).map_err(spoiled)?;
    clear_leftovers(&image, &path, options)?;
    become_image(&image, (options, Some((&path, content))))
}

/// Puts right what restores from this image left that were killed: names of ghosts, our own
/// directories, files that had to make way.
///
/// # Errors
///
/// What could not be put right. It is known still.
pub fn clear_leftovers(
    image: &Image,
    path: &Path,
    options: &RestoreOptions,
) -> Result<(), RestoreError> {
    leftovers::clear(path, &Tree::new(image, options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken in the midst, it does not act behind it, which would be the end of the tests.
    #[test]
    fn a_signal_that_ends_waits_until_nothing_is_half_done() {
        let before = SigSet::thread_get_mask().unwrap();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let waiting = unstopped(|| {
                nix::sys::signal::raise(signal).context("raise", "")?;
                let mut set = SigSet::empty();
                set.add(signal);
                Ok(raw::take_signal(&set))
            });
            let waiting = waiting.unwrap().map(|(number, _)| number);
            assert_eq!(waiting, Some(signal as i32));
        }
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
