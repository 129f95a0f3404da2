//! `notifreeze restore`: a program that starts with the groups of another.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use cr::{Others, RestoreOptions};

use super::{program, show};

/// Which image, and for which program.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
This process restores the groups, and becomes the program, which has them open at the numbers that
they had. The image is one of `notifreeze dump --only-fsnotify`.

  notifreeze restore --images /var/tmp/i -- my-daemon --groups-are-open")]
pub(super) struct Args {
    /// The folder that `dump` wrote, or an image.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Look for what is watched below this directory; nothing outside of it is opened.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// How far the machine's counter of rename cookies is moved at most, by renames that nobody
    /// hears, to give the second half of a rename its cookie again after a reboot.
    #[arg(long, value_name = "N", default_value_t = cr::queue::COOKIE_DISTANCE)]
    cookie_distance: u32,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let image = show::read(&args.images)?;
    if !image.only_groups {
        let why = "the image is of a whole process, which no other program can become; \
                   dump with --only-fsnotify";
        return Err(why.to_owned());
    }
    let (program, rest) = args.command.split_first().expect("required");
    // Behind the restore there is no way back: parked groups have left their holder, and links to
    // ghosts are gone.
    let file = program::find(program)?;
    let options = RestoreOptions {
        root: args.root.clone(),
        others: Others::Keep,
        cookie_distance: args.cookie_distance,
        ..RestoreOptions::default()
    };
    if let Err(error) = cr::restore_file(&show::file(&args.images), &options) {
        anstream::eprintln!("error: {error}");
        return Ok(crate::EXIT_FAIL);
    }
    // The next exec is ours, not one that the program asked to close them at.
    for descriptor in &image.processes[0].descriptors {
        cr::sys::raw::fcntl(descriptor.fd, nix::libc::F_SETFD, 0)
            .map_err(|errno| format!("fd {}: F_SETFD: {errno}", descriptor.fd))?;
    }
    let error = Command::new(file).arg0(program).args(rest).exec();
    let what = format!("{}: {error}", program.display());
    if image.parked.is_none() {
        return Err(what);
    }
    // They have left their holder, and would end with this process.
    Err(
        match cr::dump::park_again(&image, &show::file(&args.images)) {
            Ok(()) => format!("{what}; the groups are parked again"),
            Err(error) => {
                format!("{what}; the groups are gone, since they cannot be parked: {error}")
            }
        },
    )
}
