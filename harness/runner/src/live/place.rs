//! From what fdinfo shows of a watched inode to the paths that lead there.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::fd::OwnedFd;

use cr::sys::handle;
use cr::sys::path::{self, Stat};
use fsnotify::handle::{FileHandle, Layout};
use fsnotify::{Ino, Sdev};
use nix::errno::Errno;
use nix::libc;
use serde::Serialize;

use super::home::{Home, Inside};
use super::search::{self, Search};

/// What the kernel appends to a name that is gone.
const DELETED: &[u8] = b" (deleted)";

/// An inode as fdinfo shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub device: Sdev,
    pub ino: Ino,
    pub handle: Option<FileHandle>,
}

/// What is known of it.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    pub name: Name,
    pub inode: u64,
    /// Major and minor number.
    pub device: String,
    /// Its type as mountinfo has it; none if it is mounted nowhere that the process sees.
    pub filesystem: Option<String>,
    pub directory: Option<bool>,
    /// How many names it has; 0 for a ghost.
    pub links: Option<u32>,
    pub size: Option<u64>,
    pub handle: Option<Handle>,
    /// Whether stat(2) of the name gives the numbers that fdinfo shows.
    #[serde(skip)]
    pub numbers_match: bool,
    #[serde(skip)]
    pub symbolic_link: bool,
    /// What it takes of its disk, which for a file with holes is less than its size.
    #[serde(skip)]
    pub disk_bytes: u64,
    /// Whether a descriptor of the processes that were asked for holds it open.
    #[serde(skip)]
    pub held: bool,
}

/// How it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Name {
    /// These paths lead there: more than one if it has several names.
    Named {
        paths: Vec<String>,
        found_by: FoundBy,
    },
    /// It has no name any more.
    Ghost {
        /// The path that it had when it was removed.
        last_path: Option<String>,
    },
    /// It has a name that no path leads to: a mount covers it.
    Hidden { path: String },
    /// There is no name to be found.
    NoName { why: String },
}

/// What led to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoundBy {
    Handle,
    Descriptor,
    Mount,
    CommandLine,
    Search,
}

/// A file handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Handle {
    /// Type, as fdinfo prints it.
    pub kind: String,
    pub bytes: String,
    /// What the bytes mean, on this filesystem.
    pub content: String,
    /// `opens`, or the error of open_by_handle_at(2).
    pub result: HandleResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum HandleResult {
    Opens,
    Fails { errno: String },
}

/// Files that processes hold, to compare with: descriptors, working and root directories.
#[derive(Debug, Default)]
pub struct Held {
    files: Vec<(OwnedFd, bool)>,
    /// Words of command lines that may be paths, and where relative ones begin.
    words: Vec<(Option<usize>, Vec<u8>)>,
}

impl Held {
    /// Opens everything with `O_PATH`, which nobody hears.
    #[must_use]
    pub fn of(pids: &[i32]) -> Self {
        let mut held = Self::default();
        for pid in pids {
            let entries = fs::read_dir(format!("/proc/{pid}/fd"));
            let entries = entries.into_iter().flatten().flatten();
            let descriptors = entries.map(|entry| (entry.path(), true));
            let places = ["root", "exe"].map(|name| (format!("/proc/{pid}/{name}").into(), false));
            for (path, is_descriptor) in descriptors.chain(places) {
                let file = handle::open_path(&path);
                held.files
                    .extend(file.ok().map(|file| (file, is_descriptor)));
            }
            let directory = handle::open_path(format!("/proc/{pid}/cwd").as_ref()).ok();
            let index = directory.map(|directory| {
                held.files.push((directory, false));
                held.files.len() - 1
            });
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            for word in line.split(|&byte| byte == 0).skip(1) {
                let value = word.iter().position(|&byte| byte == b'=');
                let value = value.map(|at| &word[at + 1..]);
                let words = [Some(word), value].into_iter().flatten();
                let words = words.filter(|word| !word.is_empty() && word[0] != b'-');
                held.words.extend(words.map(|word| (index, word.to_vec())));
            }
        }
        held
    }
}

/// Traces every wanted inode, in order.
///
/// # Errors
///
/// In words: the home of the process cannot be entered.
pub fn trace(
    home: &Home,
    held: &Held,
    wanted: &[Wanted],
    search: &Search<'_>,
) -> Result<Vec<Target>, String> {
    let mut targets: Vec<Target> = home.enter(|inside| {
        let known = known_files(inside, held);
        let each = wanted.iter();
        each.map(|wanted| without_search(inside, *wanted, &known))
            .collect()
    })?;
    let lacking: Vec<usize> = (0..targets.len())
        .filter(|index| lacks_names(&targets[*index]))
        .collect();
    if !lacking.is_empty() {
        search::complete(home, wanted, &lacking, &mut targets, search)?;
    }
    Ok(targets)
}

/// Whether there may be names that are not known yet.
fn lacks_names(target: &Target) -> bool {
    match &target.name {
        Name::Named { paths, .. } => {
            let several = target.directory == Some(false)
                && target
                    .links
                    .is_some_and(|links| links as usize > paths.len());
            several && target.filesystem.is_some()
        }
        Name::NoName { .. } => target.filesystem.is_some(),
        Name::Ghost { .. } | Name::Hidden { .. } => false,
    }
}

/// A file to compare with.
struct Known {
    device: Sdev,
    stat: Stat,
    handle: Option<FileHandle>,
    path: Vec<u8>,
    by: FoundBy,
    is_descriptor: bool,
}

impl Known {
    fn of(inside: &Inside<'_>, file: &OwnedFd, by: FoundBy) -> Option<Self> {
        let stat = path::stat(file, c"").ok()?;
        Some(Self {
            device: inside.device_of(&stat),
            stat,
            handle: handle::of_file(file).ok(),
            path: inside.name_of(file).ok()?,
            by,
            is_descriptor: false,
        })
    }

    fn is(&self, wanted: &Wanted) -> bool {
        self.device == wanted.device
            && match (&self.handle, &wanted.handle) {
                (Some(one), Some(other)) => one == other,
                (None, _) | (_, None) => self.stat.ino == wanted.ino.0,
            }
    }
}

fn known_files(inside: &Inside<'_>, held: &Held) -> Vec<Known> {
    let mut known = Vec::new();
    for (file, is_descriptor) in &held.files {
        known.extend(
            Known::of(inside, file, FoundBy::Descriptor).map(|one| Known {
                is_descriptor: *is_descriptor,
                ..one
            }),
        );
    }
    for mount in inside.home().mounts() {
        let root = inside.mount_root(mount);
        known.extend(root.and_then(|root| Known::of(inside, &root, FoundBy::Mount)));
    }
    for (base, word) in &held.words {
        if let Some((directory, _)) = base.map(|index| &held.files[index])
            && nix::unistd::fchdir(directory).is_err()
        {
            continue;
        }
        let word = std::ffi::OsStr::new(std::str::from_utf8(word).unwrap_or_default());
        let file = handle::open_path(word.as_ref());
        let file = file.ok().filter(|_| !word.is_empty());
        known.extend(file.and_then(|file| Known::of(inside, &file, FoundBy::CommandLine)));
    }
    let above = directories_above(inside, &known);
    known.extend(above);
    known
}

/// Programs watch the directory of a file for its replacement.
fn directories_above(inside: &Inside<'_>, known: &[Known]) -> Vec<Known> {
    let mut seen: HashSet<&[u8]> = HashSet::new();
    let mut above = Vec::new();
    for one in known {
        let mut path = one.path.as_slice();
        while let Some(at) = path.iter().rposition(|&byte| byte == b'/') {
            path = &path[..at];
            if path.is_empty() || !seen.insert(path) {
                break;
            }
            let file = inside.open(path).ok();
            above.extend(file.and_then(|file| Known::of(inside, &file, one.by)));
        }
    }
    above
}

fn without_search(inside: &Inside<'_>, wanted: Wanted, known: &[Known]) -> Target {
    let mounts = inside.home().mounts_of(wanted.device);
    let filesystem = mounts.first().map(|mount| mount.filesystem.clone());
    let mut target = Target {
        name: Name::NoName {
            why: match filesystem {
                Some(_) => "nothing known leads there".to_owned(),
                None => "its filesystem is mounted nowhere that the process sees".to_owned(),
            },
        },
        inode: wanted.ino.0,
        device: format!("{}:{}", wanted.device.major(), wanted.device.minor()),
        directory: None,
        links: None,
        size: None,
        handle: None,
        numbers_match: false,
        symbolic_link: false,
        disk_bytes: 0,
        held: known.iter().any(|one| one.is_descriptor && one.is(&wanted)),
        filesystem,
    };
    let mut files = Vec::new();
    if let Some(handle) = wanted.handle {
        let opened = inside.open_handle(wanted.device, &handle);
        let result = match &opened {
            Ok(_) => HandleResult::Opens,
            Err(errno) => HandleResult::Fails {
                errno: format!("{errno:?}"),
            },
        };
        target.handle = Some(describe_handle(
            &handle,
            target.filesystem.as_deref(),
            result,
        ));
        let opened = opened.unwrap_or_default();
        let opened = opened.iter();
        files.extend(opened.filter_map(|file| Known::of(inside, file, FoundBy::Handle)));
    }
    let same = known.iter().filter(|one| one.is(&wanted));
    for one in files.iter().chain(same) {
        consider(inside, &wanted, one, &mut target);
        if matches!(target.name, Name::Named { .. }) {
            break;
        }
    }
    target
}

/// What a file that is the wanted one tells.
fn consider(inside: &Inside<'_>, wanted: &Wanted, one: &Known, target: &mut Target) {
    target.directory = Some(one.stat.mode & libc::S_IFMT == libc::S_IFDIR);
    target.symbolic_link = one.stat.mode & libc::S_IFMT == libc::S_IFLNK;
    target.links = Some(one.stat.nlink);
    target.size = Some(one.stat.size);
    target.disk_bytes = one.stat.blocks * 512;
    if let Some(stat) = leads_to(inside, &one.path, wanted) {
        target.numbers_match = stat.device == wanted.device && stat.ino == wanted.ino.0;
        target.name = Name::Named {
            paths: vec![printable(&one.path)],
            found_by: one.by,
        };
        return;
    }
    let without = one.path.strip_suffix(DELETED);
    target.name = match (one.stat.nlink, without) {
        (0, last) => Name::Ghost {
            last_path: last
                .filter(|path| path.starts_with(b"/") && path.len() > 1)
                .map(printable),
        },
        (_, Some(_)) => Name::NoName {
            why: "one of its names was removed, others remain".to_owned(),
        },
        (_, None) => Name::NoName {
            why: "the kernel knows it by its number only".to_owned(),
        },
    };
}

/// What a path leads to, if it is the wanted inode.
pub(super) fn leads_to(inside: &Inside<'_>, path: &[u8], wanted: &Wanted) -> Option<Stat> {
    if !path.starts_with(b"/") {
        return None;
    }
    let file = inside.open(path).ok()?;
    let known = Known::of(inside, &file, FoundBy::Handle)?;
    known.is(wanted).then_some(known.stat)
}

fn describe_handle(handle: &FileHandle, filesystem: Option<&str>, result: HandleResult) -> Handle {
    let text = handle.to_string();
    let (kind, bytes) = text.split_once(':').unwrap_or((&text, ""));
    let content = match handle.layout(filesystem.unwrap_or_default()) {
        Layout::Ino32 { ino, generation } => inode(ino.into(), generation),
        Layout::Ino64 { ino, generation } | Layout::Tmpfs { ino, generation } => {
            inode(ino, generation)
        }
        Layout::Node { node, generation } => format!("node {node}, generation {generation}"),
        Layout::Iso9660 { block, offset, .. } => format!("block {block}, offset {offset}"),
        Layout::Btrfs {
            ino,
            root,
            generation,
        } => format!("{} of subvolume {root}", inode(ino, generation)),
        Layout::Udf {
            block, partition, ..
        } => format!("block {block} of partition {partition}"),
        Layout::Nilfs2 {
            checkpoint,
            ino,
            generation,
        } => format!("{} of checkpoint {checkpoint}", inode(ino, generation)),
        Layout::FatPosition { position, .. } => format!("directory entry at {position}"),
        Layout::Overlay { kind, .. } => format!("a handle of type {kind:x} on a layer"),
        Layout::Id(id) => format!("number {id}, never given out again"),
        Layout::Namespace { id, .. } => format!("namespace {id}"),
        Layout::Opaque => "known to the filesystem only".to_owned(),
    };
    Handle {
        kind: kind.to_owned(),
        bytes: bytes.to_owned(),
        content,
        result,
    }
}

fn inode(ino: u64, generation: u32) -> String {
    format!("inode {ino}, generation {generation}")
}

/// A path as text: what is no UTF-8, and control characters, as `\xNN`.
#[must_use]
pub fn printable(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Adds names that were found, and says so where there are none.
pub(super) fn settle(target: &mut Target, paths: BTreeSet<String>, hidden: Option<String>) {
    if let Name::Named { paths: known, .. } = &mut target.name {
        let all: BTreeSet<String> = known.drain(..).chain(paths).collect();
        known.extend(all);
    } else if !paths.is_empty() {
        target.name = Name::Named {
            paths: paths.into_iter().collect(),
            found_by: FoundBy::Search,
        };
    } else if let Some(path) = hidden {
        target.name = Name::Hidden { path };
    }
}

/// Whether an error of open_by_handle_at(2) is for want of privilege.
#[must_use]
pub fn lacks_privilege(result: &HandleResult) -> bool {
    matches!(result, HandleResult::Fails { errno } if *errno == format!("{:?}", Errno::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_bytes_is_printed_on_one_line() {
        let path = b"/a b\\\n\xff\xc3\xbc";
        assert_eq!(printable(path), "/a b\\\\\\x0a\\xffü");
    }
}
