//! The calls of the model: what each does to the tree, and whom it tells.

mod descriptor;
mod groups;
mod mounts;
mod names;
mod notify;
mod walk;

use std::collections::BTreeMap;

use scenario::{Arg, Call, Event, Expect, Name, Outcome, Phase, Reference, Step};

use super::group::{Group, Queued};
use super::tree::{DentryId, Tree};
use super::{Predicted, Settings};

/// Why a call does not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Errno(i32),
    /// The model knows nothing of it.
    Beyond(&'static str),
}

type Done<T = i64> = Result<T, Stop>;

const EPERM: Stop = Stop::Errno(1);
const ENOENT: Stop = Stop::Errno(2);
const EBADF: Stop = Stop::Errno(9);
const EAGAIN: Stop = Stop::Errno(11);
const EBUSY: Stop = Stop::Errno(16);
const EEXIST: Stop = Stop::Errno(17);
const ENOTDIR: Stop = Stop::Errno(20);
const EISDIR: Stop = Stop::Errno(21);
const EXDEV: Stop = Stop::Errno(18);
const EINVAL: Stop = Stop::Errno(22);
const ENOTTY: Stop = Stop::Errno(25);
const ESPIPE: Stop = Stop::Errno(29);
const ENAMETOOLONG: Stop = Stop::Errno(36);
const ENOTEMPTY: Stop = Stop::Errno(39);
const ELOOP: Stop = Stop::Errno(40);
const ENODATA: Stop = Stop::Errno(61);
const EOPNOTSUPP: Stop = Stop::Errno(95);

/// The world, its processes and its groups after some steps.
#[derive(Clone, Debug)]
pub struct Model {
    tree: Tree,
    /// None is the main process.
    processes: BTreeMap<Option<Name>, Process>,
    files: Vec<OpenFile>,
    groups: Vec<Option<Group>>,
    bindings: BTreeMap<Name, i64>,
    /// `fsnotify_get_cookie`.
    last_cookie: u32,
    /// Cookies in the order in which they were read.
    cookies_read: Vec<u32>,
    /// Calls that wait for the answer of a permission listener, and whether they have been denied.
    waiting: BTreeMap<Name, Waiting>,
    /// Whether a group of fanotify may keep files open.
    keeps_files: bool,
    /// Dentries that have come to their end.
    n_ended: usize,
    settings: Settings,
}

/// A call of a child that has begun.
#[derive(Clone, Debug)]
struct Waiting {
    step: Step,
    is_denied: bool,
}

#[derive(Clone, Debug)]
struct Process {
    /// Indices into [`Model::files`].
    fds: BTreeMap<i32, usize>,
    cwd: DentryId,
}

/// An open file description.
#[derive(Clone, Debug)]
struct OpenFile {
    what: Opened,
    n_refs: u32,
    /// As open(2) took them.
    flags: u64,
    offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    Dentry(DentryId),
    /// Index into [`Model::groups`].
    Group(usize),
    /// A group of fanotify, of which the model knows no more than that it is there.
    Fanotify,
    /// Has a number and no part in notification.
    Other,
}

impl Model {
    /// An empty world; descriptors 0 to 2 are taken.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let devices = OpenFile {
            what: Opened::Other,
            n_refs: 3,
            flags: 2,
            offset: 0,
        };
        let main = Process {
            fds: BTreeMap::from([(0, 0), (1, 0), (2, 0)]),
            cwd: Tree::ROOT,
        };
        Self {
            tree: Tree::new(),
            processes: BTreeMap::from([(None, main)]),
            files: vec![devices],
            groups: Vec::new(),
            bindings: BTreeMap::new(),
            last_cookie: 0,
            cookies_read: Vec::new(),
            waiting: BTreeMap::new(),
            keeps_files: false,
            n_ended: 0,
            settings,
        }
    }

    /// Makes one step.
    ///
    /// # Errors
    ///
    /// What the model knows nothing of; the model is of no use after that.
    pub fn step(&mut self, step: &Step) -> Result<Predicted, &'static str> {
        let mut predicted = Predicted::default();
        let n_ended = self.n_ended;
        let done = match step.phase {
            Phase::Whole => self.call(step, &mut predicted.events),
            Phase::Unfinished => self.begin(step),
            Phase::Resumed => self.resume(step),
        };
        if self.keeps_files && self.n_ended > n_ended {
            return Err("the end of a file that an unread event may keep open");
        }
        match done {
            Ok(outcome) => {
                if let (Expect::Bind(name), Some(Outcome::Value(value))) = (&step.expect, outcome) {
                    self.bindings.insert(name.clone(), value);
                }
                predicted.outcome = outcome;
            }
            Err(Stop::Errno(errno)) => predicted.outcome = Some(Outcome::Errno(errno)),
            Err(Stop::Beyond(reason)) => return Err(reason),
        }
        Ok(predicted)
    }

    /// Whether a group's next wd is in use, so that its next watch gets another one.
    #[must_use]
    pub fn has_next_wd_in_use(&self) -> bool {
        self.groups.iter().flatten().any(Group::has_next_wd_in_use)
    }

    /// Whether the last unread event of a group is of a file made by `O_TMPFILE`: the next one of
    /// that file merges with it, if the number that stands for its name is still the same.
    #[must_use]
    pub fn has_unread_without_name(&self) -> bool {
        self.groups.iter().flatten().any(Group::ends_without_name)
    }

    /// Whether a mount is covered by another, so that no path leads into it.
    #[must_use]
    pub fn has_covered_mount(&self) -> bool {
        self.tree.has_covered_mount()
    }

    /// Takes what every group has queued, in the order of the main process's descriptors, then of
    /// the children's.
    pub(super) fn drain_all(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let fds: Vec<(i32, usize)> = self
            .processes
            .values()
            .flat_map(|process| process.fds.iter().map(|(fd, file)| (*fd, *file)))
            .collect();
        for (fd, file) in fds {
            if let Opened::Group(group) = self.files[file].what {
                while let Some(event) = self.pop(group) {
                    let event = self.named(event, Some(fd));
                    events.push(event);
                }
            }
        }
        events
    }

    /// A call that waits for permission has done nothing yet.
    fn begin(&mut self, step: &Step) -> Done<Option<Outcome>> {
        let process = step.process.clone();
        let process = process.ok_or(Stop::Beyond("the main process waits"))?;
        let (step, is_denied) = (step.clone(), false);
        self.waiting.insert(process, Waiting { step, is_denied });
        Ok(None)
    }

    /// The one call that waits is answered.
    fn answer(&mut self, step: &Step) -> Done<Option<Outcome>> {
        const FAN_DENY: u32 = 2;
        let mut waiting = self.waiting.values_mut();
        let (Some(Arg::Response(response)), Some(only), None) =
            (step.args.get(1), waiting.next(), waiting.next())
        else {
            return Err(Stop::Beyond("an answer to one of several"));
        };
        only.is_denied |= *response & 3 == FAN_DENY;
        Ok(None)
    }

    fn resume(&mut self, step: &Step) -> Done<Option<Outcome>> {
        let waiting = step
            .process
            .as_ref()
            .and_then(|name| self.waiting.remove(name));
        let Waiting { step, is_denied } =
            waiting.ok_or(Stop::Beyond("a call that did not begin"))?;
        let whole = Step {
            phase: Phase::Whole,
            ..step
        };
        if is_denied {
            // Permission is asked for what there is.
            self.clone().call(&whole, &mut Vec::new())?;
            return Err(EPERM);
        }
        self.call(&whole, &mut Vec::new())
    }

    /// The result; none where the model has no opinion of it.
    fn call(&mut self, step: &Step, events: &mut Vec<Event>) -> Done<Option<Outcome>> {
        let value = match step.call {
            Call::Checkpoint | Call::Look => return Ok(Some(Outcome::None)),
            Call::Fork => return self.fork(step).map(|()| Some(Outcome::None)),
            Call::Signals => return Ok(None),
            Call::Wait4 => return Ok(None),
            Call::Read if self.is_fanotify(step)? => return Ok(None),
            Call::Read => self.read(step, events)?,
            Call::Write if matches!(step.args.get(1), Some(Arg::Response(_))) => {
                self.opened(step, 0)?;
                return self.answer(step);
            }
            Call::Getdents64 => {
                self.getdents(step)?;
                return Ok(None);
            }
            Call::Fcntl => return self.fcntl(step),
            Call::EpollCtl | Call::EpollWait | Call::FanotifyMark => {
                self.opened(step, 0)?;
                return Ok(None);
            }
            _ => self.plain(step)?,
        };
        Ok(Some(Outcome::Value(value)))
    }

    fn plain(&mut self, step: &Step) -> Done {
        match step.call {
            Call::Open => self.open(step, None, 0),
            Call::Openat => self.open(step, Some(0), 1),
            Call::Close => self.close(step),
            Call::Dup => self.dup(step),
            Call::Dup2 | Call::Dup3 => self.dup_to(step),
            Call::Write => self.write(step),
            Call::Pread => self.pread(step),
            Call::Pwrite => self.pwrite(step),
            Call::Lseek => self.lseek(step),
            Call::Ftruncate => self.ftruncate(step),
            Call::Fallocate => self.fallocate(step),
            Call::Fchmod | Call::Fchown => self.change_open(step),
            Call::Ioctl => self.ioctl(step),
            Call::EpollCreate1 | Call::MemfdCreate | Call::Eventfd2 | Call::Socket => {
                self.install(step, Opened::Other, 2)
            }
            Call::InotifyInit1 => self.inotify_init(step),
            Call::InotifyAddWatch => self.inotify_add_watch(step),
            Call::InotifyRmWatch => self.inotify_rm_watch(step),
            Call::ExitGroup => self.exit(step),
            Call::DropCaches => Ok(0),
            Call::Mkdir | Call::Mknod | Call::Symlink => self.make(step),
            Call::Rmdir => self.rmdir(step, None, 0),
            Call::Unlink => self.unlink(step, None, 0),
            Call::Unlinkat => self.unlinkat(step),
            Call::Link => self.link(step),
            Call::Linkat => self.linkat(step),
            Call::Rename => self.rename(step),
            Call::Renameat2 => self.renameat2(step),
            Call::Truncate => self.truncate(step),
            Call::Chmod | Call::Chown => self.change(step),
            Call::Utimensat => self.utimensat(step),
            Call::Setxattr => self.setxattr(step),
            Call::Removexattr => self.removexattr(step),
            Call::Chdir => self.chdir(step),
            Call::Flood => self.flood(step),
            Call::FanotifyInit => self.fanotify_init(step),
            Call::Mount => self.mount(step),
            Call::Umount2 => self.umount(step),
            // The caller has these.
            Call::Checkpoint
            | Call::Look
            | Call::Fork
            | Call::Signals
            | Call::Wait4
            | Call::Read
            | Call::Getdents64
            | Call::Fcntl
            | Call::EpollCtl
            | Call::EpollWait
            | Call::FanotifyMark => Err(Stop::Beyond("this call")),
        }
    }

    fn process(&self, step: &Step) -> &Process {
        &self.processes[&step.process]
    }

    fn process_mut(&mut self, step: &Step) -> &mut Process {
        self.processes
            .get_mut(&step.process)
            .expect("a checked scenario names living processes")
    }

    /// The number that the argument at `index` stands for.
    fn number(&self, step: &Step, index: usize) -> Done {
        match step.reference(index) {
            Reference::Number(number) => Ok(number),
            Reference::Name(name) => {
                let bound = self.bindings.get(name).copied();
                bound.ok_or(Stop::Beyond("a name that no success bound"))
            }
            Reference::Cwd => Err(EBADF),
        }
    }

    /// The open file that the argument at `index` stands for.
    fn opened(&self, step: &Step, index: usize) -> Done<usize> {
        let number = self.number(step, index)?;
        let fd = i32::try_from(number).map_err(|_| EBADF)?;
        self.process(step).fds.get(&fd).copied().ok_or(EBADF)
    }

    fn fork(&mut self, step: &Step) -> Done<()> {
        let Expect::Bind(name) = &step.expect else {
            return Err(Stop::Beyond("a child without a name"));
        };
        let child = self.process(step).clone();
        for file in child.fds.values() {
            self.files[*file].n_refs += 1;
        }
        self.tree.take(child.cwd);
        self.processes.insert(Some(name.clone()), child);
        Ok(())
    }

    /// Descriptors are closed from the lowest on (`close_files`); what that makes of the files is
    /// done when the process leaves the kernel, last one first (`task_work_add`).
    fn exit(&mut self, step: &Step) -> Done {
        let process = self.processes.remove(&step.process);
        let process = process.ok_or(Stop::Beyond("the death of a dead process"))?;
        for file in process.fds.into_values().rev() {
            self.put_file(file);
        }
        self.put_dentry(process.cwd);
        Ok(0)
    }

    fn pop(&mut self, group: usize) -> Option<Queued> {
        self.groups[group].as_mut()?.pop()
    }

    /// The event as a transcript shows it.
    fn named(&mut self, event: Queued, fd: Option<i32>) -> Event {
        let cookie = match event.cookie {
            0 => 0,
            cookie => {
                let known = self.cookies_read.iter().position(|read| *read == cookie);
                let at = known.unwrap_or_else(|| {
                    self.cookies_read.push(cookie);
                    self.cookies_read.len() - 1
                });
                u32::try_from(at + 1).expect("fewer cookies than events")
            }
        };
        Event {
            fd,
            wd: event.wd,
            mask: event.mask,
            cookie,
            name: scenario::Bytes(event.name),
        }
    }
}

/// The bytes at `index`, however many there are.
fn content(step: &Step, index: usize) -> Done<&[u8]> {
    match step.args.get(index) {
        Some(Arg::Bytes(bytes)) => Ok(&bytes.0),
        _ => Err(Stop::Beyond("an answer to a permission event")),
    }
}

/// An argument that cannot be negative.
fn size(step: &Step, index: usize) -> u64 {
    u64::try_from(step.int(index)).unwrap_or(0)
}
