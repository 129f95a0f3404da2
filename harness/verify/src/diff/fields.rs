//! The fields in which two facts about one thing differ, and what each of them breaks.

use std::fmt::Display;

use scenario::{
    Descriptor, DescriptorKind, Entry, Event, Fact, FanotifyEvent, FlagSet, Mark, Object, Stat,
    Watch,
};

use crate::invariant::{self, Invariant};
use crate::text;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) invariant: Invariant,
    pub(super) control: String,
    pub(super) restored: String,
}

/// Fields that differ, in order of declaration. `unread`: the event was in the queue at the cut.
/// Cookies are not compared here: their pairing is a matter of the whole run.
pub(super) fn compare(control: &Fact, restored: &Fact, unread: bool) -> Vec<Field> {
    let mut fields = Fields(Vec::new());
    match (control, restored) {
        (Fact::Event(a), Fact::Event(b)) => fields.event(a, b, unread),
        (Fact::FanotifyEvent(a), Fact::FanotifyEvent(b)) => fields.fanotify_event(a, b, unread),
        (Fact::Content(a), Fact::Content(b)) => fields.push("content", invariant::CONTENT, a, b),
        (Fact::Ready { events: a, .. }, Fact::Ready { events: b, .. }) => {
            let shown = |events: u32| FlagSet::EpollEvents.text(u64::from(events)).to_string();
            fields.push("events", invariant::READY, &shown(*a), &shown(*b));
        }
        (Fact::Signal { fd: a, .. }, Fact::Signal { fd: b, .. }) => {
            fields.push(
                "fd",
                invariant::SIGNAL,
                &optional(a.as_ref()),
                &optional(b.as_ref()),
            );
        }
        (Fact::Descriptor(a), Fact::Descriptor(b)) => fields.descriptor(a, b),
        (Fact::Watch(a), Fact::Watch(b)) => fields.watch(a, b),
        (Fact::Mark(a), Fact::Mark(b)) => fields.mark(a, b),
        (Fact::NextWd { wd: a, .. }, Fact::NextWd { wd: b, .. }) => {
            fields.push("next wd", invariant::NEXT_WD, a, b);
        }
        (Fact::WorkingDirectory { object: a, .. }, Fact::WorkingDirectory { object: b, .. }) => {
            let (a, b) = (text::object(a), text::object(b));
            fields.push("working directory", invariant::WORKING_DIRECTORY, &a, &b);
        }
        (Fact::Entry(a), Fact::Entry(b)) => fields.entry(a, b),
        // Whole values: they were aligned because they are equal.
        (Fact::Bystander(_) | Fact::Leftover(_) | Fact::Loss(_), _) => {}
        (a, b) => unreachable!("facts of two kinds were aligned: {a:?} {b:?}"),
    }
    fields.0
}

struct Fields(Vec<Field>);

impl Fields {
    fn push<T: PartialEq + Display>(
        &mut self,
        name: &'static str,
        invariant: Invariant,
        control: &T,
        restored: &T,
    ) {
        if control != restored {
            self.0.push(Field {
                name,
                invariant,
                control: control.to_string(),
                restored: restored.to_string(),
            });
        }
    }

    fn event(&mut self, a: &Event, b: &Event, unread: bool) {
        let broken = event_fields(unread);
        self.push("wd", broken, &a.wd, &b.wd);
        self.push("mask", broken, &a.mask, &b.mask);
        self.push("name", broken, &a.name, &b.name);
    }

    fn fanotify_event(&mut self, a: &FanotifyEvent, b: &FanotifyEvent, unread: bool) {
        let broken = event_fields(unread);
        let mask = |event: &FanotifyEvent| FlagSet::FanotifyMask.text(event.mask).to_string();
        let process = |event: &FanotifyEvent| optional(event.process.as_ref().map(|name| &name.0));
        let object =
            |event: &FanotifyEvent| optional(event.object.as_ref().map(text::object).as_ref());
        self.push("mask", broken, &mask(a), &mask(b));
        self.push("process", broken, &process(a), &process(b));
        self.push("object", broken, &object(a), &object(b));
        let records = |event: &FanotifyEvent| {
            let braced = event.records.iter().map(|record| format!("{{{record}}}"));
            braced.collect::<Vec<_>>().join(" ")
        };
        self.push("records", broken, &records(a), &records(b));
    }

    fn descriptor(&mut self, a: &Descriptor, b: &Descriptor) {
        let ghost = matches!(a.object, Object::Ghost(_));
        let or = |of_ghost, otherwise| if ghost { of_ghost } else { otherwise };
        let kind = |descriptor: &Descriptor| kind(descriptor.kind).to_owned();
        let flags =
            |descriptor: &Descriptor| FlagSet::Open.text(u64::from(descriptor.flags)).to_string();
        let shared = |descriptor: &Descriptor| {
            let with = descriptor.shared_with.as_ref();
            optional(
                with.map(|(process, fd)| text::fd_of(process.as_ref(), *fd))
                    .as_ref(),
            )
        };
        self.push("kind", invariant::DESCRIPTOR, &kind(a), &kind(b));
        let named = or(invariant::GHOST_NAME, invariant::DESCRIPTOR);
        self.push(
            "object",
            named,
            &text::object(&a.object),
            &text::object(&b.object),
        );
        let state = or(invariant::GHOST_OFFSET, invariant::DESCRIPTOR_FLAGS);
        self.push("flags", state, &flags(a), &flags(b));
        self.push("close-on-exec", state, &a.close_on_exec, &b.close_on_exec);
        let offset = or(invariant::GHOST_OFFSET, invariant::OFFSET);
        self.push(
            "offset",
            offset,
            &optional(a.offset.as_ref()),
            &optional(b.offset.as_ref()),
        );
        let owner = |descriptor: &Descriptor| optional(descriptor.owner.as_ref());
        self.push("owner", invariant::OWNER, &owner(a), &owner(b));
        let signal = |descriptor: &Descriptor| text::signal(descriptor.signal);
        self.push("signal", invariant::OWNER, &signal(a), &signal(b));
        self.push("shared with", invariant::SHARING, &shared(a), &shared(b));
        let unread = |descriptor: &Descriptor| optional(descriptor.unread.as_ref());
        self.push(
            "unread bytes",
            invariant::UNREAD_BYTES,
            &unread(a),
            &unread(b),
        );
        self.push(
            "group flags",
            invariant::GROUP_FLAGS,
            &group_flags(a),
            &group_flags(b),
        );
        self.push("interest", invariant::INTEREST, &interest(a), &interest(b));
        match (&a.stat, &b.stat) {
            (Some(a), Some(b)) => self.stat(a, b, ghost),
            (None, None) => {}
            (a, b) => {
                let shown = |stat: &Option<Stat>| optional(stat.as_ref().map(text::mode).as_ref());
                let broken = or(invariant::GHOST_MODE, invariant::ENTRY_MODE);
                self.push("stat", broken, &shown(a), &shown(b));
            }
        }
    }

    fn stat(&mut self, a: &Stat, b: &Stat, ghost: bool) {
        let or = |of_ghost, otherwise| if ghost { of_ghost } else { otherwise };
        let mode = or(invariant::GHOST_MODE, invariant::ENTRY_MODE);
        self.push("mode", mode, &text::mode(a), &text::mode(b));
        self.push("uid", mode, &a.uid, &b.uid);
        self.push("gid", mode, &a.gid, &b.gid);
        let links = or(invariant::GHOST_LINKS, invariant::ENTRY_LINKS);
        self.push("links", links, &a.nlink, &b.nlink);
        let content = or(invariant::GHOST_CONTENT, invariant::ENTRY_CONTENT);
        self.push("size", content, &a.size, &b.size);
        let holes = or(invariant::GHOST_HOLES, invariant::ENTRY_HOLES);
        self.push("blocks", holes, &a.blocks, &b.blocks);
        let hash = |stat: &Stat| {
            stat.content
                .map_or_else(|| NONE.to_owned(), |it| format!("{it:016x}"))
        };
        self.push("content", content, &hash(a), &hash(b));
        let xattrs = or(invariant::GHOST_XATTRS, invariant::ENTRY_XATTRS);
        self.push("xattrs", xattrs, &self::xattrs(a), &self::xattrs(b));
        let times = or(invariant::GHOST_TIMES, invariant::ENTRY_TIMES);
        let changed = |stat: &Stat| match stat.changed[..] {
            [] => "as before the cut".to_owned(),
            _ => format!("{} changed by the cut", stat.changed.join(" and ")),
        };
        self.push("times", times, &changed(a), &changed(b));
    }

    fn watch(&mut self, a: &Watch, b: &Watch) {
        self.push("wd", invariant::WATCH, &a.wd, &b.wd);
        self.push(
            "target",
            invariant::WATCH,
            &text::object(&a.target),
            &text::object(&b.target),
        );
        self.push("mask", invariant::WATCH_MASK, &a.mask, &b.mask);
    }

    fn mark(&mut self, a: &Mark, b: &Mark) {
        let mask = |mask: u64| FlagSet::FanotifyMask.text(mask).to_string();
        let flags = |mark: &Mark| format!("{:#x}", mark.flags);
        self.push("mask", invariant::MARK_MASK, &mask(a.mask), &mask(b.mask));
        let ignored = (mask(a.ignored_mask), mask(b.ignored_mask));
        self.push("ignored mask", invariant::MARK_MASK, &ignored.0, &ignored.1);
        self.push("flags", invariant::MARK_FLAGS, &flags(a), &flags(b));
    }

    fn entry(&mut self, a: &Entry, b: &Entry) {
        self.stat(&a.stat, &b.stat, false);
        let link = |entry: &Entry| optional(entry.link.as_ref());
        self.push("link target", invariant::ENTRY_CONTENT, &link(a), &link(b));
        let inode = |entry: &Entry| match entry.inode {
            0 => NONE.to_owned(),
            number => format!("inode#{number}"),
        };
        self.push("inode", invariant::ENTRY_LINKS, &inode(a), &inode(b));
    }
}

const NONE: &str = "none";

fn optional<T: Display>(value: Option<&T>) -> String {
    value.map_or_else(|| NONE.to_owned(), ToString::to_string)
}

fn event_fields(unread: bool) -> Invariant {
    if unread {
        invariant::UNREAD_FIELDS
    } else {
        invariant::EVENT_FIELDS
    }
}

fn kind(kind: DescriptorKind) -> &'static str {
    match kind {
        DescriptorKind::Inotify => "inotify",
        DescriptorKind::Fanotify => "fanotify",
        DescriptorKind::Epoll => "epoll",
        DescriptorKind::Regular => "regular file",
        DescriptorKind::Directory => "directory",
        DescriptorKind::Fifo => "fifo",
        DescriptorKind::Socket => "socket",
        DescriptorKind::Symlink => "symbolic link",
        DescriptorKind::Device => "device",
        DescriptorKind::Other => "other",
    }
}

fn group_flags(descriptor: &Descriptor) -> String {
    match descriptor.group_flags {
        Some((flags, event_flags)) => {
            let flags = FlagSet::FanotifyInit.text(u64::from(flags));
            format!("{flags}, {}", FlagSet::Open.text(u64::from(event_flags)))
        }
        None => NONE.to_owned(),
    }
}

fn interest(descriptor: &Descriptor) -> String {
    let one = |(tfd, events, data): &(i32, u32, u64)| {
        let events = FlagSet::EpollEvents.text(u64::from(*events));
        format!("fd {tfd} {{events={events}, data={data}}}")
    };
    match descriptor.interest[..] {
        [] => NONE.to_owned(),
        _ => descriptor
            .interest
            .iter()
            .map(one)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn xattrs(stat: &Stat) -> String {
    let one = |(name, value): &(scenario::Bytes, scenario::Bytes)| format!("{name}={value}");
    match stat.xattrs[..] {
        [] => NONE.to_owned(),
        _ => stat.xattrs.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}
