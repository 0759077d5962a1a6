//! Which layers of a sequential body are built, and the channels and strides that follow.

use super::{LayerSpec, SequentialArch, SequentialConfig, SequentialError};
use crate::channels::FreeLayer;
use crate::stage::{Block, BlockState, Stage};

/// A sequential body as it is built.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Network {
    /// Every layer up to the last that is built, in the places that they have in the whole `nn.Sequential`.
    pub(super) layers: Vec<NetworkLayer>,
    /// All stages, whether built or not.
    pub(super) stages: Vec<Stage>,
    /// Place of the layer whose output is the feature map of each stage.
    pub(super) maps: Vec<usize>,
}

/// A layer in its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NetworkLayer {
    pub(super) spec: LayerSpec,
    /// Channels of the input.
    pub(super) input: usize,
    /// Whether output and input have the same shape in the published network: a block then adds its input.
    pub(super) keeps_shape: bool,
    /// Whether it is built; another one is the identity.
    pub(super) is_built: bool,
}

impl<A: SequentialArch> SequentialConfig<A> {
    /// The resulting body, in which blocks that cannot be dropped are dropped too.
    pub(super) fn network(&self) -> Network {
        let last = self.returned_layers.last().copied().unwrap_or(0);
        let (mut usual, mut channels, mut stride) = (3, 3, 1);
        let mut network = Network {
            layers: Vec::new(),
            stages: Vec::new(),
            maps: Vec::new(),
        };
        for (number, spec) in self.arch.stages().into_iter().enumerate() {
            let map = match self.ends_at_map() {
                true => spec.map,
                false => spec.layers.len() - 1,
            };
            let end = if number == last {
                map + 1
            } else {
                spec.layers.len()
            };
            let is_built = number <= last && !self.dropped_stages.contains(&spec.name);
            let mut stage = Stage {
                is_built,
                modules: Vec::new(),
                ..Stage::new(spec.name, channels, stride)
            };
            let mut convolution_is_built = true;
            for (position, layer) in spec.layers.into_iter().enumerate() {
                let place = network.layers.len();
                let mut blocks = spec.blocks.iter().filter(|(block, _)| *block == position);
                let block = blocks.next().map(|(_, name)| name.clone());
                let mut is_dropped = block
                    .as_ref()
                    .is_some_and(|b| self.dropped_blocks.contains(b));
                match layer.follows_convolution() {
                    true => is_dropped = !convolution_is_built,
                    false => convolution_is_built = !is_dropped,
                }
                let keeps_shape = layer.keeps_shape(usual);
                let usual_output = layer.out(usual);
                let chosen = |name: &str, usual| self.channels.get(&path(place, name), usual);
                let layer = NetworkLayer {
                    spec: layer.with_channels(channels, keeps_shape, &chosen),
                    input: channels,
                    keeps_shape,
                    is_built: is_built && position < end && !is_dropped,
                };
                if layer.is_built {
                    usual = usual_output;
                    channels = layer.spec.out(channels);
                    stride *= layer.spec.stride();
                }
                if position == map {
                    (stage.channels, stage.stride) = (channels, stride);
                    network.maps.push(place);
                }
                if layer.spec.follows_convolution()
                    && let Some(convolution) = stage.blocks.last_mut()
                {
                    convolution.modules.push(place.to_string());
                }
                stage.modules.push(place.to_string());
                stage.blocks.extend(block.map(|name| Block {
                    name,
                    modules: vec![place.to_string()],
                    state: layer.state(),
                }));
                network.layers.push(layer);
            }
            network.stages.push(stage);
        }
        if let Some(map) = network.maps.get(last) {
            network.layers.truncate(map + 1);
        }
        network
    }

    /// Layers whose output channels are free, by their paths in the body.
    pub(super) fn free_layers(&self) -> Vec<FreeLayer> {
        let layers = self
            .arch
            .stages()
            .into_iter()
            .flat_map(|stage| stage.layers);
        let (mut usual, mut free) = (3, Vec::new());
        for (place, layer) in layers.enumerate() {
            let layers = layer.free_layers(layer.keeps_shape(usual)).into_iter();
            free.extend(layers.map(|(name, usual)| FreeLayer::new(path(place, &name), usual)));
            usual = layer.out(usual);
        }
        free
    }

    /// Whether what is dropped can be.
    pub(super) fn validate_dropped(&self) -> Result<(), SequentialError> {
        let specs = self.arch.stages();
        let names = || specs.iter().map(|stage| stage.name.clone());
        // The first stage makes features of colours.
        let known: Vec<String> = names().skip(1).collect();
        for stage in &self.dropped_stages {
            if !known.contains(stage) {
                return Err(SequentialError::UnknownStage {
                    stage: stage.clone(),
                    known: known.join(", "),
                });
            }
        }
        for &returned in &self.returned_layers {
            if self.dropped_stages.contains(&specs[returned].name) {
                return Err(SequentialError::DroppedReturned {
                    stage: specs[returned].name.clone(),
                    before: specs[returned - 1].name.clone(),
                });
            }
        }
        let blocks = specs.iter().flat_map(|stage| &stage.blocks);
        let blocks: Vec<&str> = blocks.map(|(_, name)| name.as_str()).collect();
        let whole = Self {
            dropped_blocks: Vec::new(),
            ..self.clone()
        };
        let whole = whole.network();
        for dropped in &self.dropped_blocks {
            if !blocks.contains(&dropped.as_str()) {
                return Err(SequentialError::UnknownBlock {
                    block: dropped.clone(),
                    known: blocks.join(", "),
                });
            }
            let block = whole.block(dropped).expect("a known block");
            if block.state == BlockState::ShapeChanging {
                let place: usize = block.modules[0].parse().expect("a place");
                let layer = whole.layers[place];
                return Err(SequentialError::ShapeChangingBlock {
                    block: dropped.clone(),
                    input: layer.input,
                    output: layer.spec.out(layer.input),
                    stride: layer.spec.stride(),
                });
            }
        }
        Ok(())
    }
}

/// Path of a layer in the one at a place; of that itself, where it has no name in it.
fn path(place: usize, name: &str) -> String {
    match name {
        "" => place.to_string(),
        name => format!("{place}.{name}"),
    }
}

impl Network {
    /// The block of that name.
    pub(super) fn block(&self, name: &str) -> Option<&Block> {
        let mut blocks = self.stages.iter().flat_map(|stage| &stage.blocks);
        blocks.find(|block| block.name == name)
    }
}

impl NetworkLayer {
    fn state(&self) -> BlockState {
        let keeps_shape = self.keeps_shape && self.spec.keeps_shape(self.input);
        match (self.is_built, keeps_shape) {
            (false, _) => BlockState::Dropped,
            (true, true) => BlockState::Droppable,
            (true, false) => BlockState::ShapeChanging,
        }
    }
}
