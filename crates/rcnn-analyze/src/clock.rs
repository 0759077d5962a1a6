//! The time of each layer.

use std::time::Instant;

use indexmap::IndexMap;
use rcnn_core::Backend;
use rcnn_core::ops::{ForwardHook, LayerOutput};

/// Adds up the time of each layer over passes.
pub(crate) struct Clock<B: Backend> {
    device: B::Device,
    last: Instant,
    seconds: IndexMap<String, f64>,
}

impl<B: Backend> Clock<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self {
            device: device.clone(),
            last: Instant::now(),
            seconds: IndexMap::new(),
        }
    }

    /// A pass begins.
    pub(crate) fn start(&mut self) {
        self.wait();
        self.last = Instant::now();
    }

    /// Seconds of each layer over all passes, in the order of the forward pass.
    pub(crate) fn seconds(self) -> IndexMap<String, f64> {
        self.seconds
    }

    fn stop(&mut self, name: &str) {
        self.wait();
        let now = Instant::now();
        let spent = now - std::mem::replace(&mut self.last, now);
        *self.seconds.entry(name.to_string()).or_default() += spent.as_secs_f64();
    }

    /// What was begun on the device belongs to the layer. A device that fails will say so when its
    /// results are read.
    fn wait(&self) {
        let _ = B::sync(&self.device);
    }
}

impl<B: Backend> ForwardHook<B> for Clock<B> {
    fn layer(&mut self, name: &str, _output: LayerOutput<B>) {
        self.stop(name);
    }

    fn step(&mut self, name: &str) {
        self.stop(name);
    }
}
