//! The CPU engine of rcnn-burn: slices and shapes in, slices out, and no tensor library.
//!
//! Convolution by several methods with what follows it ([`conv2d`]), transposed convolution, linear layers, pooling, RoIAlign
//! and RoIPool, the sums that batch norms need, and the resizing of images. `rcnn-ops` puts them behind
//! Burn's Flex backend.
//!
//! Images are `f32`, and of one of two layouts: planes (NCHW) where gradients are wanted, and
//! [`channels_last`] in inference, where everything is computed in [`ChannelBlock`]s of sixteen
//! channels. Every kernel gives the same bits at each run, however many threads there are: no two
//! threads add to the same element, and no sum depends on how the work is shared.
//!
//! Kernels are compiled for several instruction sets, of which the processor's widest is used, or the one
//! that `RCNN_SIMD` or [`set_instruction_set`] names. Only the matrix products of the `gemm` crate, which
//! training and grouped convolutions use, are of its own choice.

mod arena;
mod block;
pub mod channels;
pub mod channels_last;
pub mod conv2d;
pub mod conv_transpose2d;
pub mod crop;
mod epilogue;
pub mod fit_image;
pub mod gate;
mod gemm;
pub mod linear;
pub mod pad;
pub mod pool;
mod product;
mod region;
pub mod roi_align;
pub mod roi_pool;
mod simd;
#[cfg(test)]
mod testing;
mod transpose;

pub use arena::Floats;
pub use block::{BLOCK, ChannelBlock};
pub use epilogue::{Activation, Epilogue};
pub use simd::{InstructionSet, InstructionSetError, instruction_set, set_instruction_set};

/// Memory that operations leave to each other.
pub mod memory {
    pub use crate::arena::{DEFAULT_LIMIT, clear, idle_bytes, set_limit};
}

/// Tasks to share between threads, at least, where there is work for them.
const TASKS: usize = 16;
