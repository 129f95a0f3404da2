//! Facts that more than one test compares.

use scenario::{Descriptor, DescriptorKind, Object};

/// A group at 3, with nothing said of it but how many bytes are unread.
pub(crate) fn group(kind: DescriptorKind, unread: u64) -> Descriptor {
    let text = if kind == DescriptorKind::Fanotify {
        "anon_inode:[fanotify]"
    } else {
        "anon_inode:inotify"
    };
    Descriptor {
        process: None,
        fd: 3,
        kind,
        object: Object::Other(text.to_owned()),
        flags: 0,
        close_on_exec: false,
        offset: None,
        owner: None,
        signal: 0,
        shared_with: None,
        unread: Some(unread),
        group_flags: None,
        interest: Vec::new(),
        stat: None,
    }
}
