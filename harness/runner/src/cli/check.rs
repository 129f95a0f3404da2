//! `notifreeze check`.

use std::path::PathBuf;

use fsnotify::counted;

use crate::{diagnostics, suite};

/// What to read.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Scenario files, or folders of them.
    #[arg(value_name = "SCENARIO", default_value = "scenarios")]
    scenarios: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let paths = suite::find(&args.scenarios).map_err(|error| error.to_string())?;
    let mut n_bad = 0;
    for path in &paths {
        let Err(message) = check(path)? else {
            continue;
        };
        n_bad += 1;
        anstream::eprintln!("{message}\n");
    }
    match n_bad {
        0 => anstream::println!("sound: {}", counted(paths.len(), "scenario")),
        _ => anstream::eprintln!("not sound: {n_bad} of {}", counted(paths.len(), "scenario")),
    }
    Ok(if n_bad == 0 {
        crate::EXIT_OK
    } else {
        crate::EXIT_USAGE
    })
}

/// The problems of one file, rendered.
fn check(path: &std::path::Path) -> Result<Result<(), String>, String> {
    let text = super::fmt::read(path)?;
    Ok(scenario::parse_and_check(&text)
        .map(drop)
        .map_err(|problems| diagnostics::render(path, &text, &problems)))
}
