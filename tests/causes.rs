//! What headers say of CRIU's failures, held against what the snapshots record of them.
//!
//! A header is believed by whoever reads the ledger, so a cause has a mark in the words of CRIU or in
//! a difference. A header whose snapshot does not bear the mark of its cause is wrong, and a failure
//! that bears a mark has the header of that cause.

use std::iter;
use std::path::{Path, PathBuf};

use notifreeze::engine::{Criu, EngineSpec};
use notifreeze::gate;
use notifreeze::suite::{self, Case};

/// A cause, and what shows it: one of these patterns in a line. A `*` stands for any text.
struct Cause {
    why: &'static str,
    marks: &'static [&'static str],
}

const fn cause(why: &'static str, marks: &'static [&'static str]) -> Cause {
    Cause { why, marks }
}

/// Causes why a cut fails. Their marks are in the first line, which is the error that came first.
const FAILURES: &[Cause] = &[
    cause(
        "dump fails on tmpfs for a watch whose inode has no name: check_open_handle wants a path",
        &[
            "dump failed: *suitable path for handle (*(deleted) *",
            "dump failed: *suitable path for handle (an object without a known name *",
        ],
    ),
    cause(
        "dump fails on tmpfs where the path of a watched inode leads to another inode: a symbolic link \
         is followed, a mount covers it",
        &[
            "dump failed: *suitable path for handle (\"*\" (wd *",
            "dump failed: *suitable path for handle (\"*\" (mark *",
            "dump failed: *suitable path for handle (an object without a known name *",
        ],
    ),
    cause(
        "dump refuses a watch whose handle cannot be opened, as on procfs and most overlays: no other \
         way to the file is tried",
        &["dump failed: *Can't dump that handle: \"*"],
    ),
    cause(
        "dump opens no handle in a mount that another one covers",
        &["dump failed: *Can't dump that handle: an object without a known name *"],
    ),
    cause(
        "restore fails for a watch that dump kept by handle alone: it knows no mount to open the handle \
         by",
        &["restore failed: *Unable to open (null): No such file or directory"],
    ),
    cause(
        "dump takes an open file that a mount covers for one that lost its name",
        &["dump failed: Can't create link remap for *. Use link-remap option."],
    ),
    cause(
        "dump refuses an open file that lost its name but has another, unless --link-remap is given",
        &["dump failed: Can't create link remap for *. Use link-remap option."],
    ),
    cause(
        "restore gives all status flags of the group to inotify_init1, which refuses O_ASYNC",
        &["restore failed: *Can't create inotify for ?: Invalid argument"],
    ),
    cause(
        "restore_one_fanotify adds FAN_MARK_IGNORED_MASK to the flags of a FAN_MARK_IGNORE mark, and the \
         kernel refuses both",
        &["restore failed: *Adding fanotify ignored-mask *failed (-1)"],
    ),
    cause(
        "restore fails for a watch without event bits: inotify_add_watch gets mask 0",
        &["restore failed: *Can't add watch for ? with 0x*: Invalid argument"],
    ),
    cause(
        "CRIU hangs behind the permission events of the stopped subject, which opens of its own make",
        &[
            "dump failed: no end: it waits*",
            "restore failed: no end: it waits*",
        ],
    ),
    cause(
        "dump maps an open file to read a build id, and waits for a permission of the stopped listener",
        &["dump failed: no end: it waits*"],
    ),
    cause(
        "restore opens files of one process while another gets its marks back: it hangs if the permission \
         mark is first",
        &["restore failed: no end: it waits*"],
    ),
    cause(
        "dump refuses a ghost of more than 1 MiB unless --ghost-limit is raised",
        &["dump failed: Can't dump ghost file * increase limit"],
    ),
    cause(
        "restore_one_fanotify fails without a word for a mark whose masks are both empty",
        &["restore failed: Unable to open fd=* id=?"],
    ),
    cause(
        "dump refuses an open file that a mount has covered since",
        &[
            "dump failed: Unaccessible path opened *, need *",
            "dump failed: Can't create link remap for *. Use link-remap option.",
        ],
    ),
    cause(
        "dump fails for an open file whose mount is not in the mount table any more",
        &["dump failed: Can't lookup mount=? for fd=*"],
    ),
    cause(
        "restore asks for FAN_EVENT_ON_CHILD where the kernel sets it by itself and refuses it",
        &["restore failed: *Adding fanotify mask 0x8* failed (-1)"],
    ),
    cause(
        "dump asks an O_PATH descriptor of a fifo for the size of its pipe, which it does not tell",
        &["dump failed: Can't obtain piped data size"],
    ),
    cause(
        "dump takes an O_PATH descriptor of a socket file for a socket",
        &["dump failed: sockets: Can't get *Bad file descriptor"],
    ),
    cause(
        "dump cannot read the link of a descriptor with a path of more than a page",
        &["dump failed: Can't read link of fd ?: File name too long"],
    ),
];

/// Causes why something differs after a cut. Their marks are in lines that differ.
const DIFFERENCES: &[Cause] = &[
    cause(
        "dump maps each open file to look for a build id, which fills a hole on tmpfs",
        &["- fd *: blocks *changed *I9.5"],
    ),
    cause(
        "dump copies a ghost of up to three pages whole, so restore fills its holes",
        &["- fd * (deleted): blocks 0 *changed *I7.3"],
    ),
    cause(
        "space that was allocated for a ghost and never written is not in the image",
        &["- fd * (deleted): blocks *changed *I7.3"],
    ),
    cause(
        "dump reads each open file to look for a build id, which its access time shows",
        &["+ fd *: times atime changed by the cut"],
    ),
    cause(
        "a ghost's times come back without their nanoseconds: the image has microseconds",
        &["+ fd * (deleted): times atime and mtime changed by the cut"],
    ),
    cause(
        "restore makes a ghost again as NAME.cr.N.ghost in its old directory and removes it when the \
         watches are back",
        &[
            "+ *IN_DELETE \"*.cr.*.ghost\"*",
            "+ *FAN_DELETE*.cr.*.ghost\"*",
        ],
    ),
    cause(
        "restore links a ghost as NAME.cr_link where its name is taken, and it keeps that name",
        &["+ fd *: object \"*.cr_link\"*"],
    ),
    cause(
        "restore removes the directory that has the name of a removed one by now",
        &["- \"*\" S_IFDIR|* lost *I9.1"],
    ),
    cause(
        "dump takes a removed name for a link that is called like its text",
        &["+ wd=* \"* (deleted)\"*"],
    ),
    cause(
        "restore makes an O_TMPFILE file again as a named one that it removes",
        &["- fd *: flags *O_TMPFILE *changed*"],
    ),
    cause(
        "dump links the open file into its old directory, restore removes that link: who watches hears \
         both",
        &["+ *IN_DELETE \"link_remap.#\"*"],
    ),
    cause(
        "unread events are dropped: dump only warns of them",
        &["- *unread bytes *changed*"],
    ),
    cause(
        "the next wd is not in the image: restore leaves it behind the highest watch, so numbers are used \
         again",
        &["- inotify_add_watch(*outcome*", "- *: wd=*changed *wd"],
    ),
    cause(
        "restore_one_inotify masks each watch with IN_ALL_EVENTS, so IN_ONESHOT and IN_EXCL_UNLINK are \
         gone",
        &[
            "- *IN_ONESHOT*changed *mask",
            "- *IN_EXCL_UNLINK*changed *mask",
        ],
    ),
    cause(
        "restore adds watches in rising order of wd, not in the order that they were made in",
        &["- *wd=*reordered*"],
    ),
    cause(
        "restore makes a ghost again in whatever has the path of its old directory",
        &["+ wd=* IN_MODIFY *spurious *I5.1"],
    ),
    cause(
        "restore opens directories without O_DIRECTORY",
        &["- fd *: flags *O_DIRECTORY*changed*"],
    ),
    cause(
        "an epoll registration by a closed number is made again by another number of the same file",
        &["- fd *, epoll: interest fd *changed*"],
    ),
    cause(
        "restore adds a disarmed one-shot registration again, and EPOLL_CTL_ADD puts EPOLLERR and \
         EPOLLHUP in",
        &["+ fd *, epoll: interest fd *EPOLLERR|EPOLLHUP|EPOLLONESHOT*"],
    ),
    cause(
        "fdinfo lines of marks on a filesystem are skipped by parse_fdinfo, so the marks are gone",
        &["- *filesystem *lost*", "lost by dump: *a filesystem mark *"],
    ),
    cause(
        "fdinfo lines of marks on a mount namespace are skipped, so the marks are gone",
        &["- *mount namespace *lost*"],
    ),
    cause(
        "restore adds the marks of a mount while it still opens what is on it",
        &["+ *FAN_OPEN by main on *spurious*"],
    ),
    cause(
        "restore opens files of one process while another gets its marks back: the group hears it if the \
         mark is first",
        &["+ fd *, fanotify: unread bytes *"],
    ),
    cause(
        "the group hears dump and restore open files",
        &["+ *FAN_CLOSE_NOWRITE|FAN_OPEN by *spurious*"],
    ),
    cause(
        "neighbours hear dump and restore open files, directories and the roots of mounts",
        &["+ *bystander *IN_OPEN*spurious*"],
    ),
    cause(
        "the group is made again without FAN_ENABLE_AUDIT, so an answer with FAN_AUDIT is refused",
        &["+ write(*FAN_AUDIT*EINVAL"],
    ),
    cause(
        "init flags and status flags of a fanotify group are taken for one another",
        &["- fd *, fanotify: group flags *changed*"],
    ),
    cause(
        "restore sets FAN_MARK_IGNORED_SURV_MODIFY only along with an ignored mask",
        &["- *FAN_MARK_IGNORED_SURV_MODIFY *changed *flags"],
    ),
];

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (cases, unreadable) =
        suite::select(&[PathBuf::from(root).join("scenarios")], None).expect("the suite");
    assert!(unreadable.is_empty(), "{unreadable:?}");
    cases
}

fn criu() -> EngineSpec {
    EngineSpec::Criu(Criu::unprobed())
}

/// Reasons that the headers give, whatever the version, for CRIU in its plain flavour.
fn reasons(case: &Case) -> Vec<&str> {
    let known = case.scenario.known.iter();
    let own = known.filter(|known| known.engine == "criu");
    own.map(|known| known.why.as_str()).collect()
}

/// Whether a text is a pattern, in which `*` is any text.
fn fits(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        if index + 1 == parts.len() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// Whether a snapshot bears the mark of a cause.
fn shows(snapshot: &str, cause: &Cause) -> bool {
    let is_failure = is_failure(snapshot);
    let lines = snapshot.lines().map(str::trim);
    let lines: Box<dyn Iterator<Item = &str>> = if FAILURES.iter().any(|it| it.why == cause.why) {
        Box::new(lines.take(usize::from(is_failure)))
    } else {
        let is_mark = |line: &&str| {
            let is_difference = line.starts_with("- ") || line.starts_with("+ ");
            is_difference || line.starts_with("lost by ")
        };
        Box::new(lines.filter(is_mark))
    };
    lines
        .flat_map(|line| iter::repeat(line).zip(cause.marks))
        .any(|(line, mark)| fits(line, mark))
}

fn is_failure(snapshot: &str) -> bool {
    snapshot.starts_with("dump failed: ") || snapshot.starts_with("restore failed: ")
}

#[test]
fn every_cause_that_a_header_names_shows_in_its_snapshot() {
    let causes: Vec<&Cause> = FAILURES.iter().chain(DIFFERENCES).collect();
    let mut wrong = Vec::new();
    for case in cases() {
        let outcomes = gate::outcomes(&case, &criu());
        for reason in reasons(&case) {
            let Some(cause) = causes.iter().find(|cause| cause.why == reason) else {
                wrong.push(format!("{}: no mark is known of {reason:?}", case.name));
                continue;
            };
            if !outcomes.iter().any(|outcome| shows(outcome, cause)) {
                wrong.push(format!("{}: nothing shows {reason:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_failure_has_the_header_of_its_cause() {
    let mut wrong = Vec::new();
    for case in cases() {
        let reasons = reasons(&case);
        for outcome in gate::outcomes(&case, &criu()) {
            if !is_failure(&outcome) {
                continue;
            }
            let mut causes = FAILURES.iter().filter(|cause| shows(&outcome, cause));
            if !causes.any(|cause| reasons.contains(&cause.why)) {
                let line = outcome.lines().next().unwrap_or_default();
                wrong.push(format!("{}: no header says why: {line}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_cause_is_named_by_a_header() {
    let cases = cases();
    let named: Vec<&str> = cases.iter().flat_map(reasons).collect();
    for cause in FAILURES.iter().chain(DIFFERENCES) {
        assert!(named.contains(&cause.why), "{:?}: delete it", cause.why);
    }
}

#[test]
fn a_star_stands_for_any_text() {
    for (text, pattern, expected) in [
        ("dump failed: x for f", "dump failed: *for f", true),
        ("dump failed: x for f", "dump failed: *for g", false),
        ("dump failed: x for f", "x*", false),
        ("ab", "a*b", true),
        ("ab", "ab", true),
        ("abc", "ab", false),
    ] {
        assert_eq!(fits(text, pattern), expected, "{text:?} {pattern:?}");
    }
}
