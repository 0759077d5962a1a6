//! `rcnn detect`: finds objects in pictures.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use image::RgbImage;
use indicatif::ProgressBar;
use rcnn_burn::image::{open_rgb, to_tensor};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::weights::Weights;
use rcnn_burn::{FasterRcnnConfig, Instances, Size, StandardFasterRcnn};
use rcnn_types::{MASK_THRESHOLD, find_class};

use crate::Outcome;
use crate::backend::{ComputeArgs, Job, run_on};
use crate::inputs;
use crate::output::{
    ClassNames, Format, MaskFormat, PictureFolder, Printer, Style, image_ids, tell_illegible,
};
use crate::overwrite::{Guard, OverwriteArgs};
use crate::progress::progress_bar;
use crate::source::{ModelArgs, positive};
use crate::thresholds::{ThresholdArgs, unit};

/// Find objects in pictures
///
/// Reads JPEG, PNG, WebP, BMP, TIFF and GIF (first frame). A picture that cannot be read is
/// reported, the rest goes on.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn detect --output out/ assets/blood-cells.jpg
  rcnn detect --weights fasterrcnn.pth photo.jpg
  rcnn detect --weights COCO_V1 --score-thresh 0.5 --output out/ holiday/
  rcnn detect --weights cells.bpk --classes WBC --format jsonl 'plates/*.png' > found.jsonl")]
pub(crate) struct DetectArgs {
    /// Weights: a .pth, .safetensors or .bpk file, or the name of published ones such as COCO_V1
    /// (`rcnn weights` lists them), which are downloaded once; without, the bundled detector
    /// of blood cells
    #[arg(long, short, value_name = "FILE|NAME", default_value = rcnn_burn::bundled::BLOOD_CELLS)]
    weights: String,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    thresholds: ThresholdArgs,
    /// Report these classes only, by name or number
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    classes: Vec<String>,
    /// Images computed together
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive, hide_short_help = true)]
    batch_size: usize,
    /// Write each picture with its detections drawn in into this folder, under its own name
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Lowest score of a detection that is drawn; all are printed
    #[arg(long, value_name = "F", default_value = "0.5", value_parser = unit::<f32>, hide_short_help = true)]
    draw_thresh: f32,
    /// How masks are printed in JSON, if the model has them
    #[arg(long, value_enum, default_value_t = MaskFormat::Rle, hide_short_help = true)]
    masks: MaskFormat,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Pictures: files, folders or patterns
    #[arg(required = true, value_name = "IMAGE|DIR|GLOB")]
    images: Vec<String>,
    /// Look in the folders of folders too
    #[arg(long, short)]
    recursive: bool,
}

pub(crate) fn run(args: DetectArgs) -> Result<Outcome> {
    let images = inputs::expand(&args.images, args.recursive)?;
    let files = args.model.files().chain([Path::new(&args.weights)]);
    let guard = Guard::new(
        args.overwrite,
        files.chain(images.iter().map(PathBuf::as_path)),
    );
    let sources = images.iter().map(PathBuf::as_path);
    let folder = match &args.output {
        Some(folder) => Some(PictureFolder::create(folder, sources, &guard)?),
        None => None,
    };
    let mut weights = args.model.open(&args.weights)?;
    args.thresholds.apply(&mut weights.config);
    let classes = args.wanted_classes(&weights.config)?;
    if folder.is_some() {
        tell_illegible(&weights.config.class_names);
    }
    let printer = Printer::new(Style {
        format: args.format,
        masks: args.masks.into(),
        names: ClassNames(weights.config.class_names.clone()),
        skeleton: skeleton(&weights.config),
        draw_thresh: args.draw_thresh,
    });
    let device = args.compute.device.clone();
    run_on(
        &[device],
        Detect {
            args,
            weights,
            images,
            classes,
            printer,
            folder,
        },
    )
}

impl DetectArgs {
    /// Numbers of the classes to report; none means all.
    fn wanted_classes(&self, config: &FasterRcnnConfig) -> Result<Option<Vec<usize>>> {
        if self.classes.is_empty() {
            return Ok(None);
        }
        let number = |wanted: &String| {
            let wanted = wanted.trim();
            find_class(wanted, &config.class_names, config.num_classes).with_context(|| {
                let names = config.class_names.iter().skip(1).map(String::as_str);
                let known: Vec<&str> = names.filter(|name| *name != "N/A").collect();
                match known.is_empty() {
                    true => format!(
                        "--classes {wanted}: the weights carry no names; give numbers from 1 to \
                         {}, or names with --labels",
                        config.num_classes - 1
                    ),
                    false => format!("--classes {wanted}: the model knows {}", known.join(", ")),
                }
            })
        };
        self.classes
            .iter()
            .map(number)
            .collect::<Result<_>>()
            .map(Some)
    }
}

struct Detect {
    args: DetectArgs,
    weights: Weights,
    images: Vec<PathBuf>,
    classes: Option<Vec<usize>>,
    printer: Printer,
    folder: Option<PictureFolder>,
}

/// A picture and what was found in it, on its way to be written.
struct Finding {
    /// Which of the images.
    index: usize,
    picture: RgbImage,
    detections: Instances,
}

impl Job for Detect {
    type Output = Outcome;

    /// Reading, inference and writing go on at the same time, a few pictures apart.
    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<Outcome> {
        let Self {
            args,
            weights,
            images,
            classes,
            printer,
            folder,
        } = self;
        let (images, total) = (images.as_slice(), images.len());
        let progress = progress_bar(total, "images");
        let ahead = args.batch_size.min(total);
        let (read, pictures) = sync_channel(ahead);
        let (found, findings) = sync_channel(ahead);
        let failed = thread::scope(|scope| {
            scope.spawn(move || {
                for (index, path) in images.iter().enumerate() {
                    // Nobody wants pictures any more.
                    if read.send((index, open_rgb(path))).is_err() {
                        break;
                    }
                }
            });
            let model = args.model.load::<B>(weights, &devices[0])?;
            let model = model.cast(args.compute.dtype.into())?;
            let writer = scope.spawn(|| write(images, findings, printer, folder, &progress));

            let mut failed = 0;
            let mut pictures = pictures.into_iter().filter_map(|(index, picture)| {
                let report = |error| {
                    progress.suspend(|| eprintln!("error: {error}"));
                    progress.inc(1);
                    failed += 1;
                };
                Some((index, picture.map_err(report).ok()?))
            });
            'batches: loop {
                let batch: Vec<_> = pictures.by_ref().take(args.batch_size).collect();
                let last = batch.len() < args.batch_size;
                let detections = detect(&model, images, &batch, classes.as_deref(), &devices[0])?;
                for ((index, picture), detections) in batch.into_iter().zip(detections) {
                    let finding = Finding {
                        index,
                        picture,
                        detections,
                    };
                    // The writer tells itself why it wants no more.
                    if found.send(finding).is_err() {
                        break 'batches;
                    }
                }
                if last {
                    break;
                }
            }
            drop((found, pictures));
            writer.join().expect("the writer does not panic")?;
            anyhow::Ok(failed)
        })?;
        match failed {
            0 => Ok(Outcome::Done),
            n if n < total => Ok(Outcome::SomeFailed),
            1 => bail!("the picture could not be read"),
            n => bail!("none of the {n} pictures could be read"),
        }
    }
}

/// The lines between keypoints.
fn skeleton(config: &FasterRcnnConfig) -> Vec<[usize; 2]> {
    let keypoint = config.roi_heads.keypoint.as_ref();
    keypoint.map_or_else(Vec::new, |keypoint| keypoint.skeleton.clone())
}

fn detect<B: DetectionBackend>(
    model: &StandardFasterRcnn<B>,
    images: &[PathBuf],
    pictures: &[(usize, RgbImage)],
    classes: Option<&[usize]>,
    device: &B::Device,
) -> Result<Vec<Instances>> {
    let tensors = pictures
        .iter()
        .map(|(_, image)| to_tensor::<B>(image, device));
    let mut found = model
        .detect(&tensors.collect::<Vec<_>>())
        .map_err(|error| match error.image() {
            Some(index) => anyhow!("{}: {error}", images[pictures[index].0].display()),
            None => error.into(),
        })?;
    if let Some(classes) = classes {
        for found in &mut found {
            found.retain(|object| classes.contains(&object.label));
        }
    }
    for (found, (_, picture)) in found.iter_mut().zip(pictures) {
        found.paste_masks(Size::from_dimensions(picture.dimensions()), MASK_THRESHOLD);
        found.mask_probabilities = None;
    }
    Ok(found)
}

/// Prints and draws what is found, until there is no more.
fn write(
    images: &[PathBuf],
    findings: Receiver<Finding>,
    mut printer: Printer,
    folder: Option<PictureFolder>,
    progress: &ProgressBar,
) -> Result<()> {
    let ids = image_ids(images);
    for finding in findings {
        let (index, mut picture, found) = (finding.index, finding.picture, finding.detections);
        progress.suspend(|| printer.image(&images[index], ids[index], &picture, &found))?;
        if let Some(folder) = &folder {
            printer.draw(&mut picture, &found);
            folder.write(index, &picture)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    printer.finish()
}
