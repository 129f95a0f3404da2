//! Edges that a set reports again, of queues that were put back: to the set they are new. Those of sets
//! that are not of the dump nobody takes.

use std::fs;

use nix::unistd::Pid;

use super::files::{Held, interest, numbers};
use crate::image::{Image, Interest, Object};
use crate::restore::epoll::is_disarmed;
use crate::sys::descriptor::is_epoll_target;
use crate::{Loss, LossKind};

/// The edges of the groups in the sets of their processes, which a dump of groups alone leaves.
pub(super) fn in_doubt(image: &Image, held: &[Held]) -> Vec<Loss> {
    let groups = put_back(image, held);
    let mut losses = Vec::new();
    for pid in image.pids() {
        for set in numbers(pid).unwrap_or_default() {
            for interest in interests(pid, set) {
                let is_it = |group: &&Held| {
                    let target = is_epoll_target((group.pid, group.fd), (pid, set), interest.fd);
                    target == Ok(true)
                };
                if let Some(group) = groups.iter().copied().find(is_it) {
                    let object = format!("fd {set}: edge of {}", group.place);
                    let reason = "the queue was put back, which is an edge again, and the set is \
                                  not of the dump (--only-fsnotify)";
                    losses.push(Loss::new(LossKind::EdgeInDoubt, object, reason));
                }
            }
        }
    }
    losses
}

/// The groups that had events to put back.
fn put_back<'a>(image: &Image, held: &'a [Held]) -> Vec<&'a Held> {
    let files = image.files.iter().zip(held);
    let groups = files.filter_map(|(file, held)| match &file.object {
        Some(Object::Inotify(state)) if !state.queue.is_empty() => Some(held),
        _ => None,
    });
    groups.collect()
}

/// What a set waits for by edges; nothing if it is no set.
fn interests(pid: Pid, set: i32) -> Vec<Interest> {
    const EDGE: u32 = libc::EPOLLET.cast_unsigned();
    let link = fs::read_link(format!("/proc/{pid}/fd/{set}"));
    if !link.is_ok_and(|link| link.as_os_str() == "anon_inode:[eventpoll]") {
        return Vec::new();
    }
    let info = fs::read(format!("/proc/{pid}/fdinfo/{set}")).unwrap_or_default();
    let lines = info.split(|&byte| byte == b'\n');
    let interests = lines.filter_map(|line| interest(line.strip_prefix(b"tfd:")?));
    interests
        .filter(|interest| interest.events & EDGE != 0 && !is_disarmed(interest))
        .collect()
}
