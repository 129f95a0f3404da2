//! The tree below the root as it was before, and what the recorded calls make of it: whether a path
//! leads anywhere in the scenario is asked here, so that no step is written that cannot succeed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use cr::silent::{self, Access};
use scenario::Bytes;

use super::{LeftOut, MADE};

/// Files with more content than this are made as holes of the same size.
const MAX_CONTENT: u64 = 4096;
/// A tree with more objects than this is made as far as the calls touch it.
const MAX_OBJECTS: usize = 64;
/// A tree with more objects than this is not read: the root is the wrong one.
const MAX_READ: usize = 100_000;
/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// An object, by its place in the list of all.
pub(super) type Node = usize;
pub(super) const TOP: Node = 0;

/// How a tree may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Nobody watches yet whom it would matter to.
    Plain,
    /// Whoever watches shall not hear it.
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory(BTreeMap<Vec<u8>, Node>),
    File(Content),
    Link(Vec<u8>),
    Fifo,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    Hole(u64),
}

#[derive(Clone, Debug)]
struct Object {
    kind: Kind,
    /// Of directories.
    parent: Node,
    /// Whether a recorded call came by.
    is_touched: bool,
}

/// An object that was there before, with the name that it is made by.
#[derive(Clone, Debug)]
struct Before {
    path: Vec<u8>,
    node: Node,
    kind: Kind,
    mode: u32,
}

/// The tree.
#[derive(Debug)]
pub(super) struct Tree {
    objects: Vec<Object>,
    before: Vec<Before>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Node(Node),
    /// The last name is not there.
    Missing(Node, Vec<u8>),
    /// An earlier name is not there, or no directory.
    NoWay,
    /// It leads out of the root.
    Outside,
}

impl Tree {
    /// Reads what is there.
    pub(super) fn read(
        root: &Path,
        reading: Reading,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Self, String> {
        let mut tree = Self::empty();
        let mut known = HashMap::new();
        let mut reader = Reader {
            root,
            reading,
            left_out,
            known: &mut known,
        };
        reader.folder(&mut tree, TOP, b"")?;
        Ok(tree)
    }

    pub(super) fn empty() -> Self {
        let top = Object {
            kind: Kind::Directory(BTreeMap::new()),
            parent: TOP,
            is_touched: true,
        };
        Self {
            objects: vec![top],
            before: Vec::new(),
        }
    }

    pub(super) fn kind(&self, node: Node) -> &Kind {
        &self.objects[node].kind
    }

    /// Follows a path from the root; `follow` is for a symbolic link in its last place.
    pub(super) fn find(&mut self, path: &[u8], follow: bool) -> Found {
        self.walk(TOP, path, follow, &mut 0)
    }

    fn walk(&mut self, from: Node, path: &[u8], follow: bool, n_links: &mut usize) -> Found {
        let names = path.split(|&byte| byte == b'/');
        let names = names.filter(|name| !name.is_empty() && *name != b".");
        let names: Vec<&[u8]> = names.collect();
        // A slash at the end asks for what a link leads to.
        let follow = follow || path.ends_with(b"/");
        let mut at = from;
        for (index, name) in names.iter().enumerate() {
            let is_last = index + 1 == names.len();
            if *name == b".." {
                if at == TOP {
                    return Found::Outside;
                }
                at = self.objects[at].parent;
                continue;
            }
            let Kind::Directory(entries) = &self.objects[at].kind else {
                return Found::NoWay;
            };
            let Some(&next) = entries.get(*name) else {
                return match is_last {
                    true => Found::Missing(at, name.to_vec()),
                    false => Found::NoWay,
                };
            };
            self.objects[next].is_touched = true;
            let Kind::Link(target) = &self.objects[next].kind else {
                at = next;
                continue;
            };
            if is_last && !follow {
                return Found::Node(next);
            }
            *n_links += 1;
            if *n_links > MAX_LINKS {
                return Found::NoWay;
            }
            if target.starts_with(b"/") {
                return Found::Outside;
            }
            let target = target.clone();
            match self.walk(at, &target, true, n_links) {
                Found::Node(node) => at = node,
                Found::Missing(parent, name) if is_last => return Found::Missing(parent, name),
                Found::Missing(..) | Found::NoWay => return Found::NoWay,
                Found::Outside => return Found::Outside,
            }
        }
        Found::Node(at)
    }

    /// Puts a new object at a name.
    pub(super) fn make(&mut self, parent: Node, name: &[u8], kind: Kind) -> Node {
        let node = self.objects.len();
        self.objects.push(Object {
            kind,
            parent,
            is_touched: true,
        });
        self.put(parent, name, node);
        node
    }

    /// Puts an object at a name; what was there has lost it.
    pub(super) fn put(&mut self, parent: Node, name: &[u8], node: Node) {
        if let Kind::Directory(_) = self.objects[node].kind {
            self.objects[node].parent = parent;
        }
        if let Kind::Directory(entries) = &mut self.objects[parent].kind {
            entries.insert(name.to_vec(), node);
        }
    }

    /// Takes a name away.
    pub(super) fn take(&mut self, parent: Node, name: &[u8]) {
        if let Kind::Directory(entries) = &mut self.objects[parent].kind {
            entries.remove(name);
        }
    }

    /// The directory and the last name of a path that leads somewhere.
    pub(super) fn place(&mut self, path: &[u8]) -> Option<(Node, Vec<u8>)> {
        let trimmed = match path.iter().rposition(|&byte| byte != b'/') {
            Some(last) => &path[..=last],
            None => return None,
        };
        let at = trimmed.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = match at {
            Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
            None => (&b""[..], trimmed),
        };
        match self.find(parent, true) {
            Found::Node(parent) if name != b"." && name != b".." => Some((parent, name.to_vec())),
            _ => None,
        }
    }

    /// The calls that make what was there before: all of it, or what was touched of a large tree.
    pub(super) fn calls(&self) -> Vec<String> {
        let is_small = self.before.len() <= MAX_OBJECTS;
        let wanted = |one: &&Before| is_small || self.objects[one.node].is_touched;
        let mut made: HashMap<Node, &[u8]> = HashMap::new();
        let mut calls = Vec::new();
        for one in self.before.iter().filter(wanted) {
            let path = Bytes(one.path.clone());
            if let Some(first) = made.get(&one.node) {
                calls.push(format!("link({}, {path})", Bytes(first.to_vec())));
                continue;
            }
            made.insert(one.node, &one.path);
            calls.extend(one.calls(&path, calls.len()));
        }
        calls
    }
}

impl Before {
    fn calls(&self, path: &Bytes, number: usize) -> Vec<String> {
        let mode = self.mode;
        match &self.kind {
            // Whoever is not root must be able to fill it.
            Kind::Directory(_) => vec![format!("mkdir({path}, 0{:o})", mode | 0o700)],
            Kind::Link(target) => vec![format!("symlink({}, {path})", Bytes(target.clone()))],
            Kind::Fifo => vec![format!("mknod({path}, S_IFIFO|0{mode:o})")],
            Kind::File(Content::Bytes(content)) if !content.is_empty() => vec![
                format!("open({path}, O_WRONLY|O_CREAT, 0{mode:o}) = {MADE}{number}"),
                format!("write({MADE}{number}, {})", Bytes(content.clone())),
                format!("close({MADE}{number})"),
            ],
            Kind::File(Content::Hole(size)) => vec![
                format!("open({path}, O_WRONLY|O_CREAT, 0{mode:o}) = {MADE}{number}"),
                format!("ftruncate({MADE}{number}, {size})"),
                format!("close({MADE}{number})"),
            ],
            Kind::File(Content::Bytes(_)) => vec![
                format!("open({path}, O_WRONLY|O_CREAT, 0{mode:o}) = {MADE}{number}"),
                format!("close({MADE}{number})"),
            ],
            Kind::Other => Vec::new(),
        }
    }
}

struct Reader<'a> {
    root: &'a Path,
    reading: Reading,
    left_out: &'a mut Vec<LeftOut>,
    /// Files with several names, by device and inode.
    known: &'a mut HashMap<(u64, u64), Node>,
}

impl Reader<'_> {
    fn folder(&mut self, tree: &mut Tree, node: Node, below: &[u8]) -> Result<(), String> {
        let folder = self.full(below);
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        let mut names = Vec::new();
        let listed = match self.silently(&folder) {
            Some(file) => {
                let dir = nix::dir::Dir::from_fd(file).map_err(|errno| failed(errno.into()))?;
                dir.into_iter()
                    .map_while(Result::ok)
                    .map(|entry| entry.file_name().to_bytes().to_vec())
                    .filter(|name| name != b"." && name != b"..")
                    .collect()
            }
            None => {
                for entry in fs::read_dir(&folder).map_err(failed)? {
                    names.push(entry.map_err(failed)?.file_name().as_bytes().to_vec());
                }
                names
            }
        };
        let mut names: Vec<Vec<u8>> = listed;
        names.sort();
        for name in names {
            let path = match below {
                b"" => name.clone(),
                below => [below, b"/", &name].concat(),
            };
            if tree.before.len() >= MAX_READ {
                return Err(format!(
                    "more than {MAX_READ} objects in {}: --root names the folder that it is about",
                    self.root.display()
                ));
            }
            self.entry(tree, node, &name, path)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        tree: &mut Tree,
        parent: Node,
        name: &[u8],
        path: Vec<u8>,
    ) -> Result<(), String> {
        let full = self.full(&path);
        // What is gone meanwhile was not there before.
        let Ok(stat) = fs::symlink_metadata(&full) else {
            return Ok(());
        };
        let number = (stat.dev(), stat.ino());
        if let Some(&node) = self.known.get(&number) {
            tree.put(parent, name, node);
            tree.before.push(Before {
                path,
                node,
                kind: tree.kind(node).clone(),
                mode: 0,
            });
            return Ok(());
        }
        let kind = self.kind(&full, &stat, &path)?;
        let node = tree.make(parent, name, kind.clone());
        tree.objects[node].is_touched = false;
        if !stat.is_dir() && stat.nlink() > 1 {
            self.known.insert(number, node);
        }
        let is_directory = stat.is_dir();
        tree.before.push(Before {
            path: path.clone(),
            node,
            kind,
            mode: stat.permissions().mode() & 0o7777,
        });
        if is_directory {
            self.folder(tree, node, &path)?;
        }
        Ok(())
    }

    fn kind(&mut self, full: &Path, stat: &fs::Metadata, path: &[u8]) -> Result<Kind, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", full.display());
        let kind = stat.file_type();
        Ok(if kind.is_dir() {
            Kind::Directory(BTreeMap::new())
        } else if kind.is_symlink() {
            let target = fs::read_link(full).map_err(failed)?;
            Kind::Link(inside(self.root, path, target.as_os_str().as_bytes()))
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if !kind.is_file() {
            let shown = full.display().to_string();
            let why = "a socket or device, which is not made";
            self.left_out.push(LeftOut::new(why, &shown));
            Kind::Other
        } else if stat.len() > MAX_CONTENT {
            let shown = full.display().to_string();
            let why = "content of a large file, made as a hole";
            self.left_out.push(LeftOut::new(why, &shown));
            Kind::File(Content::Hole(stat.len()))
        } else {
            Kind::File(Content::Bytes(self.content(full).unwrap_or_else(|error| {
                let shown = format!("{}: {error}", full.display());
                let why = "content that cannot be read";
                self.left_out.push(LeftOut::new(why, &shown));
                Vec::new()
            })))
        })
    }

    fn content(&self, full: &Path) -> std::io::Result<Vec<u8>> {
        let mut content = Vec::new();
        match self.silently(full) {
            Some(file) => File::from(file).read_to_end(&mut content)?,
            None => File::open(full)?.read_to_end(&mut content)?,
        };
        Ok(content)
    }

    /// A descriptor that nobody hears of, if that was asked for and can be had.
    fn silently(&self, path: &Path) -> Option<std::os::fd::OwnedFd> {
        if self.reading == Reading::Plain {
            return None;
        }
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
        silent::open(&path, Access::Read).ok()
    }

    fn full(&self, below: &[u8]) -> std::path::PathBuf {
        match below {
            b"" => self.root.to_owned(),
            below => self.root.join(std::ffi::OsStr::from_bytes(below)),
        }
    }
}

/// The target of a symbolic link, made relative where it is below the root: the scenario's root
/// is another.
pub(super) fn inside(root: &Path, link: &[u8], target: &[u8]) -> Vec<u8> {
    let Some(rest) = target.strip_prefix(root.as_os_str().as_bytes()) else {
        return target.to_vec();
    };
    if !rest.is_empty() && !rest.starts_with(b"/") {
        return target.to_vec();
    }
    let names = link.split(|&byte| byte == b'/');
    let depth = names.filter(|name| !name.is_empty()).count();
    let mut relative = b"../".repeat(depth.saturating_sub(1));
    relative.extend_from_slice(rest.strip_prefix(b"/").unwrap_or(rest));
    match relative.is_empty() {
        true => b".".to_vec(),
        false => relative,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_followed_as_the_kernel_does() {
        let mut tree = Tree::empty();
        let a = tree.make(TOP, b"a", Kind::Directory(BTreeMap::new()));
        let f = tree.make(a, b"f", Kind::File(Content::Bytes(Vec::new())));
        let l = tree.make(TOP, b"l", Kind::Link(b"a/f".to_vec()));
        tree.make(a, b"up", Kind::Link(b"..".to_vec()));
        tree.make(TOP, b"loop", Kind::Link(b"loop".to_vec()));
        tree.make(TOP, b"out", Kind::Link(b"/etc".to_vec()));
        tree.make(TOP, b"gone", Kind::Link(b"a/new".to_vec()));
        let mut check = |path: &str, follow, expected: Found| {
            assert_eq!(tree.find(path.as_bytes(), follow), expected, "{path}");
        };
        check("", true, Found::Node(TOP));
        check(".", true, Found::Node(TOP));
        check("a/./f", true, Found::Node(f));
        check("a//f", true, Found::Node(f));
        check("l", true, Found::Node(f));
        check("l", false, Found::Node(l));
        check("a/up/a/f", false, Found::Node(f));
        check("a/../a", false, Found::Node(a));
        check("a/new", true, Found::Missing(a, b"new".to_vec()));
        check("gone", true, Found::Missing(a, b"new".to_vec()));
        check("b/new", true, Found::NoWay);
        check("a/f/x", true, Found::NoWay);
        check("loop", true, Found::NoWay);
        check("out/passwd", true, Found::Outside);
        check("..", true, Found::Outside);
        check("a/../..", true, Found::Outside);
    }

    #[test]
    fn a_link_into_the_root_becomes_relative() {
        let check = |link: &str, target: &str, expected: &str| {
            let relative = inside(Path::new("/srv"), link.as_bytes(), target.as_bytes());
            assert_eq!(String::from_utf8(relative).unwrap(), expected);
        };
        check("l", "/srv/a", "a");
        check("d/l", "/srv/a", "../a");
        check("l", "/srv", ".");
        check("l", "/srvr/a", "/srvr/a");
        check("l", "a", "a");
    }

    #[test]
    fn what_was_there_is_made_again_with_all_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::set_permissions(path("d"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path("d/f"), "x\n").unwrap();
        fs::set_permissions(path("d/f"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(path("d/f"), path("g")).unwrap();
        std::os::unix::fs::symlink(path("d"), path("l")).unwrap();
        for reading in [Reading::Plain, Reading::Silent] {
            let mut left_out = Vec::new();
            let tree = Tree::read(folder.path(), reading, &mut left_out).unwrap();
            assert_eq!(left_out, []);
            assert_eq!(
                tree.calls(),
                [
                    "mkdir(\"d\", 0755)",
                    "open(\"d/f\", O_WRONLY|O_CREAT, 0640) = made1",
                    "write(made1, \"x\\n\")",
                    "close(made1)",
                    "link(\"d/f\", \"g\")",
                    "symlink(\"d\", \"l\")",
                ]
            );
        }
    }
}
