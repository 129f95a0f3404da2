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

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::unistd::Uid;

/// Says to this program that it is to become an ordinary user first.
const AS_USER: &str = "NOTIFREEZE_TEST_AS_USER";

/// Makes this program the other process of a test.
const STORM: &str = "rename-storm";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(STORM) {
        random::storm();
        return ExitCode::SUCCESS;
    }
    let as_user = std::env::var_os(AS_USER).is_some();
    let denied = if as_user {
        user::become_user().err()
    } else {
        None
    }
    .or_else(|| user::own_mounts().err());
    let arguments = Arguments::from_args();
    let mut trials = kinds::trials();
    trials.extend(live::trials());
    trials.extend(random::trials());
    if let Some(reason) = denied {
        trials = trials
            .into_iter()
            .map(|trial| ignored(&trial, &reason))
            .collect();
    }
    if Uid::effective().is_root() && !as_user {
        trials.push(Trial::ignorable_test(
            "as_a_user_in_a_user_namespace",
            again_as_user,
        ));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn ignored(trial: &Trial, reason: &str) -> Trial {
    let reason = reason.to_owned();
    Trial::ignorable_test(trial.name().to_owned(), move || {
        Ok(Completion::ignored_with(reason))
    })
}

/// Runs this program again as an ordinary user.
fn again_as_user() -> Result<Completion, Failed> {
    let this = std::env::current_exe()?;
    let mut arguments = std::env::args_os().skip(1);
    // A filter that names this test would leave the other process without any.
    let arguments: Vec<_> = arguments
        .by_ref()
        .filter(|it| it != "as_a_user_in_a_user_namespace")
        .collect();
    let output = Command::new(this)
        .args(arguments)
        .env(AS_USER, "1")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(text.into());
    }
    Ok(Completion::Completed)
}
