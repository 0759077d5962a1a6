//! `rcnn convert`, `rcnn inspect` and `rcnn surgery`.

use std::fs;

use super::{assert_fails, json, path, rcnn, stdout};

#[test]
fn convert_and_back() {
    stdout(&rcnn(&["convert", "model.bpk", "-o", "there.safetensors"]));
    stdout(&rcnn(&["convert", "there.safetensors", "-o", "back.bpk"]));
    assert_eq!(
        fs::read(path("back.bpk")).expect("a file"),
        fs::read(path("model.bpk")).expect("a file")
    );
    let found = |weights: &str| {
        json(&rcnn(&[
            "detect",
            "--weights",
            weights,
            "--format",
            "json",
            "pictures",
        ]))
    };
    assert_eq!(found("there.safetensors"), found("model.bpk"));
    stdout(&rcnn(&[
        "convert",
        "model.bpk",
        "-o",
        "half.bpk",
        "--dtype",
        "f16",
    ]));
    let size = |name: &str| fs::metadata(path(name)).expect("a file").len();
    assert!(size("half.bpk") < size("model.bpk") * 6 / 10);
}

#[test]
fn inspect_tells_architecture_and_parameters() {
    let report = json(&rcnn(&["inspect", "model.bpk", "--format", "json"]));
    assert_eq!(report["format"], "burnpack");
    assert_eq!(report["num_classes"], 4);
    assert_eq!(report["config"]["min_size"][0], 64);
    let tensors = report["tensors"].as_array().expect("an array");
    let conv1 = tensors
        .iter()
        .find(|t| t["name"] == "backbone.body.conv1.weight")
        .expect("conv1");
    assert_eq!(conv1["shape"], serde_json::json!([64, 3, 7, 7]));
    let count: u64 = tensors
        .iter()
        .map(|t| t["count"].as_u64().expect("a count"))
        .sum();
    assert_eq!(report["parameters"], count);
    let table = stdout(&rcnn(&["inspect", "model.bpk", "--depth", "1"]));
    for text in [
        "resnet18-FPN",
        "3 and the background: RBC, WBC, Platelets",
        "configuration stored in the file",
        "norm epsilon  1e-5",
        "roi_heads",
    ] {
        assert!(table.contains(text), "{text} is not in: {table}");
    }
    assert!(!table.contains("cls_score"));
    assert_fails(&rcnn(&["inspect", "cut.bpk"]), 1, "cut off");
}

#[test]
fn inspect_shows_what_would_be_frozen() {
    let inspect = |rules: &[&str], others: &[&str]| {
        let rules = rules.iter().flat_map(|rule| ["--freeze", rule]);
        let args: Vec<&str> = ["inspect", "model.bpk"].into_iter().chain(rules).collect();
        rcnn(&[&args, others].concat())
    };
    let rules = ["backbone.fpn", "box_head", "thaw box_head.fc7 from epoch 5"];
    let table = stdout(&inspect(&rules, &["--depth", "2"]));
    let line = |text: &str| {
        let line = table.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("{text} is not in: {table}"))
    };
    assert!(line("    fpn").starts_with("frozen"), "{table}");
    assert!(line("  backbone").starts_with("partly"), "{table}");
    assert!(line("  rpn").starts_with("  "), "{table}");
    let frozen = line(" parameters frozen").to_string();
    assert!(frozen.starts_with("8 of 23 parameters frozen"), "{frozen}");
    assert!(line("from epoch 5 on").contains("6 of 23"), "{table}");

    let report = json(&inspect(&rules, &["--format", "json"]));
    assert_eq!(report["freeze"][1]["from_epoch"], 5);
    assert_eq!(report["freeze"][1]["frozen"], 6);
    let tensors = report["tensors"].as_array().expect("an array");
    let frozen = |name: &str| &tensors.iter().find(|t| t["name"] == name).expect(name)["frozen"];
    assert_eq!(frozen("roi_heads.box_head.fc7.bias"), true);
    assert_eq!(frozen("rpn.head.cls_logits.bias"), false);
    assert!(frozen("backbone.body.bn1.weight").is_null(), "a buffer");

    let wrong = inspect(&["rpn", "box_haed"], &[]);
    assert_fails(&wrong, 1, "the nearest are roi_heads.box_head");
    let rule = inspect(&["unfreeze rpn"], &[]);
    assert_fails(&rule, 2, "expected `trainable_backbone_layers=N`");
    let layers = inspect(&["trainable_backbone_layers=6"], &[]);
    assert_fails(&layers, 1, "expected 0 to 5");
}

#[test]
fn surgery_writes_a_model_that_opens_by_itself() {
    let small = ["--size", "60x80"];
    let operate =
        |arguments: &[&str]| rcnn(&[&["surgery", "model.bpk"], arguments, &small].concat());
    let picture = ["--format", "json", "pictures/a.png"];
    let detect = |model: &str| json(&rcnn(&[&["detect", "-w", model], &picture[..]].concat()));
    let text = stdout(&operate(&[
        "-o",
        "cut.1.bpk",
        "--drop-block",
        "layer1.1",
        "--box-head",
        "fc:8",
        "--no-box-regression",
        "--rpn-convs",
        "0",
    ]));
    for says in [
        "dropped (",
        "backbone.body.layer1.1.conv1.weight",
        "newly initialised (",
        "roi_heads.box_head.1.weight [8, 392], was [16, 392]",
        "MACs (M)",
        "detection",
        "Image of 60x80, 64x96 after resizing and padding",
    ] {
        assert!(text.contains(says), "`{says}` is not in: {text}");
    }
    assert!(detect("cut.1.bpk")[0]["detections"].is_array());
    // The same seed starts the same weights; a converted model finds the same.
    let again = ["-o", "cut.2.bpk", "--box-head", "fc:8", "--no-measure"];
    let first = stdout(&operate(&again));
    assert!(!first.contains("detection"), "{first}");
    let found = detect("cut.2.bpk");
    stdout(&operate(&again));
    assert_eq!(detect("cut.2.bpk"), found);
    stdout(&rcnn(&["convert", "cut.2.bpk", "-o", "cut.safetensors"]));
    assert_eq!(detect("cut.safetensors"), found);
    let report = json(&rcnn(&[
        "inspect",
        "--format",
        "json",
        "--size",
        "60x80",
        "cut.1.bpk",
    ]));
    assert_eq!(report["config"]["box_regression"], false);
    assert_eq!(report["macs"]["parts"]["box head"], 50 * 8 * 392);
    assert!(stdout(&rcnn(&["inspect", "cut.1.bpk"])).contains("without layer1.1"));

    fs::write(
        path("anchors.json"),
        r#"{"rpn_anchor_generator": {"sizes": [[16], [32]], "aspect_ratios": [[1], [1]]}}"#,
    )
    .expect("a file");
    let text = stdout(&operate(&[
        "-o",
        "cut.3.bpk",
        "--anchors",
        "anchors.json",
        "--no-measure",
    ]));
    assert!(
        text.contains("rpn.head.cls_logits.weight [1, 8, 1, 1], was [3, 8, 1, 1]"),
        "{text}"
    );

    for (arguments, code, says) in [
        (
            ["--drop-stage", "layer1"],
            1,
            "first choose a level that stays",
        ),
        (["--drop-stage", "layer9"], 1, "its stages are layer1"),
        (["--drop-block", "layer1.7"], 1, "layer1.0 to layer1.1"),
        (["--levels", "0,1"], 1, "there is no level 1"),
        (["--anchors", "8"], 1, "2 feature maps"),
        (["--box-head", "fc:8,conv:8"], 1, "put convolutions first"),
        (["--size", "60"], 2, "as 800x1088"),
    ] {
        let output = operate(&[&["-o", "refused.bpk"], &arguments[..]].concat());
        assert_fails(&output, code, says);
    }
    assert_fails(&operate(&["-o", "refused.bpk"]), 2, "required");
    assert_fails(
        &operate(&["-o", "refused.txt", "--num-classes", "3"]),
        1,
        ".bpk or",
    );
    assert!(!path("refused.bpk").exists());
}
