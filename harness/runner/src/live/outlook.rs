//! What a checkpoint would lose or refuse, engine by engine, said beforehand.

use std::collections::BTreeMap;

use cr::DumpErrorKind;
use cr::dump::{Foreseen, foresee};
use nix::unistd::Pid;
use serde::Serialize;

use super::explain::Process;
use super::place::{Name, Target};

mod criu;

pub use criu::of_criu;

/// What an engine would do.
#[derive(Clone, Debug, Serialize)]
pub struct Outlook {
    pub engine: &'static str,
    /// Its version; none if it is not there, and the newest one that is known is spoken of.
    pub version: Option<String>,
    /// What this is about.
    pub note: String,
    pub findings: Vec<Finding>,
}

/// One thing that would not be after a restore what it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub effect: Effect,
    pub pid: i32,
    /// None: the process as a whole.
    pub fd: Option<i32>,
    /// What of it: `wd 3 on /etc`.
    pub object: Option<String>,
    pub why: String,
    /// What to do about it, if anything is known.
    pub advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The dump fails.
    DumpFails,
    /// There is an image, and the restore of it fails.
    RestoreFails,
    /// The restored process lacks it, or has it otherwise.
    Lost,
    /// Perhaps: only the dump finds out.
    MayBeLost,
}

/// The builtin engine, asked for each process. Nothing is taken from them.
#[must_use]
pub fn of_builtin(processes: &[Process]) -> Outlook {
    let mut findings = Vec::new();
    for process in processes {
        if process.groups.is_empty() {
            continue;
        }
        match foresee(Pid::from_raw(process.pid), &cr::DumpOptions::default()) {
            Ok(foreseen) => findings.extend(of_one(process, foreseen)),
            Err(error) => findings.push(Finding {
                effect: Effect::DumpFails,
                pid: process.pid,
                fd: None,
                object: None,
                why: error.to_string(),
                advice: match error.kind {
                    DumpErrorKind::NotSupported(_) if process.elsewhere => Some(format!(
                        "run it where the process lives: nsenter --target {} --mount --root",
                        process.pid
                    )),
                    _ => None,
                },
            }),
        }
    }
    Outlook {
        engine: "builtin",
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        note: "notifreeze dump --only-fsnotify: groups and ghosts, unread events included; \
               nothing else of the process"
            .to_owned(),
        findings,
    }
}

fn of_one(process: &Process, foreseen: Foreseen) -> Vec<Finding> {
    let pid = process.pid;
    let refusals = foreseen.refusals.into_iter().flat_map(|(fd, errors)| {
        errors.into_iter().map(move |error| Finding {
            effect: Effect::DumpFails,
            pid,
            fd: Some(fd),
            object: None,
            advice: advice(process, &error.kind),
            why: {
                let text = error.to_string();
                let prefix = format!("fd {fd}: ");
                text.strip_prefix(&prefix)
                    .map(str::to_owned)
                    .unwrap_or(text)
            },
        })
    });
    let finding = move |effect, (fd, (object, why))| Finding {
        effect,
        pid,
        fd: Some(fd),
        object: Some(object),
        why,
        advice: None,
    };
    let losses = each(foreseen.losses).map(|(fd, loss)| (fd, (loss.object, loss.reason)));
    let losses = losses.map(move |lost| finding(Effect::Lost, lost));
    let doubts = each(foreseen.doubts).map(|(fd, doubt)| (fd, (doubt.object, doubt.reason)));
    let doubts = doubts.map(move |doubted| finding(Effect::MayBeLost, doubted));
    refusals.chain(losses).chain(doubts).collect()
}

fn each<T>(by_descriptor: BTreeMap<i32, Vec<T>>) -> impl Iterator<Item = (i32, T)> {
    let lists = by_descriptor.into_iter();
    lists.flat_map(|(fd, list)| list.into_iter().map(move |one| (fd, one)))
}

fn advice(process: &Process, kind: &DumpErrorKind) -> Option<String> {
    match kind {
        DumpErrorKind::NoPath { ino, major, minor } => {
            let device = format!("{major}:{minor}");
            let target =
                targets(process).find(|target| target.inode == *ino && target.device == device)?;
            match &target.name {
                Name::Named { paths, .. } => Some(format!("notifreeze dump --path '{}'", paths[0])),
                Name::Ghost { .. } | Name::Hidden { .. } | Name::NoName { .. } => None,
            }
        }
        DumpErrorKind::NoHandle { .. } => {
            Some("wait until the filesystem is mounted, remounted or unmounted".to_owned())
        }
        DumpErrorKind::Unread { .. } => Some("let the program read its events first".to_owned()),
        DumpErrorKind::NotSupported(_)
        | DumpErrorKind::NotStopped(..)
        | DumpErrorKind::TooLarge { .. }
        | DumpErrorKind::Fanotify(_)
        | DumpErrorKind::Waiting(_)
        | DumpErrorKind::Refused(_)
        | DumpErrorKind::Interrupted(_)
        | DumpErrorKind::Lost { .. }
        | DumpErrorKind::NotPutBack(_)
        | DumpErrorKind::Text(_)
        | DumpErrorKind::Call { .. } => None,
    }
}

fn targets(process: &Process) -> impl Iterator<Item = &Target> {
    process.groups.iter().flat_map(|group| {
        let watches = group.watches.iter().map(|watch| &watch.target);
        watches.chain(group.marks.iter().filter_map(|mark| mark.target.as_ref()))
    })
}
