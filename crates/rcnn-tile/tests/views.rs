//! Views of a picture against plain detection, with a small model of random weights.

use burn::module::{Module, Param};
use burn::tensor::module::avg_pool2d;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use rcnn_backbone::{Backbone, FeatureMaps, Forward, LevelSpec};
use rcnn_detector::{DetectError, FasterRcnn, FasterRcnnConfig};
use rcnn_ops::backend_types::Flex;
use rcnn_tile::{TestTimeAugmentation, TileGrid, Views, Window};
use rcnn_types::{Instances, Size};

/// The image itself, on an eighth of its size: what is computed fast.
#[derive(Module, Debug)]
struct Small<B: Backend> {
    scale: Param<Tensor<B, 1>>,
}

impl<B: Backend> Backbone<B> for Small<B> {
    fn forward(&self, images: Tensor<B, 4>, _cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        let map = avg_pool2d(images, [8, 8], [8, 8], [0, 0], false, false);
        let scale = self.scale.val().reshape([1, 1, 1, 1]);
        FeatureMaps::new(vec![("0".into(), map * scale)])
    }

    fn levels(&self) -> Vec<LevelSpec> {
        vec![LevelSpec::new("0", 3, 8)]
    }
}

type Model = FasterRcnn<Flex, Small<Flex>>;

fn model() -> Model {
    let device = Default::default();
    let mut config = FasterRcnnConfig::custom(3);
    config.rpn.anchor_generator.sizes = vec![vec![16.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![1.0]];
    config.rpn.post_nms_top_n_test = 20;
    config.roi_heads.box_head = "fc:8".parse().unwrap();
    config.roi_heads.detections_per_img = 5;
    config.transform.min_size = vec![48];
    config.transform.max_size = 96;
    let scale = Param::from_tensor(Tensor::ones([1], &device));
    let model = config.init_with_backbone(Small { scale }, &device).unwrap();
    // Random weights are drawn when they are first used: a copy would have others.
    model.detect(&[picture(Size::new(8, 8))]).unwrap();
    model
}

fn picture(size: Size) -> Tensor<Flex, 3> {
    let value = |i: usize| ((i * 7919) % 251) as f32 / 250.0;
    let values: Vec<f32> = (0..3 * size.pixels()).map(value).collect();
    let data = TensorData::new(values, [3, size.height, size.width]);
    Tensor::from_data(data, &Default::default())
}

/// The detections, the windows that were read, and the progress that was reported.
fn look(views: &Views, model: &Model, size: Size) -> (Instances, Vec<Window>, Vec<(usize, usize)>) {
    let (image, mut windows, mut told) = (picture(size), Vec::new(), Vec::new());
    let read = |window: Window| {
        windows.push(window);
        let [left, top, right, bottom] = window.map(|edge| edge as usize);
        Ok::<_, DetectError>(image.clone().slice([0..3, top..bottom, left..right]))
    };
    let found = views
        .detect(model, size, read, |done, all| told.push((done, all)))
        .unwrap();
    (found, windows, told)
}

#[test]
fn a_single_view_is_plain_detection() {
    let (model, size) = (model(), Size::new(40, 60));
    let plain = model.detect(&[picture(size)]).unwrap().remove(0);
    assert!(!plain.is_empty());
    let grid = TileGrid {
        side: 64,
        overlap: 0.2,
    };
    let tiles = Views {
        tiles: Some(grid),
        full_image: true,
        ..Views::default()
    };
    for views in [Views::default(), tiles] {
        let (found, windows, _) = look(&views, &model, size);
        assert_eq!(found, plain);
        assert_eq!(windows, [[0, 0, 60, 40]]);
    }
}

#[test]
fn tiles_are_computed_in_batches_and_the_whole_comes_last() {
    let (model, size) = (model(), Size::new(64, 150));
    let views = Views {
        tiles: Some(TileGrid {
            side: 64,
            overlap: 0.2,
        }),
        full_image: true,
        batch_size: 2,
        ..Views::default()
    };
    let (found, windows, told) = look(&views, &model, size);
    let expected = [
        [0, 0, 64, 64],
        [52, 0, 116, 64],
        [86, 0, 150, 64],
        [0, 0, 150, 64],
    ];
    assert_eq!(windows, expected);
    assert_eq!(told, [(2, 4), (3, 4), (4, 4)]);
    let one_by_one = Views {
        batch_size: 1,
        ..views.clone()
    };
    assert_eq!(look(&one_by_one, &model, size).0.len(), found.len());

    // Each of a tile's detections is one of the picture's, or overlaps a better one.
    let image = picture(size);
    let tile = image.slice([0..3, 0..64, 86..150]);
    let mut of_tile = model.detect(&[tile]).unwrap().remove(0);
    of_tile.paste(86, 0, size);
    assert!(found.boxes.iter().all(|b| b[2] < 150.01 && b[3] < 64.01));
    assert!(of_tile.boxes.iter().any(|b| found.boxes.contains(b)));
}

#[test]
fn a_mirrored_view_finds_what_the_picture_has() {
    let (model, size) = (model(), Size::new(40, 60));
    let image = picture(size);
    let mirrored = model.detect(&[image.flip([2])]).unwrap().remove(0);
    let views = Views {
        augmentation: TestTimeAugmentation {
            flip: true,
            scales: vec![],
        },
        ..Views::default()
    };
    let (found, windows, told) = look(&views, &model, size);
    assert_eq!((windows.len(), told), (1, vec![(1, 1)]));
    let best = mirrored.boxes[0];
    let back = [60.0 - best[2], best[1], 60.0 - best[0], best[3]];
    let plain = model.detect(&[picture(size)]).unwrap().remove(0);
    let best = |found: &Instances| found.scores.as_ref().unwrap()[0];
    assert_eq!(best(&found), best(&plain).max(best(&mirrored)));
    if best(&mirrored) > best(&plain) {
        assert_eq!(found.boxes[0], back);
    }
}

#[test]
fn a_scaled_view_resizes_to_another_size() {
    let (model, size) = (model(), Size::new(40, 60));
    let mut large = model.clone();
    large.transform.min_size = vec![72];
    large.transform.max_size = 144;
    let expected = large.detect(&[picture(size)]).unwrap();
    assert_eq!(
        model.detect_at_scale(&[picture(size)], 1.5).unwrap(),
        expected
    );
    assert_eq!(
        model.detect_at_scale(&[picture(size)], 1.0).unwrap(),
        model.detect(&[picture(size)]).unwrap()
    );
}

#[test]
fn views_that_cannot_be_are_errors() {
    let model = model();
    let size = Size::new(8, 8);
    let fault = |views: Views| {
        let read = |_| Ok::<_, DetectError>(picture(size));
        views
            .detect(&model, size, read, |_, _| ())
            .unwrap_err()
            .to_string()
    };
    let tiles = |side, overlap| Views {
        tiles: Some(TileGrid { side, overlap }),
        ..Views::default()
    };
    assert_eq!(
        fault(tiles(0, 0.2)),
        "tile = 0: expected a number of pixels from 1"
    );
    assert!(fault(tiles(640, 1.0)).starts_with("overlap = 1.0"));
    let scales = TestTimeAugmentation {
        flip: false,
        scales: vec![0.0],
    };
    let fault = fault(Views {
        augmentation: scales,
        ..Views::default()
    });
    assert!(fault.starts_with("tta scale = 0"), "{fault}");
}
