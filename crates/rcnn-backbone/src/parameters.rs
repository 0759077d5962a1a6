//! Parameters and buffers of a module under torchvision's names.
//!
//! The path of a parameter is torchvision's name. Shapes are torch's: a linear weight is `[out, in]`
//! there and `[in, out]` in Burn.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, backend::Backend};
use rcnn_ops::ModulePath;

/// A parameter or buffer of a module.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedParameter {
    /// torchvision's name, the path of modules.
    pub name: String,
    /// Burn's identifier, the same in clones of the module.
    pub id: ParamId,
    /// Shape in torch's layout.
    pub shape: Vec<usize>,
    /// Whether torch has it as a buffer, which is never trained: the statistics of norms, and all of
    /// a `FrozenBatchNorm2d`.
    pub is_buffer: bool,
}

/// Parameters and buffers of a module, as torch's `named_parameters()` and `named_buffers()` list them, but
/// in the order of the layers. Weights that were never used stay uninitialised.
pub fn named_parameters<B: Backend, M: Module<B>>(module: &M) -> Vec<NamedParameter> {
    let mut visitor = NameVisitor::default();
    module.visit(&mut visitor);
    visitor.found
}

#[derive(Default)]
struct NameVisitor {
    path: ModulePath,
    /// Types of the modules on the path, enums with their variant.
    containers: Vec<String>,
    found: Vec<NamedParameter>,
}

impl NameVisitor {
    fn is_in(&self, container: &str) -> bool {
        self.containers.iter().any(|c| c == container)
    }
}

impl<B: Backend> ModuleVisitor<B> for NameVisitor {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
        self.containers
            .push(match container_type.starts_with("Enum:") {
                true => format!("{container_type}::{name}"),
                false => container_type.to_string(),
            });
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.containers.pop();
        self.path.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let mut shape = param.lazy_shape().to_vec();
        if D == 2 && self.is_in("Struct:Linear") {
            shape.reverse();
        }
        let is_buffer = matches!(self.path.last(), Some("running_mean" | "running_var"))
            || self.is_in("Enum:BatchNorm2d::FrozenBatchNorm2d");
        self.found.push(NamedParameter {
            name: self.path.to_string(),
            id: param.id,
            shape,
            is_buffer,
        });
    }
}
