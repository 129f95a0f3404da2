//! The last step: unread events, and the number that the next watch would get.
//!
//! Draining takes something from the subject. If a later group fails, what was taken from the
//! earlier ones is put back.

use std::os::fd::AsFd;

use fsnotify::Wd;

use super::QueuePolicy;
use super::declare;
use super::error::{DumpError, DumpErrorKind};
use super::files::Held;
use super::group::{pids, source};
use crate::image::{Fanotify, Image, Object};
use crate::{Loss, fanotify, queue};

/// Fills the queues and cursors of the groups.
pub(super) fn take(image: &mut Image, held: &[Held], policy: QueuePolicy) -> Result<(), DumpError> {
    let mut taken = Vec::new();
    for (index, group) in held.iter().enumerate() {
        if !matches!(image.files[index].object, Some(Object::Inotify(_))) {
            continue;
        }
        if let Err(error) = take_one(image, index, group, policy) {
            put_back(image, held, &taken);
            return Err(error.at(&group.place));
        }
        taken.push(index);
    }
    // Last: nothing puts these events back.
    for (index, group) in held.iter().enumerate() {
        if let Some(Object::Fanotify(state)) = &image.files[index].object {
            let state = state.clone();
            if let Err(error) = take_fanotify(image, index, state, group, policy) {
                put_back(image, held, &taken);
                return Err(error.at(&group.place));
            }
        }
    }
    Ok(())
}

fn take_fanotify(
    image: &mut Image,
    index: usize,
    mut state: Fanotify,
    group: &Held,
    policy: QueuePolicy,
) -> Result<(), DumpError> {
    let failed = |errno| DumpError::on("FIONREAD", "", errno);
    let unread = crate::sys::watch::unread(group.file.as_fd()).map_err(failed)?;
    if policy == QueuePolicy::Refuse && unread > 0 {
        return Err(DumpError::new("", DumpErrorKind::Unread { bytes: unread }));
    }
    let tree = pids(image);
    let losses = fanotify::dump::drain(source(group, &tree), &mut state)
        .map_err(|refusal| DumpError::new("", DumpErrorKind::Fanotify(refusal)))?;
    for loss in losses {
        declare(image, loss);
    }
    image.files[index].object = Some(Object::Fanotify(state));
    Ok(())
}

fn take_one(
    image: &mut Image,
    index: usize,
    group: &Held,
    policy: QueuePolicy,
) -> Result<(), DumpError> {
    let fd = group.file.as_fd();
    let failed = |call| move |errno| DumpError::on(call, "", errno);
    let unread = crate::sys::watch::unread(fd).map_err(failed("FIONREAD"))?;
    let events = match policy {
        QueuePolicy::Refuse if unread > 0 => {
            return Err(DumpError::new("", DumpErrorKind::Unread { bytes: unread }));
        }
        QueuePolicy::Refuse | QueuePolicy::Keep => queue::drain(fd).map_err(failed("read"))?,
        QueuePolicy::Drop => Vec::new(),
    };
    if policy == QueuePolicy::Drop && unread > 0 {
        let object = format!("queue of {}: {unread} bytes", group.place);
        declare(
            image,
            Loss::new(4, object, "unread events are dropped (--queue drop)"),
        );
    }
    let Some(Object::Inotify(state)) = &mut image.files[index].object else {
        return Ok(());
    };
    state.queue = events;
    let queue = state.queue.clone();
    declare_losses(image, &queue, group)
}

/// What a rebuilt queue will lack; a queue that cannot be rebuilt is refused now.
fn declare_losses(image: &mut Image, events: &[u8], group: &Held) -> Result<(), DumpError> {
    if events.is_empty() {
        return Ok(());
    }
    let refused =
        |error: queue::RebuildError| DumpError::not_supported("", format!("queue: {error}"));
    let limit = queue::limit().map_err(refused)?;
    for loss in queue::losses(events, limit).map_err(refused)? {
        let (what, reason) = match loss {
            queue::Loss::RenameParted { from, to } => (
                format!("events {from} and {to} of one rename"),
                "another event stands between them, so their cookies will differ",
            ),
            queue::Loss::OverflowAdded => (
                "exactly full".to_owned(),
                "it gets an overflow event: a queue is filled by overflowing it",
            ),
            queue::Loss::CookieChanged { index } => (
                format!("cookie of event {index}"),
                "its other half may have been read already, and the kernel counts cookies upwards",
            ),
        };
        declare(
            image,
            Loss::new(4, format!("queue of {}: {what}", group.place), reason),
        );
    }
    Ok(())
}

fn put_back(image: &Image, held: &[Held], taken: &[usize]) {
    for &index in taken {
        let Some(Object::Inotify(state)) = &image.files[index].object else {
            continue;
        };
        let avoid: Vec<Wd> = state
            .watches
            .iter()
            .filter_map(|watch| Wd::new(watch.wd))
            .collect();
        // The first failure is the one to report.
        let _ = queue::rebuild(held[index].file.as_fd(), &state.queue, &avoid);
    }
}
