//! Descriptors and the open file descriptions behind them.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{DumpError, DumpErrorKind};
use super::places::Places;
use super::wanted::Wanted;
use super::{declare, tree};
use crate::image::{
    Descriptor, Epoll, Fanotify, Image, Inotify, Interest, Object, OpenFile, Owner, PlaceKind,
};
use crate::restore::epoll::is_disarmed;
use crate::sys::descriptor::{self, compare_descriptions, is_epoll_target};
use crate::sys::{inspect, path, raw};
use crate::{Loss, LossKind};

/// Our own descriptor of an open file description of the subject. Its index is that of
/// [`Image::files`].
#[derive(Debug)]
pub(super) struct Held {
    pub file: OwnedFd,
    /// Whose it is: the first process and its lowest number.
    pub pid: Pid,
    pub fd: i32,
    /// How messages call it.
    pub place: String,
    /// fdinfo(5) as it was found.
    pub info: Vec<u8>,
}

/// What a descriptor is, by the link of /proc and its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Inotify,
    Fanotify,
    Epoll,
    File,
}

/// Fills [`Image::files`] and the descriptors of each process.
pub(super) fn collect(
    image: &mut Image,
    places: &mut Places,
    wanted: impl Fn(Pid) -> Wanted,
) -> Result<Vec<Held>, DumpError> {
    let mut held = Vec::new();
    let mut known: HashMap<(Kind, u64), Vec<usize>> = HashMap::new();
    let main = image.processes[0].pid;
    for index in 0..image.processes.len() {
        if image.processes[index].exited.is_some() {
            continue;
        }
        let pid = Pid::from_raw(image.processes[index].pid);
        let pidfd = inspect::pidfd_open(pid)
            .map_err(|errno| DumpError::on("pidfd_open", pid.to_string(), errno))?;
        let wanted = wanted(pid);
        for fd in numbers(pid)? {
            let place = match tree::name(main, pid.as_raw()) {
                name if name.is_empty() => format!("fd {fd}"),
                name => format!("{name}: fd {fd}"),
            };
            let mut one = || {
                let Some(found) = look(&pidfd, (pid, fd), &place, (&wanted, places))? else {
                    return Ok(None);
                };
                let same = known.entry(found.key).or_default();
                let index = match search(same, &held, &found.held)? {
                    Ok(known) => same[known],
                    Err(at) => {
                        let file = describe(image, places, &found)?;
                        image.files.push(file);
                        same.insert(at, held.len());
                        held.push(found.held);
                        held.len() - 1
                    }
                };
                let file = u32::try_from(index).expect("fewer descriptions than descriptors");
                Ok(Some(Descriptor {
                    fd,
                    file,
                    close_on_exec: found.close_on_exec,
                }))
            };
            let descriptor = one().map_err(|error: DumpError| error.at(&place))?;
            image.processes[index].descriptors.extend(descriptor);
        }
    }
    interests(image, &held)?;
    Ok(held)
}

/// A descriptor before it is known whether its description is.
pub(super) struct Found {
    pub(super) held: Held,
    kind: Kind,
    /// Descriptions with different keys are different.
    key: (Kind, u64),
    flags: u32,
    offset: i64,
    close_on_exec: bool,
    stat: path::Stat,
}

pub(super) fn numbers(pid: Pid) -> Result<Vec<i32>, DumpError> {
    let folder = format!("/proc/{pid}/fd");
    let failed = |error: &std::io::Error| DumpError::io("readdir", &folder, error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|error| failed(&error))? {
        let name = entry.map_err(|error| failed(&error))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Looks at a descriptor; none if it is of no interest to a dump of groups alone.
pub(super) fn look(
    pidfd: &OwnedFd,
    (pid, fd): (Pid, i32),
    place: &str,
    (wanted, places): (&Wanted, &Places),
) -> Result<Option<Found>, DumpError> {
    let file =
        inspect::pidfd_getfd(pidfd, fd).map_err(|errno| DumpError::on("pidfd_getfd", "", errno))?;
    let stat = path::stat(&file, c"").map_err(|errno| DumpError::on("statx", "", errno))?;
    let link = format!("/proc/{pid}/fd/{fd}");
    // A path longer than a page is no text of a link any more; then it is no anonymous inode.
    let link = match fs::read_link(&link) {
        Ok(link) => link.into_os_string().into_vec(),
        Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => b"/".to_vec(),
        Err(error) => return Err(DumpError::io("readlink", link, &error)),
    };
    let flags = descriptor::flags(&file).map_err(|errno| DumpError::on("fcntl", "", errno))?;
    let kind = match kind(&link, &stat, flags) {
        Err(_) if wanted.is_limited() => return Ok(None),
        kind => kind?,
    };
    let is_group = matches!(kind, Kind::Inotify | Kind::Fanotify);
    if wanted.is_limited() && !is_group && !wanted.is_watched_ghost(&stat, places) {
        return Ok(None);
    }
    let name = format!("/proc/{pid}/fdinfo/{fd}");
    let info = fs::read(&name).map_err(|error| DumpError::io("read", &name, &error))?;
    let head = head(&info).ok_or_else(|| DumpError::new("", DumpErrorKind::Text(name)))?;
    if info
        .split(|&byte| byte == b'\n')
        .any(|line| line.starts_with(b"lock:"))
    {
        return Err(DumpError::not_supported("", "lock"));
    }
    const CLOSE_ON_EXEC: u32 = libc::O_CLOEXEC.cast_unsigned();
    Ok(Some(Found {
        held: Held {
            file,
            pid,
            fd,
            place: place.to_owned(),
            info,
        },
        kind,
        key: (kind, stat.ino),
        flags: head.1 & !CLOSE_ON_EXEC,
        offset: head.0,
        close_on_exec: head.1 & CLOSE_ON_EXEC != 0,
        stat,
    }))
}

/// `pos:` and `flags:`.
fn head(info: &[u8]) -> Option<(i64, u32)> {
    let text = |key: &[u8]| {
        let mut lines = info.split(|&byte| byte == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(key))?;
        std::str::from_utf8(value).ok().map(str::trim)
    };
    let pos = text(b"pos:")?.parse().ok()?;
    let flags = u32::from_str_radix(text(b"flags:")?, 8).ok()?;
    Some((pos, flags))
}

fn kind(link: &[u8], stat: &path::Stat, flags: i32) -> Result<Kind, DumpError> {
    let refused = |what: &str| Err(DumpError::not_supported("", what));
    match link {
        b"anon_inode:inotify" => return Ok(Kind::Inotify),
        b"anon_inode:[fanotify]" => return Ok(Kind::Fanotify),
        b"anon_inode:[eventpoll]" => return Ok(Kind::Epoll),
        _ => {}
    }
    if let Some(name) = link.strip_prefix(b"anon_inode:") {
        return refused(String::from_utf8_lossy(name).trim_matches(['[', ']']));
    }
    if link.starts_with(b"/memfd:") {
        return refused("memfd");
    }
    if !link.starts_with(b"/") {
        let name = link.split(|&byte| byte == b':').next().unwrap_or(link);
        return refused(&String::from_utf8_lossy(name));
    }
    let plain = match stat.mode & libc::S_IFMT {
        // The driver knows nothing of it.
        _ if flags & libc::O_PATH != 0 => true,
        libc::S_IFCHR => matches!(stat.node, (1, 3 | 5 | 7 | 8 | 9)),
        libc::S_IFBLK => false,
        _ => true,
    };
    if plain {
        Ok(Kind::File)
    } else {
        refused(&format!("device {}:{}", stat.node.0, stat.node.1))
    }
}

/// The description that we know already, or where it belongs among those of its key: kcmp(2) puts them
/// in an order.
fn search(same: &[usize], held: &[Held], new: &Held) -> Result<Result<usize, usize>, DumpError> {
    let mut failed = None;
    let found = same.binary_search_by(|&index| {
        let known = &held[index];
        let order = compare_descriptions((known.pid, known.fd), (new.pid, new.fd));
        order.unwrap_or_else(|errno| {
            failed = Some(errno);
            Ordering::Equal
        })
    });
    match failed {
        None => Ok(found),
        Some(errno) => Err(DumpError::on("kcmp", "", errno)),
    }
}

/// A new description.
pub(super) fn describe(
    image: &mut Image,
    places: &mut Places,
    found: &Found,
) -> Result<OpenFile, DumpError> {
    let object = match found.kind {
        Kind::Inotify => Object::Inotify(Inotify::default()),
        Kind::Fanotify => Object::Fanotify(Fanotify::default()),
        Kind::Epoll => Object::Epoll(Epoll::default()),
        Kind::File => Object::Place(places.of_file(image, &found.held.file, found.flags)?),
    };
    let mut file = OpenFile {
        flags: found.flags,
        object: Some(object),
        ..OpenFile::default()
    };
    if found.flags & libc::O_PATH.cast_unsigned() == 0 {
        let failed = |errno: Errno| DumpError::on("fcntl", "", errno);
        let owner = inspect::owner(&found.held.file).map_err(failed)?;
        file.owner = owner.map(|owner| match owner {
            inspect::Owner::Thread(pid) => Owner { kind: 0, pid },
            inspect::Owner::Process(pid) => Owner { kind: 1, pid },
            inspect::Owner::Group(pid) => Owner { kind: 2, pid },
        });
        file.signal = inspect::signal(&found.held.file).map_err(failed)?;
        file.offset = found.offset;
        match found.stat.mode & libc::S_IFMT {
            libc::S_IFIFO => file.pipe_size = descriptor::pipe_size(&found.held.file).unwrap_or(0),
            libc::S_IFREG => {
                file.write_hint = descriptor::write_hint(&found.held.file).unwrap_or(0);
            }
            _ => {}
        }
        const TMPFILE: u32 = libc::O_TMPFILE.cast_unsigned();
        if found.flags & TMPFILE == TMPFILE && found.stat.nlink > 0 {
            let object = format!("{}: O_TMPFILE", found.held.place);
            let reason = "no call opens a file so that has been given a name since";
            declare(image, Loss::new(LossKind::TmpfileFlag, object, reason));
        }
    }
    unread_in_pipe(image, found);
    Ok(file)
}

/// What a fifo holds goes with its last descriptor.
fn unread_in_pipe(image: &mut Image, found: &Found) {
    if found.stat.mode & libc::S_IFMT != libc::S_IFIFO {
        return;
    }
    if let Ok(unread @ 1..) = inspect::unread(&found.held.file) {
        let object = format!("{}: {unread} bytes in the fifo", found.held.place);
        let reason = "what a fifo holds cannot be copied without being heard";
        declare(image, Loss::new(LossKind::FifoContent, object, reason));
    }
}

/// Whether it is an end of a fifo with something in it.
pub(super) fn holds_content(held: &Held) -> bool {
    let stat = path::stat(&held.file, c"");
    stat.is_ok_and(|stat| stat.mode & libc::S_IFMT == libc::S_IFIFO)
        && matches!(inspect::unread(&held.file), Ok(1..))
}

/// What each epoll set waits for: the registered numbers, and the descriptions behind them.
fn interests(image: &mut Image, held: &[Held]) -> Result<(), DumpError> {
    for (index, holder) in held.iter().enumerate() {
        if !matches!(image.files[index].object, Some(Object::Epoll(_))) {
            continue;
        }
        let mut interests = Vec::new();
        for line in holder.info.split(|&byte| byte == b'\n') {
            let Some(line) = line.strip_prefix(b"tfd:") else {
                continue;
            };
            let interest = interest(line).ok_or_else(|| {
                let text = String::from_utf8_lossy(line).into_owned();
                DumpError::new(&holder.place, DumpErrorKind::Text(text))
            })?;
            let file = target(image, held, holder, interest.fd)?.ok_or_else(|| {
                let what = format!("registered fd {} that nothing refers to", interest.fd);
                DumpError::not_supported(&holder.place, what)
            })?;
            disarmed(image, holder, file, &interest);
            let file = u32::try_from(file).expect("fewer descriptions than descriptors");
            interests.push(Interest { file, ..interest });
        }
        // The kernel lists them by the addresses of their descriptions, in an order of no meaning.
        interests.sort_by_key(|interest| (interest.fd, interest.file));
        edges(image, held, holder, &mut interests);
        image.files[index].object = Some(Object::Epoll(Epoll { interests }));
    }
    Ok(())
}

/// `tfd:        5 events:       19 data:                7  pos:0 ino:1039 sdev:10`.
pub(super) fn interest(line: &[u8]) -> Option<Interest> {
    let text = std::str::from_utf8(line).ok()?;
    let (fd, rest) = text.split_once("events:")?;
    let (events, rest) = rest.split_once("data:")?;
    let word = rest.split_ascii_whitespace().next()?;
    Some(Interest {
        fd: fd.trim().parse().ok()?,
        file: 0,
        events: u32::from_str_radix(events.trim(), 16).ok()?,
        word: u64::from_str_radix(word, 16).ok()?,
        seen: false,
    })
}

/// The description that a set registered under a number; the number may mean another by now.
fn target(
    image: &Image,
    held: &[Held],
    set: &Held,
    registered: i32,
) -> Result<Option<usize>, DumpError> {
    let own = image
        .processes
        .iter()
        .find(|process| process.pid == set.pid.as_raw());
    let now = own.and_then(|process| {
        let mut descriptors = process.descriptors.iter();
        descriptors.find(|descriptor| descriptor.fd == registered)
    });
    let likely = now.map(|descriptor| descriptor.file as usize);
    for index in likely.into_iter().chain(0..held.len()) {
        let one = &held[index];
        match is_epoll_target((one.pid, one.fd), (set.pid, set.fd), registered) {
            Ok(true) => return Ok(Some(index)),
            Ok(false) => {}
            Err(errno) => return Err(DumpError::on("kcmp", "", errno).at(&set.place)),
        }
    }
    Ok(None)
}

/// Finds which edges were reported already. A set shows only whether it has anything to report
/// (`ep_eventpoll_poll`): if not, all were; if so, and only one interest is ready, that was not.
/// Asking for more would take the edges. What is left in doubt is reported again.
fn edges(image: &mut Image, held: &[Held], set: &Held, interests: &mut [Interest]) {
    const EDGE: u32 = libc::EPOLLET.cast_unsigned();
    let is_ready = |interest: &Interest| {
        let events = i16::try_from(interest.events & 0x3fff).expect("14 bits");
        let file = held[interest.file as usize].file.as_raw_fd();
        !is_disarmed(interest) && raw::poll_now(file, events).is_ok_and(|revents| revents != 0)
    };
    let ready: Vec<usize> = (0..interests.len())
        .filter(|&index| is_ready(&interests[index]))
        .collect();
    let is_edge = |&index: &usize| interests[index].events & EDGE != 0;
    let edges: Vec<usize> = ready.iter().copied().filter(is_edge).collect();
    if edges.is_empty() {
        return;
    }
    let reports = raw::poll_now(set.file.as_raw_fd(), libc::POLLIN);
    let is_set = |index: usize| {
        let file = interests[index].file as usize;
        matches!(image.files[file].object, Some(Object::Epoll(_)))
    };
    let in_sets = edges.iter().any(|&index| is_set(index));
    match (reports, &ready[..]) {
        (Ok(0), _) if !in_sets => {
            for index in edges {
                interests[index].seen = true;
            }
        }
        (Ok(1..), [_]) => {}
        _ => {
            for index in edges {
                let object = format!("{}: edge of fd {}", set.place, interests[index].fd);
                let reason = "other interests of the set are ready, too, and which of them was \
                              reported already cannot be seen: it is reported again";
                declare(image, Loss::new(LossKind::EdgeInDoubt, object, reason));
            }
        }
    }
}

/// Takes the edges that were reported already, in sets of a subject that runs on: a queue that was
/// put back is a new one.
pub(super) fn take_edges(image: &Image, held: &[Held]) -> Result<(), DumpError> {
    for (file, set) in image.files.iter().zip(held) {
        if let Some(Object::Epoll(epoll)) = &file.object
            && epoll.interests.iter().any(|interest| interest.seen)
        {
            // The set had nothing else to report.
            raw::epoll_poll(set.file.as_raw_fd(), epoll.interests.len())
                .map_err(|errno| DumpError::on("epoll_wait", "", errno).at(&set.place))?;
        }
    }
    Ok(())
}

/// Symbolic links without a name whose time of access the dump changed, by reading them: there is no
/// other way to read one, and setting a time is heard.
pub(super) fn accessed(image: &Image, held: &[Held]) -> Vec<Loss> {
    let mut losses = Vec::new();
    for (file, held) in image.files.iter().zip(held) {
        let Some(Object::Place(place)) = file.object else {
            continue;
        };
        let inode = &image.inodes[image.places[place as usize].inode as usize];
        let is_link = inode.mode & libc::S_IFMT == libc::S_IFLNK;
        let Some(ghost) = inode.ghost.as_ref().filter(|_| is_link) else {
            continue;
        };
        let now = path::stat(&held.file, c"").map(|stat| stat.accessed);
        if now != Ok((ghost.accessed.sec, ghost.accessed.nsec)) {
            let object = format!("{}: time of access", held.place);
            let reason = "to read where a symbolic link leads is to access it";
            losses.push(Loss::new(LossKind::SymlinkAccess, object, reason));
        }
    }
    losses
}

/// An interest that has fired can only be made by firing, and only a group is made to.
fn disarmed(image: &mut Image, set: &Held, file: usize, interest: &Interest) {
    let is_group = matches!(image.files[file].object, Some(Object::Inotify(_)));
    if is_disarmed(interest) && !is_group {
        let object = format!("{}: fired interest", set.place);
        let added = "the kernel adds EPOLLERR and EPOLLHUP to what it waits for";
        let reason = format!("{added} in fd {}", interest.fd);
        declare(image, Loss::new(LossKind::FiredInterest, object, reason));
    }
}

/// Whether a place is one that has to be made again.
pub(super) fn is_removed(kind: PlaceKind) -> bool {
    matches!(kind, PlaceKind::Gone | PlaceKind::Unnamed)
}
