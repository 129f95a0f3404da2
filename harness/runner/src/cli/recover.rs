//! `notifreeze recover`: what a dumper left that was killed.

use std::io::Write;
use std::path::PathBuf;

use cr::DumpOptions;
use cr::dump::{Outcome, Recovered};

use super::show::IMAGE;
use super::signals;

/// Gives the processes of a dump that was killed back what it had taken, and lets those go on that it
/// had stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:

  notifreeze recover /var/tmp/i

Events are read into journals beside the image, so a dumper that is killed loses none, and whom it
stops is noted there before. A process that it has stopped stays so until this is done. The next dump
to the same place does the same.")]
pub(super) struct Args {
    /// Where the image was to be.
    images: PathBuf,
    /// Leave the processes stopped.
    #[arg(long)]
    leave_stopped: bool,
    /// A path that may lead to a watched file, for filesystems without file handles and for
    /// callers that may not open one.
    #[arg(long = "path", value_name = "PATH", value_parser = super::absolute_path())]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let options = DumpOptions {
        paths: args.paths.clone(),
        ..DumpOptions::default()
    };
    signals::put_off()?;
    let image = args.images.join(IMAGE);
    let recovered = if args.leave_stopped {
        cr::dump::recover_stopped(&image, &options)
    } else {
        cr::recover(&image, &options)
    };
    let recovered = recovered.map_err(|error| error.to_string())?;
    // All is done, whoever listens.
    let mut out = anstream::stdout();
    if recovered.is_empty() {
        let _ = writeln!(out, "nothing to recover");
    }
    for recovered in &recovered {
        let _ = writeln!(out, "{}", words(recovered));
    }
    Ok(crate::EXIT_OK)
}

/// What became of something that a dumper left.
pub(super) fn words(Recovered { journal, outcome }: &Recovered) -> String {
    let journal = journal.display();
    match outcome {
        Outcome::PutBack { pid, fd } => format!("process {pid}: fd {fd} has its events again"),
        Outcome::SetBack { pid, fd } => {
            format!("process {pid}: fd {fd} has its offset and flags again")
        }
        Outcome::Untouched => format!("{journal}: nothing had been read"),
        Outcome::Gone { pid } => format!("{journal}: process {pid} is gone"),
        Outcome::Lost { pid, fd, bytes } => format!(
            "process {pid}: fd {fd}: {bytes} bytes of a fanotify queue cannot be given back; what \
             was read of them is in {journal}, which is yours to remove"
        ),
        Outcome::WentOn { pid } => format!("process {pid} goes on"),
        Outcome::LeftStopped { pid } => format!("process {pid} is stopped"),
    }
}
