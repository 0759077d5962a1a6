//! TensorFlow's `crop_and_resize` with the max-pool after it: bins of boxes, each the largest of a few bilinear samples.

use rayon::prelude::*;

use crate::block::{BLOCK, ChannelBlock, floats, floats_mut};
use crate::pool::larger;
use crate::simd::vectorised;

/// A box to cut out of one of a batch's images: where its samples lie along both axes, in pixels of the map. The samples of
/// a bin follow each other. Outside of the map they are zero.
#[derive(Clone, Debug)]
pub struct Crop {
    /// Index of the image in its batch.
    pub image: usize,
    /// Vertical positions.
    pub rows: Vec<f32>,
    /// Horizontal positions.
    pub columns: Vec<f32>,
}

/// Cuts out boxes to `out`, `[K, C, bins vertical, bins horizontal]`, of bins with `samples` along each axis.
///
/// Features `[N, C, H, W]` and `out` have their channels last.
pub fn forward(
    features: &[ChannelBlock],
    [_, c, h, w]: [usize; 4],
    crops: &[Crop],
    samples: usize,
    out: &mut [ChannelBlock],
) {
    let blocks = c.div_ceil(BLOCK);
    let each = out.len() / crops.len().max(1);
    let crops = crops.par_iter().zip(out.par_chunks_mut(each.max(1)));
    crops.for_each(|(crop, out)| {
        let map = Map {
            pixels: &features[crop.image * h * w * blocks..],
            blocks,
            width: w,
        };
        let (rows, columns) = (taps(&crop.rows, h), taps(&crop.columns, w));
        pool(&map, &rows, &columns, samples, out);
    });
}

/// An image with the channels of a pixel side by side.
struct Map<'a> {
    pixels: &'a [ChannelBlock],
    /// Channel blocks of a pixel.
    blocks: usize,
    width: usize,
}

/// The pixels that a sample lies between, and its distance from the first; none outside of the map.
type Tap = Option<(usize, usize, f32)>;

fn taps(positions: &[f32], length: usize) -> Vec<Tap> {
    let inside = 0.0..=(length - 1) as f32;
    let tap = |&position: &f32| {
        let low = position.floor();
        let pixels = (low as usize, position.ceil() as usize);
        inside
            .contains(&position)
            .then_some((pixels.0, pixels.1, position - low))
    };
    positions.iter().map(tap).collect()
}

vectorised! {
    /// The largest samples of a box's bins, each with its channels side by side.
    fn pool(map: &Map<'_>, rows: &[Tap], columns: &[Tap], samples: usize, out: &mut [ChannelBlock]) {
        let mut bins = out.chunks_mut(map.blocks);
        for rows in rows.chunks(samples) {
            for columns in columns.chunks(samples) {
                let Some(bin) = bins.next() else { return };
                let bin = floats_mut(bin);
                let channels = bin.len();
                bin.fill(f32::NEG_INFINITY);
                for row in rows {
                    for column in columns {
                        let (Some((top, bottom, down)), Some((left, right, along))) = (row, column) else {
                            bin.iter_mut().for_each(|most| *most = larger(*most, 0.0));
                            continue;
                        };
                        let pixel = |y: &usize, x: &usize| {
                            let at = (y * map.width + x) * map.blocks;
                            &floats(&map.pixels[at..][..map.blocks])[..channels]
                        };
                        let (a, b) = (pixel(top, left), pixel(top, right));
                        let (c, d) = (pixel(bottom, left), pixel(bottom, right));
                        for i in 0..channels {
                            let above = a[i] + (b[i] - a[i]) * along;
                            let below = c[i] + (d[i] - c[i]) * along;
                            bin[i] = larger(bin[i], above + (below - above) * down);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Floats;
    use crate::channels_last;
    use crate::simd::for_each_set;

    /// `tf.nn.max_pool2d(tf.image.crop_and_resize(...), 2, 2, "VALID")` of a map of 0 to 8, at positions between its pixels,
    /// past its end and before it.
    #[test]
    fn bins_are_the_largest_samples_and_outside_is_zero() {
        let planes: Vec<f32> = (0..18)
            .map(|i| (i % 9) as f32 - 2.0 * (i / 9) as f32)
            .collect();
        for_each_set(|set| {
            let mut map = Floats::new(channels_last::len([1, 2, 3, 3]));
            channels_last::from_planes(&planes, 2, 9, map.blocks_mut());
            let crop = Crop {
                image: 0,
                rows: vec![0.0, 0.5, 1.5, 2.0],
                columns: vec![-0.1, 2.1, 0.5, 2.0],
            };
            let mut out = Floats::new(channels_last::len([1, 2, 2, 2]));
            forward(map.blocks_mut(), [1, 2, 3, 3], &[crop], 2, out.blocks_mut());
            let mut found = [0.0; 8];
            channels_last::to_planes(out.blocks_mut(), 2, 4, &mut found);
            assert_eq!(found, [0.0, 3.5, 0.0, 8.0, 0.0, 1.5, 0.0, 6.0], "{set}");
        });
    }
}
