//! Filesystems on which a file handle leads nowhere, or elsewhere than one thinks; processes of other
//! users and in other namespaces.
//!
//! The program reads what to watch from a file, so that its command line does not give it away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::programs::{Ground, Place, Running, explain, find, is_root, names, skip, targets};

/// What led to each path: `handle`, `search`.
fn found_by(explanation: &Value) -> Vec<String> {
    let by = |target: &Value| {
        target["name"]["found_by"]
            .as_str()
            .unwrap_or("-")
            .to_owned()
    };
    targets(explanation).iter().map(by).collect()
}

/// Starts inotifywait on paths that stand in a file.
fn watching(place: &Place, paths: &[String]) -> Option<Running> {
    let program = find("inotifywait")?;
    let list = place.note("list", &(paths.join("\n") + "\n"));
    let program = program.to_str()?;
    let command = [program, "-m", "-q", "--fromfile", &list];
    Some(Running::start(place, &command, paths.len()))
}

/// Every path is named rightly, before and after a rename, and led to by what is said.
#[track_caller]
fn check(ground: Ground, tools: &[&str], by: &str) {
    if !is_root() {
        return skip("mounting takes root");
    }
    if tools.iter().any(|tool| find(tool).is_none()) {
        return;
    }
    let place = Place::on(ground);
    let paths = ["dir", "dir/file", "dir/sub"].map(|name| place.path(name));
    let Some(running) = watching(&place, &paths) else {
        return;
    };
    let explanation = explain(running.pid(), &[]);
    assert_eq!(names(&explanation), paths, "{ground:?}: {explanation:#}");
    assert_eq!(
        found_by(&explanation),
        [by; 3],
        "{ground:?}: {explanation:#}"
    );
    if ground.is_read_only() {
        return;
    }
    let [renamed, subdirectory] = ["dir/renamed", "dir/sub"].map(|name| place.path(name));
    fs::rename(running.see(&paths[1]), running.see(&renamed)).unwrap();
    fs::remove_dir(running.see(&subdirectory)).unwrap();
    let explanation = explain(running.pid(), &[]);
    let expected = [paths[0].clone(), renamed];
    assert_eq!(
        names(&explanation)[..2],
        expected,
        "{ground:?}: {explanation:#}"
    );
}

#[test]
fn on_xfs_handles_lead_to_paths() {
    check(Ground::Xfs, &["mkfs.xfs"], "handle");
}

#[test]
fn in_a_subvolume_of_btrfs_handles_lead_to_paths() {
    check(Ground::Btrfs, &["mkfs.btrfs", "btrfs"], "handle");
}

#[test]
fn on_a_mounted_image_handles_lead_to_paths() {
    check(Ground::Erofs, &["mkfs.erofs"], "handle");
    check(Ground::Squashfs, &["mksquashfs"], "handle");
}

#[test]
fn on_fuse_handles_lead_to_paths_while_the_server_knows_them() {
    check(Ground::Fuse, &["bindfs", "setpriv"], "handle");
}

#[test]
fn on_overlayfs_only_a_search_leads_to_paths() {
    // What is renamed leaves the lower layer and is another inode, as fdinfo goes on to show; so
    // nothing is renamed that lies there.
    if !is_root() {
        return skip("mounting takes root");
    }
    let place = Place::on(Ground::Overlay);
    let paths = ["dir", "dir/file", "dir/sub", "new", "new/file"].map(|name| place.path(name));
    let Some(running) = watching(&place, &paths) else {
        return;
    };
    let explanation = explain(running.pid(), &[]);
    assert_eq!(names(&explanation), paths, "{explanation:#}");
    // No handle of what lies on the lower layer alone can be opened.
    assert_eq!(
        found_by(&explanation)[..3],
        ["search"; 3],
        "{explanation:#}"
    );
    fs::rename(
        running.see(&paths[4]),
        running.see(&place.path("new/moved")),
    )
    .unwrap();
    let explanation = explain(running.pid(), &[]);
    assert_eq!(
        names(&explanation)[4],
        place.path("new/moved"),
        "{explanation:#}"
    );
}

#[test]
fn in_proc_and_sys_only_a_search_leads_to_paths() {
    if !is_root() {
        return skip("a search takes root");
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut groups = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields[2]
            .starts_with("cgroup")
            .then(|| format!("{}/cgroup.procs", fields[1]))
    });
    let cgroup = groups.next();
    if cgroup.is_none() {
        skip("no cgroup filesystem is mounted");
    }
    let status = format!("/proc/{}/status", std::process::id());
    let fixed = ["/proc/sys/kernel/hostname", &status, "/sys/kernel/mm"];
    let mut paths: Vec<String> = fixed.map(str::to_owned).to_vec();
    paths.extend(cgroup);
    let place = Place::on(Ground::Disk);
    let Some(running) = watching(&place, &paths) else {
        return;
    };
    let explanation = explain(running.pid(), &[]);
    assert_eq!(names(&explanation), paths, "{explanation:#}");
    assert_eq!(
        found_by(&explanation)[..3],
        ["search"; 3],
        "{explanation:#}"
    );
    // Without one, what is missing is said, and how to get it.
    let explanation = explain(running.pid(), &["--search-limit", "0"]);
    let name = &targets(&explanation)[0]["name"];
    assert_eq!(name["status"], "no-name", "{explanation:#}");
    assert!(
        name["why"]
            .as_str()
            .unwrap()
            .contains("no search was wanted")
    );
}

#[test]
fn a_process_in_another_pid_namespace_is_explained_by_its_number_here() {
    if !is_root() {
        return skip("namespaces take root");
    }
    let Some(program) = find("inotifywait") else {
        return;
    };
    let place = Place::on(Ground::Tmpfs);
    let paths = ["dir", "dir/file"].map(|name| place.path(name));
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let mut command = unshare.to_vec();
    command.extend([program.to_str().unwrap(), "-m", "-q"]);
    command.extend(paths.iter().map(String::as_str));
    let running = Running::start_tree(&place, &command, 2);
    let explanation = explain(running.pid(), &["--tree"]);
    assert_eq!(names(&explanation), paths, "{explanation:#}");
    assert_eq!(explanation["processes"][1]["elsewhere"], true);
}

/// A folder that everybody may enter, with the program in it.
fn for_everybody() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("notifreeze");
    let built = env!("CARGO_BIN_EXE_notifreeze");
    if fs::hard_link(built, &program).is_err() {
        fs::copy(built, &program).unwrap();
    }
    for name in ["dir", "dir/sub"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let path = program.to_str().unwrap().to_owned();
    (folder, path)
}

/// What explain says to a user.
fn explained_to(user: &str, notifreeze: &str, pid: i32) -> Output {
    Command::new("setpriv")
        .args([
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "--clear-groups",
        ])
        .args([notifreeze, "explain", "--json", &pid.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn who_may_not_look_at_a_process_is_told_so() {
    if !is_root() {
        return skip("changing users takes root");
    }
    let (Some(program), Some(_)) = (find("inotifywait"), find("setpriv")) else {
        return;
    };
    let (folder, notifreeze) = for_everybody();
    let path = folder.path().join("dir").to_str().unwrap().to_owned();
    let place = Place::on(Ground::Here);
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let watching = [program.to_str().unwrap(), "-m", "-q", &path];
    let plain = Running::start(&place, &[&user[..], &watching[..]].concat(), 1);
    // Root, and the user whose process it is.
    assert_eq!(
        names(&explain(plain.pid(), &[])),
        std::slice::from_ref(&path)
    );
    let own = explained_to("65534", &notifreeze, plain.pid());
    let errors = String::from_utf8_lossy(&own.stderr);
    assert_eq!(own.status.code(), Some(0), "{errors}");
    let explanation: Value = serde_json::from_slice(&own.stdout).unwrap();
    assert_eq!(names(&explanation), std::slice::from_ref(&path));
    // Another one.
    let other = explained_to("65533", &notifreeze, plain.pid());
    let errors = String::from_utf8_lossy(&other.stderr);
    assert_eq!(other.status.code(), Some(2), "{errors}");
    let reason = format!("process {} (inotifywait) may not be looked at", plain.pid());
    assert!(errors.contains(&reason), "{errors}");
    assert!(errors.contains("belongs to user 65534"), "{errors}");
    assert!(errors.contains("run this as root"), "{errors}");
    // The user's own process, where that user cannot go.
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    let command = [&user[..], &unshare[..], &watching[..]].concat();
    let Some(elsewhere) = Running::try_start(&place, &command, 1) else {
        return skip("users may not make user namespaces");
    };
    assert_eq!(names(&explain(elsewhere.pid(), &[])), [path]);
    let outside = explained_to("65534", &notifreeze, elsewhere.pid());
    let errors = String::from_utf8_lossy(&outside.stderr);
    assert_eq!(outside.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("lives in another mount namespace"),
        "{errors}"
    );
    assert!(errors.contains("nsenter --target"), "{errors}");
}
