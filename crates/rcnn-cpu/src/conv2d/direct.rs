//! Convolution by plain sums over rows of pixels as they lie, without a copy in between: after
//! Dukhan, "The Indirect Convolution Algorithm" (2019), <https://arxiv.org/abs/1907.02129>.
//!
//! For each pixel of the output and each tap of the kernel, a table says where the pixel's channels
//! are; taps outside the image meet a row of zeros. Images of few channels, as a network's input, are
//! copied after all: with zeros around them, and pixels so close that a row of taps is one.

use std::ops::Range;

use rayon::prelude::*;

use super::columns::{self, Tap};
use super::{Conv2d, Image};
use crate::TASKS;
use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, ChannelBlock, Streaming, floats};
use crate::epilogue::BlockEpilogue;
use crate::product::{Output, Panels, Product, Rows, Starts};
use crate::region::{Axis, Region};
use crate::simd::{InstructionSet, instruction_set, vectorised};
use crate::transpose::{load, steps};

/// Bytes of inputs of a task.
const ROWS_BYTES: usize = 512 << 10;

/// Rows of a chunk, at least.
const MIN_ROWS: usize = 36;

/// Output blocks that sum over the same inputs: all of them, or those of a group of channels. Blocks that
/// several groups share sum over the inputs of these, with zeros for weights between one group and another.
struct Segment {
    /// The first output block, and how the segment's blocks stand in panels.
    first_block: usize,
    panels: Panels,
    /// Channels of the input.
    inputs: Range<usize>,
    /// Where the weights start: in panels, of each output channel tap after tap.
    start: usize,
}

/// Weights, segment after segment.
pub(crate) struct Weights {
    values: Scratch,
    segments: Vec<Segment>,
}

impl Weights {
    /// Arranges weights, outputs by inputs of a group by taps.
    pub(crate) fn new(conv: &Conv2d, w: &[f32]) -> Self {
        let taps = conv.kernel[0] * conv.kernel[1];
        let mut segments: Vec<Segment> = Vec::new();
        let mut len = 0;
        for block in 0..conv.out_channels.div_ceil(BLOCK) {
            let inputs = inputs_of(conv, block);
            len += inputs.len() * taps;
            match segments.last_mut() {
                Some(segment) if segment.inputs == inputs => segment.panels.blocks += 1,
                _ => segments.push(Segment {
                    first_block: block,
                    panels: Panels::new(1),
                    start: len - inputs.len() * taps,
                    inputs,
                }),
            }
        }
        let mut values = Scratch::new(len);
        let mut rest = &mut values[..];
        for segment in &segments {
            let dense = Conv2d {
                in_channels: segment.inputs.len(),
                groups: 1,
                ..*conv
            };
            let (depth, panels) = (dense.patch(), segment.panels);
            let (values, after) = rest.split_at_mut(depth * panels.blocks);
            rest = after;
            let filled;
            let w = match conv.groups {
                1 => w,
                _ => {
                    filled = segment.fill(conv, w);
                    &filled
                }
            };
            values
                .par_chunks_mut((depth * panels.width()).max(1))
                .zip(w.par_chunks((depth * panels.width() * BLOCK).max(1)))
                .with_max_len(1)
                .for_each(|(panel, w)| arrange(&dense, w, panel));
        }
        Self { values, segments }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }

    pub(crate) fn instruction_set(&self) -> InstructionSet {
        let first = self.segments.first();
        first.map_or_else(instruction_set, |segment| segment.panels.arch.set())
    }
}

/// The input channels of the groups that an output block has channels of.
fn inputs_of(conv: &Conv2d, block: usize) -> Range<usize> {
    let [ins, outs] = [conv.in_channels, conv.out_channels].map(|all| all / conv.groups);
    if conv.in_channels < BLOCK {
        // Few channels are read all at once.
        return 0..conv.in_channels;
    }
    let last = conv.out_channels.min((block + 1) * BLOCK) - 1;
    block * BLOCK / outs * ins..(last / outs + 1) * ins
}

impl Segment {
    /// The weights of each of the segment's outputs for all of its inputs.
    fn fill(&self, conv: &Conv2d, w: &[f32]) -> Vec<f32> {
        let outs = conv.out_channels / conv.groups;
        let (patch, taps) = (conv.patch(), conv.kernel[0] * conv.kernel[1]);
        let depth = self.inputs.len() * taps;
        let first = self.first_block * BLOCK;
        let end = conv.out_channels.min(first + self.panels.blocks * BLOCK);
        let mut filled = vec![0.0; (end - first) * depth];
        for (i, output) in (first..end).enumerate() {
            let at = i * depth + output / outs * patch - self.inputs.start * taps;
            filled[at..at + patch].copy_from_slice(&w[output * patch..][..patch]);
        }
        filled
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

/// Some panels of a segment.
struct Part<'a> {
    segment: &'a Segment,
    panels: Range<usize>,
}

impl Part<'_> {
    /// The blocks of a pixel that these are.
    fn blocks(&self) -> Range<usize> {
        let Segment {
            first_block,
            panels,
            ..
        } = self.segment;
        let place = |panel: usize| first_block + panels.blocks.min(panel * panels.most());
        place(self.panels.start)..place(self.panels.end)
    }
}

/// The outputs of a chunk of pixels, for some parts.
struct Task<'a> {
    chunk: usize,
    parts: &'a [Part<'a>],
    out: Region<'a, ChannelBlock>,
}

fn convolve(source: &Source<'_>, w: &Weights, epilogue: &BlockEpilogue<'_>) -> Floats {
    let (conv, taps) = (&source.conv, &source.taps);
    let blocks = conv.out_channels.div_ceil(BLOCK);
    // Inputs that a tap gives, of all or of a segment's channels.
    let part = |segment: &Segment| source.part / conv.in_channels * segment.inputs.len();
    let most = w.segments.iter().map(part).max().unwrap_or(0);
    let rows = conv.batch * conv.out_plane();
    let chunk = (ROWS_BYTES / (taps.len() * most * size_of::<f32>())).max(MIN_ROWS);
    // Of about one length, so that no thread waits long for another.
    let equal = rows.div_ceil(rows.div_ceil(chunk)).next_multiple_of(6);
    let chunks = columns::chunks(conv, equal);
    let shares = |count: usize| count.div_ceil(TASKS.div_ceil(chunks.len()).min(count));
    // A single segment's panels are shared between tasks, or several segments.
    let parts: Vec<Part<'_>> = match &w.segments[..] {
        [segment] => {
            let (count, each) = (segment.panels.count(), shares(segment.panels.count()));
            let firsts = (0..count).step_by(each);
            let panels = firsts.map(|first| first..count.min(first + each));
            panels.map(|panels| Part { segment, panels }).collect()
        }
        segments => {
            let all = segments.iter().map(|segment| Part {
                segment,
                panels: 0..segment.panels.count(),
            });
            all.collect()
        }
    };
    let each = match w.segments.len() {
        1 => 1,
        count => shares(count),
    };
    let pointwise = [conv.kernel, conv.stride] == [[1, 1]; 2] && conv.padding == [0, 0];
    let zeros = vec![0.0f32; most];
    let mut output = Floats::new(conv.channels_last_len());
    let streams = Streaming::pays(rows * blocks);
    let whole = Region::whole(output.blocks_mut(), [1, rows, blocks]);
    let mut tasks = Vec::new();
    for (chunk, mut out) in whole.chunks(Axis::Row, equal).enumerate() {
        for parts in parts.chunks(each) {
            let columns = parts.iter().map(|part| part.blocks().len()).sum();
            let (here, rest) = out.split(Axis::Column, columns);
            out = rest;
            tasks.push(Task {
                chunk,
                parts,
                out: here,
            });
        }
    }
    let tasks = tasks.into_par_iter().with_max_len(1);
    tasks.for_each_init(Vec::new, |table, task| {
        let chunk = &chunks[task.chunk];
        if !pointwise {
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
        }
        let mut out = task.out;
        for place @ Part { segment, panels } in task.parts {
            let data = &source.data[segment.inputs.start..];
            let inputs = part(segment);
            let rows = match pointwise {
                true => {
                    let data = &data[chunk.start * source.pitch..];
                    Rows::even(data, source.pitch, inputs, chunk.len)
                }
                false => Rows {
                    data,
                    starts: Starts::Table(table),
                    zeros: &zeros[..inputs],
                    part: inputs,
                    count: chunk.len,
                },
            };
            let product = Product {
                rows,
                weights: &w.values[segment.start..],
                panels: segment.panels,
                range: panels.clone(),
                panel: segment.panels.width() * taps.len() * inputs,
                in_turn: false,
            };
            let blocks_here = place.blocks();
            let (region, rest) = out.split(Axis::Column, blocks_here.len());
            out = rest;
            product.multiply(Output {
                region,
                first_pixel: chunk.start,
                first_block: blocks_here.start,
                blocks,
                adds: false,
                streams,
                epilogue,
            });
        }
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
