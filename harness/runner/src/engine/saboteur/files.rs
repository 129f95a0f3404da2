//! Defects of descriptors, ghosts and processes.

use std::collections::HashSet;

use cr::Image;
use cr::image::{Extent, Ghost, Object, Time};
use nix::libc::{O_APPEND, O_ASYNC, O_NONBLOCK};

fn clear_flag(image: &mut Image, flag: i32) {
    for file in &mut image.files {
        file.flags &= !flag.cast_unsigned();
    }
}

pub(super) fn lose_append(image: &mut Image) {
    clear_flag(image, O_APPEND);
}

pub(super) fn lose_nonblock(image: &mut Image) {
    clear_flag(image, O_NONBLOCK);
}

pub(super) fn lose_async(image: &mut Image) {
    clear_flag(image, O_ASYNC);
}

pub(super) fn lose_offset(image: &mut Image) {
    for file in &mut image.files {
        file.offset = 0;
    }
}

pub(super) fn lose_signal_owner(image: &mut Image) {
    for file in &mut image.files {
        file.owner = None;
    }
}

pub(super) fn lose_signal(image: &mut Image) {
    for file in &mut image.files {
        file.signal = 0;
    }
}

pub(super) fn lose_close_on_exec(image: &mut Image) {
    for process in &mut image.processes {
        for descriptor in &mut process.descriptors {
            descriptor.close_on_exec = false;
        }
    }
}

pub(super) fn leak_descriptor(image: &mut Image) {
    for process in &mut image.processes {
        let highest = process
            .descriptors
            .iter()
            .max_by_key(|descriptor| descriptor.fd);
        if let Some(mut copy) = highest.copied() {
            copy.fd += 1;
            process.descriptors.push(copy);
        }
    }
}

/// The last two of each process.
pub(super) fn swap_descriptors(image: &mut Image) {
    for process in &mut image.processes {
        if let [.., one, other] = process.descriptors.as_mut_slice() {
            std::mem::swap(&mut one.file, &mut other.file);
        }
    }
}

/// Each descriptor gets a description of its own.
pub(super) fn split_duplicates(image: &mut Image) {
    let mut seen = HashSet::new();
    for process in &mut image.processes {
        for descriptor in &mut process.descriptors {
            if !seen.insert(descriptor.file) {
                let copy = image.files[descriptor.file as usize].clone();
                descriptor.file = u32::try_from(image.files.len()).expect("few files");
                image.files.push(copy);
            }
        }
    }
}

pub(super) fn drop_interest(image: &mut Image) {
    for file in &mut image.files {
        if let Some(Object::Epoll(set)) = &mut file.object {
            set.interests.pop();
        }
    }
}

pub(super) fn lose_epoll_word(image: &mut Image) {
    for file in &mut image.files {
        if let Some(Object::Epoll(set)) = &mut file.object {
            for interest in &mut set.interests {
                interest.word = 0;
            }
        }
    }
}

/// Every process is where the first file of the image is watched or open from: the first place.
pub(super) fn lose_working_directory(image: &mut Image) {
    let root = image.places.iter().position(|place| place.path == b"/");
    for process in &mut image.processes {
        process.working_directory = root.and_then(|index| u32::try_from(index).ok());
    }
}

pub(super) fn lose_umask(image: &mut Image) {
    for process in &mut image.processes {
        process.umask = 0;
    }
}

fn ghosts(image: &mut Image) -> impl Iterator<Item = &mut Ghost> {
    image
        .inodes
        .iter_mut()
        .filter_map(|inode| inode.ghost.as_mut())
}

/// One extent from the start to the end, zeros between. What is behind the end is no hole.
pub(super) fn fill_holes(image: &mut Image) {
    for ghost in ghosts(image).filter(|ghost| ghost.size > 0) {
        let mut content = vec![0; usize::try_from(ghost.size).unwrap_or(0)];
        for extent in &ghost.extents {
            let start = usize::try_from(extent.offset).unwrap_or(0);
            if let Some(part) = content.get_mut(start..start + extent.content.len()) {
                part.copy_from_slice(&extent.content);
            }
        }
        ghost.extents.retain(|extent| extent.offset >= ghost.size);
        let whole = Extent {
            length: ghost.size,
            content,
            ..Extent::default()
        };
        ghost.extents.insert(0, whole);
    }
}

pub(super) fn lose_content(image: &mut Image) {
    for ghost in ghosts(image) {
        ghost.extents.clear();
    }
}

/// Type bits stay.
pub(super) fn lose_mode(image: &mut Image) {
    for inode in image
        .inodes
        .iter_mut()
        .filter(|inode| inode.ghost.is_some())
    {
        inode.mode = inode.mode & nix::libc::S_IFMT | 0o600;
    }
}

pub(super) fn lose_owner(image: &mut Image) {
    for ghost in ghosts(image) {
        ghost.uid = 0;
        ghost.gid = 0;
    }
}

pub(super) fn lose_times(image: &mut Image) {
    for ghost in ghosts(image) {
        ghost.accessed = Time { sec: 1, nsec: 0 };
        ghost.modified = Time { sec: 1, nsec: 0 };
    }
}

pub(super) fn lose_xattrs(image: &mut Image) {
    for ghost in ghosts(image) {
        ghost.xattrs.clear();
    }
}

/// A descriptor whose ghost something else is on as well gets a ghost of its own.
pub(super) fn split_ghost(image: &mut Image) {
    let mut seen = HashSet::new();
    for index in 0..image.files.len() {
        let Some(Object::Place(place)) = image.files[index].object else {
            continue;
        };
        let mut copy = image.places[place as usize].clone();
        let inode = copy.inode;
        let is_ghost = image.inodes[inode as usize].ghost.is_some();
        let watched = image
            .groups_mut()
            .any(|(_, group)| group.watches.iter().any(|watch| watch.place == place));
        if is_ghost && (watched || !seen.insert(inode)) {
            copy.inode = u32::try_from(image.inodes.len()).expect("few inodes");
            let twin = image.inodes[inode as usize].clone();
            image.inodes.push(twin);
            image.files[index].object = Some(Object::Place(
                u32::try_from(image.places.len()).expect("few places"),
            ));
            image.places.push(copy);
        }
    }
}

pub(super) fn open_unasked(image: &mut Image) {
    for file in &mut image.files {
        file.asks = false;
    }
}
