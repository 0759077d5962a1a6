//! Convolution by plain sums over rows of pixels as they lie, without a copy in between: after
//! Dukhan, "The Indirect Convolution Algorithm" (2019), <https://arxiv.org/abs/1907.02129>.
//!
//! For each pixel of the output and each tap of the kernel, a table says where the pixel's channels
//! are; taps outside the image meet a row of zeros. Images of few channels, as a network's input, are
//! copied after all: with zeros around them, and pixels so close that a row of taps is one.

use rayon::prelude::*;

use super::columns::{self, Tap};
use super::{Conv2d, Image};
use crate::TASKS;
use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, ChannelBlock, Streaming, floats};
use crate::epilogue::BlockEpilogue;
use crate::product::{Output, Panels, Product, Rows, Starts};
use crate::region::{Axis, Region};
use crate::simd::{InstructionSet, vectorised};
use crate::transpose::{load, steps};

/// Bytes of inputs of a task.
const ROWS_BYTES: usize = 512 << 10;

/// Rows of a chunk, at least.
const MIN_ROWS: usize = 36;

/// Weights in panels, of each output channel tap after tap.
pub(crate) struct Weights {
    values: Scratch,
    panels: Panels,
}

impl Weights {
    /// Arranges weights, outputs by inputs by taps.
    pub(crate) fn new(conv: &Conv2d, w: &[f32]) -> Self {
        let panels = Panels::new(conv.out_channels.div_ceil(BLOCK));
        let depth = conv.patch();
        let mut values = Scratch::new(depth * panels.blocks);
        values
            .par_chunks_mut((depth * panels.width()).max(1))
            .zip(w.par_chunks((depth * panels.width() * BLOCK).max(1)))
            .with_max_len(1)
            .for_each(|(panel, w)| arrange(conv, w, panel));
        Self { values, panels }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }

    pub(crate) fn instruction_set(&self) -> InstructionSet {
        self.panels.arch.set()
    }
}

vectorised! {
    /// Arranges the weights of the outputs of a panel.
    fn arrange(conv: &Conv2d, w: &[f32], panel: &mut [ChannelBlock]) {
        let depth = conv.patch();
        let taps = conv.kernel[0] * conv.kernel[1];
        let width = panel.len() / depth;
        for (block, rows) in w.chunks(depth * BLOCK).enumerate() {
            for (start, len) in steps(0..depth) {
                let square = load(&rows[start..], depth, rows.len() / depth, len);
                for (i, value) in square.iter().enumerate().take(len) {
                    let (input, tap) = ((start + i) / taps, (start + i) % taps);
                    panel[(tap * conv.in_channels + input) * width + block] = *value;
                }
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

pub(crate) fn forward(
    conv: &Conv2d,
    x: Image<'_>,
    w: &Weights,
    epilogue: &BlockEpilogue<'_>,
) -> Floats {
    let around;
    let [height, width] = conv.kernel;
    let source = match x {
        Image::ChannelsLast(blocks) => Source {
            conv: *conv,
            data: floats(blocks),
            pitch: conv.in_channels.next_multiple_of(BLOCK),
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

/// The outputs of a chunk of pixels and some panels.
struct Task<'a> {
    chunk: usize,
    first_panel: usize,
    out: Region<'a, ChannelBlock>,
}

fn convolve(source: &Source<'_>, w: &Weights, epilogue: &BlockEpilogue<'_>) -> Floats {
    let (conv, taps, panels) = (&source.conv, &source.taps, w.panels);
    let depth = taps.len() * source.part;
    let rows = conv.batch * conv.out_plane();
    let most = (ROWS_BYTES / (depth * size_of::<f32>())).max(MIN_ROWS);
    // Of about one length, so that no thread waits long for another.
    let equal = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(6);
    let chunks = columns::chunks(conv, equal);
    let each = panels
        .count()
        .div_ceil(TASKS.div_ceil(chunks.len()).min(panels.count()));
    let pointwise = [conv.kernel, conv.stride] == [[1, 1]; 2] && conv.padding == [0, 0];
    let zeros = vec![0.0f32; source.part];
    let mut output = Floats::new(conv.pixels_len());
    let streams = Streaming::pays(rows * panels.blocks);
    let whole = Region::whole(output.blocks_mut(), [1, rows, panels.blocks]);
    let mut tasks = Vec::new();
    for (chunk, out) in whole.chunks(Axis::Row, equal).enumerate() {
        for (part, out) in out.chunks(Axis::Column, each * panels.most()).enumerate() {
            let first_panel = part * each;
            tasks.push(Task {
                chunk,
                first_panel,
                out,
            });
        }
    }
    let tasks = tasks.into_par_iter().with_max_len(1);
    tasks.for_each_init(Vec::new, |table, task| {
        let chunk = &chunks[task.chunk];
        let rows = if pointwise {
            let data = &source.data[chunk.start * source.pitch..];
            Rows::even(data, source.pitch, source.part, chunk.len)
        } else {
            table.clear();
            table.resize(taps.len() * chunk.len, Starts::ZEROS);
            for (tap, table) in taps.iter().zip(table.chunks_mut(chunk.len)) {
                for run in &chunk.runs(conv) {
                    let image = run.image * conv.in_plane();
                    tap.meet(conv, run, |at, len, start| {
                        for (i, row) in table[at..at + len].iter_mut().enumerate() {
                            *row = (image + start + i * conv.stride[1]) * source.pitch;
                        }
                    });
                }
            }
            Rows {
                data: source.data,
                starts: Starts::Table(table),
                zeros: &zeros,
                part: source.part,
                count: chunk.len,
            }
        };
        let first = task.first_panel;
        let product = Product {
            rows,
            weights: &w.values,
            panels,
            range: first..panels.count().min(first + each),
            panel: panels.width() * depth,
            in_turn: false,
        };
        product.multiply(Output {
            region: task.out,
            first_pixel: chunk.start,
            first_block: first * panels.most(),
            blocks: panels.blocks,
            adds: false,
            streams,
            epilogue,
        });
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
