//! `notifreeze show`.

use std::path::{Path, PathBuf};

use cr::Image;

use crate::criu_images::{self, Images};

/// The name of an image in a folder of images.
pub(super) const IMAGE: &str = "image.nf";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An image, the folder that `dump` put one into, or a folder of CRIU's images.
    image: PathBuf,
    /// As JSON, content of files left out. Not of CRIU's images.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    if criu_images::are_in(&args.image) {
        if args.json {
            return Err("CRIU's images are shown as text alone".to_owned());
        }
        let images = Images::read(&args.image).map_err(|error| error.to_string())?;
        anstream::print!("{images}");
        return Ok(crate::EXIT_OK);
    }
    let image = read(&args.image)?;
    if args.json {
        let text = serde_json::to_string_pretty(&image).map_err(|error| error.to_string())?;
        anstream::println!("{text}");
    } else {
        anstream::print!("{image}");
    }
    Ok(crate::EXIT_OK)
}

/// The image of a folder, or the image itself.
pub(super) fn file(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(IMAGE)
    } else {
        path.to_path_buf()
    }
}

/// Reads an image, or the one in a folder.
pub(super) fn read(path: &Path) -> Result<Image, String> {
    let file = file(path);
    Image::read(&file).map_err(|error| format!("{}: {error}", file.display()))
}
