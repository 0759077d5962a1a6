//! Origin of the configuration of [`Weights`](crate::Weights), and what the content of published files adds
//! to it.

use std::fmt;

use rcnn_detector::FasterRcnnConfig;

use crate::published::{
    COCO_PERSON_CATEGORIES, COCO_PERSON_KEYPOINT_NAMES, COCO_PERSON_SKELETON, Metric, Published,
};
use crate::{Checkpoint, CheckpointError};

/// Origin of the configuration of [`Weights`](crate::Weights).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ConfigOrigin {
    /// It stands in the file.
    Stored,
    /// Names and shapes of the tensors tell it; what is no shape is as torchvision has it by default.
    Recognized,
    /// As [`Recognized`](Self::Recognized), with what torchvision sets for these published weights alone. The file has
    /// their content, whatever its name.
    Published(&'static Published),
    /// As [`Recognized`](Self::Recognized), although the file has the name of these published weights: its content is
    /// another, so that what torchvision sets for them alone is not taken over.
    OnlyNamed(&'static Published),
    /// As [`Recognized`](Self::Recognized), with what the `pipeline.config` beside weights of TensorFlow says.
    Pipeline,
    /// The caller gave it, or a model in memory has it.
    Given,
}

impl fmt::Display for ConfigOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored in the file"),
            Self::Recognized => f.write_str("from names and shapes"),
            Self::Published(published) => write!(
                f,
                "from names and shapes, and from the file's SHA-256, which is that of {}",
                published.full_name()
            ),
            Self::OnlyNamed(published) => write!(
                f,
                "from names and shapes; the file's name is that of {}, but its content is not",
                published.full_name()
            ),
            Self::Pipeline => {
                f.write_str("from names and shapes, and the pipeline.config beside the weights")
            }
            Self::Given => f.write_str("given"),
        }
    }
}

/// Takes over what torchvision sets for a file's published weights alone, if it is one of these: the epsilon of norms,
/// thresholds and sizes of images that another detector over the same network does not have, the names of COCO's keypoints.
pub(crate) fn adopt_published(
    config: &mut FasterRcnnConfig,
    checkpoint: &Checkpoint,
    table: impl IntoIterator<Item = &'static Published>,
) -> Result<ConfigOrigin, CheckpointError> {
    let (path, mut origin) = (&checkpoint.path, ConfigOrigin::Recognized);
    for published in table.into_iter().filter(|row| row.is_detector()) {
        let meant = published_config(published, config);
        if meant.as_ref() == Some(config) {
            continue;
        }
        let name = published.full_name();
        // To hash the whole file takes a tenth of a second or more: only one of the right size is worth it.
        if let Some(meant) = meant
            && published.num_classes == config.num_classes
            && published.has_size(checkpoint.file_size)
            && checkpoint.sha256()?.starts_with(published.hash_prefix())
        {
            tracing::info!("{}: {name}", path.display());
            *config = meant;
            return Ok(ConfigOrigin::Published(published));
        }
        if path
            .file_name()
            .is_some_and(|name| name == published.file_name())
        {
            tracing::warn!(
                "{}: the file's name is that of {name}, but its content is not; what torchvision sets for these weights \
                 alone (epsilon of norms, thresholds, sizes of images, names of keypoints) is not taken over",
                path.display()
            );
            origin = ConfigOrigin::OnlyNamed(published);
        }
    }
    Ok(origin)
}

/// A recognised configuration with what torchvision sets for published weights; nothing where they are of another network.
fn published_config(
    published: &Published,
    recognized: &FasterRcnnConfig,
) -> Option<FasterRcnnConfig> {
    let mut config = match FasterRcnnConfig::named(published.builder, recognized.num_classes) {
        Ok(named) if named.backbone != recognized.backbone => return None,
        Ok(named) => FasterRcnnConfig {
            class_names: recognized.class_names.clone(),
            ..named
        },
        Err(_) => recognized.clone(),
    };
    if let Some(eps) = published.norm_eps {
        config.backbone.architecture_mut()?.set_norm_eps(eps);
    }
    if let Metric::BoxKeypointMap(..) = published.metric {
        let keypoint = config.roi_heads.keypoint.as_mut()?;
        if keypoint.num_keypoints != COCO_PERSON_KEYPOINT_NAMES.len() {
            return None;
        }
        keypoint.names = COCO_PERSON_KEYPOINT_NAMES.map(String::from).into();
        keypoint.skeleton = COCO_PERSON_SKELETON.into();
        config.class_names = COCO_PERSON_CATEGORIES.map(String::from).into();
    }
    Some(config)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use rcnn_backbone::{ResNetArch, ResNetFpnConfig};
    use rcnn_ops::backend_types::{Flex, FlexDevice};
    use rcnn_roi::KeypointConfig;

    use super::*;
    use crate::published::toy;
    use crate::{Precision, Weights, parameter_shapes};

    /// A detector without its configuration: names, shapes and, but for the last byte, zeros.
    fn write_detector(path: &Path, config: &FasterRcnnConfig, last: u8) {
        let model = config.init::<Flex>(&FlexDevice).unwrap();
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for (name, shape) in parameter_shapes(&model) {
            let start = end;
            end += shape.iter().product::<usize>();
            let info =
                serde_json::json!({"dtype": "U8", "shape": shape, "data_offsets": [start, end]});
            header.insert(name, info);
        }
        let header = serde_json::to_vec(&header).unwrap();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.resize(bytes.len() + end, 0);
        *bytes.last_mut().unwrap() = last;
        fs::write(path, bytes).unwrap();
    }

    /// A table of one row, the weights published being those of a file.
    fn table(path: &Path) -> &'static [Published] {
        let bytes = fs::read(path).unwrap();
        vec![toy(&bytes, Metric::BoxMap(0.0), Some(0.0))].leak()
    }

    fn resnet18(num_classes: usize) -> FasterRcnnConfig {
        let backbone = ResNetFpnConfig {
            arch: ResNetArch::ResNet18,
            out_channels: 16,
            ..Default::default()
        };
        FasterRcnnConfig::new(backbone, num_classes)
    }

    fn norm_eps(config: &FasterRcnnConfig) -> f64 {
        config.backbone.architecture().expect("a ResNet").norm_eps()
    }

    /// Opens a file, its published weights being looked for in `table`.
    fn open(path: PathBuf, table: &'static [Published]) -> Weights {
        let checkpoint = Checkpoint::open(path).unwrap();
        let mut weights = Weights::from_checkpoint(&checkpoint).unwrap();
        weights.origin = adopt_published(&mut weights.config, &checkpoint, table).unwrap();
        weights
    }

    #[test]
    fn epsilon_of_published_weights_goes_by_content_and_not_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let config = resnet18(3);
        write_detector(&file("renamed.pth"), &config, 1);
        let table = table(&file("renamed.pth"));

        let weights = open(file("renamed.pth"), table);
        assert_eq!(weights.origin, ConfigOrigin::Published(&table[0]));
        assert_eq!(norm_eps(&weights.config), 0.0);

        // Converted, it keeps what it had.
        let converted = file("converted.bpk");
        weights.write_burnpack(&converted, Precision::F16).unwrap();
        let converted = Weights::open(converted).unwrap();
        assert_eq!(converted.origin, ConfigOrigin::Stored);
        assert_eq!(norm_eps(&converted.config), 0.0);

        // The same size under the published name, but other content.
        write_detector(&file(table[0].file_name()), &config, 2);
        let weights = open(file(table[0].file_name()), table);
        assert_eq!(weights.origin, ConfigOrigin::OnlyNamed(&table[0]));
        assert_eq!(norm_eps(&weights.config), 1e-5);

        // Neither content nor name.
        write_detector(&file("other.pth"), &config, 3);
        let weights = open(file("other.pth"), table);
        assert_eq!(weights.origin, ConfigOrigin::Recognized);
        assert_eq!(norm_eps(&weights.config), 1e-5);
    }

    /// The two MobileNet detectors have the same names and shapes: their weights tell which is meant.
    #[test]
    fn settings_of_published_weights_go_by_content() {
        let folder = tempfile::tempdir().unwrap();
        let small = FasterRcnnConfig::fasterrcnn_mobilenet_v3_large_320_fpn(3);
        let large = FasterRcnnConfig::fasterrcnn_mobilenet_v3_large_fpn(3);
        let path = folder.path().join("renamed.pth");
        write_detector(&path, &small, 1);
        let row = Published {
            builder: "fasterrcnn_mobilenet_v3_large_320_fpn",
            norm_eps: None,
            ..table(&path)[0].clone()
        };
        let table = vec![row].leak();
        let weights = open(path.clone(), table);
        assert_eq!(weights.origin, ConfigOrigin::Published(&table[0]));
        assert_eq!(weights.config, small);

        write_detector(&path, &large, 2);
        let weights = open(path, table);
        assert_eq!(weights.origin, ConfigOrigin::Recognized);
        assert_eq!(weights.config, large);
    }

    #[test]
    fn published_keypoint_models_of_one_size_differ_by_content_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let keypoint = KeypointConfig {
            layers: vec![8],
            ..Default::default()
        };
        let config = resnet18(2).with_keypoint(keypoint);
        let row = |name: &str, last: u8, norm_eps: Option<f64>| {
            write_detector(&file(name), &config, last);
            let bytes = fs::read(file(name)).unwrap();
            Published {
                num_classes: 2,
                ..toy(&bytes, Metric::BoxKeypointMap(0.0, 0.0), norm_eps)
            }
        };
        let table = vec![row("legacy.pth", 1, None), row("v1.pth", 2, Some(0.0))].leak();
        for (name, published, eps) in [("legacy.pth", &table[0], 1e-5), ("v1.pth", &table[1], 0.0)]
        {
            let weights = open(file(name), table);
            assert_eq!(weights.origin, ConfigOrigin::Published(published));
            assert_eq!(norm_eps(&weights.config), eps, "{name}");
            assert_eq!(weights.config.class_names, ["no person", "person"]);
            let keypoint = weights.config.roi_heads.keypoint.as_ref().unwrap();
            assert_eq!(
                (&*keypoint.names[0], &*keypoint.names[16]),
                ("nose", "right_ankle")
            );
            assert_eq!(keypoint.skeleton.len(), 19);
            weights.config.validate().unwrap();
        }
        write_detector(&file("other.pth"), &config, 3);
        let other = open(file("other.pth"), table).config;
        assert!(other.class_names.is_empty() && other.roi_heads.keypoint.unwrap().names.is_empty());
    }
}
