//! Our own dump and restore: the subject is dumped from outside into an image, killed, and a new
//! process restores the image in itself.

use std::fs;
use std::path::Path;

use cr::DumpOptions;
use scenario::Loss;

use super::{Cut, CutError, Defect, Workshop, start_subject};
use crate::park::Stop;

/// The image's name in the folder of a cut.
const IMAGE: &str = "image.nf";

pub(super) fn cut(shop: &Workshop, defect: Option<Defect>) -> Result<Cut, CutError> {
    let options = DumpOptions {
        root: shop.world.to_path_buf(),
        paths: shop.names.to_vec(),
        ..DumpOptions::default()
    };
    let mut image = cr::dump(shop.subject, &options)
        .map_err(|error| CutError::Refused(format!("{error} by builtin")))?;
    let losses = image.losses().into_iter().map(loss).collect();
    if let Some(defect) = defect {
        defect.spoil(&mut image);
    }
    let path = shop.images.join(IMAGE);
    image
        .write(&path)
        .map_err(|error| CutError::Failed(format!("write the image: {error}")))?;
    shop.parking.kill(&image.pids()).map_err(CutError::Failed)?;
    let subject = start(shop, &path, defect)?;
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

fn start(
    shop: &Workshop,
    image: &Path,
    defect: Option<Defect>,
) -> Result<nix::unistd::Pid, CutError> {
    let mut args = vec![Path::new("--restore"), image];
    if let Some(name) = defect.and_then(Defect::restore_defect) {
        args.extend([Path::new("--defect"), Path::new(name)]);
    }
    args.extend([shop.plan, shop.log]);
    start_subject(shop.subject_program, &args, shop.world, Some(shop.subject))
        .map_err(CutError::Failed)
}

fn loss(loss: cr::Loss) -> Loss {
    let cr::Loss {
        invariant,
        object,
        reason,
    } = loss;
    Loss {
        invariant,
        object,
        reason,
    }
}

/// What the subject wrote before it gave up.
fn reason(log: &Path) -> String {
    fs::read_to_string(log.with_extension("error")).unwrap_or_default()
}
