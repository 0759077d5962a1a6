use serde_json::Value;

use super::*;

/// Values of pycocotools, by `tests/make_masks.py`.
fn fixture() -> Value {
    serde_json::from_str(include_str!("../../tests/masks.json")).unwrap()
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn polygons_are_drawn_as_by_pycocotools() {
    let fixture = fixture();
    let cases = fixture["polygons"].as_array().unwrap();
    for case in cases {
        let size: Size = numbers(&case["size"]);
        let mask = Mask::from_polygons(&numbers::<Vec<_>>(&case["polygons"]), size);
        assert_eq!(mask.to_compressed(), text(&case["rle"]), "{case}");
        assert_eq!(mask.area(), case["area"].as_u64().unwrap(), "{case}");
        let [x, y, w, h]: [f32; 4] = numbers(&case["bbox"]);
        assert_eq!(mask.bounds(), [x, y, x + w, y + h], "{case}");
    }
    assert!(cases.len() > 50);
}

#[test]
fn pixels_are_encoded_as_by_pycocotools() {
    let fixture = fixture();
    for case in fixture["bits"].as_array().unwrap() {
        let size: Size = numbers(&case["size"]);
        let bits: Vec<bool> = text(&case["bits"]).bytes().map(|b| b == b'1').collect();
        let mask = Mask::from_bits(&bits, size);
        assert_eq!(mask.to_compressed(), text(&case["rle"]));
        let read = Mask::from_compressed(text(&case["rle"]), size).unwrap();
        assert_eq!((&read, read.to_bits()), (&mask, bits));
        let counts = read.counts().to_vec();
        assert_eq!(Mask::from_counts(counts, size).unwrap(), read);
        // The way back is ours alone.
        let polygons = mask.to_polygons();
        assert_eq!(Mask::from_polygons(&polygons, size), mask, "{polygons:?}");
    }
}

#[test]
fn overlaps_are_those_of_pycocotools() {
    let fixture = fixture();
    for case in fixture["overlaps"].as_array().unwrap() {
        let size: Size = numbers(&case["size"]);
        let read = |key: &str| Mask::from_compressed(text(&case[key]), size).unwrap();
        let (a, b) = (read("a"), read("b"));
        assert_eq!(a.iou(&b, false), case["iou"].as_f64().unwrap());
        assert_eq!(a.iou(&b, true), case["crowd"].as_f64().unwrap());
        assert_eq!(a.union(&b).to_compressed(), text(&case["union"]));
        for (a, b) in [(&a, &b), (&b, &a)] {
            let bits = a.to_bits().into_iter().zip(b.to_bits());
            let left: Vec<bool> = bits.map(|(a, b)| a && !b).collect();
            assert_eq!(a.subtract(b), Mask::from_bits(&left, size));
        }
    }
    let empty = Mask::empty(Size::new(3, 4));
    assert_eq!(empty.iou(&empty, false), 0.0);
}

/// Each operation on runs is that on pixels.
#[test]
fn masks_are_cut_and_moved_like_pictures() {
    let fixture = fixture();
    for case in fixture["bits"].as_array().unwrap() {
        let size: Size = numbers(&case["size"]);
        let mask = Mask::from_compressed(text(&case["rle"]), size).unwrap();
        let bits = mask.to_bits();
        let at = |x: usize, y: usize| bits[y * size.width + x];
        let picture = |size: Size, at: &dyn Fn(usize, usize) -> bool| {
            let rows = (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
            Mask::from_bits(&rows.map(|(x, y)| at(x, y)).collect::<Vec<_>>(), size)
        };
        let flipped = picture(size, &|x, y| at(size.width - 1 - x, y));
        assert_eq!(mask.flip(), flipped);
        let (half, third) = (size.width / 2, size.height / 3);
        let window = [1, third as u32, half as u32 + 1, size.height as u32];
        let part = Size::new(size.height - third, half);
        let cropped = picture(part, &|x, y| at(x + 1, y + third));
        assert_eq!(mask.crop(window), cropped);
        let pasted = picture(size, &|x, y| {
            y >= third && (1..=half).contains(&x) && at(x, y)
        });
        assert_eq!(cropped.paste(1, third as u32, size), pasted);
    }
}

/// Of `torch.nn.functional.interpolate(mask, size)`.
#[test]
fn masks_are_resized_as_by_torch() {
    let fixture = fixture();
    for case in fixture["resized"].as_array().unwrap() {
        let (from, to): (Size, Size) = (numbers(&case["from"]), numbers(&case["to"]));
        let mask = Mask::from_compressed(text(&case["rle"]), from).unwrap();
        assert_eq!(mask.resize(to).to_compressed(), text(&case["resized"]));
    }
}

#[test]
fn runs_that_are_no_mask_are_errors() {
    let size = Size::new(3, 4);
    let says = |result: Result<Mask, MaskError>| result.unwrap_err().to_string();
    let short = says(Mask::from_counts(vec![3, 4], size));
    assert_eq!(short, "runs of 7 pixels for 3x4 (height x width)");
    assert!(Mask::from_counts(vec![u32::MAX, u32::MAX], size).is_err());
    let huge = Size::new(1 << 17, 1 << 17);
    assert!(says(Mask::from_counts(vec![1], huge)).contains("more than a mask can have"));
    // Cut off, out of the alphabet, negative, and longer than any number.
    for wrong in ["1P", "1 2", "1é", "N", &"o".repeat(40)] {
        assert!(Mask::from_compressed(wrong, size).is_err(), "{wrong}");
    }
    // A corner far outside costs neither time nor memory.
    let far = vec![0.0, 0.0, 1e300, 0.0, 1e300, 1e300, f64::NAN, 7.0];
    assert_eq!(Mask::from_polygons(&[far], size).size(), size);
    let none = Size::new(0, 0);
    assert_eq!(Mask::empty(none).to_polygons(), Vec::<Vec<f64>>::new());
    assert_eq!(Mask::empty(none).resize(size), Mask::empty(size));
}
