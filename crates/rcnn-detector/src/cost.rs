//! Costs of a detection, module by module: parameters, and multiply-accumulates of convolutions and matrix
//! products, as torch's `FlopCounterMode` counts them (two flops each). They are read off the recorded
//! forward pass.

use std::collections::HashSet;
use std::ops::AddAssign;

use rcnn_backbone::{Backbone, Stage};
use rcnn_ops::module_of;
use rcnn_ops::record::{Graph, Node, Recorder, Source, TensorId};
use rcnn_types::Size;

use crate::{DetectError, FasterRcnn, FasterRcnnConfig};

/// Costs of a detection on one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// Size of what the network sees: the image resized and padded.
    pub padded_size: Size,
    /// Proposals that box head and predictor are counted for: all that the first stage may keep.
    /// An image may have fewer.
    pub rois: usize,
    /// Every module that costs anything, in the order of the pass.
    pub modules: Vec<ModuleCost>,
}

/// Costs of one module, without those of modules inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleCost {
    /// Path of the module, which its parameters' names begin with.
    pub module: String,
    /// Layer that a forward hook sees the module in, such as the residual block around a convolution.
    pub layer: String,
    /// Part of the detector that the module belongs to: the name of a stage of the backbone, `fpn`,
    /// `backbone` for anything else in it, `rpn`, `box head` or `predictor`.
    pub part: String,
    /// Cost of the module.
    pub cost: Cost,
}

/// Parameters and multiply-accumulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Numbers in parameters and buffers.
    pub parameters: usize,
    /// Multiply-accumulates.
    pub macs: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.parameters += other.parameters;
        self.macs += other.macs;
    }
}

impl Costs {
    /// Sum over all modules.
    pub fn total(&self) -> Cost {
        let mut total = Cost::default();
        for module in &self.modules {
            total += module.cost;
        }
        total
    }

    /// Name and sum of each part, in the order of the pass.
    pub fn parts(&self) -> Vec<(&str, Cost)> {
        self.sums(|module| &module.part)
    }

    /// Name and sum of each layer that a forward hook sees, in the order of the pass.
    pub fn layers(&self) -> Vec<(&str, Cost)> {
        self.sums(|module| &module.layer)
    }

    /// The layer that a forward hook sees a parameter in.
    pub fn layer(&self, parameter: &str) -> Option<&str> {
        let module = module_of(parameter);
        let found = self.modules.iter().find(|cost| cost.module == module);
        found.map(|cost| cost.layer.as_str())
    }

    fn sums(&self, name: impl Fn(&ModuleCost) -> &str) -> Vec<(&str, Cost)> {
        let mut sums: Vec<(&str, Cost)> = Vec::new();
        for module in &self.modules {
            let name = name(module);
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += module.cost,
                None => sums.push((name, module.cost)),
            }
        }
        sums
    }

    /// Reads costs off a [recorded](FasterRcnn::record) detection; the stages are the backbone's.
    fn from_graph(graph: &Graph, stages: &[Stage]) -> Self {
        let shape = |input: &str| {
            let found = graph.inputs().find(|(name, _)| *name == input);
            found.map_or(&[][..], |(_, id)| &graph.tensor(id).shape)
        };
        let size = |input: &str, axis: usize| shape(input).get(axis).copied().unwrap_or(0);
        let mut costs = Self {
            padded_size: Size::new(size("images", 2), size("images", 3)),
            rois: size("pooled", 0),
            modules: Vec::new(),
        };
        let mut counted = HashSet::new();
        for node in graph.nodes() {
            let layer = node.layer.as_deref().unwrap_or("backbone");
            let macs = graph.macs(node);
            if macs > 0 {
                let module = graph.module(node).unwrap_or(layer);
                costs.module(module, layer, stages).macs += macs;
            }
            for (id, path) in parameters(graph, node) {
                if counted.insert(id) {
                    let parameters = graph.tensor(id).shape.iter().product::<usize>();
                    costs.module(module_of(path), layer, stages).parameters += parameters;
                }
            }
        }
        costs
    }

    fn module(&mut self, module: &str, layer: &str, stages: &[Stage]) -> &mut Cost {
        let known = self.modules.iter().position(|known| known.module == module);
        let place = known.unwrap_or_else(|| {
            self.modules.push(ModuleCost {
                module: module.to_string(),
                layer: layer.to_string(),
                part: part(module, stages),
                cost: Cost::default(),
            });
            self.modules.len() - 1
        });
        &mut self.modules[place].cost
    }
}

/// Operands of a node that are parameters, with their paths.
fn parameters<'a>(graph: &'a Graph, node: &'a Node) -> impl Iterator<Item = (TensorId, &'a str)> {
    let inputs = node.inputs.iter();
    inputs.filter_map(|&id| match &graph.tensor(id).source {
        Source::Parameter(path) => Some((id, path.as_str())),
        _ => None,
    })
}

fn part(module: &str, stages: &[Stage]) -> String {
    let (root, inner) = module.split_once('.').unwrap_or((module, ""));
    let inner = &format!("{inner}.");
    match root {
        "backbone" => match stages.iter().find(|stage| stage.owns(inner)) {
            Some(stage) => stage.name.clone(),
            None if inner.starts_with("fpn.") => "fpn".to_string(),
            None => root.to_string(),
        },
        "roi_heads" => match inner.split('.').next() {
            Some("box_predictor") => "predictor".to_string(),
            branch => branch.unwrap_or(root).replace('_', " "),
        },
        _ => root.to_string(),
    }
}

impl FasterRcnnConfig {
    /// Costs of a detection on an image of this size, which the transform resizes first. For a custom
    /// backbone, see [`FasterRcnn::costs`].
    ///
    /// ```
    /// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_types::Size; }
    /// use rcnn_burn::{FasterRcnnConfig, Size};
    ///
    /// let costs = FasterRcnnConfig::named("resnet50_fpn", 91)?.costs(Size::new(480, 640))?;
    /// for (part, cost) in costs.parts() {
    ///     println!("{part}: {} parameters, {} million MACs", cost.parameters, cost.macs / 1_000_000);
    /// }
    /// assert_eq!(costs.padded_size, Size::new(800, 1088));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Where [`init`](Self::init) fails, or the image would be resized to more than
    /// [`MAX_BATCH_PIXELS`](crate::MAX_BATCH_PIXELS).
    pub fn costs(&self, image_size: Size) -> Result<Costs, DetectError> {
        self.init::<Recorder>(&Default::default())?
            .costs(image_size)
    }
}

impl<N: Backbone<Recorder>> FasterRcnn<Recorder, N> {
    /// Costs of a detection on an image of this size, whatever the backbone.
    ///
    /// ```
    /// # mod rcnn_burn { pub use burn; pub use burn::tensor::{Tensor, backend::Backend}; pub use rcnn_backbone as backbone; pub use rcnn_detector::*; pub use rcnn_ops as ops; }
    /// use rcnn_burn::backbone::{Backbone, FeatureMaps, Forward, LevelSpec};
    /// use rcnn_burn::burn::{self, module::Module, nn::conv::{Conv2d, Conv2dConfig}};
    /// use rcnn_burn::ops::record::Recorder;
    /// use rcnn_burn::{Backend, FasterRcnnConfig, Tensor};
    ///
    /// #[derive(Module, Debug)]
    /// struct Patches<B: Backend> {
    ///     conv: Conv2d<B>,
    /// }
    ///
    /// impl<B: Backend> Backbone<B> for Patches<B> {
    ///     fn forward(&self, images: Tensor<B, 4>, _cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
    ///         FeatureMaps::single(self.conv.forward(images))
    ///     }
    ///
    ///     fn levels(&self) -> Vec<LevelSpec> {
    ///         vec![LevelSpec::new("0", 64, 16)]
    ///     }
    /// }
    ///
    /// let device = Default::default();
    /// let conv = Conv2dConfig::new([3, 64], [16, 16]).with_stride([16, 16]);
    /// let backbone = Patches::<Recorder> { conv: conv.init(&device) };
    /// let mut config = FasterRcnnConfig::custom(2);
    /// config.rpn.anchor_generator.sizes.truncate(1);
    /// config.rpn.anchor_generator.aspect_ratios.truncate(1);
    /// let model = config.init_with_backbone(backbone, &device)?;
    /// let costs = model.costs((800, 800).into())?;
    /// let conv = &costs.modules[0];
    /// assert_eq!((&conv.module[..], &conv.part[..]), ("backbone.conv", "backbone"));
    /// assert_eq!(conv.cost.macs, 50 * 50 * 64 * 3 * 16 * 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn costs(&self, image_size: Size) -> Result<Costs, DetectError> {
        let graph = self.record(image_size)?;
        Ok(Costs::from_graph(&graph, &self.backbone.stages()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_belong_to_layers_and_parts() {
        let config = FasterRcnnConfig::fasterrcnn_resnet50_fpn_v2(3);
        let costs = config.costs(Size::new(320, 320)).expect("costs");
        let find = |module: &str| {
            let found = costs.modules.iter().find(|cost| cost.module == module);
            let found = found.unwrap_or_else(|| panic!("{module} costs nothing"));
            (&found.layer[..], &found.part[..], found.cost.parameters)
        };
        for (module, layer, part, parameters) in [
            (
                "backbone.body.conv1",
                "backbone.body.conv1",
                "stem",
                64 * 3 * 49,
            ),
            ("backbone.body.bn1", "backbone.body.conv1", "stem", 4 * 64),
            (
                "backbone.body.layer3.1.conv2",
                "backbone.body.layer3.1",
                "layer3",
                256 * 256 * 9,
            ),
            (
                "backbone.fpn.inner_blocks.0.0",
                "backbone.fpn.inner_blocks.0",
                "fpn",
                256 * 256,
            ),
            (
                "rpn.head.conv.1.0",
                "rpn.head.conv.1",
                "rpn",
                256 * (256 * 9 + 1),
            ),
            (
                "roi_heads.box_head.0.1",
                "roi_heads.box_head.0",
                "box head",
                4 * 256,
            ),
            (
                "roi_heads.box_predictor.cls_score",
                "roi_heads.box_predictor.cls_score",
                "predictor",
                3 * 1025,
            ),
        ] {
            assert_eq!(find(module), (layer, part, parameters), "{module}");
        }
        let sum = |sums: Vec<(&str, Cost)>| sums.iter().map(|(_, cost)| cost.macs).sum::<u64>();
        assert_eq!(sum(costs.parts()), costs.total().macs);
        assert_eq!(sum(costs.layers()), costs.total().macs);
    }

    #[test]
    fn what_is_removed_costs_nothing() {
        fn part(costs: &Costs, name: &str) -> Option<u64> {
            let parts = costs.parts();
            let found = parts.iter().find(|(part, _)| *part == name);
            found.map(|(_, cost)| cost.macs)
        }
        let mut config = FasterRcnnConfig::default();
        let whole = config.costs(Size::new(800, 1088)).expect("costs");
        assert_eq!(
            (whole.padded_size, whole.rois),
            (Size::new(800, 1088), 1000)
        );
        let texts = [
            "drop-stage layer4",
            "rpn-convs 0",
            "box-head none",
            "no-box-regression",
        ];
        let operations = texts.map(|text| text.parse().expect("an operation"));
        config = config.with_surgery(&operations).expect("a configuration");
        let cut = config.costs(Size::new(800, 1088)).expect("costs");
        assert_eq!(part(&cut, "layer3"), part(&whole, "layer3"));
        assert_eq!(part(&cut, "layer4"), None);
        assert_eq!(part(&cut, "box head"), None);
        assert_eq!(part(&cut, "predictor"), Some(1000 * 91 * 256 * 49));
        // A tiny image has fewer proposals than are asked for, and is padded.
        config.transform.min_size = vec![16];
        let tiny = config.costs(Size::new(16, 20)).expect("costs");
        assert_eq!(tiny.padded_size, Size::new(32, 32));
        assert_eq!(tiny.rois, (64 + 16 + 4 + 1) * 3);
        assert!(FasterRcnnConfig::custom(2).costs(Size::new(8, 8)).is_err());
        config.transform.min_size = vec![1 << 24];
        config.transform.max_size = 1 << 24;
        let huge = config.costs(Size::new(16, 20)).unwrap_err().to_string();
        assert!(
            huge.contains("image_size = Size { height: 16, width: 20 }"),
            "{huge}"
        );
    }
}
