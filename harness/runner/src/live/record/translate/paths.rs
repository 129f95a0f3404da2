//! Paths as text: what a program wrote, made absolute and made relative to the root.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `/proc/self/fd/3/a` and its like: the descriptor and what follows.
pub(super) fn of_descriptor(pid: i32, path: &[u8]) -> Option<(i32, Vec<u8>)> {
    let own = format!("/proc/{pid}/fd/");
    let prefixes = ["/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/", &own];
    let mut rests = prefixes
        .iter()
        .filter_map(|prefix| path.strip_prefix(prefix.as_bytes()));
    let rest = rests.next()?;
    let end = rest.iter().position(|&byte| byte == b'/');
    let (number, rest) = rest.split_at(end.unwrap_or(rest.len()));
    let fd = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((fd, rest.strip_prefix(b"/").unwrap_or(rest).to_vec()))
}

pub(super) fn join(directory: &[u8], path: &[u8]) -> Vec<u8> {
    match (directory, path) {
        (directory, b"") => directory.to_vec(),
        (b"/", path) => [b"/", path].concat(),
        (directory, path) => [directory, b"/", path].concat(),
    }
}

/// An absolute path, relative to the root: as it was written where that is possible.
pub(super) fn below(root: &Path, path: &[u8]) -> Option<Vec<u8>> {
    let names = |path: &[u8]| -> Vec<Vec<u8>> {
        let names = path.split(|&byte| byte == b'/');
        let names = names.filter(|name| !name.is_empty() && *name != b".");
        names.map(<[u8]>::to_vec).collect()
    };
    let root = names(root.as_os_str().as_bytes());
    let written = names(path);
    let relative = match written.strip_prefix(root.as_slice()) {
        Some(rest) if stays_inside(rest) => rest.to_vec(),
        _ => without_dots(written)
            .strip_prefix(root.as_slice())?
            .to_vec(),
    };
    let mut relative = relative.join(&b'/');
    if relative.is_empty() {
        return Some(b".".to_vec());
    }
    if path.ends_with(b"/") {
        relative.push(b'/');
    }
    Some(relative)
}

fn without_dots(names: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut plain: Vec<Vec<u8>> = Vec::new();
    for name in names {
        match name.as_slice() {
            b".." => drop(plain.pop()),
            _ => plain.push(name),
        }
    }
    plain
}

/// A directory to be in: as getcwd(2) names it, links apart.
pub(super) fn without_ways_back(path: &[u8]) -> Vec<u8> {
    let names = path.split(|&byte| byte == b'/');
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    let names = without_dots(names.map(<[u8]>::to_vec).collect());
    [b"/", names.join(&b'/').as_slice()].concat()
}

fn stays_inside(names: &[Vec<u8>]) -> bool {
    let mut depth = 0_i64;
    names.iter().all(|name| {
        depth += if name == b".." { -1 } else { 1 };
        depth >= 0
    })
}

/// The last name of a path; of the root none.
pub(super) fn last_name(path: &[u8]) -> Vec<u8> {
    let mut names = path.rsplit(|&byte| byte == b'/');
    let name = names.find(|name| !name.is_empty());
    name.unwrap_or_default().to_vec()
}

/// The path of a root that exists, without symbolic links.
pub(in crate::live::record) fn canonical(root: &Path) -> Result<PathBuf, String> {
    std::fs::canonicalize(root).map_err(|error| format!("{}: {error}", root.display()))
}
