//! `notifreeze capture` and `notifreeze compare`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::explain::search_bar;
use crate::live::capture::{Capture, capture};
use crate::live::compare::compare;
use crate::live::search::{LIMIT, Search};

/// Writes down what a process watches, to be compared after somebody's checkpoint and restore.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:

  notifreeze capture 4711 -o before.json
  ... checkpoint and restore it, by whatever means ...
  notifreeze capture 4712 -o after.json
  notifreeze compare before.json after.json

The process is not disturbed. docs/capture.md has the whole recipe with criu.")]
pub(super) struct CaptureArgs {
    /// Its number in this pid namespace, as ps shows it.
    pid: i32,
    /// Its descendants too.
    #[arg(long)]
    tree: bool,
    /// Where to write it; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Most names to look at on one filesystem where only a search leads to an inode; 0 for none.
    #[arg(long, value_name = "NAMES", default_value_t = LIMIT)]
    search_limit: u64,
}

pub(super) fn run_capture(args: &CaptureArgs) -> Result<u8, String> {
    let bar = search_bar();
    let search = Search {
        limit: args.search_limit,
        progress: &|n_names| bar.set_position(n_names),
    };
    let capture = capture(args.pid, args.tree, &search);
    bar.finish_and_clear();
    let json = serde_json::to_string_pretty(&capture?).map_err(|error| error.to_string())? + "\n";
    match &args.output {
        Some(path) => {
            fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        // Whoever closed our output wants no more of it.
        None => drop(anstream::stdout().write_all(json.as_bytes())),
    }
    Ok(crate::EXIT_OK)
}

/// Compares two captures: watches lost, masks changed, numbers, order, unread bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 if nothing differs, 1 if something does, 2 if a file is no capture.")]
pub(super) struct CompareArgs {
    /// Before the checkpoint.
    before: PathBuf,
    /// After the restore.
    after: PathBuf,
}

pub(super) fn run_compare(args: &CompareArgs) -> Result<u8, String> {
    let differences = compare(&read(&args.before)?, &read(&args.after)?);
    for difference in &differences {
        anstream::println!("{difference}");
    }
    if differences.is_empty() {
        anstream::println!("nothing differs");
        return Ok(crate::EXIT_OK);
    }
    Ok(crate::EXIT_FAIL)
}

fn read(path: &Path) -> Result<Capture, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string());
    text.and_then(|text| Capture::parse(&text))
        .map_err(|reason| {
            let path = path.display();
            format!("{path}: {reason}; `notifreeze capture PID -o {path}` writes one")
        })
}
