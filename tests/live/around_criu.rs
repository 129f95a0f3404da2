//! The recipe of `docs/capture.md`, done: capture, dump and restore by the real CRIU, capture,
//! compare.
//!
//! Runs where the variable `CRIU` names one (`ci/criu` fetches one), as root.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use notifreeze::engine::Criu;

use super::programs::{find, is_root, skip};

/// The recipe; `$4` is what is done to the stopped program before the first capture.
const RECIPE: &str = "
    set -eu
    criu=$1 notifreeze=$2 dir=$3
    # What the tests were started with may be open still.
    for fd in /proc/$$/fd/*; do
        fd=${fd##*/}
        if [ $fd -gt 2 ]; then eval \"exec $fd<&-\"; fi
    done
    mkdir $dir/images $dir/watched
    : >$dir/watched/file
    setsid inotifywait -m -q $dir/watched $dir/watched/file </dev/null >/dev/null 2>&1 &
    pid=$!
    until grep -q '^inotify wd:2' /proc/$pid/fdinfo/3 2>/dev/null; do :; done
    kill -STOP $pid
    until grep -q '^State:.T' /proc/$pid/status; do :; done
    eval \"$4\"
    $notifreeze capture $pid -o $dir/before.json
    $criu dump --no-default-config --tree $pid --images-dir $dir/images --log-file dump.log
    wait $pid || true
    $criu restore --no-default-config --images-dir $dir/images --restore-detached --log-file restore.log
    $notifreeze capture $pid -o $dir/after.json
    $notifreeze compare $dir/before.json $dir/after.json
";

/// What the recipe comes to; none, with a word about it, where it cannot be followed.
fn follow(done_before: &str) -> Option<Output> {
    find("inotifywait")?;
    if std::env::var_os("CRIU").is_none() {
        // Not a want of the machine, but of the caller.
        eprintln!("skipped: the variable CRIU names none (see ci/criu)");
        return None;
    }
    if !is_root() {
        skip("CRIU takes root");
        return None;
    }
    let criu = Criu::from_environment();
    if let Err(reason) = &criu.probe {
        skip(reason);
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--kill-child", "--mount", "--pid", "--fork", "--mount-proc"])
        .args(["--propagation", "private", "bash", "-c", RECIPE, "bash"])
        .arg(&criu.program)
        .arg(Path::new(env!("CARGO_BIN_EXE_notifreeze")))
        .arg(folder.path())
        .arg(done_before)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    for log in ["dump", "restore"] {
        let log = folder.path().join(format!("images/{log}.log"));
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let errors = log.lines().filter(|line| line.contains("Error"));
        errors.for_each(|line| eprintln!("{line}"));
    }
    Some(output)
}

#[track_caller]
fn check(output: &Output, code: i32, line: &str) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    assert!(text.contains(line), "{text}{errors}");
}

#[test]
fn watches_that_criu_keeps_are_no_difference() {
    if let Some(output) = follow(":") {
        check(&output, 0, "nothing differs");
    }
}

#[test]
fn events_that_criu_drops_are_told() {
    if let Some(output) = follow("echo line >> $dir/watched/file") {
        // Opened, written, closed: heard by the directory's watch and by the file's.
        check(&output, 1, "! fd 3: unread bytes was 144, is 0 (I4.6)");
    }
}

#[test]
fn a_capture_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.json");
    for (text, reason) in [
        ("no", "not JSON"),
        ("{}", "not a capture"),
        ("{\"capture\": 99}", "version 99"),
        ("{\"capture\": 1}", "broken capture"),
    ] {
        std::fs::write(&path, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_notifreeze"))
            .arg("compare")
            .args([&path, &path])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(reason), "{errors}");
        assert!(errors.contains("`notifreeze capture PID -o "), "{errors}");
    }
}
