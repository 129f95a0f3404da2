//! Live tests of the queue: kernel, groups and scratch filesystems are real.
//!
//! They run as whoever runs them. A user who may not mount gets a user and mount namespace of his
//! own, as the sandbox does; root runs them a second time as such a user. Where that is not
//! permitted either, they are ignored and say so.

mod equal;
mod kinds;
mod live;
mod random;
mod tree;
mod user;
mod window;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// Makes this program the other process of a test.
const STORM: &str = "rename-storm";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(STORM) {
        random::storm();
        return ExitCode::SUCCESS;
    }
    let permitted = user::settle();
    let arguments = Arguments::from_args();
    let mut trials = kinds::trials();
    trials.extend(live::trials());
    trials.extend(window::trials());
    trials.extend(random::trials());
    let trials = user::trials(permitted, trials);
    libtest_mimic::run(&arguments, trials).exit_code()
}
