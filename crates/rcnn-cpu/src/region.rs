//! Regions of an output, which threads write in disjoint places.

use std::marker::PhantomData;
use std::ops::Range;

use crate::block::prefetch;

/// Which of a [`Region`]'s axes.
#[derive(Clone, Copy)]
pub(crate) enum Axis {
    Plane,
    Row,
    Column,
}

/// Planes of rows of elements of a slice, which only the holder reaches.
///
/// A thread computes parts of many rows of an image, which no splitting into subslices
/// expresses. A region is split along its axes instead, into regions that different threads write.
pub(crate) struct Region<'a, T> {
    data: *mut T,
    /// Planes, rows of each, and columns of each of these.
    sizes: [usize; 3],
    /// Elements from each plane to the next, and from each row to the next.
    strides: [usize; 2],
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a region is an exclusive reference to its elements, in another shape.
unsafe impl<T: Send> Send for Region<'_, T> {}

impl<'a, T> Region<'a, T> {
    /// All of a slice that has these planes, rows and columns.
    pub(crate) fn whole(slice: &'a mut [T], sizes @ [_, rows, columns]: [usize; 3]) -> Self {
        Self::new(slice, sizes, [rows * columns, columns])
    }

    /// Planes and rows of a slice that start `strides` elements apart; panics if they overlap or are not
    /// all there.
    pub(crate) fn new(slice: &'a mut [T], sizes: [usize; 3], strides: [usize; 2]) -> Self {
        let [planes, rows, columns] = sizes;
        assert!(rows <= 1 || columns <= strides[1]);
        let plane = rows.saturating_sub(1) * strides[1] + columns;
        assert!(planes <= 1 || plane <= strides[0]);
        let empty = planes == 0 || rows == 0;
        assert!(empty || (planes - 1) * strides[0] + plane <= slice.len());
        Self {
            data: slice.as_mut_ptr(),
            sizes,
            strides,
            slice: PhantomData,
        }
    }

    /// Elements along an axis.
    #[inline(always)]
    pub(crate) fn size(&self, axis: Axis) -> usize {
        self.sizes[axis as usize]
    }

    /// The parts before `at` and from `at` on along an axis.
    pub(crate) fn split(self, axis: Axis, at: usize) -> (Self, Self) {
        let size = self.size(axis);
        assert!(at <= size);
        let step = match axis {
            Axis::Plane => self.strides[0],
            Axis::Row => self.strides[1],
            Axis::Column => 1,
        };
        let part = |data, size| {
            let mut sizes = self.sizes;
            sizes[axis as usize] = size;
            Self {
                data,
                sizes,
                ..self
            }
        };
        // Where the second part is empty it may start anywhere, for nothing is reached through it.
        let rest = self.data.wrapping_add(at * step);
        (part(self.data, at), part(rest, size - at))
    }

    /// Parts of `step` along an axis, the last one perhaps smaller.
    pub(crate) fn chunks(self, axis: Axis, step: usize) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let region = rest.take().filter(|region| region.size(axis) > 0)?;
            let at = step.clamp(1, region.size(axis));
            let (first, after) = region.split(axis, at);
            rest = Some(after);
            Some(first)
        })
    }

    /// A part along an axis, for a while.
    pub(crate) fn part(&mut self, axis: Axis, range: Range<usize>) -> Region<'_, T> {
        let whole = Region { ..*self };
        let (before, _) = whole.split(axis, range.end);
        before.split(axis, range.start).1
    }

    /// The only row of each plane as rows of `columns`, the last one's rest left out.
    pub(crate) fn fold(self, columns: usize) -> Self {
        assert_eq!(self.size(Axis::Row), 1);
        let rows = self.size(Axis::Column) / columns;
        Self {
            sizes: [self.sizes[0], rows, columns],
            strides: [self.strides[0], columns],
            ..self
        }
    }

    /// A row.
    #[inline(always)]
    pub(crate) fn row(&mut self, plane: usize, row: usize) -> &mut [T] {
        let [planes, rows, columns] = self.sizes;
        assert!(plane < planes && row < rows);
        let at = plane * self.strides[0] + row * self.strides[1];
        // SAFETY: as `new` has asserted, and each split kept, the row lies in the slice, and no other
        // row or region has elements of it; `self` is borrowed as long as the result.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(at), columns) }
    }

    /// `W` elements from a column on, of each of `N` rows of the first plane.
    #[inline(always)]
    pub(crate) fn parts<const N: usize, const W: usize>(
        &mut self,
        first_row: usize,
        column: usize,
    ) -> [&mut [T; W]; N] {
        let [planes, rows, columns] = self.sizes;
        assert!(planes > 0 && first_row <= rows && N <= rows - first_row);
        assert!(column <= columns && W <= columns - column);
        std::array::from_fn(|i| {
            let at = (first_row + i) * self.strides[1] + column;
            // SAFETY: as in `row`, and these are of different rows.
            unsafe { &mut *self.data.add(at).cast() }
        })
    }

    /// Where the first plane's first row starts, and elements from each row to the next.
    pub(crate) fn rows_mut(&mut self) -> (*mut T, usize) {
        (self.data, self.strides[1])
    }

    /// The elements at a place in all planes, of which there are `N`.
    #[inline(always)]
    pub(crate) fn pillar<const N: usize>(&mut self, row: usize, column: usize) -> Pillar<'_, T, N> {
        let [planes, rows, columns] = self.sizes;
        assert!(planes == N && row < rows && column < columns);
        Pillar {
            data: self.data.wrapping_add(row * self.strides[1] + column),
            stride: self.strides[0],
            slice: PhantomData,
        }
    }

    /// Has a place in all `N` planes brought into cache, be it there or not.
    #[inline(always)]
    pub(crate) fn prefetch<const N: usize>(&self, row: usize, column: usize) {
        let at = self.data.wrapping_add(row * self.strides[1] + column);
        for plane in 0..N {
            prefetch(at.wrapping_add(plane * self.strides[0]));
        }
    }
}

/// An element of each of `N` planes of a [`Region`].
pub(crate) struct Pillar<'a, T, const N: usize> {
    data: *mut T,
    stride: usize,
    slice: PhantomData<&'a mut [T]>,
}

impl<T, const N: usize> Pillar<'_, T, N> {
    #[inline(always)]
    pub(crate) fn get(&mut self, plane: usize) -> &mut T {
        assert!(plane < N);
        // SAFETY: the region has this row and column in all its planes, as `pillar` has asserted, and is
        // borrowed as long as this.
        unsafe { &mut *self.data.add(plane * self.stride) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each part of a split region reaches its own elements and no others.
    #[test]
    fn parts_are_disjoint() {
        let mut slice = vec![0; 2 * 13];
        let region = Region::new(&mut slice, [2, 3, 4], [13, 4]);
        let mut next = 0;
        for rows in region.chunks(Axis::Row, 2) {
            for mut part in rows.chunks(Axis::Column, 3) {
                next += 1;
                for plane in 0..2 {
                    for row in 0..part.size(Axis::Row) {
                        for element in part.row(plane, row) {
                            assert_eq!(std::mem::replace(element, next), 0);
                        }
                    }
                }
            }
        }
        let plane = [1, 1, 1, 2, 1, 1, 1, 2, 3, 3, 3, 4, 0];
        assert_eq!(slice, [plane, plane].concat());
    }

    #[test]
    fn folded_rows_follow_each_other() {
        let mut slice: Vec<usize> = (0..14).collect();
        let region = Region::new(&mut slice, [2, 1, 7], [7, 7]);
        let mut folded = region.fold(3);
        assert_eq!(folded.row(1, 1), [10, 11, 12]);
        assert_eq!(folded.parts(0, 1), [&mut [1, 2], &mut [4, 5]]);
        assert_eq!(*folded.pillar::<2>(1, 0).get(1), 10);
        assert_eq!(folded.part(Axis::Row, 1..2).row(0, 0), [3, 4, 5]);
    }

    #[test]
    #[should_panic]
    fn rows_that_overlap_are_refused() {
        Region::new(&mut [0; 8], [1, 2, 4], [0, 3]);
    }
}
