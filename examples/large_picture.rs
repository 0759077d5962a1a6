//! Finds objects in a TIFF that is too large for memory, tile by tile:
//! `cargo run --release --example large_picture -- cars.bpk city.tiff`.

use rcnn_burn::image::{StripReader, to_tensor};
use rcnn_burn::prelude::*;
use rcnn_burn::tile::{Merge, MergeMethod, OverlapMetric, TileGrid, Views};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let weights = arguments.next().ok_or("no weights given")?;
    let picture = arguments.next().ok_or("no picture given")?;
    let device = Default::default();
    let model = rcnn_burn::load::<Flex>(&weights, &device)?;
    let views = Views {
        tiles: Some(TileGrid {
            side: 640,
            overlap: 0.2,
        }),
        merge: Merge {
            method: MergeMethod::Nmm,
            metric: OverlapMetric::Ios,
            ..Merge::default()
        },
        ..Views::default()
    };
    let mut picture = StripReader::open(picture)?.ok_or("not a TIFF of strips or tiles")?;
    let size = picture.size();
    let read = |window| -> Result<_, Box<dyn std::error::Error>> {
        Ok(to_tensor::<Flex>(&picture.window(window)?, &device))
    };
    let found = views.detect(&model, size, read, |done, all| eprintln!("{done}/{all}"))?;
    println!("{} objects", found.len());
    Ok(())
}
