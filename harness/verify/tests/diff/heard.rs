//! What the bystander may hear of a cut.

use fsnotify::inotify::Mask;
use scenario::{Bystander, Bytes, Descriptor, DescriptorKind, Fact, Object};

use super::*;

fn heard(watched: &str, mask: u32, name: &str) -> Fact {
    Fact::Bystander(Bystander {
        watched: Some(Object::Path(Bytes::from(watched))),
        mask: Mask(mask),
        name: Bytes::from(name),
    })
}

/// What the bystander heard, against what is unavoidable, given the descriptors at the cut: for
/// each event the rule that allows it, or the invariant that it breaks.
fn check_heard(open: &[Descriptor], heard: &[Fact], expected: &[&str]) {
    let survey: Vec<Fact> = open.iter().cloned().map(Fact::Descriptor).collect();
    let restored = [&survey[..], heard].concat();
    let found = differences(
        transcript(survey, Vec::new()),
        transcript(restored, Vec::new()),
    );
    let judged: Vec<String> = found
        .iter()
        .map(|it| {
            it.unavoidable
                .map_or(it.invariant.to_string(), |rule| rule.to_string())
        })
        .collect();
    assert_eq!(judged, expected);
}

#[test]
fn a_file_that_was_open_is_closed_and_opened_once() {
    let open = [file(4, Object::Path(Bytes::from("dir/f")), 0o2)];
    let events = [
        heard("dir", CLOSE_WRITE, "f"),
        heard("dir/f", CLOSE_WRITE, ""),
        heard("dir", OPEN, "f"),
        heard("dir/f", OPEN, ""),
    ];
    check_heard(&open, &events, &["U1", "U1", "U2", "U2"]);
    check_heard(&[], &events, &["I8.1"; 4]);
    let again = [&events[..], &[heard("dir/f", OPEN, "")]].concat();
    check_heard(&open, &again, &["U1", "U1", "U2", "U2", "I8.1"]);
    check_heard(&open, &[heard("dir", OPEN, "g")], &["I8.1"]);
    check_heard(&open, &[heard("dir", MODIFY, "f")], &["I8.1"]);
    check_heard(&open, &[heard("dir/f", 0x10, "")], &["I8.1"]);
    let path_only = [file(4, Object::Path(Bytes::from("dir/f")), 0o10_000_000)];
    check_heard(&path_only, &events, &["I8.1"; 4]);
    let mut shared = file(5, Object::Path(Bytes::from("dir/f")), 0o2);
    shared.shared_with = Some((None, 4));
    check_heard(
        &[open[0].clone(), shared],
        &again,
        &["U1", "U1", "U2", "U2", "I8.1"],
    );
}

#[test]
fn other_names_of_a_file_are_heard_at_their_watches() {
    let linked = |n_links, mut descriptor: Descriptor| {
        descriptor.stat.as_mut().expect("a file has one").nlink = n_links;
        descriptor
    };
    let path = || file(4, Object::Path(Bytes::from("dir/f")), 0o2);
    let events = [heard("e/g", CLOSE_WRITE, ""), heard("e/g", OPEN, "")];
    check_heard(&[linked(2, path())], &events, &["U1", "U2"]);
    check_heard(&[linked(1, path())], &events, &["I8.1"; 2]);
    check_heard(&[linked(1, ghost(4))], &events, &["U1", "U2"]);
    check_heard(&[ghost(4)], &events, &["I8.1"; 2]);
    let directory = Descriptor {
        kind: DescriptorKind::Directory,
        ..linked(2, path())
    };
    check_heard(&[directory], &events, &["I8.1"; 2]);
    let elsewhere = [heard("e", OPEN, "g"), heard("e/g", OPEN | ISDIR, "")];
    check_heard(&[linked(2, path())], &elsewhere, &["I8.1"; 2]);
    // A ghost that has a name left is linked and moved, wherever that is watched.
    let moved = [heard("e/g", MOVE_SELF, ""), heard("e/g", 0x4, "")];
    check_heard(&[linked(1, ghost(4))], &moved, &["U3", "U6"]);
    check_heard(&[ghost(4)], &moved, &["I8.1"; 2]);
}

#[test]
fn who_marks_the_filesystem_hears_each_once() {
    let heard = |mask, name: &str| {
        Fact::Bystander(Bystander {
            watched: None,
            mask: Mask(mask),
            name: Bytes::from(name),
        })
    };
    let events = [
        heard(CLOSE_WRITE, "f"),
        heard(OPEN, "f"),
        heard(OPEN, "f"),
        heard(MODIFY, "f"),
    ];
    let open = [file(4, Object::Path(Bytes::from("dir/f")), 0o2)];
    check_heard(&open, &events, &["U1", "U2", "I8.1", "I8.1"]);
    check_heard(&[], &events, &["I8.1"; 4]);
}

#[test]
fn a_file_below_a_bind_mount_is_heard_at_its_source() {
    let check = |mount: &str, expected: &[&str]| {
        let text = format!("# A.\nmkdir(\"e\", 0755)\n{mount}\ncheckpoint\n");
        let scenario = scenario::parse(&text).expect("it parses").scenario;
        let run = |heard: &[Fact]| {
            let open = file(4, Object::Path(Bytes::from("e/f")), 0o2);
            let mut facts = vec![Fact::Descriptor(open)];
            facts.extend_from_slice(heard);
            Transcript {
                observations: vec![Observation {
                    place: Place::Step(2),
                    outcome: Outcome::None,
                    facts,
                }],
            }
        };
        let events = [heard("dir", OPEN, "f"), heard("e", CLOSE_WRITE, "f")];
        let found = diff(&scenario, &run(&[]), &run(&events));
        let rule = |it: &Difference| {
            let broken = it.invariant.to_string();
            it.unavoidable.map_or(broken, |rule| rule.to_string())
        };
        let judged: Vec<String> = found.iter().map(rule).collect();
        assert_eq!(judged, expected, "{mount}");
    };
    check(r#"mount("dir", "e", NULL, MS_BIND, NULL)"#, &["U2", "U1"]);
    check(r#"mount("dir", "e", "tmpfs", 0, NULL)"#, &["I8.1", "U1"]);
}

#[test]
fn a_ghost_is_named_once_under_its_own_name() {
    let events = [
        heard("dir", MOVED_TO, "a"),
        heard("dir", DELETE, "a"),
        heard("dir", 0x4, ""),
    ];
    check_heard(&[ghost(4)], &events, &["U3", "U3", "U7"]);
    check_heard(
        &[ghost(4)],
        &[heard("dir", DELETE, "a.cr.1.ghost")],
        &["I8.1"],
    );
    check_heard(&[ghost(4)], &[heard("dir", MODIFY, "a")], &["I8.1"]);
    let destroyed = Fact::Bystander(Bystander {
        watched: Some(Object::Ghost(Bytes::from("dir/a"))),
        mask: Mask(DELETE_SELF),
        name: Bytes::default(),
    });
    check_heard(
        &[ghost(4)],
        &[destroyed.clone(), destroyed],
        &["U5", "I8.1"],
    );
}

#[test]
fn the_name_of_a_ghost_may_be_taken() {
    let events = [
        heard("dir", MOVED_TO, "a"),
        heard("dir", MOVED_FROM, "a"),
        heard("dir/a", MOVE_SELF, ""),
        heard("dir", MOVED_TO, "a"),
        heard("dir/a", MOVE_SELF, ""),
        heard("dir/a", MOVE_SELF, ""),
    ];
    check_heard(
        &[ghost(4)],
        &events,
        &["U3", "U8", "U8", "U8", "U8", "I8.1"],
    );
    check_heard(&[ghost(4)], &[heard("dir/b", MOVE_SELF, "")], &["I8.1"]);
}

#[test]
fn the_name_of_a_ghosts_directory_may_be_taken() {
    let events = [
        heard("", MOVED_TO | ISDIR, "dir"),
        heard("", MOVED_FROM | ISDIR, "dir"),
        heard("dir", MOVE_SELF, ""),
        heard("", MOVED_TO | ISDIR, "dir"),
        heard("dir", MOVE_SELF, ""),
        heard("dir", MOVE_SELF, ""),
    ];
    check_heard(
        &[ghost(4)],
        &events,
        &["U3", "U8", "U8", "U8", "U8", "I8.1"],
    );
    check_heard(&[], &events[1..3], &["I8.1", "I8.1"]);
}

#[test]
fn ghosts_may_be_made_in_a_watched_root() {
    let room = |mask, name| heard("mnt", mask | ISDIR, name);
    let events = [
        room(CREATE, ".room"),
        room(DELETE, ".room"),
        room(0x4, ""),
        heard("", 0x4 | ISDIR, "mnt"),
    ];
    check_heard(&[ghost(4)], &events, &["U4"; 4]);
    check_heard(&[], &events, &["I8.1"; 4]);
    check_heard(&[ghost(4)], &events[1..], &["I8.1"; 3]);
    check_heard(&[ghost(4)], &[room(CREATE, "room")], &["I8.1"]);
    let other = [room(CREATE, ".room"), room(DELETE, ".other")];
    check_heard(&[ghost(4)], &other, &["U4", "I8.1"]);
}

#[test]
fn rights_are_given_to_a_ghost_that_has_no_name() {
    let with = |kind, mode, xattr: Option<&str>| {
        let mut descriptor = ghost(4);
        descriptor.kind = kind;
        let stat = descriptor.stat.as_mut().expect("of a file");
        stat.mode = mode;
        let attribute = |name| (Bytes::from(name), Bytes::from("value"));
        stat.xattrs = xattr.into_iter().map(attribute).collect();
        descriptor
    };
    let heard = [heard("dir", 0x4, "a")];
    let regular = DescriptorKind::Regular;
    let capability = Some("security.capability");
    check_heard(&[with(regular, 0o104_755, None)], &heard, &["U10"]);
    check_heard(&[with(regular, 0o100_755, capability)], &heard, &["U10"]);
    check_heard(
        &[with(DescriptorKind::Device, 0o020_600, None)],
        &heard,
        &["U10"],
    );
    check_heard(
        &[with(regular, 0o100_755, Some("user.a"))],
        &heard,
        &["I8.1"],
    );
    check_heard(
        &[with(DescriptorKind::Directory, 0o042_755, None)],
        &heard,
        &["I8.1"],
    );
}

#[test]
fn a_file_that_never_had_a_name_is_made_where_it_was() {
    let flags = 0o20_000_002;
    let tmpfile = [file(4, Object::Ghost(Bytes::from("dir/#")), flags)];
    let events = [
        heard("dir", OPEN, "#"),
        heard("dir", MODIFY, "#"),
        heard("dir", 0x4, "#"),
    ];
    check_heard(&tmpfile, &events, &["U2", "U9", "U9"]);
    check_heard(&[ghost(4)], &[heard("dir", MODIFY, "a")], &["I8.1"]);
}
