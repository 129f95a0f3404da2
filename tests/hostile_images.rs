//! An image may come from anywhere: a restore goes nowhere but where the image says, and not out
//! of the directory that it is told to stay in.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use cr::Image;
use cr::image::{
    Descriptor, Extent, Ghost, Inode, Inotify, Object, OpenFile, Place, PlaceKind, Process, Watch,
};

/// A folder with a root to stay in, and a directory beside it that nobody may write.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["root", "outside"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("outside/kept"), "kept").unwrap();
        fs::create_dir(folder.path().join("root/dir")).unwrap();
        symlink("../outside", folder.path().join("root/link")).unwrap();
        Self(folder)
    }

    fn restore(&self, image: &Image) -> Output {
        let file = self.0.path().join("image.nf");
        fs::write(&file, image.encode_file()).unwrap();
        Command::new(env!("CARGO_BIN_EXE_notifreeze"))
            .args([
                Path::new("restore"),
                Path::new("--images"),
                &file,
                Path::new("--root"),
            ])
            .arg(self.0.path().join("root"))
            .args(["--", "true"])
            .output()
            .unwrap()
    }

    fn tree(&self) -> Vec<(Vec<u8>, u64, i64)> {
        let mut found = Vec::new();
        for folder in ["root", "outside", "root/dir"] {
            for entry in fs::read_dir(self.0.path().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let stat = fs::symlink_metadata(&path).unwrap();
                found.push((
                    path.as_os_str().as_bytes().to_vec(),
                    stat.ino(),
                    stat.mtime_nsec(),
                ));
            }
        }
        found.sort();
        found
    }
}

/// One group with one watch, and one file that is open, both on a place.
fn image(kind: PlaceKind, path: &[u8]) -> Image {
    let ghost = Ghost {
        // The caller's own, so that the test is the same for every caller.
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        size: 4,
        extents: vec![Extent {
            offset: 0,
            length: 4,
            stored: None,
            content: b"evil".to_vec(),
        }],
        ..Ghost::default()
    };
    let watch = Watch {
        wd: 1,
        mask: 0x100,
        place: 0,
    };
    let group = Inotify {
        watches: vec![watch],
        ..Inotify::default()
    };
    let file = |object, flags| OpenFile {
        flags,
        object: Some(object),
        ..OpenFile::default()
    };
    let descriptor = |fd, file| Descriptor {
        fd,
        file,
        close_on_exec: false,
    };
    Image {
        processes: vec![Process {
            pid: 1000,
            parent: 1,
            descriptors: vec![descriptor(50, 0), descriptor(51, 1)],
            ..Process::default()
        }],
        files: vec![file(Object::Inotify(group), 0), file(Object::Place(0), 2)],
        places: vec![Place {
            inode: 0,
            path: path.to_vec(),
            kind: kind.into(),
            mount: b"/".to_vec(),
            link: Vec::new(),
            parent: None,
        }],
        inodes: vec![Inode {
            mode: 0o100_644,
            ghost: (kind != PlaceKind::Named).then_some(ghost),
            ..Inode::default()
        }],
        only_groups: true,
        ..Image::default()
    }
}

#[test]
fn a_ghost_is_made_in_the_root_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let before = folder.tree();
    let output = folder.restore(&image(PlaceKind::Gone, b"/dir/ghost"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(folder.tree(), before);
}

#[test]
fn no_place_of_an_image_leads_out_of_the_root() {
    for kind in [
        PlaceKind::Named,
        PlaceKind::Gone,
        PlaceKind::Hidden,
        PlaceKind::Unnamed,
    ] {
        for path in [
            &b"/../outside/kept"[..],
            b"/link/kept",
            b"/link/new/kept",
            b"/dir/../../outside/kept",
        ] {
            let folder = Folder::new();
            let before = folder.tree();
            let output = folder.restore(&image(kind, path));
            let shown = path.escape_ascii();
            // A link where the directory of a ghost was is moved aside for a moment, not followed.
            let moved_aside = kind == PlaceKind::Gone && path.starts_with(b"/link");
            assert!(
                moved_aside || !output.status.success(),
                "{kind:?} {shown} was restored"
            );
            assert_eq!(folder.tree(), before, "{kind:?} {shown} changed something");
            let kept = fs::read(folder.0.path().join("outside/kept")).unwrap();
            assert_eq!(kept, b"kept");
        }
    }
}
