//! `notifreeze restore`: a program that starts with the groups of another.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cr::dump::{Release, is_there, release_at_exec};
use cr::image::{ImageFile, Parked};
use cr::{Others, RestoreOptions};

use super::{program, show};

/// Which image, and for which program.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
This process restores the groups, and becomes the program, which has them open at the numbers that
they had. The image is one of `notifreeze dump --only-fsnotify`.

An image says what is opened and made, as a crontab says what is run: who owns it vouches for it. One
that is neither yours nor root's is refused, unless --root or --trust is given. A copy that you made
is yours: look at it before, with `notifreeze show`.

  notifreeze restore --images /var/tmp/i -- my-daemon --groups-are-open")]
pub(super) struct Args {
    /// The folder that `dump` wrote, or an image.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Look for what is watched below this directory; nothing outside of it is opened, made, linked
    /// or changed.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Restore an image of another user, who may have put anything into it.
    #[arg(long)]
    trust: bool,
    /// How far the machine's counter of rename cookies is moved at most, by renames that nobody
    /// hears, to give the second half of a rename its cookie again after a reboot.
    #[arg(long, value_name = "N", default_value_t = cr::queue::COOKIE_DISTANCE)]
    cookie_distance: u32,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let path = show::file(&args.images);
    let file = ImageFile::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if !file.image().only_groups {
        let why = "the image is of a whole process, which no other program can become; \
                   dump with --only-fsnotify";
        return Err(why.to_owned());
    }
    let (program, rest) = args.command.split_first().expect("required");
    // Behind the restore there is no way back: links to ghosts are gone.
    let executable = program::find(program)?;
    let options = RestoreOptions {
        root: args.root.clone(),
        trust: args.trust,
        others: Others::Keep,
        keep_holder: true,
        cookie_distance: args.cookie_distance,
        ..RestoreOptions::default()
    };
    let descriptors = file.image().processes[0].descriptors.clone();
    let parked = file.image().parked.clone();
    if let Err(error) = cr::restore::refuse_foreign(&file, &options) {
        anstream::eprintln!("error: {error}");
        return Ok(crate::EXIT_FAIL);
    }
    let release = parked.as_ref().map(|parked| ask(parked, &executable));
    let release = release.transpose()?;
    if let Err(error) = cr::restore_opened(file, &options) {
        anstream::eprintln!("error: {error}");
        return Ok(crate::EXIT_FAIL);
    }
    // The next exec is ours, not one that the program asked to close them at.
    for descriptor in descriptors {
        cr::sys::raw::fcntl(descriptor.fd, nix::libc::F_SETFD, 0)
            .map_err(|errno| format!("fd {}: F_SETFD: {errno}", descriptor.fd))?;
    }
    if let (Some(Release::Never), Some(parked)) = (release, &parked) {
        let holder = parked.holder;
        anstream::eprintln!(
            "warning: process {holder} cannot trace this one, so it has the groups still: end it once \
             the command runs"
        );
    }
    let error = Command::new(executable).arg0(program).args(rest).exec();
    let groups = match parked {
        None => "",
        Some(parked) if is_there(&parked) => "; the groups are parked as before",
        Some(_) => "; the groups are gone: their holder is",
    };
    Err(format!("{}: {error}{groups}", program.display()))
}

/// Asks the holder of parked groups to end when the program begins.
fn ask(parked: &Parked, executable: &Path) -> Result<Release, String> {
    let release = if program::gains_rights(executable) {
        Release::Never
    } else {
        release_at_exec(parked)
    };
    match release {
        Release::AtExec | Release::Never => Ok(release),
        Release::Gone => Err("the groups are gone: their holder is".to_owned()),
        Release::Busy => {
            let why = "the holder of the groups does not answer: it is stopped, or another restore is \
                       under way";
            Err(why.to_owned())
        }
    }
}
