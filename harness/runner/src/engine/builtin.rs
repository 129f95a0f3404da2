//! Our own dump and restore: the subject is dumped from outside into an image, killed, and a new
//! process restores the image in itself.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cr::image::{Descriptor, Image, Object, Place, PlaceKind};
use cr::sys::inspect;
use cr::{Afterwards, DumpError, DumpErrorKind, DumpOptions, LossKind};
use fsnotify::fanotify::InitFlags;
use nix::libc;
use nix::unistd::Pid;
use scenario::{Bytes, Loss};
use subject::Start;

use super::{Cut, CutError, Defect, Policies, Workshop, start_subject};
use crate::park::Stop;

/// The image's name in the folder of a cut.
const IMAGE: &str = "image.nf";

/// The group of invariants about unread events.
const QUEUE: u8 = 4;
/// The group of invariants about what is seen of edges.
const BEHAVIOUR: u8 = 6;
/// The group of invariants about other watchers.
const BYSTANDERS: u8 = 8;
/// The group of invariants about the visible tree.
const TREE: u8 = 9;

pub(super) fn cut(
    shop: &Workshop,
    policies: Policies,
    defect: Option<Defect>,
) -> Result<Cut, CutError> {
    let options = DumpOptions {
        root: shop.world.to_path_buf(),
        paths: shop.names.to_vec(),
        queue: policies.queue.into(),
        ghosts: policies.ghosts.into(),
        ..DumpOptions::default()
    };
    let refused = |error: DumpError| match error.kind {
        DumpErrorKind::NotSupported(_) => format!("{error} by {}", policies.name()),
        _ => without_numbers(&error.to_string()),
    };
    let dumped = cr::dump(shop.subject, &options);
    let mut image = dumped.map_err(|error| CutError::Refused(refused(error)))?;
    let losses = image.losses().into_iter().map(loss);
    let losses = losses.flat_map(|loss| by_name(loss, &image, shop.world));
    let mut losses: Vec<Loss> = losses.collect();
    let links = of_links(&image, shop.world).into_iter();
    let links: Vec<Loss> = links
        .filter(|loss| {
            let mut named = losses.iter();
            !named.any(|it| (it.invariant, &it.object) == (BYSTANDERS, &loss.object))
        })
        .collect();
    losses.extend(links);
    let groups = groups(&image).map_err(CutError::Failed)?;
    if let Some(defect) = defect {
        defect.spoil(&mut image);
    }
    let path = shop.images.join(IMAGE);
    image
        .write(&path)
        .map_err(|error| CutError::Failed(format!("write the image: {error}")))?;
    shop.parking.kill(&image.pids()).map_err(CutError::Failed)?;
    let closed = shop.closer.close(groups);
    closed.map_err(|error| CutError::Failed(format!("close the old groups: {error}")))?;
    let start = Start::Restore {
        image: path,
        defect: defect.and_then(Defect::restore_defect).map(str::to_owned),
    };
    let files = (shop.plan, shop.log);
    let subject =
        start_subject(&start, files, shop.world, Some(shop.subject)).map_err(CutError::Failed)?;
    match shop.parking.wait(subject) {
        Stop::Parked => Ok(Cut {
            subject,
            losses,
            notes: Vec::new(),
        }),
        Stop::Ended(how) => Err(CutError::Failed(format!(
            "restore: {how}: {}",
            reason(shop.log)
        ))),
        Stop::TimedOut => Err(CutError::Failed("restore: no end of it".to_owned())),
    }
}

/// Dumps the subject, which runs on with its queues.
pub(super) fn copy(shop: &Workshop) -> Result<Cut, CutError> {
    let options = DumpOptions {
        root: shop.world.to_path_buf(),
        paths: shop.names.to_vec(),
        ..DumpOptions::default()
    };
    let path = shop.images.join(IMAGE);
    let (image, more) = cr::dump_to_file(shop.subject, &path, (&options, Afterwards::RunsOn))
        .map_err(|error| CutError::Refused(format!("{error} by copy")))?;
    // Of what the image lacks, the subject lacks what comes of reading a queue and making it again.
    let made_again = image.losses().into_iter();
    let made_again = made_again.filter(|loss| matches!(loss.invariant, QUEUE | BEHAVIOUR));
    Ok(Cut {
        subject: shop.subject,
        losses: made_again.chain(more).map(loss).collect(),
        notes: Vec::new(),
    })
}

/// A descriptor of every group of the image whose end nobody has to wait for: one that holds no file,
/// which would be closed with it, and that nobody asks for permission.
fn groups(image: &Image) -> Result<Vec<OwnedFd>, String> {
    let mut groups = Vec::new();
    for process in &image.processes {
        let mut numbers = process.descriptors.iter().filter(|descriptor| {
            let file = image.files.get(descriptor.file as usize);
            let object = file.and_then(|file| file.object.as_ref());
            match object {
                Some(Object::Inotify(_)) => true,
                Some(Object::Fanotify(group)) => holds_no_file(InitFlags(group.init_flags)),
                _ => false,
            }
        });
        let Some(first) = numbers.next() else {
            continue;
        };
        let pid = Pid::from_raw(process.pid);
        let failed = |errno| format!("a group of process {pid}: {errno}");
        let pidfd = inspect::pidfd_open(pid).map_err(failed)?;
        for descriptor in std::iter::once(first).chain(numbers) {
            groups.push(inspect::pidfd_getfd(&pidfd, descriptor.fd).map_err(failed)?);
        }
    }
    Ok(groups)
}

/// Whether its unread events are file handles, not open files, and none is a question.
fn holds_no_file(flags: InitFlags) -> bool {
    let handles = InitFlags::REPORT_FID.0 | InitFlags::REPORT_DIR_FID.0;
    let asks = libc::FAN_CLASS_CONTENT | libc::FAN_CLASS_PRE_CONTENT;
    flags.0 & handles != 0 && flags.0 & asks == 0
}

fn loss(loss: cr::Loss) -> Loss {
    let kind = Some(loss.kind_name());
    let cr::Loss {
        kind: _,
        invariant,
        object,
        reason,
    } = loss;
    Loss {
        kind,
        invariant,
        object,
        reason,
    }
}

/// What the neighbours of a file hear is declared of its descriptor; they know the file, and the
/// directory that it was in, by their names in the world.
fn by_name(loss: Loss, image: &Image, world: &Path) -> Vec<Loss> {
    let place = matches!(loss.invariant, BYSTANDERS | TREE)
        .then(|| place_of(&loss.object, image))
        .flatten();
    let Some(place) = place else {
        return vec![loss];
    };
    let path = shown_path(image, place);
    let path = Path::new(OsStr::from_bytes(&path));
    let path = path.strip_prefix(world).unwrap_or(path);
    // Of a file that never had a name, the path is that of its directory.
    let path = match place.kind() {
        PlaceKind::Unnamed => path.join("#"),
        _ => path.to_path_buf(),
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let named = |path: &Path| Loss {
        object: Bytes::from(path.as_os_str().as_bytes()).to_string(),
        ..loss.clone()
    };
    match loss.invariant {
        TREE => vec![named(directory)],
        _ => vec![named(directory), named(&path)],
    }
}

/// What is heard of a link to a ghost by those who have not the descriptor that it is declared of: a
/// mark on the whole filesystem, watches on other names of the inode, a child's ghost.
fn of_links(image: &Image, world: &Path) -> Vec<Loss> {
    let mut objects: Vec<String> = Vec::new();
    for place in image.places.iter().filter(|place| !place.link.is_empty()) {
        objects.push("filesystem".to_owned());
        let other_name = &image.inodes[place.inode as usize].other_name;
        for path in [&shown_path(image, place), other_name] {
            if let Ok(path) = Path::new(OsStr::from_bytes(path)).strip_prefix(world) {
                let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
                for path in [path, directory.unwrap_or(Path::new("."))] {
                    objects.push(Bytes::from(path.as_os_str().as_bytes()).to_string());
                }
            }
        }
    }
    objects.sort();
    objects.dedup();
    let kind = LossKind::HardlinkNoise;
    let loss = |object| Loss {
        kind: Some(kind.to_string()),
        invariant: kind.invariant(),
        object,
        reason: "a ghost is linked at the dump, and unlinked at the restore".to_owned(),
    };
    objects.into_iter().map(loss).collect()
}

/// The path of a place. The number that stands for the name of a file opened with `O_TMPFILE` is left
/// out, as everywhere.
fn shown_path(image: &Image, place: &Place) -> Vec<u8> {
    const TMPFILE: u32 = libc::O_TMPFILE.cast_unsigned();
    let made_without_name = image.files.iter().any(|file| {
        let is_of_it = matches!(&file.object, Some(Object::Place(it))
            if image.places.get(*it as usize) == Some(place));
        is_of_it && file.flags & TMPFILE == TMPFILE
    });
    let slash = place.path.iter().rposition(|&byte| byte == b'/');
    match slash {
        Some(slash) if made_without_name && place.kind() != PlaceKind::Unnamed => {
            [&place.path[..slash], b"/#"].concat()
        }
        _ => place.path.clone(),
    }
}

/// Where the file of `fd N: ...` is, N being a descriptor of the main process.
fn place_of<'a>(object: &str, image: &'a Image) -> Option<&'a Place> {
    let number = object
        .strip_prefix("fd ")?
        .split(':')
        .next()?
        .parse::<i32>()
        .ok()?;
    let descriptors = &image.processes.first()?.descriptors;
    let found: &Descriptor = descriptors.iter().find(|it| it.fd == number)?;
    match &image.files.get(found.file as usize)?.object {
        Some(Object::Place(place)) => image.places.get(*place as usize),
        _ => None,
    }
}

/// What the subject wrote before it gave up.
fn reason(log: &Path) -> String {
    fs::read_to_string(log.with_extension("error")).unwrap_or_default()
}

/// What is said of an object that no path leads to, without the numbers of its inode, device and
/// mount, which are others in every run.
fn without_numbers(text: &str) -> String {
    let mut before = "";
    let words = text.split(' ').map(|word| {
        let varies = ["inode", "device", "mount"].contains(&before);
        before = word;
        match word.strip_suffix(':') {
            _ if !varies || !word.starts_with(|c: char| c.is_ascii_digit()) => word,
            Some(_) => "?:",
            None => "?",
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_this_run_are_left_out_and_those_of_the_scenario_stay() {
        let text =
            "fd 4: watch 7: inode 42 of device 0:70 has no file handle: its superblock is busy";
        let expected =
            "fd 4: watch 7: inode ? of device ? has no file handle: its superblock is busy";
        assert_eq!(without_numbers(text), expected);
        let text = "fd 4: fanotify: mount 191: no path of the subject leads to it";
        let expected = "fd 4: fanotify: mount ?: no path of the subject leads to it";
        assert_eq!(without_numbers(text), expected);
    }
}
