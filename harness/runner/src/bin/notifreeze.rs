//! The `notifreeze` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    notifreeze::cli::main()
}
