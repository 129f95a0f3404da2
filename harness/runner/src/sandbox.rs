//! One run in a sandbox of its own, seen from the harness.
//!
//! The harness starts `notifreeze sandbox` and hands it a [`Job`]; the program makes its
//! namespaces and answers. Whatever the run makes lives in those namespaces, so it is gone when
//! the run is over, and also when the harness or the sandbox is killed: each process of the chain
//! asks the kernel to be killed when its parent dies (`PR_SET_PDEATHSIG`), and the death of the
//! namespace's init takes every process and mount with it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::job::{Answer, Job};

mod init;
pub mod inner;
mod outer;
pub mod own_root;
mod world;

pub use outer::main;

/// Time that a sandbox has beyond the job's own limit before it is killed from outside. The inner
/// limit names the step; this one only fires when init itself hangs, as behind a permission event.
const GRACE: Duration = Duration::from_secs(5);

/// Scenarios to run at a time for each core. Each makes three runs at once, and those mostly wait in
/// the kernel, for groups and mounts to go. Measured on two cores with 96 scenarios: 4.5 s with one at
/// a time, 2.8 s with two, 2.4 s with four, 2.3 s with eight.
const JOBS_A_CORE: usize = 2;

/// How many scenarios to run at a time.
#[must_use]
pub fn n_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) * JOBS_A_CORE
}

/// Sandboxes that have answered and may still be ending, at most. Each is a few processes that wait
/// in the kernel for its groups and mounts to go.
const MOST_ENDING: usize = 64;

/// Those that have answered: nothing is to be learnt from their end, which takes as long as the run.
static ENDING: Mutex<VecDeque<Child>> = Mutex::new(VecDeque::new());

/// Waits until every sandbox that has answered is gone.
///
/// # Errors
///
/// As waitpid(2).
pub fn settle() -> std::io::Result<()> {
    let mut ending = std::mem::take(&mut *ending());
    ending
        .iter_mut()
        .try_for_each(|child| child.wait().map(drop))
}

fn ending() -> MutexGuard<'static, VecDeque<Child>> {
    ENDING.lock().expect("nothing panics while it holds this")
}

/// Leaves a sandbox that has answered to its end.
fn leave(child: Child) -> std::io::Result<()> {
    let mut ending = ending();
    ending.push_back(child);
    ending.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    if ending.len() > MOST_ENDING
        && let Some(mut oldest) = ending.pop_front()
    {
        drop(ending);
        oldest.wait()?;
    }
    Ok(())
}

/// Runs a job in a sandbox that the program `notifreeze` makes.
#[must_use]
pub fn run(job: &Job, notifreeze: &Path) -> Answer {
    match start(job, notifreeze).and_then(|child| finish(child, job)) {
        Ok(answer) => answer,
        Err(error) => Answer::Broken(format!("sandbox: {error}")),
    }
}

fn start(job: &Job, notifreeze: &Path) -> std::io::Result<Child> {
    let mut child = Command::new(notifreeze)
        .arg("sandbox")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("piped above");
    // A sandbox that dies at once closes the pipe; its own words, read later, say why.
    match stdin.write_all(&serde_json::to_vec(job)?) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(child),
    }
}

fn finish(mut child: Child, job: &Job) -> std::io::Result<Answer> {
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let limit = Duration::from_millis(job.limit_ms) + GRACE;
    let Some(answer) = read_within(&mut stdout, limit)? else {
        child.kill()?;
        child.wait()?;
        return Ok(Answer::Broken(format!(
            "no answer within {} s: the sandbox was killed",
            limit.as_secs()
        )));
    };
    if let Ok(answer) = serde_json::from_slice(&answer) {
        leave(child)?;
        return Ok(answer);
    }
    let mut words = String::new();
    stderr.read_to_string(&mut words)?;
    let status = child.wait()?;
    Ok(Answer::Broken(format!(
        "sandbox ended with {status}: {}",
        words.trim()
    )))
}

/// Everything up to the end of the stream, or nothing if that has not come within `limit`.
fn read_within(
    stream: &mut std::process::ChildStdout,
    limit: Duration,
) -> std::io::Result<Option<Vec<u8>>> {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let deadline = std::time::Instant::now() + limit;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut entry = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        if poll(&mut entry, timeout)? == 0 {
            return Ok(None);
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(Some(bytes)),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}
