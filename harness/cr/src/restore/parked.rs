//! Takes the open file descriptions of an image over from the process that holds them.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use super::error::{Context, RestoreError, RestoreErrorKind};
use super::ghosts::Ghosts;
use super::processes;
use super::stage::Stage;
use super::tree::Tree;
use crate::dump::park;
use crate::image::{Image, Parked};
use crate::sys::inspect;

/// Every description as it is: nothing is opened but working directories.
pub(super) fn take(image: &Image, parked: &Parked, tree: &Tree) -> Result<Stage, RestoreError> {
    let mut stage = Stage::new(image)?;
    let holder = inspect::pidfd_open(Pid::from_raw(parked.holder));
    let holder: OwnedFd = holder.context("pidfd_open", parked.holder.to_string())?;
    if !park::is_there(parked) {
        let gone = RestoreErrorKind::Impossible("its holder is gone");
        return Err(RestoreError::new(gone));
    }
    for (index, fd) in parked.files.iter().enumerate() {
        let file = inspect::pidfd_getfd(&holder, *fd);
        stage.put(index, file.context("pidfd_getfd", fd.to_string())?)?;
    }
    processes::working_directories(image, tree, &Ghosts::default(), &mut stage)?;
    Ok(stage)
}
