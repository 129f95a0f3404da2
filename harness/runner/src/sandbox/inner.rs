//! The process under test: a thin main over the `subject` crate.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use subject::Start;

/// The hidden subcommand `subject [--restore IMAGE [--defect NAME]] PLAN LOG`: never comes back but
/// with what went wrong.
#[must_use]
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.peekable();
    if args.next_if(|arg| arg == OWN_ROOT).is_some() {
        return enter_own_root(args);
    }
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
    let _ = fs::write(reason, error.to_string());
    anstream::eprintln!("{error}");
    ExitCode::FAILURE
}

/// `--own-root ROOT PROGRAM WORLD PLAN LOG`: makes `ROOT` the root directory of namespaces of its own
/// and starts again there, so that nothing of the old root stays mapped or open.
fn enter_own_root(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let [root, program, world, plan, log] = args.as_slice() else {
        return ExitCode::from(crate::EXIT_USAGE);
    };
    let reason = match super::own_root::enter(root) {
        Ok(()) => {
            let null = || fs::File::options().read(true).write(true).open("/dev/null");
            match (null(), null(), null()) {
                (Ok(input), Ok(output), Ok(errors)) => Command::new(program)
                    .arg(SUBCOMMAND)
                    .args([plan, log])
                    .current_dir(world)
                    .env_clear()
                    .stdin(input)
                    .stdout(output)
                    .stderr(errors)
                    .exec()
                    .to_string(),
                (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                    format!("/dev/null: {error}")
                }
            }
        }
        Err(reason) => reason,
    };
    let _ = fs::write(log.with_extension("error"), reason);
    ExitCode::FAILURE
}

/// The option that makes the subject enter a root directory of its own.
pub(super) const OWN_ROOT: &str = "--own-root";

/// Its name on the command line.
pub const SUBCOMMAND: &str = "subject";
