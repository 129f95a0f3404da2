//! A ghost that was in a directory of another user, as temporary files are: it comes back, and the times
//! of the directory, which only its owner may put back, are declared.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use cr::sys::{descriptor, raw, watch};
use cr::{DumpOptions, LossKind};
use fsnotify::inotify::Mask;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

mod heir;
#[path = "queue/user.rs"]
mod user;

const SUBJECT: &str = "be-the-subject";
const HEIR: &str = "be-the-heir";

/// Numbers of the subject's group and of its ghost.
const GROUP: i32 = 10;
const GHOST: i32 = 11;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [SUBJECT, said] => return subject(Path::new(said)),
        [HEIR, image, said] => {
            return heir::restore((Path::new(image), Path::new(said)), GROUP, state);
        }
        _ => {}
    }
    let permitted = user::settle();
    let name = "a_ghost_in_the_directory_of_another_costs_its_times";
    let trials = user::trials(permitted, vec![Trial::ignorable_test(name, cut)]);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn cut() -> Result<Completion, Failed> {
    let directory = tempfile::tempdir()?;
    let [image, said, expected] =
        ["image", "said", "expected"].map(|name| directory.path().join(name));
    if fs::metadata(std::env::temp_dir())?.uid() == nix::unistd::geteuid().as_raw() {
        let reason = "the directory of temporary files is the caller's own";
        return Ok(Completion::ignored_with(reason));
    }
    let this = std::env::current_exe()?;
    let mut child = Command::new(&this)
        .arg(SUBJECT)
        .arg(&expected)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    if !matches!(stopped, WaitStatus::Stopped(..)) {
        return Err(format!("the subject did not stop: {stopped:?}").into());
    }
    let dumped = cr::dump(pid, &DumpOptions::default()).map_err(|error| error.to_string());
    kill(pid, Signal::SIGKILL)?;
    child.wait()?;
    let dumped = dumped?;
    let kinds: Vec<_> = dumped.losses().iter().map(|loss| loss.kind).collect();
    if kinds != [Ok(LossKind::OthersDirectory)] {
        return Err(format!("declared: {:?}", dumped.losses()).into());
    }
    dumped.write(&image)?;
    Command::new(this)
        .arg(HEIR)
        .args([&image, &said])
        .status()?;
    let (expected, found) = (fs::read_to_string(expected)?, fs::read_to_string(said)?);
    if expected == found {
        Ok(Completion::Completed)
    } else {
        Err(format!("{expected} became {found}").into())
    }
}

/// Watches a ghost that was a temporary file, and stops.
fn subject(said: &Path) -> ExitCode {
    descriptor::close_range(3, u32::MAX).unwrap();
    let group = watch::init().unwrap();
    let path = std::env::temp_dir().join(format!("notifreeze-others-{}", std::process::id()));
    let options = &mut File::options();
    let ghost = options.read(true).write(true).create_new(true).open(&path);
    let ghost = ghost.unwrap();
    fs::write(&path, "content").unwrap();
    watch::add_watch_on(
        group.as_fd(),
        &ghost,
        Mask(libc::IN_CLOSE | libc::IN_DELETE_SELF),
    )
    .unwrap();
    fs::remove_file(path).unwrap();
    raw::dup3(group.as_raw_fd(), GROUP, 0).unwrap();
    raw::dup3(ghost.as_raw_fd(), GHOST, 0).unwrap();
    drop(ghost);
    fs::write(said, state(&group)).unwrap();
    drop(group);
    for fd in 0..3 {
        let _ = raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    ExitCode::SUCCESS
}

/// What the ghost is called, what is in it, and how it is watched.
fn state(group: &OwnedFd) -> String {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", group.as_raw_fd())).unwrap();
    let watches = info.lines().filter(|line| line.starts_with("inotify "));
    // What is made again is another inode.
    let watches: Vec<&str> = watches
        .flat_map(|line| line.split(' ').filter(|word| word.starts_with(['w', 'm'])))
        .collect();
    let link = format!("/proc/self/fd/{GHOST}");
    let (name, content) = (fs::read_link(&link), fs::read_to_string(&link));
    format!(
        "{watches:?} {} {:?}",
        name.unwrap().display(),
        content.unwrap()
    )
}
