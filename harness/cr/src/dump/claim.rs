//! A subject and the place of its image, which are one dumper's alone.
//!
//! What the dump of a living process changes is noted beside the image before it is changed
//! ([`Record`]): whoever is killed leaves what [`recover`](super::recover()) needs, from the stop of
//! the first process to its end.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::content::Store;
use super::error::{DumpError, DumpErrorKind};
use super::locks::Locks;
use super::record::Record;
use super::recover::{self, LetGo, Recovered};
use super::stop::{self, Fate, Stopped};
use super::tree::Scope;
use super::{
    Afterwards, Dump, DumpOptions, Ghosts, Seen, group, hearers, in_own_directory, park, queues,
    sharers,
};
use crate::image::{Image, Writer};
use crate::process::{Status, began};
use crate::sys::path;
use crate::{Loss, LossKind};

/// Given back when it goes away: who was stopped by it goes on, unless it was killed, or could not be
/// given back what was taken from it.
#[derive(Debug)]
pub struct Claim {
    pid: Pid,
    began: u64,
    path: PathBuf,
    record: Record,
    locks: Locks,
    stopped: Stopped,
    recovered: Vec<Recovered>,
    /// Something was taken that is neither in an image nor given back.
    in_doubt: bool,
}

impl Claim {
    /// Of a process and of a place, where it first puts right what a dumper left that was killed.
    ///
    /// # Errors
    ///
    /// That the process can be no subject, that another is at work at the place, that groups are
    /// parked there, or what could not be put right: by name.
    pub fn on(pid: Pid, image: &Path, options: &DumpOptions) -> Result<Self, DumpError> {
        stop::refuse(pid)?;
        let began =
            began(pid).map_err(|error| DumpError::io("read", format!("/proc/{pid}"), &error))?;
        let path = path::absolute(image);
        let mut record = Record::lock(&path)?;
        let recovered = recover::here(&path, options, (&mut record, LetGo::GoOn))?;
        let mut claim = Self {
            pid,
            began,
            path,
            record,
            locks: Locks::default(),
            stopped: Stopped::default(),
            recovered,
            in_doubt: false,
        };
        park::refuse_occupied(&claim.path)?;
        claim.record.begin()?;
        Ok(claim)
    }

    /// What a dumper had left at the place, and what became of it.
    #[must_use]
    pub fn recovered(&self) -> &[Recovered] {
        &self.recovered
    }

    /// Stops the process and, unless its groups are wanted alone, its descendants.
    ///
    /// # Errors
    ///
    /// That one cannot be stopped, is traced, or is another dumper's.
    pub fn stop(&mut self, options: &DumpOptions) -> Result<(), DumpError> {
        let scope = Scope::of(options);
        self.stopped
            .tree((self.pid, scope), &mut self.locks, &mut self.record)
    }

    /// As [`dump_to_file`](super::dump_to_file).
    ///
    /// # Errors
    ///
    /// The same.
    pub fn dump(
        &mut self,
        options: &DumpOptions,
        afterwards: Afterwards,
    ) -> Result<(Image, Vec<Loss>), DumpError> {
        in_own_directory(|| self.dump_here(options, afterwards))
    }

    fn dump_here(
        &mut self,
        options: &DumpOptions,
        afterwards: Afterwards,
    ) -> Result<(Image, Vec<Loss>), DumpError> {
        let runs_on = afterwards == Afterwards::RunsOn;
        if runs_on && options.ghosts == Ghosts::HardLink {
            let what = "links to the ghosts of a process that runs on, which a restore would miss";
            return Err(DumpError::not_supported("", what));
        }
        let path = self.path.clone();
        let store = |(image, held): Seen<'_>| {
            sharers::refuse(image, held)?;
            hearers::refuse(image, held, &path)?;
            let writer = Writer::create(&path);
            let failed = |error| DumpError::io("write", path.display().to_string(), &error);
            writer.map(Store::file).map_err(failed)
        };
        let mut dump = self.look(options, store)?;
        group::refuse_waiting(&dump.image, &dump.held)?;
        queues::refuse_unmakeable(&dump.image, &dump.held)?;
        if runs_on {
            queues::refuse_for_good(&dump.image, &dump.held)?;
            refuse_few_descriptors()?;
        } else {
            stop::refuse_undying(&dump.image.pids())?;
        }
        dump.link_ghosts(options, Some(&mut self.record))?;
        dump.reserve()?;
        interrupted()?;
        self.in_doubt = true;
        let taken = dump.take_and_write(options.queue, &self.path);
        let ended = taken.and_then(|()| match afterwards {
            Afterwards::RunsOn => Ok(()),
            // Before the journals go: they find that it is gone.
            Afterwards::Ends => stop::end(&dump.image.pids()),
        });
        if let Err(error) = ended {
            let lost = dump.put_back_for(error);
            self.in_doubt = lost.1;
            return Err(lost.0);
        }
        let done = match afterwards {
            Afterwards::RunsOn => dump.put_back(),
            Afterwards::Ends => {
                self.in_doubt = false;
                dump.forget().map(|image| (image, Vec::new()))
            }
        };
        self.in_doubt &= done.is_err();
        done
    }

    fn look(
        &mut self,
        options: &DumpOptions,
        store: impl FnOnce(Seen<'_>) -> Result<Store, DumpError>,
    ) -> Result<Dump, DumpError> {
        interrupted()?;
        let claimed = (&mut self.locks, Some(&mut self.record));
        let dump = Dump::look(self.pid, options, store, claimed)?;
        interrupted()?;
        Ok(dump)
    }

    /// As [`park`](super::park()).
    ///
    /// # Errors
    ///
    /// The same.
    pub fn park(&mut self, options: &DumpOptions) -> Result<Image, DumpError> {
        // The rest ends here, and the thread that listens with it: the holder is forked of one
        // thread.
        let (mut image, held) = in_own_directory(|| {
            let Dump { image, held, .. } = self.look(options, |_| Ok(Store::Nowhere))?;
            Ok((image, held))
        })?;
        stop::refuse_undying(&image.pids())?;
        // What cannot be made again is not made again.
        image.lost.clear();
        if options.only_groups {
            let reason = "what the process has open besides is closed at its end, which they hear";
            super::declare(
                &mut image,
                Loss::new(LossKind::ClosedBesideParked, "parked groups", reason),
            );
        }
        let holder = park::Holder::start(held.into_iter().map(|held| held.file).collect())?;
        image.parked = Some(holder.parked());
        let written = image.write(&self.path);
        written.map_err(|error| DumpError::io("write", self.path.display().to_string(), &error))?;
        // Until here it ends with this process, and the image is of no use.
        holder.keep()?;
        stop::end(&image.pids())?;
        Ok(image)
    }

    /// Whether the process has been stopped here.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        !self.stopped.is_empty()
    }

    /// Gives everything back; what becomes of the process, or nothing where only
    /// [`recover`](super::recover()) can see to that.
    #[must_use]
    pub fn end(self) -> Option<Fate> {
        let (pid, began, in_doubt) = (self.pid, self.began, self.in_doubt);
        drop(self);
        (!in_doubt).then(|| stop::fate(pid, began))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.in_doubt {
            // Stopped, as the journals want it; the record says who goes on afterwards.
            return;
        }
        self.stopped.go_on();
        // The next one at this place removes it otherwise.
        let _ = self.record.remove();
    }
}

/// Descriptors that a queue is put back with, at the most: those of the scratch filesystems above all.
const SPARE: usize = 32;

/// Who may not have so many more is told before anything is taken.
fn refuse_few_descriptors() -> Result<(), DumpError> {
    let failed = |error: &std::io::Error| DumpError::io("readdir", "/proc/self/fd", error);
    let open = std::fs::read_dir("/proc/self/fd").map_err(|error| failed(&error))?;
    let needed = open.count() + SPARE;
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| DumpError::on("getrlimit", "RLIMIT_NOFILE", errno))?;
    if limit < needed as u64 {
        let operand = format!("{needed} descriptors");
        return Err(DumpError::on("open", operand, Errno::EMFILE));
    }
    Ok(())
}

/// Signals by which a user, or the machine, tells a dumper to end.
pub const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Refuses to go on if one of [`SIGNALS`] has come that the caller blocks. One that does not is killed
/// by it, as by any other.
pub(super) fn interrupted() -> Result<(), DumpError> {
    let status = Status::of("thread-self");
    let signals = |name: &str| status.as_ref().map_or(0, |status| status.set(name));
    let waiting = (signals("SigPnd") | signals("ShdPnd")) & signals("SigBlk");
    let mut numbers = SIGNALS.into_iter().map(|signal| signal as i32);
    match numbers.find(|number| waiting & (1 << (number - 1)) != 0) {
        Some(signal) => Err(DumpError::new("", DumpErrorKind::Interrupted(signal))),
        None => Ok(()),
    }
}
