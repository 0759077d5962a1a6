//! The module of a sequential body.

use burn::module::{
    AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay,
    ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use rcnn_ops::{Conv2d, DetectionBackend, Forward, Phase, max_pool2d};

use super::network::{Network, NetworkLayer};
use super::{InvertedResidual, LayerSpec};
use crate::conv_norm::{conv_norm_then, then_relu};
use crate::stage::BlockState;
use crate::{
    Backbone, BackboneConfig, BatchNorm2d, BatchNorm2dConfig, Body, ConvNorm, ConvNormConfig,
    FeatureMaps, LevelSpec, NormKind, Stage, conv_norm_activation,
};

/// Layers that follow one another, named by position like those of an `nn.Sequential`: `0`, `1`, …
///
/// A [`Body`] of a feature pyramid, or a [`Backbone`] by itself that returns one map, `0`.
#[derive(Debug, Clone)]
pub struct Sequential<B: Backend> {
    layers: Vec<Layer<B>>,
    network: Network,
    config: BackboneConfig,
}

/// A layer of a [`Sequential`].
#[derive(Module, Debug)]
pub enum Layer<B: Backend> {
    /// A convolution with its norm.
    ConvNorm(ConvNorm<B>),
    /// A MobileNet's block.
    InvertedResidual(InvertedResidual<B>),
    /// A convolution and its ReLU. Its norm, if any, is the next layer, and is computed with it.
    Conv(Conv2d<B>),
    /// The norm of the convolution before.
    Norm(BatchNorm2d<B>),
    /// The largest value of each window.
    MaxPool(MaxPool2d),
    /// Nothing, in the place of a dropped layer or of the ReLU of a [`Conv`](Self::Conv); the number means nothing.
    Identity(usize),
}

/// The norms of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormSettings {
    pub(super) kind: NormKind,
    pub(super) eps: f64,
    pub(super) momentum: f64,
}

impl NormSettings {
    /// Such a norm.
    fn init<B: Backend>(self, num_features: usize, device: &B::Device) -> BatchNorm2d<B> {
        let config = BatchNorm2dConfig {
            num_features,
            kind: self.kind,
            eps: self.eps,
            momentum: self.momentum,
        };
        config.init(device)
    }

    /// A convolution with such a norm.
    pub(super) fn conv(self, channels: [usize; 2], kernel: usize) -> ConvNormConfig {
        ConvNormConfig {
            norm: Some((self.kind, self.eps)),
            momentum: self.momentum,
            ..ConvNormConfig::new(channels, kernel)
        }
    }
}

impl NetworkLayer {
    fn init<B: Backend>(&self, norm: NormSettings, device: &B::Device) -> Layer<B> {
        match self.spec {
            _ if !self.is_built => Layer::Identity(0),
            LayerSpec::ConvNormActivation {
                out,
                kernel,
                stride,
                ..
            } => {
                let conv = ConvNormConfig {
                    stride,
                    ..norm.conv([self.input, out], kernel)
                };
                Layer::ConvNorm(conv.init(device))
            }
            LayerSpec::InvertedResidual(block) => {
                let has_shortcut = self.keeps_shape;
                Layer::InvertedResidual(block.init(self.input, has_shortcut, norm, device))
            }
            LayerSpec::Conv { out } => {
                let (conv, _) = ConvNormConfig::new([self.input, out], 3).init(device);
                Layer::Conv(conv)
            }
            LayerSpec::Norm => Layer::Norm(norm.init(self.input, device)),
            LayerSpec::MaxPool => {
                let pool = MaxPool2dConfig::new([2, 2]).with_strides([2, 2]);
                Layer::MaxPool(pool.init())
            }
            LayerSpec::Relu => Layer::Identity(0),
        }
    }
}

impl<B: Backend> Sequential<B> {
    pub(super) fn new(
        network: Network,
        norm: NormSettings,
        config: BackboneConfig,
        device: &B::Device,
    ) -> Self {
        let layers = network.layers.iter();
        Self {
            layers: layers.map(|layer| layer.init(norm, device)).collect(),
            network,
            config,
        }
    }

    fn map_layers<C: Backend>(
        self,
        map: impl FnOnce(Vec<Layer<B>>) -> Vec<Layer<C>>,
    ) -> Sequential<C> {
        Sequential {
            layers: map(self.layers),
            network: self.network,
            config: self.config,
        }
    }
}

impl<B: DetectionBackend> Sequential<B> {
    /// Shows each layer's output to `see`, with its place, and returns the last.
    fn run(
        &self,
        images: Tensor<B, 4>,
        cx: &mut Forward<'_, B>,
        mut see: impl FnMut(usize, &Tensor<B, 4>),
    ) -> Tensor<B, 4> {
        let mut x = images;
        for (place, layer) in self.layers.iter().enumerate() {
            x = self.layer(place, layer, x, cx.phase);
            // Others are computed with the layer before, if at all.
            if !matches!(layer, Layer::Norm(_) | Layer::Identity(_)) {
                cx.layer(place, &x);
            }
            see(place, &x);
        }
        x
    }

    fn layer(&self, place: usize, layer: &Layer<B>, x: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        match (layer, self.network.layers[place].spec) {
            (Layer::ConvNorm(layer), LayerSpec::ConvNormActivation { activation, .. }) => {
                conv_norm_activation(layer, x, activation, phase)
            }
            (Layer::InvertedResidual(block), _) => block.forward(x, phase),
            (Layer::Conv(conv), _) => {
                let norm = match self.layers.get(place + 1) {
                    Some(Layer::Norm(norm)) => Some(norm),
                    _ => None,
                };
                conv_norm_then(conv, norm, x, then_relu(None), phase)
            }
            (Layer::MaxPool(pool), _) => max_pool2d(pool, x),
            (Layer::ConvNorm(_) | Layer::Norm(_) | Layer::Identity(_), _) => x,
        }
    }
}

impl<B: DetectionBackend> Body<B> for Sequential<B> {
    fn forward(
        &self,
        images: Tensor<B, 4>,
        returned: &[usize],
        cx: &mut Forward<'_, B>,
    ) -> Vec<Tensor<B, 4>> {
        let maps: Vec<usize> = returned
            .iter()
            .map(|&stage| self.network.maps[stage])
            .collect();
        let mut outputs = Vec::new();
        self.run(images, cx, |place, x| {
            if maps.contains(&place) {
                outputs.push(x.clone());
            }
        });
        outputs
    }

    fn stages(&self) -> Vec<Stage> {
        self.network.stages.clone()
    }

    fn drop_block(&mut self, block: &str) -> bool {
        let droppable = |block: &&crate::Block| block.state == BlockState::Droppable;
        let Some(block) = self.network.block(block).filter(droppable) else {
            return false;
        };
        let places = block.modules.iter().map(|place| place.parse::<usize>());
        let places: Vec<usize> = places.collect::<Result<_, _>>().expect("places");
        let is_there = !matches!(self.layers[places[0]], Layer::Identity(_));
        for place in places {
            self.layers[place] = Layer::Identity(0);
        }
        is_there
    }
}

impl<B: DetectionBackend> Backbone<B> for Sequential<B> {
    fn forward(&self, images: Tensor<B, 4>, cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        FeatureMaps::single(self.run(images, cx, |_, _| {}))
    }

    fn levels(&self) -> Vec<LevelSpec> {
        let architecture = self.config.architecture();
        architecture
            .map(|network| network.levels())
            .unwrap_or_default()
    }

    fn stages(&self) -> Vec<Stage> {
        self.network.stages.clone()
    }

    /// Every layer takes any size.
    fn size_divisibility(&self) -> usize {
        1
    }

    fn config(&self) -> BackboneConfig {
        self.config.clone()
    }
}

/// As of the layers alone: `Vec` names them by their places, and a struct around it would add a name.
impl<B: Backend> Module<B> for Sequential<B> {
    type Record = <Vec<Layer<B>> as Module<B>>::Record;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.layers.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        self.map_layers(|layers| layers.fork(device))
    }

    fn to_device(self, device: &B::Device) -> Self {
        self.map_layers(|layers| layers.to_device(device))
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        self.layers.visit(visitor);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        self.map_layers(|layers| layers.map(mapper))
    }

    fn load_record(self, record: Self::Record) -> Self {
        self.map_layers(|layers| layers.load_record(record))
    }

    fn into_record(self) -> Self::Record {
        self.layers.into_record()
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for Sequential<B> {
    type InnerModule = Sequential<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        self.clone().map_layers(|layers| layers.valid())
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        module.map_layers(Vec::from_inner)
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for Sequential<B::InnerBackend> {
    type TrainModule = Sequential<B>;
}

impl<B: Backend> ModuleDisplayDefault for Sequential<B> {
    fn content(&self, content: Content) -> Option<Content> {
        ModuleDisplayDefault::content(&self.layers, content)
    }

    fn num_params(&self) -> usize {
        Module::num_params(&self.layers)
    }
}

impl<B: Backend> ModuleDisplay for Sequential<B> {}
