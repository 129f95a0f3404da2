//! Handles, which lead anywhere on a filesystem, in a restore that is to stay below a directory.

use std::fs;
use std::os::unix::fs::MetadataExt;

use cr::Image;
use cr::image::{Descriptor, Handle, Inode, Object, OpenFile, Place, PlaceKind, Process};
use libtest_mimic::{Failed, Trial};

use super::{GHOST, World, same};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("a_hidden_file_is_opened_below_the_root_alone", || {
            open_below(PlaceKind::Hidden)
        }),
        Trial::test("a_linked_file_is_opened_below_the_root_alone", || {
            open_below(PlaceKind::Gone)
        }),
    ]
}

fn open_below(kind: PlaceKind) -> Result<(), Failed> {
    let this = cr::sys::handle::of_path(&std::env::current_exe()?)?;
    let here = fs::File::open(std::env::current_exe()?)?;
    if cr::sys::handle::open(&here, &this).is_err() {
        // Nobody opens a handle of a file in a user namespace.
        return Ok(());
    }
    for (target, is_inside) in [("tree/precious/f", true), ("outside/secret", false)] {
        let world = World::new()?;
        let image = image(&world, target, kind)?;
        let root = world.path("tree");
        let before = world.all()?;
        let said = world.restore_below(&root, &image)?;
        same(&is_inside, &said.starts_with("restored"))
            .map_err(|_| format!("{target}: it says: {said}"))?;
        same(&before, &world.all()?)?;
        // Without the fence the handle is good enough.
        let mut image = image;
        image.places[0].path = world.bytes(&format!("tree{NEW}"));
        let said = world.restore(&image)?;
        same(&true, &said.starts_with("restored"))
            .map_err(|_| format!("{target}: it says: {said}"))?;
    }
    Ok(())
}

/// A name that nothing has.
const NEW: &str = "/d/new";

/// A file that is open by its handle.
fn image(world: &World, target: &str, kind: PlaceKind) -> Result<Image, Failed> {
    let path = world.path(target);
    let handle = cr::sys::handle::of_path(&path)?;
    let metadata = fs::metadata(&path)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let descriptor = Descriptor {
        fd: GHOST,
        file: 0,
        close_on_exec: false,
    };
    let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes())?;
    let stat = cr::sys::path::stat_path(&path)?;
    Ok(Image {
        processes: vec![Process {
            pid: 1000,
            parent: 1,
            descriptors: vec![descriptor],
            ..Process::default()
        }],
        files: vec![OpenFile {
            flags: 2,
            object: Some(Object::Place(0)),
            ..OpenFile::default()
        }],
        places: vec![Place {
            path: NEW.as_bytes().to_vec(),
            kind: kind.into(),
            mount: b"/".to_vec(),
            ..Place::default()
        }],
        inodes: vec![Inode {
            sdev: stat.device.0,
            ino: metadata.ino(),
            handle: Some(Handle {
                kind: handle.kind(),
                bytes: handle.bytes().to_vec(),
            }),
            mode: 0o100_644,
            ..Inode::default()
        }],
        boot_id: boot.trim().to_owned(),
        ..Image::default()
    })
}
