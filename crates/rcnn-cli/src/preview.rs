//! `rcnn data preview`: training images as augmentation leaves them, with their boxes, masks and keypoints.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use image::RgbImage;
use rcnn_data::{Augmentation, Example, Fields, Loader, LoaderOptions};
use rcnn_image::draw::{Label, WHITE, draw_labels, legible};
use rcnn_image::sheet::{Grid, shrink};
use rcnn_types::{Size, Skeleton};

use crate::Outcome;
use crate::augment_args::AugmentArgs;
use crate::data::{DatasetArgs, files_of};
use crate::files;
use crate::output::{PictureFolder, tell_illegible};
use crate::overwrite::{Guard, OverwriteArgs};
use crate::source::positive;

/// Draw augmented training images, with boxes, masks, keypoints and class names
///
/// They are the first images of the first epoch of training with the same seed and augmentation, before they are
/// resized for the model. Their names are printed, too.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn data preview --data cells --split train --output preview.png
  rcnn data preview --data cells --split train --crop 1 --mosaic 0.5 --count 4 --output pictures/")]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    dataset: DatasetArgs,
    /// Number of images to draw
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive)]
    count: usize,
    /// Seed for the order and the augmentation
    #[arg(long, value_name = "N", default_value = "0", hide_short_help = true)]
    seed: u64,
    /// Where to write: a .png or .jpg file for a contact sheet, or a folder for pictures in full size
    #[arg(long, short, value_name = "FILE|DIR")]
    output: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    augment: AugmentArgs,
}

/// Drawings besides boxes.
const SHAPES: Fields = Fields {
    masks: true,
    keypoints: true,
    extras: false,
};

/// The sheet of small pictures.
const SHEET: Grid = Grid {
    columns: 4,
    cell: Size::new(300, 400),
    gap: 4,
    background: WHITE,
};

pub(crate) fn run(args: PreviewArgs) -> Result<Outcome> {
    let mut augmentation = Augmentation::default();
    args.augment.apply(&mut augmentation);
    let dataset = Arc::new(args.dataset.open(None, SHAPES)?);
    let options = LoaderOptions {
        seed: args.seed,
        ..Default::default()
    };
    let loader = Loader::new(dataset.clone(), augmentation, options)?;
    let chosen = loader.order(0).into_iter().take(args.count);
    let sources = chosen.map(|index| dataset.samples[index].image.as_path());
    let guard = Guard::new(args.overwrite, files_of(&dataset));
    let folder = if is_sheet(&args.output) {
        guard.check(&args.output, rcnn_image::is_ours)?;
        None
    } else {
        Some(PictureFolder::create(&args.output, sources, &guard)?)
    };

    tell_illegible(&dataset.class_names);
    let names = dataset.class_names.iter().enumerate();
    let names: Vec<String> = names
        .map(|(label, name)| legible(name, label).into())
        .collect();
    let draw = |example: &Example, picture| drawn(example, picture, &names, &dataset.skeletons);
    let mut out = std::io::stdout().lock();
    let (mut cells, mut failed) = (Vec::new(), 0);
    let examples = loader.epoch(0).flatten().take(args.count);
    for (place, example) in examples.enumerate() {
        let example = match example {
            Ok(example) => example,
            Err(error) => {
                eprintln!("error: {error}");
                failed += 1;
                continue;
            }
        };
        let path = &dataset.samples[example.index].image;
        writeln!(out, "{}  {}", path.display(), described(&example))?;
        match &folder {
            Some(folder) => folder.write(place, &draw(&example, example.image.clone()))?,
            None => cells.push(draw(&example, shrink(&example.image, SHEET.cell))),
        }
    }
    match args.count.min(dataset.samples.len()) {
        // The reason has been said.
        1 if failed == 1 => return Ok(Outcome::AllFailed),
        all if failed == all => bail!("none of the pictures could be read"),
        _ => {}
    }
    if folder.is_none() {
        files::write_picture(&args.output, &SHEET.draw(&cells))?;
    }
    Ok(match failed {
        0 => Outcome::Done,
        _ => Outcome::SomeFailed,
    })
}

/// Whether one picture is to be written there, not a folder.
fn is_sheet(output: &Path) -> bool {
    let picture = |extension| extension == "png" || extension == "jpg" || extension == "jpeg";
    !output.is_dir() && output.extension().is_some_and(picture)
}

fn described(example: &Example) -> String {
    let (width, height) = example.image.dimensions();
    let boxes = match example.instances.len() {
        1 => "1 box".to_string(),
        n => format!("{n} boxes"),
    };
    match example.min_size {
        Some(size) => format!("{width}x{height}  {boxes}  to be resized to {size}"),
        None => format!("{width}x{height}  {boxes}"),
    }
}

/// The picture of an example, of whatever size, with the example's boxes.
fn drawn(
    example: &Example,
    mut picture: RgbImage,
    names: &[String],
    skeletons: &[Skeleton],
) -> RgbImage {
    let size = |image: &RgbImage| Size::from_dimensions(image.dimensions());
    let mut objects = example.instances.clone();
    // Drawn on the small picture, so that lines and names are legible there.
    objects.resize(size(&example.image), size(&picture));
    let labels: Vec<Label> = objects
        .iter()
        .map(|object| Label {
            bounds: object.bbox,
            text: &names[object.label],
            colour: object.label,
            mask: object.mask,
            keypoints: object.keypoints,
            skeleton: skeletons.get(object.label).map_or(&[], |s| &s.edges),
        })
        .collect();
    draw_labels(&mut picture, &labels);
    picture
}
