//! `notifreeze dump --only-fsnotify` of a process, and `notifreeze restore -- COMMAND`: the command has
//! the groups at their numbers, with their watches and what was unread.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const NOTIFREEZE: &str = env!("CARGO_BIN_EXE_notifreeze");

const PLAN: &str = "\
# A group with unread events.
mkdir(\"dir\", 0755)
open(\"dir/a\", O_RDWR|O_CREAT, 0644) = a
inotify_init1(IN_NONBLOCK) = n
inotify_add_watch(n, \"dir\", IN_CREATE|IN_DELETE) = 1
inotify_add_watch(n, \"dir/a\", IN_MODIFY) = 2
open(\"dir/b\", O_RDWR|O_CREAT, 0644)
write(a, \"x\")
checkpoint
";

/// What a shell sees of a group: its watches, and the bytes that are read from it.
const LOOK: &str =
    "grep ^inotify /proc/$$/fdinfo/4; dd bs=4096 count=1 <&4 2>/dev/null | od -An -tx1";

/// Ends with the test, whatever that comes to.
struct Subject(Child);

impl Subject {
    /// Below the folder, in `w`, parked.
    fn start(folder: &Path, plan: &str) -> Self {
        let path = |name: &str| folder.join(name);
        std::fs::create_dir(path("w")).expect("a folder");
        std::fs::write(path("plan"), plan).expect("a plan");
        std::fs::write(path("log"), "").expect("a log");
        let subject = Command::new(NOTIFREEZE)
            .arg("subject")
            .args([path("plan"), path("log")])
            .current_dir(path("w"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the subject");
        let subject = Self(subject);
        let status = waitpid(subject.pid(), Some(WaitPidFlag::WUNTRACED));
        assert!(matches!(status, Ok(WaitStatus::Stopped(..))), "{status:?}");
        subject
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether this is root; says so where it is not.
fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("needs root: a queue is rebuilt on a mount");
    }
    is_root
}

fn skip(reason: &str) {
    let strict = std::env::var_os("NOTIFREEZE_STRICT").is_some_and(|value| value == "1");
    assert!(!strict, "{reason}");
    eprintln!("skip: {reason}");
}

/// What the page shows is what its commands print.
#[test]
fn the_example_of_the_page_works() {
    if !is_root() {
        return;
    }
    if Command::new("inotifywait").arg("--help").output().is_err() {
        return skip("there is no inotifywait");
    }
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/by_hand.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let blocks = indented_blocks(&page);
    let [commands, shown, ..] = &blocks[..] else {
        panic!("the page has an example and what it shows");
    };
    // A busy machine may take longer until there is a watch.
    let pause = "sleep 0.5";
    assert!(commands.contains(pause), "{commands}");
    let until = "until grep -qs '^inotify wd' /proc/$pid/fdinfo/*; do :; done";
    let commands = commands.replace(pause, until);
    let folder = tempfile::tempdir().expect("a folder");
    let programs = Path::new(NOTIFREEZE).parent().expect("a folder");
    let path = std::env::var("PATH").expect("PATH");
    let output = Command::new("bash")
        .args(["-e", "-c", &commands])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", programs.display()))
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let in_folder = format!("{}/srv", folder.path().display());
    let printed = printed.replace(&in_folder, "/tmp/srv");
    // The number of a process is another each time.
    let numberless = |text: &str| {
        let (_, rest) = text.split_once("process ").expect("a process");
        rest.trim_start_matches(|digit: char| digit.is_ascii_digit())
            .to_owned()
    };
    let (printed, shown) = (numberless(&printed), numberless(shown));
    assert!(printed.starts_with(&shown), "{shown}\nis not in\n{printed}");
    let n_names = printed.matches("f   i   l   e").count();
    assert_eq!(n_names, 4, "{printed}");
    assert!(printed.contains("inotify wd:1 "), "{printed}");
}

/// The blocks of a page that stand four blanks in.
fn indented_blocks(page: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in page.lines() {
        let block = blocks.last_mut().expect("one at least");
        match line.strip_prefix("    ") {
            Some(text) => *block += &format!("{text}\n"),
            None if block.is_empty() => {}
            None => blocks.push(String::new()),
        }
    }
    blocks
}

const GHOSTS: &str = "\
# A group that watches a file without a name, and one that nobody watches.
open(\"watched\", O_RDWR|O_CREAT, 0600) = 3
open(\"left\", O_RDWR|O_CREAT, 0600) = 4
inotify_init1(0) = 5
inotify_add_watch(5, \"watched\", IN_MODIFY) = 1
unlink(\"watched\")
unlink(\"left\")
checkpoint
";

#[test]
fn a_file_without_a_name_is_taken_if_a_group_watches_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let subject = Subject::start(folder.path(), GHOSTS);
    let images = folder.path().join("images");
    let dumped = Command::new(NOTIFREEZE)
        .args(["dump", "--only-fsnotify", "--images"])
        .args([images.as_os_str(), subject.pid().to_string().as_ref()])
        .output()
        .expect("notifreeze");
    let said = String::from_utf8_lossy(&dumped.stderr);
    assert!(dumped.status.success(), "{said}");
    let image = cr::Image::read(&images.join("image.nf")).expect("an image");
    let fds: Vec<i32> = image.processes[0]
        .descriptors
        .iter()
        .map(|it| it.fd)
        .collect();
    assert_eq!(fds, [3, 5]);
    let mode = std::fs::metadata(images.join("image.nf"))
        .expect("an image")
        .mode();
    assert_eq!(
        mode & 0o777,
        0o600,
        "who may not read the file reads its content"
    );
}

#[test]
fn a_command_starts_with_the_groups_of_a_process() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut subject = Subject::start(folder.path(), PLAN);
    let pid = subject.pid();
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/4")).expect("fdinfo");
    // Counted from where the command is started, wherever a dump goes to.
    let images = "images";
    let run = |arguments: &[&str]| {
        let output = Command::new(NOTIFREEZE)
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .expect("notifreeze");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (dir, file) = (path("w/dir"), path("w/dir/a"));
    let text = |path: &Path| path.to_str().expect("a path of letters").to_owned();
    let pid = pid.to_string();
    let mut dump = vec!["dump", &pid, "--only-fsnotify", "--images", images];
    let (dir, file) = (text(&dir), text(&file));
    dump.extend(["--path", &dir, "--path", &file]);
    run(&dump);
    subject.0.wait().expect("its end");
    let seen = run(&["restore", "--images", images, "--", "sh", "-c", LOOK]);
    let watches = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("inotify "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(watches(&seen), watches(&info));
    let bytes: Vec<u8> = seen
        .lines()
        .filter(|line| !line.starts_with("inotify "))
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect();
    let (created, modified) = (nix::libc::IN_CREATE, nix::libc::IN_MODIFY);
    let events = fsnotify::event::inotify::Events::new(&bytes).map(|event| {
        let event = event.expect("an event");
        (event.wd.map(fsnotify::Wd::number), event.mask.0, event.name)
    });
    let expected: [(Option<i32>, u32, &[u8]); 2] =
        [(Some(1), created, b"b"), (Some(2), modified, b"")];
    assert_eq!(events.collect::<Vec<_>>(), expected);
}
