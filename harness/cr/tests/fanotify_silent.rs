//! The silent open against a real kernel: what it hands out, and that nobody hears of it.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use cr::silent::{Access, Asking, SilentErrorKind, asks, open};
use cr::sys::fanotify::{Target, fanotify_init, fanotify_mark};
use cr::sys::{inspect, raw};

/// An inotify instance that hears everything about `paths`.
fn listen(paths: &[&Path]) -> i32 {
    let group = raw::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC).unwrap();
    let group = i32::try_from(group).unwrap();
    for path in paths {
        raw::inotify_add_watch(group, &c_path(path), libc::IN_ALL_EVENTS).unwrap();
    }
    group
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn link_of(file: &File) -> CString {
    CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

fn not_permitted(test: &str) -> bool {
    let denied = fanotify_init(libc::FAN_CLASS_PRE_CONTENT, 0).is_err();
    if denied {
        eprintln!("skip {test}: fanotify permission events need root");
        let refused = open(c".", Access::Read).unwrap_err();
        assert_eq!(refused.kind(), SilentErrorKind::NotPermitted);
    }
    denied
}

#[test]
fn a_ghost_held_for_writing_is_read_unheard() {
    if not_permitted("a_ghost_held_for_writing_is_read_unheard") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ghost");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o000)
        .open(&path)
        .unwrap();
    file.write_all(b"content").unwrap();
    let group = listen(&[dir.path(), &path]);
    std::fs::remove_file(&path).unwrap();
    let mut heard = vec![0; 4096];
    raw::read(group, &mut heard).unwrap();
    let before = file.metadata().unwrap();

    let silent = open(&link_of(&file), Access::ReadWrite).unwrap();
    let mut content = [0; 16];
    assert_eq!(raw::pread(silent.as_raw_fd(), &mut content, 0), Ok(7));
    assert_eq!(&content[..7], b"content");
    let after = file.metadata().unwrap();
    assert_eq!(after.atime_nsec(), before.atime_nsec());
    raw::pwrite(silent.as_raw_fd(), b"C", 0).unwrap();
    drop(silent);
    assert_eq!(raw::unread(group), Ok(0));

    let silent = open(&link_of(&file), Access::Read).unwrap();
    raw::pread(silent.as_raw_fd(), &mut content, 0).unwrap();
    assert_eq!(&content[..7], b"Content");
    raw::close(group).unwrap();
}

#[test]
fn a_directory_is_listed_unheard() {
    if not_permitted("a_directory_is_listed_unheard") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("entry")).unwrap();
    let group = listen(&[dir.path()]);
    let silent = open(&c_path(dir.path()), Access::Read).unwrap();
    let mut entries = [0; 1024];
    let n_read = usize::try_from(raw::getdents64(silent.as_raw_fd(), &mut entries).unwrap());
    let listed = &entries[..n_read.unwrap()];
    assert!(listed.windows(5).any(|name| name == b"entry"));
    drop(silent);
    assert_eq!(raw::unread(group), Ok(0));
    raw::close(group).unwrap();
}

#[test]
fn what_no_listener_is_asked_about_is_refused_unopened() {
    if not_permitted("what_no_listener_is_asked_about_is_refused_unopened") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    raw::mknod(&c_path(&fifo), libc::S_IFIFO | 0o600, 0).unwrap();
    let group = listen(&[&fifo]);
    let refused = |path: &CStr| open(path, Access::Read).unwrap_err().kind();
    assert_eq!(refused(&c_path(&fifo)), SilentErrorKind::Unsupported);
    assert_eq!(refused(c"/dev/null"), SilentErrorKind::Unsupported);
    assert_eq!(raw::unread(group), Ok(0));
    assert_eq!(
        refused(c"/proc/self/status"),
        SilentErrorKind::Call("fanotify_mark", nix::errno::Errno::EINVAL)
    );
    raw::close(group).unwrap();
}

/// A listener of `class` on `path` that never answers, like one in a frozen process.
fn frozen_listener(class: u32, path: &CStr) -> OwnedFd {
    let group = fanotify_init(class | libc::FAN_CLOEXEC, 0).unwrap();
    fanotify_mark(
        &group,
        libc::FAN_MARK_ADD,
        libc::FAN_OPEN_PERM,
        Target::Path(path),
    )
    .unwrap();
    group
}

#[test]
fn a_frozen_listener_does_not_hold_us() {
    if not_permitted("a_frozen_listener_does_not_hold_us") {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = c_path(file.path());
    let frozen = frozen_listener(libc::FAN_CLASS_CONTENT, &path);
    let group = listen(&[file.path()]);
    drop(open(&path, Access::Read).unwrap());
    assert_eq!(inspect::unread(&frozen), Ok(0), "it was not even asked");

    // Of our own class: whoever is asked first, there is an end.
    let frozen_too = frozen_listener(libc::FAN_CLASS_PRE_CONTENT, &path);
    match open(&path, Access::Read) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), SilentErrorKind::Blocked, "{error}"),
    }
    assert_eq!(raw::unread(group), Ok(0));
    drop(frozen_too);
    raw::close(group).unwrap();
}

#[test]
fn whether_a_file_asks_is_found_unheard_and_made_again() {
    if not_permitted("whether_a_file_asks_is_found_unheard_and_made_again") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "content").unwrap();
    for (path, directory) in [(path.as_path(), false), (dir.path(), true)] {
        let without = File::open(path).unwrap();
        let asking = Asking::on(&c_path(path), directory).unwrap();
        let with = File::open(path).unwrap();
        drop(asking);
        let group = listen(&[dir.path(), path]);
        let before = without.metadata().unwrap();
        // Before 6.14 every file asks, whoever listened when it was opened.
        let old_kernel = asks(&without, directory).unwrap();
        assert_eq!(asks(&with, directory), Ok(true));
        assert_eq!(asks(&without, directory), Ok(old_kernel));
        assert_eq!(raw::unread(group), Ok(0));
        let after = without.metadata().unwrap();
        assert_eq!(after.atime_nsec(), before.atime_nsec());
        raw::close(group).unwrap();
        if old_kernel {
            eprintln!("this kernel asks about every file");
        }
    }
}
