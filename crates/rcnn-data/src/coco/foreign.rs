//! JSON of labelling tools' own formats, which is named for what it is.

/// Words that such a file has, and whose it is.
const TOOLS: [(&[&str], &str); 5] = [
    (&["\"imagePath\"", "\"shapes\""], "labelme's"),
    (
        &["\"regions\"", "\"filename\""],
        "the VGG Image Annotator's own",
    ),
    (&["\"coordinates\"", "\"annotations\""], "CreateML's"),
    (
        &["\"result\"", "\"annotations\"", "\"data\""],
        "Label Studio's own",
    ),
    (&["\"classTitle\"", "\"objects\""], "Supervisely's"),
];

/// The tool whose format a text has, and what to do.
pub(super) fn named(text: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().all(|word| text.contains(word));
    let (_, whose) = TOOLS.iter().find(|(words, _)| has(words))?;
    Some(format!("{whose} format: export COCO, VOC or YOLO"))
}
