//! Images with the channels of a pixel side by side: the layout between the kernels of inference.
//!
//! Convolutions take and give whole vectors of channels, so nothing is transposed on the way from
//! the stem to the heads. To the rest of Burn such a tensor is an ordinary view, `[N, C, H, W]` with
//! unusual strides. A pixel's channels are rounded up to lanes; what stands beyond them is never read.

use burn::tensor::{DType, Shape};
use burn_flex::{FlexTensor, Layout};

use super::conv2d;
use super::dims;
use super::pool::{Floats, LANES, Lane};
use super::pooled::{self, pooled};

/// Floats from one pixel to the next.
fn pitch(channels: usize) -> usize {
    channels.next_multiple_of(LANES)
}

/// Floats of images `[N, C, H, W]` in this layout.
pub(super) fn len([n, c, h, w]: [usize; 4]) -> usize {
    n * h * w * pitch(c)
}

fn layout(shape @ [_, c, h, w]: [usize; 4]) -> Layout {
    let strides = [h * w * pitch(c), 1, w * pitch(c), pitch(c)];
    let strides = strides.map(|stride| stride as isize);
    Layout::new(Shape::from(shape), strides.to_vec(), 0)
}

/// The lanes of a tensor of f32, if it has this layout.
pub(super) fn lanes(tensor: &FlexTensor) -> Option<&[Lane]> {
    let shape = dims(tensor);
    if tensor.dtype() != DType::F32 || *tensor.layout() != layout(shape) {
        return None;
    }
    // SAFETY: a lane is sixteen floats without padding, and any bytes are a float.
    let (before, lanes, _) = unsafe { tensor.storage::<f32>().align_to::<Lane>() };
    (before.is_empty() && lanes.len() >= len(shape) / LANES).then_some(lanes)
}

/// A tensor `[N, C, H, W]` of values in this layout.
pub(super) fn tensor(values: Floats, shape: [usize; 4]) -> FlexTensor {
    pooled::with_layout(values, layout(shape))
}

/// Brings a tensor of f32 to this layout, unless it has it.
pub(super) fn to_pixels(tensor: FlexTensor) -> FlexTensor {
    if lanes(&tensor).is_some() {
        return tensor;
    }
    let shape @ [_, c, h, w] = dims(&tensor);
    let planes = tensor.to_contiguous();
    let planes = planes.storage::<f32>();
    let mut values = Floats::new(len(shape));
    conv2d::to_pixels(planes, c, h * w, values.lanes_mut());
    self::tensor(values, shape)
}

/// For each pixel of images, which one of others of another size is nearest, as Burn and torch count.
pub(super) fn nearest(batch: usize, from: [usize; 2], to: [usize; 2]) -> Vec<usize> {
    let [rows, columns] = [0, 1].map(|axis| {
        let ratio = from[axis] as f64 / to[axis] as f64;
        let source = move |i| ((i as f64 * ratio) as usize).min(from[axis] - 1);
        (0..to[axis]).map(source)
    });
    let rows = (0..batch).flat_map(|image| rows.clone().map(move |row| image * from[0] + row));
    rows.flat_map(|row| columns.clone().map(move |column| row * from[1] + column))
        .collect()
}

/// A contiguous tensor, of channels as planes.
pub(super) fn to_planes(tensor: FlexTensor) -> FlexTensor {
    let shape @ [n, c, h, w] = dims(&tensor);
    let Some(lanes) = lanes(&tensor) else {
        return tensor.to_contiguous();
    };
    let mut values = Floats::new(n * c * h * w);
    conv2d::to_planes(lanes, c, h * w, &mut values);
    pooled(values, shape)
}
