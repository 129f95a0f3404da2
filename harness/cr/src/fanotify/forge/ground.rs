//! A forged filesystem: in memory, on a loop device, in no mount namespace.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;

use super::scene::Scene;
use super::script::State;
use crate::ext4::{self, Layout};
use crate::sys::block::Mounted;
use crate::sys::{fanotify, path, raw};

pub(super) struct Ground {
    pub(super) mounted: Mounted,
    pub(super) state: State,
}

/// The call that failed, and its errno.
pub(super) type Failed = (&'static str, Errno);

impl Ground {
    /// A filesystem with this number, in which every object of the scenes waits.
    pub(super) fn new(fsid: [u32; 2], scenes: &[&Scene]) -> Result<Self, Failed> {
        let call = |name| move |errno| (name, errno);
        let (layout, spare) = layout_for(fsid, scenes);
        let mounted = layout.mount()?;
        let root = mounted.root.as_raw_fd();
        let shown = fanotify::fsid(Path::new(&format!("/proc/self/fd/{root}")));
        if shown.map_err(call("statfs"))? != fsid {
            return Err(("statfs", Errno::EXDEV));
        }
        let home = layout.home.1.clone();
        settle(&mounted, &layout, spare)?;
        let objects = layout.free.iter().copied().filter(|ino| *ino != spare);
        Ok(Self {
            state: State::new(&home, objects),
            mounted,
        })
    }
}

/// What is wanted there, and the number that is to stay free.
fn layout_for(fsid: [u32; 2], scenes: &[&Scene]) -> (Layout, u32) {
    let inodes = scenes.iter().flat_map(|scene| scene.inodes());
    let mut free: BTreeSet<u32> = inodes.map(|inode| inode.ino).collect();
    free.remove(&ext4::ROOT);
    let mut others = (ext4::FIRST..).filter(|ino| !free.contains(ino));
    let (home, spare) = (others.next(), others.next());
    let (home, spare) = (home.expect("a number"), spare.expect("a number"));
    free.insert(spare);
    let names: BTreeSet<&[u8]> = scenes.iter().flat_map(|scene| scene.names()).collect();
    let mut called = (0..).map(|number: u32| format!("home{number}").into_bytes());
    let name = called.find(|name| !names.contains(&name[..]));
    let layout = Layout {
        fsid,
        home: (home, name.expect("a name")),
        free,
    };
    (layout, spare)
}

/// Makes a file of every free number, calls it by that number, and frees the spare one again.
fn settle(mounted: &Mounted, layout: &Layout, spare: u32) -> Result<(), Failed> {
    let call = |name| move |errno| (name, errno);
    let root = mounted.root.as_raw_fd();
    let in_home =
        |name: &[u8]| CString::new([&layout.home.1[..], b"/", name].concat()).expect("no NUL");
    let made = in_home(b"made");
    for _ in &layout.free {
        raw::mknodat(root, &made, libc::S_IFREG | 0o700).map_err(call("mknod"))?;
        let found = path::stat(&mounted.root, &made).map_err(call("statx"))?.ino;
        let wanted = u32::try_from(found).is_ok_and(|ino| layout.free.contains(&ino));
        if !wanted {
            return Err(("mknod of a free inode", Errno::EXDEV));
        }
        let called = in_home(found.to_string().as_bytes());
        raw::renameat(root, &made, root, &called).map_err(call("rename"))?;
    }
    let spare = in_home(spare.to_string().as_bytes());
    raw::unlinkat(root, &spare, 0).map_err(call("unlink"))?;
    Ok(())
}
