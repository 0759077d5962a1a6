//! `rcnn train`: from labelled pictures to a detector.

mod args;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcnn_burn::ops::DetectionBackend;
use rcnn_data::LoadError;
use rcnn_train::{Progress, Report, Run, TrainConfig, TrainError};

use crate::backend::{Job, run_on};
use crate::overwrite::is_same_file;
use crate::source::resolve;
use crate::{Outcome, data, files};

pub(crate) use args::{SplitArgs, TrainArgs};

pub(crate) fn run(args: TrainArgs) -> Result<Outcome> {
    let run = match args.resume {
        true => resume(&args)?,
        false => create(&args)?,
    };
    let job = Train {
        run: &run,
        progress: args.progress(),
    };
    let report = run_on(&args.device, job).map_err(|error| explained(error, &run, &args))?;
    println!(
        "{} {}; best AP {:.3} after epoch {}: {}",
        report.epochs,
        if report.epochs == 1 {
            "epoch"
        } else {
            "epochs"
        },
        report.best_ap,
        report.best_epoch,
        args.out.join("best.bpk").display()
    );
    Ok(Outcome::Done)
}

/// A failure with the options that get on.
fn explained(error: anyhow::Error, run: &Run, args: &TrainArgs) -> anyhow::Error {
    let out = args.out.display();
    match error.downcast_ref() {
        Some(TrainError::DataChanged { .. }) => error.context(
            "the data of the run have changed; --accept-changed-data continues with the new data",
        ),
        Some(TrainError::Data(data)) => match data::help(data) {
            Some(help) => error.context(help),
            None => error,
        },
        Some(TrainError::Load(LoadError::Decode { .. })) => error.context(data::UNREADABLE),
        // It would come to the same end.
        Some(TrainError::NotFinite { .. } | TrainError::Again { .. }) => error,
        _ if args.resume => error,
        _ => match run.last_checkpoint() {
            Ok(Some(epoch)) => error.context(format!(
                "{out}: --resume continues the run after epoch {epoch}"
            )),
            _ => error,
        },
    }
}

fn create(args: &TrainArgs) -> Result<Run> {
    let config = described(args.config.as_deref(), |config| args.apply(config))?;
    if config.data.as_os_str().is_empty() {
        bail!("no data: give --data, or `data` in the TOML file");
    }
    let [copy, command] = ["given.toml", "command.txt"].map(|name| args.out.join(name));
    let is_given = args
        .config
        .as_ref()
        .is_some_and(|file| is_same_file(file, &copy));
    // Without run.toml they are of no run.
    if !args.out.join("run.toml").exists() {
        for path in [&copy, &command] {
            if path.exists() && !(is_given && *path == copy) {
                bail!(
                    "{}: this file is in the way; choose another --out",
                    path.display()
                );
            }
        }
    }
    let run = Run::create(&args.out, config)?;
    // Beside run.toml, which is what they come to: what was asked for.
    if let Some(file) = &args.config
        && !is_given
    {
        fs::copy(file, &copy).with_context(|| copy.display().to_string())?;
    }
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    files::write_text(&command, &(words.collect::<Vec<_>>().join(" ") + "\n"))?;
    Ok(run)
}

fn resume(args: &TrainArgs) -> Result<Run> {
    let mut run = Run::resume(&args.out)?;
    if args.accept_changed_data {
        run.accept_changed_data();
    }
    let mut config = run.config().clone();
    args.apply(&mut config)?;
    let epochs = std::mem::replace(&mut config.epochs, run.config().epochs);
    let other = || {
        format!(
            "{}: a run continues with the options that it started with; to change them, start another run from its weights with --weights {}",
            args.out.join("run.toml").display(),
            args.out.join("last.bpk").display()
        )
    };
    if config != *run.config() {
        bail!(other());
    }
    run.set_epochs(epochs).with_context(other)?;
    Ok(run)
}

/// The description in a file, if there is one, with changes. Paths in the file are relative to it, and weights that are
/// changed are not looked for.
pub(crate) fn described(
    file: Option<&Path>,
    change: impl FnOnce(&mut TrainConfig) -> Result<()>,
) -> Result<TrainConfig> {
    let mut config = TrainConfig::default();
    let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
    if let Some(file) = file {
        let text = files::read_text(file)?;
        config = TrainConfig::from_toml(&text).with_context(|| file.display().to_string())?;
        if !config.data.as_os_str().is_empty() {
            config.data = folder.join(&config.data);
        }
        let paths = [&mut config.images, &mut config.labels];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
    let given = networks(&mut config).map(|path| path.clone());
    change(&mut config)?;
    for (path, given) in networks(&mut config).into_iter().zip(given) {
        if *path != given {
            continue;
        }
        if let Some(path) = path {
            let beside = folder.join(&*path);
            *path = match beside.exists() {
                true => beside,
                false => resolve(path)?,
            };
        }
    }
    Ok(config)
}

/// The networks that training starts or learns from, each a file or the name of published weights.
fn networks(config: &mut TrainConfig) -> [&mut Option<PathBuf>; 3] {
    [
        &mut config.weights,
        &mut config.backbone_weights,
        &mut config.teacher,
    ]
}

struct Train<'a> {
    run: &'a Run,
    progress: Progress,
}

impl Job for Train<'_> {
    type Output = Report;

    fn run<B: DetectionBackend>(self, devices: Vec<B::Device>) -> Result<Report> {
        Ok(self.run.train::<B>(&devices, self.progress)?)
    }
}
