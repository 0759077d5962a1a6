//! The members of the family: depth, width and groups.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A member of the family, under torchvision's builder name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "torchvision's names")]
pub enum ResNetArch {
    #[serde(rename = "resnet18")]
    ResNet18,
    #[serde(rename = "resnet34")]
    ResNet34,
    #[serde(rename = "resnet50")]
    ResNet50,
    #[serde(rename = "resnet101")]
    ResNet101,
    #[serde(rename = "resnet152")]
    ResNet152,
    #[serde(rename = "resnext50_32x4d")]
    ResNeXt50_32x4d,
    #[serde(rename = "resnext101_32x8d")]
    ResNeXt101_32x8d,
    #[serde(rename = "resnext101_64x4d")]
    ResNeXt101_64x4d,
    #[serde(rename = "wide_resnet50_2")]
    WideResNet50_2,
    #[serde(rename = "wide_resnet101_2")]
    WideResNet101_2,
}

impl ResNetArch {
    /// Every member.
    pub const ALL: [Self; 10] = [
        Self::ResNet18,
        Self::ResNet34,
        Self::ResNet50,
        Self::ResNet101,
        Self::ResNet152,
        Self::ResNeXt50_32x4d,
        Self::ResNeXt101_32x8d,
        Self::ResNeXt101_64x4d,
        Self::WideResNet50_2,
        Self::WideResNet101_2,
    ];

    /// torchvision's builder name, `resnet50` for one.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
            Self::ResNet101 => "resnet101",
            Self::ResNet152 => "resnet152",
            Self::ResNeXt50_32x4d => "resnext50_32x4d",
            Self::ResNeXt101_32x8d => "resnext101_32x8d",
            Self::ResNeXt101_64x4d => "resnext101_64x4d",
            Self::WideResNet50_2 => "wide_resnet50_2",
            Self::WideResNet101_2 => "wide_resnet101_2",
        }
    }

    /// Residual blocks of each of the four stages.
    pub fn blocks(self) -> [usize; 4] {
        match self {
            Self::ResNet18 => [2, 2, 2, 2],
            Self::ResNet34 | Self::ResNet50 | Self::ResNeXt50_32x4d | Self::WideResNet50_2 => {
                [3, 4, 6, 3]
            }
            Self::ResNet101
            | Self::ResNeXt101_32x8d
            | Self::ResNeXt101_64x4d
            | Self::WideResNet101_2 => [3, 4, 23, 3],
            Self::ResNet152 => [3, 8, 36, 3],
        }
    }

    /// Whether blocks are bottlenecks (1x1, 3x3, 1x1) and not two 3x3 convolutions.
    pub(super) fn bottleneck(self) -> bool {
        !matches!(self, Self::ResNet18 | Self::ResNet34)
    }

    /// Groups of the 3x3 convolution of a bottleneck.
    pub fn groups(self) -> usize {
        match self {
            Self::ResNeXt50_32x4d | Self::ResNeXt101_32x8d => 32,
            Self::ResNeXt101_64x4d => 64,
            _ => 1,
        }
    }

    /// Channels of each group in the first stage.
    pub(super) fn width_per_group(self) -> usize {
        match self {
            Self::ResNeXt50_32x4d | Self::ResNeXt101_64x4d => 4,
            Self::ResNeXt101_32x8d => 8,
            Self::WideResNet50_2 | Self::WideResNet101_2 => 128,
            _ => 64,
        }
    }

    /// Channels of the output of stage 1 to 4.
    pub(super) fn stage_channels(self, stage: usize) -> usize {
        let expansion = if self.bottleneck() { 4 } else { 1 };
        (64 << (stage - 1)) * expansion
    }

    /// Channels of the 3x3 convolution in stage 1 to 4.
    pub(super) fn stage_width(self, stage: usize) -> usize {
        (64 << (stage - 1)) * self.width_per_group() / 64 * self.groups()
    }
}

impl fmt::Display for ResNetArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Error for a name that is not a ResNet's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown ResNet '{name}'; known are {}", ResNetArch::ALL.map(ResNetArch::name).join(", "))]
pub struct UnknownArch {
    /// The name that was given.
    pub name: String,
}

impl FromStr for ResNetArch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|arch| arch.name() == name);
        found.ok_or_else(|| UnknownArch { name: name.into() })
    }
}
