//! The properties of the decoders (`check_*`), for generated input: a fixed number of cases, from a
//! seed that is printed. `FSNOTIFY_SEED=N cargo test -p fsnotify` runs the same cases again.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test takes its seed from the environment, and prints it"
)]

use std::env;
use std::hash::{BuildHasher, RandomState};

use fsnotify::event::check::{check_fanotify, check_inotify};
use fsnotify::event::{fanotify as fanotify_event, inotify as inotify_event};
use fsnotify::fanotify::{EventFlags, InitFlags, MarkFlags};
use fsnotify::fdinfo::check::{check_change, check_group, check_pieces, check_quick, check_text};
use fsnotify::fdinfo::{
    Body, Group, Head, Level, Lock, LockAccess, LockClass, LockFile, Mark, MarkTarget, Options,
    Watch,
};
use fsnotify::handle::FileHandle;
use fsnotify::{Cookie, Ino, MntId, NsIno, OpenFlags, Sdev, Wd, fanotify, inotify};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const N_CASES: u32 = 512;

/// Runs `property` for generated values; prints the seed, which a failure shows.
fn run<S: Strategy>(strategy: &S, property: impl Fn(S::Value)) {
    let seed = env::var("FSNOTIFY_SEED")
        .ok()
        .map(|seed| seed.parse::<u64>());
    let seed = seed.map(|seed| seed.expect("FSNOTIFY_SEED is a number"));
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("FSNOTIFY_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: N_CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(strategy, |value| {
        property(value);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("FSNOTIFY_SEED={seed}: {failure}"));
}

fn handle() -> impl Strategy<Value = FileHandle> {
    let kind = prop_oneof![Just(1), Just(0x81), 1..0xff, 0x100..=0xffff];
    (kind, vec(any::<[u8; 4]>(), 1..=32)).prop_map(|(kind, words)| {
        FileHandle::new(kind, words.as_flattened()).expect("at most 128 bytes")
    })
}

fn watch() -> impl Strategy<Value = Watch> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>());
    (numbers, proptest::option::of(handle())).prop_map(|((ino, sdev, mask), handle)| Watch {
        wd: Wd::new(1).expect("in range"),
        ino: Ino(ino),
        sdev: Sdev(sdev),
        mask: inotify::Mask(mask),
        ignored_mask: inotify::Mask(0),
        handle,
    })
}

fn mark() -> impl Strategy<Value = Mark> {
    let inode = (any::<u64>(), any::<u32>(), proptest::option::of(handle()));
    let inode = inode.prop_map(|(ino, sdev, handle)| MarkTarget::Inode {
        ino: Ino(ino),
        sdev: Sdev(sdev),
        handle,
    });
    let target = prop_oneof![
        inode,
        (1..=0x7fff_ffff_u32).prop_map(|id| MarkTarget::Mount(MntId(id))),
        any::<u32>().prop_map(|sdev| MarkTarget::Filesystem(Sdev(sdev))),
        any::<u32>().prop_map(|ino| MarkTarget::MountNamespace(NsIno(ino))),
    ];
    (target, any::<[u32; 3]>()).prop_map(|(target, [flags, mask, ignored_mask])| Mark {
        target,
        flags: MarkFlags(flags),
        mask: fanotify::Mask(mask.into()),
        ignored_mask: fanotify::Mask(ignored_mask.into()),
    })
}

fn lock() -> impl Strategy<Value = Lock> {
    let words = proptest::sample::select(LockClass::ALL).prop_flat_map(|class| {
        let fitting = LockAccess::ALL.iter().filter(|access| access.fits(class));
        let fitting: Vec<_> = fitting.copied().collect();
        (Just(class), proptest::sample::select(fitting))
    });
    let file = (0..=0xfff_u32, any::<u32>(), any::<u64>());
    let file = file.prop_map(|(major, minor, ino)| LockFile {
        major,
        minor,
        ino: Ino(ino),
    });
    let numbers = (any::<i64>(), any::<i32>());
    let range = any::<(i64, Option<i64>)>();
    let parts = (words, numbers, proptest::option::of(file), range);
    parts.prop_map(|((class, access), (number, pid), file, range)| {
        let (start, end) = if class.has_range() { range } else { (0, None) };
        Lock::Shown {
            number,
            class,
            access,
            pid,
            file,
            start,
            end,
        }
    })
}

fn group() -> impl Strategy<Value = Group> {
    let head = (
        any::<i64>(),
        any::<u32>(),
        any::<Option<i32>>(),
        any::<Option<u64>>(),
    );
    let head = head.prop_map(|(pos, flags, mnt_id, ino)| Head {
        pos,
        flags: OpenFlags(flags),
        mnt_id,
        ino: ino.map(Ino),
    });
    let watches = (1..=0x7fff_ff00, vec(watch(), 1..8)).prop_map(|(first, mut watches)| {
        for (wd, watch) in (first..).zip(&mut watches) {
            watch.wd = Wd::new(wd).expect("in range");
        }
        Body::Inotify { watches }
    });
    let marks = (any::<[u32; 2]>(), vec(mark(), 0..8)).prop_map(|([flags, event_flags], marks)| {
        Body::Fanotify {
            flags: InitFlags(flags),
            event_flags: EventFlags(event_flags),
            marks: without_duplicates(marks),
        }
    });
    let body = prop_oneof![Just(Body::Unstated), watches, marks];
    (head, vec(lock(), 0..4), body).prop_map(|(head, locks, body)| Group {
        head,
        locks,
        body,
        unknown: Vec::new(),
    })
}

fn without_duplicates(marks: Vec<Mark>) -> Vec<Mark> {
    let mut kept: Vec<Mark> = Vec::new();
    for mark in marks {
        if kept.iter().all(|other| other.target != mark.target) {
            kept.push(mark);
        }
    }
    kept
}

/// Texts that are wrong in an interesting way: words of the grammar in any order.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let word = proptest::sample::select(vec![
        "pos:\t0\nflags:\t02\n",
        "mnt_id:\t17\n",
        "ino:\t1\n",
        "size:\t1\n",
        "lock:\t",
        "\n",
        "\t",
        "inotify wd:1",
        " ino:5",
        " sdev:6",
        " mask:1",
        " ignored_mask:0",
        " ",
        "\n",
        " \n",
        "x",
        "fanotify flags:0 event-flags:0\n",
        "fanotify ino:5",
        "fanotify sdev:6",
        " mflags:0",
        "0",
        "fanotify mnt_id:1",
        "fanotify mnt_ns:10",
        " fhandle-bytes:4",
        " fhandle-type:1",
        "\0",
        " f_handle:00000001",
        "1: FLOCK  ADVISORY  WRITE 1 00:10:1 0 EOF\n",
        "hello\n",
    ]);
    vec(word, 0..24).prop_map(|words| words.concat().into_bytes())
}

#[test]
fn what_a_kernel_could_print_reads_back() {
    run(&group(), |group| {
        check_group(&group);
        check_text(group.to_string().as_bytes());
    });
}

#[test]
fn no_change_of_a_byte_goes_unnoticed() {
    let change = (group(), any::<proptest::sample::Index>(), any::<u8>(), 0..3);
    run(&change, |(group, index, byte, kind)| {
        let mut text = group.to_string().into_bytes();
        let at = index.index(text.len());
        match kind {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            _ => drop(text.remove(at)),
        }
        check_change(&group, &text);
    });
}

/// Lines that both readings take.
const USUAL: [&[u8]; 4] = [
    b"inotify wd:4e20 ino:4e69 sdev:700000 mask:fff ignored_mask:0 fhandle-bytes:8 \
        fhandle-type:1 f_handle:694e0000d00155b6\n",
    b"inotify wd:1 ino:8000000000000087 sdev:2a mask:0 ignored_mask:0 fhandle-bytes:14 \
        fhandle-type:4d f_handle:0001000000000000050000000000000007000000\n",
    b"fanotify ino:9c1 sdev:10300006 mflags:40 mask:48000038 ignored_mask:20 fhandle-bytes:8 \
        fhandle-type:1 f_handle:c1090000d72b6ffa\n",
    b"fanotify ino:0 sdev:0 mflags:0 mask:0 ignored_mask:0 fhandle-bytes:4 fhandle-type:fffe \
        f_handle:00000000\n",
];

#[test]
fn the_quick_reading_agrees_on_every_change_of_a_byte() {
    for line in USUAL {
        for at in 0..line.len() {
            check_quick(&line[..at]);
            let (before, from) = line.split_at(at);
            for byte in 0..=u8::MAX {
                check_quick(&[before, &[byte], &from[1..]].concat());
                check_quick(&[before, &[byte], from].concat());
            }
            check_quick(&[before, &from[1..]].concat());
            check_quick(&[before, b"\n", b"inotify wd:"].concat());
        }
    }
}

#[test]
fn the_quick_reading_agrees_on_every_change_of_a_value() {
    let sizes = (0..=0x90).map(|size| format!("{size:x}"));
    let others = [
        "",
        "00",
        "01",
        "ff",
        "100",
        "ffff",
        "10000",
        "7fffffff",
        "80000000",
        "ffffffff",
        "0ffffffff",
        "100000000",
        "00000001",
        "ffffffffffffffff",
        "10000000000000000",
        "0x1",
        "-1",
        "A",
        "g",
        " 1",
        "1\t",
    ];
    let values: Vec<String> = sizes.chain(others.map(str::to_owned)).collect();
    for line in USUAL {
        let line = std::str::from_utf8(line).expect("ASCII");
        for (at, _) in line.match_indices(':') {
            let (before, behind) = line.split_at(at + 1);
            let end = behind.find([' ', '\n']).expect("a value ends");
            let numbers = values.iter().map(String::as_str);
            let handles = (0..=0x90).map(|n_bytes| "3a".repeat(n_bytes));
            let handles: Vec<String> = handles.collect();
            for value in numbers.chain(handles.iter().map(String::as_str)) {
                check_quick([before, value, &behind[end..]].concat().as_bytes());
            }
        }
    }
}

#[test]
fn the_quick_reading_agrees_on_handles_of_every_size() {
    for n_bytes in 0..=0x90_usize {
        for n_digits in [
            2 * n_bytes,
            2 * n_bytes + 1,
            (2 * n_bytes).saturating_sub(1),
        ] {
            let digits = "0123456789abcdef".repeat(n_bytes);
            let digits = digits.get(..n_digits).unwrap_or_default();
            let line = format!(
                "inotify wd:1 ino:1 sdev:1 mask:1 ignored_mask:0 fhandle-bytes:{n_bytes:x} \
                 fhandle-type:1 f_handle:{digits}\n"
            );
            check_quick(line.as_bytes());
        }
    }
}

#[test]
fn every_text_is_read_or_refused() {
    run(&(words(), 1..600_usize), |(text, size)| {
        check_text(&text);
        for level in [Level::Strict, Level::Lenient] {
            check_pieces(&text, size, Options::new(level));
            let glued_locks = true;
            check_pieces(
                &text,
                size,
                Options {
                    glued_locks,
                    ..Options::new(level)
                },
            );
        }
    });
}

#[test]
fn inotify_events_encode_to_what_was_decoded() {
    let name = vec(1..=u8::MAX, 0..=255);
    let event = (proptest::option::of(1..=i32::MAX), any::<[u32; 2]>(), name);
    let damage = proptest::option::of((any::<proptest::sample::Index>(), any::<u8>()));
    run(&(vec(event, 1..6), damage), |(events, damage)| {
        let mut buffer = Vec::new();
        for (wd, [mask, cookie], name) in &events {
            let event = inotify_event::Event {
                wd: wd.and_then(Wd::new),
                mask: inotify::Mask(*mask),
                cookie: Cookie(*cookie),
                name,
            };
            let start = buffer.len();
            inotify_event::encode(&event, &mut buffer);
            let decoded = inotify_event::Events::new(&buffer[start..]).next();
            assert_eq!(decoded, Some(Ok(event)));
        }
        check_inotify(&buffer);
        if let Some((index, byte)) = damage {
            let at = index.index(buffer.len());
            buffer[at] = byte;
            check_inotify(&buffer);
            check_inotify(&buffer[..at]);
        }
    });
}

fn record() -> impl Strategy<Value = (u8, [u32; 4], Option<FileHandle>, Vec<u8>)> {
    let name = vec(1..=u8::MAX, 1..=255);
    (
        0..11_u8,
        any::<[u32; 4]>(),
        proptest::option::of(handle()),
        name,
    )
}

/// The record that the generated numbers stand for.
fn make_record<'a>(
    (kind, numbers, handle, name): &'a (u8, [u32; 4], Option<FileHandle>, Vec<u8>),
) -> fanotify_event::Record<'a> {
    use fanotify_event::{Fid, Record};
    let [a, b, c, d] = *numbers;
    // An error of a filesystem comes with a handle of no bytes.
    let none = FileHandle::new(0, b"").expect("short");
    let fid = Fid {
        fsid: [a, b],
        handle: handle.unwrap_or(none),
    };
    let long = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    match kind {
        0 => Record::Fid(fid),
        1 => Record::Dfid(fid),
        2 => Record::DfidName(fid, name),
        3 => Record::OldDfidName(fid, name),
        4 => Record::NewDfidName(fid, name),
        5 => Record::Pidfd(a.cast_signed()),
        6 => Record::Error {
            error: a.cast_signed(),
            count: b,
        },
        7 => Record::Range {
            offset: long(a, b),
            count: long(c, d),
        },
        8 => Record::Mount(long(a, b)),
        9 => Record::Unknown {
            kind: 99,
            content: name,
        },
        _ => Record::Unknown {
            kind: 0,
            content: b"",
        },
    }
}

#[test]
fn fanotify_events_encode_to_what_was_decoded() {
    let numbers = (any::<u64>(), any::<i32>(), any::<i32>());
    let damage = (any::<proptest::sample::Index>(), any::<u8>());
    let input = (numbers, vec(record(), 0..5), damage);
    run(&input, |((mask, fd, pid), records, (index, byte))| {
        let records: Vec<_> = records.iter().map(make_record).collect();
        let mut buffer = Vec::new();
        let mask = fanotify::Mask(mask);
        fanotify_event::encode(mask, fd, pid, records.iter().copied(), &mut buffer);
        let event = fanotify_event::Events::new(&buffer).next();
        let event = event.expect("there is an event").expect("it is valid");
        assert_eq!((event.mask, event.fd, event.pid), (mask, fd, pid));
        assert_eq!(event.records().collect::<Vec<_>>(), records);
        check_fanotify(&buffer);
        let at = index.index(buffer.len());
        check_fanotify(&buffer[..at]);
        buffer[at] = byte;
        check_fanotify(&buffer);
    });
}

#[test]
fn every_set_of_flags_reads_back_as_printed() {
    run(&(any::<u64>(), 0..64_u32), |(bits, shift)| {
        // Few bits and many.
        let bits = bits >> shift;
        let low = u32::try_from(bits & u64::from(u32::MAX)).expect("masked");
        assert_eq!(
            fanotify::Mask(bits).to_string().parse(),
            Ok(fanotify::Mask(bits))
        );
        assert_eq!(
            inotify::Mask(low).to_string().parse(),
            Ok(inotify::Mask(low))
        );
        assert_eq!(
            inotify::InitFlags(low).to_string().parse(),
            Ok(inotify::InitFlags(low))
        );
        assert_eq!(InitFlags(low).to_string().parse(), Ok(InitFlags(low)));
        assert_eq!(MarkFlags(low).to_string().parse(), Ok(MarkFlags(low)));
        assert_eq!(OpenFlags(low).to_string().parse(), Ok(OpenFlags(low)));
    });
}
