//! Calls on descriptors: opening, reading, writing, duplicating, closing.

use super::{
    Held, HeldWhat, Left, NOT_THERE, OUTSIDE, Open, OpenKind, Recorder, UNSAYABLE, last_name,
    quoted, there,
};
use crate::live::record::line::{self, Call};
use crate::live::record::tables::{File, Slot};
use crate::live::record::tree::{Content, Found, Kind};

/// More of one write is left out.
const MAX_WRITTEN: usize = 64 << 10;

impl Recorder<'_> {
    /// None: it is no call on a descriptor.
    pub(super) fn descriptor_call(&mut self, call: &Call) -> Option<Result<(), Left>> {
        let argument = |index| call.argument(index);
        Some(match call.name.as_str() {
            "open" => self.open(call, (None, argument(0)), (argument(1), argument(2))),
            "creat" => {
                let flags = "O_WRONLY|O_CREAT|O_TRUNC";
                self.open(call, (None, argument(0)), (flags, argument(1)))
            }
            "openat" => {
                let place = (Some(argument(0)), argument(1));
                self.open(call, place, (argument(2), argument(3)))
            }
            "close" => {
                let fd = argument(0).parse().unwrap_or(-1);
                let file = self.tables.close(call.pid, fd);
                self.drop_files(file.into_iter().collect());
                Ok(())
            }
            "close_range" => {
                let number = |text: &str| text.parse().unwrap_or(i32::MAX);
                let (first, last) = (number(argument(0)), number(argument(1)));
                let files = self.tables.close_range(call.pid, first, last);
                self.drop_files(files);
                Ok(())
            }
            "dup" | "dup2" | "dup3" => {
                let close_on_exec = argument(2).contains("O_CLOEXEC");
                self.duplicate(call, argument(0), close_on_exec);
                Ok(())
            }
            "fcntl" => self.fcntl(call),
            "fchdir" => {
                if let Some(file) = self.file(call.pid, argument(0)) {
                    let path = self.files[file].path.clone();
                    self.tables.surroundings(call.pid).directory = path;
                }
                Ok(())
            }
            "sendfile" => self.copy(call, argument(1), argument(0)),
            "copy_file_range" => self.copy(call, argument(0), argument(2)),
            "read" | "readv" | "pread64" | "preadv" | "write" | "writev" | "pwrite64"
            | "pwritev" | "lseek" | "ftruncate" | "fallocate" | "getdents" | "getdents64"
            | "fchmod" | "fchown" | "fsetxattr" => self.on_file(call),
            _ => return None,
        })
    }

    /// What steps call an open file below the root.
    pub(super) fn file_name(&self, file: File) -> Option<String> {
        match &self.files[file].kind {
            OpenKind::File { name, .. } => Some(name.clone()),
            OpenKind::Other | OpenKind::Group(_) | OpenKind::Epoll(_) => None,
        }
    }

    fn open(
        &mut self,
        call: &Call,
        place: (Option<&str>, &str),
        (flags, mode): (&str, &str),
    ) -> Result<(), Left> {
        let close_on_exec = flags.contains("O_CLOEXEC");
        let absolute = self.absolute(call.pid, place.0, place.1);
        let path = absolute.clone().unwrap_or_default();
        let step = self.open_step(call, place, (flags, mode));
        let (kind, result) = match step {
            Ok(Some(kind)) => (kind, Ok(())),
            Ok(None) => (OpenKind::Other, Ok(())),
            Err(why) => (OpenKind::Other, Err(why)),
        };
        self.opened(call, close_on_exec, path, kind);
        result
    }

    fn open_step(
        &mut self,
        call: &Call,
        place: (Option<&str>, &str),
        (flags, mode): (&str, &str),
    ) -> Result<Option<OpenKind>, Left> {
        let path = self.path(call.pid, place.0, place.1)?;
        let follow = !flags.contains("O_NOFOLLOW");
        let found = self.tree.find(&path, follow);
        // Nobody hears of it, and it is no more than a name for the path.
        if flags.contains("O_PATH") {
            return there(found).map(|_| None);
        }
        if flags.contains("O_TMPFILE") {
            return Err("of files without a name");
        }
        let creates = flags.contains("O_CREAT");
        let node = match found {
            Found::Node(_) if creates && flags.contains("O_EXCL") => return Err(NOT_THERE),
            Found::Missing(parent, name) if creates => {
                self.tree
                    .make(parent, &name, Kind::File(Content::Bytes(Vec::new())))
            }
            found => there(found)?,
        };
        let is_directory = match self.tree.kind(node) {
            Kind::Directory(_) => true,
            Kind::Fifo => return Err("of a fifo, which one process alone would wait at"),
            Kind::Other => return Err("of a socket or device"),
            Kind::File(_) | Kind::Link(_) => false,
        };
        let name = self.name(&last_name(&path));
        if creates || flags.contains("O_TRUNC") {
            self.changed.insert(last_name(&path));
        }
        let mode = match creates {
            true => format!(", 0{:o}", self.new_mode(call.pid, mode)?),
            false => String::new(),
        };
        self.binding_step(format!("open({}, {flags}{mode})", quoted(&path)), &name);
        Ok(Some(OpenKind::File { name, is_directory }))
    }

    /// A descriptor that was there at the beginning; its slot is.
    pub(super) fn hold(&mut self, pid: i32, held: Held) {
        let path = held.path.clone();
        let kind = match held.what {
            HeldWhat::Other => OpenKind::Other,
            HeldWhat::Group(before) => self.group_before(pid, held.fd, before),
            HeldWhat::File { flags, offset } => self.held_file(&path, &flags, offset),
        };
        self.files.push(Open { path, kind });
    }

    fn held_file(&mut self, path: &[u8], flags: &str, offset: u64) -> OpenKind {
        let Some(path) = super::below(self.root, path) else {
            return OpenKind::Other;
        };
        let Ok(node) = there(self.tree.find(&path, true)) else {
            return OpenKind::Other;
        };
        let is_directory = matches!(self.tree.kind(node), Kind::Directory(_));
        if !is_directory && !matches!(self.tree.kind(node), Kind::File(_)) {
            return OpenKind::Other;
        }
        let name = self.name(&last_name(&path));
        self.binding_step(format!("open({}, {flags})", quoted(&path)), &name);
        if offset > 0 && !is_directory {
            self.step(format!("lseek({name}, {offset}, SEEK_SET)"), &[&name]);
        }
        OpenKind::File { name, is_directory }
    }

    fn duplicate(&mut self, call: &Call, fd: &str, close_on_exec: bool) {
        let Some(file) = self.file(call.pid, fd) else {
            return;
        };
        let Some(new) = call.success().and_then(|fd| i32::try_from(fd).ok()) else {
            return;
        };
        if fd.parse() == Ok(new) {
            return;
        }
        let slot = Slot {
            file,
            close_on_exec,
        };
        let old = self.tables.put(call.pid, new, slot);
        self.drop_files(old.into_iter().collect());
    }

    fn fcntl(&mut self, call: &Call) -> Result<(), Left> {
        let [fd, command, value] = [0, 1, 2].map(|index| call.argument(index));
        match command {
            "F_DUPFD" => self.duplicate(call, fd, false),
            "F_DUPFD_CLOEXEC" => self.duplicate(call, fd, true),
            "F_SETFD" => {
                let number = fd.parse().unwrap_or(-1);
                let close_on_exec = value.contains("FD_CLOEXEC");
                self.tables
                    .set_close_on_exec(call.pid, number, close_on_exec);
            }
            "F_SETFL" | "F_SETOWN" | "F_SETSIG" => {
                let Some(file) = self.file(call.pid, fd) else {
                    return Ok(());
                };
                return self.set_up_group(file, (command, value));
            }
            "F_NOTIFY" => return Err("of dnotify"),
            _ => {}
        }
        Ok(())
    }

    /// What one file gives, another takes: a read and a write, with other content.
    fn copy(&mut self, call: &Call, from: &str, to: &str) -> Result<(), Left> {
        let size = call.success().and_then(|size| usize::try_from(size).ok());
        let size = size.unwrap_or(0).min(MAX_WRITTEN);
        if size == 0 {
            return Ok(());
        }
        let place = self
            .file(call.pid, to)
            .map(|file| self.files[file].path.clone());
        let path = place.unwrap_or_default();
        let name = |recorder: &mut Self, fd: &str| {
            let file = recorder.file(call.pid, fd)?;
            recorder.file_name(file)
        };
        let (from, to) = (name(self, from), name(self, to));
        if from.is_none() && to.is_none() {
            return Err(OUTSIDE);
        }
        if let Some(name) = from {
            self.step(format!("read({name}, {size})"), &[&name]);
        }
        if let Some(name) = to {
            self.changed.insert(last_name(&path));
            self.write(&name, &vec![b'.'; size], None);
        }
        Ok(())
    }

    fn on_file(&mut self, call: &Call) -> Result<(), Left> {
        let Some(file) = self.file(call.pid, call.argument(0)) else {
            return Ok(());
        };
        let (name, is_directory) = match &self.files[file].kind {
            OpenKind::File { name, is_directory } => (name.clone(), *is_directory),
            OpenKind::Group(_) => return self.drained(call, file),
            OpenKind::Other | OpenKind::Epoll(_) => return Ok(()),
        };
        let size = call.success().unwrap_or(0);
        let name = name.as_str();
        match call.name.as_str() {
            // Reading nothing is not heard.
            "read" | "readv" | "pread64" | "preadv" | "write" | "writev" | "pwrite64"
            | "pwritev"
                if size == 0 => {}
            "read" | "readv" => self.step(format!("read({name}, {size})"), &[name]),
            "pread64" | "preadv" => {
                let offset = call.argument(3);
                self.step(format!("pread({name}, {size}, {offset})"), &[name]);
            }
            "write" | "writev" | "pwrite64" | "pwritev" => {
                let offset = call.name.starts_with('p').then(|| call.argument(3));
                let offset = offset.and_then(|offset| offset.parse().ok());
                self.write(name, &content(call), offset);
                self.changed.insert(last_name(&self.files[file].path));
            }
            "lseek" => {
                let moves = !(call.argument(1) == "0" && call.argument(2) == "SEEK_CUR");
                if moves && (!is_directory || size == 0) {
                    self.step(format!("lseek({name}, {size}, SEEK_SET)"), &[name]);
                }
            }
            "ftruncate" => {
                let length = call.argument(1);
                self.changed.insert(last_name(&self.files[file].path));
                self.step(format!("ftruncate({name}, {length})"), &[name]);
            }
            "fallocate" => {
                let [mode, offset, length] = [1, 2, 3].map(|index| call.argument(index));
                self.step(
                    format!("fallocate({name}, {mode}, {offset}, {length})"),
                    &[name],
                );
            }
            "getdents" | "getdents64" => {
                self.step_once(format!("getdents64({name})"), &[name]);
            }
            "fchmod" => {
                let mode = call.argument(1);
                self.step(format!("fchmod({name}, {mode})"), &[name]);
            }
            "fchown" => {
                let [owner, group] = [1, 2].map(|index| call.argument(index));
                self.requires.insert("root");
                self.step(format!("fchown({name}, {owner}, {group})"), &[name]);
            }
            _ => return Err(UNSAYABLE),
        }
        Ok(())
    }

    /// One write, in pieces that the language takes: alike and in a row, they are one event.
    fn write(&mut self, name: &str, content: &[u8], offset: Option<usize>) {
        let taken = &content[..content.len().min(MAX_WRITTEN)];
        for (index, piece) in taken.chunks(scenario::limits::MAX_CONTENT).enumerate() {
            let piece_at = index * scenario::limits::MAX_CONTENT;
            let text = match offset {
                Some(offset) => format!("pwrite({name}, {}, {})", quoted(piece), offset + piece_at),
                None => format!("write({name}, {})", quoted(piece)),
            };
            self.step(text, &[name]);
        }
    }
}

/// What was written, or dots where strace does not show it.
fn content(call: &Call) -> Vec<u8> {
    let size = call.success().and_then(|size| usize::try_from(size).ok());
    let size = size.unwrap_or(0).min(MAX_WRITTEN);
    let shown = match call.name.as_str() {
        "writev" | "pwritev" => line::items(call.argument(1))
            .iter()
            .map(|item| line::string(&line::field(item, "iov_base")?))
            .collect::<Option<Vec<Vec<u8>>>>()
            .map(|parts| parts.concat()),
        _ => line::string(call.argument(1)),
    };
    let mut content = shown.unwrap_or_default();
    content.resize(size, b'.');
    content
}
