//! The Rust of docs/recipes.md, run: each block of the page stands here as it is there.

use std::sync::LazyLock;

use rcnn_burn::prelude::*;
use rcnn_files::TemporaryFolder;

type Done = Result<(), Box<dyn std::error::Error>>;

/// A folder with a picture and labelled ones in it, where files are read and written.
static FOLDER: LazyLock<TemporaryFolder> = LazyLock::new(|| {
    // A static is never dropped: the next run removes the folder.
    let parent = env!("CARGO_TARGET_TMPDIR").as_ref();
    let folder = TemporaryFolder::create_in(parent).expect("a folder");
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/blood-cells.jpg");
    std::fs::copy(picture, folder.path().join("blood-cells.jpg")).expect("a copy");
    let labelled = concat!(env!("CARGO_MANIFEST_DIR"), "/blood-cells");
    let copies = folder.path().join("blood-cells");
    std::fs::create_dir(&copies).expect("a folder");
    for file in std::fs::read_dir(labelled).expect("pictures").flatten() {
        std::fs::copy(file.path(), copies.join(file.file_name())).expect("a copy");
    }
    std::env::set_current_dir(folder.path()).expect("a folder");
    folder
});

#[test]
fn draw_what_was_found() -> Done {
    use rcnn_burn::image::{Label, draw_labels};

    LazyLock::force(&FOLDER);
    let device = Default::default();
    let model = rcnn_burn::bundled::blood_cells()?.load::<Flex>(&device)?;
    let mut photo = open_rgb("blood-cells.jpg")?;
    let found = model.detect(&[to_tensor(&photo, &device)])?;
    let labels: Vec<Label> = found[0]
        .iter()
        .filter(|object| object.score > 0.5)
        .map(|object| Label {
            bounds: object.bbox,
            text: &model.class_names[object.label],
            colour: object.label,
            ..Label::default()
        })
        .collect();
    draw_labels(&mut photo, &labels);
    photo.save("boxes.png")?;
    assert_ne!(photo, open_rgb("blood-cells.jpg")?);
    Ok(())
}

#[test]
fn trainable_backbone_layers() -> Done {
    use rcnn_burn::freeze::{FreezeState, freeze};

    let device = Default::default();
    for layers in 0..=5 {
        let model = FasterRcnnConfig::named("resnet18_fpn", 91)?.init::<Autodiff<Flex>>(&device)?;
        let model = freeze(model, &[&format!("trainable_backbone_layers={layers}")])?;
        println!("trainable_backbone_layers={layers}");
        for name in FreezeState::from_model(&model).frozen().names {
            println!("  frozen {name}");
        }
    }
    Ok(())
}

#[test]
fn freeze_the_box_classifier() -> Done {
    use rcnn_burn::freeze::{FreezePlan, FreezeState, parse};

    let model = rcnn_burn::bundled::blood_cells()?.load::<Flex>(&Default::default())?;
    let rules = parse(&[
        "roi_heads",
        "thaw box_predictor from epoch 2",
        "thaw box_head from epoch 4",
    ])?;
    let plan = FreezePlan::new(FreezeState::from_model(&model), &rules)?;
    for (epoch, state) in plan.stages() {
        println!("from epoch {epoch} on {state}");
    }
    let in_epoch_3 = plan.at(3).apply(model);
    assert!(
        FreezeState::from_model(&in_epoch_3)
            .frozen()
            .names
            .iter()
            .all(|name| name.contains("box_head"))
    );
    Ok(())
}

#[test]
fn freeze_the_first_ten_parameters() -> Done {
    use rcnn_burn::freeze::{FreezeState, freeze};

    let model = rcnn_burn::bundled::blood_cells()?;
    let model = model.load::<Autodiff<Flex>>(&Default::default())?;
    let model = freeze(model, &["first:10"])?;
    assert_eq!(FreezeState::from_model(&model).frozen().names.len(), 10);
    Ok(())
}

#[test]
fn remove_layer4() -> Done {
    let device = Default::default();
    let whole = FasterRcnnConfig::named("resnet18_fpn", 4)?.init::<Flex>(&device)?;
    let whole = Weights::from_model(&whole);
    let (small, report) = whole.with_surgery::<Flex>(&["drop-stage layer4".parse()?], &device)?;
    println!("{report}");
    let model = small.load::<Flex>(&device)?;
    assert!(small.tensors.len() < whole.tensors.len() && model.num_classes() == 4);
    Ok(())
}

#[test]
fn a_box_head_of_one_layer() -> Done {
    let weights = rcnn_burn::bundled::blood_cells()?;
    let (small, report) =
        weights.with_surgery::<Flex>(&["box-head fc:64".parse()?], &Default::default())?;
    // New layers must be trained.
    assert!(
        report
            .initialised
            .iter()
            .any(|(name, ..)| name.starts_with("roi_heads.box_head"))
    );
    let _ = small;
    Ok(())
}

#[test]
fn no_box_regression() -> Done {
    let weights = rcnn_burn::bundled::blood_cells()?;
    let (plain, _) =
        weights.with_surgery::<Flex>(&["no-box-regression".parse()?], &Default::default())?;
    assert!(
        !plain
            .tensors
            .contains_key("roi_heads.box_predictor.bbox_pred.weight")
    );
    Ok(())
}

#[test]
fn a_new_head() -> Done {
    use rcnn_burn::freeze::freeze;

    let device = Default::default();
    let weights = rcnn_burn::bundled::blood_cells()?;
    let operations = ["class-names cat,dog".parse()?];
    let (weights, _) = weights.with_surgery::<Flex>(&operations, &device)?;
    let model = freeze(weights.load::<Autodiff<Flex>>(&device)?, &["backbone"])?;
    assert_eq!(model.class_names[1..], ["cat", "dog"]);
    Ok(())
}

#[test]
fn another_backbone() -> Done {
    use rcnn_burn::backbone::BackboneConfig;

    let config = FasterRcnnConfig::new(BackboneConfig::named("resnet34")?, 4);
    let model = config.init::<Flex>(&Default::default())?;
    let _ = model;
    Ok(())
}

#[test]
fn other_anchors() -> Done {
    use rcnn_burn::rpn::AnchorGenerator;

    let mut config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
    let sizes = [16.0, 32.0, 64.0, 128.0, 256.0].map(|size| vec![size]);
    config.rpn.anchor_generator = AnchorGenerator::with_sizes(sizes.into());
    let model = config.init::<Flex>(&Default::default())?;
    let _ = model;
    Ok(())
}

#[test]
fn what_a_layer_is_good_for() -> Done {
    use rcnn_burn::analyze::{Sample, analyze};

    LazyLock::force(&FOLDER);
    let weights = rcnn_burn::bundled::blood_cells()?;
    let image = open_rgb("blood-cells.jpg")?;
    // With `truth`, the norm of each layer's gradient too, and what is lost without the layer.
    let samples = [Sample { image, truth: None }];
    let analysis = analyze::<Flex>(&weights, &samples, &Default::default(), &mut |_, _| ())?;
    for layer in &analysis.layers {
        println!("{} {:.1} %", layer.name, 100.0 * analysis.share(layer));
    }
    assert!(!analysis.layers.is_empty());
    Ok(())
}

#[test]
fn a_batch_of_different_sizes() -> Done {
    let device = Default::default();
    let model = rcnn_burn::bundled::blood_cells()?.load::<Flex>(&device)?;
    let images = [
        Tensor::zeros([3, 240, 320], &device),
        Tensor::ones([3, 100, 70], &device),
    ];
    let found = model.detect(&images)?;
    assert_eq!(found.len(), 2);
    Ok(())
}

#[test]
fn other_suppression() -> Done {
    use rcnn_burn::roi::NmsMethod;

    let mut model = rcnn_burn::bundled::blood_cells()?.load::<Flex>(&Default::default())?;
    model.roi_heads.config.nms_method = NmsMethod::SoftGaussian { sigma: 0.5 };
    model.roi_heads.config.nms_thresh = 0.3;
    Ok(())
}

#[test]
fn losses_on_held_out_pictures() -> Done {
    use rcnn_burn::ops::Subsample;
    use rcnn_burn::rand::{SeedableRng, rngs::StdRng};

    let device = Default::default();
    let model = rcnn_burn::bundled::blood_cells()?.load::<Flex>(&device)?;
    let image = Tensor::zeros([3, 240, 320], &device);
    let target = Instances::new(vec![[20.0, 20.0, 90.0, 80.0]], vec![1]);
    let mut rng = StdRng::seed_from_u64(0);
    let (losses, found) = model.validate(&[image], &[target], &mut Subsample::Random(&mut rng))?;
    println!("{losses:?}, {} objects", found[0].len());
    Ok(())
}

#[test]
fn average_precision() -> Done {
    use rcnn_burn::data::{ReadOptions, read};
    use rcnn_burn::eval::evaluate;
    use rcnn_burn::types::ImageInstances;

    LazyLock::force(&FOLDER);
    let device = Default::default();
    let model = rcnn_burn::bundled::blood_cells()?.load::<Flex>(&device)?;
    let data = read("blood-cells".as_ref(), &ReadOptions::default())?.accept(false)?;
    let (mut truth, mut found) = (Vec::new(), Vec::new());
    for (image_id, sample) in (1..).zip(&data.samples) {
        let image = to_tensor(&open_rgb(&sample.image)?, &device);
        let instances = model.detect(&[image])?.remove(0);
        found.push(ImageInstances {
            image_id,
            instances,
            ..Default::default()
        });
        let instances = sample.instances.clone();
        truth.push(ImageInstances {
            image_id,
            instances,
            ..Default::default()
        });
    }
    let evaluation = evaluate(&truth, &found, &model.class_names)?;
    println!("AP {:.3}", evaluation.summary.ap.unwrap_or(0.0));
    assert!(evaluation.summary.ap.is_some_and(|ap| ap > 0.4));
    Ok(())
}

#[test]
fn export_it() -> Done {
    LazyLock::force(&FOLDER);
    use rcnn_burn::export::{OnnxOptions, onnx};

    let weights = rcnn_burn::bundled::blood_cells()?;
    weights.write_safetensors("cells.safetensors")?;
    let model = weights.load::<Flex>(&Default::default())?;
    onnx(&model, &OnnxOptions::default(), "cells.onnx".as_ref())?;
    Ok(())
}

/// The page must not show code that no test runs.
#[test]
fn every_block_of_the_page_stands_here() {
    let squeezed = |text: &str| text.replace([' ', '\n', ','], "");
    let here = squeezed(include_str!("recipes.rs"));
    let page = include_str!("../../docs/recipes.md");
    let blocks: Vec<&str> = page.split("```rust\n").skip(1).collect();
    assert!(blocks.len() > 10);
    for block in blocks {
        let code = block.split("```").next().expect("text before a fence");
        for paragraph in code.split("\n\n") {
            assert!(here.contains(&squeezed(paragraph)), "not run:\n{paragraph}");
        }
    }
}
