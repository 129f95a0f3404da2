//! Replays what fuzzing has found and started from: every input of a target's corpus and every
//! regression, without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use notifreeze_fuzz::targets;

#[test]
fn every_input_of_the_corpora_holds() {
    for (name, target) in targets::ALL {
        let inputs = inputs_below(&folder("corpus", name));
        assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty");
        for path in inputs {
            replay(target, &path);
            if name == "fdinfo" {
                replay(targets::fdinfo_whole, &path);
            }
        }
    }
}

#[test]
fn every_regression_holds() {
    for (name, target) in targets::ALL {
        for path in inputs_below(&folder("regressions", name)) {
            replay(target, &path);
            if name == "fdinfo" {
                replay(targets::fdinfo_whole, &path);
            }
        }
    }
}

/// Inputs of the target that runs what it makes.
#[test]
fn every_input_of_live_holds() {
    let inputs = inputs_below(&folder("regressions", "live"));
    assert!(!inputs.is_empty(), "fuzz/regressions/live is empty");
    for path in inputs {
        let input = fs::read(&path).expect("an input is readable");
        let notifreeze = Path::new(env!("CARGO_BIN_EXE_notifreeze"));
        notifreeze::generate::live::check_live(&input, notifreeze);
    }
}

#[test]
fn every_capture_of_fdinfo_holds() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/fsnotify/test_data/fdinfo");
    for path in inputs_below(&captures) {
        replay(targets::fdinfo_whole, &path);
        replay(targets::fdinfo_oracle, &path);
    }
}

#[test]
fn every_folder_of_inputs_belongs_to_a_target() {
    for kind in ["corpus", "regressions"] {
        for path in entries(&folder(kind, "")) {
            let name = path.file_name().expect("an entry").to_string_lossy();
            let known = targets::ALL.iter().any(|(target, _)| *target == name);
            assert!(
                known || name == "live",
                "fuzz/{kind}/{name}: no such target"
            );
        }
    }
}

/// Runs a target; its panic follows the name of the file.
fn replay(target: fn(&[u8]), path: &Path) {
    let input = fs::read(path).expect("an input is readable");
    let outcome = std::panic::catch_unwind(|| target(&input));
    assert!(outcome.is_ok(), "{} does not hold", path.display());
}

fn folder(kind: &str, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("fuzz").join(kind).join(name)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// Files below a folder; none if it is not there.
fn inputs_below(folder: &Path) -> Vec<PathBuf> {
    let (folders, mut files): (Vec<_>, Vec<_>) =
        entries(folder).into_iter().partition(|path| path.is_dir());
    files.extend(folders.iter().flat_map(|folder| inputs_below(folder)));
    files.sort();
    files
}
