//! Zero padding, which may differ between the two ends of an axis.

use bytemuck::Pod;
use rayon::prelude::*;

/// Pads images of a height and width with zeros. A pixel is `pixel` consecutive values; 1 where channels are planes.
pub fn forward<T: Pod + Send + Sync>(
    images: &[T],
    [height, width]: [usize; 2],
    pixel: usize,
    [[above, below], [left, right]]: [[usize; 2]; 2],
    out: &mut [T],
) {
    let row = width * pixel;
    let rows = out.par_chunks_mut(((left + width + right) * pixel).max(1));
    rows.enumerate().for_each(|(i, out)| {
        let padded = above + height + below;
        let (image, y) = (i / padded, (i % padded).wrapping_sub(above));
        if y >= height {
            out.fill(T::zeroed());
            return;
        }
        let (before, rest) = out.split_at_mut(left * pixel);
        let (middle, after) = rest.split_at_mut(row);
        before.fill(T::zeroed());
        middle.copy_from_slice(&images[(image * height + y) * row..][..row]);
        after.fill(T::zeroed());
    });
}
