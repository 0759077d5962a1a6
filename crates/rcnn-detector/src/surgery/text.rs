//! Operations in text: a name and a value, `drop-stage layer4`.

use std::str::FromStr;

use rcnn_backbone::NormKind;
use rcnn_roi::{BoxHeadConfig, BoxHeadTextError, MaskConfig};
use rcnn_rpn::AnchorGenerator;

use super::{KeypointHeadLayers, Level, Operation, SurgeryError};

/// Names of operations, with an example of the value.
const NAMES: [&str; 12] = [
    "levels 0,1,pool",
    "cut-after layer3",
    "drop-stage layer4",
    "drop-block layer1.1",
    "rpn-convs 0",
    "anchors 32;64@0.5,1,2",
    "box-head fc:512",
    "mask-head conv:256x2",
    "keypoint-head conv:512x8",
    "no-box-regression",
    "num-classes 3",
    "class-names cat,dog",
];

/// Ratios of anchors that are given by sizes alone: torchvision's.
const ASPECT_RATIOS: [f32; 3] = [0.5, 1.0, 2.0];

impl FromStr for Operation {
    type Err = SurgeryError;

    fn from_str(text: &str) -> Result<Self, SurgeryError> {
        let (name, value) = text.split_once(' ').unwrap_or((text, ""));
        let value = value.trim();
        Ok(match name {
            "levels" => Self::Levels(list(value)?),
            "cut-after" => Self::CutAfter(module(value)?),
            "drop-stage" => Self::DropStage(module(value)?),
            "drop-block" => Self::DropBlock(module(value)?),
            "rpn-convs" => Self::RpnConvs(number(value)?),
            "anchors" => Self::Anchors(anchors(value)?),
            "box-head" => Self::BoxHead(value.parse()?),
            "mask-head" => Self::MaskHead(mask_head(value)?),
            "keypoint-head" => Self::KeypointHead(keypoint_head(value)?),
            "no-box-regression" if value.is_empty() => Self::NoBoxRegression,
            "num-classes" => Self::NumClasses(number(value)?),
            "class-names" => {
                let names = value.split(',').map(|name| name.trim().to_string());
                Self::ClassNames(names.collect())
            }
            _ => {
                let known = NAMES.join(", ");
                return Err(error(
                    text,
                    &format!("unknown operation; known are {known}"),
                ));
            }
        })
    }
}

impl FromStr for Level {
    type Err = SurgeryError;

    fn from_str(text: &str) -> Result<Self, SurgeryError> {
        match (text, text.parse()) {
            ("pool", _) => Ok(Self::Pool),
            (_, Ok(number)) => Ok(Self::Map(number)),
            (name, Err(_)) => module(name).map(Self::Stage),
        }
    }
}

fn mask_head(text: &str) -> Result<Option<MaskConfig>, SurgeryError> {
    Ok(convolutions(text)?.map(|(layers, norm)| {
        let before = MaskConfig::default();
        MaskConfig {
            dim_reduced: layers.last().copied().unwrap_or(before.dim_reduced),
            layers,
            norm,
            ..before
        }
    }))
}

fn keypoint_head(text: &str) -> Result<Option<KeypointHeadLayers>, SurgeryError> {
    let (head, count) = match text.split_once('/') {
        Some((head, count)) => (head, Some(number(count.trim())?)),
        None => (text, None),
    };
    match convolutions(head)? {
        Some((_, Some(_))) => Err(error(
            text,
            "a keypoint head has no norms: expected conv, as conv:512x8",
        )),
        found => Ok(found.map(|(layers, _)| KeypointHeadLayers {
            layers,
            num_keypoints: count,
        })),
    }
}

/// Channels of each convolution, and their norm.
type Convolutions = (Vec<usize>, Option<(NormKind, f64)>);

/// Convolutions as a box head has them in text; `None` for `none`.
fn convolutions(text: &str) -> Result<Option<Convolutions>, SurgeryError> {
    if text == "none" {
        return Ok(None);
    }
    let expected = "expected 3x3 convolutions, as conv:256x4 or conv_bn:256x4, or none";
    match text.parse() {
        Ok(BoxHeadConfig::ConvFc {
            conv_layers,
            fc_layers,
            norm,
        }) if fc_layers.is_empty() => Ok(Some((conv_layers, norm))),
        Ok(_) => Err(error(text, expected)),
        Err(BoxHeadTextError { reason, .. }) => Err(error(text, &format!("{reason}; {expected}"))),
    }
}

fn error(text: &str, reason: &str) -> SurgeryError {
    SurgeryError::Text {
        text: text.to_string(),
        reason: reason.to_string(),
    }
}

fn number(text: &str) -> Result<usize, SurgeryError> {
    text.parse()
        .map_err(|_| error(text, "expected a whole number"))
}

/// The name of a stage or block. Whether the model has it shows when the operation is applied.
fn module(text: &str) -> Result<String, SurgeryError> {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => Err(error(text, "expected the name of a stage or block")),
        false => Ok(text.to_string()),
    }
}

fn list<T: FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').map(|item| item.trim().parse()).collect()
}

/// `32;64,128@0.5,1,2`: sizes of each level, then the ratios of all.
fn anchors(text: &str) -> Result<AnchorGenerator, SurgeryError> {
    let wrong = |_| {
        error(
            text,
            "expected sizes of each level and perhaps ratios, as 32;64;128;256@0.5,1,2",
        )
    };
    let (sizes, ratios) = match text.split_once('@') {
        Some((sizes, ratios)) => (sizes, list(ratios).map_err(wrong)?),
        None => (text, ASPECT_RATIOS.to_vec()),
    };
    let sizes: Vec<Vec<f32>> = (sizes.split(';').map(list))
        .collect::<Result<_, _>>()
        .map_err(wrong)?;
    Ok(AnchorGenerator {
        aspect_ratios: vec![ratios; sizes.len()],
        sizes,
        strides: None,
    })
}
