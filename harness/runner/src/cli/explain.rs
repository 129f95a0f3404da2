//! `notifreeze explain`.

use std::io::Write;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::Criu;
use crate::live::explain::explain;
use crate::live::search::{LIMIT, Search};
use crate::live::show;

/// Says what a live process watches, by path, and what a checkpoint would make of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The process is not disturbed: it hears nothing, no time of access changes, it is not stopped.
Root sees every process; others see their own, and find fewer paths.

  notifreeze explain 4711
  notifreeze explain 4711 --tree --json      # docs/explain.md describes the JSON")]
pub(super) struct Args {
    /// Its number in this pid namespace, as ps shows it.
    pid: i32,
    /// Its descendants too.
    #[arg(long)]
    tree: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// The CRIU to speak of; without it, that of the variable CRIU or of PATH.
    #[arg(long, value_name = "PATH")]
    criu_bin: Option<PathBuf>,
    /// Most names to look at on one filesystem where nothing but a search leads to an inode;
    /// 0 for no search.
    #[arg(long, value_name = "NAMES", default_value_t = LIMIT)]
    search_limit: u64,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let criu = match &args.criu_bin {
        Some(path) => Criu::at(path.clone()),
        None => Criu::from_environment(),
    };
    let bar = search_bar();
    let search = Search {
        limit: args.search_limit,
        progress: &|n_names| bar.set_position(n_names),
    };
    let explanation = explain(args.pid, args.tree, &criu, &search);
    bar.finish_and_clear();
    let explanation = explanation?;
    let text = if args.json {
        let json = serde_json::to_string_pretty(&explanation);
        json.map_err(|error| error.to_string())? + "\n"
    } else {
        show::text(&explanation)
    };
    // Whoever closed our output wants no more of it.
    let _ = anstream::stdout().write_all(text.as_bytes());
    Ok(crate::EXIT_OK)
}

/// Shows itself on a terminal only, and only once a search is under way.
pub(super) fn search_bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} looking for inodes: {pos} names, {per_sec}");
    ProgressBar::no_length().with_style(style.expect("a fixed template"))
}
