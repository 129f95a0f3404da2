//! What the text of two runs looks like, and of one.

use fsnotify::inotify::Mask;
use scenario::{
    Bystander, Bytes, Descriptor, DescriptorKind, Event, Fact, Loss, Object, Observation, Outcome,
    Place, Scenario, Transcript, Watch,
};
use verify::{diff, render, render_transcript};

const CLOSE_WRITE: u32 = 0x8;
const MODIFY: u32 = 0x2;
const ATTRIB: u32 = 0x4;
const MOVED_TO: u32 = 0x80;
const DELETE: u32 = 0x200;
const ALL: u32 = 0xfff;
const EXCL_UNLINK: u32 = 0x0400_0000;

const SCENARIO: &str = r#"# Two watched files go on as before.
open("dir/b", O_RDWR|O_CREAT, 0644) = b
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, "dir", IN_ALL_EVENTS) = 1
inotify_add_watch(n, "dir/b", IN_ALL_EVENTS|IN_EXCL_UNLINK) = 2
checkpoint
# After it.
close(b)
read(n)
"#;

fn scenario() -> Scenario {
    scenario::parse(SCENARIO).expect("it parses").scenario
}

fn event(fd: Option<i32>, wd: i32, mask: u32, name: &str) -> Fact {
    Fact::Event(Event {
        fd,
        wd,
        mask: Mask(mask),
        cookie: 0,
        name: Bytes::from(name),
    })
}

fn watch(wd: i32, target: Object, mask: u32) -> Fact {
    Fact::Watch(Watch {
        process: None,
        fd: 4,
        wd,
        target,
        mask: Mask(mask),
    })
}

fn descriptor(fd: i32, kind: DescriptorKind, object: Object) -> Descriptor {
    Descriptor {
        process: None,
        fd,
        kind,
        object,
        flags: 0o2,
        close_on_exec: false,
        offset: None,
        owner: None,
        signal: 0,
        shared_with: None,
        unread: (kind == DescriptorKind::Inotify).then_some(32),
        group_flags: None,
        interest: Vec::new(),
        stat: None,
    }
}

fn survey(mask: u32, offset: u64) -> Vec<Fact> {
    let ghost = Object::Ghost(Bytes::from("dir/b"));
    let file = Descriptor {
        offset: Some(offset),
        ..descriptor(3, DescriptorKind::Regular, ghost.clone())
    };
    let group = Object::Other("anon_inode:inotify".to_owned());
    vec![
        Fact::Descriptor(file),
        Fact::Descriptor(descriptor(4, DescriptorKind::Inotify, group)),
        watch(2, ghost, mask),
        watch(1, Object::Path(Bytes::from("dir")), ALL),
        Fact::NextWd {
            process: None,
            fd: 4,
            wd: 3,
        },
    ]
}

fn transcript(cut: Vec<Fact>, read: Vec<Fact>, end: Vec<Fact>) -> Transcript {
    let results = [3, 4, 1, 2].map(Outcome::Value);
    let results = results
        .into_iter()
        .chain([Outcome::None, Outcome::Value(0), Outcome::Value(48)]);
    let mut observations: Vec<Observation> = results
        .enumerate()
        .map(|(index, outcome)| Observation {
            place: Place::Step(index),
            outcome,
            facts: Vec::new(),
        })
        .collect();
    observations[4].facts = cut;
    observations[6].facts = read;
    observations.push(Observation {
        place: Place::End,
        outcome: Outcome::None,
        facts: end,
    });
    Transcript { observations }
}

fn check(control: &Transcript, restored: &Transcript, expected: &str) {
    let scenario = scenario();
    let differences = diff(&scenario, control, restored);
    let text = render(&scenario, control, restored, &differences);
    assert!(text == expected, "{}", verify::text_diff(expected, &text));
}

#[test]
fn differences_stand_where_they_happened() {
    let control = transcript(
        survey(ALL | EXCL_UNLINK, 0),
        vec![
            event(None, 1, CLOSE_WRITE, "b"),
            event(None, 2, CLOSE_WRITE, ""),
        ],
        Vec::new(),
    );
    let mut cut = survey(ALL, 7);
    for (mask, name) in [(MOVED_TO, "b"), (DELETE, "b"), (DELETE, "b.cr.1.ghost")] {
        cut.push(Fact::Bystander(Bystander {
            watched: Some(Object::Path(Bytes::from("dir"))),
            mask: Mask(mask),
            name: Bytes::from(name),
        }));
    }
    cut.push(Fact::Loss(Loss {
        kind: None,
        invariant: 4,
        object: "queue of fd 4: 1 event".to_owned(),
        reason: "not carried over".to_owned(),
    }));
    let restored = transcript(
        cut,
        vec![
            event(None, 1, CLOSE_WRITE, "b"),
            event(None, 1, DELETE, "b.cr.1.ghost"),
        ],
        vec![event(Some(4), 1, MODIFY, "b")],
    );
    check(
        &control,
        &restored,
        r#"# Two watched files go on as before.
open("dir/b", O_RDWR|O_CREAT, 0644) = 3<b>
inotify_init1(IN_NONBLOCK) = 4<n>
inotify_add_watch(n, "dir", IN_ALL_EVENTS) = 1
inotify_add_watch(n, "dir/b", IN_ALL_EVENTS|IN_EXCL_UNLINK) = 2
checkpoint {
  fd 3 "dir/b" (deleted) O_RDWR
- fd 3, "dir/b" (deleted): offset 0                     changed     I7.8
+ fd 3, "dir/b" (deleted): offset 7
  fd 4 inotify O_RDWR, 32 bytes unread
-   wd=2 "dir/b" (deleted) IN_ALL_EVENTS|IN_EXCL_UNLINK  changed     I3.1 mask
+   wd=2 "dir/b" (deleted) IN_ALL_EVENTS
    wd=1 "dir" IN_ALL_EVENTS
    next wd=3
  bystander "dir": IN_MOVED_TO "b"                      unavoidable U3
  bystander "dir": IN_DELETE "b"                        unavoidable U3
+ bystander "dir": IN_DELETE "b.cr.1.ghost"             spurious    I8.1
  declared loss I4: queue of fd 4: 1 event: not carried over
}
# After it.
close(b) = 0
read(n) = {
  wd=1 IN_CLOSE_WRITE "b"
- wd=2 IN_CLOSE_WRITE                                   lost        I6.2
+ wd=1 IN_DELETE "b.cr.1.ghost"                         spurious    I5.1
}
end {
  unread in fd 4:
+   wd=1 IN_MODIFY "b"                                  spurious    I5.1
}
"#,
    );
}

#[test]
fn an_outcome_is_shown_on_the_step() {
    let control = transcript(Vec::new(), vec![event(None, 1, MODIFY, "")], Vec::new());
    let mut restored = transcript(Vec::new(), Vec::new(), Vec::new());
    restored.observations[6].outcome = Outcome::Errno(9);
    let scenario = scenario();
    let differences = diff(&scenario, &control, &restored);
    let text = render(&scenario, &control, &restored, &differences);
    let expected = r#"close(b) = 0
- read(n) = 48                                          outcome     I6.1
+ read(n) = -1 EBADF {
- wd=1 IN_MODIFY                                        lost        I6.2
}
"#;
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_flooded_queue_is_a_few_lines() {
    let flood = |n: i32| -> Vec<Fact> {
        (0..n)
            .map(|i| event(None, 1, if i % 2 == 0 { ATTRIB } else { MODIFY }, "f"))
            .collect()
    };
    let control = transcript(Vec::new(), flood(16384), Vec::new());
    let restored = transcript(Vec::new(), flood(4), Vec::new());
    let scenario = scenario();
    let differences = diff(&scenario, &control, &restored);
    let text = render(&scenario, &control, &restored, &differences);
    assert!(
        text.contains("- (the 2 lines above, 8189 times more)\n"),
        "{text}"
    );
    assert!(text.lines().count() < 20, "{text}");
}

#[test]
fn steps_that_were_not_reached_have_no_result() {
    let mut control = transcript(Vec::new(), Vec::new(), Vec::new());
    control.observations.truncate(5);
    let text = render_transcript(&scenario(), &control);
    assert!(
        text.ends_with("checkpoint\n# After it.\nclose(b)\nread(n)\n"),
        "{text}"
    );
}

#[test]
fn one_transcript_shows_everything() {
    let control = transcript(survey(ALL, 3), Vec::new(), survey(ALL, 5));
    let text = render_transcript(&scenario(), &control);
    assert!(
        text.contains("\nend {\n  fd 3 \"dir/b\" (deleted) O_RDWR at 5\n"),
        "{text}"
    );
    assert!(
        text.contains("  fd 4: wd=1 \"dir\" IN_ALL_EVENTS\n"),
        "{text}"
    );
}
