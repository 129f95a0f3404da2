//! The command `notifreeze fdinfo`, as a program.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn notifreeze(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_notifreeze"))
        .arg("fdinfo")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A program that refuses its arguments reads nothing.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

fn capture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("harness/fsnotify/test_data/fdinfo").join(name)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn canonical_text_is_the_input() {
    let path = capture("6.18.44/ext4-fanotify-locks.fdinfo");
    let expected = fs::read(&path).expect("a capture");
    let output = notifreeze(&[path.to_str().expect("UTF-8"), "--print", "--strict"], b"");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), text(&expected));
    let output = notifreeze(&["-", "--print"], &expected);
    assert_eq!(text(&output.stdout), text(&expected));
}

#[test]
fn json_has_numbers_as_numbers() {
    let input = b"pos:\t0\nflags:\t02\nfanotify flags:4000 event-flags:8000\n\
        fanotify mnt_ns:4026532177 mflags:0 mask:3000000 ignored_mask:0\n";
    let output = notifreeze(&["-", "--json"], input);
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["kind"], "fanotify");
    assert_eq!(value["init_flags"]["bits"], 0x4000);
    assert_eq!(
        value["marks"][0]["target"]["mount_namespace"],
        4_026_532_177_u64
    );
    assert_eq!(
        value["marks"][0]["mask"]["names"],
        "FAN_MNT_ATTACH|FAN_MNT_DETACH"
    );
}

#[test]
fn json_has_the_numbers_of_a_lock() {
    let input = b"pos:\t0\nflags:\t00\nlock:\t1: FLOCK  ADVISORY  WRITE 4423 00:1a:1039 0 EOF\n\
        inotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:20 \n";
    let output = notifreeze(&["-", "--json"], input);
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let lock = &value["locks"][0];
    assert_eq!((&lock["number"], &lock["pid"]), (&1.into(), &4423.into()));
    assert_eq!(lock["class"], "FLOCK  ADVISORY");
    assert_eq!(lock["access"], "WRITE");
    assert_eq!(lock["file"]["minor"], 0x1a);
    assert_eq!(lock["file"]["ino"], 1039);
    assert_eq!((&lock["start"], &lock["end"]), (&0.into(), &Value::Null));
    assert_eq!(value["watches"][0]["ignored_mask"]["bits"], 0x20);
}

#[test]
fn the_table_names_what_is_watched() {
    let input = b"pos:\t0\nflags:\t00\ninotify wd:a ino:9c1 sdev:10300006 mask:100 \
        ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:c109000050f477b8\n";
    let output = notifreeze(&["-"], input);
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    for word in ["10", "IN_CREATE", "2497", "259:6", "1:c109000050f477b8"] {
        assert!(table.contains(word), "{word}\n{table}");
    }
}

#[test]
fn a_refusal_shows_the_line_and_the_column() {
    let input = b"pos:\t0\nflags:\t00\ninotify wd:1 ino:5 sdev:zz mask:1\n";
    let output = notifreeze(&["-"], input);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    for word in [
        "sdev: no lower-case hex number",
        "standard input:3:25",
        "^^",
    ] {
        assert!(message.contains(word), "{word}\n{message}");
    }
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn every_refused_input_is_rendered() {
    for input in [
        &b""[..],
        b"\xff\xfe",
        b"pos:\t0\n",
        b"pos:\t0\nflags:\t00\n\0\n",
        b"\n",
    ] {
        let output = notifreeze(&["-"], input);
        assert_eq!(output.status.code(), Some(2), "{}", input.escape_ascii());
        assert!(
            text(&output.stderr).starts_with("error"),
            "{}",
            input.escape_ascii()
        );
    }
}

#[test]
fn an_unknown_mark_is_kept_unless_strict() {
    let input = b"pos:\t0\nflags:\t00\nfanotify flags:0 event-flags:0\n\
        fanotify user_ns_id:7 mflags:0 mask:1 ignored_mask:0\n";
    let output = notifreeze(&["-", "--print"], input);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, input);
    assert!(text(&output.stderr).contains("not understood: fanotify user_ns_id:7"));
    let output = notifreeze(&["-", "--strict"], input);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_live_descriptor_is_read_and_another_kind_is_refused() {
    let inotify = nix::sys::inotify::Inotify::init(nix::sys::inotify::InitFlags::IN_NONBLOCK);
    let inotify = inotify.expect("inotify");
    let folder = tempfile::tempdir().expect("a folder");
    let events = nix::sys::inotify::AddWatchFlags::IN_CREATE;
    inotify.add_watch(folder.path(), events).expect("a watch");
    let pid = std::process::id();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&inotify));
    let output = notifreeze(&[&format!("{pid}:{fd}"), "--strict"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("IN_CREATE"));
    let file = fs::File::open("/dev/null").expect("a file");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let output = notifreeze(&[&format!("{pid}:{fd}")], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("neither inotify nor fanotify"));
}
