//! Watches of the inotify groups, and the places that they are on.

use fsnotify::fdinfo::{Body, Kind};

use super::error::{DumpError, DumpErrorKind};
use super::files::{Held, group_info};
use super::places::Places;
use crate::image::{Image, Inotify, Object, Watch};

/// Fills the groups in [`Image::files`].
pub(super) fn collect(
    image: &mut Image,
    places: &mut Places,
    held: &[Held],
) -> Result<(), DumpError> {
    for (index, group) in held.iter().enumerate() {
        match image.files[index].object {
            Some(Object::Inotify(_)) => {
                let watches = watches(image, places, group)?;
                let group = Inotify {
                    watches,
                    ..Inotify::default()
                };
                image.files[index].object = Some(Object::Inotify(group));
            }
            Some(Object::Fanotify(_)) => {
                return Err(DumpError::not_supported(&group.place, "fanotify"));
            }
            Some(Object::Place(_) | Object::Epoll(_)) | None => {}
        }
    }
    Ok(())
}

fn watches(image: &mut Image, places: &mut Places, group: &Held) -> Result<Vec<Watch>, DumpError> {
    let Body::Inotify { watches } = group_info(group, Kind::Inotify)?.body else {
        return Ok(Vec::new());
    };
    let mut resolved = Vec::with_capacity(watches.len());
    for watch in &watches {
        let (ino, sdev) = (watch.ino.0, watch.sdev);
        let place = places
            .of_inode(image, sdev.0, ino, watch.handle.as_ref())
            .and_then(|place| {
                let (major, minor) = (sdev.major(), sdev.minor());
                let kind = DumpErrorKind::NoPath { ino, major, minor };
                place.ok_or_else(|| DumpError::new("", kind))
            })
            .map_err(|error| error.at(&format!("{}: watch {}", group.place, watch.wd)))?;
        resolved.push(Watch {
            wd: watch.wd.number(),
            mask: watch.mask.0,
            place,
        });
    }
    Ok(resolved)
}
