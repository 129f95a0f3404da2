//! `notifreeze record` on real programs: what it writes is canonical, says what the program did, and
//! runs green untouched and under the builtin engine.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::programs::{Ground, Place, Running, find, is_root, skip};

const NOTIFREEZE: &str = env!("CARGO_BIN_EXE_notifreeze");

/// What is recorded in a folder of its own, by the script of `tests/live/profiles`.
fn recorded(script: &str, mount: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (root, file) = (folder.path().join("root"), folder.path().join("x.scn"));
    fs::create_dir(&root).unwrap();
    let line = format!("{mount} exec \"$@\"");
    let mut program = match mount {
        "" => Command::new("sh"),
        _ => {
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "--propagation", "private", "sh"]);
            unshare
        }
    };
    let output = program
        .args([
            "-c",
            &line,
            "sh",
            NOTIFREEZE,
            "record",
            "--seconds",
            "60",
            "--root",
        ])
        .arg(&root)
        .arg("-o")
        .arg(&file)
        .args(["--", "sh", script])
        .arg(&root)
        .env("ROOT", &root)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let text = fs::read_to_string(&file).unwrap();
    let parsed = scenario::parse_and_check(&text).unwrap();
    assert_eq!(scenario::print(&parsed.scenario), text, "canonical");
    runs_green(&file, &text);
    (text, errors)
}

/// As many lines are cut before every step; more take too long.
const MAX_CUT_LINES: usize = 26;

/// Untouched, cut by our own engine where it was recorded, and, if it is short, before every step.
fn runs_green(file: &Path, text: &str) {
    let cuts: [&[&str]; 3] = [
        &["--engine", "control"],
        &["--engine", "builtin"],
        &["--engine", "builtin", "--cut-at", "all"],
    ];
    let n_cuts = match text.lines().count() <= MAX_CUT_LINES {
        true => 3,
        false => 2,
    };
    for args in &cuts[..n_cuts] {
        let output = Command::new(NOTIFREEZE)
            .arg("run")
            .arg(file)
            .args(*args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}\n{text}");
        assert!(said.contains("0 skip"), "{said}");
    }
}

/// Records a program; every line has to be there, in this order.
#[track_caller]
fn check(program: &str, script: &str, mount: &str, lines: &[&str]) {
    if find("strace").is_none() || find(program).is_none() {
        return;
    }
    let script = format!("tests/live/profiles/{script}.sh");
    let (text, errors) = recorded(&script, mount);
    let mut rest = text.as_str();
    for line in lines {
        let Some(at) = rest.find(line) else {
            panic!("{line:?} is not there, or not in its place:\n{text}");
        };
        rest = &rest[at + line.len()..];
    }
    // Programs load libraries; all else is below the root.
    let mut left_out = errors.lines().filter(|line| line.starts_with("left out"));
    assert!(
        left_out.all(|line| line.contains("outside of the root")),
        "{errors}"
    );
    let header = text.lines().nth(1).unwrap();
    assert_eq!(
        header,
        format!("# Recorded with `notifreeze record` from: sh {script} .")
    );
}

#[test]
fn inotifywait_is_recorded_and_run_back() {
    check(
        "inotifywait",
        "inotifywait",
        "",
        &[
            "inotify_init1(0) = n\n",
            "inotify_add_watch(n, \"top/sub/\", IN_ALL_EVENTS) = 1\n",
            "inotify_add_watch(n, \"top/\", IN_ALL_EVENTS) = 2\n",
            "mkdir(\"top/sub/new\", 0755)\n",
            "inotify_add_watch(n, \"top/sub/new/\", IN_ALL_EVENTS) = 3\n",
            "checkpoint\n",
            "\"top/sub/new\", AT_FDCWD, \"top/moved\"",
        ],
    );
}

#[test]
fn tail_is_recorded_and_run_back() {
    let mask = "IN_MODIFY|IN_ATTRIB|IN_DELETE_SELF|IN_MOVE_SELF";
    let watch = |wd| format!("inotify_add_watch(n, \"log\", {mask}) = {wd}\n");
    check(
        "tail",
        "tail",
        "",
        &[
            "inotify_add_watch(n, \".\", IN_ATTRIB|IN_MOVED_TO|IN_CREATE|IN_DELETE|IN_DELETE_SELF) = 1\n",
            &watch(2),
            "\"log\", AT_FDCWD, \"log.1\"",
            &watch(3),
            "inotify_rm_watch(n, 2)",
            "unlink(\"log.1\")\n",
        ],
    );
}

#[test]
fn node_is_recorded_and_run_back() {
    check(
        "node",
        "node",
        "",
        &[
            "inotify_init1(IN_NONBLOCK|IN_CLOEXEC) = n\n",
            "inotify_add_watch(n, \"tree\", IN_",
            "epoll_ctl(e, EPOLL_CTL_ADD, n, {events=EPOLLIN, data=",
            "open(\"tree/a/x\", O_WRONLY|O_CREAT|O_TRUNC, 0644)",
            "epoll_wait(e, 1024, 0)\n",
            "inotify_add_watch(n, \"tree/a/x\", IN_",
            "unlink(\"tree/b/y\")\n",
        ],
    );
}

/// Whether the machine's python has a module.
fn has_module(module: &str) -> bool {
    let script = format!("import {module}");
    let status = Command::new("/usr/bin/python3")
        .args(["-W", "ignore", "-c", &script])
        .stderr(Stdio::null())
        .status();
    let has = status.is_ok_and(|status| status.success());
    if !has {
        skip(&format!("no {module} of python (ci/programs installs it)"));
    }
    has
}

#[test]
fn watchdog_is_recorded_and_run_back() {
    if has_module("watchdog") {
        check(
            "python3",
            "watchdog",
            "",
            &[
                "inotify_add_watch(n, \"tree\", IN_",
                "mkdir(\"tree/a/n\", 0755)\n",
                "inotify_add_watch(n, \"tree/a/n\", IN_",
                "\"tree/a/n\", AT_FDCWD, \"tree/b/n\"",
                "open(\"tree/b/n/f\", ",
            ],
        );
    }
}

#[test]
fn pyinotify_is_recorded_and_run_back() {
    if has_module("pyinotify") {
        let mask = "IN_MODIFY|IN_CLOSE_WRITE|IN_CREATE|IN_DELETE";
        check(
            "python3",
            "pyinotify",
            "",
            &[
                &format!("inotify_add_watch(n, \"dir\", {mask}) = 1\n"),
                "mkdir(\"dir/sub\", 0755)\n",
                &format!("inotify_add_watch(n, \"dir/sub\", {mask}) = 2\n"),
                "unlink(\"dir/sub/f\")\n",
            ],
        );
    }
}

#[test]
fn fatrace_is_recorded_and_run_back() {
    if !is_root() {
        return skip("fatrace takes root");
    }
    check(
        "fatrace",
        "fatrace",
        "mount -t tmpfs none \"$ROOT\" &&",
        &[
            "requires fanotify root\n",
            "fanotify_init(FAN_CLASS_NOTIF",
            "fanotify_mark(n, FAN_MARK_ADD|FAN_MARK_",
            "AT_FDCWD, \".\")\n",
            "read(n)\n",
        ],
    );
}

fn record(args: &[&str], command: &[&str]) -> Output {
    Command::new(NOTIFREEZE)
        .arg("record")
        .args(args)
        .args(command)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_running_program_is_recorded_with_what_it_watches_already() {
    if find("strace").is_none() || find("tail").is_none() {
        return;
    }
    let place = Place::on(Ground::Disk);
    let root = place.path("dir");
    let running = Running::start(&place, &["tail", "-F", &place.path("dir/file")], 2);
    let file = tempfile::NamedTempFile::new().unwrap();
    let pid = running.pid().to_string();
    let mut recording = Command::new(NOTIFREEZE)
        .args(["record", "--root", &root, "--pid", &pid, "-o"])
        .arg(file.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(recording.stderr.take().unwrap());
    let mut said = String::new();
    errors.read_line(&mut said).unwrap();
    assert_eq!(said, "recording tail; Ctrl-C ends that\n");
    // What we do to it is not seen, and said to be missing.
    fs::write(place.path("dir/file"), "another line\n").unwrap();
    running.wait_for_offset("file", "another line\n".len());
    running.end();
    errors.read_to_string(&mut said).unwrap();
    let errors = said;
    assert_eq!(recording.wait().unwrap().code(), Some(0), "{errors}");
    let text = fs::read_to_string(file.path()).unwrap();
    for line in [
        "mkdir(\"sub\", 0755)\n",
        "write(made0, \"line\\n\")\n",
        "inotify_add_watch(n, \".\", IN_ATTRIB|IN_MOVED_TO|IN_CREATE|IN_DELETE|IN_DELETE_SELF) = 1\n",
        "inotify_add_watch(n, \"file\", IN_MODIFY|IN_ATTRIB|IN_DELETE_SELF|IN_MOVE_SELF) = 2\n",
        "read(n)\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(errors.contains("somebody else was there"), "{errors}{text}");
    runs_green(file.path(), &text);
}

#[test]
fn who_cannot_record_is_told_what_to_do() {
    let refused = |output: &Output, reason: &str| {
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(reason), "{errors}");
    };
    let without = Command::new(NOTIFREEZE)
        .args(["record", "--", "true"])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    refused(&without, "apt-get install strace");
    refused(&record(&[], &[]), "<--pid <PID>|COMMAND>");
    refused(
        &record(&["--root", "/nonexistent"], &["--", "true"]),
        "/nonexistent: ",
    );
    refused(
        &record(&["--pid", "4194303"], &[]),
        "process 4194303: there is none here; ps -e lists those",
    );
    if find("strace").is_none() || find("inotifywait").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    refused(
        &record(&["--root", root], &["--", "true"]),
        "nothing was watched",
    );
    refused(
        &record(&["--root", root], &["--", "/nonexistent/program"]),
        "strace saw no call",
    );
    let elsewhere = record(
        &["--root", root, "--seconds", "1"],
        &["--", "inotifywait", "-m", "-q", "/usr"],
    );
    refused(&elsewhere, "--root /usr");
}
