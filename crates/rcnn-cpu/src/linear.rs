//! Linear layers by the kernel of convolution. Their weights are many and used once, so a piece of them
//! at a time is arranged, and meets all rows while it is in cache.

use rayon::prelude::*;

use crate::TASKS;
use crate::arena::{Floats, Scratch};
use crate::block::{BLOCK, ChannelBlock, Streaming};
use crate::epilogue::{BlockEpilogue, Epilogue};
use crate::product::{Output, Panels, Product, ROWS, Rows};
use crate::region::Region;

/// Inputs of a piece.
const INPUTS: usize = 512;

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

/// The outputs of `rows` rows of inputs.
pub fn forward(layer: &Linear<'_>, rows: usize, x: &[f32]) -> Floats {
    let Linear { ins, outs, .. } = *layer;
    assert!(outs.is_multiple_of(BLOCK) && ins > 0 && x.len() == rows * ins);
    if rows * outs == 0 {
        return Floats::new(0);
    }
    let panels = Panels::new(outs / BLOCK);
    let bias = Epilogue {
        shift: layer.bias,
        ..Epilogue::NONE
    };
    let bias = bias.by_block(panels.blocks);
    let piece = ins.div_ceil(ins.div_ceil(INPUTS));
    let mut weights = Scratch::new(piece * panels.blocks);
    let mut output = Floats::new(rows * outs);
    let each = rows.div_ceil(TASKS).next_multiple_of(ROWS);
    for first in (0..ins).step_by(piece) {
        let part = piece.min(ins - first);
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
