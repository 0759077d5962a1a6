//! Small programs that show rcnn-burn in use, a file each: `cargo run --release --example detect`.
