//! Source of weights: a file, or torchvision's published ones by name.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use rcnn_burn::bundled::{self, BLOOD_CELLS};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::weights::{self, Checkpoint, Weights, WeightsError, published};
use rcnn_burn::{FasterRcnnConfig, StandardFasterRcnn};
use rcnn_types::parse_class_names;

use crate::files::{mebibytes, read_text};

/// Which of the models in a file is meant.
#[derive(Args)]
pub(crate) struct PrefixArgs {
    /// Prefix of the weights' names in a file that holds several models:
    /// model_ema, state_dict.detector. A common prefix is found and removed
    #[arg(
        long,
        visible_alias = "key",
        value_name = "NAMES",
        hide_short_help = true
    )]
    pub(crate) prefix: Option<String>,
}

impl PrefixArgs {
    /// Opens a checkpoint: a file, published weights, or the one of the program. Says what is left out of it.
    pub(crate) fn checkpoint(&self, source: &Path) -> Result<Checkpoint> {
        const NOTES: usize = 3;
        let checkpoint = match source == Path::new(BLOOD_CELLS) {
            true => Checkpoint::from_static(BLOOD_CELLS, bundled::FILE)?,
            false => Checkpoint::open(resolve(source)?)?,
        };
        let (notes, source) = (&checkpoint.notes, source.display());
        for note in notes.iter().take(NOTES) {
            eprintln!("note: {source}: left out: {note}");
        }
        if let Some(more @ 1..) = notes.len().checked_sub(NOTES) {
            eprintln!("note: {source}: and {more} more");
        }
        Ok(match &self.prefix {
            Some(prefix) => checkpoint.within(prefix)?,
            None => checkpoint,
        })
    }
}

/// Which network the weights belong to, where the file does not say.
#[derive(Args)]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    prefix: PrefixArgs,
    /// Network of the weights, where it cannot be inferred: fasterrcnn_resnet50_fpn,
    /// fasterrcnn_vgg16, or a backbone such as resnext50_32x4d, vgg16 or mobilenet_v2_fpn
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    model: Option<String>,
    /// Number of classes of the model, background included; with --model
    #[arg(long, value_name = "N", hide_short_help = true)]
    num_classes: Option<usize>,
    /// JSON file of parameters under torchvision's names (min_size, rpn_nms_thresh,
    /// rpn_anchor_generator, ...), which override those of the weights
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    config: Option<PathBuf>,
    /// File of class names, one per line, without the background (or with it as the first line)
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Pixels to resize the shorter side to [default: the model's; torchvision's is 800]
    #[arg(long, value_name = "N", value_parser = positive, hide_short_help = true)]
    min_size: Option<usize>,
    /// Maximum number of pixels of the longer side after resizing [default: the model's; torchvision's is 1333]
    #[arg(long, value_name = "N", value_parser = positive, hide_short_help = true)]
    max_size: Option<usize>,
    /// Load the weights that fit, initialise the rest at random, and list them
    #[arg(long, hide_short_help = true)]
    pub(crate) partial: bool,
}

impl ModelArgs {
    /// The files that they name.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.config, &self.labels];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// Makes the model, as strictly as asked. The weights go, and with them what a compressed file was inflated to.
    pub(crate) fn load<B: DetectionBackend>(
        &self,
        weights: Weights,
        device: &B::Device,
    ) -> Result<StandardFasterRcnn<B>> {
        if !self.partial {
            return Ok(weights.load(device)?);
        }
        let (model, report) = weights.load_partial(device)?;
        eprint!("{} tensors loaded\n{report}", report.loaded.len());
        Ok(model)
    }

    /// Opens the weights with the configuration that file and arguments give together.
    pub(crate) fn open(&self, source: &Path) -> Result<Weights> {
        let overrides = self.config.as_deref().map(read_json).transpose()?;
        let overrides = overrides.unwrap_or_default();
        let file = self.config.as_deref().unwrap_or(Path::new("--config"));
        let no_configuration = || format!("{}: not a valid configuration", file.display());
        let overridden = |config: FasterRcnnConfig| {
            let config = config.overridden(&overrides);
            let config = config.and_then(|config| config.validate().map(|()| config));
            config.with_context(no_configuration)
        };
        let checkpoint = self.prefix.checkpoint(source)?;
        let mut weights = match &self.model {
            Some(model) => {
                let classes = self
                    .num_classes
                    .context("--model needs --num-classes, too")?;
                let config = FasterRcnnConfig::named(model, classes).context("--model")?;
                Weights::from_checkpoint_with(&checkpoint, overridden(config)?)?
            }
            None => match Weights::from_checkpoint_overridden(&checkpoint, &overrides) {
                // The configuration file may hold what the names do not tell.
                Err(WeightsError::Unrecognized { .. }) if overrides.contains_key("backbone") => {
                    let config = overridden(FasterRcnnConfig::default())?;
                    Weights::from_checkpoint_with(&checkpoint, config)?
                }
                Err(WeightsError::Config { source, .. }) if !overrides.is_empty() => {
                    return Err(source).with_context(no_configuration);
                }
                weights => weights?,
            },
        };
        if self.model.is_none()
            && let Some(asked) = self.num_classes
            && asked != weights.config.num_classes
        {
            let found = weights.config.num_classes;
            let source = source.display();
            bail!("{source}: the weights have {found} classes, not {asked}");
        }
        if let Some(min_size) = self.min_size {
            weights.config.transform.min_size = vec![min_size];
        }
        if let Some(max_size) = self.max_size {
            weights.config.transform.max_size = max_size;
        }
        if let Some(file) = &self.labels {
            let text = read_text(file)?;
            let names = parse_class_names(&text, weights.config.num_classes);
            weights.config.class_names = names.with_context(|| file.display().to_string())?;
        }
        Ok(weights)
    }
}

/// A whole number from 1, for clap.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if value > 0 => Ok(value),
        _ => Err("expected a whole number from 1".to_string()),
    }
}

/// The file that a path or the name of published weights means.
pub(crate) fn resolve(source: &Path) -> Result<PathBuf> {
    if weights::exists(source) {
        return Ok(source.into());
    }
    let name = source.to_string_lossy();
    if name == BLOOD_CELLS {
        bail!(
            "{BLOOD_CELLS} is part of the program; `rcnn convert {BLOOD_CELLS} -o cells.bpk` makes a file \
             of it"
        );
    }
    // `ResNet50_Weights.IMAGENET1K_V2`, but not `model.pth`.
    let ending = source.extension().unwrap_or_default().to_string_lossy();
    let name_like = !name.contains(['/', '\\']) && !ending.contains(char::is_lowercase);
    match published::find(&name) {
        Ok(published) => fetch(published),
        Err(_) if name_like => {
            bail!(
                "{name}: no such file, nor published weights of this name (`rcnn weights` lists them)"
            )
        }
        Err(_) => bail!("{name}: no such file"),
    }
}

#[cfg(feature = "download")]
fn fetch(published: &published::Published) -> Result<PathBuf> {
    use rcnn_burn::weights::download::{self, DownloadOptions};

    let options = DownloadOptions {
        progress: true,
        ..Default::default()
    };
    Ok(download::fetch(published, &options)?)
}

#[cfg(not(feature = "download"))]
fn fetch(published: &published::Published) -> Result<PathBuf> {
    bail!(
        "{} can't be downloaded by this binary, which was built without --features download; get {} \
         and give its path",
        published.full_name(),
        published.url
    )
}

fn read_json(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>> {
    let text = read_text(path)?;
    serde_json::from_str(&text).with_context(|| format!("{}: not a JSON object", path.display()))
}

/// Prints the weights that go by a name.
pub(crate) fn list() -> Result<()> {
    let mut out = io::stdout().lock();
    let size = mebibytes(bundled::FILE.len() as u64);
    let uses = "detect    AP50 0.9";
    writeln!(
        out,
        "{BLOOD_CELLS:<56} {uses:<38} part of the program ({size})"
    )?;
    for p in published::all() {
        let size = format!("{:.0} MiB", p.file_size);
        let use_for = if p.is_detector() {
            "detect"
        } else {
            "backbone"
        };
        writeln!(
            out,
            "{:<56} {use_for:<9} {:<28} {:>4} classes {size:>9}  {}",
            p.full_name(),
            p.metric.to_string(),
            p.num_classes,
            p.url
        )?;
    }
    let tensorflow = published::TENSORFLOW;
    writeln!(
        out,
        "{:<56} {:<9} {:<28} {:>4} classes {:>9}  {}",
        tensorflow.name,
        "detect",
        format!("box mAP {:.1}", tensorflow.box_map),
        tensorflow.num_classes,
        format!(
            "{:.0} MiB",
            tensorflow.file_size as f64 / f64::from(1 << 20)
        ),
        tensorflow.url
    )?;
    writeln!(
        out,
        "\nThe last is TensorFlow's, not downloaded here: check the archive's SHA-256,\n{},\nunpack it and give its \
         folder. It was not available to the tests, which use models of the same\nlayers, names and formats, written \
         by TensorFlow.",
        tensorflow.sha256
    )?;
    Ok(())
}
