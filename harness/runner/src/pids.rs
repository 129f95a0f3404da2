//! Processes of the sandbox, by the numbers that they have here and in a pid namespace of their own.

use std::collections::HashMap;
use std::fs;

use cr::process::Status;
use nix::unistd::Pid;

/// Every process of the namespace but this one, rising: parents before their children.
///
/// # Errors
///
/// If `/proc` cannot be listed.
pub fn all() -> Result<Vec<Pid>, String> {
    let failed = |error| format!("list /proc: {error}");
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        processes.extend(number.map(Pid::from_raw).filter(|&pid| pid != Pid::this()));
    }
    processes.sort_unstable();
    Ok(processes)
}

/// The number of a process in its own pid namespace: what it says of itself. None if it is gone.
#[must_use]
pub fn inner(process: Pid) -> Option<Pid> {
    let status = Status::of(process).ok()?;
    let numbers = status.field("NSpid")?;
    let number = numbers.split_whitespace().next_back()?.parse().ok()?;
    Some(Pid::from_raw(number))
}

/// Every process, by the number that it has in its own pid namespace.
///
/// # Errors
///
/// If `/proc` cannot be listed.
pub fn by_inner() -> Result<HashMap<Pid, Pid>, String> {
    let all = all()?.into_iter();
    Ok(all
        .filter_map(|process| Some((inner(process)?, process)))
        .collect())
}
