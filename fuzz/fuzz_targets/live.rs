//! Any bytes, as a scenario that is run under builtin and under control. Only root can.
//!
//! Sandboxes are processes of this same program, which then is `notifreeze`.

#![cfg_attr(feature = "libfuzzer", no_main)]

use std::process::ExitCode;

use notifreeze::generate::live::check_live;
use notifreeze::machine::Machine;

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(
    init: {
        if let Some(code) = be_notifreeze() {
            std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
        }
        refuse_without_root();
    },
    |input: &[u8]| check(input)
);

/// Replays the files named to it.
#[cfg(not(feature = "libfuzzer"))]
fn main() -> ExitCode {
    if let Some(code) = be_notifreeze() {
        return code;
    }
    refuse_without_root();
    match notifreeze_fuzz::replay(check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check(input: &[u8]) {
    let program = std::env::current_exe().expect("a running program has a file");
    check_live(input, &program);
}

/// What the harness asks this program for when it makes a sandbox; it comes back when that is over.
fn be_notifreeze() -> Option<ExitCode> {
    let word = std::env::args().nth(1)?;
    matches!(&*word, "sandbox" | "subject").then(notifreeze::cli::main)
}

fn refuse_without_root() {
    assert!(Machine::here().root, "only root can run what this makes");
}
