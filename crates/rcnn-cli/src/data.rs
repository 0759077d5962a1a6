//! `rcnn data`: checks of data sets, conversion between their formats, and previews.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use rcnn_burn::weights::Weights;
use rcnn_data::check::{AnchorSpec, check};
use rcnn_data::convert::{Pictures, convert};
use rcnn_data::{DataError, Dataset, Fields, Format, ProblemKind, Problems, ReadOptions, Reading};
use rcnn_types::UNUSED;

use crate::Outcome;
use crate::preview::{self, PreviewArgs};
use crate::tile_data::{self, TileDataArgs};

/// Check, convert, preview and tile data sets: COCO JSON, Pascal VOC or YOLO
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn data check cells/
  rcnn data preview --data cells/ -o preview.png
  rcnn data convert cells/ --to coco -o cells-coco/")]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Show what is in a data set and what is wrong with it
    ///
    /// Counts classes, lists degenerate, duplicate and out-of-image boxes, images without labels and
    /// labels without images, and shows how well the anchors fit. The exit status is 3 if boxes or
    /// files are invalid.
    Check(CheckArgs),
    /// Convert a data set to another format
    Convert(ConvertArgs),
    Preview(PreviewArgs),
    Tile(TileDataArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:
  rcnn data check cells/
  rcnn data check cells/ --split test --json > problems.json
  rcnn data check labels.json --images photos/ --quick")]
struct CheckArgs {
    /// Folder of the data, or its COCO .json, YOLO .yaml or darknet .data file
    data: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Pixels that the shorter side of an image is resized to, to judge the anchors by
    #[arg(long, value_name = "N", default_value = "800")]
    min_size: u32,
    /// Maximum number of pixels of the longer side
    #[arg(long, value_name = "N", default_value = "1333")]
    max_size: u32,
    /// Read only the headers of the pictures
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:
  rcnn data convert cells/ --to coco -o cells-coco/
  rcnn data convert labels.json --images photos/ --to yolo -o yolo/ --link")]
struct ConvertArgs {
    /// Folder of the data, or its COCO .json, YOLO .yaml or darknet .data file
    data: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Folder to write, new or empty
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Format to write: coco, voc or yolo
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    /// Leave out boxes and files that are invalid, and say how many. All pictures are decoded once to find them
    #[arg(long)]
    skip_invalid: bool,
    /// Make links to the pictures instead of copies
    #[arg(long)]
    link: bool,
}

/// How a command reads its data.
#[derive(Args)]
pub(crate) struct ReadArgs {
    /// Split of the data, such as test
    #[arg(long, value_name = "NAME")]
    pub(crate) split: Option<String>,
    /// Format of the labels, where there are several: coco, voc or yolo
    #[arg(long, value_name = "FORMAT", hide_short_help = true)]
    pub(crate) data_format: Option<Format>,
    /// Folder of the pictures, where they are not with the labels
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    images: Option<PathBuf>,
    /// Cut boxes that extend beyond the picture, which are invalid otherwise
    #[arg(long, hide_short_help = true)]
    clip: bool,
}

impl ReadArgs {
    pub(crate) fn options(&self) -> ReadOptions {
        ReadOptions {
            format: self.data_format,
            images: self.images.clone(),
            split: self.split.clone(),
            clip: self.clip,
            ..Default::default()
        }
    }
}

/// Which data a command works on.
#[derive(Args)]
pub(crate) struct DatasetArgs {
    /// Folder of the data, or its COCO .json, YOLO .yaml or darknet .data file
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Leave out boxes and files that are invalid, and say how many
    #[arg(long)]
    pub(crate) skip_invalid: bool,
}

impl DatasetArgs {
    /// Reads them, with the labels of a model that has class names, and these fields besides boxes.
    pub(crate) fn open(&self, class_names: Option<Vec<String>>, fields: Fields) -> Result<Dataset> {
        let options = ReadOptions {
            class_names,
            keypoint_files: fields.keypoints && !fields.masks,
            fields,
            ..self.read.options()
        };
        open(&self.data, &options, self.skip_invalid)
    }
}

/// The files that a data set was read from.
pub(crate) fn files_of(dataset: &Dataset) -> impl Iterator<Item = &Path> {
    let samples = dataset.samples.iter();
    let files = samples.flat_map(|s| s.source.file.iter().chain([&s.image]));
    files.chain([&dataset.root]).map(PathBuf::as_path)
}

/// Picks up to this many of them at equal intervals, starting with the first.
pub(crate) fn evenly<T>(all: &[T], most: usize) -> Vec<&T> {
    let count = most.min(all.len());
    (0..count).map(|i| &all[i * all.len() / count]).collect()
}

/// Reads a data set; says what it lacks, and how much of it is invalid and left out, where that is
/// allowed.
pub(crate) fn open(root: &Path, options: &ReadOptions, skip_invalid: bool) -> Result<Dataset> {
    let reading = rcnn_data::read(root, options)?;
    if let Some(names) = &options.class_names {
        check_names(names, &reading, skip_invalid)?;
    }
    let skipped = reading.problems.invalid();
    let clip = !options.clip && has_outside(&reading.problems);
    if let Some(notes) = reading.problems.notes() {
        eprintln!("{}: {notes}; `rcnn data check` has more", root.display());
    }
    let dataset = reading
        .accept(skip_invalid)
        .map_err(|error| match help(&error) {
            Some(help) => anyhow::Error::from(error).context(help),
            None => error.into(),
        })?;
    if skipped > 0 {
        let clip = if clip { CLIP_KEEPS } else { "" };
        eprintln!("left out {skipped} invalid boxes or files{clip}");
    }
    Ok(dataset)
}

/// The end of what is said of boxes that are left out.
const CLIP_KEEPS: &str = " (--clip keeps boxes that reach beyond their image, cut to it)";

/// The message about an image that cannot be decoded.
pub(crate) const UNREADABLE: &str = "an image that can't be read (`rcnn data check` finds all of them, --skip-invalid leaves them out)";

/// Whether there are boxes that reach beyond their image.
fn has_outside(problems: &Problems) -> bool {
    problems.counts().contains_key(&ProblemKind::OutsideImage)
}

/// The options that help with invalid data.
pub(crate) fn help(error: &DataError) -> Option<&'static str> {
    let DataError::Invalid { problems } = error else {
        return None;
    };
    Some(match has_outside(problems) {
        true => {
            "invalid data (--clip cuts boxes to their image, --skip-invalid leaves out all that is invalid)"
        }
        false => "invalid data (--skip-invalid leaves out all that is invalid)",
    })
}

/// Whether a model knows the classes of the data.
fn check_names(names: &[String], reading: &Reading, skip_invalid: bool) -> Result<()> {
    let own = &reading.own_classes;
    let unknown = own.iter().filter(|name| !names.contains(name));
    let unknown: Vec<&str> = unknown.map(String::as_str).collect();
    let kind = ProblemKind::UnknownLabel;
    if unknown.is_empty() || !reading.problems.counts().contains_key(&kind) {
        return Ok(());
    }
    let known = names.iter().skip(1).filter(|name| *name != UNUSED);
    let known: Vec<&str> = known.map(String::as_str).collect();
    let message = format!(
        "the model's classes are {}; those of the data are {}: the model does not know {}",
        known.join(", "),
        own.join(", "),
        unknown.join(", ")
    );
    if unknown.len() == own.len() {
        bail!("{message} (--labels names the model's classes)");
    }
    if !skip_invalid {
        bail!(
            "{message} (--labels names the model's classes, --skip-invalid leaves the others out)"
        );
    }
    eprintln!("{message}");
    Ok(())
}

/// Reads the data that a model is tried on, with the model's labels, and the names of the classes:
/// the model's or, where it has none, the data's.
pub(crate) fn open_for(weights: &Weights, args: &DatasetArgs) -> Result<(Dataset, Vec<String>)> {
    let names = &weights.config.class_names;
    // By name, so that data and model may number their classes differently.
    let roi_heads = &weights.config.roi_heads;
    let fields = Fields {
        masks: roi_heads.mask.is_some(),
        keypoints: roi_heads.keypoint.is_some(),
        extras: false,
    };
    let dataset = args.open((!names.is_empty()).then(|| names.clone()), fields)?;
    if !names.is_empty() {
        return Ok((dataset, names.clone()));
    }
    let (found, wanted) = (dataset.class_names.len(), weights.config.num_classes);
    if found != wanted {
        bail!(
            "the weights carry no class names and have {wanted} classes, the data {found} \
             (both with the background); name the model's with --labels"
        );
    }
    let names = dataset.class_names.clone();
    eprintln!(
        "the weights carry no class names; taking the data's in this order (--labels gives others): {}",
        names[1..].join(", ")
    );
    Ok((dataset, names))
}

pub(crate) fn run(args: DataArgs) -> Result<Outcome> {
    match args.command {
        DataCommand::Check(args) => {
            let options = ReadOptions {
                decode: !args.quick,
                fields: Fields {
                    extras: false,
                    ..Fields::default()
                },
                ..args.read.options()
            };
            let reading = rcnn_data::read(&args.data, &options)?;
            let (min_size, max_size) = (args.min_size.max(1), args.max_size.max(1));
            let anchors = AnchorSpec {
                min_size,
                max_size,
                ..Default::default()
            };
            let report = check(&reading, &anchors, 0);
            let mut out = std::io::stdout().lock();
            match args.json {
                true => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
                false => writeln!(out, "{report}")?,
            }
            if !options.clip && has_outside(&reading.problems) {
                eprintln!("boxes reach beyond their image{CLIP_KEEPS}");
            }
            Ok(if reading.problems.invalid() > 0 {
                Outcome::SomeFailed
            } else {
                Outcome::Done
            })
        }
        DataCommand::Convert(args) => {
            let options = ReadOptions {
                decode: args.skip_invalid,
                // Masks and keypoints are kept as their text.
                fields: Fields {
                    extras: true,
                    ..Fields::NONE
                },
                ..args.read.options()
            };
            let dataset = open(&args.data, &options, args.skip_invalid)?;
            let pictures = if args.link {
                Pictures::Link
            } else {
                Pictures::Copy
            };
            let written = convert(&dataset, &args.output, args.to, pictures)?;
            let output = args.output.display();
            eprintln!(
                "{output}: {} images, {} boxes",
                written.images, written.boxes
            );
            if !written.dropped.is_empty() {
                let kinds = written.dropped.iter();
                let kinds: Vec<_> = kinds.map(|(kind, n)| format!("{n} {kind}")).collect();
                let kinds = kinds.join(", ");
                eprintln!("left out, as {} has no place for them: {kinds}", args.to);
            }
            Ok(Outcome::Done)
        }
        DataCommand::Preview(args) => preview::run(args),
        DataCommand::Tile(args) => tile_data::run(args),
    }
}
