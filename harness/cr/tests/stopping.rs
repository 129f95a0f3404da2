//! A process that SIGSTOP has not reached yet: it is in vfork(2), as posix_spawn(3) is until its child
//! runs a program, and the signal waits.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cr::DumpOptions;
use cr::dump::{Claim, DumpErrorKind, Outcome, recover};
use cr::process::{began, stat, waits_for};
use cr::sys::spawn::wait_signal;
use cr::sys::watch;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, mkfifo};

const SUBJECT: &str = "be-the-subject";
const CHILD: &str = "be-the-child";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [SUBJECT, fifo] => return subject(Path::new(fifo)),
        [CHILD] => return ExitCode::SUCCESS,
        _ => {}
    }
    let trials = vec![
        Trial::test("whom_another_is_stopping_he_may_let_go_on", anothers),
        Trial::test("whom_a_killed_dumper_was_stopping_goes_on", killed),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// In vfork(2) until somebody writes to the fifo.
fn subject(fifo: &Path) -> ExitCode {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("a path");
    let mut actions = PosixSpawnFileActions::init().expect("actions");
    let child = actions
        .add_open(3, &*name(fifo), OFlag::O_RDONLY, Mode::empty())
        .and_then(|()| {
            let program = name(&std::env::current_exe().expect("this program"));
            let attributes = PosixSpawnAttr::init()?;
            let arguments = [&program, &CString::new(CHILD).expect("a word")];
            let none: [&CString; 0] = [];
            posix_spawn(&*program, &actions, &attributes, &arguments, &none)
        })
        .expect("a child");
    waitpid(child, None).expect("its end");
    nix::unistd::pause();
    ExitCode::SUCCESS
}

struct World {
    folder: tempfile::TempDir,
    subject: Child,
}

impl World {
    /// SIGSTOP waits for the subject.
    fn new() -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let fifo = folder.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU)?;
        let subject = Command::new(std::env::current_exe()?)
            .arg(SUBJECT)
            .arg(&fifo)
            .stdin(watch::init()?.as_fd().try_clone_to_owned()?)
            .stdout(Stdio::null())
            .spawn()?;
        let world = Self { folder, subject };
        let pid = world.pid();
        wait_for("a child that waits", || {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            let wchan = match children.trim() {
                "" => String::new(),
                child => fs::read_to_string(format!("/proc/{child}/wchan"))?,
            };
            Ok(wchan == "wait_for_partner")
        })?;
        kill(pid, Signal::SIGSTOP)?;
        assert_ne!(stat(pid)?[0], "T", "it is stopped at once");
        assert!(world.is_signalled());
        Ok(world)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.subject.id()).expect("a pid"))
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn is_signalled(&self) -> bool {
        waits_for(self.pid(), Signal::SIGSTOP)
    }

    fn leave_vfork(&self) -> Result<(), Failed> {
        let fifo = self.folder.path().join("fifo");
        OpenOptions::new().write(true).open(fifo)?;
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.subject.kill();
        // Killed, it waits for its child all the same.
        let path = self.folder.path().join("fifo");
        let _fifo = OpenOptions::new().read(true).write(true).open(path);
        let _ = self.subject.wait();
    }
}

/// Waits until `done`, giving the machine away between two looks, for 10 s at most.
fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done()? {
        if Instant::now() > deadline {
            return Err(format!("{what}: not within 10 s").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn anothers() -> Result<(), Failed> {
    let world = World::new()?;
    let options = DumpOptions {
        only_groups: true,
        ..DumpOptions::default()
    };
    let mut claim = Claim::on(world.pid(), &world.image(), &options)?;
    // The dumper looks once, and gives up before it looks again.
    let signals = SigSet::from(Signal::SIGTERM);
    signals.thread_block()?;
    raise(Signal::SIGTERM)?;
    let error = claim.stop(&options).unwrap_err();
    assert!(
        matches!(error.kind, DumpErrorKind::Interrupted(_)),
        "{error}"
    );
    assert!(wait_signal(&signals, Duration::ZERO));
    assert!(!claim.has_stopped(), "it was not us");
    let _ = claim.end();
    assert!(world.is_signalled(), "it was let go on");
    world.leave_vfork()?;
    wait_for("a stop", || Ok(stat(world.pid())?[0] == "T"))
}

fn killed() -> Result<(), Failed> {
    let world = World::new()?;
    let (pid, start) = (world.pid(), began(world.pid())?);
    // As a dumper leaves it that is killed behind kill(2).
    let claim = Claim::on(pid, &world.image(), &DumpOptions::default())?;
    let record = world.folder.path().join("image.dump");
    let head = fs::read_to_string(&record)?;
    let _ = claim.end();
    fs::write(&record, format!("{head}stop {pid} {start}\n"))?;
    let recovered = recover(&world.image(), &DumpOptions::default())?;
    let outcomes: Vec<&Outcome> = recovered.iter().map(|it| &it.outcome).collect();
    assert_eq!(outcomes, [&Outcome::WentOn { pid: pid.as_raw() }]);
    assert!(!world.is_signalled(), "it will stop yet");
    world.leave_vfork()?;
    wait_for("it goes on", || {
        let wchan = fs::read_to_string(format!("/proc/{pid}/wchan"))?;
        assert_ne!(stat(pid)?[0], "T");
        Ok(wchan.contains("pause"))
    })?;
    assert!(File::open(&record).is_err(), "the record is done with");
    Ok(())
}
