//! `rcnn inspect`: what is in a file of weights.

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, ValueEnum};
use rcnn_burn::FasterRcnnConfig;
use rcnn_burn::backbone::BackboneConfig;
use rcnn_burn::weights::{StoredTensor, Weights};
use serde_json::json;

use crate::Outcome;
use crate::cost::{CostArgs, millions, seen};
use crate::source::checkpoint;

/// Show what is in a file of weights
///
/// Architecture, classes, multiply-accumulates of a detection, and the tree of parameters with shapes, types, counts and sizes. Files of
/// other networks are listed too.
#[derive(Args)]
pub(crate) struct InspectArgs {
    /// Weights: a file, or the name of published ones
    file: String,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Levels of the tree to show
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    #[command(flatten)]
    cost: CostArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(crate) fn run(args: InspectArgs) -> Result<Outcome> {
    let checkpoint = checkpoint(&args.file)?;
    let config = Weights::of_checkpoint(&checkpoint).map(|weights| weights.config);
    let mut out = io::stdout().lock();
    match args.format {
        Format::Json => {
            let tensors = checkpoint.iter().map(|(name, tensor)| {
                json!({
                    "name": name,
                    "shape": tensor.shape,
                    "dtype": dtype(tensor),
                    "count": tensor.num_elements(),
                    "bytes": bytes(tensor),
                })
            });
            let report = json!({
                "file": args.file,
                "format": checkpoint.format.to_string(),
                "architecture": config.as_ref().ok().map(architecture),
                "num_classes": config.as_ref().ok().map(|c| c.num_classes),
                "class_names": config.as_ref().ok().map(|c| &c.class_names),
                "config": config.as_ref().ok(),
                "macs": config.as_ref().ok().and_then(|c| macs(c, &args)),
                "problem": config.as_ref().err().map(|error| error.to_string()),
                "parameters": checkpoint.iter().map(|(_, t)| t.num_elements()).sum::<usize>(),
                "bytes": checkpoint.iter().map(|(_, t)| bytes(t)).sum::<usize>(),
                "tensors": tensors.collect::<Vec<_>>(),
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        }
        Format::Table => {
            let size = checkpoint.file_size;
            writeln!(
                out,
                "{}  {}  {}",
                args.file,
                checkpoint.format,
                mebibytes(size as usize)
            )?;
            match &config {
                Ok(config) => {
                    writeln!(out, "architecture  {}", architecture(config))?;
                    writeln!(out, "classes       {}", classes(config))?;
                    if let Ok(macs) = config.macs(args.cost.size.0) {
                        let parts = macs.parts.iter();
                        let parts = parts.map(|(part, n)| format!("{part} {}", millions(*n)));
                        let parts: Vec<String> = parts.collect();
                        let total = millions(macs.total());
                        writeln!(out, "MACs          {total} M, {}", seen(&macs))?;
                        writeln!(out, "              {}", parts.join(", "))?;
                    }
                }
                Err(error) => writeln!(out, "architecture  unknown: {error}")?,
            }
            writeln!(out)?;
            let mut root = Node::default();
            for (name, tensor) in checkpoint.iter() {
                root.insert(name.split('.'), tensor);
            }
            let mut rows = Vec::new();
            root.rows("(all)", 0, args.depth.unwrap_or(usize::MAX), &mut rows);
            let widest = rows
                .iter()
                .map(|row| row[0].chars().count())
                .max()
                .unwrap_or(0);
            for [name, shape, dtype, count, size] in rows {
                let line = format!("{name:widest$}  {count:>12}  {size:>11}  {dtype:<5} {shape}");
                writeln!(out, "{}", line.trim_end())?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// The network in one line.
fn architecture(config: &FasterRcnnConfig) -> String {
    let BackboneConfig::ResnetFpn(backbone) = &config.backbone else {
        return "Faster R-CNN over a custom backbone".to_string();
    };
    let mut dropped: Vec<String> = (backbone.dropped_stages.iter())
        .map(|stage| format!("layer{stage}"))
        .collect();
    let blocks = backbone.dropped_blocks.iter();
    dropped.extend(blocks.map(|(stage, block)| format!("layer{stage}.{block}")));
    let without = match dropped.is_empty() {
        true => String::new(),
        false => format!(" without {}", dropped.join(", ")),
    };
    let regression = match config.roi_heads.box_regression {
        true => "",
        false => ", no box regression",
    };
    format!(
        "Faster R-CNN, {}-FPN ({:?}, stages {:?}{without}), RPN with {} convolution(s), box head: \
         {}{regression}",
        backbone.arch,
        backbone.norm,
        backbone.returned_layers,
        config.rpn.conv_depth,
        config.roi_heads.box_head
    )
}

/// Multiply-accumulates in JSON.
fn macs(config: &FasterRcnnConfig, args: &InspectArgs) -> Option<serde_json::Value> {
    let macs = config.macs(args.cost.size.0).ok()?;
    let parts = macs
        .parts
        .iter()
        .map(|(part, n)| (part.to_string(), json!(n)));
    Some(json!({
        "image_size": args.cost.size.0,
        "padded_size": macs.padded_size,
        "rois": macs.rois,
        "parts": parts.collect::<serde_json::Map<_, _>>(),
        "total": macs.total(),
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
}

impl<'a> Node<'a> {
    fn insert(&mut self, mut path: impl Iterator<Item = &'a str>, tensor: &'a StoredTensor) {
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
        self.children[position].1.insert(path, tensor);
    }

    /// Name, shape, type, count and size of this level and those below.
    fn rows(&self, name: &str, depth: usize, most: usize, rows: &mut Vec<[String; 5]>) {
        let name = format!("{}{name}", "  ".repeat(depth));
        let (shape, dtype) = match self.tensor {
            Some(tensor) => (format!("{:?}", tensor.shape), dtype(tensor)),
            None => Default::default(),
        };
        rows.push([
            name,
            shape,
            dtype,
            self.count.to_string(),
            mebibytes(self.bytes),
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

fn mebibytes(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
