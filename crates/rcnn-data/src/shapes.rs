//! Masks, keypoints and skeletons as COCO's JSON has them.

use rcnn_types::{Keypoints, Mask, Size, Skeleton};
use serde::de::DeserializeOwned;

use crate::extras::Extras;

/// The mask of a `segmentation`: polygons, or run lengths of the image's size.
pub(crate) fn mask(json: &str, size: Size) -> Result<Mask, String> {
    if json.trim_start().starts_with('[') {
        let mut polygons: Vec<Vec<f64>> = parse("segmentation", json)?;
        // Some tools write points and lines too, which cover nothing.
        let all = polygons.len();
        polygons.retain(|polygon| polygon.len() >= 6 && polygon.len() % 2 == 0);
        return match polygons.is_empty() {
            true => Err(format!("none of {all} polygons has three corners or more")),
            false => Ok(Mask::from_polygons(&polygons, size)),
        };
    }
    let mask = run_lengths(json)?;
    if mask.size() != size {
        let (found, wanted) = (mask.size(), size);
        return Err(format!(
            "the mask is {}x{}, but the image {}x{}",
            found.width, found.height, wanted.width, wanted.height
        ));
    }
    Ok(mask)
}

/// The mask of run lengths, of whatever size.
pub(crate) fn run_lengths(json: &str) -> Result<Mask, String> {
    parse("segmentation", json)
}

/// The keypoints of an object: x, y and visibility of each.
pub(crate) fn keypoints(json: &str) -> Result<Keypoints, String> {
    let numbers: Vec<f32> = parse("keypoints", json)?;
    match numbers.as_chunks::<3>() {
        (points, []) => Ok(Keypoints(points.to_vec())),
        _ => Err(format!(
            "keypoints has {} numbers, not three each",
            numbers.len()
        )),
    }
}

/// Keypoints of a category; none where they make no sense.
pub(crate) fn skeleton(category: &Extras) -> Skeleton {
    let list = |name: &str| category.get(name);
    let names = list("keypoints").and_then(|json| serde_json::from_str(json).ok());
    let names: Vec<String> = names.unwrap_or_default();
    let edges = list("skeleton").and_then(|json| serde_json::from_str(json).ok());
    let edges: Vec<[usize; 2]> = edges.unwrap_or_default();
    // COCO counts from 1.
    let known = |edge: &[usize; 2]| edge.iter().all(|end| (1..=names.len()).contains(end));
    let edges = edges.into_iter().filter(known);
    let edges = edges.map(|edge| edge.map(|end| end - 1)).collect();
    // No member of COCO's, but YOLO's.
    let mirrored = list("flip_idx").and_then(|json| serde_json::from_str(json).ok());
    let mirrored = mirrored.filter(|all: &Vec<usize>| is_flip(all, names.len()));
    Skeleton {
        names,
        edges,
        flip_idx: mirrored.unwrap_or_default(),
    }
}

/// Whether these are the numbers below `count` with some pairs swapped, so that a second flip undoes the first.
pub(crate) fn is_flip(partners: &[usize], count: usize) -> bool {
    let mut pairs = partners.iter().enumerate();
    partners.len() == count && pairs.all(|(i, &partner)| partners.get(partner) == Some(&i))
}

/// The polygons of a `segmentation`, those around the pixels where it is run lengths.
pub(crate) fn polygons(json: &str) -> Result<Vec<Vec<f64>>, String> {
    match json.trim_start().starts_with('[') {
        true => parse("segmentation", json),
        false => Ok(run_lengths(json)?.to_polygons()),
    }
}

fn parse<T: DeserializeOwned>(name: &str, json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_three_kinds_are_one() {
        let size = Size::new(4, 5);
        let polygon = mask("[[1, 1, 3, 1, 3, 3, 1, 3], [7, 7]]", size).unwrap();
        let plain = mask(r#"{"size": [4, 5], "counts": [5, 2, 2, 2, 9]}"#, size);
        assert_eq!(plain.as_ref(), Ok(&polygon));
        let text = polygon.to_compressed();
        let compressed = format!(r#"{{"counts": "{text}", "size": [4, 5]}}"#);
        assert_eq!(mask(&compressed, size), Ok(polygon));
        for (wrong, says) in [
            ("[[1, 2, 3, 4]]", "none of 1 polygons"),
            ("[[1, 2, 3, 4, 5, null]]", "segmentation: invalid type"),
            (
                r#"{"size": [5, 4], "counts": [20]}"#,
                "the mask is 4x5, but the image 5x4",
            ),
            (r#"{"size": [4, 5], "counts": [19]}"#, "runs of 19 pixels"),
            (r#"{"size": [4, 5]}"#, "missing field `counts`"),
            ("7", "segmentation: invalid type"),
        ] {
            let error = mask(wrong, size).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn keypoints_come_in_threes() {
        let points = keypoints("[1, 2.5, 2, 0, 0, 0]").unwrap();
        assert_eq!(points.0, [[1.0, 2.5, 2.0], [0.0; 3]]);
        assert!(keypoints("[1, 2]").unwrap_err().contains("2 numbers"));
        let mut category = Extras::default();
        category.push("keypoints", r#"["nose", "tail"]"#.into());
        category.push("skeleton", "[[1, 2], [0, 1], [2, 3]]".into());
        let found = skeleton(&category);
        assert_eq!(found.names, ["nose", "tail"]);
        assert_eq!(found.edges, [[0, 1]]);
        assert_eq!(skeleton(&Extras::default()), Skeleton::default());
    }
}
