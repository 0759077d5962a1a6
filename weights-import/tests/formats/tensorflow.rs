//! Models that TensorFlow wrote (`tests/reference/make_tensorflow.py`): frozen graphs, a checkpoint with the optimizer's
//! variables, a SavedModel, and the folders around them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rcnn_backbone::BackboneConfig;
use rcnn_detector::{FasterRcnnConfig, ResizeRule};
use rcnn_ops::BoxRules;
use rcnn_ops::backend_types::{Flex, FlexDevice};
use weights_import::{
    Checkpoint, CheckpointError, ConfigOrigin, Format, Precision, Weights, WeightsError,
    torchvision_names,
};

use crate::fixture;

fn model(year: &str) -> PathBuf {
    fixture("tensorflow").join(year)
}

/// A copy of a model's folder that may be damaged.
fn copy(year: &str) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().flatten() {
            let to = to.join(entry.file_name());
            match entry.path().is_dir() {
                true => copy(&entry.path(), &to),
                false => drop(fs::copy(entry.path(), to).unwrap()),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&model(year), folder.path());
    folder
}

/// The parameters of a file, by name.
fn parameters(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let tensors = torchvision_names(&Checkpoint::open(path).unwrap()).unwrap();
    let tensors = tensors.into_iter().map(|(name, tensor)| {
        let values = tensor.data().unwrap().into_vec().unwrap();
        (name, (tensor.shape, values))
    });
    tensors.collect()
}

#[test]
fn every_format_has_the_same_weights() {
    let folder = model("2018");
    let graph = parameters(&folder.join("frozen_inference_graph.pb"));
    assert!(graph.len() > 250, "{}", graph.len());
    for other in [
        "model.ckpt",
        "model.ckpt.index",
        "model.ckpt.data-00000-of-00001",
        "saved_model",
        "saved_model/variables",
        "saved_model/variables/variables.index",
        "saved_model/saved_model.pb",
        "../2019/saved_model",
        "../2019/saved_model/saved_model.pb",
        "../2019",
        ".",
    ] {
        assert!(parameters(&folder.join(other)) == graph, "{other}");
    }
    let format = |file: &str| Checkpoint::open(folder.join(file)).unwrap().format;
    assert_eq!(format("frozen_inference_graph.pb"), Format::TensorflowGraph);
    assert_eq!(format("model.ckpt"), Format::TensorflowCheckpoint);
}

#[test]
fn variables_are_in_torchs_layouts_and_coordinates() {
    let checkpoint = Checkpoint::open(model("2018").join("model.ckpt")).unwrap();
    let values = |name: &str| -> (Vec<usize>, Vec<f32>) {
        let tensor = checkpoint.get(name).unwrap();
        (
            tensor.shape.clone(),
            tensor.data().unwrap().into_vec().unwrap(),
        )
    };
    let parameters = parameters(&model("2018"));

    let (shape, kernel) = values("FirstStageFeatureExtractor/InceptionV2/Conv2d_2c_3x3/weights");
    let [height, width, inputs, outputs] = shape[..] else {
        panic!("{shape:?}");
    };
    let (found, own) = &parameters["backbone.conv2d_2c_3x3.0.weight"];
    assert_eq!(found[..], [outputs, inputs, height, width]);
    let at = |y: usize, x: usize, i: usize, o: usize| ((y * width + x) * inputs + i) * outputs + o;
    let own_at =
        |o: usize, i: usize, y: usize, x: usize| ((o * inputs + i) * height + y) * width + x;
    for (y, x, i, o) in [(0, 1, 2, 3), (2, 0, 1, 0), (1, 2, 0, 4)] {
        assert_eq!(own[own_at(o, i, y, x)], kernel[at(y, x, i, o)]);
    }

    let name = "FirstStageFeatureExtractor/InceptionV2/Conv2d_1a_7x7/depthwise_weights";
    let (shape, kernel) = values(name);
    let maps = shape[2] * shape[3];
    let (found, own) = &parameters["backbone.conv2d_1a_7x7.depthwise.weight"];
    assert_eq!(found[..], [maps, 1, 7, 7]);
    assert_eq!(own[(maps - 1) * 49 + 8], kernel[8 * maps + maps - 1]);

    // ty, tx, th, tw of classes without background become tx, ty, tw, th with it.
    let (shape, biases) = values("SecondStageBoxPredictor/BoxEncodingPredictor/biases");
    assert_eq!(shape, [12]);
    let (_, own) = &parameters["roi_heads.box_predictor.bbox_pred.bias"];
    let swapped = [1, 0, 3, 2].map(|i| biases[i]);
    assert_eq!((&own[..4], &own[4..8]), (&[0.0; 4][..], &swapped[..]));

    let (_, weights) = values("FirstStageBoxPredictor/ClassPredictor/weights");
    let (shape, own) = &parameters["rpn.head.cls_logits.weight"];
    assert_eq!(shape[..], [6, 16, 1, 1]);
    assert_eq!(own[0], weights[1] - weights[0]);
}

#[test]
fn the_folder_says_what_no_shape_tells() {
    let open = |path: PathBuf| Weights::open(path).unwrap();
    for (year, rules, resize) in [
        ("2018", BoxRules::Tensorflow2018, ResizeRule::Tensorflow2018),
        ("2019", BoxRules::Tensorflow2019, ResizeRule::Tensorflow2019),
    ] {
        let weights = open(model(year));
        let config = &weights.config;
        assert_eq!(weights.origin, ConfigOrigin::Pipeline);
        let names = ["__background__", "cell", "platelet", "other"];
        assert_eq!(config.class_names, names);
        assert_eq!(config.rpn.box_rules, rules);
        assert_eq!(
            (config.roi_heads.box_rules, config.transform.resize_rule),
            (rules, resize)
        );
        assert_eq!(config.transform.min_size, [128]);
        assert_eq!(config.transform.max_size, 200);
        let anchors = &config.rpn.anchor_generator;
        assert_eq!(anchors.sizes, [[32.0, 64.0]]);
        assert_eq!(anchors.aspect_ratios, [[2.0, 1.0, 0.5]]);
        assert_eq!(config.rpn.conv_channels, [16]);
        assert_eq!(config.rpn.post_nms_top_n_test, 20);
        assert_eq!(config.roi_heads.detections_per_class, Some(8));
        let BackboneConfig::InceptionV2(backbone) = &config.backbone else {
            panic!("{:?}", config.backbone);
        };
        assert_eq!(backbone.depth.min_depth, 4);
        weights.load::<Flex>(&FlexDevice).unwrap();
    }
    // A checkpoint does not say how its graph was.
    let checkpoint = open(model("2018").join("model.ckpt")).config;
    assert_eq!(checkpoint, open(model("2018")).config);
}

#[test]
fn converted_it_opens_by_itself() {
    let weights = Weights::open(model("2019")).unwrap();
    let file = tempfile::Builder::new().suffix(".bpk").tempfile().unwrap();
    weights.write_burnpack(file.path(), Precision::F32).unwrap();
    let converted = Weights::open(file.path()).unwrap();
    assert_eq!(converted.config, weights.config);
    assert_eq!(converted.origin, ConfigOrigin::Stored);
    assert!(parameters(file.path()) == parameters(&model("2019")));
    converted.load::<Flex>(&FlexDevice).unwrap();
}

#[test]
fn a_changed_byte_of_a_tensor_is_named() {
    let folder = copy("2018");
    let data = folder.path().join("model.ckpt.data-00000-of-00001");
    let mut bytes = fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&data, &bytes).unwrap();
    let checkpoint = Checkpoint::open(folder.path().join("model.ckpt")).unwrap();
    let errors = checkpoint
        .iter()
        .filter_map(|(name, tensor)| Some((name, tensor.data().err()?)));
    let errors: Vec<_> = errors.collect();
    let [(name, error @ CheckpointError::Corrupt { .. })] = &errors[..] else {
        panic!("{errors:?}");
    };
    let message = error.to_string();
    let file = data.display().to_string();
    assert!(
        message.contains(&file) && message.contains(name),
        "{message}"
    );
    assert!(message.contains("checksum"), "{message}");
}

/// burn-store's debug output stood in the place of the message: `Failed to load tensor data: IoError("...")`.
#[test]
fn a_damaged_tensor_is_reported_in_words_when_it_is_loaded_and_when_it_is_written() {
    let folder = copy("2018");
    let data = folder.path().join("model.ckpt.data-00000-of-00001");
    let mut bytes = fs::read(&data).unwrap();
    // Not in the tensor that the anchors are recognised by, which is read when the file is opened.
    let size = bytes.len();
    for twentieth in 1..19 {
        bytes[size * twentieth / 20] ^= 1;
    }
    fs::write(&data, &bytes).unwrap();
    let weights = Weights::open(folder.path().join("model.ckpt")).unwrap();
    let loaded = weights.load::<Flex>(&FlexDevice).map(|_| ());
    let written = [
        weights.write_burnpack(folder.path().join("out.bpk"), Precision::F32),
        weights.write_safetensors(folder.path().join("out.safetensors")),
    ];
    for error in written.into_iter().chain([loaded]) {
        let message = error.unwrap_err().to_string();
        let words = format!("{}: the file is damaged: tensor `", data.display());
        assert!(message.contains(&words), "{message}");
        assert!(!message.contains("Error("), "{message}");
    }
}

#[test]
fn cut_and_damaged_files_are_errors_that_name_them() {
    let folder = copy("2018");
    let path = |name: &str| folder.path().join(name);
    let mut number = 1u64;
    let mut random = |below: usize| {
        number = number
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (number >> 33) as usize % below
    };
    for name in [
        "frozen_inference_graph.pb",
        "model.ckpt.index",
        "model.ckpt.data-00000-of-00001",
    ] {
        let whole = fs::read(path(name)).unwrap();
        let opened = match name.contains(".data-") {
            true => "model.ckpt.index",
            false => name,
        };
        let open = |bytes: &[u8]| {
            fs::write(path(name), bytes).unwrap();
            let checkpoint = Checkpoint::open(path(opened))?;
            torchvision_names(&checkpoint)?;
            checkpoint
                .iter()
                .try_for_each(|(_, tensor)| tensor.data().map(drop))
        };
        for _ in 0..100 {
            let length = random(whole.len());
            if let Err(error) = open(&whole[..length]) {
                assert!(error.to_string().contains(name) || length == 0, "{error}");
            } else {
                // Cut between nodes, a graph is a smaller graph.
                assert!(name.ends_with(".pb"), "{name} of {length} bytes");
            }
            let mut damaged = whole.clone();
            let at = random(whole.len());
            damaged[at] ^= 1 << random(8);
            // A graph has no checksums: it opens, or is refused. The last bytes of an index pad it.
            let is_padding = name.ends_with(".index") && at + 48 >= whole.len();
            let may_open = name.ends_with(".pb") || is_padding;
            assert!(open(&damaged).is_err() || may_open, "{name}, byte {at}");
        }
        fs::write(path(name), whole).unwrap();
    }
}

#[test]
fn parts_of_a_checkpoint_alone_are_named() {
    let folder = copy("2018");
    let path = |name: &str| folder.path().join(name);
    let error = |name: &str| Checkpoint::open(path(name)).unwrap_err().to_string();
    fs::remove_file(path("frozen_inference_graph.pb")).unwrap();
    fs::remove_dir_all(path("saved_model")).unwrap();
    assert!(
        Checkpoint::open(folder.path()).is_ok(),
        "the checkpoint is left"
    );
    fs::rename(path("model.ckpt.index"), path("other.index")).unwrap();
    let message = error("model.ckpt.data-00000-of-00001");
    assert!(
        message.contains("model.ckpt.index, is not beside it"),
        "{message}"
    );
    let message = error("other.index");
    assert!(
        message.contains("other.data-00000-of-00001, which is not beside it"),
        "{message}"
    );
    let index = fs::read(path("other.index")).unwrap();
    fs::write(path("other.index"), &index[..2000]).unwrap();
    let message = error("other.index");
    assert!(
        message.contains("does not end as the index of a TensorFlow checkpoint"),
        "{message}"
    );
    fs::remove_file(path("other.index")).unwrap();
    let message = error(".");
    assert!(
        message.contains("a folder with frozen_inference_graph.pb"),
        "{message}"
    );
}

#[test]
fn what_a_pipeline_says_wrongly_is_named_with_its_file() {
    let folder = copy("2018");
    let file = folder.path().join("pipeline.config");
    let pipeline = fs::read_to_string(&file).unwrap();
    for (from, to, says) in [
        (
            "num_classes: 3",
            "num_classes: 4",
            "num_classes = 4: expected 3",
        ),
        ("num_classes: 3", "num_classes: many", "num_classes = many"),
        (
            "faster_rcnn_inception_v2",
            "faster_rcnn_resnet101",
            "feature_extractor.type = faster_rcnn_resnet101",
        ),
        ("faster_rcnn {", "ssd {", "not a faster_rcnn"),
        (
            "maxpool_stride: 2",
            "maxpool_stride: 1",
            "initial_crop_size 14",
        ),
        ("SOFTMAX", "SIGMOID", "score_converter = SIGMOID"),
        ("height_stride: 16", "height_stride: 8", "width_stride = 16"),
        ("model {", "model", "line 3: `model` has no value"),
    ] {
        fs::write(&file, pipeline.replacen(from, to, 1)).unwrap();
        let error = Weights::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains("pipeline.config"),
            "{error}"
        );
    }
    fs::write(&file, pipeline.replacen("scales: 0.125", "", 1)).unwrap();
    let error = Weights::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("6 anchors at each location"), "{error}");
    fs::remove_file(&file).unwrap();
    let error = Weights::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("put the model's pipeline.config beside the weights"),
        "{error}"
    );
}

/// A pipeline or a label map in another encoding was passed over, and the model was another than it says.
#[test]
fn texts_beside_the_weights_are_read_or_named() {
    let folder = copy("2018");
    let expected = Weights::open(folder.path()).unwrap().config;
    for file in ["pipeline.config", "label_map.pbtxt"].map(|name| folder.path().join(name)) {
        let text = fs::read_to_string(&file).unwrap();
        let wide = "\u{feff}".encode_utf16().chain(text.encode_utf16());
        fs::write(&file, wide.flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).unwrap();
        assert_eq!(Weights::open(folder.path()).unwrap().config, expected);
        fs::write(&file, [b"# Z\xfcrich\n", text.as_bytes()].concat()).unwrap();
        let error = Weights::open(folder.path()).unwrap_err().to_string();
        let name = file.file_name().unwrap().to_string_lossy();
        assert!(error.contains(&*name) && error.contains("0xfc"), "{error}");
        fs::write(&file, text).unwrap();
    }
}

#[test]
fn an_item_without_a_number_is_named() {
    let folder = copy("2018");
    let map = folder.path().join("label_map.pbtxt");
    fs::write(map, "item { name: \"cell\" }").unwrap();
    let error = Weights::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("item `cell`: it has no id"), "{error}");
}

#[test]
fn other_networks_are_named_as_such() {
    // A graph of one node, a constant of one number.
    let node = |name: &str| {
        let field =
            |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat();
        let shape = field(2, &field(2, b"\x08\x01"));
        let tensor = [&b"\x08\x01"[..], &shape, &field(4, &1.5f32.to_le_bytes())].concat();
        let value = [field(1, b"value"), field(2, &field(8, &tensor))].concat();
        let node = [
            field(1, name.as_bytes()),
            field(2, b"Const"),
            field(5, &value),
        ]
        .concat();
        field(1, &node)
    };
    for (name, says) in [
        (
            "FirstStageFeatureExtractor/resnet_v1/conv1/weights",
            "over another network",
        ),
        (
            "FeatureExtractor/MobilenetV1/Conv2d_0/weights",
            "perhaps an SSD",
        ),
        ("resnet/conv1/weights", "another network"),
    ] {
        let file = crate::file(&node(name));
        let checkpoint = Checkpoint::open(file.path()).unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), [name]);
        let error = Weights::open(file.path()).unwrap_err();
        assert!(matches!(error, WeightsError::Unrecognized { .. }));
        let error = error.to_string();
        assert!(error.contains(says) && error.contains(name), "{error}");
    }
    let file = crate::file(&node("Reshape/shape"));
    let error = Checkpoint::open(file.path()).unwrap_err().to_string();
    assert!(error.contains("without weights"), "{error}");
}

#[test]
fn the_published_model_is_named() {
    let config = FasterRcnnConfig::named("faster_rcnn_inception_v2_coco", 91).unwrap();
    config.validate().unwrap();
    let model = config.init::<Flex>(&FlexDevice).unwrap();
    let shapes = weights_import::parameter_shapes(&model);
    // Open Model Zoo counts 13.307 million, norms folded into one bias each, background without boxes, two logits an anchor.
    let elements = |name: &str, shape: &[usize]| -> usize {
        let count = shape.iter().product();
        match name {
            _ if name.ends_with("1.bias") => count,
            _ if name.contains(".1.") => 0,
            "rpn.head.cls_logits.weight" | "rpn.head.cls_logits.bias" => 2 * count,
            "roi_heads.box_predictor.bbox_pred.weight" => count - 4 * shape[1],
            "roi_heads.box_predictor.bbox_pred.bias" => count - 4,
            _ => count,
        }
    };
    let all: usize = shapes
        .iter()
        .map(|(name, shape)| elements(name, shape))
        .sum();
    assert_eq!(all, 13_307_267);
}
