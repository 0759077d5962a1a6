//! `rcnn data tile`: cuts large labelled pictures into tiles.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use rcnn_data::ReadOptions;
use rcnn_data::tile::{TileOptions, tile};

use crate::Outcome;
use crate::data::{self, ReadArgs};
use crate::progress::progress_bar;
use crate::source::positive;
use crate::thresholds::unit;
use crate::tiles::grid;

/// Cut a data set of large pictures into tiles to train on
///
/// Writes COCO data. Objects are copied, with masks and keypoints, to every tile that shows enough of them; the
/// others are left out of it, and counted. Tiles of JPEGs are JPEGs, all others PNGs.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn data tile city -o city-tiles --tile 640 --overlap 0.2 --min-visible 0.3
  rcnn train --data city-tiles --out run")]
pub(crate) struct TileDataArgs {
    /// Folder of the data, or its COCO .json, YOLO .yaml or darknet .data file
    data: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Folder to write, new or empty
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Width and height of a tile in pixels; smaller pictures are one tile, as they are
    #[arg(long, value_name = "N", default_value = "640", value_parser = positive)]
    tile: usize,
    /// Share of a tile that overlaps with its neighbour, from 0 to below 1
    #[arg(long, value_name = "F", default_value = "0.2")]
    overlap: f64,
    /// Share of an object's area (of its mask's, if it has one) that a tile must show to keep the object
    #[arg(long, value_name = "F", default_value = "0.3", value_parser = unit::<f64>)]
    min_visible: f64,
    /// Leave out tiles without objects
    #[arg(long)]
    skip_empty: bool,
    /// Leave out boxes and files that are invalid, and say how many. All pictures are decoded once to find them
    #[arg(long)]
    skip_invalid: bool,
}

pub(crate) fn run(args: TileDataArgs) -> Result<Outcome> {
    let options = TileOptions {
        grid: grid(args.tile, args.overlap)?,
        min_visible: args.min_visible,
        skip_empty: args.skip_empty,
    };
    let reading = ReadOptions {
        decode: args.skip_invalid,
        ..args.read.options()
    };
    let dataset = data::open(&args.data, &reading, args.skip_invalid)?;
    let pictures = dataset.samples.len();
    let progress = progress_bar(pictures, "images");
    let tiled = tile(&dataset, &args.output, &options, |done| {
        progress.set_position(done as u64)
    })?;
    progress.finish_and_clear();
    let (output, written) = (args.output.display(), &tiled.written);
    eprintln!(
        "{output}: {} tiles of {pictures} images, {} boxes of {} objects",
        written.images,
        written.boxes,
        dataset.boxes()
    );
    let share = 100.0 * args.min_visible;
    if tiled.dropped > 0 {
        eprintln!(
            "objects left out of tiles that show less than {share:.0}% of them: {}; in no tile at all: {}",
            tiled.dropped, tiled.lost
        );
    }
    if tiled.empty > 0 {
        eprintln!("tiles without objects left out: {}", tiled.empty);
    }
    Ok(Outcome::Done)
}
