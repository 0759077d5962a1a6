//! The query of `POST /detect`.

use axum::extract::rejection::QueryRejection;
use rcnn_types::{Instances, MaskFormat, find_class};
use serde::Deserialize;

use crate::detector::{ModelInfo, Thresholds};
use crate::refusal::Refusal;

/// Parameters as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Parameters {
    score_thresh: Option<f32>,
    nms_thresh: Option<f32>,
    #[serde(alias = "detections_per_img")]
    max_dets: Option<usize>,
    masks: MaskFormat,
    #[serde(alias = "labels")]
    classes: Option<String>,
    pub(crate) name: Option<String>,
}

/// What a request asks for, checked against the model.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) thresholds: Thresholds,
    max_dets: usize,
    pub(crate) masks: MaskFormat,
    classes: Option<Vec<usize>>,
}

/// The message of a query that cannot be read.
pub(crate) fn rejected(rejection: &QueryRejection) -> Refusal {
    let mut message = rejection.body_text();
    message.push_str(
        "; known are score_thresh, nms_thresh, max_dets, masks (rle, polygon or none), classes and name",
    );
    Refusal::bad_request(message)
}

impl Parameters {
    pub(crate) fn check(&self, model: &ModelInfo) -> Result<Wanted, Refusal> {
        let default = model.thresholds();
        let thresholds = Thresholds {
            score_thresh: self.score_thresh.unwrap_or(default.score_thresh),
            nms_thresh: self.nms_thresh.map_or(default.nms_thresh, f64::from),
        };
        let fraction = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(Refusal::bad_request(format!(
                "{name}: expected a number from 0 to 1, not {value}"
            ))),
        };
        fraction("score_thresh", thresholds.score_thresh.into())?;
        fraction("nms_thresh", thresholds.nms_thresh)?;
        let most = model.config.roi_heads.detections_per_img;
        let max_dets = self.max_dets.unwrap_or(most);
        if max_dets == 0 || max_dets > most {
            return Err(Refusal::bad_request(format!(
                "max_dets: expected a number from 1 to {most}, which this server was started with"
            )));
        }
        let classes = self.classes.as_deref();
        let classes = classes.map(|classes| {
            let classes = classes.split(',').map(str::trim);
            classes.map(|wanted| class(model, wanted)).collect()
        });
        Ok(Wanted {
            thresholds,
            max_dets,
            masks: self.masks,
            classes: classes.transpose()?,
        })
    }
}

fn class(model: &ModelInfo, wanted: &str) -> Result<usize, Refusal> {
    let (names, classes) = (&model.config.class_names, model.config.num_classes);
    find_class(wanted, names, classes).ok_or_else(|| {
        let known = match names.get(1..) {
            Some(names @ [_, ..]) => names.join(", "),
            _ => format!("numbers from 1 to {}", classes - 1),
        };
        Refusal::bad_request(format!("classes: `{wanted}` is none of {known}"))
    })
}

impl Wanted {
    /// Leaves what was asked for of what was found in a batch with lower thresholds.
    pub(crate) fn select(&self, found: &mut Instances) {
        let (mut kept, thresholds) = (0, self.thresholds);
        found.retain(|object| {
            let wanted = object.score > thresholds.score_thresh && kept < self.max_dets;
            kept += usize::from(wanted);
            wanted
        });
        if let Some(classes) = &self.classes {
            found.retain(|object| classes.contains(&object.label));
        }
    }
}
