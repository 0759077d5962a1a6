//! Output channels of layers, where they are not the architecture's.

use std::collections::BTreeMap;

use rcnn_types::validate::{InvalidField, require, require_within};
use serde::{Deserialize, Serialize};

use crate::MAX_CHANNELS;

/// Output channels of layers that have others than the published network, by the layer's path: what pruning
/// leaves.
///
/// Only layers whose channels are free are among them. Those of the others follow: a depthwise convolution has
/// the channels of its input, the last of a residual block those of its shortcut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Channels(BTreeMap<String, usize>);

/// A layer whose output channels are free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FreeLayer {
    /// Path of the layer.
    pub(crate) path: String,
    /// Output channels in the published network.
    pub(crate) usual: usize,
    /// Channels that come and go together: those of a group of the convolution.
    pub(crate) unit: usize,
}

impl FreeLayer {
    pub(crate) fn new(path: impl Into<String>, usual: usize) -> Self {
        Self {
            path: path.into(),
            usual,
            unit: 1,
        }
    }
}

impl Channels {
    /// Whether every layer has its usual channels.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Layers whose channels differ from the usual ones, by path.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, usize)> {
        let layers = self.0.iter();
        layers.map(|(path, channels)| (path.as_str(), *channels))
    }

    /// Output channels of a layer, which usually has some number of them.
    pub(crate) fn get(&self, path: &str, usual: usize) -> usize {
        self.0.get(path).copied().unwrap_or(usual)
    }

    /// Gives free layers the channels that are asked for.
    pub(crate) fn set(&mut self, free: &[FreeLayer], channels: &dyn Fn(&str) -> Option<usize>) {
        for layer in free {
            match channels(&layer.path) {
                Some(asked) if asked == layer.usual => _ = self.0.remove(&layer.path),
                Some(asked) => _ = self.0.insert(layer.path.clone(), asked),
                None => {}
            }
        }
    }

    /// Checks that the layers are free ones.
    ///
    /// # Errors
    /// Names the layer.
    pub(crate) fn validate(&self, free: &[FreeLayer]) -> Result<(), InvalidField> {
        for (path, &channels) in &self.0 {
            let field = format!("channels[\"{path}\"]");
            let known = free.iter().find(|layer| layer.path == *path);
            let Some(layer) = known else {
                let alike = |layer: &&FreeLayer| stem(&layer.path) == stem(path);
                let named: Vec<&str> = match free.iter().any(|layer| alike(&layer)) {
                    true => free.iter().filter(alike).map(|l| l.path.as_str()).collect(),
                    false => free.iter().map(|l| l.path.as_str()).collect(),
                };
                let expected = format!(
                    "no such entry: the channels of that layer follow from others', or there is none; those of \
                     {} may be given",
                    named.join(", ")
                );
                return require(false, &field, channels, expected);
            };
            require_within(&field, channels, 1..=MAX_CHANNELS)?;
            require(
                channels.is_multiple_of(layer.unit),
                &field,
                channels,
                format_args!("a multiple of {}, the size of a group", layer.unit),
            )?;
        }
        Ok(())
    }
}

/// The first part of a path.
fn stem(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}

/// Names of the layers of a module, asked for by their names in it.
pub(crate) fn within<'a>(
    module: &'a str,
    channels: &'a dyn Fn(&str) -> Option<usize>,
) -> impl Fn(&str) -> Option<usize> + 'a {
    move |layer| channels(&format!("{module}.{layer}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rcnn_ops::backend_types::Flex;
    use serde_json::json;

    use crate::{
        Architecture, BackboneConfig, MobileNetV3Arch, ResNetArch, ResNetFpnConfig,
        SequentialConfig, named_parameters,
    };

    /// Shapes of the parameters of a backbone whose layers have the channels that are asked for, opened from its JSON.
    fn shapes(mut config: BackboneConfig, asked: &[(&str, usize)]) -> BTreeMap<String, Vec<usize>> {
        let channels = |layer: &str| {
            let found = asked.iter().find(|(asked, _)| *asked == layer);
            found.map(|(_, channels)| *channels)
        };
        let network = config.architecture_mut().expect("an architecture");
        network.set_channels(&channels);
        let json = serde_json::to_value(&config).expect("plain data");
        let config: BackboneConfig = serde_json::from_value(json).expect("a configuration");
        let backbone = config.init::<Flex>(&Default::default());
        let backbone = backbone.expect("a network").expect("a module");
        let parameters = named_parameters(&backbone).into_iter();
        parameters.map(|p| (p.name, p.shape)).collect()
    }

    #[test]
    fn channels_of_a_stage_are_those_of_its_shortcut() {
        let resnet = ResNetFpnConfig {
            arch: ResNetArch::ResNet18,
            ..Default::default()
        };
        let asked = [
            ("body.conv1", 48),
            ("body.layer2.0.downsample.0", 96),
            ("body.layer2.1.conv1", 80),
            // It follows, and is not asked for.
            ("body.layer2.1.conv2", 11),
            ("fpn.inner_blocks.0.0", 64),
        ];
        let shapes = shapes(resnet.into(), &asked);
        for (name, shape) in [
            ("body.bn1.running_mean", &[48][..]),
            ("body.layer1.0.conv1.weight", &[64, 48, 3, 3]),
            ("body.layer1.1.conv2.weight", &[48, 64, 3, 3]),
            ("body.layer2.0.downsample.0.weight", &[96, 48, 1, 1]),
            ("body.layer2.0.conv2.weight", &[96, 128, 3, 3]),
            ("body.layer2.1.conv1.weight", &[80, 96, 3, 3]),
            ("body.layer2.1.conv2.weight", &[96, 80, 3, 3]),
            ("body.layer3.0.conv1.weight", &[256, 96, 3, 3]),
            ("fpn.inner_blocks.1.0.weight", &[64, 96, 1, 1]),
            ("fpn.layer_blocks.1.0.weight", &[256, 64, 3, 3]),
        ] {
            assert_eq!(shapes[name], shape, "{name}");
        }
    }

    #[test]
    fn a_shortcut_keeps_its_convolution_where_channels_become_equal() {
        let resnet = ResNetFpnConfig::default();
        let asked = [("body.layer1.0.downsample.0", 64)];
        let shapes = shapes(resnet.into(), &asked);
        let name = "body.layer1.0.downsample.0.weight";
        assert_eq!(shapes[name], [64, 64, 1, 1]);
        assert_eq!(shapes["body.layer1.2.conv3.weight"], [64, 64, 1, 1]);
    }

    #[test]
    fn grouped_convolutions_have_fewer_groups() {
        let resnext = ResNetFpnConfig {
            arch: ResNetArch::ResNeXt50_32x4d,
            ..Default::default()
        };
        let asked = [("body.layer1.0.conv2", 64)];
        let shapes = shapes(resnext.clone().into(), &asked);
        assert_eq!(shapes["body.layer1.0.conv1.weight"], [64, 64, 1, 1]);
        assert_eq!(shapes["body.layer1.0.conv2.weight"], [64, 4, 3, 3]);
        assert_eq!(shapes["body.layer1.0.conv3.weight"], [256, 64, 1, 1]);
        let error = |layer: &str, channels: usize| {
            let mut json = serde_json::to_value(&resnext).expect("plain data");
            json["channels"] = json!({ layer: channels });
            let config: ResNetFpnConfig = serde_json::from_value(json).expect("a configuration");
            config.validate().expect_err("no such channels").to_string()
        };
        for (layer, channels, says) in [
            (
                "layer1.0.conv2",
                66,
                "channels[\"layer1.0.conv2\"] = 66: expected a multiple of 4",
            ),
            ("layer1.0.conv2", 0, "expected 1 to 8192"),
            (
                "layer1.0.conv1",
                64,
                "those of layer1.0.downsample.0, layer1.0.conv2, ",
            ),
            ("conv7", 64, "those of conv1, layer1.0.downsample.0"),
        ] {
            let error = error(layer, channels);
            assert!(error.contains(says), "`{says}` is not in: {error}");
        }
    }

    #[test]
    fn depthwise_convolutions_and_gates_follow() {
        let large = SequentialConfig::with_fpn(MobileNetV3Arch::Large);
        let asked = [
            ("body.0.0", 8),
            ("body.4.block.0.0", 48),
            ("body.4.block.2.fc1", 12),
            ("body.4.block.3.0", 32),
            ("fpn.layer_blocks.0.0", 96),
        ];
        let shapes = shapes(large.into(), &asked);
        for (name, shape) in [
            ("body.1.block.0.0.weight", &[8, 1, 3, 3][..]),
            ("body.1.block.1.0.weight", &[8, 8, 1, 1]),
            ("body.4.block.1.0.weight", &[48, 1, 5, 5]),
            ("body.4.block.2.fc1.weight", &[12, 48, 1, 1]),
            ("body.4.block.2.fc2.weight", &[48, 12, 1, 1]),
            ("body.4.block.3.0.weight", &[32, 48, 1, 1]),
            ("body.5.block.3.0.weight", &[32, 120, 1, 1]),
            ("body.7.block.0.0.weight", &[240, 32, 1, 1]),
            ("fpn.layer_blocks.1.0.weight", &[96, 256, 3, 3]),
        ] {
            assert_eq!(shapes[name], shape, "{name}");
        }
    }
}
