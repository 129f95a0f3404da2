//! What a test restores an image into: a process of its own, which says what it has then.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use cr::RestoreOptions;
use cr::sys::inspect;
use nix::unistd::Pid;

/// Restores, and says of the group with this number what there is, or why there is not.
pub(crate) fn restore(
    (image, said): (&Path, &Path),
    number: i32,
    state: impl Fn(&OwnedFd) -> String,
) -> ExitCode {
    let text = match cr::restore_file(image, &RestoreOptions::default()) {
        Ok(_) => {
            let this = inspect::pidfd_open(Pid::this()).unwrap();
            state(&inspect::pidfd_getfd(this, number).unwrap())
        }
        Err(error) => error.to_string(),
    };
    fs::write(said, text).unwrap();
    ExitCode::SUCCESS
}
