//! `rcnn surgery`: removes and replaces layers of a model.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use image::{Rgb, RgbImage};
use rcnn_burn::image::to_tensor;
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::rpn::AnchorGenerator;
use rcnn_burn::surgery::Operation;
use rcnn_burn::weights::{SurgeryReport, Weights};
use rcnn_burn::{Backend, Size, StandardFasterRcnn};
use serde_json::Value;

use crate::Outcome;
use crate::backend::{Job, default_device, run_on};
use crate::convert::{Dtype, Target};
use crate::cost::{self, CostArgs, ModelCosts};
use crate::files::read_text;
use crate::overwrite::{Guard, OverwriteArgs};
use crate::source::PrefixArgs;

/// Remove and replace layers of a model
///
/// Keeps every parameter that still fits; the others start at random and must be trained. Operations
/// are applied in the order of this help. The result is a model like any other.
#[derive(Args)]
#[command(override_usage = "rcnn surgery [OPTIONS] --output <FILE> <OPERATION>... <INPUT>")]
#[command(after_help = "Examples:
  rcnn surgery model.bpk -o small.bpk --drop-stage layer4 --box-head fc:512
  rcnn surgery model.bpk -o mine.bpk --class-names cat,dog
  rcnn surgery model.bpk -o fast.bpk --levels 1,2,3 --rpn-convs 0 --no-box-regression

A .pth contains neither its image size nor class names: convert it first (rcnn convert).")]
pub(crate) struct SurgeryArgs {
    /// Weights to read: a file, or the name of published weights
    input: PathBuf,
    #[command(flatten)]
    prefix: PrefixArgs,
    /// File to write: .bpk or .safetensors
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    /// Precision of a burnpack
    #[arg(long, value_enum, default_value_t = Dtype::F32, hide_short_help = true)]
    dtype: Dtype,
    #[command(flatten)]
    cost: CostArgs,
    /// Measure the time of a detection before and after
    #[arg(long, overrides_with = "no_measure", hide_short_help = true)]
    measure: bool,
    /// Do not measure times
    #[arg(long, hide_short_help = true)]
    no_measure: bool,
    /// Seed for the initial values of new parameters
    #[arg(long, value_name = "N", default_value_t = 0, hide_short_help = true)]
    seed: u64,
    // Last, as the heading would go on over what follows.
    #[command(flatten)]
    operations: OperationArgs,
}

/// What to do, in this order.
#[derive(Args)]
#[command(next_help_heading = "Operations")]
#[group(required = true, multiple = true)]
struct OperationArgs {
    /// Feature maps to keep, by name (0,1,2,pool) or stage (layer2): anchors and pooling follow
    #[arg(long, value_name = "LEVELS")]
    levels: Option<String>,
    /// Remove all stages of the body after this one
    #[arg(long, value_name = "STAGE")]
    cut_after: Option<String>,
    /// Replace a stage of the body by the identity; may be repeated
    #[arg(long, value_name = "STAGE")]
    drop_stage: Vec<String>,
    /// Replace a block by the identity, under its architecture's name: layer3.1 of a ResNet, 4.1 of a
    /// MobileNet, conv5_2 of a VGG; may be repeated
    #[arg(long, value_name = "BLOCK")]
    drop_block: Vec<String>,
    /// 3x3 convolutions of the region proposal network, from 0
    #[arg(long, value_name = "N")]
    rpn_convs: Option<String>,
    /// Anchors: sizes of each level and ratios, as 32;64;128@0.5,1,2, or a JSON file with sizes and
    /// aspect_ratios
    #[arg(long, value_name = "SIZES|FILE")]
    anchors: Option<PathBuf>,
    /// Layers of the box head: fc:512, fc:1024,fc:1024, conv:256x4,fc:1024, conv_bn:256x4,fc:1024 or
    /// none
    #[arg(long, value_name = "LAYERS")]
    box_head: Option<String>,
    /// Convolutions of the mask head to replace or add: conv:256x2, conv_bn:256x4 or none
    #[arg(long, value_name = "LAYERS")]
    mask_head: Option<String>,
    /// Convolutions of the keypoint head to replace or add, optionally with the number of keypoints:
    /// conv:512x8, conv:64x4/2 or none
    #[arg(long, value_name = "LAYERS")]
    keypoint_head: Option<String>,
    /// Use the proposals as boxes, without refinement
    #[arg(long)]
    no_box_regression: bool,
    /// Number of classes, background included
    #[arg(long, value_name = "N", conflicts_with = "class_names")]
    num_classes: Option<String>,
    /// Names of the classes, without the background
    #[arg(long, value_name = "NAME,...")]
    class_names: Option<String>,
}

impl OperationArgs {
    fn operations(&self) -> Result<Vec<Operation>> {
        let mut operations = Vec::new();
        let mut push = |name: &str, values: &mut dyn Iterator<Item = &String>| {
            for value in values {
                let operation = format!("{name} {value}").parse::<Operation>();
                operations.push(operation.with_context(|| format!("--{name}"))?);
            }
            anyhow::Ok(())
        };
        push("levels", &mut self.levels.iter())?;
        push("cut-after", &mut self.cut_after.iter())?;
        push("drop-stage", &mut self.drop_stage.iter())?;
        push("drop-block", &mut self.drop_block.iter())?;
        push("rpn-convs", &mut self.rpn_convs.iter())?;
        let (file, text): (Vec<&PathBuf>, Vec<&PathBuf>) =
            self.anchors.iter().partition(|path| path.is_file());
        let text = text
            .into_iter()
            .map(|text| text.to_string_lossy().into_owned());
        push("anchors", &mut text.collect::<Vec<_>>().iter())?;
        push("box-head", &mut self.box_head.iter())?;
        push("mask-head", &mut self.mask_head.iter())?;
        push("keypoint-head", &mut self.keypoint_head.iter())?;
        push("num-classes", &mut self.num_classes.iter())?;
        push("class-names", &mut self.class_names.iter())?;
        for file in file {
            operations.push(Operation::Anchors(read_anchors(file)?));
        }
        if self.no_box_regression {
            operations.push(Operation::NoBoxRegression);
        }
        Ok(operations)
    }
}

/// Anchors in JSON, as `rpn_anchor_generator` of a configuration or with that name around.
fn read_anchors(path: &Path) -> Result<AnchorGenerator> {
    let expected = || {
        format!(
            "{}: expected sizes and aspect_ratios in JSON",
            path.display()
        )
    };
    let text = read_text(path)?;
    let mut json: Value = serde_json::from_str(&text).with_context(expected)?;
    if let Some(inner) = json.get_mut("rpn_anchor_generator") {
        json = inner.take();
    }
    serde_json::from_value(json).with_context(expected)
}

pub(crate) fn run(args: SurgeryArgs) -> Result<Outcome> {
    let target = Target::new(&args.output, args.dtype)?;
    let anchors = args.operations.anchors.iter();
    let inputs = anchors.chain([&args.input]);
    Guard::new(args.overwrite, inputs).check_named(target.path())?;
    let operations = args.operations.operations()?;
    let input = args.prefix.checkpoint(&args.input)?;
    let before = Weights::from_checkpoint(&input)?;
    let size = args.cost.size;
    let job = SurgeryJob {
        before,
        operations,
        target,
        measure: (args.measure || !args.no_measure).then_some(size),
        seed: args.seed,
    };
    let done = run_on(&[default_device()], job)?;
    print!("{}", done.report);
    let seconds = done.seconds.map_or([None; 2], |s| s.map(Some));
    let written = std::fs::metadata(&args.output)?.len();
    let columns = [
        (&done.before, input.file_size, seconds[0]),
        (&done.after, written, seconds[1]),
    ];
    let [before, after] = columns.map(|(weights, bytes, seconds)| {
        anyhow::Ok(ModelCosts {
            costs: weights.config.costs(size)?,
            bytes,
            seconds,
        })
    });
    println!();
    print!("{}", cost::compared(&[before?, after?], size));
    eprintln!("{}: written", args.output.display());
    Ok(Outcome::Done)
}

/// Surgery on a backend: changes the model, writes it, opens the written file, and measures both.
struct SurgeryJob {
    before: Weights,
    operations: Vec<Operation>,
    target: Target,
    /// Size of the picture to measure with.
    measure: Option<Size>,
    seed: u64,
}

struct Done {
    report: SurgeryReport,
    before: Weights,
    after: Weights,
    /// Of a detection, before and after.
    seconds: Option<[f64; 2]>,
}

impl Job for SurgeryJob {
    type Output = Done;

    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<Done> {
        let device = &devices[0];
        <B as Backend>::seed(device, self.seed);
        let (after, report) = self.before.with_surgery::<B>(&self.operations, device)?;
        // Read before the file is replaced, which may be the one read from.
        let original = match self.measure {
            Some(_) => Some(self.before.load::<B>(device)?),
            None => None,
        };
        self.target.write(&after)?;
        let written = Weights::open(self.target.path())?.load::<B>(device)?;
        let seconds = match (self.measure, original) {
            (Some(size), Some(original)) => Some(measured([&original, &written], size, device)?),
            _ => None,
        };
        Ok(Done {
            report,
            before: self.before,
            after,
            seconds,
        })
    }
}

/// Seconds of a detection on a picture of this size: the best of some, in turn, after one to warm up.
pub(crate) fn measured<B: DetectionBackend, const N: usize>(
    models: [&StandardFasterRcnn<B>; N],
    size: Size,
    device: &B::Device,
) -> Result<[f64; N]> {
    const ROUNDS: usize = 3;
    // Stripes both ways: nothing to find, and all of the work.
    let (width, height) = size.dimensions();
    let picture = RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 7) as u8, (y * 5) as u8, (x ^ y) as u8])
    });
    let picture = [to_tensor(&picture, device)];
    let mut best = [f64::INFINITY; N];
    for round in 0..=ROUNDS {
        for (model, best) in models.iter().zip(&mut best) {
            let start = Instant::now();
            model.detect(&picture)?;
            if round > 0 {
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(best)
}
