//! Two properties of `diff`: of equal transcripts it says nothing, and of two that differ in one
//! field of one fact, in one fact, or in the order of two, it says something.

use fsnotify::inotify::Mask;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use scenario::{
    Bystander, Bytes, Descriptor, DescriptorKind, Entry, Event, Fact, FanotifyEvent, Mark,
    MarkTarget, Name, Object, Observation, Outcome, Place, Scenario, Stat, Transcript, Watch,
};
use verify::diff;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::default()),
        Just(Bytes::from("a")),
        Just(Bytes::from("d/b"))
    ]
}

fn name() -> impl Strategy<Value = Option<Name>> {
    of(Just(Name("p".to_owned())))
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        bytes().prop_map(Object::Path),
        bytes().prop_map(Object::Ghost),
        Just(Object::Other("pipe".to_owned())),
        (0_u32..3).prop_map(Object::Unnamed),
    ]
}

fn target() -> impl Strategy<Value = MarkTarget> {
    prop_oneof![
        object().prop_map(MarkTarget::Inode),
        object().prop_map(MarkTarget::Mount),
        object().prop_map(MarkTarget::Filesystem),
        Just(MarkTarget::MountNamespace("own".to_owned())),
        Just(MarkTarget::Unknown("fanotify x".to_owned())),
    ]
}

prop_compose! {
    fn stat()(
        mode in prop_oneof![Just(0o100_644_u32), Just(0o040_755)],
        nlink in 0_u64..3,
        size in 0_u64..3,
        content in of(0_u64..3),
        times in prop::bool::ANY,
    ) -> Stat {
        Stat {
            mode, nlink, uid: 0, gid: 0, size, blocks: 8,
            xattrs: vec![(Bytes::from("user.x"), Bytes::from("v"))],
            changed: if times { vec!["mtime".to_owned()] } else { Vec::new() },
            content,
        }
    }
}

prop_compose! {
    fn descriptor()(
        process in name(),
        fd in 0_i32..4,
        object in object(),
        offset in of(0_u64..2),
        unread in of(0_u64..64),
        stat in of(stat()),
    ) -> Descriptor {
        Descriptor {
            process, fd, kind: DescriptorKind::Regular, object, flags: 0o2, close_on_exec: false,
            offset, owner: None, signal: 0, shared_with: None, unread, group_flags: Some((0x200, 0)),
            interest: vec![(3, 1, 7)], stat,
        }
    }
}

fn fact() -> impl Strategy<Value = Fact> {
    let mask = || prop_oneof![Just(0x2_u32), Just(0x20), Just(0x40), Just(0x4000_0100)];
    prop_oneof![
        6 => (of(3_i32..5), -1_i32..4, mask(), 0_u32..3, bytes()).prop_map(
            |(fd, wd, mask, cookie, name)| {
                Fact::Event(Event { fd, wd, mask: Mask(mask), cookie, name })
            }
        ),
        2 => (of(3_i32..5), mask(), name(), of(object()), vec(Just("FID".to_owned()), 0..3)).prop_map(
            |(fd, mask, process, object, records)| {
                Fact::FanotifyEvent(FanotifyEvent { fd, mask: u64::from(mask), process, object, records })
            }
        ),
        1 => bytes().prop_map(Fact::Content),
        1 => (0_u64..3, 1_u32..4).prop_map(|(data, events)| Fact::Ready { data, events }),
        1 => (of(3_i32..5), 10_i32..12).prop_map(|(fd, signal)| Fact::Signal { signal, fd }),
        2 => descriptor().prop_map(Fact::Descriptor),
        2 => (name(), 3_i32..5, 1_i32..4, object(), mask()).prop_map(|(process, fd, wd, target, mask)| {
            Fact::Watch(Watch { process, fd, wd, target, mask: Mask(mask) })
        }),
        2 => (name(), 3_i32..5, target(), mask()).prop_map(|(process, fd, target, mask)| {
            Fact::Mark(Mark { process, fd, target, flags: 0, mask: u64::from(mask), ignored_mask: 1 })
        }),
        1 => (name(), 3_i32..5, 1_i32..4).prop_map(|(process, fd, wd)| Fact::NextWd { process, fd, wd }),
        1 => (name(), object()).prop_map(|(process, object)| Fact::WorkingDirectory { process, object }),
        1 => (of(object()), mask(), bytes()).prop_map(|(watched, mask, name)| {
            Fact::Bystander(Bystander { watched, mask: Mask(mask), name })
        }),
        1 => (bytes(), stat(), of(bytes()), 0_u32..2).prop_map(|(path, stat, link, inode)| {
            Fact::Entry(Entry { path, stat, link, inode })
        }),
        1 => Just(Fact::Leftover("process x".to_owned())),
    ]
}

fn transcript() -> impl Strategy<Value = Transcript> {
    let outcome = prop_oneof![
        (0_i64..2).prop_map(Outcome::Value),
        Just(Outcome::Errno(11)),
        Just(Outcome::None),
    ];
    vec((outcome, vec(fact(), 0..8)), 0..4).prop_map(|observations| Transcript {
        observations: observations
            .into_iter()
            .enumerate()
            .map(|(index, (outcome, facts))| Observation {
                place: Place::Step(index),
                outcome,
                facts,
            })
            .collect(),
    })
}

/// Every way to change one field of a fact, by the name of the field.
fn changed(fact: &Fact) -> Vec<(&'static str, Fact)> {
    let mut all = Vec::new();
    macro_rules! change {
        ($kind:ident, $it:ident: $($field:literal $change:expr;)*) => {{
            $(
                let mut changed = $it.clone();
                ($change)(&mut changed);
                all.push(($field, Fact::$kind(changed)));
            )*
        }};
    }
    match fact {
        Fact::Event(it) => change!(Event, it:
            "fd" |it: &mut Event| it.fd = Some(9);
            "wd" |it: &mut Event| it.wd += 1;
            "mask" |it: &mut Event| it.mask.0 ^= 0x1;
            "name" |it: &mut Event| it.name.0.push(b'x');
            "cookie" |it: &mut Event| it.cookie = if it.cookie == 0 { 7 } else { 0 };
        ),
        Fact::FanotifyEvent(it) => change!(FanotifyEvent, it:
            "fd" |it: &mut FanotifyEvent| it.fd = Some(9);
            "mask" |it: &mut FanotifyEvent| it.mask ^= 0x1;
            "process" |it: &mut FanotifyEvent| it.process = Some(Name("q".to_owned()));
            "object" |it: &mut FanotifyEvent| it.object = Some(Object::Unnamed(9));
            "records" |it: &mut FanotifyEvent| it.records.push("NAME".to_owned());
        ),
        Fact::Content(it) => {
            change!(Content, it: "content" |it: &mut Bytes| it.0.push(0););
        }
        Fact::Ready { data, events } => {
            all.push((
                "data",
                Fact::Ready {
                    data: data + 9,
                    events: *events,
                },
            ));
            all.push((
                "events",
                Fact::Ready {
                    data: *data,
                    events: events ^ 0x8,
                },
            ));
        }
        Fact::Signal { signal, fd } => {
            all.push((
                "signal",
                Fact::Signal {
                    signal: signal + 9,
                    fd: *fd,
                },
            ));
            all.push((
                "fd",
                Fact::Signal {
                    signal: *signal,
                    fd: Some(9),
                },
            ));
        }
        Fact::Descriptor(it) => {
            change!(Descriptor, it:
                "process" |it: &mut Descriptor| it.process = Some(Name("q".to_owned()));
                "fd" |it: &mut Descriptor| it.fd += 9;
                "kind" |it: &mut Descriptor| it.kind = DescriptorKind::Fifo;
                "object" |it: &mut Descriptor| it.object = Object::Unnamed(9);
                "flags" |it: &mut Descriptor| it.flags ^= 0o4000;
                "close_on_exec" |it: &mut Descriptor| it.close_on_exec ^= true;
                "offset" |it: &mut Descriptor| it.offset = Some(9);
                "owner" |it: &mut Descriptor| it.owner = Some("main".to_owned());
                "signal" |it: &mut Descriptor| it.signal = 12;
                "shared_with" |it: &mut Descriptor| it.shared_with = Some((None, 9));
                "unread" |it: &mut Descriptor| it.unread = Some(99);
                "group_flags" |it: &mut Descriptor| it.group_flags = Some((0x200, 1));
                "interest" |it: &mut Descriptor| it.interest[0].2 += 1;
                "stat" |it: &mut Descriptor| it.stat = match it.stat { Some(_) => None, None => Some(plain()) };
            );
            for (field, stat) in it.stat.iter().flat_map(changed_stat) {
                all.push((
                    field,
                    Fact::Descriptor(Descriptor {
                        stat: Some(stat),
                        ..it.clone()
                    }),
                ));
            }
        }
        Fact::Watch(it) => change!(Watch, it:
            "process" |it: &mut Watch| it.process = Some(Name("q".to_owned()));
            "fd" |it: &mut Watch| it.fd += 9;
            "wd" |it: &mut Watch| it.wd += 9;
            "target" |it: &mut Watch| it.target = Object::Unnamed(9);
            "mask" |it: &mut Watch| it.mask.0 ^= 0x8000_0000;
        ),
        Fact::Mark(it) => change!(Mark, it:
            "process" |it: &mut Mark| it.process = Some(Name("q".to_owned()));
            "fd" |it: &mut Mark| it.fd += 9;
            "target" |it: &mut Mark| it.target = MarkTarget::Unknown("y".to_owned());
            "flags" |it: &mut Mark| it.flags ^= 0x40;
            "mask" |it: &mut Mark| it.mask ^= 0x1;
            "ignored_mask" |it: &mut Mark| it.ignored_mask ^= 0x2;
        ),
        Fact::NextWd { process, fd, wd } => {
            let (process, fd, wd) = (process.clone(), *fd, *wd);
            all.push((
                "process",
                Fact::NextWd {
                    process: Some(Name("q".to_owned())),
                    fd,
                    wd,
                },
            ));
            all.push((
                "fd",
                Fact::NextWd {
                    process: process.clone(),
                    fd: fd + 9,
                    wd,
                },
            ));
            all.push((
                "wd",
                Fact::NextWd {
                    process,
                    fd,
                    wd: wd + 9,
                },
            ));
        }
        Fact::WorkingDirectory { process, object } => {
            let (process, object) = (process.clone(), object.clone());
            all.push((
                "object",
                Fact::WorkingDirectory {
                    process,
                    object: Object::Unnamed(9),
                },
            ));
            all.push((
                "process",
                Fact::WorkingDirectory {
                    process: Some(Name("q".to_owned())),
                    object,
                },
            ));
        }
        Fact::Bystander(it) => change!(Bystander, it:
            "watched" |it: &mut Bystander| it.watched = Some(Object::Unnamed(9));
            "mask" |it: &mut Bystander| it.mask.0 ^= 0x1;
            "name" |it: &mut Bystander| it.name.0.push(b'x');
        ),
        Fact::Entry(it) => {
            change!(Entry, it:
                "path" |it: &mut Entry| it.path.0.push(b'x');
                "link" |it: &mut Entry| it.link = Some(Bytes::from("elsewhere"));
                "inode" |it: &mut Entry| it.inode += 9;
            );
            for (field, stat) in changed_stat(&it.stat) {
                all.push((field, Fact::Entry(Entry { stat, ..it.clone() })));
            }
        }
        Fact::Leftover(text) => all.push(("leftover", Fact::Leftover(format!("{text} y")))),
        Fact::Loss(_) => {}
    }
    all
}

fn plain() -> Stat {
    Stat {
        mode: 0o100_600,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        xattrs: Vec::new(),
        changed: Vec::new(),
        content: None,
    }
}

type StatChange = (&'static str, fn(&mut Stat));

fn changed_stat(stat: &Stat) -> Vec<(&'static str, Stat)> {
    let changes: [StatChange; 9] = [
        ("stat.mode", |it| it.mode ^= 0o1),
        ("stat.nlink", |it| it.nlink += 1),
        ("stat.uid", |it| it.uid += 1),
        ("stat.gid", |it| it.gid += 1),
        ("stat.size", |it| it.size += 1),
        ("stat.blocks", |it| it.blocks += 1),
        ("stat.xattrs", |it| it.xattrs[0].1.0.push(0)),
        ("stat.changed", |it| it.changed.push("atime".to_owned())),
        ("stat.content", |it| it.content = Some(99)),
    ];
    let change = |(field, change): &StatChange| {
        let mut stat = stat.clone();
        change(&mut stat);
        (*field, stat)
    };
    changes.iter().map(change).collect()
}

/// What order within an observation is compared by.
fn queue(fact: &Fact) -> Option<(u8, Option<i32>)> {
    match fact {
        Fact::Event(it) => Some((0, it.fd)),
        Fact::FanotifyEvent(it) => Some((0, it.fd)),
        Fact::Watch(it) if it.process.is_none() => Some((1, Some(it.fd))),
        Fact::Mark(it) if it.process.is_none() => Some((2, Some(it.fd))),
        Fact::Bystander(_) => Some((3, None)),
        _ => None,
    }
}

/// The fact without its cookie: two events that differ in nothing else can stand for each other.
fn without_cookie(fact: &Fact) -> Fact {
    match fact {
        Fact::Event(it) => Fact::Event(Event {
            cookie: u32::from(it.cookie != 0),
            ..it.clone()
        }),
        _ => fact.clone(),
    }
}

/// Every transcript that is one change away.
fn mutations(transcript: &Transcript) -> Vec<(String, Transcript)> {
    let mut all = Vec::new();
    let mut push = |what: String, at: usize, facts: Vec<Fact>| {
        let mut mutated = transcript.clone();
        mutated.observations[at].facts = facts;
        all.push((what, mutated));
    };
    for (at, observation) in transcript.observations.iter().enumerate() {
        let facts = &observation.facts;
        for (index, fact) in facts.iter().enumerate() {
            let replaced = |with: &[Fact]| [&facts[..index], with, &facts[index + 1..]].concat();
            push(format!("{at}.{index} removed"), at, replaced(&[]));
            push(
                format!("{at}.{index} doubled"),
                at,
                replaced(&[fact.clone(), fact.clone()]),
            );
            for (field, changed) in changed(fact) {
                push(
                    format!("{at}.{index} {field} changed"),
                    at,
                    replaced(&[changed]),
                );
            }
            let next = facts.get(index + 1).filter(|next| {
                queue(fact).is_some()
                    && queue(fact) == queue(next)
                    && without_cookie(fact) != without_cookie(next)
            });
            if let Some(next) = next {
                let mut swapped = facts.clone();
                swapped[index] = next.clone();
                swapped[index + 1] = fact.clone();
                push(format!("{at}.{index} swapped"), at, swapped);
            }
        }
    }
    for at in 0..transcript.observations.len() {
        let mut mutated = transcript.clone();
        mutated.observations[at].outcome = Outcome::Errno(9);
        all.push((format!("{at} outcome"), mutated));
        let mut mutated = transcript.clone();
        let gone = mutated.observations.remove(at);
        if gone.outcome != Outcome::None || !gone.facts.is_empty() {
            all.push((format!("{at} removed"), mutated));
        }
    }
    all
}

proptest! {
    #[test]
    fn equal_transcripts_do_not_differ(transcript in transcript()) {
        prop_assert_eq!(diff(&Scenario::default(), &transcript, &transcript), Vec::new());
    }

    #[test]
    fn every_single_change_is_found(transcript in transcript()) {
        for (what, mutated) in mutations(&transcript) {
            let found = diff(&Scenario::default(), &transcript, &mutated);
            prop_assert!(!found.is_empty(), "{}: {:?}", what, mutated);
            let found = diff(&Scenario::default(), &mutated, &transcript);
            prop_assert!(!found.is_empty(), "back from {}: {:?}", what, mutated);
            for difference in found {
                prop_assert!(difference.invariant.sentence().is_some(), "{}", difference);
            }
        }
    }
}
