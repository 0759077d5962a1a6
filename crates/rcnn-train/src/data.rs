//! The data of a run: one set to train on, one to validate on.

use rcnn_burn::FasterRcnnConfig;
use rcnn_data::{Dataset, Fields, Fractions, ReadOptions, random_split, read};

use crate::{TrainConfig, TrainError};

pub(crate) struct Splits {
    pub(crate) train: Dataset,
    pub(crate) valid: Dataset,
}

impl Splits {
    /// Reads the data. If the model has the same classes in another order, they get its labels.
    pub(crate) fn read(
        config: &TrainConfig,
        model: Option<&FasterRcnnConfig>,
    ) -> Result<Self, TrainError> {
        let read = |class_names| {
            let options = ReadOptions {
                class_names,
                fields: Fields::NONE,
                ..Default::default()
            };
            let reading = read(&config.data, &options)?;
            let skipped = reading.problems.invalid();
            Ok::<_, TrainError>((reading.accept(config.skip_invalid)?, skipped))
        };
        let (mut data, mut skipped) = read(None)?;
        if let Some(model) = model
            && model.class_names != data.class_names
            && sorted(&model.class_names) == sorted(&data.class_names)
        {
            (data, skipped) = read(Some(model.class_names.clone()))?;
        }
        if skipped > 0 {
            tracing::info!("{skipped} invalid boxes or files left out");
        }
        if data.splits.len() < 2 && config.train_split.is_none() && config.valid_split.is_none() {
            tracing::info!("the data have no splits: a tenth, chosen by chance, validates");
            let fractions = Fractions {
                val: 0.1,
                test: 0.0,
            };
            random_split(&mut data, fractions, config.seed)?;
        }
        let train = split(
            &data,
            &config.train_split,
            "train_split",
            &["train", "trainval"],
        )?;
        let valid = split(
            &data,
            &config.valid_split,
            "valid_split",
            &["val", "valid", "validation", "test"],
        )?;
        tracing::info!(
            "{} images to train on, {} to validate on, {} classes: {}",
            train.samples.len(),
            valid.samples.len(),
            data.class_names.len() - 1,
            data.class_names[1..].join(", ")
        );
        Ok(Self { train, valid })
    }
}

fn split(
    data: &Dataset,
    given: &Option<String>,
    field: &str,
    usual: &[&str],
) -> Result<Dataset, TrainError> {
    let name = match given {
        Some(name) => name.as_str(),
        None => usual
            .iter()
            .copied()
            .find(|name| data.splits.contains_key(*name))
            .ok_or_else(|| {
                let known: Vec<&str> = data.splits.keys().map(String::as_str).collect();
                let known = known.join(", ");
                TrainError::Config(format!("{field}: name one of the data's splits: {known}"))
            })?,
    };
    let split = data.split(name)?;
    if split.samples.is_empty() {
        return Err(TrainError::Config(format!(
            "{field} = {name:?}: it has no images"
        )));
    }
    Ok(split)
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<_> = names.iter().collect();
    names.sort();
    names
}
