//! Two-dimensional transposed convolution, of images with their channels last.
//!
//! Pixels of the output whose positions leave the same remainders by the stride meet the same taps of the
//! kernel, so they are an ordinary convolution with those taps and stride 1 (one tap for a kernel of 2 and
//! a stride of 2, four for one of 4). Each is computed by the kernel of the direct method, straight to
//! its places in the output.

use rayon::prelude::*;

use crate::TASKS;
use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, ChannelBlock, floats};
use crate::channels_last;
use crate::epilogue::{BlockEpilogue, Epilogue};
use crate::product::{Output, Panels, Product, Rows, Starts};
use crate::region::Region;

/// The sizes of a transposed convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvTranspose2d {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Pixels of the output for one of the input, down and right.
    pub stride: [usize; 2],
    /// Rows cut off above and below, and columns left and right.
    pub padding: [usize; 2],
    /// Rows added below, and columns on the right.
    pub padding_out: [usize; 2],
}

impl ConvTranspose2d {
    /// Whether these sizes make a transposed convolution that this module computes.
    pub fn supports(&self) -> bool {
        let sides = [self.height, self.width];
        (0..2).all(|axis| {
            let whole = sides[axis].saturating_sub(1) * self.stride[axis] + self.kernel[axis];
            // Every pixel of the output meets a tap, or lies beyond all.
            self.stride[axis] > 0
                && self.kernel[axis] >= self.stride[axis]
                && sides[axis] > 0
                && whole + self.padding_out[axis] > 2 * self.padding[axis]
        })
    }

    fn out_side(&self, axis: usize) -> usize {
        let side = [self.height, self.width][axis];
        (side - 1) * self.stride[axis] + self.kernel[axis] + self.padding_out[axis]
            - 2 * self.padding[axis]
    }

    /// `[N, C', H', W']`.
    pub fn output_shape(&self) -> [usize; 4] {
        [
            self.batch,
            self.out_channels,
            self.out_side(0),
            self.out_side(1),
        ]
    }

    /// Taps along an axis that pixels of a phase meet: every `stride`-th of the kernel.
    fn taps(&self, axis: usize, phase: usize) -> impl Iterator<Item = usize> + Clone {
        (phase..self.kernel[axis]).step_by(self.stride[axis])
    }

    /// The phase of a place along an axis of the output, and where its first tap meets the input.
    fn phase(&self, axis: usize, place: usize) -> [usize; 2] {
        let place = place + self.padding[axis];
        [place % self.stride[axis], place / self.stride[axis]]
    }
}

/// The weights that one phase along each axis meets, in panels, of each output channel tap after tap.
struct Phase {
    taps: usize,
    values: Scratch,
}

impl Phase {
    /// Arranges weights, inputs by outputs by taps of the kernel.
    fn new(conv: &ConvTranspose2d, w: &[f32], phase: [usize; 2], panels: Panels) -> Self {
        let columns = conv.taps(1, phase[1]);
        let taps: Vec<usize> = conv
            .taps(0, phase[0])
            .flat_map(|y| columns.clone().map(move |x| y * conv.kernel[1] + x))
            .collect();
        let (ins, outs) = (conv.in_channels, conv.out_channels);
        let all = conv.kernel[0] * conv.kernel[1];
        let depth = taps.len() * ins;
        let mut values = Scratch::new(depth * panels.blocks);
        let by_panel = values.par_chunks_mut((depth * panels.width()).max(1));
        by_panel.enumerate().for_each(|(panel, values)| {
            let first = panel * panels.most();
            let width = values.len() / depth;
            for (row, values) in values.chunks_mut(width).enumerate() {
                let (tap, input) = (taps[row / ins], row % ins);
                for (block, value) in values.iter_mut().enumerate() {
                    let output = (first + block) * BLOCK;
                    *value = ChannelBlock(std::array::from_fn(|i| match output + i < outs {
                        true => w[(input * outs + output + i) * all + tap],
                        false => 0.0,
                    }));
                }
            }
        });
        let taps = taps.len();
        Self { taps, values }
    }
}

/// The transposed convolution of images `x`, with its channels last, by weights `w`: inputs by outputs by
/// taps. The epilogue must have no residual.
pub fn forward(
    conv: &ConvTranspose2d,
    x: &[ChannelBlock],
    w: &[f32],
    epilogue: &Epilogue<'_>,
) -> Floats {
    let (ins, outs) = (conv.in_channels, conv.out_channels);
    let in_blocks = ins.div_ceil(BLOCK);
    assert!(conv.supports());
    assert_eq!(w.len(), ins * outs * conv.kernel[0] * conv.kernel[1]);
    assert!(x.len() >= conv.batch * conv.height * conv.width * in_blocks);
    assert!(epilogue.residual.is_none());
    let shape @ [_, _, out_h, out_w] = conv.output_shape();
    let mut output = Floats::new(channels_last::len(shape));
    epilogue.check(outs, output.len());
    if ins * conv.batch * outs == 0 {
        output.fill(0.0);
        return output;
    }
    let panels = Panels::new(outs.div_ceil(BLOCK));
    let [down, right] = conv.stride;
    let phases: Vec<Phase> = (0..down * right)
        .map(|i| Phase::new(conv, w, [i / right, i % right], panels))
        .collect();
    let epilogue = epilogue.by_block(panels.blocks);
    let row_len = out_w * panels.blocks;
    // Some rows of an image each, so that the weights of a panel are read once for them all.
    let each = (conv.batch * out_h).div_ceil(4 * TASKS);
    let each = each.clamp(down, out_h.max(down)).next_multiple_of(down);
    let images = output.blocks_mut().par_chunks_mut(out_h * row_len);
    images.enumerate().for_each(|(image, out)| {
        let x = &x[image * conv.height * conv.width * in_blocks..];
        let parts = out.par_chunks_mut(each * row_len).enumerate();
        parts.for_each(|(part, out)| {
            let band = Band {
                conv,
                x: floats(x),
                first: part * each,
                panels,
                epilogue: &epilogue,
            };
            for (i, weights) in phases.iter().enumerate() {
                band.convolve([i / right, i % right], weights, out);
            }
        });
    });
    output
}

/// Rows of an image of the output.
struct Band<'a> {
    conv: &'a ConvTranspose2d,
    /// The image of the input.
    x: &'a [f32],
    /// The first row.
    first: usize,
    panels: Panels,
    epilogue: &'a BlockEpilogue<'a>,
}

impl Band<'_> {
    /// Computes the pixels of a phase along each axis.
    fn convolve(&self, phase: [usize; 2], weights: &Phase, out: &mut [ChannelBlock]) {
        let (conv, panels) = (self.conv, self.panels);
        let blocks = panels.blocks;
        let out_w = conv.out_side(1);
        let first_column =
            (phase[1] + conv.stride[1] - conv.padding[1] % conv.stride[1]) % conv.stride[1];
        let columns: Vec<usize> = (first_column..out_w).step_by(conv.stride[1]).collect();
        if columns.is_empty() {
            return;
        }
        let rows = 0..out.len() / (out_w * blocks);
        let rows = rows.filter(|row| conv.phase(0, self.first + row)[0] == phase[0]);
        let rows: Vec<(usize, Vec<usize>)> = rows
            .map(|row| (row, self.starts(self.first + row, &columns, phase)))
            .collect();
        let zeros = vec![0.0; conv.in_channels];
        for panel in 0..panels.count() {
            let first_block = panel * panels.most();
            let width = panels.most().min(blocks - first_block);
            for (row, starts) in &rows {
                let pixel = row * out_w + first_column;
                let out = &mut out[pixel * blocks + first_block..];
                let apart = conv.stride[1] * blocks;
                let product = Product {
                    rows: Rows {
                        data: self.x,
                        starts: Starts::Table(starts),
                        zeros: &zeros,
                        part: conv.in_channels,
                        count: columns.len(),
                    },
                    weights: &weights.values,
                    panels,
                    range: panel..panel + 1,
                    panel: panels.width() * weights.taps * conv.in_channels,
                    in_turn: false,
                };
                product.multiply(Output {
                    region: Region::new(out, [1, columns.len(), width], [0, apart]),
                    first_pixel: 0,
                    first_block,
                    blocks,
                    adds: false,
                    streams: false,
                    epilogue: self.epilogue,
                });
            }
        }
    }

    /// Where the taps of a phase meet the input, for columns of a row.
    fn starts(&self, row: usize, columns: &[usize], phase: [usize; 2]) -> Vec<usize> {
        let conv = self.conv;
        let pitch = channels_last::pitch(conv.in_channels);
        let counts = [0, 1].map(|axis| conv.taps(axis, phase[axis]).count());
        let [_, y] = conv.phase(0, row);
        let mut starts = Vec::with_capacity(counts[0] * counts[1] * columns.len());
        for down in 0..counts[0] {
            for right in 0..counts[1] {
                starts.extend(columns.iter().map(|&column| {
                    let [_, x] = conv.phase(1, column);
                    let (y, x) = (y.wrapping_sub(down), x.wrapping_sub(right));
                    match y < conv.height && x < conv.width {
                        true => (y * conv.width + x) * pitch,
                        false => Starts::ZEROS,
                    }
                }));
            }
        }
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epilogue::Activation;
    use crate::simd::for_each_set;
    use crate::testing::{error, random};

    /// Against sums in `f64`.
    #[test]
    fn transposed_convolutions() {
        for (channels, size, kernel, stride, padding, padding_out) in [
            ([32, 48], [14, 14], 2, 2, 0, 0),
            ([17, 20], [5, 7], 4, 2, 1, 0),
            ([16, 70], [1, 3], 2, 2, 0, 1),
            ([20, 5], [6, 4], 3, 2, 1, 1),
            ([5, 33], [4, 9], 3, 1, 1, 0),
            ([16, 16], [3, 3], 5, 3, 2, 2),
        ] {
            let conv = ConvTranspose2d {
                batch: 3,
                in_channels: channels[0],
                out_channels: channels[1],
                height: size[0],
                width: size[1],
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: [padding; 2],
                padding_out: [padding_out; 2],
            };
            let [batch, outs, out_h, out_w] = conv.output_shape();
            let (ins, plane) = (conv.in_channels, conv.height * conv.width);
            let planes = random(batch * ins * plane, 1);
            let w = random(ins * outs * kernel * kernel, 2);
            let (scale, shift) = (random(outs, 3), random(outs, 4));
            let mut want = vec![0.0f64; batch * out_h * out_w * outs];
            for (i, &value) in planes.iter().enumerate() {
                let (image, input) = (i / plane / ins, i / plane % ins);
                let (y, x) = (i % plane / conv.width, i % conv.width);
                for k in 0..outs * kernel * kernel {
                    let (output, tap) = (k / kernel / kernel, k % (kernel * kernel));
                    let row = (y * stride + tap / kernel).wrapping_sub(padding);
                    let column = (x * stride + tap % kernel).wrapping_sub(padding);
                    if row < out_h && column < out_w {
                        let weight = f64::from(w[input * outs * kernel * kernel + k]);
                        let pixel = (image * out_h + row) * out_w + column;
                        want[pixel * outs + output] += f64::from(value) * weight;
                    }
                }
            }
            for (i, value) in want.iter_mut().enumerate() {
                let (scale, shift) = (scale[i % outs], shift[i % outs]);
                *value = (*value * f64::from(scale) + f64::from(shift)).max(0.0);
            }
            let epilogue = Epilogue {
                scale: Some(&scale),
                shift: Some(&shift),
                activation: Activation::Relu,
                ..Epilogue::NONE
            };
            let mut x = Scratch::new(batch * plane * ins.div_ceil(BLOCK));
            x.fill(ChannelBlock([f32::NAN; BLOCK]));
            channels_last::from_planes(&planes, ins, plane, &mut x);
            for_each_set(|set| {
                let found = forward(&conv, &x, &w, &epilogue);
                let pixels = found.chunks(channels_last::pitch(outs));
                let found: Vec<f32> = pixels.flat_map(|pixel| pixel[..outs].to_vec()).collect();
                let error = error(&found, &want);
                assert!(error < 2e-6, "{error} {set} {conv:?}");
            });
        }
    }
}
