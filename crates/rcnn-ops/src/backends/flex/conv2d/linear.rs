//! Linear layers by the kernel of convolution. Their weights are many and used once, so a piece of them
//! at a time is arranged, and meets all rows while it is in cache.

use rayon::prelude::*;

use super::TASKS;
use super::epilogue::{Epilogue, LaneEpilogue};
use super::lanes::steps;
use super::pool::{Floats, LANES, Lane, Scratch};
use super::product::{Kernel, Output, Panels, Product, ROWS, Rows};
use super::shared::Shared;

/// Inputs of a piece.
const INPUTS: usize = 512;

/// A layer with its outputs in whole lanes.
pub(in super::super) struct Linear<'a> {
    pub(in super::super) ins: usize,
    pub(in super::super) outs: usize,
    /// Inputs by outputs.
    pub(in super::super) weights: &'a [f32],
    /// One for each output.
    pub(in super::super) bias: Option<&'a [f32]>,
}

/// The outputs of so many rows of inputs.
pub(in super::super) fn linear(layer: &Linear<'_>, rows: usize, x: &[f32]) -> Floats {
    let Linear { ins, outs, .. } = *layer;
    assert!(outs.is_multiple_of(LANES) && ins > 0 && x.len() == rows * ins);
    let panels = Panels {
        kernel: Kernel::fastest(),
        lanes: outs / LANES,
    };
    let bias = Epilogue {
        shift: layer.bias,
        ..Epilogue::NONE
    };
    let (bias, nothing) = (bias.by_lane(panels.lanes), LaneEpilogue::NONE);
    let piece = ins.div_ceil(ins.div_ceil(INPUTS));
    let mut weights = Scratch::new(piece * panels.lanes);
    let mut output = Floats::new(rows * outs);
    let pixels = &Shared::new(output.lanes_mut());
    let each = rows.div_ceil(TASKS).next_multiple_of(ROWS);
    for first in (0..ins).step_by(piece) {
        let part = piece.min(ins - first);
        let panel = part * panels.width();
        arrange(layer, first, part, panels, &mut weights);
        let blocks = (0..rows).into_par_iter().step_by(each);
        blocks.with_max_len(1).for_each(|start| {
            let block = start..rows.min(start + each);
            let starts: Vec<_> = block.map(|row| x[row * ins + first..].as_ptr()).collect();
            let rows = Rows {
                starts: &starts,
                offset: 0,
                part,
                count: starts.len(),
                pitch: Some(ins),
            };
            let product = Product {
                rows,
                weights: &weights,
                panels,
                range: 0..panels.count(),
                panel,
                in_turn: false,
            };
            let out = Output {
                pixels,
                lanes: panels.lanes,
                first_pixel: start,
                first_lane: 0,
                adds: first > 0,
                epilogue: match first + part == ins {
                    true => &bias,
                    false => &nothing,
                },
            };
            // SAFETY: the rows hold these inputs, and each block has outputs of its own.
            unsafe { product.multiply(&out) };
        });
    }
    output
}

/// Brings the weights of some inputs into panels.
fn arrange(layer: &Linear<'_>, first: usize, part: usize, panels: Panels, to: &mut [Lane]) {
    let panel = part * panels.width();
    let to = &Shared::new(to);
    let inputs: Vec<_> = steps(0..part).collect();
    inputs.into_par_iter().for_each(|(start, len)| {
        for lane in 0..panels.lanes {
            for k in start..start + len {
                let weights = &layer.weights[(first + k) * layer.outs + lane * LANES..];
                let weights = Lane(*weights.first_chunk().expect("whole lanes"));
                // SAFETY: each input has places of its own.
                unsafe { to.write(panels.place(panel, k, lane), &[weights]) };
            }
        }
    });
}
