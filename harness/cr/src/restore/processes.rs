//! The processes of the tree: forked under their pids, each with its own numbers.
//!
//! Two pipes keep them together. Everybody waits on the first until all processes are there, since
//! a descriptor may be owned by any of them; the main process waits on the second until every
//! child is done.

use std::collections::HashSet;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::error::{Context, RestoreError, RestoreErrorKind};
use super::stage::Stage;
use super::tree::{Tree, is_of_this_boot};
use super::{Defect, Others, RestoreOptions, Restored, epoll};
use crate::image::{F_OWNER_PGRP, Image, Object, OpenFile, Owner, Process};
use crate::process::began;
use crate::sys::{descriptor, path, raw, spawn};

/// Opens the working directories.
pub(super) fn working_directories(
    image: &Image,
    tree: &Tree,
    ghosts: &super::ghosts::Ghosts,
    stage: &mut Stage,
) -> Result<(), RestoreError> {
    for (index, process) in image.processes.iter().enumerate() {
        let Some(place) = process.working_directory else {
            continue;
        };
        let at = |error: RestoreError| error.at("working directory");
        let directory = match ghosts.get(place) {
            Some(ghost) => stage.lift(ghost),
            None => tree
                .find(image, &image.places[place as usize])
                .and_then(|d| stage.lift(d)),
        };
        stage.directories[index] = Some(directory.map_err(at)?);
    }
    Ok(())
}

/// What every process of the tree starts from.
struct Common<'a> {
    image: &'a Image,
    options: &'a RestoreOptions,
    files: Vec<Option<RawFd>>,
    directories: Vec<Option<RawFd>>,
    base: RawFd,
    ready: (RawFd, RawFd),
    done: (RawFd, RawFd),
}

/// Forks the children and returns in each process when it is what the image says.
pub(super) fn become_tree(
    image: &Image,
    stage: Stage,
    options: &RestoreOptions,
) -> Result<Restored, RestoreError> {
    let ready = pipe(&stage)?;
    let done = pipe(&stage)?;
    let (base, files, directories) = stage.into_numbers();
    let common = Common {
        image,
        options,
        files,
        directories,
        base,
        ready,
        done,
    };
    let me = fork_children(&common, 0)?;
    close(common.ready.1)?;
    wait_for_all(common.ready.0)?;
    let process = &image.processes[me];
    become_process(&common, me)?;
    if me == 0 {
        close(common.done.1)?;
        let living = image
            .processes
            .iter()
            .skip(1)
            .filter(|process| process.exited.is_none());
        if wait_for_all(common.done.0)? != living.count() {
            return Err(RestoreError::new(RestoreErrorKind::Child));
        }
    } else {
        set_pdeathsig(None).context("prctl", "PR_SET_PDEATHSIG")?;
        raw::write(common.done.1, b".").context("write", "")?;
    }
    leave_stage(&common, process)?;
    signals(process)?;
    let lives = |other: &&Process| other.parent == process.pid && other.exited.is_none();
    let children = image
        .processes
        .iter()
        .skip(1)
        .filter(lives)
        .map(|child| child.pid)
        .collect();
    Ok(Restored {
        pid: process.pid,
        child: (me != 0).then_some(process.pid),
        children,
    })
}

fn pipe(stage: &Stage) -> Result<(RawFd, RawFd), RestoreError> {
    let (read, write) = nix::unistd::pipe().context("pipe", "")?;
    let lift = |end: OwnedFd| stage.lift(end).map(IntoRawFd::into_raw_fd);
    Ok((lift(read)?, lift(write)?))
}

fn close(fd: RawFd) -> Result<(), RestoreError> {
    raw::close(fd).map(drop).context("close", "")
}

/// Reads to the end: how many bytes were written before the last writer closed.
fn wait_for_all(fd: RawFd) -> Result<usize, RestoreError> {
    let mut n_read = 0;
    let mut buffer = [0; 64];
    loop {
        match raw::read(fd, &mut buffer).context("read", "")? {
            0 => return Ok(n_read),
            more => n_read += usize::try_from(more).expect("a size"),
        }
    }
}

/// Forks every child of a process: the index of the process that the caller is now.
fn fork_children(common: &Common<'_>, parent: usize) -> Result<usize, RestoreError> {
    let image = common.image;
    let pid = image.processes[parent].pid;
    for index in parent + 1..image.processes.len() {
        let child = &image.processes[index];
        if child.parent != pid {
            continue;
        }
        let parent_pid = nix::unistd::getpid();
        let forked = spawn::fork_with_pid(Some(Pid::from_raw(child.pid))).map_err(|error| {
            let errno = error
                .raw_os_error()
                .map_or(nix::errno::Errno::EINVAL, nix::errno::Errno::from_raw);
            RestoreError::call("clone3", child.pid.to_string(), errno)
        })?;
        match (forked, child.exited) {
            (None, Some(status)) => end(status),
            (None, None) => {
                // Half a tree is none: whoever restores may be killed, before this too.
                set_pdeathsig(Signal::SIGKILL).context("prctl", "PR_SET_PDEATHSIG")?;
                if nix::unistd::getppid() != parent_pid {
                    std::process::exit(1);
                }
                return fork_children(common, index);
            }
            (Some(pid), Some(_)) => wait_ended(pid)?,
            (Some(_), None) => {}
        }
    }
    Ok(parent)
}

/// Ends as a process of the image did: `status` is that of wait(2).
fn end(status: i32) -> ! {
    if let Ok(signal) = Signal::try_from(status & 0x7f) {
        let mut set = SigSet::empty();
        set.add(signal);
        let _ = set.thread_unblock();
        let _ = nix::sys::signal::raise(signal);
    }
    std::process::exit(status >> 8 & 0xff)
}

/// Waits for the end of a child and leaves it to be waited for.
fn wait_ended(pid: Pid) -> Result<(), RestoreError> {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(pid), flags).map(drop).context("waitid", pid)
}

/// Descriptors, working directory, umask, session.
fn become_process(common: &Common<'_>, me: usize) -> Result<(), RestoreError> {
    let process = &common.image.processes[me];
    if !common.image.only_groups {
        session(process)?;
    }
    place(common, process)?;
    for index in 0..common.image.files.len() {
        if first_holder(common.image, index) == Some(me) {
            finish_file(common, process, index)
                .map_err(|error| error.at(&common.image.name_of_file(index)))?;
        }
    }
    if let Some(directory) = common.directories[me] {
        nix::unistd::fchdir(descriptor::borrow(&directory)).context("fchdir", "")?;
    }
    if !common.image.only_groups {
        nix::sys::stat::umask(Mode::from_bits_truncate(process.umask));
    }
    Ok(())
}

fn session(process: &Process) -> Result<(), RestoreError> {
    let me = nix::unistd::getpid();
    let in_session = nix::unistd::getsid(None).context("getsid", "")?;
    if process.session == me.as_raw() && in_session != me {
        nix::unistd::setsid().context("setsid", "")?;
    }
    let group = Pid::from_raw(process.group);
    if nix::unistd::getpgrp() != group && process.group > 0 && process.session != me.as_raw() {
        nix::unistd::setpgid(Pid::from_raw(0), group).context("setpgid", group)?;
    }
    Ok(())
}

/// Puts every description where the process has it.
fn place(common: &Common<'_>, process: &Process) -> Result<(), RestoreError> {
    let missing = || RestoreError::new(RestoreErrorKind::Impossible("a description not made"));
    let mut seen = HashSet::new();
    for descriptor in &process.descriptors {
        let (fd, file) = (descriptor.fd, descriptor.file as usize);
        let staged = common.files[file].ok_or_else(missing)?;
        let flags = if descriptor.close_on_exec {
            libc::O_CLOEXEC
        } else {
            0
        };
        raw::dup3(staged, fd, flags).context("dup3", fd)?;
        if !seen.insert(file) && common.options.defect == Some(Defect::SplitDuplicates) {
            split(common, file, fd)?;
        }
    }
    Ok(())
}

/// The planted defect: a description of its own for a duplicate, if the file can be opened again.
fn split(common: &Common<'_>, file: usize, fd: RawFd) -> Result<(), RestoreError> {
    let state = &common.image.files[file];
    if !matches!(state.object, Some(Object::Place(_))) {
        return Ok(());
    }
    let link = super::tree::link_to(descriptor::borrow(&fd));
    let flags = state.flags.cast_signed() & !(libc::O_ASYNC | libc::O_TMPFILE);
    let again = raw::open(&link, flags | libc::O_CLOEXEC, 0).and_then(path::owned);
    let again = again.context("open", fd)?.into_raw_fd();
    raw::dup3(again, fd, 0).context("dup3", fd)?;
    close(again)
}

/// The process that a description's owner and epoll interests are set in.
fn first_holder(image: &Image, file: usize) -> Option<usize> {
    image.processes.iter().position(|process| {
        process
            .descriptors
            .iter()
            .any(|descriptor| descriptor.file as usize == file)
    })
}

/// What depends on a number, and on all processes being there: epoll interests, the owner of
/// signals, `O_ASYNC`.
fn finish_file(common: &Common<'_>, process: &Process, index: usize) -> Result<(), RestoreError> {
    let file = &common.image.files[index];
    let numbers = process
        .descriptors
        .iter()
        .filter(|descriptor| descriptor.file as usize == index);
    let Some(number) = numbers.map(|descriptor| descriptor.fd).min() else {
        return Ok(());
    };
    // A set that was parked has its interests still.
    if let (Some(Object::Epoll(set)), None) = (&file.object, &common.image.parked) {
        let placed = |fd| {
            let found = process
                .descriptors
                .iter()
                .find(|descriptor| descriptor.fd == fd);
            found.map(|descriptor| (descriptor.file, descriptor.close_on_exec))
        };
        let numbers = epoll::Numbers {
            image: common.image,
            staged: &common.files,
            placed: &placed,
        };
        epoll::register(number, set, &numbers)?;
    }
    let fd = descriptor::borrow(&number);
    if let Some(owner) = owner(common, file) {
        let pid = owner.pid;
        descriptor::set_owner(fd, owner.kind, pid)
            .context("fcntl", format!("F_SETOWN_EX {pid}"))?;
    }
    if file.signal != 0 {
        descriptor::set_signal(fd, file.signal).context("fcntl", "F_SETSIG")?;
    }
    if file.flags.cast_signed() & libc::O_ASYNC != 0 {
        let flags = descriptor::flags(fd).context("fcntl", "F_GETFL")?;
        descriptor::set_flags(fd, flags | libc::O_ASYNC).context("fcntl", "F_SETFL")?;
    }
    Ok(())
}

/// Who is to have the signals of a file, if he is known for certain. One that is not a process of the
/// image is who he was, or nobody: a pid may be another's by now. And a restore that is kept in a
/// directory reaches nobody beside it.
fn owner(common: &Common<'_>, file: &OpenFile) -> Option<Owner> {
    let image = common.image;
    let owner = file.owner?;
    if image.is_own(file) {
        // Another program takes the place of the process, not its pid.
        let pid = match owner.kind {
            _ if !image.only_groups => owner.pid,
            F_OWNER_PGRP => nix::unistd::getpgrp().as_raw(),
            _ => nix::unistd::getpid().as_raw(),
        };
        return Some(Owner { pid, ..owner });
    }
    let is_same = !common.options.is_fenced()
        && is_of_this_boot(image)
        && began(Pid::from_raw(owner.pid)).is_ok_and(|began| began == file.owner_began);
    is_same.then_some(owner)
}

/// Closes what is not in the image.
fn leave_stage(common: &Common<'_>, process: &Process) -> Result<(), RestoreError> {
    let mut kept: Vec<i32> = process
        .descriptors
        .iter()
        .map(|descriptor| descriptor.fd)
        .collect();
    kept.sort_unstable();
    let mut next = match common.options.others {
        Others::Close => 0,
        Others::Keep => common.base,
    };
    for fd in kept {
        if fd > next {
            close_range(next, fd - 1)?;
        }
        next = next.max(fd + 1);
    }
    close_range(next, i32::MAX)
}

fn close_range(first: i32, last: i32) -> Result<(), RestoreError> {
    descriptor::close_range(first.cast_unsigned(), last.cast_unsigned()).context("close_range", "")
}

/// Signals that waited to be taken wait again. One that is not blocked would act now, which it
/// did not do before: it is left out.
fn signals(process: &Process) -> Result<(), RestoreError> {
    let blocked = SigSet::thread_get_mask().context("sigprocmask", "")?;
    for signal in &process.signals {
        let Ok(info) = <&[u8; 128]>::try_from(&signal.info[..]) else {
            continue;
        };
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        let acts = Signal::try_from(number).is_ok_and(|signal| !blocked.contains(signal));
        if !acts {
            descriptor::queue_signal(info, signal.shared)
                .context("rt_sigqueueinfo", number.to_string())?;
        }
    }
    Ok(())
}
