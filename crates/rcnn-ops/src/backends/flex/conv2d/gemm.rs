//! Matrix products on slices, in the thread that asks.

use gemm::Parallelism;

use super::shared::Shared;

/// A matrix in a slice, with the distances between its rows and between its columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Columns one after the other, `stride` apart.
    pub(super) fn columns(data: &'a [f32], stride: usize) -> Self {
        Self {
            data,
            row_stride: 1,
            col_stride: stride,
        }
    }

    /// Rows one after the other, `stride` apart.
    pub(super) fn rows(data: &'a [f32], stride: usize) -> Self {
        Self {
            data,
            row_stride: stride,
            col_stride: 1,
        }
    }

    /// Without the columns before `first`.
    pub(super) fn skip_columns(self, first: usize) -> Self {
        Self {
            data: &self.data[first * self.col_stride..],
            ..self
        }
    }

    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0
            || cols == 0
            || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
    }
}

/// `out = lhs * rhs`, or `out += lhs * rhs` to `accumulate`, where `out` is `m` by `n` with
/// columns `out_stride` apart, and `k` the inner size.
///
/// Best with columns in `lhs`: the product is vectorised along `m`, and rows would have to be
/// transposed first.
pub(super) fn gemm(
    size: [usize; 3],
    out: &mut [f32],
    out_stride: usize,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    accumulate: bool,
) {
    // SAFETY: nothing else holds `out`.
    unsafe { gemm_shared(size, &Shared::new(out), 0, out_stride, lhs, rhs, accumulate) }
}

/// As [`gemm`], from element `start` of what threads share.
///
/// # Safety
///
/// No other thread may touch the elements of the product.
pub(super) unsafe fn gemm_shared(
    [m, n, k]: [usize; 3],
    out: &Shared<'_, f32>,
    start: usize,
    out_stride: usize,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(lhs.holds(m, k) && rhs.holds(k, n));
    assert!(n == 1 || m <= out_stride);
    let out = out.range(start, (n - 1) * out_stride + m);
    // SAFETY: all three matrices lie in their slices, and the elements of `out` are distinct.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            out_stride as isize,
            1,
            accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
