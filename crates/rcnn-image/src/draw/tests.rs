//! What a drawn picture shows, pixel by pixel.

use image::{Rgb, RgbImage};
use rcnn_types::{Keypoints, Mask, Size};

use super::labels::{PALETTE, Rect, Style, colour, contrast};
use super::{Label, draw_labels, legible};

const BLANK: Rgb<u8> = Rgb([200, 180, 190]);

fn blank(width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width, height, BLANK)
}

fn label(bounds: [f32; 4], text: &str, colour: usize) -> Label<'_> {
    Label {
        bounds,
        text,
        colour,
        ..Label::default()
    }
}

fn contains(area: &Rect, x: u32, y: u32) -> bool {
    let (x, y) = (i64::from(x), i64::from(y));
    area.overlap(&Rect::new(x, y, x + 1, y + 1)) == 1
}

#[test]
fn one_box_changes_its_line_and_its_tag_only() {
    let mut image = blank(640, 480);
    let style = Style::new(&image);
    let labels = [label([100.0, 200.4, 300.0, 399.6], "RBC 0.98", 1)];
    draw_labels(&mut image, &labels);

    let area = Rect::new(100, 200, 300, 400);
    let tag = style.place_tags(&[area], &[&labels[0]])[0].unwrap();
    assert_eq!(
        (tag.left, tag.bottom),
        (area.left, area.top),
        "the tag stands on the box"
    );
    let line = style.line + style.edge;
    let inner = Rect::new(100 + line, 200 + line, 300 - line, 400 - line);
    for (x, y, pixel) in image.enumerate_pixels() {
        let drawn = contains(&tag, x, y) || contains(&area, x, y) && !contains(&inner, x, y);
        assert_eq!(*pixel != BLANK, drawn, "{x},{y}");
    }
    for (x, y) in [(100, 300), (299, 300), (200, 200), (200, 399)] {
        assert_eq!(image.get_pixel(x, y).0, colour(1), "{x},{y}");
    }
    let count = |like: fn(&Rgb<u8>) -> bool| {
        let pixels = image.enumerate_pixels();
        pixels
            .filter(|(x, y, pixel)| contains(&tag, *x, *y) && like(pixel))
            .count() as i64
    };
    assert!(
        count(|pixel| pixel.0 == colour(1)) > tag.area() / 3,
        "the background of the tag"
    );
    assert!(
        count(|pixel| pixel.0.iter().all(|v| *v > 160)) > 40,
        "the strokes of the text"
    );
}

#[test]
fn what_is_not_in_the_picture_is_left_out() {
    let mut image = blank(60, 40);
    let (nan, infinite) = (f32::NAN, f32::INFINITY);
    let nowhere = [
        [nan, 1.0, 9.0, 9.0],
        [1.0, 1.0, 9.0, nan],
        [70.0, 1.0, 90.0, 9.0],
        [1.0, -9.0, 9.0, -1.0],
        [9.0, 9.0, 1.0, 1.0],
        [infinite, infinite, infinite, infinite],
    ];
    draw_labels(&mut image, &nowhere.map(|bounds| label(bounds, "out", 2)));
    assert!(image == blank(60, 40));
    draw_labels(
        &mut RgbImage::new(0, 0),
        &[label([-1.0, -1.0, 1.0, 1.0], "none", 2)],
    );
    draw_labels(
        &mut image,
        &[label([-1e30, -infinite, infinite, 1e30], "", 2)],
    );
    assert_eq!(
        (image.get_pixel(0, 0).0, image.get_pixel(59, 39).0),
        (colour(2), colour(2))
    );
}

#[test]
fn no_size_is_too_extreme() {
    for (width, height) in [(1, 1), (3, 2), (30000, 10), (10, 30000), (64, 48)] {
        let mut image = blank(width, height);
        let (right, bottom) = (width as f32, height as f32);
        let boxes = [
            [0.0, 0.0, right, bottom],
            [-50.0, -50.0, 0.4, 0.4],
            [right - 0.3, bottom - 0.3, 1e9, 1e9],
            [right / 2.0, bottom / 2.0, right / 2.0, bottom / 2.0],
        ];
        draw_labels(
            &mut image,
            &boxes.map(|bounds| label(bounds, "Żółć 日本 \n 🩸 0.50", 3)),
        );
        assert!(image != blank(width, height), "{width} x {height}");
    }
}

#[test]
fn crowded_tags_do_not_hide_each_other() {
    let style = Style::new(&blank(640, 480));
    for n in [8, 12] {
        let bounds = |i: i64| [200 + 9 * i, 150 + 6 * i, 310 + 8 * i, 240 + 7 * i];
        let boxes: Vec<_> = (0..n)
            .map(bounds)
            .map(|[a, b, c, d]| Rect::new(a, b, c, d))
            .collect();
        let labels: Vec<_> = (0..n).map(|_| label([0.0; 4], "RBC 0.98", 1)).collect();
        let tags = style.place_tags(&boxes, &labels.iter().collect::<Vec<_>>());
        let tags: Vec<_> = tags
            .into_iter()
            .map(|tag| tag.expect("room for all"))
            .collect();
        for (i, tag) in tags.iter().enumerate() {
            assert_eq!(
                tag.overlap(&style.picture),
                tag.area(),
                "within the picture"
            );
            assert!(
                tags[..i].iter().all(|other| tag.overlap(other) == 0),
                "{tag:?}"
            );
        }
    }
}

#[test]
fn the_first_label_lies_on_top() {
    let mut image = blank(640, 480);
    let (tall, wide) = ([300.0, 50.0, 340.0, 450.0], [100.0, 200.0, 500.0, 260.0]);
    draw_labels(&mut image, &[label(tall, "a", 1), label(wide, "b", 2)]);
    assert_eq!(image.get_pixel(300, 200).0, colour(1));
    draw_labels(&mut image, &[label(wide, "b", 2), label(tall, "a", 1)]);
    assert_eq!(image.get_pixel(300, 200).0, colour(2));
}

#[test]
fn classes_differ_and_texts_contrast() {
    for class in 0..PALETTE.len() {
        assert!((0..class).all(|other| colour(other) != colour(class)));
        assert_eq!(colour(class), colour(class + PALETTE.len()));
    }
    assert_eq!(
        (contrast(colour(1)), contrast(colour(2))),
        ([255; 3], [0; 3])
    );
}

/// Names in scripts that the font lacks were drawn as boxes, all the same.
#[test]
fn names_without_glyphs_are_numbers() {
    for name in ["RBC", "Küche 2", "клетка", "κύτταρο", "a–b…", ""] {
        assert_eq!(legible(name, 3), name);
    }
    for name in ["血小板", "적혈구", "赤血球 A", "خلية", "🙂"] {
        assert_eq!(legible(name, 3), "3", "{name}");
    }
}

#[test]
fn masks_are_translucent_with_outlines_on_any_picture() {
    for grey in [0, 128, 255] {
        let mut image = RgbImage::from_pixel(200, 120, Rgb([grey; 3]));
        let before = image.clone();
        let corners = vec![20.0, 20.0, 150.0, 20.0, 150.0, 100.0, 20.0, 100.0];
        let mask = Mask::from_polygons(&[corners], Size::new(120, 200));
        let bounds = [10.0, 10.0, 190.0, 110.0];
        let object = Label {
            mask: Some(&mask),
            ..label(bounds, "", 1)
        };
        draw_labels(&mut image, &[object]);
        let at = |x, y| image.get_pixel(x, y).0;
        // The colour, and a dark edge, one of which is far from any grey.
        assert_eq!(at(20, 60), colour(1));
        assert_eq!(at(19, 60), colour(1).map(|v| v / 2));
        let inside = at(80, 60);
        assert!(inside != [grey; 3] && inside != colour(1), "{inside:?}");
        assert_eq!(at(170, 60), [grey; 3]);
        let other_size = Mask::empty(Size::new(5, 5));
        let mut image = before.clone();
        let object = Label {
            mask: Some(&other_size),
            ..label([-9.0, -9.0, -1.0, -1.0], "", 1)
        };
        draw_labels(&mut image, &[object]);
        assert!(image == before);
    }
}

#[test]
fn skeletons_join_the_keypoints_that_are_labelled() {
    let mut image = RgbImage::new(100, 100);
    let points = Keypoints(vec![
        [20.0, 50.0, 2.0],
        [80.0, 50.0, 1.0],
        [50.0, 90.0, 0.0],
        [f32::NAN, 1e30, 2.0],
    ]);
    let object = Label {
        keypoints: Some(&points),
        skeleton: &[[0, 1], [1, 2], [0, 3], [0, 9]],
        ..label([1.0, 1.0, 99.0, 99.0], "", 3)
    };
    draw_labels(&mut image, &[object]);
    let at = |x, y| image.get_pixel(x, y).0;
    assert_eq!((at(20, 50), at(80, 50)), ([255; 3], [255; 3]));
    assert_ne!(at(50, 50), [0; 3], "the line");
    assert_eq!(
        (at(50, 80), at(65, 70)),
        ([0; 3], [0; 3]),
        "to one that is not labelled"
    );
}
