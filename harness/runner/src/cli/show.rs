//! `notifreeze show`.

use std::path::{Path, PathBuf};

use cr::Image;

/// The name of an image in a folder of images.
pub(super) const IMAGE: &str = "image.nf";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An image, or the folder that `dump` put one into.
    image: PathBuf,
    /// As JSON, content of files left out.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let image = read(&args.image)?;
    if args.json {
        let text = serde_json::to_string_pretty(&image).map_err(|error| error.to_string())?;
        anstream::println!("{text}");
    } else {
        anstream::print!("{image}");
    }
    Ok(crate::EXIT_OK)
}

/// Reads an image, or the one in a folder.
pub(super) fn read(path: &Path) -> Result<Image, String> {
    let file = if path.is_dir() {
        path.join(IMAGE)
    } else {
        path.to_path_buf()
    };
    Image::read(&file).map_err(|error| format!("{}: {error}", file.display()))
}
