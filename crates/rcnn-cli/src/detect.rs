//! `rcnn detect`: finds objects in pictures.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::Args;
use image::RgbImage;
use rcnn_burn::image::{open_rgb, to_tensor};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::roi::NmsMethod;
use rcnn_burn::weights::Weights;
use rcnn_burn::{FasterRcnnConfig, StandardFasterRcnn};

use crate::Outcome;
use crate::backend::{DeviceName, Job, default_device, run_on};
use crate::inputs;
use crate::output::{ClassNames, Format, PictureFolder, Printer};
use crate::progress::progress_bar;
use crate::source::{BUILT_IN, ModelArgs, positive};

/// Find objects in pictures
///
/// Reads JPEG, PNG, WebP, BMP, TIFF and GIF (first frame). A picture that can't be read is
/// reported, the rest goes on.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn detect --output out/ assets/blood-cells.jpg
  rcnn detect --weights fasterrcnn.pth photo.jpg
  rcnn detect --weights COCO_V1 --score-thresh 0.5 --output out/ holiday/
  rcnn detect --weights cells.bpk --classes WBC --format jsonl 'plates/*.png' > found.jsonl")]
pub(crate) struct DetectArgs {
    /// Weights: a .pth, .safetensors or .bpk file, or the name of published ones such as COCO_V1
    /// (`rcnn weights` lists them), which are downloaded once; without, the detector of blood cells
    /// that comes along
    #[arg(long, short, value_name = "FILE|NAME", default_value = BUILT_IN)]
    weights: String,
    #[command(flatten)]
    model: ModelArgs,
    /// Where to compute, as far as built in: flex, ndarray, wgpu or cuda, the latter two with a
    /// number for another card than the first, such as cuda:1
    #[arg(long, value_name = "D", default_value_t = default_device())]
    device: DeviceName,
    /// Lowest score of a detection, 0 to 1 [default: the model's; torchvision's is 0.05]
    #[arg(long, value_name = "F", value_parser = unit::<f32>)]
    score_thresh: Option<f32>,
    /// IoU above which the lower-scored of two detections of a class goes [default: the model's;
    /// torchvision's is 0.5]
    #[arg(long, value_name = "F", value_parser = unit::<f32>)]
    nms_thresh: Option<f32>,
    /// Let detections of different classes suppress each other
    #[arg(long)]
    class_agnostic_nms: bool,
    /// Lower the scores of overlapped detections instead of dropping them (Gaussian Soft-NMS)
    #[arg(long)]
    soft_nms: bool,
    /// Report these classes only, by name or number
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    classes: Vec<String>,
    /// Most detections of an image [default: the model's; torchvision's is 100]
    #[arg(long, value_name = "N")]
    detections_per_img: Option<usize>,
    /// Images computed together
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    batch_size: usize,
    /// Write each picture with its detections drawn in into this folder
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Pictures: files, folders or patterns
    #[arg(required = true, value_name = "IMAGE|DIR|GLOB")]
    images: Vec<String>,
}

/// A number from 0 to 1, for clap.
pub(crate) fn unit<F: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<F, String> {
    match text.parse() {
        Ok(value) if (F::from(0)..=F::from(1)).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".to_string()),
    }
}

pub(crate) fn run(args: DetectArgs) -> Result<Outcome> {
    let images = inputs::expand(&args.images)?;
    let mut weights = args.model.open(&args.weights)?;
    args.apply(&mut weights.config);
    let classes = args.wanted_classes(&weights.config)?;
    let folder = args
        .output
        .as_deref()
        .map(PictureFolder::create)
        .transpose()?;
    let printer = Printer::new(args.format, ClassNames(weights.config.class_names.clone()));
    let device = args.device.clone();
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
    fn apply(&self, config: &mut FasterRcnnConfig) {
        let roi_heads = &mut config.roi_heads;
        if let Some(score_thresh) = self.score_thresh {
            roi_heads.score_thresh = score_thresh;
        }
        if let Some(nms_thresh) = self.nms_thresh {
            roi_heads.nms_thresh = f64::from(nms_thresh);
        }
        if let Some(most) = self.detections_per_img {
            roi_heads.detections_per_img = most;
        }
        roi_heads.nms_class_agnostic |= self.class_agnostic_nms;
        if self.soft_nms {
            roi_heads.nms_method = NmsMethod::SoftGaussian { sigma: 0.5 };
        }
    }

    /// Numbers of the classes to report; none means all.
    fn wanted_classes(&self, config: &FasterRcnnConfig) -> Result<Option<Vec<usize>>> {
        if self.classes.is_empty() {
            return Ok(None);
        }
        let number = |wanted: &String| {
            let wanted = wanted.trim();
            let named = config.class_names.iter().position(|name| name == wanted);
            let number = || {
                wanted
                    .parse()
                    .ok()
                    .filter(|n| (1..config.num_classes).contains(n))
            };
            named.or_else(number).with_context(|| {
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

impl Job for Detect {
    type Output = Outcome;

    fn run<B: DetectionBackend>(mut self, devices: Vec<B::Device>) -> Result<Outcome> {
        let device = &devices[0];
        let model = self.args.model.load::<B>(&self.weights, device)?;
        let progress = progress_bar(self.images.len(), "images");
        let mut failed = 0;
        for paths in std::mem::take(&mut self.images).chunks(self.args.batch_size) {
            let mut batch: Vec<(&Path, RgbImage)> = Vec::new();
            for path in paths {
                match open_rgb(path) {
                    Ok(image) => batch.push((path, image)),
                    Err(error) => {
                        progress.suspend(|| eprintln!("error: {error}"));
                        failed += 1;
                    }
                }
            }
            progress.suspend(|| self.batch(&model, batch, device))?;
            progress.inc(paths.len() as u64);
        }
        progress.finish_and_clear();
        self.printer.finish()?;
        let total = progress.length().unwrap_or(0);
        match failed {
            0 => Ok(Outcome::Done),
            n if n < total => Ok(Outcome::SomeFailed),
            1 => bail!("the picture could not be read"),
            n => bail!("none of the {n} pictures could be read"),
        }
    }
}

impl Detect {
    fn batch<B: DetectionBackend>(
        &mut self,
        model: &StandardFasterRcnn<B>,
        batch: Vec<(&Path, RgbImage)>,
        device: &B::Device,
    ) -> Result<()> {
        let tensors: Vec<_> = batch
            .iter()
            .map(|(_, image)| to_tensor::<B>(image, device))
            .collect();
        for ((path, mut image), mut found) in batch.into_iter().zip(model.detect(&tensors)?) {
            if let Some(classes) = &self.classes {
                found.retain(|_, label, _| classes.contains(&label));
            }
            self.printer.image(path, &image, &found)?;
            if let Some(folder) = &mut self.folder {
                self.printer.draw(&mut image, &found);
                folder.write(path, &image)?;
            }
        }
        Ok(())
    }
}
