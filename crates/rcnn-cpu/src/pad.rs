//! Zeros around images, for convolutions that want more of them at one end.

use bytemuck::Pod;
use rayon::prelude::*;

/// Adds zeros above and below, and on the left and on the right, of images of a height and width. A pixel is `pixel` values,
/// of planes one.
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
