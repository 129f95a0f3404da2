//! `notifreeze fmt`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::{diagnostics, suite};

/// What to put into canonical form.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Scenario files, or folders of them; `-` reads standard input and prints.
    #[arg(value_name = "SCENARIO", default_value = "scenarios")]
    scenarios: Vec<PathBuf>,
    /// Write nothing; name the files that are not canonical, and fail if there are any.
    #[arg(long)]
    check: bool,
}

/// What became of a file.
enum Outcome {
    Canonical,
    /// Is not canonical; this is.
    Changed(String),
    /// The problems, rendered.
    Unreadable(String),
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    if args.scenarios == [Path::new("-")] {
        return filter();
    }
    let paths = suite::find(&args.scenarios).map_err(|error| error.to_string())?;
    let mut code = crate::EXIT_OK;
    for path in &paths {
        match format(path, &read(path)?) {
            Outcome::Canonical => {}
            Outcome::Changed(_) if args.check => {
                anstream::println!("{} is not canonical", path.display());
                code = crate::EXIT_USAGE;
            }
            Outcome::Changed(text) => {
                write(path, &text)?;
                anstream::println!("{}", path.display());
            }
            Outcome::Unreadable(message) => {
                anstream::eprintln!("{message}\n");
                code = crate::EXIT_USAGE;
            }
        }
    }
    Ok(code)
}

fn filter() -> Result<u8, String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| format!("standard input: {error}"))?;
    match format(Path::new("standard input"), &text) {
        Outcome::Canonical => anstream::print!("{text}"),
        Outcome::Changed(text) => anstream::print!("{text}"),
        Outcome::Unreadable(message) => {
            anstream::eprintln!("{message}");
            return Ok(crate::EXIT_USAGE);
        }
    }
    Ok(crate::EXIT_OK)
}

/// Only the grammar has to be right: a scenario with an unbound name has a canonical text too.
fn format(path: &Path, text: &str) -> Outcome {
    match scenario::parse(text) {
        Err(problems) => Outcome::Unreadable(diagnostics::render(path, text, &problems)),
        Ok(parsed) => {
            let canonical = scenario::print(&parsed.scenario);
            if canonical == text {
                Outcome::Canonical
            } else {
                Outcome::Changed(canonical)
            }
        }
    }
}

pub(super) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Replaces the file in one step, so that a crash leaves the old text or the new one.
fn write(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let permissions = std::fs::metadata(path).map_err(failed)?.permissions();
    file.as_file()
        .set_permissions(permissions)
        .map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
