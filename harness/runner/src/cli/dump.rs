//! `notifreeze dump`: a process of somebody else, stopped for as long as it takes.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cr::{Afterwards, DumpError, DumpErrorKind, DumpOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::show::IMAGE;
use crate::engine::{Ghosts, Queue};

/// How long a process may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How often a process is looked at that is to stop: it tells its parent, and nobody else.
const STOP_POLL_MS: u8 = 2;

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
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let main = Pid::from_raw(args.pid);
    if args.pid <= 1 {
        return Err(format!("{}: not a process to dump", args.pid));
    }
    let options = DumpOptions {
        paths: args.paths.clone(),
        queue: args.queue.into(),
        ghosts: args.ghosts.into(),
        only_groups: args.only_fsnotify,
        ghost_limit: args.ghost_limit,
        ..DumpOptions::default()
    };
    fs::create_dir_all(&args.images)
        .map_err(|error| format!("{}: {error}", args.images.display()))?;
    let afterwards = if args.leave_running {
        Afterwards::RunsOn
    } else {
        Afterwards::Ends
    };
    let stopped = Stopped::tree(main, args.only_fsnotify)?;
    let path = args.images.join(IMAGE);
    let dumped = if args.park {
        cr::dump::park(main, &path, &options).map(|image| (image, Vec::new()))
    } else {
        cr::dump_to_file(main, &path, (&options, afterwards))
    };
    let (image, more) = match dumped {
        Ok(dumped) => dumped,
        Err(error) => {
            anstream::eprintln!("error: {error}; {}", after(&error, args, stopped));
            return Ok(crate::EXIT_FAIL);
        }
    };
    for loss in image.losses().iter().chain(&more) {
        anstream::eprintln!("loss: {loss}");
    }
    anstream::println!("{}", path.display());
    if afterwards == Afterwards::Ends {
        for pid in image.pids() {
            kill(pid, Signal::SIGKILL).map_err(|errno| format!("kill {pid}: {errno}"))?;
        }
    }
    drop(stopped);
    Ok(crate::EXIT_OK)
}

/// What becomes of the process after a dump that failed.
fn after(error: &DumpError, args: &Args, stopped: Stopped) -> String {
    match error.kind {
        // What it did now would come between its events and what is to be put back.
        DumpErrorKind::NotPutBack(_) => {
            stopped.leave();
            let images = args.images.display();
            format!("the process is left stopped until `notifreeze recover {images}`")
        }
        _ => "the process runs on".to_owned(),
    }
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

/// Processes that we stopped, and that go on when this goes away.
struct Stopped(Vec<Pid>);

impl Stopped {
    /// Stops a process and, unless it is wanted alone, its descendants.
    fn tree(main: Pid, alone: bool) -> Result<Self, String> {
        let mut stopped = Self(Vec::new());
        let mut next = vec![main];
        while let Some(pid) = next.pop() {
            stopped.stop(pid)?;
            if !alone {
                // A stopped process forks no more, so this list is complete.
                let name = format!("/proc/{pid}/task/{pid}/children");
                let text = fs::read_to_string(name).unwrap_or_default();
                let children = text
                    .split_ascii_whitespace()
                    .filter_map(|pid| pid.parse().ok());
                next.extend(children.map(Pid::from_raw));
            }
        }
        Ok(stopped)
    }

    /// Leaves them stopped.
    fn leave(mut self) {
        self.0.clear();
    }

    fn stop(&mut self, pid: Pid) -> Result<(), String> {
        match state(pid)? {
            'T' | 't' | 'Z' => return Ok(()),
            _ => {}
        }
        kill(pid, Signal::SIGSTOP).map_err(|errno| format!("stop {pid}: {errno}"))?;
        self.0.push(pid);
        let deadline = Instant::now() + STOP_LIMIT;
        while !matches!(state(pid)?, 'T' | 't' | 'Z') {
            if Instant::now() > deadline {
                return Err(format!("process {pid} does not stop"));
            }
            let _ = nix::poll::poll(&mut [], STOP_POLL_MS);
        }
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in self.0.drain(..).rev() {
            // It may be gone, which is as good.
            let _ = kill(pid, Signal::SIGCONT);
        }
    }
}

fn state(pid: Pid) -> Result<char, String> {
    let stat =
        fs::read(format!("/proc/{pid}/stat")).map_err(|error| format!("process {pid}: {error}"))?;
    let stat = String::from_utf8_lossy(&stat);
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    fields
        .and_then(|fields| fields.chars().next())
        .ok_or_else(|| format!("/proc/{pid}/stat: not understood"))
}

#[cfg(test)]
mod tests {
    use super::size;

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
