//! Weights of a changed network: what still fits is kept, the rest starts at random, and a report says
//! which is which.

use std::collections::HashMap;
use std::fmt;

use burn::tensor::backend::Backend;
use rcnn_detector::FasterRcnnConfig;
use rcnn_detector::surgery::Operation;
use rcnn_roi::BoxHeadConfig;

use crate::state_dict::{lines, state_dict_entry};
use crate::{ConfigOrigin, StateDict, Weights, WeightsError, parameter_shapes};

/// Result of surgery: what became of every parameter, in torchvision's names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SurgeryReport {
    /// Kept: the name before and the name now. They differ where a module's name is its position:
    /// levels of the pyramid and layers of the box head.
    pub kept: Vec<(String, String)>,
    /// Parameters of the network before that have no place now.
    pub dropped: Vec<String>,
    /// Newly initialised: the name, the shape, and the shape before where only that differs.
    pub initialised: Vec<(String, Vec<usize>, Option<Vec<usize>>)>,
}

impl fmt::Display for SurgeryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renamed = self.kept.iter().filter(|(before, now)| before != now);
        let renamed = renamed.map(|(before, now)| format!("{before} -> {now}"));
        let initialised = self.initialised.iter().map(|(name, shape, before)| {
            let before = before.as_ref().map(|before| format!(", was {before:?}"));
            format!("{name} {shape:?}{}", before.unwrap_or_default())
        });
        writeln!(f, "kept ({})", self.kept.len())?;
        lines(f, "kept under another name", renamed.collect())?;
        lines(f, "dropped", self.dropped.clone())?;
        lines(f, "newly initialised", initialised.collect())
    }
}

impl Weights {
    /// The weights of the network that results from operations, one after another. Every parameter
    /// whose place and shape are still there is kept, bit for bit; others get the random start of a
    /// new network, from the backend's generator.
    ///
    /// Dropped blocks leave a hole: `layer1.2` stays `layer1.2` when `layer1.1` goes, as with
    /// `nn.Identity` in torch. Levels of the pyramid go by their stage, and layers of the box head by
    /// their order among those of a kind: what is named by position gets its new name.
    ///
    /// ```
    /// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; pub use weights_import as weights; }
    /// # let folder = tempfile::tempdir()?;
    /// # std::env::set_current_dir(&folder)?;
    /// # std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/rcnn-core/assets/blood-cells.bpk"), "cells.bpk")?;
    /// use rcnn_burn::Flex;
    /// use rcnn_burn::weights::Weights;
    ///
    /// let weights = Weights::open("cells.bpk")?;
    /// let operations = ["drop-block layer2.1".parse()?, "box-head fc:64".parse()?];
    /// let (small, report) = weights.with_surgery::<Flex>(&operations, &Default::default())?;
    /// println!("{report}");
    /// assert!(small.tensors.len() < weights.tensors.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When an operation cannot be, with the reason and what to do instead, or the weights do not fit
    /// their own configuration.
    pub fn with_surgery<B: Backend>(
        &self,
        operations: &[Operation],
        device: &B::Device,
    ) -> Result<(Self, SurgeryReport), WeightsError> {
        let config =
            (self.config.with_surgery(operations)).map_err(|reason| WeightsError::Surgery {
                path: self.path.clone(),
                reason,
            })?;
        self.require_complete::<B>(device)?;
        let (before, now) = (places(&self.config), places(&config));
        let by_place: HashMap<String, &String> = self
            .tensors
            .keys()
            .map(|name| (place(name, &before), name))
            .collect();

        let changed = Self {
            path: self.path.clone(),
            config,
            origin: ConfigOrigin::Given,
            tensors: StateDict::new(),
        };
        let model = changed.init::<B>(device)?;
        let (mut tensors, mut report) = (StateDict::new(), SurgeryReport::default());
        for (name, shape) in parameter_shapes(&model) {
            let old = by_place.get(&place(&name, &now)).copied();
            let found = old.map(|old| self.tensors[old].shape.to_vec());
            match old {
                Some(old) if found.as_ref() == Some(&shape) => {
                    self.keep(old, &name, &mut tensors, &mut report);
                }
                _ => {
                    tensors.extend(state_dict_entry(&model, &name));
                    report.initialised.push((name, shape, found));
                }
            }
        }
        let kept: Vec<&String> = report.kept.iter().map(|(before, _)| before).collect();
        let dropped = self.tensors.keys().filter(|name| !kept.contains(name));
        report.dropped = dropped.cloned().collect();
        Ok((Self { tensors, ..changed }, report))
    }

    /// Takes a tensor over under its new name and, after the last of a batch norm's, torch's counter.
    fn keep(&self, old: &str, name: &str, tensors: &mut StateDict, report: &mut SurgeryReport) {
        let mut keep = |old: &str, name: String| {
            tensors.insert(name.clone(), self.tensors[old].clone());
            report.kept.push((old.to_string(), name));
        };
        keep(old, name.to_string());
        let counter = |name: &str| {
            let norm = name.strip_suffix("running_var")?;
            Some(format!("{norm}num_batches_tracked"))
        };
        if let (Some(old), Some(name)) = (counter(old), counter(name))
            && self.tensors.contains_key(&old)
        {
            keep(&old, name);
        }
    }
}

/// Modules that are named by position, and what they are by themselves.
fn places(config: &FasterRcnnConfig) -> Vec<(String, String)> {
    let mut places = Vec::new();
    if let Some(network) = config.backbone.architecture() {
        let stages = network.stages();
        for (level, stage) in network.level_stages().into_iter().enumerate() {
            for blocks in ["backbone.fpn.inner_blocks", "backbone.fpn.layer_blocks"] {
                let place = format!("{blocks} of {}", stages[stage].name);
                places.push((format!("{blocks}.{level}"), place));
            }
        }
    }
    let head = "roi_heads.box_head";
    let linear = |layer: usize| format!("{head} linear {layer}");
    match &config.roi_heads.box_head {
        BoxHeadConfig::TwoMlp { .. } | BoxHeadConfig::Mlp { .. } => {
            places.push((format!("{head}.fc6"), linear(0)));
            places.push((format!("{head}.fc7"), linear(1)));
        }
        BoxHeadConfig::ConvFc {
            conv_layers,
            fc_layers,
            ..
        } => {
            let convs = conv_layers.len();
            let conv = |i: usize| (format!("{head}.{i}"), format!("{head} convolution {i}"));
            places.extend((0..convs).map(conv));
            // After the convolutions a Flatten, after each linear layer a ReLU.
            let fc = |i: usize| (format!("{head}.{}", convs + 1 + 2 * i), linear(i));
            places.extend((0..fc_layers.len()).map(fc));
        }
        // Its modules keep their names.
        BoxHeadConfig::Stage(_) => {}
    }
    places
}

/// A parameter's place in the network, whatever the position of its module.
fn place(name: &str, places: &[(String, String)]) -> String {
    let inside = |module: &str| name.strip_prefix(module)?.strip_prefix('.');
    places
        .iter()
        .find_map(|(module, place)| Some(format!("{place}.{}", inside(module)?)))
        .unwrap_or_else(|| name.to_string())
}
