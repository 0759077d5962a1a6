//! Whole detections with every instruction set that the processor has.

use std::process::{Command, Output};

use rcnn_burn::cpu::InstructionSet;
use serde_json::Value;

use super::{assert_fails, json};

/// The bundled detector's cells of the picture that comes with it.
fn detect_cells(set: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rcnn"))
        .args(["detect", "--format", "json"])
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../assets/blood-cells.jpg"
        ))
        .env("RCNN_SIMD", set)
        .output()
        .expect("the command starts")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Whether two detections are of one label, within the tolerances of the parity suite.
fn same(a: &Value, b: &Value) -> bool {
    let close = |a: &Value, b: &Value, by: f64| (number(a) - number(b)).abs() <= by;
    let side = |i: usize| close(&a["box"][i], &b["box"][i], 0.05);
    a["label"] == b["label"] && (0..4).all(side) && close(&a["score"], &b["score"], 1e-3)
}

#[test]
fn every_instruction_set_finds_the_same_cells() {
    let of = |set: InstructionSet| -> Vec<Value> {
        let found = json(&detect_cells(&set.to_string()));
        found[0]["detections"].as_array().expect("an array").clone()
    };
    let expected = of(InstructionSet::Plain);
    assert!(expected.len() > 10, "{expected:?}");
    for set in InstructionSet::available() {
        let mut found = of(set);
        // Scores that are closer than the tolerance may come in another order.
        for detection in &expected {
            let at = found.iter().position(|other| same(detection, other));
            found.remove(at.unwrap_or_else(|| panic!("{set} finds no {detection}: {found:?}")));
        }
        assert!(found.is_empty(), "{set} also finds {found:?}");
    }
}

#[test]
fn an_instruction_set_that_there_is_not_is_an_error() {
    assert_fails(
        &detect_cells("mmx"),
        1,
        "RCNN_SIMD: unknown instruction set \"mmx\"",
    );
    let lacks = |set: &InstructionSet| !set.is_available();
    let all = ["neon", "avx2", "avx512"].map(|name| name.parse::<InstructionSet>().expect(name));
    for set in all.into_iter().filter(lacks) {
        let says = format!("RCNN_SIMD: this processor lacks the instruction set {set}");
        assert_fails(&detect_cells(&set.to_string()), 1, &says);
    }
}
