//! Invalid sizes, counts and configuration files end in an error, not in an abort.

use std::fs;

use super::{assert_fails, detect, json, path, rcnn, stdout};

#[test]
fn a_min_size_that_memory_cannot_hold_no_longer_aborts() {
    let sizes = ["--min-size", "100000", "--max-size", "100000"];
    let output = detect(&[&sizes[..], &["pictures/a.png"]].concat());
    let says = "pictures/a.png: image 0 of 60x80 pixels (height x width) would be resized to \
                75000x100000, but a batch has at most 67108864 pixels";
    assert_fails(&output, 1, says);
    let most = usize::MAX.to_string();
    for option in ["--min-size", "--max-size"] {
        let field = option.trim_start_matches("--").replace('-', "_");
        assert_fails(&detect(&[option, &most, "dot.png"]), 1, &field);
    }
    // max_size decides.
    stdout(&detect(&["--min-size", "100000", "pictures/a.png"]));
}

#[test]
fn counts_that_make_no_sense_are_refused_or_harmless() {
    let none = ["--detections-per-img", "0", "dot.png"];
    assert_fails(
        &detect(&none),
        1,
        "box_detections_per_img = 0: expected at least 1",
    );
    stdout(&detect(&["--batch-size", "1000000000000000", "dot.png"]));
    let surgery = |option, value| {
        let arguments = ["surgery", "model.bpk", "-o", "huge.bpk", option, value];
        rcnn(&arguments)
    };
    let depth = "1000000000000";
    let says = "rpn_conv_depth = 1000000000000: expected 0 to 64";
    assert_fails(&surgery("--rpn-convs", depth), 1, says);
    let says = "more than 64 layers";
    assert_fails(&surgery("--box-head", "fc:8x1000000000000"), 1, says);
    let says = "box_head.fc_layers[0] = 1000000000000: expected 1 to 16384";
    assert_fails(&surgery("--box-head", "fc:1000000000000"), 1, says);
}

/// Notepad and PowerShell write UTF-16, which only data sets were read in.
#[test]
fn texts_as_windows_writes_them_are_read() {
    let wide = |name: &str, text: &str| {
        let units = "\u{feff}".encode_utf16().chain(text.encode_utf16());
        fs::write(
            path(name),
            units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
        )
        .expect("a file");
    };
    wide("wide.txt", "red\r\nwhite\r\nplate\r\n");
    wide("wide.json", "{\"box_detections_per_img\": 2}");
    let found = detect(&[
        "--labels",
        "wide.txt",
        "--config",
        "wide.json",
        "--classes",
        "red,white,plate",
        "--format",
        "json",
        "pictures/a.png",
    ]);
    let found = json(&found);
    assert_eq!(found[0]["detections"].as_array().map(Vec::len), Some(2));
    wide("wide.toml", "data = \"nowhere\"\n");
    let train = ["train", "--config", "wide.toml", "--out", "wide-run"];
    assert_fails(&rcnn(&train), 1, "nowhere: No such file");
}

#[test]
fn misspelt_names_in_files_are_refused() {
    for (json, says) in [
        (
            r#"{"box_score_tresh": 0.5}"#,
            "did you mean box_score_thresh?",
        ),
        (
            r#"{"backbone": {"norm_epsilon": 0}}"#,
            "did you mean backbone.norm_eps?",
        ),
        (
            r#"{"rpn_positive_fraction": 1.5}"#,
            "rpn_positive_fraction = 1.5: expected 0 to 1",
        ),
    ] {
        fs::write(path("misspelt.json"), json).expect("a file");
        assert_fails(&detect(&["--config", "misspelt.json", "dot.png"]), 1, says);
    }
    let anchors = r#"{"sizes": [[8], [16]], "aspect_ratios": [[1], [1]], "size": 8}"#;
    fs::write(path("anchors.json"), anchors).expect("a file");
    let arguments = [
        "surgery",
        "model.bpk",
        "-o",
        "no.bpk",
        "--anchors",
        "anchors.json",
    ];
    assert_fails(&rcnn(&arguments), 1, "unknown field `size`");
}
