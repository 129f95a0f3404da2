//! Images, journals and trees that somebody else has had his hands on. A restore refuses them by
//! name, and nothing outside of what they may name is touched.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use cr::image::{Object, Place, PlaceKind};
use cr::sys::{raw, watch};
use cr::{DumpOptions, Image, RestoreOptions};
use fsnotify::inotify::Mask;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, raise};

mod parked;
#[path = "queue/user.rs"]
mod user;

use parked::Parked;

const SUBJECT: &str = "be-the-subject";
const HEIR: &str = "be-the-heir";

/// Numbers of the subject's ghost and of its file.
const GHOST: i32 = 10;
const FILE: i32 = 12;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [SUBJECT, tree] => return subject(Path::new(tree)),
        [HEIR, image, said] => return heir(Path::new(image), Path::new(said)),
        _ => {}
    }
    let permitted = user::settle();
    let mut trials = vec![
        Trial::test("names_that_look_like_something_else_are_kept", keep_names),
        Trial::test(
            "a_ghost_below_a_link_is_beside_what_it_leads_to",
            below_a_link,
        ),
        Trial::test("what_is_no_journal_is_left_alone", leave_alone),
        Trial::test("half_a_line_of_a_journal_is_none", half_a_line),
        Trial::test("times_go_to_the_directory_that_had_them", put_times_back),
        Trial::test("a_journal_of_another_is_not_believed", journal_of_another),
    ];
    let images = IMAGES.iter().map(|case| {
        let run = || refuse_image(case);
        Trial::test(format!("image::{}", case.name), run)
    });
    let lines = LINES.iter().map(|case| {
        let run = || refuse_line(case);
        Trial::test(format!("journal::{}", case.name), run)
    });
    trials.extend(images);
    trials.extend(lines);
    let trials = user::trials(permitted, trials);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A directory with the subject's `tree`, `images`, and what is `outside` of both.
struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        let world = Self { directory };
        for folder in ["tree/d", "tree/precious/empty", "images", "outside/empty"] {
            fs::create_dir_all(world.path(folder))?;
        }
        for file in ["tree/precious/f", "outside/secret"] {
            fs::write(world.path(file), "content")?;
        }
        symlink(world.path("outside"), world.path("tree/link"))?;
        Ok(world)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn bytes(&self, path: &str) -> Vec<u8> {
        self.path(path).into_os_string().into_encoded_bytes()
    }

    /// Everything there is, but images: whoever changed something is seen here.
    fn all(&self) -> Result<Vec<String>, Failed> {
        let mut found = Vec::new();
        let mut next = vec![self.path("tree"), self.path("outside")];
        while let Some(path) = next.pop() {
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                let entries = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path()));
                next.extend(entries.collect::<Result<Vec<_>, _>>()?);
            }
            let (ino, links, size) = (metadata.ino(), metadata.nlink(), metadata.len());
            let (mode, changed) = (metadata.mode(), (metadata.mtime(), metadata.mtime_nsec()));
            found.push(format!(
                "{path:?} {ino} {links} {size} {mode:o} {changed:?}"
            ));
        }
        found.sort();
        Ok(found)
    }

    fn dump(&self) -> Result<Image, Failed> {
        let tree = self.path("tree");
        let subject = Parked::start(&[SUBJECT.as_ref(), tree.as_os_str()])?;
        // Where handles of files cannot be opened.
        let options = DumpOptions {
            paths: vec![self.path("tree/d"), self.path("tree").join(FILE_NAME)],
            ..DumpOptions::default()
        };
        cr::dump(subject.pid(), &options).map_err(|error| error.to_string().into())
    }

    /// What the heir says that became of an image.
    fn restore(&self, image: &Image) -> Result<String, Failed> {
        let (path, said) = (self.path("images/image"), self.path("images/said"));
        image.write(&path)?;
        let this = std::env::current_exe()?;
        Command::new(this).arg(HEIR).args([&path, &said]).status()?;
        Ok(fs::read_to_string(said)?)
    }
}

/// Names that are made of what separates names elsewhere, or says that there is none.
const GHOST_NAME: &str = "d/g\n (deleted)";
const FILE_NAME: &str = "d/f\\012 (deleted)";

/// Makes a ghost and a file, watches both and their directory, and stops.
fn subject(tree: &Path) -> ExitCode {
    cr::sys::descriptor::close_range(3, u32::MAX).unwrap();
    let group = watch::init().unwrap();
    let bytes = |path: &str| tree.join(path).into_os_string().into_encoded_bytes();
    for (name, number) in [(GHOST_NAME, GHOST), (FILE_NAME, FILE)] {
        let path = tree.join(name);
        let mut file = File::create_new(&path).unwrap();
        file.write_all(b"content").unwrap();
        raw::dup3(file.as_raw_fd(), number, 0).unwrap();
        watch::add_watch(group.as_fd(), &bytes(name), Mask(libc::IN_MODIFY)).unwrap();
    }
    watch::add_watch(group.as_fd(), &bytes("d"), Mask(libc::IN_CREATE)).unwrap();
    fs::remove_file(tree.join(GHOST_NAME)).unwrap();
    for fd in 0..3 {
        let _ = raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    ExitCode::SUCCESS
}

/// Restores, and says what came of it: where its descriptors lead, or why there are none.
fn heir(image: &Path, said: &Path) -> ExitCode {
    let text = match cr::restore_file(image, &RestoreOptions::default()) {
        Ok(_) => {
            let links = [GHOST, FILE].map(|fd| fs::read_link(format!("/proc/self/fd/{fd}")));
            format!("restored {links:?}")
        }
        Err(error) => error.to_string(),
    };
    fs::write(said, text).unwrap();
    ExitCode::SUCCESS
}

fn keep_names() -> Result<(), Failed> {
    let world = World::new()?;
    let image = world.dump()?;
    let before = world.all()?;
    let said = world.restore(&image)?;
    let ghost = world.path(&format!("tree/{GHOST_NAME} (deleted)"));
    let file = world.path(&format!("tree/{FILE_NAME}"));
    let expected = format!("restored [Ok({ghost:?}), Ok({file:?})]");
    same(&expected, &said)?;
    same(&before, &world.all()?)
}

/// A directory that is gone, and a link that has its name now, which has it again behind.
fn below_a_link() -> Result<(), Failed> {
    let world = World::new()?;
    let mut image = world.dump()?;
    ghost(&mut image).path = world.bytes("tree/link/new");
    let before = world.all()?;
    let said = world.restore(&image)?;
    let ghost = world.path("tree/link/new (deleted)");
    let file = world.path(&format!("tree/{FILE_NAME}"));
    let expected = format!("restored [Ok({ghost:?}), Ok({file:?})]");
    same(&expected, &said)?;
    same(&before, &world.all()?)
}

/// An image or a tree that is not as the dump left it, and what is said about it.
struct Tampered {
    name: &'static str,
    tamper: fn(&World, &mut Image) -> Result<(), Failed>,
    says: &'static str,
}

const IMAGES: [Tampered; 9] = [
    Tampered {
        name: "a_ghost_above_its_directory",
        tamper: |world, image| {
            ghost(image).path = world.bytes("tree/d/../../outside/new");
            Ok(())
        },
        says: "a component that is empty, `.` or `..`",
    },
    Tampered {
        name: "a_ghost_whose_directory_became_a_link",
        tamper: |world, _| {
            fs::rename(world.path("tree/d"), world.path("tree/e"))?;
            Ok(symlink(world.path("outside"), world.path("tree/d"))?)
        },
        says: "ELOOP",
    },
    Tampered {
        name: "a_ghost_of_a_mount_behind_a_link",
        tamper: |world, image| {
            ghost(image).mount = world.bytes("tree/link");
            Ok(())
        },
        says: "ENOTDIR",
    },
    Tampered {
        name: "a_file_that_became_a_link",
        tamper: |world, _| {
            // Its inode's number stays in use.
            let file = world.path("tree").join(FILE_NAME);
            fs::rename(&file, world.path("tree/old"))?;
            Ok(symlink(world.path("outside/secret"), file)?)
        },
        says: "leads to inode",
    },
    Tampered {
        name: "a_file_that_became_a_link_in_another_boot",
        tamper: |world, image| {
            image.boot_id = "another".to_owned();
            fs::remove_file(world.path("tree").join(FILE_NAME))?;
            let file = world.path("tree").join(FILE_NAME);
            Ok(symlink(world.path("outside/secret"), file)?)
        },
        says: "another type",
    },
    Tampered {
        name: "a_file_behind_a_link_of_proc",
        tamper: |world, image| {
            let path = [&b"/proc/self/root"[..], &world.bytes("outside/secret")].concat();
            place_of(image, FILE).path = path;
            Ok(())
        },
        says: "ELOOP",
    },
    Tampered {
        name: "a_link_of_the_dump_that_became_a_link",
        tamper: |world, image| {
            let link = ".notifreeze-link-1";
            ghost(image).link = link.as_bytes().to_vec();
            let link = world.path("tree/d").join(link);
            Ok(symlink(world.path("outside/secret"), link)?)
        },
        says: "another type",
    },
    Tampered {
        name: "a_link_of_the_dump_elsewhere",
        tamper: |_, image| {
            ghost(image).link = b".notifreeze-link-/../../outside/secret".to_vec();
            Ok(())
        },
        says: "no name of a link",
    },
    Tampered {
        name: "another_name_behind_a_link",
        tamper: |world, image| {
            let inode = ghost(image).inode as usize;
            image.inodes[inode].ghost = None;
            image.inodes[inode].other_name = world.bytes("tree/link/secret");
            Ok(())
        },
        says: "ELOOP",
    },
];

fn ghost(image: &mut Image) -> &mut Place {
    let place = place_of(image, GHOST);
    assert_eq!(place.kind(), PlaceKind::Gone);
    place
}

fn place_of(image: &mut Image, fd: i32) -> &mut Place {
    let mut descriptors = image.processes[0].descriptors.iter();
    let found = descriptors.find(|it| it.fd == fd).expect("the subject's");
    match image.files[found.file as usize].object {
        Some(Object::Place(place)) => &mut image.places[place as usize],
        _ => panic!("fd {fd} is no file"),
    }
}

fn refuse_image(case: &Tampered) -> Result<(), Failed> {
    let world = World::new()?;
    let mut image = world.dump()?;
    (case.tamper)(&world, &mut image)?;
    let before = world.all()?;
    let said = world.restore(&image)?;
    if said.starts_with("restored") || !said.contains(case.says) {
        return Err(format!("it says: {said}").into());
    }
    same(&before, &world.all()?)?;
    let left = fs::read_dir(world.path("images"))?.count();
    same(&2, &left).map_err(|_| format!("{left} files beside the image").into())
}

/// A line that no restore has written.
struct Line {
    name: &'static str,
    words: &'static [Word],
}

/// A word of a line: as it is, or in the way of paths.
enum Word {
    Text(&'static str),
    Path(&'static str),
    /// The number of this file's inode.
    Inode(&'static str),
}

use Word::{Inode, Path as P, Text as T};

/// A room that a restore by the journal's process may have made, which is there.
const ROOM: &str = ".notifreeze-4194303-0";

const LINES: [Line; 11] = [
    Line {
        name: "a_name_above_the_room",
        words: &[
            T("move"),
            P("/"),
            P(ROOM),
            P("../../outside/secret"),
            Inode("tree/precious/f"),
            T("0"),
            P("/precious/f"),
        ],
    },
    Line {
        name: "a_move_to_above",
        words: &[
            T("move"),
            P("/"),
            P(ROOM),
            P("1"),
            T("1"),
            T("0"),
            P("/precious/.."),
        ],
    },
    Line {
        name: "a_move_from_what_is_no_room",
        words: &[
            T("move"),
            P("/"),
            P("precious"),
            P("1"),
            Inode("tree/precious/f"),
            T("0"),
            P("/precious/f"),
        ],
    },
    Line {
        name: "a_room_above",
        words: &[T("room"), P("/"), P("../outside/empty")],
    },
    Line {
        name: "a_room_that_is_somebodys_directory",
        words: &[T("room"), P("/precious"), P("empty")],
    },
    Line {
        name: "a_room_with_content_of_somebody",
        words: &[T("made"), P("/"), P("precious")],
    },
    Line {
        name: "a_room_of_another_restore",
        words: &[T("made"), P("/"), P(".notifreeze-1-0")],
    },
    Line {
        name: "times_above",
        words: &[
            T("times"),
            P("/"),
            P("/../outside"),
            Inode("outside"),
            T("0"),
            T("0"),
            T("0"),
            T("0"),
        ],
    },
    Line {
        name: "an_unknown_word",
        words: &[T("remove"), P("/"), P(ROOM)],
    },
    Line {
        name: "too_few_words",
        words: &[T("made"), P("/")],
    },
    Line {
        name: "no_number",
        words: &[
            T("times"),
            P("/"),
            P("/precious"),
            Inode("tree/precious"),
            T("0"),
            T("0"),
            T("0"),
            T("x"),
        ],
    },
];

fn refuse_line(case: &Line) -> Result<(), Failed> {
    let world = World::new()?;
    fs::create_dir(world.path("tree").join(ROOM))?;
    let mut words = Vec::new();
    for word in case.words {
        words.push(match word {
            T(text) => (*text).to_owned(),
            P(path) => {
                path.bytes()
                    .map(|it| format!("{it:02x}"))
                    .collect::<String>()
                    + "."
            }
            Inode(path) => fs::metadata(world.path(path))?.ino().to_string(),
        });
    }
    // The line before it is in order, and is not acted upon, either.
    let room: String = ROOM.bytes().map(|it| format!("{it:02x}")).collect();
    let journal = write_journal(&world, &format!("room 2f. {room}.\n{}\n", words.join(" ")))?;
    let before = world.all()?;
    let said = clear(&world).err().unwrap_or_default();
    same(&before, &world.all()?)?;
    let named = format!("{}: line 3: ", journal.display());
    if !said.starts_with(&named) {
        return Err(format!("it says: {said}").into());
    }
    same(&true, &journal.exists())
}

/// A journal of this boot and of a process that cannot be.
fn write_journal(world: &World, lines: &str) -> Result<PathBuf, Failed> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let path = world.path("images/image.restore-4194303");
    fs::write(&path, format!("{} 4194303 1\n{lines}", boot.trim()))?;
    Ok(path)
}

/// What restores from the image left that were killed, below `tree`.
fn clear(world: &World) -> Result<(), String> {
    let options = RestoreOptions {
        root: world.path("tree"),
        ..RestoreOptions::default()
    };
    let image = world.path("images/image");
    cr::clear_leftovers(&Image::default(), &image, &options).map_err(|error| error.to_string())
}

/// Who writes a journal may be killed, or have no space.
fn half_a_line() -> Result<(), Failed> {
    let world = World::new()?;
    let before = world.all()?;
    let journal = write_journal(&world, "made 2f. 7072")?;
    clear(&world)?;
    same(&before, &world.all()?)?;
    same(&false, &journal.exists())
}

/// Another directory may have the name by now, or a mount may be over it.
fn put_times_back() -> Result<(), Failed> {
    let world = World::new()?;
    let ino = |path: &str| fs::metadata(world.path(path)).map(|it| it.ino());
    let path: String = "/precious".bytes().map(|it| format!("{it:02x}")).collect();
    let times = |ino: u64| format!("times 2f. {path}. {ino} 5 0 7 0\n");
    let before = world.all()?;
    write_journal(&world, &times(ino("tree/d")?))?;
    clear(&world)?;
    same(&before, &world.all()?)?;
    write_journal(&world, &times(ino("tree/precious")?))?;
    clear(&world)?;
    let found = fs::metadata(world.path("tree/precious"))?;
    same(&(5, 7), &(found.atime(), found.mtime()))
}

/// To open it must not make anybody wait, and what it leads to is nobody's journal.
fn leave_alone() -> Result<(), Failed> {
    let world = World::new()?;
    let fifo = world.path("images/image.restore-1");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    clear(&world)?;
    same(&true, &fifo.exists())?;
    fs::remove_file(fifo)?;
    let link = world.path("images/image.restore-2");
    symlink(world.path("outside/secret"), &link)?;
    let before = world.all()?;
    let said = clear(&world).err().unwrap_or_default();
    same(&true, &said.contains("image.restore-2: ELOOP"))
        .map_err(|_| format!("it says: {said}"))?;
    same(&before, &world.all()?)
}

/// Whoever may write to the directory of an image may not have us strip the groups of others.
fn journal_of_another() -> Result<(), Failed> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let world = World::new()?;
    let journal = world.path("images/image.journal-1-3");
    cr::queue::Journal::create(&journal, b"1 3 1\n")?;
    if std::os::unix::fs::chown(&journal, Some(65534), None).is_err() {
        // In a user namespace of one user there is no other.
        return Ok(());
    }
    let recovered = cr::recover(&world.path("images/image"), &DumpOptions::default());
    let said = recovered.err().map(|error| error.to_string());
    let said = said.unwrap_or_default();
    if !said.contains("image.journal-1-3") || !said.contains("another user") {
        return Err(format!("it says: {said}").into());
    }
    same(&true, &journal.exists())
}

fn same<T: std::fmt::Debug + PartialEq>(expected: &T, found: &T) -> Result<(), Failed> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{expected:#?} became {found:#?}").into())
}
