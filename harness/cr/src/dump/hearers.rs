//! Watches that would hear how an image, its journals and its record are written.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fsnotify::Sdev;
use fsnotify::fdinfo::{Body, Group, Kind, Level};
use nix::unistd::Pid;

use super::error::DumpError;
use super::files::Held;
use super::tree::{self, Scope};
use crate::image::{Image, Object};
use crate::mounts::Mounts;
use crate::sys::inspect;
use crate::sys::path::{c_path, stat_path};

/// How much of a group's fdinfo is looked at before anything is written: some seventy watches. The kernel
/// takes microseconds for each, and all are looked at once the process is stopped.
const EARLY: u64 = 1 << 13;

/// Refuses watches on the directory of an image, or on an image that is there already, before anything
/// is written there. What cannot be looked at is refused later, and by name; of a group with very many
/// watches the rest is, which hears the record made and removed.
pub(super) fn refuse_early(
    (main, scope): (Pid, Scope),
    image_path: &Path,
) -> Result<(), DumpError> {
    let own = inodes(image_path);
    let mut next = vec![main];
    while let Some(pid) = next.pop() {
        for fd in inspect::groups(pid).unwrap_or_default() {
            let mut info = Vec::new();
            let file = File::open(format!("/proc/{pid}/fdinfo/{fd}"));
            let _ = file.and_then(|file| file.take(EARLY).read_to_end(&mut info));
            let whole = info.iter().rposition(|&byte| byte == b'\n');
            info.truncate(whole.map_or(0, |at| at + 1));
            if let Some(wd) = watch_on(&own, &info) {
                let group = match tree::name(main.as_raw(), pid.as_raw()) {
                    name if name.is_empty() => format!("fd {fd}"),
                    name => format!("{name}: fd {fd}"),
                };
                return Err(refused(&group, wd));
            }
        }
        if scope == Scope::Tree {
            next.extend(tree::children(pid).unwrap_or_default());
        }
    }
    Ok(())
}

/// The same of every watch of the dump.
pub(super) fn refuse(image: &Image, held: &[Held], image_path: &Path) -> Result<(), DumpError> {
    let own = inodes(image_path);
    for (file, group) in image.files.iter().zip(held) {
        let Some(Object::Inotify(state)) = &file.object else {
            continue;
        };
        let watch = state.watches.iter().find(|watch| {
            let place = &image.places[watch.place as usize];
            let inode = &image.inodes[place.inode as usize];
            own.contains(&(Sdev(inode.sdev), inode.ino))
        });
        if let Some(watch) = watch {
            return Err(refused(&group.place, watch.wd));
        }
    }
    Ok(())
}

fn refused(group: &str, wd: i32) -> DumpError {
    let what = format!("watch {wd} on where the image is written, which it would hear");
    DumpError::not_supported(group, what)
}

/// The directory, and the image if it is there, as fdinfo calls them.
fn inodes(image_path: &Path) -> Vec<(Sdev, u64)> {
    let mounts = Mounts::of(nix::unistd::gettid().as_raw()).ok();
    let directory = image_path.parent().unwrap_or(Path::new("/")).join(".");
    let paths = [&*directory, image_path].into_iter();
    let stats = paths.filter_map(|path| stat_path(&c_path(path.as_os_str().as_bytes()).ok()?).ok());
    let known = stats.map(|stat| {
        let mount = mounts.as_ref().and_then(|mounts| mounts.of_id(stat.mount));
        (mount.map_or(stat.device, |mount| mount.device), stat.ino)
    });
    known.collect()
}

fn watch_on(own: &[(Sdev, u64)], info: &[u8]) -> Option<i32> {
    let parsed = Group::parse_as(info, Kind::Inotify, Level::Lenient).ok()?;
    let Body::Inotify { watches } = parsed.body else {
        return None;
    };
    let watch = watches
        .iter()
        .find(|watch| own.contains(&(watch.sdev, watch.ino.0)))?;
    Some(watch.wd.number())
}
