//! Facts as text, in the language of the scenarios.

use std::fmt::{self, Write as _};

use scenario::{
    Bystander, Descriptor, DescriptorKind, Entry, Event, Fact, FanotifyEvent, FlagSet, Loss, Mark,
    MarkTarget, Name, Object, Outcome, Stat, Watch, errno,
};

/// A fact on one line.
pub(crate) fn fact(fact: &Fact) -> String {
    match fact {
        Fact::Event(it) => event(it),
        Fact::FanotifyEvent(it) => fanotify_event(it),
        Fact::Content(bytes) => bytes.to_string(),
        Fact::Ready { data, events } => format!(
            "{{events={}, data={data}}}",
            FlagSet::EpollEvents.text(u64::from(*events))
        ),
        Fact::Signal { signal: number, fd } => match fd {
            Some(fd) => format!("{} fd {fd}", signal(*number)),
            None => signal(*number),
        },
        Fact::Descriptor(it) => descriptor(it),
        Fact::Watch(it) => watch(it),
        Fact::Mark(it) => mark(it),
        Fact::NextWd { wd, .. } => format!("next wd={wd}"),
        Fact::WorkingDirectory { object: it, .. } => format!("working directory {}", object(it)),
        Fact::Bystander(it) => bystander(it),
        Fact::Entry(it) => entry(it),
        Fact::Leftover(text) => text.clone(),
        Fact::Loss(it) => loss(it),
    }
}

/// `fd 3`, or `fd 3 of p` in a child process.
pub(crate) fn fd_of(process: Option<&Name>, fd: i32) -> String {
    match process {
        Some(Name(process)) => format!("fd {fd} of {process}"),
        None => format!("fd {fd}"),
    }
}

/// What a call returned, as strace shows it.
pub(crate) fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Value(value) => value.to_string(),
        Outcome::Errno(number) => match errno::name(number) {
            Some(name) => format!("-1 {name}"),
            None => format!("-1 errno {number}"),
        },
        Outcome::None => "not reached".to_owned(),
    }
}

fn event(event: &Event) -> String {
    let mut text = format!("wd={} {}", event.wd, event.mask);
    if !event.name.0.is_empty() {
        write_to(&mut text, format_args!(" {}", event.name));
    }
    if event.cookie != 0 {
        write_to(&mut text, format_args!(" cookie#{}", event.cookie));
    }
    text
}

fn fanotify_event(event: &FanotifyEvent) -> String {
    let mut text = FlagSet::FanotifyMask.text(event.mask).to_string();
    if let Some(Name(process)) = &event.process {
        write_to(&mut text, format_args!(" by {process}"));
    }
    if let Some(it) = &event.object {
        write_to(&mut text, format_args!(" on {}", object(it)));
    }
    for record in &event.records {
        write_to(&mut text, format_args!(" {{{record}}}"));
    }
    text
}

/// Set on everything that a 64-bit program opens: it tells nothing.
const O_LARGEFILE: u32 = 0o100_000;

fn descriptor(descriptor: &Descriptor) -> String {
    let mut text = fd_of(descriptor.process.as_ref(), descriptor.fd);
    let flags = FlagSet::Open.text(u64::from(descriptor.flags & !O_LARGEFILE));
    write_to(
        &mut text,
        format_args!(" {} {flags}", object_of(descriptor)),
    );
    if descriptor.close_on_exec {
        text.push_str(" FD_CLOEXEC");
    }
    if let Some((init, events)) = descriptor.group_flags {
        let init = FlagSet::FanotifyInit.text(u64::from(init));
        let events = FlagSet::Open.text(u64::from(events));
        write_to(
            &mut text,
            format_args!(", made with {init}, events {events}"),
        );
    }
    if let Some(offset) = descriptor.offset.filter(|offset| *offset != 0) {
        write_to(&mut text, format_args!(" at {offset}"));
    }
    if let Some((process, fd)) = &descriptor.shared_with {
        write_to(
            &mut text,
            format_args!(", shared with {}", fd_of(process.as_ref(), *fd)),
        );
    }
    if let Some(owner) = &descriptor.owner {
        write_to(&mut text, format_args!(", owner {owner}"));
    }
    if descriptor.signal != 0 {
        write_to(&mut text, format_args!(", {}", signal(descriptor.signal)));
    }
    if let Some(unread) = descriptor.unread {
        write_to(&mut text, format_args!(", {unread} bytes unread"));
    }
    for (tfd, events, data) in &descriptor.interest {
        let events = FlagSet::EpollEvents.text(u64::from(*events));
        write_to(
            &mut text,
            format_args!(", fd {tfd} {{events={events}, data={data}}}"),
        );
    }
    text
}

/// `inotify`, `epoll`, `"dir/a" (deleted)`.
pub(crate) fn object_of(descriptor: &Descriptor) -> String {
    match descriptor.kind {
        DescriptorKind::Inotify => "inotify".to_owned(),
        DescriptorKind::Fanotify => "fanotify".to_owned(),
        DescriptorKind::Epoll => "epoll".to_owned(),
        DescriptorKind::Regular
        | DescriptorKind::Directory
        | DescriptorKind::Fifo
        | DescriptorKind::Socket
        | DescriptorKind::Symlink
        | DescriptorKind::Device
        | DescriptorKind::Other => object(&descriptor.object),
    }
}

/// An object by name.
pub(crate) fn object(object: &Object) -> String {
    match object {
        Object::Path(path) => path.to_string(),
        Object::Ghost(path) => format!("{path} (deleted)"),
        Object::Other(text) => text.clone(),
        Object::Unnamed(number) => format!("unnamed#{number}"),
    }
}

/// A word of the manual for a signal.
pub(crate) fn signal(number: i32) -> String {
    match u64::try_from(number) {
        Ok(0) => "SIGIO by default".to_owned(),
        Ok(number) => FlagSet::Signal.text(number).to_string(),
        Err(_) => number.to_string(),
    }
}

fn watch(watch: &Watch) -> String {
    format!("wd={} {} {}", watch.wd, object(&watch.target), watch.mask)
}

/// The target of a fanotify mark.
pub(crate) fn mark_target(target: &MarkTarget) -> String {
    match target {
        MarkTarget::Inode(it) => format!("inode {}", object(it)),
        MarkTarget::Mount(it) => format!("mount {}", object(it)),
        MarkTarget::Filesystem(it) => format!("filesystem {}", object(it)),
        MarkTarget::MountNamespace(name) => format!("mount namespace {name}"),
        MarkTarget::Unknown(text) => text.clone(),
    }
}

fn mark(mark: &Mark) -> String {
    let mut text = mark_target(&mark.target);
    write_to(
        &mut text,
        format_args!(" {}", FlagSet::FanotifyMask.text(mark.mask)),
    );
    if mark.ignored_mask != 0 {
        let ignored = FlagSet::FanotifyMask.text(mark.ignored_mask);
        write_to(&mut text, format_args!(" ignored {ignored}"));
    }
    if mark.flags != 0 {
        let flags = FlagSet::FanotifyMark.text(u64::from(mark.flags));
        write_to(&mut text, format_args!(" {flags}"));
    }
    text
}

fn bystander(heard: &Bystander) -> String {
    let watched = heard
        .watched
        .as_ref()
        .map_or_else(|| "filesystem".to_owned(), object);
    let mut text = format!("bystander {watched}: {}", heard.mask);
    if !heard.name.0.is_empty() {
        write_to(&mut text, format_args!(" {}", heard.name));
    }
    text
}

fn entry(entry: &Entry) -> String {
    let mut text = format!("{} {}", entry.path, mode(&entry.stat));
    if let Some(link) = &entry.link {
        write_to(&mut text, format_args!(" -> {link}"));
    }
    text
}

/// Type and permissions: `S_IFREG|0644`.
pub(crate) fn mode(stat: &Stat) -> String {
    const TYPE: u32 = 0o170_000;
    let kind = FlagSet::FileType.text(u64::from(stat.mode & TYPE));
    format!("{kind}|{:04o}", stat.mode & !TYPE)
}

fn loss(loss: &Loss) -> String {
    format!(
        "declared loss I{}: {}: {}",
        loss.invariant, loss.object, loss.reason
    )
}

fn write_to(text: &mut String, args: fmt::Arguments<'_>) {
    text.write_fmt(args).expect("a String takes everything");
}
