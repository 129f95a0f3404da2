//! What follows from a lost queue is laid to the queue, and nothing else is.

use scenario::{
    Bytes, DescriptorKind, Event, Fact, FanotifyEvent, Observation, Outcome, Place, Scenario,
    Transcript,
};
use verify::diff;

mod facts;

const MODIFY: u64 = 0x2;
const CREATE: u64 = 0x100;
const DELETE: u64 = 0x200;
const METADATA: u64 = 24;

/// A cut with so many unread events, and reads of the group after it.
fn scenario() -> Scenario {
    let text = "\
# Events are read in two parts.
fanotify_init(FAN_CLASS_NOTIF|FAN_REPORT_FID, O_RDONLY) = n
open(\"fifo\", O_RDWR|O_NONBLOCK) = f
checkpoint
read(n, 24)
read(n)
read(f, 8)
read(n)
";
    scenario::parse(text).expect("the text is sound").scenario
}

fn group(n_unread: u64) -> Fact {
    Fact::Descriptor(facts::group(DescriptorKind::Fanotify, n_unread * METADATA))
}

fn event(mask: u64, record: &str) -> Fact {
    Fact::FanotifyEvent(FanotifyEvent {
        fd: None,
        mask,
        process: None,
        object: None,
        records: vec![record.to_owned()],
    })
}

fn watch_event(mask: u32) -> Fact {
    Fact::Event(Event {
        fd: None,
        wd: 1,
        mask: fsnotify::inotify::Mask(mask),
        cookie: 0,
        name: Bytes::from(""),
    })
}

/// The facts of steps 3 to 7 of a run with so many events unread at its cut.
fn transcript(n_unread: u64, facts: [Vec<Fact>; 5]) -> Transcript {
    let made = |index, value, facts| Observation {
        place: Place::Step(index),
        outcome: Outcome::Value(value),
        facts,
    };
    let [cut, first, second, content, last] = facts;
    let mut survey = vec![group(n_unread)];
    survey.extend(cut);
    let observations = vec![
        made(0, 3, Vec::new()),
        made(1, 4, Vec::new()),
        made(2, 0, survey),
        made(3, 0, first),
        made(4, 0, second),
        made(5, 0, content),
        made(6, 0, last),
    ];
    Transcript { observations }
}

fn check(control: &Transcript, restored: &Transcript, expected: &[&str]) {
    let differences = diff(&scenario(), control, restored);
    let told: Vec<String> = differences
        .iter()
        .filter(|it| it.field.as_deref() != Some("unread bytes"))
        .map(|it| format!("{} {} {}", it.kind, it.invariant, it.object))
        .collect();
    assert_eq!(told, expected, "{differences:#?}");
}

#[test]
fn what_is_left_of_a_lost_event_is_laid_to_the_queue() {
    let none = Vec::new;
    let between = || event(MODIFY, "c");
    let merged = vec![event(CREATE | DELETE, "a"), between()];
    let control = transcript(1, [none(), none(), merged, none(), none()]);
    let rest = vec![between(), event(DELETE, "a")];
    let restored = transcript(0, [none(), none(), rest, none(), none()]);
    check(
        &control,
        &restored,
        &["lost I4.1 fd 3", "spurious I4.2 fd 3"],
    );
    // Of another object, or of a kind that was not merged, it is no rest.
    for other in [event(DELETE, "b"), event(DELETE | MODIFY, "a")] {
        let other = vec![between(), other];
        let restored = transcript(0, [none(), none(), other, none(), none()]);
        let expected = ["lost I4.1 fd 3", "spurious I5.2 fd 3"];
        check(&control, &restored, &expected);
    }
    // Nor is one where the event was not unread at the cut.
    let control = transcript(
        0,
        [
            none(),
            none(),
            vec![event(CREATE | DELETE, "a")],
            none(),
            none(),
        ],
    );
    let restored = transcript(
        0,
        [none(), none(), vec![event(DELETE, "a")], none(), none()],
    );
    let told = diff(&scenario(), &control, &restored);
    assert!(told.iter().all(|it| it.invariant.group != 4), "{told:#?}");
}

#[test]
fn an_event_that_a_short_read_finds_early_is_laid_to_the_queue() {
    let none = Vec::new;
    let (a, b) = (event(MODIFY, "a"), event(MODIFY, "b"));
    let control = transcript(1, [none(), vec![a], vec![b.clone()], none(), none()]);
    let restored = transcript(0, [none(), vec![b], none(), none(), none()]);
    let differences = diff(&scenario(), &control, &restored);
    let groups: Vec<u8> = differences.iter().map(|it| it.invariant.group).collect();
    assert!(groups.iter().all(|group| *group == 4), "{differences:#?}");
    // One that control reads and the restored run never does is lost all the same.
    let (a, b, c) = (event(MODIFY, "a"), event(MODIFY, "b"), event(MODIFY, "c"));
    let control = transcript(1, [none(), vec![a], vec![b.clone(), c], none(), none()]);
    let restored = transcript(0, [none(), vec![b], none(), none(), none()]);
    let differences = diff(&scenario(), &control, &restored);
    let lost = differences.iter().filter(|it| it.invariant.group == 6);
    assert_eq!(lost.count(), 1, "{differences:#?}");
}

#[test]
fn a_read_that_finds_nothing_is_not_heard() {
    let none = Vec::new;
    let content = || vec![Fact::Content(Bytes::from("1234"))];
    let heard = |mask| vec![watch_event(mask)];
    let control = transcript(0, [none(), none(), none(), content(), heard(0x1)]);
    let restored = transcript(0, [none(), none(), none(), none(), none()]);
    check(
        &control,
        &restored,
        &["lost I6.6 fd 4", "lost I6.2 fd 3, wd 1, fd 4"],
    );
    // What a read does not make is about its own group alone.
    let control = transcript(0, [none(), none(), none(), content(), heard(0x2)]);
    check(
        &control,
        &restored,
        &["lost I6.6 fd 4", "lost I6.2 fd 3, wd 1"],
    );
}

#[test]
fn a_merged_event_that_was_not_unread_leaves_no_rest() {
    let none = Vec::new;
    let between = || event(MODIFY, "c");
    let merged = vec![event(CREATE | DELETE, "a"), between()];
    let control = transcript(0, [none(), none(), merged, none(), none()]);
    let rest = vec![between(), event(DELETE, "a")];
    let restored = transcript(0, [none(), none(), rest, none(), none()]);
    check(
        &control,
        &restored,
        &["lost I6.2 fd 3", "spurious I5.2 fd 3"],
    );
}

#[test]
fn an_event_in_the_place_of_another_kind_comes_early_all_the_same() {
    let none = Vec::new;
    let (a, b) = (event(MODIFY, "a"), event(CREATE, "b"));
    let control = transcript(1, [none(), vec![a], vec![b.clone()], none(), none()]);
    let restored = transcript(0, [none(), vec![b.clone()], none(), none(), none()]);
    check(
        &control,
        &restored,
        &["lost I4.1 fd 3", "spurious I4.3 fd 3", "lost I4.3 fd 3"],
    );
    // Where nothing unread is lost, it does not come early: it should not have come.
    let control = transcript(0, [none(), none(), vec![b.clone()], none(), none()]);
    let restored = transcript(0, [none(), vec![b], none(), none(), none()]);
    check(
        &control,
        &restored,
        &["spurious I5.2 fd 3", "lost I6.2 fd 3"],
    );
}

#[test]
fn only_what_became_of_an_unread_event_stands_for_a_later_one() {
    let none = Vec::new;
    let (a, b) = (event(MODIFY, "a"), event(MODIFY, "b"));
    // The first is there, so the second is lost in its own right.
    let twice = [none(), vec![a.clone()], vec![a.clone()], none(), none()];
    let control = transcript(1, twice);
    let restored = transcript(1, [none(), vec![a.clone()], none(), none(), none()]);
    check(&control, &restored, &["lost I6.2 fd 3"]);
    // Nothing was unread.
    let control = transcript(0, [none(), vec![a], vec![b.clone()], none(), none()]);
    let restored = transcript(0, [none(), vec![b], none(), none(), none()]);
    check(
        &control,
        &restored,
        &["changed I6.3 fd 3", "lost I6.2 fd 3"],
    );
}

#[test]
fn an_event_comes_early_whatever_its_cookie_and_whoever_drains_it() {
    let none = Vec::new;
    let moved = |fd, cookie| match watch_event(0x40) {
        Fact::Event(event) => Fact::Event(Event {
            fd,
            cookie,
            name: Bytes::from("b"),
            ..event
        }),
        other => other,
    };
    let created = |fd| match event(CREATE, "b") {
        Fact::FanotifyEvent(event) => Fact::FanotifyEvent(FanotifyEvent { fd, ..event }),
        other => other,
    };
    let check = |unread: Fact, early: Fact, drained: Fact, expected: &[&str]| {
        let mut control = transcript(1, [none(), vec![unread], none(), none(), none()]);
        control.observations.push(Observation {
            place: Place::End,
            outcome: Outcome::None,
            facts: vec![drained],
        });
        let restored = transcript(0, [none(), vec![early], none(), none(), none()]);
        self::check(&control, &restored, expected);
    };
    check(
        watch_event(0x2),
        moved(None, 5),
        moved(Some(3), 1),
        &[
            "lost I4.1 fd 3, wd 1",
            "spurious I4.3 fd 3, wd 1",
            "lost I4.3 fd 3, wd 1",
        ],
    );
    check(
        event(MODIFY, "a"),
        created(None),
        created(Some(3)),
        &["lost I4.1 fd 3", "spurious I4.3 fd 3", "lost I4.3 fd 3"],
    );
}

#[test]
fn a_read_that_finds_nothing_is_not_heard_by_fanotify() {
    let none = Vec::new;
    let content = || vec![Fact::Content(Bytes::from("1234"))];
    let restored = transcript(0, [none(), none(), none(), none(), none()]);
    for (mask, object) in [(0x1, "fd 3, fd 4"), (MODIFY, "fd 3")] {
        let heard = vec![event(mask, "a")];
        let control = transcript(0, [none(), none(), none(), content(), heard]);
        let lost = format!("lost I6.2 {object}");
        check(&control, &restored, &["lost I6.6 fd 4", &lost]);
    }
}
