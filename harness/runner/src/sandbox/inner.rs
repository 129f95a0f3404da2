//! The process under test: a thin main over the `subject` crate.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use subject::Start;

/// The hidden subcommand `subject [--restore IMAGE [--defect NAME]] PLAN LOG`: never comes back but
/// with what went wrong.
#[must_use]
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args;
    let mut start = Start::Fresh;
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(arg) = args.next() {
        match (arg.to_str(), &mut start) {
            (Some("--restore"), start) => {
                start.clone_from(&Start::Restore {
                    image: args.next().map(PathBuf::from).unwrap_or_default(),
                    defect: None,
                });
            }
            (Some("--defect"), Start::Restore { defect, .. }) => {
                *defect = args.next().and_then(|name| name.into_string().ok());
            }
            _ => files.push(arg.into()),
        }
    }
    let [plan, log] = files.as_slice() else {
        anstream::eprintln!("usage: notifreeze {SUBCOMMAND} [--restore IMAGE] PLAN LOG");
        return ExitCode::from(crate::EXIT_USAGE);
    };
    // Standard error is /dev/null in a sandbox, so the reason goes where init looks for it.
    let Err(error) = subject::run(plan, log, &start);
    let reason = Path::new(log).with_extension("error");
    let _ = std::fs::write(reason, error.to_string());
    anstream::eprintln!("{error}");
    ExitCode::FAILURE
}

/// Its name on the command line.
pub const SUBCOMMAND: &str = "subject";
