//! The engine `command`: dump and restore command lines that the user gives.
//!
//! Each is run by `sh -c` with `{pid}` and `{images}` replaced, in the directory of the images, inside
//! the sandbox, as its root. The contract is that of [`super::programs`].

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::programs::{self, Before, Failure, FailureKind, Half};
use super::{Cut, CutError, Workshop};

/// Two command lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    /// Dumps and kills the process tree of `{pid}` into `{images}`.
    pub dump: String,
    /// Restores it from `{images}`, stopped, with the same pids, and returns.
    pub restore: String,
}

/// Lines of a program's output that a failure shows.
const SHOWN_LINES: usize = 5;

/// Cuts with the user's commands.
pub(super) fn cut(shop: &Workshop, commands: &Commands) -> Result<Cut, CutError> {
    let before = Before::look(shop)?;
    let half = |name: &'static str, line: &str| {
        let line = line
            .replace("{pid}", &shop.subject.to_string())
            .replace("{images}", &shop.images.to_string_lossy());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &line]);
        command.env("CRIU_OPTS", shop.criu_opts.join(" "));
        Half {
            name,
            command,
            said: Box::new(move || said(shop, name)),
        }
    };
    programs::dump(shop, &before, half("dump", &commands.dump))
        .map_err(|failure| programs::failed("dump command", &lines(failure), &[]))?;
    let restored = programs::restore(shop, &before, half("restore", &commands.restore));
    let subject = restored.map_err(|failure| {
        let notes = programs::attribute(shop, &before, false);
        programs::failed("restore command", &lines(failure), &notes)
    })?;
    let notes = programs::attribute(shop, &before, true);
    Ok(programs::finished(subject, Vec::new(), notes))
}

/// The last lines that a command printed.
fn said(shop: &Workshop, name: &str) -> Vec<String> {
    let bytes = fs::read(shop.images.join(format!("{name}.out"))).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().rev().take(SHOWN_LINES).collect();
    let lines = lines.into_iter().rev();
    lines.map(|line| format!("it printed: {line}")).collect()
}

fn lines(failure: Failure) -> Vec<String> {
    let (FailureKind::Ended(what) | FailureKind::Seen(what)) = failure.kind;
    std::iter::once(what).chain(failure.said).collect()
}
