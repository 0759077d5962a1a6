//! `rcnn detect`: finds objects in pictures and videos.

use std::cell::Cell;
use std::ops::ControlFlow::{Break, Continue};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use image::RgbImage;
use indicatif::ProgressBar;
use rcnn_burn::image::{Batching, ImageError, to_tensor};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::tile::Views;
use rcnn_burn::weights::Weights;
use rcnn_burn::{FasterRcnnConfig, Instances, StandardFasterRcnn};
use rcnn_track::Tracker;
use rcnn_types::{MASK_THRESHOLD, UNUSED, find_class};
use rcnn_video::OutputFormat;

use crate::Outcome;
use crate::backend::{ComputeArgs, Job, run_on};
use crate::output::{Format, MaskFormat, PictureFolder, Printer, Style, image_ids, tell_illegible};
use crate::overwrite::{Guard, OverwriteArgs};
use crate::progress::{progress_bar, progress_bar_in_parts};
use crate::source::{ModelArgs, positive};
use crate::thresholds::{ThresholdArgs, unit};
use crate::tiles::{self, Pixels, TileArgs, in_tiles_alone};
use crate::track::TrackArgs;
use crate::video::{Frame, Input, Picture, PipedVideo, VideoArgs};

/// Most pictures that are read before they are computed.
const MOST_AHEAD: usize = 64;

/// Find objects in pictures and videos
///
/// Reads JPEG, PNG, WebP, BMP, TIFF and GIF (the first frame, or all with --frames). A picture that
/// cannot be read is reported and skipped. Videos are read from and written to pipes.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn detect --output out/ assets/blood-cells.jpg
  rcnn detect --weights fasterrcnn.pth photo.jpg
  rcnn detect --weights cells.bpk --classes WBC --format jsonl 'plates/*.png' > found.jsonl
  rcnn detect --weights cars.bpk --tile 640 --score-thresh 0.3 --format coco city.tiff > cars.json
  rcnn detect --weights COCO_V1 --track --format jsonl frames/%05d.png
  ffmpeg -i in.mp4 -f yuv4mpegpipe - | rcnn detect --stdin y4m --track --output - > drawn.y4m")]
pub(crate) struct DetectArgs {
    /// Weights: a .pth, .safetensors or .bpk file, or the name of published weights such as COCO_V1
    /// (`rcnn weights` lists them), which are downloaded once
    #[arg(long, short, value_name = "FILE|NAME", default_value = rcnn_burn::bundled::BLOOD_CELLS)]
    weights: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    thresholds: ThresholdArgs,
    /// Report these classes only, by name or number
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    classes: Vec<String>,
    /// Images, or tiles of one, to compute at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive, hide_short_help = true)]
    batch_size: usize,
    /// Save each picture with its detections drawn to this folder, under its own name; with -, write them all
    /// to standard output as a video, and nothing else
    #[arg(long, short, value_name = "DIR|-")]
    output: Option<PathBuf>,
    /// Lowest score of the detections to draw; all are printed
    #[arg(long, value_name = "F", default_value = "0.5", value_parser = unit::<f32>, hide_short_help = true)]
    draw_thresh: f32,
    /// How to print masks in JSON, if the model has them
    #[arg(long, value_enum, default_value_t = MaskFormat::Rle, hide_short_help = true)]
    masks: MaskFormat,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    /// Output format [default: table; with --output -, mjpeg for mjpeg input, else y4m]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Pictures: files, folders or patterns, such as 'plates/*.png' or frames/%05d.png
    #[arg(required_unless_present = "stdin", value_name = "IMAGE|DIR|GLOB")]
    images: Vec<PathBuf>,
    /// Include the pictures in subfolders
    #[arg(long, short)]
    recursive: bool,
    #[command(flatten)]
    tiles: TileArgs,
    #[command(flatten)]
    video: VideoArgs,
    #[command(flatten)]
    track: TrackArgs,
}

pub(crate) fn run(args: DetectArgs) -> Result<Outcome> {
    let video = args.piped_video()?;
    let tracker = args.track.tracker()?;
    let as_frames = video.is_some() || tracker.is_some();
    let input = args.video.open(&args.images, args.recursive, as_frames)?;
    let files = args.model.files().chain([args.weights.as_path()]);
    let images = input.files().iter().map(PathBuf::as_path);
    let guard = Guard::new(args.overwrite, files.chain(images));
    let (format, drawn) = match (&args.output, video) {
        (Some(_), Some(video)) => {
            let format = video.unwrap_or(input.output_format());
            let name = match format {
                OutputFormat::Y4m => Format::Y4m,
                OutputFormat::Mjpeg => Format::Mjpeg,
            };
            (name, Drawn::Video(PipedVideo::new(format, input.info())))
        }
        (Some(folder), None) => {
            let folder = PictureFolder::create(folder, input.names(), &guard)?;
            (args.printed(), Drawn::Pictures(folder, guard))
        }
        _ => (args.printed(), Drawn::Nothing),
    };
    let mut weights = args.model.open(&args.weights)?;
    args.thresholds.apply(&mut weights.config);
    let views = args.tiles.views(&weights.config, args.batch_size)?;
    let classes = args.wanted_classes(&weights.config)?;
    if drawn.is_wanted() {
        tell_illegible(&weights.config.class_names);
    }
    let printer = Printer::new(Style {
        format,
        masks: args.masks.into(),
        names: weights.config.class_names.clone(),
        skeleton: skeleton(&weights.config),
        draw_thresh: args.draw_thresh,
    });
    let device = args.compute.device.clone();
    run_on(
        &[device],
        Detect {
            args,
            weights,
            input,
            views,
            classes,
            tracker,
            printer,
            drawn,
        },
    )
}

impl DetectArgs {
    /// Whether drawn frames go to standard output, and their format if it is given.
    fn piped_video(&self) -> Result<Option<Option<OutputFormat>>> {
        let is_piped = self.output.as_deref() == Some(Path::new("-"));
        let format = match self.format {
            Some(Format::Y4m) => Some(OutputFormat::Y4m),
            Some(Format::Mjpeg) => Some(OutputFormat::Mjpeg),
            _ => None,
        };
        match (is_piped, format, self.format) {
            (false, Some(_), _) => bail!(
                "--format y4m and mjpeg write drawn frames to standard output: add --output -"
            ),
            (true, None, Some(_)) => bail!(
                "--output - writes drawn frames to standard output, as --format y4m or mjpeg; to print \
                 detections too, draw into a folder: --output DIR"
            ),
            (true, format, _) => Ok(Some(format)),
            (false, None, _) => Ok(None),
        }
    }

    fn printed(&self) -> Format {
        self.format.unwrap_or(Format::Table)
    }

    /// Numbers of the classes to report; none means all.
    fn wanted_classes(&self, config: &FasterRcnnConfig) -> Result<Option<Vec<usize>>> {
        if self.classes.is_empty() {
            return Ok(None);
        }
        let number = |wanted: &String| {
            let wanted = wanted.trim();
            find_class(wanted, &config.class_names, config.num_classes).with_context(|| {
                let names = config.class_names.iter().skip(1).map(String::as_str);
                let known: Vec<&str> = names.filter(|name| *name != UNUSED).collect();
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
    input: Input,
    views: Option<Views>,
    classes: Option<Vec<usize>>,
    tracker: Option<Tracker>,
    printer: Printer,
    drawn: Drawn,
}

/// Where pictures go once they are drawn on.
enum Drawn {
    Nothing,
    Pictures(PictureFolder, Guard),
    Video(PipedVideo),
}

impl Drawn {
    fn is_wanted(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// Writes a picture made from the file of this index, or from a frame.
    fn write(&mut self, image: &RgbImage, index: usize, frame: Option<Frame>) -> Result<()> {
        match (self, frame) {
            (Self::Nothing, _) => Ok(()),
            (Self::Video(video), _) => video.write(image),
            (Self::Pictures(folder, guard), Some(frame)) if !frame.is_file => {
                folder.write_frame(index, frame.number, image, guard)
            }
            (Self::Pictures(folder, _), _) => folder.write(index, image),
        }
    }
}

/// A picture and what was found in it, on its way to be written.
struct Finding {
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
            input,
            views,
            classes,
            mut tracker,
            printer,
            drawn,
        } = self;
        let ids = image_ids(input.files());
        let in_parts = !drawn.is_wanted() && in_tiles_alone(views.as_ref());
        let batching = Batching::new::<B>(&weights.config.transform);
        // Where tiles are computed together, a picture may be large: no more of them are held than must be.
        let (progress, together, ahead) = match views {
            Some(_) => (progress_bar_in_parts(ids.len(), "images"), 1, 0),
            None => {
                let together = args.batch_size.saturating_mul(batching.concurrent());
                let progress = progress_bar(ids.len(), "images");
                (progress, together, together.min(MOST_AHEAD))
            }
        };
        let is_live = matches!(input, Input::Stream(_));
        let (read, pictures) = sync_channel(ahead);
        let (found, findings) = sync_channel(ahead);
        // It may wait for a frame that never comes, when nobody wants pictures any more: the program ends without it.
        thread::spawn(move || {
            let send = |picture| match read.send(picture) {
                Ok(()) => Continue(()),
                Err(_) => Break(()),
            };
            let _ = input.read(in_parts, send);
        });
        let (failed, done) = thread::scope(|scope| {
            let model = args.model.load::<B>(weights, &devices[0])?;
            let model = model.cast(args.compute.dtype.into())?;
            let writer = scope.spawn(|| write(&ids, findings, printer, drawn, &progress));

            let failed = Cell::new(0);
            let report = |error: &anyhow::Error| {
                let help = error.downcast_ref().map_or("", tiles::help);
                progress.suspend(|| eprintln!("error: {error}{help}"));
                progress.inc(1);
                failed.set(failed.get() + 1);
            };
            let next = |wait: bool| loop {
                let picture = match wait {
                    true => pictures.recv().ok()?,
                    false => pictures.try_recv().ok()?,
                };
                match picture {
                    Ok(picture) => return Some(picture),
                    Err(error) => report(&error),
                }
            };
            let mut done = 0;
            'batches: while let Some(first) = next(true) {
                let mut batch: Vec<Picture> = vec![first];
                // A batch waits to be full, but not for another beside it. Frames that are there already go together, but
                // none waits for the next.
                while batch.len() < together {
                    let is_full = batch.len().is_multiple_of(args.batch_size);
                    match next(!is_live && !is_full) {
                        Some(picture) => batch.push(picture),
                        None => break,
                    }
                }
                let detections = match &views {
                    Some(views) => batch
                        .iter_mut()
                        .map(|picture| picture.pixels.look(&model, views, &progress, &devices[0]))
                        .collect(),
                    None => batching.detect(&batch, args.batch_size, |batch| {
                        detect(&model, batch, &devices[0])
                    }),
                };
                let detections: Vec<Instances> = match detections {
                    Ok(detections) => detections,
                    // Damage far down a picture that is read part by part.
                    Err(error) if error.is::<ImageError>() => {
                        report(&error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                done += batch.len();
                for (picture, mut detections) in batch.into_iter().zip(detections) {
                    if let Some(classes) = &classes {
                        detections.retain(|object| classes.contains(&object.label));
                    }
                    if let Some(tracker) = &mut tracker {
                        // Each animation is a video of its own.
                        if picture.frame.is_some_and(|frame| frame.number == 0) {
                            tracker.reset();
                        }
                        detections = tracker.update(&detections);
                    }
                    detections.paste_masks(picture.pixels.size(), MASK_THRESHOLD);
                    detections.mask_probabilities = None;
                    let finding = Finding {
                        picture,
                        detections,
                    };
                    // The writer tells itself why it wants no more.
                    if found.send(finding).is_err() {
                        break 'batches;
                    }
                }
            }
            drop((found, pictures));
            writer.join().expect("the writer does not panic")?;
            anyhow::Ok((failed.get(), done))
        })?;
        match (failed, done) {
            (0, 0) => bail!("there are no frames"),
            (0, _) => Ok(Outcome::Done),
            (_, 1..) => Ok(Outcome::SomeFailed),
            // The reason has been said.
            (1, 0) => Ok(Outcome::AllFailed),
            (n, 0) => bail!("none of the {n} pictures could be read"),
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
    pictures: &[Picture],
    device: &B::Device,
) -> Result<Vec<Instances>> {
    let tensors = pictures.iter().filter_map(|picture| match &picture.pixels {
        Pixels::Whole(image) => Some(to_tensor::<B>(image, device)),
        // Only tiles are read from these.
        Pixels::Strips(_) => None,
    });
    model
        .detect(&tensors.collect::<Vec<_>>())
        .map_err(|error| match error.image() {
            Some(index) => anyhow!("{}: {error}", pictures[index].name),
            None => error.into(),
        })
}

/// Prints and draws what is found, until there is no more.
fn write(
    ids: &[u64],
    findings: Receiver<Finding>,
    mut printer: Printer,
    mut drawn: Drawn,
    progress: &ProgressBar,
) -> Result<()> {
    for finding in findings {
        let (mut picture, found) = (finding.picture, finding.detections);
        let (index, frame) = (picture.index, picture.frame);
        let id = frame.map_or_else(|| ids[index], |frame| frame.number);
        progress.suspend(|| {
            match picture.left_out {
                0 => {}
                1 => eprintln!(
                    "note: {}: its other frame was left out (--frames)",
                    picture.name
                ),
                n => eprintln!(
                    "note: {}: its {n} other frames were left out (--frames)",
                    picture.name
                ),
            }
            printer.image(&picture, id, &found)
        })?;
        if let (Pixels::Whole(image), true) = (&mut picture.pixels, drawn.is_wanted()) {
            printer.draw(image, &found);
            drawn.write(image, index, frame)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    printer.finish()
}
