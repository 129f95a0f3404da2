//! What `explain` foresees, held against the engines themselves: the process is explained, and then
//! really dumped and restored.
//!
//! The processes are subjects of scenarios, stopped at their checkpoint, and real programs. CRIU is
//! the one that the variable `CRIU` names (`ci/criu`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use notifreeze::engine::Criu;
use serde_json::Value;

use super::programs::{find, is_root, skip};

const NOTIFREEZE: &str = env!("CARGO_BIN_EXE_notifreeze");

/// A process, and what is foreseen of it.
struct Case {
    /// Shell lines that put a filesystem at `$work`.
    ground: &'static str,
    /// A plan whose first checkpoint it is; or a command that has so many watches and marks.
    what: What,
    /// Effects that must be foreseen; none for a process that keeps everything, `by-version` where
    /// one CRIU differs from another.
    effects: &'static [&'static str],
}

enum What {
    Plan(&'static str),
    Command(&'static str, usize),
}

const TMPFS: &str = "mount -t tmpfs none $work";
/// That of the temporary directory.
const DISK: &str = ":";
const OVERLAY: &str = "mkdir $dir/lower $dir/scratch && mount -t tmpfs none $dir/scratch && \
     mkdir -p $dir/lower/d $dir/scratch/up $dir/scratch/wk && echo x >$dir/lower/d/f && \
     mount -t overlay -o lowerdir=$dir/lower,upperdir=$dir/scratch/up,workdir=$dir/scratch/wk \
     none $work";

/// A child of the process runs on, and waits in a fifo.
const CHILD_RUNS: &str = "
    stopped() {
        child=$(cat /proc/$pid/task/$pid/children)
        kill -CONT $child
        until grep -q pipe_read /proc/${child% }/wchan; do kill -0 $child; done
    }
";

/// A filesystem that is busy once the process is stopped: a remount waits to write to another one, on
/// which it lies and which is frozen. As long as it waits, fdinfo shows no handle: CRIU's parse_fdinfo
/// gives up on such a line; a fix reads again after a moment, and then names the watch. No scenario can
/// have it: what waits so cannot be killed. Here the freeze ends with the script.
const BUSY: &str = "
    disk() { truncate -s $1 $2 && mkfs.ext4 -q $2 && mount -o loop $2 $3; }
    stopped() {
        head -c 65536 /dev/zero >>$work/f
        trap 'fsfreeze -u $dir/below/frozen' EXIT
        fsfreeze -f $dir/below/frozen
        mount -o remount,ro $work &
        remount=$!
        while grep -q f_handle /proc/$pid/fdinfo/*; do kill -0 $remount; done
    }
    mkdir $dir/below && mount -t tmpfs none $dir/below && mkdir $dir/below/frozen && \
    disk 64M $dir/below/image $dir/below/frozen && disk 16M $dir/below/frozen/image $work
";

/// A plan that lets the filesystem become read-only: nothing of it is open.
const HOLDS_NOTHING: &str = "
open(\"f\", O_RDONLY|O_CREAT, 0644) = f
close(f)
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"f\", IN_DELETE_SELF) = 1
checkpoint
read(n)
";

/// What `BEGIN` ends with where it cannot have the filesystem.
const NO_GROUND: i32 = 77;

/// Starts the process, waits until it is stopped, and explains it.
const BEGIN: &str = "
    set -eu
    notifreeze=$1 dir=$2 ground=$3 criu=$4 n_watches=$5; shift 5
    work=$dir/work
    # What the tests were started with may be open still.
    for fd in /proc/$$/fd/*; do
        fd=${fd##*/}
        if [ $fd -gt 2 ]; then eval \"exec $fd<&-\"; fi
    done
    mkdir $work $dir/images
    stopped() { :; }
    eval \"$ground\" || exit 77
    cd $work
    setsid \"$@\" </dev/null >/dev/null 2>$dir/errors &
    pid=$!
    cd /
    watches() { cat /proc/$pid/fdinfo/* 2>/dev/null | grep -c '^inotify wd\\|^fanotify [^f]' || :; }
    if [ $n_watches -gt 0 ]; then
        until [ $(watches) -ge $n_watches ]; do kill -0 $pid; done
        kill -STOP $pid
    fi
    until grep -q '^State:.T' /proc/$pid/status; do kill -0 $pid; done
    stopped
    $notifreeze explain $pid --json --criu-bin $criu >$dir/explained
    $notifreeze capture $pid -o $dir/before
    code() { echo $? >$dir/$1; }
";

const CRIU: &str = "
    timeout -k 1 60 $criu dump --no-default-config --tree $pid --images-dir $dir/images \
        -v4 --log-file $dir/dump.log && code dump || code dump
    if [ $(cat $dir/dump) -ne 0 ]; then
        # Once more, as was advised.
        advice=$(sed -n 's/.*\"advice\": \"\\(--[^\",]*\\).*/\\1/p' $dir/explained)
        [ -n \"$advice\" ] || exit 0
        mkdir $dir/advised.images
        timeout -k 1 60 $criu dump --no-default-config --tree $pid $advice -v4 \
            --images-dir $dir/advised.images --log-file $dir/advised.log && code advised || code advised
        exit 0
    fi
    wait $pid || true
    timeout -k 1 60 $criu restore --no-default-config --images-dir $dir/images \
        --restore-detached -v4 --log-file $dir/restore.log && code restore || { code restore; exit 0; }
    $notifreeze capture $pid -o $dir/after
    $notifreeze compare $dir/before $dir/after >$dir/compared || true
";

const BUILTIN: &str = "
    $notifreeze dump --only-fsnotify --images $dir/images $pid 2>$dir/said && code dump || code dump
    if [ $(cat $dir/dump) -eq 0 ]; then $notifreeze show --json $dir/images >$dir/image; fi
";

/// Follows a script, and says where it left its results; none, with a word about it, where it cannot
/// be followed.
fn follow(case: &Case, criu: &Path, script: &str) -> Option<tempfile::TempDir> {
    if !is_root() {
        skip("dumping takes root");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let (command, n_watches) = match case.what {
        What::Plan(text) => {
            let text = format!("# A process to be explained.\n{text}");
            scenario::parse(&text).unwrap();
            let plan = folder.path().join("plan");
            fs::write(&plan, text).unwrap();
            let log = format!("{dir}/log");
            fs::write(&log, "").unwrap();
            let plan = plan.to_str().unwrap();
            (
                [NOTIFREEZE, "subject", plan, &log]
                    .map(str::to_owned)
                    .to_vec(),
                0,
            )
        }
        What::Command(line, n_watches) => {
            let program = line.split(' ').next().unwrap();
            find(program)?;
            let words = line.split(' ').map(str::to_owned);
            (words.collect(), n_watches)
        }
    };
    let output = Command::new("unshare")
        .args(["--kill-child", "--mount", "--pid", "--fork", "--mount-proc"])
        .args(["--propagation", "private", "bash", "-c"])
        .arg(format!("{BEGIN}{script}"))
        .args(["bash", NOTIFREEZE, dir, case.ground])
        .arg(criu)
        .arg(n_watches.to_string())
        .args(command)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let own = fs::read_to_string(folder.path().join("errors")).unwrap_or_default();
    if output.status.code() == Some(NO_GROUND) {
        skip(errors.trim());
        return None;
    }
    let refused = fs::read_to_string(folder.path().join("log.error")).unwrap_or_default();
    assert!(output.status.success(), "{errors}{own}{refused}");
    Some(folder)
}

/// What is foreseen of an engine.
fn findings(folder: &Path, engine: &str) -> Vec<Value> {
    let text = fs::read(folder.join("explained")).unwrap();
    let explained: Value = serde_json::from_slice(&text).unwrap();
    let engines = explained["engines"].as_array().unwrap();
    let mut own = engines.iter().filter(|one| one["engine"] == engine);
    own.next().unwrap()["findings"].as_array().unwrap().clone()
}

fn has(findings: &[Value], effect: &str) -> bool {
    findings.iter().any(|finding| finding["effect"] == effect)
}

/// Whether a command succeeded; none if it was not come to.
fn succeeded(folder: &Path, name: &str) -> Option<bool> {
    let code = fs::read_to_string(folder.join(name)).ok()?;
    Some(code.trim() == "0")
}

fn log(folder: &Path, name: &str) -> String {
    let log = fs::read(folder.join(name)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// What a finding says will differ: `fd 3: unread`, `fd 3: wd 2`.
fn foreseen_difference(finding: &Value) -> Option<String> {
    let object = finding["object"].as_str().unwrap_or_default();
    let fd = &finding["fd"];
    if finding["effect"] != "lost" {
        return None;
    }
    Some(match object.split_once(' ') {
        Some(("wd", rest)) => format!("fd {fd}: wd {}", rest.split(' ').next().unwrap()),
        Some(_) if object.contains("unread") => format!("fd {fd}: unread"),
        _ => format!("fd {fd}: {}", object.split(" mark").next().unwrap()),
    })
}

/// What a line of `compare` says does differ, in the same words.
fn real_difference(line: &str) -> String {
    let line = line.get(2..).unwrap_or_default();
    let Some((fd, rest)) = line.split_once(": ") else {
        return line.to_owned();
    };
    let words: Vec<&str> = rest.split(' ').collect();
    match words.as_slice() {
        ["unread", ..] => format!("{fd}: unread"),
        ["wd", wd, ..] => format!("{fd}: wd {wd}"),
        [on, "mark", ..] => format!("{fd}: {on}"),
        _ => line.to_owned(),
    }
}

#[track_caller]
fn check_effects(case: &Case, findings: &[Value]) {
    if case.effects == ["by-version"] {
        return;
    }
    for effect in case.effects {
        assert!(has(findings, effect), "{effect}: {findings:#?}");
    }
    assert_eq!(
        case.effects.is_empty(),
        findings.is_empty(),
        "{findings:#?}"
    );
}

#[track_caller]
fn check_criu(case: &Case) {
    if std::env::var_os("CRIU").is_none() {
        // Not a want of the machine, but of the caller.
        eprintln!("skipped: the variable CRIU names none (see ci/criu)");
        return;
    }
    let criu = Criu::from_environment();
    if let Err(reason) = &criu.probe {
        return skip(reason);
    }
    let Some(folder) = follow(case, &criu.program, CRIU) else {
        return;
    };
    let folder = folder.path();
    let findings = findings(folder, "criu");
    check_effects(case, &findings);
    let dumped = succeeded(folder, "dump").unwrap();
    let said = log(folder, "dump.log");
    assert_eq!(
        dumped,
        !has(&findings, "dump-fails"),
        "{findings:#?}\n{said}"
    );
    if !dumped {
        return;
    }
    let restored = succeeded(folder, "restore").unwrap();
    let said = log(folder, "restore.log");
    assert_eq!(
        restored,
        !has(&findings, "restore-fails"),
        "{findings:#?}\n{said}"
    );
    if !restored {
        return;
    }
    let compared = fs::read_to_string(folder.join("compared")).unwrap();
    let foreseen: BTreeSet<String> = findings.iter().filter_map(foreseen_difference).collect();
    let lines = compared.lines().filter(|line| *line != "nothing differs");
    let real: BTreeSet<String> = lines.map(real_difference).collect();
    let real = without_end_of_ghosts(real, &findings);
    assert_eq!(foreseen, real, "{findings:#?}\n{compared}");
}

/// Of a watch that is gone with its ghost an event is left, which stands for the same loss.
fn without_end_of_ghosts(mut real: BTreeSet<String>, findings: &[Value]) -> BTreeSet<String> {
    let is_ghost = |one: &&Value| one["why"].as_str().unwrap().contains("passing name");
    for ghost in findings.iter().filter(is_ghost) {
        real.remove(&format!("fd {}: unread", ghost["fd"]));
    }
    real
}

#[track_caller]
fn check_builtin(case: &Case) {
    let Some(folder) = follow(case, Path::new("/nonexistent"), BUILTIN) else {
        return;
    };
    let folder = folder.path();
    let findings = findings(folder, "builtin");
    check_effects(case, &findings);
    let said = fs::read_to_string(folder.join("said")).unwrap();
    if !succeeded(folder, "dump").unwrap() {
        let foreseen = findings.iter().any(|finding| {
            finding["effect"] == "dump-fails" && said.contains(finding["why"].as_str().unwrap())
        });
        assert!(foreseen, "{findings:#?}\n{said}");
        return;
    }
    assert!(!has(&findings, "dump-fails"), "{findings:#?}");
    let image: Value = serde_json::from_slice(&fs::read(folder.join("image")).unwrap()).unwrap();
    let losses = image["lost"].as_array().cloned().unwrap_or_default();
    let words = |one: &Value, why: &str| {
        let (object, why) = (one["object"].as_str().unwrap(), one[why].as_str().unwrap());
        // To foresee is to count the queue; what is in it only the dump reads.
        match (
            object.strip_suffix("unread events"),
            object.split_once(": "),
        ) {
            (Some(object), _) => format!("queue of {}", object.split(':').next().unwrap()),
            (None, Some((queue, _))) if queue.starts_with("queue of") => queue.to_owned(),
            (None, _) => format!("{object}: {why}"),
        }
    };
    let foreseen = |effect: &str| -> BTreeSet<String> {
        let own = findings.iter().filter(|one| one["effect"] == effect);
        own.map(|one| words(one, "why")).collect()
    };
    let mut real: BTreeSet<String> = losses.iter().map(|one| words(one, "reason")).collect();
    for perhaps in foreseen("may-be-lost") {
        real.remove(&perhaps);
    }
    let foreseen = foreseen("lost");
    assert_eq!(foreseen, real, "{image:#}");
}

macro_rules! cases {
    ($check:ident: $($name:ident $ground:ident $effects:expr, $what:expr;)*) => {
        $(
            #[test]
            fn $name() {
                $check(&Case { ground: $ground, what: $what, effects: &$effects });
            }
        )*
    };
}

use What::{Command as Real, Plan};

cases! { check_criu:
    criu_keeps_plain_watches TMPFS [], Plan("
mkdir(\"d\", 0755)
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"d\", IN_ALL_EVENTS) = 1
inotify_add_watch(n, \".\", IN_CREATE|IN_ONLYDIR) = 2
checkpoint
");
    criu_drops_unread_events TMPFS ["lost"], Plan("
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \".\", IN_CREATE) = 1
mkdir(\"d\", 0755)
mkdir(\"e\", 0755)
checkpoint
");
    criu_drops_flags_of_watches TMPFS ["lost"], Plan("
mkdir(\"d\", 0755)
mkdir(\"e\", 0755)
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"d\", IN_CREATE|IN_ONESHOT) = 1
inotify_add_watch(n, \"e\", IN_CREATE|IN_EXCL_UNLINK) = 2
inotify_add_watch(n, \".\", IN_CREATE) = 3
checkpoint
");
    criu_refuses_a_ghost_on_tmpfs TMPFS ["dump-fails"], Plan("
open(\"f\", O_RDWR|O_CREAT, 0644) = f
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"f\", IN_MODIFY) = 1
unlink(\"f\")
checkpoint
close(f)
");
    criu_loses_the_watch_on_a_ghost_on_a_disk DISK ["lost"], Plan("
open(\"f\", O_RDWR|O_CREAT, 0644) = f
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"f\", IN_MODIFY) = 1
unlink(\"f\")
checkpoint
close(f)
");
    criu_does_not_count_the_holes_of_a_ghost DISK ["lost"], Plan("
open(\"f\", O_RDWR|O_CREAT, 0644) = f
ftruncate(f, 2000000)
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"f\", IN_MODIFY) = 1
unlink(\"f\")
checkpoint
close(f)
");
    criu_refuses_a_large_ghost DISK ["dump-fails"], Plan("
open(\"f\", O_RDWR|O_CREAT, 0644) = f
fallocate(f, 0, 0, 2000000)
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"f\", IN_MODIFY) = 1
unlink(\"f\")
checkpoint
close(f)
");
    criu_refuses_an_open_file_that_lost_one_of_two_names DISK ["dump-fails"], Plan("
open(\"f\", O_RDWR|O_CREAT, 0644) = f
link(\"f\", \"g\")
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \".\", IN_CREATE) = 1
unlink(\"f\")
checkpoint
close(f)
");
    criu_refuses_while_a_superblock_is_busy BUSY ["dump-fails"], Plan(HOLDS_NOTHING);
    criu_cannot_restore_signals TMPFS ["restore-fails"], Plan("
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \".\", IN_CREATE) = 1
fcntl(n, F_SETFL, O_NONBLOCK|O_ASYNC)
checkpoint
");
    criu_cannot_restore_a_watch_for_nothing TMPFS ["restore-fails"], Plan("
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \".\", IN_EXCL_UNLINK) = 1
checkpoint
");
    criu_loses_filesystem_marks TMPFS ["lost"], Plan("
fanotify_init(FAN_CLASS_NOTIF|FAN_NONBLOCK|FAN_REPORT_FID, O_RDONLY) = n
fanotify_mark(n, FAN_MARK_ADD|FAN_MARK_FILESYSTEM, FAN_CREATE|FAN_ONDIR, AT_FDCWD, \".\")
checkpoint
");
    criu_keeps_inode_marks TMPFS [], Plan("
mkdir(\"d\", 0755)
fanotify_init(FAN_CLASS_NOTIF|FAN_NONBLOCK, O_RDONLY) = n
fanotify_mark(n, FAN_MARK_ADD, FAN_OPEN|FAN_EVENT_ON_CHILD, AT_FDCWD, \"d\")
checkpoint
");
    criu_cannot_restore_ignore_marks TMPFS ["restore-fails"], Plan("
mkdir(\"d\", 0755)
fanotify_init(FAN_CLASS_NOTIF|FAN_NONBLOCK, O_RDONLY) = n
fanotify_mark(n, FAN_MARK_ADD|FAN_MARK_IGNORE_SURV, FAN_OPEN, AT_FDCWD, \"d\")
checkpoint
");
    criu_may_find_what_lies_on_a_lower_layer OVERLAY ["by-version"], Plan("
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"d/f\", IN_MODIFY) = 1
checkpoint
");
    criu_keeps_inotifywait TMPFS [], Real("inotifywait -m -q . /srv", 2);
    criu_refuses_inotifywait_in_sys TMPFS ["dump-fails"], Real("inotifywait -m -q /sys/kernel", 1);
    criu_keeps_tail DISK [], Real("tail -F /etc/hostname", 2);
    criu_loses_the_mark_of_fatrace TMPFS ["lost"], Real("fatrace --current-mount", 1);
}

cases! { check_builtin:
    builtin_refuses_while_a_superblock_is_busy BUSY ["dump-fails"], Plan(HOLDS_NOTHING);
    builtin_keeps_events_flags_and_ghosts DISK [], Plan("
open(\"f\", O_RDWR|O_CREAT, 0644) = f
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"f\", IN_MODIFY|IN_ONESHOT) = 1
inotify_add_watch(n, \".\", IN_CREATE|IN_EXCL_UNLINK) = 2
mkdir(\"d\", 0755)
unlink(\"f\")
checkpoint
close(f)
");
    builtin_keeps_marks_of_all_kinds TMPFS [], Plan("
mkdir(\"d\", 0755)
fanotify_init(FAN_CLASS_NOTIF|FAN_NONBLOCK|FAN_REPORT_FID, O_RDONLY) = n
fanotify_mark(n, FAN_MARK_ADD|FAN_MARK_FILESYSTEM, FAN_CREATE|FAN_ONDIR, AT_FDCWD, \".\")
fanotify_mark(n, FAN_MARK_ADD|FAN_MARK_IGNORE_SURV, FAN_OPEN, AT_FDCWD, \"d\")
checkpoint
");
    builtin_may_lose_unread_events_of_a_filesystem_group TMPFS ["may-be-lost"], Plan("
fanotify_init(FAN_CLASS_NOTIF|FAN_NONBLOCK|FAN_REPORT_FID, O_RDONLY) = n
fanotify_mark(n, FAN_MARK_ADD|FAN_MARK_FILESYSTEM, FAN_CREATE|FAN_ONDIR, AT_FDCWD, \".\")
mkdir(\"d\", 0755)
checkpoint
");
    builtin_loses_unread_events_with_descriptors TMPFS ["lost"], Plan("
mkdir(\"d\", 0755)
fanotify_init(FAN_CLASS_NOTIF|FAN_NONBLOCK, O_RDONLY) = n
fanotify_mark(n, FAN_MARK_ADD, FAN_OPEN|FAN_ONDIR, AT_FDCWD, \"d\")
open(\"d\", O_RDONLY|O_DIRECTORY)
checkpoint
");
    builtin_may_lose_unread_events_on_a_disk DISK ["may-be-lost"], Plan("
mkdir(\"d\", 0755)
fanotify_init(FAN_CLASS_NOTIF|FAN_NONBLOCK|FAN_REPORT_FID, O_RDONLY) = n
fanotify_mark(n, FAN_MARK_ADD, FAN_CREATE|FAN_ONDIR, AT_FDCWD, \"d\")
mkdir(\"d/e\", 0755)
checkpoint
");
    builtin_wants_a_path_where_handles_lead_nowhere OVERLAY ["dump-fails"], Plan("
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"d/f\", IN_MODIFY) = 1
checkpoint
");
    builtin_refuses_a_group_that_a_running_child_has CHILD_RUNS ["dump-fails"], Plan("
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \".\", IN_CREATE) = 1
mknod(\"fifo\", S_IFIFO|0644)
open(\"fifo\", O_RDWR) = fifo
fork() = p
checkpoint
[p] read(fifo) = ?
");
    builtin_keeps_inotifywait TMPFS [], Real("inotifywait -m -q . /srv", 2);
    builtin_keeps_the_mark_of_fatrace TMPFS [], Real("fatrace --current-mount", 1);
}
