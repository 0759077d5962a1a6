//! The context of a forward pass: its phase, and a hook that sees each layer's output, as PyTorch's
//! forward hooks do.

use std::fmt::{Display, Write};
use std::ops::{Deref, DerefMut};

use burn::tensor::{Tensor, TensorData, TensorMetadata, TensorPrimitive, backend::Backend};

/// Purpose of a forward pass. It matters to layers that train differently: batch norms, and the number of
/// proposals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Detections: batch norms take their running statistics.
    #[default]
    Inference,
    /// Losses: a trainable batch norm takes the statistics of the batch and updates the running ones,
    /// unless it is frozen.
    Training,
}

/// Sees the output of each layer as soon as it is computed. Any closure over a name and a
/// [`LayerOutput`] is one.
///
/// Layers have torchvision's names. One that several feature maps go through is seen once for each.
/// The time between two calls is that of the layer, and of what little stands before it, where the
/// device is waited for (`Backend::sync`).
pub trait ForwardHook<B: Backend> {
    /// A layer has computed its output.
    fn layer(&mut self, name: &str, output: LayerOutput<B>);

    /// A step that has no tensor to show, such as the selection of boxes, is done.
    fn step(&mut self, _name: &str) {}
}

impl<B: Backend, F: FnMut(&str, LayerOutput<B>)> ForwardHook<B> for F {
    fn layer(&mut self, name: &str, output: LayerOutput<B>) {
        self(name, output);
    }
}

/// The output of a layer: a tensor of a rank that is known when the pass runs.
#[derive(Debug, Clone)]
pub struct LayerOutput<B: Backend>(TensorPrimitive<B>);

impl<B: Backend> LayerOutput<B> {
    /// Sizes of the output, `[N, C, H, W]` for feature maps.
    pub fn dims(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    /// Values of the output, read back from the device.
    pub fn into_data(self) -> TensorData {
        // A tensor's values do not depend on the rank it is declared with.
        Tensor::<B, 1>::from_primitive(self.0).into_data()
    }

    /// The tensor, if its rank is `D`.
    pub fn tensor<const D: usize>(self) -> Option<Tensor<B, D>> {
        (self.0.rank() == D).then(|| Tensor::from_primitive(self.0))
    }
}

/// Context of a forward pass, handed on from module to module.
///
/// [`Forward::inference`] is the one for plain use: `backbone.forward(images, &mut Forward::inference())`.
pub struct Forward<'a, B: Backend> {
    /// Purpose of the pass.
    pub phase: Phase,
    hook: Option<&'a mut dyn ForwardHook<B>>,
    /// Names of the modules around the present one, each with a dot after it; empty without a hook.
    prefix: String,
    layers: usize,
}

impl<'a, B: Backend> Forward<'a, B> {
    /// Creates the context of a pass without a hook.
    pub fn new(phase: Phase) -> Self {
        Self {
            phase,
            hook: None,
            prefix: String::new(),
            layers: 0,
        }
    }

    /// Creates the context of an inference pass without a hook.
    pub fn inference() -> Self {
        Self::new(Phase::Inference)
    }

    /// Creates the context of a training pass without a hook.
    pub fn training() -> Self {
        Self::new(Phase::Training)
    }

    /// Creates the context of a pass with a hook.
    pub fn with_hook(phase: Phase, hook: &'a mut dyn ForwardHook<B>) -> Self {
        Self {
            hook: Some(hook),
            ..Self::new(phase)
        }
    }

    /// Shows the hook the output of a layer of the present module.
    pub fn layer<const D: usize>(&mut self, name: impl Display, output: &Tensor<B, D>) {
        self.layers += 1;
        if let Some(hook) = &mut self.hook {
            let name = format!("{}{name}", self.prefix);
            hook.layer(&name, LayerOutput(output.clone().into_primitive()));
        }
    }

    /// Tells the hook that a step without a tensor to show is done. The name is taken as it is.
    pub fn step(&mut self, name: &str) {
        if let Some(hook) = &mut self.hook {
            hook.step(name);
        }
    }

    /// Number of layers that called [`layer`](Self::layer) so far.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// The context for a module inside the present one: its name comes before those of its layers.
    pub fn scope(&mut self, module: impl Display) -> Scope<'_, 'a, B> {
        let outer = self.prefix.len();
        if self.hook.is_some() {
            write!(self.prefix, "{module}.").expect("a string takes any text");
        }
        Scope {
            forward: self,
            outer,
        }
    }
}

/// A [`Forward`] inside a module, until it is dropped. Made by [`Forward::scope`].
pub struct Scope<'s, 'a, B: Backend> {
    forward: &'s mut Forward<'a, B>,
    /// Length of the prefix outside.
    outer: usize,
}

impl<'a, B: Backend> Deref for Scope<'_, 'a, B> {
    type Target = Forward<'a, B>;

    fn deref(&self) -> &Self::Target {
        self.forward
    }
}

impl<B: Backend> DerefMut for Scope<'_, '_, B> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.forward
    }
}

impl<B: Backend> Drop for Scope<'_, '_, B> {
    fn drop(&mut self) {
        self.forward.prefix.truncate(self.outer);
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn_flex::Flex;

    use super::*;

    fn head(x: &Tensor<Flex, 2>, cx: &mut Forward<'_, Flex>) {
        for i in 0..2 {
            cx.layer(format_args!("conv.{i}"), x);
        }
    }

    #[test]
    fn layers_are_named_by_the_modules_around_them() {
        let x = Tensor::<Flex, 2>::from_data([[1.0, 2.0]], &Default::default());
        let mut seen = Vec::new();
        let mut hook = |name: &str, output: LayerOutput<Flex>| {
            assert!(output.clone().tensor::<4>().is_none());
            let values = output.clone().into_data().to_vec::<f32>().expect("floats");
            seen.push((name.to_string(), output.dims(), values));
        };
        let mut cx = Forward::with_hook(Phase::Training, &mut hook);
        head(&x, &mut cx.scope("rpn").scope("head"));
        cx.layer("x", &x);
        assert_eq!((cx.layers(), cx.phase), (3, Phase::Training));
        let names = ["rpn.head.conv.0", "rpn.head.conv.1", "x"];
        let expected = names.map(|name| (name.to_string(), vec![1, 2], vec![1.0, 2.0]));
        assert_eq!(seen, expected);
    }
}
