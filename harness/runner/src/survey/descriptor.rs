//! One descriptor of another process, seen from outside.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

use cr::mounts::Mounts;
use cr::sys::{handle, inspect, path};
use fsnotify::fdinfo::{Body as InfoBody, Group, Level, MarkTarget as InfoTarget};
use fsnotify::handle::FileHandle;
use fsnotify::{Ino, Sdev};
use nix::unistd::Pid;
use scenario::{Descriptor, DescriptorKind, Mark, MarkTarget, Object, Watch};

use super::names::{Resolver, sdev};
use super::{Body, Process, audit};

/// A descriptor, and what is kept of it beyond the fact.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) pid: Pid,
    pub(super) fact: Descriptor,
    pub(super) link: Vec<u8>,
    /// What no path says of where it is.
    pub(super) whereabouts: Whereabouts,
    pub(super) number: Option<(Sdev, Ino)>,
    pub(super) handle: Option<FileHandle>,
    pub(super) times: Option<Times>,
    pub(super) body: Body,
    group: Option<Group>,
}

/// What it takes to name what a link in /proc leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linked<'a> {
    pub(super) pid: Pid,
    pub(super) link: &'a [u8],
    pub(super) number: Option<(Sdev, Ino)>,
    pub(super) n_links: u64,
    pub(super) whereabouts: Whereabouts,
}

impl Seen {
    pub(super) fn linked(&self) -> Linked<'_> {
        Linked {
            pid: self.pid,
            link: &self.link,
            number: self.number,
            n_links: self.fact.stat.as_ref().map_or(1, |stat| stat.nlink),
            whereabouts: self.whereabouts,
        }
    }
}

/// Where a process is; none of one that has ended.
pub(super) fn working_directory(process: &Process, resolver: &Resolver<'_>) -> Option<Object> {
    let file = handle::open_path(format!("/proc/{}/cwd", process.pid).as_ref()).ok()?;
    let metadata = fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let link = path::name_of(&file).ok()?;
    Some(resolver.link_object(&Linked {
        pid: process.pid,
        link: &link,
        number: Some((sdev(metadata.dev()), Ino(metadata.ino()))),
        n_links: metadata.nlink(),
        whereabouts: Whereabouts::of(process.pid, &link, &file),
    }))
}

/// Where the file of a descriptor is, which the text of its link leaves open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Whereabouts {
    /// Its name is gone, although the text is a name of the same inode.
    pub(super) is_name_gone: bool,
    /// Its filesystem is mounted nowhere, whatever is at its path.
    pub(super) is_mounted_nowhere: bool,
}

impl Whereabouts {
    fn of(pid: Pid, link: &[u8], file: &OwnedFd) -> Self {
        let is_path = link.starts_with(b"/");
        let is_nowhere = |stat: path::Stat| {
            let mounts = Mounts::of(pid.as_raw());
            mounts.is_ok_and(|mounts| mounts.of_id(stat.mount).is_none())
        };
        Self {
            is_name_gone: is_path
                && link.ends_with(b" (deleted)")
                && path::is_name_gone(file) == Some(true),
            is_mounted_nowhere: is_path && path::stat(file, c"").is_ok_and(is_nowhere),
        }
    }
}

/// Access and modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    atime: (i64, i64),
    mtime: (i64, i64),
}

impl Times {
    pub(super) fn changed_since(self, then: Self) -> Vec<String> {
        let mut changed = Vec::new();
        if self.atime != then.atime {
            changed.push("atime".to_owned());
        }
        if self.mtime != then.mtime {
            changed.push("mtime".to_owned());
        }
        changed
    }

    /// Whether a time that is none of these has as many nanoseconds as a clock gives it once in a
    /// thousand times.
    pub(super) fn has_whole_microseconds(self, but: &[Self]) -> bool {
        let is_new = |time| but.iter().all(|it| it.atime != time && it.mtime != time);
        let whole = |time: (i64, i64)| time.1 != 0 && time.1 % 1000 == 0 && is_new(time);
        whole(self.atime) || whole(self.mtime)
    }
}

/// `O_CLOEXEC` in the `flags:` line of fdinfo: set for a descriptor that closes on exec.
const CLOSE_ON_EXEC: u32 = nix::libc::O_CLOEXEC.cast_unsigned();

/// Looks at every descriptor of a process and appends them in order of number.
pub(super) fn see_all(
    process: &Process,
    processes: &[Process],
    into: &mut Vec<Seen>,
) -> Result<(), String> {
    let directory = format!("/proc/{}/fd", process.pid);
    let entries = fs::read_dir(&directory).map_err(|error| format!("{directory}: {error}"))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry
            .map_err(|error| format!("{directory}: {error}"))?
            .file_name();
        let number: Option<i32> = name.to_str().and_then(|name| name.parse().ok());
        numbers.push(number.ok_or_else(|| format!("{directory}: not a number: {name:?}"))?);
    }
    numbers.sort_unstable();
    let pidfd = inspect::pidfd_open(process.pid)
        .map_err(|errno| format!("pidfd_open {}: {errno}", process.pid))?;
    for fd in numbers {
        if let Some(seen) = see(process, processes, &pidfd, fd, into)? {
            into.push(seen);
        }
    }
    Ok(())
}

/// None for the standard streams that every subject starts with.
fn see(
    process: &Process,
    processes: &[Process],
    pidfd: &OwnedFd,
    fd: i32,
    earlier: &[Seen],
) -> Result<Option<Seen>, String> {
    let pid = process.pid;
    let failed = |call: &str, error: &dyn std::fmt::Display| format!("{call} fd {fd}: {error}");
    let link = match fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
        Ok(link) => link.into_os_string().into_vec(),
        // `do_proc_readlink` has one page for the path.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENAMETOOLONG) => {
            b"path too long to read".to_vec()
        }
        Err(error) => return Err(failed("readlink", &error)),
    };
    if fd <= 2 && link == b"/dev/null" {
        return Ok(None);
    }
    let info = fs::read(format!("/proc/{pid}/fdinfo/{fd}"))
        .map_err(|error| failed("read fdinfo of", &error))?;
    let file = inspect::pidfd_getfd(pidfd, fd).map_err(|errno| failed("pidfd_getfd", &errno))?;
    let metadata = fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(|error| failed("stat", &error))?;
    let kind = kind(&link, &metadata);
    let head = Head::parse(&info).ok_or_else(|| failed("fdinfo of", &"no head"))?;
    let is_group = matches!(kind, DescriptorKind::Inotify | DescriptorKind::Fanotify);
    let group = is_group
        .then(|| Group::parse(&info, Level::Lenient).map_err(|error| failed("fdinfo of", &error)))
        .transpose()?;
    let is_inode = !is_group && kind != DescriptorKind::Epoll;
    let fact = Descriptor {
        process: process.name.clone(),
        fd,
        kind,
        object: Object::Other(String::new()),
        flags: head.flags & !CLOSE_ON_EXEC,
        close_on_exec: head.flags & CLOSE_ON_EXEC != 0,
        offset: is_inode.then_some(head.offset),
        owner: owner(&file, processes).map_err(|errno| failed("fcntl F_GETOWN_EX", &errno))?,
        signal: inspect::signal(&file).unwrap_or(0),
        shared_with: shared_with(pid, fd, earlier),
        unread: is_group
            .then(|| inspect::unread(&file))
            .transpose()
            .map_err(|errno| failed("ioctl FIONREAD", &errno))?,
        group_flags: group.as_ref().and_then(|group| match &group.body {
            InfoBody::Fanotify {
                flags, event_flags, ..
            } => Some((flags.0, event_flags.0)),
            _ => None,
        }),
        interest: if kind == DescriptorKind::Epoll {
            interest(&info)
        } else {
            Vec::new()
        },
        stat: is_inode.then(|| audit::stat(&handle::proc_path(&file), &metadata, None)),
    };
    Ok(Some(Seen {
        pid,
        whereabouts: Whereabouts::of(pid, &link, &file),
        link,
        number: is_inode.then(|| (sdev(metadata.dev()), Ino(metadata.ino()))),
        handle: if is_inode {
            handle::of_file(&file).ok()
        } else {
            None
        },
        times: is_inode.then(|| Times {
            atime: (metadata.atime(), metadata.atime_nsec()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
        }),
        body: Body {
            next_wd: next_wd(&file, &fact),
            ..Body::default()
        },
        group,
        fact,
    }))
}

/// The head of any fdinfo: offset and flags.
struct Head {
    offset: u64,
    flags: u32,
}

impl Head {
    fn parse(info: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(info);
        let field = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::trim)
        };
        Some(Self {
            offset: field("pos:")?.parse().ok()?,
            flags: u32::from_str_radix(field("flags:")?, 8).ok()?,
        })
    }
}

fn kind(link: &[u8], metadata: &fs::Metadata) -> DescriptorKind {
    match link {
        b"anon_inode:inotify" => return DescriptorKind::Inotify,
        b"anon_inode:[fanotify]" => return DescriptorKind::Fanotify,
        b"anon_inode:[eventpoll]" => return DescriptorKind::Epoll,
        _ => {}
    }
    match metadata.mode() & nix::libc::S_IFMT {
        nix::libc::S_IFREG => DescriptorKind::Regular,
        nix::libc::S_IFDIR => DescriptorKind::Directory,
        nix::libc::S_IFIFO => DescriptorKind::Fifo,
        nix::libc::S_IFSOCK => DescriptorKind::Socket,
        nix::libc::S_IFLNK => DescriptorKind::Symlink,
        nix::libc::S_IFCHR | nix::libc::S_IFBLK => DescriptorKind::Device,
        _ => DescriptorKind::Other,
    }
}

fn owner(file: &OwnedFd, processes: &[Process]) -> nix::Result<Option<String>> {
    use inspect::Owner;
    // An O_PATH descriptor has no owner; fcntl says EBADF.
    let owner = match inspect::owner(file) {
        Err(nix::errno::Errno::EBADF) => None,
        owner => owner?,
    };
    let name_of = |pid: i32| {
        processes
            .iter()
            .find(|process| process.pid.as_raw() == pid)
            .map_or_else(
                || format!("pid {pid}"),
                |process| {
                    process
                        .name
                        .as_ref()
                        .map_or("main", |name| &name.0)
                        .to_owned()
                },
            )
    };
    Ok(owner.map(|owner| match owner {
        Owner::Process(pid) => name_of(pid),
        Owner::Thread(tid) => format!("thread of {}", name_of(tid)),
        Owner::Group(group) => format!("group of {}", name_of(group)),
    }))
}

/// The first descriptor seen so far with the same open file description.
fn shared_with(pid: Pid, fd: i32, earlier: &[Seen]) -> Option<(Option<scenario::Name>, i32)> {
    earlier
        .iter()
        .find(|seen| inspect::same_description((seen.pid, seen.fact.fd), (pid, fd)))
        .map(|seen| (seen.fact.process.clone(), seen.fact.fd))
}

/// The `tfd:` lines of an epoll descriptor's fdinfo (`ep_show_fdinfo`), in order of descriptor:
/// their own order is that of a tree by address.
fn interest(info: &[u8]) -> Vec<(i32, u32, u64)> {
    let text = String::from_utf8_lossy(info);
    let mut interest: Vec<(i32, u32, u64)> = text
        .lines()
        .filter(|line| line.starts_with("tfd:"))
        .filter_map(|line| {
            let mut words = line.split_whitespace().filter(|word| !word.ends_with(':'));
            Some((
                words.next()?.parse().ok()?,
                u32::from_str_radix(words.next()?, 16).ok()?,
                u64::from_str_radix(words.next()?, 16).ok()?,
            ))
        })
        .collect();
    interest.sort_unstable();
    interest
}

/// Asked only of an empty queue: the answer leaves an event that is read again at once.
fn next_wd(file: &OwnedFd, fact: &Descriptor) -> Option<i32> {
    if fact.kind != DescriptorKind::Inotify || fact.unread != Some(0) {
        return None;
    }
    {
        let _ = file;
        None
    }
}

impl Seen {
    /// Reads the content of a regular file: makes events, so only when nobody listens any more.
    pub(super) fn read_content(&mut self) -> std::io::Result<()> {
        if self.fact.kind == DescriptorKind::Regular
            && let Some(stat) = &mut self.fact.stat
        {
            // Opened anew, so that neither access mode nor offset of the descriptor matter.
            let path = format!("/proc/{}/fd/{}", self.pid, self.fact.fd);
            stat.content = Some(audit::digest(fs::File::open(path)?)?);
        }
        Ok(())
    }

    /// Fills in what needs the names of every descriptor of the survey.
    pub(super) fn name_objects(&mut self, resolver: &mut Resolver) {
        self.fact.object = resolver.link_object(&self.linked());
        let Some(group) = &self.group else {
            return;
        };
        let (process, fd) = (&self.fact.process, self.fact.fd);
        match &group.body {
            InfoBody::Unstated => {}
            InfoBody::Inotify { watches } => {
                self.body.watches = watches
                    .iter()
                    .map(|watch| Watch {
                        process: process.clone(),
                        fd,
                        wd: watch.wd.number(),
                        target: resolver.target((watch.sdev, watch.ino), watch.handle.as_ref()),
                        mask: watch.mask,
                    })
                    .collect();
            }
            InfoBody::Fanotify { marks, .. } => {
                self.body.marks = marks
                    .iter()
                    .map(|mark| Mark {
                        process: process.clone(),
                        fd,
                        target: mark_target(&mark.target, self.pid, resolver),
                        flags: mark.flags.0,
                        mask: mark.mask.0,
                        ignored_mask: mark.ignored_mask.0,
                    })
                    .collect();
            }
        }
    }
}

fn mark_target(target: &InfoTarget, pid: Pid, resolver: &mut Resolver) -> MarkTarget {
    // A mount that no path leads to is not told from another such.
    let place = |path: Option<&[u8]>| match path {
        Some(path) => Object::Path(resolver.shown(path)),
        None => Object::Other("unmounted".to_owned()),
    };
    let mounts = || Mounts::of(pid.as_raw());
    match target {
        InfoTarget::Inode { ino, sdev, handle } => {
            MarkTarget::Inode(resolver.target((*sdev, *ino), handle.as_ref()))
        }
        InfoTarget::Mount(id) => match mounts() {
            Ok(mounts) => MarkTarget::Mount(place(mounts.path_of_mount(*id))),
            Err(error) => MarkTarget::Unknown(format!("mount: {error}")),
        },
        InfoTarget::Filesystem(sdev) => match mounts() {
            Ok(mounts) => MarkTarget::Filesystem(place(mounts.path_of_filesystem(*sdev))),
            Err(error) => MarkTarget::Unknown(format!("filesystem: {error}")),
        },
        InfoTarget::MountNamespace(number) => {
            let own = fs::metadata(format!("/proc/{pid}/ns/mnt"));
            let is_own = own.is_ok_and(|own| own.ino() == u64::from(number.0));
            let name = if is_own { "own" } else { "other" };
            MarkTarget::MountNamespace(name.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Times;

    fn times(atime: i64, mtime: i64) -> Times {
        Times {
            atime: (1, atime),
            mtime: (1, mtime),
        }
    }

    #[test]
    fn a_time_that_a_program_has_set_is_no_chance() {
        let whole = |atime, mtime| times(atime, mtime).has_whole_microseconds(&[]);
        assert!(whole(5_000, 7));
        assert!(whole(7, 999_999_000));
        assert!(!whole(5_001, 7));
        assert!(!whole(0, 0));
    }

    #[test]
    fn a_time_that_a_cut_has_made_is_no_chance() {
        let made = [times(5_000, 6_000), times(1, 2)];
        let whole = |atime, mtime| times(atime, mtime).has_whole_microseconds(&made);
        assert!(!whole(5_000, 6_000));
        assert!(!whole(7, 5_000));
        assert!(whole(5_000, 8_000));
    }
}
