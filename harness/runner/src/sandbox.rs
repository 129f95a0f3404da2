//! One run in a sandbox of its own, seen from the harness.
//!
//! The harness asks a zygote for a sandbox and hands it a [`Job`]; the sandbox makes its namespaces and
//! answers. Whatever the run makes lives in those namespaces, so it is gone when the run is over, and
//! also when the harness or the sandbox is killed: the zygote ends with the harness, whose end of its
//! standard input is closed then; each process below it asks the kernel to be killed when its parent
//! dies (`PR_SET_PDEATHSIG`), and the death of the namespace's init takes every process and mount with
//! it.

use std::collections::VecDeque;
use std::io::{self, PipeReader, Read};
use std::path::Path;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use scenario::Call;

use crate::engine::EngineSpec;
use crate::job::{self, Answer, Job};

mod closer;
mod filesystem;
mod init;
pub mod inner;
mod outer;
pub mod own_root;
mod world;
mod zygote;

pub use closer::Closer;
pub use filesystem::Filesystem;
pub use zygote::{SUBCOMMAND, main};

/// Time that a sandbox has beyond the job's own limit before it is ended from outside. The inner
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

/// What sandboxes under way and ending have of the groups that the kernel grants a user, 128 of either
/// kind by default. A group is gone milliseconds after its last descriptor, and sandboxes answer before.
static GROUPS: Mutex<Groups> = Mutex::new(Groups {
    n_taken: 0,
    ending: VecDeque::new(),
});

/// Signalled when a sandbox has answered, or has ended without.
static ANSWERED: Condvar = Condvar::new();

struct Groups {
    n_taken: usize,
    /// Of sandboxes that have answered: how many groups each has, and what is left to read, which is
    /// nothing, and then its end.
    ending: VecDeque<(usize, PipeReader)>,
}

/// The groups of a sandbox under way.
struct Share(usize);

impl Share {
    /// Waits until there are groups enough for a job.
    fn take(job: &Job) -> io::Result<Self> {
        let most = *MOST_GROUPS;
        let n_wanted = n_groups(job).min(most);
        let mut groups = groups();
        while groups.n_taken + n_wanted > most {
            if let Some((n_groups, words)) = groups.ending.pop_front() {
                drop(groups);
                Self(n_groups).end(words)?;
                groups = self::groups();
            } else {
                groups = ANSWERED.wait(groups).expect(NO_PANIC);
            }
        }
        groups.n_taken += n_wanted;
        Ok(Self(n_wanted))
    }

    /// Waits for the end of a sandbox that has answered.
    fn end(self, mut words: PipeReader) -> io::Result<()> {
        io::copy(&mut words, &mut io::sink()).map(drop)
    }

    /// Leaves a sandbox that has answered to its end, which takes as long as the run.
    fn leave(self, words: PipeReader) {
        groups().ending.push_back((self.0, words));
        ANSWERED.notify_all();
        std::mem::forget(self);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        groups().n_taken -= self.0;
        ANSWERED.notify_all();
    }
}

fn groups() -> MutexGuard<'static, Groups> {
    GROUPS.lock().expect(NO_PANIC)
}

const NO_PANIC: &str = "nothing panics while it holds this";

/// Groups of either kind that a run has at most: those that its scenario makes, those that each cut
/// makes again while the old ones end, and a bystander's.
fn n_groups(job: &Job) -> usize {
    let steps = scenario::parse(&job.scenario).map_or(Vec::new(), |parsed| parsed.scenario.steps);
    let n_steps = |call| steps.iter().filter(|step| step.call == call).count();
    let n_made = n_steps(Call::InotifyInit1).max(n_steps(Call::FanotifyInit));
    match job.engine {
        EngineSpec::Control => n_made + 1,
        _ => n_made * (1 + n_steps(Call::Checkpoint)) + 1,
    }
}

/// How many groups the sandboxes may have together. The user has others, and other harnesses.
static MOST_GROUPS: LazyLock<usize> = LazyLock::new(|| {
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").ok();
    let limit: Option<usize> = limit.and_then(|text| text.trim().parse().ok());
    (limit.unwrap_or(128) / 2).max(1)
});

/// Waits until every sandbox that has answered is gone, and what they were forked from.
///
/// # Errors
///
/// As read(2) and waitpid(2).
pub fn settle() -> io::Result<()> {
    let ending = std::mem::take(&mut groups().ending);
    for (n_groups, words) in ending {
        Share(n_groups).end(words)?;
    }
    zygote::end()
}

/// Runs a job in a sandbox of the program `notifreeze`.
#[must_use]
pub fn run(job: &Job, notifreeze: &Path) -> Answer {
    let once =
        || ask(job, notifreeze).unwrap_or_else(|error| Answer::Broken(format!("sandbox: {error}")));
    let mut answer = once();
    for _ in 0..MOST_AGAIN {
        if !matches!(answer, Answer::Again(_)) {
            break;
        }
        answer = once();
    }
    answer
}

/// How often a run that shows nothing by chance is started again: the chance is one in hundreds.
const MOST_AGAIN: usize = 5;

fn ask(job: &Job, notifreeze: &Path) -> io::Result<Answer> {
    let share = Share::take(job)?;
    let zygote::Line { talk, mut words } = zygote::start_sandbox(notifreeze)?;
    let limit = Duration::from_millis(job.limit_ms) + GRACE;
    // A sandbox that dies at once closes the line; its own words, read later, say why.
    let answer = job::send(&talk, job).and_then(|()| {
        job::receive(Within {
            stream: &talk,
            deadline: Instant::now() + limit,
        })
    });
    if answer.is_ok() {
        share.leave(words);
        return answer;
    }
    // It ends now, if it has not yet.
    drop(talk);
    let mut said = String::new();
    words.read_to_string(&mut said)?;
    match answer {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Answer::Broken(format!(
            "no answer within {} s: the sandbox was killed",
            limit.as_secs()
        ))),
        _ => Ok(Answer::Broken(format!(
            "the sandbox ended without an answer: {}",
            said.trim()
        ))),
    }
}

/// A stream that says `TimedOut` when nothing has come by the deadline.
struct Within<'a> {
    stream: &'a std::os::unix::net::UnixStream,
    deadline: Instant,
}

impl Read for Within<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::fd::AsFd;

        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

        let left = self.deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut entry = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        if poll(&mut entry, timeout)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.read(buffer)
    }
}
