//! `notifreeze probe`.

use crate::engine::EngineSpec;
use crate::job::{Answer, Job};
use crate::machine::Machine;
use crate::sandbox::{self, Filesystem};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Makes one watch, and cuts.
const SMALLEST: &str = "\
# One watch.
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \".\", IN_CREATE) = 1
checkpoint
read(n) = 0
";

pub(super) fn run(_args: &Args) -> Result<u8, String> {
    let machine = Machine::here();
    let notifreeze = std::env::current_exe().map_err(|error| error.to_string())?;
    let show = |what: &str, value: &str| anstream::println!("{what:<13} {value}");
    show("kernel", &format!("Linux {}", machine.release));
    show(
        "caller",
        if machine.root {
            "root"
        } else {
            "an ordinary user"
        },
    );
    let missing = machine.missing_capabilities();
    match missing.as_slice() {
        [] => show("capabilities", "all"),
        some => show("capabilities", &format!("all but {}", some.join(", "))),
    }
    show(
        "fanotify",
        if cr::sys::raw::has_fanotify() {
            "yes"
        } else {
            "not allowed"
        },
    );
    for engine in [EngineSpec::Control, EngineSpec::Builtin] {
        let name = engine.to_string();
        let job = Job {
            scenario: SMALLEST.to_owned(),
            flavour: engine.flavour(),
            engine,
            filesystem: Filesystem::default(),
            limit_ms: crate::case::LIMIT_MS,
            keep: None,
        };
        let works = match sandbox::run(&job, &notifreeze) {
            Answer::Finished { times, .. } => format!("works ({} ms)", times.total_us / 1000),
            Answer::Skipped(reason) => format!("cannot work here: {reason}"),
            Answer::Refused(reason)
            | Answer::Failed(reason)
            | Answer::Again(reason)
            | Answer::Broken(reason) => format!("fails: {reason}"),
        };
        show(&name, &works);
    }
    Ok(crate::EXIT_OK)
}
