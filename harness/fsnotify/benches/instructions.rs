//! How many instructions the decoders take, counted by valgrind: the same on every machine and under
//! every load, which no time is. More than the recorded number and [`TOLERANCE`] fails the run.
//!
//! `ci/instructions` installs what this needs and runs it. Whoever changes a number on purpose writes
//! the new one here; one that has become much smaller as well, or the gate stands open.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark reads its captures, and gungraun starts processes"
)]

use std::fs;
use std::hint::black_box;
use std::path::Path;

use fsnotify::event::{fanotify as fanotify_event, inotify as inotify_event};
use fsnotify::fdinfo::{Group, Level, Line, Lines, Stream};
use fsnotify::handle::FileHandle;
use fsnotify::{Cookie, Wd, fanotify, inotify};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

/// Percent. Releases of the compiler and libraries of C with other copying loops move the numbers by
/// one or two; a path that is lost moves them by ten and more.
const TOLERANCE: u64 = 5;

fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let limit = instructions + instructions * TOLERANCE / 100;
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, limit)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

fn capture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/fdinfo/6.18.44");
    fs::read(folder.join(name)).expect("a capture")
}

fn watches() -> Vec<u8> {
    capture("ext4-inotify-many-1000.fdinfo")
}

fn marks() -> Vec<u8> {
    capture("ext4-fanotify-many-300.fdinfo")
}

fn watches_group() -> Group {
    Group::parse(&watches(), Level::Strict).expect("a capture is valid")
}

fn refused() -> Vec<u8> {
    let mut text = watches();
    let last = text.len() - 2;
    text[last] = b'G';
    text
}

fn inotify_buffer() -> Vec<u8> {
    let mut buffer = Vec::new();
    for number in 1..=1000 {
        let event = inotify_event::Event {
            wd: Wd::new(number),
            mask: inotify::Mask(0x100),
            cookie: Cookie(0),
            name: b"a-name-of-some-length",
        };
        inotify_event::encode(&event, &mut buffer);
    }
    buffer
}

fn fanotify_buffer() -> Vec<u8> {
    let mut buffer = Vec::new();
    for number in 1..=1000 {
        let handle = FileHandle::new(1, &[7; 8]).expect("short");
        let fid = fanotify_event::Fid {
            fsid: [1, 2],
            handle,
        };
        let records = [
            fanotify_event::Record::DfidName(fid, b"a-name"),
            fanotify_event::Record::Fid(fid),
        ];
        let mask = fanotify::Mask(0x100);
        fanotify_event::encode(mask, fanotify_event::NO_FD, number, records, &mut buffer);
    }
    buffer
}

fn count_lines(text: &[u8]) -> usize {
    let lines = Lines::new(text, Level::Strict);
    lines.map(black_box).filter(Result::is_ok).count()
}

#[library_benchmark(config = at_most(583_283))]
#[bench::of_1000_watches(watches())]
fn inotify_lines(text: Vec<u8>) -> usize {
    count_lines(black_box(&text))
}

#[library_benchmark(config = at_most(174_628))]
#[bench::of_300_marks(marks())]
fn fanotify_lines(text: Vec<u8>) -> usize {
    count_lines(black_box(&text))
}

#[library_benchmark(config = at_most(585_188))]
#[bench::behind_1000_watches(refused())]
fn refused_line(text: Vec<u8>) -> usize {
    count_lines(black_box(&text))
}

#[library_benchmark(config = at_most(584_282))]
#[bench::of_1000_watches(watches())]
fn stream_of_pages(text: Vec<u8>) -> usize {
    let mut stream = Stream::new(Level::Strict);
    let mut n_lines = 0;
    let mut each = |line: Line<'_>| {
        black_box(line);
        n_lines += 1;
    };
    for page in black_box(&text).chunks(4096) {
        stream.push(page, &mut each).expect("a capture is valid");
    }
    stream.finish(&mut each).expect("a capture is whole");
    n_lines
}

#[library_benchmark(config = at_most(1_198_036))]
#[bench::of_1000_watches(watches())]
fn whole_group(text: Vec<u8>) -> Group {
    Group::parse(black_box(&text), Level::Strict).expect("a capture is valid")
}

#[library_benchmark(config = at_most(4_504_369))]
#[bench::of_1000_watches(watches_group())]
fn print(group: Group) -> String {
    black_box(&group).to_string()
}

#[library_benchmark(config = at_most(323_223))]
#[bench::of_1000(inotify_buffer())]
fn inotify_events(buffer: Vec<u8>) -> usize {
    let events = inotify_event::Events::new(black_box(&buffer));
    events.map(black_box).filter(Result::is_ok).count()
}

#[library_benchmark(config = at_most(1_307_240))]
#[bench::of_1000(fanotify_buffer())]
fn fanotify_events(buffer: Vec<u8>) -> usize {
    let events = fanotify_event::Events::new(black_box(&buffer)).map_while(Result::ok);
    events
        .flat_map(|event| event.records())
        .map(black_box)
        .count()
}

library_benchmark_group!(
    name = decoders,
    benchmarks = [
        inotify_lines,
        fanotify_lines,
        refused_line,
        stream_of_pages,
        whole_group,
        print,
        inotify_events,
        fanotify_events
    ]
);

main!(library_benchmark_groups = decoders);
