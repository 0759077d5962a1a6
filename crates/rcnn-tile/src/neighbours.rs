//! Boxes found by place, so that of the many in a large picture only those nearby are compared.

use rcnn_types::BBox;

/// Cells along each side of the grid.
const CELLS: usize = 64;

/// The cells of a grid over all boxes, with the numbers of those that reach into each.
pub(crate) struct Neighbours {
    origin: [f32; 2],
    cell: [f32; 2],
    cells: Vec<Vec<usize>>,
}

impl Neighbours {
    /// An empty grid over these boxes.
    pub(crate) fn over(boxes: &[BBox]) -> Self {
        let edge = |index: usize, outermost: fn(f32, f32) -> f32| {
            boxes
                .iter()
                .map(|b| b[index])
                .reduce(outermost)
                .unwrap_or(0.0)
        };
        let origin = [0, 1].map(|axis| edge(axis, f32::min));
        let end = [2, 3].map(|axis| edge(axis, f32::max));
        Self {
            origin,
            cell: [0, 1].map(|axis| ((end[axis] - origin[axis]) / CELLS as f32).max(1.0)),
            cells: vec![Vec::new(); CELLS * CELLS],
        }
    }

    /// Adds the box of a number; a number may have several.
    pub(crate) fn insert(&mut self, number: usize, bbox: &BBox) {
        for cell in self.reached(bbox) {
            if self.cells[cell].last() != Some(&number) {
                self.cells[cell].push(number);
            }
        }
    }

    /// The numbers of all boxes that overlap this one and of some more, in order.
    pub(crate) fn near(&self, bbox: &BBox) -> Vec<usize> {
        let cells = self.reached(bbox);
        let mut near: Vec<usize> = cells
            .flat_map(|cell| self.cells[cell].iter().copied())
            .collect();
        near.sort_unstable();
        near.dedup();
        near
    }

    /// The cells that a box reaches into.
    fn reached(&self, bbox: &BBox) -> impl Iterator<Item = usize> + use<> {
        let cell = |axis: usize, place: f32| {
            (((place - self.origin[axis]) / self.cell[axis]) as usize).min(CELLS - 1)
        };
        let [left, right] = [0, 2].map(|edge| cell(0, bbox[edge]));
        let [top, bottom] = [1, 3].map(|edge| cell(1, bbox[edge]));
        (top..=bottom).flat_map(move |y| (left..=right).map(move |x| y * CELLS + x))
    }
}
