//! Being explained goes unnoticed: by other watchers of the same objects, and by the clock.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cr::sys::watch;
use fsnotify::inotify::Mask;

use super::programs::{Ground, Place, Running, explain, find, names};

/// Every path of a tree, parents first.
fn tree(root: &Path, into: &mut Vec<std::path::PathBuf>) {
    into.push(root.to_owned());
    if root.is_dir() {
        for entry in fs::read_dir(root).unwrap() {
            tree(&entry.unwrap().path(), into);
        }
    }
}

#[test]
fn nobody_hears_that_a_process_is_explained() {
    let Some(program) = find("inotifywait") else {
        return;
    };
    let place = Place::on(Ground::Disk);
    let paths = ["dir", "dir/file", "dir/sub"].map(|name| place.path(name));
    let mut command = vec![program.to_str().unwrap(), "-m", "-q"];
    command.extend(paths.iter().map(String::as_str));
    let running = Running::start(&place, &command, 3);
    // A second name makes a search through the whole filesystem necessary.
    fs::hard_link(place.path("dir/file"), place.path("dir/sub/other")).unwrap();
    let mut objects = Vec::new();
    tree(Path::new(&place.path("")), &mut objects);
    // An old time of access would be renewed by any read.
    for object in &objects {
        let file = fs::File::open(object).unwrap();
        let old = std::time::UNIX_EPOCH;
        file.set_times(fs::FileTimes::new().set_accessed(old))
            .unwrap();
    }
    let group = watch::init().unwrap();
    for object in objects.iter().chain([&place.path("").into()]) {
        watch::add_watch(
            group.as_fd(),
            object.as_os_str().as_bytes(),
            Mask::ALL_EVENTS,
        )
        .unwrap();
    }
    let explanation = explain(running.pid(), &["--tree"]);
    assert_eq!(watch::unread(group.as_fd()), Ok(0), "a bystander has heard");
    for object in &objects {
        let accessed = fs::symlink_metadata(object).unwrap().atime();
        assert_eq!(accessed, 0, "{}", object.display());
    }
    let seen = names(&explanation);
    if nix::unistd::geteuid().is_root() {
        let both = format!(
            "{} = {}",
            place.path("dir/file"),
            place.path("dir/sub/other")
        );
        assert!(seen.contains(&both), "{seen:?}");
    }
    // The witness is awake.
    fs::read(place.path("dir/file")).unwrap();
    assert_ne!(watch::unread(group.as_fd()), Ok(0));
}
