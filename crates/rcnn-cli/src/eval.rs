//! `rcnn eval`: how good a detector is on labelled pictures.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Error, Result, bail};
use clap::Args;
use image::RgbImage;
use rcnn_burn::image::{open_rgb, to_tensor};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::tile::Views;
use rcnn_burn::weights::Weights;
use rcnn_data::{Dataset, Sample};
use rcnn_eval::{EvalOptions, MAX_DETS, Tile, evaluate_with};
use rcnn_types::{ImageInstances, Instances, MASK_THRESHOLD};

use crate::Outcome;
use crate::backend::{ComputeArgs, Job, run_on};
use crate::data::{self, DatasetArgs, files_of};
use crate::files;
use crate::output::{ReportFormat, tell_illegible};
use crate::overwrite::{Guard, OverwriteArgs, check_report};
use crate::progress::{progress_bar, progress_bar_in_parts};
use crate::source::{ModelArgs, positive};
use crate::tiles::{Pixels, TileArgs};

/// Measure how good a detector is on labelled pictures
///
/// Prints COCO's average precision, overall, by size and by class, computed as in pycocotools, for boxes
/// and, if both the model and the data have them, for masks and keypoints. The data may be COCO JSON,
/// Pascal VOC or YOLO.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn eval --weights cells.bpk --data cells --split test
  rcnn eval --weights cells.bpk --data cells --split test --format json --output report/
  rcnn eval --weights cars.bpk --data city --tile 640 --full-image")]
pub(crate) struct EvalArgs {
    /// Weights: a file, or the name of published weights
    #[arg(long, short, value_name = "FILE|NAME")]
    weights: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    dataset: DatasetArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Images, or tiles of one, to compute at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive, hide_short_help = true)]
    batch_size: usize,
    /// Maximum number of detections of a class that count in an image, and that the model returns
    #[arg(long, value_name = "N", default_value_t = MAX_DETS, value_parser = positive, hide_short_help = true)]
    max_dets: usize,
    /// Sigmas of the object keypoint similarity, one per keypoint or one for all [default: COCO's for its 17
    /// keypoints of a person, 0.1 for others]
    #[arg(
        long,
        value_name = "X,...",
        value_delimiter = ',',
        hide_short_help = true
    )]
    keypoint_sigmas: Vec<f64>,
    /// Output format
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    format: ReportFormat,
    /// Write precision-recall curves, confusion matrix, the worst images, the numbers and the
    /// detections into this folder
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    tiles: TileArgs,
}

/// Images on the contact sheet.
const WORST: usize = 12;

/// The files of a report, as written into the output folder.
const TEXTS: [&str; 2] = ["evaluation.json", "detections.json"];
const PICTURES: [&str; 3] = ["curves.png", "confusion.png", "worst.png"];

pub(crate) fn run(args: EvalArgs) -> Result<Outcome> {
    let mut weights = args.model.open(&args.weights)?;
    if args.max_dets > MAX_DETS {
        let most = &mut weights.config.roi_heads.detections_per_img;
        *most = args.max_dets.max(*most);
    }
    let views = args.tiles.views(&weights.config, args.batch_size)?;
    let (mut dataset, names) = data::open_for(&weights, &args.dataset)?;
    if let Some(folder) = &args.output {
        let weights = [args.weights.as_path()];
        let inputs = files_of(&dataset).chain(args.model.files()).chain(weights);
        let guard = Guard::new(args.overwrite, inputs);
        check_report(folder, &PICTURES, &TEXTS, &guard)?;
        tell_illegible(&names);
        files::create_folder(folder)?;
    }
    let device = args.compute.device.clone();
    let job = Find {
        weights,
        views,
        dataset: &dataset,
        args: &args,
    };
    let found = run_on(&[device], job)?;
    let all = dataset.samples.len();
    let was_read: HashSet<u64> = found.iter().map(|image| image.image_id).collect();
    dataset
        .samples
        .retain(|sample| was_read.contains(&sample.image_id));
    if dataset.samples.is_empty() {
        bail!("none of the pictures could be read");
    }
    say_what_is_missing(&dataset, args.max_dets);
    say_which_shapes_are_missing(&dataset, &found);
    let truth: Vec<_> = dataset.samples.iter().map(Sample::ground_truth).collect();
    let options = EvalOptions {
        max_dets: args.max_dets,
        keypoint_sigmas: args.keypoint_sigmas.clone(),
    };
    let evaluation = evaluate_with(&truth, &found, &names, &options)?;
    let outcome = match all - dataset.samples.len() {
        0 => Outcome::Done,
        _ => Outcome::SomeFailed,
    };
    let json = serde_json::to_string_pretty(&evaluation)?;

    args.format.print(&evaluation, &json)?;
    let Some(folder) = &args.output else {
        return Ok(outcome);
    };
    let text = |name: &str, text: &str| files::write_text(&folder.join(name), text);
    let picture =
        |name: &str, picture: RgbImage| files::write_picture(&folder.join(name), &picture);
    text("evaluation.json", &json)?;
    let results = rcnn_eval::results::write(&found, &dataset.category_ids);
    if dataset.renumbered {
        eprintln!(
            "detections.json: the images are numbered anew, as their ids are no numbers or several annotation \
             files have the same (--split takes one file)"
        );
    }
    text("detections.json", &results)?;
    picture("curves.png", rcnn_eval::draw_curves(&evaluation))?;
    picture(
        "confusion.png",
        rcnn_eval::draw_confusion(&evaluation.confusion),
    )?;
    let mut tiles = Vec::new();
    for errors in evaluation.worst(WORST) {
        let sample = dataset
            .samples
            .iter()
            .find(|s| s.image_id == errors.image_id);
        if let Some(sample) = sample {
            let image = open_rgb(&sample.image)?;
            tiles.push(Tile::from_errors(&image, errors, &dataset.skeletons));
        }
    }
    if !tiles.is_empty() {
        picture("worst.png", rcnn_eval::contact_sheet(&tiles))?;
    }
    Ok(outcome)
}

fn say_what_is_missing(dataset: &Dataset, max_dets: usize) {
    if dataset.boxes() == 0 {
        eprintln!("none of the images has a box: there is no average precision");
        return;
    }
    let missing = dataset.classes_without_boxes();
    if !missing.is_empty() {
        eprintln!("no box of {}", missing.join(", "));
    }
    let (images, most) = dataset.crowded_images(max_dets);
    if images > 0 {
        eprintln!(
            "{images} images have more than {max_dets} objects of a class, up to {most}, of which the best \
             {max_dets} detections count (--max-dets)"
        );
    }
}

/// Says which shapes the model finds that the data have none of, which are not evaluated.
fn say_which_shapes_are_missing(dataset: &Dataset, found: &[ImageInstances]) {
    let truth = || dataset.samples.iter().map(|sample| &sample.instances);
    let found = || found.iter().map(|image| &image.instances);
    let (masks, keypoints) = (
        |objects: &Instances| objects.masks.is_some(),
        |objects: &Instances| objects.keypoints.is_some(),
    );
    if found().any(masks) && !truth().any(masks) {
        eprintln!("the data have no masks: the model's are not evaluated");
    }
    if found().any(keypoints) && !truth().any(keypoints) {
        eprintln!("the data have no keypoints: the model's are not evaluated");
    }
}

struct Find<'a> {
    weights: Weights,
    views: Option<Views>,
    dataset: &'a Dataset,
    args: &'a EvalArgs,
}

impl Job for Find<'_> {
    type Output = Vec<ImageInstances>;

    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<Self::Output> {
        let device = &devices[0];
        let model = self.args.model.load::<B>(self.weights, device)?;
        let model = model.cast(self.args.compute.dtype.into())?;
        let total = self.dataset.samples.len();
        let (progress, batch_size) = match self.views {
            Some(_) => (progress_bar_in_parts(total, "images"), 1),
            None => (progress_bar(total, "images"), self.args.batch_size),
        };
        let mut all = Vec::new();
        let skip = self.args.dataset.skip_invalid;
        for chunk in self.dataset.samples.chunks(batch_size) {
            let (mut samples, mut images) = (Vec::new(), Vec::new());
            for sample in chunk {
                match open_rgb(&sample.image) {
                    Ok(image) => {
                        samples.push(sample);
                        images.push(image);
                    }
                    Err(error) if skip => {
                        progress.suspend(|| eprintln!("left out: {error}"));
                    }
                    Err(error) => return Err(Error::from(error).context(data::UNREADABLE)),
                }
            }
            let found = match &self.views {
                Some(views) => images
                    .into_iter()
                    .map(|image| Pixels::Whole(image).look(&model, views, &progress, device))
                    .collect::<Result<_, _>>()?,
                None => {
                    let images = images.iter().map(|image| to_tensor::<B>(image, device));
                    model.detect(&images.collect::<Vec<_>>())?
                }
            };
            for (sample, mut found) in samples.into_iter().zip(found) {
                found.paste_masks(sample.size, MASK_THRESHOLD);
                found.mask_probabilities = None;
                all.push(ImageInstances {
                    image_id: sample.image_id,
                    instances: found,
                    ..Default::default()
                });
            }
            progress.inc(chunk.len() as u64);
        }
        progress.finish_and_clear();
        Ok(all)
    }
}
