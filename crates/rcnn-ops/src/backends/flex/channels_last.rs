//! Tensors with their channels last: to Burn an ordinary view, `[N, C, H, W]` with unusual strides.

use burn::tensor::{DType, Shape};
use burn_flex::{FlexTensor, Layout};
use rcnn_cpu::{BLOCK, ChannelBlock, Floats, channels_last, pad};

use super::{arena, dims};

fn layout(shape @ [_, c, h, w]: [usize; 4]) -> Layout {
    let pitch = channels_last::pitch(c);
    let strides = [h * w * pitch, 1, w * pitch, pitch].map(|stride| stride as isize);
    Layout::new(Shape::from(shape), strides.to_vec(), 0)
}

/// The channel blocks of a tensor of f32, if it has this layout.
pub(super) fn blocks(tensor: &FlexTensor) -> Option<&[ChannelBlock]> {
    let shape = dims(tensor);
    if tensor.dtype() != DType::F32 || *tensor.layout() != layout(shape) {
        return None;
    }
    let (before, blocks, _) = bytemuck::pod_align_to(tensor.storage::<f32>());
    let whole = before.is_empty() && blocks.len() >= channels_last::len(shape) / BLOCK;
    whole.then_some(blocks)
}

/// A tensor `[N, C, H, W]` of values in this layout.
pub(super) fn tensor(values: Floats, shape: [usize; 4]) -> FlexTensor {
    arena::with_layout(values, layout(shape))
}

/// Brings a tensor of f32 to this layout, unless it has it.
pub(super) fn from_planes(tensor: FlexTensor) -> FlexTensor {
    if blocks(&tensor).is_some() {
        return tensor;
    }
    let shape @ [_, c, h, w] = dims(&tensor);
    let planes = tensor.to_contiguous();
    let mut values = Floats::new(channels_last::len(shape));
    channels_last::from_planes(planes.storage(), c, h * w, values.blocks_mut());
    self::tensor(values, shape)
}

/// The channels of several maps, one after another; `None` unless all have this layout and, but for the last, whole
/// blocks of channels.
pub(super) fn concat(maps: &[FlexTensor]) -> Option<FlexTensor> {
    let [n, _, h, w] = dims(maps.first()?);
    let pixels = n * h * w;
    let mut parts = Vec::new();
    let mut channels = 0;
    for map in maps {
        let [_, c, ..] = dims::<4>(map);
        let blocks = blocks(map).filter(|_| channels % BLOCK == 0)?;
        parts.push((blocks, c.div_ceil(BLOCK)));
        channels += c;
    }
    let shape = [n, channels, h, w];
    let mut values = Floats::new(channels_last::len(shape));
    channels_last::concat(&parts, pixels, values.blocks_mut());
    Some(tensor(values, shape))
}

/// A tensor of f32 with zeros around it, in its layout: above and below, on the left and on the right.
pub(super) fn pad(tensor: FlexTensor, margins: [[usize; 2]; 2]) -> FlexTensor {
    if margins == [[0; 2]; 2] {
        return tensor;
    }
    let [n, c, h, w] = dims(&tensor);
    let [[above, below], [left, right]] = margins;
    let padded = [n, c, above + h + below, left + w + right];
    match blocks(&tensor) {
        Some(blocks) => {
            let mut values = Floats::new(channels_last::len(padded));
            let pixel = c.div_ceil(BLOCK);
            pad::forward(blocks, [h, w], pixel, margins, values.blocks_mut());
            self::tensor(values, padded)
        }
        None => {
            let planes = tensor.to_contiguous();
            let mut values = Floats::new(padded.iter().product());
            pad::forward(planes.storage::<f32>(), [h, w], 1, margins, &mut values[..]);
            arena::tensor(values, padded)
        }
    }
}

/// A contiguous tensor, of channels as planes.
pub(super) fn to_planes(tensor: FlexTensor) -> FlexTensor {
    let shape @ [n, c, h, w] = dims(&tensor);
    let Some(blocks) = blocks(&tensor) else {
        return tensor.to_contiguous();
    };
    let mut values = Floats::new(n * c * h * w);
    channels_last::to_planes(blocks, c, h * w, &mut values);
    arena::tensor(values, shape)
}
