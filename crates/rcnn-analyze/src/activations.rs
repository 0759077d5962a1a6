//! Statistics of layer outputs.

use indexmap::IndexMap;
use rcnn_core::Backend;
use rcnn_core::ops::{ForwardHook, LayerOutput};

use crate::Activation;

/// Sums up the outputs of each layer over passes.
#[derive(Default)]
pub(crate) struct Activations(IndexMap<String, Sums>);

#[derive(Default)]
struct Sums {
    sum: f64,
    zeros: f64,
    count: f64,
}

impl Activations {
    pub(crate) fn finish(self) -> IndexMap<String, Activation> {
        let means = |sums: Sums| Activation {
            mean: sums.sum / sums.count.max(1.0),
            zeros: sums.zeros / sums.count.max(1.0),
        };
        let layers = self.0.into_iter();
        layers.map(|(name, sums)| (name, means(sums))).collect()
    }
}

impl<B: Backend> ForwardHook<B> for Activations {
    fn layer(&mut self, name: &str, output: LayerOutput<B>) {
        let sums = self.0.entry(name.to_string()).or_default();
        for value in output.into_data().iter::<f64>() {
            sums.sum += value;
            sums.zeros += f64::from(u8::from(value == 0.0));
            sums.count += 1.0;
        }
    }
}
