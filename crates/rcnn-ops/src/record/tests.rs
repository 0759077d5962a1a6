use std::convert::Infallible;

use burn::module::Module;
use burn::nn::LinearConfig;
use burn::nn::conv::{Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::tensor::{Int, backend::Backend, module::attention};

use super::*;
use crate::{Activation, Conv2d, ConvEpilogue, Forward, Linear, Phase, conv_transpose2d};

#[derive(Module, Debug)]
struct Net<B: Backend> {
    convs: Vec<Conv2d<B>>,
    kind: Kind<B>,
    up: ConvTranspose2d<B>,
}

/// Its variants are not in the paths.
#[derive(Module, Debug)]
enum Kind<B: Backend> {
    Full(Linear<B>),
}

fn net() -> Net<Recorder> {
    let device = Default::default();
    let conv = |channels, groups| {
        let config = Conv2dConfig::new(channels, [3, 3]).with_stride([2, 2]);
        Conv2d::from(config.with_groups(groups).init(&device))
    };
    Net {
        convs: vec![conv([4, 8], 1), conv([8, 16], 4)],
        kind: Kind::Full(
            LinearConfig::new(16, 5)
                .with_bias(false)
                .init(&device)
                .into(),
        ),
        up: ConvTranspose2dConfig::new([16, 6], [2, 2])
            .with_stride([2, 2])
            .init(&device),
    }
}

/// ```python
/// with FlopCounterMode() as counter:
///     x = torch.empty(2, 4, 11, 9)
///     x = nn.Conv2d(8, 16, 3, 2, groups=4)(nn.Conv2d(4, 8, 3, 2)(x))
///     nn.ConvTranspose2d(16, 6, 2, 2)(x)
///     nn.Linear(16, 5)(x.permute(0, 2, 3, 1).reshape(-1, 16))
///     F.scaled_dot_product_attention(*[torch.empty(1, 2, 7, 3)] * 3)
/// ```
#[test]
fn counts_are_torchs_and_belong_to_the_modules_of_the_weights() {
    let net = net();
    let graph = record(&net, |recording| {
        let x = recording.input("x", [2, 4, 11, 9]);
        let x = net.convs[0].forward(x);
        Forward::with_hook(Phase::Inference, recording).layer("first", &x);
        // The weight is computed from the parameter.
        let mut conv = net.convs[1].clone();
        conv.weight = (conv.weight.clone())
            .map(|weight| weight.clone() / weight.powi_scalar(2).sum().sqrt().unsqueeze());
        let x = conv.forward(x);
        let up = conv_transpose2d(&net.up, x.clone(), Activation::Relu);
        let Kind::Full(full) = &net.kind;
        let [n, c, h, w] = x.dims();
        let rows = full.forward(x.permute([0, 2, 3, 1]).reshape([n * h * w, c]));
        Forward::with_hook(Phase::Inference, recording).layer("second", &rows);
        let query = recording.input("query", [1, 2, 7, 3]);
        let mixed = attention(
            query.clone(),
            query.clone(),
            query,
            None,
            None,
            Default::default(),
        );
        recording.output("up", &up);
        recording.output("mixed", &mixed);
        Ok::<_, Infallible>(())
    })
    .expect("a graph");
    let nodes = graph.nodes().iter();
    let costs: Vec<_> = nodes
        .map(|node| (graph.module(node), node.layer.as_deref(), graph.macs(node)))
        .filter(|(_, _, macs)| *macs > 0)
        .collect();
    assert_eq!(
        costs[..4],
        [
            (Some("convs.0"), Some("first"), 11520),
            (Some("convs.1"), Some("second"), 1152),
            (Some("up"), Some("second"), 1536),
            (Some("kind"), Some("second"), 320),
        ]
    );
    assert_eq!(costs[4..].iter().map(|cost| cost.2).sum::<u64>(), 588);
    let inputs: Vec<_> = graph.inputs().map(|(name, _)| name).collect();
    assert_eq!(inputs, ["x", "query"]);
    let outputs = graph
        .outputs()
        .map(|(name, id)| (name, &graph.tensor(id).shape[..]));
    let outputs: Vec<_> = outputs.collect();
    assert_eq!(
        outputs,
        [("up", &[2, 6, 4, 2][..]), ("mixed", &[1, 2, 7, 3])]
    );
}

#[test]
fn an_epilogue_is_recorded_with_its_convolution() {
    let net = net();
    let graph = record(&net, |recording| {
        let x = recording.input("x", [1, 4, 9, 9]);
        let scale = net
            .up
            .bias
            .as_ref()
            .expect("a bias")
            .val()
            .narrow(0, 0, 1)
            .expand([8]);
        let epilogue = ConvEpilogue {
            affine: Some((scale.clone(), scale + 1.0)),
            residual: Some(recording.input("residual", [1, 8, 2, 2])),
            activation: Activation::Relu,
        };
        recording.output("y", &net.convs[0].forward_fused(x, epilogue));
        Ok::<_, Infallible>(())
    })
    .expect("a graph");
    let node = graph.nodes().last().expect("a node");
    let Operation::Convolution { options, epilogue } = &node.operation else {
        panic!("{node:?}");
    };
    assert_eq!((&options.stride[..], options.groups), (&[2, 2][..], 1));
    let Epilogue {
        bias,
        affine,
        residual,
        activation,
    } = epilogue;
    assert!(*bias && *affine && *residual && *activation == Activation::Relu);
    let constant = node.inputs.iter().map(|id| graph.tensor(*id).is_constant);
    assert_eq!(
        constant.collect::<Vec<_>>(),
        [false, true, true, true, true, false]
    );
    assert_eq!(graph.module(node), Some("convs.0"));
}

#[test]
fn unknown_operations_and_tensors_are_named() {
    let net = net();
    let before = Tensor::<Recorder, 1>::from_data([1.0, 2.0], &Default::default());
    let graph = record(&net, |recording| {
        let x = recording.input("x", [2]);
        let indices = Tensor::<Recorder, 1, Int>::from_data([1, 0], &x.device());
        let sum = (x + before).select(0, indices.clone()).sum();
        recording.output("sum", &sum);
        // Made from data during the recording.
        let indices = indices.into_data().to_vec::<i32>().expect("integers");
        assert_eq!(indices, [1, 0]);
        let error = sum.try_into_data().expect_err("no values").to_string();
        assert!(error.contains("shape [1]"), "{error}");
        Ok::<_, Infallible>(())
    })
    .expect("a graph");
    let operations = graph
        .nodes()
        .iter()
        .map(|node| format!("{:?}", node.operation));
    assert_eq!(
        operations.collect::<Vec<_>>(),
        ["Binary(Add)", "Select(0)", "Other(\"Sum\")"]
    );
    let origin = |node: usize| format!("{:?}", graph.tensor(graph.nodes()[node].inputs[1]).source);
    assert_eq!(origin(0), "Unknown");
    assert!(origin(1).starts_with("Constant("), "{}", origin(1));
}

#[test]
fn recordings_are_apart() {
    let net = &net();
    let pass = |recording: &mut Recording, size: usize| {
        for _ in 0..size {
            let x = recording.input("x", [1, 4, size, size]);
            recording.output("y", &net.convs[0].forward(x));
        }
    };
    let count = |size: usize| {
        let graph = record(net, |recording| {
            pass(recording, size);
            // One that fails leaves nothing behind.
            let failed = record(net, |recording| {
                pass(recording, 3);
                Err("failed")
            });
            failed.map(|_| ()).or(Ok::<_, Infallible>(()))
        });
        graph.expect("a graph").nodes().len()
    };
    std::thread::scope(|scope| {
        let counts = [5, 20, 90].map(|size| (size, scope.spawn(move || count(size))));
        for (size, counted) in counts {
            assert_eq!(counted.join().expect("no panic"), size);
        }
    });
}
