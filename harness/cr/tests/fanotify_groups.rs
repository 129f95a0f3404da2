//! fanotify groups against a real kernel: what a dump keeps of them, and that a group made from it
//! has the very fdinfo text of the first.

mod random;
mod world;

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

use cr::LossKind;
use cr::fanotify::dump::{Refusal, Source, drain, inspect, refuse_waiting};
use cr::fanotify::{blocked, hidden, restore};
use cr::sys::block::mount_memory;
use cr::sys::fanotify::{
    Opener, Response, Target, fanotify_init, fanotify_mark, open_elsewhere, read_event, respond,
    without_sys_admin,
};
use cr::sys::inspect::unread;
use fsnotify::fanotify::InitFlags;
use nix::mount::{MsFlags, mount};
use random::Random;
use world::{World, in_world, thread_id};

const ADD: u32 = libc::FAN_MARK_ADD;
const NONBLOCK: u32 = libc::FAN_NONBLOCK;
/// Names the parent in every event.
const DFID_NAME: u32 = libc::FAN_REPORT_FID | libc::FAN_REPORT_DIR_FID | libc::FAN_REPORT_NAME;
const WITH_TARGET: u32 = DFID_NAME | libc::FAN_REPORT_TARGET_FID;
const REPORT_MNT: u32 = 0x4000;
const FAN_MNT_ATTACH: u64 = 0x0100_0000;

/// The lines of the group and its marks.
fn text(group: &OwnedFd) -> String {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", group.as_raw_fd())).unwrap();
    text[text.find("fanotify").unwrap()..].to_owned()
}

fn source(group: &OwnedFd) -> Source<'_> {
    let (pid, fd) = (thread_id(), group.as_raw_fd());
    Source {
        name: "fd 1",
        pid,
        fd,
        group: group.as_fd(),
        tree: &[],
    }
}

/// The group made again; what of its marks was declared lost.
fn again(world: &mut World, group: &OwnedFd) -> (OwnedFd, Vec<String>) {
    let (mut image, mut losses) = inspect(source(group), world).unwrap();
    losses.extend(drain(source(group), &mut image).unwrap());
    let restored = restore::restore(&image, world).unwrap();
    restored.arm(restored.fd.as_fd(), &image).unwrap();
    (
        restored.fd,
        losses.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn any_marks_are_made_again_with_the_same_text() {
    let kinds = [
        libc::FAN_CLASS_NOTIF,
        libc::FAN_CLASS_CONTENT,
        libc::FAN_CLASS_PRE_CONTENT | libc::FAN_UNLIMITED_MARKS | libc::FAN_UNLIMITED_QUEUE,
        libc::FAN_REPORT_FID,
        DFID_NAME | libc::FAN_REPORT_PIDFD,
        WITH_TARGET,
    ];
    in_world(
        "any_marks_are_made_again_with_the_same_text",
        move |world| {
            let mut random = Random(0x5eed);
            let (mut n_marks, mut n_lost) = (0, 0);
            for round in 0..240 {
                let flags = kinds[round % kinds.len()] | NONBLOCK;
                let group = fanotify_init(flags, libc::O_RDONLY.cast_unsigned()).unwrap();
                for _ in 0..random.below(40) {
                    random_mark(world, &group, &mut random);
                    if random.below(4) == 0 {
                        // Empties the ignored masks that do not survive it.
                        world.write(random.below(3));
                    }
                }
                let before = text(&group);
                let (restored, mut losses) = again(world, &group);
                losses.retain(|loss| loss.starts_with("I3"));
                let after = text(&restored);
                n_marks += before.lines().count() - 1;
                n_lost += losses.len();
                if losses.is_empty() {
                    assert_eq!(after, before, "round {round}");
                } else {
                    let kept: Vec<&str> =
                        before.lines().filter(|line| after.contains(line)).collect();
                    assert_eq!(kept, after.lines().collect::<Vec<_>>(), "round {round}");
                    assert_eq!(
                        kept.len() + losses.len(),
                        before.lines().count(),
                        "{losses:#?}"
                    );
                    assert!(losses.iter().all(|loss| loss.contains("reports nothing")));
                }
            }
            assert!(n_marks > 600, "{n_marks} marks are too few to tell");
            assert!(n_lost * 20 < n_marks, "{n_lost} of {n_marks} lost");
            eprintln!("{n_marks} marks, {n_lost} declared lost");
        },
    );
}

/// One call with arguments by chance, many of which the kernel refuses.
fn random_mark(world: &World, group: &OwnedFd, random: &mut Random) {
    const EVENTS: [u64; 12] = [
        0x1,
        0x2,
        0x8,
        0x10,
        0x20,
        0x1000,
        0x4,
        0x100,
        0x400,
        0x1_0000,
        0x2_0000,
        0x1000_0000,
    ];
    const WAYS: [u32; 6] = [0, 0, 0x20, 0x60, 0x440, 0x400];
    let action = if random.below(5) == 0 {
        libc::FAN_MARK_REMOVE
    } else {
        ADD
    };
    let kind = [0, 0, 0, libc::FAN_MARK_MOUNT, libc::FAN_MARK_FILESYSTEM][random.below(5)];
    let evictable = if kind == 0 && random.below(4) == 0 {
        libc::FAN_MARK_EVICTABLE
    } else {
        0
    };
    let mut mask = (0..=random.below(3)).fold(0, |mask, _| mask | EVENTS[random.below(12)]);
    mask |= [0, 0, libc::FAN_ONDIR, libc::FAN_EVENT_ON_CHILD][random.below(4)];
    let flags = action | kind | evictable | WAYS[random.below(6)];
    let path = world.path(random.below(world.n_objects()));
    let _ = fanotify_mark(group, flags, mask, Target::Path(&path));
}

#[test]
fn a_mount_namespace_is_marked_again() {
    in_world("a_mount_namespace_is_marked_again", |world| {
        let Ok(group) = fanotify_init(REPORT_MNT | NONBLOCK, 0) else {
            eprintln!("skip: this kernel has no FAN_REPORT_MNT");
            return;
        };
        let own = std::fs::File::open(format!("/proc/{}/ns/mnt", thread_id())).unwrap();
        let kind = libc::FAN_MARK_MOUNT | libc::FAN_MARK_FILESYSTEM;
        let target = Target::Descriptor(own.as_fd());
        fanotify_mark(&group, ADD | kind, 0x0300_0000, target).unwrap();
        let before = text(&group);
        let (image, losses) = inspect(source(&group), world).unwrap();
        assert_eq!(losses, []);
        // /proc/self is the main thread, which lives in another namespace than this one.
        let restored = restore::restore(&image, world).unwrap();
        let mnt_ns = |text: &str| text[text.find("mnt_ns:").unwrap()..].to_owned();
        let rest = |text: &str| mnt_ns(text).split_once(' ').unwrap().1.to_owned();
        assert_eq!(rest(&text(&restored.fd)), rest(&before));
    });
}

#[test]
fn events_about_mounts_are_declared_and_so_is_their_overflow() {
    in_world("events_about_mounts", |world| {
        let Ok(group) = fanotify_init(REPORT_MNT | NONBLOCK, 0) else {
            eprintln!("skip: this kernel has no FAN_REPORT_MNT");
            return;
        };
        let own = std::fs::File::open(format!("/proc/{}/ns/mnt", thread_id())).unwrap();
        let kind = libc::FAN_MARK_MOUNT | libc::FAN_MARK_FILESYSTEM;
        let target = Target::Descriptor(own.as_fd());
        fanotify_mark(&group, ADD | kind, FAN_MNT_ATTACH, target).unwrap();
        let mut kinds = |n_mounts: usize| -> Vec<_> {
            let (mut image, _) = inspect(source(&group), world).unwrap();
            for _ in 0..n_mounts {
                let (from, to) = (Some(world.file(0)), world.file(1));
                let none = None::<&str>;
                nix::mount::mount(from, to, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
                nix::mount::umount2(to, nix::mount::MntFlags::MNT_DETACH).unwrap();
            }
            let losses = drain(source(&group), &mut image).unwrap();
            losses.into_iter().map(|loss| loss.kind).collect()
        };
        assert_eq!(kinds(0), []);
        assert_eq!(kinds(1), [Ok(LossKind::MountEvents)]);
        let limit = std::fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
        let n_too_many = limit.trim().parse::<usize>().unwrap() + 1;
        let both = [Ok(LossKind::MountEvents), Ok(LossKind::MountOverflow)];
        assert_eq!(kinds(n_too_many), both);
    });
}

#[test]
fn what_fdinfo_hides_is_found() {
    in_world("what_fdinfo_hides_is_found", |world| {
        let class = libc::FAN_CLASS_CONTENT | NONBLOCK;
        for (audit, expected) in [(0, false), (libc::FAN_ENABLE_AUDIT, true)] {
            let group = fanotify_init(class | audit, 0).unwrap();
            assert_eq!(hidden::audited(&group), expected);
            let (restored, _) = again(world, &group);
            assert_eq!(hidden::audited(&restored), expected);
        }
        let init = || fanotify_init(libc::FAN_REPORT_FID | NONBLOCK, 0).unwrap();
        let flags = InitFlags(libc::FAN_REPORT_FID);
        let unprivileged = without_sys_admin(init).unwrap();
        for (group, expected) in [(init(), false), (unprivileged, true)] {
            let path = world.path(0);
            for kind in [libc::FAN_MARK_INODE, libc::FAN_MARK_FILESYSTEM] {
                fanotify_mark(&group, ADD | kind, libc::FAN_OPEN, Target::Path(&path)).unwrap();
            }
            let before = text(&group);
            assert_eq!(hidden::unprivileged(&group, flags), Ok(expected));
            assert_eq!(text(&group), before, "asking left a trace");
            assert_eq!(unread(&group), Ok(0));
            let (restored, losses) = again(world, &group);
            assert_eq!(losses, [""; 0]);
            assert_eq!(hidden::unprivileged(&restored, flags), Ok(expected));
            assert_eq!(text(&restored), before);
        }
    });
}

#[test]
fn unread_events_are_listed_and_an_overflow_is_kept() {
    in_world(
        "unread_events_are_listed_and_an_overflow_is_kept",
        |world| {
            for flags in [
                0,
                libc::FAN_REPORT_FID,
                DFID_NAME,
                WITH_TARGET,
                libc::FAN_REPORT_DIR_FID,
            ] {
                let group = fanotify_init(flags | NONBLOCK, 0).unwrap();
                let path = world.path(0);
                fanotify_mark(&group, ADD, libc::FAN_OPEN, Target::Path(&path)).unwrap();
                open_elsewhere(&path, libc::O_RDONLY).unwrap().finish();
                let (restored, losses) = again(world, &group);
                let [loss] = &losses[..] else {
                    panic!("{losses:?}")
                };
                assert!(
                    loss.contains("queue of fd 1:") && loss.contains("FAN_OPEN"),
                    "{loss}"
                );
                let file = flags != libc::FAN_REPORT_DIR_FID;
                assert_eq!(
                    loss.contains("/a\"") || loss.contains("\"a\""),
                    file,
                    "{loss}"
                );
                // The handles of tmpfs are of another kind than can be forged.
                let handles = flags != 0;
                assert_eq!(loss.contains("type 0x1 with 12 bytes"), handles, "{loss}");
                assert_eq!(unread(&restored), Ok(0), "flags {flags:x}");

                let (mut image, _) = inspect(source(&group), world).unwrap();
                image.overflow = true;
                let restored = restore::restore(&image, world).unwrap();
                restored.arm(restored.fd.as_fd(), &image).unwrap();
                assert_eq!(unread(&restored.fd), Ok(24), "flags {flags:x}");
                let mut event = [0; 64];
                assert_eq!(nix::unistd::read(&restored.fd, &mut event), Ok(24));
                assert_eq!(event[8..16], 0x4000_u64.to_le_bytes());
            }
        },
    );
}

#[test]
fn an_overflow_is_drained_as_such() {
    in_world("an_overflow_is_drained_as_such", |world| {
        let group = fanotify_init(libc::FAN_REPORT_FID | NONBLOCK, 0).unwrap();
        cr::fanotify::queue::overflow(group.as_fd(), InitFlags(libc::FAN_REPORT_FID)).unwrap();
        let (restored, losses) = again(world, &group);
        assert_eq!(losses, [""; 0]);
        assert_eq!((unread(&group), unread(&restored)), (Ok(0), Ok(24)));
    });
}

#[test]
fn a_waiting_process_is_named_and_goes_on_waiting() {
    in_world("a_waiting_process_is_named_and_goes_on_waiting", |world| {
        let class = libc::FAN_CLASS_CONTENT | NONBLOCK;
        let group = fanotify_init(class, 0).unwrap();
        let path = world.path(0);
        fanotify_mark(&group, ADD, libc::FAN_OPEN_PERM, Target::Path(&path)).unwrap();
        let opener = waiting_opener(&group, &path);
        // A group that has nothing to do with that file is none of its business.
        let other = fanotify_init(class, 0).unwrap();
        let elsewhere = world.path(1);
        fanotify_mark(&other, ADD, libc::FAN_OPEN_PERM, Target::Path(&elsewhere)).unwrap();
        refuse_waiting(source(&other)).unwrap();

        for _ in 0..2 {
            let refusal = refuse_waiting(source(&group)).unwrap_err();
            let Refusal::Waiting(waiting) = &refusal else {
                panic!("{refusal}")
            };
            assert_eq!(waiting.tid, opener.pid());
            assert!(refusal.to_string().ends_with("/a"), "{refusal}");
        }
        deny(&group, opener);
    });
}

/// A process that waits until the group lets it open a file.
fn waiting_opener(group: &OwnedFd, path: &CStr) -> Opener {
    let opener = open_elsewhere(path, libc::O_RDONLY).unwrap();
    assert_eq!(cr::sys::raw::readable(group.as_raw_fd(), 5000), Ok(true));
    // It is in the queue a moment before it sleeps.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while blocked::waits(opener.pid()).is_none() {
        assert!(std::time::Instant::now() < deadline, "it never sleeps");
    }
    opener
}

fn deny(group: &OwnedFd, opener: Opener) {
    let event = read_event(group).unwrap();
    assert_eq!(event.pid, opener.pid());
    let number = event.fd.as_ref().unwrap().as_raw_fd();
    respond(group, number, Response::Deny).unwrap();
    opener.finish();
}

/// Two files that have no device number, or no inode number, of their own: whoever waits for the one
/// is told apart from whoever waits for the other by every kind of mark.
fn check_waiting_on(root: &Path) {
    let c_path = |path: &str| CString::new(root.join(path).into_os_string().into_vec()).unwrap();
    let (file, other) = (c_path("one/f"), c_path("two/f"));
    let opens = libc::FAN_OPEN_PERM;
    let group_of = |flags, mask, path: &CStr| {
        let class = libc::FAN_CLASS_CONTENT | NONBLOCK;
        let group = fanotify_init(class, libc::O_RDONLY.cast_unsigned()).unwrap();
        fanotify_mark(&group, ADD | flags, mask, Target::Path(path)).unwrap();
        group
    };
    let below = opens | libc::FAN_EVENT_ON_CHILD;
    for (flags, mask, path) in [
        (0, opens, &file),
        (0, below, &c_path("one")),
        (libc::FAN_MARK_MOUNT, opens, &file),
        (libc::FAN_MARK_FILESYSTEM, opens, &file),
    ] {
        let group = group_of(flags, mask, path);
        let bystanders = [
            group_of(0, opens, &other),
            group_of(0, below, &c_path("two")),
        ];
        let opener = waiting_opener(&group, &file);
        let refusal = refuse_waiting(source(&group)).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Waiting(waiting) if waiting.tid == opener.pid()),
            "flags {flags:x}, {path:?}: {refusal}"
        );
        for bystander in &bystanders {
            refuse_waiting(source(bystander)).unwrap();
        }
        deny(&group, opener);
    }
}

fn run(program: &str, arguments: &[&OsStr]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", said.trim()))
}

#[test]
fn a_process_that_waits_for_a_file_of_a_subvolume_is_named() {
    let test = "a_process_that_waits_for_a_file_of_a_subvolume_is_named";
    in_world(test, move |world| {
        let root = world.file(world.n_objects() - 2);
        let (disk, top) = (root.join("disk"), root.join("top"));
        std::fs::create_dir(&top).unwrap();
        File::create(&disk).unwrap().set_len(256 << 20).unwrap();
        let mounted = run("mkfs.btrfs", &["-q".as_ref(), disk.as_os_str()]).and_then(|()| {
            let image = File::options().read(true).write(true).open(&disk).unwrap();
            mount_memory(&image, c"btrfs", &[])
                .and_then(|mounted| mounted.attach(&top))
                .map_err(|(call, errno)| format!("{call}: {errno}"))
        });
        let made = mounted.and_then(|()| {
            ["one", "two"].into_iter().try_for_each(|name| {
                let path = top.join(name);
                let words = ["subvolume".as_ref(), "create".as_ref(), path.as_os_str()];
                run("btrfs", &words)
            })
        });
        if let Err(reason) = made {
            eprintln!("skip {test}: {reason}");
            return;
        }
        for name in ["one/f", "two/f"] {
            std::fs::write(top.join(name), "content").unwrap();
        }
        check_waiting_on(&top);
    });
}

#[test]
fn a_process_that_waits_for_a_file_of_an_overlay_is_named() {
    let test = "a_process_that_waits_for_a_file_of_an_overlay_is_named";
    in_world(test, move |world| {
        let root = world.file(world.n_objects() - 2);
        let none = MsFlags::empty();
        let [lower, above, top] = ["lower", "above", "top"].map(|name| root.join(name));
        for folder in [&lower, &above, &top] {
            std::fs::create_dir(folder).unwrap();
        }
        // Two filesystems, so that the numbers of neither are those of the overlay.
        mount(Some("none"), &above, Some("tmpfs"), none, None::<&str>).unwrap();
        let (upper, work) = (above.join("upper"), above.join("work"));
        for folder in [&upper, &work, &lower.join("one"), &lower.join("two")] {
            std::fs::create_dir(folder).unwrap();
        }
        for name in ["one/f", "two/f"] {
            std::fs::write(lower.join(name), "content").unwrap();
        }
        let layers = [
            ("lowerdir", &lower),
            ("upperdir", &upper),
            ("workdir", &work),
        ];
        let layers = layers.map(|(word, path)| format!("{word}={}", path.display()));
        let layers = layers.join(",");
        let mounted = mount(Some("none"), &top, Some("overlay"), none, Some(&*layers));
        if let Err(errno) = mounted {
            eprintln!("skip {test}: overlay: {errno}");
            return;
        }
        check_waiting_on(&top);
    });
}

#[test]
fn an_ignored_mask_that_the_next_write_ends_is_declared() {
    in_world(
        "an_ignored_mask_that_the_next_write_ends_is_declared",
        |world| {
            let group = fanotify_init(libc::FAN_CLASS_NOTIF | NONBLOCK, 0).unwrap();
            let path = world.path(3);
            let ignore = ADD | libc::FAN_MARK_IGNORED_MASK;
            fanotify_mark(&group, ADD, libc::FAN_ATTRIB, Target::Path(&path)).unwrap_err();
            fanotify_mark(&group, ADD, libc::FAN_MODIFY, Target::Path(&path)).unwrap();
            fanotify_mark(&group, ignore, libc::FAN_OPEN, Target::Path(&path)).unwrap();
            let (image, losses) = inspect(source(&group), world).unwrap();
            assert_eq!((image.marks[0].ignored_mask, losses), (0x20, vec![]));
            let writer = OpenOptions::new().write(true).open(world.file(3)).unwrap();
            let me = [std::process::id().cast_signed()];
            let writing = Source {
                tree: &me,
                ..source(&group)
            };
            let (image, losses) = inspect(writing, world).unwrap();
            assert_eq!(image.marks[0].ignored_mask, 0);
            let [loss] = &losses[..] else {
                panic!("{losses:?}")
            };
            assert!(loss.to_string().contains("FAN_OPEN"), "{loss}");
            let _ = (&writer).flush();
        },
    );
}

#[test]
fn a_mark_on_another_mount_namespace_is_refused() {
    in_world("a_mark_on_another_mount_namespace_is_refused", |world| {
        let group = match fanotify_init(REPORT_MNT | NONBLOCK, 0) {
            Ok(group) => group,
            Err(errno) => return eprintln!("skip: no mount events before Linux 6.15: {errno}"),
        };
        let mark = |namespace: &str| {
            let namespace = std::fs::File::open(namespace).unwrap();
            let flags = ADD | libc::FAN_MARK_MOUNT | libc::FAN_MARK_FILESYSTEM;
            let target = Target::Descriptor(namespace.as_fd());
            fanotify_mark(&group, flags, FAN_MNT_ATTACH, target).unwrap();
        };
        mark("/proc/thread-self/ns/mnt");
        inspect(source(&group), world).unwrap();
        // The thread that runs all tests has the one that this thread left.
        mark("/proc/self/ns/mnt");
        let refusal = inspect(source(&group), world).unwrap_err().to_string();
        let (start, end) = refusal.split_at(refusal.rfind(": ").unwrap());
        assert!(start.starts_with("fanotify: mount namespace "), "{refusal}");
        assert_eq!(end, ": not the mount namespace of the subject");
    });
}
