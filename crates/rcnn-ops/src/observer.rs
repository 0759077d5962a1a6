//! Watching a forward pass: what PyTorch's forward hooks are for.

use std::fmt::Arguments;

use burn::tensor::{Tensor, backend::Backend};

/// Sees the output of each layer as soon as it is computed; `()` sees nothing.
///
/// Layers have torchvision's names. One that several feature maps go through is seen once for each.
/// The time between two calls is that of the layer, and of what little stands before it, where the
/// device is waited for (`Backend::sync`).
pub trait Observer<B: Backend> {
    /// A layer has put out a tensor.
    fn layer<const D: usize>(&mut self, name: Arguments<'_>, output: &Tensor<B, D>);

    /// A step that has no tensor to show is done: the selection of boxes.
    fn step(&mut self, name: &str);
}

impl<B: Backend> Observer<B> for () {
    fn layer<const D: usize>(&mut self, _name: Arguments<'_>, _output: &Tensor<B, D>) {}

    fn step(&mut self, _name: &str) {}
}

/// An observer of a part, which tells another one with the part's name before each layer's.
pub struct Within<'a, O> {
    part: &'static str,
    observer: &'a mut O,
}

impl<'a, O> Within<'a, O> {
    /// Tells `observer` of the layers of `part`.
    pub fn new(part: &'static str, observer: &'a mut O) -> Self {
        Self { part, observer }
    }
}

impl<B: Backend, O: Observer<B>> Observer<B> for Within<'_, O> {
    fn layer<const D: usize>(&mut self, name: Arguments<'_>, output: &Tensor<B, D>) {
        let part = self.part;
        self.observer.layer(format_args!("{part}.{name}"), output);
    }

    fn step(&mut self, name: &str) {
        self.observer.step(name);
    }
}
