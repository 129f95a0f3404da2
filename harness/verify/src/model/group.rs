//! A group: its watches, and its queue.

use std::collections::{BTreeMap, VecDeque};

use fsnotify::inotify::Mask;

use super::tree::{InodeId, UNNAMED};

/// Bytes of `struct inotify_event` without the name.
const HEAD: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Watch {
    wd: i32,
    /// The events asked for.
    mask: u32,
    is_oneshot: bool,
    is_excl_unlink: bool,
}

/// An event in the queue, its cookie as the kernel counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) wd: i32,
    pub(super) mask: Mask,
    pub(super) cookie: u32,
    pub(super) name: Vec<u8>,
}

impl Queued {
    /// Bytes that read(2) gives for it: names are padded to a multiple of the head, with a NUL at
    /// least (`round_event_name_len`).
    pub(super) fn n_bytes(&self) -> usize {
        if self.name.is_empty() {
            return HEAD;
        }
        HEAD + (self.name.len() + 1).next_multiple_of(HEAD)
    }
}

/// What happened to an object, on its way to the watches of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happening<'a> {
    pub(super) mask: u32,
    pub(super) cookie: u32,
    /// Empty where the object itself is told of.
    pub(super) name: &'a [u8],
    /// Made through an open file whose name is gone (`d_unlinked` of the event's path).
    pub(super) is_of_unlinked: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    watches: BTreeMap<InodeId, Watch>,
    /// Where the search for the next wd starts (`idr_next`).
    cursor: i32,
    queue: VecDeque<Queued>,
    max_queued_events: usize,
    is_overflow_queued: bool,
}

/// What became of an `inotify_add_watch`.
pub(super) enum Added {
    Wd(i32),
    /// `IN_MASK_CREATE`, and there is a watch.
    Exists,
}

impl Group {
    pub(super) fn new(max_queued_events: usize) -> Self {
        Self {
            watches: BTreeMap::new(),
            cursor: 1,
            queue: VecDeque::new(),
            max_queued_events,
            is_overflow_queued: false,
        }
    }

    /// `inotify_update_watch`.
    pub(super) fn add(&mut self, inode: InodeId, arg: u32) -> Added {
        const MASK_CREATE: u32 = 0x1000_0000;
        const MASK_ADD: u32 = 0x2000_0000;
        let events = arg & Mask::ALL_EVENTS.0;
        let is_oneshot = arg & Mask::ONESHOT.0 != 0;
        let is_excl_unlink = arg & Mask::EXCL_UNLINK.0 != 0;
        if let Some(watch) = self.watches.get_mut(&inode) {
            if arg & MASK_CREATE != 0 {
                return Added::Exists;
            }
            if arg & MASK_ADD == 0 {
                (watch.mask, watch.is_oneshot, watch.is_excl_unlink) = (0, false, false);
            }
            watch.mask |= events;
            watch.is_oneshot |= is_oneshot;
            watch.is_excl_unlink |= is_excl_unlink;
            return Added::Wd(watch.wd);
        }
        let wd = self.free_wd();
        self.cursor = wd.checked_add(1).unwrap_or(1);
        let watch = Watch {
            wd,
            mask: events,
            is_oneshot,
            is_excl_unlink,
        };
        self.watches.insert(inode, watch);
        Added::Wd(wd)
    }

    /// `idr_alloc_cyclic`: the first free number from the cursor on, then from 1 on.
    fn free_wd(&self) -> i32 {
        let is_free = |wd: &i32| self.watches.values().all(|watch| watch.wd != *wd);
        let from_cursor = (self.cursor..=i32::MAX).find(is_free);
        from_cursor
            .or_else(|| (1..self.cursor).find(is_free))
            .expect("fewer watches than wds")
    }

    /// Whether the last unread event is of a file that has no name.
    pub(super) fn ends_without_name(&self) -> bool {
        self.queue.back().is_some_and(|event| event.name == UNNAMED)
    }

    pub(super) fn has_next_wd_in_use(&self) -> bool {
        self.watches.values().any(|watch| watch.wd == self.cursor)
    }

    pub(super) fn set_next_wd(&mut self, wd: i32) {
        self.cursor = wd;
    }

    /// Whether there was such a watch.
    pub(super) fn remove(&mut self, wd: i32) -> bool {
        let found = self.watches.iter().find(|(_, watch)| watch.wd == wd);
        let Some(inode) = found.map(|(inode, _)| *inode) else {
            return false;
        };
        self.destroy(inode);
        true
    }

    /// The watch of an inode goes, if there is one, and says so.
    pub(super) fn destroy(&mut self, inode: InodeId) {
        if let Some(watch) = self.watches.remove(&inode) {
            self.push(Queued {
                wd: watch.wd,
                mask: Mask::IGNORED,
                cookie: 0,
                name: Vec::new(),
            });
        }
    }

    /// `fsnotify_handle_inode_event` and `inotify_handle_inode_event`.
    pub(super) fn hear(&mut self, inode: InodeId, happening: Happening) {
        let Some(watch) = self.watches.get(&inode).cloned() else {
            return;
        };
        if watch.is_excl_unlink && happening.is_of_unlinked {
            return;
        }
        let asked = watch.mask | Mask::UNMOUNT.0;
        if asked & happening.mask & (Mask::ALL_EVENTS.0 | Mask::UNMOUNT.0) == 0 {
            return;
        }
        // The bit is younger than these two events, and programs would not expect it.
        const MOVE_SELF: u32 = 0x800;
        const DELETE_SELF: u32 = 0x400;
        let mut mask = happening.mask;
        if mask & (MOVE_SELF | DELETE_SELF) != 0 {
            mask &= !Mask::ISDIR.0;
        }
        self.push(Queued {
            wd: watch.wd,
            mask: Mask(mask),
            cookie: happening.cookie,
            name: happening.name.to_vec(),
        });
        if watch.is_oneshot {
            self.destroy(inode);
        }
    }

    /// `fsnotify_insert_event`, and `inotify_merge`: an event that equals the last one is dropped.
    /// Cookies do not count; an `IN_IGNORED` never merges.
    fn push(&mut self, event: Queued) {
        if self.queue.len() >= self.max_queued_events {
            if !self.is_overflow_queued {
                self.is_overflow_queued = true;
                self.queue.push_back(Queued {
                    wd: -1,
                    mask: Mask::Q_OVERFLOW,
                    cookie: 0,
                    name: Vec::new(),
                });
            }
            return;
        }
        let merges = self.queue.back().is_some_and(|last| {
            last.mask != Mask::IGNORED
                && (last.wd, last.mask, &last.name) == (event.wd, event.mask, &event.name)
        });
        if !merges {
            self.queue.push_back(event);
        }
    }

    pub(super) fn front(&self) -> Option<&Queued> {
        self.queue.front()
    }

    pub(super) fn pop(&mut self) -> Option<Queued> {
        let event = self.queue.pop_front()?;
        if event.mask == Mask::Q_OVERFLOW {
            self.is_overflow_queued = false;
        }
        Some(event)
    }

    /// What `FIONREAD` gives.
    pub(super) fn n_unread(&self) -> usize {
        self.queue.iter().map(Queued::n_bytes).sum()
    }
}
