//! Dump: what a stopped tree of processes has, read from outside without a trace.
//!
//! Nothing here opens a file of the subject in a way that anybody hears: descriptors come by
//! pidfd_getfd(2), paths and handles are opened with `O_PATH`, content is mapped. The one step that
//! takes something from the subject is the drain of its queues; it comes last, and what it took is
//! put back if anything fails after it.
//!
//! What is not understood is refused by name. What cannot be kept is declared as a [`Loss`].

mod content;
mod error;
mod files;
mod group;
mod mounts;
mod places;
mod queues;
mod tree;

use std::path::PathBuf;

use nix::unistd::Pid;

pub use error::{DumpError, DumpErrorKind};

use crate::Loss;
use crate::image::{Image, LossRecord};
use crate::sys::descriptor::raise_file_limit;
use crate::sys::handle::with_own_directory;

/// Most bytes of content of one ghost by default; larger ones are refused by name.
pub const GHOST_LIMIT: u64 = 256 << 20;

/// What a dump may do, and what it is told beforehand.
#[derive(Clone, Debug)]
pub struct DumpOptions {
    /// Where relative [`paths`](Self::paths) begin.
    pub root: PathBuf,
    /// Paths that may lead to a watched inode. They are looked up where a handle cannot be opened:
    /// in a user namespace, or on a filesystem without handles.
    pub paths: Vec<PathBuf>,
    /// What to do about unread events.
    pub queue: QueuePolicy,
    /// How ghosts come through.
    pub ghosts: GhostStrategy,
    /// Take notification groups and what their watches are on, and leave all other descriptors.
    pub only_groups: bool,
    /// Most bytes of content of one ghost.
    pub ghost_limit: u64,
}

impl Default for DumpOptions {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            paths: Vec::new(),
            queue: QueuePolicy::Keep,
            ghosts: GhostStrategy::Silent,
            only_groups: false,
            ghost_limit: GHOST_LIMIT,
        }
    }
}

/// What to do about unread events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePolicy {
    /// Take them, and make them again.
    Keep,
    /// Leave them behind, and say so.
    Drop,
    /// Do not dump a subject that has some.
    Refuse,
}

/// How an inode without a name comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GhostStrategy {
    /// Its content is copied in silence, and it is made again out of sight.
    Silent,
    /// As CRIU does: an inode with another name is linked at dump, one without is created beside
    /// where it was; both are unlinked at restore. Whoever watches the directory hears it.
    Hardlink,
}

/// Dumps a process and its descendants, all of which must be stopped.
///
/// # Errors
///
/// What cannot be dumped, by name. The subject is then as it was.
pub fn dump(pid: Pid, options: &DumpOptions) -> Result<Image, DumpError> {
    with_own_directory(|| dump_here(pid, options))
        .map_err(|errno| DumpError::on("unshare", "", errno))?
}

fn dump_here(pid: Pid, options: &DumpOptions) -> Result<Image, DumpError> {
    // One descriptor is held for each description of the subject. More may be allowed for good:
    // nobody is worse off.
    let _ = raise_file_limit();
    let scope = if options.only_groups {
        tree::Scope::Alone
    } else {
        tree::Scope::Tree
    };
    let mut image = Image {
        boot_id: boot_id(),
        only_groups: options.only_groups,
        processes: tree::processes(pid, scope)?,
        ..Image::default()
    };
    let mut places = places::Places::new(pid, options)?;
    let held = files::collect(&mut image, &mut places, options)?;
    group::collect(&mut image, &mut places, &held)?;
    tree::working_directories(&mut image, &mut places)?;
    places.finish(&mut image, &held, options)?;
    queues::take(&mut image, &held, options.queue)?;
    Ok(image)
}

/// This boot; empty where the kernel does not tell.
pub(crate) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn declare(image: &mut Image, loss: Loss) {
    image.lost.push(LossRecord::from(loss));
}
