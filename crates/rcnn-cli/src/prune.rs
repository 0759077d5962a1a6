//! `rcnn prune`: removes the channels of a model that matter least.

mod plan;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use rcnn_burn::Size;
use rcnn_burn::weights::{Precision, Weights};
use rcnn_data::Format;
use rcnn_files::FolderLock;
use rcnn_prune::Keep;
use rcnn_train::TrainConfig;

use crate::backend::{DeviceName, default_device, run_on};
use crate::cost::{self, ModelCosts, parse_size};
use crate::source::{ModelArgs, positive};
use crate::train::SplitArgs;
use crate::{Outcome, files, train};
use plan::{BudgetKind, Plan};
use steps::Steps;

/// Remove the channels of a model that matter least
///
/// Channels that can only be removed together are found in the network itself, whatever its architecture. Their
/// importance is the estimated change of the loss without them on labelled pictures or, without --data, the norm of
/// their weights. Those with the least importance for their cost are removed until the budget is met. --epochs
/// trains the model afterwards; --steps does all this in several smaller steps.
///
/// The folder gets pruned.bpk, a model like any other, pruning.json and pruning.png with each layer before and
/// after, and a folder for each step. --resume continues after an interruption.
#[derive(Args)]
#[command(after_help = "Examples:
  Half the multiply-accumulates, and one epoch of training:
    rcnn prune cells.bpk --data cells --macs 0.5 --epochs 1 --out runs/half
  In three steps, with the recipe of a training run:
    rcnn prune cells.bpk --data cells --macs 0.3 --steps 3 --epochs 1 --recipe run.toml
  At most 0.6 of the time, with the box head unchanged and at least half of layer4:
    rcnn prune cells.bpk --data cells --time 0.6 --keep-of box_head=1 --keep-of layer4=0.5
  By the norms of the weights, without pictures:
    rcnn prune cells.bpk --params 0.5 --out runs/small
  After an interruption:
    rcnn prune --resume --out runs/half")]
pub(crate) struct PruneArgs {
    /// Weights: a file, or the name of published weights
    #[arg(value_name = "MODEL", required_unless_present = "resume")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Size of the image to count costs and measure times for; the model resizes it first [default: that of the
    /// first training picture, or 800x1088]
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = parse_size, hide_short_help = true)]
    size: Option<Size>,
    /// Folder to write
    #[arg(long, short, value_name = "DIR", default_value = "runs/prune")]
    out: PathBuf,
    /// Continue what was started in --out
    #[arg(long, conflicts_with_all = ["weights", "macs", "params", "time", "data", "recipe"])]
    resume: bool,
    /// Where to compute, as `rcnn detect --device`
    #[arg(long, value_name = "D", default_value_t = default_device())]
    device: DeviceName,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    training: TrainingArgs,
}

/// Share of the model that may remain, from 0 to 1. Exactly one budget is given.
#[derive(Args)]
#[command(next_help_heading = "Budget")]
struct BudgetArgs {
    /// Largest share of the multiply-accumulates of a detection that may remain, such as 0.5
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with_all = ["params", "time"],
        required_unless_present_any = ["params", "time", "resume"])]
    macs: Option<f64>,
    /// Largest share of the parameters that may remain
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "time")]
    params: Option<f64>,
    /// Largest share of the time of a detection that may remain, measured on this machine
    #[arg(long, value_name = "SHARE", value_parser = share)]
    time: Option<f64>,
}

/// How much of each layer stays.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Minimum share of its channels that each layer keeps
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share, hide_short_help = true)]
    keep: f64,
    /// Another minimum share for some layers, such as layer4=0.5 or rpn=1; patterns as in --freeze; may be repeated
    #[arg(long, value_name = "PATTERN=SHARE", hide_short_help = true)]
    keep_of: Vec<Keep>,
    /// Keep channels in multiples of this number; 1 allows any
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive, hide_short_help = true)]
    round_to: usize,
    /// Minimum number of channels that each layer keeps
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive, hide_short_help = true)]
    min_channels: usize,
}

/// Pictures, and training after each step.
#[derive(Args)]
#[command(next_help_heading = "Data and training")]
struct TrainingArgs {
    /// Folder of the data, or its COCO .json, YOLO .yaml or darknet .data file
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Format of the labels, where there are several: coco, voc or yolo
    #[arg(long, value_name = "FORMAT", requires = "data", hide_short_help = true)]
    data_format: Option<Format>,
    /// Folder of the pictures, where they are not with the labels
    #[arg(long, value_name = "DIR", requires = "data", hide_short_help = true)]
    images: Option<PathBuf>,
    #[command(flatten)]
    splits: SplitArgs,
    /// Number of training pictures to estimate the importance on, taken evenly from the data
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive)]
    count: usize,
    /// Number of steps towards the budget, each by the same factor
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    steps: usize,
    /// Passes over the training data after each step
    #[arg(long, value_name = "N", default_value_t = 0)]
    epochs: usize,
    /// Passes over the training data after the last step [default: --epochs]
    #[arg(long, value_name = "N", hide_short_help = true)]
    final_epochs: Option<usize>,
    /// TOML file of a training run (rcnn train --help): optimizer, schedule, augmentation, data
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    recipe: Option<PathBuf>,
    /// Learning rate after the warm-up [default: that of --recipe, else 0.005]
    #[arg(long, value_name = "X", hide_short_help = true)]
    learning_rate: Option<f64>,
}

/// A share above 0 and up to 1, for clap.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok();
    let share = share.filter(|share: &f64| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a share above 0 and up to 1, as 0.5".into())
}

/// Files that a pruning writes into its folder.
const RESULTS: [&str; 4] = [START, "pruned.bpk", "pruning.json", "pruning.png"];
const START: &str = "start.bpk";

pub(crate) fn run(args: PruneArgs) -> Result<Outcome> {
    let out = &args.out;
    let (plan, _lock) = match args.resume {
        true => {
            let plan = Plan::read(out)?;
            (plan, FolderLock::acquire(out)?)
        }
        false => create(&args)?,
    };
    let job = Steps {
        plan: &plan,
        folder: out,
    };
    let done = run_on(std::slice::from_ref(&args.device), job)?;
    print!("{}", done.report);
    println!();
    let size = plan.size;
    let models = [(&done.start, START), (&done.pruned, "pruned.bpk")];
    let columns = models.into_iter().zip(done.seconds);
    let columns = columns.map(|((weights, file), seconds)| {
        anyhow::Ok(ModelCosts {
            costs: weights.config.costs(size)?,
            bytes: fs::metadata(out.join(file))?.len(),
            seconds: Some(seconds),
        })
    });
    let columns: Vec<ModelCosts> = columns.collect::<Result<_>>()?;
    if let Ok(columns) = columns.try_into() {
        print!("{}", cost::compared(&columns, size));
    }
    for (step, trained) in (1..).zip(&done.trained) {
        println!(
            "step {step}: best AP {:.3} after epoch {} of {}",
            trained.best_ap, trained.best_epoch, trained.epochs
        );
    }
    eprintln!("{}: written", out.join("pruned.bpk").display());
    Ok(Outcome::Done)
}

/// Begins in a new folder: writes the model to start from, and what is to be done.
fn create(args: &PruneArgs) -> Result<(Plan, FolderLock)> {
    let out = &args.out;
    // A process that was killed may have left the model to start from, without what is to be done with it.
    let was_begun = FolderLock::was_held(out);
    check_empty(out, was_begun)?;
    let source = args.weights.as_deref().context("no model given")?;
    let weights = args.model.open(source)?;
    let (kind, share) = args.budget.get()?;
    let train = args.training.config()?;
    let size = match (args.size, &train) {
        (Some(size), _) => size,
        (None, None) => Size::new(800, 1088),
        (None, Some(train)) => train.training_data(&weights.config)?.samples[0].size,
    };
    let training = &args.training;
    let plan = Plan {
        budget: kind,
        share,
        steps: training.steps,
        epochs: training.epochs,
        final_epochs: training.final_epochs.unwrap_or(training.epochs),
        count: training.count,
        size,
        round_to: args.limits.round_to,
        min_channels: args.limits.min_channels,
        keep: args.limits.keep,
        keep_of: args.limits.keep_of.iter().map(Keep::to_string).collect(),
        train,
    };
    if plan.trains() && plan.train.is_none() {
        bail!("--epochs needs --data to train on");
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let lock = FolderLock::acquire(out)?;
    // `new/..` is a folder only now, and another process may have begun and ended meanwhile.
    check_empty(out, was_begun)?;
    weights.write_burnpack(out.join(START), Precision::F32)?;
    // Last, as it says that the rest is there.
    files::write_text(&out.join(plan::FILE), &plan.to_text()?)?;
    Ok((plan, lock))
}

/// Checks that a folder holds no pruning, and no files in the place of one but what one that was begun left.
fn check_empty(out: &Path, was_begun: bool) -> Result<()> {
    if out.join(plan::FILE).exists() {
        bail!(
            "{}: already holds a pruning; continue it with --resume, or choose another --out",
            out.display()
        );
    }
    let in_the_way = RESULTS.iter().filter(|name| !was_begun || **name != START);
    let mut in_the_way = in_the_way.map(|name| out.join(name));
    match in_the_way.find(|path| path.exists()) {
        Some(path) => bail!(
            "{}: this file is in the way; choose another --out",
            path.display()
        ),
        None => Ok(()),
    }
}

impl BudgetArgs {
    fn get(&self) -> Result<(BudgetKind, f64)> {
        let given = [
            (BudgetKind::Macs, self.macs),
            (BudgetKind::Params, self.params),
            (BudgetKind::Time, self.time),
        ];
        let mut given = given
            .into_iter()
            .filter_map(|(kind, share)| Some((kind, share?)));
        given.next().context("no budget given")
    }
}

impl TrainingArgs {
    /// The training of a step, without its weights and epochs; nothing without data.
    fn config(&self) -> Result<Option<TrainConfig>> {
        let mut config = train::described(self.recipe.as_deref(), |config| {
            if let Some(data) = &self.data {
                config.data.clone_from(data);
            }
            config.images = self.images.clone().or(config.images.take());
            config.data_format = self.data_format.or(config.data_format);
            self.splits.apply(config);
            if let Some(rate) = self.learning_rate {
                config.optimizer.learning_rate = rate;
            }
            // The model, and what it is trained for, are the pruned one's.
            config.weights = None;
            config.weights_prefix = None;
            config.labels = None;
            config.backbone_weights = None;
            config.model.clear();
            Ok(())
        })?;
        if config.data.as_os_str().is_empty() {
            return Ok(None);
        }
        config.data = std::path::absolute(&config.data)?;
        config.images = config.images.map(std::path::absolute).transpose()?;
        config.validate()?;
        Ok(Some(config))
    }
}

/// The weights in a file of the folder.
fn open(folder: &Path, file: &str) -> Result<Weights> {
    Ok(Weights::open(folder.join(file))?)
}
