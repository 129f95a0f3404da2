//! What `diff` says of two transcripts, case by case.

use fsnotify::inotify::Mask;
use scenario::{
    Arg, Bytes, Call, Descriptor, DescriptorKind, Event, Expect, Fact, Name, Object, Observation,
    Outcome, Phase, Place, Scenario, Stat, Step, Transcript, Watch,
};
use verify::{Difference, diff};

#[path = "../facts/mod.rs"]
mod facts;
mod heard;

const ACCESS: u32 = 0x1;
const MODIFY: u32 = 0x2;
const CLOSE_WRITE: u32 = 0x8;
const OPEN: u32 = 0x20;
const MOVED_FROM: u32 = 0x40;
const MOVED_TO: u32 = 0x80;
const CREATE: u32 = 0x100;
const DELETE: u32 = 0x200;
const DELETE_SELF: u32 = 0x400;
const MOVE_SELF: u32 = 0x800;
const ISDIR: u32 = 0x4000_0000;
const OVERFLOW: u32 = 0x4000;
const EXCL_UNLINK: u32 = 0x0400_0000;

/// `inotify_init1 = n`, `checkpoint`, `read(n)`: steps 0, 1, 2.
fn scenario() -> Scenario {
    let step = |call, args, expect| Step {
        notes: Vec::new(),
        process: None,
        call,
        phase: Phase::Whole,
        args,
        expect,
    };
    let n = Name("n".to_owned());
    Scenario {
        steps: vec![
            step(Call::InotifyInit1, Vec::new(), Expect::Bind(n.clone())),
            step(Call::Checkpoint, Vec::new(), Expect::Success),
            step(Call::Read, vec![Arg::Name(n)], Expect::Success),
        ],
        ..Scenario::default()
    }
}

fn event(wd: i32, mask: u32, name: &str) -> Fact {
    pair_event(wd, mask, name, 0)
}

fn pair_event(wd: i32, mask: u32, name: &str, cookie: u32) -> Fact {
    Fact::Event(Event {
        fd: None,
        wd,
        mask: Mask(mask),
        cookie,
        name: Bytes::from(name),
    })
}

fn watch(wd: i32, target: &str, mask: u32) -> Fact {
    Fact::Watch(Watch {
        process: None,
        fd: 3,
        wd,
        target: Object::Path(Bytes::from(target)),
        mask: Mask(mask),
    })
}

fn group(unread: u64) -> Fact {
    Fact::Descriptor(Descriptor {
        flags: 0o4000,
        ..facts::group(DescriptorKind::Inotify, unread)
    })
}

fn file(fd: i32, object: Object, flags: u32) -> Descriptor {
    Descriptor {
        process: None,
        fd,
        kind: DescriptorKind::Regular,
        object,
        flags,
        close_on_exec: false,
        offset: Some(0),
        owner: None,
        signal: 0,
        shared_with: None,
        unread: None,
        group_flags: None,
        interest: Vec::new(),
        stat: Some(Stat {
            mode: 0o100_644,
            nlink: 0,
            uid: 0,
            gid: 0,
            size: 4,
            blocks: 8,
            xattrs: Vec::new(),
            changed: Vec::new(),
            content: None,
        }),
    }
}

fn ghost(fd: i32) -> Descriptor {
    file(fd, Object::Ghost(Bytes::from("dir/a")), 0o2)
}

fn transcript(cut: Vec<Fact>, read: Vec<Fact>) -> Transcript {
    let size: usize = read
        .iter()
        .map(|fact| match fact {
            Fact::Event(event) if event.name.0.is_empty() => 16,
            _ => 32,
        })
        .sum();
    let outcome = match size {
        0 => Outcome::Errno(11),
        size => Outcome::Value(i64::try_from(size).unwrap()),
    };
    let observation = |index, outcome, facts| Observation {
        place: Place::Step(index),
        outcome,
        facts,
    };
    Transcript {
        observations: vec![
            observation(0, Outcome::Value(3), Vec::new()),
            observation(1, Outcome::None, cut),
            observation(2, outcome, read),
        ],
    }
}

fn differences(control: Transcript, restored: Transcript) -> Vec<Difference> {
    let scenario = scenario();
    assert_eq!(diff(&scenario, &control, &control), Vec::new());
    assert_eq!(diff(&scenario, &restored, &restored), Vec::new());
    diff(&scenario, &control, &restored)
}

fn check(control: Transcript, restored: Transcript, expected: &[&str]) {
    let shown: Vec<String> = differences(control, restored)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(shown, expected);
}

fn check_read(unread: u64, control: Vec<Fact>, restored: Vec<Fact>, expected: &[&str]) {
    check(
        transcript(vec![group(unread)], control),
        transcript(vec![group(unread)], restored),
        expected,
    );
}

fn check_cut(control: Vec<Fact>, restored: Vec<Fact>, expected: &[&str]) {
    check(
        transcript(control, Vec::new()),
        transcript(restored, Vec::new()),
        expected,
    );
}

#[test]
fn a_lost_event_was_unread_at_the_cut_or_made_later() {
    let events = || {
        vec![
            event(1, OPEN, "a"),
            event(1, MODIFY, "a"),
            event(2, MODIFY, ""),
        ]
    };
    check_read(
        64,
        events(),
        vec![event(2, MODIFY, "")],
        &[
            r#"step 3: fd 3, wd 1: wd=1 IN_OPEN "a": lost, I4.1"#,
            r#"step 3: fd 3, wd 1: wd=1 IN_MODIFY "a": lost, I4.1"#,
        ],
    );
    check_read(
        64,
        events(),
        events()[..2].to_vec(),
        &["step 3: fd 3, wd 2: wd=2 IN_MODIFY: lost, I6.2"],
    );
    check_read(
        32,
        events(),
        Vec::new(),
        &[
            r#"step 3: fd 3, wd 1: wd=1 IN_OPEN "a": lost, I4.1"#,
            r#"step 3: fd 3, wd 1: wd=1 IN_MODIFY "a": lost, I6.2"#,
            "step 3: fd 3, wd 2: wd=2 IN_MODIFY: lost, I6.2",
        ],
    );
}

#[test]
fn the_case_of_two_ghosts_reads_as_lost_and_spurious() {
    check_read(
        0,
        vec![event(1, CLOSE_WRITE, "b"), event(3, CLOSE_WRITE, "")],
        vec![event(1, CLOSE_WRITE, "b"), event(1, DELETE, "b.cr.1.ghost")],
        &[
            "step 3: fd 3, wd 3: wd=3 IN_CLOSE_WRITE: lost, I6.2",
            r#"step 3: fd 3, wd 1: wd=1 IN_DELETE "b.cr.1.ghost": spurious, I5.1"#,
        ],
    );
}

#[test]
fn one_field_of_an_event_changes_at_a_time() {
    let control = || {
        vec![
            event(1, OPEN, "a"),
            event(1, MODIFY, "a"),
            event(1, CLOSE_WRITE, "a"),
        ]
    };
    let with = |changed: Fact| {
        let mut events = control();
        events[1] = changed;
        events
    };
    check_read(
        0,
        control(),
        with(event(7, MODIFY, "a")),
        &["step 3: fd 3, wd 1: wd 1 became 7: changed, I6.3"],
    );
    check_read(
        0,
        control(),
        with(event(1, MODIFY, "a.cr.1.ghost")),
        &[r#"step 3: fd 3, wd 1: name "a" became "a.cr.1.ghost": changed, I6.3"#],
    );
    check_read(
        0,
        control(),
        with(event(1, MODIFY, "b")),
        &[
            r#"step 3: fd 3, wd 1: wd=1 IN_MODIFY "a": lost, I6.2"#,
            r#"step 3: fd 3, wd 1: wd=1 IN_MODIFY "b": spurious, I5.1"#,
        ],
    );
    check_read(
        96,
        control(),
        with(event(1, MODIFY | 0x4, "a")),
        &["step 3: fd 3, wd 1: mask IN_MODIFY became IN_MODIFY|IN_ATTRIB: changed, I4.2"],
    );
    check_read(
        0,
        control(),
        with(event(1, DELETE, "a")),
        &[
            r#"step 3: fd 3, wd 1: wd=1 IN_MODIFY "a": lost, I6.2"#,
            r#"step 3: fd 3, wd 1: wd=1 IN_DELETE "a": spurious, I5.1"#,
        ],
    );
}

#[test]
fn events_in_another_order_are_reordered() {
    let (a, b, c) = (
        event(1, OPEN, "a"),
        event(1, OPEN, "b"),
        event(1, OPEN, "c"),
    );
    check_read(
        32,
        vec![a.clone(), b.clone(), c.clone()],
        vec![b, c, a],
        &[r#"step 3: fd 3, wd 1: wd=1 IN_OPEN "a": reordered, I4.3"#],
    );
}

#[test]
fn extra_and_repeated_events_are_found() {
    let open = || event(1, OPEN, "a");
    check_read(
        0,
        vec![open(), event(1, MODIFY, "a")],
        vec![open(), open(), event(1, MODIFY, "a")],
        &[r#"step 3: fd 3, wd 1: wd=1 IN_OPEN "a": spurious, I5.1"#],
    );
}

#[test]
fn a_lost_pair_leaves_the_cookies_after_it_alone() {
    let pair = |cookie, name: &str| {
        [
            pair_event(1, MOVED_FROM, name, cookie),
            pair_event(1, MOVED_TO, "z", cookie),
        ]
    };
    let control = [pair(1, "a"), pair(2, "b"), pair(3, "c")].concat();
    let restored = [pair(1, "b"), pair(2, "c")].concat();
    check_read(
        0,
        control,
        restored,
        &[
            r#"step 3: fd 3, wd 1: wd=1 IN_MOVED_FROM "a" cookie#1: lost, I6.2"#,
            r#"step 3: fd 3, wd 1: wd=1 IN_MOVED_TO "z" cookie#1: lost, I6.2"#,
        ],
    );
}

#[test]
fn a_pair_that_does_not_pair_any_more_is_found() {
    let from = || pair_event(1, MOVED_FROM, "a", 1);
    check_read(
        0,
        vec![from(), pair_event(1, MOVED_TO, "b", 1)],
        vec![from(), pair_event(1, MOVED_TO, "b", 2)],
        &["step 3: fd 3, wd 1: cookie cookie#1 became cookie#2: changed, I6.5"],
    );
    check_read(
        64,
        vec![from(), pair_event(1, MOVED_TO, "b", 2)],
        vec![from(), pair_event(1, MOVED_TO, "b", 1)],
        &["step 3: fd 3, wd 1: cookie cookie#2 became cookie#1: changed, I4.4"],
    );
    check_read(
        0,
        vec![from()],
        vec![event(1, MOVED_FROM, "a")],
        &["step 3: fd 3, wd 1: cookie cookie#1 became none: changed, I6.5"],
    );
}

#[test]
fn an_overflow_marker_has_an_invariant_of_its_own() {
    check_read(
        48,
        vec![event(1, OPEN, "a"), event(-1, OVERFLOW, "")],
        vec![event(1, OPEN, "a")],
        &["step 3: fd 3, wd -1: wd=-1 IN_Q_OVERFLOW: lost, I4.5"],
    );
}

#[test]
fn a_call_that_returns_something_else_is_an_outcome() {
    let with = |index: usize, outcome| {
        let mut restored = transcript(vec![group(0)], vec![event(1, OPEN, "")]);
        restored.observations[index].outcome = outcome;
        restored
    };
    let control = || transcript(vec![group(0)], vec![event(1, OPEN, "")]);
    check(
        control(),
        with(2, Outcome::Errno(9)),
        &["step 3: fd 3: 16 became -1 EBADF: outcome, I6.1"],
    );
    check(
        control(),
        with(0, Outcome::Value(4)),
        &["step 1: 3 became 4: outcome, I6.1"],
    );
    let mut cut_short = control();
    cut_short.observations.truncate(2);
    check(
        control(),
        cut_short,
        &[
            "step 3: fd 3: 16 became not reached: outcome, I6.1",
            "step 3: fd 3, wd 1: wd=1 IN_OPEN: lost, I6.2",
        ],
    );
}

#[test]
fn a_result_that_tells_of_a_group_cites_what_it_tells() {
    let check_call = |line: &str, expected: &str| {
        let text = format!("# A.\ninotify_init1(IN_NONBLOCK) = n\n{line}\n");
        let scenario = scenario::parse(&text).expect("it parses").scenario;
        let run = |value| {
            let results = [(0, 3), (1, value)];
            let observation = |(index, value)| Observation {
                place: Place::Step(index),
                outcome: Outcome::Value(value),
                facts: Vec::new(),
            };
            Transcript {
                observations: results.map(observation).to_vec(),
            }
        };
        let found = diff(&scenario, &run(32), &run(1));
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, [expected]);
    };
    check_call(
        "ioctl(n, FIONREAD)",
        "step 2: fd 3: 32 became 1: outcome, I4.6",
    );
    check_call(
        r#"inotify_add_watch(n, "f", IN_OPEN)"#,
        "step 2: fd 3: 32 became 1: outcome, I2.3",
    );
    check_call(
        "fcntl(n, F_GETFL)",
        "step 2: fd 3: 32 became 1: outcome, I6.1",
    );
}

#[test]
fn watches_are_compared_by_wd_target_mask_and_order() {
    let (a, b) = (
        || watch(2, "a", ACCESS),
        || watch(1, "b", ACCESS | EXCL_UNLINK),
    );
    check_cut(
        vec![a(), b()],
        vec![a()],
        &[r#"step 2: fd 3, wd 1, "b": wd=1 "b" IN_ACCESS|IN_EXCL_UNLINK: lost, I2.1"#],
    );
    check_cut(
        vec![a()],
        vec![b(), a()],
        &[r#"step 2: fd 3, wd 1, "b": wd=1 "b" IN_ACCESS|IN_EXCL_UNLINK: spurious, I2.2"#],
    );
    check_cut(
        vec![a(), b()],
        vec![a(), watch(1, "b", ACCESS)],
        &[
            r#"step 2: fd 3, wd 1, "b": mask IN_ACCESS|IN_EXCL_UNLINK became IN_ACCESS: changed, I3.1"#,
        ],
    );
    check_cut(
        vec![a(), b()],
        vec![a(), watch(5, "b", ACCESS | EXCL_UNLINK)],
        &[r#"step 2: fd 3, wd 1, "b": wd 1 became 5: changed, I2.1"#],
    );
    check_cut(
        vec![a(), b()],
        vec![a(), watch(1, "c", ACCESS | EXCL_UNLINK)],
        &[r#"step 2: fd 3, wd 1, "b": target "b" became "c": changed, I2.1"#],
    );
    check_cut(
        vec![a(), b()],
        vec![b(), a()],
        &[r#"step 2: fd 3, wd 2, "a": wd=2 "a" IN_ACCESS: reordered, I2.4"#],
    );
}

#[test]
fn a_ghost_has_invariants_of_its_own() {
    let of = |descriptor: Descriptor| vec![Fact::Descriptor(descriptor)];
    let mut other = ghost(4);
    other.offset = Some(2);
    let stat = other.stat.as_mut().unwrap();
    stat.changed = vec!["mtime".to_owned()];
    stat.blocks = 16;
    check_cut(
        of(ghost(4)),
        of(other),
        &[
            r#"step 2: fd 4, "dir/a" (deleted): offset 0 became 2: changed, I7.8"#,
            r#"step 2: fd 4, "dir/a" (deleted): blocks 8 became 16: changed, I7.3"#,
            r#"step 2: fd 4, "dir/a" (deleted): times as before the cut became mtime changed by the cut: changed, I7.5"#,
        ],
    );
    let named = file(4, Object::Ghost(Bytes::from("dir/a.cr.1.ghost")), 0o2);
    check_cut(
        of(ghost(4)),
        of(named),
        &[
            r#"step 2: fd 4, "dir/a" (deleted): object "dir/a" (deleted) became "dir/a.cr.1.ghost" (deleted): changed, I7.1"#,
        ],
    );
}

#[test]
fn a_difference_that_a_later_survey_sees_again_is_marked() {
    let (mut control, mut restored) = (
        transcript(vec![watch(1, "a", ACCESS)], Vec::new()),
        transcript(Vec::new(), Vec::new()),
    );
    for (transcript, facts) in [
        (&mut control, vec![watch(1, "a", ACCESS)]),
        (&mut restored, Vec::new()),
    ] {
        transcript.observations.push(Observation {
            place: Place::End,
            outcome: Outcome::None,
            facts,
        });
    }
    let found = differences(control, restored);
    let repeated: Vec<bool> = found.iter().map(|difference| difference.repeated).collect();
    assert_eq!(repeated, [false, true]);
}

#[test]
fn a_full_queue_that_is_lost_is_found_event_by_event() {
    let n = 16384_u64;
    let flood: Vec<Fact> = (0..n)
        .map(|i| event(1, if i % 2 == 0 { 0x4 } else { MODIFY }, ""))
        .collect();
    let found = differences(
        transcript(vec![group(16 * n)], flood),
        transcript(vec![group(16 * n)], Vec::new()),
    );
    assert_eq!(found.len(), 16384);
    assert!(
        found
            .iter()
            .all(|it| it.invariant == verify::invariant::UNREAD)
    );
}
