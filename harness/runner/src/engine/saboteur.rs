//! Planted defects: builtin with one thing done wrong on purpose. Each has to be judged `fail` by
//! some scenario; that is the test of the tester.
//!
//! Nearly every mistake of a dumper or restorer is a wrong value in the image, so a defect is a
//! change of the image between dump and restore. The few that are not are [`cr::Defect`]s.

mod files;
mod groups;
mod queues;

use std::fmt;

use cr::Image;
use serde::{Deserialize, Serialize};

/// A defect by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Defect(usize);

/// How a defect comes about.
#[derive(Clone, Copy)]
enum How {
    /// The dumper got it wrong.
    Image(fn(&mut Image)),
    /// The restorer does it wrong: the [`cr::Defect`] of the same name.
    Restore,
}

/// A name, what a program would notice, and how.
struct Planted {
    name: &'static str,
    what: &'static str,
    how: How,
}

const fn image(name: &'static str, what: &'static str, spoil: fn(&mut Image)) -> Planted {
    Planted {
        name,
        what,
        how: How::Image(spoil),
    }
}

const fn restore(name: &'static str, what: &'static str) -> Planted {
    Planted {
        name,
        what,
        how: How::Restore,
    }
}

/// Every defect. A new one needs a scenario that catches it: `notifreeze saboteur` says which does.
const PLANTED: &[Planted] = &[
    image(
        "drop-last-watch",
        "the watch made last is gone",
        groups::drop_last_watch,
    ),
    image(
        "drop-every-watch",
        "no watch is restored",
        groups::drop_every_watch,
    ),
    image(
        "clear-mask-bit",
        "a mask lost its lowest event",
        groups::clear_mask_bit,
    ),
    image(
        "widen-mask",
        "every watch hears everything",
        groups::widen_mask,
    ),
    image("drop-oneshot", "IN_ONESHOT is lost", groups::drop_oneshot),
    image(
        "drop-excl-unlink",
        "IN_EXCL_UNLINK is lost",
        groups::drop_excl_unlink,
    ),
    image(
        "number-from-one",
        "watches are numbered anew",
        groups::number_from_one,
    ),
    image(
        "wd-as-fd",
        "a wd is taken for a descriptor",
        groups::wd_as_fd,
    ),
    image(
        "wrong-target",
        "a watch is on another object",
        groups::wrong_target,
    ),
    image(
        "reset-cursor",
        "the next wd is 1 again",
        groups::reset_cursor,
    ),
    image(
        "skip-second-group",
        "of two groups one is empty",
        groups::skip_second_group,
    ),
    image(
        "cap-watches",
        "no group gets more than 100 watches",
        groups::cap_watches,
    ),
    image(
        "reverse-fdinfo",
        "the order of watches is reversed",
        groups::reverse_watches,
    ),
    image(
        "follow-overmount",
        "what is mounted over is watched",
        groups::follow_overmount,
    ),
    image(
        "skip-ghost-watches",
        "ghosts are not watched",
        groups::skip_ghost_watches,
    ),
    image(
        "drop-filesystem-marks",
        "filesystem marks are gone",
        groups::drop_filesystem_marks,
    ),
    image(
        "drop-mount-marks",
        "mount marks are gone",
        groups::drop_mount_marks,
    ),
    image(
        "drop-mntns-marks",
        "mount namespace marks are gone",
        groups::drop_namespace_marks,
    ),
    image(
        "ignore-as-mask",
        "what was ignored is reported",
        groups::ignore_as_mask,
    ),
    image("lose-ignore", "nothing is ignored", groups::lose_ignore),
    image(
        "lose-surv-modify",
        "a write ends an ignore mask",
        groups::lose_surv_modify,
    ),
    image(
        "lose-evictable",
        "marks pin their inodes",
        groups::lose_evictable,
    ),
    image(
        "reverse-marks",
        "the order of marks is reversed",
        groups::reverse_marks,
    ),
    image(
        "permission-marks-last",
        "marks that ask for permission stand behind the others",
        groups::permission_marks_last,
    ),
    image(
        "forget-permission",
        "nobody is asked for permission",
        groups::forget_permission,
    ),
    image(
        "lose-audit",
        "answers cannot be audited",
        groups::lose_audit,
    ),
    image(
        "lose-event-flags",
        "events bring descriptors opened otherwise",
        groups::lose_event_flags,
    ),
    image(
        "lose-report-name",
        "events do not say names",
        groups::lose_report_name,
    ),
    image(
        "open-unasked",
        "files are opened while nobody listens",
        files::open_unasked,
    ),
    image("forget-queue", "unread events are gone", queues::forget),
    image(
        "forget-first-event",
        "the oldest unread event is gone",
        queues::forget_first,
    ),
    image(
        "forget-last-event",
        "the newest unread event is gone",
        queues::forget_last,
    ),
    image(
        "forget-overflow",
        "the overflow marker is gone",
        queues::forget_overflow,
    ),
    image(
        "reorder-events",
        "two unread events changed places",
        queues::reorder,
    ),
    image(
        "duplicate-event",
        "an unread event comes twice",
        queues::duplicate,
    ),
    image(
        "break-pair",
        "the halves of a rename do not pair",
        queues::break_pair,
    ),
    image(
        "rename-event",
        "an unread event has another name",
        queues::rename,
    ),
    image(
        "lose-isdir",
        "unread events lost IN_ISDIR",
        queues::lose_isdir,
    ),
    image("lose-offset", "offsets are 0", files::lose_offset),
    image("lose-append", "O_APPEND is lost", files::lose_append),
    image("lose-nonblock", "O_NONBLOCK is lost", files::lose_nonblock),
    image("lose-async", "O_ASYNC is lost", files::lose_async),
    image(
        "lose-owner-of-signals",
        "F_SETOWN is lost",
        files::lose_signal_owner,
    ),
    image("lose-signal", "F_SETSIG is lost", files::lose_signal),
    image(
        "lose-cloexec",
        "FD_CLOEXEC is lost",
        files::lose_close_on_exec,
    ),
    image(
        "leak-descriptor",
        "one descriptor too many",
        files::leak_descriptor,
    ),
    image(
        "swap-descriptors",
        "two descriptors changed places",
        files::swap_descriptors,
    ),
    image(
        "split-duplicates",
        "dup'ed descriptors share nothing",
        files::split_duplicates,
    ),
    image(
        "drop-epoll-interest",
        "an epoll set lost an entry",
        files::drop_interest,
    ),
    image(
        "lose-epoll-word",
        "epoll reports 0 for every entry",
        files::lose_epoll_word,
    ),
    image(
        "lose-working-directory",
        "the process is elsewhere",
        files::lose_working_directory,
    ),
    image("lose-umask", "the umask is 0", files::lose_umask),
    image(
        "fill-holes",
        "a sparse ghost is sparse no more",
        files::fill_holes,
    ),
    image("lose-content", "ghosts are empty", files::lose_content),
    image("lose-mode", "ghosts have mode 0600", files::lose_mode),
    image("lose-owner", "ghosts belong to root", files::lose_owner),
    image("lose-times", "ghosts are new", files::lose_times),
    image(
        "lose-xattrs",
        "ghosts lost their attributes",
        files::lose_xattrs,
    ),
    image("split-ghost", "one ghost became two", files::split_ghost),
    restore("add-event", "the restore is heard"),
    restore("forget-next-watch", "the next wd is not set"),
    restore("leave-file", "a file is left behind"),
    restore(
        "send-back-child-bit",
        "a bit that the kernel added is asked for",
    ),
];

impl Defect {
    /// Every defect.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PLANTED.len()).map(Self)
    }

    /// As `--engine saboteur=NAME` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        PLANTED[self.0].name
    }

    /// What a program would notice.
    #[must_use]
    pub fn what(self) -> &'static str {
        PLANTED[self.0].what
    }

    /// The defect of this name.
    ///
    /// # Errors
    ///
    /// A sentence that lists the names.
    pub fn parse(name: &str) -> Result<Self, String> {
        PLANTED
            .iter()
            .position(|planted| planted.name == name)
            .map(Self)
            .ok_or_else(|| format!("no defect {name:?}: one of {}", Self::list()))
    }

    /// All names, for a message.
    #[must_use]
    pub fn list() -> String {
        let names: Vec<&str> = PLANTED.iter().map(|planted| planted.name).collect();
        names.join(", ")
    }

    /// Spoils an image, if that is how this defect comes about.
    pub(super) fn spoil(self, image: &mut Image) {
        match PLANTED[self.0].how {
            How::Image(spoil) => spoil(image),
            How::Restore => {}
        }
    }

    /// What to hand to the restorer.
    pub(super) fn restore_defect(self) -> Option<&'static str> {
        match PLANTED[self.0].how {
            How::Image(_) => None,
            How::Restore => Some(PLANTED[self.0].name),
        }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Defect {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::parse(&name)
    }
}

impl From<Defect> for String {
    fn from(defect: Defect) -> Self {
        defect.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defect_is_found_by_its_name() {
        for defect in Defect::all() {
            assert_eq!(Defect::parse(defect.name()), Ok(defect));
            if let Some(name) = defect.restore_defect() {
                assert!(cr::Defect::parse(name).is_some(), "{name}");
            }
        }
    }
}
