//! Dump: what a stopped tree of processes has, read from outside without a trace.
//!
//! Nothing here opens a file of the subject in a way that anybody hears: descriptors come by
//! pidfd_getfd(2), paths and handles are opened with `O_PATH`, content is mapped. The one step that
//! takes something from the subject is the drain of its queues; it comes last, and what it took is
//! put back if anything fails after it.
//!
//! What is not understood is refused by name. What cannot be kept is declared as a [`Loss`].

mod anchors;
mod claim;
mod content;
mod edges;
mod error;
mod files;
mod foresee;
mod grounds;
mod group;
mod hearers;
pub(crate) mod journal;
mod keepers;
mod links;
mod locks;
mod owners;
mod parents;
pub(crate) mod park;
mod places;
mod queues;
mod record;
mod recover;
pub(crate) mod settled;
mod sharers;
mod stop;
mod tree;
mod unread;
mod wanted;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use prost::Message;

use claim::interrupted;
use content::Store;
use files::Held;
use locks::Locks;
use record::Record;
use unread::Unread;

pub use claim::{Claim, SIGNALS};
pub use error::{DumpError, DumpErrorKind};
pub use foresee::{Doubt, Foreseen, foresee};
pub use journal::check_journal;
pub use park::{Release, is_there, release, release_at_exec};
pub use recover::{Outcome, Recovered, recover, recover_stopped};
pub use stop::Fate;

use crate::Loss;
use crate::image::{Image, LossRecord, Object, OpenFile, Process};
use crate::process::began;
use crate::sys::descriptor::{self, raise_file_limit};
use crate::sys::handle::with_own_directory;

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
        let claimed = (&mut Locks::default(), None);
        let store = |(image, held): Seen<'_>| {
            sharers::refuse(image, held)?;
            Ok(Store::Memory)
        };
        let mut dump = Dump::look(pid, options, store, claimed)?;
        group::refuse_waiting(&dump.image, &dump.held)?;
        queues::refuse_unmakeable(&dump.image, &dump.held)?;
        dump.link_ghosts(options, None)?;
        if let Err(error) = dump.take(options.queue, None) {
            return Err(dump.put_back_for(error).0);
        }
        dump.links.keep();
        Ok(dump.image)
    })
}

/// What becomes of the subject behind a dump to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It is killed once its image is complete, which has its queues.
    Ends,
    /// It runs on, with its queues.
    RunsOn,
}

/// Dumps a stopped process and its descendants to an image file, which is complete or not there.
///
/// What is read from a queue goes through a journal beside the image, from which [`recover`], or the
/// next dump to this file, gives it back should this process be killed. The second result is what the
/// subject, if it runs on, may lack.
///
/// # Errors
///
/// What cannot be dumped or written, by name. The subject is then as it was.
pub fn dump_to_file(
    pid: Pid,
    image_path: &Path,
    (options, afterwards): (&DumpOptions, Afterwards),
) -> Result<(Image, Vec<Loss>), DumpError> {
    Claim::on(pid, image_path, options)?.dump(options, afterwards)
}

/// Parks a stopped process and its descendants, writes an image that says where, and kills them. The
/// caller has one thread.
///
/// # Errors
///
/// What cannot be parked or written, by name. The subject is then as it was.
pub fn park(pid: Pid, image_path: &Path, options: &DumpOptions) -> Result<Image, DumpError> {
    Claim::on(pid, image_path, options)?.park(options)
}

fn in_own_directory<T: Send>(
    body: impl FnOnce() -> Result<T, DumpError> + Send,
) -> Result<T, DumpError> {
    let body = || {
        // A file that may not grow is an error, not the end. The mask is that of this thread.
        let blocked = SigSet::from(Signal::SIGXFSZ).thread_block();
        blocked.map_err(|errno| DumpError::on("sigprocmask", "", errno))?;
        body()
    };
    with_own_directory(body).map_err(|errno| DumpError::on("unshare", "", errno))?
}

/// What is known before anything is copied.
type Seen<'a> = (&'a Image, &'a [files::Held]);

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
    /// What was read of queues that nothing fills again.
    unread_files: Unread,
    store: Store,
}

impl Dump {
    /// All that can be seen without taking anything. Where content goes is asked for when the groups
    /// are known.
    fn look(
        pid: Pid,
        options: &DumpOptions,
        store: impl FnOnce(Seen<'_>) -> Result<Store, DumpError>,
        (locks, record): (&mut Locks, Option<&mut Record>),
    ) -> Result<Self, DumpError> {
        // One descriptor is held for each description of the subject. More may be allowed for
        // good: nobody is worse off.
        let _ = raise_file_limit();
        let mut image = Image {
            boot_id: boot_id(),
            only_groups: options.only_groups,
            processes: tree::processes(pid, tree::Scope::of(options))?,
            ..Image::default()
        };
        let lives = |process: &&Process| process.exited.is_none();
        for process in image.processes.iter().filter(lives) {
            locks.take(Pid::from_raw(process.pid))?;
        }
        let mut places = places::Places::new(pid, options)?;
        let held = files::collect(&mut image, &mut places, |pid| {
            wanted::Wanted::of(pid, options)
        })?;
        refuse_nothing(&image)?;
        if let Some(record) = record {
            note_files(&image, &held, record)?;
        }
        owners::note(&mut image, &held);
        tree::working_directories(&mut image, &mut places)?;
        group::collect(&mut image, &mut places, &held)?;
        group::find_asking(&mut image, &held)?;
        let mut store = store((&image, &held))?;
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
            unread_files: Unread::default(),
            store,
        })
    }

    fn link_ghosts(
        &mut self,
        options: &DumpOptions,
        record: Option<&mut Record>,
    ) -> Result<(), DumpError> {
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
        self.links
            .make(&mut self.image, seen, (content.as_ref(), record))?;
        if options.queue == QueuePolicy::Drop {
            // All goes, and only what is not of our own making is a loss.
            self.own = queues::heard_since(&self.image, &self.held, &self.unread)?;
        }
        Ok(())
    }

    /// Makes sure of the room for what is read from the queues, while nothing is.
    fn reserve(&mut self) -> Result<(), DumpError> {
        let Store::File { writer, .. } = &self.store else {
            return Ok(());
        };
        let mut room = self.image.encoded_len() as u64 + ROOM;
        for (file, group) in self.image.files.iter().zip(&self.held) {
            let times = match &file.object {
                Some(Object::Inotify(_)) => 2,
                Some(Object::Fanotify(_)) => unread::WORDS,
                Some(Object::Place(_) | Object::Epoll(_)) | None => continue,
            };
            room += times * queues::unread_bytes(group)? as u64;
        }
        let reserved = writer.reserve(room);
        reserved.map_err(|error| DumpError::io("fallocate", "image", &error))
    }

    /// Reads the queues. What was read is kept here, also after an error.
    fn take(&mut self, policy: QueuePolicy, image_path: Option<&PathBuf>) -> Result<(), DumpError> {
        let seen = (&self.held[..], &self.own);
        self.taken
            .take(&mut self.image, seen, (policy, image_path))?;
        interrupted()?;
        // Last: nothing puts these events back.
        let files = (&mut self.unread_files, image_path.map(PathBuf::as_path));
        queues::take_fanotify_queues(&mut self.image, &self.held, (policy, files))
    }

    fn take_and_write(
        &mut self,
        policy: QueuePolicy,
        image_path: &PathBuf,
    ) -> Result<(), DumpError> {
        self.take(policy, Some(image_path))?;
        let written = self.write();
        written.map_err(|error| DumpError::io("write", image_path.display().to_string(), &error))
    }

    /// Completes the file of the image.
    fn write(&mut self) -> std::io::Result<()> {
        match std::mem::replace(&mut self.store, Store::Nowhere) {
            Store::File { writer, .. } => writer.finish(&mut self.image),
            Store::Memory | Store::Nowhere => Ok(()),
        }
    }

    /// Gives back what was taken before this error. What is to be said, and whether something is
    /// left that only [`recover`] gives back.
    fn put_back_for(mut self, error: DumpError) -> (DumpError, bool) {
        let files = std::mem::take(&mut self.unread_files).into_files();
        match self.put_back() {
            Err(error) => (error, true),
            Ok(_) if files.is_empty() => (error, false),
            Ok(_) => {
                let error = Box::new(error);
                (
                    DumpError::new("", DumpErrorKind::Lost { error, files }),
                    false,
                )
            }
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

    /// The subject has been killed, and all is in the image.
    fn forget(self) -> Result<Image, DumpError> {
        self.taken.forget()?;
        self.unread_files.remove()?;
        self.links.keep();
        Ok(self.image)
    }
}

/// Room for what a dump finds out about its queues.
const ROOM: u64 = 1 << 16;

/// Of a process without groups nothing would be kept, and it would be killed for that.
fn refuse_nothing(image: &Image) -> Result<(), DumpError> {
    let is_group =
        |file: &OpenFile| matches!(file.object, Some(Object::Inotify(_) | Object::Fanotify(_)));
    if image.only_groups && !image.files.iter().any(is_group) {
        let what = "it has no inotify or fanotify group".to_owned();
        return Err(DumpError::new("", DumpErrorKind::Refused(what)));
    }
    Ok(())
}

/// To read a ghost without a trace may take another offset and another flag for a while, and the
/// subject shares both.
fn note_files(image: &Image, held: &[Held], record: &mut Record) -> Result<(), DumpError> {
    let mut noted = Vec::new();
    for (file, held) in image.files.iter().zip(held) {
        let flags = file.flags.cast_signed();
        if !matches!(file.object, Some(Object::Place(_))) || flags & libc::O_PATH != 0 {
            continue;
        }
        let began = began(held.pid).map_err(stop::of_stat(held.pid))?;
        let stat =
            fstat(&held.file).map_err(|errno| DumpError::on("fstat", &*held.place, errno))?;
        noted.push(record::Descriptor {
            pid: held.pid.as_raw(),
            began,
            fd: held.fd,
            device: stat.st_dev,
            ino: stat.st_ino,
            flags: descriptor::flags(&held.file)
                .map_err(|errno| DumpError::on("fcntl", &*held.place, errno))?,
            offset: file.offset,
        });
    }
    record.files(&noted)
}

/// This boot; empty where the kernel does not tell.
pub(crate) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn declare(image: &mut Image, loss: Loss) {
    image.lost.push(LossRecord::from(loss));
}
