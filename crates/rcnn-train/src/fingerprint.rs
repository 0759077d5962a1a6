//! `data.json`: what the data of a run were when it began, so that a resumed run notices other ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rayon::prelude::*;
use rcnn_data::{Dataset, Sample};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::TrainError;
use crate::checkpoint::{read_json, write_whole};
use crate::data::Splits;

/// Images named in a message.
const NAMED: usize = 3;

/// Number of what goes into a digest, which earlier versions made of less.
const DIGEST: u32 = 1;

/// The classes, and a digest of each image's file and labels.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    #[serde(default)]
    digest: u32,
    classes: Vec<String>,
    train: BTreeMap<String, String>,
    valid: BTreeMap<String, String>,
}

impl Fingerprint {
    /// Reads every image file once.
    pub(crate) fn new(data: &Splits) -> Self {
        let digests = |split: &Dataset| {
            let samples = split.samples.par_iter();
            samples
                .map(|sample| (name(sample, &split.root), digest(sample)))
                .collect()
        };
        Self {
            digest: DIGEST,
            classes: data.train.class_names.clone(),
            train: digests(&data.train),
            valid: digests(&data.valid),
        }
    }

    /// That of the run in a folder; `None` if it has none to compare with, as runs of earlier versions.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, TrainError> {
        let path = folder.join("data.json");
        if !path.exists() {
            return Ok(None);
        }
        let found: Self = read_json(&path)?;
        Ok(Some(found).filter(|found| found.digest == DIGEST))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let json = serde_json::to_string(self).expect("it is plain data");
        write_whole(&folder.join("data.json"), json.as_bytes())
    }

    /// What is different now, in words.
    pub(crate) fn changes(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.classes != now.classes {
            let classes = |of: &Self| of.classes.get(1..).unwrap_or_default().join(", ");
            let (then, now) = (classes(self), classes(now));
            changes.push(format!("the classes were {then} and are {now}"));
        }
        let splits = [
            ("training", &self.train, &now.train),
            ("validation", &self.valid, &now.valid),
        ];
        for (split, then, now) in splits {
            let mut say = |names: Vec<&String>, what: &str| {
                if !names.is_empty() {
                    let first: Vec<_> = names.iter().take(NAMED).map(|n| n.as_str()).collect();
                    let more = if names.len() > NAMED { ", ..." } else { "" };
                    let (count, first) = (names.len(), first.join(", "));
                    changes.push(format!("{count} {split} images {what} ({first}{more})"));
                }
            };
            let lacks = |names: &BTreeMap<_, _>, name: &&String| !names.contains_key(*name);
            say(
                then.keys().filter(|name| lacks(now, name)).collect(),
                "are gone",
            );
            say(
                now.keys().filter(|name| lacks(then, name)).collect(),
                "are new",
            );
            let other = |(name, digest): &(&String, &String)| {
                now.get(*name).is_some_and(|found| found != *digest)
            };
            let changed = then.iter().filter(other).map(|(name, _)| name);
            say(changed.collect(), "have other labels or pixels");
        }
        changes
    }
}

fn name(sample: &Sample, root: &Path) -> String {
    let image = sample.image.strip_prefix(root).unwrap_or(&sample.image);
    image.to_string_lossy().into_owned()
}

fn digest(sample: &Sample) -> String {
    let mut hash = Sha256::new();
    // A file that is gone by now is an error of the loader.
    hash.update(Sha256::digest(fs::read(&sample.image).unwrap_or_default()));
    let (width, height) = sample.size.dimensions();
    hash.update(width.to_le_bytes());
    hash.update(height.to_le_bytes());
    for object in sample.instances.iter() {
        hash.update([object.is_crowd.into()]);
        for number in object.bbox.into_iter().chain([object.area]) {
            hash.update(number.to_le_bytes());
        }
        hash.update((object.label as u64).to_le_bytes());
        if let Some(mask) = object.mask {
            hash.update(mask.to_compressed());
        }
        for number in object
            .keypoints
            .into_iter()
            .flat_map(|all| all.0.as_flattened())
        {
            hash.update(number.to_le_bytes());
        }
    }
    let digest = hash.finalize();
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
