//! The matrices of F(4x4, 3x3), one line of values at a time, and their application to tiles.
//!
//! They come from polynomials through the points 0, ±√½, ±√2 and infinity. Lavin and Gray take
//! 0, ±1, ±2 and infinity, whose greater powers cost a factor of three in precision.

use std::array::from_fn;

use super::super::pool::{LANES, Lane};
use super::super::vector::Vector;

const R: f32 = std::f32::consts::SQRT_2;
const H: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Values of a transformed tile.
pub(super) const POINTS: usize = 36;

/// A line of a transform.
///
/// # Safety
///
/// As for [`Vector`].
pub(super) trait Line<const I: usize, const O: usize> {
    unsafe fn apply<V: Vector>(values: [V; I]) -> [V; O];
}

/// Bᵀd, of the input.
pub(super) struct Input;

impl Line<6, 6> for Input {
    #[inline(always)]
    unsafe fn apply<V: Vector>(d: [V; 6]) -> [V; 6] {
        // SAFETY: as the caller answers for.
        unsafe {
            let p = d[2].mul_add(V::splat(-2.0), d[4]);
            let q = d[1].mul_add(V::splat(-R), d[3].mul(V::splat(H)));
            let r = d[2].mul_add(V::splat(-0.5), d[4]);
            let s = d[1].mul_add(V::splat(-H), d[3].mul(V::splat(R)));
            [
                d[2].mul_add(V::splat(-2.5), d[0].add(d[4])),
                p.add(q),
                p.sub(q),
                r.add(s),
                r.sub(s),
                d[3].mul_add(V::splat(-2.5), d[1].add(d[5])),
            ]
        }
    }
}

/// Gg, of the weights.
pub(super) struct Weights;

impl Line<3, 6> for Weights {
    #[inline(always)]
    unsafe fn apply<V: Vector>(g: [V; 3]) -> [V; 6] {
        // SAFETY: as the caller answers for.
        unsafe {
            let third = g[2].mul(V::splat(1.0 / 3.0));
            let p = g[0].mul_add(V::splat(-2.0 / 3.0), V::splat(0.0).sub(third));
            let r = g[0].mul_add(V::splat(1.0 / 6.0), third);
            let q = g[1].mul(V::splat(-R / 3.0));
            let s = g[1].mul(V::splat(R / 6.0));
            [g[0], p.add(q), p.sub(q), r.add(s), r.sub(s), g[2]]
        }
    }
}

/// Aᵀm, to the output.
pub(super) struct Output;

impl Line<6, 4> for Output {
    #[inline(always)]
    unsafe fn apply<V: Vector>(m: [V; 6]) -> [V; 4] {
        // SAFETY: as the caller answers for.
        unsafe {
            let (p, q) = (m[1].add(m[2]), m[1].sub(m[2]));
            let (r, s) = (m[3].add(m[4]), m[3].sub(m[4]));
            [
                m[0].add(p).add(r),
                q.mul_add(V::splat(H), s.mul(V::splat(R))),
                p.mul_add(V::splat(0.5), r.add(r)),
                q.mul_add(V::splat(0.5 * H), s.mul_add(V::splat(2.0 * R), m[5])),
            ]
        }
    }
}

/// Ay, of the gradient of the output.
pub(super) struct OutputGrad;

impl Line<4, 6> for OutputGrad {
    #[inline(always)]
    unsafe fn apply<V: Vector>(y: [V; 4]) -> [V; 6] {
        // SAFETY: as the caller answers for.
        unsafe {
            let p = y[2].mul_add(V::splat(0.5), y[0]);
            let q = y[1].mul_add(V::splat(H), y[3].mul(V::splat(0.5 * H)));
            let r = y[2].mul_add(V::splat(2.0), y[0]);
            let s = y[1].mul_add(V::splat(R), y[3].mul(V::splat(2.0 * R)));
            [y[0], p.add(q), p.sub(q), r.add(s), r.sub(s), y[3]]
        }
    }
}

/// Gᵀu, to the gradient of the weights.
pub(super) struct WeightGrad;

impl Line<6, 3> for WeightGrad {
    #[inline(always)]
    unsafe fn apply<V: Vector>(u: [V; 6]) -> [V; 3] {
        // SAFETY: as the caller answers for.
        unsafe {
            let (p, q) = (u[1].add(u[2]), u[1].sub(u[2]));
            let (r, s) = (u[3].add(u[4]), u[3].sub(u[4]));
            [
                r.mul_add(V::splat(1.0 / 6.0), p.mul_add(V::splat(-2.0 / 3.0), u[0])),
                s.mul_add(V::splat(R / 6.0), q.mul(V::splat(-R / 3.0))),
                r.sub(p).mul_add(V::splat(1.0 / 3.0), u[5]),
            ]
        }
    }
}

/// Applies lines of a transform to the columns of a tile, then to the rows of what that gives. The
/// tile's rows and columns are so many lanes apart; `put` gets each element of the result, with its
/// place in `O` rows and columns one after the other, vector after vector: where that starts in a lane
/// comes in between.
///
/// # Safety
///
/// As for [`Vector`].
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, L: Line<I, O>, const I: usize, const O: usize>(
    from: &[Lane],
    [down, right]: [usize; 2],
    mut put: impl FnMut(usize, usize, V),
) {
    assert!((I - 1) * (down + right) < from.len());
    let from = from.as_ptr().cast::<f32>();
    for part in (0..LANES).step_by(V::LEN) {
        // SAFETY: within the tile, as just asserted; the rest is the caller's.
        unsafe {
            let mut half = [[V::splat(0.0); I]; O];
            for j in 0..I {
                let column = from_fn(|i| V::load(from.add((i * down + j * right) * LANES + part)));
                let column: [V; O] = L::apply(column);
                for (half, value) in half.iter_mut().zip(column) {
                    half[j] = value;
                }
            }
            for (i, half) in half.iter().enumerate() {
                for (j, value) in L::apply(*half).into_iter().enumerate() {
                    put(O * i + j, part, value);
                }
            }
        }
    }
}
