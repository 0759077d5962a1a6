//! `rcnn detect`: finds objects in pictures.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use indicatif::ProgressBar;
use rcnn_burn::image::{ImageError, to_tensor};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::tile::Views;
use rcnn_burn::weights::Weights;
use rcnn_burn::{FasterRcnnConfig, Instances, StandardFasterRcnn};
use rcnn_types::{MASK_THRESHOLD, find_class};

use crate::Outcome;
use crate::backend::{ComputeArgs, Job, run_on};
use crate::inputs;
use crate::output::{
    ClassNames, Format, MaskFormat, PictureFolder, Printer, Style, image_ids, tell_illegible,
};
use crate::overwrite::{Guard, OverwriteArgs};
use crate::progress::{progress_bar, progress_bar_in_parts};
use crate::source::{ModelArgs, positive};
use crate::thresholds::{ThresholdArgs, unit};
use crate::tiles::{self, Picture, TileArgs, in_tiles_alone};

/// Find objects in pictures
///
/// Reads JPEG, PNG, WebP, BMP, TIFF and GIF (first frame). A picture that cannot be read is
/// reported, the rest goes on.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn detect --output out/ assets/blood-cells.jpg
  rcnn detect --weights fasterrcnn.pth photo.jpg
  rcnn detect --weights COCO_V1 --score-thresh 0.5 --output out/ holiday/
  rcnn detect --weights cells.bpk --classes WBC --format jsonl 'plates/*.png' > found.jsonl
  rcnn detect --weights cars.bpk --tile 640 --score-thresh 0.3 --format coco city.tiff > cars.json")]
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
    #[command(flatten)]
    tiles: TileArgs,
    /// Report these classes only, by name or number
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    classes: Vec<String>,
    /// Images, or tiles of one, computed together
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
    let views = args.tiles.views(&weights.config, args.batch_size)?;
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
            views,
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
    views: Option<Views>,
    classes: Option<Vec<usize>>,
    printer: Printer,
    folder: Option<PictureFolder>,
}

/// A picture and what was found in it, on its way to be written.
struct Finding {
    /// Which of the images.
    index: usize,
    picture: Picture,
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
            views,
            classes,
            printer,
            folder,
        } = self;
        let (images, total) = (images.as_slice(), images.len());
        let in_parts = folder.is_none() && in_tiles_alone(views.as_ref());
        // Where tiles are computed together, a picture may be large: no more of them are held than must be.
        let (progress, batch_size, ahead) = match views {
            Some(_) => (progress_bar_in_parts(total, "images"), 1, 0),
            None => (
                progress_bar(total, "images"),
                args.batch_size,
                args.batch_size.min(total),
            ),
        };
        let (read, pictures) = sync_channel(ahead);
        let (found, findings) = sync_channel(ahead);
        let failed = thread::scope(|scope| {
            scope.spawn(move || {
                for (index, path) in images.iter().enumerate() {
                    // Nobody wants pictures any more.
                    if read.send((index, Picture::open(path, in_parts))).is_err() {
                        break;
                    }
                }
            });
            let model = args.model.load::<B>(weights, &devices[0])?;
            let model = model.cast(args.compute.dtype.into())?;
            let writer = scope.spawn(|| write(images, findings, printer, folder, &progress));

            let failed = Cell::new(0);
            let report = |error: &ImageError| {
                progress.suspend(|| eprintln!("error: {error}{}", tiles::help(error)));
                progress.inc(1);
                failed.set(failed.get() + 1);
            };
            let mut pictures = pictures
                .into_iter()
                .filter_map(|(index, picture)| Some((index, picture.inspect_err(&report).ok()?)));
            'batches: loop {
                let mut batch: Vec<_> = pictures.by_ref().take(batch_size).collect();
                let last = batch.len() < batch_size;
                let detections = match &views {
                    Some(views) => batch
                        .iter_mut()
                        .map(|(_, picture)| picture.look(&model, views, &progress, &devices[0]))
                        .collect(),
                    None => detect(&model, images, &batch, &devices[0]),
                };
                let detections = match detections.map_err(|error| error.downcast()) {
                    Ok(detections) => detections,
                    // Damage far down a picture that is read part by part.
                    Err(Ok(error)) => {
                        report(&error);
                        continue;
                    }
                    Err(Err(error)) => return Err(error),
                };
                for ((index, picture), mut detections) in batch.into_iter().zip(detections) {
                    if let Some(classes) = &classes {
                        detections.retain(|object| classes.contains(&object.label));
                    }
                    detections.paste_masks(picture.size(), MASK_THRESHOLD);
                    detections.mask_probabilities = None;
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
            anyhow::Ok(failed.get())
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

/// Finds the objects of whole pictures.
fn detect<B: DetectionBackend>(
    model: &StandardFasterRcnn<B>,
    images: &[PathBuf],
    pictures: &[(usize, Picture)],
    device: &B::Device,
) -> Result<Vec<Instances>> {
    let tensors = pictures.iter().filter_map(|(_, picture)| match picture {
        Picture::Whole(picture) => Some(to_tensor::<B>(picture, device)),
        // Only tiles are read from these.
        Picture::Strips(_) => None,
    });
    model
        .detect(&tensors.collect::<Vec<_>>())
        .map_err(|error| match error.image() {
            Some(index) => anyhow!("{}: {error}", images[pictures[index].0].display()),
            None => error.into(),
        })
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
        let (index, picture, found) = (finding.index, finding.picture, finding.detections);
        progress.suspend(|| printer.image(&images[index], ids[index], picture.size(), &found))?;
        if let (Some(folder), Picture::Whole(mut picture)) = (&folder, picture) {
            printer.draw(&mut picture, &found);
            folder.write(index, &picture)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    printer.finish()
}
