//! Where the pixels of the output meet the input, and columns of the patches that they meet.

use super::Conv2d;
use crate::simd::vectorised;
use crate::transpose::take_every;

/// Consecutive pixels of the output, counted through the batch.
pub(crate) struct PixelChunk {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// The pixels of a chunk that lie in one image.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) image: usize,
    /// The first, within its image.
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The first, within the chunk.
    pub(crate) at: usize,
}

impl PixelChunk {
    pub(crate) fn new(start: usize, len: usize) -> Self {
        Self { start, len }
    }

    pub(crate) fn runs(&self, conv: &Conv2d) -> Vec<Run> {
        let plane = conv.out_plane();
        let mut runs = Vec::new();
        let mut at = 0;
        while at < self.len {
            let (image, start) = ((self.start + at) / plane, (self.start + at) % plane);
            let len = (self.len - at).min(plane - start);
            runs.push(Run {
                image,
                start,
                len,
                at,
            });
            at += len;
        }
        runs
    }
}

/// Cuts the pixels of the output into chunks of at most `pixels`.
pub(crate) fn chunks(conv: &Conv2d, pixels: usize) -> Vec<PixelChunk> {
    let all = conv.batch * conv.out_plane();
    let starts = (0..all).step_by(pixels);
    starts
        .map(|start| PixelChunk::new(start, pixels.min(all - start)))
        .collect()
}

/// A place in the kernel, and the columns of the output for which it lies within the input.
pub(crate) struct Tap {
    y: usize,
    x: usize,
    within: [usize; 2],
}

impl Tap {
    pub(crate) fn new(conv: &Conv2d, index: usize) -> Self {
        let (y, x) = (index / conv.kernel[1], index % conv.kernel[1]);
        let (pad, step) = (conv.padding[1], conv.stride[1]);
        let below = |limit: usize| (limit + pad).saturating_sub(x).div_ceil(step);
        let within = [below(0), below(conv.width)].map(|col| col.min(conv.out_width()));
        Self { y, x, within }
    }

    /// The row of the input that it meets at a row of the output.
    fn row(&self, conv: &Conv2d, out_row: usize) -> Option<usize> {
        let row = (out_row * conv.stride[0] + self.y).checked_sub(conv.padding[0])?;
        (row < conv.height).then_some(row)
    }

    /// The parts of rows of the output in `run` that meet the input, as `visit(at, len, start)`:
    /// `len` pixels from `at` in the chunk meet the plane from `start`.
    #[inline(always)]
    pub(crate) fn meet(
        &self,
        conv: &Conv2d,
        run: &Run,
        mut visit: impl FnMut(usize, usize, usize),
    ) {
        let width = conv.out_width();
        let end = run.start + run.len;
        for out_row in run.start / width..end.div_ceil(width) {
            let first = out_row * width;
            let from = self.within[0].max(run.start.saturating_sub(first));
            let to = self.within[1].min(end - first);
            if let Some(row) = self.row(conv, out_row)
                && from < to
            {
                let col = from * conv.stride[1] + self.x - conv.padding[1];
                let at = run.at + first + from - run.start;
                visit(at, to - from, row * conv.width + col);
            }
        }
    }
}

vectorised! {
    /// Makes `count` rows of the columns, from `first`, counted through the groups.
    pub(crate) fn gather(
        conv: &Conv2d, x: &[f32], chunk: &PixelChunk, rows: [usize; 2],
        columns: &mut [f32], stride: usize,
    ) {
        let [first, count] = rows;
        let taps = conv.kernel[0] * conv.kernel[1];
        let plane = conv.in_plane();
        let runs = chunk.runs(conv);
        let step = conv.stride[1];
        let padded = conv.padding != [0, 0];
        for (i, column) in columns.chunks_mut(stride).take(count).enumerate() {
            let (channel, tap) = ((first + i) / taps, Tap::new(conv, (first + i) % taps));
            if padded {
                column[..chunk.len].fill(0.0);
            }
            for run in &runs {
                let x = &x[(run.image * conv.in_channels + channel) * plane..][..plane];
                tap.meet(conv, run, |at, len, start| {
                    let column = &mut column[at..at + len];
                    take_every(step, &x[start..], column);
                });
            }
        }
    }
}

vectorised! {
    /// Adds columns, of the channels that `planes` holds, to where their patches came from.
    pub(crate) fn scatter(
        conv: &Conv2d, chunk: &PixelChunk, columns: &[f32], stride: usize, planes: &mut [f32],
    ) {
        let taps = conv.kernel[0] * conv.kernel[1];
        let run = Run { image: 0, start: chunk.start, len: chunk.len, at: 0 };
        let step = conv.stride[1];
        let planes = planes.chunks_mut(conv.in_plane());
        for (plane, columns) in planes.zip(columns.chunks(stride * taps)) {
            for (tap, column) in columns.chunks(stride).enumerate() {
                Tap::new(conv, tap).meet(conv, &run, |at, len, start| {
                    let column = &column[at..at + len];
                    if step == 1 {
                        for (x, value) in plane[start..].iter_mut().zip(column) {
                            *x += value;
                        }
                    } else {
                        for (x, value) in plane[start..].iter_mut().step_by(step).zip(column) {
                            *x += value;
                        }
                    }
                });
            }
        }
    }
}
