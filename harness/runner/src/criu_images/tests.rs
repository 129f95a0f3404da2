//! The images are of CRIU 4.1.1, of a process with a ghost, a group of each kind and an epoll set
//! (`test_data/criu_images`).

use fsnotify::fdinfo::{Group, Level};

use super::losses::{Shown, attribute};
use super::*;

fn every_kind() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/runner/test_data/criu_images/every_kind")
}

#[test]
fn real_images_read_as_what_was_dumped() {
    let images = Images::read(&every_kind()).expect("images of CRIU");
    let shown: Vec<String> = images.to_string().lines().map(masked).collect();
    let expected = [
        "descriptor table 2:",
        "  fd 0: \"/dev/null\", flags O_RDWR|O_LARGEFILE, offset 0",
        "  fd 1: \"/dev/null\", flags O_RDWR|O_LARGEFILE, offset 0",
        "  fd 2: \"/dev/null\", flags O_RDWR|O_LARGEFILE, offset 0",
        "  fd 3: \"/mnt/w/dir/ghost\", flags O_RDWR|O_LARGEFILE, offset 7",
        "  fd 4: inotify, flags O_RDONLY|O_NONBLOCK",
        "    wd 2: IN_CREATE|IN_ONESHOT on \"/mnt/w\"",
        "    wd 1: IN_ALL_EVENTS|IN_EXCL_UNLINK on \"/mnt/w/dir\"",
        "  fd 5: inotify, flags O_RDONLY|O_NONBLOCK",
        "    wd 2: IN_CREATE|IN_ONESHOT on \"/mnt/w\"",
        "    wd 1: IN_ALL_EVENTS|IN_EXCL_UNLINK on \"/mnt/w/dir\"",
        "  fd 6: epoll, flags O_RDWR",
        "    fd 4: events 0x19, data 7",
        "  fd 7: fanotify, init 0x2, event flags O_RDONLY|O_LARGEFILE",
        "    FAN_CLOSE_WRITE ignoring 0, flags 0x0, on mount ID",
        "    FAN_MODIFY|FAN_OPEN ignoring FAN_MODIFY, flags 0x40, on \"/mnt/w/dir\"",
        "file 0x6 is made anew: a ghost, 0x1",
        "ghost 0x1: mode 100640, owner 0, group 0",
    ];
    assert_eq!(shown, expected);
}

/// Without the mount's number, which says nothing.
fn masked(line: &str) -> String {
    match line.split_once("on mount ") {
        Some((before, _)) => format!("{before}on mount ID"),
        None => line.to_owned(),
    }
}

#[test]
fn an_image_that_ends_anywhere_is_refused_or_shorter() {
    let whole = fs::read(every_kind().join("files.img")).expect("in the tree");
    let n_files = entries::<File>(&whole, FILES, usize::MAX)
        .expect("whole")
        .len();
    let mut n_shorter = 0;
    for end in 0..whole.len() {
        match entries::<File>(&whole[..end], FILES, usize::MAX) {
            Ok(files) => {
                assert!(files.len() < n_files, "cut at {end}");
                n_shorter += 1;
            }
            Err(ImageErrorKind::Truncated(offset)) => assert!(offset <= end, "cut at {end}"),
            Err(other) => panic!("cut at {end}: {other:?}"),
        }
    }
    assert_eq!(
        n_shorter, n_files,
        "a cut between two entries is a shorter file"
    );
}

#[test]
fn a_length_beyond_the_file_is_refused_without_reserving_it() {
    let mut bytes = Vec::new();
    for number in [FAMILY, FILES, u32::MAX] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let error = entries::<File>(&bytes, FILES, usize::MAX).unwrap_err();
    assert!(
        matches!(error, ImageErrorKind::Truncated(HEAD)),
        "{error:?}"
    );
}

#[test]
fn a_file_of_another_kind_is_refused_by_its_number() {
    let bytes = fs::read(every_kind().join("remap-fpath.img")).expect("in the tree");
    let error = entries::<File>(&bytes, FILES, usize::MAX).unwrap_err();
    let found = matches!(error, ImageErrorKind::Magic { found: REMAPS, .. });
    assert!(found, "{error:?}");
}

#[test]
fn a_folder_without_images_is_named() {
    let error = Images::read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err();
    assert!(error.to_string().ends_with("holds no files.img"), "{error}");
}

/// The group at fd 4, as fdinfo showed it when the images were made, with this head and these
/// lines of watches.
fn group(fd: u32, lines: &str, unread: u64) -> Shown {
    let text = format!("pos:\t0\nflags:\t02004000\nmnt_id:\t17\nino:\t1039\n{lines}");
    Shown {
        pid: 2,
        fd,
        group: Group::parse(text.as_bytes(), Level::Strict).expect("a group"),
        unread,
    }
}

const WD_1: &str = "inotify wd:1 ino:2 sdev:30 mask:4000fff ignored_mask:0 \n";
const WD_2: &str = "inotify wd:2 ino:1 sdev:30 mask:80000100 ignored_mask:0 \n";
const WD_3: &str = "inotify wd:3 ino:5 sdev:30 mask:1 ignored_mask:0 \n";

fn check(before: &Shown, after: Option<&[Shown]>, expected: &[&str]) {
    let images = Images::read(&every_kind()).expect("images of CRIU");
    let lost = attribute(std::slice::from_ref(before), &images, after);
    let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
    assert_eq!(lost, expected);
}

#[test]
fn what_fdinfo_shows_and_the_image_lacks_was_lost_by_dump() {
    let before = group(4, &format!("{WD_3}{WD_2}{WD_1}"), 32);
    let expected = [
        "lost by dump: fd 4: 32 unread bytes: an image has no place for events",
        "lost by dump: fd 4: wd 3: in fdinfo, not in the image",
    ];
    check(&before, None, &expected);
    let elsewhere = group(9, WD_1, 0);
    check(
        &elsewhere,
        None,
        &["lost by dump: fd 9: the group: in no image"],
    );
}

#[test]
fn what_the_image_holds_and_the_restored_group_lacks_was_lost_by_restore() {
    let before = group(4, &format!("{WD_2}{WD_1}"), 0);
    check(&before, Some(std::slice::from_ref(&before)), &[]);
    let bits_gone = WD_1.replace("4000fff", "fff");
    let expected = [
        "lost by restore: fd 4: wd 2: in the image, not restored",
        "lost by restore: fd 4: wd 1: IN_EXCL_UNLINK of its mask: in the image, not restored",
    ];
    check(&before, Some(&[group(4, &bits_gone, 0)]), &expected);
    let elsewhere = format!("{WD_2}{}", WD_1.replace("ino:2", "ino:77"));
    let expected = ["lost by restore: fd 4: wd 1: restored on another inode"];
    check(&before, Some(&[group(4, &elsewhere, 0)]), &expected);
    let expected = ["lost by restore: fd 4: the group: in the image, but no such group"];
    check(&before, Some(&[]), &expected);
}
