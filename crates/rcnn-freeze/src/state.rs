//! The frozen parameters of a model: read from it, changed by rules, put into it.

use std::collections::HashMap;
use std::fmt;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rcnn_backbone::{Backbone, Stage, named_parameters};
use rcnn_detector::FasterRcnn;

use crate::{Change, FreezeError, Pattern, torchvision};

/// Names and sizes of a model's parameters, and which are frozen. Buffers are not parameters, as in torch;
/// among them are weight and bias of a `FrozenBatchNorm2d`.
#[derive(Debug, Clone, PartialEq)]
pub struct FreezeState {
    parameters: Vec<Parameter>,
    buffers: Vec<String>,
    /// Bytes of an element.
    width: usize,
    /// Stages of the backbone.
    stages: Vec<Stage>,
}

#[derive(Debug, Clone, PartialEq)]
struct Parameter {
    name: String,
    elements: usize,
    frozen: bool,
}

/// A selection of a model's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection<'a> {
    /// torchvision's names, in the order of the layers.
    pub names: Vec<&'a str>,
    /// Number of elements of all of them together.
    pub elements: usize,
    /// Their size in memory.
    pub bytes: usize,
}

impl FreezeState {
    /// Reads which parameters of a model are frozen. Without autodiff nothing counts as frozen, and
    /// weights that were never used stay uninitialised.
    pub fn from_model<B: Backend, N: Backbone<B>>(model: &FasterRcnn<B, N>) -> Self {
        let mut flags = Flags::default();
        model.visit(&mut flags);
        let (mut parameters, mut buffers) = (Vec::new(), Vec::new());
        for parameter in named_parameters(model) {
            if parameter.is_buffer {
                buffers.push(parameter.name);
                continue;
            }
            parameters.push(Parameter {
                elements: parameter.shape.iter().product(),
                frozen: flags.0[&parameter.id],
                name: parameter.name,
            });
        }
        Self {
            parameters,
            buffers,
            width: size_of::<B::FloatElem>(),
            stages: model.backbone.stages(),
        }
    }

    /// Applies a change to the parameters that it matches.
    ///
    /// # Errors
    /// When nothing in the model is meant.
    pub fn change(&mut self, change: &Change) -> Result<(), FreezeError> {
        match change {
            Change::TrainableBackboneLayers(count) => {
                torchvision::validate(*count, &self.stages)?;
                for parameter in &mut self.parameters {
                    let frozen = torchvision::is_frozen(&parameter.name, *count, &self.stages);
                    parameter.frozen = frozen.unwrap_or(parameter.frozen);
                }
                Ok(())
            }
            Change::Freeze(pattern) => self.set(pattern, true),
            Change::Thaw(pattern) => self.set(pattern, false),
        }
    }

    fn set(&mut self, pattern: &Pattern, frozen: bool) -> Result<(), FreezeError> {
        let matched = self.matches(pattern)?;
        for (parameter, matched) in self.parameters.iter_mut().zip(matched) {
            if matched {
                parameter.frozen = frozen;
            }
        }
        Ok(())
    }

    /// Names of the parameters that a pattern matches.
    ///
    /// # Errors
    /// When it matches none.
    pub fn matching(&self, pattern: &Pattern) -> Result<Vec<&str>, FreezeError> {
        let names = self.parameters.iter().map(|p| p.name.as_str());
        let matched = names.zip(self.matches(pattern)?);
        Ok(matched
            .filter_map(|(name, is)| is.then_some(name))
            .collect())
    }

    fn matches(&self, pattern: &Pattern) -> Result<Vec<bool>, FreezeError> {
        let names: Vec<&str> = self.parameters.iter().map(|p| p.name.as_str()).collect();
        let implied = self.implied();
        let stages = &self.stages;
        pattern.matches(&names, &implied, stages).map_err(|error| {
            let buffers: Vec<&str> = self.buffers.iter().map(String::as_str).collect();
            let matched = pattern.matches(&buffers, &implied, stages);
            let matched = matched.unwrap_or_default();
            match matched.iter().position(|matched| *matched) {
                Some(place) => FreezeError::Buffers {
                    pattern: pattern.to_string(),
                    example: buffers[place].to_string(),
                },
                None => error,
            }
        })
    }

    /// Prefixes that a pattern may leave out: those of parts, and of the backbone's stages.
    fn implied(&self) -> Vec<String> {
        let mut implied = ["", "backbone.", "roi_heads."].map(String::from).to_vec();
        let modules = self.stages.iter().flat_map(|stage| &stage.modules);
        for (parent, _) in modules.filter_map(|module| module.rsplit_once('.')) {
            let prefix = format!("backbone.{parent}.");
            if !implied.contains(&prefix) {
                implied.push(prefix);
            }
        }
        implied
    }

    /// Freezes and thaws the parameters of a model. It has an effect with autodiff alone.
    pub fn apply<B: Backend, M: Module<B>>(&self, model: M) -> M {
        let frozen: HashMap<&str, bool> = self
            .parameters
            .iter()
            .map(|p| (p.name.as_str(), p.frozen))
            .collect();
        let named = named_parameters(&model).into_iter();
        let by_id = named.filter_map(|p| Some((p.id, *frozen.get(p.name.as_str())?)));
        model.map(&mut Flags(by_id.collect()))
    }

    /// The frozen parameters.
    pub fn frozen(&self) -> Selection<'_> {
        self.select(|parameter| parameter.frozen)
    }

    /// The trained parameters.
    pub fn trainable(&self) -> Selection<'_> {
        self.select(|parameter| !parameter.frozen)
    }

    fn select(&self, is_meant: impl Fn(&Parameter) -> bool) -> Selection<'_> {
        let meant: Vec<&Parameter> = self.parameters.iter().filter(|p| is_meant(p)).collect();
        let elements = meant.iter().map(|p| p.elements).sum();
        Selection {
            names: meant.into_iter().map(|p| p.name.as_str()).collect(),
            elements,
            bytes: elements * self.width,
        }
    }
}

impl fmt::Display for FreezeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (frozen, all) = (self.frozen(), self.select(|_| true));
        let millions = |elements: usize| elements as f64 / 1e6;
        let mebibytes = |bytes: usize| bytes as f64 / 1_048_576.0;
        write!(
            f,
            "{} of {} parameters frozen: {:.1} of {:.1} million elements, {:.1} of {:.1} MiB",
            frozen.names.len(),
            all.names.len(),
            millions(frozen.elements),
            millions(all.elements),
            mebibytes(frozen.bytes),
            mebibytes(all.bytes)
        )
    }
}

/// Whether each parameter is frozen.
#[derive(Default)]
struct Flags(HashMap<ParamId, bool>);

impl<B: Backend> ModuleVisitor<B> for Flags {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let frozen = B::ad_enabled(&param.lazy_device()) && !param.is_require_grad();
        self.0.insert(param.id, frozen);
    }
}

impl<B: Backend> ModuleMapper<B> for Flags {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match self.0.get(&param.id) {
            Some(frozen) => param.set_require_grad(!frozen),
            None => param,
        }
    }
}
