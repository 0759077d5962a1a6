//! The matrices of F(4x4, 3x3), one line of values at a time, and their application to tiles.
//!
//! They come from polynomials through the points 0, ±√½, ±√2 and infinity. Lavin and Gray take
//! 0, ±1, ±2 and infinity, whose greater powers cost a factor of three in precision.

use super::super::pool::{LANES, Lane};

const R: f32 = std::f32::consts::SQRT_2;
const H: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Values of a transformed tile.
pub(super) const POINTS: usize = 36;

/// Bᵀd, of the input.
#[inline(always)]
pub(super) fn input(d: [f32; 6]) -> [f32; 6] {
    let (p, q) = (d[4] - 2.0 * d[2], H * d[3] - R * d[1]);
    let (r, s) = (d[4] - 0.5 * d[2], R * d[3] - H * d[1]);
    [
        d[0] - 2.5 * d[2] + d[4],
        p + q,
        p - q,
        r + s,
        r - s,
        d[1] - 2.5 * d[3] + d[5],
    ]
}

/// Gg, of the weights.
#[inline(always)]
pub(super) fn weights(g: [f32; 3]) -> [f32; 6] {
    let (p, r) = (-2.0 / 3.0 * g[0] - g[2] / 3.0, g[0] / 6.0 + g[2] / 3.0);
    let (q, s) = (-R / 3.0 * g[1], R / 6.0 * g[1]);
    [g[0], p + q, p - q, r + s, r - s, g[2]]
}

/// Aᵀm, to the output.
#[inline(always)]
pub(super) fn output(m: [f32; 6]) -> [f32; 4] {
    let (p, q) = (m[1] + m[2], m[1] - m[2]);
    let (r, s) = (m[3] + m[4], m[3] - m[4]);
    [
        m[0] + p + r,
        H * q + R * s,
        0.5 * p + 2.0 * r,
        0.5 * H * q + 2.0 * R * s + m[5],
    ]
}

/// Ay, of the gradient of the output.
#[inline(always)]
pub(super) fn output_grad(y: [f32; 4]) -> [f32; 6] {
    let (p, q) = (y[0] + 0.5 * y[2], H * y[1] + 0.5 * H * y[3]);
    let (r, s) = (y[0] + 2.0 * y[2], R * y[1] + 2.0 * R * y[3]);
    [y[0], p + q, p - q, r + s, r - s, y[3]]
}

/// Gᵀu, to the gradient of the weights.
#[inline(always)]
pub(super) fn weight_grad(u: [f32; 6]) -> [f32; 3] {
    let (p, q) = (u[1] + u[2], u[1] - u[2]);
    let (r, s) = (u[3] + u[4], u[3] - u[4]);
    [
        u[0] - 2.0 / 3.0 * p + r / 6.0,
        R / 6.0 * s - R / 3.0 * q,
        (r - p) / 3.0 + u[5],
    ]
}

/// Applies `line` to the columns of a tile, then to the rows of what that gives.
#[inline(always)]
pub(super) fn tile<const I: usize, const O: usize>(
    line: impl Fn([f32; I]) -> [f32; O],
    from: [[&Lane; I]; I],
    to: &mut [[Lane; O]; O],
) {
    let mut half = [[Lane::ZERO; I]; O];
    for j in 0..I {
        for lane in 0..LANES {
            let column = line(std::array::from_fn(|i| from[i][j].0[lane]));
            for i in 0..O {
                half[i][j].0[lane] = column[i];
            }
        }
    }
    for i in 0..O {
        for lane in 0..LANES {
            let row = line(std::array::from_fn(|j| half[i][j].0[lane]));
            for j in 0..O {
                to[i][j].0[lane] = row[j];
            }
        }
    }
}
