//! Keypoints from heat maps (torchvision's `heatmaps_to_keypoints`) in ONNX operators, without a loop.
//!
//! torchvision enlarges each heat map to the pixels of its box and takes the largest value. That many pixels of all
//! boxes at once would not fit into memory. Here the heat map is divided into the cells between its places, each with
//! its outermost pixels and an upper bound of all others, and only cells whose bound exceeds the largest pixel known so
//! far are enlarged: first the one with the highest bound, then those that are left, which are few.

use crate::builder::{Builder, Value};
use crate::proto::{Attribute, ElementType};

/// How far a bound must exceed the largest pixel known, relative to it: less is rounding, as where a heat map is flat.
const ROUNDING: f32 = 1e-6;
/// torch's coefficient of bicubic interpolation.
const A: f32 = -0.75;
/// Below all logits.
const NOWHERE: f32 = -3e38;

/// One axis of the boxes: where each begins, its length and its number of pixels, `[K]`.
struct Axis {
    low: Value,
    length: Value,
    pixels: Value,
    /// Pixels of a cell at most, `[1]`.
    most: Value,
}

/// The pixels of cells along an axis, `[.., pixels]`.
struct Pixels {
    /// Which pixel of the box.
    index: Value,
    /// Whether it is one of the cell.
    inside: Value,
    /// How far it is from the first of the cell's two places, 0 to 1.
    offset: Value,
}

/// All pixels of `n` cells.
struct Enlarged {
    /// `[n, rows * columns]`, [`NOWHERE`] outside of the cell.
    values: Value,
    /// Which pixels of the box they are, `[n, columns]` and `[n, rows]`.
    index: [Value; 2],
}

/// The heat maps of all boxes, `[K, P, width, width]` with two more places on each side; `M = K P` in all.
struct HeatMaps {
    padded: Value,
    axes: [Axis; 2],
    points: i64,
    side: i64,
}

/// Keypoints `[K, P, 3]` and their scores `[K, P]`, from heat maps `[K, P, side, side]` of boxes `[K, 4]`.
///
/// `longest` is the longest side of a box, if it is known.
pub(crate) fn keypoints(
    [maps, boxes]: [&Value; 2],
    [points, side]: [usize; 2],
    longest: Option<usize>,
    b: &mut Builder,
) -> [Value; 2] {
    let pads = b.ints(&[0, 0, 2, 2, 0, 0, 2, 2]);
    let maps = HeatMaps {
        padded: b.node("Pad", &[maps, &pads], &[Attribute::Text("mode", "edge")]),
        axes: [0, 1].map(|axis| box_axis(boxes, axis, side as i64, longest, b)),
        points: points as i64,
        side: side as i64,
    };
    let best = maps.best_cells(b);
    let count = b.shape(&best);
    let all = b.range(&count);
    let Enlarged { values, index } = maps.enlarged(&all, &best, b);
    let [score, place] = first(&values, b);
    let of_box = maps.boxes(&all, b);
    let columns = &maps.axes[0].most;
    let places = [
        b.op("Mod", [&place, columns]),
        b.op("Div", [&place, columns]),
    ];
    let [x, y] = [0, 1].map(|i| {
        let axis = &maps.axes[i];
        let pixel = gather_elements(&index[i], &places[i], b);
        let half = b.float(0.5);
        let middle = b.op("Add", [&pixel, &half]);
        let step = b.op("Div", [&axis.length, &axis.pixels]);
        let [step, low] = [&step, &axis.low].map(|x| at(x, &of_box, b));
        let offset = b.op("Mul", [&middle, &step]);
        b.op("Add", [&offset, &low])
    });
    // Every keypoint is called visible.
    let visible = b.op("Equal", [&place, &place]);
    let visible = b.cast(&visible, ElementType::Float);
    let found = b.concat(&[&x, &y, &visible], 1);
    [
        b.reshape(&found, &[-1, maps.points, 3]),
        b.reshape(&score, &[-1, maps.points]),
    ]
}

fn box_axis(boxes: &Value, axis: i64, side: i64, longest: Option<usize>, b: &mut Builder) -> Axis {
    let [low, high] = [axis, axis + 2].map(|i| b.column(boxes, i));
    let one = b.float(1.0);
    let length = b.op("Sub", [&high, &low]);
    let length = b.op("Max", [&length, &one]);
    let pixels = b.op("Ceil", [&length]);
    let most = match longest {
        Some(longest) => b.ints(&[longest as i64 / side + 3]),
        None => {
            // Where there are no boxes there is no largest.
            let least = b.exact_floats("one", &[1], vec![1.0]);
            let all = b.concat(&[&pixels, &least], 0);
            let most = b.reduce("ReduceMax", &all, &[0], true);
            let most = b.cast(&most, ElementType::Int64);
            let (side, more) = (b.ints(&[side]), b.ints(&[3]));
            let most = b.op("Div", [&most, &side]);
            b.op("Add", [&most, &more])
        }
    };
    Axis {
        low,
        length,
        pixels,
        most,
    }
}

impl HeatMaps {
    fn cells(&self) -> i64 {
        self.side + 1
    }

    fn width(&self) -> i64 {
        self.side + 4
    }

    /// The cell of each heat map that has the largest pixel, `[M]`.
    fn best_cells(&self, b: &mut Builder) -> Value {
        let nowhere = b.float(NOWHERE);
        let (outermost, has_more) = self.outermost(b);
        let bound = self.bound(b);
        let bound = b.op("Where", [&has_more, &bound, &nowhere]);
        let all = self.cells() * self.cells();
        let [largest, bound] = [outermost, bound].map(|x| b.reshape(&x, &[-1, all]));
        let open = is_open(&bound, &largest, b);
        let highest = b.reduce("ReduceMax", &bound, &[1], true);
        let is_highest = b.op("Equal", [&bound, &highest]);
        let open = b.op("And", [&open, &is_highest]);
        let largest = self.raised(&largest, &open, b);
        let is_done = b.op("Not", [&open]);
        let open = is_open(&bound, &largest, b);
        let open = b.op("And", [&open, &is_done]);
        let largest = self.raised(&largest, &open, b);
        let [_, best] = first(&largest, b);
        b.squeeze(&best, 1)
    }

    /// The largest pixels of cells, `[M, cells * cells]`, with those of the open ones, which are enlarged.
    fn raised(&self, largest: &Value, open: &Value, b: &mut Builder) -> Value {
        let open = b.places(open);
        let [map, cell] = [0, 1].map(|i| b.column(&open, i));
        let values = self.enlarged(&map, &cell, b).values;
        let values = b.reduce("ReduceMax", &values, &[1], false);
        b.op("ScatterND", [largest, &open, &values])
    }

    /// The largest of each cell's outermost pixels, `[K, P, cells, cells]`, and whether it has others, `[K, 1, cells,
    /// cells]`.
    fn outermost(&self, b: &mut Builder) -> (Value, Value) {
        let (cells, width) = (self.cells() as usize, self.width() as usize);
        let all: Vec<f32> = (0..cells).map(|cell| cell as f32).collect();
        let all = b.exact_floats("cells", &[1, 1, cells, 1], all);
        // Where the four neighbours of each cell are.
        let mut neighbours = vec![0.0; cells * 4 * width];
        for (cell, i) in (0..cells).flat_map(|cell| (0..4).map(move |i| (cell, i))) {
            neighbours[(cell * 4 + i) * width + cell + i] = 1.0;
        }
        let neighbours = b.exact_floats("neighbours", &[1, 1, cells, 4, width], neighbours);
        let [x, y] = [0, 1].map(|axis| {
            let count = b.unsqueeze(&self.axes[axis].pixels, &[1, 2, 3]);
            let pixels = self.pixels(axis, &count, &all, b);
            let (low, high) = (b.float(-1.0), b.float(2.0));
            let first = b.op("Where", [&pixels.inside, &pixels.offset, &high]);
            let first = b.reduce("ReduceMin", &first, &[3], true);
            let last = b.op("Where", [&pixels.inside, &pixels.offset, &low]);
            let last = b.reduce("ReduceMax", &last, &[3], true);
            let zero = b.float(0.0);
            let exists = b.op("GreaterOrEqual", [&last, &zero]);
            // More than two pixels are more than a step and a half long.
            let steps = b.float(1.5 * self.side as f32);
            let two = b.op("Div", [&steps, &count]);
            let length = b.op("Sub", [&last, &first]);
            let has_more = b.op("Greater", [&length, &two]);
            let ends = b.concat(&[&first, &last], 3);
            let weights = weights(&ends, 4, b);
            let matrix = b.op("MatMul", [&weights, &neighbours]);
            let matrix = b.reshape(&matrix, &[-1, 1, 2 * cells as i64, width as i64]);
            (matrix, exists, has_more)
        });
        let values = b.op("MatMul", [&y.0, &self.padded]);
        let across = b.transpose(&x.0, &[0, 1, 3, 2]);
        let values = b.op("MatMul", [&values, &across]);
        let cells = cells as i64;
        let values = b.reshape(&values, &[-1, self.points, cells, 2, cells, 2]);
        let largest = b.reduce("ReduceMax", &values, &[3, 5], false);
        let [columns, more_columns] = [&x.1, &x.2].map(|x| b.transpose(x, &[0, 1, 3, 2]));
        let exists = b.op("And", [&y.1, &columns]);
        let nowhere = b.float(NOWHERE);
        let largest = b.op("Where", [&exists, &largest, &nowhere]);
        let has_more = b.op("Or", [&y.2, &more_columns]);
        (largest, b.op("And", [&exists, &has_more]))
    }

    /// Upper bound of the pixels of each cell, `[K, P, cells, cells]`: the largest of the sixteen control points of the cell's
    /// surface as a Bézier patch. Around each place of a heat map there are nine of them, for each of four cells four.
    fn bound(&self, b: &mut Builder) -> Value {
        let end = self.width();
        let part = |row: i64, column: i64, b: &mut Builder| {
            let rows = b.slice(&self.padded, 2, row, end - 2 + row);
            b.slice(&rows, 3, column, end - 2 + column)
        };
        let place = part(1, 1, b);
        // From a place to the next control point, along each axis and both.
        let third = b.float(-A / 3.0);
        let [left, right] = [part(1, 0, b), part(1, 2, b)];
        let [above, below] = [part(0, 1, b), part(2, 1, b)];
        let across = b.op("Sub", [&right, &left]);
        let across = b.op("Mul", [&across, &third]);
        let down = b.op("Sub", [&below, &above]);
        let down = b.op("Mul", [&down, &third]);
        let [above, below] = [0, 2].map(|row| {
            let [left, right] = [part(row, 0, b), part(row, 2, b)];
            b.op("Sub", [&right, &left])
        });
        let ninth = b.float(A * A / 9.0);
        let both = b.op("Sub", [&below, &above]);
        let both = b.op("Mul", [&both, &ninth]);

        let cells = self.cells();
        let mut all = Vec::new();
        for right in [true, false] {
            let (step, turned) = match right {
                true => ("Add", b.op("Add", [&down, &both])),
                false => ("Sub", b.op("Sub", [&down, &both])),
            };
            let beside = b.op(step, [&place, &across]);
            for is_down in [true, false] {
                let [here, there] = [(&place, &down), (&beside, &turned)].map(|(from, step)| {
                    let step = match is_down {
                        true => step.clone(),
                        false => b.op("Neg", [step]),
                    };
                    let step = b.op("Relu", [&step]);
                    b.op("Add", [from, &step])
                });
                let largest = b.op("Max", [&here, &there]);
                // The place is the first of its cell along an axis, or the second.
                let [row, column] = [i64::from(!is_down), i64::from(!right)];
                let largest = b.slice(&largest, 2, row, row + cells);
                all.push(b.slice(&largest, 3, column, column + cells));
            }
        }
        b.op("Max", [&all[0], &all[1], &all[2], &all[3]])
    }

    /// The boxes that heat maps `[n]` are of, `[n]`.
    fn boxes(&self, map: &Value, b: &mut Builder) -> Value {
        let points = b.int(self.points);
        b.op("Div", [map, &points])
    }

    /// All pixels of cells `[n]` of the heat maps `[n]`.
    fn enlarged(&self, map: &Value, cell: &Value, b: &mut Builder) -> Enlarged {
        let (of_box, cells, width) = (self.boxes(map, b), b.int(self.cells()), self.width());
        let places = [b.op("Mod", [cell, &cells]), b.op("Div", [cell, &cells])];
        let [x, y] = [0, 1].map(|axis| {
            let count = at(&self.axes[axis].pixels, &of_box, b);
            let cell = b.cast(&places[axis], ElementType::Float);
            let cell = b.unsqueeze(&cell, &[1]);
            self.pixels(axis, &count, &cell, b)
        });

        // The sixteen values around each cell.
        let [row_size, map_size] = [width, width * width].map(|size| b.int(size));
        let start = b.op("Mul", [map, &map_size]);
        let rows = b.op("Mul", [&places[1], &row_size]);
        let start = b.op("Add", [&start, &rows]);
        let start = b.op("Add", [&start, &places[0]]);
        let start = b.unsqueeze(&start, &[1]);
        let around = (0..4).flat_map(|i| (0..4).map(move |j| i * width + j));
        let around: Vec<i64> = around.collect();
        let around = b.ints(&around);
        let around = b.op("Add", [&start, &around]);
        let flat = b.reshape(&self.padded, &[-1]);
        let values = b.gather(&flat, &around, 0);
        let values = b.reshape(&values, &[-1, 4, 4]);

        let [rows, columns] = [&y, &x].map(|pixels| weights(&pixels.offset, 2, b));
        let columns = b.transpose(&columns, &[0, 2, 1]);
        let values = b.op("MatMul", [&rows, &values]);
        let values = b.op("MatMul", [&values, &columns]);
        let inside = [b.unsqueeze(&y.inside, &[2]), b.unsqueeze(&x.inside, &[1])];
        let inside = b.op("And", [&inside[0], &inside[1]]);
        let nowhere = b.float(NOWHERE);
        let values = b.op("Where", [&inside, &values, &nowhere]);
        let (keep, area) = (
            b.ints(&[0]),
            b.op("Mul", [&self.axes[0].most, &self.axes[1].most]),
        );
        let shape = b.concat(&[&keep, &area], 0);
        Enlarged {
            values: b.op("Reshape", [&values, &shape]),
            index: [x.index, y.index],
        }
    }

    /// The pixels of cells `[.., 1]` along an axis of boxes of that many: cell 0 lies before the first place of the heat
    /// map.
    fn pixels(&self, axis: usize, count: &Value, cell: &Value, b: &mut Builder) -> Pixels {
        let (half, one) = (b.float(0.5), b.float(1.0));
        let side = b.float(self.side as f32);
        let scale = b.op("Div", [&side, count]);
        // One before the first pixel, as rounding may have it.
        let first = b.op("Sub", [cell, &half]);
        let first = b.op("Div", [&first, &scale]);
        let first = b.op("Sub", [&first, &half]);
        let first = b.op("Floor", [&first]);
        let offsets = b.range(&self.axes[axis].most);
        let offsets = b.cast(&offsets, ElementType::Float);
        let index = b.op("Add", [&first, &offsets]);
        let middle = b.op("Add", [&index, &half]);
        let place = b.op("Mul", [&scale, &middle]);
        let place = b.op("Sub", [&place, &half]);
        let low = b.op("Floor", [&place]);
        let zero = b.float(0.0);
        let from = b.op("GreaterOrEqual", [&index, &zero]);
        let to = b.op("Less", [&index, count]);
        let before = b.op("Sub", [cell, &one]);
        let own = b.op("Equal", [&low, &before]);
        let inside = b.op("And", [&from, &to]);
        Pixels {
            inside: b.op("And", [&inside, &own]),
            offset: b.op("Sub", [&place, &low]),
            index,
        }
    }
}

/// Whether a cell may have a pixel that is larger than all those known of its heat map, `[M, cells * cells]`.
fn is_open(bound: &Value, largest: &Value, b: &mut Builder) -> Value {
    let known = b.reduce("ReduceMax", largest, &[1], true);
    let (size, part) = (b.op("Abs", [&known]), b.float(ROUNDING));
    let margin = b.op("Mul", [&size, &part]);
    let least = b.op("Add", [&known, &margin]);
    b.op("Greater", [bound, &least])
}

/// The largest of each row and its column, `[rows, 1]`.
fn first(x: &Value, b: &mut Builder) -> [Value; 2] {
    let one = b.ints(&[1]);
    b.nodes("TopK", &[x, &one], &[Attribute::Int("axis", 1)])
}

/// The boxes' rows of a vector, `[n, 1]`.
fn at(x: &Value, boxes: &Value, b: &mut Builder) -> Value {
    let x = b.gather(x, boxes, 0);
    b.unsqueeze(&x, &[1])
}

/// One element of each row, by its column `[rows, 1]`.
fn gather_elements(x: &Value, column: &Value, b: &mut Builder) -> Value {
    b.node("GatherElements", &[x, column], &[Attribute::Int("axis", 1)])
}

/// How much the four neighbours of pixels count, along a new axis, the last.
fn weights(offset: &Value, axis: i64, b: &mut Builder) -> Value {
    let one = b.float(1.0);
    let rest = b.op("Sub", [&one, offset]);
    let weights = [
        far(offset, b),
        near(offset, b),
        near(&rest, b),
        far(&rest, b),
    ];
    let weights = weights.map(|weight| b.unsqueeze(&weight, &[axis]));
    let weights: Vec<&Value> = weights.iter().collect();
    b.concat(&weights, axis)
}

/// Weight of a place that is less than one away.
fn near(x: &Value, b: &mut Builder) -> Value {
    let [two, three, one] = [A + 2.0, A + 3.0, 1.0].map(|value| b.float(value));
    let y = b.op("Mul", [&two, x]);
    let y = b.op("Sub", [&y, &three]);
    let y = b.op("Mul", [&y, x]);
    let y = b.op("Mul", [&y, x]);
    b.op("Add", [&y, &one])
}

/// Weight of a place that is one more than this away.
fn far(x: &Value, b: &mut Builder) -> Value {
    let [one, a, five, eight, four] =
        [1.0, A, 5.0 * A, 8.0 * A, 4.0 * A].map(|value| b.float(value));
    let x = b.op("Add", [x, &one]);
    let y = b.op("Mul", [&a, &x]);
    let y = b.op("Sub", [&y, &five]);
    let y = b.op("Mul", [&y, &x]);
    let y = b.op("Add", [&y, &eight]);
    let y = b.op("Mul", [&y, &x]);
    b.op("Sub", [&y, &four])
}
