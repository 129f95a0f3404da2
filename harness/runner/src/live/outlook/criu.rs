//! What CRIU would make of it: the rules of its fsnotify code, by name of the function that holds
//! each. The scenarios in `scenarios/criu` and the snapshots in `snapshots/criu` show them at work.

use std::fs;
use std::os::unix::fs::MetadataExt;

use fsnotify::fanotify::{InitFlags, MarkFlags};
use fsnotify::inotify::Mask;

use super::{Effect, Finding, Outlook};
use crate::engine::{Criu, is_newer};
use crate::live::explain::{Group, GroupKind, Mark, MarkOn, Process, Watch};
use crate::live::place::{HandleResult, Name, Target, lacks_privilege};

/// The newest version that these rules were held against.
const KNOWN: &str = "4.2.1";
/// The default of `--ghost-limit`.
const GHOST_LIMIT: u64 = 1 << 20;
/// Where `irmap_lookup` searches without being asked.
const HINTS: [&str; 7] = [
    "/etc",
    "/var/spool",
    "/var/log",
    "/usr/share/dbus-1/system-services",
    "/var/lib/polkit-1/localauthority",
    "/usr/share/polkit-1/actions",
    "/lib/udev",
];

/// Says what CRIU would do, of the version that is here, or else of the newest that is known.
#[must_use]
pub fn of_criu(processes: &[Process], criu: &Criu) -> Outlook {
    let version = criu.probe.clone().ok();
    let rules = Rules {
        resolves_overlayfs: version
            .as_deref()
            .is_some_and(|version| is_newer(version, KNOWN)),
    };
    let mut findings = Vec::new();
    for process in processes {
        for group in &process.groups {
            rules.group(process.pid, group, &mut findings);
        }
        open_files(process, &mut findings);
    }
    let note = match &criu.probe {
        Ok(_) => "criu dump and restore: file notification only".to_owned(),
        Err(reason) => format!("no usable CRIU here ({reason}); this is what {KNOWN} does"),
    };
    Outlook {
        engine: "criu",
        version,
        note,
        findings,
    }
}

struct Rules {
    /// Newer than 4.2.1, `check_open_handle` looks for a path where overlayfs opens no handle.
    resolves_overlayfs: bool,
}

/// Where a finding is put.
struct At<'a> {
    pid: i32,
    fd: i32,
    object: Option<String>,
    findings: &'a mut Vec<Finding>,
}

impl At<'_> {
    fn add(&mut self, effect: Effect, why: &str, advice: Option<String>) {
        self.findings.push(Finding {
            effect,
            pid: self.pid,
            fd: Some(self.fd),
            object: self.object.clone(),
            why: why.to_owned(),
            advice,
        });
    }
}

impl Rules {
    fn group(&self, pid: i32, group: &Group, findings: &mut Vec<Finding>) {
        let fd = group.fd;
        let mut at = At {
            pid,
            fd,
            object: None,
            findings,
        };
        if let Some(unread @ 1..) = group.unread_bytes {
            at.object = Some(format!("{unread} bytes of unread events"));
            at.add(
                Effect::Lost,
                "the dump warns of unread events and drops them",
                Some("checkpoint when the program has read them, or have it rescan".to_owned()),
            );
            at.object = None;
        }
        match group.kind {
            GroupKind::Inotify => {
                if group.status_flags.contains("O_ASYNC") {
                    at.add(
                        Effect::RestoreFails,
                        "it gives all status flags to inotify_init1, which refuses O_ASYNC",
                        Some("let the program clear O_ASYNC, or poll instead".to_owned()),
                    );
                }
                for watch in &group.watches {
                    at.object = Some(format!("wd {} on {}", watch.wd, called(&watch.target)));
                    self.watch(watch, &mut at);
                }
            }
            GroupKind::Fanotify => self.fanotify(group, &mut at),
        }
    }

    fn watch(&self, watch: &Watch, at: &mut At<'_>) {
        self.target(&watch.target, at);
        let bits = watch.bits;
        if bits.0 & Mask::ALL_EVENTS.0 == 0 {
            at.add(
                Effect::RestoreFails,
                "the watch asks for no event, and inotify_add_watch refuses such a mask",
                None,
            );
        }
        for (flag, name) in [
            (Mask::ONESHOT, "IN_ONESHOT"),
            (Mask::EXCL_UNLINK, "IN_EXCL_UNLINK"),
        ] {
            if bits.contains(flag) {
                let why = format!("restore_one_inotify drops {name}");
                at.add(Effect::Lost, &why, None);
            }
        }
    }

    /// `check_open_handle` at dump, `get_mark_path` at restore.
    fn target(&self, target: &Target, at: &mut At<'_>) {
        let Some(handle) = &target.handle else {
            at.add(
                Effect::DumpFails,
                "fdinfo shows no file handle, and parse_fdinfo wants one",
                Some("try again: the filesystem may be busy with a mount or a freeze".to_owned()),
            );
            return;
        };
        let filesystem = target.filesystem.as_deref();
        let is_tmpfs = matches!(filesystem, Some("tmpfs" | "devtmpfs"));
        match (&handle.result, &target.name) {
            (result, _) if lacks_privilege(result) => {}
            (HandleResult::Opens, Name::Named { .. }) if !target.symbolic_link => {}
            (HandleResult::Opens, _) if is_tmpfs => at.add(
                Effect::DumpFails,
                "no path leads to it, and handles of tmpfs do not outlive the mount: \"Can't find \
                 suitable path for handle\"",
                Some("give it a name again, or let the program drop the watch".to_owned()),
            ),
            (HandleResult::Opens, Name::Ghost { .. }) if target.held => self.ghost(target, at),
            (HandleResult::Opens, Name::Ghost { .. }) => at.add(
                Effect::RestoreFails,
                "only the watch keeps this file alive; its handle is stale when the process is \
                 gone",
                Some("let the program drop the watch".to_owned()),
            ),
            // The handle alone is in the image.
            (HandleResult::Opens, _) => {}
            (HandleResult::Fails { .. }, name) => self.no_handle(target, name, at),
        }
    }

    /// `dump_ghost_file` counts blocks, so holes are not over its limit.
    fn ghost(&self, target: &Target, at: &mut At<'_>) {
        let bytes = target.disk_bytes;
        if bytes > GHOST_LIMIT && target.directory == Some(false) {
            at.add(
                Effect::DumpFails,
                &format!("an open file without a name of {bytes} bytes is over the limit"),
                Some(format!("--ghost-limit {bytes}")),
            );
        } else {
            at.add(
                Effect::Lost,
                "restore makes the file again under a passing name and watches that; the watch is \
                 gone with the name, and whoever watches the directory hears both",
                None,
            );
        }
    }

    /// `irmap_lookup`.
    fn no_handle(&self, target: &Target, name: &Name, at: &mut At<'_>) {
        let is_overlayfs = target.filesystem.as_deref() == Some("overlay");
        if is_overlayfs && self.resolves_overlayfs {
            return;
        }
        let why = "its file handle cannot be opened";
        let newer = |advice: String| {
            if is_overlayfs {
                format!("{advice}, or use a CRIU newer than {KNOWN}, which looks on overlayfs")
            } else {
                advice
            }
        };
        match name {
            Name::Named { paths, .. } if !target.numbers_match => at.add(
                Effect::DumpFails,
                &format!(
                    "{why}, and a search for its inode fails as well, since stat(2) of {} gives \
                     other numbers than fdinfo: \"Can't dump that handle\"",
                    paths[0]
                ),
                is_overlayfs
                    .then(|| format!("use a CRIU newer than {KNOWN}, which looks on overlayfs"))
                    .or_else(|| Some("let the program drop the watch".to_owned())),
            ),
            Name::Named { paths, .. } => {
                let hinted = |path: &String| {
                    let mut hints = HINTS.iter();
                    path == "/" || hints.any(|hint| is_below(path, hint))
                };
                if !paths.iter().any(hinted) {
                    let directory = match target.directory {
                        Some(true) => paths[0].as_str(),
                        Some(false) | None => directory_of(&paths[0]),
                    };
                    at.add(
                        Effect::DumpFails,
                        &format!(
                            "{why}, and it is in none of the directories that are searched: \
                             \"Can't dump that handle\""
                        ),
                        Some(newer(format!("--irmap-scan-path {directory}"))),
                    );
                }
            }
            Name::Ghost { .. } | Name::Hidden { .. } | Name::NoName { .. } => at.add(
                Effect::DumpFails,
                &format!("{why}, and no path leads to it: \"Can't dump that handle\""),
                Some("let the program drop the watch".to_owned()),
            ),
        }
    }

    fn fanotify(&self, group: &Group, at: &mut At<'_>) {
        let flags = group.init_bits.unwrap_or(InitFlags(0));
        if flags.0 & InitFlags::CLASS.0 != 0 {
            at.add(
                Effect::RestoreFails,
                "a permission listener: CRIU opens files itself while the listener is stopped, and \
                 may wait for its permission for ever",
                Some("stop listening for the checkpoint; give every criu a deadline".to_owned()),
            );
        }
        for mark in &group.marks {
            let on = mark
                .target
                .as_ref()
                .map_or_else(|| mark.place.clone(), called);
            at.object = Some(format!("{} mark on {on}", mark.on.words()));
            if let Some(target) = &mark.target {
                self.target(target, at);
            }
            mark_itself(mark, flags, at);
        }
    }
}

/// `parse_fdinfo` at dump, `restore_one_fanotify` at restore.
fn mark_itself(mark: &Mark, group: InitFlags, at: &mut At<'_>) {
    match mark.on {
        MarkOn::Filesystem | MarkOn::MountNamespace => at.add(
            Effect::Lost,
            "parse_fdinfo skips such marks without a word",
            Some("let the program set it again after the restore".to_owned()),
        ),
        MarkOn::Inode | MarkOn::Mount => {
            if mark.flag_bits.0 & MarkFlags::IGNORE.0 != 0 {
                at.add(
                    Effect::RestoreFails,
                    "restore adds FAN_MARK_IGNORED_MASK to FAN_MARK_IGNORE, and the kernel refuses \
                     both",
                    None,
                );
            }
            if mark.mask_bits.0 == 0 && mark.ignored_bits.0 == 0 {
                at.add(
                    Effect::RestoreFails,
                    "restore_one_fanotify fails without a word for a mark whose masks are both \
                     empty",
                    None,
                );
            }
            let implied = group.contains(InitFlags::REPORT_DIR_FID)
                && mark.mask_bits.0 & 0x0800_0000 != 0
                && mark.target.as_ref().and_then(|target| target.directory) != Some(true);
            if implied {
                at.add(
                    Effect::RestoreFails,
                    "restore asks for FAN_EVENT_ON_CHILD, which the kernel set by itself and \
                     refuses here",
                    None,
                );
            }
        }
    }
}

/// Open files that lost the name they were opened by and have another (`dump_linked_remap`).
fn open_files(process: &Process, findings: &mut Vec<Finding>) {
    let entries = fs::read_dir(format!("/proc/{}/fd", process.pid));
    for entry in entries.into_iter().flatten().flatten() {
        let Ok(link) = fs::read_link(entry.path()) else {
            continue;
        };
        let fd = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let (Some(name), Ok(stat)) = (
            link.to_str()
                .and_then(|name| name.strip_suffix(" (deleted)")),
            fs::metadata(entry.path()),
        ) else {
            continue;
        };
        if stat.nlink() > 0 && stat.is_file() && name.starts_with('/') {
            findings.push(Finding {
                effect: Effect::DumpFails,
                pid: process.pid,
                fd,
                object: Some(name.to_owned()),
                why: "an open file that lost its name but has another".to_owned(),
                advice: Some("--link-remap".to_owned()),
            });
        }
    }
}

fn called(target: &Target) -> String {
    match &target.name {
        Name::Named { paths, .. } => paths[0].clone(),
        Name::Ghost {
            last_path: Some(path),
        } => format!("{path} (removed)"),
        Name::Hidden { path } => format!("{path} (covered)"),
        Name::Ghost { last_path: None } | Name::NoName { .. } => {
            format!("inode {} of {}", target.inode, target.device)
        }
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn directory_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((directory, _)) => directory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_covers_whole_names() {
        assert!(is_below("/etc/passwd", "/etc"));
        assert!(is_below("/etc", "/etc"));
        assert!(!is_below("/etcetera", "/etc"));
        assert_eq!(directory_of("/a/b"), "/a");
        assert_eq!(directory_of("/a"), "/");
    }
}
