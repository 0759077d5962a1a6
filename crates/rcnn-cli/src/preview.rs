//! `rcnn data preview`: training images as augmentation leaves them, with their boxes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use image::RgbImage;
use rcnn_burn::GeneralizedRcnnTransform;
use rcnn_burn::image::open_rgb;
use rcnn_data::preview::{contact_sheet, examples, shrink};
use rcnn_data::{Augmentation, Example, Loader, LoaderOptions};

use crate::Outcome;
use crate::augment_args::AugmentArgs;
use crate::data::DatasetArgs;
use crate::draw::{self, Label};
use crate::files;
use crate::output::PictureFolder;
use crate::source::positive;

/// Draw images as they are trained on: augmented, with boxes and class names
///
/// They are the first of training's first epoch with the same seed and augmentation, before they are
/// resized for the model. Lists them too.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn data preview --data bccd --split train --output preview.png
  rcnn data preview --data bccd --split train --crop 1 --mosaic 0.5 --count 4 --output pictures/")]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    dataset: DatasetArgs,
    /// Images to draw, at most all
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive)]
    count: usize,
    /// Seed of order and augmentation
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
    /// Where to draw: a .png or .jpg file for a sheet of small pictures, or a folder for each picture
    /// in its size
    #[arg(long, short, value_name = "FILE|DIR")]
    output: PathBuf,
    #[command(flatten)]
    augment: AugmentArgs,
}

/// Width and height of a picture of the sheet, in pixels, and how many stand side by side.
const CELL: (u32, u32) = (400, 300);
const COLUMNS: u32 = 4;

pub(crate) fn run(args: PreviewArgs) -> Result<Outcome> {
    let mut augmentation = Augmentation::default();
    args.augment.apply(&mut augmentation);
    let dataset = Arc::new(args.dataset.open(None)?);
    let mut folder = match is_sheet(&args.output) {
        true => None,
        false => Some(PictureFolder::create(&args.output)?),
    };
    let options = LoaderOptions {
        seed: args.seed,
        ..Default::default()
    };
    let decode = Arc::new(|path: &Path| Ok(open_rgb(path)?));
    let loader = Loader::new(dataset.clone(), decode, augmentation, options);

    let mut out = std::io::stdout().lock();
    let (mut cells, mut failed) = (Vec::new(), 0);
    for example in examples(&loader, 0, args.count) {
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
        let names = &dataset.class_names;
        match &mut folder {
            Some(folder) => folder.write(path, &drawn(&example, example.image.clone(), names))?,
            None => cells.push(drawn(&example, shrink(&example.image, CELL), names)),
        }
    }
    if failed == args.count.min(dataset.samples.len()) {
        bail!("none of the pictures could be read");
    }
    if folder.is_none() {
        files::write_picture(&args.output, &contact_sheet(&cells, COLUMNS, CELL))?;
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
    let boxes = match example.boxes.len() {
        1 => "1 box".to_string(),
        n => format!("{n} boxes"),
    };
    match example.min_size {
        Some(size) => format!("{width}x{height}  {boxes}  to be resized to {size}"),
        None => format!("{width}x{height}  {boxes}"),
    }
}

/// The picture of an example, of whatever size, with the example's boxes.
fn drawn(example: &Example, mut picture: RgbImage, names: &[String]) -> RgbImage {
    let size = |image: &RgbImage| (image.height() as usize, image.width() as usize);
    let mut boxes = example.boxes.clone();
    // Drawn on the small picture, so that lines and names are legible there.
    GeneralizedRcnnTransform::resize_boxes(&mut boxes, size(&example.image), size(&picture));
    let labels: Vec<Label> = boxes
        .into_iter()
        .zip(&example.labels)
        .map(|(bounds, &class)| Label {
            bounds,
            text: &names[class],
            class,
        })
        .collect();
    draw::draw(&mut picture, &labels);
    picture
}
