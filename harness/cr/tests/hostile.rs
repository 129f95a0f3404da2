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

#[path = "hostile/fence.rs"]
mod fence;
#[path = "hostile/journals.rs"]
mod journals;
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
        [HEIR, image, said, root] => {
            return heir(Path::new(image), Path::new(said), Path::new(root));
        }
        _ => {}
    }
    let permitted = user::settle();
    let mut trials = vec![
        Trial::test("names_that_look_like_something_else_are_kept", keep_names),
        Trial::test(
            "a_ghost_below_a_link_is_beside_what_it_leads_to",
            below_a_link,
        ),
    ];
    trials.push(Trial::test("nobody_waits_for_a_fifo", wait_for_no_fifo));
    let images = IMAGES.iter().map(|case| {
        let run = || refuse_image(case);
        Trial::test(format!("image::{}", case.name), run)
    });
    trials.extend(images);
    trials.extend(fence::trials());
    trials.extend(journals::trials());
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
        self.restore_below(Path::new("/"), image)
    }

    /// The same, with nothing opened outside of a directory.
    fn restore_below(&self, root: &Path, image: &Image) -> Result<String, Failed> {
        let (path, said) = (self.path("images/image"), self.path("images/said"));
        image.write(&path)?;
        let this = std::env::current_exe()?;
        Command::new(this)
            .arg(HEIR)
            .args([&path, &said])
            .arg(root)
            .status()?;
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
fn heir(image: &Path, said: &Path, root: &Path) -> ExitCode {
    let options = RestoreOptions {
        root: root.to_owned(),
        ..RestoreOptions::default()
    };
    let text = match cr::restore_file(image, &options) {
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

/// A fifo that has the name of a file, of which the image does not say what it is.
fn wait_for_no_fifo() -> Result<(), Failed> {
    let world = World::new()?;
    let mut image = world.dump()?;
    image.boot_id = "another".to_owned();
    let file = world.path("tree").join(FILE_NAME);
    fs::remove_file(&file)?;
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU)?;
    let place = place_of(&mut image, FILE).inode as usize;
    image.inodes[place].mode = 0;
    for state in &mut image.files {
        if matches!(state.object, Some(Object::Place(_))) {
            state.flags = 0;
            state.offset = 0;
        }
    }
    let said = world.restore(&image)?;
    same(&true, &said.starts_with("restored")).map_err(|_| format!("it says: {said}").into())
}

/// An image or a tree that is not as the dump left it, and what is said about it.
struct Tampered {
    name: &'static str,
    tamper: fn(&World, &mut Image) -> Result<(), Failed>,
    says: &'static str,
}

const IMAGES: [Tampered; 10] = [
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
        name: "a_file_that_was_made_since_with_the_same_number",
        tamper: |_, image| {
            // As if it had been there before it.
            let inode = place_of(image, FILE).inode;
            let inode = &mut image.inodes[inode as usize];
            inode.born = None;
            let handle = inode.handle.as_mut().ok_or("no handle")?;
            *handle.bytes.last_mut().ok_or("an empty handle")? ^= 1;
            Ok(())
        },
        says: "made after the dump",
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

fn same<T: std::fmt::Debug + PartialEq>(expected: &T, found: &T) -> Result<(), Failed> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{expected:#?} became {found:#?}").into())
}
