//! What a log of CRIU says went wrong, in the words of the scenario.
//!
//! CRIU names files by device and inode, watches by numbers of its own, and tasks by pid. All of
//! these but the pids differ from run to run and mean nothing to the reader; what fdinfo told
//! before the dump says which watch of which descriptor, on what, is meant.

use std::collections::HashMap;

/// What the numbers of a log refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct Key {
    /// Device and inode, as fdinfo prints them, to the name of the object.
    pub(super) names: HashMap<(u32, u64), String>,
    /// Device and inode to what is on it: `wd 2 of fd 4`.
    pub(super) watches: HashMap<(u32, u64), Vec<String>>,
    /// Names of what CRIU opens in every cut.
    pub(super) opened: Vec<String>,
    /// Where the world is; paths are shown relative to it.
    pub(super) world: String,
}

impl Key {
    fn object(&self, number: (u32, u64)) -> String {
        let name = self.names.get(&number);
        let name = name.map_or("an object without a known name", String::as_str);
        match self.watches.get(&number) {
            Some(watches) => format!("{name} ({})", watches.join(", ")),
            None => name.to_owned(),
        }
    }
}

/// The error lines of a log, each once, without time, source line and numbers that vary.
pub(super) fn errors(log: &str, key: &Key) -> Vec<String> {
    let mut errors: Vec<String> = Vec::new();
    let mut last_object = None;
    for line in log.lines() {
        let named = object_numbers(line);
        if let Some((_, number)) = named {
            last_object = Some(number);
        }
        let Some((source, message)) = error(line) else {
            continue;
        };
        if is_harmless(message) {
            continue;
        }
        let mut text = readable(message, named.as_ref().map(|(span, _)| span.clone()), key);
        match named {
            Some(_) => {}
            // Errors of marks name no mark: the line before them does.
            None if source.contains("fsnotify") || source.contains("irmap") => {
                if let Some(number) = last_object {
                    text.push_str(&format!(": {}", key.object(number)));
                }
            }
            None => {}
        }
        if !errors.contains(&text) {
            errors.push(text);
        }
    }
    errors
}

/// File ids of groups whose unread events the log says are dropped.
pub(super) fn dropped_queues(log: &str) -> Vec<u32> {
    log.lines()
        .filter(|line| line.contains("events will be dropped"))
        .filter_map(|line| {
            let word = line
                .split_whitespace()
                .find(|word| word.starts_with("0x"))?;
            u32::from_str_radix(&word[2..], 16).ok()
        })
        .collect()
}

/// Source and message of a line that reports an error.
fn error(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("Error (")?;
    rest.split_once("): ")
}

/// Lines that say nothing of the cause: what a process without `CAP_SYS_RESOURCE` always gets, and
/// how the tasks that fail with the first one end, of which a race decides how many are told.
fn is_harmless(message: &str) -> bool {
    message.contains("Can't setup RLIMIT_NOFILE for self")
        || message.contains(" exited, status=")
        || message.contains(" killed by signal ")
}

/// Device and inode that a line names, with the words that do so: `dev 0x2a ino 0x3`,
/// `s_dev 0x00002a i_ino 0x3`, `Handle 0x2a:0x3`.
fn object_numbers(line: &str) -> Option<(std::ops::Range<usize>, (u32, u64))> {
    let hex = |text: &str| -> Option<(u64, usize)> {
        let start = text.len() - text.trim_start().len();
        let digits = text[start..].strip_prefix("0x")?;
        let length = digits
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(digits.len());
        let value = u64::from_str_radix(&digits[..length], 16).ok()?;
        Some((value, start + 2 + length))
    };
    for (device_word, inode_word) in [("dev ", " ino "), ("s_dev ", " i_ino "), ("Handle ", ":")] {
        let Some(at) = line.find(device_word) else {
            continue;
        };
        let after = at + device_word.len();
        let Some((device, length)) = hex(&line[after..]) else {
            continue;
        };
        let rest = after + length;
        let Some(tail) = line[rest..].strip_prefix(inode_word) else {
            continue;
        };
        let Some((inode, length)) = hex(tail) else {
            continue;
        };
        let end = rest + inode_word.len() + length;
        return Some((at..end, (u32::try_from(device).ok()?, inode)));
    }
    None
}

fn readable(message: &str, numbers: Option<std::ops::Range<usize>>, key: &Key) -> String {
    let mut text = message.trim().replace('\t', "");
    if numbers.is_some()
        && let Some((span, number)) = object_numbers(&text)
    {
        text.replace_range(span, &key.object(number));
    }
    let world = format!("{}/", key.world);
    text = text
        .replace(&world, "")
        .replace(world.trim_start_matches('/'), "");
    mask_words(&text, key)
}

/// Words after which a number differs from run to run.
const VARYING: [&str; 4] = ["mnt_id", "mnt", "id", "mntid"];

/// What the path of one of CRIU's own descriptors ends with, before its number.
const OWN_DESCRIPTOR: &str = "/proc/self/fd/";

/// What the paths of a mount namespace in the making begin with, before random letters.
const NEW_NAMESPACE: &str = "/tmp/.criu.mntns.";

/// The text without numbers that are CRIU's own, or the kernel's for this run. The subject's own, its
/// pid and its descriptors, stay.
fn mask_words(text: &str, key: &Key) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let is_number = word.starts_with("0x") || word.starts_with(|c: char| c.is_ascii_digit());
        let last = words.last().map_or("", String::as_str);
        let before = |n: usize| words.iter().rev().nth(n).map_or("", String::as_str);
        let masked = match word.split_once(OWN_DESCRIPTOR) {
            // Device and inode of a path that leads elsewhere.
            _ if is_number && ["opened", "need"].contains(&last) => opened(word, key),
            // A file of CRIU's own; how many it has open depends on what it was started with.
            _ if is_number && last == "fd" && before(1) == "of" && before(2) == "link" => {
                punctuated("?", word)
            }
            Some((before, _)) => punctuated(&format!("{before}{OWN_DESCRIPTOR}?"), word),
            // Where restore makes a mount namespace.
            _ if word.starts_with(NEW_NAMESPACE) => punctuated(&format!("{NEW_NAMESPACE}?"), word),
            _ if word.starts_with("(id=") => punctuated("(id=?)", word),
            // Files of an image are numbered in the order that dump meets them, those of the program
            // itself first, however many it is made of.
            _ if word.starts_with("id=0x") => "id=?".to_owned(),
            _ if word.starts_with("mount=") => "mount=?".to_owned(),
            _ if word.starts_with("0x") && last == "for" => punctuated("?", word),
            _ if is_number && VARYING.contains(&last.trim_end_matches([':', '='])) => {
                "?".to_owned()
            }
            _ => word.to_owned(),
        };
        words.push(masked);
    }
    words.join(" ")
}

/// The object that `DEVICE:INODE`, in decimal, is about.
fn opened(word: &str, key: &Key) -> String {
    let numbers = word.trim_end_matches([',', ':']).split_once(':');
    let number = numbers.and_then(|(device, inode)| {
        let device = device.parse().ok()?;
        // As fdinfo has them: twenty bits for the minor number.
        let device = nix::sys::stat::major(device) << 20 | nix::sys::stat::minor(device);
        Some((u32::try_from(device).ok()?, inode.parse().ok()?))
    });
    let name = number.and_then(|number| key.names.get(&number));
    punctuated(name.map_or("what has no known name", String::as_str), word)
}

/// The new word with the sign that the old one ends with.
fn punctuated(new: &str, old: &str) -> String {
    let sign = old.chars().last().filter(|sign| [':', ','].contains(sign));
    new.chars().chain(sign).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        let mut key = Key {
            world: "/mnt/w".to_owned(),
            ..Key::default()
        };
        key.names
            .insert((0x2a, 3), "\"dir/a\" (deleted)".to_owned());
        key.watches
            .insert((0x2a, 3), vec!["wd 2 of fd 4".to_owned()]);
        key
    }

    fn check(log: &str, expected: &[&str]) {
        assert_eq!(errors(log, &key()), expected, "{log}");
    }

    #[test]
    fn an_error_names_the_watch_that_it_is_about() {
        check(
            "(00.01) Error (criu/fsnotify.c:263): fsnotify: Can't find suitable path for handle (dev 0x2a ino 0x3): -2\n",
            &[
                "fsnotify: Can't find suitable path for handle (\"dir/a\" (deleted) (wd 2 of fd 4)): -2",
            ],
        );
    }

    #[test]
    fn an_error_without_numbers_is_about_the_object_of_the_line_before() {
        check(
            "(00.01) Warn  (criu/fsnotify.c:282): fsnotify: \tHandle 0x2a:0x3 cannot be opened\n\
             (00.01) Error (criu/fsnotify.c:285): fsnotify: \tCan't dump that handle\n\
             (00.01) Error (criu/cr-dump.c:1681): Dump files (pid: 52) failed with -1\n",
            &[
                "fsnotify: Can't dump that handle: \"dir/a\" (deleted) (wd 2 of fd 4)",
                "Dump files (pid: 52) failed with -1",
            ],
        );
    }

    #[test]
    fn paths_are_relative_to_the_world_and_harmless_errors_left_out() {
        check(
            "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: No\n\
             (00.02)     52: Error (criu/files-reg.c:2100): Can't open file mnt/w/dir/a on restore\n\
             (00.02)     52: Error (criu/files-reg.c:2101): Can't open file mnt/w/dir/a on restore\n",
            &["Can't open file dir/a on restore"],
        );
    }

    #[test]
    fn numbers_that_differ_from_run_to_run_are_left_out() {
        check(
            "(00.02) Error (criu/files-reg.c:1500): Unaccessible path opened 49:1, need 42:3\n\
             (00.02)      1: Error (criu/cr-restore.c:1): 2 exited, status=1\n\
             (00.02) Error (criu/fsnotify.c:400): fsnotify: Can't find mnt_id 0x57\n\
             (00.02) Error (criu/fsnotify.c:600): fsnotify: Can't create inotify for 0x000006: No\n\
             (00.02) Error (criu/files.c:1200): Unable to open fd=3 id=0x6\n\
             (00.02) Error (criu/files-reg.c:90): Can't lookup mount=194 for fd=3 path=/f\n\
             (00.02) Error (criu/util.c:500): Can't read link of fd 18: File name too long\n\
             (00.02) Error (criu/files.c:500): Can't read link for pid 2 fd 3\n\
             (00.02) Error (criu/mount.c:1): mnt: Can't mount overlay /tmp/.criu.mntns.JsAQPN/mnt-0000000096 (id=96): No\n\
             (00.02) Error (criu/mount.c:2): mnt-v2: Can't mount at /tmp/.criu.mntns.JsAQPN/mnt-0000000096: No\n\
             (00.02) Error (criu/fsnotify.c:500): fsnotify: Adding mask 0x20 on 0x0//proc/self/fd/4 failed (-1)\n",
            &[
                "Unaccessible path opened what has no known name, need \"dir/a\" (deleted)",
                "fsnotify: Can't find mnt_id ?",
                "fsnotify: Can't create inotify for ?: No",
                "Unable to open fd=3 id=?",
                "Can't lookup mount=? for fd=3 path=/f",
                "Can't read link of fd ?: File name too long",
                "Can't read link for pid 2 fd 3",
                "mnt: Can't mount overlay /tmp/.criu.mntns.? (id=?): No",
                "mnt-v2: Can't mount at /tmp/.criu.mntns.?: No",
                "fsnotify: Adding mask 0x20 on 0x0//proc/self/fd/? failed (-1)",
            ],
        );
    }

    #[test]
    fn a_dropped_queue_is_told_by_its_file() {
        let log = "(00.01) Warn  (criu/fsnotify.c:325): fsnotify: The 0x000004 inotify events will be dropped\n";
        assert_eq!(dropped_queues(log), [4]);
        assert!(errors(log, &key()).is_empty());
    }
}
