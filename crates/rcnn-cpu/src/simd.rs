//! Functions that are compiled once for each instruction set.

mod instruction_set;

use std::ops::{Add, Mul, Sub};

use bytemuck::Pod;
#[cfg(target_arch = "aarch64")]
use pulp::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{NullaryFnOnce, Scalar128b, Simd};

use crate::block::{BLOCK, ChannelBlock, Streaming};
#[cfg(test)]
pub(crate) use instruction_set::for_each_set;
pub use instruction_set::{
    InstructionSet, InstructionSetError, instruction_set, set_instruction_set,
};

/// An [`InstructionSet`] that the processor has been found to have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arch {
    Plain(Scalar128b),
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(V4),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Arch {
    fn from_set(set: InstructionSet) -> Option<Self> {
        match set {
            InstructionSet::Plain => Some(Self::Plain(Scalar128b)),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => V3::try_new().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => V4::try_new().map(Self::Avx512),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => Neon::try_new().map(Self::Neon),
            _ => None,
        }
    }

    /// That of [`instruction_set`].
    pub(crate) fn current() -> Self {
        Self::from_set(instruction_set()).unwrap_or(Self::Plain(Scalar128b))
    }

    pub(crate) fn set(self) -> InstructionSet {
        match self {
            Self::Plain(_) => InstructionSet::Plain,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => InstructionSet::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => InstructionSet::Avx512,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => InstructionSet::Neon,
        }
    }
}

/// The vectors of an instruction set, and what pulp's [`Simd`] has to be told about them.
///
/// [`Block`](Self::Block) has the size of a channel block, or what loads one does not compile.
pub(crate) trait Vectors: Simd {
    /// A channel block as vectors.
    type Block: Pod + AsRef<[Self::f32s]> + AsMut<[Self::f32s]>;

    /// Vectors in a channel block.
    const PARTS: usize = size_of::<Self::Block>() / size_of::<Self::f32s>();

    /// Does some work with these instructions enabled, in what of it is inlined; see [`Once`].
    fn enter<W: NullaryFnOnce>(self, work: W) -> W::Output;

    /// `a * b + c`, rounded once where the processor can.
    #[inline(always)]
    fn fused(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        self.mul_add_f32s(a, b, c)
    }

    /// Zero for negative numbers; NaN stays.
    #[inline(always)]
    fn relu(self, a: Self::f32s) -> Self::f32s {
        let zero = self.splat_f32s(0.0);
        self.select_f32s(self.less_than_f32s(a, zero), zero, a)
    }

    /// Numbers limited to 0 to `most`; NaN stays.
    #[inline(always)]
    fn clamp(self, a: Self::f32s, most: f32) -> Self::f32s {
        let (a, most) = (self.relu(a), self.splat_f32s(most));
        self.select_f32s(self.less_than_f32s(most, a), most, a)
    }

    /// `clamp(a / 6 + 0.5, 1)`, which is Hardsigmoid.
    #[inline(always)]
    fn gate(self, a: Self::f32s) -> Self::f32s {
        let (sixth, half) = (self.splat_f32s(1.0 / 6.0), self.splat_f32s(0.5));
        self.clamp(self.fused(a, sixth, half), 1.0)
    }

    #[inline(always)]
    fn load(self, from: &[f32; BLOCK]) -> Self::Block {
        pulp::cast(*from)
    }

    #[inline(always)]
    fn unload(self, block: Self::Block) -> [f32; BLOCK] {
        pulp::cast(block)
    }

    /// Writes a block past the cache.
    #[inline(always)]
    fn stream(self, streaming: &Streaming, to: &mut ChannelBlock, block: Self::Block) {
        streaming.write(to, &self.unload(block));
    }

    /// One of the vectors of a block.
    #[inline(always)]
    fn load_part(self, from: &[f32; BLOCK], part: usize) -> Self::f32s {
        Self::as_simd_f32s(from).0[part]
    }

    /// Replaces one of the vectors of a block.
    #[inline(always)]
    fn store_part(self, to: &mut [f32; BLOCK], part: usize, vector: Self::f32s) {
        Self::as_mut_simd_f32s(to).0[part] = vector;
    }
}

impl Vectors for Scalar128b {
    type Block = [Self::f32s; 4];

    #[inline(always)]
    fn enter<W: NullaryFnOnce>(self, work: W) -> W::Output {
        work.call()
    }

    /// pulp's calls a function of libm for each float.
    #[inline(always)]
    fn fused(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        self.add_f32s(self.mul_f32s(a, b), c)
    }
}

/// A vector of floats with operators.
#[derive(Clone, Copy)]
pub(crate) struct Vector<V: Vectors> {
    vectors: V,
    pub(crate) floats: V::f32s,
}

impl<V: Vectors> Vector<V> {
    #[inline(always)]
    pub(crate) fn new(vectors: V, floats: V::f32s) -> Self {
        Self { vectors, floats }
    }

    /// `self * by + sum`, rounded once where the processor can.
    #[inline(always)]
    pub(crate) fn mul_add(self, by: f32, sum: Self) -> Self {
        let by = self.vectors.splat_f32s(by);
        Self::new(
            self.vectors,
            self.vectors.fused(self.floats, by, sum.floats),
        )
    }
}

impl<V: Vectors> Add for Vector<V> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self::new(
            self.vectors,
            self.vectors.add_f32s(self.floats, other.floats),
        )
    }
}

impl<V: Vectors> Sub for Vector<V> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self::new(
            self.vectors,
            self.vectors.sub_f32s(self.floats, other.floats),
        )
    }
}

impl<V: Vectors> Mul<f32> for Vector<V> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, by: f32) -> Self {
        let by = self.vectors.splat_f32s(by);
        Self::new(self.vectors, self.vectors.mul_f32s(self.floats, by))
    }
}

#[cfg(target_arch = "x86_64")]
impl Vectors for V4 {
    type Block = [Self::f32s; 1];

    #[inline(always)]
    fn enter<W: NullaryFnOnce>(self, work: W) -> W::Output {
        // Not the trait's.
        V4::vectorize(self, work)
    }

    #[inline(always)]
    fn stream(self, _: &Streaming, to: &mut ChannelBlock, [value]: Self::Block) {
        // SAFETY: a block has the size and the alignment of the vector, and the fence follows when the
        // `Streaming` is dropped.
        unsafe {
            self.avx512f
                ._mm512_stream_ps(to.0.as_mut_ptr(), pulp::cast(value))
        };
    }
}

#[cfg(target_arch = "x86_64")]
impl Vectors for V3 {
    type Block = [Self::f32s; 2];

    #[inline(always)]
    fn enter<W: NullaryFnOnce>(self, work: W) -> W::Output {
        V3::vectorize(self, work)
    }

    #[inline(always)]
    fn stream(self, _: &Streaming, to: &mut ChannelBlock, values: Self::Block) {
        let (halves, _) = to.0.as_chunks_mut::<8>();
        for p in 0..Self::PARTS {
            // SAFETY: a half of a block has the size and the alignment of the vector, and the fence
            // follows when the `Streaming` is dropped.
            unsafe {
                self.avx
                    ._mm256_stream_ps(halves[p].as_mut_ptr(), pulp::cast(values[p]))
            };
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl Vectors for Neon {
    type Block = [Self::f32s; 4];

    #[inline(always)]
    fn enter<W: NullaryFnOnce>(self, work: W) -> W::Output {
        Neon::vectorize(self, work)
    }
}

/// A value that a closure moves, so that it can only be called once.
///
/// The others are called by way of a function that may not be inlined, and then they have been compiled
/// without the instructions that are enabled for their caller.
pub(crate) struct Once;

/// `$work` with `$vectors` being those of an [`Arch`].
macro_rules! with_vectors {
    ($arch:expr, $vectors:ident => $work:expr) => {
        match $arch {
            $crate::simd::Arch::Plain($vectors) => $work,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Arch::Avx2($vectors) => $work,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Arch::Avx512($vectors) => $work,
            #[cfg(target_arch = "aarch64")]
            $crate::simd::Arch::Neon($vectors) => $work,
        }
    };
}
pub(crate) use with_vectors;

/// Defines a function that is compiled for every instruction set and runs with the current one. Its
/// body may name the [`Vectors`] and their type.
macro_rules! vectorised {
    ($(#[$attr:meta])* $vis:vis fn $name:ident($($args:tt)*) $body:block) => {
        vectorised! { $(#[$attr])* $vis fn $name<V>(_v; $($args)*) $body }
    };
    (
        $(#[$attr:meta])*
        $vis:vis fn $name:ident<$V:ident>($v:ident; $($arg:ident: $ty:ty),* $(,)?) $body:block
    ) => {
        $(#[$attr])*
        $vis fn $name($($arg: $ty),*) {
            use $crate::simd::{Arch, Vectors};

            #[inline(always)]
            fn body<$V: Vectors>($v: $V, $($arg: $ty),*) $body

            $crate::simd::with_vectors!(Arch::current(), vectors => {
                let once = $crate::simd::Once;
                vectors.enter(#[inline(always)] move || {
                    let _once = once;
                    body(vectors, $($arg),*)
                })
            });
        }
    };
}
pub(crate) use vectorised;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relu_keeps_what_is_not_a_number() {
        for_each_set(|_| {
            let mut values = [
                -1.0,
                -0.0,
                0.0,
                2.0,
                f32::NAN,
                f32::NEG_INFINITY,
                f32::INFINITY,
                -3.0,
            ];
            relu(&mut values);
            assert!(values[4].is_nan());
            values[4] = 5.0;
            assert_eq!(values, [0.0, 0.0, 0.0, 2.0, 5.0, 0.0, f32::INFINITY, 0.0]);
        });
    }

    vectorised! {
        fn relu<V>(vectors; values: &mut [f32; 8]) {
            let mut block = [0.0; BLOCK];
            block[..8].copy_from_slice(values);
            let mut vector = vectors.load(&block);
            vector.as_mut().iter_mut().for_each(|part| *part = vectors.relu(*part));
            values.copy_from_slice(&vectors.unload(vector)[..8]);
        }
    }
}
