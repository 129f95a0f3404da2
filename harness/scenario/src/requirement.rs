//! Words of a `requires` line: what the machine, the caller or the filesystem must have.
//!
//! What a word means is said here; whether the machine has it is the runner's to find out.

use crate::Requirement;

/// What a requirement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// `inotify`: the kernel has it.
    Inotify,
    /// `fanotify`: fanotify_init(2) is allowed with no class but `FAN_CLASS_NOTIF`.
    Fanotify,
    /// `root`: capabilities in the initial user namespace.
    Root,
    /// `mount`: mount(2) inside the sandbox.
    Mount,
    /// `pidns`: a pid namespace whose next pid can be chosen.
    PidNamespace,
    /// `user_xattr`: extended attributes `user.*` on the filesystem of the world.
    UserXattr,
    /// `drop_caches`: writing to `/proc/sys/vm/drop_caches`.
    DropCaches,
    /// `mknod`: device nodes can be made.
    Mknod,
    /// `cap:sys_admin`: the capability, without `CAP_`.
    Capability(String),
    /// `kernel>=6.12`.
    Kernel(u32, u32),
    /// `fs:ext4`: the filesystem of the world is of this type.
    Filesystem(String),
    /// `queue:16384`: a group holds exactly so many unread events (`fs.inotify.max_queued_events`).
    QueueLimit(usize),
}

/// The words that stand alone.
const WORDS: [(&str, Need); 8] = [
    ("inotify", Need::Inotify),
    ("fanotify", Need::Fanotify),
    ("root", Need::Root),
    ("mount", Need::Mount),
    ("pidns", Need::PidNamespace),
    ("user_xattr", Need::UserXattr),
    ("drop_caches", Need::DropCaches),
    ("mknod", Need::Mknod),
];

const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

impl Requirement {
    /// What the word asks for; none if no such word is known.
    #[must_use]
    pub fn need(&self) -> Option<Need> {
        let word = self.0.as_str();
        if let Some((_, need)) = WORDS.iter().find(|(known, _)| *known == word) {
            return Some(need.clone());
        }
        if let Some(version) = word.strip_prefix("kernel>=") {
            let (major, minor) = version.split_once('.')?;
            return Some(Need::Kernel(major.parse().ok()?, minor.parse().ok()?));
        }
        if let Some(name) = word.strip_prefix("cap:") {
            let known = CAPABILITIES.contains(&name);
            return known.then(|| Need::Capability(name.to_owned()));
        }
        if let Some(limit) = word.strip_prefix("queue:") {
            let plain = limit.bytes().all(|byte| byte.is_ascii_digit());
            return limit.parse().ok().filter(|_| plain).map(Need::QueueLimit);
        }
        let fs = word.strip_prefix("fs:")?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.';
        (!fs.is_empty() && fs.bytes().all(plain)).then(|| Need::Filesystem(fs.to_owned()))
    }
}

/// Words to choose from, for "did you mean".
pub(crate) fn words() -> impl Iterator<Item = String> {
    let plain = WORDS.iter().map(|(word, _)| (*word).to_owned());
    let capabilities = CAPABILITIES.iter().map(|name| format!("cap:{name}"));
    plain.chain(capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_needs() {
        let check = |word: &str, expected: Option<Need>| {
            assert_eq!(Requirement(word.to_owned()).need(), expected, "{word}");
        };
        check("root", Some(Need::Root));
        check("kernel>=6.12", Some(Need::Kernel(6, 12)));
        check("kernel>=6", None);
        check("kernel>=6.x", None);
        check("cap:sys_admin", Some(Need::Capability("sys_admin".into())));
        check("cap:sys_admim", None);
        check("fs:ext4", Some(Need::Filesystem("ext4".into())));
        check("fs:", None);
        check("queue:16384", Some(Need::QueueLimit(16384)));
        check("queue:", None);
        check("queue:+1", None);
        check("queue:99999999999999999999", None);
        check("rooot", None);
        check("", None);
    }
}
