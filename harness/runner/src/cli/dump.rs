//! `notifreeze dump`: a process of somebody else, stopped for as long as it takes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cr::dump::{Claim, Fate};
use cr::{Afterwards, DumpErrorKind, DumpOptions};
use nix::unistd::Pid;

use super::show::IMAGE;
use super::{recover, signals};
use crate::engine::{Ghosts, Queue};

/// Dumps a process: its groups with watches and unread events, and, without --only-fsnotify, all
/// that it has open and its children.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:

  notifreeze dump 4711 --images /var/tmp/i --only-fsnotify --leave-running
  notifreeze show /var/tmp/i
  notifreeze restore --images /var/tmp/i -- my-daemon --groups-are-open")]
pub(super) struct Args {
    /// Its number in this pid namespace, as ps shows it.
    pid: i32,
    /// Where to write the image; made if it is not there.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Groups, what they watch, and watched files without a name; nothing else of the process.
    #[arg(long)]
    only_fsnotify: bool,
    /// What to do about unread events.
    #[arg(long, value_enum, default_value = "keep")]
    queue: Queue,
    /// How to keep open files without a name.
    #[arg(long, value_enum, default_value = "silent")]
    ghosts: Ghosts,
    /// Most content of one open file without a name, holes not counted. One with more is refused
    /// by name. K, M, G and T are powers of 1024.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size)]
    ghost_limit: u64,
    /// Let the process run on, with its queues, instead of killing it.
    #[arg(long)]
    leave_running: bool,
    /// Keep the groups themselves alive in a holder process instead of copying them, until a
    /// restore takes them over: exact to the last cookie, within one boot.
    #[arg(long, conflicts_with_all = ["leave_running", "queue", "ghosts"])]
    park: bool,
    /// A path that may lead to a watched file, for filesystems without file handles and for
    /// callers that may not open one.
    #[arg(long = "path", value_name = "PATH", value_parser = super::absolute_path())]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let options = DumpOptions {
        paths: args.paths.clone(),
        queue: args.queue.into(),
        ghosts: args.ghosts.into(),
        only_groups: args.only_fsnotify,
        ghost_limit: args.ghost_limit,
        ..DumpOptions::default()
    };
    // From the first process that is stopped to the last that goes on.
    let blocked = signals::put_off()?;
    let is_new =
        make(&args.images).map_err(|error| format!("{}: {error}", args.images.display()))?;
    let path = args.images.join(IMAGE);
    let dumped = dump(args, (&path, &options));
    if is_new && dumped.is_err() {
        // Unless there is something in it.
        let _ = fs::remove_dir(&args.images);
    }
    match dumped {
        Ok((losses, more)) => {
            // All is done. Whom it is told is not to undo it by not listening.
            for loss in losses.iter().chain(&more) {
                let _ = writeln!(anstream::stderr(), "loss: {loss}");
            }
            let _ = writeln!(anstream::stdout(), "{}", path.display());
            Ok(crate::EXIT_OK)
        }
        Err(Failed { words, signal }) => {
            let _ = writeln!(anstream::stderr(), "error: {words}");
            Ok(signal.map_or(crate::EXIT_FAIL, |it| signals::take(&blocked, it)))
        }
    }
}

/// Why there is no dump.
struct Failed {
    words: String,
    /// What came meanwhile, if that is why.
    signal: Option<i32>,
}

fn dump(
    args: &Args,
    (path, options): (&Path, &DumpOptions),
) -> Result<(Vec<cr::Loss>, Vec<cr::Loss>), Failed> {
    let refused = |error: cr::DumpError| Failed {
        words: error.to_string(),
        signal: None,
    };
    let pid = Pid::from_raw(args.pid);
    let mut claim = Claim::on(pid, path, options).map_err(refused)?;
    for recovered in claim.recovered() {
        let _ = writeln!(anstream::stderr(), "{}", recover::words(recovered));
    }
    let afterwards = if args.leave_running {
        Afterwards::RunsOn
    } else {
        Afterwards::Ends
    };
    let dumped = claim.stop(options).and_then(|()| {
        if args.park {
            claim.park(options).map(|image| (image, Vec::new()))
        } else {
            claim.dump(options, afterwards)
        }
    });
    let lets_go_on = if claim.has_stopped() {
        ", and lets it go on"
    } else {
        ""
    };
    let fate = claim.end();
    dumped
        .map(|(image, more)| (image.losses(), more))
        .map_err(|error| {
            let signal = match error.kind {
                DumpErrorKind::Interrupted(signal) => Some(signal),
                _ => None,
            };
            let fate = match fate {
                Some(Fate::RunsOn) => "the process runs on".to_owned(),
                Some(Fate::Stopped) => "the process is stopped, as it was".to_owned(),
                Some(Fate::Ended) => "the process has ended".to_owned(),
                None => {
                    let images = args.images.display();
                    format!(
                        "`notifreeze recover {images}` gives the process back what was \
                         taken{lets_go_on}"
                    )
                }
            };
            let advice = advice(&error.kind, args).map_or(String::new(), |it| format!("; {it}"));
            let words = format!("{error}; {fate}{advice}");
            Failed { words, signal }
        })
}

/// What to give the command besides, if that may help.
fn advice(kind: &DumpErrorKind, args: &Args) -> Option<&'static str> {
    match kind {
        DumpErrorKind::NoPath { .. } => Some("if a path leads there, give it by --path"),
        DumpErrorKind::NotSupported(_) if !args.only_fsnotify => {
            Some("with --only-fsnotify all but groups is left")
        }
        DumpErrorKind::TooLarge { .. } => Some("--ghost-limit says how much is taken"),
        DumpErrorKind::Waiting(_) => Some("with --park it goes on waiting"),
        DumpErrorKind::NotSupported(_)
        | DumpErrorKind::NotStopped(..)
        | DumpErrorKind::Unread { .. }
        | DumpErrorKind::NoHandle { .. }
        | DumpErrorKind::Fanotify(_)
        | DumpErrorKind::Refused(_)
        | DumpErrorKind::Interrupted(_)
        | DumpErrorKind::Lost { .. }
        | DumpErrorKind::NotPutBack(_)
        | DumpErrorKind::Text(_)
        | DumpErrorKind::Call { .. } => None,
    }
}

/// Makes a folder that nobody else looks into; whether it was not there.
fn make(folder: &Path) -> io::Result<bool> {
    let is_new = !folder.exists();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    Ok(is_new)
}

/// `4096`, `64K`, `256M`, `4G`, `1T`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        unit => return Err(format!("unknown unit `{unit}`, expected K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "more than any file".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(more: &[&str]) -> Args {
        let line = ["dump", "4711", "--images", "i"];
        Line::parse_from(line.iter().chain(more)).args
    }

    #[test]
    fn a_path_counts_from_where_the_command_is_started() {
        let here = std::env::current_dir().unwrap();
        let paths = parsed(&["--path", "srv", "--path", "/srv"]).paths;
        assert_eq!(paths, [here.join("srv"), PathBuf::from("/srv")]);
    }

    #[test]
    fn what_helps_is_said_where_it_is_not_given_yet() {
        let pipe = DumpErrorKind::NotSupported("pipe".to_owned());
        assert!(advice(&pipe, &parsed(&[])).is_some_and(|it| it.contains("--only-fsnotify")));
        assert_eq!(advice(&pipe, &parsed(&["--only-fsnotify"])), None);
    }

    #[test]
    fn a_size_has_a_unit_or_none() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64K"), Ok(64 << 10));
        assert_eq!(size("256M"), Ok(cr::dump::GHOST_LIMIT));
        assert_eq!(size("4g"), Ok(4 << 30));
        for text in ["", "M", "1X", "-1", "1.5G", "99999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
