//! Recording: a forward pass of a module, as a [`Graph`] of its operations.
//!
//! The module is built for the backend [`Recorder`], which computes nothing, and its `forward` is run
//! once. What it costs, what its shapes are and how it is exported are then read off the graph, for any
//! module and without another description of it.
//!
//! ```
//! # mod rcnn_burn { pub use burn; pub use rcnn_ops as ops; }
//! use rcnn_burn::burn::nn::conv::Conv2dConfig;
//! use rcnn_burn::ops::record::{Recorder, record};
//!
//! let conv = Conv2dConfig::new([3, 8], [3, 3]).init::<Recorder>(&Default::default());
//! let graph = record(&conv, |recording| {
//!     let image = recording.input("image", [1, 3, 12, 10]);
//!     recording.output("map", &conv.forward(image));
//!     Ok::<(), std::convert::Infallible>(())
//! })?;
//! let [node] = graph.nodes() else { unreachable!() };
//! assert_eq!(graph.tensor(node.outputs[0]).shape, [1, 8, 10, 8]);
//! assert_eq!(graph.macs(node), 10 * 8 * 8 * 3 * 9);
//! # Ok::<(), std::convert::Infallible>(())
//! ```

mod backend;
mod graph;
mod router;

use std::collections::HashMap;
use std::marker::PhantomData;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Int, Tensor};

use crate::channels::{primitive, tensor};
use crate::{ForwardHook, LayerOutput, ModulePath};
use router::Tape;

pub use graph::{
    Binary, ConvolutionOptions, Epilogue, Graph, GraphTensor, Node, Operation, Source, TensorId,
    Unary,
};
pub use router::{Recorder, RecorderDevice};

/// Runs `forward`, which is to call the module, and returns the operations of that pass.
///
/// Operations are recorded on this thread alone, so that several threads may record at once. Code that
/// reads tensors back, such as the selection of proposals, cannot be recorded: Burn panics there.
///
/// # Errors
/// Errors of `forward`.
pub fn record<M: Module<Recorder>, E>(
    module: &M,
    forward: impl FnOnce(&mut Recording) -> Result<(), E>,
) -> Result<Graph, E> {
    // Parameters are initialised when they are first used, which is not to be recorded.
    let mut parameters = Parameters::default();
    module.visit(&mut parameters);
    Tape::begin(parameters.names);
    let recording = &mut Recording {
        thread: PhantomData,
    };
    let end = End;
    forward(recording)?;
    std::mem::forget(end);
    Ok(Tape::end())
}

/// Ends a recording that fails.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        Tape::end();
    }
}

/// A recording in progress: a forward hook that notes the names of layers, and the ends of the graph.
pub struct Recording {
    /// It stays on the thread that records.
    thread: PhantomData<*const ()>,
}

impl Recording {
    /// Makes an input of the graph.
    pub fn input<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<Recorder, D> {
        let input = router::empty(shape.into(), DType::F32);
        Tape::with(|tape| tape.input(name, &input));
        tensor(input)
    }

    /// Makes a tensor an output of the graph.
    pub fn output<const D: usize>(
        &mut self,
        name: impl Into<String>,
        output: &Tensor<Recorder, D>,
    ) {
        let output = primitive(output.clone());
        Tape::with(|tape| tape.output(name.into(), &output));
    }
}

impl ForwardHook<Recorder> for Recording {
    fn layer(&mut self, name: &str, _output: LayerOutput<Recorder>) {
        Tape::with(|tape| tape.layer(name));
    }

    fn step(&mut self, name: &str) {
        Tape::with(|tape| tape.layer(name));
    }
}

/// Paths of a module's parameters by Burn's numbers of their tensors.
#[derive(Default)]
struct Parameters {
    path: ModulePath,
    names: HashMap<u64, String>,
}

impl ModuleVisitor<Recorder> for Parameters {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Recorder, D>>) {
        let number = router::number(primitive(param.val()));
        self.names.insert(number, self.path.to_string());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<Recorder, D, Int>>) {
        let number = router::number(param.val().into_primitive());
        self.names.insert(number, self.path.to_string());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<Recorder, D, Bool>>) {
        let number = router::number(param.val().into_primitive());
        self.names.insert(number, self.path.to_string());
    }
}

#[cfg(test)]
mod tests;
