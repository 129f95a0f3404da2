//! Dump: what a stopped tree of processes has, read from outside without a trace.
//!
//! Nothing here opens a file of the subject in a way that anybody hears: descriptors come by
//! pidfd_getfd(2), paths and handles are opened with `O_PATH`, content is mapped. The one step that
//! takes something from the subject is the drain of its queues; it comes last, and what it took is
//! put back if anything fails after it.
//!
//! What is not understood is refused by name. What cannot be kept is declared as a [`Loss`].

mod anchors;
mod content;
mod edges;
mod error;
mod files;
mod foresee;
mod group;
pub(crate) mod journal;
mod links;
mod parents;
pub(crate) mod park;
mod places;
mod queues;
pub(crate) mod settled;
mod sharers;
mod tree;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use content::Store;
pub use error::{DumpError, DumpErrorKind};
pub use foresee::{Doubt, Foreseen, foresee};
pub use journal::{Outcome, Recovered, recover};
pub use park::{park, release};

use crate::Loss;
use crate::image::{Image, LossRecord, Writer};
use crate::sys::descriptor::raise_file_limit;
use crate::sys::handle::with_own_directory;
use crate::sys::path;

/// Most bytes of content of one ghost by default; larger ones are refused by name. Holes do not
/// count. It is about space in the image: what goes to a file is copied piece by piece.
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
    /// How ghosts are kept.
    pub ghosts: Ghosts,
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
            ghosts: Ghosts::Silent,
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

/// How open files without a name are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ghosts {
    /// Read without being heard, and made again out of sight.
    Silent,
    /// Given a name again, by which the restore finds them: whoever watches hears it.
    HardLink,
}

/// Dumps a process and its descendants, all of which must be stopped, and which are not to run
/// on: their queues are in the image. So is the content of ghosts, all in memory; [`dump_to_file`]
/// needs no more memory for a large one than for a small one.
///
/// # Errors
///
/// What cannot be dumped, by name. The subject is then as it was.
pub fn dump(pid: Pid, options: &DumpOptions) -> Result<Image, DumpError> {
    in_own_directory(|| {
        let mut dump = Dump::look(pid, options, |(image, held, _)| {
            sharers::refuse(image, held)?;
            Ok(Store::Memory)
        })?;
        group::refuse_waiting(&dump.image, &dump.held)?;
        dump.link_ghosts(options)?;
        dump.take_queues(options.queue, None)?;
        dump.links.keep();
        Ok(dump.image)
    })
}

/// What becomes of the subject behind a dump to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It is not to run on: its queues are in the image.
    Ends,
    /// It runs on, with its queues.
    RunsOn,
}

/// Dumps a stopped process and its descendants to an image file, which is complete or not there.
///
/// What is read from a queue goes through a journal beside the image, from which [`recover`], or
/// the next dump to this file, gives it back should this process be killed. The second result is what the subject, if it runs on,
/// may lack.
///
/// # Errors
///
/// What cannot be dumped or written, by name. The subject is then as it was.
pub fn dump_to_file(
    pid: Pid,
    image_path: &Path,
    (options, afterwards): (&DumpOptions, Afterwards),
) -> Result<(Image, Vec<Loss>), DumpError> {
    let image_path = &path::absolute(image_path);
    recover(image_path, options)?;
    in_own_directory(|| {
        let failed = |error: &std::io::Error| {
            DumpError::io("write", image_path.display().to_string(), error)
        };
        let mut dump = Dump::look(pid, options, |seen| {
            sharers::refuse(seen.0, seen.1)?;
            queues::refuse_own_directory(seen, image_path)?;
            let writer = Writer::create(image_path);
            Ok(Store::file(writer.map_err(|error| failed(&error))?))
        })?;
        group::refuse_waiting(&dump.image, &dump.held)?;
        if afterwards == Afterwards::RunsOn {
            queues::refuse_for_good(&dump.image, &dump.held)?;
        }
        dump.link_ghosts(options)?;
        dump.take_queues(options.queue, Some(image_path))?;
        if let Err(error) = dump.write() {
            dump.put_back()?;
            return Err(failed(&error));
        }
        match afterwards {
            Afterwards::RunsOn => dump.put_back(),
            Afterwards::Ends => dump.forget().map(|image| (image, Vec::new())),
        }
    })
}

fn in_own_directory<T: Send>(
    body: impl FnOnce() -> Result<T, DumpError> + Send,
) -> Result<T, DumpError> {
    with_own_directory(body).map_err(|errno| DumpError::on("unshare", "", errno))?
}

/// What is known before anything is copied.
type Seen<'a> = (&'a Image, &'a [files::Held], &'a places::Places);

/// A dump under way.
struct Dump {
    image: Image,
    places: places::Places,
    held: Vec<files::Held>,
    /// What the groups heard of the dump itself.
    own: queues::Own,
    /// Unread bytes of each inotify group before anything was done.
    unread: HashMap<usize, usize>,
    links: links::Links,
    taken: queues::Taken,
    store: Store,
}

impl Dump {
    /// All that can be seen without taking anything. Where content goes is asked for when the groups
    /// are known.
    fn look(
        pid: Pid,
        options: &DumpOptions,
        store: impl FnOnce(Seen<'_>) -> Result<Store, DumpError>,
    ) -> Result<Self, DumpError> {
        // One descriptor is held for each description of the subject. More may be allowed for
        // good: nobody is worse off.
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
        tree::working_directories(&mut image, &mut places)?;
        group::collect(&mut image, &mut places, &held)?;
        group::find_asking(&mut image, &held)?;
        let mut store = store((&image, &held, &places))?;
        let unread = queues::unread(&image, &held)?;
        places.finish(&mut image, &held, (options.ghost_limit, &mut store))?;
        let own = queues::heard_since(&image, &held, &unread)?;
        Ok(Self {
            image,
            places,
            held,
            own,
            unread,
            links: links::Links::default(),
            taken: queues::Taken::default(),
            store,
        })
    }

    fn link_ghosts(&mut self, options: &DumpOptions) -> Result<(), DumpError> {
        if options.ghosts == Ghosts::Silent {
            return Ok(());
        }
        let content = match &self.store {
            Store::File { writer, .. } => {
                let content = writer.content();
                Some(content.map_err(|error| DumpError::io("fcntl", "image", &error))?)
            }
            Store::Memory | Store::Nowhere => None,
        };
        let seen = (&self.held[..], &self.places);
        self.links.make(&mut self.image, seen, content.as_ref())?;
        if options.queue == QueuePolicy::Drop {
            // All goes, and only what is not of our own making is a loss.
            self.own = queues::heard_since(&self.image, &self.held, &self.unread)?;
        }
        Ok(())
    }

    fn take_queues(
        &mut self,
        policy: QueuePolicy,
        image_path: Option<&PathBuf>,
    ) -> Result<(), DumpError> {
        let Self {
            image,
            held,
            own,
            taken,
            ..
        } = self;
        let result = taken.take(image, (held, own), (policy, image_path));
        if result.is_err() {
            let taken = std::mem::take(taken);
            taken.put_back(&self.image, &self.held, &mut self.places)?;
        }
        result
    }

    /// Completes the file of the image.
    fn write(&mut self) -> std::io::Result<()> {
        match std::mem::replace(&mut self.store, Store::Nowhere) {
            Store::File { writer, .. } => writer.finish(&mut self.image),
            Store::Memory | Store::Nowhere => Ok(()),
        }
    }

    fn put_back(mut self) -> Result<(Image, Vec<Loss>), DumpError> {
        let mut losses = self
            .taken
            .put_back(&self.image, &self.held, &mut self.places)?;
        files::take_edges(&self.image, &self.held)?;
        if self.image.only_groups {
            losses.extend(edges::in_doubt(&self.image, &self.held));
        }
        losses.extend(files::accessed(&self.image, &self.held));
        Ok((self.image, losses))
    }

    fn forget(self) -> Result<Image, DumpError> {
        self.taken.forget()?;
        self.links.keep();
        Ok(self.image)
    }
}

/// This boot; empty where the kernel does not tell.
pub(crate) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn declare(image: &mut Image, loss: Loss) {
    image.lost.push(LossRecord::from(loss));
}
