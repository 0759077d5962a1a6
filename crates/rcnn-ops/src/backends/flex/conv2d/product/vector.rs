//! The vectors of instruction sets, and how the kernel is cut for each.

use std::arch::x86_64::{
    __m256, __m512, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_storeu_ps, _mm256_stream_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_max_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    _mm512_stream_ps,
};

use super::kernel::Strip;

/// A vector of floats. Its methods want a processor with its instructions, and valid addresses;
/// they are inlined to where these instructions are enabled.
pub(super) trait Vector: Copy {
    /// Floats.
    const LEN: usize;
    /// Lanes of outputs that a tile has at most: with its rows they fill the registers.
    const PANEL: usize;
    /// Inputs of a row that are multiplied at once at most.
    const DEPTH: usize;
    /// Bytes of weights that the second cache holds beside other things.
    const NEAR_BYTES: usize;
    /// Bytes of rows that meet one panel after the other, if the weights are near, and if not.
    const BLOCK_BYTES: [usize; 2];
    /// Bytes of panels from which on the next is brought into cache beforehand.
    const FETCHED_BYTES: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// As [`store`](Self::store), to an aligned place, past the cache.
    unsafe fn stream(self, to: *mut f32);
    /// `self * by + sum`.
    unsafe fn mul_add(self, by: Self, sum: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// What is negative becomes zero, and what is not a number stays.
    unsafe fn relu(self) -> Self;

    /// [`Strip::multiply`] with these instructions enabled.
    unsafe fn multiply<const W: usize>(strip: &Strip<'_>);
}

macro_rules! vector {
    (
        $name:ident, $vector:ty, $features:literal, $zero:ident, $splat:ident, $load:ident, $store:ident,
        $stream:ident, $mul_add:ident, $add:ident, $max:ident, {$($constants:tt)*}
    ) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name($vector);

        impl Vector for $name {
            const LEN: usize = size_of::<$vector>() / size_of::<f32>();
            $($constants)*

            #[inline(always)]
            unsafe fn zero() -> Self {
                Self(unsafe { $zero() })
            }

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                Self(unsafe { $load(from) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { $store(to, self.0) }
            }

            #[inline(always)]
            unsafe fn stream(self, to: *mut f32) {
                unsafe { $stream(to, self.0) }
            }

            #[inline(always)]
            unsafe fn mul_add(self, by: Self, sum: Self) -> Self {
                Self(unsafe { $mul_add(self.0, by.0, sum.0) })
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                Self(unsafe { $add(self.0, other.0) })
            }

            #[inline(always)]
            unsafe fn relu(self) -> Self {
                // The second of the two where there is a NaN.
                Self(unsafe { $max($zero(), self.0) })
            }

            #[target_feature(enable = $features)]
            unsafe fn multiply<const W: usize>(strip: &Strip<'_>) {
                unsafe { strip.multiply::<Self, W>() }
            }
        }
    };
}

vector!(
    Avx512,
    __m512,
    "avx512f",
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_stream_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_max_ps,
    {
        const PANEL: usize = 4;
        const DEPTH: usize = usize::MAX;
        const NEAR_BYTES: usize = 512 << 10;
        const BLOCK_BYTES: [usize; 2] = [48 << 10, 256 << 10];
        const FETCHED_BYTES: usize = 48 << 10;
    }
);
vector!(
    Avx2,
    __m256,
    "avx2,fma",
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_stream_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_max_ps,
    {
        const PANEL: usize = 1;
        const DEPTH: usize = 384;
        const NEAR_BYTES: usize = 256 << 10;
        const BLOCK_BYTES: [usize; 2] = [128 << 10, 128 << 10];
        const FETCHED_BYTES: usize = 0;
    }
);
