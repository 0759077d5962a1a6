//! Keypoints of an object, and the skeleton of a class.

use crate::Size;

/// Keypoints of one object, in the order of its class: `[x, y, visibility]`, in pixels, with COCO's
/// visibility: 0 for one that is not labelled, 1 for a hidden and 2 for a visible one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Keypoints(pub Vec<[f32; 3]>);

/// Names and connections of a class's keypoints, as in COCO's categories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skeleton {
    /// Names, in order.
    pub names: Vec<String>,
    /// Positions, from 0, of the keypoints that a line connects.
    pub edges: Vec<[usize; 2]>,
    /// Position, from 0, of the keypoint that each becomes in a mirrored image (YOLO's `flip_idx`); empty
    /// where the names say it.
    pub flip_idx: Vec<usize>,
}

impl Skeleton {
    /// Position of the keypoint that each becomes in a mirrored image: `left_eye` a `right_eye`, and one
    /// without a counterpart itself.
    ///
    /// ```
    /// # mod rcnn_burn { pub use rcnn_types as types; pub use rcnn_types::*; }
    /// use rcnn_burn::types::Skeleton;
    ///
    /// let names = ["nose", "left_eye", "right_eye"].map(String::from).to_vec();
    /// let face = Skeleton { names, ..Skeleton::default() };
    /// assert_eq!(face.mirrored(), [0, 2, 1]);
    /// ```
    pub fn mirrored(&self) -> Vec<usize> {
        if !self.flip_idx.is_empty() {
            return self.flip_idx.clone();
        }
        let counterpart = |name: &String| {
            let other = match name.contains("left") {
                true => name.replace("left", "right"),
                false => name.replace("right", "left"),
            };
            self.names.iter().position(|name| *name == other)
        };
        let names = self.names.iter().enumerate();
        names
            .map(|(index, name)| counterpart(name).unwrap_or(index))
            .collect()
    }
}

impl Keypoints {
    /// Number of labelled keypoints.
    pub fn labelled(&self) -> usize {
        self.0.iter().filter(|point| point[2] > 0.0).count()
    }

    /// Moves the keypoints by `x` to the right and `y` down.
    pub fn shift(&mut self, x: f32, y: f32) {
        self.map(|[px, py]| [px + x, py + y]);
    }

    /// Multiplies the coordinates of the keypoints.
    pub fn scale(&mut self, x: f32, y: f32) {
        self.map(|[px, py]| [px * x, py * y]);
    }

    /// Mirrors the keypoints left to right in an image of that width, `mirrored` as [`Skeleton::mirrored`];
    /// without it, they keep their places in the list.
    pub fn flip(&mut self, width: usize, mirrored: &[usize]) {
        self.map(|[x, y]| [width as f32 - x, y]);
        if mirrored.len() == self.0.len() {
            self.0 = mirrored.iter().map(|&index| self.0[index]).collect();
        }
    }

    /// Turns the keypoints upside down in an image of that size.
    pub fn rotate_180(&mut self, size: Size) {
        self.map(|[x, y]| [size.width as f32 - x, size.height as f32 - y]);
    }

    /// Removes the labels of keypoints outside an image, as detectron2 does.
    pub fn clip(&mut self, size: Size) {
        let (width, height) = (size.width as f32, size.height as f32);
        for point in &mut self.0 {
            let [x, y, _] = *point;
            if !(0.0 <= x && x <= width && 0.0 <= y && y <= height) {
                *point = [0.0; 3];
            }
        }
    }

    /// Changes the coordinates of all that are labelled: the others are zeros by convention.
    fn map(&mut self, change: impl Fn([f32; 2]) -> [f32; 2]) {
        for point in self.0.iter_mut().filter(|point| point[2] > 0.0) {
            let [x, y] = change([point[0], point[1]]);
            (point[0], point[1]) = (x, y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_is_right_in_a_mirror() {
        let names = ["nose", "left_eye", "right_eye", "left_ear"].map(String::from);
        let skeleton = Skeleton {
            names: names.into(),
            edges: vec![[0, 1]],
            flip_idx: Vec::new(),
        };
        assert_eq!(skeleton.mirrored(), [0, 2, 1, 3]);
        let given = Skeleton {
            flip_idx: vec![1, 0, 2, 3],
            ..skeleton.clone()
        };
        assert_eq!(given.mirrored(), [1, 0, 2, 3]);
        let points = vec![
            [1.0, 2.0, 2.0],
            [3.0, 4.0, 1.0],
            [0.0, 0.0, 0.0],
            [5.0, 6.0, 2.0],
        ];
        let mut flipped = Keypoints(points.clone());
        flipped.flip(10, &skeleton.mirrored());
        let expected = [
            [9.0, 2.0, 2.0],
            [0.0, 0.0, 0.0],
            [7.0, 4.0, 1.0],
            [5.0, 6.0, 2.0],
        ];
        assert_eq!(flipped.0, expected);
        flipped.flip(10, &skeleton.mirrored());
        assert_eq!(flipped.0, points);
    }

    #[test]
    fn points_outside_lose_their_labels() {
        let mut points = Keypoints(vec![[1.0, 2.0, 2.0], [8.0, 2.0, 2.0]]);
        points.shift(-2.0, 0.0);
        points.clip(Size::new(5, 7));
        assert_eq!(points.0, [[0.0; 3], [6.0, 2.0, 2.0]]);
        points.scale(2.0, 3.0);
        assert_eq!(points.0, [[0.0; 3], [12.0, 6.0, 2.0]]);
        assert_eq!(points.labelled(), 1);
    }
}
