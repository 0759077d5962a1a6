//! Against sums in `f64`.

use super::*;
use crate::arena::Scratch;
use crate::block::{BLOCK, floats, floats_mut};
use crate::epilogue::{Activation, Epilogue};
use crate::simd::for_each_set;
use crate::testing::{error, random};

/// Where output block `out` of input `k` stands in panels, `panel` blocks apart.
fn place(panels: Panels, panel: usize, k: usize, out: usize) -> usize {
    let within = out % panels.most();
    let width = panels.most().min(panels.blocks - (out - within));
    out / panels.most() * panel + k * width + within
}

/// With all numbers of rows and blocks, whole rows and rows in parts, one of them zeros, and depths that
/// are taken in pieces.
#[test]
fn products() {
    let sizes = (1..=6).flat_map(|blocks| (1..=13).map(move |count| (blocks, count)));
    let parts = [(70, 3), (210, 1), (500, 1), (300, 3), (1, 800)];
    for ((blocks, count), (part, parts)) in sizes.flat_map(|size| parts.map(|part| (size, part))) {
        let depth = part * parts;
        let x = random(count * depth, 1);
        let mut weights = Scratch::new(blocks * depth);
        floats_mut(&mut weights).copy_from_slice(&random(blocks * depth * BLOCK, 2));
        let is_zero = |row: usize, part: usize| parts > 1 && (row + part) % 5 == 2;
        let starts: Vec<usize> = (0..parts)
            .flat_map(|i| (0..count).map(move |row| (row, i)))
            .map(|(row, i)| match is_zero(row, i) {
                true => Starts::ZEROS,
                false => row * depth + i * part,
            })
            .collect();
        let outs = blocks * BLOCK;
        let (scale, residual) = (random(outs, 3), random(count * outs, 4));
        let epilogue = Epilogue {
            scale: Some(&scale),
            residual: Some(&residual),
            activation: Activation::Relu,
            ..Epilogue::NONE
        };
        for_each_set(|set| {
            let panels = Panels::new(blocks);
            let panel = panels.width() * depth;
            let rows = Rows {
                data: &x,
                starts: match parts {
                    1 => Starts::Even(depth),
                    _ => Starts::Table(&starts),
                },
                zeros: &vec![0.0; part],
                part,
                count,
            };
            let product = Product {
                rows,
                weights: &weights,
                panels,
                range: 0..panels.count(),
                panel,
                in_turn: true,
            };
            let sum = |row: usize, out: usize| {
                let term = |k: usize| {
                    let weight = weights[place(panels, panel, k, out / BLOCK)];
                    let x = match is_zero(row, k / part) {
                        true => 0.0,
                        false => x[row * depth + k],
                    };
                    f64::from(x) * f64::from(weight.0[out % BLOCK])
                };
                let sum: f64 = (0..depth).map(term).sum();
                let residual = f64::from(residual[row * outs + out]);
                (sum * f64::from(scale[out]) + residual).max(0.0)
            };
            let sums: Vec<f64> = (0..count * outs).map(|i| sum(i / outs, i % outs)).collect();
            for streams in [false, true] {
                let mut found = Scratch::new(count * blocks);
                product.multiply(Output {
                    region: Region::whole(&mut found, [1, count, blocks]),
                    first_pixel: 0,
                    first_block: 0,
                    blocks,
                    adds: false,
                    streams,
                    epilogue: &epilogue.by_block(blocks),
                });
                let error = error(floats(&found), &sums);
                // Sums of up to 900 terms, one after the other.
                assert!(error < 3e-6, "{error} {set} {blocks} {count} {part}");
            }
        });
    }
}
