//! What other watchers are bound to hear of a restore in a new process, as a budget: each file and
//! ghost that was open at the cut allows so many events of such a kind, and no more.

use fsnotify::inotify::Mask;
use scenario::{Bystander, Bytes, Descriptor, DescriptorKind, Fact, Object};

use super::binds::Binds;
use crate::invariant::Unavoidable;

/// Events that are allowed and were not heard yet.
#[derive(Debug)]
pub(super) struct Allowances(Vec<Allowance>, Binds);

#[derive(Debug)]
struct Allowance {
    rule: Unavoidable,
    watched: Watched,
    /// Any one of these.
    bits: u32,
    left: u32,
}

/// Who hears it, and with what name.
#[derive(Debug)]
enum Watched {
    /// A watch on this object, without a name.
    Itself(Object),
    /// A watch on the directory at this path, with this name.
    Parent(Vec<u8>, Vec<u8>),
    /// A watch on any directory, with the hidden name of a directory: where ghosts are made. Only
    /// the root of a filesystem is sure to be on it, and it may be watched.
    Stage,
    /// A watch on an object that goes by another name here, without a name.
    OtherName,
    /// Any watch: the object has names that are not known here.
    Any,
    Filesystem,
}

const ATTRIB: u32 = 0x4;
const MODIFY: u32 = 0x2;
const CLOSE_WRITE: u32 = 0x8;
const CLOSE_NOWRITE: u32 = 0x10;
const OPEN: u32 = 0x20;
const MOVED_FROM: u32 = 0x40;
const MOVED_TO: u32 = 0x80;
const CREATE: u32 = 0x100;
const DELETE: u32 = 0x200;
const DELETE_SELF: u32 = 0x400;
const MOVE_SELF: u32 = 0x800;
const ISDIR: u32 = 0x4000_0000;

const O_ACCMODE: u32 = 0o3;
const O_PATH: u32 = 0o10_000_000;
/// The bit of `O_TMPFILE` that no other flag has.
const O_TMPFILE: u32 = 0o20_000_000;

impl Allowances {
    /// The allowances of a cut, from the survey at it.
    pub(super) fn of(survey: &[Fact], binds: Binds) -> Self {
        let mut allowances = Self(Vec::new(), binds);
        // Objects that a descriptor with `O_TMPFILE` is of: that one makes them again.
        let descriptors = survey.iter().filter_map(|fact| match fact {
            Fact::Descriptor(descriptor) if descriptor.flags & O_TMPFILE != 0 => Some(descriptor),
            _ => None,
        });
        let made: Vec<Object> = descriptors
            .map(|descriptor| allowances.1.resolve(&descriptor.object))
            .collect();
        for fact in survey {
            if let Fact::WorkingDirectory { object, .. } = fact {
                allowances.add_working_directory(survey, object);
            }
            if let Fact::Descriptor(descriptor) = fact {
                let object = allowances.1.resolve(&descriptor.object);
                let descriptor = Descriptor {
                    object,
                    ..descriptor.clone()
                };
                allowances.add(&descriptor);
                if !made.contains(&descriptor.object) {
                    allowances.add_maker(&descriptor);
                }
            }
        }
        allowances
    }

    /// Takes an event off the budget; the rule that allows it, none if no rule does.
    pub(super) fn take(&mut self, heard: &Bystander) -> Option<Unavoidable> {
        let watched = heard.watched.as_ref().map(|object| self.1.resolve(object));
        let heard = &Bystander {
            watched,
            ..heard.clone()
        };
        let Mask(mask) = heard.mask;
        let single = |bit: &u32| mask & !ISDIR & bit != 0;
        let bits: Vec<u32> = (0..32).map(|shift| 1 << shift).filter(single).collect();
        let mut found: Vec<usize> = Vec::new();
        for bit in bits {
            let fits = |(index, it): &(usize, &Allowance)| {
                let n_taken = found.iter().filter(|taken| *taken == index).count();
                it.bits & bit != 0
                    && usize::try_from(it.left).is_ok_and(|left| left > n_taken)
                    && it.watched.hears(heard)
            };
            found.push(self.0.iter().enumerate().find(fits)?.0);
        }
        for index in &found {
            self.0[*index].left -= 1;
        }
        let rule = self.0[*found.first()?].rule;
        let is_stage = |index: &usize| matches!(self.0[*index].watched, Watched::Stage);
        if found.iter().any(is_stage) {
            self.add_stage(heard);
        }
        Some(rule)
    }

    fn add(&mut self, descriptor: &Descriptor) {
        let is_file = match descriptor.kind {
            DescriptorKind::Regular
            | DescriptorKind::Directory
            | DescriptorKind::Fifo
            | DescriptorKind::Socket
            | DescriptorKind::Symlink
            | DescriptorKind::Device => true,
            DescriptorKind::Inotify
            | DescriptorKind::Fanotify
            | DescriptorKind::Epoll
            | DescriptorKind::Other => false,
        };
        if !is_file || descriptor.shared_with.is_some() {
            return;
        }
        if descriptor.flags & O_PATH == 0 {
            self.add_reopening(descriptor);
        }
        if let Object::Ghost(path) = &descriptor.object {
            let n_links = descriptor.stat.as_ref().map_or(0, |stat| stat.nlink);
            self.add_ghost(path, descriptor.kind, n_links);
            if has_rights(descriptor) {
                for watched in [Watched::in_parent(path), Watched::Filesystem] {
                    self.push(Unavoidable::Rights, ATTRIB, 1, watched);
                }
            }
        }
    }

    /// A removed directory that a process is in is made again like one that a descriptor holds, and
    /// once if both do.
    fn add_working_directory(&mut self, survey: &[Fact], object: &Object) {
        let is_held = survey.iter().any(
            |fact| matches!(fact, Fact::Descriptor(descriptor) if descriptor.object == *object),
        );
        if let (Object::Ghost(path), false) = (self.1.resolve(object), is_held) {
            self.add_ghost(&path, DescriptorKind::Directory, 0);
        }
    }

    fn add_reopening(&mut self, descriptor: &Descriptor) {
        let writes = matches!(descriptor.flags & O_ACCMODE, 1 | 2);
        let close = if writes { CLOSE_WRITE } else { CLOSE_NOWRITE };
        for (rule, bits) in [(Unavoidable::Close, close), (Unavoidable::Open, OPEN)] {
            self.push(rule, bits, 1, Watched::Filesystem);
            self.push(rule, bits, 1, Watched::Itself(descriptor.object.clone()));
            if let Object::Path(path) | Object::Ghost(path) = &descriptor.object {
                self.push(rule, bits, 1, Watched::in_parent(path));
            }
            // Of several names of one file others watch by one.
            let n_links = descriptor.stat.as_ref().map_or(0, |stat| stat.nlink);
            let n_own = u64::from(matches!(descriptor.object, Object::Path(_)));
            if n_links > n_own && descriptor.kind != DescriptorKind::Directory {
                self.push(rule, bits, 1, Watched::OtherName);
            }
        }
    }

    fn add_ghost(&mut self, path: &Bytes, kind: DescriptorKind, n_links: u64) {
        let itself = || Watched::Itself(Object::Ghost(path.clone()));
        self.push(
            Unavoidable::GhostName,
            MOVED_TO | CREATE,
            1,
            Watched::in_parent(path),
        );
        self.push(Unavoidable::GhostName, DELETE, 1, Watched::in_parent(path));
        self.push(
            Unavoidable::GhostName,
            MOVED_TO | CREATE,
            1,
            Watched::Filesystem,
        );
        self.push(Unavoidable::GhostName, DELETE, 1, Watched::Filesystem);
        for bits in [
            CREATE,
            OPEN,
            MODIFY,
            ATTRIB,
            CLOSE_WRITE,
            CLOSE_NOWRITE,
            MOVED_FROM,
            DELETE,
            CREATE,
            DELETE,
            DELETE_SELF,
        ] {
            self.push(Unavoidable::GhostStage, bits, 1, Watched::Filesystem);
        }
        // An unlinked directory keeps a link of its own: nobody else names it.
        if n_links > 0 && kind != DescriptorKind::Directory {
            for watched in [itself(), Watched::OtherName] {
                self.push(Unavoidable::GhostName, MOVE_SELF, 1, watched);
            }
            self.push(Unavoidable::GhostLink, ATTRIB, 2, Watched::Any);
            self.push(Unavoidable::GhostLink, ATTRIB, 2, Watched::Filesystem);
        } else {
            for bits in [ATTRIB, DELETE_SELF, Mask::IGNORED.0] {
                self.push(Unavoidable::GhostDestroyed, bits, 1, itself());
            }
            // Of a directory, whoever watches the whole filesystem is told as well.
            if kind == DescriptorKind::Directory {
                let rule = Unavoidable::GhostDestroyed;
                self.push(rule, DELETE_SELF, 1, Watched::Filesystem);
            }
        }
        self.push(Unavoidable::GhostStage, CREATE, 1, Watched::Stage);
        if is_unnamed(path) {
            for bits in [MODIFY, ATTRIB] {
                self.push(Unavoidable::Unnamed, bits, 1, Watched::in_parent(path));
            }
        }
        self.add_taken_name(path);
        self.add_parent_times(parent(&path.0));
        // A directory of it may be gone as well: it comes and goes like the ghost.
        let mut gone = parent(&path.0);
        while !gone.is_empty() {
            let directory = Bytes::from(gone);
            for watched in [Watched::in_parent(&directory), Watched::Filesystem] {
                self.push(Unavoidable::GhostName, DELETE, 1, watched);
            }
            for watched in [Watched::in_parent(&directory), Watched::Filesystem] {
                self.push(Unavoidable::GhostName, MOVED_TO | CREATE, 1, watched);
            }
            for bits in [CREATE, MOVED_FROM, DELETE_SELF] {
                self.push(Unavoidable::GhostStage, bits, 1, Watched::Filesystem);
            }
            self.add_taken_name(&directory);
            gone = parent(gone);
            self.add_parent_times(gone);
        }
    }

    /// Who makes a file that never had a name, where no descriptor of it did.
    fn add_maker(&mut self, descriptor: &Descriptor) {
        let Object::Ghost(path) = &descriptor.object else {
            return;
        };
        if is_unnamed(path) && descriptor.shared_with.is_none() {
            for bits in [OPEN, CLOSE_WRITE] {
                self.push(Unavoidable::Unnamed, bits, 1, Watched::in_parent(path));
            }
        }
    }

    /// The directory that ghosts are made in was heard made: it goes again, and the times of what
    /// it is in are put back.
    fn add_stage(&mut self, heard: &Bystander) {
        let Some(object @ Object::Path(path)) = &heard.watched else {
            return;
        };
        let name = heard.name.0.clone();
        let rule = Unavoidable::GhostStage;
        self.push(rule, DELETE, 1, Watched::Parent(path.0.clone(), name));
        self.push(rule, ATTRIB, 1, Watched::Itself(object.clone()));
        self.push(rule, ATTRIB, 1, Watched::in_parent(path));
    }

    /// Another file may have the name by now.
    fn add_taken_name(&mut self, path: &Bytes) {
        for bits in [MOVED_FROM, MOVED_TO] {
            self.push(Unavoidable::NameTaken, bits, 1, Watched::in_parent(path));
            self.push(Unavoidable::NameTaken, bits, 1, Watched::Filesystem);
        }
        let other = Watched::Itself(Object::Path(path.clone()));
        self.push(Unavoidable::NameTaken, MOVE_SELF, 2, other);
        self.push(Unavoidable::NameTaken, MOVE_SELF, 2, Watched::Filesystem);
    }

    fn add_parent_times(&mut self, parent: &[u8]) {
        for object in [
            Object::Path(Bytes::from(parent)),
            Object::Ghost(Bytes::from(parent)),
        ] {
            self.push(Unavoidable::GhostParent, ATTRIB, 1, Watched::Itself(object));
        }
        self.push(
            Unavoidable::GhostParent,
            ATTRIB,
            1,
            Watched::in_parent(&Bytes::from(parent)),
        );
        self.push(Unavoidable::GhostParent, ATTRIB, 1, Watched::Filesystem);
    }

    fn push(&mut self, rule: Unavoidable, bits: u32, left: u32, watched: Watched) {
        self.0.push(Allowance {
            rule,
            watched,
            bits,
            left,
        });
    }
}

impl Watched {
    fn in_parent(path: &Bytes) -> Self {
        let name = path
            .0
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default();
        Self::Parent(parent(&path.0).to_vec(), name.to_vec())
    }

    fn hears(&self, heard: &Bystander) -> bool {
        match (self, &heard.watched) {
            (Self::Filesystem, None) | (Self::Any, Some(_)) => true,
            (Self::OtherName, Some(_)) => heard.name.0.is_empty() && heard.mask.0 & ISDIR == 0,
            (Self::Stage, Some(_)) => heard.mask.0 & ISDIR != 0 && heard.name.0.starts_with(b"."),
            (Self::Itself(object), Some(watched)) => object == watched && heard.name.0.is_empty(),
            (Self::Parent(directory, name), Some(Object::Path(path) | Object::Ghost(path))) => {
                let root = |path: &[u8]| matches!(path, b"" | b"." | b"/");
                let same = path.0 == *directory || root(&path.0) && root(directory);
                same && heard.name.0 == *name
            }
            _ => false,
        }
    }
}

/// Whether a ghost has what gives rights to whoever opens or runs it.
fn has_rights(descriptor: &Descriptor) -> bool {
    const SET_IDS: u32 = 0o6000;
    let is_directory = descriptor.kind == DescriptorKind::Directory;
    let of_kernel =
        |name: &Bytes| name.0.starts_with(b"security.") || name.0.starts_with(b"trusted.");
    descriptor.kind == DescriptorKind::Device
        || descriptor.stat.as_ref().is_some_and(|stat| {
            stat.mode & SET_IDS != 0 && !is_directory
                || stat.xattrs.iter().any(|(name, _)| of_kernel(name))
        })
}

/// The directory of a path; empty for the root of the world.
fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => &path[..slash],
        None => b"",
    }
}

/// Whether it is a file that never had a name: facts leave the number out that stands for it.
fn is_unnamed(path: &Bytes) -> bool {
    path.0.ends_with(b"/#") || path.0 == b"#"
}
