//! The cases, each laid out by the subject before it is dumped.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::Command;

use cr::LossKind;
use cr::sys::{descriptor, inode_flags, raw};
use nix::mount::{MsFlags, mount};

use super::{Case, Filesystem, What, Who, run};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_removed_file_that_a_mapping_alone_keeps_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.watch("d/f");
            subject.map(file);
            subject.file("d/new");
            fs::rename("d/new", "d/f").unwrap();
        },
        refusal: Some("fd 10: watch 2: file without a name that is kept by a mapping alone"),
        losses: &[],
    },
    Case {
        name: "a_mapping_beside_a_descriptor_hinders_nobody",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.watch("d/f");
            subject.hold(&file);
            subject.map(file);
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_process_may_have_a_name_that_is_no_text",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::GroupsAlone,
        lay: |subject| {
            subject.file("d/f");
            subject.watch("d/f");
            fs::write("/proc/self/comm", b"\xff) R 1 (\xc3").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_directory_of_what_a_mapping_alone_keeps_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::GroupsAlone,
        lay: |subject| {
            fs::create_dir("d/e").unwrap();
            let file = subject.file("d/e/f");
            subject.watch("d/e");
            subject.map(file);
            fs::remove_dir_all("d/e").unwrap();
        },
        refusal: Some("fd 10: watch 2: file without a name that is kept by a mapping alone"),
        losses: &[],
    },
    Case {
        name: "a_removed_directory_that_one_only_is_in_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::GroupsAlone,
        lay: |subject| {
            fs::create_dir("d/e").unwrap();
            subject.watch("d/e");
            std::env::set_current_dir("d/e").unwrap();
            fs::remove_dir("../e").unwrap();
        },
        refusal: Some("watch 2: file without a name that is kept by a working directory alone"),
        losses: &[],
    },
    Case {
        name: "a_removed_device_by_path_is_one_again",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::GroupsAlone,
        lay: |subject| {
            let kind = nix::sys::stat::SFlag::S_IFCHR;
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
            let device = libc::makedev(10, 200);
            nix::sys::stat::mknod("d/c", kind, mode, device).unwrap();
            subject.watch("d/c");
            let by_path = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open("d/c");
            subject.hold(&by_path.unwrap());
            fs::remove_file("d/c").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_in_the_directory_of_a_project_is_made_in_it",
        filesystem: Filesystem::Xfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            of_project("d");
            let file = subject.file("d/f");
            subject.hold(&file);
            subject.watch("d/f");
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_in_a_removed_directory_of_a_project_is_made_in_it",
        filesystem: Filesystem::Xfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            of_project("d");
            fs::create_dir_all("d/e/g").unwrap();
            let file = subject.file("d/e/g/f");
            subject.hold(&file);
            subject.watch("d/e");
            fs::remove_dir_all("d/e").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_in_a_subvolume_is_made_in_it",
        filesystem: Filesystem::Btrfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let subvolume = ["subvolume", "create", "d/sub"];
            run(Command::new("btrfs").args(subvolume)).unwrap();
            fs::create_dir("d/sub/e").unwrap();
            let file = subject.file("d/sub/e/f");
            subject.hold(&file);
            subject.watch("d/sub/e/f");
            fs::remove_file("d/sub/e/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_in_an_immutable_directory_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            add_flags("d", inode_flags::IMMUTABLE);
        },
        refusal: Some("d/f: file without a name in a directory that is immutable: not supported"),
        losses: &[],
    },
    Case {
        name: "a_ghost_in_a_directory_that_only_grows_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            add_flags("d", inode_flags::APPEND);
        },
        refusal: Some("d/f: file without a name in a directory that only grows"),
        losses: &[],
    },
    Case {
        name: "a_root_that_only_grows_takes_nothing",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            add_flags(".", inode_flags::APPEND);
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "a_ghost_on_a_mount_that_is_read_only_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            drop(file);
            let file = File::open("d/f").unwrap();
            subject.hold(&file);
            subject.watch("d/f");
            drop(file);
            fs::remove_file("d/f").unwrap();
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            let none = None::<&str>;
            let tree = std::env::current_dir().unwrap();
            mount(none, &tree, none, flags, none).unwrap();
        },
        refusal: Some("d/f: file without a name on a mount that is read-only"),
        losses: &[],
    },
    Case {
        name: "a_removed_name_of_an_immutable_file_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            fs::hard_link("d/f", "d/g").unwrap();
            subject.hold(&file);
            subject.watch("d/f");
            fs::remove_file("d/f").unwrap();
            add_flags("d/g", inode_flags::IMMUTABLE);
        },
        refusal: Some("d/f: removed name of a file that chattr keeps from being linked"),
        losses: &[],
    },
    Case {
        name: "a_name_that_an_immutable_file_has_by_now_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            subject.file("d/f");
            add_flags("d/f", inode_flags::IMMUTABLE);
        },
        refusal: Some("d/f: file whose name is by now that of one that may not be moved"),
        losses: &[],
    },
    Case {
        name: "a_list_that_the_root_gives_is_none_of_a_ghost",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
            let list = ["system.posix_acl_default", "."];
            let [name, path] = list.map(|text| CString::new(text).unwrap());
            raw::setxattr(&path, &name, ACCESS_LIST, 0).unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "what_chattr_has_set_of_ghosts_is_kept",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            for flags in [
                inode_flags::APPEND,
                inode_flags::IMMUTABLE,
                NO_DUMP | NO_ATIME,
            ] {
                let fd = subject.ghost("d/f");
                add_flags(&format!("/proc/self/fd/{fd}"), flags);
            }
            fs::create_dir("d/e").unwrap();
            add_flags("d/e", NO_DUMP);
            subject.hold(&File::open("d/e").unwrap());
            fs::remove_dir("d/e").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "what_the_root_gives_to_what_is_made_in_it_is_not_of_a_ghost",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.hold(&file);
            subject.watch("d/f");
            fs::remove_file("d/f").unwrap();
            add_flags(".", NO_DUMP | NO_ATIME);
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "what_is_not_to_be_copied_when_written_is_not",
        filesystem: Filesystem::Btrfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            fs::create_dir("d/e").unwrap();
            add_flags("d/e", inode_flags::NO_COPY_ON_WRITE);
            subject.ghost("d/e/f");
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "the_size_of_a_fifo_and_a_hint_to_writing_are_kept",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            for name in ["d/gone", "d/there"] {
                nix::unistd::mkfifo(name, nix::sys::stat::Mode::S_IRWXU).unwrap();
                let fifo = OpenOptions::new().read(true).write(true).open(name);
                let fifo = fifo.unwrap();
                descriptor::set_pipe_size(&fifo, 1 << 18).unwrap();
                subject.hold(&fifo);
            }
            fs::remove_file("d/gone").unwrap();
            let file = subject.file("d/f");
            // RWH_WRITE_LIFE_EXTREME.
            descriptor::set_write_hint(&file, 5).unwrap();
            subject.hold(&file);
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "the_largest_file_is_one_again",
        filesystem: Filesystem::Tmpfs,
        who: Who::Root,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.hold(&file);
            file.set_len(i64::MAX.cast_unsigned()).unwrap();
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "what_a_user_may_not_set_is_declared",
        filesystem: Filesystem::Xfs,
        who: Who::UserOfProject,
        what: What::Everything,
        lay: |subject| {
            subject.ghost("d/f");
        },
        refusal: None,
        losses: &[LossKind::InodeFlags],
    },
    Case {
        name: "what_only_its_owner_may_do_he_does_in_time",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            set_user_attribute("d/f");
            subject.hold(&file);
            file.set_permissions(Permissions::from_mode(0o444)).unwrap();
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[],
    },
    Case {
        name: "an_attribute_that_its_owner_may_not_read_is_declared",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            set_user_attribute("d/f");
            subject.hold(&file);
            file.set_permissions(Permissions::from_mode(0o200)).unwrap();
            fs::remove_file("d/f").unwrap();
        },
        refusal: None,
        losses: &[LossKind::HiddenAttribute],
    },
    Case {
        name: "a_watched_ghost_that_its_owner_may_not_read_is_refused",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let file = subject.file("d/f");
            subject.watch("d/f");
            subject.hold(&file);
            file.set_permissions(Permissions::from_mode(0o000)).unwrap();
            fs::remove_file("d/f").unwrap();
        },
        refusal: Some("d/f: watched file without a name that may not be read"),
        losses: &[],
    },
    Case {
        name: "a_file_that_never_had_a_name_keeps_its_mode",
        filesystem: Filesystem::Tmpfs,
        who: Who::User,
        what: What::Everything,
        lay: |subject| {
            let options = &mut OpenOptions::new();
            let options = options.read(true).write(true).mode(0o755);
            let mut file = options.custom_flags(libc::O_TMPFILE).open("d").unwrap();
            file.write_all(b"content").unwrap();
            subject.hold(&file);
            let again = OpenOptions::new()
                .read(true)
                .open(format!("/proc/self/fd/{}", file.as_raw_fd()));
            subject.hold(&again.unwrap());
            file.set_permissions(Permissions::from_mode(0o4111))
                .unwrap();
        },
        refusal: None,
        losses: &[],
    },
];

const NO_DUMP: u32 = 0x40;
const NO_ATIME: u32 = 0x80;

/// For the owner, a user, the group, all others: version 2, entries of tag, rights and number.
const ACCESS_LIST: &[u8] = b"\x02\0\0\0\
    \x01\0\x07\0\xff\xff\xff\xff\
    \x02\0\x07\0\x01\0\0\0\
    \x04\0\x05\0\xff\xff\xff\xff\
    \x10\0\x07\0\xff\xff\xff\xff\
    \x20\0\x05\0\xff\xff\xff\xff";

fn set_user_attribute(path: &str) {
    let [path, name] = [path, "user.x"].map(|text| CString::new(text).unwrap());
    raw::setxattr(&path, &name, b"value", 0).unwrap();
}

fn add_flags(path: &str, flags: u32) {
    let file = File::open(path).unwrap();
    let own = inode_flags::flags(&file).unwrap();
    inode_flags::set_flags(&file, own | flags).unwrap();
}

/// Gives a directory a project, which what is made in it gets, too.
pub(crate) fn of_project(path: &str) {
    let directory = File::open(path).unwrap();
    inode_flags::set_project(&directory, 42).unwrap();
    add_flags(path, inode_flags::INHERITS_PROJECT);
}
