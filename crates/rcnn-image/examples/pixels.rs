//! Decodes the files whose paths come by standard input, one a line; writes a line of JSON for each,
//! `[width, height]` followed by the RGB pixels, or the error.
//!
//! `tests/reference/compare_pixels.py` compares the pixels with Pillow's.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for path in io::stdin().lines() {
        match rcnn_image::open_rgb(path?) {
            Ok(picture) => {
                writeln!(out, "[{}, {}]", picture.width(), picture.height())?;
                out.write_all(&picture)?;
            }
            Err(error) => writeln!(out, "{:?}", error.to_string())?,
        }
        out.flush()?;
    }
    Ok(())
}
