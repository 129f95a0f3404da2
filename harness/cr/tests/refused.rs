//! What others would read or hear of a dump: it is refused by name, and nothing was taken.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use cr::dump::foresee;
use cr::queue::drain;
use cr::sys::fanotify::without_sys_admin;
use cr::sys::watch;
use cr::{Afterwards, DumpOptions, dump_to_file};
use fsnotify::event::inotify::Events;
use fsnotify::inotify::Mask;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

#[path = "queue/user.rs"]
mod user;

const SUBJECT: &str = "be-the-subject";
const SHARER: &str = "be-the-sharer";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(SUBJECT) => {
            raise(Signal::SIGSTOP).expect("a stop");
            return ExitCode::SUCCESS;
        }
        Some(SHARER) => {
            nix::unistd::pause();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let permitted = user::settle();
    let trials = vec![
        Trial::test("a_group_that_a_running_process_has_too_is_refused", shared),
        Trial::test("a_watch_on_where_the_image_goes_is_refused", own_directory),
        Trial::test("events_that_could_not_be_put_back_are_not_read", unmakeable),
    ];
    let trials = user::trials(permitted, trials);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A stopped process whose standard input is a group with an event in it.
struct World {
    folder: TempDir,
    group: OwnedFd,
    subject: Running,
}

struct Running(Child);

impl Running {
    fn start(role: &str, group: &OwnedFd) -> Result<Self, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        let command = command.arg(role).stdin(group.try_clone()?);
        Ok(Self(command.stdout(Stdio::null()).spawn()?))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"))
    }

    fn wait_for_stop(&self) -> Result<(), Failed> {
        match waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    fn new() -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let [images, file] = ["images", "file"].map(|name| folder.path().join(name));
        fs::create_dir(images)?;
        File::create(&file)?;
        let group = watch::init()?;
        watch::add_watch(
            group.as_fd(),
            file.as_os_str().as_bytes(),
            Mask(libc::IN_MODIFY),
        )?;
        fs::write(&file, "x")?;
        let subject = Running::start(SUBJECT, &group)?;
        subject.wait_for_stop()?;
        Ok(Self {
            folder,
            group,
            subject,
        })
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("images/image")
    }

    fn options(&self) -> DumpOptions {
        let paths = ["file", "images", "images/image"];
        DumpOptions {
            only_groups: true,
            // Where handles cannot be opened.
            paths: paths.map(|name| self.folder.path().join(name)).to_vec(),
            ..DumpOptions::default()
        }
    }

    /// Why there would be no image.
    fn foresee(&self) -> Vec<String> {
        let foreseen = foresee(self.subject.pid(), &self.options()).expect("a look");
        let refusals = foreseen.refusals.into_values().flatten();
        refusals.map(|error| error.to_string()).collect()
    }

    fn dump(&self, path: &Path) -> Result<(), String> {
        let options = self.options();
        let dumped = dump_to_file(self.subject.pid(), path, (&options, Afterwards::RunsOn));
        match dumped.map_err(|error| error.to_string())?.1[..] {
            [] => Ok(()),
            ref losses => Err(format!("{losses:?}")),
        }
    }
}

fn shared() -> Result<(), Failed> {
    let world = World::new()?;
    let sharer = Running::start(SHARER, &world.group)?;
    let pid = sharer.pid();
    let error = world.dump(&world.image()).unwrap_err();
    let expected =
        format!("fd 0: a group that process {pid} has too, which is not stopped: not supported");
    assert_eq!(error, expected);
    assert_eq!(watch::unread(world.group.as_fd())?, 16, "nothing was taken");
    kill(pid, Signal::SIGSTOP)?;
    sharer.wait_for_stop()?;
    world.dump(&world.image())?;
    assert_eq!(drain(world.group.as_fd())?.len(), 16);
    Ok(())
}

fn unmakeable() -> Result<(), Failed> {
    let world = World::new()?;
    let error = without_sys_admin(|| world.dump(&world.image()))?.unwrap_err();
    let expected = "fd 0: 16 bytes unread, which this user could not put back: fsopen of a tmpfs: \
                    EPERM: Operation not permitted";
    assert_eq!(error, expected);
    assert_eq!(watch::unread(world.group.as_fd())?, 16, "nothing was taken");
    let foreseen = without_sys_admin(|| world.foresee())?;
    assert_eq!(foreseen, [expected], "before it is dumped");
    drain(world.group.as_fd())?;
    assert!(without_sys_admin(|| world.foresee())?.is_empty());
    without_sys_admin(|| world.dump(&world.image()))??;
    Ok(())
}

fn own_directory() -> Result<(), Failed> {
    let world = World::new()?;
    world.dump(&world.image())?;
    for watched in ["images/image", "images"] {
        let path = world.folder.path().join(watched);
        let mask = Mask(libc::IN_CREATE | libc::IN_ATTRIB | libc::IN_DELETE_SELF);
        let wd = watch::add_watch(world.group.as_fd(), path.as_os_str().as_bytes(), mask)?;
        let error = world.dump(&world.image()).unwrap_err();
        let expected = format!(
            "fd 0: watch {wd} on where the image is written, which it would hear: not supported"
        );
        assert_eq!(error, expected);
        // What it watches has changed: the record of the dump was there.
        let queue = drain(world.group.as_fd())?;
        let of_record = |name: &[u8]| watched == "images" && name == b"image.dump";
        let mut others = Events::new(&queue).map(|event| event.expect("an event").name);
        assert_eq!(others.next(), Some(&b""[..]), "what was unread");
        assert!(others.all(of_record), "nothing else came or went");
        watch::rm_watch(world.group.as_fd(), wd)?;
        drain(world.group.as_fd())?;
        fs::write(world.folder.path().join("file"), "y")?;
    }
    // Elsewhere it is not heard.
    world.dump(&world.folder.path().join("image"))?;
    Ok(())
}
