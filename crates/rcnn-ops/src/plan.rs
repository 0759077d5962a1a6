//! Layers that own the weights that a backend has prepared for them.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{
    AutodiffModule, Content, Devices, DisplaySettings, HasAutodiffModule, Module, ModuleDisplay,
    ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::backend::{AutodiffBackend, Backend};

/// A place in a layer for its weights in the form that a backend multiplies with.
///
/// Only the backend knows what stands here; it compares the weight before it uses what it kept, so that
/// a layer whose weight is trained, loaded or cast is prepared anew. Clones share the place, as they share
/// the weights, and what it holds is freed with the last of them.
#[derive(Clone, Default)]
pub struct LayerPlan(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl LayerPlan {
    /// Calls a function with the backend's value, a default one at first.
    ///
    /// The place is locked meanwhile: the function must not wait for other threads.
    #[cfg_attr(
        not(feature = "flex"),
        allow(dead_code, reason = "Flex alone prepares weights")
    )]
    pub(crate) fn with<T: Any + Send + Default, R>(&self, visit: impl FnOnce(&mut T) -> R) -> R {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = place.take().and_then(|value| value.downcast::<T>().ok());
        let mut value = value.unwrap_or_default();
        let result = visit(&mut value);
        *place = Some(value);
        result
    }
}

impl fmt::Debug for LayerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LayerPlan")
    }
}

/// A layer of Burn's that runs by [`DetectionBackend`](crate::DetectionBackend), and owns what the backend prepares of its
/// weight: [`Conv2d`](crate::Conv2d) and [`Linear`](crate::Linear).
///
/// Parameters, their names and records are those of Burn's layer, which this dereferences to and is made from.
#[derive(Debug, Clone)]
pub struct Planned<L> {
    pub(crate) layer: L,
    pub(crate) plan: LayerPlan,
}

impl<L> From<L> for Planned<L> {
    fn from(layer: L) -> Self {
        let plan = LayerPlan::default();
        Self { layer, plan }
    }
}

impl<L> Deref for Planned<L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.layer
    }
}

impl<L> DerefMut for Planned<L> {
    fn deref_mut(&mut self) -> &mut L {
        &mut self.layer
    }
}

impl<L> Planned<L> {
    /// Replaces the layer. The plan stays valid for as long as the weight is the same.
    fn map_layer(self, map: impl FnOnce(L) -> L) -> Self {
        let Self { layer, plan } = self;
        let layer = map(layer);
        Self { layer, plan }
    }
}

impl<B: Backend, L: Module<B>> Module<B> for Planned<L> {
    type Record = L::Record;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.layer.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        self.map_layer(|layer| layer.fork(device))
    }

    fn to_device(self, device: &B::Device) -> Self {
        self.map_layer(|layer| layer.to_device(device))
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        self.layer.visit(visitor);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        self.map_layer(|layer| layer.map(mapper))
    }

    fn load_record(self, record: Self::Record) -> Self {
        self.map_layer(|layer| layer.load_record(record))
    }

    fn into_record(self) -> Self::Record {
        self.layer.into_record()
    }
}

impl<B: AutodiffBackend, L: AutodiffModule<B>> AutodiffModule<B> for Planned<L> {
    type InnerModule = Planned<L::InnerModule>;

    fn valid(&self) -> Self::InnerModule {
        Planned {
            layer: self.layer.valid(),
            plan: self.plan.clone(),
        }
    }

    fn from_inner(Planned { layer, plan }: Self::InnerModule) -> Self {
        let layer = L::from_inner(layer);
        Self { layer, plan }
    }
}

impl<B: AutodiffBackend, L: HasAutodiffModule<B>> HasAutodiffModule<B> for Planned<L> {
    type TrainModule = Planned<L::TrainModule>;
}

impl<L: ModuleDisplay> ModuleDisplayDefault for Planned<L> {
    fn content(&self, content: Content) -> Option<Content> {
        ModuleDisplayDefault::content(&self.layer, content)
    }

    fn num_params(&self) -> usize {
        ModuleDisplayDefault::num_params(&self.layer)
    }
}

impl<L: ModuleDisplay> ModuleDisplay for Planned<L> {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        self.layer.custom_settings()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        self.layer.custom_content(content)
    }
}

impl<L: fmt::Display> fmt::Display for Planned<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layer.fmt(f)
    }
}
