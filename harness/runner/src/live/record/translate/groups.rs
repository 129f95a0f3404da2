//! Calls of inotify, fanotify and epoll. A group becomes a step once it watches something below the
//! root; until then what was done to it waits.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fsnotify::event::inotify::Events;
use nix::libc;

use super::{Left, OUTSIDE, OpenKind, Recorder, UNREADABLE, below, last_name, quoted, there};
use crate::live::record::LeftOut;
use crate::live::record::line::{self, Call};
use crate::live::record::tables::File;
use crate::live::record::tree::Found;

/// What scenarios expect of a watch that could not be set.
const EXPECTED: [&str; 4] = ["ENOENT", "ENOTDIR", "EEXIST", "ELOOP"];

const ACCESS: [&str; 3] = ["O_RDONLY", "O_WRONLY", "O_RDWR"];
/// Events that only a change makes.
const CHANGES: u32 =
    libc::IN_MODIFY | libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_MOVED_TO;

/// A group, inotify or fanotify.
#[derive(Debug)]
pub(super) struct Group {
    pub name: String,
    /// Whether there is a step that makes it.
    pub is_made: bool,
    kind: GroupKind,
    /// The call that makes it.
    init: String,
    /// Steps that wait for it, with what they use; an epoll set among it is made first.
    waiting: Vec<(String, Option<File>)>,
    owner: i32,
}

#[derive(Debug)]
enum GroupKind {
    Inotify {
        /// By number in the recording.
        wds: BTreeMap<i64, Watch>,
        next: i32,
    },
    Fanotify,
    /// A listener that is asked for permission, which the one process of a scenario cannot be.
    Refused,
}

#[derive(Debug)]
struct Watch {
    /// In the scenario: where a watch was left out before it, that is another number.
    own: i32,
    /// The last name of what is watched.
    name: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Epoll {
    pub name: String,
    pub is_made: bool,
    flags: String,
    /// Groups by the number that comes with their events.
    members: BTreeMap<String, File>,
}

/// A group that a process has when it is attached to.
#[derive(Debug)]
pub(in crate::live::record) struct GroupBefore {
    pub flags: String,
    /// Number, absolute path, mask; rising.
    pub watches: Vec<(i32, Vec<u8>, String)>,
}

impl Recorder<'_> {
    pub(super) fn notification(&mut self, call: &Call) -> Result<(), Left> {
        match call.name.as_str() {
            "inotify_add_watch" => self.add_watch(call),
            "inotify_rm_watch" => self.remove_watch(call),
            _ if call.success().is_none() => Ok(()),
            "inotify_init" => self.inotify(call, "0"),
            "inotify_init1" => self.inotify(call, call.argument(0)),
            "fanotify_init" => self.fanotify(call),
            "fanotify_mark" => self.mark(call),
            "epoll_create" => self.epoll(call, "0"),
            "epoll_create1" => self.epoll(call, call.argument(0)),
            "epoll_ctl" => self.epoll_ctl(call),
            _ => self.epoll_wait(call),
        }
    }

    fn inotify(&mut self, call: &Call, flags: &str) -> Result<(), Left> {
        let group = Group {
            name: self.name(b"n"),
            is_made: false,
            kind: GroupKind::Inotify {
                wds: BTreeMap::new(),
                next: 1,
            },
            init: format!("inotify_init1({flags})"),
            waiting: Vec::new(),
            owner: call.pid,
        };
        let close_on_exec = flags.contains("IN_CLOEXEC");
        self.opened(call, close_on_exec, Vec::new(), OpenKind::Group(group));
        Ok(())
    }

    fn fanotify(&mut self, call: &Call) -> Result<(), Left> {
        let (flags, event_flags) = (call.argument(0), call.argument(1));
        let asks = flags.contains("FAN_CLASS_CONTENT") || flags.contains("FAN_CLASS_PRE_CONTENT");
        let group = Group {
            name: self.name(b"n"),
            is_made: false,
            kind: if asks {
                GroupKind::Refused
            } else {
                GroupKind::Fanotify
            },
            init: format!("fanotify_init({flags}, {event_flags})"),
            waiting: Vec::new(),
            owner: call.pid,
        };
        let close_on_exec = flags.contains("FAN_CLOEXEC");
        self.opened(call, close_on_exec, Vec::new(), OpenKind::Group(group));
        match asks {
            true => Err("of a permission listener, which one process alone would wait for"),
            false => Ok(()),
        }
    }

    fn group(&mut self, file: File) -> Option<&mut Group> {
        match &mut self.files[file].kind {
            OpenKind::Group(group) => Some(group),
            OpenKind::Other | OpenKind::File { .. } | OpenKind::Epoll(_) => None,
        }
    }

    /// A group that was there at the beginning, with its watches below the root.
    pub(super) fn group_before(&mut self, pid: i32, fd: i32, before: GroupBefore) -> OpenKind {
        let name = self.name(b"n");
        let mut wds = BTreeMap::new();
        let mut next = 1;
        let mut watches = Vec::new();
        for (wd, path, mask) in before.watches {
            let shown = format!("wd {wd} of fd {fd} on {}", String::from_utf8_lossy(&path));
            let inside = below(self.root, &path);
            let Some(inside) = inside.filter(|path| there(self.tree.find(path, true)).is_ok())
            else {
                self.left_out.push(LeftOut::new(OUTSIDE, &shown));
                self.elsewhere
                    .insert(String::from_utf8_lossy(&path).into_owned());
                continue;
            };
            let name = last_name(&inside);
            wds.insert(i64::from(wd), Watch { own: next, name });
            watches.push((next, inside, mask));
            next += 1;
        }
        let is_made = !watches.is_empty();
        let init = format!("inotify_init1({})", before.flags);
        if is_made {
            self.binding_step(init.clone(), &name);
            for (wd, path, mask) in watches {
                self.watch_step(&name, &path, &mask, wd.to_string());
            }
        }
        OpenKind::Group(Group {
            name,
            is_made,
            kind: GroupKind::Inotify { wds, next },
            init,
            waiting: Vec::new(),
            owner: pid,
        })
    }

    fn watch_step(&mut self, name: &str, path: &[u8], mask: &str, result: String) {
        self.n_watches += 1;
        let first = self.steps.len();
        self.first_watch.get_or_insert(first);
        let path = quoted(path);
        self.step(
            format!("inotify_add_watch({name}, {path}, {mask})"),
            &[name],
        );
        if let Some(step) = self.steps.last_mut() {
            step.result = Some(result);
        }
    }

    /// Makes the steps that a group has waited with.
    fn make(&mut self, file: File) -> Option<String> {
        let group = self.group(file)?;
        let name = group.name.clone();
        if group.is_made {
            return Some(name);
        }
        group.is_made = true;
        let (init, waiting) = (group.init.clone(), std::mem::take(&mut group.waiting));
        if matches!(group.kind, GroupKind::Fanotify) {
            self.requires.insert("fanotify");
            self.requires.insert("root");
        }
        self.binding_step(init, &name);
        for (text, epoll) in waiting {
            self.waited_for(&name, text, epoll);
        }
        Some(name)
    }

    fn waited_for(&mut self, group: &str, text: String, epoll: Option<File>) {
        let Some(epoll) = epoll else {
            return self.step(text, &[group]);
        };
        let OpenKind::Epoll(set) = &mut self.files[epoll].kind else {
            return;
        };
        let name = set.name.clone();
        if !set.is_made {
            set.is_made = true;
            let init = format!("epoll_create1({})", set.flags);
            self.binding_step(init, &name);
        }
        self.step(text, &[group, &name]);
    }

    fn add_watch(&mut self, call: &Call) -> Result<(), Left> {
        let [fd, path, mask] = [0, 1, 2].map(|index| call.argument(index));
        let Some(file) = self.file(call.pid, fd) else {
            return Ok(());
        };
        let absolute = self.absolute(call.pid, None, path)?;
        let Some(path) = below(self.root, &absolute) else {
            if call.success().is_some() {
                self.elsewhere
                    .insert(String::from_utf8_lossy(&absolute).into_owned());
            }
            return Err(OUTSIDE);
        };
        let follow = !mask.contains("IN_DONT_FOLLOW");
        let found = self.tree.find(&path, follow);
        let Some(wd) = call.success() else {
            return self.watch_refused(call, file, (&path, mask), &found);
        };
        there(found)?;
        let Some(name) = self.make(file) else {
            return Ok(());
        };
        let Some(Group {
            kind: GroupKind::Inotify { wds, next },
            ..
        }) = self.group(file)
        else {
            return Ok(());
        };
        let watch = wds.entry(wd).or_insert_with(|| {
            *next += 1;
            Watch {
                own: *next - 1,
                name: last_name(&path),
            }
        });
        let own = watch.own;
        self.watch_step(&name, &path, mask, own.to_string());
        Ok(())
    }

    /// A watch that could not be set is a step if it fails in the scenario too.
    fn watch_refused(
        &mut self,
        call: &Call,
        file: File,
        (path, mask): (&[u8], &str),
        found: &Found,
    ) -> Result<(), Left> {
        let errno = call.errno.as_deref().unwrap_or_default();
        let is_missing = matches!(found, Found::Missing(..) | Found::NoWay);
        let fails = match errno {
            "ENOENT" => is_missing,
            errno => EXPECTED.contains(&errno),
        };
        match self.group(file) {
            Some(group) if fails && group.is_made => {
                let name = group.name.clone();
                self.watch_step(&name, path, mask, format!("-1 {errno}"));
                self.n_watches -= 1;
                Ok(())
            }
            // Who has not watched anything yet has lost nothing.
            Some(group) if fails && !group.is_made => Ok(()),
            _ => Err("that failed for want of a limit or a permission"),
        }
    }

    fn remove_watch(&mut self, call: &Call) -> Result<(), Left> {
        let Some(file) = self.file(call.pid, call.argument(0)) else {
            return Ok(());
        };
        let wd: i64 = call.argument(1).parse().map_err(|_| UNREADABLE)?;
        let result = match (call.success(), call.errno.as_deref()) {
            (Some(_), _) => None,
            (None, Some("EINVAL")) => Some("-1 EINVAL".to_owned()),
            (None, _) => return Ok(()),
        };
        let Some(Group {
            name,
            kind: GroupKind::Inotify { wds, .. },
            is_made: true,
            ..
        }) = self.group(file)
        else {
            return Ok(());
        };
        let own = wds.get(&wd).ok_or(OUTSIDE)?.own;
        let name = name.clone();
        self.step(format!("inotify_rm_watch({name}, {own})"), &[&name]);
        if let Some(step) = self.steps.last_mut() {
            step.result = result;
        }
        Ok(())
    }

    fn mark(&mut self, call: &Call) -> Result<(), Left> {
        let [fd, flags, mask, dirfd, path] = [0, 1, 2, 3, 4].map(|index| call.argument(index));
        let Some(file) = self.file(call.pid, fd) else {
            return Ok(());
        };
        match self.group(file) {
            Some(Group {
                kind: GroupKind::Fanotify,
                ..
            }) => {}
            _ => return Err("of a permission listener, which one process alone would wait for"),
        }
        let absolute = match path {
            "NULL" => {
                let file = self.file(call.pid, dirfd);
                let path = file.map(|file| self.files[file].path.clone());
                path.unwrap_or_else(|| self.tables.surroundings(call.pid).directory.clone())
            }
            path => self.absolute(call.pid, Some(dirfd), path)?,
        };
        let is_wide = flags.contains("FAN_MARK_MOUNT") || flags.contains("FAN_MARK_FILESYSTEM");
        let inside = match below(self.root, &absolute) {
            Some(path) => path,
            // What has the root on it: the scenario's root is a mount and a filesystem of its own.
            None if is_wide && covers(&absolute, self.root) => b".".to_vec(),
            None => {
                self.elsewhere
                    .insert(String::from_utf8_lossy(&absolute).into_owned());
                return Err(OUTSIDE);
            }
        };
        there(self.tree.find(&inside, true))?;
        let Some(name) = self.make(file) else {
            return Ok(());
        };
        self.n_watches += 1;
        let first = self.steps.len();
        self.first_watch.get_or_insert(first);
        let path = quoted(&inside);
        self.step(
            format!("fanotify_mark({name}, {flags}, {mask}, AT_FDCWD, {path})"),
            &[&name],
        );
        Ok(())
    }

    /// read(2) of a group: what is unread, all of it.
    pub(super) fn drained(&mut self, call: &Call, file: File) -> Result<(), Left> {
        let Some(group) = self.group(file).filter(|group| group.is_made) else {
            return Ok(());
        };
        if !call.name.starts_with("read") || call.success().unwrap_or(0) == 0 {
            return Ok(());
        }
        let name = group.name.clone();
        self.step_once(format!("read({name})"), &[&name]);
        if let Some(step) = self.steps.last_mut() {
            step.drains = true;
        }
        match self.knows_who_changed(call, file) {
            true => Ok(()),
            false => Err("of events that no step makes: somebody else was there"),
        }
    }

    /// Whether some step has changed what the events that were read are about.
    fn knows_who_changed(&mut self, call: &Call, file: File) -> bool {
        let buffer = line::string(call.argument(1)).unwrap_or_default();
        let OpenKind::Group(Group {
            kind: GroupKind::Inotify { wds, .. },
            ..
        }) = &self.files[file].kind
        else {
            return true;
        };
        let mut events = Events::new(&buffer).map_while(Result::ok);
        events.all(|event| {
            let is_change = event.mask.0 & CHANGES != 0;
            let watch = wds.get(&i64::from(event.raw_wd()));
            let name = match (event.name, watch) {
                (b"", Some(watch)) => watch.name.as_slice(),
                (name, Some(_)) => name,
                // Of a watch that was left out.
                (_, None) => return true,
            };
            !is_change || self.changed.contains(name)
        })
    }

    /// fcntl(2) on a group; on other files it is nobody's concern.
    pub(super) fn set_up_group(
        &mut self,
        file: File,
        (command, value): (&str, &str),
    ) -> Result<(), Left> {
        let Some(group) = self.group(file) else {
            return Ok(());
        };
        let value = match command {
            // The access mode stands there, and cannot be changed.
            "F_SETFL" => {
                let words = value.split('|').filter(|word| !ACCESS.contains(word));
                let words: Vec<&str> = words.collect();
                match words.is_empty() {
                    true => "0".to_owned(),
                    false => words.join("|"),
                }
            }
            "F_SETOWN" if value == group.owner.to_string() => "main".to_owned(),
            "F_SETOWN" => return Err("that gives signals of a group to another process"),
            _ => value.to_owned(),
        };
        let (name, is_made) = (group.name.clone(), group.is_made);
        let text = format!("fcntl({name}, {command}, {value})");
        match is_made {
            true => self.step(text, &[&name]),
            false => group.waiting.push((text, None)),
        }
        Ok(())
    }

    fn epoll(&mut self, call: &Call, flags: &str) -> Result<(), Left> {
        let epoll = Epoll {
            name: self.name(b"e"),
            is_made: false,
            flags: flags.to_owned(),
            members: BTreeMap::new(),
        };
        let close_on_exec = flags.contains("EPOLL_CLOEXEC");
        self.opened(call, close_on_exec, Vec::new(), OpenKind::Epoll(epoll));
        Ok(())
    }

    /// Only groups matter in a set.
    fn epoll_ctl(&mut self, call: &Call) -> Result<(), Left> {
        let [set, operation, fd, event] = [0, 1, 2, 3].map(|index| call.argument(index));
        let (Some(set), Some(file)) = (self.file(call.pid, set), self.file(call.pid, fd)) else {
            return Ok(());
        };
        let Some(group) = self.group(file) else {
            return Ok(());
        };
        let (group_name, is_made) = (group.name.clone(), group.is_made);
        let OpenKind::Epoll(epoll) = &mut self.files[set].kind else {
            return Ok(());
        };
        let events = line::field(event, "events").unwrap_or_default();
        let value = line::field(event, "data").and_then(|value| line::field(&value, "u64"));
        let value = value.unwrap_or_else(|| "0".to_owned());
        let event = match operation {
            "EPOLL_CTL_DEL" => String::new(),
            _ => format!(", {{events={events}, data={value}}}"),
        };
        let text = format!(
            "epoll_ctl({}, {operation}, {group_name}{event})",
            epoll.name
        );
        match operation {
            "EPOLL_CTL_DEL" => epoll.members.retain(|_, member| *member != file),
            _ => drop(epoll.members.insert(value, file)),
        }
        match is_made {
            true => self.waited_for(&group_name, text, Some(set)),
            false => {
                if let Some(group) = self.group(file) {
                    group.waiting.push((text, Some(set)));
                }
            }
        }
        Ok(())
    }

    /// A wait that a group ended.
    fn epoll_wait(&mut self, call: &Call) -> Result<(), Left> {
        let Some(file) = self.file(call.pid, call.argument(0)) else {
            return Ok(());
        };
        let OpenKind::Epoll(epoll) = &self.files[file].kind else {
            return Ok(());
        };
        let came = line::items(call.argument(1)).iter().any(|event| {
            let value = line::field(event, "data").and_then(|value| line::field(&value, "u64"));
            value.is_some_and(|value| epoll.members.contains_key(&value))
        });
        if came && epoll.is_made {
            let (name, n_max) = (epoll.name.clone(), call.argument(2).to_owned());
            self.step_once(format!("epoll_wait({name}, {n_max}, 0)"), &[&name]);
        }
        Ok(())
    }
}

/// Whether a mark on all of a mount or filesystem covers the root.
fn covers(path: &[u8], root: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let device = |path: &Path| std::fs::metadata(path).map(|stat| stat.dev()).ok();
    device(path).is_some_and(|one| device(root) == Some(one))
}
