//! Devices and precisions, of the default build: Flex alone.

use super::{assert_fails, detect, json, rcnn, stdout};

#[test]
fn devices_are_listed() {
    let listed = stdout(&rcnn(&["devices"]));
    let names: Vec<&str> = listed
        .lines()
        .flat_map(|line| line.split(' ').next())
        .collect();
    assert!(names.contains(&"flex"), "{listed}");
}

#[test]
fn an_unknown_or_missing_device_is_an_error_that_lists_those_there_are() {
    let device = |name| detect(&["--device", name, "pictures"]);
    assert_fails(&device("tpu"), 2, "no such device; there are flex");
    assert_fails(&device("flex:1"), 2, "takes no number");
    if !cfg!(feature = "cuda") {
        assert_fails(&device("cuda:0"), 2, "built with flex");
        assert_fails(&device("cuda:0"), 2, "--features cuda");
    }
}

#[test]
fn half_precision_finds_about_the_same() {
    let best = |dtype| {
        let found = json(&detect(&[
            "--dtype",
            dtype,
            "--format",
            "json",
            "pictures/a.png",
        ]));
        found[0]["detections"][0]["score"]
            .as_f64()
            .expect("a detection")
    };
    let exact = best("f32");
    assert!((best("f16") - exact).abs() < 0.01);
    assert!((best("bf16") - exact).abs() < 0.05);
    assert_ne!(best("bf16"), exact, "it is computed in f32");
    assert_fails(
        &detect(&["--dtype", "f64", "pictures"]),
        2,
        "f32, f16, bf16",
    );
}
