//! Which invariant a difference is laid to, and which outcomes the facts have told already.

use fsnotify::inotify::Mask;
use scenario::{
    Bytes, Descriptor, DescriptorKind, Event, Fact, FanotifyEvent, Mark, MarkTarget, Name, Object,
    Observation, Outcome, Place, Scenario, Transcript,
};
use verify::{Difference, diff};

mod facts;

const OPEN: u32 = 0x20;
const OVERFLOW: u32 = 0x4000;

fn event(mask: u32) -> Fact {
    Fact::Event(Event {
        fd: None,
        wd: 1,
        mask: Mask(mask),
        cookie: 0,
        name: Bytes::default(),
    })
}

fn fanotify_event(mask: u32, records: &[&str]) -> Fact {
    Fact::FanotifyEvent(FanotifyEvent {
        fd: None,
        mask: u64::from(mask),
        process: None,
        object: Some(Object::Path(Bytes::from("f"))),
        records: records.iter().map(ToString::to_string).collect(),
    })
}

fn observation(index: usize, outcome: Outcome, facts: &[Fact]) -> Observation {
    Observation {
        place: Place::Step(index),
        outcome,
        facts: facts.to_vec(),
    }
}

fn found(control: Vec<Observation>, restored: Vec<Observation>) -> Vec<Difference> {
    let [control, restored] = [control, restored].map(|observations| Transcript { observations });
    diff(&Scenario::default(), &control, &restored)
}

fn told(found: &[Difference]) -> Vec<String> {
    let line = |it: &Difference| format!("{} {}", it.kind, it.invariant);
    found.iter().map(line).collect()
}

/// What is said of one step.
fn check(control: (Outcome, &[Fact]), restored: (Outcome, &[Fact]), expected: &[&str]) {
    let one = |(outcome, facts)| vec![observation(0, outcome, facts)];
    let found = found(one(control), one(restored));
    assert_eq!(told(&found), expected, "{found:#?}");
}

fn check_facts(control: &[Fact], restored: &[Fact], expected: &[&str]) {
    check(
        (Outcome::None, control),
        (Outcome::None, restored),
        expected,
    );
}

#[test]
fn observations_are_paired_by_place() {
    let at = |indices: &[usize]| -> Vec<Observation> {
        let reached = |index: &usize| observation(*index, Outcome::Value(0), &[]);
        indices.iter().map(reached).collect()
    };
    let check = |control: &[usize], restored: &[usize], expected: &[usize]| {
        let expected: Vec<Place> = expected.iter().map(|index| Place::Step(*index)).collect();
        let found = found(at(control), at(restored));
        let places: Vec<Place> = found.iter().map(|it| it.place).collect();
        assert_eq!(places, expected, "{control:?} {restored:?}");
    };
    check(&[0, 1, 2], &[0, 1, 2], &[]);
    check(&[0, 2], &[0, 1, 2], &[1]);
    check(&[0, 1, 2], &[0, 2], &[1]);
    check(&[1, 2], &[0, 2], &[0, 1]);
    check(&[], &[0], &[0]);
}

#[test]
fn an_overflow_marker_is_laid_to_its_own_invariant_wherever_it_stands() {
    let marker = || event(OVERFLOW);
    check_facts(&[], &[marker()], &["spurious I4.5"]);
    let others = [event(OPEN), event(OPEN | 0x1)];
    let (first, last) = (
        [&[marker()], &others[..]].concat(),
        [&others[..], &[marker()]].concat(),
    );
    check_facts(&first, &last, &["reordered I4.5"]);
    let marker = || fanotify_event(OVERFLOW, &[]);
    check_facts(&[marker()], &[], &["lost I4.5"]);
    check_facts(&[], &[marker()], &["spurious I4.5"]);
}

/// A queue of one event at a cut, and another descriptor that is read after it.
fn read_through_another(lines: &str) -> Vec<String> {
    let text = format!("# A.\ninotify_init1(IN_NONBLOCK) = n\ncheckpoint\n{lines}");
    let scenario = scenario::parse(&text).expect("it parses").scenario;
    let group = Fact::Descriptor(facts::group(DescriptorKind::Inotify, 16));
    let last = scenario.steps.len() - 1;
    let run = |read: &[Fact]| {
        let observations = (0..=last).map(|index| match index {
            0 => observation(0, Outcome::Value(3), &[]),
            1 => observation(1, Outcome::None, std::slice::from_ref(&group)),
            _ if index == last => observation(index, Outcome::Value(0), read),
            _ => observation(index, Outcome::Value(4), &[]),
        });
        Transcript {
            observations: observations.collect(),
        }
    };
    let found = diff(&scenario, &run(&[event(OPEN)]), &run(&[]));
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn what_was_unread_may_be_read_through_a_later_duplicate() {
    let check = |lines: &str, expected: &str| {
        assert_eq!(read_through_another(lines), [expected], "{lines}");
    };
    let unread = "step 4: fd 3, wd 1: wd=1 IN_OPEN: lost, I4.1";
    check("dup(n) = c\nread(c)\n", unread);
    check("dup3(n, 4, O_CLOEXEC) = c\nread(c)\n", unread);
    let other = "dup(n) = c\nclose(c)\ninotify_init1(IN_NONBLOCK) = m\nread(m)\n";
    check(other, "step 6: fd 4, wd 1: wd=1 IN_OPEN: lost, I6.2");
}

#[test]
fn events_that_were_made_later_are_reordered_among_themselves() {
    let [a, b, c] = [0x1, 0x2, 0x4].map(event);
    let (control, restored) = ([a.clone(), b.clone(), c.clone()], [b, c, a]);
    check_facts(&control, &restored, &["reordered I6.4"]);
}

#[test]
fn a_leftover_is_laid_to_what_it_is() {
    for (text, invariant) in [
        ("mount d", "I10.2"),
        ("process p", "I10.3"),
        ("descriptor 7", "I10.4"),
        ("fd 7", "I10.4"),
        ("file f", "I10.1"),
    ] {
        let spurious = format!("spurious {invariant}");
        check_facts(&[], &[Fact::Leftover(text.to_owned())], &[&spurious]);
    }
}

#[test]
fn an_event_that_is_lost_twice_is_told_twice() {
    let run = |facts: &[Fact]| {
        let outcome = Outcome::Value(if facts.is_empty() { 0 } else { 16 });
        vec![
            observation(0, outcome, facts),
            observation(1, outcome, facts),
        ]
    };
    let found = found(run(&[event(OPEN)]), run(&[]));
    assert_eq!(told(&found), ["lost I6.2", "lost I6.2"]);
    assert!(found.iter().all(|it| !it.repeated), "{found:#?}");
}

#[test]
fn an_outcome_that_only_counts_the_facts_is_not_told_again() {
    const EAGAIN: Outcome = Outcome::Errno(11);
    let value = Outcome::Value;
    let content = || [Fact::Content(Bytes::from("1234"))];
    let ready = || {
        [Fact::Ready {
            data: 7,
            events: 0x1,
        }]
    };
    let open = || [event(OPEN)];
    check((value(16), &open()), (EAGAIN, &[]), &["lost I6.2"]);
    check((value(4), &content()), (value(0), &[]), &["lost I6.6"]);
    check((value(0), &[]), (value(4), &content()), &["spurious I6.6"]);
    check((value(1), &ready()), (value(0), &[]), &["lost I6.7"]);
    let also = |lost: &str| ["outcome I6.1".to_owned(), lost.to_owned()];
    // One that counts something else is a difference of its own.
    for (control, lost) in [
        ((value(17), open().to_vec()), "lost I6.2"),
        ((value(5), content().to_vec()), "lost I6.6"),
        ((value(2), ready().to_vec()), "lost I6.7"),
    ] {
        let (outcome, facts) = &control;
        let expected = also(lost);
        let expected = [&expected[0][..], &expected[1]];
        check((*outcome, facts), (value(0), &[]), &expected);
    }
    let expected = ["outcome I6.1", "lost I6.2"];
    check((value(16), &open()), (value(1), &[]), &expected);
    // No fact tells the end of a file from a read that would wait.
    check((value(0), &[]), (EAGAIN, &[]), &["outcome I6.1"]);
}

#[test]
fn a_number_is_held_against_a_number_only() {
    for line in [
        "ioctl(n, FIONREAD)",
        r#"inotify_add_watch(n, "f", IN_OPEN)"#,
    ] {
        let text = format!("# A.\ninotify_init1(IN_NONBLOCK) = n\n{line}\n");
        let scenario = scenario::parse(&text).expect("it parses").scenario;
        let run = |outcome| Transcript {
            observations: vec![
                observation(0, Outcome::Value(3), &[]),
                observation(1, outcome, &[]),
            ],
        };
        let (worked, failed) = (run(Outcome::Value(1)), run(Outcome::Errno(9)));
        for (control, restored) in [(&worked, &failed), (&failed, &worked)] {
            let found = diff(&scenario, control, restored);
            assert_eq!(told(&found), ["outcome I6.1"], "{line}");
        }
    }
}

#[test]
fn facts_of_fanotify_are_told_in_words() {
    let text = |fact: Fact| {
        let found = found(
            vec![observation(0, Outcome::None, &[fact])],
            vec![observation(0, Outcome::None, &[])],
        );
        let side = found[0].control.as_ref().expect("it is lost");
        (found[0].object.clone(), side.text.clone())
    };
    let (_, event) = text(fanotify_event(OPEN, &["DFID_NAME d \"f\"", "pidfd"]));
    assert_eq!(event, r#"FAN_OPEN on "f" {DFID_NAME d "f"} {pidfd}"#);
    let path = || Object::Path(Bytes::from("d"));
    let mark = |target, ignored_mask, flags| {
        text(Fact::Mark(Mark {
            process: None,
            fd: 3,
            target,
            mask: u64::from(OPEN),
            ignored_mask,
            flags,
        }))
    };
    let check = |target, (ignored, flags), object: &str, expected: &str| {
        let shown = mark(target, ignored, flags);
        assert_eq!(shown, (object.to_owned(), expected.to_owned()));
    };
    check(
        MarkTarget::Inode(path()),
        (0, 0),
        r#"fd 3, inode "d""#,
        r#"inode "d" FAN_OPEN"#,
    );
    check(
        MarkTarget::Mount(path()),
        (0x1, 0),
        r#"fd 3, mount "d""#,
        r#"mount "d" FAN_OPEN ignored FAN_ACCESS"#,
    );
    check(
        MarkTarget::Filesystem(path()),
        (0, 0x40),
        r#"fd 3, filesystem "d""#,
        r#"filesystem "d" FAN_OPEN FAN_MARK_IGNORED_SURV_MODIFY"#,
    );
}

#[test]
fn an_invariant_is_told_by_its_own_sentence() {
    let sentence = verify::invariant::OVERFLOW.sentence();
    assert_eq!(
        sentence,
        Some("An overflow marker is read where it stood, and nowhere else.")
    );
    let none = verify::invariant::Invariant {
        group: 11,
        number: 1,
    };
    assert_eq!(none.sentence(), None);
}

#[test]
fn mounts_are_numbered_by_the_events_that_are_alike() {
    const ATTACH: u32 = 0x0100_0000;
    const DETACH: u32 = 0x0200_0000;
    let at = |mask, number| fanotify_event(mask, &[&format!("MNT mount#{number}")]);
    let check = |control: &[Fact], restored: &[Fact], expected: &[&str]| {
        let one = |facts| vec![observation(0, Outcome::None, facts)];
        let found = found(one(control), one(restored));
        let text = |it: &Difference| {
            let side = it.control.as_ref().or(it.restored.as_ref());
            let number = side.and_then(|side| side.text.split_once("mount#"));
            format!("{} {}", it.kind, number.map_or("", |(_, number)| number))
        };
        let told: Vec<String> = found.iter().map(text).collect();
        assert_eq!(told, expected, "{found:#?}");
    };
    let control = [at(ATTACH, 1), at(OPEN, 2), at(DETACH, 2)];
    check(&control, &[at(OPEN, 1), at(DETACH, 1)], &["lost 1}"]);
    let restored = [at(ATTACH, 1), at(OPEN, 2), at(DETACH, 3)];
    check(&[at(OPEN, 1)], &restored, &["spurious 2}", "spurious 3}"]);
    // One mount of control is one of restored.
    check(
        &[at(OPEN, 1), at(DETACH, 1)],
        &[at(OPEN, 1), at(DETACH, 2)],
        &["lost 1}", "spurious 2}"],
    );
}

#[test]
fn a_fanotify_event_changes_in_one_field() {
    let whole = || FanotifyEvent {
        fd: None,
        mask: u64::from(OPEN | 0x1),
        process: None,
        object: Some(Object::Path(Bytes::from("f"))),
        records: vec!["a".to_owned()],
    };
    let check = |changed: FanotifyEvent, expected: &[&str]| {
        let [control, restored] = [whole(), changed].map(Fact::FanotifyEvent);
        check_facts(&[control], &[restored], expected);
    };
    let other = || Some(Object::Path(Bytes::from("g")));
    let mask = |mask: u32| FanotifyEvent {
        mask: u64::from(mask),
        ..whole()
    };
    let apart = ["lost I6.2", "spurious I5.2"];
    check(mask(OPEN), &["changed I6.3"]);
    check(mask(0x2), &apart);
    check(
        FanotifyEvent {
            object: other(),
            ..whole()
        },
        &["changed I6.3"],
    );
    check(
        FanotifyEvent {
            process: Some(Name("p".to_owned())),
            ..whole()
        },
        &["changed I6.3"],
    );
    check(
        FanotifyEvent {
            records: Vec::new(),
            ..whole()
        },
        &["changed I6.3"],
    );
    check(
        FanotifyEvent {
            object: other(),
            ..mask(OPEN)
        },
        &apart,
    );
    // That both are of directories is not what happened.
    const DIRECTORY: u32 = 0x4000_0000;
    let [control, restored] = [mask(OPEN | DIRECTORY), mask(0x2 | DIRECTORY)];
    let [control, restored] = [control, restored].map(Fact::FanotifyEvent);
    check_facts(&[control], &[restored], &apart);
}

#[test]
fn content_that_is_read_at_once_changes() {
    let content = |text: &str| Fact::Content(Bytes::from(text));
    check_facts(&[content("a")], &[content("b")], &["changed I6.6"]);
    check_facts(
        &[content("a"), content("b")],
        &[content("c")],
        &["lost I6.6", "lost I6.6", "spurious I6.6"],
    );
}

#[test]
fn the_end_of_a_queue_is_of_the_group_that_it_is_drained_from() {
    let group = |fd, unread| {
        Fact::Descriptor(Descriptor {
            fd,
            ..facts::group(DescriptorKind::Inotify, unread)
        })
    };
    let drained = |fd| match event(OPEN) {
        Fact::Event(event) => Fact::Event(Event {
            fd: Some(fd),
            ..event
        }),
        other => other,
    };
    let run = |end: &[Fact]| {
        let cut = observation(0, Outcome::None, &[group(3, 16), group(4, 0)]);
        let end = Observation {
            place: Place::End,
            ..observation(0, Outcome::None, end)
        };
        vec![cut, end]
    };
    let lost = found(run(&[drained(3), drained(4)]), run(&[]));
    assert_eq!(told(&lost), ["lost I4.1", "lost I6.2"]);
}

#[test]
fn the_size_of_an_event_counts_the_end_of_its_name() {
    let named = |name: &str| match event(OPEN) {
        Fact::Event(event) => Fact::Event(Event {
            name: Bytes::from(name),
            ..event
        }),
        other => other,
    };
    let text = "# A.\ninotify_init1(IN_NONBLOCK)\ncheckpoint\nread(3)\n";
    let scenario = scenario::parse(text).expect("it parses").scenario;
    let run = |read: &[Fact]| {
        let group = Fact::Descriptor(facts::group(DescriptorKind::Inotify, 48));
        Transcript {
            observations: vec![
                observation(0, Outcome::Value(3), &[]),
                observation(1, Outcome::None, &[group]),
                observation(2, Outcome::None, read),
            ],
        }
    };
    // Sixteen bytes and a NUL are two times sixteen.
    let read = [named("0123456789abcdef"), named("")];
    let lost = diff(&scenario, &run(&read), &run(&[]));
    assert_eq!(told(&lost), ["lost I4.1", "lost I6.2"]);
}
