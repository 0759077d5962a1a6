//! Convolution by plain sums over rows of pixels as they lie, without a copy in between: after
//! Dukhan, "The Indirect Convolution Algorithm" (2019), <https://arxiv.org/abs/1907.02129>.
//!
//! For each pixel of the output and each tap of the kernel, a table says where the pixel's channels
//! are; taps outside the image meet a row of zeros. Images of few channels, as a network's input, are
//! copied after all: with zeros around them, and pixels so close that a row of taps is one.

use rayon::prelude::*;

use super::columns::{self, Tap};
use super::epilogue::LaneEpilogue;
use super::lanes::{load, steps};
use super::pool::{Floats, LANES, Lane, Scratch, floats};
use super::product::{Kernel, Output, Panels, Product, Rows};
use super::shared::Shared;
use super::vector::vectorised;
use super::{Conv2d, Image, TASKS};

/// Bytes of inputs of a task.
const ROWS_BYTES: usize = 512 << 10;

/// Rows of a block, at least.
const MIN_ROWS: usize = 36;

/// Weights in panels, of each output channel tap after tap.
pub(in super::super) struct Weights {
    values: Scratch,
    panels: Panels,
}

impl Weights {
    /// Arranges weights, outputs by inputs by taps.
    pub(super) fn new(conv: &Conv2d, w: &[f32]) -> Self {
        let panels = Panels {
            kernel: Kernel::fastest(),
            lanes: conv.out_channels.div_ceil(LANES),
        };
        let mut values = Scratch::new(conv.patch() * panels.lanes);
        let shared = Shared::new(&mut values);
        let lanes = (0..panels.lanes).into_par_iter().with_max_len(1);
        lanes.for_each(|lane| arrange(conv, w, panels, lane, &shared));
        Self { values, panels }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }
}

vectorised! {
    /// Arranges the weights of sixteen outputs.
    fn arrange(
        conv: &Conv2d, w: &[f32], panels: Panels, lane: usize, weights: &Shared<'_, Lane>,
    ) {
        let depth = conv.patch();
        let taps = conv.kernel[0] * conv.kernel[1];
        let count = LANES.min(conv.out_channels - lane * LANES);
        let rows = &w[lane * LANES * depth..];
        for (start, len) in steps(0..depth) {
            let block = load(&rows[start..], depth, count, len);
            for (i, value) in block.iter().enumerate().take(len) {
                let (input, tap) = ((start + i) / taps, (start + i) % taps);
                let k = tap * conv.in_channels + input;
                let place = panels.place(panels.width() * depth, k, lane);
                // SAFETY: each lane of outputs has places of its own.
                unsafe { weights.write(place, &[*value]) };
            }
        }
    }
}

/// Where taps find their pixels.
struct Source<'a> {
    conv: Conv2d,
    data: &'a [f32],
    /// Floats from one pixel to the next.
    pitch: usize,
    /// Taps that are looked up: the first of each row of the kernel, or all.
    taps: Vec<Tap>,
    /// Floats that each gives.
    part: usize,
}

pub(super) fn forward(
    conv: &Conv2d,
    x: Image<'_>,
    w: &Weights,
    epilogue: &LaneEpilogue<'_>,
) -> Floats {
    let around;
    let [height, width] = conv.kernel;
    let source = match x {
        Image::Pixels(lanes) => Source {
            conv: *conv,
            data: floats(lanes),
            pitch: conv.in_channels.next_multiple_of(LANES),
            taps: (0..height * width).map(|tap| Tap::new(conv, tap)).collect(),
            part: conv.in_channels,
        },
        Image::Planes(planes) => {
            around = surround(conv, planes);
            let conv = Conv2d {
                height: conv.height + 2 * conv.padding[0],
                width: conv.width + 2 * conv.padding[1],
                padding: [0, 0],
                ..*conv
            };
            Source {
                data: &around,
                pitch: conv.in_channels,
                taps: (0..height).map(|y| Tap::new(&conv, y * width)).collect(),
                part: width * conv.in_channels,
                conv,
            }
        }
    };
    convolve(&source, w, epilogue)
}

fn convolve(source: &Source<'_>, w: &Weights, epilogue: &LaneEpilogue<'_>) -> Floats {
    let (conv, taps) = (&source.conv, &source.taps);
    let depth = taps.len() * source.part;
    let rows = conv.batch * conv.out_plane();
    let most = (ROWS_BYTES / (depth * size_of::<f32>())).max(MIN_ROWS);
    // Of about one length, so that no thread waits long for another.
    let equal = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(6);
    let blocks = columns::blocks(conv, equal);
    let panels = w.panels.count();
    let each = panels.div_ceil(TASKS.div_ceil(blocks.len()).min(panels));
    let parts = panels.div_ceil(each);
    let pitch = [conv.kernel, conv.stride] == [[1, 1]; 2] && conv.padding == [0, 0];
    let zeros = vec![0.0f32; source.part];
    let mut output = Floats::new(conv.pixels_len());
    let pixels = &Shared::new(output.lanes_mut());
    let tasks = (0..blocks.len() * parts).into_par_iter().with_max_len(1);
    tasks.for_each_init(Vec::new, |table, task| {
        let block = &blocks[task / parts];
        let first = task % parts * each;
        table.clear();
        table.resize(taps.len() * block.len, zeros.as_ptr());
        for (tap, table) in taps.iter().zip(table.chunks_mut(block.len)) {
            for run in &block.runs(conv) {
                let image = &source.data[run.image * conv.in_plane() * source.pitch..];
                tap.meet(conv, run, |at, len, start| {
                    let pixels = &image[start * source.pitch..];
                    let step = conv.stride[1] * source.pitch;
                    assert!((len - 1) * step + source.part <= pixels.len());
                    for (i, row) in table[at..at + len].iter_mut().enumerate() {
                        *row = pixels.as_ptr().wrapping_add(i * step);
                    }
                });
            }
        }
        let rows = Rows {
            starts: table,
            offset: 0,
            part: source.part,
            count: block.len,
            pitch: pitch.then_some(source.pitch),
        };
        let product = Product {
            rows,
            weights: &w.values,
            panels: w.panels,
            range: first..panels.min(first + each),
            panel: w.panels.width() * depth,
            in_turn: false,
        };
        let out = Output {
            pixels,
            lanes: w.panels.lanes,
            first_pixel: block.start,
            first_lane: 0,
            adds: false,
            epilogue,
        };
        // SAFETY: every row is of zeros or within the image, as just asserted, and each block and
        // panel has outputs of its own.
        unsafe { product.multiply(&out) };
    });
    output
}

/// Brings the channels of a pixel side by side, with the padding around the images.
fn surround(conv: &Conv2d, planes: &[f32]) -> Floats {
    let [above, left] = conv.padding;
    let channels = conv.in_channels;
    let (height, width) = (conv.height + 2 * above, conv.width + 2 * left);
    let mut out = Floats::new(conv.batch * height * width * channels);
    out.par_chunks_mut(width * channels)
        .enumerate()
        .for_each(|(i, out)| {
            let (image, row) = (i / height, (i % height).wrapping_sub(above));
            out.fill(0.0);
            if row < conv.height {
                for channel in 0..channels {
                    let plane = (image * channels + channel) * conv.in_plane();
                    let line = &planes[plane + row * conv.width..][..conv.width];
                    let pixels = out[left * channels..].iter_mut().skip(channel);
                    for (to, from) in pixels.step_by(channels).zip(line) {
                        *to = *from;
                    }
                }
            }
        });
    out
}
