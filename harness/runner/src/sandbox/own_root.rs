//! A root directory for a subject that is the first process of its own mount and pid namespaces, as
//! the first process of a container is.
//!
//! It holds what the sandbox has, by the same paths, and nothing else of the host: its root
//! filesystem, devices, control files, world and the program, each a mount that a checkpoint takes
//! for one from outside (`--external`), and a `/proc` of its own.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, chdir, pivot_root};

use super::inner;
use super::world::World;
use crate::engine;

/// The directory, and the mounts in it.
#[derive(Debug)]
pub struct OwnRoot {
    root: PathBuf,
    /// Paths, the same on both sides, of what comes from outside.
    mounts: Vec<PathBuf>,
    program: PathBuf,
}

impl OwnRoot {
    /// Binds everything into place, in the sandbox's mount namespace.
    ///
    /// # Errors
    ///
    /// A sentence: what could not be mounted.
    pub(super) fn make(world: &World, program: &Path) -> Result<Self, String> {
        let base = world.control.parent().unwrap_or(Path::new("/"));
        let filesystem = world.root.parent().unwrap_or(Path::new("/"));
        let own = Self {
            root: base.join("root"),
            mounts: [base, filesystem, &base.join("program"), Path::new("/dev")]
                .map(Path::to_path_buf)
                .into(),
            program: base.join("program"),
        };
        fs::create_dir(&own.root).map_err(|error| format!("{}: {error}", own.root.display()))?;
        fs::write(&own.program, b"")
            .map_err(|error| format!("{}: {error}", own.program.display()))?;
        bind(program, &own.program)?;
        bind(Path::new("/"), &own.root)?;
        for path in &own.mounts {
            bind(path, &own.inside(path))?;
        }
        Ok(own)
    }

    /// Starts the subject in namespaces of its own.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub(super) fn start(&self, files: [&Path; 2], world: &Path) -> Result<Pid, String> {
        let failed = |what: &'static str| move |errno| format!("{what}: {errno}");
        let here = fs::File::open("/proc/self/ns/pid")
            .map_err(|error| format!("/proc/self/ns/pid: {error}"))?;
        unshare(CloneFlags::CLONE_NEWPID).map_err(failed("unshare"))?;
        let args = [
            Path::new(inner::OWN_ROOT),
            &self.root,
            &self.program,
            world,
            files[0],
            files[1],
        ];
        let started = engine::start_program(&self.program, &args, world);
        // Later children, the programs of the engine, belong beside this process again.
        setns(here, CloneFlags::CLONE_NEWPID).map_err(failed("setns"))?;
        started
    }

    /// What CRIU has to be told of the mounts from outside.
    #[must_use]
    pub fn options(&self, half: &str) -> Vec<String> {
        let mut options = Vec::new();
        for (index, path) in self.mounts.iter().enumerate() {
            let path = path.display();
            options.push("--external".to_owned());
            options.push(match half {
                "dump" => format!("mnt[{path}]:m{index}"),
                _ => format!("mnt[m{index}]:{path}"),
            });
        }
        if half != "dump" {
            options.extend(["--root".to_owned(), self.root.display().to_string()]);
        }
        options
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// In the new process: takes the directory for its root, with a `/proc` that shows its own pid
/// namespace. What is left of the old root is out of reach.
///
/// # Errors
///
/// A sentence: the call that failed.
pub(super) fn enter(root: &Path) -> Result<(), String> {
    let failed = |what: &'static str| move |errno| format!("{what}: {errno}");
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare"))?;
    chdir(root).map_err(failed("chdir"))?;
    pivot_root(".", ".").map_err(failed("pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("umount2"))?;
    chdir("/").map_err(failed("chdir"))?;
    let guards = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), guards, None::<&str>).map_err(failed("mount /proc"))
}

/// The world of a subject, as it is reached from here: by the root directory of the subject, so that
/// mounts of its own are seen too.
#[must_use]
pub(super) fn reach(subject: Pid, world: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{subject}/root"));
    root.join(world.strip_prefix("/").unwrap_or(world))
}

fn bind(from: &Path, to: &Path) -> Result<(), String> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|errno| format!("bind {} on {}: {errno}", from.display(), to.display()))
}
