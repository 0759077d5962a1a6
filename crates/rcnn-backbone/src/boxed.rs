//! A module on the heap.

use std::ops::{Deref, DerefMut};

use burn::module::{
    AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay,
    ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::backend::{AutodiffBackend, Backend};

/// A module that lies on the heap, with the paths and the record that it has elsewhere. Modules are moved by every
/// change, and whole backbones by value would fill a thread's stack in builds without optimisation.
#[derive(Debug, Clone)]
pub struct Boxed<M>(Box<M>);

impl<M> From<M> for Boxed<M> {
    fn from(module: M) -> Self {
        Self(Box::new(module))
    }
}

impl<M> Deref for Boxed<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M> DerefMut for Boxed<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.0
    }
}

impl<B: Backend, M: Module<B>> Module<B> for Boxed<M> {
    type Record = M::Record;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.0.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        self.0.fork(device).into()
    }

    fn to_device(self, device: &B::Device) -> Self {
        self.0.to_device(device).into()
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        self.0.visit(visitor);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        self.0.map(mapper).into()
    }

    fn load_record(self, record: Self::Record) -> Self {
        self.0.load_record(record).into()
    }

    fn into_record(self) -> Self::Record {
        self.0.into_record()
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> AutodiffModule<B> for Boxed<M> {
    type InnerModule = Boxed<M::InnerModule>;

    fn valid(&self) -> Self::InnerModule {
        self.0.valid().into()
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        M::from_inner(*module.0).into()
    }
}

impl<B: AutodiffBackend, M: HasAutodiffModule<B>> HasAutodiffModule<B> for Boxed<M> {
    type TrainModule = Boxed<M::TrainModule>;
}

impl<M: ModuleDisplay> ModuleDisplayDefault for Boxed<M> {
    fn content(&self, content: Content) -> Option<Content> {
        ModuleDisplayDefault::content(&*self.0, content)
    }

    fn num_params(&self) -> usize {
        ModuleDisplayDefault::num_params(&*self.0)
    }
}

impl<M: ModuleDisplay> ModuleDisplay for Boxed<M> {}
