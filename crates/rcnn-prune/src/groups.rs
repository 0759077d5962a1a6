//! Groups of channels that can be removed, and what the network costs without some of them.

use std::collections::HashMap;

use rcnn_core::cost::Cost;
use rcnn_core::freeze::FreezeState;
use rcnn_core::ops::module_of;
use rcnn_core::ops::record::{Graph, Operation, Recorder, Source, TensorId};
use rcnn_core::{FasterRcnnConfig, Size};

use crate::PruneError;
use crate::coupling::Coupling;

/// The channels of a detector in groups: those of a group go through the same layers, and any of them can be
/// removed from all of these at once.
#[derive(Debug, Clone)]
pub struct ChannelGroups {
    groups: Vec<Group>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) layers: Vec<Layer>,
    products: Vec<Product>,
    /// Names of parameters, for patterns.
    pub(crate) names: FreezeState,
    /// Channels of each group that limits are shares of.
    pub(crate) original: Vec<usize>,
}

/// Channels that can only be removed together, because they pass through the same layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Paths of the layers that put out the channels, in the order of the pass: those whose outputs are added up,
    /// or one. The first names the group.
    pub layers: Vec<String>,
    /// Units that can be removed: channels or, where a convolution has groups of several channels, these.
    pub units: usize,
    /// Output channels of the first layer that a unit has.
    pub channels_per_unit: usize,
}

/// A parameter or buffer, in the layout of the recording.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// Whether torch has the two axes the other way round.
    pub(crate) is_transposed: bool,
    /// Axes with channels that can be removed.
    pub(crate) axes: Vec<Axis>,
}

/// An axis of a parameter.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub(crate) axis: usize,
    /// Group and unit of the channel at each position; `None` for one that stays.
    pub(crate) positions: Vec<Option<(usize, usize)>>,
    /// Groups along the axis, and how many positions a unit of each takes.
    pub(crate) groups: Vec<(usize, usize)>,
    /// Positions that belong to no group.
    stay: usize,
}

/// A layer with a weight.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Its path.
    pub(crate) path: String,
    /// Its weight.
    pub(crate) parameter: usize,
    /// Axis of its outputs in the weight.
    pub(crate) output: usize,
}

/// An operation that multiplies with a weight.
#[derive(Debug, Clone)]
struct Product {
    layer: usize,
    macs: u64,
}

impl Group {
    /// Output channels of the first layer.
    pub fn channels(&self) -> usize {
        self.units * self.channels_per_unit
    }
}

impl Axis {
    /// Size with that many units of each group kept.
    fn size(&self, kept: &[usize]) -> usize {
        let sizes = self.groups.iter();
        sizes.fold(self.stay, |sum, &(group, count)| sum + count * kept[group])
    }
}

impl Parameter {
    /// The axis in torch's layout.
    pub(crate) fn torch_axis(&self, axis: usize) -> usize {
        match self.is_transposed {
            true => 1 - axis,
            false => axis,
        }
    }

    /// Elements, or multiply-accumulates, for some number `whole` of them in the whole network.
    fn share(&self, whole: u64, kept: &[usize]) -> u64 {
        let axes = self.axes.iter();
        axes.fold(whole, |left, axis| {
            left / self.shape[axis.axis] as u64 * axis.size(kept) as u64
        })
    }

    fn num_elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

impl ChannelGroups {
    /// Finds the groups of a detector. Its cost is counted for an image of this size, which the transform resizes
    /// first.
    ///
    /// # Errors
    /// Where the configuration describes no detector, its backbone is a custom one, or the image would be too
    /// large.
    pub fn new(config: &FasterRcnnConfig, image_size: Size) -> Result<Self, PruneError> {
        let model = config.init::<Recorder>(&Default::default())?;
        let graph = model.record(image_size)?;
        let names = FreezeState::from_model(&model);
        Ok(Self::from_graph(&graph, names))
    }

    fn from_graph(graph: &Graph, names: FreezeState) -> Self {
        let Coupling {
            mut channels,
            parameters: axes,
            weights,
            ..
        } = Coupling::new(graph);
        // The unit of each set of channels, with the number of positions that it has on each axis.
        let mut units: HashMap<usize, usize> = HashMap::new();
        let mut members: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut unit_of = |channel: usize, axis: usize| {
            let root = channels.removable(channel)?;
            let unit = *units.entry(root).or_insert_with(|| {
                members.push(Vec::new());
                members.len() - 1
            });
            match members[unit].last_mut() {
                Some((last, count)) if *last == axis => *count += 1,
                _ => members[unit].push((axis, 1)),
            }
            Some(unit)
        };
        let positions: Vec<Vec<Option<usize>>> = axes
            .values()
            .enumerate()
            .map(|(axis, channels)| channels.iter().map(|&c| unit_of(c, axis)).collect())
            .collect();
        // Units with the same members are a group.
        let mut known: HashMap<&[(usize, usize)], usize> = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut places = Vec::new();
        for members in &members {
            let group = *known.entry(members.as_slice()).or_insert_with(|| {
                groups.push(Group {
                    layers: Vec::new(),
                    units: 0,
                    channels_per_unit: 0,
                });
                groups.len() - 1
            });
            places.push((group, groups[group].units));
            groups[group].units += 1;
        }

        let mut this = Self {
            groups,
            parameters: Vec::new(),
            layers: Vec::new(),
            products: Vec::new(),
            names,
            original: Vec::new(),
        };
        let mut known = HashMap::new();
        for node in graph.nodes() {
            for id in &node.inputs {
                this.add_parameter(graph, *id, &mut known);
            }
            if let Operation::Linear { .. } | Operation::MatMul = node.operation
                && let Some(&parameter) = node.inputs.get(1).and_then(|id| known.get(id))
            {
                this.parameters[parameter].is_transposed = true;
            }
        }
        for (((id, axis), _), positions) in axes.iter().zip(positions) {
            let positions: Vec<_> = positions
                .iter()
                .map(|unit| Some(places[(*unit)?]))
                .collect();
            let mut groups: Vec<(usize, usize)> = Vec::new();
            // A unit stands for all of its group.
            for &(group, _) in positions.iter().flatten().filter(|(_, unit)| *unit == 0) {
                match groups.iter_mut().find(|(known, _)| *known == group) {
                    Some((_, count)) => *count += 1,
                    None => groups.push((group, 1)),
                }
            }
            this.parameters[known[id]].axes.push(Axis {
                axis: *axis,
                stay: positions.iter().filter(|p| p.is_none()).count(),
                positions,
                groups,
            });
        }
        this.add_layers(graph, &weights, &known);
        this.original = this.groups.iter().map(Group::channels).collect();
        this
    }

    fn add_parameter(&mut self, graph: &Graph, id: TensorId, known: &mut HashMap<TensorId, usize>) {
        let tensor = graph.tensor(id);
        if let Source::Parameter(name) = &tensor.source
            && !known.contains_key(&id)
        {
            known.insert(id, self.parameters.len());
            self.parameters.push(Parameter {
                name: name.clone(),
                shape: tensor.shape.clone(),
                is_transposed: false,
                axes: Vec::new(),
            });
        }
    }

    fn add_layers(
        &mut self,
        graph: &Graph,
        weights: &indexmap::IndexMap<TensorId, usize>,
        known: &HashMap<TensorId, usize>,
    ) {
        for (id, &output) in weights {
            let parameter = known[id];
            let path = module_of(&self.parameters[parameter].name);
            self.layers.push(Layer {
                path: path.to_string(),
                parameter,
                output,
            });
            let axes = self.parameters[parameter].axes.iter();
            let outputs = axes.filter(|axis| axis.axis == output);
            for &(group, count) in outputs.flat_map(|axis| &axis.groups) {
                let group = &mut self.groups[group];
                if group.layers.is_empty() {
                    group.channels_per_unit = count;
                }
                group.layers.push(path.to_string());
            }
        }
        for node in graph.nodes() {
            let macs = graph.macs(node);
            let weight = node.inputs.get(1).and_then(|id| weights.get_index_of(id));
            if let (Some(layer), 1..) = (weight, macs) {
                self.products.push(Product { layer, macs });
            }
        }
    }

    /// The same groups, with limits that count shares of the channels of `original`, the network that was
    /// pruned to this one.
    pub fn pruned_from(mut self, original: &Self) -> Self {
        let before = original.groups.iter().zip(&original.original);
        let before: HashMap<&Vec<String>, usize> = before
            .map(|(group, channels)| (&group.layers, *channels))
            .collect();
        for (group, channels) in self.groups.iter().zip(&mut self.original) {
            *channels = before.get(&group.layers).copied().unwrap_or(*channels);
        }
        self
    }

    /// Cost of the whole network.
    pub fn total(&self) -> Cost {
        self.cost(&self.whole())
    }

    /// The groups, in the order of the pass.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Units of each group.
    pub(crate) fn whole(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.units).collect()
    }

    /// Cost with that many units of each group kept.
    pub(crate) fn cost(&self, kept: &[usize]) -> Cost {
        let parameters = self.parameters.iter();
        let parameters = parameters.map(|p| p.share(p.num_elements(), kept));
        let macs = self.products.iter();
        let macs = macs.map(|product| self.macs(product, kept));
        Cost {
            parameters: parameters.sum::<u64>() as usize,
            macs: macs.sum(),
        }
    }

    /// Cost that a change of one group saves.
    pub(crate) fn saved(&self, group: usize, kept: &mut [usize], after: usize) -> Cost {
        let touched = |parameter: &Parameter| {
            let mut axes = parameter.axes.iter();
            axes.any(|axis| axis.groups.iter().any(|(known, _)| *known == group))
        };
        let parameters = self.parameters.iter().filter(|p| touched(p));
        let products = self.products.iter();
        let products =
            products.filter(|p| touched(&self.parameters[self.layers[p.layer].parameter]));
        let sums = |kept: &[usize]| {
            let parameters = parameters.clone().map(|p| p.share(p.num_elements(), kept));
            let macs = products.clone().map(|product| self.macs(product, kept));
            (parameters.sum::<u64>(), macs.sum::<u64>())
        };
        let before = sums(kept);
        let units = std::mem::replace(&mut kept[group], after);
        let now = sums(kept);
        kept[group] = units;
        Cost {
            parameters: (before.0 - now.0) as usize,
            macs: before.1 - now.1,
        }
    }

    fn macs(&self, product: &Product, kept: &[usize]) -> u64 {
        let weight = &self.parameters[self.layers[product.layer].parameter];
        weight.share(product.macs, kept)
    }

    /// Multiply-accumulates of each layer.
    pub(crate) fn layer_macs(&self, kept: &[usize]) -> Vec<u64> {
        let mut sums = vec![0; self.layers.len()];
        for product in &self.products {
            sums[product.layer] += self.macs(product, kept);
        }
        sums
    }

    /// Output channels of a layer.
    pub(crate) fn outputs(&self, layer: &Layer, kept: &[usize]) -> usize {
        let weight = &self.parameters[layer.parameter];
        let mut axes = weight.axes.iter();
        let axis = axes.find(|axis| axis.axis == layer.output);
        axis.map_or(weight.shape[layer.output], |axis| axis.size(kept))
    }
}
