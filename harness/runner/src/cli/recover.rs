//! `notifreeze recover`: what a dumper left that was killed.

use std::fs;
use std::path::PathBuf;

use cr::DumpOptions;
use cr::dump::{Outcome, Recovered};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::show::IMAGE;

/// Gives the processes of a dump that was killed their unread events back, and lets them go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:

  notifreeze recover /var/tmp/i

Events are read into journals beside the image, so a dumper that is killed loses none. A process
that it has stopped stays so until this is done. The next dump to the same place does the same.")]
pub(super) struct Args {
    /// Where the image was to be.
    images: PathBuf,
    /// Leave the processes stopped.
    #[arg(long)]
    leave_stopped: bool,
    /// A path that may lead to a watched file, for filesystems without file handles and for
    /// callers that may not open one.
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let options = DumpOptions {
        paths: args.paths.clone(),
        ..DumpOptions::default()
    };
    let recovered =
        cr::recover(&args.images.join(IMAGE), &options).map_err(|error| error.to_string())?;
    if recovered.is_empty() {
        anstream::println!("nothing to recover");
    }
    for Recovered { journal, outcome } in &recovered {
        let journal = journal.display();
        match outcome {
            Outcome::PutBack { pid, fd } => {
                anstream::println!("process {pid}: fd {fd} has its events again");
            }
            Outcome::Untouched => anstream::println!("{journal}: nothing had been read"),
            Outcome::Gone { pid } => anstream::println!("{journal}: process {pid} is gone"),
        }
    }
    if !args.leave_stopped {
        for Recovered { outcome, .. } in recovered {
            if let Outcome::PutBack { pid, .. } = outcome {
                go_on(Pid::from_raw(pid));
            }
        }
    }
    Ok(crate::EXIT_OK)
}

/// Lets a process and its descendants go on. Those that are gone meanwhile need not.
fn go_on(pid: Pid) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    for child in children
        .split_ascii_whitespace()
        .filter_map(|it| it.parse().ok())
    {
        go_on(Pid::from_raw(child));
    }
    let _ = kill(pid, Signal::SIGCONT);
}
