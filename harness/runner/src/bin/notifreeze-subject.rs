//! The process under test: a thin main over the `subject` crate.
//!
//!     notifreeze-subject PLAN LOG
//!     notifreeze-subject --restore IMAGE [--defect NAME] PLAN LOG

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use subject::Start;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let mut start = Start::Fresh;
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(arg) = args.next() {
        match (arg.to_str(), &mut start) {
            (Some("--restore"), start) => {
                start.clone_from(&Start::Restore {
                    image: args.next().map(PathBuf::from).unwrap_or_default(),
                    defect: None,
                });
            }
            (Some("--defect"), Start::Restore { defect, .. }) => {
                *defect = args.next().and_then(|name| name.into_string().ok());
            }
            _ => files.push(arg.into()),
        }
    }
    let [plan, log] = files.as_slice() else {
        anstream::eprintln!("usage: notifreeze-subject [--restore IMAGE] PLAN LOG");
        return ExitCode::from(notifreeze::EXIT_USAGE);
    };
    // Standard error is /dev/null in a sandbox, so the reason goes where init looks for it.
    let Err(error) = subject::run(plan, log, &start);
    let reason = Path::new(log).with_extension("error");
    let _ = std::fs::write(reason, error.to_string());
    anstream::eprintln!("{error}");
    ExitCode::FAILURE
}
