//! `rcnn inspect`: what is in a file of weights.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use rcnn_burn::freeze::{FreezePlan, FreezeState, Rule};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::rpn::AnchorGenerator;
use rcnn_burn::weights::{ConfigOrigin, StoredTensor, Weights, torchvision_names};
use rcnn_burn::{FasterRcnnConfig, StandardFasterRcnn};
use serde_json::json;

use crate::Outcome;
use crate::backend::{Job, default_device, run_on};
use crate::cost::{CostArgs, millions, seen};
use crate::files::mebibytes;
use crate::output::ReportFormat;
use crate::source::PrefixArgs;

/// Show what is in a file of weights
///
/// Prints the architecture, the classes, the multiply-accumulates of a detection, and the tree of
/// parameters with shapes, types, counts and sizes. Lists the tensors of other networks, too.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn inspect fasterrcnn.pth
  rcnn inspect model.bpk --depth 2 --freeze backbone")]
pub(crate) struct InspectArgs {
    /// Weights: a file, or the name of published weights
    file: PathBuf,
    #[command(flatten)]
    prefix: PrefixArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    format: ReportFormat,
    /// Number of levels of the tree to show
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Show what a rule of `rcnn train --freeze` would freeze; may be repeated
    #[arg(long, value_name = "RULE")]
    freeze: Vec<Rule>,
    #[command(flatten)]
    cost: CostArgs,
}

pub(crate) fn run(args: InspectArgs) -> Result<Outcome> {
    let checkpoint = args.prefix.checkpoint(&args.file)?;
    let weights = Weights::from_checkpoint(&checkpoint);
    let config = weights.as_ref().map(|weights| &weights.config);
    let mut tensors: Vec<(String, StoredTensor)> = checkpoint
        .iter()
        .map(|(name, tensor)| (name.to_string(), tensor.clone()))
        .collect();
    let mut plan = None;
    if !args.freeze.is_empty() {
        // Rules are over the names that the model has.
        tensors = torchvision_names(&checkpoint)?;
        let job = Plan {
            config: Weights::from_checkpoint(&checkpoint)?.config,
            rules: &args.freeze,
        };
        plan = Some(run_on(&[default_device()], job)?);
    }
    let states = plan.as_ref().map(|plan| states(plan.at(1)));
    let frozen = |name: &str| states.as_ref().and_then(|s| s.get(name).copied());
    let mut out = io::stdout().lock();
    match args.format {
        ReportFormat::Json => {
            let described = tensors.iter().map(|(name, tensor)| {
                let mut described = json!({
                    "name": name,
                    "shape": tensor.shape,
                    "dtype": dtype(tensor),
                    "count": tensor.num_elements(),
                    "bytes": bytes(tensor),
                });
                if let Some(frozen) = frozen(name) {
                    described["frozen"] = json!(frozen);
                }
                described
            });
            let mut report = json!({
                "file": args.file.to_string_lossy(),
                "format": checkpoint.format.to_string(),
                "architecture": config.ok().map(architecture),
                "num_classes": config.ok().map(|c| c.num_classes),
                "class_names": config.ok().map(|c| &c.class_names),
                "config": config.ok(),
                "config_origin": weights.as_ref().ok().map(|w| w.origin.to_string()),
                "macs": config.ok().and_then(|c| macs(c, &args)),
                "left_out": checkpoint.notes,
                "problem": config.err().map(|error| error.to_string()),
                "parameters": checkpoint.iter().map(|(_, t)| t.num_elements()).sum::<usize>(),
                "bytes": checkpoint.iter().map(|(_, t)| bytes(t)).sum::<usize>(),
                "tensors": described.collect::<Vec<_>>(),
            });
            if let Some(plan) = &plan {
                let stages = plan.stages().iter().map(|(epoch, state)| {
                    let (frozen, trainable) = (state.frozen(), state.trainable());
                    json!({
                        "from_epoch": epoch,
                        "frozen": frozen.names.len(),
                        "frozen_bytes": frozen.bytes,
                        "trainable": trainable.names.len(),
                        "trainable_bytes": trainable.bytes,
                    })
                });
                report["freeze"] = stages.collect();
            }
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        }
        ReportFormat::Table => {
            let size = checkpoint.file_size;
            writeln!(
                out,
                "{}  {}  {}",
                args.file.display(),
                checkpoint.format,
                human_size(size as usize)
            )?;
            match &weights {
                Ok(Weights { config, origin, .. }) => {
                    writeln!(out, "architecture  {}", architecture(config))?;
                    writeln!(out, "classes       {}", classes(config))?;
                    writeln!(out, "configuration {origin}")?;
                    let anchors = anchors(&config.rpn.anchor_generator);
                    let assumed = match origin {
                        ConfigOrigin::Recognized => {
                            "; assumed, since weights only show their number"
                        }
                        _ => "",
                    };
                    writeln!(out, "anchors       {anchors}{assumed}")?;
                    if let Some(network) = config.backbone.architecture() {
                        writeln!(out, "norm epsilon  {:?}", network.norm_eps())?;
                    }
                    if let Ok(costs) = config.costs(args.cost.size) {
                        let parts = costs.parts().into_iter();
                        let parts = parts.map(|(part, n)| format!("{part} {}", millions(n.macs)));
                        let parts: Vec<String> = parts.collect();
                        let total = millions(costs.total().macs);
                        writeln!(out, "MACs          {total} M, {}", seen(&costs))?;
                        writeln!(out, "              {}", parts.join(", "))?;
                    }
                }
                Err(error) => writeln!(out, "architecture  unknown: {error}")?,
            }
            writeln!(out)?;
            let mut root = Node::default();
            for (name, tensor) in &tensors {
                root.insert(name.split(['.', '/']), tensor, frozen(name));
            }
            let mut rows = Vec::new();
            root.rows("(all)", 0, args.depth.unwrap_or(usize::MAX), &mut rows);
            let widest = rows
                .iter()
                .map(|row| row[0].chars().count())
                .max()
                .unwrap_or(0);
            for [name, shape, dtype, count, size, frozen] in rows {
                let line = format!("{name:widest$}  {count:>12}  {size:>11}  {dtype:<5} {shape}");
                let line = match plan {
                    Some(_) => format!("{frozen:6}  {line}"),
                    None => line,
                };
                writeln!(out, "{}", line.trim_end())?;
            }
            for (epoch, state) in plan.iter().flat_map(FreezePlan::stages) {
                match epoch {
                    1 => writeln!(out, "\n{state}")?,
                    _ => writeln!(out, "from epoch {epoch} on {state}")?,
                }
            }
        }
    }
    Ok(Outcome::Done)
}

/// What rules would freeze in a network.
struct Plan<'a> {
    config: FasterRcnnConfig,
    rules: &'a [Rule],
}

impl Job for Plan<'_> {
    type Output = FreezePlan;

    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<FreezePlan> {
        let model: StandardFasterRcnn<B> = self.config.init(&devices[0])?;
        Ok(FreezePlan::new(
            FreezeState::from_model(&model),
            self.rules,
        )?)
    }
}

/// Whether each parameter is frozen; buffers are not among them.
fn states(state: &FreezeState) -> HashMap<&str, bool> {
    let (frozen, trainable) = (state.frozen().names, state.trainable().names);
    let frozen = frozen.into_iter().map(|name| (name, true));
    let trainable = trainable.into_iter().map(|name| (name, false));
    frozen.chain(trainable).collect()
}

/// The network in one line.
fn architecture(config: &FasterRcnnConfig) -> String {
    let heads = &config.roi_heads;
    let family = match (&heads.mask, &heads.keypoint) {
        (None, None) => "Faster R-CNN",
        (Some(_), None) => "Mask R-CNN",
        (None, Some(_)) => "Keypoint R-CNN",
        (Some(_), Some(_)) => "Mask and Keypoint R-CNN",
    };
    if config.backbone.architecture().is_none() {
        return format!("{family} over a custom backbone");
    }
    let regression = match heads.box_regression {
        true => "",
        false => ", no box regression",
    };
    format!(
        "{family}, {}, RPN with {} convolution(s), box head: {}{regression}",
        config.backbone, config.rpn.conv_depth, heads.box_head
    )
}

/// Sizes of each level, and the ratios of the first.
fn anchors(generator: &AnchorGenerator) -> String {
    let list = |values: &Vec<f32>| {
        let values: Vec<String> = values.iter().map(f32::to_string).collect();
        values.join(", ")
    };
    let sizes: Vec<String> = generator.sizes.iter().map(list).collect();
    let ratios = generator.aspect_ratios.first().map(list);
    let ratios = ratios.unwrap_or_default();
    format!("{} px, ratios {ratios}", sizes.join("; "))
}

/// Multiply-accumulates in JSON.
fn macs(config: &FasterRcnnConfig, args: &InspectArgs) -> Option<serde_json::Value> {
    let costs = config.costs(args.cost.size).ok()?;
    let parts = costs.parts().into_iter();
    let parts = parts.map(|(part, cost)| (part.to_string(), json!(cost.macs)));
    Some(json!({
        "image_size": args.cost.size,
        "padded_size": costs.padded_size,
        "rois": costs.rois,
        "parts": parts.collect::<serde_json::Map<_, _>>(),
        "total": costs.total().macs,
    }))
}

fn classes(config: &FasterRcnnConfig) -> String {
    let count = format!("{} and the background", config.num_classes - 1);
    let names: Vec<&str> = config
        .class_names
        .iter()
        .skip(1)
        .map(String::as_str)
        .collect();
    match names.is_empty() {
        true => format!("{count}; the file has no names"),
        false => format!("{count}: {}", names.join(", ")),
    }
}

/// A level of the tree of names, in the order of the file.
#[derive(Default)]
struct Node<'a> {
    children: Vec<(&'a str, Node<'a>)>,
    tensor: Option<&'a StoredTensor>,
    count: usize,
    bytes: usize,
    /// Parameters below that are frozen, and that are trained.
    frozen: usize,
    trainable: usize,
}

impl<'a> Node<'a> {
    fn insert(
        &mut self,
        mut path: impl Iterator<Item = &'a str>,
        tensor: &'a StoredTensor,
        frozen: Option<bool>,
    ) {
        self.frozen += usize::from(frozen == Some(true));
        self.trainable += usize::from(frozen == Some(false));
        self.count += tensor.num_elements();
        self.bytes += bytes(tensor);
        let Some(name) = path.next() else {
            self.tensor = Some(tensor);
            return;
        };
        let position = self
            .children
            .iter()
            .position(|(n, _)| *n == name)
            .unwrap_or_else(|| {
                self.children.push((name, Node::default()));
                self.children.len() - 1
            });
        self.children[position].1.insert(path, tensor, frozen);
    }

    /// Name, shape, type, count, size and freezing of this level and those below.
    fn rows(&self, name: &str, depth: usize, most: usize, rows: &mut Vec<[String; 6]>) {
        let name = format!("{}{name}", "  ".repeat(depth));
        let (shape, dtype) = match self.tensor {
            Some(tensor) => (format!("{:?}", tensor.shape), dtype(tensor)),
            None => Default::default(),
        };
        let frozen = match (self.frozen, self.trainable) {
            (0, _) => "",
            (_, 0) => "frozen",
            _ => "partly",
        };
        rows.push([
            name,
            shape,
            dtype,
            self.count.to_string(),
            human_size(self.bytes),
            frozen.to_string(),
        ]);
        if depth < most {
            for (name, child) in &self.children {
                child.rows(name, depth + 1, most, rows);
            }
        }
    }
}

fn dtype(tensor: &StoredTensor) -> String {
    format!("{:?}", tensor.dtype).to_lowercase()
}

fn bytes(tensor: &StoredTensor) -> usize {
    tensor.num_elements() * tensor.dtype.size()
}

fn human_size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => mebibytes(bytes as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_listed_by_level() {
        for (name, expected) in [
            ("vgg16", "32, 64, 128, 256, 512 px, ratios 0.5, 1, 2"),
            ("resnet50", "32; 64; 128; 256; 512 px, ratios 0.5, 1, 2"),
        ] {
            let config = FasterRcnnConfig::named(name, 2).expect("a backbone");
            assert_eq!(anchors(&config.rpn.anchor_generator), expected);
        }
    }

    #[test]
    fn a_mask_rcnn_was_called_a_faster_rcnn() {
        for (name, family) in [
            ("fasterrcnn_resnet50_fpn", "Faster R-CNN, "),
            ("maskrcnn_resnet50_fpn", "Mask R-CNN, "),
            ("keypointrcnn_resnet50_fpn", "Keypoint R-CNN, "),
        ] {
            let config = FasterRcnnConfig::named(name, 2).expect("torchvision's name");
            let described = architecture(&config);
            assert!(described.starts_with(family), "{described}");
        }
    }
}
