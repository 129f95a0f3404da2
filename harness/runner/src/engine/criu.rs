//! The engine `criu`: `criu dump` and `criu restore` of the whole process tree.
//!
//! In the flavour `host` CRIU runs beside the subject, in the namespaces of the sandbox, so it dumps no
//! namespace: the mounts and the pid namespace stay. In the flavour `ns` the subject is the first
//! process of a mount and a pid namespace of its own, as a container's is, and they are dumped and
//! made again with it; the filesystems that it had from outside are passed in again. Its log is
//! read for what it says went wrong, and its images for the side on which something was lost.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use scenario::Loss;
use serde::{Deserialize, Serialize};

use super::programs::{self, Before, Failure, FailureKind, Half};
use super::{Cut, CutError, Workshop};
use crate::criu_images::Images;

mod log;
mod version;

pub use version::is_newer;
pub(super) use version::is_within;

/// A CRIU, and what it said when it was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Criu {
    pub program: PathBuf,
    pub flavour: Flavour,
    /// Its version; or why it cannot be used, in its own words.
    pub probe: Result<String, String>,
}

/// Where the subject lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Flavour {
    /// In the namespaces of the harness's sandbox, which stay.
    #[default]
    Host,
    /// In mount and pid namespaces of its own, which are dumped and made again with it.
    Ns,
}

impl Criu {
    /// The CRIU that the variable `CRIU` names, or the one in `PATH`.
    #[must_use]
    pub fn from_environment() -> Self {
        let program = std::env::var_os("CRIU").filter(|value| !value.is_empty());
        Self::at(program.map_or_else(|| PathBuf::from("criu"), PathBuf::from))
    }

    /// One that is only spoken of: no program is started.
    #[must_use]
    pub fn unprobed() -> Self {
        Self {
            program: PathBuf::from("criu"),
            flavour: Flavour::Host,
            probe: Err("not tried".to_owned()),
        }
    }

    /// Tries the program, once in the life of this process.
    #[must_use]
    pub fn at(program: PathBuf) -> Self {
        static PROBED: OnceLock<Mutex<Vec<Criu>>> = OnceLock::new();
        let probed = PROBED.get_or_init(Mutex::default);
        let mut probed = probed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(criu) = probed.iter().find(|criu| criu.program == program) {
            return criu.clone();
        }
        let program_found = which(&program);
        let criu = Self {
            probe: probe(&program_found),
            flavour: Flavour::Host,
            program: program_found,
        };
        probed.push(Self {
            program,
            ..criu.clone()
        });
        criu
    }
}

/// The absolute path: the sandbox works in another directory.
fn which(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return fs::canonicalize(program).unwrap_or_else(|_| program.to_path_buf());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| program.to_path_buf())
}

fn probe(program: &Path) -> Result<String, String> {
    let run = |arg: &str| {
        Command::new(program)
            .args(["--no-default-config", arg])
            .output()
            .map_err(|error| format!("{}: {error}", program.display()))
    };
    let output = run("--version")?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = version::of_words(&words)
        .map(str::to_owned)
        .ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("{} --version: {}", program.display(), said.trim())
        })?;
    let check = run("check")?;
    if check.status.success() {
        return Ok(version);
    }
    let said = String::from_utf8_lossy(&check.stderr);
    let errors = log::errors(&said, &log::Key::default());
    Err(format!("criu {version} check: {}", errors.join("; ")))
}

/// Cuts with CRIU.
pub(super) fn cut(shop: &Workshop, criu: &Criu) -> Result<Cut, CutError> {
    if let Err(reason) = &criu.probe {
        return Err(CutError::Skip(reason.clone()));
    }
    let before = Before::look(shop)?;
    let key = log::Key {
        names: programs::names(shop, &before),
        watches: programs::watches(&before),
        opened: programs::opened(shop, &before),
        world: shop.world.to_string_lossy().into_owned(),
    };
    let remade = remade(shop);
    let half = |name: &'static str| {
        let mut command = Command::new(&criu.program);
        command.args(["--no-default-config", name, "--images-dir"]);
        command.arg(shop.images);
        command.args(["--log-file", &format!("{name}.log"), "-v4"]);
        match name {
            "dump" => command.args(["--tree", &shop.subject.to_string()]),
            _ => command.arg("--restore-detached"),
        };
        if let Some(own_root) = shop.own_root {
            command.args(own_root.options(name));
        }
        command.args(shop.criu_opts);
        Half {
            name,
            command,
            said: Box::new(|| log::errors(&read_log(shop, name), &key)),
        }
    };
    programs::dump(shop, &before, half("dump"))
        .map_err(|failure| programs::failed("dump failed", &lines(failure), &[]))?;
    let mut losses = dropped_queues(shop);
    losses.extend(noise(&key));
    losses.extend(remade);
    let subject = programs::restore(shop, &before, half("restore")).map_err(|failure| {
        let notes = programs::attribute(shop, &before, false);
        programs::failed("restore failed", &lines(failure), &notes)
    })?;
    let notes = programs::attribute(shop, &before, true);
    Ok(programs::finished(subject, losses, notes))
}

/// Errors of the log say more than how CRIU ended, but not more than what it left undone.
fn lines(failure: Failure) -> Vec<String> {
    match failure.kind {
        FailureKind::Ended(_) if !failure.said.is_empty() => failure.said,
        FailureKind::Ended(what) | FailureKind::Seen(what) => {
            std::iter::once(what).chain(failure.said).collect()
        }
    }
}

fn read_log(shop: &Workshop, name: &str) -> String {
    let bytes = fs::read(shop.images.join(format!("{name}.log"))).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What every cut by CRIU makes its neighbours hear, whatever the subject does. Only the objects
/// themselves: what a directory hears of a ghost that is made again in it is not declared.
fn noise(key: &log::Key) -> impl Iterator<Item = Loss> {
    let mut objects: Vec<&String> = key.opened.iter().collect();
    objects.sort();
    objects.dedup();
    // A mark on the filesystem hears of all of them.
    let objects = objects.into_iter().map(String::as_str);
    objects.chain(["filesystem"]).map(|object| Loss {
        kind: None,
        invariant: 8,
        object: object.to_owned(),
        reason: "CRIU opens the roots of mounts, working directories and what the subject has open"
            .to_owned(),
    })
}

/// Filesystems that are mounted in a mount namespace which is dumped are made again with it; whoever
/// watches the old ones, which is possible from outside by `/proc/PID/root` alone, hears all of that.
fn remade(shop: &Workshop) -> Vec<Loss> {
    let device = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.dev());
    let (Some(_), Ok(world)) = (shop.own_root, device(shop.reach)) else {
        return Vec::new();
    };
    let names = shop.names.iter();
    let names = names.filter(|name| device(&shop.reach.join(name)).is_ok_and(|dev| dev != world));
    names
        .map(|name| Loss {
            kind: None,
            invariant: 8,
            object: format!("{:?}", name.to_string_lossy()),
            reason: "CRIU makes the filesystems of a dumped mount namespace again".to_owned(),
        })
        .collect()
}

/// CRIU warns of the events that it drops (`dump_one_inotify`): a declaration.
fn dropped_queues(shop: &Workshop) -> Vec<Loss> {
    let Ok(images) = Images::read(shop.images) else {
        return Vec::new();
    };
    log::dropped_queues(&read_log(shop, "dump"))
        .into_iter()
        .filter_map(|file| images.descriptor_of(file))
        .map(|fd| Loss {
            kind: None,
            invariant: 4,
            object: format!("fd {fd}"),
            reason: "CRIU warns that unread events will be dropped".to_owned(),
        })
        .collect()
}
