//! What cannot be kept, as `docs/losses.md` tells it: the page has every kind of loss that there is, and
//! each kind is made by something that runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cr::LossKind;
use notifreeze::case::{self, Options, Snapshot};
use notifreeze::engine::{EngineSpec, Policies};
use notifreeze::suite;
use verify::Verdict;

/// What makes a loss of a kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// A scenario under builtin.
    Builtin(&'static str),
    /// A scenario under classic.
    Classic(&'static str),
    /// A scenario under copy.
    Copy(&'static str),
    /// A test of cr: its file and its name.
    Test(&'static str, &'static str),
}

/// Tests of what a process may not do.
const ROOMS: &str = "harness/cr/tests/losses.rs";
/// Tests of ghosts in places that do not take everything.
const CORNERS: &str = "harness/cr/tests/corners/cases.rs";
/// Tests of reasons that take a queue which is given to them.
const PLANS: &str = "harness/cr/src/fanotify/forge/plan.rs";
const FORGED: &str = "harness/cr/tests/fanotify_forge.rs";
const GROUPS: &str = "harness/cr/tests/fanotify_groups.rs";
const QUEUES: &str = "harness/cr/tests/queue/kinds.rs";

const REFUSED: Maker = Maker::Test(PLANS, "a_refused_queue_has_a_kind");
const LINK: Maker = Maker::Classic("inotify/ghost-name_taken_by_link");

fn maker(kind: LossKind) -> Maker {
    use Maker::{Builtin, Classic, Copy, Test};
    match kind {
        LossKind::ForeignOwner => Test(ROOMS, "an_owner_that_is_not_dumped_may_be_told_no_more"),
        LossKind::FiredInterest => Builtin("inotify/epoll-oneshot_fired_in_fifo"),
        LossKind::NextWatch | LossKind::WindowUnknown => Test(
            ROOMS,
            "who_may_watch_no_more_declares_what_a_watch_would_tell",
        ),
        LossKind::IgnoredMask => Builtin("fanotify/ignore-old_while_open_for_writing"),
        LossKind::EmptiedMark => Builtin("fanotify/ignore-new_emptied_cannot_be_made"),
        LossKind::EndedMark => Builtin("fanotify/queue-event_keeps_removed_file"),
        LossKind::QueueDropped => Classic("inotify/queue-blocking_group"),
        LossKind::CookieChanged => Builtin("inotify/queue-rename_cut_in_two"),
        LossKind::RenameParted => Test(QUEUES, "the_parted_halves_of_a_rename_are_declared"),
        LossKind::OverflowAdded => Test(
            QUEUES,
            "an_exactly_full_queue_gets_an_overflow_event_and_says_so",
        ),
        LossKind::WindowHeard => Test(
            "harness/cr/tests/queue/live.rs",
            "an_event_in_the_window_is_declared_and_one_before_it_is_kept",
        ),
        LossKind::DescriptorEvents => Builtin("fanotify/queue-descriptors_unread"),
        LossKind::MountEvents | LossKind::MountOverflow => Test(
            GROUPS,
            "events_about_mounts_are_declared_and_so_is_their_overflow",
        ),
        LossKind::OverflowedEvents => Test(FORGED, "what_cannot_be_made_again_is_declared"),
        LossKind::FailedRehearsal => Test(FORGED, "what_fails_when_it_is_tried_is_declared"),
        LossKind::LongQueue
        | LossKind::UnseenMaker
        | LossKind::UnknownEvent
        | LossKind::MergingEvents => REFUSED,
        LossKind::UnprivilegedQueue => Test(ROOMS, "an_unprivileged_group_loses_its_queue"),
        LossKind::LivingMaker => Builtin("fanotify/queue-of_living_child_on_ext4"),
        LossKind::ForeignObject => Builtin("fanotify/queue-handles_unread"),
        LossKind::NewDirectory => Builtin("fanotify/queue-new_directory_by_target_on_ext4"),
        LossKind::ClosedBesideParked => Test(ROOMS, "groups_parked_alone_hear_the_rest_closed"),
        LossKind::FifoContent | LossKind::FifoEvents => Builtin("inotify/fifo-content"),
        LossKind::EdgeInDoubt => Builtin("inotify/epoll-edges_in_doubt"),
        LossKind::UnwrittenPages => Test(
            ROOMS,
            "unwritten_pages_of_a_ghost_that_nobody_has_open_are_somewhere",
        ),
        LossKind::GhostOpened => Test(ROOMS, "a_ghost_that_nobody_reads_is_heard_opened"),
        LossKind::GhostDirectory => Builtin("inotify/ghost-fifo_in_replaced_directory"),
        LossKind::OthersDirectory => Test(
            ROOMS,
            "a_ghost_in_the_directory_of_another_changes_its_times",
        ),
        LossKind::UnnamedNumber => Builtin("inotify/queue-tmpfile_merges_with_tail"),
        LossKind::HiddenAttribute => Test(
            CORNERS,
            "an_attribute_that_its_owner_may_not_read_is_declared",
        ),
        LossKind::InodeFlags => Test(CORNERS, "what_a_user_may_not_set_is_declared"),
        LossKind::DirectorySize => Builtin("inotify/ghost-directory_replaced_on_ext4"),
        LossKind::TmpfileFlag => Builtin("inotify/descriptor-tmpfile_named_before"),
        LossKind::SymlinkAccess => Copy("inotify/ghost-symlink"),
        LossKind::HardlinkUnread
        | LossKind::HardlinkHeard
        | LossKind::HardlinkName
        | LossKind::HardlinkNoise
        | LossKind::HardlinkDirectory => LINK,
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn the_page_has_every_kind_and_what_makes_it() {
    let page = read("docs/losses.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let told: Vec<[&str; 4]> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, invariant, what, why, instead, made_by] = cells[..] else {
                panic!("not six cells: {row}");
            };
            assert!(
                !why.is_empty() && !instead.is_empty(),
                "{name} lacks a word"
            );
            [name, invariant, what, made_by]
        })
        .collect();
    let kinds = LossKind::ALL.iter();
    let expected: Vec<[String; 4]> = kinds
        .map(|&kind| {
            let made_by = match maker(kind) {
                Maker::Builtin(name) => format!("`{name}`"),
                Maker::Classic(name) => format!("`{name}` under classic"),
                Maker::Copy(name) => format!("`{name}` under copy"),
                Maker::Test(file, _) => format!("`{file}`"),
            };
            let (name, invariant) = (format!("`{kind}`"), format!("I{}", kind.invariant()));
            [name, invariant, kind.what().to_owned(), made_by]
        })
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn every_kind_is_made_by_a_scenario_or_asked_for_by_a_test() {
    for &kind in LossKind::ALL {
        let (name, engine) = match maker(kind) {
            Maker::Test(file, test) => {
                let text = read(file);
                assert!(text.contains(test), "{file} has no test {test}");
                let variant = format!("LossKind::{kind:?}");
                assert!(text.contains(&variant), "{file} does not ask for {variant}");
                continue;
            }
            Maker::Builtin(name) => (name, EngineSpec::Builtin),
            Maker::Classic(name) => (name, EngineSpec::with(Policies::CLASSIC)),
            Maker::Copy(name) => (name, EngineSpec::Copy),
        };
        if let Some(declared) = declared(name, &engine) {
            assert!(
                declared.contains(kind.name()),
                "{name} makes {declared:?} and not {kind}"
            );
        }
    }
}

/// The kinds of loss that a scenario comes to; none where this machine cannot run it.
fn declared(name: &str, engine: &EngineSpec) -> Option<BTreeSet<String>> {
    let file = root().join(format!("scenarios/{name}.scn"));
    let (cases, _) = suite::select(&[file], None).expect("a scenario");
    let [case] = &cases[..] else {
        panic!("{name} is {} scenarios", cases.len());
    };
    let options = Options {
        snapshot: Snapshot::Ignore,
        ..Options::default()
    };
    let notifreeze = Path::new(env!("CARGO_BIN_EXE_notifreeze"));
    let report = case::run(case, engine, notifreeze, &options);
    if let Verdict::Skip(reason) = &report.verdict {
        let strict = std::env::var_os("NOTIFREEZE_STRICT").is_some_and(|value| value == "1");
        assert!(!strict, "{name}: skipped: {reason}");
        eprintln!("{name}: skipped: {reason}");
        return None;
    }
    let kinds = report.losses.into_iter().filter_map(|loss| loss.kind);
    Some(kinds.collect())
}

/// The list is of what is declared: no kind is left over.
#[test]
fn every_kind_is_declared_somewhere() {
    let mut text = String::new();
    let mut folders = vec![root().join("harness/cr/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("loss.rs") {
                let source = fs::read_to_string(&path).expect("a source");
                // Tests are last in a file.
                text.push_str(source.split("#[cfg(test)]").next().unwrap_or_default());
            }
        }
    }
    let is_left_over = |kind: &&LossKind| !text.contains(&format!("LossKind::{kind:?}"));
    let left_over: Vec<_> = LossKind::ALL.iter().filter(is_left_over).collect();
    assert!(left_over.is_empty(), "nothing declares {left_over:?}");
}
