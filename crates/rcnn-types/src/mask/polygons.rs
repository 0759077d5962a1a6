//! Polygons to masks, by the rule of `pycocotools`, and back.

use std::collections::{BTreeMap, BTreeSet};

use super::Mask;
use crate::Size;

/// Steps of a pixel that edges are drawn in.
const STEPS: f64 = 5.0;

/// A corner of a polygon in fifths of a pixel.
type Point = [i64; 2];

impl Mask {
    /// The pixels within any of some polygons `x, y, x, y, ...`, bit for bit as `pycocotools.mask.frPyObjects`
    /// and `merge` have them: corners are rounded to a fifth of a pixel and edges drawn in such steps.
    ///
    /// # Panics
    /// When the image has 2^32 pixels or more.
    pub fn from_polygons(polygons: &[Vec<f64>], size: Size) -> Self {
        let masks = polygons.iter().map(|polygon| from_polygon(polygon, size));
        let union = masks.reduce(|all, mask| all.union(&mask));
        union.unwrap_or_else(|| Self::empty(size))
    }

    /// Polygons along the edges of pixels, from which [`from_polygons`](Self::from_polygons) makes this mask
    /// again: one for each connected part, corners `x, y, x, y, ...`. A hole is a loop of the polygon
    /// around it, to and from which an edge leads.
    pub fn to_polygons(&self) -> Vec<Vec<f64>> {
        let (holes, outer): (Vec<_>, Vec<_>) = loops(self).into_iter().partition(Loop::is_hole);
        let mut polygons: Vec<Vec<[usize; 2]>> = outer.iter().map(|l| l.corners.clone()).collect();
        for hole in holes {
            let around = outer
                .iter()
                .enumerate()
                .filter(|(_, l)| l.contains(hole.pixel));
            // Of several, the innermost.
            let Some((index, _)) = around.min_by_key(|(_, l)| l.doubled) else {
                continue;
            };
            let start = outer[index].corners[0];
            if polygons[index].len() == outer[index].corners.len() {
                polygons[index].push(start);
            }
            polygons[index].extend(&hole.corners);
            polygons[index].extend([hole.corners[0], start]);
        }
        let numbers = |polygon: Vec<[usize; 2]>| {
            let numbers = polygon.into_iter().flatten();
            numbers.map(|v| v as f64).collect()
        };
        polygons.into_iter().map(numbers).collect()
    }
}

/// `rleFrPoly` of pycocotools: where the outline crosses the middle of a column, pixels below it change
/// sides. Only those places are computed, so that corners far outside the image cost nothing.
fn from_polygon(polygon: &[f64], size: Size) -> Mask {
    let limit = f64::from(i32::MAX);
    let corner = |xy: &[f64]| {
        // Truncated, as by C's conversion to integers.
        let step = |v: f64| (STEPS * v + 0.5).clamp(-limit, limit) as i64;
        [step(xy[0]), step(xy[1])]
    };
    let corners: Vec<Point> = polygon.chunks_exact(2).map(corner).collect();
    let mut crossings = Vec::new();
    for (index, &from) in corners.iter().enumerate() {
        let to = corners[(index + 1) % corners.len()];
        Edge::new(from, to).crossings(size, &mut crossings);
    }
    crossings.sort_unstable();
    // From each crossing of an odd number to the next; the last may end with the image.
    let total = size.pixels();
    let runs = crossings.chunks(2);
    let runs = runs.map(|pair| (pair[0], pair.get(1).copied().unwrap_or(total)));
    Mask::from_runs(size, runs)
}

/// An edge of a polygon as a row of points, one for each step along its longer side.
struct Edge {
    from: Point,
    /// Which of x and y the longer side is.
    long: usize,
    length: i64,
    /// Steps of the shorter side for one of the longer.
    slope: f64,
}

impl Edge {
    fn new(mut from: Point, mut to: Point) -> Self {
        let sides = [0, 1].map(|axis| (to[axis] - from[axis]).abs());
        let long = if sides[0] >= sides[1] { 0 } else { 1 };
        if from[long] > to[long] {
            (from, to) = (to, from);
        }
        let length = sides[long];
        let short = (to[1 - long] - from[1 - long]) as f64;
        Self {
            from,
            long,
            length,
            slope: short / length.max(1) as f64,
        }
    }

    fn point(&self, step: i64) -> Point {
        let short = self.from[1 - self.long] as f64 + self.slope * step as f64 + 0.5;
        let mut point = self.from;
        point[self.long] += step;
        point[1 - self.long] = short as i64;
        point
    }

    /// Adds the place, counted down the columns, of each crossing of the middle of a column.
    fn crossings(&self, size: Size, crossings: &mut Vec<usize>) {
        let (first, last) = (self.point(0)[0], self.point(self.length)[0]);
        let (low, high) = (first.min(last), first.max(last));
        // The middle of column x lies between the steps 5x + 2 and 5x + 3.
        let column = |step: i64| (step - 2).div_euclid(STEPS as i64);
        let columns = (column(low - 1) + 1).max(0)..(column(high - 1) + 1).min(size.width as i64);
        for x in columns {
            let middle = x * STEPS as i64 + 2;
            // Both sides run one way only: the last point that is not beyond the middle.
            let beyond = |step: i64| (self.point(step)[0] > middle) == (last > first);
            let (mut before, mut after) = (0, self.length);
            while after - before > 1 {
                let half = (before + after) / 2;
                if beyond(half) {
                    after = half;
                } else {
                    before = half;
                }
            }
            let y = self.point(before)[1].min(self.point(after)[1]);
            let y = (y as f64 + 0.5) / STEPS - 0.5;
            let y = y.clamp(0.0, size.height as f64).ceil() as usize;
            crossings.push(x as usize * size.height + y);
        }
    }
}

/// A closed line along the edges of pixels, with the object at its right.
struct Loop {
    corners: Vec<[usize; 2]>,
    /// Twice the area, negative for a hole.
    doubled: i64,
    /// A pixel of the object, `[x, y]`, beside the line.
    pixel: [usize; 2],
}

impl Loop {
    fn is_hole(&self) -> bool {
        self.doubled < 0
    }

    /// Whether the middle of a pixel is within the line.
    fn contains(&self, [x, y]: [usize; 2]) -> bool {
        let next = self.corners.iter().cycle().skip(1);
        // Vertical edges to the right of the pixel.
        let crossed = self.corners.iter().zip(next).filter(|(a, b)| {
            let rows = a[1].min(b[1])..a[1].max(b[1]);
            a[0] == b[0] && a[0] > x && rows.contains(&y)
        });
        crossed.count() % 2 == 1
    }
}

/// The directions of edges, in the order of right turns: right, down, left, up.
const DIRECTIONS: [[isize; 2]; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];

/// The closed lines around the object, its parts connected where pixels share an edge.
fn loops(mask: &Mask) -> Vec<Loop> {
    let Size { height, width } = mask.size;
    let bits = mask.to_bits();
    let object = |x: Option<usize>, y: Option<usize>| match (x, y) {
        (Some(x), Some(y)) => x < width && y < height && bits[y * width + x],
        _ => false,
    };
    // The edges that begin at a corner, by direction, with the pixel at their right.
    let mut edges: BTreeMap<[usize; 2], [Option<[usize; 2]>; 4]> = BTreeMap::new();
    for (x, top, bottom) in mask.segments() {
        for y in top..bottom {
            let sides = [
                (Some(x), y.checked_sub(1), [x, y]),
                (Some(x + 1), Some(y), [x + 1, y]),
                (Some(x), Some(y + 1), [x + 1, y + 1]),
                (x.checked_sub(1), Some(y), [x, y + 1]),
            ];
            for (direction, (nx, ny, start)) in sides.into_iter().enumerate() {
                if !object(nx, ny) {
                    edges.entry(start).or_default()[direction] = Some([x, y]);
                }
            }
        }
    }
    let mut seen = BTreeSet::new();
    let mut loops = Vec::new();
    for (&start, begun) in &edges {
        for (first, pixel) in begun.iter().enumerate() {
            let Some(pixel) = pixel.filter(|_| !seen.contains(&(start, first))) else {
                continue;
            };
            let (mut corners, mut doubled) = (Vec::new(), 0);
            let (mut at, mut direction, mut turned) = (start, first, true);
            while seen.insert((at, direction)) {
                if turned {
                    corners.push(at);
                }
                let step = DIRECTIONS[direction];
                let end = [0, 1].map(|axis| at[axis].wrapping_add_signed(step[axis]));
                doubled += at[0] as i64 * end[1] as i64 - end[0] as i64 * at[1] as i64;
                // A right turn first: it stays with the pixel where two meet at a corner.
                let turns = [1, 0, 3].map(|turn| (direction + turn) % 4);
                let begins = |next: &usize| edges.get(&end).is_some_and(|e| e[*next].is_some());
                let next = turns.into_iter().find(begins).unwrap_or(direction);
                turned = next != direction;
                (at, direction) = (end, next);
            }
            loops.push(Loop {
                corners,
                doubled,
                pixel,
            });
        }
    }
    loops
}
