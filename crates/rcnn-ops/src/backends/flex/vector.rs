//! Vectors of floats, by instruction set.

use super::pool::LANES;

/// A vector of floats. Its methods want a processor with its instructions, and valid addresses; they
/// are inlined to where these instructions are enabled.
pub(super) trait Vector: Copy {
    /// Floats: a lane, or an equal part of it.
    const LEN: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// As [`store`](Self::store), to an aligned place, past the cache.
    unsafe fn stream(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// `self * by + sum`.
    unsafe fn mul_add(self, by: Self, sum: Self) -> Self;
    unsafe fn mul(self, by: Self) -> Self;
    /// What is negative becomes zero, and what is not a number stays.
    unsafe fn relu(self) -> Self;
}

/// Defines a function that is compiled for several instruction sets, and picks one when called. Its
/// body may name their type of [`Vector`].
macro_rules! vectorised {
    ($(#[$attr:meta])* $vis:vis fn $name:ident($($args:tt)*) $body:block) => {
        vectorised! { $(#[$attr])* $vis fn $name<V>($($args)*) $body }
    };
    (
        $(#[$attr:meta])*
        $vis:vis fn $name:ident<$vector:ident>($($arg:ident: $ty:ty),* $(,)?) $body:block
    ) => {
        $(#[$attr])*
        $vis fn $name($($arg: $ty),*) {
            use $crate::backends::flex::vector::{self, Vector};

            #[inline(always)]
            fn body<$vector: Vector>($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512($($arg: $ty),*) {
                    body::<vector::Avx512>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    body::<vector::Avx2>($($arg),*)
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has just been asked.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has just been asked.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body::<vector::Plain>($($arg),*)
        }
    };
}
pub(super) use vectorised;

/// A lane without any special instructions.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| op(self.0[i], other.0[i])))
    }
}

impl Vector for Plain {
    const LEN: usize = LANES;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller answers for.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the caller answers for.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: as the caller answers for.
        unsafe { self.store(to) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, sum: Self) -> Self {
        self.zip(by, |a, b| a * b).zip(sum, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        self.zip(by, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|value| if value < 0.0 { 0.0 } else { value }))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    macro_rules! vector {
        (
            $name:ident, $vector:ty, $splat:ident, $load:ident, $store:ident, $stream:ident, $add:ident,
            $sub:ident, $mul_add:ident, $mul:ident, $max:ident
        ) => {
            #[derive(Clone, Copy)]
            pub(in super::super) struct $name($vector);

            // SAFETY of all: as the callers answer for.
            impl Vector for $name {
                const LEN: usize = size_of::<$vector>() / size_of::<f32>();

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
                unsafe fn add(self, other: Self) -> Self {
                    Self(unsafe { $add(self.0, other.0) })
                }

                #[inline(always)]
                unsafe fn sub(self, other: Self) -> Self {
                    Self(unsafe { $sub(self.0, other.0) })
                }

                #[inline(always)]
                unsafe fn mul_add(self, by: Self, sum: Self) -> Self {
                    Self(unsafe { $mul_add(self.0, by.0, sum.0) })
                }

                #[inline(always)]
                unsafe fn mul(self, by: Self) -> Self {
                    Self(unsafe { $mul(self.0, by.0) })
                }

                #[inline(always)]
                unsafe fn relu(self) -> Self {
                    // The second of the two where there is a NaN.
                    Self(unsafe { $max($splat(0.0), self.0) })
                }
            }
        };
    }

    vector!(
        Avx512,
        __m512,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_stream_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_fmadd_ps,
        _mm512_mul_ps,
        _mm512_max_ps
    );
    vector!(
        Avx2,
        __m256,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_stream_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_fmadd_ps,
        _mm256_mul_ps,
        _mm256_max_ps
    );
}
