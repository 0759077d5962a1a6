//! Objects that move with their image: resized, mirrored, turned, cut out and put into a larger one.

use super::Instances;
use crate::boxes::{BBox, crop_box, rotate_box_180, scale_box, shift_box};
use crate::{Keypoints, Mask, MaskProbabilities, Size, Skeleton};

impl Instances {
    /// Moves the objects to the resized image.
    pub fn resize(&mut self, from: Size, to: Size) {
        let x = to.width as f32 / from.width as f32;
        let y = to.height as f32 / from.height as f32;
        self.map_boxes(|b| scale_box(b, x, y));
        self.map_masks(|mask| mask.resize(to));
        self.map_probabilities(|mask| mask.scale(x, y));
        self.map_keypoints(|points| points.scale(x, y));
        let areas = self.areas.iter_mut().flatten();
        areas.for_each(|area| *area *= x * y);
    }

    /// Mirrors the objects left to right with their image. The skeletons, by label, say which keypoint
    /// becomes which; without one, keypoints keep their places in the list.
    pub fn flip(&mut self, width: usize, skeletons: &[Skeleton]) {
        let right = width as f32;
        self.map_boxes(|b| [right - b[2], b[1], right - b[0], b[3]]);
        self.map_masks(Mask::flip);
        self.map_probabilities(|mask| mask.flip(width));
        let mirrored: Vec<_> = skeletons.iter().map(Skeleton::mirrored).collect();
        let mirrored = |label: usize| mirrored.get(label).map_or(&[][..], Vec::as_slice);
        let keypoints = self.keypoints.iter_mut().flatten();
        for (points, label) in keypoints.zip(&self.labels) {
            points.flip(width, mirrored(*label));
        }
        let scores = self.keypoint_scores.iter_mut().flatten();
        for (scores, label) in scores.zip(&self.labels) {
            let mirrored = mirrored(*label);
            if mirrored.len() == scores.len() {
                *scores = mirrored.iter().map(|&index| scores[index]).collect();
            }
        }
    }

    /// Turns the objects upside down with their image of that size; with [`flip`](Self::flip), mirrors them top to
    /// bottom.
    pub fn rotate_180(&mut self, size: Size) {
        self.map_boxes(|b| rotate_box_180(b, size));
        self.map_masks(Mask::rotate_180);
        self.map_probabilities(|mask| mask.rotate_180(size));
        self.map_keypoints(|points| points.rotate_180(size));
    }

    /// Moves the objects to a window `[left, top, right, bottom]` of the image. What is outside is cut off,
    /// and areas are those of the boxes from then on.
    pub fn crop(&mut self, window: [u32; 4]) {
        let [left, top, right, bottom] = window;
        self.map_boxes(|b| crop_box(b, window));
        self.map_masks(|mask| mask.crop(window));
        self.map_probabilities(|mask| mask.shift(-(left as f32), -(top as f32)));
        self.map_keypoints(|points| {
            points.shift(-(left as f32), -(top as f32));
            points.clip(Size::from_dimensions((right - left, bottom - top)));
        });
        self.areas = None;
    }

    /// Moves the objects to a larger image of which theirs becomes a part.
    pub fn paste(&mut self, left: u32, top: u32, size: Size) {
        let (x, y) = (left as f32, top as f32);
        self.map_boxes(|b| shift_box(b, x, y));
        self.map_masks(|mask| mask.paste(left, top, size));
        self.map_probabilities(|mask| mask.shift(x, y));
        self.map_keypoints(|points| points.shift(x, y));
    }

    fn map_boxes(&mut self, change: impl Fn(&BBox) -> BBox) {
        self.boxes.iter_mut().for_each(|b| *b = change(b));
    }

    fn map_masks(&mut self, change: impl Fn(&Mask) -> Mask) {
        let masks = self.masks.iter_mut().flatten();
        masks.for_each(|mask| *mask = change(mask));
    }

    fn map_probabilities(&mut self, change: impl Fn(&mut MaskProbabilities)) {
        let masks = self.mask_probabilities.iter_mut().flatten();
        masks.for_each(change);
    }

    fn map_keypoints(&mut self, change: impl Fn(&mut Keypoints)) {
        self.keypoints.iter_mut().flatten().for_each(change);
    }
}
