//! Logs of strace, and the steps that they become.

use std::collections::BTreeMap;
use std::path::Path;

use super::line::entries;
use super::tables::Surroundings;
use super::translate::{Start, Translated, translate};
use super::tree::{Content, Kind, TOP, Tree};
use super::{Text, by_reason};

/// A root `/r` with a directory `d`, a file `f`, a fifo `p`, and a link `l` to `d`; process 1 is at
/// home there.
fn translated(log: &str) -> Translated {
    let mut tree = Tree::empty();
    tree.make(TOP, b"d", Kind::Directory(BTreeMap::new()));
    tree.make(TOP, b"f", Kind::File(Content::Bytes(Vec::new())));
    tree.make(TOP, b"l", Kind::Link(b"d".to_vec()));
    tree.make(TOP, b"p", Kind::Fifo);
    let start = Start {
        pid: 1,
        surroundings: Surroundings {
            directory: b"/r".to_vec(),
            umask: 0o022,
        },
        held: Vec::new(),
    };
    translate(&entries(log), start, Path::new("/r"), tree)
}

/// What a log becomes behind a watch on `/r`, and the reasons for what is left out.
#[track_caller]
fn check(log: &str, expected: &[&str], reasons: &[&str]) {
    let begin = "1 inotify_init() = 3\n1 inotify_add_watch(3, \"/r\", IN_CREATE) = 1\n";
    let translated = translated(&format!("{begin}{log}"));
    let found: Vec<&str> = by_reason(&translated.left_out)
        .into_iter()
        .map(|(_, why, _)| why)
        .collect();
    assert_eq!(found, reasons, "{log}");
    let text = Text {
        header: vec!["# A log becomes steps.".to_owned()],
        made: Vec::new(),
    };
    let recorded = text
        .settle(translated.steps, translated.n_watches, Vec::new())
        .unwrap();
    let lines = recorded.text.lines().skip(1);
    let lines: Vec<&str> = lines.filter(|line| *line != "checkpoint").collect();
    let first = [
        "inotify_init1(0) = n",
        "inotify_add_watch(n, \".\", IN_CREATE) = 1",
    ];
    assert_eq!(lines[..2], first, "{log}");
    assert_eq!(lines[2..], *expected, "{log}");
    assert_eq!(recorded.left_out, [], "{log}");
}

const OUTSIDE: &str = "outside of the root";
const NOT_THERE: &str = "on what the recording has not seen come there";

#[test]
fn paths_become_relative_to_the_root() {
    check(
        "1 mkdir(\"/r/a\", 0777) = 0\n",
        &["mkdir(\"a\", 0755)"],
        &[],
    );
    check("1 mkdir(\"a\", 0700) = 0\n", &["mkdir(\"a\", 0700)"], &[]);
    check(
        "1 mkdir(\"\\x61\\xff\", 0700) = 0\n",
        &["mkdir(\"a\\xff\", 0700)"],
        &[],
    );
    check(
        "1 mkdir(\"d/../a\", 0700) = 0\n",
        &["mkdir(\"d/../a\", 0700)"],
        &[],
    );
    check(
        "1 mkdir(\"/x/../r/a\", 0700) = 0\n",
        &["mkdir(\"a\", 0700)"],
        &[],
    );
    check(
        "1 mkdir(\"l/a\", 0700) = 0\n1 rmdir(\"d/a\") = 0\n",
        &["mkdir(\"l/a\", 0700)", "rmdir(\"d/a\")"],
        &[],
    );
    check("1 mkdir(\"/rr/a\", 0700) = 0\n", &[], &[OUTSIDE]);
    check("1 mkdir(\"../a\", 0700) = 0\n", &[], &[OUTSIDE]);
    check(
        "1 chdir(\"d\") = 0\n1 mkdir(\"a\", 0700) = 0\n1 chdir(\"..\") = 0\n1 mkdir(\"b\", 0700) = 0\n",
        &["mkdir(\"d/a\", 0700)", "mkdir(\"b\", 0700)"],
        &[],
    );
    check(
        "1 umask(0) = 022\n1 mkdir(\"a\", 0777) = 0\n",
        &["mkdir(\"a\", 0777)"],
        &[],
    );
    check(
        "1 symlink(\"/r/f\", \"d/s\") = 0\n1 chmod(\"d/s\", 0600) = 0\n",
        &["symlink(\"../f\", \"d/s\")", "chmod(\"d/s\", 0600)"],
        &[],
    );
}

#[test]
fn descriptors_lead_where_they_led() {
    check(
        "1 openat(AT_FDCWD, \"d\", O_RDONLY|O_DIRECTORY|O_CLOEXEC) = 4\n\
         1 rename(\"d\", \"e\") = 0\n\
         1 mkdirat(4, \"a\", 0700) = 0\n\
         1 unlinkat(4, \"a\", AT_REMOVEDIR) = 0\n\
         1 close(4) = 0\n",
        &[
            "open(\"d\", O_RDONLY|O_DIRECTORY|O_CLOEXEC) = d",
            "rename(\"d\", \"e\")",
            "mkdir(\"e/a\", 0700)",
            "rmdir(\"e/a\")",
            "close(d)",
        ],
        &[],
    );
    check(
        "1 openat(AT_FDCWD, \"d\", O_RDONLY|O_PATH) = 4\n\
         1 inotify_add_watch(3, \"/proc/self/fd/4\", IN_DELETE) = 2\n",
        &["inotify_add_watch(n, \"d\", IN_DELETE) = 2"],
        &[],
    );
    check(
        "1 open(\"f\", O_WRONLY) = 4\n1 dup2(4, 1) = 1\n1 close(4) = 0\n1 write(1, \"x\", 1) = 1\n\
         1 dup2(0, 1) = 1\n1 close(1) = 0\n",
        &["open(\"f\", O_WRONLY) = f", "write(f, \"x\")", "close(f)"],
        &[],
    );
}

#[test]
fn reads_and_writes_are_as_large_as_they_were() {
    check(
        "1 open(\"f\", O_RDWR) = 4\n\
         1 writev(4, [{iov_base=\"a\", iov_len=1}, {iov_base=\"bc\", iov_len=2}], 2) = 3\n\
         1 pwrite64(4, \"zz\", 2, 7) = 2\n\
         1 lseek(4, 0, SEEK_CUR) = 3\n\
         1 lseek(4, 0, SEEK_SET) = 0\n\
         1 read(4, \"abc\\0\\0\\0\\0zz\", 4096) = 9\n\
         1 read(4, \"\", 4096) = 0\n\
         1 pread64(4, \"a\", 1, 0) = 1\n\
         1 ftruncate(4, 5) = 0\n\
         1 write(4, \"cut\"..., 5) = 5\n\
         1 sendfile(9, 4, NULL, 4096) = 2\n",
        &[
            "open(\"f\", O_RDWR) = f",
            "write(f, \"abc\")",
            "pwrite(f, \"zz\", 7)",
            "lseek(f, 0, SEEK_SET)",
            "read(f, 9)",
            "pread(f, 1, 0)",
            "ftruncate(f, 5)",
            "write(f, \".....\")",
            "read(f, 2)",
        ],
        &[],
    );
}

#[test]
fn children_count_as_one_process() {
    check(
        "1 vfork( <unfinished ...>\n\
         2 openat(AT_FDCWD, \"f\", O_WRONLY|O_CLOEXEC) = 4\n\
         2 execve(\"/bin/true\", [\"true\"], 0x1 /* 3 vars */) = 0\n\
         1 <... vfork resumed>) = 2\n\
         2 openat(AT_FDCWD, \"d/n\", O_WRONLY|O_CREAT|O_EXCL, 0666) = 4\n\
         2 exit_group(0) = ?\n\
         2 +++ exited with 0 +++\n",
        &[
            "open(\"f\", O_WRONLY|O_CLOEXEC) = f",
            "close(f)",
            "open(\"d/n\", O_WRONLY|O_CREAT|O_EXCL, 0644) = n_2",
            "close(n_2)",
        ],
        &[],
    );
    check(
        "1 open(\"f\", O_WRONLY) = 4\n1 fork() = 2\n2 close(4) = 0\n2 +++ exited with 0 +++\n\
         1 write(4, \"x\", 1) = 1\n",
        &["open(\"f\", O_WRONLY) = f", "write(f, \"x\")"],
        &[],
    );
}

#[test]
fn watches_are_numbered_as_the_scenario_will() {
    check(
        "1 inotify_add_watch(3, \"/etc\", IN_DELETE) = 2\n\
         1 inotify_add_watch(3, \"d\", IN_DELETE) = 3\n\
         1 inotify_add_watch(3, \"l\", IN_CREATE) = 3\n\
         1 inotify_add_watch(3, \"f\", IN_MODIFY) = 4\n\
         1 inotify_rm_watch(3, 2) = 0\n\
         1 inotify_rm_watch(3, 3) = 0\n\
         1 inotify_rm_watch(3, 3) = -1 EINVAL (Invalid argument)\n\
         1 inotify_add_watch(3, \"no\", IN_CREATE) = -1 ENOENT (No such file or directory)\n\
         1 inotify_add_watch(3, \"f\", IN_CREATE) = -1 ENOSPC (No space left on device)\n",
        &[
            "inotify_add_watch(n, \"d\", IN_DELETE) = 2",
            "inotify_add_watch(n, \"l\", IN_CREATE) = 2",
            "inotify_add_watch(n, \"f\", IN_MODIFY) = 3",
            "inotify_rm_watch(n, 2)",
            "inotify_rm_watch(n, 2) = -1 EINVAL",
            "inotify_add_watch(n, \"no\", IN_CREATE) = -1 ENOENT",
        ],
        &[OUTSIDE, "that failed for want of a limit or a permission"],
    );
}

#[test]
fn what_a_group_waited_with_comes_when_it_watches() {
    check(
        "1 epoll_create1(EPOLL_CLOEXEC) = 5\n\
         1 inotify_init1(IN_NONBLOCK) = 6\n\
         1 epoll_ctl(5, EPOLL_CTL_ADD, 6, {events=EPOLLIN|EPOLLET, data={u32=9, u64=9}}) = 0\n\
         1 epoll_ctl(5, EPOLL_CTL_ADD, 0, {events=EPOLLIN, data={u32=1, u64=1}}) = 0\n\
         1 inotify_add_watch(6, \"d\", IN_CREATE) = 1\n\
         1 epoll_wait(5, [{events=EPOLLIN, data={u32=1, u64=1}}], 16, -1) = 1\n\
         1 mkdir(\"d/a\", 0700) = 0\n\
         1 epoll_pwait(5, [{events=EPOLLIN, data={u32=9, u64=9}}], 16, -1, NULL, 8) = 1\n\
         1 read(6, \"\\1\", 4096) = 32\n\
         1 fcntl(6, F_SETFL, O_RDONLY|O_ASYNC) = 0\n\
         1 fcntl(6, F_SETFL, O_RDONLY) = 0\n\
         1 fcntl(6, F_SETOWN, 1) = 0\n\
         1 epoll_ctl(5, EPOLL_CTL_DEL, 6, 0x7ffd) = 0\n",
        &[
            "inotify_init1(IN_NONBLOCK) = n_2",
            "epoll_create1(EPOLL_CLOEXEC) = e",
            "epoll_ctl(e, EPOLL_CTL_ADD, n_2, {events=EPOLLIN|EPOLLET, data=9})",
            "inotify_add_watch(n_2, \"d\", IN_CREATE) = 1",
            "mkdir(\"d/a\", 0700)",
            "epoll_wait(e, 16, 0)",
            "read(n_2)",
            "fcntl(n_2, F_SETFL, O_ASYNC)",
            "fcntl(n_2, F_SETFL, 0)",
            "fcntl(n_2, F_SETOWN, main)",
            "epoll_ctl(e, EPOLL_CTL_DEL, n_2)",
        ],
        &[],
    );
}

#[test]
fn the_end_of_the_last_group_is_the_end() {
    check(
        "1 mkdir(\"a\", 0700) = 0\n1 +++ killed by SIGTERM +++\n2 rmdir(\"a\") = 0\n",
        &["mkdir(\"a\", 0700)"],
        &["after the last group was closed"],
    );
    // Another one goes on.
    check(
        "1 mkdir(\"a\", 0700) = 0\n1 close(3) = 0\n1 inotify_init() = 3\n\
         1 inotify_add_watch(3, \"a\", IN_CREATE) = 1\n",
        &[
            "mkdir(\"a\", 0700)",
            "close(n)",
            "inotify_init1(0) = n_2",
            "inotify_add_watch(n_2, \"a\", IN_CREATE) = 1",
        ],
        &[],
    );
}

#[test]
fn what_nobody_heard_is_no_step() {
    let log = "1 open(\"f\", O_RDONLY) = 4\n1 read(4, \"x\", 9) = 1\n1 close(4) = 0\n\
               1 open(\"f\", O_RDONLY) = 4\n1 inotify_init() = 5\n\
               1 inotify_add_watch(5, \"f\", IN_CLOSE) = 1\n1 close(4) = 0\n";
    let steps = translated(log).steps;
    let texts: Vec<&str> = steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "open(\"f\", O_RDONLY)",
            "inotify_init1(0)",
            "inotify_add_watch(n, \"f\", IN_CLOSE)",
            "close(f)",
        ]
    );
}

#[test]
fn what_cannot_be_run_back_is_left_out_with_the_reason() {
    check("1 unlink(\"gone\") = 0\n", &[], &[NOT_THERE]);
    check("1 rename(\"/etc/a\", \"/etc/b\") = 0\n", &[], &[OUTSIDE]);
    check(
        "1 rename(\"f\", \"/tmp/f\") = 0\n1 chmod(\"f\", 0600) = 0\n",
        &["chmod(\"f\", 0600)"],
        &["that moves something into the root or out of it"],
    );
    check(
        "1 open(\"p\", O_RDONLY) = 4\n1 read(4, \"x\", 1) = 1\n",
        &[],
        &["of a fifo, which one process alone would wait at"],
    );
    check(
        "1 open(\"d\", O_RDWR|O_TMPFILE, 0600) = 4\n",
        &[],
        &["of files without a name"],
    );
    check(
        "1 fanotify_init(FAN_CLASS_CONTENT, O_RDONLY) = 4\n",
        &[],
        &["of a permission listener, which one process alone would wait for"],
    );
    check(
        "1 mount(\"none\", \"/r/d\", \"tmpfs\", 0, NULL) = 0\n",
        &[],
        &["that mounts below the root"],
    );
    check(
        "1 io_uring_setup(8, {flags=0}) = 4\n",
        &[],
        &["of io_uring, whose work is not seen"],
    );
    check(
        "1 mkdir(0x7ffe, 0700) = 0\n",
        &[],
        &["with a path that cannot be read"],
    );
    check(
        "1 mkdir(\"a\", 0700) = 0\n\
         1 read(3, \"\\1\\0\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\20\\0\\0\\0b\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\", 4096) = 32\n",
        &["mkdir(\"a\", 0700)", "read(n)"],
        &["of events that no step makes: somebody else was there"],
    );
    // What failed has changed nothing.
    check(
        "1 mkdir(\"f\", 0700) = -1 EEXIST (File exists)\n1 read(3, 0x1, 9) = ? ERESTARTSYS\n",
        &[],
        &[],
    );
}

#[test]
fn a_step_that_the_language_does_not_take_is_left_out_with_all_that_needs_it() {
    let log = "1 inotify_init() = 3\n1 inotify_add_watch(3, \"f\", IN_MODIFY) = 1\n\
               1 open(\"f\", O_RDWR|O_NEW) = 4\n1 write(4, \"x\", 1) = 1\n1 close(4) = 0\n\
               1 chmod(\"f\", 0600) = 0\n";
    let translated = translated(log);
    let text = Text {
        header: vec!["# A log becomes steps.".to_owned()],
        made: Vec::new(),
    };
    let recorded = text
        .settle(translated.steps, translated.n_watches, Vec::new())
        .unwrap();
    let lines: Vec<&str> = recorded.text.lines().skip(3).collect();
    assert_eq!(lines, ["chmod(\"f\", 0600)", "checkpoint"]);
    assert_eq!(recorded.left_out.len(), 3);
    assert!(recorded.left_out[0].why.contains("O_NEW"));
}
