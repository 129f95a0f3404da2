//! `explain` names what each program was told to watch: before and after a rename, after an
//! unlink, on a disk, on tmpfs, on overlayfs.

use std::fs;

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
        check(&running, ground, &moved.map(|name| place.path(name)));
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
fn node_watches_a_tree_directory_by_directory() {
    let Some(program) = find("node") else {
        return;
    };
    for ground in grounds() {
        let place = Place::on(ground);
        let expected = ["dir", "dir/sub", "dir/file"].map(|name| place.path(name));
        let script = "for (const path of process.argv.slice(1)) \
                      require('fs').watch(path, () => {}); setInterval(() => {}, 1e6);";
        let mut command = vec![program.to_str().unwrap(), "-e", script];
        command.extend(expected.iter().map(String::as_str));
        let running = Running::start(&place, &command, 3);
        check(&running, ground, &expected);
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
fn udevd_is_followed_to_its_rules() {
    let Some(program) = find("systemd-udevd") else {
        return;
    };
    if !is_root() {
        return skip("systemd-udevd takes root");
    }
    let place = Place::on(Ground::Disk);
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/udev /etc/udev/rules.d && exec {}",
        program.display()
    );
    let running = Running::start(&place, &["sh", "-c", &script], 0);
    running.wait_for_group();
    let seen = names(&explain(running.pid(), &[]));
    // Which devices it watches differs between machines; that each is named does not.
    assert!(
        seen.iter()
            .all(|name| name.contains("udev") || name.starts_with("/dev")),
        "{seen:?}"
    );
}
