//! The filesystem that a world lives on: made for one run, in memory, and gone with its mount.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use cr::sys::block;
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

/// What a world can live on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Filesystem {
    #[default]
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
    /// One tmpfs over another.
    Overlay,
}

/// How to make one in a file. A size is the least that its maker takes, with room for a scenario.
struct Disk {
    maker: &'static str,
    args: &'static [&'static str],
    mib: u64,
}

impl Filesystem {
    /// As mount(8) calls it, and the requirement `fs:`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Overlay => "overlay",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = <Self as clap::ValueEnum>::value_variants();
        all.iter().copied().find(|known| known.name() == name)
    }

    /// Makes one, empty, and mounts it; what it is kept in goes into `room`, a directory that the
    /// scenario knows nothing of.
    ///
    /// # Errors
    ///
    /// A sentence: what cannot be made here.
    pub(super) fn attach(self, room: &Path, target: &Path) -> Result<(), String> {
        let failed = |errno| format!("mount {} on {}: {errno}", self.name(), target.display());
        let plain = |data: Option<&str>| {
            let kind = Some(self.name());
            mount(Some("world"), target, kind, MsFlags::empty(), data).map_err(failed)
        };
        match self {
            Self::Tmpfs => plain(None),
            Self::Overlay => {
                let mut data = Vec::new();
                for layer in ["lower", "upper", "work"] {
                    let folder = room.join(layer);
                    fs::create_dir(&folder)
                        .map_err(|error| format!("{}: {error}", folder.display()))?;
                    data.push(format!("{layer}dir={}", folder.display()));
                }
                plain(Some(&data.join(",")))
            }
            Self::Ext4 => self.attach_disk(
                &Disk {
                    maker: "mkfs.ext4",
                    args: &["-q", "-F"],
                    mib: 32,
                },
                (room, target),
            ),
            Self::Xfs => self.attach_disk(
                &Disk {
                    maker: "mkfs.xfs",
                    args: &["-q", "-f"],
                    mib: 300,
                },
                (room, target),
            ),
            Self::Btrfs => self.attach_disk(
                &Disk {
                    maker: "mkfs.btrfs",
                    args: &["-q", "-f"],
                    mib: 256,
                },
                (room, target),
            ),
        }
    }

    fn attach_disk(self, disk: &Disk, (room, target): (&Path, &Path)) -> Result<(), String> {
        let path = room.join("disk");
        let image = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|image| image.set_len(disk.mib << 20).map(|()| image))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let made = Command::new(disk.maker)
            .args(disk.args)
            .arg(&path)
            .output()
            .map_err(|error| format!("{}: {error}", disk.maker))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(format!("{}: {}", disk.maker, said.trim()));
        }
        let kind = std::ffi::CString::new(self.name()).expect("no NUL");
        block::mount_memory(&image, &kind, &[])
            .and_then(|mounted| mounted.attach(target))
            .map_err(|(call, errno)| format!("{}: {call}: {errno}", self.name()))?;
        // Its device has it open.
        fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))
    }
}
