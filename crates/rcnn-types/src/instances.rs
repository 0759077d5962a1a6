//! The objects of one image.

mod geometry;

use rayon::prelude::*;

use crate::boxes::{BBox, box_area};
use crate::validate::{InvalidField, require};
use crate::{Keypoints, Mask, MaskProbabilities, Size};

/// The objects of one image, annotated or detected, as detectron2's `Instances`.
///
/// Boxes and labels are always there. An optional field is there for every object or for none; where
/// single objects lack a mask or keypoints, theirs are empty.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_types::*; }
/// use rcnn_burn::Instances;
///
/// let boxes = vec![[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 8.0, 6.0]];
/// let mut cats = Instances::new(boxes, vec![1, 2]);
/// cats.crowd = Some(vec![false, true]);
/// cats.retain(|object| object.bbox[2] > 5.0);
/// assert_eq!(cats.labels, [2]);
/// assert!(cats.is_crowd(0));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instances {
    /// Boxes `[N, 4]`, xyxy in pixels.
    pub boxes: Vec<BBox>,
    /// Class of each, from 1: 0 is the background.
    pub labels: Vec<usize>,
    /// Score of each, 0 to 1; those of annotations are not given.
    pub scores: Option<Vec<f32>>,
    /// Mask of each, of the image's size.
    pub masks: Option<Vec<Mask>>,
    /// Mask of each as it was predicted; [`paste_masks`](Self::paste_masks) makes [`masks`](Self::masks)
    /// of them. Annotations have none.
    pub mask_probabilities: Option<Vec<MaskProbabilities>>,
    /// Keypoints of each.
    pub keypoints: Option<Vec<Keypoints>>,
    /// Score of each keypoint, a logit; those of annotations are not given.
    pub keypoint_scores: Option<Vec<Vec<f32>>>,
    /// Area of each in square pixels, where that of the box is not meant: COCO annotates the masks'.
    pub areas: Option<Vec<f32>>,
    /// Whether each is a region of many objects (`iscrowd` of COCO), which training leaves out and which
    /// need not be found; `None` if none is.
    pub crowd: Option<Vec<bool>>,
    /// Id of the track that each belongs to, in a video whose objects are tracked.
    pub track_ids: Option<Vec<u64>>,
}

/// One object of [`Instances`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Instance<'a> {
    /// Box, xyxy in pixels.
    pub bbox: BBox,
    /// Class, from 1.
    pub label: usize,
    /// Score, 0 to 1; 1 where there is none.
    pub score: f32,
    /// Mask.
    pub mask: Option<&'a Mask>,
    /// Keypoints.
    pub keypoints: Option<&'a Keypoints>,
    /// Area in square pixels: the annotated one, else the box's.
    pub area: f32,
    /// Whether it is a region of many objects.
    pub is_crowd: bool,
    /// Id of its track.
    pub track_id: Option<u64>,
}

impl Instances {
    /// Creates objects with boxes and labels alone.
    pub const fn new(boxes: Vec<BBox>, labels: Vec<usize>) -> Self {
        Self {
            boxes,
            labels,
            scores: None,
            masks: None,
            mask_probabilities: None,
            keypoints: None,
            keypoint_scores: None,
            areas: None,
            crowd: None,
            track_ids: None,
        }
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.boxes.len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }

    /// One of the objects.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn get(&self, index: usize) -> Instance<'_> {
        Instance {
            bbox: self.boxes[index],
            label: self.labels[index],
            score: at(&self.scores, index).copied().unwrap_or(1.0),
            mask: at(&self.masks, index),
            keypoints: at(&self.keypoints, index),
            area: self.area(index),
            is_crowd: self.is_crowd(index),
            track_id: at(&self.track_ids, index).copied(),
        }
    }

    /// All objects.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Instance<'_>> + Clone {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Area of an object in square pixels: the annotated one, else the box's.
    pub fn area(&self, index: usize) -> f32 {
        let annotated = at(&self.areas, index).copied();
        annotated.unwrap_or_else(|| box_area(&self.boxes[index]))
    }

    /// Whether an object is a crowd: a region of many objects.
    pub fn is_crowd(&self, index: usize) -> bool {
        at(&self.crowd, index).is_some_and(|crowd| *crowd)
    }

    /// Indices of the objects that are not crowds.
    pub fn objects(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|&index| !self.is_crowd(index))
    }

    /// The objects that are not crowds.
    pub fn without_crowds(&self) -> Self {
        let mut objects = self.select(&self.objects().collect::<Vec<_>>());
        objects.crowd = None;
        objects
    }

    /// The objects of these indices, in their order.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn select(&self, indices: &[usize]) -> Self {
        fn select<T: Clone>(values: &[T], indices: &[usize]) -> Vec<T> {
            indices.iter().map(|&index| values[index].clone()).collect()
        }
        fn optional<T: Clone>(values: &Option<Vec<T>>, indices: &[usize]) -> Option<Vec<T>> {
            values.as_ref().map(|values| select(values, indices))
        }
        Self {
            boxes: select(&self.boxes, indices),
            labels: select(&self.labels, indices),
            scores: optional(&self.scores, indices),
            masks: optional(&self.masks, indices),
            mask_probabilities: optional(&self.mask_probabilities, indices),
            keypoints: optional(&self.keypoints, indices),
            keypoint_scores: optional(&self.keypoint_scores, indices),
            areas: optional(&self.areas, indices),
            crowd: optional(&self.crowd, indices),
            track_ids: optional(&self.track_ids, indices),
        }
    }

    /// Keeps the objects for which the condition holds.
    pub fn retain(&mut self, mut condition: impl FnMut(Instance) -> bool) {
        let kept = (0..self.len()).filter(|&index| condition(self.get(index)));
        let kept: Vec<usize> = kept.collect();
        if kept.len() < self.len() {
            *self = self.select(&kept);
        }
    }

    /// Adds objects of the same image. Scores, masks, keypoints and ids of tracks stay if both have them.
    pub fn append(&mut self, mut more: Self) {
        fn both<T>(mine: &mut Option<Vec<T>>, more: Option<Vec<T>>) {
            *mine = mine.take().zip(more).map(|(mut all, more)| {
                all.extend(more);
                all
            });
        }
        if self.is_empty() {
            *self = more;
            return;
        }
        if more.is_empty() {
            return;
        }
        // What is not given has a value all the same.
        if self.areas.is_some() || more.areas.is_some() {
            for all in [&mut *self, &mut more] {
                all.areas = Some((0..all.len()).map(|index| all.area(index)).collect());
            }
        }
        if self.crowd.is_some() || more.crowd.is_some() {
            for all in [&mut *self, &mut more] {
                all.crowd = Some((0..all.len()).map(|index| all.is_crowd(index)).collect());
            }
        }
        self.boxes.extend(more.boxes);
        self.labels.extend(more.labels);
        both(&mut self.scores, more.scores);
        both(&mut self.masks, more.masks);
        both(&mut self.mask_probabilities, more.mask_probabilities);
        both(&mut self.keypoints, more.keypoints);
        both(&mut self.keypoint_scores, more.keypoint_scores);
        both(&mut self.areas, more.areas);
        both(&mut self.crowd, more.crowd);
        both(&mut self.track_ids, more.track_ids);
    }

    /// Makes masks of the predicted probabilities, in parallel and straight to run lengths: the pixels of `image`, the image that the
    /// boxes are in, whose probability is at least `threshold` (torchvision: 0.5).
    pub fn paste_masks(&mut self, image: Size, threshold: f32) {
        let Some(probabilities) = &self.mask_probabilities else {
            return;
        };
        let paste = |mask: &MaskProbabilities| mask.paste(image, threshold);
        self.masks = Some(probabilities.par_iter().map(paste).collect());
    }

    /// Checks that every field has a value for each box, and that the values can be: boxes are finite and
    /// not reversed, labels from 1 to below `num_classes`, scores numbers and areas not negative.
    ///
    /// # Errors
    /// Names the field at fault, with its value and the expected ones.
    pub fn validate(&self, num_classes: usize) -> Result<(), InvalidField> {
        fn length<T>(values: &Option<Vec<T>>) -> Option<usize> {
            values.as_ref().map(Vec::len)
        }
        let lengths = [
            ("labels", Some(self.labels.len())),
            ("scores", length(&self.scores)),
            ("masks", length(&self.masks)),
            ("mask_probabilities", length(&self.mask_probabilities)),
            ("keypoints", length(&self.keypoints)),
            ("keypoint_scores", length(&self.keypoint_scores)),
            ("areas", length(&self.areas)),
            ("crowd", length(&self.crowd)),
            ("track_ids", length(&self.track_ids)),
        ];
        for (field, length) in lengths {
            let (length, boxes) = (length.unwrap_or(self.len()), self.len());
            let found = format_args!("{length} values");
            let expected = format_args!("{boxes}, one per box");
            require(length == boxes, field, found, expected)?;
        }
        for (i, b @ [x1, y1, x2, y2]) in self.boxes.iter().enumerate() {
            let valid = x1 <= x2 && y1 <= y2 && b.iter().all(|edge| edge.is_finite());
            let expected = "left, top, right and bottom, finite and in this order";
            require(valid, &format!("boxes[{i}]"), b, expected)?;
        }
        for (i, label) in self.labels.iter().enumerate() {
            let last = num_classes.saturating_sub(1);
            let expected = format_args!("1 to {last}");
            let valid = (1..num_classes).contains(label);
            require(valid, &format!("labels[{i}]"), label, expected)?;
        }
        for (i, score) in self.scores.iter().flatten().enumerate() {
            let valid = score.is_finite();
            require(valid, &format!("scores[{i}]"), score, "a number")?;
        }
        for (i, area) in self.areas.iter().flatten().enumerate() {
            let valid = area.is_finite() && *area >= 0.0;
            require(valid, &format!("areas[{i}]"), area, "a number from 0 on")?;
        }
        Ok(())
    }
}

fn at<T>(values: &Option<Vec<T>>, index: usize) -> Option<&T> {
    values.as_ref()?.get(index)
}

/// Detections, from box, label and score of each.
impl FromIterator<(BBox, usize, f32)> for Instances {
    fn from_iter<I: IntoIterator<Item = (BBox, usize, f32)>>(detections: I) -> Self {
        let (boxes, labels, scores) = detections.into_iter().collect();
        Self {
            scores: Some(scores),
            ..Self::new(boxes, labels)
        }
    }
}

/// The objects of an image of a data set, annotated or detected.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageInstances {
    /// The image's number, unique in the data set.
    pub image_id: u64,
    /// Name of its file, for people; may be empty.
    pub file_name: String,
    /// Its objects.
    pub instances: Instances,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Instances {
        let boxes = vec![
            [0.0, 0.0, 4.0, 2.0],
            [2.0, 2.0, 8.0, 6.0],
            [1.0, 1.0, 2.0, 2.0],
        ];
        let mask = |b: &BBox| {
            let [x1, y1, x2, y2] = b.map(f64::from);
            Mask::from_polygons(&[vec![x1, y1, x2, y1, x2, y2, x1, y2]], Size::new(6, 10))
        };
        Instances {
            masks: Some(boxes.iter().map(mask).collect()),
            keypoints: Some(vec![Keypoints(vec![[1.0, 1.0, 2.0]]); 3]),
            crowd: Some(vec![false, true, false]),
            track_ids: Some(vec![7, 8, 9]),
            ..Instances::new(boxes, vec![3, 1, 2])
        }
    }

    /// Analysis once zipped boxes with a list of crowds, which was empty where there were none.
    #[test]
    fn objects_stay_where_no_crowd_is_given() {
        let mut all = three();
        assert_eq!(all.objects().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(all.without_crowds().labels, [3, 2]);
        all.crowd = None;
        assert_eq!(all.without_crowds(), all);
        all.crowd = Some(Vec::new());
        assert_eq!(all.objects().count(), 3);
        let error = all.validate(4).unwrap_err().to_string();
        assert_eq!(error, "crowd = 0 values: expected 3, one per box");
    }

    #[test]
    fn selection_is_of_every_field() {
        let all = three();
        let some = all.select(&[2, 0]);
        assert_eq!(some.labels, [2, 3]);
        assert_eq!(some.get(1), all.get(0));
        assert_eq!(some.masks.as_ref().map(Vec::len), Some(2));
        assert_eq!(some.scores, None);
        let mut kept = all.clone();
        kept.retain(|object| object.label > 1);
        assert_eq!(kept, all.select(&[0, 2]));
        assert!(kept.validate(4).is_ok());
        let mut joined = all.select(&[0]);
        joined.append(all.select(&[1, 2]));
        assert_eq!(joined, all);
        joined.append(Instances::new(vec![[0.0; 4]], vec![1]));
        assert_eq!(joined.crowd, Some(vec![false, true, false, false]));
        assert_eq!((joined.masks, joined.track_ids), (None, None));
        assert_eq!(some.get(0).track_id, Some(9));
    }

    #[test]
    fn all_fields_move_together() {
        let same_place = |all: &Instances, size: Size| {
            all.iter().all(|object| {
                let mask = object.mask.unwrap();
                mask.size() == size && mask.bounds() == object.bbox
            })
        };
        let mut all = three();
        all.flip(10, &[]);
        assert!(same_place(&all, Size::new(6, 10)));
        assert_eq!(all.boxes[0], [6.0, 0.0, 10.0, 2.0]);
        assert_eq!(all.get(0).keypoints.unwrap().0, [[9.0, 1.0, 2.0]]);
        let before = all.clone();
        all.rotate_180(Size::new(6, 10));
        assert!(same_place(&all, Size::new(6, 10)));
        assert_eq!(all.boxes[0], [0.0, 4.0, 4.0, 6.0]);
        assert_eq!(all.get(0).keypoints.unwrap().0, [[1.0, 5.0, 2.0]]);
        all.rotate_180(Size::new(6, 10));
        assert_eq!(all, before);
        all.resize(Size::new(6, 10), Size::new(12, 30));
        assert!(same_place(&all, Size::new(12, 30)));
        assert_eq!(all.get(0).keypoints.unwrap().0, [[27.0, 2.0, 2.0]]);
        all.paste(2, 1, Size::new(20, 40));
        assert!(same_place(&all, Size::new(20, 40)));
        all.crop([20, 2, 40, 20]);
        let shown = all.select(&[0, 2]);
        assert!(same_place(&shown, Size::new(18, 20)));
        assert_eq!(shown.get(0).keypoints.unwrap().0, [[9.0, 1.0, 2.0]]);
    }

    #[test]
    fn faults_are_named() {
        let mut all = three();
        assert_eq!(all.validate(4), Ok(()));
        let fault = |all: &Instances| all.validate(4).unwrap_err().to_string();
        all.labels[1] = 4;
        assert_eq!(fault(&all), "labels[1] = 4: expected 1 to 3");
        all.labels.pop();
        assert_eq!(fault(&all), "labels = 2 values: expected 3, one per box");
        all = three();
        all.boxes[2][2] = 0.5;
        assert!(fault(&all).starts_with("boxes[2] = [1.0, 1.0, 0.5, 2.0]"));
        all = three();
        all.areas = Some(vec![1.0, -1.0, 1.0]);
        assert_eq!(fault(&all), "areas[1] = -1.0: expected a number from 0 on");
        all = three();
        all.scores = Some(vec![0.5, f32::NAN, 1.0]);
        assert_eq!(fault(&all), "scores[1] = NaN: expected a number");
        assert!(three().validate(0).is_err());
    }
}
