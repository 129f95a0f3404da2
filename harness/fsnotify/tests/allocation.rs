//! Reading lines allocates nothing, however long the text; decoding events neither.
//!
//! A test program of its own: the allocator counts for the whole process.

#![expect(clippy::disallowed_methods, reason = "a test reads its captures")]

use std::alloc::System;
use std::fs;
use std::path::Path;

use fsnotify::event::{fanotify, inotify};
use fsnotify::fdinfo::{Level, Line, Lines, Stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test, since another thread's allocations would be counted too.
#[test]
fn no_decoder_allocates() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/fdinfo/6.18.44");
    let capture = |name| fs::read(folder.join(name)).expect("a capture");
    for (name, n_marks) in [
        ("ext4-inotify-many-20000.fdinfo", 20_000),
        ("ext4-fanotify-many-300.fdinfo", 300),
        ("ext4-fanotify-locks.fdinfo", 1),
    ] {
        let text = capture(name);
        let found = without_allocation(|| count(Lines::new(&text, Level::Strict)));
        assert_eq!(found, n_marks, "{name}");
        let found = without_allocation(|| count_pieces(&text));
        assert_eq!(found, n_marks, "{name} in pieces");
        let cut = text.len() - 1;
        without_allocation(|| {
            let last = Lines::new(&text[..cut], Level::Strict).last();
            assert!(last.is_some_and(|line| line.is_err()), "{name}: cut text");
        });
    }
    let (first, second) = buffers();
    let n_events = without_allocation(|| {
        let records = fanotify::Events::new(&second).map(|event| event.expect("valid").records());
        inotify::Events::new(&first).filter(Result::is_ok).count() + records.flatten().count()
    });
    assert_eq!(n_events, 3);
}

fn buffers() -> (Vec<u8>, Vec<u8>) {
    let event = inotify::Event {
        wd: fsnotify::Wd::new(1),
        mask: fsnotify::inotify::Mask(0x100),
        cookie: fsnotify::Cookie(0),
        name: b"name",
    };
    let mut first = Vec::new();
    inotify::encode(&event, &mut first);
    let records = [
        fanotify::Record::Pidfd(5),
        fanotify::Record::Error { error: 5, count: 1 },
    ];
    let mut second = Vec::new();
    fanotify::encode(
        fsnotify::fanotify::Mask(0x8000),
        -1,
        0,
        records,
        &mut second,
    );
    (first, second)
}

fn count(lines: Lines<'_>) -> usize {
    let lines = lines.map(|line| line.expect("a capture is valid"));
    lines.filter(is_mark).count()
}

fn is_mark(line: &Line<'_>) -> bool {
    matches!(line, Line::Watch(_) | Line::Mark(_))
}

fn count_pieces(text: &[u8]) -> usize {
    let mut stream = Stream::new(Level::Strict);
    let mut n_marks = 0;
    let mut each = |line: Line<'_>| n_marks += usize::from(is_mark(&line));
    for piece in text.chunks(4096) {
        stream.push(piece, &mut each).expect("a capture is valid");
    }
    stream.finish(&mut each).expect("a capture is whole");
    n_marks
}

fn without_allocation<T>(action: impl FnOnce() -> T) -> T {
    let region = Region::new(ALLOCATOR);
    let value = action();
    let change = region.change();
    assert_eq!(change.allocations, 0, "{change:?}");
    assert_eq!(change.reallocations, 0, "{change:?}");
    value
}
