//! From what has to happen to system calls, on a filesystem where every object waits in one
//! directory: it is put where it is wanted, something happens to it while a mark listens for just
//! that, and everything is put back. So one event needs nothing of another.

use std::collections::HashMap;
use std::ffi::CString;

use super::plan::Happening;
use super::scene::{self, Entry, Inode, Scene};
use crate::ext4::ROOT;

/// A system call, below the root of the filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// fanotify_mark(2) with these flags and this mask, on a directory.
    Mark(u32, u64, CString),
    /// Opened with these flags; there is one such descriptor at a time.
    Open(CString, i32),
    Close,
    /// Opened as execve(2) does.
    Execute(CString),
    Link(CString, CString),
    Unlink(CString),
    RemoveFolder(CString),
    Rename(CString, CString),
    MakeFile(CString),
    MakeFolder(CString),
    ChangeMode(CString),
    Accessed(CString),
    Modified(CString),
    Generation(CString, u32),
    /// The path leads to this inode.
    Is(CString, u32),
}

/// What the objects are at present.
#[derive(Clone, Debug)]
pub(super) struct State {
    home: Vec<u8>,
    /// Whether it is a directory, and its generation if known.
    objects: HashMap<u32, (bool, Option<u32>)>,
}

const FILESYSTEM: u32 = libc::FAN_MARK_FILESYSTEM;
const INODE: u32 = libc::FAN_MARK_INODE;

impl State {
    /// Of files in a directory of the root, each called by its number.
    pub(super) fn new(home: &[u8], files: impl Iterator<Item = u32>) -> Self {
        let mut objects: HashMap<_, _> = files.map(|ino| (ino, (false, None))).collect();
        objects.insert(ROOT, (true, None));
        Self {
            home: home.to_vec(),
            objects,
        }
    }

    /// The calls that make an event, each act of which adds its bit to it.
    pub(super) fn script(&mut self, happening: &Happening) -> Vec<Step> {
        let mut steps = Vec::new();
        for (bit, scene) in &happening.acts {
            self.set(scene, happening.folder, &mut steps);
            self.act((*bit, happening.folder), scene, &mut steps);
        }
        steps
    }

    /// Gives all objects their types and generations.
    fn set(&mut self, scene: &Scene, folder: bool, steps: &mut Vec<Step>) {
        let object = match scene {
            Scene::Alone(object) | Scene::Parentless(object) => Some(object),
            Scene::Entry(_, object) | Scene::Renamed { object, .. } => object.as_ref(),
        };
        for inode in scene.inodes() {
            let folder = folder || object != Some(&inode);
            self.set_one(inode, folder, steps);
        }
    }

    fn set_one(&mut self, inode: Inode, folder: bool, steps: &mut Vec<Step>) {
        let Inode { ino, generation } = inode;
        let path = self.path(ino);
        let (is_folder, has) = self.objects[&ino];
        if is_folder != folder {
            let spare = self.spare();
            steps.push(Step::MakeFile(spare.clone()));
            steps.push(remove(is_folder, path.clone()));
            steps.push(make(folder, path.clone()));
            steps.push(Step::Is(path.clone(), ino));
            steps.push(Step::Unlink(spare));
        }
        if is_folder != folder || has != Some(generation) {
            steps.push(Step::Generation(path, generation));
        }
        self.objects.insert(ino, (folder, Some(generation)));
    }

    fn act(&mut self, (bit, folder): (u64, bool), scene: &Scene, steps: &mut Vec<Step>) {
        match scene {
            Scene::Alone(object) => {
                let path = self.path(object.ino);
                match bit {
                    libc::FAN_DELETE_SELF => self.delete(*object, folder, steps),
                    libc::FAN_MOVE_SELF => {
                        let moved = self.moved();
                        let there = Step::Rename(path.clone(), moved.clone());
                        heard((bit, folder), there, steps);
                        steps.push(Step::Rename(moved, path));
                    }
                    _ => use_object((bit, folder), path, steps),
                }
            }
            Scene::Parentless(object) => match bit {
                // The count of links changes without a word of a directory.
                libc::FAN_ATTRIB => {
                    let moved = self.moved();
                    let link = Step::Link(self.path(object.ino), moved.clone());
                    heard((bit, folder), link, steps);
                    steps.push(Step::Unlink(moved));
                }
                _ => self.act((bit, folder), &Scene::Alone(*object), steps),
            },
            Scene::Entry(entry, object) => self.at_entry((bit, folder), entry, *object, steps),
            Scene::Renamed { from, to, object } => {
                let moved = self.moved();
                let path = |side: &Option<Entry>| {
                    let entry = side.as_ref();
                    entry.map_or(moved.clone(), |entry| self.entry(entry))
                };
                let (before, after) = (path(from), path(to));
                // A mark on all of the filesystem is told of both sides.
                let (kind, on) = match (from, to) {
                    (Some(only), None) | (None, Some(only)) => (INODE, self.path(only.folder.ino)),
                    _ => (FILESYSTEM, c".".to_owned()),
                };
                self.put(folder, *object, &before, steps);
                let rename = Step::Rename(before, after.clone());
                listen((bit, folder), (kind, on), vec![rename], steps);
                self.take(folder, *object, after, steps);
            }
        }
    }

    fn at_entry(
        &mut self,
        (bit, folder): (u64, bool),
        entry: &Entry,
        object: Option<Inode>,
        steps: &mut Vec<Step>,
    ) {
        let (path, moved) = (self.entry(entry), self.moved());
        match (bit, object) {
            (scene::CREATE, Some(object)) => {
                let link = Step::Link(self.path(object.ino), path.clone());
                heard((bit, folder), link, steps);
                steps.push(Step::Unlink(path));
            }
            (scene::CREATE, None) => {
                heard((bit, folder), make(folder, path.clone()), steps);
                steps.push(remove(folder, path));
            }
            (scene::DELETE, Some(object)) if folder => {
                steps.push(Step::MakeFile(self.spare()));
                self.put(folder, Some(object), &path, steps);
                heard((bit, folder), Step::RemoveFolder(path), steps);
                self.again(object, folder, steps);
            }
            (scene::DELETE, object) => {
                self.put(folder, object, &path, steps);
                heard((bit, folder), remove(folder, path), steps);
            }
            (scene::MOVED_FROM, object) => {
                self.put(folder, object, &path, steps);
                let rename = Step::Rename(path, moved.clone());
                heard((bit, folder), rename, steps);
                self.take(folder, object, moved, steps);
            }
            (scene::MOVED_TO, object) => {
                self.put(folder, object, &moved, steps);
                heard((bit, folder), Step::Rename(moved, path.clone()), steps);
                self.take(folder, object, path, steps);
            }
            (_, object) => {
                self.put(folder, object, &path, steps);
                use_object((bit, folder), path.clone(), steps);
                self.take(folder, object, path, steps);
            }
        }
    }

    /// Lets an object go for good, and makes another with its number.
    fn delete(&mut self, object: Inode, folder: bool, steps: &mut Vec<Step>) {
        steps.push(Step::MakeFile(self.spare()));
        let removal = remove(folder, self.path(object.ino));
        heard((libc::FAN_DELETE_SELF, folder), removal, steps);
        self.again(object, folder, steps);
    }

    /// An object that is gone: as its number is the only one that is free, it gets it.
    fn again(&mut self, object: Inode, folder: bool, steps: &mut Vec<Step>) {
        let path = self.path(object.ino);
        steps.push(make(folder, path.clone()));
        steps.push(Step::Is(path, object.ino));
        steps.push(Step::Unlink(self.spare()));
        self.objects.insert(object.ino, (folder, None));
    }

    /// Puts an object somewhere; any, if none is said.
    fn put(&self, folder: bool, object: Option<Inode>, path: &CString, steps: &mut Vec<Step>) {
        let path = path.clone();
        steps.push(match object {
            None => make(folder, path),
            Some(object) if folder => Step::Rename(self.path(object.ino), path),
            Some(object) => Step::Link(self.path(object.ino), path),
        });
    }

    /// Takes away what [`State::put`] put there.
    fn take(&self, folder: bool, object: Option<Inode>, path: CString, steps: &mut Vec<Step>) {
        steps.push(match object {
            Some(object) if folder => Step::Rename(path, self.path(object.ino)),
            _ => remove(folder, path),
        });
    }

    fn path(&self, ino: u32) -> CString {
        match ino {
            ROOT => c".".to_owned(),
            _ => self.in_home(ino.to_string().as_bytes()),
        }
    }

    fn entry(&self, entry: &Entry) -> CString {
        let mut path = self.path(entry.folder.ino).into_bytes();
        path.push(b'/');
        path.extend_from_slice(&entry.name);
        CString::new(path).expect("names were checked")
    }

    /// Whatever takes the one number that is always free.
    fn spare(&self) -> CString {
        self.in_home(b"spare")
    }

    fn moved(&self) -> CString {
        self.in_home(b"moved")
    }

    fn in_home(&self, name: &[u8]) -> CString {
        CString::new([&self.home, &b"/"[..], name].concat()).expect("no NUL")
    }
}

fn make(folder: bool, path: CString) -> Step {
    if folder {
        Step::MakeFolder(path)
    } else {
        Step::MakeFile(path)
    }
}

fn remove(folder: bool, path: CString) -> Step {
    if folder {
        Step::RemoveFolder(path)
    } else {
        Step::Unlink(path)
    }
}

fn use_object((bit, folder): (u64, bool), path: CString, steps: &mut Vec<Step>) {
    let read = libc::O_RDONLY | if folder { libc::O_DIRECTORY } else { 0 };
    let event = (bit, folder);
    match bit {
        libc::FAN_ACCESS => heard(event, Step::Accessed(path), steps),
        libc::FAN_MODIFY => heard(event, Step::Modified(path), steps),
        libc::FAN_ATTRIB => heard(event, Step::ChangeMode(path), steps),
        libc::FAN_OPEN_EXEC => heard(event, Step::Execute(path), steps),
        libc::FAN_OPEN => {
            heard(event, Step::Open(path, read), steps);
            steps.push(Step::Close);
        }
        libc::FAN_CLOSE_WRITE => {
            steps.push(Step::Open(path, libc::O_WRONLY));
            heard(event, Step::Close, steps);
        }
        _ => {
            steps.push(Step::Open(path, read));
            heard(event, Step::Close, steps);
        }
    }
}

/// A step that is heard, as an event with this bit, on a directory or not.
fn heard(event: (u64, bool), step: Step, steps: &mut Vec<Step>) {
    listen(event, (FILESYSTEM, c".".to_owned()), vec![step], steps);
}

fn listen(
    (bit, folder): (u64, bool),
    (kind, on): (u32, CString),
    heard: Vec<Step>,
    steps: &mut Vec<Step>,
) {
    let mask = bit | if folder { libc::FAN_ONDIR } else { 0 };
    steps.push(Step::Mark(libc::FAN_MARK_ADD | kind, mask, on.clone()));
    steps.extend(heard);
    steps.push(Step::Mark(libc::FAN_MARK_REMOVE | kind, mask, on));
}
