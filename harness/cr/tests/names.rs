//! Names that a text could take for something else, or that no text can hold: of directories, files,
//! ghosts, and in unread events. All come through a dump and a restore as the bytes that they are.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use cr::sys::{descriptor, raw, watch};
use cr::{DumpOptions, LossKind};
use fsnotify::inotify::Mask;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, raise};

mod heir;
mod parked;
#[path = "queue/user.rs"]
mod user;

use parked::Parked;

const SUBJECT: &str = "be-the-subject";
const HEIR: &str = "be-the-heir";

/// The subject's group, and the first of the descriptors that lead to names.
const GROUP: i32 = 10;
const FIRST: i32 = 20;

/// Of each name: a directory, in it a file, a removed file and a removed directory.
const N_EACH: usize = 4;

const NAMES: [&[u8]; 22] = [
    b"\n",
    b"line\nline",
    b"inotify wd:1 ino:1 sdev:1 mask:1",
    b"\xff\xfe",
    b"\xc3\x28\xed\xa0\x80",
    b"\x01\x7f\x1b[31m",
    &[b'n'; 255],
    &[b'\xff'; 255],
    b" (deleted)",
    b"a (deleted)",
    b"a (deleted) (deleted)",
    b"(unreachable)",
    b"...",
    b"..a",
    b"a..",
    b".. ",
    b" ",
    b"\\040\\012",
    b"-rf",
    b"#1",
    b".notifreeze-1-0",
    "\u{202e}\u{1f980}".as_bytes(),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [SUBJECT, tree] => return subject(Path::new(tree)),
        [HEIR, image, said] => {
            let paths = (Path::new(image), Path::new(said));
            return heir::restore(paths, GROUP, |group| state(group, group));
        }
        _ => {}
    }
    let permitted = user::settle();
    let trials = vec![
        Trial::test("names_are_kept_byte_by_byte", || cut(|_| Ok(()))),
        Trial::test("a_name_is_kept_where_another_file_has_it_by_now", || {
            cut(occupy)
        }),
        Trial::test("a_name_is_kept_beside_one_that_says_it_is_gone", || {
            cut(mislead)
        }),
    ];
    let trials = user::trials(permitted, trials);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Each removed name is that of another file when the dump comes.
fn occupy(tree: &Path) -> io::Result<()> {
    for name in NAMES {
        let [_, _, ghost, folder] = paths(tree, name);
        fs::write(ghost, "another")?;
        fs::create_dir(folder)?;
    }
    Ok(())
}

/// What the link in /proc says of each removed name is the name of another file.
fn mislead(tree: &Path) -> io::Result<()> {
    let short = NAMES.into_iter().filter(|name| name.len() < 200);
    for name in short {
        for mut path in paths(tree, name).into_iter().skip(2) {
            path.as_mut_os_string().push(" (deleted)");
            fs::write(path, "another")?;
        }
    }
    Ok(())
}

/// What the subject sees before a dump, its heir sees behind the restore, and the tree is the same.
fn cut(then: fn(&Path) -> io::Result<()>) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let [tree, image, said] = ["tree", "image", "said"].map(|name| directory.path().join(name));
    fs::create_dir(&tree)?;
    let expected = {
        let subject = Parked::start(&[SUBJECT.as_ref(), tree.as_os_str()])?;
        let expected = fs::read_to_string(tree.with_extension("expected"))?;
        // Where handles of files cannot be opened.
        let options = DumpOptions {
            paths: NAMES.iter().flat_map(|name| paths(&tree, name)).collect(),
            ..DumpOptions::default()
        };
        then(&tree)?;
        let dumped = cr::dump(subject.pid(), &options).map_err(|error| error.to_string())?;
        // The size of a removed directory is no matter of its name.
        let mut losses = dumped.losses();
        losses.retain(|loss| loss.kind != Ok(LossKind::DirectorySize));
        same(&Vec::new(), &losses)?;
        dumped.write(&image)?;
        expected
    };
    let before = all(&tree)?;
    let this = std::env::current_exe()?;
    Command::new(this)
        .arg(HEIR)
        .args([&image, &said])
        .status()?;
    same(&expected, &fs::read_to_string(said)?)?;
    same(&before, &all(&tree)?)
}

fn paths(tree: &Path, name: &[u8]) -> [PathBuf; N_EACH] {
    let name = OsStr::from_bytes(name);
    let folder = tree.join(name);
    let below = |kind: &str| folder.join(kind).join(name);
    [folder.clone(), below("file"), below("ghost"), below("gone")]
}

/// Makes and watches everything with two groups, of which one is read to know what is in the other.
fn subject(tree: &Path) -> ExitCode {
    descriptor::close_range(3, u32::MAX).unwrap();
    let groups = [watch::init().unwrap(), watch::init().unwrap()];
    let mut next = FIRST;
    for name in NAMES {
        let found = paths(tree, name);
        for kind in ["file", "ghost", "gone"] {
            fs::create_dir_all(found[0].join(kind)).unwrap();
        }
        for path in &found[1..3] {
            fs::write(path, "content").unwrap();
        }
        fs::create_dir(&found[3]).unwrap();
        for path in &found {
            raw::dup3(File::open(path).unwrap().as_raw_fd(), next, 0).unwrap();
            next += 1;
            for group in &groups {
                let bytes = path.as_os_str().as_bytes();
                watch::add_watch(group.as_fd(), bytes, Mask::ALL_EVENTS).unwrap();
            }
        }
        // Events with the name, and of what goes.
        let child = found[0].join(OsStr::from_bytes(name));
        fs::create_dir(&child).unwrap();
        fs::remove_dir(child).unwrap();
        fs::remove_file(&found[2]).unwrap();
        fs::remove_dir(&found[3]).unwrap();
    }
    let [unread, read] = groups;
    let expected = state(&read, &unread);
    fs::write(tree.with_extension("expected"), expected).unwrap();
    drop(read);
    raw::dup3(unread.as_raw_fd(), GROUP, 0).unwrap();
    drop(unread);
    for fd in 0..3 {
        let _ = raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    ExitCode::SUCCESS
}

/// What the descriptors lead to, the events of one group and the watches of the other.
fn state(read: &OwnedFd, group: &OwnedFd) -> String {
    let mut text = String::new();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", group.as_raw_fd())).unwrap();
    for line in info.lines().filter(|line| line.starts_with("inotify ")) {
        // What is made again is another inode.
        let words = line.split(' ').filter(|word| word.starts_with(['w', 'm']));
        writeln!(text, "{}", words.collect::<Vec<_>>().join(" ")).unwrap();
    }
    for fd in (FIRST..).take(NAMES.len() * N_EACH) {
        let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        writeln!(text, "{fd} {link:?}").unwrap();
    }
    let events = cr::queue::drain(read.as_fd()).unwrap();
    writeln!(text, "{} {events:?}", events.len()).unwrap();
    text
}

/// Every path, and what is there.
fn all(tree: &Path) -> Result<Vec<String>, Failed> {
    let mut found = Vec::new();
    let mut next = vec![tree.to_owned()];
    while let Some(path) = next.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            let entries = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path()));
            next.extend(entries.collect::<Result<Vec<_>, _>>()?);
        }
        let (length, changed) = (metadata.len(), metadata.modified()?);
        found.push(format!("{path:?} {length} {changed:?}"));
    }
    found.sort();
    Ok(found)
}

fn same<T: std::fmt::Debug + PartialEq>(expected: &T, found: &T) -> Result<(), Failed> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{expected:#?} became {found:#?}").into())
}
