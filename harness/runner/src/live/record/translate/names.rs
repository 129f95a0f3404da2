//! Calls that name what they change: directories, links, renames, modes, times.

use std::collections::BTreeMap;

use super::{Left, NOT_THERE, OUTSIDE, Recorder, UNREADABLE, UNSAYABLE, last_name, quoted, there};
use crate::live::record::line::{self, Call};
use crate::live::record::tree::{Content, Found, Kind, Node};

/// A name that is to be made: its directory and last part.
type Place = (Node, Vec<u8>);

impl Recorder<'_> {
    pub(super) fn name_call(&mut self, call: &Call) -> Result<(), Left> {
        let pid = call.pid;
        let argument = |index| call.argument(index);
        match call.name.as_str() {
            "mkdir" => self.mkdir(pid, (None, argument(0)), argument(1)),
            "mkdirat" => self.mkdir(pid, (Some(argument(0)), argument(1)), argument(2)),
            "rmdir" => self.remove(pid, (None, argument(0)), true),
            "unlink" => self.remove(pid, (None, argument(0)), false),
            "unlinkat" => {
                let is_directory = argument(2).contains("AT_REMOVEDIR");
                self.remove(pid, (Some(argument(0)), argument(1)), is_directory)
            }
            "mknod" => self.mknod(pid, (None, argument(0)), (argument(1), argument(2))),
            "mknodat" => {
                let place = (Some(argument(0)), argument(1));
                self.mknod(pid, place, (argument(2), argument(3)))
            }
            "symlink" => self.symlink(pid, argument(0), (None, argument(1))),
            "symlinkat" => self.symlink(pid, argument(0), (Some(argument(1)), argument(2))),
            "link" => self.link(pid, [(None, argument(0)), (None, argument(1))], "0"),
            "linkat" => {
                let places = [
                    (Some(argument(0)), argument(1)),
                    (Some(argument(2)), argument(3)),
                ];
                self.link(pid, places, argument(4))
            }
            "rename" => self.rename(pid, [(None, argument(0)), (None, argument(1))], "0"),
            "renameat" | "renameat2" => {
                let places = [
                    (Some(argument(0)), argument(1)),
                    (Some(argument(2)), argument(3)),
                ];
                let flags = if argument(4).is_empty() {
                    "0"
                } else {
                    argument(4)
                };
                self.rename(pid, places, flags)
            }
            "chmod" => self.attribute(pid, (None, argument(0)), "chmod", argument(1)),
            "fchmodat" | "fchmodat2" => {
                let place = (Some(argument(0)), argument(1));
                self.attribute(pid, place, "chmod", argument(2))
            }
            "chown" | "lchown" => {
                let owner = format!("{}, {}", argument(1), argument(2));
                self.attribute(pid, (None, argument(0)), "chown", &owner)
            }
            "fchownat" => {
                let owner = format!("{}, {}", argument(2), argument(3));
                let place = (Some(argument(0)), argument(1));
                self.attribute(pid, place, "chown", &owner)
            }
            "truncate" => self.attribute(pid, (None, argument(0)), "truncate", argument(1)),
            "setxattr" | "lsetxattr" => self.set_attribute(call),
            "removexattr" | "lremovexattr" => {
                let name = line::string(argument(1)).ok_or(UNREADABLE)?;
                if !name.starts_with(b"user.") {
                    return Err(UNSAYABLE);
                }
                let name = quoted(&name).to_string();
                self.requires.insert("user_xattr");
                self.attribute(pid, (None, argument(0)), "removexattr", &name)
            }
            "utime" | "utimes" => self.times(pid, (None, argument(0)), "NULL", "0"),
            "futimesat" => self.times(pid, (Some(argument(0)), argument(1)), "NULL", "0"),
            "utimensat" => self.utimensat(call),
            "chdir" => {
                let directory = self.absolute(pid, None, argument(0))?;
                self.tables.surroundings(pid).directory = super::without_ways_back(&directory);
                Ok(())
            }
            "umask" => {
                let mask = u32::from_str_radix(argument(0), 8).map_err(|_| UNREADABLE)?;
                self.tables.surroundings(pid).umask = mask & 0o777;
                Ok(())
            }
            _ => Err(UNSAYABLE),
        }
    }

    /// Where something new is to be: nothing may be there.
    fn free(&mut self, pid: i32, place: (Option<&str>, &str)) -> Result<(Vec<u8>, Place), Left> {
        let path = self.path(pid, place.0, place.1)?;
        match self.tree.find(&path, false) {
            Found::Missing(parent, name) => {
                self.changed.insert(last_name(&path));
                Ok((path, (parent, name)))
            }
            Found::Node(_) | Found::NoWay => Err(NOT_THERE),
            Found::Outside => Err(OUTSIDE),
        }
    }

    /// The permissions that a new object gets.
    pub(super) fn new_mode(&mut self, pid: i32, text: &str) -> Result<u32, Left> {
        let mode = u32::from_str_radix(text, 8).map_err(|_| UNREADABLE)?;
        Ok(mode & 0o7777 & !self.tables.surroundings(pid).umask)
    }

    fn mkdir(&mut self, pid: i32, place: (Option<&str>, &str), mode: &str) -> Result<(), Left> {
        let (path, (parent, name)) = self.free(pid, place)?;
        let mode = self.new_mode(pid, mode)?;
        self.tree
            .make(parent, &name, Kind::Directory(BTreeMap::new()));
        self.step(format!("mkdir({}, 0{mode:o})", quoted(&path)), &[]);
        Ok(())
    }

    fn remove(
        &mut self,
        pid: i32,
        place: (Option<&str>, &str),
        is_directory: bool,
    ) -> Result<(), Left> {
        let path = self.path(pid, place.0, place.1)?;
        let node = there(self.tree.find(&path, false))?;
        let call = match (self.tree.kind(node), is_directory) {
            (Kind::Directory(entries), true) if entries.is_empty() => "rmdir",
            // Something in it was moved out of the root, and that was left out.
            (Kind::Directory(_), _) => return Err(NOT_THERE),
            (_, true) => return Err(NOT_THERE),
            (_, false) => "unlink",
        };
        let (parent, name) = self.tree.place(&path).ok_or(NOT_THERE)?;
        self.changed.insert(last_name(&path));
        self.tree.take(parent, &name);
        self.step(format!("{call}({})", quoted(&path)), &[]);
        Ok(())
    }

    fn mknod(
        &mut self,
        pid: i32,
        place: (Option<&str>, &str),
        (mode, device): (&str, &str),
    ) -> Result<(), Left> {
        let (path, (parent, name)) = self.free(pid, place)?;
        let (kind, permissions) = mode.rsplit_once('|').unwrap_or(("S_IFREG", mode));
        let permissions = self.new_mode(pid, permissions)?;
        let device = match kind {
            "S_IFCHR" | "S_IFBLK" => {
                self.requires.insert("mknod");
                format!(", {device}")
            }
            _ => String::new(),
        };
        let made = match kind {
            "S_IFIFO" => Kind::Fifo,
            "S_IFREG" => Kind::File(Content::Bytes(Vec::new())),
            _ => Kind::Other,
        };
        self.tree.make(parent, &name, made);
        let path = quoted(&path);
        self.step(
            format!("mknod({path}, {kind}|0{permissions:o}{device})"),
            &[],
        );
        Ok(())
    }

    fn symlink(&mut self, pid: i32, target: &str, place: (Option<&str>, &str)) -> Result<(), Left> {
        let target = line::string(target).ok_or(UNREADABLE)?;
        let (path, (parent, name)) = self.free(pid, place)?;
        let target = crate::live::record::tree::inside(self.root, &path, &target);
        let step = format!("symlink({}, {})", quoted(&target), quoted(&path));
        self.tree.make(parent, &name, Kind::Link(target));
        self.step(step, &[]);
        Ok(())
    }

    fn link(
        &mut self,
        pid: i32,
        [old, new]: [(Option<&str>, &str); 2],
        flags: &str,
    ) -> Result<(), Left> {
        let from = self.path(pid, old.0, old.1)?;
        let node = there(self.tree.find(&from, flags.contains("AT_SYMLINK_FOLLOW")))?;
        let (to, (parent, name)) = self.free(pid, new)?;
        self.tree.put(parent, &name, node);
        let (from, to) = (quoted(&from), quoted(&to));
        let step = match flags {
            "0" | "AT_EMPTY_PATH" => format!("link({from}, {to})"),
            flags => format!("linkat(AT_FDCWD, {from}, AT_FDCWD, {to}, {flags})"),
        };
        self.step(step, &[]);
        Ok(())
    }

    fn rename(
        &mut self,
        pid: i32,
        [old, new]: [(Option<&str>, &str); 2],
        flags: &str,
    ) -> Result<(), Left> {
        let both = [self.path(pid, old.0, old.1), self.path(pid, new.0, new.1)];
        let (from, to) = match both {
            [Ok(from), Ok(to)] => (from, to),
            [Err(OUTSIDE), Err(OUTSIDE)] => return Err(OUTSIDE),
            [Err(OUTSIDE), Ok(_)] | [Ok(_), Err(OUTSIDE)] => {
                return Err("that moves something into the root or out of it");
            }
            [Err(why), _] | [_, Err(why)] => return Err(why),
        };
        let node = there(self.tree.find(&from, false))?;
        let other = match self.tree.find(&to, false) {
            Found::Node(other) => Some(other),
            Found::Missing(..) => None,
            Found::NoWay => return Err(NOT_THERE),
            Found::Outside => return Err(OUTSIDE),
        };
        let exchanges = flags.contains("RENAME_EXCHANGE");
        if let Some(other) = other.filter(|_| !exchanges)
            && let Kind::Directory(entries) = self.tree.kind(other)
            && !entries.is_empty()
        {
            return Err(NOT_THERE);
        }
        let (old_place, new_place) = (self.tree.place(&from), self.tree.place(&to));
        let (Some(old_place), Some(new_place)) = (old_place, new_place) else {
            return Err(NOT_THERE);
        };
        self.changed.extend([last_name(&from), last_name(&to)]);
        // Two names of one file stay as they are.
        if other != Some(node) {
            match (exchanges, other) {
                (true, Some(other)) => self.tree.put(old_place.0, &old_place.1, other),
                (true, None) => return Err(NOT_THERE),
                (false, _) => self.tree.take(old_place.0, &old_place.1),
            }
            self.tree.put(new_place.0, &new_place.1, node);
            if exchanges {
                let aside = b"\0".as_slice();
                self.moved(&from, aside);
                self.moved(&to, &from);
                self.moved(aside, &to);
            } else {
                self.moved(&from, &to);
            }
        }
        let (from, to) = (quoted(&from), quoted(&to));
        self.step(
            match flags {
                "0" => format!("rename({from}, {to})"),
                flags => format!("renameat2(AT_FDCWD, {from}, AT_FDCWD, {to}, {flags})"),
            },
            &[],
        );
        Ok(())
    }

    /// chmod(2) and its like, of something that is there.
    fn attribute(
        &mut self,
        pid: i32,
        place: (Option<&str>, &str),
        call: &str,
        rest: &str,
    ) -> Result<(), Left> {
        let path = self.path(pid, place.0, place.1)?;
        let node = there(self.tree.find(&path, false))?;
        if let (Kind::Link(_), "chown") = (self.tree.kind(node), call) {
            return Err(UNSAYABLE);
        }
        there(self.tree.find(&path, true))?;
        if call == "truncate" {
            self.changed.insert(last_name(&path));
        }
        if call == "chown" {
            self.requires.insert("root");
        }
        self.step(format!("{call}({}, {rest})", quoted(&path)), &[]);
        Ok(())
    }

    fn set_attribute(&mut self, call: &Call) -> Result<(), Left> {
        let path = self.path(call.pid, None, call.argument(0))?;
        there(self.tree.find(&path, true))?;
        let name = line::string(call.argument(1)).ok_or(UNREADABLE)?;
        let value = line::string(call.argument(2)).ok_or(UNREADABLE)?;
        if !name.starts_with(b"user.") {
            return Err(UNSAYABLE);
        }
        self.requires.insert("user_xattr");
        let (path, name, value) = (quoted(&path), quoted(&name), quoted(&value));
        let flags = call.argument(4);
        self.step(format!("setxattr({path}, {name}, {value}, {flags})"), &[]);
        Ok(())
    }

    fn utimensat(&mut self, call: &Call) -> Result<(), Left> {
        let [dirfd, path, times, flags] = [0, 1, 2, 3].map(|index| call.argument(index));
        if path == "NULL" {
            let file = self.file(call.pid, dirfd).ok_or(OUTSIDE)?;
            let name = self.file_name(file).ok_or(OUTSIDE)?;
            self.step(format!("utimensat({name}, NULL, {times}, 0)"), &[&name]);
            return Ok(());
        }
        self.times(call.pid, (Some(dirfd), path), times, flags)
    }

    fn times(
        &mut self,
        pid: i32,
        place: (Option<&str>, &str),
        times: &str,
        flags: &str,
    ) -> Result<(), Left> {
        let path = self.path(pid, place.0, place.1)?;
        let follow = !flags.contains("AT_SYMLINK_NOFOLLOW");
        there(self.tree.find(&path, follow))?;
        let path = quoted(&path);
        self.step(
            format!("utimensat(AT_FDCWD, {path}, {times}, {flags})"),
            &[],
        );
        Ok(())
    }
}
