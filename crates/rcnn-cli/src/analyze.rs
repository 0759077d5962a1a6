//! `rcnn analyze`: what each layer costs and what it is good for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use rcnn_analyze::{Analysis, FeatureMap, Sample, analyze, draw_chart, feature_maps};
use rcnn_burn::image::open_rgb;
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::weights::Weights;
use rcnn_data::detect_format;

use crate::Outcome;
use crate::backend::{DeviceName, Job, default_device, run_on};
use crate::data::{self, DatasetArgs, evenly, files_of};
use crate::output::ReportFormat;
use crate::overwrite::{Guard, OverwriteArgs, check_report};
use crate::progress::progress_bar;
use crate::source::{ModelArgs, positive};
use crate::{files, inputs};

/// Measure what each layer of a model costs and contributes
///
/// Measures the parameters, multiply-accumulates, time and output of each layer on a sample of pictures,
/// labelled or not; with labels also the norm of its gradient, and how loss and average precision change
/// without it. Layers that cost most and contribute least come first, with the option of `rcnn surgery`
/// that removes them.
#[derive(Args)]
#[command(after_help = "Examples:
  rcnn analyze cells.bpk --data cells --split test
  rcnn analyze cells.bpk --data cells --count 64 --output report/
  rcnn analyze cells.bpk --data pictures/ --feature-maps 'backbone.body.layer1.*' --output report/")]
pub(crate) struct AnalyzeArgs {
    /// Weights: a file, or the name of published weights
    #[arg(value_name = "MODEL")]
    weights: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    dataset: DatasetArgs,
    /// Number of pictures to measure on, taken evenly from the data
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive)]
    count: usize,
    /// Where to compute, as `rcnn detect --device`
    #[arg(long, value_name = "D", default_value_t = default_device())]
    device: DeviceName,
    /// Output format
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    format: ReportFormat,
    /// Draw the outputs, for the first picture, of the layers whose names match a glob; may be repeated
    #[arg(long, value_name = "LAYER", requires = "output")]
    feature_maps: Vec<String>,
    /// Write the numbers, a chart (analysis.png) and feature maps into this folder
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteArgs,
}

pub(crate) fn run(args: AnalyzeArgs) -> Result<Outcome> {
    let mut weights = args.model.open(&args.weights)?;
    let (samples, mut inputs) = samples(&args, &mut weights)?;
    inputs.extend(args.model.files().map(PathBuf::from));
    inputs.push(args.weights.clone());
    let guard = Guard::new(args.overwrite, inputs);
    if let Some(folder) = &args.output {
        check_report(folder, &["analysis.png"], &["analysis.json"], &guard)?;
        files::create_folder(folder)?;
    }
    let job = Analyze {
        weights: &weights,
        samples: &samples,
        args: &args,
        guard: &guard,
    };
    let (analysis, maps) = run_on(std::slice::from_ref(&args.device), job)?;
    let json = serde_json::to_string_pretty(&analysis)?;
    args.format.print(&analysis, &json)?;
    if let Some(folder) = &args.output {
        files::write_text(&folder.join("analysis.json"), &json)?;
        files::write_picture(&folder.join("analysis.png"), &draw_chart(&analysis))?;
        for map in maps {
            files::write_picture(&map_path(folder, &map), &map.picture)?;
        }
    }
    Ok(Outcome::Done)
}

/// Pictures spread evenly over the data, with what is on them where that is known, and all files of
/// the data.
fn samples(args: &AnalyzeArgs, weights: &mut Weights) -> Result<(Vec<Sample>, Vec<PathBuf>)> {
    if !args.dataset.data.exists() {
        bail!("{}: no such folder", args.dataset.data.display());
    }
    let has_labels =
        args.dataset.read.data_format.is_some() || detect_format(&args.dataset.data).is_ok();
    if !has_labels {
        let folder = std::slice::from_ref(&args.dataset.data);
        let pictures = inputs::expand(folder, false, inputs::Order::ByName)
            .context("neither labelled data nor a folder of pictures")?;
        if let Some(split) = &args.dataset.read.split {
            bail!(
                "--split {split}: {} has no labels, and so no splits",
                args.dataset.data.display()
            );
        }
        eprintln!("no labels: gradients and the effect of removing layers are not measured");
        let image = |path: &PathBuf| open_rgb(path).map(|image| Sample { image, truth: None });
        let chosen = evenly(&pictures, args.count).into_iter();
        return Ok((chosen.map(image).collect::<Result<_, _>>()?, pictures));
    }
    let (dataset, names) = data::open_for(weights, &args.dataset)?;
    weights.config.class_names = names;
    let labelled = |sample: &rcnn_data::Sample| -> Result<Sample> {
        Ok(Sample {
            image: open_rgb(&sample.image)?,
            truth: Some(sample.ground_truth()),
        })
    };
    let chosen = evenly(&dataset.samples, args.count);
    let samples = chosen.into_iter().map(labelled).collect::<Result<_>>()?;
    Ok((samples, files_of(&dataset).map(PathBuf::from).collect()))
}

struct Analyze<'a> {
    weights: &'a Weights,
    samples: &'a [Sample],
    args: &'a AnalyzeArgs,
    guard: &'a Guard,
}

fn map_path(folder: &Path, map: &FeatureMap) -> PathBuf {
    folder.join(format!("{}.png", map.name))
}

impl Job for Analyze<'_> {
    type Output = (Analysis, Vec<FeatureMap>);

    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<Self::Output> {
        let device = &devices[0];
        let patterns = &self.args.feature_maps;
        // First, as a wrong name should not cost the rest.
        let maps = match patterns.is_empty() {
            true => Vec::new(),
            false => {
                let model = self.weights.load::<B>(device)?;
                feature_maps(&model, &self.samples[0].image, patterns, device)?
            }
        };
        for map in &maps {
            let folder = self.args.output.as_deref().unwrap_or(Path::new(""));
            self.guard
                .check(&map_path(folder, map), rcnn_image::is_ours)?;
        }
        let progress = progress_bar(3 * self.samples.len(), "passes");
        let analysis = analyze::<B>(self.weights, self.samples, device, &mut |done, all| {
            progress.set_length(all as u64);
            progress.set_position(done as u64);
        })?;
        progress.finish_and_clear();
        Ok((analysis, maps))
    }
}
