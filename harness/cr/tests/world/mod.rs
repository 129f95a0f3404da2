//! A tmpfs of a test's own, in a mount namespace of its own, with a few objects to mark.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cr::fanotify::dump::Places;
use cr::fanotify::plan::Kind;
use cr::fanotify::restore::Objects;
use fsnotify::handle::FileHandle;
use fsnotify::{Ino, Sdev};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Objects `a`, `b`, `c`, `e` (files), `d` (a directory), the root, and a ghost.
#[derive(Debug)]
pub(crate) struct World {
    root: PathBuf,
    paths: Vec<PathBuf>,
    writers: Vec<File>,
    places: Vec<PathBuf>,
    _ghost: File,
}

/// Runs a test in a new world, in a thread of its own; says why not where that is not permitted.
pub(crate) fn in_world(test: &str, run: impl FnOnce(&mut World) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| errno.to_string())?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let none = MsFlags::empty();
        mount(
            Some("world"),
            directory.path(),
            Some("tmpfs"),
            none,
            None::<&str>,
        )
        .unwrap();
        run(&mut World::new(directory.path()));
        nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        Ok(())
    });
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => {
            let reason: String = reason;
            eprintln!("skip {test}: needs a mount namespace of its own: {reason}");
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

pub(crate) fn thread_id() -> i32 {
    nix::unistd::gettid().as_raw()
}

impl World {
    fn new(root: &Path) -> Self {
        let mut paths: Vec<PathBuf> = ["a", "b", "c", "e"].map(|name| root.join(name)).to_vec();
        for path in &paths {
            fs::write(path, "content").unwrap();
        }
        let writers = paths[..3].iter();
        let writers = writers.map(|path| OpenOptions::new().append(true).open(path).unwrap());
        let writers = writers.collect();
        let ghost = File::create_new(root.join("ghost")).unwrap();
        fs::remove_file(root.join("ghost")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        paths.extend([root.join("d"), root.to_owned()]);
        paths.push(PathBuf::from(format!(
            "/proc/self/fd/{}",
            ghost.as_raw_fd()
        )));
        Self {
            root: root.to_owned(),
            paths,
            writers,
            places: Vec::new(),
            _ghost: ghost,
        }
    }

    pub(crate) fn n_objects(&self) -> usize {
        self.paths.len()
    }

    pub(crate) fn file(&self, index: usize) -> &Path {
        &self.paths[index]
    }

    pub(crate) fn path(&self, index: usize) -> CString {
        CString::new(self.paths[index].to_str().unwrap()).unwrap()
    }

    /// Writes to a file that is open all the time: who listens is not asked.
    pub(crate) fn write(&mut self, index: usize) {
        self.writers[index].write_all(b"x").unwrap();
    }

    fn place(&mut self, path: &Path) -> u32 {
        self.places.push(path.to_owned());
        u32::try_from(self.places.len() - 1).unwrap()
    }
}

fn kind(path: &Path) -> Kind {
    if fs::metadata(path).unwrap().is_dir() {
        Kind::Directory
    } else {
        Kind::File
    }
}

impl Places for World {
    fn of_inode(&mut self, ino: Ino, _: Sdev, _: &FileHandle) -> Result<(u32, Kind), String> {
        let found = self
            .paths
            .iter()
            .find(|path| fs::metadata(path).unwrap().ino() == ino.0);
        let path = found.ok_or("none of ours")?.clone();
        Ok((self.place(&path), kind(&path)))
    }

    fn of_path(&mut self, path: &[u8]) -> Result<u32, String> {
        assert_eq!(path, self.root.to_str().unwrap().as_bytes());
        let root = self.root.clone();
        Ok(self.place(&root))
    }

    fn name(&self, place: u32) -> String {
        self.places[place as usize].display().to_string()
    }
}

impl Objects for World {
    fn open(&mut self, place: u32) -> Result<(OwnedFd, Kind), String> {
        let path = &self.places[place as usize];
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path);
        Ok((
            opened.map_err(|error| error.to_string())?.into(),
            kind(path),
        ))
    }
}
