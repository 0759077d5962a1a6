//! Layers that can be left out without changing the shape of anything, and the model without them.

use rcnn_core::backbone::{Backbone, BlockState, ConvNorm};
use rcnn_core::ops::DetectionBackend;
use rcnn_core::roi::{BoxHead, BoxHeadConfig, BoxHeadLayer};
use rcnn_core::surgery::Operation;
use rcnn_core::{FasterRcnnConfig, StandardFasterRcnn};

/// A layer that can be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bypass {
    /// A block of the backbone, by its name in surgery and the path of its module.
    Block(String, String),
    /// A convolution of the first stage.
    RpnConv(usize),
    /// A layer of the box head, by position.
    BoxHead(usize),
    /// The refinement of boxes.
    BoxRegression,
}

impl Bypass {
    /// Bypasses that a model allows, in the order of the forward pass.
    pub(crate) fn all<B: DetectionBackend>(model: &StandardFasterRcnn<B>) -> Vec<Self> {
        let stages = model.backbone.stages().into_iter();
        let blocks = stages.flat_map(|stage| stage.blocks);
        let blocks = blocks.filter(|block| block.state == BlockState::Droppable);
        let mut all: Vec<Self> = blocks
            .map(|block| Self::Block(block.name, block.modules[0].clone()))
            .collect();
        let convs = model.rpn.head.conv.iter().enumerate();
        let same_shape = convs.filter(|(_, (conv, _))| {
            let [output, input, ..] = conv.weight.dims();
            input == output
        });
        all.extend(same_shape.map(|(position, _)| Self::RpnConv(position)));
        match &model.roi_heads.box_head {
            BoxHead::TwoMlp(head) => {
                let [input, output] = head.fc7.weight.dims();
                all.extend((input == output).then_some(Self::BoxHead(1)));
            }
            BoxHead::ConvFc(layers) => {
                let layers = layers.iter().enumerate();
                let same_shape = layers.filter(|(_, layer)| match layer {
                    BoxHeadLayer::Conv((conv, _)) => {
                        let [output, input, ..] = conv.weight.dims();
                        input == output
                    }
                    BoxHeadLayer::Linear(linear) => {
                        let [input, output] = linear.weight.dims();
                        input == output
                    }
                    BoxHeadLayer::Flatten(_) | BoxHeadLayer::Relu(_) => false,
                });
                all.extend(same_shape.map(|(position, _)| Self::BoxHead(position)));
            }
            BoxHead::Stage(_) => {}
        }
        if model.roi_heads.box_predictor.bbox_pred.is_some() {
            all.push(Self::BoxRegression);
        }
        all
    }

    /// torchvision's name of the layer.
    pub(crate) fn name<B: DetectionBackend>(&self, model: &StandardFasterRcnn<B>) -> String {
        match (self, &model.roi_heads.box_head) {
            (Self::Block(_, module), _) => format!("backbone.{module}"),
            (Self::RpnConv(position), _) => format!("rpn.head.conv.{position}"),
            (Self::BoxHead(_), BoxHead::TwoMlp(_)) => "roi_heads.box_head.fc7".into(),
            (Self::BoxHead(position), _) => format!("roi_heads.box_head.{position}"),
            (Self::BoxRegression, _) => "roi_heads.box_predictor.bbox_pred".into(),
        }
    }

    /// The model without the layer.
    pub(crate) fn apply<B: DetectionBackend>(
        &self,
        mut model: StandardFasterRcnn<B>,
    ) -> StandardFasterRcnn<B> {
        match self {
            Self::Block(name, _) => {
                model.backbone.drop_block(name);
            }
            Self::RpnConv(position) => {
                let _: ConvNorm<B> = model.rpn.head.conv.remove(*position);
            }
            Self::BoxHead(position) => {
                model.roi_heads.box_head = match model.roi_heads.box_head {
                    BoxHead::TwoMlp(head) => BoxHead::ConvFc(vec![
                        BoxHeadLayer::Flatten(0),
                        BoxHeadLayer::Linear(head.fc6),
                        BoxHeadLayer::Relu(0),
                    ]),
                    BoxHead::ConvFc(mut layers) => {
                        if let BoxHeadLayer::Linear(_) = layers.remove(*position) {
                            // Its ReLU goes with it.
                            layers.remove(*position);
                        }
                        BoxHead::ConvFc(layers)
                    }
                    head @ BoxHead::Stage(_) => head,
                };
            }
            Self::BoxRegression => model.roi_heads.box_predictor.bbox_pred = None,
        }
        model
    }

    /// The option of `rcnn surgery` that removes just this layer and keeps all other weights.
    pub(crate) fn option(&self, config: &FasterRcnnConfig) -> Option<String> {
        let operation = match self {
            Self::Block(name, _) => format!("drop-block {name}"),
            Self::RpnConv(position) if *position + 1 == config.rpn.conv_depth => {
                format!("rpn-convs {position}")
            }
            Self::RpnConv(_) => return None,
            Self::BoxHead(position) => {
                format!(
                    "box-head {}",
                    without_last(&config.roi_heads.box_head, *position)?
                )
            }
            Self::BoxRegression => "no-box-regression".to_string(),
        };
        let parsed: Operation = operation.parse().ok()?;
        config.with_surgery(&[parsed]).ok()?;
        Some(format!("--{operation}"))
    }
}

/// The box head without the layer at a position, if that is the last one: others would be renamed.
fn without_last(head: &BoxHeadConfig, position: usize) -> Option<BoxHeadConfig> {
    match head {
        BoxHeadConfig::TwoMlp {
            representation_size,
        } => Some(BoxHeadConfig::ConvFc {
            conv_layers: Vec::new(),
            fc_layers: vec![*representation_size],
            norm: None,
        }),
        BoxHeadConfig::Mlp { .. } => None,
        BoxHeadConfig::ConvFc {
            conv_layers,
            fc_layers,
            norm,
        } => {
            let (_, rest) = fc_layers.split_last()?;
            let last = conv_layers.len() + 1 + 2 * rest.len();
            (position == last).then(|| BoxHeadConfig::ConvFc {
                conv_layers: conv_layers.clone(),
                fc_layers: rest.to_vec(),
                norm: *norm,
            })
        }
        BoxHeadConfig::Stage(_) => None,
    }
}
