//! How many system calls a further watch and a further unread event cost.
//!
//! A clock says something else each time; a count does not, and what makes a dump slow is one more call
//! for each of 100,000 watches. The times are measured by `benches/watches.rs` and `benches/rebuild.rs`.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use cr::sys::{handle, raw, watch};
use fsnotify::inotify::Mask;
use libtest_mimic::{Completion, Failed};
use nix::sys::signal::{Signal, raise};

use crate::subject::Subject;
use crate::trace::Traced;
use crate::{DUMPER, RESTORER};

const FEW_WATCHES: &str = "few-watches";
const MANY_WATCHES: &str = "many-watches";
const FEW_EVENTS: &str = "few-events";
const MANY_EVENTS: &str = "many-events";

/// Subjects that watch `FEW` or `MANY` files, or leave as many events unread.
pub(crate) const ROLES: [&str; 4] = [FEW_WATCHES, MANY_WATCHES, FEW_EVENTS, MANY_EVENTS];

const FEW: usize = 100;
const MANY: usize = 1100;

/// How many calls a further one costs, at the most.
struct Most {
    dump: usize,
    restore: usize,
}

/// At the dump the handle is opened, its path read, the file looked at and closed. At the restore the
/// path is looked at and watched; a wd that comes next by itself is not set. Where assertions are
/// compiled in, the standard library looks at each descriptor before it is closed.
const A_WATCH: Most = Most {
    dump: 4 + cfg!(debug_assertions) as usize,
    restore: 2,
};

/// At the restore the mask is set, a place is made in the queue by a read, and the operation is made,
/// which is a call or two. The dump reads many at once.
const AN_EVENT: Most = Most {
    dump: 0,
    restore: 4,
};

/// What memory and files are had and written with in larger pieces: so many calls for a hundred more.
const SLACK: usize = 10;

/// The subject that is called by one of the four names.
pub(crate) fn run(role: &str, directory: &Path) -> ExitCode {
    std::env::set_current_dir(directory.join("tree")).unwrap();
    cr::sys::descriptor::close_range(3, u32::MAX).unwrap();
    let group = watch::init().unwrap();
    let n = match role {
        FEW_WATCHES | FEW_EVENTS => FEW,
        _ => MANY,
    };
    match role {
        FEW_WATCHES | MANY_WATCHES => {
            for name in (0..n).map(|n| n.to_string()) {
                fs::write(&name, "").unwrap();
                watch::add_watch(group.as_fd(), name.as_bytes(), Mask::ALL_EVENTS).unwrap();
            }
        }
        _ => {
            let mask = Mask(libc::IN_CREATE | libc::IN_CLOSE_WRITE | libc::IN_DELETE);
            watch::add_watch(group.as_fd(), b".", mask).unwrap();
            for n in 0..n {
                match n % 3 {
                    0 | 1 => fs::write("f", "").unwrap(),
                    _ => fs::remove_file("f").unwrap(),
                }
            }
        }
    }
    for fd in 0..3 {
        let _ = raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    ExitCode::SUCCESS
}

pub(crate) fn of_watches() -> Result<Completion, Failed> {
    check([FEW_WATCHES, MANY_WATCHES], &A_WATCH)
}

pub(crate) fn of_events() -> Result<Completion, Failed> {
    check([FEW_EVENTS, MANY_EVENTS], &AN_EVENT)
}

fn check([few, many]: [&str; 2], most: &Most) -> Result<Completion, Failed> {
    let handle = handle::of_path(Path::new("/"))?;
    if let Err(errno) = handle::open(handle::open_path(Path::new("/"))?, &handle) {
        let reason =
            format!("open_by_handle_at: {errno}, so paths are searched for what is watched");
        return Ok(Completion::ignored_with(reason));
    }
    let (few, many) = (count(few)?, count(many)?);
    within("dump", many.dump - few.dump, most.dump)?;
    within("restore", many.restore - few.restore, most.restore)?;
    Ok(Completion::Completed)
}

fn within(verb: &str, n_calls: usize, most: usize) -> Result<(), Failed> {
    let n_more = MANY - FEW;
    eprintln!("{verb}: {n_calls} calls for {n_more} more");
    let most = most * n_more + SLACK * n_more / 100;
    if n_calls <= most {
        return Ok(());
    }
    Err(format!("{verb}: {n_more} more cost {n_calls} calls, and {most} are to do").into())
}

/// How many calls it takes to dump a subject and to restore it.
struct Counts {
    dump: usize,
    restore: usize,
}

fn count(role: &str) -> Result<Counts, Failed> {
    let mut subject = Subject::start_as(role)?;
    let this = std::env::current_exe()?;
    let pid = subject.pid().to_string();
    let directory = subject.directory().to_str().unwrap().to_owned();
    let dump = Traced::start(&this, &[DUMPER, &pid, &directory, "ends"], false)?.count()?;
    subject.kill()?;
    let restore = Traced::start(&this, &[RESTORER, &directory], false)?.count()?;
    Ok(Counts { dump, restore })
}
