//! `notifreeze record`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use cr::process;
use fsnotify::counted;

use crate::live::process::none_here;
use crate::live::record::{Options, Recorded, Source, by_reason, record};

/// Makes a scenario of what a real program does, with strace.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The program and what it starts are run until they end, or for --seconds, or until Ctrl-C. Files
that are there at the beginning are made first; what is left out is said, and why. Let the
command make the changes too: what others do to the files is not seen.

  cd /srv/a && notifreeze record -o follow.scn -- tail -F log
  notifreeze record --root /srv/a -o watch.scn -- sh -c 'inotifywait -m /srv/a & ...'
  notifreeze record --root /srv/a --pid 4711 --seconds 10 -o running.scn")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["pid", "command"])))]
pub(super) struct Args {
    /// Where to write the scenario; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The folder that the scenario is about.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    root: PathBuf,
    /// What must hold: the scenario's first line.
    #[arg(long, value_name = "SENTENCE")]
    sentence: Option<String>,
    /// Ends the recording: a command is told to end, a process is let go.
    #[arg(long)]
    seconds: Option<u16>,
    /// A process that runs already, instead of a command.
    #[arg(long)]
    pid: Option<i32>,
    /// The program and its arguments, behind `--`.
    #[arg(last = true)]
    command: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let (source, program) = match args.pid {
        Some(pid) => {
            let name = process::name(pid).map_err(|_| none_here(pid))?;
            (Source::Process(pid), name)
        }
        None => {
            let program = args.command.first().map_or("", String::as_str);
            let name = Path::new(program).file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            (Source::Command(args.command.clone()), name)
        }
    };
    let sentence = format!("What {program} watches is told to it after the cut as without it.");
    let recorded = record(
        &source,
        Options {
            root: &args.root,
            sentence: args.sentence.as_deref().unwrap_or(&sentence),
            seconds: args.seconds,
            begun: &|| match args.seconds {
                Some(seconds) => anstream::eprintln!("recording {program} for {seconds} s"),
                None => anstream::eprintln!("recording {program}; Ctrl-C ends that"),
            },
        },
    )?;
    say(&recorded);
    match &args.output {
        Some(path) => {
            let written = fs::write(path, &recorded.text);
            written.map_err(|error| format!("{}: {error}", path.display()))?;
            anstream::eprintln!("next: notifreeze run {}", path.display());
        }
        // Whoever closed our output wants no more of it.
        None => drop(anstream::stdout().write_all(recorded.text.as_bytes())),
    }
    Ok(crate::EXIT_OK)
}

/// What came of it, for people.
fn say(recorded: &Recorded) {
    let Recorded {
        n_steps, n_watches, ..
    } = recorded;
    let steps = counted(n_steps, "step");
    anstream::eprintln!("{steps}, {n_watches} of them watches or marks");
    for (count, why, what) in by_reason(&recorded.left_out) {
        anstream::eprintln!("left out: {count} {why}, such as {what}");
    }
}
