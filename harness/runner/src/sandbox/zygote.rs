//! The process that the sandboxes of a harness are forks of.
//!
//! A program is started once, `notifreeze sandbox`, with one thread and little memory; whatever runs
//! a scenario is a fork of it or of a fork, and no program is loaded in between. It lives as long as
//! the harness has the other end of its standard input, over which each sandbox is asked for.

use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, MutexGuard};

use cr::sys::{pass, spawn};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin};

use super::outer;

/// Its name on the command line.
pub const SUBCOMMAND: &str = "sandbox";

/// What a harness has of a sandbox.
#[derive(Debug)]
pub(super) struct Line {
    /// The job goes in, the answer comes out. A sandbox whose line is closed ends.
    pub(super) talk: UnixStream,
    /// What else it has to say. It ends when nothing of the sandbox is left.
    pub(super) words: PipeReader,
}

/// A zygote, as the harness has it.
struct Zygote {
    program: PathBuf,
    process: Child,
    control: UnixStream,
}

/// One a program: of these there is one, but in tests.
static ZYGOTES: Mutex<Vec<Zygote>> = Mutex::new(Vec::new());

fn zygotes() -> MutexGuard<'static, Vec<Zygote>> {
    ZYGOTES.lock().expect("nothing panics while it holds this")
}

/// Starts a sandbox.
///
/// # Errors
///
/// If the program cannot be started, or there are too many descriptors.
pub(super) fn start_sandbox(program: &Path) -> io::Result<Line> {
    let (talk, their_talk) = UnixStream::pair()?;
    let (words, their_words) = io::pipe()?;
    let files = &[their_talk.as_fd(), their_words.as_fd()];
    let mut zygotes = zygotes();
    if let Some(index) = zygotes.iter().position(|known| known.program == program) {
        match pass::send(&zygotes[index].control, files) {
            Ok(()) => return Ok(Line { talk, words }),
            // It was killed: no reason to end with it.
            Err(Errno::EPIPE | Errno::ECONNRESET) => zygotes.remove(index).end()?,
            Err(errno) => return Err(errno.into()),
        }
    }
    let zygote = Zygote::start(program)?;
    let sent = pass::send(&zygote.control, files);
    zygotes.push(zygote);
    sent?;
    Ok(Line { talk, words })
}

/// Ends every zygote.
///
/// # Errors
///
/// As waitpid(2).
pub(super) fn end() -> io::Result<()> {
    let mut zygotes = std::mem::take(&mut *zygotes()).into_iter();
    zygotes.try_for_each(Zygote::end)
}

impl Zygote {
    fn start(program: &Path) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let process = Command::new(program)
            .arg(SUBCOMMAND)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self {
            program: program.to_path_buf(),
            process,
            control,
        })
    }

    fn end(mut self) -> io::Result<()> {
        drop(self.control);
        self.process.wait().map(drop)
    }
}

/// The hidden subcommand `sandbox`: forks a sandbox for each request that standard input brings.
#[must_use]
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("{error}");
            ExitCode::from(crate::EXIT_BROKEN)
        }
    }
}

fn serve() -> io::Result<()> {
    let myself = Pid::this();
    while let Some(files) = pass::receive(io::stdin())? {
        reap();
        let [talk, words] = <[OwnedFd; 2]>::try_from(files)
            .map_err(|files| io::Error::other(format!("{} descriptors", files.len())))?;
        match spawn::fork() {
            Ok(Some(_)) => {}
            Ok(None) => {
                dup2_stdin(File::open("/dev/null")?)?;
                dup2_stderr(words)?;
                return outer::run(talk.into(), myself);
            }
            Err(error) => writeln!(File::from(words), "fork: {error}")?,
        }
    }
    Ok(())
}

/// Nobody asks how a sandbox ended.
fn reap() {
    while !matches!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive) | Err(_)
    ) {}
}
