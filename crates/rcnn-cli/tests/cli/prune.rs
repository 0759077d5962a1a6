//! `rcnn prune`: budgets, limits, and steps that are resumed.

use std::fs;

use rcnn_burn::weights::{Precision, Weights};

use super::train::blobs;
use super::{assert_fails, detect, json, path, rcnn, stdout};

#[test]
fn a_model_is_pruned_by_the_norms_of_its_weights() {
    let prune = |rest: &[&str]| rcnn(&[&["prune", "model.bpk"], rest].concat());
    let said = stdout(&prune(&[
        "--macs", "0.5", "--size", "60x80", "--out", "half",
    ]));
    for says in [
        "backbone.body.layer1.0.conv1",
        "parameters after",
        "file",
        "detection",
    ] {
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(says), "`{says}` is not in: {said}");
    }
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path("half/pruning.json")).expect("a file"))
            .expect("JSON");
    let [before, after] = [0, 1].map(|i| report["macs"][i].as_u64().expect("a number"));
    assert!(
        2 * after <= before && 3 * after > before,
        "{after} of {before}"
    );
    assert!(path("half/pruning.png").is_file());
    // It is a model like any other.
    let found = json(&rcnn(&[
        "detect",
        "--weights",
        "half/pruned.bpk",
        "--format",
        "json",
        "pictures",
    ]));
    assert_eq!(found.as_array().expect("an array").len(), 2);
    let inspected = stdout(&rcnn(&["inspect", "half/pruned.bpk"]));
    assert!(inspected.contains(", pruned)"), "{inspected}");
    stdout(&rcnn(&[
        "convert",
        "half/pruned.bpk",
        "-o",
        "half/pruned.safetensors",
    ]));
    stdout(&rcnn(&[
        "export",
        "half/pruned.bpk",
        "-o",
        "half/pruned.onnx",
    ]));
    let analyzed = stdout(&rcnn(&["analyze", "half/pruned.bpk", "--data", "pictures"]));
    assert!(analyzed.contains("rpn.head.conv.0"), "{analyzed}");
    stdout(&detect(&["pictures/a.png"]));

    let again = prune(&["--macs", "0.5", "--out", "half"]);
    assert_fails(&again, 1, "already holds a pruning");
    // A path through a folder that is yet to be made.
    fs::create_dir_all(path("mine")).expect("a folder");
    fs::write(path("mine/pruned.bpk"), "mine").expect("a file");
    for out in ["mine", "new-one/../mine"] {
        let refused = prune(&["--macs", "0.5", "--out", out]);
        assert_fails(&refused, 1, "pruned.bpk: this file is in the way");
    }
    // Killed between the model to start from and what is to be done with it, which was in the way then.
    fs::create_dir_all(path("begun")).expect("a folder");
    for file in ["run.lock", "start.bpk"] {
        fs::write(path("begun").join(file), "").expect("a file");
    }
    stdout(&prune(&[
        "--macs", "0.5", "--size", "60x80", "--out", "begun",
    ]));
    let too_much = prune(&["--macs", "0.01", "--out", "nearly-none"]);
    assert_fails(
        &too_much,
        1,
        "0.010 of the multiply-accumulates can't be met",
    );
    assert_fails(&prune(&["--out", "no-budget"]), 2, "--macs");
    assert_fails(
        &prune(&["--macs", "1.5"]),
        2,
        "expected a share above 0 and up to 1",
    );
    let keep = prune(&["--macs", "0.5", "--keep-of", "layr1=0.5", "--out", "kept"]);
    assert_fails(&keep, 1, "layr1");
    let epochs = prune(&["--params", "0.5", "--epochs", "1", "--out", "untaught"]);
    assert_fails(&epochs, 1, "--data");
    // Of a folder that is not there, the lock was missed.
    for folder in ["nothing", "absent"] {
        let resumed = rcnn(&["prune", "--resume", "--out", folder]);
        assert_fails(&resumed, 1, "holds no pruning");
    }
}

#[test]
fn steps_that_were_interrupted_are_resumed() {
    blobs();
    let recipe = [
        "train", "--config", "run.toml", "--epochs", "1", "--out", "to-prune",
    ];
    stdout(&rcnn(&recipe));
    let model = path("to-prune/best.bpk");
    let prune = |out: &str| {
        let begin = [
            "prune",
            "to-prune/best.bpk",
            "--recipe",
            "run.toml",
            "--macs",
            "0.5",
        ];
        let rest = [
            "--steps",
            "2",
            "--epochs",
            "1",
            "--round-to",
            "4",
            "--out",
            out,
        ];
        rcnn(&[&begin[..], &rest].concat())
    };
    let whole = prune("steps");
    let said = stdout(&whole);
    assert!(said.contains("step 2: best AP "), "{said}");
    let read = |file: &str| fs::read(path(file)).expect("a file");
    // As after an interruption of the second step's training.
    for file in ["pruned.bpk", "pruning.json", "step-2/trained.json"] {
        fs::rename(
            path("steps").join(file),
            path("steps").join(format!("{file}.whole")),
        )
        .expect("renamed");
    }
    fs::remove_dir_all(path("steps/step-2/train")).expect("removed");
    let before = read("steps/step-1/pruned.bpk");
    stdout(&rcnn(&["prune", "--resume", "--out", "steps"]));
    assert!(
        read("steps/step-1/pruned.bpk") == before,
        "the first step was done"
    );
    for file in ["pruned.bpk", "pruning.json", "step-2/trained.json"] {
        let file = format!("steps/{file}");
        assert!(
            read(&file) == read(&format!("{file}.whole")),
            "{file} differs"
        );
    }
    // Other classes have no loss here.
    let mut weights = Weights::open(&model).expect("a model");
    weights.config.class_names[1] = "blot".into();
    weights
        .write_burnpack(path("blot.bpk"), Precision::F32)
        .expect("written");
    let other = rcnn(&[
        "prune", "blot.bpk", "--recipe", "run.toml", "--macs", "0.5", "--out", "blots",
    ]);
    assert_fails(&other, 1, "the model has 2 classes (__background__, blot)");
}
