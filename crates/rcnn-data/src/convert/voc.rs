//! Writes Pascal VOC: an XML file an image.

use std::io::{self, Write};
use std::path::PathBuf;

use rcnn_types::Size;

use super::Output;
use crate::dataset::Sample;
use crate::error::DataError;
use crate::voc::{ANNOTATIONS, ATTRIBUTES, CLASSES, IMAGES, SPLITS};

pub(super) fn write(output: &Output) -> Result<PathBuf, DataError> {
    output.create_folder(ANNOTATIONS)?;
    output.create_folder(SPLITS)?;
    output.write_lines(CLASSES, output.classes())?;
    for (sample, (stem, name)) in output.samples() {
        let path = format!("{ANNOTATIONS}/{stem}.xml");
        let classes = &output.dataset.class_names;
        output.write(path, |file| annotation(file, sample, name, classes))?;
    }
    for (split, indices) in &output.splits {
        let stems = indices.iter().map(|&index| &output.names[index].0);
        output.write_lines(format!("{SPLITS}/{split}.txt"), stems)?;
    }
    output.create_folder(IMAGES)
}

fn annotation(
    file: &mut dyn Write,
    sample: &Sample,
    name: &str,
    classes: &[String],
) -> io::Result<()> {
    let Size { height, width } = sample.size;
    writeln!(file, "<annotation>\n\t<folder>{IMAGES}</folder>")?;
    writeln!(file, "\t<filename>{}</filename>", escape(name))?;
    writeln!(
        file,
        "\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    )?;
    for index in sample.instances.objects() {
        let extras = sample.object_extras.get(index);
        let object = sample.instances.get(index);
        let ([x1, y1, x2, y2], label) = (object.bbox, object.label);
        let class = classes
            .get(label)
            .map_or_else(|| label.to_string(), |name| escape(name));
        writeln!(file, "\t<object>\n\t\t<name>{class}</name>")?;
        for name in ATTRIBUTES {
            let value = extras.and_then(|extras| extras.get(name));
            // A text stands in quotes there, a number does not.
            let text = value.map(|json| serde_json::from_str(json).unwrap_or(json.to_string()));
            if let Some(text) = text.or((name == "difficult").then(|| "0".into())) {
                writeln!(file, "\t\t<{name}>{}</{name}>", escape(&text))?;
            }
        }
        writeln!(
            file,
            "\t\t<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        )?;
        writeln!(file, "\t</object>")?;
    }
    writeln!(file, "</annotation>")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // XML 1.0 has no way to write other control characters.
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
