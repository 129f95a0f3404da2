//! How much memory an image takes to be read.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cr::Image;
use cr::image::{Inode, LossRecord, Object, OpenFile, Place, PlaceKind, Process};

use super::{Folder, descriptor, file, minimal, place, said, show};

/// A shell may take no more than so many KiB of addresses.
fn show_within(kib: usize, image: &Path) -> Output {
    Command::new("sh")
        .args(["-c", "ulimit -v $0; exec \"$1\" show \"$2\""])
        .arg(kib.to_string())
        .arg(env!("CARGO_BIN_EXE_notifreeze"))
        .arg(image)
        .output()
        .unwrap()
}

#[test]
fn entries_that_say_nothing_take_no_memory() {
    let folder = Folder::new();
    let n_bytes = 1 << 20;
    // Of the program itself, and three times sixteen times the message.
    let kib = (256 << 10) + 48 * (n_bytes >> 10);
    let n_entries = n_bytes / 2;
    let hollow = [
        Image {
            processes: vec![Process::default(); n_entries],
            ..Image::default()
        },
        Image {
            files: vec![OpenFile::default(); n_entries],
            ..Image::default()
        },
        Image {
            places: vec![Place::default(); n_entries],
            ..Image::default()
        },
        Image {
            inodes: vec![Inode::default(); n_entries],
            ..Image::default()
        },
        Image {
            lost: vec![LossRecord::default(); n_entries],
            ..Image::default()
        },
    ];
    for image in hollow {
        let output = show_within(kib, &folder.write(&image));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(said(&output).contains("more memory"), "{}", said(&output));
    }
    let images = folder.path("criu");
    fs::create_dir(&images).unwrap();
    let mut file = [0x5456_4319_u32, 0x5630_3138]
        .map(u32::to_le_bytes)
        .concat();
    file.resize(n_bytes, 0);
    fs::write(images.join("files.img"), file).unwrap();
    let output = show_within(kib, &images);
    assert!(said(&output).contains("more memory"), "{}", said(&output));
}

/// As far as they go: many watches are a long message.
#[test]
fn honest_images_are_not_too_heavy() {
    let folder = Folder::new();
    let mut image = minimal();
    for number in 0..20_000_u32 {
        let path = format!("/f{number}").into_bytes();
        image.places.push(Place {
            inode: number,
            ..place(path, PlaceKind::Named)
        });
        image.inodes.push(Inode {
            sdev: 0x10,
            ino: u64::from(number) + 100,
            mode: 0o100_644,
            ..Inode::default()
        });
        image.files.push(file(Object::Place(number), 0o100_000));
        let fd = i32::try_from(number).unwrap();
        image.processes[0].descriptors.push(descriptor(fd, number));
    }
    image.only_groups = false;
    let output = show(&folder.write(&image));
    assert!(output.status.success(), "{}", said(&output));
}
