//! The reader of fdinfo, side by side with what others do: `sscanf` of libc line by line with the
//! format that C programs use, and a plain reader in Rust that splits lines into words.
//!
//! In this crate because calling `sscanf` needs `unsafe`. `cargo bench -p cr --bench fdinfo`; the
//! columns to compare are those of one run.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::hint::black_box;
use std::path::Path;
use std::ptr;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, main as run};
use fsnotify::fdinfo::{Group, Level, Line, Lines};

fn main() {
    run();
}

/// A real capture: its text, and the number of its marks.
struct Capture {
    text: Vec<u8>,
    n_marks: usize,
}

impl Capture {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fsnotify/test_data/fdinfo");
        let text = std::fs::read(folder.join("6.18.44").join(name)).expect("a capture");
        let n_marks = Lines::new(&text, Level::Strict).filter(is_mark).count();
        Self { text, n_marks }
    }

    fn inotify() -> Self {
        Self::read("ext4-inotify-many-20000.fdinfo")
    }

    fn fanotify() -> Self {
        Self::read("ext4-fanotify-many-300.fdinfo")
    }

    fn bench(&self, bencher: Bencher<'_, '_>, read: impl Fn(&[u8]) -> usize + Sync) {
        assert_eq!(read(&self.text), self.n_marks, "every mark is read");
        bencher
            .counter(ItemsCount::new(self.n_marks))
            .counter(BytesCount::of_slice(&self.text))
            .bench(|| read(black_box(&self.text)));
    }

    /// The same for a reader of one line that is a C string. Those are made beforehand: a C program
    /// has read them into its buffer.
    fn bench_lines(&self, bencher: Bencher<'_, '_>, read: impl Fn(&[u8]) -> bool + Sync) {
        let lines = self.text.split_inclusive(|byte| *byte == b'\n');
        let lines: Vec<Vec<u8>> = lines.map(|line| [line, b"\0"].concat()).collect();
        self.bench(bencher, |_| {
            let lines = black_box(&lines).iter();
            lines.filter(|line| read(line)).count()
        });
    }
}

fn is_mark<E>(line: &Result<Line<'_>, E>) -> bool {
    matches!(line, Ok(Line::Watch(_) | Line::Mark(_)))
}

fn count_lines(text: &[u8]) -> usize {
    let lines = Lines::new(text, Level::Strict);
    lines.map(black_box).filter(is_mark).count()
}

#[divan::bench]
fn inotify_lines(bencher: Bencher<'_, '_>) {
    Capture::inotify().bench(bencher, count_lines);
}

#[divan::bench]
fn inotify_group(bencher: Bencher<'_, '_>) {
    let capture = Capture::inotify();
    bencher
        .counter(ItemsCount::new(capture.n_marks))
        .bench(|| Group::parse(black_box(&capture.text), Level::Strict));
}

#[divan::bench]
fn inotify_sscanf(bencher: Bencher<'_, '_>) {
    Capture::inotify().bench_lines(bencher, scan_inotify);
}

#[divan::bench]
fn inotify_split(bencher: Bencher<'_, '_>) {
    Capture::inotify().bench(bencher, |text| split(text, "inotify ", "wd:"));
}

#[divan::bench]
fn fanotify_lines(bencher: Bencher<'_, '_>) {
    Capture::fanotify().bench(bencher, count_lines);
}

#[divan::bench]
fn fanotify_sscanf(bencher: Bencher<'_, '_>) {
    Capture::fanotify().bench_lines(bencher, scan_fanotify);
}

#[divan::bench]
fn fanotify_split(bencher: Bencher<'_, '_>) {
    Capture::fanotify().bench(bencher, |text| split(text, "fanotify ", "ino:"));
}

fn scan_inotify(line: &[u8]) -> bool {
    const FORMAT: &CStr = c"inotify wd:%x ino:%lx sdev:%x mask:%x ignored_mask:%x \
        fhandle-bytes:%x fhandle-type:%x f_handle: %256[0-9a-f]";
    scan::<1>(FORMAT, line)
}

fn scan_fanotify(line: &[u8]) -> bool {
    const FORMAT: &CStr = c"fanotify ino:%lx sdev:%x mflags:%x mask:%x ignored_mask:%x \
        fhandle-bytes:%x fhandle-type:%x f_handle: %256[0-9a-f]";
    scan::<0>(FORMAT, line)
}

/// Reads a line by `sscanf`, the number of the inode as number `INO`, and its handle.
fn scan<const INO: usize>(format: &CStr, line: &[u8]) -> bool {
    let mut numbers: [c_uint; 7] = [0; 7];
    let mut ino: c_long = 0;
    let mut digits = [0; 257];
    let mut to = numbers
        .each_mut()
        .map(|number| ptr::from_mut(number).cast());
    to[INO] = ptr::from_mut(&mut ino).cast::<c_void>();
    let [a, b, c, d, e, f, g] = to;
    let line: *const c_char = line.as_ptr().cast();
    // SAFETY: the line ends with NUL (`bench_lines`). Both formats have seven numbers, of the type of
    // `ino` as number `INO` and of `c_uint` otherwise, then a set of at most 256 digits, for which and
    // for a NUL there is room. Nothing else points to what is written.
    let n_fields: c_int = unsafe {
        libc::sscanf(
            line,
            format.as_ptr(),
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            digits.as_mut_ptr(),
        )
    };
    black_box((numbers, ino));
    n_fields == 8 && handle_bytes(&digits) > 0
}

/// Turns digits into the bytes of the handle, as a C program has to: how many.
fn handle_bytes(digits: &[u8]) -> usize {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 128];
    let mut n_bytes = 0;
    for pair in digits.chunks_exact(2) {
        let (Some(high), Some(low)) = (value(pair[0]), value(pair[1])) else {
            break;
        };
        bytes[n_bytes] = high << 4 | low;
        n_bytes += 1;
    }
    black_box(bytes);
    n_bytes
}

/// A plain reader: lines, words, keys, `from_str_radix`. How many marks it read.
fn split(text: &[u8], prefix: &str, first: &str) -> usize {
    let text = std::str::from_utf8(text).expect("ASCII");
    let mut n_marks = 0;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(prefix) else {
            continue;
        };
        if !rest.starts_with(first) {
            continue;
        }
        let mut numbers = Vec::new();
        let mut handle = Vec::new();
        for word in rest.split_whitespace() {
            let (key, value) = word.split_once(':').expect("a field");
            if key == "f_handle" {
                let pairs = (0..value.len()).step_by(2).map(|at| &value[at..at + 2]);
                let bytes = pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex"));
                handle.extend(bytes);
            } else {
                numbers.push(u64::from_str_radix(value, 16).expect("hex"));
            }
        }
        black_box((numbers, handle));
        n_marks += 1;
    }
    n_marks
}
