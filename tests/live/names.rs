//! `explain` names what each program was told to watch: before and after a rename, after an
//! unlink, on a disk, on tmpfs, on overlayfs.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::programs::{Ground, Place, Running, explain, find, is_root, names, skip};

/// Grounds that this user can make.
fn grounds() -> Vec<Ground> {
    if is_root() {
        vec![Ground::Disk, Ground::Tmpfs, Ground::Overlay]
    } else {
        skip("mounting takes root: on the disk only");
        vec![Ground::Disk]
    }
}

/// tail takes overlayfs for a network filesystem and looks at files once a second.
fn local(grounds: &[Ground]) -> Vec<Ground> {
    let mut grounds = grounds.to_vec();
    grounds.retain(|ground| *ground != Ground::Overlay);
    grounds
}

#[track_caller]
fn check(running: &Running, ground: Ground, expected: &[String]) {
    let explanation = explain(running.pid(), &[]);
    let mut seen = names(&explanation);
    let mut expected = expected.to_vec();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "{ground:?}: {explanation:#}");
}

#[test]
fn inotifywait_is_followed_through_a_rename() {
    let Some(program) = find("inotifywait") else {
        return;
    };
    for ground in grounds() {
        let place = Place::on(ground);
        let paths = ["dir", "dir/file", "new", "new/file", "new/sub"].map(|name| place.path(name));
        let mut command = vec![program.to_str().unwrap(), "-m", "-q"];
        command.extend(paths.iter().map(String::as_str));
        let running = Running::start(&place, &command, 5);
        check(&running, ground, &paths);
        let rename = |from: &str, to: &str| {
            let (from, to) = (place.path(from), place.path(to));
            fs::rename(running.see(&from), running.see(&to)).unwrap();
        };
        rename("new/file", "new/renamed");
        rename("new", "moved");
        if !is_root() {
            // Only a handle leads to where things were moved.
            continue;
        }
        let moved = ["dir", "dir/file", "moved", "moved/renamed", "moved/sub"];
        let moved = moved.map(|name| place.path(name));
        check(&running, ground, &moved);
        fs::remove_dir(running.see(&moved[4])).unwrap();
        check(&running, ground, &moved[..4]);
    }
}

#[test]
fn tail_holds_what_was_removed_as_a_ghost() {
    let Some(program) = find("tail") else {
        return;
    };
    for ground in local(&grounds()) {
        let place = Place::on(ground);
        let file = place.path("dir/file");
        let command = [program.to_str().unwrap(), "--follow=descriptor", &file];
        let running = Running::start(&place, &command, 1);
        check(&running, ground, std::slice::from_ref(&file));
        fs::remove_file(running.see(&file)).unwrap();
        check(&running, ground, &[format!("ghost {file}")]);
    }
}

#[test]
fn tail_by_name_watches_the_file_and_its_directory() {
    let Some(program) = find("tail") else {
        return;
    };
    for ground in local(&grounds()) {
        let place = Place::on(ground);
        let command = [program.to_str().unwrap(), "-F", &place.path("dir/file")];
        let running = Running::start(&place, &command, 2);
        let expected = ["dir", "dir/file"].map(|name| place.path(name));
        check(&running, ground, &expected);
    }
}

#[test]
fn node_is_followed_through_a_rename_and_an_unlink() {
    let Some(program) = find("node") else {
        return;
    };
    for ground in grounds() {
        let place = Place::on(ground);
        let names = ["dir", "dir/sub", "new/sub", "new/file"];
        let expected = names.map(|name| place.path(name));
        // Holds the last one open.
        let script = "const fs = require('fs'), paths = process.argv.slice(1); \
                      fs.openSync(paths.at(-1)); \
                      for (const path of paths) fs.watch(path, () => {});";
        let mut command = vec![program.to_str().unwrap(), "-e", script];
        command.extend(expected.iter().map(String::as_str));
        let running = Running::start(&place, &command, 4);
        check(&running, ground, &expected);
        let [moved, file] = ["new/moved", "new/file"].map(|name| place.path(name));
        fs::remove_dir(running.see(&place.path("new/sub"))).unwrap();
        fs::rename(running.see(&file), running.see(&moved)).unwrap();
        check(
            &running,
            ground,
            &[expected[0].clone(), expected[1].clone(), moved.clone()],
        );
        fs::remove_file(running.see(&moved)).unwrap();
        let ghost = format!("ghost {moved}");
        check(
            &running,
            ground,
            &[expected[0].clone(), expected[1].clone(), ghost],
        );
    }
}

#[test]
fn incron_watches_its_tables_and_what_they_name() {
    let Some(program) = find("incrond") else {
        return;
    };
    if !is_root() {
        return skip("incrond runs as root");
    }
    for ground in grounds() {
        let place = Place::on(ground);
        let (tables, users) = (place.path("dir/sub"), place.path("dir"));
        let script = format!(
            "printf '%s\\n' 'system_table_dir = {tables}' 'user_table_dir = {users}' \
             'lockfile_dir = {users}' 'lockfile_name = lock' > {users}/conf; \
             echo '{users}/file IN_MODIFY true' > {tables}/table; \
             exec {} -n -f {users}/conf",
            program.display()
        );
        let running = Running::start(&place, &["sh", "-c", &script], 3);
        check(
            &running,
            ground,
            &[tables, users.clone(), format!("{users}/file")],
        );
    }
}

#[test]
fn fatrace_marks_the_mount_that_it_works_in() {
    let Some(program) = find("fatrace") else {
        return;
    };
    if !is_root() {
        return skip("fatrace takes root");
    }
    let place = Place::on(Ground::Tmpfs);
    let script = format!(
        "cd {} && exec {} --current-mount",
        place.path("dir"),
        program.display()
    );
    let running = Running::start(&place, &["sh", "-c", &script], 1);
    let explanation = explain(running.pid(), &[]);
    let group = &explanation["processes"][0]["groups"][0];
    assert_eq!(group["kind"], "fanotify", "{explanation:#}");
    let work = place.path("");
    let marks = group["marks"].as_array().unwrap();
    assert!(
        marks
            .iter()
            .any(|mark| mark["place"] == work.trim_end_matches('/')),
        "{explanation:#}"
    );
}

#[test]
fn udevd_watches_the_device_that_it_was_told_of() {
    let (Some(program), Some(_)) = (find("systemd-udevd"), find("udevadm")) else {
        return;
    };
    if !is_root() {
        return skip("systemd-udevd takes root");
    }
    if !Path::new("/sys/block/loop0/uevent").exists() {
        return skip("no loop device to tell it of");
    }
    // A /dev of its own: what it does to the node is done to no other.
    let place = Place::on(Ground::Disk);
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/udev && mount -t tmpfs none /dev && \
         mknod /dev/null c 1 3 && mknod /dev/loop0 b 7 0 && exec {}",
        program.display()
    );
    let running = Running::start(&place, &["sh", "-c", &script], 0);
    running.wait_for_group();
    let there = format!("--target={}", running.pid());
    let tell = |args: &[&str]| {
        let mut udevadm = Command::new("nsenter");
        udevadm.args([&there, "--mount", "udevadm"]).args(args);
        assert!(udevadm.status().unwrap().success(), "{args:?}");
    };
    tell(&["control", "--ping"]);
    tell(&["trigger", "--action=change", "--sysname-match=loop0"]);
    running.wait_for(1);
    check(&running, Ground::Tmpfs, &["/dev/loop0".to_owned()]);
    fs::rename(running.see("/dev/loop0"), running.see("/dev/moved")).unwrap();
    check(&running, Ground::Tmpfs, &["/dev/moved".to_owned()]);
}
