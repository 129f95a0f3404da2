//! Ways to cut a run in two.
//!
//! An engine is given a parked process tree and gives back a parked process tree, with the same
//! pids, and what it declares lost. It runs inside the sandbox, in the process that reaps the
//! subject. It does not compare, judge or print.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cr::sys::spawn::{Program, fork_bare, spawn};
use nix::unistd::Pid;
use scenario::{Known, Loss};
use serde::{Deserialize, Serialize};
use subject::Start;

use crate::park::Parking;
use crate::sandbox::own_root::OwnRoot;
use crate::sandbox::{Closer, inner};

mod builtin;
mod command;
mod criu;
mod policies;
mod programs;
mod saboteur;

pub use command::Commands;
pub use criu::{Criu, Flavour, is_newer};
pub use policies::{Ghosts, Policies, Queue};
pub use saboteur::Defect;

/// An engine and its settings, as `--engine` names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineSpec {
    /// Hands the parked subject back.
    Control,
    /// Our own dump and restore.
    Builtin,
    /// Our own dump of a subject that runs on: nothing is restored.
    Copy,
    /// Builtin with other policies than its own; two of them are `classic`.
    Policies(Policies),
    /// Builtin with one planted defect.
    Saboteur(Defect),
    /// CRIU.
    Criu(Criu),
    /// Whatever two command lines do.
    Command(Commands),
}

impl EngineSpec {
    /// The name without settings: the word after `known`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Builtin => "builtin",
            Self::Copy => "copy",
            Self::Policies(policies) => policies.name(),
            Self::Saboteur(_) => "saboteur",
            Self::Criu(_) => "criu",
            Self::Command(_) => "command",
        }
    }

    /// The folder of its snapshots.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        match self.flavour() {
            Flavour::Host => self.name(),
            Flavour::Ns => "criu-ns",
        }
    }

    /// Where the subject lives under this engine, and under the control that it is held against.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        match self {
            Self::Criu(criu) => criu.flavour,
            Self::Control
            | Self::Builtin
            | Self::Copy
            | Self::Policies(_)
            | Self::Saboteur(_)
            | Self::Command(_) => Flavour::Host,
        }
    }

    /// The options of `notifreeze run` that choose it, as a shell takes them.
    #[must_use]
    pub fn options(&self) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        match self {
            Self::Control | Self::Builtin | Self::Copy | Self::Saboteur(_) => {
                format!("--engine {self}")
            }
            Self::Policies(policies) => policies.options(),
            Self::Criu(criu) => {
                let program = criu.program.to_string_lossy();
                let flavour = match criu.flavour {
                    Flavour::Host => "",
                    Flavour::Ns => " --criu-flavour ns",
                };
                format!("--engine criu --criu-bin {}{flavour}", quote(&program))
            }
            Self::Command(commands) => format!(
                "--engine command --dump {} --restore {}",
                quote(&commands.dump),
                quote(&commands.restore)
            ),
        }
    }

    /// Whether a `known` header speaks of this engine, in this version.
    #[must_use]
    pub fn is_meant(&self, known: &Known) -> bool {
        (known.engine == self.name() || known.engine == self.folder())
            && match (self, &known.versions) {
                (_, None) => true,
                (Self::Criu(criu), Some(bounds)) => {
                    let version = criu.probe.as_deref();
                    version.is_ok_and(|version| criu::is_within(version, bounds))
                }
                // Of these there is one version.
                (_, Some(_)) => false,
            }
    }

    /// Whether the subject has to be a program started in the sandbox. What a fork has mapped was
    /// mapped outside, in a mount namespace that CRIU does not find in the sandbox.
    #[must_use]
    pub fn takes_programs_alone(&self) -> bool {
        match self {
            Self::Criu(_) | Self::Command(_) => true,
            Self::Control | Self::Builtin | Self::Copy | Self::Policies(_) | Self::Saboteur(_) => {
                false
            }
        }
    }

    /// Why this engine cannot work on this machine; none if it can.
    #[must_use]
    pub fn lacks(&self) -> Option<String> {
        self.criu()?.probe.as_ref().err().cloned()
    }

    /// A program outside this package that the sandbox must not mount over.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        Some(&self.criu()?.program)
    }

    fn criu(&self) -> Option<&Criu> {
        match self {
            Self::Criu(criu) => Some(criu),
            Self::Control
            | Self::Builtin
            | Self::Copy
            | Self::Policies(_)
            | Self::Saboteur(_)
            | Self::Command(_) => None,
        }
    }

    /// Builtin with these policies.
    #[must_use]
    pub fn with(policies: Policies) -> Self {
        if policies == Policies::BUILTIN {
            Self::Builtin
        } else {
            Self::Policies(policies)
        }
    }

    /// Reads `control`, `builtin`, `copy`, `classic`, `saboteur=DEFECT`, `criu`, `criu=PROGRAM`, and `command`, whose
    /// command lines come from elsewhere.
    ///
    /// # Errors
    ///
    /// A sentence that names what is known.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "control" => Ok(Self::Control),
            None if text == "builtin" => Ok(Self::Builtin),
            None if text == "copy" => Ok(Self::Copy),
            None if text == "classic" => Ok(Self::Policies(Policies::CLASSIC)),
            None if text == "criu" => Ok(Self::Criu(Criu::from_environment())),
            Some(("criu", program)) => Ok(Self::Criu(Criu::at(program.into()))),
            None if text == "command" => Ok(Self::Command(Commands::default())),
            Some(("saboteur", defect)) => Defect::parse(defect).map(Self::Saboteur),
            None if text == "saboteur" => Err(format!(
                "saboteur needs a defect: saboteur=DEFECT, one of {}",
                Defect::list()
            )),
            _ => Err(format!(
                "unknown engine {text:?}: one of control, builtin, copy, classic, criu, command, \
                 saboteur=DEFECT"
            )),
        }
    }
}

impl fmt::Display for EngineSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saboteur(defect) => write!(f, "saboteur={}", defect.name()),
            Self::Criu(criu) => {
                f.write_str(self.folder())?;
                match &criu.probe {
                    Ok(version) => write!(f, " {version}"),
                    Err(_) => Ok(()),
                }
            }
            Self::Control | Self::Builtin | Self::Copy | Self::Policies(_) | Self::Command(_) => {
                f.write_str(self.name())
            }
        }
    }
}

/// What an engine has to work with.
#[derive(Debug)]
pub struct Workshop<'a> {
    /// The parked main process.
    pub subject: Pid,
    pub plan: &'a Path,
    pub log: &'a Path,
    /// The root of the world, absolute, as the subject sees it.
    pub world: &'a Path,
    /// The same as this process reaches it.
    pub reach: &'a Path,
    /// An empty directory outside the world for images and logs of this cut.
    pub images: &'a Path,
    /// The root directory that a subject with namespaces of its own has.
    pub own_root: Option<&'a OwnRoot>,
    /// Paths that the scenario names, relative to the world.
    pub names: &'a [PathBuf],
    /// Options of the scenario's `criu-opts` header.
    pub criu_opts: &'a [String],
    pub parking: &'a Parking,
    pub closer: &'a Closer,
}

/// A cut that worked: the parked main process, and what was declared lost.
#[derive(Debug)]
pub struct Cut {
    pub subject: Pid,
    pub losses: Vec<Loss>,
    /// What the engine found out about itself, for whoever reads a failure.
    pub notes: Vec<String>,
}

/// A cut that did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutError {
    /// The engine cannot work here; the subject is unharmed.
    Skip(String),
    /// Dump refused by name; the subject is unharmed.
    Refused(String),
    /// Dump or restore failed.
    Failed(String),
}

/// Cuts.
///
/// # Errors
///
/// [`CutError`].
pub fn cut(spec: &EngineSpec, shop: &Workshop) -> Result<Cut, CutError> {
    match spec {
        EngineSpec::Control => Ok(Cut {
            subject: shop.subject,
            losses: Vec::new(),
            notes: Vec::new(),
        }),
        EngineSpec::Builtin => builtin::cut(shop, Policies::BUILTIN, None),
        EngineSpec::Copy => builtin::copy(shop),
        EngineSpec::Policies(policies) => builtin::cut(shop, *policies, None),
        EngineSpec::Saboteur(defect) => builtin::cut(shop, Policies::BUILTIN, Some(*defect)),
        EngineSpec::Criu(criu) => criu::cut(shop, criu),
        EngineSpec::Command(commands) => command::cut(shop, commands),
    }
}

/// Makes the subject: a fork of this process, which has one thread, with nothing of its but memory.
/// At this pid if one is given.
///
/// # Errors
///
/// A sentence.
pub fn start_subject(
    start: &Start,
    (plan, log): (&Path, &Path),
    world: &Path,
    pid: Option<Pid>,
) -> Result<Pid, String> {
    let child = fork_bare(&c_string(world)?, pid);
    match child.map_err(|error| format!("start the subject: {error}"))? {
        Some(child) => Ok(child),
        None => inner::become_subject(start, plan, log),
    }
}

/// Starts the subject as a program of its own, with these arguments.
///
/// # Errors
///
/// A sentence.
pub fn start_program(notifreeze: &Path, args: &[&Path], world: &Path) -> Result<Pid, String> {
    let mut argv = vec![
        c_string(notifreeze)?,
        c_string(Path::new(inner::SUBCOMMAND))?,
    ];
    for arg in args {
        argv.push(c_string(arg)?);
    }
    let argv: Vec<&CStr> = argv.iter().map(CString::as_c_str).collect();
    spawn(&Program {
        path: argv[0],
        args: &argv,
        dir: &c_string(world)?,
    })
    .map_err(|error| format!("start the subject: {error}"))
}

fn c_string(path: &Path) -> Result<CString, String> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| format!("{path:?}: a NUL in a path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_choose_the_engine_again() {
        let check = |engine: &EngineSpec, expected: &str| assert_eq!(engine.options(), expected);
        check(&EngineSpec::Builtin, "--engine builtin");
        check(&EngineSpec::with(Policies::BUILTIN), "--engine builtin");
        check(&EngineSpec::with(Policies::CLASSIC), "--engine classic");
        let refusing = Policies {
            queue: Queue::Refuse,
            ..Policies::BUILTIN
        };
        let expected = "--engine builtin --queue refuse --ghosts silent";
        check(&EngineSpec::with(refusing), expected);
        let criu = Criu {
            program: "/opt/it's/criu".into(),
            flavour: Flavour::Ns,
            probe: Ok("4.2".to_owned()),
        };
        check(
            &EngineSpec::Criu(criu),
            r"--engine criu --criu-bin '/opt/it'\''s/criu' --criu-flavour ns",
        );
        let commands = Commands {
            dump: "dump {pid}".to_owned(),
            restore: "restore {images}".to_owned(),
        };
        check(
            &EngineSpec::Command(commands),
            "--engine command --dump 'dump {pid}' --restore 'restore {images}'",
        );
    }
}
