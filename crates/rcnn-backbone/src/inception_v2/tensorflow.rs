//! Names of the TensorFlow Object Detection API for the parameters of a Faster R-CNN over Inception v2, both ways.

/// Type of the feature extractor of a Faster R-CNN over Inception v2 in a `pipeline.config`.
pub const FEATURE_EXTRACTOR: &str = "faster_rcnn_inception_v2";

/// Scopes of variables, and the modules whose parameters they are.
const SCOPES: [(&str, &str); 7] = [
    ("FirstStageFeatureExtractor/InceptionV2/", "backbone."),
    (
        "SecondStageFeatureExtractor/InceptionV2/",
        "roi_heads.box_head.",
    ),
    ("Conv/", "rpn.head.conv.0.0."),
    (
        "FirstStageBoxPredictor/BoxEncodingPredictor/",
        "rpn.head.bbox_pred.",
    ),
    (
        "FirstStageBoxPredictor/ClassPredictor/",
        "rpn.head.cls_logits.",
    ),
    (
        "SecondStageBoxPredictor/BoxEncodingPredictor/",
        "roi_heads.box_predictor.bbox_pred.",
    ),
    (
        "SecondStageBoxPredictor/ClassPredictor/",
        "roi_heads.box_predictor.cls_score.",
    ),
];

/// Scope of the image classifier that both stages may start from.
const CLASSIFIER: &str = "InceptionV2/";
/// Beginning of the names of its last blocks, which are the second stage's.
const LAST_BLOCKS: &str = "Mixed_5";

/// Variables of a predictor.
const PREDICTOR: [(&str, &str); 2] = [("weights", "weight"), ("biases", "bias")];

/// Variables of a convolution with its norm.
const CONVOLUTION: [(&str, &str); 5] = [
    ("weights", "0.weight"),
    ("BatchNorm/gamma", "1.weight"),
    ("BatchNorm/beta", "1.bias"),
    ("BatchNorm/moving_mean", "1.running_mean"),
    ("BatchNorm/moving_variance", "1.running_var"),
];

/// Variables of the separable convolution that the network begins with.
const SEPARABLE: [(&str, &str); 6] = [
    ("depthwise_weights", "depthwise.weight"),
    ("pointwise_weights", "pointwise.0.weight"),
    ("BatchNorm/gamma", "pointwise.1.weight"),
    ("BatchNorm/beta", "pointwise.1.bias"),
    ("BatchNorm/moving_mean", "pointwise.1.running_mean"),
    ("BatchNorm/moving_variance", "pointwise.1.running_var"),
];

/// Name of that convolution.
const STEM: &str = "conv2d_1a_7x7";

/// The parameter that a variable holds; none for variables of the training (momenta, `global_step`) and of
/// other networks. A variable of an image classifier, `InceptionV2/...`, is a parameter of the stage that it starts.
pub fn parameter(variable: &str) -> Option<String> {
    let of_classifier = |path: &str| match path.starts_with(LAST_BLOCKS) {
        true => "roi_heads.box_head.",
        false => "backbone.",
    };
    let scope = SCOPES.iter().find_map(|(scope, module)| {
        let path = variable.strip_prefix(scope)?;
        Some((*module, path))
    });
    let classifier = || {
        let path = variable.strip_prefix(CLASSIFIER)?;
        let is_block = path.starts_with("Conv2d_") || path.starts_with("Mixed_");
        is_block.then(|| (of_classifier(path), path))
    };
    let (module, path) = scope.or_else(classifier)?;
    let find = |known: &[(&str, &'static str)], name: &str| {
        let found = known.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, parameter)| *parameter)
    };
    if !is_network(module) {
        return Some(format!("{module}{}", find(&PREDICTOR, path)?));
    }
    let layer_end = match path.find("/BatchNorm/") {
        Some(end) => end,
        None => path.rfind('/')?,
    };
    let (layer, name) = (path[..layer_end].to_lowercase(), &path[layer_end + 1..]);
    let known = if layer == STEM {
        &SEPARABLE[..]
    } else {
        &CONVOLUTION
    };
    let name = find(known, name)?;
    Some(format!("{module}{}.{name}", layer.replace('/', ".")))
}

/// The variable that a parameter is read from; none for parameters that TensorFlow's detector does not have.
pub fn variable(parameter: &str) -> Option<String> {
    let mut scopes = SCOPES.iter();
    let (scope, module, path) = scopes
        .find_map(|(scope, module)| Some((scope, module, parameter.strip_prefix(module)?)))?;
    let find = |known: &[(&'static str, &str)], name: &str| {
        let found = known.iter().find(|(_, parameter)| *parameter == name);
        found.map(|(variable, _)| *variable)
    };
    if !is_network(module) {
        return Some(format!("{scope}{}", find(&PREDICTOR, path)?));
    }
    let stem = path
        .strip_prefix(STEM)
        .and_then(|name| name.strip_prefix('.'));
    let (layer, name) = match stem {
        Some(name) => (STEM, find(&SEPARABLE, name)?),
        None => CONVOLUTION.iter().find_map(|(variable, name)| {
            let layer = path.strip_suffix(name)?.strip_suffix('.')?;
            Some((layer, *variable))
        })?,
    };
    let modules = layer.split('.').map(|module| {
        let (first, rest) = module.split_at_checked(1)?;
        Some(first.to_uppercase() + rest)
    });
    let modules: Vec<String> = modules.collect::<Option<_>>()?;
    Some(format!("{scope}{}/{name}", modules.join("/")))
}

/// Whether a module's layers have names of their own.
fn is_network(module: &str) -> bool {
    matches!(module, "backbone." | "roi_heads.box_head.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_sides() {
        for (parameter, scope) in [
            (
                "backbone.conv2d_1a_7x7.depthwise.weight",
                "FirstStageFeatureExtractor/InceptionV2/Conv2d_1a_7x7/depthwise_weights",
            ),
            (
                "backbone.conv2d_1a_7x7.pointwise.0.weight",
                "FirstStageFeatureExtractor/InceptionV2/Conv2d_1a_7x7/pointwise_weights",
            ),
            (
                "backbone.conv2d_1a_7x7.pointwise.1.running_var",
                "FirstStageFeatureExtractor/InceptionV2/Conv2d_1a_7x7/BatchNorm/moving_variance",
            ),
            (
                "backbone.mixed_4e.branch_3.conv2d_0b_1x1.0.weight",
                "FirstStageFeatureExtractor/InceptionV2/Mixed_4e/Branch_3/Conv2d_0b_1x1/weights",
            ),
            (
                "roi_heads.box_head.mixed_5a.branch_0.conv2d_1a_3x3.1.bias",
                "SecondStageFeatureExtractor/InceptionV2/Mixed_5a/Branch_0/Conv2d_1a_3x3/BatchNorm/beta",
            ),
            ("rpn.head.conv.0.0.bias", "Conv/biases"),
            (
                "rpn.head.cls_logits.weight",
                "FirstStageBoxPredictor/ClassPredictor/weights",
            ),
            (
                "roi_heads.box_predictor.bbox_pred.bias",
                "SecondStageBoxPredictor/BoxEncodingPredictor/biases",
            ),
        ] {
            assert_eq!(super::parameter(scope).as_deref(), Some(parameter));
            assert_eq!(super::variable(parameter).as_deref(), Some(scope));
        }
    }

    #[test]
    fn a_classifier_starts_both_stages() {
        for (variable, parameter) in [
            (
                "InceptionV2/Conv2d_2b_1x1/BatchNorm/gamma",
                "backbone.conv2d_2b_1x1.1.weight",
            ),
            (
                "InceptionV2/Mixed_5c/Branch_3/Conv2d_0b_1x1/weights",
                "roi_heads.box_head.mixed_5c.branch_3.conv2d_0b_1x1.0.weight",
            ),
        ] {
            assert_eq!(super::parameter(variable).as_deref(), Some(parameter));
        }
    }

    #[test]
    fn what_only_training_has_is_no_parameter() {
        for variable in [
            "global_step",
            "Conv/weights/Momentum",
            "FirstStageFeatureExtractor/InceptionV2/Conv2d_2b_1x1/BatchNorm/gamma/Momentum",
            "FirstStageFeatureExtractor/InceptionV2/Conv2d_2b_1x1/weights/ExponentialMovingAverage",
            "InceptionV2/Logits/Conv2d_1c_1x1/biases",
            "InceptionV2/Logits/Conv2d_1c_1x1/weights",
            "FirstStageFeatureExtractor/resnet_v1_101/conv1/weights",
            "FirstStageFeatureExtractor/InceptionV2/",
        ] {
            assert_eq!(parameter(variable), None, "{variable}");
        }
        assert_eq!(variable("backbone.body.conv1.weight"), None);
        assert_eq!(variable("roi_heads.mask_head.0.0.weight"), None);
    }
}
