//! The layers of Inception v2 as data (`inception_v2_base` of TensorFlow's slim).

use super::Pool;

/// A block: in each branch a pooling, then convolutions one after another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BlockSpec {
    /// Name of the module.
    pub(super) name: &'static str,
    /// Whether the last convolutions and the pooling have a stride of 2.
    pub(super) halves: bool,
    /// Channels of the convolutions of the branches without pooling: 1x1, then 3x3.
    convs: &'static [&'static [usize]],
    /// Pooling of the last branch, and the channels of the 1x1 convolution after it, if there is one.
    pool: (Pool, Option<usize>),
}

/// The channels of a branch's convolutions, by their fields, before they are multiplied.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct BranchSpec {
    pub(super) pool: Option<Pool>,
    pub(super) conv2d_0a_1x1: Option<usize>,
    pub(super) conv2d_0b_1x1: Option<usize>,
    pub(super) conv2d_0b_3x3: Option<usize>,
    pub(super) conv2d_0c_3x3: Option<usize>,
    pub(super) conv2d_1a_3x3: Option<usize>,
}

impl BlockSpec {
    /// The branches in their order.
    pub(super) fn branches(&self) -> Vec<BranchSpec> {
        let convs = self.convs.iter().map(|channels| {
            let [first, rest @ ..] = channels else {
                unreachable!("a branch begins with a 1x1 convolution");
            };
            let (inner, last) = match rest {
                [inner @ .., last] if self.halves => (inner, Some(*last)),
                _ => (rest, None),
            };
            BranchSpec {
                conv2d_0a_1x1: Some(*first),
                conv2d_0b_3x3: inner.first().copied(),
                conv2d_0c_3x3: inner.get(1).copied(),
                conv2d_1a_3x3: last,
                ..BranchSpec::default()
            }
        });
        let (pool, channels) = self.pool;
        let pooled = BranchSpec {
            pool: Some(pool),
            conv2d_0b_1x1: channels,
            ..BranchSpec::default()
        };
        convs.chain([pooled]).collect()
    }
}

impl BranchSpec {
    /// Channels that the last convolution puts out; none where there is no convolution.
    pub(super) fn channels(&self) -> Option<usize> {
        self.convs().last().map(|(_, channels, ..)| channels)
    }
}

/// Channels of the layers before the blocks: `Conv2d_1a_7x7`, `Conv2d_2b_1x1`, `Conv2d_2c_3x3`.
pub(super) const STEM: [usize; 3] = [64, 64, 192];

/// A block that keeps the resolution: three branches, then a pooling with a 1x1 convolution.
const fn block(
    name: &'static str,
    convs: &'static [&'static [usize]],
    pool: Pool,
    channels: usize,
) -> BlockSpec {
    BlockSpec {
        name,
        halves: false,
        convs,
        pool: (pool, Some(channels)),
    }
}

/// A block that halves the resolution.
const fn halving(name: &'static str, convs: &'static [&'static [usize]]) -> BlockSpec {
    BlockSpec {
        name,
        halves: true,
        convs,
        pool: (Pool::MaxHalf, None),
    }
}

/// The blocks of the backbone: of `mixed_3`, then of `mixed_4`.
pub(super) const MIXED_3: [BlockSpec; 2] = [
    block(
        "mixed_3b",
        &[&[64], &[64, 64], &[64, 96, 96]],
        Pool::Average,
        32,
    ),
    block(
        "mixed_3c",
        &[&[64], &[64, 96], &[64, 96, 96]],
        Pool::Average,
        64,
    ),
];
pub(super) const MIXED_4: [BlockSpec; 5] = [
    halving("mixed_4a", &[&[128, 160], &[64, 96, 96]]),
    block(
        "mixed_4b",
        &[&[224], &[64, 96], &[96, 128, 128]],
        Pool::Average,
        128,
    ),
    block(
        "mixed_4c",
        &[&[192], &[96, 128], &[96, 128, 128]],
        Pool::Average,
        128,
    ),
    block(
        "mixed_4d",
        &[&[160], &[128, 160], &[128, 160, 160]],
        Pool::Average,
        96,
    ),
    block(
        "mixed_4e",
        &[&[96], &[128, 192], &[160, 192, 192]],
        Pool::Average,
        96,
    ),
];

/// The blocks of the box head.
pub(super) const MIXED_5: [BlockSpec; 3] = [
    halving("mixed_5a", &[&[128, 192], &[192, 256, 256]]),
    block(
        "mixed_5b",
        &[&[352], &[192, 320], &[160, 224, 224]],
        Pool::Average,
        128,
    ),
    block(
        "mixed_5c",
        &[&[352], &[192, 320], &[192, 224, 224]],
        Pool::Max,
        128,
    ),
];
