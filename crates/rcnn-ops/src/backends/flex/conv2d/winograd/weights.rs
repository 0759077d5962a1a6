//! Kernels as transformed weights, and their gradient.

use rayon::prelude::*;

use super::super::lanes::{load, steps, store};
use super::super::pool::{LANES, Lane, Scratch};
use super::super::product::{Kernel, Panels, Product, Rows};
use super::super::shared::Shared;
use super::super::vector::{Vector, vectorised};
use super::tiling::{Points, put};
use super::transform::{self, POINTS};

/// Lanes of outputs whose products are made together: the tiles of a point are in cache then, and so
/// are the products of all points afterwards.
const GROUP: usize = 4;

/// How transformed weights stand: in groups of outputs, in each group point after point, and of each
/// point in panels ([`Panels::place`]).
#[derive(Clone, Copy)]
pub(super) struct Groups {
    kernel: Kernel,
    /// Channels of the input, rounded up to lanes.
    ins: usize,
    /// Lanes of outputs.
    lanes: usize,
}

impl Groups {
    /// Each group's first lane, and its width in lanes.
    pub(super) fn all(self) -> impl Iterator<Item = (usize, usize)> {
        let firsts = (0..self.lanes).step_by(GROUP);
        firsts.map(move |first| (first, self.panels(first).lanes))
    }

    /// Bytes of transformed tiles that meet all the weights while they are in cache.
    pub(super) fn tile_bytes(self) -> usize {
        self.kernel.tile_bytes()
    }

    /// Of the group from a lane on.
    fn panels(self, first: usize) -> Panels {
        Panels {
            kernel: self.kernel,
            lanes: GROUP.min(self.lanes - first),
        }
    }

    /// Lanes from one panel to the next.
    fn panel(self, panels: Panels) -> usize {
        self.ins * panels.width()
    }

    /// Lanes from one point of a group to the next: see [`Points`].
    fn stride(self) -> usize {
        self.ins * self.lanes.min(GROUP) + 1
    }

    /// Where the first point of lane `out` of input `k` stands.
    #[inline(always)]
    fn place(self, k: usize, out: usize) -> usize {
        let first = out / GROUP * GROUP;
        let panels = self.panels(first);
        out / GROUP * POINTS * self.stride() + panels.place(self.panel(panels), k, out - first)
    }
}

/// Transformed weights, with their channels rounded up to lanes.
pub(in super::super::super) struct Weights {
    pub(super) groups: Groups,
    values: Scratch,
}

impl Weights {
    /// Transforms weights, outputs by inputs.
    pub(in super::super) fn spread(ins: usize, outs: usize, w: &[f32]) -> Self {
        Self::filled_by(spread, ins, outs, w)
    }

    /// Transforms the weights of the adjoint: these are inputs by outputs, and the kernels turned.
    pub(super) fn spread_adjoint(ins: usize, outs: usize, w: &[f32]) -> Self {
        Self::filled_by(spread_adjoint, ins, outs, w)
    }

    fn filled_by(
        kernel: fn(&[f32], [usize; 2], [usize; 2], Groups, &Points<'_>),
        ins: usize,
        outs: usize,
        w: &[f32],
    ) -> Self {
        let groups = Groups {
            kernel: Kernel::fastest(),
            ins: ins.next_multiple_of(LANES),
            lanes: outs.div_ceil(LANES),
        };
        let mut values = Scratch::new(groups.all().count() * POINTS * groups.stride());
        let points = Points {
            data: Shared::new(&mut values),
            stride: groups.stride(),
        };
        each(ins, outs, |lanes| {
            kernel(w, [ins, outs], lanes, groups, &points);
        });
        Self { groups, values }
    }

    /// The product of transformed tiles with the weights of a group and point.
    pub(super) fn product<'a>(&'a self, [first, e]: [usize; 2], tiles: Rows<'a>) -> Product<'a> {
        let groups = self.groups;
        let panels = groups.panels(first);
        Product {
            panels,
            range: 0..panels.count(),
            weights: &self.values[(first / GROUP * POINTS + e) * groups.stride()..],
            panel: groups.panel(panels),
            in_turn: true,
            rows: tiles,
        }
    }

    pub(in super::super) fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }
}

/// The gradient of transformed weights: for each point a matrix of inputs by outputs, with outputs
/// rounded up to lanes.
pub(super) struct Gradient {
    ins: usize,
    outs: usize,
    values: Scratch,
}

impl Gradient {
    /// Room for it, of arbitrary values.
    pub(super) fn new(ins: usize, outs: usize) -> Self {
        let values = Scratch::new(POINTS * stride(ins, outs));
        Self { ins, outs, values }
    }

    /// The matrices of all points.
    pub(super) fn points_mut(&mut self) -> impl IndexedParallelIterator<Item = &mut [Lane]> {
        self.values.par_chunks_mut(stride(self.ins, self.outs))
    }

    /// Transforms back to the gradient of the weights, outputs by inputs.
    pub(super) fn collect(&self) -> Vec<f32> {
        let (ins, outs) = (self.ins, self.outs);
        let mut grad = vec![0.0; outs * ins * 9];
        let shared = Shared::new(&mut grad);
        each(ins, outs, |lanes| {
            collect(&self.values, [ins, outs], lanes, &shared);
        });
        grad
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.values)
    }
}

/// Lanes from one point of a gradient to the next: see [`Points`].
fn stride(ins: usize, outs: usize) -> usize {
    ins.next_multiple_of(LANES) * outs.div_ceil(LANES) + 1
}

/// Calls `work` for each lane of inputs and of outputs, from all threads.
fn each(ins: usize, outs: usize, work: impl Fn([usize; 2]) + Sync) {
    let (in_lanes, out_lanes) = (ins.div_ceil(LANES), outs.div_ceil(LANES));
    (0..in_lanes * out_lanes)
        .into_par_iter()
        .for_each(|i| work([i / out_lanes, i % out_lanes]));
}

/// Kernels from sixteen inputs to sixteen outputs.
type Kernels = [[[Lane; 3]; 3]; LANES];

const NO_KERNELS: Kernels = [[[Lane::ZERO; 3]; 3]; LANES];

vectorised! {
    /// Transforms the weights from sixteen inputs to sixteen outputs.
    fn spread<V>(
        w: &[f32], sizes: [usize; 2], lanes: [usize; 2], groups: Groups, points: &Points<'_>,
    ) {
        let ([ins, outs], [in_lane, out_lane]) = (sizes, lanes);
        let (first_in, first_out) = (in_lane * LANES, out_lane * LANES);
        let mut kernels = NO_KERNELS;
        let flat = kernels.as_flattened_mut().as_flattened_mut();
        let rows = &w[(first_out * ins + first_in) * 9..];
        for (start, len) in steps(0..LANES.min(ins - first_in) * 9) {
            let block = load(&rows[start..], ins * 9, LANES.min(outs - first_out), len);
            flat[start..start + len].copy_from_slice(&block[..len]);
        }
        // SAFETY: the processor has these vectors, and each pair of lanes elements of its own.
        unsafe { place::<V>(&kernels, lanes, groups, points) };
    }
}

vectorised! {
    /// As [`spread`], of inputs by outputs, with the kernels turned.
    fn spread_adjoint<V>(
        w: &[f32], sizes: [usize; 2], lanes: [usize; 2], groups: Groups, points: &Points<'_>,
    ) {
        let ([ins, outs], [in_lane, out_lane]) = (sizes, lanes);
        let (first_in, first_out) = (in_lane * LANES, out_lane * LANES);
        let mut kernels = NO_KERNELS;
        for (i, kernel) in kernels.iter_mut().enumerate().take(ins - first_in) {
            let row = &w[((first_in + i) * outs + first_out) * 9..];
            let block = load(row, 9, LANES.min(outs - first_out), 9);
            for (tap, value) in kernel.as_flattened_mut().iter_mut().zip(block[..9].iter().rev()) {
                *tap = *value;
            }
        }
        // SAFETY: the processor has these vectors, and each pair of lanes elements of its own.
        unsafe { place::<V>(&kernels, lanes, groups, points) };
    }
}

/// # Safety
///
/// No other thread may touch the places of these lanes; the rest is as for [`Vector`].
#[inline(always)]
unsafe fn place<V: Vector>(
    kernels: &Kernels,
    lanes: [usize; 2],
    groups: Groups,
    points: &Points<'_>,
) {
    for (i, kernel) in kernels.iter().enumerate() {
        let place = groups.place(lanes[0] * LANES + i, lanes[1]);
        // SAFETY: as the caller answers for.
        unsafe { points.put::<V, transform::Weights, 3>(place, kernel.as_flattened(), [3, 1]) };
    }
}

vectorised! {
    /// The reverse of [`spread`], for the gradient.
    fn collect<V>(points: &[Lane], sizes: [usize; 2], lanes: [usize; 2], grad: &Shared<'_, f32>) {
        let ([ins, outs], [in_lane, out_lane]) = (sizes, lanes);
        let (first_in, first_out) = (in_lane * LANES, out_lane * LANES);
        let stride = stride(ins, outs);
        let mut kernels = NO_KERNELS;
        for (i, kernel) in kernels.iter_mut().enumerate() {
            let place = (first_in + i) * outs.div_ceil(LANES) + out_lane;
            let kernel = kernel.as_flattened_mut();
            // SAFETY: the processor has these vectors.
            unsafe {
                transform::tile::<V, transform::WeightGrad, 6, 3>(
                    &points[place..],
                    [6 * stride, stride],
                    |at, part, value| put(kernel, at, part, value),
                );
            }
        }
        let (blocks, _) = kernels.as_flattened().as_flattened().as_chunks();
        let offset = (first_out * ins + first_in) * 9;
        let steps = steps(0..LANES.min(ins - first_in) * 9);
        for ((start, len), block) in steps.zip(blocks) {
            let count = LANES.min(outs - first_out);
            // SAFETY: each pair of lanes has weights of its own.
            unsafe { store(*block, grad, offset + start, ins * 9, count, len) };
        }
    }
}
