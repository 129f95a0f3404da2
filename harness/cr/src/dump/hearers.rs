//! Watches that would hear how an image, its journals and its record are written.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fsnotify::Sdev;

use super::error::DumpError;
use super::files::Held;
use crate::image::{Image, Object};
use crate::mounts::Mounts;
use crate::sys::path::{c_path, stat_path};

/// Refuses watches on the directory of an image, or on an image that is there already, before anything is
/// read. The record of the dump is there by then: it is made before a process is stopped, and to look at
/// all watches twice would take a fifth of the dump of many.
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
            let wd = watch.wd;
            let what = format!("watch {wd} on where the image is written, which it would hear");
            return Err(DumpError::not_supported(&group.place, what));
        }
    }
    Ok(())
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
