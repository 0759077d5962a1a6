//! Channels that come and go together, found by walking through a recorded forward pass.
//!
//! Every axis of a tensor that is one of channels has a number for each of them. What an operation does to its
//! operands says which numbers mean the same channel: a sum adds channel to channel, a norm has one scale for
//! each, a depthwise convolution takes each to itself, a flattened map has several elements of each. What is not
//! understood makes its channels stay.

use std::collections::HashMap;
use std::rc::Rc;

use burn::tensor::Slice;
use indexmap::IndexMap;
use rcnn_core::ops::record::{Graph, Node, Operation, Source, TensorId};

use crate::unify::{Channel, Channels};

/// The channel at each position of an axis; `None` for an axis that has none, such as one of space.
type Axis = Option<Rc<[Channel]>>;

/// The coupling of all channels of a graph.
pub(crate) struct Coupling<'a> {
    graph: &'a Graph,
    pub(crate) channels: Channels,
    tensors: HashMap<TensorId, Vec<Axis>>,
    /// Axes of parameters, in the order of the pass.
    pub(crate) parameters: IndexMap<(TensorId, usize), Rc<[Channel]>>,
    /// Weights of convolutions and matrix products, and the axis of their outputs.
    pub(crate) weights: IndexMap<TensorId, usize>,
}

/// Outputs of a recorded detection that are feature maps, and inputs that are cut out of them.
const MAPS: &str = "backbone.";
const POOLED: &str = "pooled";

impl<'a> Coupling<'a> {
    /// Couples the channels of a [recorded](rcnn_core::FasterRcnn::record) detection.
    pub(crate) fn new(graph: &'a Graph) -> Self {
        let mut coupling = Self {
            graph,
            channels: Channels::default(),
            tensors: HashMap::new(),
            parameters: IndexMap::new(),
            weights: IndexMap::new(),
        };
        for node in graph.nodes() {
            coupling.couple(node);
        }
        for (name, id) in graph.outputs() {
            if !name.starts_with(MAPS) {
                coupling.fix_all(&coupling.axes(id));
            }
        }
        coupling
    }

    fn shape(&self, id: TensorId) -> &'a [usize] {
        let graph = self.graph;
        &graph.tensor(id).shape
    }

    /// Axes of a tensor that is there.
    fn axes(&self, id: TensorId) -> Vec<Axis> {
        let known = self.tensors.get(&id).cloned();
        known.unwrap_or_else(|| vec![None; self.shape(id).len()])
    }

    /// Axes of an operand.
    fn operand(&mut self, id: TensorId) -> Vec<Axis> {
        if let Some(known) = self.tensors.get(&id) {
            return known.clone();
        }
        let mut axes = vec![None; self.shape(id).len()];
        match &self.graph.tensor(id).source {
            Source::Parameter(_) if axes.len() == 1 => axes[0] = self.parameter(id, 0),
            Source::Input(name) if name.ends_with(POOLED) => axes[1] = self.maps(),
            _ => {}
        }
        self.tensors.insert(id, axes.clone());
        axes
    }

    /// Channels along an axis of a parameter.
    fn parameter(&mut self, id: TensorId, axis: usize) -> Axis {
        if let Some(known) = self.parameters.get(&(id, axis)) {
            return Some(known.clone());
        }
        let fresh: Rc<[Channel]> = self.channels.fresh(self.shape(id)[axis]).into();
        self.parameters.insert((id, axis), fresh.clone());
        Some(fresh)
    }

    /// Channels of the feature maps, which are pooled together.
    fn maps(&mut self) -> Axis {
        let graph = self.graph;
        let maps = graph.outputs().filter(|(name, _)| name.starts_with(MAPS));
        let maps: Vec<Axis> = maps.map(|(_, id)| self.axes(id)[1].clone()).collect();
        self.unify_all(maps)
    }

    /// Makes two axes one. An axis with channels that meets one without keeps them all.
    fn unify(&mut self, a: Axis, b: Axis) -> Axis {
        match (a, b) {
            (Some(a), Some(b)) if a.len() == b.len() => {
                a.iter()
                    .zip(&*b)
                    .for_each(|(a, b)| self.channels.join(*a, *b));
                Some(a)
            }
            (a, b) => {
                self.fix(&a);
                self.fix(&b);
                a.or(b)
            }
        }
    }

    fn unify_all(&mut self, axes: impl IntoIterator<Item = Axis>) -> Axis {
        let mut axes = axes.into_iter();
        let first = axes.next()?;
        axes.fold(first, |all, axis| self.unify(all, axis))
    }

    fn fix(&mut self, axis: &Axis) {
        for channel in axis.iter().flat_map(|axis| axis.iter()) {
            self.channels.fix(*channel);
        }
    }

    fn fix_all(&mut self, axes: &[Axis]) {
        axes.iter().for_each(|axis| self.fix(axis));
    }

    /// Couples the operands of an operation and gives its outputs their channels.
    fn couple(&mut self, node: &Node) {
        let operands: Vec<Vec<Axis>> = node.inputs.iter().map(|id| self.operand(*id)).collect();
        let axes = self.axes_of(node, &operands);
        if axes.is_none() {
            operands.iter().for_each(|axes| self.fix_all(axes));
        }
        for &output in &node.outputs {
            let shape = self.shape(output);
            let axes = axes.clone().filter(|axes| axes.len() == shape.len());
            let axes = axes.unwrap_or_else(|| vec![None; shape.len()]);
            self.tensors.insert(output, axes);
        }
    }

    /// Axes of the outputs; `None` for an operation that is not understood.
    fn axes_of(&mut self, node: &Node, operands: &[Vec<Axis>]) -> Option<Vec<Axis>> {
        let output = self.shape(*node.outputs.first()?);
        let axis = |operand: usize, axis: usize| operands[operand].get(axis).cloned().flatten();
        Some(match &node.operation {
            Operation::Convolution { options, epilogue } => {
                let mut out = self.convolution(node.inputs[1], axis(0, 1), options.groups)?;
                let mut next = 2;
                let vectors = usize::from(epilogue.bias) + 2 * usize::from(epilogue.affine);
                for _ in 0..vectors {
                    out = self.unify(out, axis(next, 0));
                    next += 1;
                }
                if epilogue.residual {
                    out = self.unify(out, axis(next, 1));
                }
                channels_at(1, out, output)
            }
            Operation::ConvTranspose { options, bias, .. } if options.groups == 1 => {
                let mut out = self.product(node.inputs[1], axis(0, 1), [0, 1])?;
                if *bias {
                    out = self.unify(out, axis(2, 0));
                }
                channels_at(1, out, output)
            }
            Operation::Linear { bias } => {
                let mut out = self.product(node.inputs[1], operands[0].last()?.clone(), [0, 1])?;
                if *bias {
                    out = self.unify(out, axis(2, 0));
                }
                channels_at(output.len() - 1, out, output)
            }
            Operation::MatMul if self.shape(node.inputs[1]).len() == 2 => {
                let out = self.product(node.inputs[1], operands[0].last()?.clone(), [0, 1])?;
                channels_at(output.len() - 1, out, output)
            }
            Operation::ChannelAffine => {
                let out = self.unify_all([axis(0, 1), axis(1, 0), axis(2, 0)]);
                channels_at(1, out, output)
            }
            Operation::SamePad { .. }
            | Operation::MaxPool2d { .. }
            | Operation::AvgPool2d { .. }
            | Operation::AdaptiveAvgPool2d
            | Operation::Interpolate { .. } => channels_at(1, axis(0, 1), output),
            Operation::RoiAlign { .. } | Operation::RoiPool(_) => {
                let features = (0..operands.len())
                    .step_by(2)
                    .map(|operand| axis(operand, 1));
                let out = self.unify_all(features.collect::<Vec<_>>());
                channels_at(1, out, output)
            }
            Operation::Unary(_)
            | Operation::Scalar(..)
            | Operation::Clamp { .. }
            | Operation::Cast => operands[0].clone(),
            Operation::Binary(_) | Operation::MaskFill(_) | Operation::MaskWhere => {
                self.elementwise(node, operands, output)
            }
            Operation::Reshape => self.reshape(&operands[0], self.shape(node.inputs[0]), output),
            Operation::Permute(order) => order.iter().map(|&from| axis(0, from)).collect(),
            Operation::Expand => self.expand(&operands[0], self.shape(node.inputs[0]), output),
            Operation::Slice(slices) => {
                self.slice(&operands[0], self.shape(node.inputs[0]), output, slices)
            }
            Operation::SliceAssign(_) if self.is_fill(node.inputs[0]) => {
                self.padded(&operands[1], self.shape(node.inputs[1]), output)
            }
            Operation::Concat(dim) => self.concat(node, operands, *dim, output),
            Operation::Fill(_) => vec![None; output.len()],
            _ => return None,
        })
    }

    /// Channels of the output of a convolution, whose bias and norm are still to come.
    fn convolution(&mut self, weight: TensorId, input: Axis, groups: usize) -> Option<Axis> {
        if groups == 1 {
            return self.product(weight, input, [1, 0]);
        }
        // What goes into a group and what comes out of it is one: the group.
        self.require_parameter(weight)?;
        self.weights.insert(weight, 0);
        let out = self.parameter(weight, 0)?;
        let Some(input) = input else {
            self.fix(&Some(out.clone()));
            return Some(Some(out));
        };
        let inputs = input.chunks(input.len() / groups);
        for (inputs, outputs) in inputs.zip(out.chunks(out.len() / groups)) {
            for other in inputs.iter().chain(outputs) {
                self.channels.join(outputs[0], *other);
            }
        }
        Some(Some(out))
    }

    /// Channels of the output of a product with a weight, given the axes of input and output in it.
    fn product(&mut self, weight: TensorId, input: Axis, [from, to]: [usize; 2]) -> Option<Axis> {
        self.require_parameter(weight)?;
        self.weights.insert(weight, to);
        let wanted = self.parameter(weight, from);
        self.unify(wanted, input);
        Some(self.parameter(weight, to))
    }

    /// A weight that is computed from others is not understood.
    fn require_parameter(&self, weight: TensorId) -> Option<()> {
        matches!(self.graph.tensor(weight).source, Source::Parameter(_)).then_some(())
    }

    fn is_fill(&self, id: TensorId) -> bool {
        let Source::Node(node) = self.graph.tensor(id).source else {
            return false;
        };
        matches!(self.graph.nodes()[node].operation, Operation::Fill(_))
    }

    fn elementwise(&mut self, node: &Node, operands: &[Vec<Axis>], output: &[usize]) -> Vec<Axis> {
        let mut axes = Vec::new();
        for (position, &size) in output.iter().enumerate() {
            let mut whole = Vec::new();
            for (&id, operand) in node.inputs.iter().zip(operands) {
                let axis = operand.get(position).cloned().flatten();
                match self.shape(id).get(position) == Some(&size) {
                    true => whole.push(axis),
                    // One channel for all of the others.
                    false => self.fix(&axis),
                }
            }
            axes.push(self.unify_all(whole));
        }
        axes
    }

    fn expand(&mut self, from: &[Axis], sizes: &[usize], output: &[usize]) -> Vec<Axis> {
        let added = output.len() - sizes.len();
        let axis = |(position, &size): (usize, &usize)| {
            let before = position.checked_sub(added)?;
            let axis = from[before].clone();
            if sizes[before] != size {
                self.fix(&axis);
                return None;
            }
            axis
        };
        output.iter().enumerate().map(axis).collect()
    }

    fn slice(
        &mut self,
        from: &[Axis],
        sizes: &[usize],
        output: &[usize],
        slices: &[Slice],
    ) -> Vec<Axis> {
        let mut axes = Vec::new();
        for (position, axis) in from.iter().enumerate() {
            let (before, now) = (sizes[position], output[position]);
            let part = match (axis, slices.get(position)) {
                (Some(axis), Some(slice)) if before != now && slice.step > 0 => {
                    let start = match slice.start {
                        start @ 0.. => start as usize,
                        start => before.saturating_sub(start.unsigned_abs()),
                    };
                    let part = axis.iter().skip(start).step_by(slice.step as usize);
                    Some(part.take(now).copied().collect())
                }
                (_, Some(slice)) if slice.step < 0 => None,
                (axis, _) if before == now => axis.clone(),
                _ => None,
            };
            if part
                .as_ref()
                .is_none_or(|part: &Rc<[Channel]>| part.len() != now)
            {
                self.fix(axis);
            }
            axes.push(part);
        }
        axes
    }

    /// A part in the middle of zeros: padding.
    fn padded(&mut self, part: &[Axis], sizes: &[usize], output: &[usize]) -> Vec<Axis> {
        let axis = |(position, axis): (usize, &Axis)| {
            if sizes[position] == output[position] {
                return axis.clone();
            }
            self.fix(axis);
            None
        };
        part.iter().enumerate().map(axis).collect()
    }

    fn concat(
        &mut self,
        node: &Node,
        operands: &[Vec<Axis>],
        dim: usize,
        output: &[usize],
    ) -> Vec<Axis> {
        let mut axes: Vec<Axis> = (0..output.len())
            .map(|position| match position == dim {
                true => None,
                false => self.unify_all(operands.iter().map(|axes| axes[position].clone())),
            })
            .collect();
        if operands.iter().any(|axes| axes[dim].is_some()) {
            let mut joined = Vec::new();
            for (&id, operand) in node.inputs.iter().zip(operands) {
                match &operand[dim] {
                    Some(axis) => joined.extend_from_slice(axis),
                    None => {
                        let fresh = self.channels.fresh(self.shape(id)[dim]);
                        fresh.iter().for_each(|&channel| self.channels.fix(channel));
                        joined.extend(fresh);
                    }
                }
            }
            axes[dim] = Some(joined.into());
        }
        axes
    }

    /// Takes shapes apart into the smallest runs of axes that have as many elements on both sides.
    fn reshape(&mut self, from: &[Axis], sizes: &[usize], output: &[usize]) -> Vec<Axis> {
        let mut axes = vec![None; output.len()];
        let (mut i, mut j) = (0, 0);
        while i < sizes.len() || j < output.len() {
            let (start, target) = (i, j);
            let (mut before, mut now) = (1, 1);
            loop {
                if before <= now && i < sizes.len() {
                    before *= sizes[i];
                    i += 1;
                } else if j < output.len() {
                    now *= output[j];
                    j += 1;
                } else {
                    break;
                }
                if before == now && i > start && j > target {
                    break;
                }
            }
            self.regroup(
                (&from[start..i], &sizes[start..i]),
                (&mut axes[target..j], &output[target..j]),
            );
        }
        axes
    }

    /// Gives the axes on one side the channels of those on the other, which have as many elements.
    fn regroup(
        &mut self,
        (from, sizes): (&[Axis], &[usize]),
        (to, output): (&mut [Axis], &[usize]),
    ) {
        let mut with_channels = from.iter().enumerate().filter(|(_, axis)| axis.is_some());
        let (found, more) = (with_channels.next(), with_channels.next());
        let Some((position, Some(axis))) = found else {
            return;
        };
        // The channel of each element.
        let inner: usize = sizes[position + 1..].iter().product();
        let count: usize = sizes.iter().product();
        let roots: Vec<Channel> = axis.iter().map(|c| self.channels.root(*c)).collect();
        let element = |i: usize| roots[i / inner % roots.len()];
        let place = (0..output.len()).find(|&place| {
            let inner: usize = output[place + 1..].iter().product();
            let size = output[place];
            (0..count).all(|i| element(i) == element(i / inner % size * inner))
                && (size > 1 || roots.len() == 1)
        });
        match (place, more) {
            (Some(place), None) => {
                let inner: usize = output[place + 1..].iter().product();
                let along = (0..output[place]).map(|i| element(i * inner));
                to[place] = Some(along.collect());
            }
            _ => self.fix_all(from),
        }
    }
}

/// Axes of a tensor that has channels along one of them.
fn channels_at(axis: usize, channels: Axis, shape: &[usize]) -> Vec<Axis> {
    let mut axes = vec![None; shape.len()];
    axes[axis] = channels;
    axes
}
