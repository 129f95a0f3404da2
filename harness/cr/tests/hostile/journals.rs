//! Journals beside an image that no restore and no dump has written.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use cr::{DumpOptions, Image, RestoreOptions};
use libtest_mimic::{Failed, Trial};

use super::{World, same};

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("what_is_no_journal_is_left_alone", leave_alone),
        Trial::test("half_a_line_of_a_journal_is_none", half_a_line),
        Trial::test("times_go_to_the_directory_that_had_them", put_times_back),
        Trial::test("a_journal_of_another_is_not_believed", journal_of_another),
        Trial::test("who_has_a_path_after_a_ghost_keeps_it", keep_successor),
        Trial::test("a_copy_of_a_journal_is_not_believed", copied_journal),
        Trial::test(
            "a_copy_of_a_dumps_journal_is_not_believed",
            copied_journal_of_dump,
        ),
    ];
    trials.extend(LINES.iter().map(|case| {
        let run = || refuse_line(case);
        Trial::test(format!("journal::{}", case.name), run)
    }));
    trials
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
    let file = File::create(&path)?;
    let metadata = file.metadata()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let head = format!("{} 4194303 1 {device}:{inode}\n", boot.trim());
    (&file).write_all((head + lines).as_bytes())?;
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

/// Its inode's number may be that of the ghost, which is gone with the restore.
fn keep_successor() -> Result<(), Failed> {
    let world = World::new()?;
    fs::create_dir(world.path("tree").join(ROOM))?;
    let hex = |text: &str| {
        text.bytes()
            .map(|it| format!("{it:02x}"))
            .collect::<String>()
    };
    let ino = fs::metadata(world.path("tree/precious/f"))?.ino();
    let moved = format!(
        "move 2f. {}. 31. {ino} 0 {}.\n",
        hex(ROOM),
        hex("/precious/f")
    );
    let done = format!("done 2f. {}. 31.\n", hex(ROOM));
    write_journal(&world, &format!("{moved}{done}"))?;
    clear(&world)?;
    same(&true, &world.path("tree/precious/f").exists())?;
    write_journal(&world, &moved)?;
    clear(&world)?;
    same(&false, &world.path("tree/precious/f").exists())
}

/// Who copies a folder with root's rights makes a journal root's that another has written.
fn copied_journal() -> Result<(), Failed> {
    let world = World::new()?;
    let room: String = ROOM.bytes().map(|it| format!("{it:02x}")).collect();
    fs::create_dir(world.path("tree").join(ROOM))?;
    let journal = write_journal(&world, &format!("made 2f. {room}.\n"))?;
    let copy = world.path("images/image.restore-4194302");
    fs::copy(&journal, &copy)?;
    fs::remove_file(&journal)?;
    let before = world.all()?;
    let said = clear(&world).err().unwrap_or_default();
    same(&before, &world.all()?)?;
    same(&true, &(said.contains("4194302: a copy") && copy.exists()))
        .map_err(|_| format!("it says: {said}").into())
}

fn copied_journal_of_dump() -> Result<(), Failed> {
    let world = World::new()?;
    let journal = world.path("images/image.journal-1-3");
    let original = world.path("outside/journal");
    cr::queue::Journal::create(&original, b"1 3 1\n")?;
    fs::copy(&original, &journal)?;
    let recovered = cr::recover(&world.path("images/image"), &DumpOptions::default());
    let said = recovered.err().map(|error| error.to_string());
    let said = said.unwrap_or_default();
    same(
        &true,
        &(said.contains("image.journal-1-3: a copy") && journal.exists()),
    )
    .map_err(|_| format!("it says: {said}").into())
}
