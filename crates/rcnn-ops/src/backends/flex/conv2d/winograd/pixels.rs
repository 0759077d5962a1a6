//! The passes between images as pixels and transformed tiles.

use std::array::from_fn;
use std::ops::Range;

use super::super::epilogue::Epilogue;
use super::super::lanes::vectorised;
use super::super::pool::{LANES, Lane};
use super::super::shared::Shared;
use super::tiling::{Images, Points, STEP, Strip};
use super::transform;

/// Lanes of channels that a task transforms: few, so that the rows of pixels that tiles share stay
/// in cache.
const GROUP: usize = 4;

impl Images {
    /// Groups of lanes that tasks share.
    pub(super) fn lane_groups(&self) -> usize {
        self.lanes().div_ceil(GROUP)
    }

    fn group(&self, group: usize) -> Range<usize> {
        group * GROUP..self.lanes().min((group + 1) * GROUP)
    }

    /// The first lane of a pixel.
    fn pixel(&self, image: usize, y: usize, x: usize) -> usize {
        ((image * self.height + y) * self.width + x) * self.lanes()
    }
}

/// Stands for what lies outside an image.
static ZERO: Lane = Lane::ZERO;

vectorised! {
    /// Transforms a group of lanes of a strip of the input.
    pub(super) fn spread_input(
        images: &Images, x: &[Lane], strip: &Strip, group: usize, points: &Points<'_>,
    ) {
        let (lanes, cols) = (images.lanes(), images.tile_cols());
        let mut to = [[Lane::ZERO; 6]; 6];
        for (row, col) in strip.tiles(cols) {
            let (top, left) = ((strip.rows.start + row) * STEP, col * STEP);
            let inside = top > 0
                && left > 0
                && top + STEP < images.height
                && left + STEP < images.width;
            let place = (strip.first + row * cols + col) * lanes;
            let corner = inside.then(|| images.pixel(strip.image, top - 1, left - 1));
            for lane in images.group(group) {
                let from: [[&Lane; 6]; 6] = match corner {
                    Some(corner) => from_fn(|i| {
                        let line = &x[corner + i * images.width * lanes..][..6 * lanes];
                        from_fn(|j| &line[j * lanes + lane])
                    }),
                    None => from_fn(|i| {
                        from_fn(|j| {
                            let (y, x_) = ((top + i).wrapping_sub(1), (left + j).wrapping_sub(1));
                            match y < images.height && x_ < images.width {
                                true => &x[images.pixel(strip.image, y, x_) + lane],
                                false => &ZERO,
                            }
                        })
                    }),
                };
                transform::tile(transform::input, from, &mut to);
                // SAFETY: each strip and group has places of its own.
                unsafe { points.place(place + lane, &to) };
            }
        }
    }
}

vectorised! {
    /// Transforms a group of lanes of a strip of products to the output.
    pub(super) fn collect_output(
        images: &Images, points: &[Lane], stride: usize, strip: &Strip, group: usize,
        epilogue: &Epilogue<'_>, out: &Shared<'_, Lane>,
    ) {
        let (lanes, cols) = (images.lanes(), images.tile_cols());
        let mut factors = [[Lane::ZERO; 2]; GROUP];
        for (lane, factors) in images.group(group).zip(&mut factors) {
            *factors = epilogue.lane(lane);
        }
        let mut to = [[Lane::ZERO; STEP]; STEP];
        for (row, col) in strip.tiles(cols) {
            let (top, left) = ((strip.rows.start + row) * STEP, col * STEP);
            let place = (strip.first + row * cols + col) * lanes;
            for (lane, factors) in images.group(group).zip(&factors) {
                let from = from_fn(|i| from_fn(|j| &points[(6 * i + j) * stride + place + lane]));
                transform::tile(transform::output, from, &mut to);
                for (y, line) in (top..images.height).zip(&mut to) {
                    for (x, pixel) in (left..images.width).zip(line) {
                        let at = images.pixel(strip.image, y, x) + lane;
                        epilogue.finish_lane(factors, at * LANES, pixel);
                        // SAFETY: each strip and group has pixels of its own.
                        unsafe { out.write(at, &[*pixel]) };
                    }
                }
            }
        }
    }
}
