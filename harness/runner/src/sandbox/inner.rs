//! The process under test: what a fork of the sandbox's init becomes, or a program of its own.

use std::ffi::{CStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::prctl::set_name;
use subject::Start;

/// The hidden subcommand `subject PLAN LOG`: never comes back but with what went wrong.
#[must_use]
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.peekable();
    if args.next_if(|arg| arg == OWN_ROOT).is_some() {
        return enter_own_root(args);
    }
    let files: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let [plan, log] = files.as_slice() else {
        anstream::eprintln!("usage: notifreeze {SUBCOMMAND} PLAN LOG");
        return ExitCode::from(crate::EXIT_USAGE);
    };
    let error = run(&Start::Fresh, plan, log);
    anstream::eprintln!("{error}");
    ExitCode::FAILURE
}

/// What a fork of the sandbox's init goes on with: it is the subject now, by name too.
pub(crate) fn become_subject(start: &Start, plan: &Path, log: &Path) -> ! {
    let _ = set_name(NAME);
    run(start, plan, log);
    // Nothing of the init whose memory this is may be cleaned up here.
    std::process::exit(1)
}

fn run(start: &Start, plan: &Path, log: &Path) -> std::io::Error {
    let Err(error) = subject::run(plan, log, start);
    // Standard error is /dev/null in a sandbox, so the reason goes where init looks for it.
    let _ = fs::write(log.with_extension("error"), error.to_string());
    error
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
/// Its name in lists of processes (`/proc/PID/comm`).
const NAME: &CStr = c"subject";
