//! Unread events of fanotify groups that report handles, made again on a forged filesystem: what is
//! read after a restore is what was unread, byte for byte, and nobody else hears anything.

mod random;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cr::LossKind;
use cr::fanotify::dump::{Places, Source, drain, inspect};
use cr::fanotify::plan::Kind;
use cr::fanotify::restore::{self, Objects};
use cr::image::Fanotify;
use cr::sys::fanotify::{Target, fanotify_init, fanotify_mark, without_sys_admin};
use cr::sys::inspect::unread;
use fsnotify::event::fanotify::{Events, Record, encode};
use fsnotify::handle::FileHandle;
use fsnotify::{Ino, Sdev};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use random::Random;

const NONBLOCK: u32 = libc::FAN_NONBLOCK;
const FID: u32 = libc::FAN_REPORT_FID;
const DIR_FID: u32 = libc::FAN_REPORT_DIR_FID;
const NAME: u32 = libc::FAN_REPORT_NAME;
const TARGET: u32 = libc::FAN_REPORT_TARGET_FID;
const PIDFD: u32 = libc::FAN_REPORT_PIDFD;
const TID: u32 = libc::FAN_REPORT_TID;
const RENAME: u64 = 0x1000_0000;
/// What any group may ask for.
const EVENTS: u64 = 0xfff & !libc::FAN_CREATE | libc::FAN_CREATE | libc::FAN_ONDIR;

/// One test at a time: a process that another test forks has, until it executes its program, a copy of
/// every descriptor of this one, and a file is only closed with the last of them.
static ALONE: Mutex<()> = Mutex::new(());

/// An ext4 on a loop device, mounted where only this test sees it.
fn on_ext4(test: &str, run: impl FnOnce(&Path) + Send + 'static) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = std::thread::spawn(move || {
        let words = |errno: nix::errno::Errno| errno.to_string();
        unshare(CloneFlags::CLONE_NEWNS).map_err(words)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(words)?;
        let folder = tempfile::tempdir().unwrap();
        let (image, root) = (folder.path().join("image"), folder.path().join("root"));
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(&root).unwrap();
        command("mkfs.ext4", &["-q", "-F"], &[&image])?;
        command("mount", &["-o", "loop"], &[&image, &root])?;
        run(&root);
        umount2(&root, MntFlags::MNT_DETACH).unwrap();
        Ok(())
    });
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => {
            let reason: String = reason;
            eprintln!("skip {test}: needs an ext4 of its own: {reason}");
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn command(program: &str, flags: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(flags).args(paths).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

/// Every mark is on the root.
struct AtRoot(PathBuf);

impl Places for AtRoot {
    fn of_inode(&mut self, _: Ino, _: Sdev, _: &FileHandle) -> Result<(u32, Kind), String> {
        Ok((0, Kind::Directory))
    }

    fn of_path(&mut self, _: &[u8]) -> Result<u32, String> {
        Ok(0)
    }

    fn name(&self, _: u32) -> String {
        "the root".to_owned()
    }
}

impl Objects for AtRoot {
    fn open(&mut self, _: u32) -> Result<(OwnedFd, Kind), String> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&self.0);
        Ok((
            opened.map_err(|error| error.to_string())?.into(),
            Kind::Directory,
        ))
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// A group that hears everything on the filesystem.
fn group(flags: u32, root: &Path) -> OwnedFd {
    let group = fanotify_init(flags | NONBLOCK, 0).unwrap();
    let renames = if flags & NAME != 0 { RENAME } else { 0 };
    let mask = EVENTS | renames | libc::FAN_OPEN_EXEC;
    let kind = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
    fanotify_mark(&group, kind, mask, Target::Path(&c_path(root))).unwrap();
    group
}

/// All events, as an image has them.
fn read_all(group: &OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n_read) = nix::unistd::read(group, &mut buffer) {
        for event in Events::new(&buffer[..n_read]) {
            let event = event.unwrap();
            let records = event.records().map(|record| match record {
                Record::Pidfd(fd) => {
                    if fd >= 0 {
                        cr::sys::fanotify::close_number(fd);
                    }
                    Record::Pidfd(fd.min(0))
                }
                other => other,
            });
            encode(event.mask, event.fd, event.pid, records, &mut bytes);
        }
    }
    bytes
}

fn show(bytes: &[u8]) -> Vec<String> {
    let events = Events::new(bytes).map(Result::unwrap);
    let show = events.map(|event| {
        let records: Vec<_> = event.records().collect();
        format!("{} pid {} {records:?}", event.mask, event.pid)
    });
    show.collect()
}

fn dumped((group, flags): (&OwnedFd, u32), root: &Path) -> (Fanotify, Vec<String>) {
    let (process, thread) = (std::process::id().cast_signed(), nix::unistd::gettid());
    let thread = thread.as_raw();
    let tree = [if flags & TID == 0 { process } else { thread }];
    let source = Source {
        name: "fd 1",
        pid: thread,
        fd: group.as_raw_fd(),
        group: group.as_fd(),
        tree: &tree,
    };
    let mut places = AtRoot(root.to_owned());
    let (mut image, mut losses) = inspect(source, &mut places).unwrap();
    losses.extend(drain(source, &mut image).unwrap());
    (image, losses.iter().map(ToString::to_string).collect())
}

fn restored(image: &Fanotify, root: &Path) -> OwnedFd {
    let mut places = AtRoot(root.to_owned());
    let restored = restore::restore(image, &mut places).unwrap();
    restored.arm(restored.fd.as_fd(), image).unwrap();
    restored.fd
}

/// What is done to a tree of three directories, by this process or by others.
fn random_operation(root: &Path, random: &mut Random) {
    let folders = ["", "d", "e"];
    let mut path = || {
        let name = ["f", "g", "h"][random.below(3)];
        root.join(folders[random.below(3)]).join(name)
    };
    let (one, other) = (path(), path());
    let folder = root.join(["d", "e", "n"][random.below(3)]);
    let ours = random.below(2) == 0;
    let sh = |line: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", line, "sh"]).args([&one, &other, &folder]);
        shell
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
    };
    match (random.below(12), ours) {
        (0, true) => drop(fs::write(&one, "x")),
        (0, false) => sh(r#"echo x > "$1""#),
        (1, true) => drop(File::open(&one)),
        (1, false) => sh(r#"cat "$1""#),
        (2, true) => drop(fs::rename(&one, &other)),
        (2, false) => sh(r#"mv -T "$1" "$2""#),
        (3, true) => drop(fs::remove_file(&one)),
        (3, false) => sh(r#"rm "$1""#),
        (4, true) => drop(fs::hard_link(&one, &other)),
        (4, false) => sh(r#"ln "$1" "$2""#),
        (5, true) => drop(fs::create_dir(&folder)),
        (5, false) => sh(r#"mkdir "$3""#),
        (6, true) => drop(fs::remove_dir(&folder)),
        (6, false) => sh(r#"rmdir "$3""#),
        (7, true) => drop(fs::set_permissions(&one, fs::Permissions::from_mode(0o755))),
        (7, false) => sh(r#"chmod 700 "$1"; "$1""#),
        (8, true) => drop(fs::read_dir(&folder).map(Iterator::count)),
        (8, false) => sh(r#"ls "$3"; touch "$3""#),
        (9, true) => {
            let file = OpenOptions::new().append(true).open(&one);
            drop(file.map(|mut file| file.write_all(b"more")));
        }
        (9, false) => sh(r#"exec 3>> "$1"; rm "$1"; echo x >&3"#),
        (10, true) => drop(fs::rename(&folder, root.join("m"))),
        (10, false) => sh(r#"mv "$3" "$3.x"; mv "$3.x" "$3""#),
        (_, true) => drop(fs::rename(root.join("m"), &folder)),
        (_, false) => sh(r#"truncate -s 3 "$1"; touch -a "$1"; chmod 711 "$3""#),
    }
}

/// The kernel finds the name of a directory that it has not in memory by listing the directory that
/// it is in, and whoever watches that one hears it (`exportfs_get_name`). So they are in memory.
fn look_at_folders(root: &Path) {
    for name in ["", "d", "e", "n", "m", "d.x", "e.x", "n.x"] {
        let _ = fs::metadata(root.join(name));
    }
}

/// All kinds of records.
const FLAGS: [u32; 8] = [
    FID,
    DIR_FID,
    FID | DIR_FID,
    DIR_FID | NAME,
    FID | DIR_FID | NAME,
    FID | DIR_FID | NAME | TARGET,
    FID | PIDFD,
    FID | DIR_FID | NAME | TID,
];

/// Dumps and restores the queue of a group, of whose events `expected` were read elsewhere.
fn check(ours: OwnedFd, flags: u32, expected: &[u8], root: &Path) -> Result<(), String> {
    look_at_folders(root);
    let bystander = group(FID | DIR_FID | NAME, root);
    let (image, losses) = dumped((&ours, flags), root);
    assert_eq!(show(&read_all(&bystander)), [""; 0], "while it was dumped");
    drop(ours);
    let again = restored(&image, root);
    assert_eq!(
        show(&read_all(&bystander)),
        [""; 0],
        "while it was restored"
    );
    if let [loss] = &losses[..] {
        assert_eq!((unread(&again), image.queue), (Ok(0), Vec::new()));
        return Err(loss.clone());
    }
    let n_events = show(expected).len() as u64;
    assert_eq!(unread(&again), Ok(24 * n_events));
    let found = read_all(&again);
    assert_eq!(show(&found), show(expected), "flags {flags:x}");
    assert_eq!(found, expected, "flags {flags:x}");
    Ok(())
}

#[test]
fn random_queues_are_read_again_byte_for_byte_and_nobody_hears_it() {
    on_ext4("random_queues", |root| {
        for folder in ["d", "e"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        let seed = std::env::var("CR_TEST_SEED").map_or(0xf0_96ed, |seed| seed.parse().unwrap());
        eprintln!("CR_TEST_SEED={seed}");
        let mut random = Random(seed);
        let (mut n_kept, mut n_events) = (0, 0);
        for round in 0..FLAGS.len() * 5 {
            let flags = FLAGS[round % FLAGS.len()];
            let (ours, twin) = (group(flags, root), group(flags, root));
            for _ in 0..=random.below(12) {
                random_operation(root, &mut random);
            }
            // The twin, of the same events, is read as the kernel left it.
            let expected = read_all(&twin);
            drop(twin);
            match check(ours, flags, &expected, root) {
                Ok(()) => {
                    n_kept += 1;
                    n_events += show(&expected).len();
                }
                // The one kind of event that has no other way.
                Err(loss) => {
                    assert!(loss.contains("generation of a new directory"), "{loss}");
                    assert_ne!(flags & TARGET, 0, "{loss}");
                }
            }
        }
        eprintln!("{n_kept} queues, {n_events} events");
        assert!(n_kept >= 35 && n_events >= 100, "too few to tell");
    });
}

/// Every operation by itself, with files and directories, of this process and of one that ended.
#[test]
fn every_kind_of_event_is_read_again() {
    on_ext4("every_kind", |root| {
        for folder in ["d", "e"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        let mut kinds = 0;
        for flags in FLAGS {
            for line in LINES {
                let (ours, twin) = (group(flags, root), group(flags, root));
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", line])
                    .current_dir(root)
                    .stdout(Stdio::null());
                assert!(shell.status().unwrap().success(), "{line}");
                let expected = read_all(&twin);
                drop(twin);
                let events = Events::new(&expected).map(Result::unwrap);
                kinds = events.fold(kinds, |kinds, event| kinds | event.mask.0);
                let new = flags & TARGET != 0 && line.starts_with("mkdir");
                let kept = check(ours, flags, &expected, root);
                assert_eq!(kept.is_err(), new, "{line}: {kept:?}");
            }
        }
        assert_eq!(kinds, EVENTS | RENAME | libc::FAN_OPEN_EXEC);
    });
}

/// Each leaves the tree as it found it.
const LINES: [&str; 12] = [
    "echo text > f",
    "cat f f",
    "touch -a f; touch -m f; chmod 600 f",
    "mv f d/g; mv d/g f",
    "ln f d/h; rm d/h",
    "exec 3>> f; rm f; echo more >&3; exec 3>&-; echo text > f",
    "cp /bin/true t; ./t; rm t",
    "mkdir n; rmdir n",
    "mv d e/m; mv e/m d",
    "ls d; touch d; chmod 711 d; touch -a d",
    "mkdir -p d/o; rmdir d/o; : > d/o; rm d/o",
    r#"n=$(printf 'a name with \\ and \377'); touch "$n"; rm "$n""#,
];

#[test]
fn a_long_queue_is_read_again() {
    on_ext4("a_long_queue", |root| {
        let flags = FID | DIR_FID | NAME;
        let (ours, twin) = (group(flags, root), group(flags, root));
        for number in 0..1000 {
            fs::write(root.join(format!("file {number}")), "text").unwrap();
        }
        for number in 0..500 {
            fs::remove_file(root.join(format!("file {number}"))).unwrap();
        }
        let expected = read_all(&twin);
        let started = Instant::now();
        check(ours, flags, &expected, root).unwrap();
        let n_events = show(&expected).len();
        eprintln!(
            "{n_events} events, rehearsed twice and made: {:?}",
            started.elapsed()
        );
        assert!(n_events >= 2500, "{n_events} events");
    });
}

#[test]
fn what_cannot_be_made_again_is_declared() {
    on_ext4("what_cannot", |root| {
        let flags = FID | DIR_FID | NAME;
        // Of a process that lives.
        let ours = group(flags, root);
        let line = "echo x > f; echo done; read line";
        let mut shell = Command::new("sh");
        shell
            .args(["-c", line])
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
        let loss = check(ours, flags, &[], root).unwrap_err();
        let living = format!("event 1: made by process {}, which lives", shell.id());
        assert!(loss.contains(&living), "{loss}");
        drop(shell.stdin.take());
        shell.wait().unwrap();
        // More than the queue takes.
        let ours = group(flags, root);
        let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
        for number in 0..=limit.trim().parse::<u32>().unwrap() {
            let _ = File::open(root.join("f"));
            let _ = fs::rename(root.join("f"), root.join(format!("f{number}")));
            let _ = fs::rename(root.join(format!("f{number}")), root.join("f"));
        }
        let (_, losses) = dumped((&ours, flags), root);
        let [loss] = &losses[..] else {
            panic!("{losses:?}")
        };
        assert!(loss.contains("the queue overflowed"), "{loss:.200}");
        let kind = LossKind::OverflowedEvents;
        assert!(loss.starts_with(&format!("I4 {kind}: ")), "{loss:.200}");
    });
}

#[test]
fn what_fails_when_it_is_tried_is_declared() {
    on_ext4("what_fails", |root| {
        let flags = FID | DIR_FID | NAME;
        let ours = group(flags, root);
        fs::write(root.join("f"), "x").unwrap();
        look_at_folders(root);
        let (image, losses) = without_sys_admin(|| dumped((&ours, flags), root)).unwrap();
        assert_eq!(image.queue, []);
        let [loss] = &losses[..] else {
            panic!("{losses:?}")
        };
        let kind = LossKind::FailedRehearsal;
        assert!(loss.starts_with(&format!("I4 {kind}: ")), "{loss}");
        assert!(loss.contains("EPERM"), "{loss}");
    });
}

#[test]
fn an_image_with_a_pid_that_is_taken_is_refused_by_event() {
    on_ext4("an_image_with_a_pid", |root| {
        let flags = FID | DIR_FID | NAME;
        let ours = group(flags, root);
        fs::write(root.join("f"), "x").unwrap();
        let (mut image, losses) = dumped((&ours, flags), root);
        assert_eq!(losses, [""; 0]);
        let mut queue = Vec::new();
        for event in Events::new(&image.queue).map(Result::unwrap) {
            encode(event.mask, event.fd, 1, event.records(), &mut queue);
        }
        image.queue = queue;
        let error = restore::restore(&image, &mut AtRoot(root.to_owned())).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("event 1: clone3 of process 1: EEXIST"),
            "{text}"
        );
    });
}
