//! Real captures of seven kernels, byte for byte: every one is read at the strict level and prints
//! back as it was.

#![expect(clippy::disallowed_methods, reason = "a test reads its captures")]

use std::fs;
use std::path::{Path, PathBuf};

use fsnotify::Ino;
use fsnotify::fdinfo::{
    Body, Group, Kind, Level, Line, Lines, MAX_LINE, MarkTarget, Stream, audit,
};
use fsnotify::handle::Layout;

/// Every capture, in order.
fn captures() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/fdinfo");
    let mut captures = Vec::new();
    for kernel in fs::read_dir(root).expect("test_data/fdinfo is there") {
        let kernel = kernel.expect("an entry").path();
        if !kernel.is_dir() {
            continue;
        }
        for capture in fs::read_dir(&kernel).expect("a kernel's folder") {
            let path = capture.expect("an entry").path();
            let text = fs::read(&path).expect("a capture is readable");
            captures.push((path, text));
        }
    }
    captures.sort();
    assert_eq!(captures.len(), 145, "captures are missing");
    captures
}

#[test]
fn every_capture_prints_back_byte_for_byte_at_both_levels() {
    for (path, text) in captures() {
        for level in [Level::Strict, Level::Lenient] {
            let group = Group::parse(&text, level);
            let group = group.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(group.unknown.is_empty(), "{}", path.display());
            let printed = group.to_string();
            assert!(printed.as_bytes() == text, "{} differs", path.display());
        }
    }
}

#[test]
fn every_capture_is_of_the_kind_that_its_name_says() {
    for (path, text) in captures() {
        let name = path.file_name().expect("a file").to_string_lossy();
        let kind = if name.contains("fanotify") {
            Kind::Fanotify
        } else {
            Kind::Inotify
        };
        let group = Group::parse_as(&text, kind, Level::Strict);
        let group = group.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        match group.body {
            Body::Inotify { .. } => assert_eq!(kind, Kind::Inotify, "{name}"),
            Body::Fanotify { .. } => assert_eq!(kind, Kind::Fanotify, "{name}"),
            Body::Unstated => panic!("{name}: the kind was stated"),
        }
    }
}

#[test]
fn pieces_give_the_same_lines_as_the_whole() {
    for (path, text) in captures() {
        let whole: String = Lines::new(&text, Level::Strict)
            .map(|line| line.expect("captures are valid").to_string())
            .collect();
        for size in [1, 7, 100, MAX_LINE - 1, 4096] {
            if size == 1 && text.len() > 100_000 {
                continue;
            }
            let mut stream = Stream::new(Level::Strict);
            let mut pieces = String::new();
            for piece in text.chunks(size) {
                let pushed = stream.push(piece, |line| pieces += &line.to_string());
                pushed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
            let finished = stream.finish(|line| pieces += &line.to_string());
            finished.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(pieces == whole, "{}, pieces of {size}", path.display());
        }
    }
}

#[test]
fn no_capture_contradicts_itself() {
    for (path, text) in captures() {
        let group = Group::parse(&text, Level::Strict).expect("captures are valid");
        assert_eq!(audit(&group), [], "{}", path.display());
    }
}

/// Handles of filesystems that put the inode number into them hold the number that the line shows.
#[test]
fn handles_name_the_inode_of_their_line() {
    let mut n_compared = 0;
    for (path, text) in captures() {
        let name = path.file_name().expect("a file").to_string_lossy();
        let Some(filesystem) = name.split('-').next().filter(|name| *name != "pseudo") else {
            continue;
        };
        for line in Lines::new(&text, Level::Strict) {
            let (Ino(ino), handle) = match line.expect("captures are valid") {
                Line::Watch(watch) => (watch.ino, watch.handle),
                Line::Mark(mark) => match mark.target {
                    MarkTarget::Inode { ino, handle, .. } => (ino, handle),
                    MarkTarget::Mount(_)
                    | MarkTarget::Filesystem(_)
                    | MarkTarget::MountNamespace(_) => continue,
                },
                _ => continue,
            };
            let Some(handle) = handle else { continue };
            let in_handle = match handle.layout(filesystem) {
                Layout::Ino32 { ino, .. } => u64::from(ino),
                Layout::Ino64 { ino, .. } | Layout::Tmpfs { ino, .. } => ino,
                Layout::Btrfs { ino, .. } | Layout::Nilfs2 { ino, .. } => ino,
                _ => continue,
            };
            n_compared += 1;
            assert_eq!(in_handle, ino, "{}: {handle}", path.display());
        }
    }
    assert!(
        n_compared > 20_000,
        "only {n_compared} handles were compared"
    );
}
