//! Matrix products on slices, in the thread that asks. The crate of that name picks the instruction set
//! by itself.

use gemm::Parallelism;

use crate::region::{Axis, Region};

/// A matrix in a slice, with the distances between its rows and between its columns.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Columns one after the other, `stride` apart.
    pub(crate) fn columns(data: &'a [f32], stride: usize) -> Self {
        Self {
            data,
            row_stride: 1,
            col_stride: stride,
        }
    }

    /// Rows one after the other, `stride` apart.
    pub(crate) fn rows(data: &'a [f32], stride: usize) -> Self {
        Self {
            data,
            row_stride: stride,
            col_stride: 1,
        }
    }

    /// Without the columns before `first`.
    pub(crate) fn skip_columns(self, first: usize) -> Self {
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

/// `out = lhs * rhs`, or `out += lhs * rhs` to `accumulate`, where `out` is a region of one plane whose
/// rows are the product's columns, and `k` the inner size.
///
/// Best with columns in `lhs`: the product is vectorised along them, and rows would have to be
/// transposed first.
pub(crate) fn gemm(
    out: &mut Region<'_, f32>,
    k: usize,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    accumulate: bool,
) {
    let (m, n) = (out.size(Axis::Column), out.size(Axis::Row));
    if m == 0 || n == 0 {
        return;
    }
    assert!(lhs.holds(m, k) && rhs.holds(k, n));
    let (data, stride) = out.rows_mut();
    // SAFETY: the matrices lie in their slices, and the rows of `out`, which are disjoint, are ours.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            data,
            stride as isize,
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

/// [`gemm`] to a slice, where `out` is `m` by `n` with columns `out_stride` apart.
pub(crate) fn gemm_to(
    out: &mut [f32],
    out_stride: usize,
    [m, n, k]: [usize; 3],
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    accumulate: bool,
) {
    let mut out = Region::new(out, [1, n, m], [0, out_stride]);
    gemm(&mut out, k, lhs, rhs, accumulate);
}
