//! From calls to steps. All processes of the recording become one, which does in the order of the
//! log what they did: it makes the same events. Paths become relative to the root; what leads out
//! of it, what failed, and what the language cannot say is left out, with the reason.

mod files;
mod groups;
mod names;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use scenario::Bytes;

use super::LeftOut;
use super::line::{self, Call, Entry};
use super::tables::{File, Slot, Surroundings, Tables};
use super::tree::{Node, Tree};

pub(super) use groups::GroupBefore;
pub(super) use paths::canonical;
use paths::{below, join, last_name, of_descriptor, without_ways_back};

/// Calls that strace is asked for; a `?` before each, since not every machine has all of them.
pub(super) const TRACED: [&str; 78] = [
    "open",
    "openat",
    "creat",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "read",
    "readv",
    "pread64",
    "preadv",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "sendfile",
    "copy_file_range",
    "lseek",
    "truncate",
    "ftruncate",
    "fallocate",
    "getdents",
    "getdents64",
    "mkdir",
    "mkdirat",
    "rmdir",
    "mknod",
    "mknodat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "lchown",
    "fchown",
    "fchownat",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "removexattr",
    "lremovexattr",
    "chdir",
    "fchdir",
    "umask",
    "inotify_init",
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
    "fanotify_init",
    "fanotify_mark",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "fork",
    "vfork",
    "clone",
    "clone3",
    "execve",
    "mount",
    "io_uring_setup",
];

/// Why a call is no step.
pub(super) const OUTSIDE: &str = "outside of the root";
const NOT_THERE: &str = "on what the recording has not seen come there";
const UNREADABLE: &str = "with a path that cannot be read";
const UNSAYABLE: &str = "that the language has no word for";
const AFTER: &str = "after the last group was closed";

/// How it all begins.
#[derive(Debug)]
pub(super) struct Start {
    /// The process that is there at the beginning.
    pub pid: i32,
    pub surroundings: Surroundings,
    pub held: Vec<Held>,
}

/// A descriptor that is there at the beginning.
#[derive(Debug)]
pub(super) struct Held {
    pub fd: i32,
    pub close_on_exec: bool,
    /// Absolute.
    pub path: Vec<u8>,
    pub what: HeldWhat,
}

#[derive(Debug)]
pub(super) enum HeldWhat {
    File { flags: String, offset: u64 },
    Group(GroupBefore),
    Other,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Translated {
    pub steps: Vec<Step>,
    pub left_out: Vec<LeftOut>,
    pub requires: BTreeSet<&'static str>,
    /// Watches and marks that are steps.
    pub n_watches: usize,
    /// What was watched outside of the root.
    pub elsewhere: BTreeSet<String>,
    pub tree: Tree,
}

/// One step, without its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub text: String,
    /// `1`, `-1 ENOENT`.
    pub result: Option<String>,
    /// A name for the result, written if it is used.
    pub binds: Option<String>,
    pub uses: Vec<String>,
    /// Whether it takes events from a queue.
    pub drains: bool,
}

/// Translates a log.
pub(super) fn translate(entries: &[Entry], start: Start, root: &Path, tree: Tree) -> Translated {
    let mut recorder = Recorder::of(entries, start, root, tree);
    for entry in entries {
        match entry {
            Entry::Call(call) => {
                recorder.tables.meet(call.pid);
                recorder.call(call);
            }
            Entry::Exited(pid) => {
                let held = recorder.tables.exit(*pid);
                recorder.drop_files(held);
            }
        }
    }
    recorder.finish()
}

/// An open file.
#[derive(Debug)]
struct Open {
    /// Absolute; the name it has now.
    path: Vec<u8>,
    kind: OpenKind,
}

#[derive(Debug)]
enum OpenKind {
    /// No step speaks of it.
    Other,
    File {
        name: String,
        is_directory: bool,
    },
    Group(groups::Group),
    Epoll(groups::Epoll),
}

/// Why a call was left out.
type Left = &'static str;

struct Recorder<'a> {
    root: &'a Path,
    tree: Tree,
    tables: Tables,
    files: Vec<Open>,
    steps: Vec<Step>,
    left_out: Vec<LeftOut>,
    requires: BTreeSet<&'static str>,
    /// For names of results, by number.
    wishes: Vec<Vec<u8>>,
    /// Last names of what steps have changed.
    changed: BTreeSet<Vec<u8>>,
    first_watch: Option<usize>,
    n_watches: usize,
    elsewhere: BTreeSet<String>,
    /// Where the last group was closed.
    end: Option<usize>,
}

impl<'a> Recorder<'a> {
    fn of(entries: &[Entry], start: Start, root: &'a Path, tree: Tree) -> Self {
        let mut slots = BTreeMap::new();
        for (file, held) in start.held.iter().enumerate() {
            let close_on_exec = held.close_on_exec;
            slots.insert(
                held.fd,
                Slot {
                    file,
                    close_on_exec,
                },
            );
        }
        let mut recorder = Self {
            root,
            tree,
            tables: Tables::of(entries, start.pid, slots, start.surroundings),
            files: Vec::new(),
            steps: Vec::new(),
            left_out: Vec::new(),
            requires: BTreeSet::new(),
            wishes: Vec::new(),
            changed: BTreeSet::new(),
            first_watch: None,
            n_watches: 0,
            elsewhere: BTreeSet::new(),
            end: None,
        };
        for held in start.held {
            recorder.hold(start.pid, held);
        }
        recorder
    }

    fn call(&mut self, call: &Call) {
        let result = match call.name.as_str() {
            "inotify_init" | "inotify_init1" | "inotify_add_watch" | "inotify_rm_watch"
            | "fanotify_init" | "fanotify_mark" | "epoll_create" | "epoll_create1"
            | "epoll_ctl" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2" => {
                self.notification(call)
            }
            // What failed has changed nothing, and nobody heard of it.
            _ if call.success().is_none() => Ok(()),
            "fork" | "vfork" | "clone" | "clone3" => {
                if let Some(child) = call.success().and_then(|pid| i32::try_from(pid).ok()) {
                    self.tables.meet(child);
                }
                Ok(())
            }
            "execve" => {
                let dropped = self.tables.exec(call.pid);
                self.drop_files(dropped);
                self.exec(call)
            }
            "mount" => self.mount(call),
            "io_uring_setup" => Err("of io_uring, whose work is not seen"),
            _ => match self.descriptor_call(call) {
                Some(result) => result,
                None => self.name_call(call),
            },
        };
        if let Err(why) = result {
            self.leave(why, call);
        }
    }

    fn leave(&mut self, why: &str, call: &Call) {
        let shown = call.arguments.iter().take(3).map(|argument| {
            let text = line::string(argument);
            let text = text.map_or_else(|| argument.clone(), |bytes| Bytes(bytes).to_string());
            match text.char_indices().nth(80) {
                Some((at, _)) => format!("{}...", &text[..at]),
                None => text,
            }
        });
        let shown: Vec<String> = shown.collect();
        let example = format!("{}({})", call.name, shown.join(", "));
        self.left_out.push(LeftOut::new(why, &example));
    }

    /// A program that lies below the root is opened and read by the kernel.
    fn exec(&mut self, call: &Call) -> Result<(), Left> {
        match self.path(call.pid, None, call.argument(0)) {
            Ok(_) => Err("of a program below the root, which the kernel reads"),
            Err(_) => Ok(()),
        }
    }

    fn mount(&mut self, call: &Call) -> Result<(), Left> {
        match self.path(call.pid, None, call.argument(1)) {
            Ok(_) => Err("that mounts below the root"),
            Err(_) => Ok(()),
        }
    }

    fn step(&mut self, text: String, uses: &[&str]) {
        self.steps.push(Step {
            text,
            result: None,
            binds: None,
            uses: uses.iter().map(|name| (*name).to_owned()).collect(),
            drains: false,
        });
    }

    fn binding_step(&mut self, text: String, name: &str) {
        self.step(text, &[]);
        if let Some(step) = self.steps.last_mut() {
            step.binds = Some(name.to_owned());
        }
    }

    /// A step that says the same as the one before says nothing.
    fn step_once(&mut self, text: String, uses: &[&str]) {
        if self.steps.last().is_none_or(|last| last.text != text) {
            self.step(text, uses);
        }
    }

    /// A name for a result, like the one that is wished for; which it is, is settled at the end.
    fn name(&mut self, wish: &[u8]) -> String {
        self.wishes.push(wish.to_vec());
        format!("{MARK}{}{MARK}", self.wishes.len() - 1)
    }

    /// A path argument, absolute. `dirfd` is the argument before it.
    fn absolute(&mut self, pid: i32, dirfd: Option<&str>, text: &str) -> Result<Vec<u8>, Left> {
        let path = line::string(text).ok_or(UNREADABLE)?;
        if let Some((fd, rest)) = of_descriptor(pid, &path) {
            let file = self.tables.get(pid, fd).ok_or(UNREADABLE)?;
            return Ok(join(&self.files[file].path.clone(), &rest));
        }
        if path.starts_with(b"/") {
            return Ok(path);
        }
        let directory = match dirfd {
            None | Some("AT_FDCWD") => self.tables.surroundings(pid).directory.clone(),
            Some(fd) => {
                let file = self.file(pid, fd).ok_or(UNREADABLE)?;
                self.files[file].path.clone()
            }
        };
        Ok(join(&directory, &path))
    }

    /// A path argument, relative to the root.
    fn path(&mut self, pid: i32, dirfd: Option<&str>, text: &str) -> Result<Vec<u8>, Left> {
        let absolute = self.absolute(pid, dirfd, text)?;
        below(self.root, &absolute).ok_or(OUTSIDE)
    }

    /// The open file of a descriptor argument.
    fn file(&mut self, pid: i32, fd: &str) -> Option<File> {
        self.tables.get(pid, fd.parse().ok()?)
    }

    /// Puts a new open file at the number that a call returned.
    fn opened(&mut self, call: &Call, close_on_exec: bool, path: Vec<u8>, kind: OpenKind) {
        let Some(fd) = call.success().and_then(|fd| i32::try_from(fd).ok()) else {
            return;
        };
        self.files.push(Open { path, kind });
        let file = self.files.len() - 1;
        let slot = Slot {
            file,
            close_on_exec,
        };
        // The number was free; if not, its close was not seen.
        let old = self.tables.put(call.pid, fd, slot);
        self.drop_files(old.into_iter().collect());
    }

    /// Descriptors were closed: files that nobody has open any more are closed.
    fn drop_files(&mut self, files: Vec<File>) {
        let before = self.steps.len();
        let mut has_group = false;
        for file in files {
            if self.tables.is_open(file) {
                continue;
            }
            let name = match &self.files[file].kind {
                OpenKind::File { name, .. } => name.clone(),
                OpenKind::Group(group) if group.is_made => {
                    has_group = true;
                    group.name.clone()
                }
                OpenKind::Epoll(epoll) if epoll.is_made => epoll.name.clone(),
                OpenKind::Other | OpenKind::Group(_) | OpenKind::Epoll(_) => continue,
            };
            self.files[file].kind = OpenKind::Other;
            self.step(format!("close({name})"), &[&name]);
        }
        if has_group {
            self.end = Some(before);
        }
    }

    /// What the open files and working directories are called after a rename.
    fn moved(&mut self, from: &[u8], to: &[u8]) {
        let (from, to) = (self.rooted(from), self.rooted(to));
        let paths = self.files.iter_mut().map(|file| &mut file.path);
        for path in paths.chain(self.tables.directories()) {
            if let Some(rest) = path.strip_prefix(from.as_slice())
                && (rest.is_empty() || rest.starts_with(b"/"))
            {
                *path = [&to, rest].concat();
            }
        }
    }

    fn rooted(&self, path: &[u8]) -> Vec<u8> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        join(self.root.as_os_str().as_bytes(), path)
    }

    fn finish(mut self) -> Translated {
        let lives = self.files.iter().any(|file| match &file.kind {
            OpenKind::Group(group) => group.is_made,
            OpenKind::Other | OpenKind::File { .. } | OpenKind::Epoll(_) => false,
        });
        if let (false, Some(end)) = (lives, self.end) {
            for step in self.steps.drain(end..) {
                let text = step.text.replace(MARK, "");
                self.left_out.push(LeftOut::new(AFTER, &text));
            }
        }
        let first_watch = self.first_watch.unwrap_or(0).min(self.steps.len());
        drop_unheard(&mut self.steps, first_watch);
        settle_names(&mut self.steps, &self.wishes);
        Translated {
            steps: self.steps,
            left_out: self.left_out,
            requires: self.requires,
            n_watches: self.n_watches,
            elsewhere: self.elsewhere,
            tree: self.tree,
        }
    }
}

/// Around the number of a name: a byte that no step has, since paths are escaped.
const MARK: char = '\u{1}';

/// Gives names to the results that steps use.
fn settle_names(steps: &mut [Step], wishes: &[Vec<u8>]) {
    let used: BTreeSet<String> = steps.iter().flat_map(|step| step.uses.clone()).collect();
    let mut taken = BTreeSet::from(["main".to_owned()]);
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for step in steps.iter() {
        let bound = step.binds.iter().filter(|name| used.contains(*name));
        for mark in bound {
            let wish = mark.trim_matches(MARK).parse().ok();
            let wish = wish.and_then(|number: usize| wishes.get(number));
            let name = unique(wish.map_or(b"f", Vec::as_slice), &mut taken);
            names.insert(mark.clone(), name);
        }
    }
    for step in steps {
        for mark in step.binds.iter_mut().chain(&mut step.uses) {
            if let Some(name) = names.get(mark) {
                step.text = step.text.replace(mark.as_str(), name);
                mark.clone_from(name);
            }
        }
    }
}

/// A name that no other has.
fn unique(wish: &[u8], taken: &mut BTreeSet<String>) -> String {
    let letters = wish
        .iter()
        .map(|byte| char::from(byte.to_ascii_lowercase()));
    let plain = letters.map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    let mut base: String = plain.take(24).collect();
    // Names of what is made before the first step begin so.
    if !base.starts_with(|c: char| c.is_ascii_lowercase()) || base.starts_with(super::MADE) {
        base = format!("f_{base}");
    }
    let mut name = base.clone();
    let mut number = 1;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{base}_{number}");
    }
    name
}

/// Takes out files that were opened, only read, and closed before anybody watched.
fn drop_unheard(steps: &mut Vec<Step>, first_watch: usize) {
    let early = &steps[..first_watch];
    let only_read = |step: &&Step| {
        ["O_CREAT", "O_TRUNC", "O_WRONLY", "O_RDWR"]
            .iter()
            .all(|flag| !step.text.contains(flag))
    };
    let names: BTreeSet<String> = early
        .iter()
        .filter(|step| step.text.starts_with("open("))
        .filter(only_read)
        .filter_map(|step| step.binds.clone())
        .filter(|name| {
            let closing = format!("close({name})");
            early.iter().any(|step| step.text == closing)
        })
        .collect();
    steps.retain(|step| {
        let mut named = step.binds.iter().chain(&step.uses);
        !named.any(|name| names.contains(name))
    });
}

/// A step's text for a path.
fn quoted(path: &[u8]) -> Bytes {
    Bytes(path.to_vec())
}

/// The path that a node is at is what the program wrote; whether it leads there, the tree says.
fn there(found: super::tree::Found) -> Result<Node, Left> {
    use super::tree::Found;
    match found {
        Found::Node(node) => Ok(node),
        Found::Missing(..) | Found::NoWay => Err(NOT_THERE),
        Found::Outside => Err(OUTSIDE),
    }
}
