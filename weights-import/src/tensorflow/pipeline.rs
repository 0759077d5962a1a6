//! `pipeline.config`: how a detector of the Object Detection API was trained and exported, as a text beside its weights.

use std::str::FromStr;

use rcnn_backbone::tensorflow::FEATURE_EXTRACTOR;
use rcnn_detector::FasterRcnnConfig;
use rcnn_types::{BACKGROUND, Size, UNUSED};

use super::text::Message;

/// Takes over what a pipeline says of its detector. What it does not say has the API's default, which `config` has already.
///
/// # Errors
/// The field at fault, what was found and what is expected; and the detectors that are not read.
pub(super) fn apply(config: &mut FasterRcnnConfig, text: &str) -> Result<(), String> {
    let pipeline = Message::parse(text)?;
    let model = pipeline.at(&["model", "faster_rcnn"]);
    let model =
        Fields(model.ok_or("its model is not a faster_rcnn; other detectors are not supported")?);
    if let Some(extractor) = model.inside(&["feature_extractor"]) {
        let kind = extractor.0.text("type").unwrap_or_default();
        if kind != FEATURE_EXTRACTOR {
            return Err(format!(
                "feature_extractor.type = {kind}: expected {FEATURE_EXTRACTOR}"
            ));
        }
        extractor.expect("first_stage_features_stride", 16, 16)?;
    }
    if model.or("number_of_stages", 2)? != 2 {
        return Err("number_of_stages: expected 2".into());
    }
    config.num_classes = model
        .or("num_classes", config.num_classes - 1)?
        .saturating_add(1);
    resize(config, &model)?;
    anchors(config, &model)?;
    first_stage(config, &model)?;
    second_stage(config, &model)
}

fn resize(config: &mut FasterRcnnConfig, model: &Fields<'_>) -> Result<(), String> {
    let transform = &mut config.transform;
    if let Some(resizer) = model.inside(&["image_resizer", "keep_aspect_ratio_resizer"]) {
        transform.min_size = vec![resizer.or("min_dimension", 600)?];
        transform.max_size = resizer.or("max_dimension", 1024)?;
        resizer.expect("pad_to_max_dimension", false, false)?;
    } else if let Some(resizer) = model.inside(&["image_resizer", "fixed_shape_resizer"]) {
        transform.fixed_size = Some(Size::new(
            resizer.or("height", 300)?,
            resizer.or("width", 300)?,
        ));
    } else if model.inside(&["image_resizer"]).is_some() {
        return Err(
            "image_resizer: expected keep_aspect_ratio_resizer or fixed_shape_resizer".into(),
        );
    }
    Ok(())
}

fn anchors(config: &mut FasterRcnnConfig, model: &Fields<'_>) -> Result<(), String> {
    let path = ["first_stage_anchor_generator", "grid_anchor_generator"];
    let Some(grid) = model.inside(&path) else {
        return match model.inside(&path[..1]) {
            Some(_) => Err("first_stage_anchor_generator: expected grid_anchor_generator".into()),
            None => Ok(()),
        };
    };
    let (height, width): (f32, f32) = (grid.or("height", 256.0)?, grid.or("width", 256.0)?);
    if height != width {
        return Err(format!(
            "grid_anchor_generator of height {height} and width {width}: expected a square"
        ));
    }
    let stride: usize = grid.or("height_stride", 16)?;
    grid.expect("width_stride", 16, stride)?;
    grid.expect("height_offset", 0, 0)?;
    grid.expect("width_offset", 0, 0)?;
    let anchors = &mut config.rpn.anchor_generator;
    anchors.strides = Some(vec![stride]);
    if let Some(scales) = grid.all::<f32>("scales")? {
        anchors.sizes = vec![scales.into_iter().map(|scale| scale * height).collect()];
    }
    if let Some(ratios) = grid.all::<f32>("aspect_ratios")? {
        // There width divided by height, here height by width.
        anchors.aspect_ratios = vec![ratios.into_iter().map(|ratio| 1.0 / ratio).collect()];
    }
    Ok(())
}

fn first_stage(config: &mut FasterRcnnConfig, model: &Fields<'_>) -> Result<(), String> {
    let rpn = &mut config.rpn;
    model.expect("first_stage_atrous_rate", 1, 1)?;
    model.expect("first_stage_box_predictor_kernel_size", 3, 3)?;
    rpn.conv_channels = vec![model.or("first_stage_box_predictor_depth", 512)?];
    rpn.score_thresh = model.or("first_stage_nms_score_threshold", 0.0)?;
    rpn.nms_thresh = model
        .or::<f32>("first_stage_nms_iou_threshold", 0.7)?
        .into();
    let proposals = model.or("first_stage_max_proposals", 300)?;
    (rpn.post_nms_top_n_test, rpn.post_nms_top_n_train) = (proposals, proposals);
    rpn.batch_size_per_image = model.or("first_stage_minibatch_size", 256)?;
    rpn.positive_fraction = model.or("first_stage_positive_balance_fraction", 0.5)?;
    rpn.loss_weights = [
        model.or("first_stage_objectness_loss_weight", 1.0)?,
        model.or("first_stage_localization_loss_weight", 1.0)?,
    ];
    Ok(())
}

fn second_stage(config: &mut FasterRcnnConfig, model: &Fields<'_>) -> Result<(), String> {
    let heads = &mut config.roi_heads;
    let crop = model.or("initial_crop_size", 14)?;
    let (kernel, stride) = (
        model.or("maxpool_kernel_size", 2)?,
        model.or("maxpool_stride", 2)?,
    );
    if kernel != stride || stride == 0 || crop % stride != 0 {
        return Err(format!(
            "initial_crop_size {crop} pooled by {kernel} with a stride of {stride}: expected a crop that the stride \
             divides, and pools as large as the stride"
        ));
    }
    heads.box_roi_pool.output_size = [crop / stride; 2];
    heads.box_roi_pool.sampling_ratio = stride;
    let predictor = model.inside(&["second_stage_box_predictor"]);
    if let Some(predictor) = &predictor
        && predictor.inside(&["mask_rcnn_box_predictor"]).is_none()
    {
        return Err("second_stage_box_predictor: expected mask_rcnn_box_predictor".into());
    }
    if let Some(predictor) =
        model.inside(&["second_stage_box_predictor", "mask_rcnn_box_predictor"])
    {
        predictor.expect("predict_instance_masks", false, false)?;
        predictor.expect("share_box_across_classes", false, false)?;
    }
    heads.batch_size_per_image = model.or("second_stage_batch_size", 64)?;
    heads.positive_fraction = model.or("second_stage_balance_fraction", 0.25)?;
    heads.loss_weights = [
        model.or("second_stage_classification_loss_weight", 1.0)?,
        model.or("second_stage_localization_loss_weight", 1.0)?,
    ];
    let processing = model.inside(&["second_stage_post_processing"]);
    if let Some(converter) = processing
        .as_ref()
        .and_then(|p| p.0.text("score_converter"))
        && converter != "SOFTMAX"
    {
        return Err(format!("score_converter = {converter}: expected SOFTMAX"));
    }
    let nms = processing.and_then(|processing| processing.inside(&["batch_non_max_suppression"]));
    let nms = nms.unwrap_or(Fields(&EMPTY));
    heads.score_thresh = nms.or("score_threshold", 0.0)?;
    heads.nms_thresh = nms.or::<f32>("iou_threshold", 0.6)?.into();
    heads.detections_per_class = Some(nms.or("max_detections_per_class", 100)?);
    heads.detections_per_img = nms.or("max_total_detections", 100)?;
    Ok(())
}

static EMPTY: Message = Message::EMPTY;

/// Names of classes from a label map: of class `id`, the background before all others.
///
/// # Errors
/// The item at fault.
pub(super) fn class_names(text: &str, num_classes: usize) -> Result<Vec<String>, String> {
    let map = Message::parse(text)?;
    let mut names = vec![UNUSED.to_string(); num_classes];
    names[0] = BACKGROUND.into();
    for item in map.messages("item") {
        let name = item.text("display_name").or(item.text("name"));
        if item.text("id").is_none() {
            return Err(format!("item `{}`: it has no id", name.unwrap_or_default()));
        }
        let id = Fields(item).or("id", 0usize)?;
        let place = names.get_mut(id).filter(|_| id > 0);
        match (place, name) {
            (Some(place), Some(name)) => *place = name.into(),
            (None, _) => {
                let last = num_classes - 1;
                return Err(format!(
                    "item of id {id}: expected 1 to {last}, the model's classes"
                ));
            }
            (_, None) => return Err(format!("item of id {id}: it has no name")),
        }
    }
    Ok(names)
}

/// A message whose fields are read as numbers.
struct Fields<'a>(&'a Message);

impl<'a> Fields<'a> {
    fn inside(&self, path: &[&str]) -> Option<Fields<'a>> {
        self.0.at(path).map(Fields)
    }

    /// A field's value, or the API's default.
    fn or<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.0.text(name) {
            Some(text) => parse(name, text),
            None => Ok(default),
        }
    }

    /// All values of a field; none where it is missing.
    fn all<T: FromStr>(&self, name: &str) -> Result<Option<Vec<T>>, String> {
        let values = self.0.texts(name).map(|text| parse(name, text));
        let values: Vec<T> = values.collect::<Result<_, _>>()?;
        Ok((!values.is_empty()).then_some(values))
    }

    /// Checks a field of which one value is read.
    fn expect<T: FromStr + PartialEq + std::fmt::Display>(
        &self,
        name: &str,
        default: T,
        expected: T,
    ) -> Result<(), String> {
        let found = self.or(name, default)?;
        match found == expected {
            true => Ok(()),
            false => Err(format!("{name} = {found}: expected {expected}")),
        }
    }
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    let number = text.trim_end_matches('f');
    let plain = if number.len() + 1 == text.len()
        && number.ends_with(|c: char| c.is_ascii_digit() || c == '.')
    {
        number
    } else {
        text
    };
    plain
        .parse()
        .map_err(|_| format!("{name} = {text}: not a valid value"))
}
