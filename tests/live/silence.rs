//! Being explained or captured goes unnoticed: by other watchers of the same objects, and by the
//! clock. Being recorded too, but by the process itself, which strace stops for a moment.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cr::sys::watch;
use fsnotify::inotify::Mask;

use super::programs::{Ground, Place, Running, explain, find, is_root, names, skip};

const NOTIFREEZE: &str = env!("CARGO_BIN_EXE_notifreeze");

/// Every path of a tree, parents first.
fn tree(root: &Path, into: &mut Vec<PathBuf>) {
    into.push(root.to_owned());
    if root.is_dir() {
        for entry in fs::read_dir(root).unwrap() {
            tree(&entry.unwrap().path(), into);
        }
    }
}

/// inotifywait, and a bystander that watches the same and everything around it.
struct Scene {
    place: Place,
    running: Running,
    objects: Vec<PathBuf>,
    bystander: OwnedFd,
}

impl Scene {
    /// None, with a word about it, where there is no inotifywait.
    fn set() -> Option<Self> {
        let program = find("inotifywait")?;
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
        let bystander = watch::init().unwrap();
        for object in objects.iter().chain([&place.path("").into()]) {
            watch::add_watch(
                bystander.as_fd(),
                object.as_os_str().as_bytes(),
                Mask::ALL_EVENTS,
            )
            .unwrap();
        }
        Some(Self {
            place,
            running,
            objects,
            bystander,
        })
    }

    /// The file that is watched, by both its names.
    fn both_names(&self) -> String {
        let path = |name| self.place.path(name);
        format!("{} = {}", path("dir/file"), path("dir/sub/other"))
    }

    #[track_caller]
    fn is_untouched(&self) {
        let unread = || watch::unread(self.bystander.as_fd());
        assert_eq!(unread(), Ok(0), "a bystander has heard");
        for object in &self.objects {
            let accessed = fs::symlink_metadata(object).unwrap().atime();
            assert_eq!(accessed, 0, "{}", object.display());
        }
        // The witness is awake.
        fs::read(self.place.path("dir/file")).unwrap();
        assert_ne!(unread(), Ok(0));
    }
}

#[test]
fn nobody_hears_that_a_process_is_explained() {
    let Some(scene) = Scene::set() else { return };
    let explanation = explain(scene.running.pid(), &["--tree"]);
    scene.is_untouched();
    let seen = names(&explanation);
    if is_root() {
        assert!(seen.contains(&scene.both_names()), "{seen:?}");
    }
}

#[test]
fn nobody_hears_that_a_process_is_captured() {
    let Some(scene) = Scene::set() else { return };
    let output = Command::new(NOTIFREEZE)
        .args(["capture", &scene.running.pid().to_string(), "--tree"])
        .output()
        .unwrap();
    scene.is_untouched();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*errors), (Some(0), ""));
    let text = String::from_utf8(output.stdout).unwrap();
    if is_root() {
        assert!(text.contains(&scene.both_names()), "{text}");
    }
}

#[test]
fn nobody_hears_that_a_running_process_is_recorded() {
    if !is_root() {
        return skip("to read files unheard takes root");
    }
    if find("strace").is_none() {
        return;
    }
    let Some(scene) = Scene::set() else { return };
    let pid = scene.running.pid().to_string();
    let mut recording = Command::new(NOTIFREEZE)
        .args(["record", "--root", &scene.place.path("dir"), "--pid", &pid])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut errors = BufReader::new(recording.stderr.take().unwrap());
    errors.read_line(&mut said).unwrap();
    assert_eq!(said, "recording inotifywait; Ctrl-C ends that\n");
    scene.running.end();
    errors.read_to_string(&mut said).unwrap();
    let output = recording.wait_with_output().unwrap();
    scene.is_untouched();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = "link(\"file\", \"sub/other\")\n";
    assert!(text.contains(line), "{text}");
}
