//! A dumper is killed at each of its system calls. What it leaves is a subject that is whole, or
//! becomes so by [`cr::recover`], and an image that is complete or not there. Who restores is killed
//! too; what that leaves, the next restore clears.
//!
//! By default at every seventeenth of its calls. With `NOTIFREEZE_CRASH=each` at each, but not at the
//! thousands of equal ones that fill a queue; with `NOTIFREEZE_CRASH=fill` at one in many of those too,
//! and with `NOTIFREEZE_CRASH=all` at all. That takes hours where a queue holds 16,384 events, as all
//! calls are made each time up to the one, and a minute or two where it holds a hundred (ci/queue-limit).
//! `NOTIFREEZE_CRASH_FIRST` is the call to begin with.

mod calls;
#[path = "../queue/equal.rs"]
mod equal;
mod subject;
mod trace;
#[path = "../queue/user.rs"]
mod user;

use std::ffi::CString;
use std::fs;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cr::dump::Outcome;
use cr::fanotify::blocked;
use cr::sys::fanotify::{Response, fanotify_init, open_elsewhere, read_event, respond};
use cr::sys::raw;
use cr::{Afterwards, DumpOptions, Image};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::unistd::Pid;

use subject::{State, Subject};
use trace::{Ended, Traced};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(subject::ROLE) => return subject::run(Path::new(&arguments.next().unwrap())),
        Some(subject::LISTENER) => return subject::listen(Path::new(&arguments.next().unwrap())),
        Some(role) if calls::ROLES.contains(&role) => {
            return calls::run(role, Path::new(&arguments.next().unwrap()));
        }
        Some(DUMPER) => {
            let (pid, directory) = (arguments.next().unwrap(), arguments.next().unwrap());
            let mode = arguments.next().unwrap();
            return dumper(pid.parse().unwrap(), Path::new(&directory), &mode);
        }
        Some(HEIR) => return heir(Path::new(&arguments.next().unwrap())),
        Some(PARKER) => {
            let (pid, directory) = (arguments.next().unwrap(), arguments.next().unwrap());
            return parker(pid.parse().unwrap(), Path::new(&directory));
        }
        Some(RESTORER) => return restorer(Path::new(&arguments.next().unwrap())),
        Some(RECOVERER) => return recoverer(Path::new(&arguments.next().unwrap())),
        Some(_) | None => {}
    }
    let permitted = user::settle();
    let mut arguments = Arguments::from_args();
    // Each test waits for all children of this process.
    arguments.test_threads = Some(1);
    let trials = [
        (
            "a_dumper_may_be_killed_anywhere_if_the_subject_runs_on",
            "runs-on",
        ),
        (
            "a_dumper_may_be_killed_anywhere_if_the_subject_ends",
            "ends",
        ),
        (
            "a_dumper_that_cannot_write_may_be_killed_anywhere",
            "no-image",
        ),
        ("who_recovers_may_be_killed_anywhere", "recover"),
    ];
    let trials = trials.map(|(name, mode)| Trial::test(name, || kill_everywhere(mode)));
    let mut trials = Vec::from(trials);
    trials.push(Trial::test(
        "what_is_parked_outlives_the_subject_and_goes_to_the_heir",
        park,
    ));
    trials.push(Trial::ignorable_test(
        "a_parked_listener_is_still_asked_by_who_waited_before",
        park_listener,
    ));
    trials.push(Trial::test(
        "who_restores_may_be_killed_anywhere",
        kill_restorer_everywhere,
    ));
    trials.push(Trial::ignorable_test(
        "a_further_watch_costs_no_more_calls_than_it_did",
        calls::of_watches,
    ));
    trials.push(Trial::ignorable_test(
        "a_further_unread_event_costs_no_more_calls_than_it_did",
        calls::of_events,
    ));
    let trials = user::trials(permitted, trials);
    libtest_mimic::run(&arguments, trials).exit_code()
}

const DUMPER: &str = "be-the-dumper";

/// The dumper: asks to be traced, and dumps.
fn dumper(pid: i32, directory: &Path, mode: &str) -> ExitCode {
    let image = image_path(directory);
    let afterwards = match mode {
        "ends" => Afterwards::Ends,
        _ => Afterwards::RunsOn,
    };
    if mode == "no-image" {
        // The rename to the name of the image fails.
        fs::create_dir(&image).unwrap();
    }
    let options = options(directory);
    trace::begin();
    match cr::dump_to_file(Pid::from_raw(pid), &image, (&options, afterwards)) {
        Ok((_, losses)) if losses.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(3),
        Err(_) if mode == "no-image" => ExitCode::SUCCESS,
        Err(error) => {
            trace::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

const RECOVERER: &str = "be-who-recovers";

/// Asks to be traced, and recovers.
fn recoverer(directory: &Path) -> ExitCode {
    let options = options(directory);
    trace::begin();
    match cr::recover(&image_path(directory), &options) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            trace::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

const RESTORER: &str = "be-who-restores";

/// Asks to be traced, and restores; stops as the subject did.
fn restorer(directory: &Path) -> ExitCode {
    trace::begin();
    heir(directory)
}

const PARKER: &str = "be-who-parks";
const HEIR: &str = "be-the-heir";

fn parker(pid: i32, directory: &Path) -> ExitCode {
    let parked = cr::dump::park(
        Pid::from_raw(pid),
        &image_path(directory),
        &options(directory),
    );
    match parked {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            trace::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Becomes the subject again, and stops as it did.
fn heir(directory: &Path) -> ExitCode {
    match cr::restore_file(&image_path(directory), &cr::RestoreOptions::default()) {
        Ok(_) => {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
            ExitCode::SUCCESS
        }
        Err(error) => {
            trace::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn park() -> Result<(), Failed> {
    let expected = Subject::start()?.read()?;
    let mut subject = Subject::start()?;
    let fdinfo = subject.fdinfo()?;
    let image = image_path(subject.directory());
    go_through_a_holder(&mut subject)?;
    let holder = Image::read(&image)?.parked.ok_or("no holder")?.holder;
    if Path::new(&format!("/proc/{holder}/exe")).exists() {
        return Err("the holder is still there".into());
    }
    if subject.fdinfo()? != fdinfo {
        return Err(format!("{fdinfo:?} became {:?}", subject.fdinfo()?).into());
    }
    expected.expect(&subject.read()?)
}

/// Parks a subject and puts an heir in its place.
fn go_through_a_holder(subject: &mut Subject) -> Result<(), Failed> {
    let this = std::env::current_exe()?;
    let pid = subject.pid().to_string();
    let directory = subject.directory().to_str().unwrap().to_owned();
    let status = std::process::Command::new(&this)
        .args([PARKER, &pid, &directory])
        .status()?;
    if !status.success() {
        return Err("not parked".into());
    }
    subject.replace(std::process::Command::new(&this).args([HEIR, &directory]))
}

fn park_listener() -> Result<Completion, Failed> {
    if let Err(errno) = fanotify_init(libc::FAN_CLASS_CONTENT, 0) {
        return Ok(Completion::ignored_with(format!("fanotify_init: {errno}")));
    }
    let mut subject = Subject::start_as(subject::LISTENER)?;
    let file = subject.directory().join("tree/f");
    let file = CString::new(file.into_os_string().into_vec())?;
    let opener = open_elsewhere(&file, libc::O_RDONLY)?;
    let waits = || blocked::waits(opener.pid()).is_some();
    let deadline = Instant::now() + LIMIT;
    while !waits() {
        if Instant::now() > deadline {
            return Err("the listener is not asked".into());
        }
    }
    let image = image_path(subject.directory());
    let copied = cr::dump_to_file(
        subject.pid(),
        &image,
        (&options(subject.directory()), Afterwards::Ends),
    );
    let refusal = copied.err().ok_or("a waiting process was let through")?;
    if !refusal.to_string().contains("waits for permission") || !waits() {
        return Err(format!("{refusal}; it waits: {}", waits()).into());
    }
    go_through_a_holder(&mut subject)?;
    if !waits() {
        return Err("the waiting process was let through".into());
    }
    let group = &subject.groups()?[0];
    let event = read_event(group)?;
    let asked = event.fd.as_ref().ok_or("an event without its file")?;
    respond(group, asked.as_raw_fd(), Response::Deny)?;
    if event.pid != opener.pid() {
        return Err(format!("{event:?} is of another process").into());
    }
    if !raw::readable(opener.as_fd().as_raw_fd(), LIMIT_MS)? {
        return Err("it waits behind its answer".into());
    }
    opener.finish();
    Ok(Completion::Completed)
}

/// How long a process may take to ask.
const LIMIT: Duration = Duration::from_millis(5000);
const LIMIT_MS: i32 = 5000;

/// A restore that is killed leaves nothing that the next one does not clear, and the image.
fn kill_restorer_everywhere() -> Result<(), Failed> {
    let calls = Calls::wanted();
    let expected = Subject::start()?.read()?;
    let this = std::env::current_exe()?;
    let mut n_killed = 0;
    let mut n_cleared = 0;
    for n in (calls.first..).step_by(calls.step) {
        let mut subject = Subject::start()?;
        let directory = subject.directory().to_str().unwrap().to_owned();
        let image = image_path(subject.directory());
        let options = (&options(subject.directory()), Afterwards::Ends);
        cr::dump_to_file(subject.pid(), &image, options)?;
        subject.kill()?;
        // Nobody is there now who could hear that it is looked at.
        let tree = subject.tree()?;
        let arguments = [RESTORER, &directory];
        let restorer = Traced::start(&this, &arguments, calls.with_fill)?;
        let restorer_pid = restorer.pid();
        let ended = restorer.run_to_stop(n)?;
        let mut check = || -> Result<bool, Failed> {
            let left = fs::read_dir(image.parent().unwrap())?.count() > 1;
            subject.start_heir(std::process::Command::new(&this).args([HEIR, &directory]))?;
            expected.expect(&subject.read()?)?;
            if subject.tree()? != tree {
                return Err(format!("{tree:#?} became {:#?}", subject.tree()?).into());
            }
            if fs::read_dir(image.parent().unwrap())?.count() > 1 {
                return Err("leftovers beside the image".into());
            }
            let strays = subject.strays(restorer_pid)?;
            if !strays.is_empty() {
                return Err(format!("leftovers {strays:?}").into());
            }
            Ok(left)
        };
        let left = check().map_err(|error| {
            let problem = error.message().unwrap_or_default();
            format!("killed at call {n} ({ended}): {problem}")
        })?;
        n_cleared += usize::from(left);
        match ended {
            Ended::Killed { .. } => n_killed += 1,
            Ended::Exited(0) => break,
            Ended::Exited(status) => return Err(format!("the restorer failed: {status}").into()),
        }
    }
    eprintln!("restore: killed at {n_killed} calls, {n_cleared} times there was a journal");
    let is_whole = calls.first == 0;
    if is_whole && (n_killed < 100 / calls.step || n_cleared < 20 / calls.step) {
        return Err(format!("killed at {n_killed} calls, {n_cleared} cleared").into());
    }
    Ok(())
}

fn image_path(directory: &Path) -> PathBuf {
    directory.join("images/image")
}

/// Where handles cannot be opened, paths lead to what is watched.
fn options(directory: &Path) -> DumpOptions {
    DumpOptions {
        root: directory.to_owned(),
        paths: subject::PATHS.iter().map(PathBuf::from).collect(),
        ..DumpOptions::default()
    }
}

/// Of how many calls one is killed at where nobody asks for all.
const SAMPLE: usize = 17;

/// The same where those that fill a queue are among them: nine thousand calls then, at a quarter of a
/// second for each kill.
const SAMPLE_OF_FILL: usize = 31;

/// Which calls to kill at.
#[derive(Clone, Copy)]
struct Calls {
    first: usize,
    step: usize,
    /// The calls that fill a queue too.
    with_fill: bool,
}

impl Calls {
    fn wanted() -> Self {
        let wanted = std::env::var("NOTIFREEZE_CRASH").unwrap_or_default();
        let first = std::env::var("NOTIFREEZE_CRASH_FIRST").ok();
        Self {
            first: first.and_then(|first| first.parse().ok()).unwrap_or(0),
            step: match &*wanted {
                "" => SAMPLE,
                "fill" => SAMPLE_OF_FILL,
                _ => 1,
            },
            with_fill: matches!(&*wanted, "fill" | "all"),
        }
    }
}

fn kill_everywhere(mode: &str) -> Result<(), Failed> {
    let calls = Calls::wanted();
    // All subjects do the same; this one is read to know what the others have.
    let expected = Subject::start()?.read()?;
    let drained = match mode {
        "recover" => Some(behind_the_drain()?),
        _ => None,
    };
    let mut n_killed = 0;
    let mut n_recovered = 0;
    // How many there are to run to their end before all have.
    let n_dumpers = drained
        .as_ref()
        .map_or(1, |drained| drained.len().div_ceil(calls.step));
    let mut n_ended = 0;
    for n in (calls.first..).step_by(calls.step) {
        let subject = Subject::start()?;
        let fdinfo = subject.fdinfo()?;
        let ended = kill_at(n, &subject, (mode, calls, drained.as_ref()))?;
        if let Ended::Exited(status @ 1..) = ended {
            return Err(format!("{mode}: the dumper failed: {status}").into());
        }
        let recovered = after(&subject, (&expected, &fdinfo), (mode, &ended)).map_err(|error| {
            let problem = error.message().unwrap_or_default();
            format!("{mode}: killed at call {n} ({ended}): {problem}")
        })?;
        n_recovered += usize::from(recovered);
        match ended {
            Ended::Killed { .. } => {
                n_killed += 1;
                n_ended = 0;
            }
            // How many calls there are to recover with depends on where the dumper was killed.
            Ended::Exited(_) => n_ended += 1,
        }
        if n_ended == n_dumpers {
            break;
        }
    }
    eprintln!("{mode}: killed at {n_killed} calls, {n_recovered} times there was a journal");
    // A dump that was never killed behind its drain says nothing.
    let is_whole = calls.first == 0;
    if is_whole && (n_killed < 100 / calls.step || n_recovered < 20 / calls.step) {
        return Err(format!("killed at {n_killed} calls, {n_recovered} recovered").into());
    }
    Ok(())
}

/// Between which calls a dumper has a journal of what it drained. How many it makes before depends on
/// who runs it.
fn behind_the_drain() -> Result<Range<usize>, Failed> {
    let calls = Calls {
        first: 0,
        step: SAMPLE,
        with_fill: false,
    };
    let mut found: Option<Range<usize>> = None;
    for n in (calls.first..).step_by(calls.step) {
        let subject = Subject::start()?;
        let ended = kill_at(n, &subject, ("runs-on", calls, None))?;
        let recovered = cr::recover(
            &image_path(subject.directory()),
            &options(subject.directory()),
        )?;
        let put_back = |it: &cr::dump::Recovered| matches!(it.outcome, Outcome::PutBack { .. });
        let is_over = matches!(ended, Ended::Exited(_));
        match (&mut found, !recovered.iter().any(put_back)) {
            (None, false) if !is_over => found = Some(n..n + 1),
            (Some(found), false) if !is_over => found.end = n + 1,
            (Some(found), _) => return Ok(found.clone()),
            (None, _) if is_over => return Err("no dumper had a journal".into()),
            (None, _) => {}
        }
    }
    unreachable!("a dumper ends")
}

/// Lets the one who is to be killed run to its `n`th call.
fn kill_at(
    n: usize,
    subject: &Subject,
    (mode, calls, drained): (&str, Calls, Option<&Range<usize>>),
) -> Result<Ended, Failed> {
    let this = std::env::current_exe()?;
    let pid = subject.pid().to_string();
    let directory = subject.directory().to_str().unwrap().to_owned();
    let dumper = |mode, n, with_fill| {
        let arguments = [DUMPER, &pid, &directory, mode];
        Traced::start(&this, &arguments, with_fill)?.run_to(n)
    };
    let Some(drained) = drained else {
        return dumper(mode, n, calls.with_fill);
    };
    // Another dumper each time, killed somewhere behind its drain; the same ones in each run.
    let n_first = drained.start + n * 37 % drained.len();
    let ended = dumper("runs-on", n_first, false)?;
    if let Ended::Exited(_) = ended {
        return Err("the first dumper was to be killed".into());
    }
    let arguments = [RECOVERER, &directory];
    Traced::start(&this, &arguments, calls.with_fill)?.run_to(n)
}

/// Recovers, and looks at what there is. Whether there was something to recover.
fn after(
    subject: &Subject,
    (expected, fdinfo): (&State, &[String]),
    (mode, ended): (&str, &Ended),
) -> Result<bool, Failed> {
    let image = image_path(subject.directory());
    let options = options(subject.directory());
    let recovered = cr::recover(&image, &options)?;
    let mut left = Vec::new();
    for entry in fs::read_dir(image.parent().unwrap())? {
        left.push(entry?.file_name());
    }
    let has_image = left == ["image"];
    if !has_image && !left.is_empty() {
        return Err(format!("leftovers {left:?}").into());
    }
    if has_image && mode != "no-image" {
        Image::read(&image)?;
    }
    let put_back = recovered
        .iter()
        .any(|it| matches!(it.outcome, Outcome::PutBack { .. }));
    let must_have_image = matches!(mode, "runs-on" | "ends") && matches!(ended, Ended::Exited(_));
    if matches!(ended, Ended::Exited(_)) && put_back || must_have_image && !has_image {
        return Err(format!("one who was not killed left {recovered:?}").into());
    }
    if mode == "ends" && has_image && subject.has_ended() {
        return Ok(false);
    }
    if mode == "ends" && matches!(ended, Ended::Exited(_)) {
        return Err("the subject is there behind its dump".into());
    }
    if !subject.is_stopped()? {
        return Err("the subject runs".into());
    }
    if subject.fdinfo()? != fdinfo {
        return Err(format!("{fdinfo:?} became {:?}", subject.fdinfo()?).into());
    }
    expected.expect(&subject.read()?)?;
    Ok(put_back)
}
