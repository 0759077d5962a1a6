//! Linear layers by the kernel of convolution. Their weights are many and used once, so a piece of them
//! at a time is arranged, and meets the rows while it is in cache. For few rows that is a good part of the work:
//! [`Weights`] are arranged beforehand.

use std::ops::Range;

use rayon::prelude::*;

use crate::TASKS;
use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, ChannelBlock, Streaming};
use crate::epilogue::{BlockEpilogue, Epilogue};
use crate::product::{Output, Panels, Product, ROWS, Rows};
use crate::region::{Axis, Region};
use crate::simd::Arch;

/// Inputs of a piece.
const INPUTS: usize = 512;

/// Rows of which a piece stays in a thread's cache, beside the weights that they meet.
const FEW_ROWS: usize = 256;

/// Blocks of outputs that a thread has at once, for few rows. The weights of each input lie on another page of memory, of
/// which more is read for each time that it is opened.
const OUTPUT_BLOCKS: usize = 8;

/// A linear layer.
pub struct Linear<'a> {
    /// Inputs of a row.
    pub ins: usize,
    /// Outputs of a row, a multiple of [`BLOCK`].
    pub outs: usize,
    /// Inputs by outputs.
    pub weights: &'a [f32],
    /// One for each output.
    pub bias: Option<&'a [f32]>,
}

/// Weights arranged for [few](Weights::pays) rows: by groups of outputs, then by pieces of inputs, then by panels.
pub struct Weights {
    values: Scratch,
    arch: Arch,
    ins: usize,
    /// Blocks of outputs.
    blocks: usize,
}

impl Weights {
    /// Whether this number of rows is computed faster with weights arranged beforehand.
    pub fn pays(rows: usize) -> bool {
        rows <= FEW_ROWS
    }

    /// Arranges the weights of a layer.
    pub fn new(layer: &Linear<'_>) -> Self {
        let Linear { ins, outs, .. } = *layer;
        layer.check();
        let blocks = outs / BLOCK;
        let mut values = Scratch::new(ins * blocks);
        let groups = values.par_chunks_mut((ins * OUTPUT_BLOCKS).max(1));
        groups.enumerate().for_each(|(i, group)| {
            let panels = Panels::new(group.len() / ins);
            for inputs in pieces(ins) {
                let to = &mut group[inputs.start * panels.blocks..];
                gather(layer, i * OUTPUT_BLOCKS, inputs, panels, to);
            }
        });
        Self {
            values,
            arch: Arch::current(),
            ins,
            blocks,
        }
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }

    /// The weights of a piece's inputs for some blocks of outputs, which are of one group.
    fn piece(&self, inputs: &Range<usize>, blocks: Range<usize>) -> Piece<'_> {
        let group = blocks.start / OUTPUT_BLOCKS * OUTPUT_BLOCKS;
        let panels = Panels {
            arch: self.arch,
            blocks: OUTPUT_BLOCKS.min(self.blocks - group),
        };
        let most = panels.most();
        Piece {
            weights: &self.values[group * self.ins + inputs.start * panels.blocks..],
            panels,
            range: (blocks.start - group) / most..(blocks.end - group).div_ceil(most),
            in_turn: true,
        }
    }
}

/// The weights of some inputs: some panels of a group.
struct Piece<'a> {
    weights: &'a [ChannelBlock],
    panels: Panels,
    range: Range<usize>,
    /// See [`Product::in_turn`].
    in_turn: bool,
}

impl Linear<'_> {
    fn check(&self) {
        let Self {
            ins, outs, weights, ..
        } = self;
        assert!(outs.is_multiple_of(BLOCK) && *ins > 0 && weights.len() == ins * outs);
    }

    fn epilogue(&self) -> Epilogue<'_> {
        Epilogue {
            shift: self.bias,
            ..Epilogue::NONE
        }
    }
}

/// Outputs for `rows` rows of inputs. Arranged weights give the same bits.
pub fn forward(layer: &Linear<'_>, arranged: Option<&Weights>, rows: usize, x: &[f32]) -> Floats {
    let Linear { ins, outs, .. } = *layer;
    layer.check();
    assert_eq!(x.len(), rows * ins);
    if rows * outs == 0 {
        return Floats::new(0);
    }
    match Weights::pays(rows) {
        true => by_outputs(layer, arranged, rows, x),
        false => by_rows(layer, rows, x),
    }
}

/// Inputs of a piece, so that pieces are of about one size.
fn piece(ins: usize) -> usize {
    ins.div_ceil(ins.div_ceil(INPUTS))
}

/// The inputs of each piece.
fn pieces(ins: usize) -> impl Iterator<Item = Range<usize>> {
    let piece = piece(ins);
    let firsts = (0..ins).step_by(piece);
    firsts.map(move |first| first..ins.min(first + piece))
}

/// Each thread has some of the rows, and meets all weights of a piece of the inputs, which are arranged once.
fn by_rows(layer: &Linear<'_>, rows: usize, x: &[f32]) -> Floats {
    let Linear { ins, outs, .. } = *layer;
    let panels = Panels::new(outs / BLOCK);
    let bias = layer.epilogue();
    let bias = bias.by_block(panels.blocks);
    let mut weights = Scratch::new(piece(ins) * panels.blocks);
    let mut output = Floats::new(rows * outs);
    let each = rows.div_ceil(TASKS).next_multiple_of(ROWS);
    for inputs in pieces(ins) {
        let (first, part) = (inputs.start, inputs.len());
        arrange(layer, first, part, panels, &mut weights);
        let chunks = output.blocks_mut().par_chunks_mut(each * panels.blocks);
        chunks.enumerate().with_max_len(1).for_each(|(i, out)| {
            let (start, count) = (i * each, out.len() / panels.blocks);
            let product = Product {
                rows: Rows::even(&x[start * ins + first..], ins, part, count),
                weights: &weights,
                panels,
                range: 0..panels.count(),
                panel: part * panels.width(),
                in_turn: false,
            };
            product.multiply(Output {
                region: Region::whole(out, [1, count, panels.blocks]),
                first_pixel: start,
                first_block: 0,
                blocks: panels.blocks,
                adds: first > 0,
                streams: Streaming::pays(rows * panels.blocks),
                epilogue: match first + part == ins {
                    true => &bias,
                    false => BlockEpilogue::none(),
                },
            });
        });
    }
    output
}

/// Each thread computes some of the outputs for all rows. It alone reads their weights, arranges them if they are not yet, and
/// finds them in its cache for each row. Threads do not wait for each other.
fn by_outputs(layer: &Linear<'_>, arranged: Option<&Weights>, rows: usize, x: &[f32]) -> Floats {
    let Linear { ins, outs, .. } = *layer;
    let all = outs / BLOCK;
    // Two tasks for each thread at least, where they are not too small for it.
    let each = match all >= 2 * OUTPUT_BLOCKS * rayon::current_num_threads() {
        true => OUTPUT_BLOCKS,
        false => OUTPUT_BLOCKS / 2,
    };
    let bias = layer.epilogue();
    let bias = &bias.by_block(all);
    let scratch = match arranged {
        Some(_) => 0,
        None => piece(ins) * each,
    };
    let mut output = Floats::new(rows * outs);
    let whole = Region::whole(output.blocks_mut(), [1, rows, all]);
    let tasks: Vec<_> = whole.chunks(Axis::Column, each).enumerate().collect();
    let tasks = tasks.into_par_iter().with_max_len(1);
    tasks.for_each_init(
        || Scratch::new(scratch),
        |scratch, (i, mut out)| {
            let (first_block, blocks) = (i * each, out.size(Axis::Column));
            for inputs in pieces(ins) {
                let Range { start, end } = inputs;
                let part = end - start;
                let piece = match arranged {
                    Some(weights) => weights.piece(&inputs, first_block..first_block + blocks),
                    None => {
                        let panels = Panels::new(blocks);
                        gather(layer, first_block, inputs, panels, scratch);
                        Piece {
                            weights: scratch,
                            panels,
                            range: 0..panels.count(),
                            in_turn: false,
                        }
                    }
                };
                let product = Product {
                    rows: Rows::even(&x[start..], ins, part, rows),
                    weights: piece.weights,
                    panels: piece.panels,
                    panel: part * piece.panels.width(),
                    range: piece.range,
                    in_turn: piece.in_turn,
                };
                product.multiply(Output {
                    region: out.part(Axis::Column, 0..blocks),
                    first_pixel: 0,
                    first_block,
                    blocks: all,
                    adds: start > 0,
                    streams: false,
                    epilogue: match end == ins {
                        true => bias,
                        false => BlockEpilogue::none(),
                    },
                });
            }
        },
    );
    output
}

/// Brings the weights of some inputs, for the outputs from a block on, into panels.
fn gather(
    layer: &Linear<'_>,
    first_block: usize,
    inputs: Range<usize>,
    panels: Panels,
    to: &mut [ChannelBlock],
) {
    let rows = layer.weights[inputs.start * layer.outs..].chunks(layer.outs);
    for (i, row) in rows.take(inputs.len()).enumerate() {
        let (blocks, _) = row[first_block * BLOCK..].as_chunks();
        for (first, width) in panels.some(0..panels.count()) {
            let at = first * inputs.len() + i * width;
            for (place, weights) in to[at..at + width].iter_mut().zip(&blocks[first..]) {
                *place = ChannelBlock(*weights);
            }
        }
    }
}

/// Inputs whose weights a thread arranges at once.
const STEP: usize = 16;

/// Brings the weights of some inputs into panels.
fn arrange(layer: &Linear<'_>, first: usize, part: usize, panels: Panels, to: &mut [ChannelBlock]) {
    // As they lie, inputs by outputs: for some inputs each, the places in all panels.
    let mut tasks: Vec<Vec<_>> = (0..part.div_ceil(STEP)).map(|_| Vec::new()).collect();
    let mut rest = to;
    for (block, width) in panels.some(0..panels.count()) {
        let (panel, after) = rest.split_at_mut(part * width);
        rest = after;
        for (task, places) in tasks.iter_mut().zip(panel.chunks_mut(STEP * width)) {
            task.push((block, width, places));
        }
    }
    let weights = layer.weights[first * layer.outs..].par_chunks(STEP * layer.outs);
    tasks
        .into_par_iter()
        .zip(weights)
        .for_each(|(task, weights)| {
            for (block, width, places) in task {
                let inputs = places.chunks_mut(width).zip(weights.chunks(layer.outs));
                for (places, weights) in inputs {
                    let (weights, _) = weights[block * BLOCK..].as_chunks();
                    for (place, weights) in places.iter_mut().zip(weights) {
                        *place = ChannelBlock(*weights);
                    }
                }
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::for_each_set;
    use crate::testing::random;

    /// Groups, pieces and panels that are whole and that are not, shared by few threads and by many.
    #[test]
    fn arranged_weights_give_the_same_bits() {
        for (rows, ins, blocks) in [(7, 40, 1), (13, 1100, 19), (6, 513, 8)] {
            let outs = blocks * BLOCK;
            let [weights, bias, x] =
                [(ins * outs, 1), (outs, 2), (rows * ins, 3)].map(|(len, seed)| random(len, seed));
            let layer = Linear {
                ins,
                outs,
                weights: &weights,
                bias: Some(&bias),
            };
            for_each_set(|set| {
                let arranged = Weights::new(&layer);
                assert_eq!(arranged.bytes(), size_of_val(&weights[..]));
                let expected = forward(&layer, None, rows, &x);
                for threads in [1, 16] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                    let pool = pool.build().expect("threads");
                    let found = pool.install(|| forward(&layer, Some(&arranged), rows, &x));
                    assert_eq!(found[..], expected[..], "{set}, {threads} threads");
                }
            });
        }
    }
}
