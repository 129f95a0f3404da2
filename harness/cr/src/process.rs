//! What /proc says of a process, or of one of its threads, in `stat`, `status` and `comm`.
//!
//! Its name is in all three, and may be any bytes (`PR_SET_NAME`): none of them need be text.
//!
//! A `task` is what comes behind `/proc/`: a pid, `PID/task/TID`, `self`, `thread-self`.

use std::fmt::Display;
use std::{fs, io};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The file `status` (`proc_pid_status`).
#[derive(Clone, Debug)]
pub struct Status(String);

impl Status {
    /// # Errors
    ///
    /// Those of reading the file: that there is no such process, or that it may not be seen.
    pub fn of(task: impl Display) -> io::Result<Self> {
        read(format!("/proc/{task}/status")).map(Self)
    }

    /// What stands behind a name and its colon. The name of the process is on one line: a newline in it
    /// is escaped there (`proc_task_name`).
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim())
    }

    /// A field that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i32> {
        self.field(name)?.parse().ok()
    }

    /// The umask; the usual one where it is not shown.
    #[must_use]
    pub fn umask(&self) -> u32 {
        let umask = self.field("Umask");
        umask
            .and_then(|umask| u32::from_str_radix(umask, 8).ok())
            .unwrap_or(0o022)
    }

    /// A field that is a set of signals or of capabilities, in hexadecimal; empty where it is not shown.
    #[must_use]
    pub fn set(&self, name: &str) -> u64 {
        let set = self.field(name);
        set.and_then(|set| u64::from_str_radix(set, 16).ok())
            .unwrap_or(0)
    }
}

/// A signal as [`Status::set`] has it.
#[must_use]
pub fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// Whether a signal that was sent to a process as a whole waits to be taken. Of one that cannot be seen
/// none does.
#[must_use]
pub fn waits_for(pid: Pid, signal: Signal) -> bool {
    Status::of(pid).is_ok_and(|status| status.set("ShdPnd") & bit(signal) != 0)
}

/// The fields of the file `stat` (`do_task_stat`), from the third on, which is the state.
///
/// # Errors
///
/// Those of reading the file.
pub fn stat(task: impl Display) -> io::Result<Vec<String>> {
    Ok(fields(&read(format!("/proc/{task}/stat"))?))
}

/// The second field, the name, stands in parentheses and may contain any of its own.
fn fields(stat: &str) -> Vec<String> {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = rest.split_ascii_whitespace();
    fields.map(ToOwned::to_owned).collect()
}

/// When a process began, in ticks since the boot: the field `starttime` of `stat`. With the pid, it
/// names the process for good.
///
/// # Errors
///
/// Those of reading the file.
pub fn began(pid: Pid) -> io::Result<u64> {
    let fields = stat(pid)?;
    let field = fields.get(19).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat without starttime"))
}

/// The name of a process, without blanks around it. At most 15 bytes of it are kept, so the last character
/// may be half a one.
///
/// # Errors
///
/// Those of reading the file.
pub fn name(task: impl Display) -> io::Result<String> {
    Ok(read(format!("/proc/{task}/comm"))?.trim().to_owned())
}

fn read(path: String) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_field() {
        assert_eq!(fields("7 (a) R 1) S 1 7"), ["S", "1", "7"]);
        assert_eq!(fields("7 (\u{fffd}) T 2"), ["T", "2"]);
        assert!(fields("").is_empty());
    }

    #[test]
    fn of_this_thread_all_is_known_whatever_its_name() {
        let path = "/proc/thread-self/comm";
        fs::write(path, b"\xffPPid: 1 (\xc3").unwrap();
        assert!(name("thread-self").unwrap().ends_with("PPid: 1 (\u{fffd}"));
        let status = Status::of("thread-self").unwrap();
        let (parent, pid) = (nix::unistd::getppid().as_raw(), Pid::this());
        assert_eq!(status.number("PPid"), Some(parent));
        assert_eq!(status.number("Tgid"), Some(pid.as_raw()));
        assert_eq!(status.field("NoSuch"), None);
        let stat = stat("thread-self").unwrap();
        assert_eq!((&*stat[0], &*stat[1]), ("R", &*parent.to_string()));
        assert!(began(pid).unwrap() > 0);
    }
}
