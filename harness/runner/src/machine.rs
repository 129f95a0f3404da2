//! What this machine and this caller can do: decides skips, and is printed by `probe`.

use std::fs;
use std::sync::OnceLock;

use cr::process::Status;
use nix::unistd::geteuid;
use scenario::{Need, Requirement};
use verify::model::{self, Settings};

/// Facts about kernel and caller, looked up once.
#[derive(Clone, Debug)]
pub struct Machine {
    pub kernel: (u32, u32),
    /// As `uname -r` prints it.
    pub release: String,
    pub root: bool,
    /// Effective capabilities of this process.
    capabilities: u64,
    filesystems: Vec<String>,
    /// Events that a queue holds before it overflows.
    max_queued_events: usize,
}

impl Machine {
    /// The machine that this runs on.
    #[must_use]
    pub fn here() -> &'static Self {
        static HERE: OnceLock<Machine> = OnceLock::new();
        HERE.get_or_init(Self::look)
    }

    fn look() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let status = Status::of("self");
        let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let queued = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
        Self {
            kernel: version(release.trim()).unwrap_or((0, 0)),
            release: release.trim().to_owned(),
            root: geteuid().is_root(),
            capabilities: status.map_or(0, |status| status.set("CapEff")),
            filesystems: filesystems
                .lines()
                .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
                .collect(),
            max_queued_events: queued
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(Settings::default().max_queued_events),
        }
    }

    /// Why a scenario with this requirement cannot run here; none if it can.
    #[must_use]
    pub fn lacks(&self, requirement: &Requirement) -> Option<String> {
        let Some(need) = requirement.need() else {
            return Some(format!("unknown requirement {:?}", requirement.0));
        };
        let unless = |has: bool, reason: &str| (!has).then(|| reason.to_owned());
        match need {
            // Any kernel that this program starts on has inotify; the sandbox brings mounts, a pid
            // namespace and a tmpfs with user.* attributes, or is itself skipped with its reason.
            Need::Inotify | Need::Mount | Need::PidNamespace => None,
            Need::Fanotify => unless(cr::sys::raw::has_fanotify(), "fanotify_init is not allowed"),
            Need::Root => unless(self.root, "needs root"),
            Need::DropCaches => unless(self.root, "only root may drop caches"),
            Need::Mknod => unless(self.root, "only root may make device nodes"),
            Need::UserXattr => unless(
                self.kernel >= (6, 6),
                "user.* attributes on tmpfs need Linux 6.6",
            ),
            Need::Capability(name) => unless(
                self.has_capability(&name),
                &format!("needs CAP_{}", name.to_uppercase()),
            ),
            Need::Kernel(major, minor) => unless(
                self.kernel >= (major, minor),
                &format!("needs Linux {major}.{minor}, this is {}", self.release),
            ),
            Need::QueueLimit(limit) => unless(
                self.max_queued_events == limit,
                &format!(
                    "fs.inotify.max_queued_events is {}, not {limit}",
                    self.max_queued_events
                ),
            ),
            Need::Filesystem(name) => unless(
                self.filesystems.contains(&name),
                &format!("this kernel has no {name}"),
            ),
        }
    }

    /// What the model of inotify has to know of this machine; none where it was never held against
    /// a kernel like this one.
    #[must_use]
    pub fn model_settings(&self) -> Option<Settings> {
        (self.kernel >= model::OLDEST_KERNEL).then_some(Settings {
            max_queued_events: self.max_queued_events,
        })
    }

    fn has_capability(&self, name: &str) -> bool {
        CAPABILITIES
            .iter()
            .position(|known| known.eq_ignore_ascii_case(name))
            .is_some_and(|bit| self.capabilities & (1 << bit) != 0)
    }

    /// Names of the capabilities that are missing of the full set.
    #[must_use]
    pub fn missing_capabilities(&self) -> Vec<&'static str> {
        CAPABILITIES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.capabilities & (1 << bit) == 0)
            .map(|(_, name)| *name)
            .collect()
    }
}

/// In order of their numbers, without `CAP_` (capability.h).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_gives_its_first_two_numbers() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("7.2"), Some((7, 2)));
        assert_eq!(version("rc"), None);
    }
}
