//! Kernels as transformed weights, and their gradient.

use rayon::prelude::*;

use super::transform::{self, POINTS};
use crate::arena::Scratch;
use crate::block::{BLOCK, ChannelBlock};
use crate::product::{self, Panels, Product, Rows};
use crate::region::{Axis, Region};
use crate::simd::{Arch, InstructionSet, vectorised};
use crate::transpose::{load, steps, store};

/// Blocks of outputs whose products are made together: the tiles of a point are in cache then, and so
/// are the products of all points afterwards.
const GROUP: usize = 4;

/// How transformed weights stand: in groups of outputs, in each group point after point, and of each
/// point in panels.
#[derive(Clone, Copy)]
pub(crate) struct Groups {
    arch: Arch,
    /// Channels of the input, rounded up to blocks.
    ins: usize,
    /// Blocks of outputs.
    blocks: usize,
}

impl Groups {
    /// Each group's first block, and its width in blocks.
    pub(crate) fn all(self) -> impl Iterator<Item = (usize, usize)> {
        let firsts = (0..self.blocks).step_by(GROUP);
        firsts.map(move |first| (first, self.panels(first).blocks))
    }

    /// Bytes of transformed tiles that meet all the weights while they are in cache.
    pub(crate) fn tile_bytes(self) -> usize {
        product::tile_bytes(self.arch)
    }

    /// The panels of the group that starts at an output block.
    fn panels(self, first: usize) -> Panels {
        Panels {
            arch: self.arch,
            blocks: GROUP.min(self.blocks - first),
        }
    }

    /// Blocks from one point of a group to the next. Not a power of two, or all points would compete
    /// for the same few lines of the cache.
    fn stride(self) -> usize {
        self.ins * self.blocks.min(GROUP) + 1
    }
}

/// Transformed weights, with their channels rounded up to blocks.
pub(crate) struct Weights {
    pub(crate) groups: Groups,
    values: Scratch,
}

/// Weights from sixteen inputs to sixteen outputs, both counted in blocks.
struct Task<'a> {
    in_block: usize,
    out_block: usize,
    /// For each point, the outputs of each input.
    points: Region<'a, ChannelBlock>,
}

impl Weights {
    /// Transforms weights, outputs by inputs.
    pub(crate) fn transform(ins: usize, outs: usize, w: &[f32]) -> Self {
        Self::filled_by(transform, ins, outs, w)
    }

    /// Transforms the weights of the adjoint: these are inputs by outputs, and the kernels turned.
    pub(crate) fn transform_adjoint(ins: usize, outs: usize, w: &[f32]) -> Self {
        Self::filled_by(transform_adjoint, ins, outs, w)
    }

    fn filled_by(
        kernel: fn(&[f32], [usize; 2], Task<'_>),
        ins: usize,
        outs: usize,
        w: &[f32],
    ) -> Self {
        let groups = Groups {
            arch: Arch::current(),
            ins: ins.next_multiple_of(BLOCK),
            blocks: outs.div_ceil(BLOCK),
        };
        let stride = groups.stride();
        let mut values = Scratch::new(groups.all().count() * POINTS * stride);
        let mut tasks = Vec::new();
        let all = groups.all().zip(values.chunks_mut(POINTS * stride));
        for ((first, _), group) in all {
            let mut rest = Region::new(group, [POINTS, 1, stride], [stride, stride]);
            let panels = groups.panels(first);
            for (block, width) in panels.some(0..panels.count()) {
                let (panel, after) = rest.split(Axis::Column, groups.ins * width);
                rest = after;
                for (in_block, inputs) in panel.fold(width).chunks(Axis::Row, BLOCK).enumerate() {
                    for (i, points) in inputs.chunks(Axis::Column, 1).enumerate() {
                        tasks.push(Task {
                            in_block,
                            out_block: first + block + i,
                            points,
                        });
                    }
                }
            }
        }
        let tasks = tasks.into_par_iter();
        tasks.for_each(|task| kernel(w, [ins, outs], task));
        Self { groups, values }
    }

    /// The product of transformed tiles with the weights of a group and point.
    pub(crate) fn product<'a>(&'a self, [first, e]: [usize; 2], tiles: Rows<'a>) -> Product<'a> {
        let groups = self.groups;
        let panels = groups.panels(first);
        Product {
            panels,
            range: 0..panels.count(),
            weights: &self.values[(first / GROUP * POINTS + e) * groups.stride()..],
            panel: groups.ins * panels.width(),
            in_turn: true,
            rows: tiles,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }

    pub(crate) fn instruction_set(&self) -> InstructionSet {
        self.groups.arch.set()
    }
}

/// The gradient of transformed weights: for each point a matrix of inputs by outputs, with outputs
/// rounded up to blocks.
pub(crate) struct Gradient {
    ins: usize,
    outs: usize,
    values: Scratch,
}

impl Gradient {
    /// Weights of arbitrary values.
    pub(crate) fn new(ins: usize, outs: usize) -> Self {
        let values = Scratch::new(POINTS * stride(ins, outs));
        Self { ins, outs, values }
    }

    /// The matrices of all points.
    pub(crate) fn points_mut(
        &mut self,
    ) -> impl IndexedParallelIterator<Item = &mut [ChannelBlock]> {
        self.values.par_chunks_mut(stride(self.ins, self.outs))
    }

    /// Transforms back to the gradient of the weights, outputs by inputs.
    pub(crate) fn transform_back(&self) -> Vec<f32> {
        let (ins, outs) = (self.ins, self.outs);
        let mut grad = vec![0.0; outs * ins * 9];
        let rows = Region::whole(&mut grad, [1, outs, ins * 9]);
        let mut tasks = Vec::new();
        for (out_block, rows) in rows.chunks(Axis::Row, BLOCK).enumerate() {
            for (in_block, part) in rows.chunks(Axis::Column, 9 * BLOCK).enumerate() {
                tasks.push(([in_block, out_block], part));
            }
        }
        tasks.into_par_iter().for_each(|(blocks, part)| {
            transform_back(&self.values, [ins, outs], blocks, part);
        });
        grad
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }
}

/// Blocks from one point of a gradient to the next: see [`Groups::stride`].
fn stride(ins: usize, outs: usize) -> usize {
    ins.next_multiple_of(BLOCK) * outs.div_ceil(BLOCK) + 1
}

/// Kernels from sixteen inputs to sixteen outputs.
type Kernels = [[[ChannelBlock; 3]; 3]; BLOCK];

const NO_KERNELS: Kernels = [[[ChannelBlock::ZERO; 3]; 3]; BLOCK];

/// Transforms the weights of a task.
fn transform(w: &[f32], [ins, outs]: [usize; 2], mut task: Task<'_>) {
    let (first_in, first_out) = (task.in_block * BLOCK, task.out_block * BLOCK);
    let mut kernels = NO_KERNELS;
    let rows = &w[(first_out * ins + first_in) * 9..];
    let (ins_here, outs_here) = (BLOCK.min(ins - first_in), BLOCK.min(outs - first_out));
    gather(rows, ins * 9, [ins_here, outs_here], &mut kernels);
    put(&kernels, &mut task.points);
}

/// As [`transform`], of inputs by outputs, with the kernels turned.
fn transform_adjoint(w: &[f32], [ins, outs]: [usize; 2], mut task: Task<'_>) {
    let (first_in, first_out) = (task.in_block * BLOCK, task.out_block * BLOCK);
    let mut kernels = NO_KERNELS;
    let rows = &w[(first_in * outs + first_out) * 9..];
    let (ins_here, outs_here) = (BLOCK.min(ins - first_in), BLOCK.min(outs - first_out));
    gather_turned(rows, outs * 9, [ins_here, outs_here], &mut kernels);
    put(&kernels, &mut task.points);
}

vectorised! {
    /// Kernels of some inputs, from rows of some outputs, `stride` apart.
    fn gather(rows: &[f32], stride: usize, sizes: [usize; 2], kernels: &mut Kernels) {
        let [ins, outs] = sizes;
        let flat = kernels.as_flattened_mut().as_flattened_mut();
        for (start, len) in steps(0..ins * 9) {
            let square = load(&rows[start..], stride, outs, len);
            flat[start..start + len].copy_from_slice(&square[..len]);
        }
    }
}

vectorised! {
    /// Turned kernels of some outputs, from rows of some inputs, `stride` apart.
    fn gather_turned(rows: &[f32], stride: usize, sizes: [usize; 2], kernels: &mut Kernels) {
        let [ins, outs] = sizes;
        for (kernel, row) in kernels.iter_mut().zip(rows.chunks(stride)).take(ins) {
            let square = load(row, 9, outs, 9);
            let taps = square[..9].iter().rev();
            for (to, tap) in kernel.as_flattened_mut().iter_mut().zip(taps) {
                *to = *tap;
            }
        }
    }
}

vectorised! {
    /// Transforms kernels to the rows of all points.
    fn put<V>(vectors; kernels: &Kernels, points: &mut Region<'_, ChannelBlock>) {
        for (i, kernel) in kernels.iter().enumerate() {
            let mut points = points.pillar::<POINTS>(i, 0);
            transform::tile::<V, transform::Weights, 3, 6>(
                vectors,
                kernel.as_flattened(),
                [3, 1],
                |e, part, value| vectors.store_part(&mut points.get(e).0, part, value),
            );
        }
    }
}

vectorised! {
    /// The reverse of [`transform`], for the gradient.
    fn transform_back<V>(
        vectors;
        points: &[ChannelBlock],
        sizes: [usize; 2],
        blocks: [usize; 2],
        grad: Region<'_, f32>,
    ) {
        let ([ins, outs], [in_block, out_block]) = (sizes, blocks);
        let mut grad = grad;
        let stride = stride(ins, outs);
        let mut kernels = NO_KERNELS;
        for (i, kernel) in kernels.iter_mut().enumerate() {
            let place = (in_block * BLOCK + i) * outs.div_ceil(BLOCK) + out_block;
            let kernel = kernel.as_flattened_mut();
            transform::tile::<V, transform::WeightGrad, 6, 3>(
                vectors,
                &points[place..],
                [6 * stride, stride],
                |at, part, value| vectors.store_part(&mut kernel[at].0, part, value),
            );
        }
        let (squares, _) = kernels.as_flattened().as_flattened().as_chunks();
        let steps = steps(0..grad.size(Axis::Column));
        for ((start, len), square) in steps.zip(squares) {
            store(*square, &mut grad, start, len);
        }
    }
}
