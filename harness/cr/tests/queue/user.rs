//! Who the tests run as.

use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgid, setuid};

/// Says to this program that it is to become an ordinary user first.
const AS_USER: &str = "NOTIFREEZE_TEST_AS_USER";

/// The test that runs all others once more.
const AGAIN: &str = "as_a_user_in_a_user_namespace";

/// Sees to it that this process, which has one thread yet, may mount; or says why it may not.
pub(crate) fn settle() -> Result<(), String> {
    if std::env::var_os(AS_USER).is_some() {
        become_user()?;
    }
    own_mounts()
}

/// The tests, and for root all of them a second time as an ordinary user.
pub(crate) fn trials(permitted: Result<(), String>, trials: Vec<Trial>) -> Vec<Trial> {
    let is_root = Uid::effective().is_root() && std::env::var_os(AS_USER).is_none();
    let mut trials = match permitted {
        Ok(()) => trials,
        Err(reason) => trials.iter().map(|trial| ignored(trial, &reason)).collect(),
    };
    if is_root {
        trials.push(Trial::ignorable_test(AGAIN, again));
    }
    trials
}

fn ignored(trial: &Trial, reason: &str) -> Trial {
    let (name, reason) = (trial.name().to_owned(), reason.to_owned());
    Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason)))
}

/// Runs this program again as an ordinary user, with fewer random queues.
fn again() -> Result<Completion, Failed> {
    let this = std::env::current_exe()?;
    // A filter that names this test would leave the other process without any.
    let arguments = std::env::args_os().skip(1).filter(|it| it != AGAIN);
    let output = Command::new(this)
        .args(arguments)
        .env(AS_USER, "1")
        .env("NOTIFREEZE_QUEUES", "20")
        .output()?;
    if output.status.success() {
        return Ok(Completion::Completed);
    }
    let text = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&text).into_owned().into())
}

/// Root becomes nobody, for good.
fn become_user() -> Result<(), String> {
    let nobody = 65534;
    setgid(Gid::from_raw(nobody))
        .and_then(|()| setuid(Uid::from_raw(nobody)))
        .map_err(|errno| format!("setuid: {errno}"))?;
    // It is below the home of root, for one.
    let this = std::env::current_exe().and_then(std::fs::File::open);
    this.map(drop)
        .map_err(|error| format!("a user may not open this program: {error}"))
}

/// Sees to it that this process may mount: by a user namespace if it is not root.
fn own_mounts() -> Result<(), String> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::effective(), Gid::effective());
    // After setuid the files of /proc/self belong to root until this.
    nix::sys::prctl::set_dumpable(true).map_err(|errno| format!("prctl: {errno}"))?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| format!("unshare(CLONE_NEWUSER|CLONE_NEWNS): {errno}"))?;
    let write = |file: &str, content: String| {
        std::fs::write(file, content).map_err(|error| format!("{file}: {error}"))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}
