//! A recording says all that is computed: replayed, it gives what the network gives.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::{Backend, get_device_settings};
use burn::tensor::ops::{BoolTensor, ConvOptions, FloatTensor, FloatTensorOps, ModuleOps};
use burn::tensor::{Distribution, Tensor, TensorPrimitive, Tolerance};
use rcnn_backbone::{NormKind, ResNetArch, ResNetFpnConfig};
use rcnn_ops::backend_types::{Flex, FlexDevice};
use rcnn_ops::record::{Binary, Graph, Operation, Source, Unary};
use rcnn_ops::{ConvEpilogue, ConvPrecision, DetectionBackend, ModulePath};

use super::*;
use crate::{FasterRcnnConfig, StandardFasterRcnn};

#[derive(Clone)]
enum Value {
    Float(FloatTensor<Flex>),
    Bool(BoolTensor<Flex>),
}

impl Value {
    fn float(self) -> FloatTensor<Flex> {
        match self {
            Self::Float(tensor) => tensor,
            Self::Bool(_) => panic!("a mask instead of numbers"),
        }
    }

    fn bool(self) -> BoolTensor<Flex> {
        match self {
            Self::Bool(tensor) => tensor,
            Self::Float(_) => panic!("numbers instead of a mask"),
        }
    }
}

fn primitive<const D: usize>(tensor: Tensor<Flex, D>) -> FloatTensor<Flex> {
    tensor.into_primitive().tensor()
}

fn tensor<const D: usize>(value: Value) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(value.float()))
}

fn compute(operation: &Operation, inputs: Vec<Value>, shape: &[usize]) -> Value {
    let mut inputs = inputs.into_iter();
    let x = inputs.next().expect("an operand");
    let mut next = || inputs.next().expect("an operand");
    Value::Float(match operation {
        Operation::Convolution { options, epilogue } => {
            let axes = |sizes: &[usize]| [sizes[0], sizes[1]];
            let options = ConvOptions::new(
                axes(&options.stride),
                axes(&options.padding),
                axes(&options.dilation),
                options.groups,
            );
            let weight = next().float();
            let bias = epilogue.bias.then(|| next().float());
            let then = ConvEpilogue {
                affine: epilogue.affine.then(|| (tensor(next()), tensor(next()))),
                residual: epilogue.residual.then(|| tensor(next())),
                activation: epilogue.activation,
            };
            Flex::convolution(
                x.float(),
                weight,
                bias,
                options,
                then,
                ConvPrecision::Fast,
                None,
            )
        }
        Operation::Linear { bias } => {
            let weight = next().float();
            Flex::linear(x.float(), weight, bias.then(|| next().float()))
        }
        &Operation::MaxPool2d {
            kernel,
            stride,
            padding,
            dilation,
            ceil_mode,
        } => Flex::max_pool2d(x.float(), kernel, stride, padding, dilation, ceil_mode),
        Operation::Reshape => Flex::float_reshape(x.float(), shape.to_vec().into()),
        Operation::Binary(Binary::Add) => Flex::float_add(x.float(), next().float()),
        Operation::Binary(Binary::Sub) => Flex::float_sub(x.float(), next().float()),
        Operation::Binary(Binary::Mul) => Flex::float_mul(x.float(), next().float()),
        Operation::Binary(Binary::Div) => Flex::float_div(x.float(), next().float()),
        Operation::Scalar(Binary::Add, number) => {
            Flex::float_add_scalar(x.float(), (*number).into())
        }
        Operation::Scalar(Binary::LowerEqual, number) => {
            let dtype = get_device_settings::<Flex>(&FlexDevice).bool_dtype;
            let mask = Flex::float_lower_equal_elem(x.float(), (*number).into(), dtype);
            return Value::Bool(mask);
        }
        Operation::MaskFill(number) => {
            Flex::float_mask_fill(x.float(), next().bool(), (*number).into())
        }
        Operation::Unary(Unary::Sqrt) => Flex::float_sqrt(x.float()),
        other => panic!("{other:?} is not replayed"),
    })
}

/// Runs a graph on values of its parameters and inputs, and returns those of its outputs.
fn replay(graph: &Graph, given: &HashMap<String, Value>) -> HashMap<String, Value> {
    let mut values = HashMap::new();
    for node in graph.nodes() {
        let operand = |id| match &graph.tensor(id).source {
            Source::Input(name) | Source::Parameter(name) => given[name].clone(),
            Source::Node(_) => Value::clone(&values[&id]),
            other => panic!("{other:?} has no values"),
        };
        let inputs = node.inputs.iter().map(|id| operand(*id)).collect();
        let [output] = node.outputs[..] else {
            panic!("{node:?} has several outputs");
        };
        let value = compute(&node.operation, inputs, &graph.tensor(output).shape);
        values.insert(output, value);
    }
    let output = |(name, id): (&str, _)| (name.to_string(), Value::clone(&values[&id]));
    graph.outputs().map(output).collect()
}

/// Values of parameters by their paths.
#[derive(Default)]
struct Values {
    path: ModulePath,
    found: HashMap<String, Value>,
}

impl ModuleVisitor<Flex> for Values {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Flex, D>>) {
        let value = Value::Float(primitive(param.val()));
        self.found.insert(self.path.to_string(), value);
    }
}

/// Gives norms and biases values of their own, so that none is neutral.
struct Vary;

impl ModuleMapper<Flex> for Vary {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Flex, D>>,
    ) -> Param<Tensor<Flex, D>> {
        param.map(|tensor| match D {
            1 => tensor.random_like(Distribution::Uniform(0.5, 1.0)),
            _ => tensor,
        })
    }
}

fn replayed(config: &FasterRcnnConfig) {
    let device = FlexDevice;
    Flex::seed(&device, 1);
    let recorded: StandardFasterRcnn<Recorder> = config.init(&Default::default()).expect("a model");
    let graph = recorded.record(Size::new(60, 90)).expect("a graph");
    let model = config
        .init::<Flex>(&device)
        .expect("a model")
        .map(&mut Vary);
    let mut values = Values::default();
    model.visit(&mut values);
    let mut given = values.found;
    for (name, id) in graph.inputs() {
        let shape: [usize; 4] = graph.tensor(id).shape[..].try_into().expect("four axes");
        let input = Tensor::<Flex, 4>::random(shape, Distribution::Default, &device);
        given.insert(name.to_string(), Value::Float(primitive(input)));
    }
    let mut found = replay(&graph, &given);

    let cx = &mut Forward::inference();
    let images = tensor(given["images"].clone());
    let features = model.feature_maps(images, cx).expect("feature maps");
    let head = model.rpn.head.forward(&features, cx);
    let last = model
        .roi_heads
        .box_branch()
        .predict(tensor(given["pooled"].clone()), cx);
    let mut expected = Vec::new();
    for (i, (level, map)) in features.iter().enumerate() {
        expected.push((format!("backbone.{level}"), map.clone()));
        expected.push((
            format!("rpn.objectness.{level}"),
            head.objectness[i].clone(),
        ));
        expected.push((format!("rpn.deltas.{level}"), head.deltas[i].clone()));
    }
    let rows = [Some(last.class_logits), last.box_regression];
    let names = ["class_logits", "box_regression"];
    for (name, rows) in names.into_iter().zip(rows) {
        let rows = rows.map(|rows| rows.unsqueeze::<4>());
        expected.extend(rows.map(|rows| (format!("roi_heads.{name}"), rows)));
    }
    for (name, expected) in expected {
        let found: Tensor<Flex, 4> = match name.starts_with("roi_heads") {
            true => tensor::<2>(found.remove(&name).expect(&name)).unsqueeze(),
            false => tensor(found.remove(&name).expect(&name)),
        };
        let largest = expected.clone().abs().max().into_scalar();
        assert!(largest > 0.0, "{name} is all zeros");
        let tolerance = Tolerance::absolute(1e-5 * largest);
        let (found, expected) = (found.into_data(), expected.into_data());
        found.assert_approx_eq::<f32>(&expected, tolerance);
    }
    assert!(found.is_empty(), "{:?}", found.keys());
}

#[test]
fn a_replayed_recording_gives_what_the_network_gives() {
    let config = |arch, norm, head: &str| {
        let backbone = ResNetFpnConfig {
            arch,
            norm,
            fpn_norm: (norm == NormKind::BatchNorm2d).then_some(norm),
            returned_layers: vec![1, 2],
            out_channels: 16,
            ..Default::default()
        };
        let mut config = FasterRcnnConfig::new(backbone, 4);
        let anchors = &mut config.rpn.anchor_generator;
        anchors.sizes.truncate(3);
        anchors.aspect_ratios.truncate(3);
        config.rpn.post_nms_top_n_test = 20;
        config.roi_heads.box_head = head.parse().expect("a head");
        config.transform.min_size = vec![60];
        config
    };
    let (frozen, trainable) = (NormKind::FrozenBatchNorm2d, NormKind::BatchNorm2d);
    replayed(&config(ResNetArch::ResNet18, frozen, "fc:24,fc:24"));
    let mut other = config(ResNetArch::ResNeXt50_32x4d, trainable, "conv_bn:8x2,fc:12");
    other.roi_heads.box_regression = false;
    replayed(&other);
}
