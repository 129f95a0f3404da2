//! Defects of groups: watches, marks, numbers, targets.

use cr::Image;
use cr::image::{Fanotify, MarkKind, Object, PlaceKind};
use fsnotify::fanotify::{InitFlags, MarkFlags, Mask as FanotifyMask};
use fsnotify::inotify::Mask;

/// `IN_ONESHOT`.
const ONESHOT: u32 = 0x8000_0000;
/// `IN_EXCL_UNLINK`.
const EXCL_UNLINK: u32 = 0x0400_0000;
/// A restorer that gives up at some limit and does not say so.
const CAP: usize = 100;

fn fanotify_groups(image: &mut Image) -> impl Iterator<Item = &mut Fanotify> {
    image
        .files
        .iter_mut()
        .filter_map(|file| match &mut file.object {
            Some(Object::Fanotify(group)) => Some(group),
            _ => None,
        })
}

/// fdinfo, and so the image, lists the newest first.
pub(super) fn drop_last_watch(image: &mut Image) {
    for (_, group) in image.groups_mut() {
        if !group.watches.is_empty() {
            group.watches.remove(0);
        }
    }
}

pub(super) fn drop_every_watch(image: &mut Image) {
    for (_, group) in image.groups_mut() {
        group.watches.clear();
    }
}

pub(super) fn clear_mask_bit(image: &mut Image) {
    for (_, group) in image.groups_mut() {
        if let Some(watch) = group.watches.last_mut() {
            watch.mask &= watch.mask.wrapping_sub(1);
        }
    }
}

pub(super) fn widen_mask(image: &mut Image) {
    for (_, group) in image.groups_mut() {
        for watch in &mut group.watches {
            watch.mask |= Mask::ALL_EVENTS.0;
        }
    }
}

pub(super) fn drop_oneshot(image: &mut Image) {
    clear(image, ONESHOT);
}

pub(super) fn drop_excl_unlink(image: &mut Image) {
    clear(image, EXCL_UNLINK);
}

fn clear(image: &mut Image, bits: u32) {
    for (_, group) in image.groups_mut() {
        for watch in &mut group.watches {
            watch.mask &= !bits;
        }
    }
}

pub(super) fn number_from_one(image: &mut Image) {
    for (_, group) in image.groups_mut() {
        for (watch, wd) in group.watches.iter_mut().rev().zip(1..) {
            watch.wd = wd;
        }
    }
}

/// The newest watch gets the number of a descriptor, one that no other watch has.
pub(super) fn wd_as_fd(image: &mut Image) {
    for (_, group) in image.groups_mut() {
        let free = (3..).find(|fd| group.watches.iter().all(|watch| watch.wd != *fd));
        if let (Some(watch), Some(fd)) = (group.watches.first_mut(), free) {
            watch.wd = fd;
        }
    }
}

/// The newest watch moves to a place that no other watch of the group is on.
pub(super) fn wrong_target(image: &mut Image) {
    let n_places = u32::try_from(image.places.len()).expect("few places");
    for (_, group) in image.groups_mut() {
        let taken: Vec<u32> = group.watches.iter().map(|watch| watch.place).collect();
        let free = (0..n_places).find(|place| !taken.contains(place));
        if let (Some(watch), Some(place)) = (group.watches.first_mut(), free) {
            watch.place = place;
        }
    }
}

pub(super) fn reset_cursor(image: &mut Image) {
    for (_, group) in image.groups_mut() {
        group.next_wd = Some(1);
    }
}

pub(super) fn skip_second_group(image: &mut Image) {
    if let Some((_, group)) = image.groups_mut().nth(1) {
        group.watches.clear();
    }
}

pub(super) fn cap_watches(image: &mut Image) {
    for (_, group) in image.groups_mut() {
        group.watches.truncate(CAP);
    }
}

pub(super) fn reverse_watches(image: &mut Image) {
    for (_, group) in image.groups_mut() {
        group.watches.reverse();
    }
}

/// Goes by path alone where a mount lies over the object.
pub(super) fn follow_overmount(image: &mut Image) {
    for place in &mut image.places {
        if place.kind == PlaceKind::Hidden as i32 {
            place.kind = PlaceKind::Named as i32;
        }
    }
}

pub(super) fn skip_ghost_watches(image: &mut Image) {
    let gone: Vec<bool> = image
        .places
        .iter()
        .map(|place| place.kind == PlaceKind::Gone as i32)
        .collect();
    for (_, group) in image.groups_mut() {
        group
            .watches
            .retain(|watch| !gone.get(watch.place as usize).copied().unwrap_or(false));
    }
}

pub(super) fn drop_filesystem_marks(image: &mut Image) {
    drop_marks(image, MarkKind::Filesystem);
}

pub(super) fn drop_mount_marks(image: &mut Image) {
    drop_marks(image, MarkKind::Mount);
}

pub(super) fn drop_namespace_marks(image: &mut Image) {
    drop_marks(image, MarkKind::MountNamespace);
}

fn drop_marks(image: &mut Image, kind: MarkKind) {
    for group in fanotify_groups(image) {
        group.marks.retain(|mark| mark.kind != kind as i32);
    }
}

pub(super) fn ignore_as_mask(image: &mut Image) {
    for group in fanotify_groups(image) {
        for mark in &mut group.marks {
            mark.mask |= mark.ignored_mask;
            mark.ignored_mask = 0;
            mark.flags &= !(MarkFlags::IGNORE.0 | MarkFlags::IGNORED_SURV_MODIFY.0);
        }
    }
}

pub(super) fn lose_ignore(image: &mut Image) {
    for group in fanotify_groups(image) {
        for mark in group.marks.iter_mut().filter(|mark| mark.mask != 0) {
            mark.ignored_mask = 0;
            mark.flags &= !(MarkFlags::IGNORE.0 | MarkFlags::IGNORED_SURV_MODIFY.0);
        }
    }
}

pub(super) fn lose_surv_modify(image: &mut Image) {
    clear_mark_flag(image, MarkFlags::IGNORED_SURV_MODIFY);
}

pub(super) fn lose_evictable(image: &mut Image) {
    clear_mark_flag(image, MarkFlags::EVICTABLE);
}

fn clear_mark_flag(image: &mut Image, flag: MarkFlags) {
    for group in fanotify_groups(image) {
        for mark in &mut group.marks {
            mark.flags &= !flag.0;
        }
    }
}

pub(super) fn reverse_marks(image: &mut Image) {
    for group in fanotify_groups(image) {
        group.marks.reverse();
    }
}

/// What a restorer makes who attaches marks only when it asks for permission: the newest first.
pub(super) fn permission_marks_last(image: &mut Image) {
    for group in fanotify_groups(image) {
        group
            .marks
            .sort_by_key(|mark| mark.mask & FanotifyMask::PERMISSION.0 == 0);
    }
}

pub(super) fn forget_permission(image: &mut Image) {
    for group in fanotify_groups(image) {
        for mark in &mut group.marks {
            mark.mask &= !FanotifyMask::PERMISSION.0;
        }
        group
            .marks
            .retain(|mark| mark.mask | mark.ignored_mask != 0);
    }
}

pub(super) fn lose_audit(image: &mut Image) {
    for group in fanotify_groups(image) {
        group.init_flags &= !AUDIT;
    }
}

pub(super) fn lose_event_flags(image: &mut Image) {
    for group in fanotify_groups(image) {
        group.event_flags = 0;
    }
}

pub(super) fn lose_report_name(image: &mut Image) {
    // The target is reported with a name or not at all.
    let lost = InitFlags::REPORT_NAME.0 | InitFlags::REPORT_TARGET_FID.0;
    for group in fanotify_groups(image) {
        group.init_flags &= !lost;
    }
}

/// `FAN_ENABLE_AUDIT`.
const AUDIT: u32 = 0x40;
