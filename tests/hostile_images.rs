//! An image may come from anywhere: a restore goes nowhere but where the image says, and not out
//! of the directory that it is told to stay in.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cr::Image;
use cr::image::{
    Descriptor, Epoll, Extent, Ghost, Inode, Inotify, Interest, LossRecord, Object, OpenFile,
    Owner, PendingSignal, Place, PlaceKind, Process, Watch,
};

#[path = "hostile_images/weight.rs"]
mod weight;

/// A folder with a root to stay in, and a directory beside it that nobody may write.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["root", "outside"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("outside/kept"), "kept").unwrap();
        fs::create_dir(folder.path().join("root/dir")).unwrap();
        symlink("../outside", folder.path().join("root/link")).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.path(name).into_os_string().into_encoded_bytes()
    }

    fn write(&self, image: &Image) -> PathBuf {
        let file = self.path("image.nf");
        fs::write(&file, image.encode_file()).unwrap();
        file
    }

    /// Restores below `root`.
    fn restore(&self, image: &Image) -> Output {
        self.write(image);
        let root = self.path("root");
        self.restore_with(&["--root".as_ref(), root.as_os_str()], "true")
    }

    /// What becomes of a shell's command that starts with what is in `image.nf`.
    fn restore_with(&self, options: &[&OsStr], command: &str) -> Output {
        // Who waits for what never comes is stopped.
        Command::new("timeout")
            .arg("60")
            .arg(env!("CARGO_BIN_EXE_notifreeze"))
            .arg("restore")
            .arg("--images")
            .arg(self.path("image.nf"))
            .args(options)
            .args(["--", "sh", "-c", command])
            .output()
            .unwrap()
    }

    fn tree(&self) -> Vec<(Vec<u8>, u64, i64)> {
        let mut found = Vec::new();
        for folder in ["root", "outside", "root/dir"] {
            for entry in fs::read_dir(self.0.path().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let stat = fs::symlink_metadata(&path).unwrap();
                found.push((
                    path.as_os_str().as_bytes().to_vec(),
                    stat.ino(),
                    stat.mtime_nsec(),
                ));
            }
        }
        found.sort();
        found
    }
}

/// One group with one watch on a place, and a ghost there that is open.
fn image(kind: PlaceKind, path: &[u8]) -> Image {
    let ghost = Ghost {
        // The caller's own, so that the test is the same for every caller.
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        size: 4,
        extents: vec![Extent {
            offset: 0,
            length: 4,
            stored: None,
            content: b"evil".to_vec(),
        }],
        ..Ghost::default()
    };
    let watch = Watch {
        wd: 1,
        mask: 0x100,
        place: 0,
    };
    let group = Inotify {
        watches: vec![watch],
        ..Inotify::default()
    };
    let is_ghost = matches!(kind, PlaceKind::Gone | PlaceKind::Unnamed);
    let n_files = if is_ghost { 2 } else { 1 };
    let mut descriptors = vec![descriptor(50, 0), descriptor(51, 1)];
    descriptors.truncate(n_files);
    let mut files = vec![file(Object::Inotify(group), 0), file(Object::Place(0), 2)];
    files.truncate(n_files);
    Image {
        processes: vec![Process {
            pid: 1000,
            parent: 1,
            descriptors,
            ..Process::default()
        }],
        files,
        places: vec![Place {
            inode: 0,
            path: path.to_vec(),
            kind: kind.into(),
            mount: b"/".to_vec(),
            link: Vec::new(),
            parent: None,
        }],
        inodes: vec![Inode {
            mode: 0o100_644,
            ghost: (kind != PlaceKind::Named).then_some(ghost),
            ..Inode::default()
        }],
        only_groups: true,
        ..Image::default()
    }
}

fn file(object: Object, flags: u32) -> OpenFile {
    OpenFile {
        flags,
        object: Some(object),
        ..OpenFile::default()
    }
}

fn descriptor(fd: i32, file: u32) -> Descriptor {
    Descriptor {
        fd,
        file,
        close_on_exec: false,
    }
}

fn place(path: Vec<u8>, kind: PlaceKind) -> Place {
    Place {
        inode: 0,
        path,
        kind: kind.into(),
        mount: b"/".to_vec(),
        link: Vec::new(),
        parent: None,
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An image of groups alone that would have something else done with the command.
type Smuggled = (&'static str, fn(&mut Image, &Folder), &'static str);

const SMUGGLED: [Smuggled; 9] = [
    (
        "no process",
        |image, _| image.processes.clear(),
        "no process",
    ),
    (
        "an ended process",
        |image, _| image.processes[0].exited = Some(0),
        "no process that lives",
    ),
    (
        "two processes",
        |image, _| {
            image.processes.push(Process {
                pid: 1001,
                parent: 1000,
                ..Process::default()
            });
        },
        "more than one process",
    ),
    (
        "a working directory",
        |image, folder| {
            image.places = vec![place(folder.bytes("outside"), PlaceKind::Named)];
            image.inodes = vec![Inode::default()];
            image.processes[0].working_directory = Some(0);
        },
        "a working directory",
    ),
    (
        "a signal",
        |image, _| {
            let mut info = vec![0; 128];
            info[0] = 9;
            image.processes[0].signals = vec![PendingSignal { info, shared: true }];
        },
        "with signals",
    ),
    (
        "a file at the number of the standard output",
        |image, folder| {
            standard_output(image, place(folder.bytes("outside/kept"), PlaceKind::Named));
        },
        "neither a group nor a ghost",
    ),
    (
        "a name of a file that has another",
        |image, folder| {
            standard_output(image, place(folder.bytes("root/dir/new"), PlaceKind::Gone));
            image.inodes[0].other_name = folder.bytes("outside/kept");
        },
        "neither a group nor a ghost",
    ),
    (
        "an interest in what the command has",
        |image, _| {
            let interest = Interest {
                fd: 1,
                file: 0,
                events: 1,
                word: 0,
                seen: false,
            };
            let set = Epoll {
                interests: vec![interest],
            };
            image.processes[0].descriptors = vec![descriptor(50, 0)];
            image.files = vec![file(Object::Epoll(set), 0)];
        },
        "neither a group nor a ghost",
    ),
    (
        "a queue that nothing makes",
        |image, _| {
            let group = Inotify {
                queue: b"x".to_vec(),
                ..Inotify::default()
            };
            image.processes[0].descriptors = vec![descriptor(50, 0)];
            image.files = vec![file(Object::Inotify(group), 0)];
        },
        "queue: cannot be made again",
    ),
];

fn standard_output(image: &mut Image, at: Place) {
    image.processes[0].descriptors = vec![descriptor(1, 0)];
    image.files = vec![file(Object::Place(0), 1)];
    image.places = vec![at];
    image.inodes = vec![Inode::default()];
}

/// An image with no more than it must have.
fn minimal() -> Image {
    Image {
        processes: vec![Process {
            pid: 1000,
            parent: 1,
            ..Process::default()
        }],
        only_groups: true,
        ..Image::default()
    }
}

#[test]
fn an_image_of_groups_alone_brings_nothing_else_along() {
    for (name, smuggle, reason) in SMUGGLED {
        let folder = Folder::new();
        let mut image = minimal();
        smuggle(&mut image, &folder);
        folder.write(&image);
        let before = folder.tree();
        let output = folder.restore_with(&[], "echo ran");
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        assert!(said(&output).contains(reason), "{name}: {}", said(&output));
        assert_eq!(output.stdout, b"", "{name} was restored");
        let kept = fs::read(folder.path("outside/kept")).unwrap();
        assert_eq!(kept, b"kept", "{name}");
        assert_eq!(folder.tree(), before, "{name}");
    }
    let folder = Folder::new();
    folder.write(&minimal());
    assert_eq!(folder.restore_with(&[], "echo ran").stdout, b"ran\n");
}

#[test]
fn who_owns_an_image_vouches_for_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skip: needs root: a file is given to another user");
        return;
    }
    let folder = Folder::new();
    let file = folder.write(&minimal());
    std::os::unix::fs::chown(&file, Some(65534), None).expect("another owner");
    let output = folder.restore_with(&[], "echo ran");
    assert_eq!(output.stdout, b"");
    let said = said(&output);
    assert!(said.contains("of user 65534"), "{said}");
    assert!(
        said.contains("--root") && said.contains("--trust"),
        "{said}"
    );
    let root = folder.path("root");
    let fenced = ["--root".as_ref(), root.as_os_str()];
    assert_eq!(folder.restore_with(&fenced, "echo ran").stdout, b"ran\n");
    let trusted = folder.restore_with(&["--trust".as_ref()], "echo ran");
    assert_eq!(trusted.stdout, b"ran\n");
}

/// Of a name within a name and so on, which nobody holds.
#[test]
fn removed_names_are_looked_at_once_each() {
    let folder = Folder::new();
    let mut image = minimal();
    let mut path = Vec::new();
    for _ in 0..200 {
        path.extend(b"/q");
        image.places.push(place(path.clone(), PlaceKind::Gone));
    }
    image.inodes = vec![Inode {
        mode: 0o040_755,
        ghost: Some(Ghost::default()),
        ..Inode::default()
    }];
    let output = folder.restore(&image);
    assert!(output.status.success(), "{}", said(&output));
}

/// A pid that an image has may be anybody's by now.
#[test]
fn signals_go_to_nobody_who_is_not_known_for_certain() {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = boot.trim();
    for (known, boot, same_start, is_fenced) in [
        (true, boot, true, false),
        (false, boot, false, false),
        (false, "another", true, false),
        (false, "", true, false),
        (false, boot, true, true),
    ] {
        let folder = Folder::new();
        let mut victim = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(victim.id()).unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start: u64 = stat.split(' ').nth(21).unwrap().parse().unwrap();
        fs::write(folder.path("root/watched"), "").unwrap();
        let path = if is_fenced {
            b"/watched".to_vec()
        } else {
            folder.bytes("root/watched")
        };
        let mut image = image(PlaceKind::Named, &path);
        image.boot_id = boot.to_owned();
        let stat = fs::metadata(folder.path("root/watched")).unwrap();
        image.inodes[0].ino = stat.ino();
        let (major, minor) = (stat.dev() >> 8 & 0xfff, stat.dev() & 0xff);
        image.inodes[0].sdev = u32::try_from(major << 20 | minor).unwrap();
        let group = &mut image.files[0];
        group.flags = u32::try_from(nix::libc::O_ASYNC).unwrap();
        group.owner = Some(Owner { kind: 1, pid });
        group.signal = 15;
        group.owner_began = start + u64::from(!same_start);
        let Some(Object::Inotify(inotify)) = &mut group.object else {
            unreachable!("a group");
        };
        inotify.watches[0].mask = 2;
        folder.write(&image);
        let root = folder.path("root");
        let options: &[&OsStr] = if is_fenced {
            &["--root".as_ref(), root.as_os_str()]
        } else {
            &[]
        };
        let command = format!("echo x >> {}/watched", root.display());
        let output = folder.restore_with(options, &command);
        assert!(output.status.success(), "{}", said(&output));
        // Whoever is told was told before this, and ends by that.
        let _ = victim.kill();
        let told = victim.wait().unwrap().signal() == Some(15);
        assert_eq!(told, known, "{boot:?} {same_start} {is_fenced}");
    }
}

fn show(image: &Path) -> Output {
    Command::new("timeout")
        .arg("60")
        .arg(env!("CARGO_BIN_EXE_notifreeze"))
        .arg("show")
        .arg(image)
        .output()
        .unwrap()
}

#[test]
fn what_an_image_says_is_shown_and_does_nothing() {
    let folder = Folder::new();
    let mut image = minimal();
    let group = cr::image::Fanotify {
        unread: vec!["\u{1b}[2J\u{202e}event\nfile 7: forged".to_owned()],
        ..cr::image::Fanotify::default()
    };
    image.files = vec![file(Object::Fanotify(group), 0)];
    image.lost = vec![LossRecord {
        invariant: 1,
        object: "\u{1b}]0;title\u{7}".to_owned(),
        reason: "r\u{e9}ason\rloss forged".to_owned(),
        kind: 1,
    }];
    let output = show(&folder.write(&image));
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = "\
process 1000: 0 descriptors, umask 000
file 0: fanotify, 0 marks, flags 0o0
  lost event \\u{1b}[2J\\u{202e}event\\u{a}file 7: forged
loss I1 fired-interest: \\u{1b}]0;title\\u{7}: r\u{e9}ason\\u{d}loss forged
";
    assert_eq!(text, expected);
}

/// Nobody waits for what is no file, and an endless one is not read to its end.
#[test]
fn what_is_no_file_is_no_image() {
    let folder = Folder::new();
    let fifo = folder.path("image.nf");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for output in [show(&fifo), folder.restore_with(&[], "echo ran")] {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(said(&output).contains("not a regular file"), "{output:?}");
    }
    let images = folder.path("criu");
    fs::create_dir(&images).unwrap();
    let numbers = [0x5456_4319_u32, 0x5630_3138].map(u32::to_le_bytes);
    fs::write(images.join("files.img"), numbers.concat()).unwrap();
    let table = images.join("fdinfo-1.img");
    symlink("/dev/zero", &table).unwrap();
    assert!(said(&show(&images)).contains("not a regular file"));
    fs::remove_file(&table).unwrap();
    nix::unistd::mkfifo(&table, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(said(&show(&images)).contains("not a regular file"));
}

#[test]
fn a_ghost_that_finds_no_room_is_refused_before_it_is_made() {
    let folder = Folder::new();
    let mut image = image(PlaceKind::Gone, b"/dir/ghost");
    let ghost = image.inodes[0].ghost.as_mut().unwrap();
    ghost.size = 1;
    ghost.extents = vec![Extent {
        offset: 0,
        length: 1 << 60,
        stored: None,
        content: Vec::new(),
    }];
    let before = folder.tree();
    let output = folder.restore(&image);
    let said = said(&output);
    assert!(
        said.contains("ghosts take") && said.contains("ENOSPC"),
        "{said}"
    );
    assert_eq!(folder.tree(), before);
}

#[test]
fn a_ghost_is_made_in_the_root_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let before = folder.tree();
    let output = folder.restore(&image(PlaceKind::Gone, b"/dir/ghost"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(folder.tree(), before);
}

#[test]
fn no_place_of_an_image_leads_out_of_the_root() {
    for kind in [
        PlaceKind::Named,
        PlaceKind::Gone,
        PlaceKind::Hidden,
        PlaceKind::Unnamed,
    ] {
        for path in [
            &b"/../outside/kept"[..],
            b"/link/kept",
            b"/link/new/kept",
            b"/dir/../../outside/kept",
        ] {
            let folder = Folder::new();
            let before = folder.tree();
            let output = folder.restore(&image(kind, path));
            let shown = path.escape_ascii();
            // A link where the directory of a ghost was is moved aside for a moment, not followed.
            let moved_aside = kind == PlaceKind::Gone && path.starts_with(b"/link");
            assert!(
                moved_aside || !output.status.success(),
                "{kind:?} {shown} was restored"
            );
            assert_eq!(folder.tree(), before, "{kind:?} {shown} changed something");
            let kept = fs::read(folder.0.path().join("outside/kept")).unwrap();
            assert_eq!(kept, b"kept");
        }
    }
}
