//! Every kind of event, alone and in the combinations that are hard, through [`cr::queue::rebuild`].

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use cr::LossKind;
use cr::queue::{COOKIE_DISTANCE, RebuildError, drain, losses, rebuild, rebuild_with_cookies};
use cr::sys::watch;
use fsnotify::inotify::Mask;
use libtest_mimic::{Failed, Trial};

use crate::equal::difference;

const ISDIR: u32 = 0x4000_0000;
const OVERFLOW: Event = (-1, 0x4000, 0, "");

/// wd, mask, cookie, name; no name if empty.
type Event = (i32, u32, u32, &'static str);

pub(crate) fn encode(wd: i32, mask: u32, cookie: u32, name: &[u8]) -> Vec<u8> {
    let length = match name.len() {
        0 => 0,
        length => (length + 1).next_multiple_of(16),
    };
    let mut bytes = Vec::new();
    bytes.extend(wd.to_ne_bytes());
    bytes.extend(mask.to_ne_bytes());
    bytes.extend(cookie.to_ne_bytes());
    bytes.extend(u32::try_from(length).unwrap().to_ne_bytes());
    bytes.extend(name);
    bytes.resize(16 + length, 0);
    bytes
}

fn queue(events: &[Event]) -> Vec<u8> {
    let records = events
        .iter()
        .map(|it| encode(it.0, it.1, it.2, it.3.as_bytes()));
    records.collect::<Vec<_>>().concat()
}

/// Rebuilds the queue in a new group; the error, or what differs.
pub(crate) fn rebuilt(queue: &[u8]) -> Result<Vec<u8>, RebuildError> {
    let group = watch::init().unwrap();
    rebuild(group.as_fd(), queue, &[])?;
    let fdinfo = format!(
        "/proc/self/fdinfo/{}",
        std::os::fd::AsRawFd::as_raw_fd(&group)
    );
    let fdinfo = std::fs::read_to_string(fdinfo).unwrap();
    assert!(!fdinfo.contains("inotify"), "watches are left: {fdinfo}");
    Ok(drain(group.as_fd()).unwrap())
}

/// A process that is forked meanwhile has what was open, until it runs another program.
fn unmounts_while_others_fork() -> Result<(), Failed> {
    let events: Vec<Event> = (1..=300)
        .flat_map(|wd| [(wd, 0x2000, 0, ""), (wd, 0x8000, 0, "")])
        .collect();
    let is_over = AtomicBool::new(false);
    let fork = || {
        while !is_over.load(Ordering::Relaxed) {
            Command::new("/proc/self/exe")
                .arg("--list")
                .stdout(Stdio::null())
                .status()?;
        }
        std::io::Result::Ok(())
    };
    std::thread::scope(|scope| {
        let forking = scope.spawn(fork);
        let equal = expect_equal("unmounts", &queue(&events));
        is_over.store(true, Ordering::Relaxed);
        forking.join().expect("it does not panic")?;
        equal
    })
}

fn expect_equal(what: &str, saved: &[u8]) -> Result<(), Failed> {
    let rebuilt = rebuilt(saved).map_err(|error| format!("{what}: {error}"))?;
    match difference(saved, &rebuilt) {
        None => Ok(()),
        Some(difference) => Err(format!("{what}: {difference}").into()),
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("each_kind_is_made_or_refused_as_the_kernel_does", each_kind),
        Trial::test("hard_combinations_are_equal", combinations),
        Trial::test("names_are_bytes_up_to_the_longest", names),
        Trial::test(
            "an_unmount_is_waited_for_while_others_fork",
            unmounts_while_others_fork,
        ),
        Trial::test("an_overflow_event_keeps_its_place", overflow),
        Trial::test("a_queue_that_is_almost_full_is_equal", almost_full),
        Trial::test(
            "an_exactly_full_queue_gets_an_overflow_event_and_says_so",
            exactly_full,
        ),
        Trial::test("the_parted_halves_of_a_rename_are_declared", parted),
        Trial::test("a_longer_queue_than_the_limit_is_refused", too_long),
        Trial::test("an_empty_queue_costs_nothing", empty),
        Trial::test(
            "a_failed_rebuild_names_the_event_and_leaves_the_group_empty",
            failed,
        ),
        Trial::test("a_merge_after_the_cut_happens_as_before_it", merge),
        Trial::test(
            "a_cookie_ahead_is_the_same_again",
            a_cookie_ahead_is_the_same_again,
        ),
        Trial::test(
            "a_cookie_behind_or_too_far_ahead_is_another",
            a_cookie_behind_or_too_far_ahead_is_another,
        ),
    ]
}

/// The table of the kinds: which of self, child, ISDIR self and ISDIR child exist.
fn each_kind() -> Result<(), Failed> {
    const EXIST: [(u32, [bool; 4]); 15] = [
        (libc::IN_ACCESS, [true; 4]),
        (libc::IN_MODIFY, [true; 4]),
        (libc::IN_ATTRIB, [true; 4]),
        (libc::IN_CLOSE_WRITE, [true, true, false, false]),
        (libc::IN_CLOSE_NOWRITE, [true; 4]),
        (libc::IN_OPEN, [true; 4]),
        (libc::IN_MOVED_FROM, [false, true, false, true]),
        (libc::IN_MOVED_TO, [false, true, false, true]),
        (libc::IN_CREATE, [false, true, false, true]),
        (libc::IN_DELETE, [false, true, false, true]),
        (libc::IN_DELETE_SELF, [true, false, false, false]),
        (libc::IN_MOVE_SELF, [true, false, false, false]),
        (libc::IN_UNMOUNT, [true, false, true, false]),
        (libc::IN_IGNORED, [true, false, false, false]),
        (
            libc::IN_MODIFY | libc::IN_ATTRIB,
            [true, true, false, false],
        ),
    ];
    for (mask, exist) in EXIST {
        let shapes = [(0, ""), (0, "name"), (ISDIR, ""), (ISDIR, "name")];
        for ((isdir, name), exists) in shapes.into_iter().zip(exist) {
            let cookie = if mask & libc::IN_MOVE == 0 { 0 } else { 123 };
            let saved = queue(&[(7, mask | isdir, cookie, name)]);
            let what = format!("{} \"{name}\"", Mask(mask | isdir));
            if exists {
                expect_equal(&what, &saved)?;
            } else if rebuilt(&saved).is_ok() {
                return Err(format!("{what}: made, though the kernel never does").into());
            }
        }
    }
    Ok(())
}

fn combinations() -> Result<(), Failed> {
    let cases: &[(&str, &[Event])] = &[
        (
            "rename across two wds",
            &[(3, 0x40, 55, "a"), (9, 0x80, 55, "b")],
        ),
        (
            "rename of a directory in one",
            &[
                (3, 0x40 | ISDIR, 55, "a"),
                (3, 0x80 | ISDIR, 55, "b"),
                (4, 0x800, 0, ""),
            ],
        ),
        (
            "in and out",
            &[(3, 0x40, 55, "a"), (3, 0x80, 56, "a"), (3, 0x40, 57, "a")],
        ),
        (
            "exchange",
            &[
                (3, 0x40, 55, "a"),
                (3, 0x80, 55, "b"),
                (3, 0x40, 56, "b"),
                (3, 0x80, 56, "a"),
            ],
        ),
        (
            "a run of opens with execve between",
            &[(3, 0x20, 0, "a"), (3, 0x20, 0, "a"), (3, 0x20, 0, "a")],
        ),
        (
            "the same on the file itself",
            &[(3, 0x20, 0, ""), (3, 0x20, 0, "")],
        ),
        (
            "two ends of one wd",
            &[(3, 0x8000, 0, ""), (3, 0x8000, 0, "")],
        ),
        (
            "wd reused for another kind of inode",
            &[(3, 0x2, 0, ""), (3, 0x20 | ISDIR, 0, ""), (3, 0x2, 0, "x")],
        ),
        (
            "a name that changes its kind",
            &[
                (3, 0x100, 0, "a"),
                (3, 0x200, 0, "a"),
                (3, 0x100 | ISDIR, 0, "a"),
                (3, 0x20 | ISDIR, 0, "a"),
                (3, 0x20, 0, "a"),
            ],
        ),
        (
            "dead watches of every kind",
            &[
                (1, 0x2, 0, ""),
                (1, 0x400, 0, ""),
                (1, 0x8000, 0, ""),
                (2, 0x100, 0, "c"),
                (2, 0x2000 | ISDIR, 0, ""),
                (2, 0x8000, 0, ""),
                (3, 0x2000, 0, ""),
                (3, 0x8000, 0, ""),
                (4, 0x8000, 0, ""),
                (1, 0x100, 0, "again"),
            ],
        ),
        (
            "DELETE_SELF apart from its IGNORED",
            &[(1, 0x400, 0, ""), (2, 0x2, 0, ""), (1, 0x8000, 0, "")],
        ),
        (
            "rename out of what is unmounted later",
            &[
                (1, 0x40, 9, "a"),
                (2, 0x80, 9, "b"),
                (1, 0x2000 | ISDIR, 0, ""),
                (1, 0x8000, 0, ""),
            ],
        ),
        (
            "highest wds",
            &[
                (i32::MAX, 0x2, 0, ""),
                (i32::MAX - 1, 0x4, 0, ""),
                (1, 0x2, 0, ""),
            ],
        ),
    ];
    cases
        .iter()
        .try_for_each(|(what, events)| expect_equal(what, &queue(events)))
}

fn names() -> Result<(), Failed> {
    for length in [1, 14, 15, 16, 31, 32, 254, 255] {
        let name = vec![b'n'; length];
        let kinds = [0x100, 0x20, 0x1, 0x2, 0x4, 0x8, 0x10, 0x200];
        let records = kinds.into_iter().map(|mask| encode(2, mask, 0, &name));
        expect_equal(
            &format!("{length} bytes"),
            &records.collect::<Vec<_>>().concat(),
        )?;
    }
    let odd: [&[u8]; 5] = [b"\xff\xfe\n\t w", b" (deleted)", b"...", b"-rf", b"\\x00"];
    let records = odd.into_iter().map(|name| encode(2, 0x100, 0, name));
    expect_equal("odd names", &records.collect::<Vec<_>>().concat())
}

/// Alternating events that never merge.
fn many(n: usize, masks: [u32; 2], name: &'static str) -> Vec<Event> {
    (0..n)
        .map(|i| (1 + i32::try_from(i % 7).unwrap(), masks[i % 2], 0, name))
        .collect()
}

fn overflow() -> Result<(), Failed> {
    let limit = cr::queue::limit().unwrap();
    expect_equal("alone", &queue(&[OVERFLOW]))?;
    expect_equal("first", &queue(&[OVERFLOW, (5, 0x100 | ISDIR, 0, "late")]))?;
    let mut events = many(300, [0x100, 0x200], "zz");
    events.extend([(4, 0x400, 0, ""), (4, 0x8000, 0, ""), OVERFLOW]);
    events.extend(many(300, [0x20, 0x8], "yy"));
    events.extend([(3, 0x2000, 0, ""), (3, 0x8000, 0, "")]);
    expect_equal("in the middle, behind the end of a watch", &queue(&events))?;
    let cases: [(&str, &[Event]); 6] = [
        (
            "DELETE_SELF whose IGNORED was dropped",
            &[(4, 0x2, 0, ""), (4, 0x400, 0, "")],
        ),
        (
            "UNMOUNT whose IGNORED was dropped",
            &[(4, 0x2000 | ISDIR, 0, "")],
        ),
        (
            "UNMOUNT",
            &[
                (4, 0x2, 0, ""),
                (4, 0x2000, 0, ""),
                (4, 0x8000, 0, ""),
                (4, 0x1, 0, "c"),
            ],
        ),
        (
            "a rename",
            &[(4, 0x40, 7, "a"), (5, 0x80, 7, "b"), (4, 0x800, 0, "")],
        ),
        (
            "opens",
            &[(4, 0x20, 0, "a"), (4, 0x20, 0, "a"), (4, 0x20, 0, "a")],
        ),
        (
            "one of two bits",
            &[(4, 0x6, 0, ""), (5, 0x6, 0, "n"), (5, 0x10 | ISDIR, 0, "d")],
        ),
    ];
    for (what, before) in cases {
        let saved = queue(&[before, &[OVERFLOW, (9, 0x2, 0, "x")]].concat());
        expect_equal(&format!("{what}, then overflow"), &saved)?;
    }
    let mut full = many(limit, [0x2, 0x4], "f");
    full.push(OVERFLOW);
    expect_equal("behind a full queue", &queue(&full))?;
    let last = full.len() - 2;
    full[last] = (4, 0x400, 0, "");
    expect_equal(
        "behind a full queue that ends with DELETE_SELF",
        &queue(&full),
    )
}

fn almost_full() -> Result<(), Failed> {
    let limit = cr::queue::limit().unwrap();
    let events = many(limit - 1, [0x100, 0x200], "name-of-some-length");
    expect_equal("one less than the limit", &queue(&events))
}

fn exactly_full() -> Result<(), Failed> {
    let limit = cr::queue::limit().unwrap();
    let mut saved = queue(&many(limit, [0x100, 0x200], "q"));
    let declared = declared(&saved, limit)?;
    if declared != [LossKind::OverflowAdded] {
        return Err(format!("declared {declared:?}").into());
    }
    let rebuilt = rebuilt(&saved)?;
    saved.extend(queue(&[OVERFLOW]));
    difference(&saved, &rebuilt).map_or(Ok(()), |difference| Err(difference.into()))
}

fn declared(saved: &[u8], limit: usize) -> Result<Vec<LossKind>, Failed> {
    let declared = losses("fd 3", saved, limit)?;
    Ok(declared.iter().flat_map(|loss| loss.kind).collect())
}

/// Only another process that acts in the midst of a rename makes such a queue.
fn parted() -> Result<(), Failed> {
    let [from, to] = [(1, 0x40, 7, "a"), (1, 0x80, 7, "b")];
    let between = queue(&[from, (1, 0x100, 0, "c"), to]);
    assert_eq!(declared(&between, 100)?, [LossKind::RenameParted]);
    assert_eq!(declared(&queue(&[from, to]), 100)?, []);
    Ok(())
}

fn too_long() -> Result<(), Failed> {
    let limit = cr::queue::limit().unwrap();
    let events = limit + 1;
    let saved = queue(&many(events, [0x100, 0x200], "q"));
    match rebuilt(&saved) {
        Err(error) if error == (RebuildError::TooLong { events, limit }) => Ok(()),
        other => Err(format!("{:?}", other.map(|queue| queue.len())).into()),
    }
}

/// Nothing is asked of the group, so even one that is none will do.
fn empty() -> Result<(), Failed> {
    let nothing = std::fs::File::open("/dev/null")?;
    Ok(rebuild(nothing.as_fd(), &[], &[])?)
}

fn failed() -> Result<(), Failed> {
    let group = watch::init()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_str().unwrap().as_bytes();
    let wd = watch::add_watch(group.as_fd(), path, Mask(libc::IN_MODIFY))?;
    // The second event needs the wd that the group already has.
    let saved = queue(&[(7, 0x2, 0, ""), (wd.number(), 0x2, 0, "")]);
    let error = rebuild(group.as_fd(), &saved, &[]).unwrap_err().to_string();
    let expected = "event 1 (wd 1 IN_MODIFY): wd not free: the watch got 2";
    if error != expected {
        return Err(format!("{error}, not {expected}").into());
    }
    if drain(group.as_fd())?.is_empty() {
        Ok(())
    } else {
        Err("events are left".into())
    }
}

/// An event equal to the last one of the rebuilt queue merges into it, as it would have into the
/// original; another one does not.
fn merge() -> Result<(), Failed> {
    let group = watch::init()?;
    let file = tempfile::tempfile()?;
    let saved = queue(&[(7, 0x10, 0, ""), (7, 0x2, 0, "")]);
    rebuild(group.as_fd(), &saved, &[])?;
    let wd = fsnotify::Wd::new(7).unwrap();
    watch::set_next_wd(group.as_fd(), wd)?;
    let got = watch::add_watch_on(
        group.as_fd(),
        &file,
        Mask(libc::IN_MODIFY | libc::IN_ATTRIB),
    )?;
    assert_eq!(got, wd);
    nix::unistd::write(&file, b"x")?;
    nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::S_IRWXU)?;
    let expected = queue(&[(7, 0x10, 0, ""), (7, 0x2, 0, ""), (7, 0x4, 0, "")]);
    let found = drain(group.as_fd())?;
    difference(&expected, &found).map_or(Ok(()), |difference| Err(difference.into()))
}

/// The cookie that the counter of the machine is at: that of a rename made now.
fn cookie_now() -> Result<u32, Failed> {
    let folder = tempfile::tempdir()?;
    let group = watch::init()?;
    std::fs::write(folder.path().join("a"), "")?;
    let path = std::os::unix::ffi::OsStrExt::as_bytes(folder.path().as_os_str());
    watch::add_watch(group.as_fd(), path, Mask(libc::IN_MOVED_FROM))?;
    std::fs::rename(folder.path().join("a"), folder.path().join("b"))?;
    let heard = drain(group.as_fd())?;
    Ok(cookie_of(&heard))
}

fn cookie_of(queue: &[u8]) -> u32 {
    u32::from_ne_bytes(queue[8..12].try_into().unwrap())
}

/// The cookie of the second half of a rename, rebuilt with what the counter may be moved by.
fn rebuilt_cookie(cookie: u32, distance: u32) -> Result<u32, Failed> {
    let saved = queue(&[(1, 0x80, cookie, "name"), (1, 0x100, 0, "other")]);
    let group = watch::init()?;
    rebuild_with_cookies(group.as_fd(), &saved, &[], distance)?;
    let rebuilt = drain(group.as_fd())?;
    match difference(&saved, &rebuilt) {
        None => Ok(cookie_of(&rebuilt)),
        Some(difference) => Err(difference.into()),
    }
}

/// Others rename too, and then it is missed: so it is tried more than once.
const MOST_TRIES: usize = 500;

fn a_cookie_ahead_is_the_same_again() -> Result<(), Failed> {
    for n_tries in 1..=MOST_TRIES {
        let wanted = cookie_now()?.wrapping_add(3001);
        if rebuilt_cookie(wanted, COOKIE_DISTANCE)? == wanted {
            eprintln!("the cookie was met at try {n_tries}");
            return Ok(());
        }
    }
    Err("the cookie was never met".into())
}

fn a_cookie_behind_or_too_far_ahead_is_another() -> Result<(), Failed> {
    let far = 1 << 30;
    for wanted in [
        cookie_now()?.wrapping_sub(5),
        cookie_now()?.wrapping_add(far),
    ] {
        let before = cookie_now()?;
        let found = rebuilt_cookie(wanted, COOKIE_DISTANCE)?;
        if found.wrapping_sub(before) > COOKIE_DISTANCE {
            return Err(format!("{before} to {found} for {wanted}").into());
        }
    }
    // And with nothing to spend nothing is spent.
    let wanted = cookie_now()?.wrapping_add(100_000_000);
    match rebuilt_cookie(wanted, 0)? == wanted {
        true => Err("the counter was moved".into()),
        false => Ok(()),
    }
}
