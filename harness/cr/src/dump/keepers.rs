//! What keeps an inode without a name besides descriptors that are dumped: mappings, directories that
//! a process is in, descriptors that are left out.
//!
//! None of that is made again, so the inode ends with the process, and a watch on it has nowhere to
//! go. Who else may keep it, another process for one, is not known and not looked for.

use std::fs;

use nix::unistd::Pid;

use super::error::DumpError;
use super::files::{self, is_removed};
use super::places::{DELETED, Places};
use crate::image::{Image, MarkKind, Object, PlaceKind};
use crate::sys::handle::open_path;
use crate::sys::path;

/// An inode without a name, and what keeps it.
struct Kept {
    inode: (u32, u64),
    /// The text of its link.
    name: Vec<u8>,
    by: &'static str,
}

/// Refuses watches and marks on what ends with the processes.
pub(super) fn refuse(image: &Image, places: &mut Places) -> Result<(), DumpError> {
    match refused(image, places).into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Each watch and mark on what ends with the processes, by [`Image::files`].
pub(super) fn refused(image: &Image, places: &mut Places) -> Vec<(usize, DumpError)> {
    let watched: Vec<(usize, String, u32)> = watched(image)
        .filter(|(.., place)| image.places[*place as usize].kind() == PlaceKind::Hidden)
        .collect();
    let gone = watched.into_iter().filter(|(.., place)| {
        let file = places.source(image, *place);
        let is_gone = |file| path::stat(file, c"").is_ok_and(|stat| stat.nlink == 0);
        file.ok().flatten().is_some_and(is_gone)
    });
    let gone: Vec<(usize, String, u32)> = gone.collect();
    if gone.is_empty() {
        return Vec::new();
    }
    let live = image.processes.iter();
    let live = live.filter(|process| process.exited.is_none());
    let is_dumped = |kept: &Kept| {
        let mut removed = image.places.iter().filter(|place| is_removed(place.kind()));
        removed.any(|place| {
            let inode = &image.inodes[place.inode as usize];
            (inode.sdev, inode.ino) == kept.inode
        })
    };
    let kept: Vec<Kept> = live
        .flat_map(|process| kept(Pid::from_raw(process.pid), places))
        .filter(|kept| !is_dumped(kept))
        .collect();
    let error = |(file, watch, place): (usize, String, u32)| {
        let place = &image.places[place as usize];
        let inode = &image.inodes[place.inode as usize];
        let folder = place.path.strip_suffix(DELETED).unwrap_or(&place.path);
        let is_in = |kept: &Kept| {
            let below = kept.name.strip_prefix(folder);
            inode.mode & libc::S_IFMT == libc::S_IFDIR
                && below.is_some_and(|below| below.first() == Some(&b'/'))
        };
        let kept = kept
            .iter()
            .find(|kept| kept.inode == (inode.sdev, inode.ino) || is_in(kept))?;
        let what = format!("file without a name that is kept by {} alone", kept.by);
        let name = format!("{}: {watch}", image.name_of_file(file));
        Some((file, DumpError::not_supported(name, what)))
    };
    gone.into_iter().filter_map(error).collect()
}

/// What groups watch: [`Image::files`], how a message calls the watch, [`Image::places`].
pub(super) fn watched(image: &Image) -> impl Iterator<Item = (usize, String, u32)> {
    let groups = image.files.iter().enumerate();
    groups.flat_map(|(index, file)| {
        let places: Vec<(usize, String, u32)> = match &file.object {
            Some(Object::Inotify(group)) => {
                let watches = group.watches.iter();
                watches
                    .map(|watch| (index, format!("watch {}", watch.wd), watch.place))
                    .collect()
            }
            Some(Object::Fanotify(group)) => {
                let marks = group.marks.iter();
                let marks = marks.filter(|mark| mark.kind() == MarkKind::Inode);
                marks
                    .filter_map(|mark| Some((index, "mark".to_owned(), mark.place?)))
                    .collect()
            }
            Some(Object::Place(_) | Object::Epoll(_)) | None => Vec::new(),
        };
        places
    })
}

/// What a process keeps that has no name. What cannot be looked at it cannot have told us of either.
fn kept(pid: Pid, places: &Places) -> Vec<Kept> {
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut found: Vec<Kept> = maps
        .split(|&byte| byte == b'\n')
        .filter_map(mapped)
        .collect();
    let ways = [
        ("exe", "a program"),
        ("cwd", "a working directory"),
        ("root", "a root directory"),
    ];
    let ways = ways.map(|(way, by)| (way.to_owned(), by)).into_iter();
    let descriptors = files::numbers(pid).unwrap_or_default().into_iter();
    let descriptors = descriptors.map(|fd| (format!("fd/{fd}"), "a descriptor that is left out"));
    found.extend(ways.chain(descriptors).filter_map(|(way, by)| {
        let file = open_path(format!("/proc/{pid}/{way}").as_ref()).ok()?;
        let stat = path::stat(&file, c"").ok().filter(|stat| stat.nlink == 0)?;
        let name = path::name_of(&file).ok()?;
        let inode = (places.sdev(&stat), stat.ino);
        Some(Kept { inode, name, by })
    }));
    found
}

/// `7f1c8a400000-7f1c8a401000 r--s 00000000 00:1f 17     /d/f (deleted)`.
fn mapped(line: &[u8]) -> Option<Kept> {
    let at = line.iter().position(|&byte| byte == b'/')?;
    let (head, name) = line.split_at(at);
    if !name.ends_with(DELETED) {
        return None;
    }
    let mut words = std::str::from_utf8(head).ok()?.split_ascii_whitespace();
    let (major, minor) = words.nth(3)?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let device = fsnotify::Sdev::new(number(major)?, number(minor)?);
    Some(Kept {
        inode: (device.0, words.next()?.parse().ok()?),
        name: name.to_vec(),
        by: "a mapping",
    })
}

#[cfg(test)]
mod tests {
    use super::mapped;

    #[test]
    fn a_mapping_of_a_removed_file_is_found_by_its_number() {
        let check = |line: &str, expected: Option<(u32, u64)>| {
            let found = mapped(line.as_bytes()).map(|kept| kept.inode);
            assert_eq!(found, expected, "{line}");
        };
        let head = "7f1c8a400000-7f1c8a401000 r--s 00000000 08:1f 17   ";
        check(
            &format!("{head}/d/f (deleted)"),
            Some(((8 << 20) + 0x1f, 17)),
        );
        check(&format!("{head}/d/f"), None);
        check("7ffd0000-7ffd1000 r-xp 00000000 00:00 0    [vdso]", None);
        check("", None);
    }
}
