//! The matrices of F(4x4, 3x3), one line of values at a time, and their application to tiles.
//!
//! They come from polynomials through the points 0, ±√½, ±√2 and infinity. Lavin and Gray take
//! 0, ±1, ±2 and infinity, whose greater powers cost a factor of three in precision.

use crate::block::ChannelBlock;
use crate::simd::{Vector, Vectors};

const R: f32 = std::f32::consts::SQRT_2;
const H: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Values of a transformed tile.
pub(crate) const POINTS: usize = 36;

/// A line of a transform.
pub(crate) trait Line<const I: usize, const O: usize> {
    fn apply<V: Vectors>(values: [Vector<V>; I]) -> [Vector<V>; O];
}

/// Bᵀd, of the input.
pub(crate) struct Input;

impl Line<6, 6> for Input {
    #[inline(always)]
    fn apply<V: Vectors>(d: [Vector<V>; 6]) -> [Vector<V>; 6] {
        let p = d[2].mul_add(-2.0, d[4]);
        let q = d[1].mul_add(-R, d[3] * H);
        let r = d[2].mul_add(-0.5, d[4]);
        let s = d[1].mul_add(-H, d[3] * R);
        [
            d[2].mul_add(-2.5, d[0] + d[4]),
            p + q,
            p - q,
            r + s,
            r - s,
            d[3].mul_add(-2.5, d[1] + d[5]),
        ]
    }
}

/// Gg, of the weights.
pub(crate) struct Weights;

impl Line<3, 6> for Weights {
    #[inline(always)]
    fn apply<V: Vectors>(g: [Vector<V>; 3]) -> [Vector<V>; 6] {
        let third = g[2] * (1.0 / 3.0);
        let p = g[0].mul_add(-2.0 / 3.0, third * -1.0);
        let r = g[0].mul_add(1.0 / 6.0, third);
        let q = g[1] * (-R / 3.0);
        let s = g[1] * (R / 6.0);
        [g[0], p + q, p - q, r + s, r - s, g[2]]
    }
}

/// Aᵀm, to the output.
pub(crate) struct Output;

impl Line<6, 4> for Output {
    #[inline(always)]
    fn apply<V: Vectors>(m: [Vector<V>; 6]) -> [Vector<V>; 4] {
        let (p, q) = (m[1] + m[2], m[1] - m[2]);
        let (r, s) = (m[3] + m[4], m[3] - m[4]);
        [
            m[0] + p + r,
            q.mul_add(H, s * R),
            p.mul_add(0.5, r + r),
            q.mul_add(0.5 * H, s.mul_add(2.0 * R, m[5])),
        ]
    }
}

/// Ay, of the gradient of the output.
pub(crate) struct OutputGrad;

impl Line<4, 6> for OutputGrad {
    #[inline(always)]
    fn apply<V: Vectors>(y: [Vector<V>; 4]) -> [Vector<V>; 6] {
        let p = y[2].mul_add(0.5, y[0]);
        let q = y[1].mul_add(H, y[3] * (0.5 * H));
        let r = y[2].mul_add(2.0, y[0]);
        let s = y[1].mul_add(R, y[3] * (2.0 * R));
        [y[0], p + q, p - q, r + s, r - s, y[3]]
    }
}

/// Gᵀu, to the gradient of the weights.
pub(crate) struct WeightGrad;

impl Line<6, 3> for WeightGrad {
    #[inline(always)]
    fn apply<V: Vectors>(u: [Vector<V>; 6]) -> [Vector<V>; 3] {
        let (p, q) = (u[1] + u[2], u[1] - u[2]);
        let (r, s) = (u[3] + u[4], u[3] - u[4]);
        [
            r.mul_add(1.0 / 6.0, p.mul_add(-2.0 / 3.0, u[0])),
            s.mul_add(R / 6.0, q * (-R / 3.0)),
            (r - p).mul_add(1.0 / 3.0, u[5]),
        ]
    }
}

/// Applies lines of a transform to the columns of a tile, then to the rows of what that gives. The
/// tile's rows and columns are `[down, right]` blocks apart; `put` gets each element of the result, with its
/// place in `O` rows and columns one after the other, vector after vector: which one of a block's comes
/// in between.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices that are unrolled")]
pub(crate) fn tile<V: Vectors, L: Line<I, O>, const I: usize, const O: usize>(
    vectors: V,
    from: &[ChannelBlock],
    [down, right]: [usize; 2],
    mut put: impl FnMut(usize, usize, V::f32s),
) {
    // None of the factors is so large that this would overflow.
    let len = from.len();
    assert!(down <= len && right <= len && (I - 1) * (down + right) < len);
    for part in 0..V::PARTS {
        let zero = Vector::new(vectors, vectors.splat_f32s(0.0));
        let mut half = [[zero; I]; O];
        for j in 0..I {
            let mut column = [zero; I];
            for i in 0..I {
                // SAFETY: at most the last one's place, as just asserted.
                let block = unsafe { from.get_unchecked(i * down + j * right) };
                column[i] = Vector::new(vectors, vectors.load_part(&block.0, part));
            }
            let column: [Vector<V>; O] = L::apply(column);
            for i in 0..O {
                half[i][j] = column[i];
            }
        }
        for i in 0..O {
            let row: [Vector<V>; O] = L::apply(half[i]);
            for j in 0..O {
                put(O * i + j, part, row[j].floats);
            }
        }
    }
}
